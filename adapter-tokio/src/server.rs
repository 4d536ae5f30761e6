//! From a configuration to a server that runs, and to its end.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;

use fanfare_core::bus::Bus;
use fanfare_core::config::{Config, ConfigError, Settings};
use fanfare_core::exchange::WorkerId;
use fanfare_core::redis::LinkError;
use fanfare_core::shard::Shard;
use tokio::sync::oneshot;
use tokio::task;

use crate::lanes::Lanes;
use crate::listener::{self, Listener};
use crate::mailbox::{Mail, Mailbox};
use crate::signals::Signals;
use crate::worker::{Clock, Head, Worker};

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
        /// What the system said.
        error: io::Error,
    },
    /// Redis cannot be used.
    Redis(LinkError),
    /// The system refused a thread, a timer, a signal or randomness.
    System(io::Error),
    /// The time to shut down was over before every accepted publish had left.
    Unflushed {
        /// So many messages are lost.
        messages: usize,
    },
}

/// Serves until SIGINT or SIGTERM, then shuts down; a second signal ends the process at once.
///
/// `ready` hears the addresses as soon as clients are accepted.
///
/// # Errors
/// See [`ServeError`].
pub async fn serve(config: Config, ready: impl FnOnce(&Config, &[SocketAddr])) -> Result<(), ServeError> {
    let mut signals = Signals::new().map_err(ServeError::System)?;
    let mut server = tokio::select! {
        started = Server::start(config) => started?,
        // Nothing was accepted yet.
        _ = signals.next() => return Ok(()),
    };
    ready(&server.config, server.addresses());
    tokio::select! {
        result = server.ended() => return result,
        signal = signals.next() => tracing::info!("{signal}: closing all sessions"),
    }
    server.stop();
    tokio::select! {
        result = server.ended() => result,
        signal = signals.next() => std::process::exit(signal.exit_code()),
    }
}

/// A server that runs on threads of its own. Dropping it stops it.
#[derive(Debug)]
pub struct Server {
    addresses: Vec<SocketAddr>,
    mailboxes: Arc<[Arc<Mailbox>]>,
    config: Config,
    ended: oneshot::Receiver<Result<(), ServeError>>,
}

impl Server {
    /// Listens, starts the workers and, if the configuration names a Redis, waits until it can be used.
    ///
    /// # Errors
    /// See [`ServeError`].
    pub async fn start(config: Config) -> Result<Self, ServeError> {
        let workers = config.workers.map_or_else(thread::available_parallelism, Ok).map_err(system)?;
        let settings = Arc::new(config.settings(workers).map_err(ServeError::Config)?);
        let workers = workers.get();
        let sockets = listener::bind(config.host.as_deref(), config.port).await.map_err(|error| {
            let address = match &config.host {
                Some(host) => format!("port {} of {host}", config.port),
                None => format!("port {}", config.port),
            };
            ServeError::Bind { address, error }
        })?;
        let addresses =
            sockets.iter().map(std::net::TcpListener::local_addr).collect::<io::Result<_>>().map_err(system)?;
        let mailboxes: Arc<[_]> = std::iter::repeat_with(Arc::<Mailbox>::default).take(workers).collect();
        let clock = Clock::start();
        let waits_for_bus = config.redis.is_some() && !config.wait_for_redis;
        let (started, starts) = oneshot::channel();
        let (ends, ended) = oneshot::channel();
        for id in 1..workers {
            let seat = Seat { id, settings: settings.clone(), mailboxes: mailboxes.clone(), clock };
            seat.spawn(|| Ok(None), |_| ()).map_err(system)?;
        }
        let head = {
            let config = config.clone();
            let seed = seed().map_err(system)?;
            move || {
                Ok(Some(Head {
                    bus: match config.redis.clone() {
                        Some(url) => Bus::redis(url, &config.limits, workers, seed, clock.now()),
                        None => Bus::local(&config.limits, workers, seed, clock.now()),
                    },
                    lanes: Lanes::new(config.redis.as_ref()),
                    listener: Listener::new(sockets)?,
                    accepting: !waits_for_bus,
                    started: waits_for_bus.then_some(started),
                    waits_for: None,
                    ends_at: None,
                }))
            }
        };
        let seat = Seat { id: 0, settings, mailboxes: mailboxes.clone(), clock };
        seat.spawn(head, move |result| {
            // Nobody listens if the server was dropped.
            let _ = ends.send(result);
        })
        .map_err(system)?;
        let mut server = Self { addresses, mailboxes, config, ended };
        if waits_for_bus {
            match starts.await {
                Ok(result) => result.map_err(ServeError::Redis)?,
                Err(_) => server.ended().await?,
            }
        }
        Ok(server)
    }

    /// Where it listens.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Begins to shut down: no new clients, sessions are closed with 1001, accepted publishes leave.
    pub fn stop(&self) {
        for mailbox in self.mailboxes.iter() {
            mailbox.post(Mail::Shutdown(self.config.limits.drain_time));
        }
    }

    /// Waits until it has shut down.
    ///
    /// # Errors
    /// [`ServeError::Unflushed`] if accepted publishes were lost, [`ServeError::System`].
    pub async fn ended(&mut self) -> Result<(), ServeError> {
        (&mut self.ended).await.unwrap_or_else(|_| Err(system(io::Error::other("a worker ended too soon"))))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

/// What a worker's thread starts from.
struct Seat {
    id: WorkerId,
    settings: Arc<Settings>,
    mailboxes: Arc<[Arc<Mailbox>]>,
    clock: Clock,
}

impl Seat {
    /// A thread with a runtime of its own, on which the worker runs; `done` hears how it ended.
    fn spawn(
        self,
        head: impl FnOnce() -> io::Result<Option<Head>> + Send + 'static,
        done: impl FnOnce(Result<(), ServeError>) + Send + 'static,
    ) -> io::Result<()> {
        let seed = seed()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = thread::Builder::new().name(format!("worker-{}", self.id));
        thread.spawn(move || {
            let result = runtime.block_on(async move {
                let head = head()?;
                let shard = Shard::new(self.settings, seed, self.clock.now());
                let worker = Worker::new(self.id, shard, head, self.mailboxes, self.clock);
                // A task of its own wakes for less than the root of the runtime. It polls many sockets in one go, so
                // the runtime's budget for one task is not for it.
                task::spawn(task::unconstrained(worker.run())).await.map_err(io::Error::other)
            });
            done(match result {
                Ok(stats) if stats.unsent > 0 => Err(ServeError::Unflushed { messages: stats.unsent }),
                Ok(_) => Ok(()),
                Err(error) => Err(system(error)),
            });
        })?;
        Ok(())
    }
}

fn seed() -> io::Result<u64> {
    getrandom::u64().map_err(io::Error::other)
}

fn system(error: io::Error) -> ServeError {
    ServeError::System(error)
}

impl fmt::Display for ServeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(error) => error.fmt(f),
            Self::Bind { address, error } if error.kind() == io::ErrorKind::AddrInUse => {
                write!(f, "{address} is taken by another process: stop that, or choose another --port")
            }
            Self::Bind { address, error } => write!(f, "cannot listen on {address}: {error}"),
            Self::Redis(error) => error.fmt(f),
            Self::System(error) => write!(f, "the system refuses what a server needs: {error}"),
            Self::Unflushed { messages } => {
                write!(f, "{messages} accepted messages could not be delivered before the end")
            }
        }
    }
}

impl std::error::Error for ServeError {}
