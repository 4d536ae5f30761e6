//! The admin address: its few connections, and metrics gathered from all workers.

use std::collections::BTreeSet;
use std::task::Waker;

use super::acceptor::Acceptor;
use super::mailbox::{Mail, Mailbox};
use super::runtime::Runtime;
use super::sockets::Sockets;
use fanfare_core::error::Error;
use fanfare_core::exchange::WorkerId;
use fanfare_core::http::Answer;
use fanfare_core::memory::ADMIN_CONNECTIONS;
use fanfare_core::shard::{SessionId, Shard};
use fanfare_core::snapshot::{Share, Snapshot};
use fanfare_core::time::{Duration, Instant, earlier};

/// How long the other workers have to send their numbers. Prometheus waits 10 s by default.
const GATHERING: Duration = Duration::from_secs(1);

/// What the first worker has for operation.
pub(super) struct Admin<R: Runtime> {
    acceptor: Acceptor<R>,
    /// In the order in which they came.
    connections: Vec<SessionId>,
    /// Those that wait for the metrics.
    waiting: Vec<SessionId>,
    /// When they are answered, even if a worker has not sent its numbers by then.
    until: Instant,
    /// Of each worker, as it sent them last.
    shares: Vec<Share>,
    /// Workers that were asked and have not answered. They are not asked again.
    asked: BTreeSet<WorkerId>,
    /// Makes the answer of the numbers.
    metrics: Option<fn(&Snapshot) -> Answer>,
}

impl<R: Runtime> Admin<R> {
    pub(super) fn new(
        mut acceptor: Acceptor<R>,
        workers: usize,
        metrics: Option<fn(&Snapshot) -> Answer>,
    ) -> std::io::Result<Self> {
        acceptor.limit(ADMIN_CONNECTIONS, "too many connections for operation");
        for address in acceptor.addresses()? {
            if metrics.is_some() {
                tracing::info!(event = "admin_listening", "metrics are at http://{address}/metrics");
            } else {
                tracing::info!(event = "admin_listening", "the admin address is http://{address}");
            }
        }
        Ok(Self {
            acceptor,
            connections: Vec::new(),
            waiting: Vec::new(),
            until: Instant::ZERO,
            shares: vec![Share::default(); workers],
            asked: BTreeSet::new(),
            metrics,
        })
    }

    pub(super) fn accept(&mut self, shard: &mut Shard, sockets: &mut Sockets<R::Stream>, now: Instant) {
        let connections = &mut self.connections;
        self.acceptor.accept(connections.len(), now, |stream, _, has_place| {
            // If all are being answered, it has to come again.
            if !has_place && !shard.drop_one_of(connections, now) {
                return;
            }
            shard.set_wall_clock(R::wall_clock(), now);
            let id = shard.handle_admin_connection(now);
            connections.push(id);
            sockets.insert(id, stream);
        });
    }

    /// Whether the connection was one for operation, which it is no longer.
    pub(super) fn closed(&mut self, id: SessionId, now: Instant) -> bool {
        let place = self.connections.iter().position(|&one| one == id);
        if let Some(place) = place {
            self.connections.remove(place);
            self.acceptor.connection_closed(now);
        }
        place.is_some()
    }

    /// Somebody asks for metrics, on the first worker: asks all others, unless that goes on already.
    pub(super) fn scrape(&mut self, id: SessionId, mailboxes: &[Mailbox<R>], now: Instant) {
        if self.waiting.is_empty() {
            self.until = now + GATHERING;
            for (worker, mailbox) in mailboxes.iter().enumerate().skip(1) {
                if self.asked.insert(worker) {
                    mailbox.post(Mail::Measure);
                }
            }
        }
        self.waiting.push(id);
    }

    pub(super) fn hear(&mut self, worker: WorkerId, share: Share) {
        self.shares[worker] = share;
        self.asked.remove(&worker);
    }

    /// Whether those who wait are to be answered: all numbers are here, or cannot be waited for any longer.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        !self.waiting.is_empty() && (self.asked.is_empty() || self.until <= now)
    }

    /// Answers those who wait. `snapshot` is without the workers, and `own` the share of the first.
    pub(super) fn answer(&mut self, snapshot: Snapshot, own: Share, shard: &mut Shard, now: Instant) {
        self.shares[0] = own;
        let mut snapshot = self.shares.iter().fold(snapshot, Snapshot::with);
        snapshot.late_workers = self.asked.len();
        let answer = self.metrics.map_or_else(|| Answer::for_error(Error::NotFound), |metrics| metrics(&snapshot));
        for id in self.waiting.drain(..) {
            // It may have given up.
            let _ = shard.answer_scrape(id, &answer, now);
        }
    }

    /// Has `worker` woken by the next connection; says no if one has something to do already.
    pub(super) fn sleep(&self, worker: &Waker) -> bool {
        self.acceptor.sleep(worker)
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let until = (!self.waiting.is_empty()).then_some(self.until);
        earlier(self.acceptor.poll_timeout(), until)
    }
}
