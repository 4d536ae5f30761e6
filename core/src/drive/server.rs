//! From a configuration to a server that runs, and to its end.

use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use super::listeners::Listeners;
use super::mailbox::{Mail, Mailbox};
use super::report::Report;
use super::runtime::{Runtime, Signal};
use super::seat::Seat;
use crate::config::{Config, ConfigError};
use crate::redis::LinkError;
use crate::time::Duration;

/// Why a server did not start, or did not end well. Each is one line for people.
#[derive(Debug)]
#[non_exhaustive]
pub enum ServeError {
    /// The configuration contradicts itself.
    Config(ConfigError),
    /// The address cannot be listened on.
    Bind {
        /// What was asked for.
        address: String,
        /// The flag that asks for something else.
        option: &'static str,
        /// What the system said.
        error: io::Error,
    },
    /// A socket that was handed over cannot be listened on.
    Listener(io::Error),
    /// Redis cannot be used.
    Redis(LinkError),
    /// The system refused a thread, a timer, a signal or randomness.
    System(io::Error),
    /// The time to shut down was over before every accepted publish had left and was confirmed.
    Unflushed {
        /// So many messages are lost, or may be.
        messages: u64,
    },
    /// A second signal came while the server shut down.
    CutShort(Signal),
}

/// How soon after a signal the same again is the same wish: many tools send one to a process and to its group.
const SAME_WISH: Duration = Duration::from_secs(1);

/// Serves until SIGINT, SIGTERM or SIGQUIT, then shuts down; a second one ends it at once, unless it is the same and comes
/// within a second. The other signals of [`Signal`] do nothing.
///
/// `listeners` are used if there are any; `ready` hears the addresses as soon as clients are accepted.
///
/// # Errors
/// See [`ServeError`].
pub async fn serve<R: Runtime>(
    config: Config,
    listeners: Listeners,
    ready: impl FnOnce(&Config, &[SocketAddr]),
) -> Result<(), ServeError> {
    let mut signals = R::signals().map_err(ServeError::System)?;
    let clock = R::default();
    let start = pin!(Server::<R>::start_on(config.clone(), listeners));
    let mut server = match before_signal(start, &mut signals).await {
        Ok(started) => started?,
        // Nothing was accepted yet.
        Err(_) => return Ok(()),
    };
    ready(&config, server.addresses());
    let first = match before_signal(pin!(server.ended()), &mut signals).await {
        Ok(result) => return result,
        Err(signal) => signal,
    };
    tracing::info!(event = "shutting_down", signal = %first, "{first}: shutting down");
    let since = clock.now();
    server.stop();
    loop {
        match before_signal(pin!(server.ended()), &mut signals).await {
            Ok(ended) => return ended,
            Err(signal) if signal == first && clock.now().since(since) < SAME_WISH => {}
            Err(signal) => return Err(ServeError::CutShort(signal)),
        }
    }
}

