//! The metrics of an instance as numbers. `fanfare-server` writes them in Prometheus' text format.
//!
//! A [`Snapshot`] holds the numbers of one moment: the counts of the bus, and the sum of the workers' counts. There is
//! no registry and nothing global: counting is a plain addition at each place, and everything else is done at a scrape.
//! With several workers collect a [`Share`] of each; a [`Node`](crate::node::Node) has
//! [`Node::metrics`](crate::node::Node::metrics). Answer [`Event::Scrape`](crate::shard::Event::Scrape) with a text of
//! it.
//!
//! Counters only grow while the process runs.
//!
//! ```
//! use fanfare_core::node::Node;
//! use fanfare_core::settings::Settings;
//! use fanfare_core::time::Instant;
//!
//! let mut node = Node::new(Settings::default(), None, 42, Instant::ZERO);
//! node.handle_connection(None, Instant::ZERO);
//! assert_eq!(node.metrics().workers.stages.head, 1);
//! ```

use crate::bus::{self, Bus};
use crate::error::Unready;
use crate::histogram::Histogram;
use crate::limits::Limits;
use crate::shard::{self, Shard};
use crate::time::Duration;

#[cfg(test)]
mod tests;

/// The counts of one worker.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Share {
    /// Of its shard.
    pub stats: shard::Stats,
    /// How far its sessions are.
    pub stages: shard::Stages,
    /// How long messages took from the bus's handing them over until each session's socket was written to once.
    /// The driver of the sockets measures it.
    pub fan_out: Histogram,
}

impl Share {
    /// The numbers of a worker. It looks at each of its sessions.
    #[must_use]
    pub fn new(shard: &Shard, fan_out: &Histogram) -> Self {
        Self { stats: shard.stats(), stages: shard.stages(), fan_out: *fan_out }
    }
}

/// The counts of an instance at one moment.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Snapshot {
    /// Of the bus.
    pub bus: bus::Stats,
    /// Whether messages flow both ways.
    pub is_up: bool,
    /// What `/ready` tells.
    pub readiness: Result<(), Unready>,
    /// The bounds of what is buffered.
    pub limits: Limits,
    /// Since the start.
    pub uptime: Duration,
    /// The most connections of clients, if whoever drives the sockets has a bound.
    pub most_connections: Option<usize>,
    /// Connections that were accepted although there were as many.
    pub crowded: u64,
    /// How often accepting rested because no descriptor or memory was left.
    pub accept_rests: u64,
    /// Whether messages go through Redis, not through this process alone.
    pub is_redis: bool,
    /// What the core can come to hold with as many connections, by its configuration.
    pub memory_bound: Option<usize>,
    /// The sum over all workers.
    pub workers: Share,
    /// How many workers that is.
    pub worker_count: usize,
    /// Those of them that did not tell their numbers in time, so that older ones stand for them.
    pub late_workers: usize,
}

impl Snapshot {
    /// What the bus counts and the worker says that is asked, yet without its share or any other.
    #[must_use]
    pub fn new(bus: &Bus, shard: &Shard, uptime: Duration) -> Self {
        let (is_up, readiness) = (bus.is_up(), shard.readiness());
        let (limits, is_redis) = (shard.limits().clone(), bus.is_redis());
        Self { bus: bus.stats(), is_up, readiness, limits, uptime, is_redis, ..Self::default() }
    }

    /// Adds what one worker counts.
    #[must_use]
    pub fn with(mut self, share: &Share) -> Self {
        self.workers.stats.add(&share.stats);
        self.workers.stages.add(&share.stages);
        self.workers.fan_out.add(&share.fan_out);
        self.worker_count += 1;
        self
    }
}

/// Of an instance that has done nothing yet.
impl Default for Snapshot {
    fn default() -> Self {
        Self {
            bus: bus::Stats::default(),
            is_up: false,
            readiness: Ok(()),
            limits: Limits::default(),
            uptime: Duration::ZERO,
            most_connections: None,
            crowded: 0,
            accept_rests: 0,
            is_redis: false,
            memory_bound: None,
            workers: Share::default(),
            worker_count: 0,
            late_workers: 0,
        }
    }
}
