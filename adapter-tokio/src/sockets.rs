//! The clients' sockets of one worker, and the list of those that are ready.

use std::io::{self, IoSlice};
use std::net::Shutdown;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use fanfare_core::shard::{SessionId, Shard};
use fanfare_core::time::Instant;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::TcpStream;

/// One read of a client takes at most so much, so that a flood delays others by no more than this.
const READ_BYTES: usize = 16 << 10;
/// Slices of one write.
const SLICES: usize = 8;

/// One client's socket. There is no task and no buffer behind it: its waker puts it on the worker's ready list.
#[derive(Debug)]
struct Socket {
    id: SessionId,
    stream: TcpStream,
    waker: Waker,
    bell: Arc<Bell>,
    /// Waits until it takes bytes again.
    blocked: bool,
    /// Its peer has ended its side: nothing more to read.
    ended: bool,
}

/// Rings for one socket.
#[derive(Debug)]
struct Bell {
    id: SessionId,
    rung: AtomicBool,
    ready: Arc<Ready>,
}

/// The sockets that have something to do, in the order in which they got it, and the worker if it sleeps.
#[derive(Debug, Default)]
struct Ready {
    inner: Mutex<(Vec<SessionId>, Option<Waker>)>,
}

/// All clients' sockets of one worker, by the index of their session.
#[derive(Debug, Default)]
pub(crate) struct Sockets {
    table: Vec<Option<Socket>>,
    ready: Arc<Ready>,
}

impl Sockets {
    pub(crate) fn insert(&mut self, id: SessionId, stream: TcpStream) {
        if self.table.len() <= id.index() {
            self.table.resize_with(id.index() + 1, || None);
        }
        let bell = Arc::new(Bell { id, rung: AtomicBool::new(false), ready: self.ready.clone() });
        let waker = Waker::from(bell.clone());
        self.table[id.index()] = Some(Socket { id, stream, waker, bell, blocked: false, ended: false });
        self.ring(id);
    }

    pub(crate) fn remove(&mut self, id: SessionId) -> bool {
        let known = self.get(id).is_some();
        if known {
            self.table[id.index()] = None;
        }
        known
    }

    /// Takes the list of those that are ready.
    pub(crate) fn take_ready(&self) -> Vec<SessionId> {
        let mut inner = self.ready.lock();
        inner.1 = None;
        std::mem::take(&mut inner.0)
    }

    /// Has `worker` woken by the next socket that gets ready; says no if one already is.
    pub(crate) fn sleep(&self, worker: &Waker) -> bool {
        let mut inner = self.ready.lock();
        inner.1 = inner.0.is_empty().then(|| worker.clone());
        inner.1.is_some()
    }

    /// Puts a socket on the ready list.
    pub(crate) fn ring(&mut self, id: SessionId) {
        if let Some(socket) = self.get(id) {
            socket.waker.wake_by_ref();
        }
    }

    /// A socket from the ready list: tells the shard that it takes bytes again, and reads it once.
    pub(crate) fn turn(&mut self, id: SessionId, shard: &mut Shard, scratch: &mut [u8], now: Instant) {
        let Some(socket) = self.get(id) else { return };
        socket.bell.rung.store(false, Ordering::Relaxed);
        let waker = socket.waker.clone();
        let mut context = Context::from_waker(&waker);
        if socket.blocked && socket.stream.poll_write_ready(&mut context).is_ready() {
            socket.blocked = false;
            shard.handle_writable(id);
        }
        if socket.ended || socket.stream.poll_read_ready(&mut context).is_pending() || !shard.handle_readable(id, now) {
            return;
        }
        let mut buffer = ReadBuf::new(&mut scratch[..READ_BYTES]);
        match Pin::new(&mut socket.stream).poll_read(&mut context, &mut buffer) {
            Poll::Pending => {}
            Poll::Ready(Err(_)) => shard.handle_reset(id),
            Poll::Ready(Ok(())) if buffer.filled().is_empty() => {
                socket.ended = true;
                shard.handle_eof(id, now);
            }
            Poll::Ready(Ok(())) => {
                // Has the waker registered, or there is more to read in the next turn.
                if socket.stream.poll_read_ready(&mut context).is_ready() {
                    waker.wake_by_ref();
                }
                shard.handle_read(id, buffer.filled_mut(), now);
            }
        }
    }

    /// Writes once what the shard has for a socket; it is named again if there is more.
    pub(crate) fn write(&mut self, id: SessionId, shard: &mut Shard, now: Instant) {
        let Some(socket) = self.get(id) else { return };
        let mut slices = [IoSlice::new(&[]); SLICES];
        let result = match shard.transmit(id, &mut slices) {
            0 => return,
            1 => socket.stream.try_write(&slices[0]),
            n => socket.stream.try_write_vectored(&slices[..n]),
        };
        match result {
            Ok(written) => {
                // Misuse is impossible: no more can be written than was lent.
                let _ = shard.transmitted(id, written, now);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                shard.blocked(id);
                socket.blocked = true;
                if socket.stream.poll_write_ready(&mut Context::from_waker(&socket.waker)).is_ready() {
                    socket.waker.wake_by_ref();
                }
            }
            Err(_) => shard.handle_reset(id),
        }
    }

    /// Ends the write side: the peer reads to the end of what was written.
    pub(crate) fn end_writes(&mut self, id: SessionId) {
        if let Some(socket) = self.get(id) {
            // Fails only if the peer is gone, which the next read says.
            let _ = socket2::SockRef::from(&socket.stream).shutdown(Shutdown::Write);
        }
    }

    fn get(&mut self, id: SessionId) -> Option<&mut Socket> {
        self.table.get_mut(id.index())?.as_mut().filter(|socket| socket.id == id)
    }
}

impl Ready {
    fn lock(&self) -> MutexGuard<'_, (Vec<SessionId>, Option<Waker>)> {
        // Nothing panics while it is held.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.rung.swap(true, Ordering::Relaxed) {
            return;
        }
        let worker = {
            let mut inner = self.ready.lock();
            inner.0.push(self.id);
            inner.1.take()
        };
        if let Some(worker) = worker {
            worker.wake();
        }
    }
}
