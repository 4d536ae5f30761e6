//! How an instance ends, from the call to shut down until nothing is left. A [`Node`](crate::node::Node) has this inside;
//! the owner of several workers and a bus drives it: see [`Stage`].
//!
//! ```
//! use fanfare_core::bus::Bus;
//! use fanfare_core::limits::Limits;
//! use fanfare_core::shutdown::{Shutdown, Stage};
//! use fanfare_core::time::{Duration, Instant};
//!
//! let seconds = |seconds| Instant::ZERO + Duration::from_secs(seconds);
//! let mut bus = Bus::local(&Limits::default(), 1, 42, seconds(0));
//! let mut shutdown = Shutdown::new(1);
//! shutdown.begin(&bus, Duration::from_secs(2), Duration::from_secs(10), seconds(0));
//! assert_eq!(shutdown.advance(&mut bus, seconds(1)), None);
//! assert_eq!(shutdown.advance(&mut bus, seconds(2)), Some(Stage::Closing), "close the listener, then all sessions");
//! assert_eq!(shutdown.advance(&mut bus, seconds(3)), None);
//! shutdown.worker_is_empty();
//! assert_eq!(shutdown.advance(&mut bus, seconds(3)), Some(Stage::Flushing));
//! assert_eq!(shutdown.advance(&mut bus, seconds(3)), Some(Stage::Ended));
//! assert_eq!(shutdown.lost(&mut bus), 0);
//! ```

use crate::bus::{Bus, Stats};
use crate::redis::{Lane, LinkId};
use crate::time::{Duration, Instant};

/// Where an instance, or one of its workers, is on the way to its end.
///
/// | stage | new clients | sessions | publishes | left by |
/// | --- | --- | --- | --- | --- |
/// | `Serving` | are accepted | stay | leave | [`Shutdown::begin`] |
/// | `Draining` | are accepted | stay | leave | the end of the drain delay |
/// | `Closing` | are not accepted | are closed, one by one | leave, or wait for Redis | all sessions and publishes are gone; nine tenths of the drain time |
/// | `Flushing` | are not accepted | are closed | leave as far as a connection stands | both connections to Redis are closed; the drain time |
/// | `Ended` | | are cut off | are lost | |
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Nobody has asked for the end.
    Serving,
    /// The instance says that it is not ready, and serves on, so that load balancers look elsewhere.
    Draining,
    /// The sessions are closed.
    Closing,
    /// The connections to Redis are closed behind what they have accepted.
    Flushing,
    /// Nothing is left to do.
    Ended,
}

/// What moves an instance from stage to stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Input {
    /// The embedder asks for the end.
    Begin,
    /// The drain delay is over.
    Delayed,
    /// No session and no publish is left, or nine tenths of the drain time are over.
    Idle,
    /// The bus is closed, or the drain time is over.
    Closed,
}

impl Stage {
    /// Every transition there is.
    const fn after(self, input: Input) -> Self {
        match (self, input) {
            (Self::Serving, Input::Begin) => Self::Draining,
            (Self::Draining, Input::Delayed) => Self::Closing,
            (Self::Closing, Input::Idle) => Self::Flushing,
            (Self::Flushing, Input::Closed) => Self::Ended,
            _ => self,
        }
    }
}

/// The end of an instance: its stage, and when each is over at the latest.
#[derive(Debug)]
pub struct Shutdown {
    stage: Stage,
    /// Workers whose sessions are not all gone.
    waits_for: usize,
    closes_at: Instant,
    flushes_at: Instant,
    ends_at: Instant,
    /// Publishes that were given up before.
    given_up: u64,
}

impl Shutdown {
    /// An instance of so many workers that serves.
    #[must_use]
    pub const fn new(workers: usize) -> Self {
        let never = Instant::ZERO;
        Self {
            stage: Stage::Serving,
            waits_for: workers,
            closes_at: never,
            flushes_at: never,
            ends_at: never,
            given_up: 0,
        }
    }

    /// Where it is.
    #[must_use]
    pub const fn stage(&self) -> Stage {
        self.stage
    }

    /// The instance is to end: after `delay` it closes its sessions, and has `time` for that. To ask again changes nothing.
    pub fn begin(&mut self, bus: &Bus, delay: Duration, time: Duration, now: Instant) {
        if self.stage == Stage::Serving {
            self.closes_at = now + delay;
            self.flushes_at = self.closes_at + time / 10 * 9;
            self.ends_at = self.closes_at + time;
            self.given_up = given_up(&bus.stats());
            self.stage = self.stage.after(Input::Begin);
        }
    }

    /// A worker's sessions are all gone. Says so once for each, after [`Stage::Closing`] has begun.
    pub const fn worker_is_empty(&mut self) {
        self.waits_for = self.waits_for.saturating_sub(1);
    }

