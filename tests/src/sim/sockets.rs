//! The driver's side of one worker's client sockets.

use std::collections::{BTreeMap, BTreeSet};
use std::io::IoSlice;

use fanfare_core::error::{Error, Misuse};
use fanfare_core::exchange::WorkerId;
use fanfare_core::shard::{self, SessionId};

use super::ground::{Got, Ground, Port};
use super::instance::Instance;
use super::verdict::Promise;
use super::walk::Walk;

/// One read of a client.
const READ_BYTES: usize = 16 << 10;
/// Slices of one write.
const SLICES: usize = 8;

#[derive(Default)]
pub(super) struct Sockets {
    by_id: BTreeMap<SessionId, Socket>,
    by_port: BTreeMap<Port, SessionId>,
    /// Something may be there to read, or room to write.
    ready: BTreeSet<Port>,
    /// Named by the shard, and not written yet.
    named: Vec<SessionId>,
}

struct Socket {
    port: Port,
    visit: usize,
    blocked: bool,
    /// The shard said that it must not be read for now.
    unread: bool,
    /// The shard wants it to be looked at.
    named: bool,
    /// The end of its stream was read.
    ended: bool,
    walk: Walk,
}

impl Sockets {
    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }

    pub(super) fn is_ready(&self) -> bool {
        !self.ready.is_empty() || !self.named.is_empty()
    }

    pub(super) fn insert(&mut self, id: SessionId, port: Port, visit: usize) {
        let socket =
            Socket { port, visit, blocked: false, unread: false, named: false, ended: false, walk: Walk::default() };
        self.by_id.insert(id, socket);
        self.by_port.insert(port, id);
        self.ready.insert(port);
    }

    pub(super) fn wake(&mut self, port: Port) {
        if self.by_port.contains_key(&port) {
            self.ready.insert(port);
        }
    }

    /// Sessions by visit.
    pub(super) fn visits(&self) -> impl Iterator<Item = (usize, SessionId)> {
        self.by_id.iter().map(|(&id, socket)| (socket.visit, id))
    }

    fn remove(&mut self, id: SessionId) -> Option<Socket> {
        let socket = self.by_id.remove(&id)?;
        self.by_port.remove(&socket.port);
        self.ready.remove(&socket.port);
        Some(socket)
    }
}

impl Instance {
    /// Each socket that is ready is read once.
    pub(super) fn turn_sockets(&mut self, worker: WorkerId, ground: &mut Ground) {
        let mut ready: Vec<Port> = std::mem::take(&mut self.workers[worker].sockets.ready).into_iter().collect();
        if self.is_lazy() {
            self.rng.shuffle(&mut ready);
            let later = ready.split_off(self.rng.usize(0..=ready.len()));
            self.workers[worker].sockets.ready.extend(later);
        }
        for port in ready {
            if let Some(&id) = self.workers[worker].sockets.by_port.get(&port) {
                self.turn_socket(worker, id, ground);
            }
        }
    }

    fn turn_socket(&mut self, worker: WorkerId, id: SessionId, ground: &mut Ground) {
        let now = self.clock(ground);
        let Some(socket) = self.workers[worker].sockets.by_id.get_mut(&id) else { return };
        let (port, visit, unread, ended) = (socket.port, socket.visit, socket.unread, socket.ended);
        let named = std::mem::take(&mut socket.named);
        if std::mem::take(&mut socket.blocked) {
            self.shard(worker).handle_writable(id);
        }
        let is_readable = ground.is_readable(port);
        if ended && self.is_lazy() && self.rng.u8(..16) == 0 {
            // Some runtimes say twice that a stream has ended.
            self.shard(worker).handle_eof(id, now);
        }
        if ended || !named && (unread || !is_readable) {
            return;
        }
        if !self.shard(worker).handle_readable(id, now) {
            if let Some(socket) = self.workers[worker].sockets.by_id.get_mut(&id) {
                socket.unread = true;
            }
            return;
        }
        let mut scratch = std::mem::take(&mut self.scratch);
        let most = if self.is_lazy() { self.rng.usize(1..=READ_BYTES) } else { READ_BYTES };
        match ground.read(port, &mut scratch[..most]) {
            Got::Nothing => {}
            Got::Bytes(n) => {
                self.workers[worker].moved += 1;
                if ground.is_readable(port) {
                    self.workers[worker].sockets.ready.insert(port);
                }
                let before = self.shard(worker).stats().messages_in;
                self.shard(worker).handle_read(id, &mut scratch[..n], now);
                let taken_in = self.shard(worker).stats().messages_in - before;
                note_messages(visit, ground.taken(port), taken_in as usize, ground);
            }
            Got::End => {
                self.workers[worker].moved += 1;
                if let Some(socket) = self.workers[worker].sockets.by_id.get_mut(&id) {
                    socket.ended = true;
                }
                self.shard(worker).handle_eof(id, now);
            }
            Got::Broken => {
                self.workers[worker].moved += 1;
                ground.reference.visits[visit].excuses.gone = true;
                self.shard(worker).handle_reset(id);
            }
        }
        self.scratch = scratch;
    }

