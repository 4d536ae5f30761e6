//! The driver's runtime on async-std and smol: the parts that are the same on both.

use std::fmt;
use std::future::Future;
use std::io::{self, IoSlice};
use std::marker::PhantomData;
use std::net::{SocketAddr, TcpListener};
use std::num::NonZero;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::{thread, time};

use async_signal::Signals;
use fanfare_core::time::{Duration, Instant};
use fanfare_drive::{Runtime, Signal, Stream};
use smol::future::yield_now;
use smol::io::AsyncWrite;
use smol::stream::Stream as _;
use socket2::{Domain, Protocol, Socket, Type};

/// The differences between the two: sockets and timers.
pub trait Kind: Copy + Default + Send + Sync + 'static {
    /// A connection that sends what is written at once.
    type Stream: Stream;
    /// A listening socket.
    type Listener: Send;

    /// Runs `future` on this thread to its end.
    fn block_on<T>(future: impl Future<Output = T>) -> T;

    /// Runs `work` as a task of the runtime's own threads.
    fn spawn_task(work: impl Future<Output = ()> + Send + 'static);

    /// Ends after `time`.
    fn sleep(time: Duration) -> impl Future<Output = ()> + Send + 'static;

    /// All addresses of `host`.
    fn resolve(host: &str, port: u16) -> impl Future<Output = io::Result<Vec<SocketAddr>>> + Send;

    /// Takes over a socket that listens.
    ///
    /// # Errors
    /// The runtime does not take it.
    fn listener(listener: TcpListener) -> io::Result<Self::Listener>;

    /// The next connection and its peer.
    fn accept(listener: &Self::Listener) -> impl Future<Output = io::Result<(Self::Stream, SocketAddr)>> + Send;

    /// A connection to `address`.
    fn connect(address: SocketAddr) -> impl Future<Output = io::Result<Self::Stream>> + Send + 'static;
}

/// A runtime of this kind, with the start of the server as its epoch.
#[derive(Clone, Copy, Debug)]
pub struct On<K> {
    epoch: time::Instant,
    kind: PhantomData<K>,
}

/// A listening socket that always waits for its next connection.
pub struct Listener<K: Kind> {
    address: SocketAddr,
    descriptor: RawFd,
    next: Pin<Box<dyn Future<Output = Accepted<K>> + Send>>,
}

/// A connection, and the listener that gave it.
type Accepted<K> = (<K as Kind>::Listener, io::Result<(<K as Kind>::Stream, SocketAddr)>);

impl<K> Default for On<K> {
    fn default() -> Self {
        Self { epoch: time::Instant::now(), kind: PhantomData }
    }
}

impl<K: Kind> Runtime for On<K> {
    type Stream = K::Stream;
    type Listener = Listener<K>;
    // Both have one reactor for all threads, so that a connection belongs to none.
    type Parcel = K::Stream;

    fn now(&self) -> Instant {
        Instant::ZERO + self.epoch.elapsed()
    }

    fn wall_clock() -> Duration {
        // A clock that stands before 1970 has not been set.
        time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default()
    }

    fn sleep_until(&self, at: Instant) -> impl Future<Output = ()> + Send + 'static {
        K::sleep(at.since(self.now()))
    }

    fn yield_now() -> impl Future<Output = ()> + Send {
        yield_now()
    }

    fn spawn(name: String, worker: impl Future<Output = ()> + Send + 'static) -> io::Result<()> {
        thread::Builder::new().name(name).spawn(|| K::block_on(worker))?;
        Ok(())
    }

    fn spawn_task(work: impl Future<Output = ()> + Send + 'static) {
        K::spawn_task(work);
    }

    fn cores() -> io::Result<NonZero<usize>> {
        thread::available_parallelism()
    }

    fn seed() -> io::Result<u64> {
        getrandom::u64().map_err(io::Error::other)
    }

    fn signals() -> io::Result<impl FnMut(&mut Context<'_>) -> Poll<Signal> + Send> {
        let mut signals = Signals::new(Signal::ALL.map(number))?;
        Ok(move |context: &mut Context<'_>| match ready!(Pin::new(&mut signals).poll_next(context)) {
            Some(Ok(came)) => {
                Signal::ALL.into_iter().find(|&signal| number(signal) == came).map_or(Poll::Pending, Poll::Ready)
            }
            // The pipe from the signal handler is broken: no more signals will be heard of.
            Some(Err(_)) | None => Poll::Pending,
        })
    }

    fn resolve(host: &str, port: u16) -> impl Future<Output = io::Result<Vec<SocketAddr>>> + Send {
        K::resolve(host, port)
    }

    fn listen(address: SocketAddr, backlog: u32) -> io::Result<Listener<K>> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())?;
        socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
        Self::adopt(socket.into())
    }

    fn adopt(socket: OwnedFd) -> io::Result<Listener<K>> {
        let socket = TcpListener::from(socket);
        socket.set_nonblocking(true)?;
        let address = socket.local_addr()?;
        let descriptor = socket.as_raw_fd();
        Ok(Listener { address, descriptor, next: next::<K>(K::listener(socket)?) })
    }

    fn local_address(listener: &Listener<K>) -> io::Result<SocketAddr> {
        Ok(listener.address)
    }

    fn poll_accept(listener: &mut Listener<K>, context: &mut Context<'_>) -> Poll<io::Result<(K::Stream, SocketAddr)>> {
        let (socket, accepted) = ready!(listener.next.as_mut().poll(context));
        listener.next = next::<K>(socket);
        Poll::Ready(accepted)
    }

    fn connect(address: SocketAddr) -> impl Future<Output = io::Result<K::Stream>> + Send + 'static {
        K::connect(address)
    }

    fn detach(stream: K::Stream) -> io::Result<K::Stream> {
        Ok(stream)
    }

    fn attach(parcel: K::Stream) -> io::Result<K::Stream> {
        Ok(parcel)
    }
}

const fn number(signal: Signal) -> async_signal::Signal {
    match signal {
        Signal::Interrupt => async_signal::Signal::Int,
        Signal::Terminate => async_signal::Signal::Term,
        Signal::Quit => async_signal::Signal::Quit,
        Signal::Hangup => async_signal::Signal::Hup,
        Signal::User1 => async_signal::Signal::Usr1,
        Signal::User2 => async_signal::Signal::Usr2,
        Signal::Alarm => async_signal::Signal::Alarm,
    }
}

fn next<K: Kind>(listener: K::Listener) -> Pin<Box<dyn Future<Output = Accepted<K>> + Send>> {
    Box::pin(async {
        let accepted = K::accept(&listener).await;
        (listener, accepted)
    })
}

/// Writes once, as both can.
pub(crate) fn poll_write(
    stream: &mut (impl AsyncWrite + Unpin),
    context: &mut Context<'_>,
    slices: &[IoSlice<'_>],
) -> Poll<io::Result<usize>> {
    match slices {
        [one] => Pin::new(stream).poll_write(context, one),
        more => Pin::new(stream).poll_write_vectored(context, more),
    }
}

impl<K: Kind> AsRawFd for Listener<K> {
    fn as_raw_fd(&self) -> RawFd {
        self.descriptor
    }
}

impl<K: Kind> fmt::Debug for Listener<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener").field("address", &self.address).finish_non_exhaustive()
    }
}
