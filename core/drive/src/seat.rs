//! A worker before its thread runs, and the report of its end.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::Waker;

use super::acceptor::Acceptor;
use super::desk::Desk;
use super::error::ServeError;
use super::head::Head;
use super::listeners::Listeners;
use super::mailbox::Mail;
use super::place::Place;
use super::runtime::Runtime;
use super::setup::Setup;
use super::worker::Worker;
use fanfare_core::settings::Settings;
use fanfare_core::time::Duration;

/// A worker's place in its instance, before it is on its thread. Dropping it early is the end of the server.
pub(super) struct Seat<R: Runtime> {
    place: Place<R>,
    has_ended: bool,
}

impl<R: Runtime> Seat<R> {
    pub(super) fn new(place: Place<R>) -> Self {
        Self { place, has_ended: false }
    }

    /// The first worker, from listening to the end of the server.
    pub(super) async fn lead(mut self, settings: Arc<Settings>, setup: Setup, listeners: Listeners, seeds: [u64; 2]) {
        settings.routes.log_overlaps();
        let result = match listeners.open(&setup, self.place.mailboxes.len()).await {
            Ok((acceptor, admin)) => {
                let addresses = acceptor.addresses().unwrap_or_default();
                settings.origins.listen_on(addresses.iter().map(SocketAddr::port).collect());
                match Head::new(&self.place, &setup, seeds[0], acceptor, admin) {
                    Ok(head) => self.work(settings, seeds[1], Some(head), None).await,
                    Err(error) => Err(error),
                }
            }
            Err(error) => Err(error),
        };
        self.place.report.set_ended(result);
        self.has_ended = true;
    }

    /// The first worker of a hub, which listens nowhere.
    pub(super) async fn host(mut self, settings: Arc<Settings>, setup: Setup, seeds: [u64; 2], desk: Desk) {
        let result = match Head::new(&self.place, &setup, seeds[0], Acceptor::idle(), None) {
            Ok(head) => self.work(settings, seeds[1], Some(head), Some(desk)).await,
            Err(error) => Err(error),
        };
        self.place.report.set_ended(result);
        self.has_ended = true;
    }

    /// Any other worker, until the first has ended.
    pub(super) async fn follow(mut self, settings: Arc<Settings>, seed: u64, desk: Option<Desk>) {
        if let Err(error) = self.work(settings, seed, None, desk).await {
            self.place.report.set_ended(Err(error));
        }
        self.has_ended = true;
    }

    async fn work(
        &self,
        settings: Arc<Settings>,
        seed: u64,
        head: Option<Head<R>>,
        desk: Option<Desk>,
    ) -> Result<(), ServeError> {
        match Worker::new(&self.place, settings, seed, head, desk).run().await {
            0 => Ok(()),
            messages => Err(ServeError::Unflushed { messages }),
        }
    }
}

impl<R: Runtime> Drop for Seat<R> {
    fn drop(&mut self) {
        if !self.has_ended {
            let error = io::Error::other(format!("worker {} ended too soon", self.place.id));
            self.place.report.set_ended(Err(ServeError::System(error)));
            // The other workers end in order.
            for (_, mailbox) in self.place.mailboxes.iter().enumerate().filter(|&(id, _)| id != self.place.id) {
                mailbox.post(Mail::Drain { delay: Duration::ZERO });
            }
        }
        // A task that waits for an answer to what lies in it would wait for ever.
        drop(self.place.mailboxes[self.place.id].take(Waker::noop()));
        if self.place.id == 0 {
            for mailbox in &self.place.mailboxes[1..] {
                mailbox.post(Mail::End);
            }
        }
    }
}