    /// Writes to sessions that were named. What was written is acknowledged before any other input; a lazy driver
    /// writes to several first.
    pub(super) fn write_sockets(&mut self, worker: WorkerId, ground: &mut Ground) {
        while let Some(id) = self.shard(worker).poll_transmit() {
            let named = &mut self.workers[worker].sockets.named;
            if !named.contains(&id) {
                named.push(id);
            }
        }
        let mut named = std::mem::take(&mut self.workers[worker].sockets.named);
        if self.is_lazy() {
            self.rng.shuffle(&mut named);
            self.workers[worker].sockets.named = named.split_off(self.rng.usize(0..=named.len()));
        }
        let mut written = Vec::with_capacity(named.len());
        for id in named {
            match self.write_socket(worker, id, ground) {
                Some(Ok(0)) => {
                    self.shard(worker).blocked(id);
                    if let Some(socket) = self.workers[worker].sockets.by_id.get_mut(&id) {
                        socket.blocked = true;
                    }
                }
                Some(Ok(n)) => written.push((id, n)),
                Some(Err(visit)) => {
                    ground.reference.visits[visit].excuses.gone = true;
                    self.shard(worker).handle_reset(id);
                }
                None => {}
            }
        }
        if self.is_lazy() {
            self.rng.shuffle(&mut written);
        }
        let now = self.clock(ground);
        for (id, n) in written {
            self.workers[worker].moved += 1;
            match self.shard(worker).transmitted(id, n, now) {
                Ok(()) | Err(Misuse::NoSuchSession) => {}
                Err(misuse) => ground.fail(Promise::Protocol, format!("what was lent is not known: {misuse}")),
            }
        }
        while let Some(id) = self.shard(worker).poll_readable() {
            let sockets = &mut self.workers[worker].sockets;
            if let Some(socket) = sockets.by_id.get_mut(&id) {
                socket.unread = false;
                socket.named = true;
                sockets.ready.insert(socket.port);
            }
        }
    }

    /// Writes what is lent as far as the socket takes it; `None` if nothing is lent. An error names the visit.
    fn write_socket(&mut self, worker: WorkerId, id: SessionId, ground: &mut Ground) -> Option<Result<usize, usize>> {
        let most = if self.is_lazy() { self.rng.usize(1..=SLICES) } else { SLICES };
        let number = self.number;
        let (shard, sockets) = self.shard_and_sockets(worker);
        let socket = sockets.by_id.get_mut(&id)?;
        let mut slices = [IoSlice::new(&[]); SLICES];
        let filled = shard.transmit(id, &mut slices[..most]);
        if filled == 0 {
            return None;
        }
        let lent = &slices[..filled];
        if let Err((promise, what)) = socket.walk.look(number, lent, &mut ground.reference) {
            ground.fail(promise, what);
        }
        let result = ground.write(socket.port, lent);
        if let Ok(n) = result {
            socket.walk.pass(lent, n);
        }
        Some(result.map_err(|()| socket.visit))
    }

    pub(super) fn take_events(&mut self, worker: WorkerId, ground: &mut Ground) {
        let number = self.number;
        while let Some(event) = self.shard(worker).poll_event() {
            self.workers[worker].moved += 1;
            let sockets = &mut self.workers[worker].sockets;
            match event {
                shard::Event::Opened(id) => {
                    if let Some(socket) = sockets.by_id.get(&id) {
                        ground.reference.opened(socket.visit, ground.now);
                        let client = ground.reference.visits[socket.visit].client;
                        ground.tell(|| format!("instance {number}: client {client} is open"));
                    }
                }
                shard::Event::EndWrites(id) => {
                    if let Some(socket) = sockets.by_id.get(&id) {
                        ground.finish(socket.port);
                    }
                }
                shard::Event::Closed(id, closed) => {
                    let Some(socket) = sockets.remove(id) else { continue };
                    ground.close(socket.port);
                    let client = ground.reference.visits[socket.visit].client;
                    ground.tell(|| format!("instance {number}: client {client} is gone: {closed:?}"));
                    if matches!(closed.error, Some(Error::ReadOnly | Error::FrameType)) {
                        self.rejected += 1;
                    }
                    let verdict = ground.reference.closed(socket.visit, closed, ground.now);
                    ground.judge(verdict);
                }
                _ => {}
            }
        }
    }

    fn shard_and_sockets(&mut self, worker: WorkerId) -> (&shard::Shard, &mut Sockets) {
        use super::instance::Machines;
        let shard = match &self.machines {
            Machines::Node(node) => &node.shard,
            Machines::Apart { shards, .. } => &shards[worker],
        };
        (shard, &mut self.workers[worker].sockets)
    }
}

/// `taken` bytes of the client's stream were read, and `taken_in` messages were in the last of them by the shard's count.
fn note_messages(visit: usize, taken: u64, taken_in: usize, ground: &mut Ground) {
    let view = &mut ground.reference.visits[visit];
    let mut read = 0;
    while view.sent.front().is_some_and(|&(end, _)| end <= taken) {
        view.sent.pop_front();
        read += 1;
    }
    view.untaken += read;
    if taken_in > view.untaken + usize::from(view.excuses.rude.is_some()) {
        let what = format!("client {}: {taken_in} messages were taken in, {read} had come", view.client);
        ground.fail(Promise::Protocol, what);
    } else {
        let view = &mut ground.reference.visits[visit];
        view.untaken = view.untaken.saturating_sub(taken_in);
    }
}
