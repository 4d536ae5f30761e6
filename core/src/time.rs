//! Time as a value: an [`Instant`] that the embedder supplies, and the structure that holds every deadline of a shard.
//!
//! ```
//! use fanfare_core::time::{Duration, Instant};
//!
//! let start = std::time::Instant::now();
//! let now = || Instant::ZERO + start.elapsed();
//! let before = now();
//! let deadline = before + Duration::from_millis(5);
//! assert_eq!(deadline.since(before), Duration::from_millis(5));
//! assert_eq!(before.since(deadline), Duration::ZERO, "a clock that steps back counts as one that stands");
//! ```

use core::fmt;
use core::net::IpAddr;
use core::num::NonZero;
use core::ops::Add;
use std::collections::{BTreeSet, VecDeque};

pub use core::time::Duration;

/// A point in time, in microseconds since an epoch that the embedder picks (one for all workers of an instance).
///
/// The core has no clock. A binary counts from its start, `Instant::ZERO + start.elapsed()`; a simulation starts at
/// [`Instant::ZERO`] and jumps.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
// One microsecond more than it is, so that an `Option` of it takes no more memory: a session has three.
pub struct Instant(NonZero<u64>);

impl Instant {
    /// The epoch itself.
    pub const ZERO: Self = Self(NonZero::<u64>::MIN);

    /// The instant `micros` microseconds after the epoch.
    #[must_use]
    pub const fn from_micros(micros: u64) -> Self {
        Self(Self::ZERO.0.saturating_add(micros))
    }

    /// Microseconds since the epoch.
    #[must_use]
    pub const fn as_micros(self) -> u64 {
        self.0.get() - 1
    }

    /// How long `earlier` is past at this instant; zero if it is not.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.get().saturating_sub(earlier.0.get()))
    }
}

impl Default for Instant {
    fn default() -> Self {
        Self::ZERO
    }
}

impl fmt::Debug for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Instant").field(&self.as_micros()).finish()
    }
}

impl Add<Duration> for Instant {
    type Output = Self;

    /// Saturates at the end of time, half a million years on.
    fn add(self, duration: Duration) -> Self {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(micros))
    }
}

/// The earlier of two deadlines, either of which may not be there.
///
/// Written out because the optimizer makes some 3,000 instructions of the minimum of a flattened array of them.
#[must_use]
pub fn earlier(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, None) => one,
        (None, other) => other,
    }
}

/// The deadlines of many keys in one ordered set; each key has at most one.
///
/// The owner keeps each key's current deadline and hands it back to [`Timers::set`], so that no second index is needed.
#[derive(Debug)]
pub(crate) struct Timers<K> {
    set: BTreeSet<(Instant, K)>,
}

impl<K: Ord + Copy> Timers<K> {
    pub(crate) const fn new() -> Self {
        Self { set: BTreeSet::new() }
    }

    /// Moves `key` from the deadline in `slot` to `deadline`, and notes that in `slot`.
    pub(crate) fn set(&mut self, key: K, slot: &mut Option<Instant>, deadline: Option<Instant>) {
        if *slot == deadline {
            return;
        }
        if let Some(old) = *slot {
            self.set.remove(&(old, key));
        }
        if let Some(new) = deadline {
            self.set.insert((new, key));
        }
        *slot = deadline;
    }

    /// How many keys have a deadline.
    pub(crate) fn len(&self) -> usize {
        self.set.len()
    }

    /// The earliest deadline.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.set.first().map(|&(at, _)| at)
    }

    /// The key of the earliest deadline.
    pub(crate) fn first(&self) -> Option<K> {
        self.set.first().map(|&(_, key)| key)
    }

    /// Takes out one key whose deadline is not after `now`. Its owner clears the slot.
    pub(crate) fn pop_due(&mut self, now: Instant) -> Option<K> {
        let &(at, key) = self.set.first()?;
        if at > now {
            return None;
        }
        self.set.pop_first();
        Some(key)
    }
}

/// Limits a log line that peers can cause at will to one in [`Seldom::TIME`].
#[derive(Clone, Copy, Debug, Default)]
pub struct Seldom {
    said: Option<Instant>,
    unsaid: u64,
}

impl Seldom {
    /// From one line to the next.
    pub const TIME: Duration = Duration::from_secs(10);

    /// Whether it is to be said at `now`, and if so how often it was left unsaid since it was said last.
    pub fn say(&mut self, now: Instant) -> Option<u64> {
        if !self.is_due(now) {
            self.unsaid += 1;
            return None;
        }
        self.said = Some(now);
        Some(core::mem::take(&mut self.unsaid))
    }

    /// Whether it would be said.
    fn is_due(&self, now: Instant) -> bool {
        self.said.is_none_or(|said| now.since(said) >= Self::TIME)
    }
}

/// Limits the log lines of episodes, such as outages: of episodes in quick succession one in [`Seldom::TIME`] is
/// logged, and each that lasts.
#[derive(Debug)]
pub(crate) struct Episodes {
    seldom: Seldom,
    is_told: bool,
}

impl Episodes {
    pub(crate) fn new() -> Self {
        // What there is before the first is the start.
        Self { seldom: Seldom::default(), is_told: true }
    }

    /// One begins. Says how many before it were not told, if it is to be.
    pub(crate) fn begin(&mut self, now: Instant) -> Option<u64> {
        let untold = self.seldom.say(now);
        self.is_told = untold.is_some();
        untold
    }

