//! A whole instance on one thread: one [`Shard`] and one [`Bus`], wired together. The [crate's page](crate) has an
//! example.

use std::sync::Arc;

use crate::bus::Bus;
use crate::config::Settings;
use crate::redis::RedisUrl;
use crate::shard::Shard;
use crate::time::Instant;

/// One shard and one bus. Give inputs to either, then call [`Node::exchange`] or [`Node::handle_timeout`], then drain the
/// outputs of both but for `poll_bus` and `poll_shard`, which are the node's own.
#[derive(Debug)]
pub struct Node {
    /// Sessions and fan-out.
    pub shard: Shard,
    /// What carries publishes to every instance.
    pub bus: Bus,
}

impl Node {
    /// An instance of one worker, whatever `settings.workers` says; with `redis` one of many that share it. All that is
    /// random comes from `seed`.
    #[must_use]
    pub fn new(mut settings: Settings, redis: Option<RedisUrl>, seed: u64, now: Instant) -> Self {
        settings.workers = 1;
        let mut rng = fastrand::Rng::with_seed(seed);
        let bus = match redis {
            Some(url) => Bus::redis(url, &settings.limits, 1, rng.u64(..), now),
            None => Bus::local(&settings.limits, 1, rng.u64(..), now),
        };
        Self { shard: Shard::new(Arc::new(settings), rng.u64(..), now), bus }
    }

    /// Carries wishes and news between the two until neither has any. Due after any input or command.
    pub fn exchange(&mut self, now: Instant) {
        loop {
            if let Some(wishes) = self.shard.poll_bus() {
                // Misuse is impossible: the bus is made for one worker.
                let _ = self.bus.handle_shard(0, wishes, now);
            } else if let Some((_, news)) = self.bus.poll_shard() {
                self.shard.handle_bus(news, now);
            } else {
                return;
            }
        }
    }

    /// Time has come to `now`, for both; what they have to say to each other is exchanged. Too early or too often does no
    /// harm. Without Redis, this is also the turn that delivers what was published, 64 KiB at a time.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.exchange(now);
        self.bus.handle_timeout(now);
        self.shard.handle_timeout(now);
        self.exchange(now);
    }

    /// The earlier of both next instants.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        [self.shard.poll_timeout(), self.bus.poll_timeout()].into_iter().flatten().min()
    }
}

#[cfg(test)]
mod tests;
