//! The parts that exist once in an instance, on its first worker: the bus, the listener, the admin address, the end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::task::Waker;

use super::acceptor::Acceptor;
use super::admin::Admin;
use super::error::ServeError;
use super::lanes::Lanes;
use super::place::Place;
use super::report::Report;
use super::runtime::Runtime;
use super::setup::Setup;
use fanfare_core::bus::Bus;
use fanfare_core::memory::MemoryBound;
use fanfare_core::shutdown::Shutdown;
use fanfare_core::time::{Duration, Instant, earlier};

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
    pub(super) shutdown: Shutdown,
}

impl<R: Runtime> Head<R> {
    pub(super) fn new(
        place: &Place<R>,
        setup: &Setup,
        seed: u64,
        acceptor: Acceptor<R>,
        admin: Option<Admin<R>>,
    ) -> Result<Self, ServeError> {
        let (settings, workers) = (&setup.settings, place.mailboxes.len());
        let addresses = acceptor.addresses().map_err(ServeError::System)?;
        let is_reached = addresses.iter().any(|address| !address.ip().is_loopback());
        let now = place.runtime.now();
        let mut head = Self {
            bus: match setup.redis.clone() {
                Some(url) => Bus::redis(
                    url.with_client_name(&setup.name),
                    &settings.channel_prefix,
                    &settings.limits,
                    workers,
                    seed,
                    now,
                ),
                None => Bus::local(&settings.limits, workers, seed, now),
            },
            lanes: Lanes::new(place.runtime.clone(), settings.limits.dial_time),
            acceptor,
            admin,
            starting: Some(addresses),
            takes_any_name: is_reached && settings.origins.hosts.is_empty(),
            report: place.report.clone(),
            accepting: false,
            memory: settings.memory_bound(),
            drain_time: settings.limits.drain_time,
            shutdown: Shutdown::new(workers),
        };
        if setup.redis.is_none() || setup.wait_for_redis {
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
        let ends = self.shutdown.deadline(&self.bus, now);
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
