//! The rest of the work before an instance ends, and its deadlines. A [`Node`](crate::node::Node) has this inside; the
//! owner of several workers and a bus asks it.
//!
//! ```
//! use fanfare_core::bus::Bus;
//! use fanfare_core::ending::Ending;
//! use fanfare_core::limits::Limits;
//! use fanfare_core::time::{Duration, Instant};
//!
//! let seconds = |seconds| Instant::ZERO + Duration::from_secs(seconds);
//! let mut bus = Bus::local(&Limits::default(), 1, 42, seconds(0));
//! let mut ending = Ending::new(1, &bus, Duration::from_secs(2), Duration::from_secs(10), seconds(0));
//! assert!(!ending.stops_listening(seconds(1)));
//! assert!(ending.stops_listening(seconds(2)), "close the listener, then all sessions");
//! assert!(!ending.is_over(&mut bus, seconds(3)));
//! ending.worker_is_empty();
//! assert!(ending.is_over(&mut bus, seconds(3)));
//! assert_eq!(ending.lost(&mut bus), 0);
//! ```

use crate::bus::{Bus, Stats};
use crate::redis::{Lane, LinkId};
use crate::time::{Duration, Instant};

/// The end of an instance: listening until `closes_at`, then closing sessions and letting publishes leave, the latter
/// alone from `flushes_at`, whatever is left until `ends_at`.
#[derive(Debug)]
pub struct Ending {
    closes_at: Option<Instant>,
    flushes_at: Instant,
    ends_at: Instant,
    /// Workers whose sessions are not all gone.
    waits_for: usize,
    /// Publishes that were given up before.
    given_up: u64,
}

impl Ending {
    /// The end of so many workers: they close their sessions after `delay` and have `time` for that.
    #[must_use]
    pub fn new(workers: usize, bus: &Bus, delay: Duration, time: Duration, now: Instant) -> Self {
        let closes_at = now + delay;
        Self {
            closes_at: Some(closes_at),
            flushes_at: closes_at + time / 10 * 9,
            ends_at: closes_at + time,
            waits_for: workers,
            given_up: given_up(&bus.stats()),
        }
    }

    /// The end of one worker that listens no longer.
    #[must_use]
    pub fn at_once(bus: &Bus, time: Duration, now: Instant) -> Self {
        Self { closes_at: None, ..Self::new(1, bus, Duration::ZERO, time, now) }
    }

    /// Whether the time to end listening has come; says so once.
    pub fn stops_listening(&mut self, now: Instant) -> bool {
        self.closes_at.take_if(|at| *at <= now).is_some()
    }

    /// A worker's sessions are all gone.
    pub fn worker_is_empty(&mut self) {
        self.waits_for = self.waits_for.saturating_sub(1);
    }

    /// Has `bus` closed when it has nothing to do, or when there is no time for more; says whether all is over.
    ///
    /// As long as there is time, publishes that wait for Redis, or for the rest of the fleet to be back, go on waiting.
    pub fn is_over(&self, bus: &mut Bus, now: Instant) -> bool {
        let flushed = self.waits_for == 0 && bus.stats().publish_bytes == 0;
        if !flushed && now < self.flushes_at {
            return false;
        }
        bus.close(now);
        bus.is_closed() || self.ends_at <= now
    }

    /// When this is to be looked at again, seen from `now`.
    #[must_use]
    pub fn next(&self, now: Instant) -> Instant {
        self.closes_at.unwrap_or(if now < self.flushes_at { self.flushes_at } else { self.ends_at })
    }

    /// How many accepted publishes were lost since this began; what Redis has not confirmed at the end counts, too.
    pub fn lost(&self, bus: &mut Bus) -> u64 {
        if !bus.is_closed() {
            bus.handle_closed(LinkId::new(0, Lane::Publisher), "the drain time is over", self.ends_at);
        }
        let stats = bus.stats();
        given_up(&stats) - self.given_up + stats.unsent as u64
    }
}

/// Publishes that are not known to have arrived. Those that Redis refused do not count.
const fn given_up(stats: &Stats) -> u64 {
    stats.expired + stats.unconfirmed
}
