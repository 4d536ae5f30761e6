//! The clients' connections of one worker.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use super::bells::{Bell, Bells};
use super::kernel;
use super::runtime::{HungUp, Stream};
use fanfare_core::shard::{SessionId, Shard};
use fanfare_core::time::{Duration, Instant};

/// One read of a client takes at most so much, so that a flood delays others by no more than this.
const READ_BYTES: usize = 16 << 10;
/// One read takes at least so much, however many clients have something to say.
const LEAST_READ_BYTES: usize = 2 << 10;
/// Slices of one write, which is enough for nearly all.
const SLICES: usize = 4;
/// Slices of one write to a connection that has more to get.
const MANY_SLICES: usize = 64;
/// A write takes no more slices once they hold so much.
const WRITE_BYTES: usize = 64 << 10;
/// What reads, and what writes, of one turn may cost. That is some 10 ms on the machines this was measured on.
const TURN_COST: usize = 8 << 20;
/// What a read or a write costs beside its bytes.
const CALL_COST: usize = 4 << 10;
/// What a slice of a write costs beside its bytes.
const SLICE_COST: usize = 128;
/// Those that may not be read are looked at so often, and so many of them at a time, which takes some 1 ms.
const LOOK_TIME: Duration = Duration::from_millis(100);
const LOOKS_AT_ONCE: usize = 1 << 10;

/// How far the reads, or the writes, of a turn may go.
pub(super) struct Budget(usize);

impl Budget {
    pub(super) const fn turn() -> Self {
        Self(TURN_COST)
    }

    pub(super) const fn is_left(&self) -> bool {
        self.0 > 0
    }

    fn spend(&mut self, cost: usize) {
        self.0 = self.0.saturating_sub(CALL_COST + cost);
    }
}

/// All clients' connections of one worker, by the index of their session.
pub(super) struct Sockets<S> {
    table: Vec<Option<Socket<S>>>,
    /// Those whose sessions are over and whose places are others' already: they have yet to be ended, as their events say.
    leaving: Vec<Socket<S>>,
    bells: Arc<Bells<SessionId>>,
    /// Those that had something to do when the list was taken last, and have yet to be looked at.
    ready: VecDeque<SessionId>,
    /// What one read takes of each of those.
    read_bytes: usize,
    patience: Duration,
    /// Those that may not be read, so that no read says when their peers hang up; among them some that may again.
    unread: VecDeque<SessionId>,
    /// When the next of them are looked at.
    look_at: Instant,
}

/// One client's connection. There is no task and no buffer behind it.
struct Socket<S> {
    id: SessionId,
    stream: S,
    bell: Arc<Bell<SessionId>>,
    /// Rings the bell.
    waker: Waker,
    /// Waits until it takes bytes again.
    blocked: bool,
    /// The shard wants to know what has arrived, whether or not the runtime has heard of anything.
    named: bool,
    /// It is on the list of those that may not be read.
    unread: bool,
}

impl<S: Stream> Sockets<S> {
    /// For connections that the system itself ends if a peer takes nothing for `patience`.
    pub(super) fn new(patience: Duration) -> Self {
        Self {
            table: Vec::new(),
            leaving: Vec::new(),
            bells: Arc::default(),
            ready: VecDeque::new(),
            read_bytes: READ_BYTES,
            patience,
            unread: VecDeque::new(),
            look_at: Instant::ZERO,
        }
    }

    pub(super) fn insert(&mut self, id: SessionId, stream: S) {
        if let Some(socket) = stream.socket() {
            kernel::limit(socket, self.patience);
        }
        if self.table.len() <= id.index() {
            self.table.resize_with(id.index() + 1, || None);
        }
        let bell = self.bells.bell(id);
        bell.ring();
        let waker = Waker::from(bell.clone());
        let socket = Socket { id, stream, bell, waker, blocked: false, named: false, unread: false };
        self.leaving.extend(self.table[id.index()].replace(socket));
    }

    pub(super) fn remove(&mut self, id: SessionId) {
        match self.table.get_mut(id.index()) {
            Some(place) if place.as_ref().is_some_and(|socket| socket.id == id) => *place = None,
            _ => self.leaving.retain(|socket| socket.id != id),
        }
    }

