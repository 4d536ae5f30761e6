//! Durations counted into fixed buckets.
//!
//! ```
//! use fanfare_core::histogram::Histogram;
//! use fanfare_core::time::Duration;
//!
//! let mut latency = Histogram::default();
//! latency.record(Duration::from_micros(80));
//! latency.record(Duration::from_micros(300));
//! let within = |micros| latency.buckets().find(|&(bound, _)| bound == Duration::from_micros(micros));
//! assert_eq!(within(100), Some((Duration::from_micros(100), 1)));
//! assert_eq!(within(500), Some((Duration::from_micros(500), 2)), "with those of the buckets below");
//! ```

use core::time::Duration;

const BUCKETS: usize = 20;

/// Counts durations by size, with integers alone.
///
/// A bucket counts durations up to its bound and above the bound before. [`Histogram::buckets`] adds them up as
/// [Prometheus](https://prometheus.io/docs/concepts/metric_types/#histogram) wants them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    counts: [u64; BUCKETS],
    micros: u64,
}

impl Histogram {
    /// The bounds in microseconds, from 10 µs to 10 s. The last bucket has none.
    pub const BOUNDS: [u64; BUCKETS - 1] = [
        10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
        2_500_000, 5_000_000, 10_000_000,
    ];

    /// Something took `time`, counted in whole microseconds.
    pub fn record(&mut self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.counts[Self::BOUNDS.partition_point(|&bound| bound < micros)] += 1;
        self.micros = self.micros.saturating_add(micros);
    }

    /// Adds what another one has counted.
    pub fn add(&mut self, other: &Self) {
        self.counts.iter_mut().zip(other.counts).for_each(|(sum, count)| *sum += count);
        self.micros = self.micros.saturating_add(other.micros);
    }

    /// How often.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// How long in all.
    #[must_use]
    pub const fn sum(&self) -> Duration {
        Duration::from_micros(self.micros)
    }

    /// Each bound, and how often it took no longer. What took longer than the last one is in [`Histogram::count`]
    /// alone.
    pub fn buckets(&self) -> impl Iterator<Item = (Duration, u64)> {
        let sums = self.counts.iter().scan(0, |sum, count| {
            *sum += count;
            Some(*sum)
        });
        Self::BOUNDS.iter().map(|&bound| Duration::from_micros(bound)).zip(sums)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_counts_up_to_its_bound_and_no_further() {
        let mut histogram = Histogram::default();
        for bound in Histogram::BOUNDS {
            for micros in [bound - 1, bound, bound + 1] {
                histogram.record(Duration::from_micros(micros));
            }
        }
        let bounds = Histogram::BOUNDS.len() as u64;
        let counts: Vec<u64> = histogram.buckets().map(|(_, count)| count).collect();
        assert_eq!(counts, (0..bounds).map(|bound| 3 * bound + 2).collect::<Vec<_>>());
        assert_eq!(histogram.count(), 3 * bounds);
        assert_eq!(histogram.sum(), Duration::from_micros(3 * Histogram::BOUNDS.iter().sum::<u64>()));
    }

    #[test]
    fn the_sum_of_two_counts_what_both_have_counted() {
        let (mut one, mut other, mut both) = (Histogram::default(), Histogram::default(), Histogram::default());
        for micros in (0..40).map(|power| 1 << power) {
            let half = if micros % 3 == 1 { &mut one } else { &mut other };
            half.record(Duration::from_micros(micros));
            both.record(Duration::from_micros(micros));
        }
        one.add(&other);
        assert_eq!(one, both);
    }

    #[test]
    fn no_duration_is_too_long() {
        let mut histogram = Histogram::default();
        histogram.record(Duration::MAX);
        histogram.record(Duration::MAX);
        assert_eq!((histogram.count(), histogram.buckets().map(|(_, count)| count).max()), (2, Some(0)));
        assert_eq!(histogram.sum(), Duration::from_micros(u64::MAX));
    }
}
