use super::*;
use crate::http::Answer;
use crate::limits::Limits;

/// The default settings with one change of their limits.
fn with(change: impl FnOnce(&mut Limits)) -> Settings {
    let mut settings = Settings::default();
    change(&mut settings.limits);
    settings
}

/// Every sum saturates, so that the bound of whatever an embedder sets is never too small; on targets with 32 bits
/// allowed settings come so far.
#[test]
fn a_memory_bound_does_not_wrap() {
    let mut most = with(|limits| {
        (limits.all_queues_bytes, limits.partial_bytes, limits.publish_bytes) = (usize::MAX, usize::MAX, usize::MAX);
        (limits.mailbox_bytes, limits.message_bytes) = (usize::MAX, usize::MAX);
        (limits.head_bytes, limits.channel_bytes, limits.lingering_channels) = (usize::MAX, usize::MAX, usize::MAX);
    });
    for workers in [1, usize::MAX] {
        most.workers = workers;
        let bound = most.memory_bound();
        assert_eq!((bound.fixed, bound.connection), (usize::MAX, usize::MAX));
        assert_eq!(bound.with(usize::MAX), usize::MAX);
        assert!(bound.sentence(usize::MAX).starts_with("memory: at most "));
    }
}

#[test]
fn no_limit_that_grows_makes_the_memory_bound_smaller() {
    let changes: [fn(&mut Limits) -> &mut usize; 8] = [
        |limits| &mut limits.all_queues_bytes,
        |limits| &mut limits.partial_bytes,
        |limits| &mut limits.publish_bytes,
        |limits| &mut limits.mailbox_bytes,
        |limits| &mut limits.message_bytes,
        |limits| &mut limits.head_bytes,
        |limits| &mut limits.channel_bytes,
        |limits| &mut limits.lingering_channels,
    ];
    for (place, field) in changes.into_iter().enumerate() {
        let mut before = 0;
        for shift in 0..usize::BITS {
            let mut settings = with(|limits| *field(limits) = usize::MAX >> (usize::BITS - 1 - shift));
            settings.workers = 1_024;
            let bound = settings.memory_bound().with(1_000_000);
            assert!(bound >= before, "limit {place} at {shift} bits: {bound} after {before}");
            before = bound;
        }
    }
}

#[test]
fn a_connection_counts_with_the_largest_file() {
    let mut settings = Settings::default();
    let before = settings.memory_bound();
    settings.files.insert("/small".to_owned(), Answer::text(200, vec![b'a'; 20 << 10]));
    assert_eq!(settings.memory_bound(), before);
    settings.files.insert("/large".to_owned(), Answer::text(200, vec![b'a'; 100 << 10]));
    assert_eq!(settings.memory_bound().connection, before.connection + (101 << 10) - (24 << 10));
}