/// What comes of `future`, unless a signal to shut down comes first.
async fn before_signal<F: Future>(
    mut future: Pin<&mut F>,
    signals: &mut impl FnMut(&mut Context<'_>) -> Poll<Signal>,
) -> Result<F::Output, Signal> {
    poll_fn(|context| match future.as_mut().poll(context) {
        Poll::Ready(output) => Poll::Ready(Ok(output)),
        Poll::Pending => loop {
            match signals(context) {
                Poll::Ready(signal) if signal.shuts_down() => return Poll::Ready(Err(signal)),
                Poll::Ready(signal) => tracing::info!(event = "signal_ignored", %signal, "{signal}: nothing to do"),
                Poll::Pending => return Poll::Pending,
            }
        },
    })
    .await
}

/// A server that runs on threads of its own. Dropping it stops it.
pub struct Server<R: Runtime> {
    addresses: Vec<SocketAddr>,
    mailboxes: Arc<[Mailbox<R>]>,
    drain_delay: Duration,
    report: Arc<Report>,
}

impl<R: Runtime> Server<R> {
    /// Listens, starts the workers and, if the configuration names a Redis, waits until it can be used.
    ///
    /// # Errors
    /// See [`ServeError`].
    pub async fn start(config: Config) -> Result<Self, ServeError> {
        Self::start_on(config, Listeners::default()).await
    }

    /// As [`Server::start`], with sockets that listen already.
    ///
    /// # Errors
    /// See [`ServeError`].
    pub async fn start_on(config: Config, listeners: Listeners) -> Result<Self, ServeError> {
        let runtime = R::default();
        let workers = config.workers.map_or_else(R::cores, Ok).map_err(ServeError::System)?;
        let settings = Arc::new(config.settings(workers).map_err(ServeError::Config)?);
        let mailboxes: Arc<[_]> = std::iter::repeat_with(Mailbox::default).take(workers.get()).collect();
        let report = Arc::<Report>::default();
        let drain_delay = config.limits.drain_delay;
        // Dropped on an error, which ends the workers that run by then.
        let mut server = Self { addresses: Vec::new(), mailboxes, drain_delay, report };
        let seat = |id| Seat::new(id, runtime.clone(), server.mailboxes.clone(), server.report.clone());
        let seed = || R::seed().map_err(ServeError::System);
        let first = seat(0).lead(settings.clone(), config, listeners, [seed()?, seed()?]);
        R::spawn("worker-0".to_owned(), first).map_err(ServeError::System)?;
        for id in 1..workers.get() {
            let worker = seat(id).follow(settings.clone(), seed()?);
            R::spawn(format!("worker-{id}"), worker).map_err(ServeError::System)?;
        }
        server.addresses = server.report.started().await?;
        Ok(server)
    }

    /// Where it listens.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Begins to shut down: new clients are taken for [`Limits::drain_delay`](crate::limits::Limits::drain_delay) more,
    /// then sessions are closed with 1001 and accepted publishes leave.
    pub fn stop(&self) {
        for mailbox in self.mailboxes.iter() {
            mailbox.post(Mail::Drain { delay: self.drain_delay });
        }
    }

    /// Waits until it has shut down. Who asks a second time is told that all is well.
    ///
    /// # Errors
    /// [`ServeError::Unflushed`] if accepted publishes were lost, [`ServeError::System`].
    pub async fn ended(&mut self) -> Result<(), ServeError> {
        self.report.ended().await
    }
}

impl<R: Runtime> Drop for Server<R> {
    fn drop(&mut self) {
        self.stop();
    }
}

impl<R: Runtime> fmt::Debug for Server<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("addresses", &self.addresses).finish_non_exhaustive()
    }
}

impl ServeError {
    /// What a process that ends for this should exit with.
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::CutShort(signal) => signal.exit_code(),
            _ => 1,
        }
    }
}

impl fmt::Display for ServeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(error) => error.fmt(f),
            Self::Bind { address, option, error } if error.kind() == io::ErrorKind::AddrInUse => {
                write!(f, "{address} is taken by another process: stop that, or choose another {option}")
            }
            Self::Bind { address, error, option: "--port" } if address.contains(" of ") => {
                write!(f, "cannot listen on {address}: {error}; --host, or HOST in the environment, says where")
            }
            Self::Bind { address, error, option } => {
                write!(f, "cannot listen on {address}: {error}; {option} says where")
            }
            Self::Listener(error) => write!(f, "a listening socket that was handed over cannot be used: {error}"),
            Self::Redis(error) if error.is_passing() => {
                write!(f, "{error} (tried for 5s; with --wait-for-redis it goes on trying)")
            }
            Self::Redis(error) => error.fmt(f),
            Self::System(error) => write!(f, "the system refuses what a server needs: {error}"),
            Self::Unflushed { messages } => {
                write!(f, "{messages} accepted messages were lost, or not confirmed by Redis, before the end")
            }
            Self::CutShort(signal) => write!(f, "{signal} again: ended before all sessions were closed"),
        }
    }
}

impl std::error::Error for ServeError {}
