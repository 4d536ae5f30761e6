//! The traits that an adapter implements.

use std::fmt;
use std::future::Future;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::num::NonZero;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::task::{Context, Poll};

use super::kernel;
use fanfare_core::time::{Duration, Instant};

/// A runtime and the system under it. A server starts from the default value, and each of its workers gets a copy.
///
/// Everything is polled on one worker's thread, inside the future that [`Runtime::spawn`] runs there. `Pending` always
/// means that the context's waker is woken when another try may succeed; spurious wakes are harmless.
pub trait Runtime: Clone + Default + Send + Sync + 'static {
    /// A connection to a client or to Redis, set to send what is written at once (`TCP_NODELAY`).
    type Stream: Stream;
    /// A listening socket.
    type Listener: Send + AsRawFd;
    /// A client's connection between the thread that accepted it and the one that holds it.
    type Parcel: Send;

    /// The time since an epoch that all copies share.
    fn now(&self) -> Instant;

    /// The time since the Unix epoch, for the Date field of answers.
    fn wall_clock() -> Duration;

    /// Ends when it is `at` or later.
    fn sleep_until(&self, at: Instant) -> impl Future<Output = ()> + Send + 'static;

    /// Ends when the runtime has looked at its sockets.
    fn yield_now() -> impl Future<Output = ()> + Send;

    /// Runs `worker` to its end on a new thread.
    ///
    /// # Errors
    /// The system refuses a thread, or what the runtime needs on it.
    fn spawn(name: String, worker: impl Future<Output = ()> + Send + 'static) -> io::Result<()>;

    /// Runs `work` to its end as a task of the runtime that this is called in.
    fn spawn_task(work: impl Future<Output = ()> + Send + 'static);

    /// The default number of workers of an instance.
    ///
    /// # Errors
    /// The system does not say.
    fn cores() -> io::Result<NonZero<usize>>;

    /// A random number that no peer can guess.
    ///
    /// # Errors
    /// The system has no randomness.
    fn seed() -> io::Result<u64>;

    /// Catches the signals of [`Signal::ALL`] from here on. The returned function polls for the next one.
    ///
    /// # Errors
    /// The system refuses.
    fn signals() -> io::Result<impl FnMut(&mut Context<'_>) -> Poll<Signal> + Send>;

    /// All addresses of `host`.
    fn resolve(host: &str, port: u16) -> impl Future<Output = io::Result<Vec<SocketAddr>>> + Send;

    /// Listens at `address`, with as many connections waiting in the kernel as `backlog` says. A port of which old
    /// connections are about to end is free; one that somebody listens at is not.
    ///
    /// # Errors
    /// What the system says.
    fn listen(address: SocketAddr, backlog: u32) -> io::Result<Self::Listener>;

    /// Takes over a TCP socket that listens, and makes it non-blocking.
    ///
    /// # Errors
    /// The runtime does not take it.
    fn adopt(socket: OwnedFd) -> io::Result<Self::Listener>;

    /// Where `listener` listens.
    ///
    /// # Errors
    /// What the system says.
    fn local_address(listener: &Self::Listener) -> io::Result<SocketAddr>;

    /// The next connection and its peer.
    fn poll_accept(
        listener: &mut Self::Listener,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<(Self::Stream, SocketAddr)>>;

    /// A connection to `address`.
    fn connect(address: SocketAddr) -> impl Future<Output = io::Result<Self::Stream>> + Send + 'static;

    /// Takes a connection off this thread.
    ///
    /// # Errors
    /// The runtime does not let go of it.
    fn detach(stream: Self::Stream) -> io::Result<Self::Parcel>;

    /// Takes a connection on to this thread.
    ///
    /// # Errors
    /// The runtime does not take it.
    fn attach(parcel: Self::Parcel) -> io::Result<Self::Stream>;
}

/// A connection of a [`Runtime`].
pub trait Stream: Send {
    /// Reads once, into the front of `buffer`; 0 bytes are the peer's end.
    fn poll_read(&mut self, context: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>>;

    /// Whether a read would find something: bytes, the end or an error. A wrong yes is allowed.
    fn poll_readable(&mut self, context: &mut Context<'_>) -> Poll<()>;

    /// As [`Stream::poll_read`], but asks the system itself: something may lie there of which the runtime has not heard
    /// yet, since it had no turn. To be written for a runtime that otherwise reads only what it has heard of.
    fn poll_read_now(&mut self, context: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        self.poll_read(context, buffer)
    }

    /// Writes once, some of `slices`, which are not empty; 0 bytes are an end, as an error is.
    fn poll_write(&mut self, context: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>>;

    /// Ends the write side: the peer reads to the end of what was written.
    fn end_writes(&mut self, context: &mut Context<'_>);

    /// The TCP socket itself, if that is what this stream is. The driver then bounds what the system holds of it:
    /// little waits unsent there (`TCP_NOTSENT_LOWAT`), what the peer does not take in the time of a ping and its
    /// answer ends the connection (`TCP_USER_TIMEOUT`), and one that is given up is reset (`SO_LINGER` of zero) and
    /// leaves nothing behind.
    fn socket(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// Whether the peer has hung up, found without reading anything. The driver asks this of clients that it may not
    /// read, ten times a second at most. Without [`Stream::socket`] nobody knows, and the end is found by the next
    /// read.
    fn hung_up(&self) -> Option<HungUp> {
        self.socket().and_then(kernel::hung_up)
    }

    /// Goes on with what was written or ended and is held back by something between this stream and the peer, such as
    /// TLS. A socket holds nothing back.
    fn advance(&mut self, _context: &mut Context<'_>) {}
}

/// How a peer has ended its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HungUp {
    /// The connection was reset, or failed. Its unread bytes are given up.
    Reset,
    /// The peer has ended its side, and no bytes lie unread.
    Ended,
}

/// A signal that a server catches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGINT, as by Ctrl-C: shuts down.
    Interrupt,
    /// SIGTERM, as by a service manager: shuts down.
    Terminate,
    /// SIGQUIT: shuts down, as SIGTERM does.
    Quit,
    /// SIGHUP, as by a terminal that closes or a tool that rotates logs: does nothing, because there is nothing to
    /// reload.
    Hangup,
    /// SIGUSR1: does nothing.
    User1,
    /// SIGUSR2: does nothing.
    User2,
    /// SIGALRM, as by a timer that was set before the server started: does nothing.
    Alarm,
}

impl Signal {
    /// Every signal that is caught.
    pub const ALL: [Self; 7] =
        [Self::Interrupt, Self::Terminate, Self::Quit, Self::Hangup, Self::User1, Self::User2, Self::Alarm];

    /// Whether it shuts a server down.
    #[must_use]
    pub const fn shuts_down(self) -> bool {
        matches!(self, Self::Interrupt | Self::Terminate | Self::Quit)
    }

    /// The exit code that a shell reports for a process that the signal ended.
    #[must_use]
    pub const fn exit_code(self) -> u8 {
        128 + match self {
            Self::Hangup => 1,
            Self::Interrupt => 2,
            Self::Quit => 3,
            Self::User1 => 10,
            Self::User2 => 12,
            Self::Alarm => 14,
            Self::Terminate => 15,
        }
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Interrupt => "SIGINT",
            Self::Terminate => "SIGTERM",
            Self::Quit => "SIGQUIT",
            Self::Hangup => "SIGHUP",
            Self::User1 => "SIGUSR1",
            Self::User2 => "SIGUSR2",
            Self::Alarm => "SIGALRM",
        })
    }
}
