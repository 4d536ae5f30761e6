//! Starts a server from its setup and ends it.

use std::fmt;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use super::error::ServeError;
use super::listeners::Listeners;
use super::mailbox::{Mail, Mailbox};
use super::place::Place;
use super::report::Report;
use super::runtime::{Runtime, Signal};
use super::seat::Seat;
use super::setup::Setup;
use fanfare_core::settings::Settings;
use fanfare_core::time::Duration;

/// How soon after a signal the same again is the same wish: many tools send one to a process and to its group.
const SAME_WISH: Duration = Duration::from_secs(1);

/// Serves until SIGINT, SIGTERM or SIGQUIT, then shuts down; a second one ends it at once, unless it is the same and
/// comes within a second. The other signals of [`Signal`] do nothing.
///
/// `listeners` are used if there are any; `ready` is called with the addresses as soon as clients are accepted.
///
/// # Errors
/// See [`ServeError`].
pub async fn serve<R: Runtime>(
    setup: Setup,
    listeners: Listeners,
    ready: impl FnOnce(&[SocketAddr]),
) -> Result<(), ServeError> {
    let mut signals = R::signals().map_err(ServeError::System)?;
    let clock = R::default();
    let start = pin!(Server::<R>::start_on(setup, listeners));
    let mut server = match before_signal(start, &mut signals).await {
        Ok(started) => started?,
        // Nothing was accepted yet.
        Err(_) => return Ok(()),
    };
    ready(server.addresses());
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
                Poll::Ready(signal) => tracing::info!(event = "signal_ignored", %signal, "{signal}: ignored"),
                Poll::Pending => return Poll::Pending,
            }
        },
    })
    .await
}

/// A server that runs on threads of its own. Dropping it stops it.
pub struct Server<R: Runtime> {
    addresses: Vec<SocketAddr>,
    pub(super) mailboxes: Arc<[Mailbox<R>]>,
    drain_delay: Duration,
    report: Arc<Report>,
}

impl<R: Runtime> Server<R> {
    /// Listens, starts the workers and, if the setup names a Redis, waits until it can be used.
    ///
    /// # Errors
    /// See [`ServeError`].
    pub async fn start(setup: Setup) -> Result<Self, ServeError> {
        Self::start_on(setup, Listeners::default()).await
    }

    /// As [`Server::start`], with sockets that listen already.
    ///
    /// # Errors
    /// See [`ServeError`].
    pub async fn start_on(mut setup: Setup, listeners: Listeners) -> Result<Self, ServeError> {
        let runtime = R::default();
        let workers = match setup.workers {
            Some(workers) => workers.get(),
            None => R::cores().map_err(ServeError::System)?.get().min(Settings::MOST_WORKERS),
        };
        setup.settings.workers = workers;
        // No part of a server answers such requests.
        setup.settings.ask = false;
        setup.settings.check().map_err(ServeError::Settings)?;
        let settings = Arc::new(setup.settings.clone());
        let mailboxes: Arc<[_]> = std::iter::repeat_with(Mailbox::default).take(workers).collect();
        let report = Arc::<Report>::default();
        let drain_delay = settings.limits.drain_delay;
        // Dropped on an error, which ends the workers that run by then.
        let mut server = Self { addresses: Vec::new(), mailboxes, drain_delay, report };
        let seat = |id| {
            let (runtime, mailboxes, report) = (runtime.clone(), server.mailboxes.clone(), server.report.clone());
            Seat::new(Place { id, runtime, mailboxes, report })
        };
        let seed = || R::seed().map_err(ServeError::System);
        let first = seat(0).lead(settings.clone(), setup, listeners, [seed()?, seed()?]);
        R::spawn("worker-0".to_owned(), first).map_err(ServeError::System)?;
        for id in 1..workers {
            let worker = seat(id).follow(settings.clone(), seed()?, None);
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

    /// Begins to shut down: new clients are taken for
    /// [`Limits::drain_delay`](fanfare_core::limits::Limits::drain_delay) more, then sessions are closed with 1001 and
    /// accepted publishes leave.
    pub fn stop(&self) {
        for mailbox in self.mailboxes.iter() {
            mailbox.post(Mail::Drain { delay: self.drain_delay });
        }
    }

    /// Waits until it has shut down. A second call gives `Ok`.
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