    /// Looks at those that have something to do, each once, as far as a turn may go; the others come first in the next
    /// turn. Says whether all were looked at that had something to do when the list was taken.
    pub(super) fn read(&mut self, shard: &mut Shard, scratch: &mut [u8], now: Instant) -> bool {
        if self.ready.is_empty() {
            self.ready = self.bells.take().into();
            // The more have something to say, the less of each, so that nobody waits long for the others.
            self.read_bytes = (TURN_COST / 8 / self.ready.len().max(1)).clamp(LEAST_READ_BYTES, READ_BYTES);
        }
        let mut budget = Budget::turn();
        while budget.is_left()
            && let Some(id) = self.ready.pop_front()
        {
            self.turn(id, shard, scratch, &mut budget, now);
        }
        self.ready.is_empty()
    }

    /// Has `worker` woken by the next that has something to do; says no if one already has.
    pub(super) fn sleep(&self, worker: &Waker) -> bool {
        self.ready.is_empty() && self.bells.sleep(worker)
    }

    /// The shard has named a session to be read: puts its connection on the list. Says no if there is none.
    pub(super) fn name(&mut self, id: SessionId) -> bool {
        let socket = self.get(id);
        let is_here = socket.is_some();
        if let Some(socket) = socket {
            socket.named = true;
            socket.bell.ring();
        }
        is_here
    }

    /// One from the list: tells the shard that it may take bytes again, and reads it once.
    fn turn(&mut self, id: SessionId, shard: &mut Shard, scratch: &mut [u8], budget: &mut Budget, now: Instant) {
        let read_bytes = self.read_bytes;
        budget.spend(0);
        let Some(Socket { stream, bell, waker, blocked, named, .. }) = self.get(id) else { return };
        bell.hush();
        let mut context = Context::from_waker(waker);
        stream.advance(&mut context);
        // If it rang for something else, the next write says so at little cost.
        if std::mem::take(blocked) {
            shard.handle_writable(id);
        }
        let named = std::mem::take(named);
        if !shard.handle_readable(id, now) {
            return self.watch(id, shard, now);
        }
        let mut read = stream.poll_read(&mut context, &mut scratch[..read_bytes]);
        if named && read.is_pending() {
            read = stream.poll_read_now(&mut context, &mut scratch[..read_bytes]);
        }
        match read {
            Poll::Pending => {}
            Poll::Ready(Err(_)) => shard.handle_reset(id),
            Poll::Ready(Ok(0)) => {
                shard.handle_eof(id, now);
                self.watch(id, shard, now);
            }
            Poll::Ready(Ok(read)) => {
                if stream.poll_readable(&mut context).is_ready() {
                    bell.ring();
                }
                // Small frames cost more than their bytes are copied for.
                budget.spend(8 * read);
                shard.handle_read(id, &mut scratch[..read], now);
            }
        }
    }

    /// Puts one that nobody reads on the list of those that are looked at.
    fn watch(&mut self, id: SessionId, shard: &Shard, now: Instant) {
        // Most may be read again before that.
        let look_at = if self.unread.is_empty() { now + LOOK_TIME } else { self.look_at };
        let Some(socket) = self.get(id).filter(|_| shard.is_unread(id)) else { return };
        if !std::mem::replace(&mut socket.unread, true) {
            self.look_at = look_at;
            self.unread.push_back(id);
        }
    }

