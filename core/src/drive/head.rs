//! What an instance has once, on its first worker: the bus, the listener, the address for operation, the end.

use std::net::SocketAddr;
use std::num::NonZero;
use std::sync::Arc;
use std::task::Waker;

use super::acceptor::Acceptor;
use super::admin::Admin;
use super::lanes::Lanes;
use super::report::Report;
use super::runtime::Runtime;
use super::seat::Seat;
use super::server::ServeError;
use crate::bus::Bus;
use crate::config::{Config, MemoryBound};
use crate::ending::Ending;
use crate::time::{Duration, Instant, earlier};

/// What only the first worker has.
pub(super) struct Head<R: Runtime> {
    pub(super) bus: Bus,
    pub(super) lanes: Lanes<R>,
    pub(super) acceptor: Acceptor<R>,
    pub(super) admin: Option<Admin<R>>,
    /// What the report is to say once the bus is up.
    pub(super) starting: Option<Vec<SocketAddr>>,
    /// It is reached from other machines, and nobody says by which names.
    takes_any_name: bool,
    pub(super) report: Arc<Report>,
    pub(super) accepting: bool,
    pub(super) memory: MemoryBound,
    pub(super) drain_time: Duration,
    /// Once the instance was asked to end.
    pub(super) ending: Option<Ending>,
}

impl<R: Runtime> Head<R> {
    pub(super) fn new(
        seat: &Seat<R>,
        config: &Config,
        seed: u64,
        acceptor: Acceptor<R>,
        admin: Option<Admin<R>>,
    ) -> Result<Self, ServeError> {
        let workers = seat.mailboxes.len();
        let addresses = acceptor.addresses().map_err(ServeError::System)?;
        let is_reached = addresses.iter().any(|address| !address.ip().is_loopback());
        let now = seat.runtime.now();
        let mut head = Self {
            bus: match config.redis.clone() {
                Some(url) => Bus::redis(
                    url.with_client_name(&config.name),
                    &config.channel_prefix,
                    &config.limits,
                    workers,
                    seed,
                    now,
                ),
                None => Bus::local(&config.limits, workers, seed, now),
            },
            lanes: Lanes::new(seat.runtime.clone(), config.redis.as_ref(), config.limits.dial_time),
            acceptor,
            admin,
            starting: Some(addresses),
            takes_any_name: is_reached && config.origins.hosts.is_empty(),
            report: seat.report.clone(),
            accepting: false,
            memory: config.memory_bound(NonZero::new(workers).unwrap_or(NonZero::<usize>::MIN)),
            drain_time: config.limits.drain_time,
            ending: None,
        };
        if config.redis.is_none() || config.wait_for_redis {
            head.start();
        }
        Ok(head)
    }

    /// Has `worker` woken by its next socket; says no if one has something to do already.
    pub(super) fn sleep(&self, worker: &Waker) -> bool {
        self.lanes.sleep(worker)
            && (!self.accepting || self.acceptor.sleep(worker))
            && self.admin.as_ref().is_none_or(|admin| admin.sleep(worker))
    }

    /// The next deadline of all that it has, as far as it is known at `now`.
    pub(super) fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        let ends = self.ending.as_ref().map(|ending| ending.next(now));
        let admin = self.admin.as_ref().and_then(Admin::poll_timeout);
        let accepts = earlier(self.acceptor.poll_timeout(), admin);
        earlier(self.bus.poll_timeout(), earlier(accepts, ends))
    }

    /// Clients are accepted from here on.
    pub(super) fn start(&mut self) {
        if let Some(addresses) = self.starting.take() {
            self.accepting = true;
            if self.acceptor.most() > 0 {
                tracing::info!(event = "memory_bound", "{}", self.memory.sentence(self.acceptor.most()));
            }
            if self.takes_any_name {
                tracing::info!(
                    event = "any_name_behind_a_proxy",
                    "own pages connect by addresses, localhost and names behind a proxy; --allow-host says which names are \
                     right"
                );
            }
            self.report.set_started(Ok(addresses));
        }
    }
}
