//! The clients' connections of one worker.

use std::io::IoSlice;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use super::bells::{Bell, Bells};
use super::runtime::Stream;
use crate::shard::{SessionId, Shard};
use crate::time::Instant;

/// One read of a client takes at most so much, so that a flood delays others by no more than this.
const READ_BYTES: usize = 16 << 10;
/// Slices of one write.
const SLICES: usize = 8;

/// All clients' connections of one worker, by the index of their session.
pub(super) struct Sockets<S> {
    table: Vec<Option<Socket<S>>>,
    bells: Arc<Bells<SessionId>>,
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
}

impl<S: Stream> Sockets<S> {
    pub(super) fn new() -> Self {
        Self { table: Vec::new(), bells: Arc::default() }
    }

    pub(super) fn insert(&mut self, id: SessionId, stream: S) {
        if self.table.len() <= id.index() {
            self.table.resize_with(id.index() + 1, || None);
        }
        let bell = self.bells.bell(id);
        bell.ring();
        let waker = Waker::from(bell.clone());
        self.table[id.index()] = Some(Socket { id, stream, bell, waker, blocked: false });
    }

    pub(super) fn remove(&mut self, id: SessionId) {
        if self.get(id).is_some() {
            self.table[id.index()] = None;
        }
    }

    /// Takes the list of those that have something to do.
    pub(super) fn take_ready(&self) -> Vec<SessionId> {
        self.bells.take()
    }

    /// Has `worker` woken by the next that has something to do; says no if one already has.
    pub(super) fn sleep(&self, worker: &Waker) -> bool {
        self.bells.sleep(worker)
    }

    /// Puts a connection on the list.
    pub(super) fn ring(&mut self, id: SessionId) {
        if let Some(socket) = self.get(id) {
            socket.bell.ring();
        }
    }

    /// One from the list: tells the shard that it may take bytes again, and reads it once.
    pub(super) fn turn(&mut self, id: SessionId, shard: &mut Shard, scratch: &mut [u8], now: Instant) {
        let Some(Socket { stream, bell, waker, blocked, .. }) = self.get(id) else { return };
        bell.hush();
        let mut context = Context::from_waker(waker);
        stream.advance(&mut context);
        // If it rang for something else, the next write says so at little cost.
        if std::mem::take(blocked) {
            shard.handle_writable(id);
        }
        // A session waits for credit only from when it has something to say.
        if !shard.may_be_read(id) && stream.poll_readable(&mut context).is_pending() {
            return;
        }
        if !shard.handle_readable(id, now) {
            return;
        }
        match stream.poll_read(&mut context, &mut scratch[..READ_BYTES]) {
            Poll::Pending => {}
            Poll::Ready(Err(_)) => shard.handle_reset(id),
            Poll::Ready(Ok(0)) => shard.handle_eof(id, now),
            Poll::Ready(Ok(read)) => {
                if stream.poll_readable(&mut context).is_ready() {
                    bell.ring();
                }
                shard.handle_read(id, &mut scratch[..read], now);
            }
        }
    }

    /// Writes once what the shard has for a connection; it is named again if there is more.
    pub(super) fn write(&mut self, id: SessionId, shard: &mut Shard, now: Instant) {
        let Some(socket) = self.get(id) else { return };
        let mut slices = [IoSlice::new(&[]); SLICES];
        let filled = shard.transmit(id, &mut slices);
        if filled == 0 {
            return;
        }
        match socket.stream.poll_write(&mut Context::from_waker(&socket.waker), &slices[..filled]) {
            // Another try would come to the same, without end.
            Poll::Ready(Ok(0) | Err(_)) => shard.handle_reset(id),
            Poll::Ready(Ok(written)) => {
                // Misuse is impossible: no more can be written than was lent.
                let _ = shard.transmitted(id, written, now);
            }
            Poll::Pending => {
                shard.blocked(id);
                socket.blocked = true;
            }
        }
    }

    pub(super) fn end_writes(&mut self, id: SessionId) {
        if let Some(socket) = self.get(id) {
            socket.stream.end_writes(&mut Context::from_waker(&socket.waker));
        }
    }

    fn get(&mut self, id: SessionId) -> Option<&mut Socket<S>> {
        self.table.get_mut(id.index())?.as_mut().filter(|socket| socket.id == id)
    }
}