    /// When [`Sockets::look`] has something to do.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        (!self.unread.is_empty()).then_some(self.look_at)
    }

    /// Looks whether the peers of those that may not be read have hung up: no read says so, and their places are free at
    /// once.
    pub(super) fn look(&mut self, shard: &mut Shard, now: Instant) {
        if self.unread.is_empty() || now < self.look_at {
            return;
        }
        self.look_at = now + LOOK_TIME;
        for _ in 0..self.unread.len().min(LOOKS_AT_ONCE) {
            let Some(id) = self.unread.pop_front() else { break };
            let Some(socket) = self.get(id) else { continue };
            if !shard.is_unread(id) {
                socket.unread = false;
                continue;
            }
            match socket.stream.hung_up() {
                None => {}
                Some(HungUp::Ended) => shard.handle_unread_eof(id, now),
                Some(HungUp::Reset) => shard.handle_reset(id),
            }
            self.unread.push_back(id);
        }
        if self.unread.is_empty() {
            self.unread = VecDeque::new();
        }
    }

    /// Writes once what the shard has for a connection; it is named again if there is more.
    pub(super) fn write(&mut self, id: SessionId, shard: &mut Shard, budget: &mut Budget, now: Instant) {
        let mut slices = [IoSlice::new(&[]); SLICES];
        let filled = shard.transmit(id, &mut slices);
        if filled == SLICES {
            return self.write_many(id, shard, budget, now);
        }
        let Some(socket) = self.get(id).filter(|_| filled > 0) else { return };
        let result = socket.write(&slices[..filled]);
        socket.tell(result, shard, budget, now);
    }

    /// The same for a connection that is behind by many small runs: fewer writes, so that it soon is not.
    #[cold]
    fn write_many(&mut self, id: SessionId, shard: &mut Shard, budget: &mut Budget, now: Instant) {
        let mut slices = [IoSlice::new(&[]); MANY_SLICES];
        let filled = shard.transmit(id, &mut slices);
        let Some(socket) = self.get(id) else { return };
        budget.spend(filled * SLICE_COST);
        let result = socket.write(&slices[..filled]);
        socket.tell(result, shard, budget, now);
    }

    /// What is on its way to the peer is given up.
    pub(super) fn reset(&mut self, id: SessionId) {
        if let Some(socket) = self.get_or_leaving(id).and_then(|socket| socket.stream.socket()) {
            kernel::reset(socket);
        }
    }

    pub(super) fn end_writes(&mut self, id: SessionId) {
        if let Some(socket) = self.get_or_leaving(id) {
            socket.stream.end_writes(&mut Context::from_waker(&socket.waker));
        }
    }

    /// For events, which may come after a session's place is another's.
    fn get_or_leaving(&mut self, id: SessionId) -> Option<&mut Socket<S>> {
        let leaving = self.leaving.iter_mut().find(|socket| socket.id == id);
        if leaving.is_some() {
            leaving
        } else {
            self.table.get_mut(id.index())?.as_mut().filter(|socket| socket.id == id)
        }
    }

    fn get(&mut self, id: SessionId) -> Option<&mut Socket<S>> {
        self.table.get_mut(id.index())?.as_mut().filter(|socket| socket.id == id)
    }
}

impl<S: Stream> Socket<S> {
    /// Writes once, and no more than a bounded part: the system may have room for megabytes.
    #[inline]
    fn write(&mut self, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let mut context = Context::from_waker(&self.waker);
        match &slices[..bounded(slices)] {
            [one] if one.len() > 2 * WRITE_BYTES => {
                self.stream.poll_write(&mut context, &[IoSlice::new(&one[..2 * WRITE_BYTES])])
            }
            more => self.stream.poll_write(&mut context, more),
        }
    }

    /// Tells the shard what a write came to.
    #[inline(always)]
    fn tell(&mut self, result: Poll<io::Result<usize>>, shard: &mut Shard, budget: &mut Budget, now: Instant) {
        match result {
            // Another try would come to the same, without end.
            Poll::Ready(Ok(0) | Err(_)) => shard.handle_reset(self.id),
            Poll::Ready(Ok(written)) => {
                budget.spend(written);
                // Misuse is impossible: no more can be written than was lent.
                let _ = shard.transmitted(self.id, written, now);
            }
            Poll::Pending => {
                budget.spend(0);
                shard.blocked(self.id);
                self.blocked = true;
            }
        }
    }
}

/// How many of `slices` go into one write: up to the one that reaches [`WRITE_BYTES`], and none behind the first that is
/// longer by itself.
#[inline]
fn bounded(slices: &[IoSlice<'_>]) -> usize {
    // Nearly always.
    if slices.len() == 1 {
        return 1;
    }
    let mut bytes = 0;
    for (place, slice) in slices.iter().enumerate() {
        bytes += slice.len();
        if bytes >= WRITE_BYTES {
            return if place > 0 && slice.len() > WRITE_BYTES { place } else { place + 1 };
        }
    }
    slices.len()
}

#[cfg(test)]
mod tests {
    use fanfare_core::settings::Settings;

    use super::*;
    use crate::memory::Memory;

    /// A session that ends frees its index at once, and another may have it before the events of the first are heard.
    #[test]
    fn a_connection_stays_until_its_own_session_is_heard_to_be_over() {
        let memory = Memory::fresh();
        let [(first, first_end), (second, second_end)] = [memory.pair(), memory.pair()];
        let mut shard = Shard::new(Arc::new(Settings::default()), 1, Instant::ZERO);
        let mut sockets = Sockets::new(Duration::from_secs(1));
        let before = shard.handle_connection(None, Instant::ZERO);
        sockets.insert(before, first_end);
        shard.handle_reset(before);
        let id = shard.handle_connection(None, Instant::ZERO);
        assert_eq!((id.index(), id == before), (before.index(), false));
        sockets.insert(id, second_end);
        assert!(!first.is_closed() && !second.is_closed());
        sockets.end_writes(before);
        assert!(first.output_ended() && !second.output_ended());
        sockets.remove(before);
        assert!(first.is_closed() && !second.is_closed());
        sockets.remove(id);
        assert!(second.is_closed());
    }
}
