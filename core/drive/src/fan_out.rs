//! Measures how long messages take through one worker.

use fanfare_core::exchange::ToShard;
use fanfare_core::histogram::Histogram;
use fanfare_core::time::Instant;

/// Times the way of messages from the bus's handing them over until the worker has written to each of their sessions'
/// sockets: once a turn, whatever the number of sessions.
#[derive(Default)]
pub(super) struct FanOut {
    times: Histogram,
    /// When the oldest of the messages that are not written yet were handed over.
    since: Option<Instant>,
}

impl FanOut {
    /// The worker takes `news` in, which the bus handed over at `at`.
    pub(super) fn begin(&mut self, news: &ToShard, at: Instant) {
        if self.since.is_none() && news.run_bytes() > 0 {
            self.since = Some(at);
        }
    }

    /// All has been written that could be. Asks for the time only if that matters.
    pub(super) fn end(&mut self, now: impl FnOnce() -> Instant) {
        if let Some(since) = self.since.take() {
            self.times.record(now().since(since));
        }
    }

    pub(super) const fn times(&self) -> &Histogram {
        &self.times
    }
}