    /// Enters the next stage if it is time, and says which: in [`Stage::Closing`] the owner listens no longer and has its
    /// shards shut down. To be called in each turn, until it says `None`.
    ///
    /// As long as there is time, publishes that wait for Redis, or for the rest of the fleet to be back, go on waiting.
    pub fn advance(&mut self, bus: &mut Bus, now: Instant) -> Option<Stage> {
        let input = match self.stage {
            Stage::Draining if self.closes_at <= now => Input::Delayed,
            Stage::Closing if self.is_idle(bus) || self.flushes_at <= now => Input::Idle,
            Stage::Flushing => {
                bus.close(now);
                if !bus.is_closed() && now < self.ends_at {
                    return None;
                }
                Input::Closed
            }
            Stage::Serving | Stage::Draining | Stage::Closing | Stage::Ended => return None,
        };
        self.stage = self.stage.after(input);
        Some(self.stage)
    }

    /// When [`advance`](Self::advance) has something to do at the latest, seen from `now`.
    #[must_use]
    pub fn deadline(&self, bus: &Bus, now: Instant) -> Option<Instant> {
        match self.stage {
            Stage::Serving => None,
            Stage::Draining => Some(self.closes_at),
            Stage::Closing if self.is_idle(bus) => Some(now),
            Stage::Closing => Some(self.flushes_at),
            Stage::Flushing => Some(self.ends_at),
            Stage::Ended => Some(now),
        }
    }

    /// How many accepted publishes were lost since this began; what Redis has not confirmed at the end counts, too.
    pub fn lost(&self, bus: &mut Bus) -> u64 {
        if !bus.is_closed() {
            bus.handle_closed(LinkId::new(0, Lane::Publisher), "the drain time is over", self.ends_at);
        }
        let stats = bus.stats();
        given_up(&stats) - self.given_up + stats.unsent as u64
    }

    fn is_idle(&self, bus: &Bus) -> bool {
        self.waits_for == 0 && bus.stats().publish_bytes == 0
    }
}

/// Publishes that are not known to have arrived. Those that Redis refused do not count.
const fn given_up(stats: &Stats) -> u64 {
    stats.expired + stats.unconfirmed
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::Limits;

    #[test]
    fn every_input_in_every_stage_leads_where_the_table_says() {
        use Stage::{Closing, Draining, Ended, Flushing, Serving};
        let inputs = [Input::Begin, Input::Delayed, Input::Idle, Input::Closed];
        for (stage, expected) in [
            (Serving, [Draining, Serving, Serving, Serving]),
            (Draining, [Draining, Closing, Draining, Draining]),
            (Closing, [Closing, Closing, Flushing, Closing]),
            (Flushing, [Flushing, Flushing, Flushing, Ended]),
            (Ended, [Ended; 4]),
        ] {
            assert_eq!(inputs.map(|input| stage.after(input)), expected, "{stage:?}");
        }
    }

    #[test]
    fn each_stage_is_over_at_its_time_or_when_nothing_is_left() {
        let at = |seconds| Instant::ZERO + Duration::from_secs(seconds);
        let url: crate::redis::RedisUrl = "redis://redis.test".parse().unwrap();
        for is_empty in [true, false] {
            let mut bus = Bus::redis(url.clone(), "", &Limits::default(), 2, 1, at(0));
            let mut shutdown = Shutdown::new(2);
            assert_eq!((shutdown.advance(&mut bus, at(9)), shutdown.deadline(&bus, at(9))), (None, None));
            shutdown.begin(&bus, Duration::from_secs(5), Duration::from_secs(10), at(10));
            shutdown.begin(&bus, Duration::ZERO, Duration::ZERO, at(11));
            assert_eq!(shutdown.deadline(&bus, at(11)), Some(at(15)), "to ask again changes nothing");
            assert_eq!(shutdown.advance(&mut bus, at(14)), None);
            assert_eq!(shutdown.advance(&mut bus, at(15)), Some(Stage::Closing));
            shutdown.worker_is_empty();
            assert_eq!((shutdown.advance(&mut bus, at(23)), shutdown.deadline(&bus, at(23))), (None, Some(at(24))));
            if is_empty {
                shutdown.worker_is_empty();
                assert_eq!(shutdown.deadline(&bus, at(16)), Some(at(16)));
                assert_eq!(shutdown.advance(&mut bus, at(16)), Some(Stage::Flushing));
            } else {
                assert_eq!(shutdown.advance(&mut bus, at(24)), Some(Stage::Flushing));
            }
            assert_eq!(shutdown.advance(&mut bus, at(25)), Some(Stage::Ended));
            assert_eq!((shutdown.advance(&mut bus, at(26)), shutdown.lost(&mut bus)), (None, 0));
        }
    }
}