    /// It goes on. As [`Episodes::begin`], of one that was not told and has lasted.
    pub(crate) fn go_on(&mut self, now: Instant) -> Option<u64> {
        if self.is_told || !self.seldom.is_due(now) {
            return None;
        }
        // It was counted among those that are not told.
        self.begin(now).map(|untold| untold.saturating_sub(1))
    }

    /// Whether what happens in it, and its end, are to be told.
    pub(crate) const fn is_told(&self) -> bool {
        self.is_told
    }
}

/// Limits log lines that clients cause: the same cause of the same peer once in [`Seldom::TIME`], and in that time four
/// lines for one peer and 32 in all, so that one client's lines do not hide another's.
#[derive(Debug)]
pub(crate) struct SeldomEach<C> {
    said: VecDeque<(Instant, Option<IpAddr>, C)>,
    unsaid: u64,
}

impl<C: PartialEq> SeldomEach<C> {
    const OF_ONE_PEER: usize = 4;
    const IN_ALL: usize = 32;

    pub(crate) const fn new() -> Self {
        Self { said: VecDeque::new(), unsaid: 0 }
    }

    /// As [`Seldom::say`], of `cause` by `peer`.
    pub(crate) fn say(&mut self, peer: Option<IpAddr>, cause: C, now: Instant) -> Option<u64> {
        while self.said.front().is_some_and(|&(at, ..)| now.since(at) >= Seldom::TIME) {
            self.said.pop_front();
        }
        let by_peer = || self.said.iter().filter(|(_, other, _)| *other == peer);
        let is_too_often = self.said.len() >= Self::IN_ALL
            || by_peer().count() >= Self::OF_ONE_PEER
            || by_peer().any(|(.., other)| *other == cause);
        if is_too_often {
            self.unsaid += 1;
            return None;
        }
        self.said.push_back((now, peer, cause));
        Some(core::mem::take(&mut self.unsaid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_never_wrap() {
        let end = Instant::from_micros(u64::MAX);
        assert_eq!(end + Duration::MAX, end);
        assert_eq!(Instant::ZERO.since(end), Duration::ZERO);
        assert_eq!((Instant::ZERO + Duration::from_millis(3)).as_micros(), 3_000);
    }

    #[test]
    fn the_earlier_deadline_is_the_one_that_is_there() {
        let [one, two] = [1, 2].map(|micros| Some(Instant::from_micros(micros)));
        for (left, right, result) in [(one, two, one), (two, one, one), (one, None, one), (None, two, two)] {
            assert_eq!(earlier(left, right), result);
        }
        assert_eq!(earlier(None, None), None);
    }

    #[test]
    fn a_key_has_one_deadline() {
        let mut timers = Timers::new();
        let (mut a, mut b) = (None, None);
        timers.set('a', &mut a, Some(Instant::from_micros(5)));
        timers.set('b', &mut b, Some(Instant::from_micros(4)));
        timers.set('b', &mut b, Some(Instant::from_micros(9)));
        assert_eq!(timers.next(), Some(Instant::from_micros(5)));
        assert_eq!(timers.pop_due(Instant::from_micros(4)), None);
        assert_eq!(timers.pop_due(Instant::from_micros(5)), Some('a'));
        timers.set('b', &mut b, None);
        assert_eq!(timers.next(), None);
    }

    #[test]
    fn what_is_said_seldom_counts_what_it_leaves_unsaid() {
        let mut seldom = Seldom::default();
        let at = |micros| Instant::from_micros(micros);
        assert_eq!(seldom.say(at(5)), Some(0));
        assert_eq!(seldom.say(at(5)), None);
        assert_eq!(seldom.say(at(10_000_004)), None);
        assert_eq!(seldom.say(at(10_000_005)), Some(2));
        assert_eq!(seldom.say(at(20_000_005)), Some(0));
    }

    #[test]
    fn of_short_episodes_in_a_row_some_are_told_and_each_that_lasts() {
        let (mut outages, at) = (Episodes::new(), |secs: u64| Instant::from_micros(secs * 1_000_000));
        assert!(outages.is_told());
        assert_eq!(outages.begin(at(1)), Some(0));
        assert!(outages.is_told());
        let told = (2..=10).filter(|&secs| outages.begin(at(secs)).is_some()).count();
        assert_eq!((told, outages.is_told()), (0, false));
        assert_eq!(outages.go_on(at(10)), None);
        assert_eq!(outages.go_on(at(11)), Some(8), "this one lasts");
        assert_eq!(outages.go_on(at(60)), None, "and is told once");
        assert_eq!(outages.begin(at(61)), Some(0));
    }

    #[test]
    fn no_mistake_hides_another_and_nobody_fills_the_log() {
        let (mut seldom, at) = (SeldomEach::new(), |secs: u64| Instant::from_micros(secs * 1_000_000));
        let peer = |number: u8| Some(IpAddr::from([10, 0, 0, number]));
        assert_eq!(seldom.say(peer(1), 0, at(1)), Some(0));
        assert_eq!(seldom.say(peer(1), 0, at(2)), None);
        assert_eq!(seldom.say(peer(1), 1, at(2)), Some(1), "another mistake");
        assert_eq!(seldom.say(peer(2), 0, at(2)), Some(0), "somebody else's");
        let said = (2..1_000).filter(|&cause| seldom.say(peer(1), cause, at(3)).is_some()).count();
        assert_eq!(said, 2, "four of one peer");
        let said = (3..=255).filter(|&number| seldom.say(peer(number), 0, at(3)).is_some()).count();
        assert_eq!(said, 32 - 5, "32 in all");
        assert_eq!(seldom.said.len(), 32);
        assert!(seldom.say(peer(1), 0, at(11)).is_some_and(|unsaid| unsaid > 200));
    }
}
