//! The pause after a reply that Redis cannot serve at the moment.

use crate::time::{Duration, Instant};

/// The first and the longest pause.
pub(super) const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// A pause that doubles from one to the next, until something is carried out.
#[derive(Clone, Debug, Default)]
pub(super) struct Pause {
    until: Option<Instant>,
    /// The length of the last one.
    last: Duration,
}

impl Pause {
    /// Begins a pause, unless one lasts: all that is in flight gets the same answer.
    pub(super) fn begin(&mut self, now: Instant) {
        if self.until.is_none() {
            let (first, longest) = PAUSES;
            self.last = self.last.saturating_mul(2).clamp(first, longest);
            self.until = Some(now + self.last);
        }
    }

    /// Something was carried out: nothing has to wait any more.
    pub(super) fn end(&mut self) {
        *self = Self::default();
    }

    /// When it is over; `None` if there is none.
    pub(super) const fn until(&self) -> Option<Instant> {
        self.until
    }

    /// Returns whether a pause is over by `now` that was not before.
    pub(super) fn handle_timeout(&mut self, now: Instant) -> bool {
        self.until.take_if(|until| *until <= now).is_some()
    }
}

/// The pause after so many others, which doubles from the first to the longest.
pub(super) fn doubled((first, longest): (Duration, Duration), times: u32) -> Duration {
    first.saturating_mul(1 << times.min(20)).min(longest)
}
