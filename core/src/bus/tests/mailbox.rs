//! A worker that does not keep up.

use super::super::Bus;
use super::channels::{id, news, publish, subscribe, unsubscribe};
use crate::exchange::{ToBus, Wish};
use crate::limits::Limits;
use crate::route::FrameType;
use crate::run::RunBuilder;
use crate::time::Instant;

const NOW: Instant = Instant::ZERO;

/// What a run of one message of ten bytes takes.
fn run() -> usize {
    let mut builder = RunBuilder::new(FrameType::Text);
    builder.push(&[b'x'; 10]).unwrap();
    builder.finish().memory()
}

/// A bus of two workers in one channel, each with room for so many bytes.
fn bus(mailbox_bytes: usize) -> Bus {
    let limits = Limits { mailbox_bytes, ..Limits::default() };
    let mut bus = Bus::local(&limits, 2, 1, NOW);
    bus.handle_shard(0, subscribe("chat", id(0)), NOW).unwrap();
    bus.handle_shard(1, subscribe("chat", id(1)), NOW).unwrap();
    news(&mut bus);
    bus
}

/// One message comes; the first worker takes it out at once.
fn message(bus: &mut Bus) -> Vec<(usize, String)> {
    bus.handle_shard(0, publish("chat", &[b'x'; 10]), NOW).unwrap();
    bus.handle_timeout(NOW);
    let news = news(bus);
    taken(bus, 0, run());
    news
}

fn taken(bus: &mut Bus, worker: usize, bytes: usize) {
    let wishes = ToBus { wishes: vec![Wish::Taken { bytes }], payloads: Vec::new() };
    bus.handle_shard(worker, wishes, NOW).unwrap();
}

#[test]
fn a_full_mailbox_drops_whole_runs_for_its_worker_alone_and_counts_them() {
    for (bound, room) in [(3 * run() - 1, 2), (3 * run(), 3), (3 * run() + 1, 3)] {
        let mut bus = bus(bound);
        let mut got = [0, 0];
        for _ in 0..5 {
            for (worker, line) in message(&mut bus) {
                assert!(line.starts_with("run "), "{line}");
                got[worker] += 1;
            }
        }
        assert_eq!((got, bus.stats().missed), ([5, room], 5 - room as u64), "{bound} bytes");
        assert_eq!(bus.stats().fullest_mailbox, room * run(), "{bound} bytes");
    }
}

#[test]
fn what_was_missed_is_told_when_half_the_mailbox_is_free_and_before_what_comes_next() {
    let mut bus = bus(4 * run());
    for _ in 0..7 {
        message(&mut bus);
    }
    taken(&mut bus, 1, run());
    assert_eq!(message(&mut bus).len(), 1, "there is room, but the channel has yet to hear what it missed");
    taken(&mut bus, 1, run());
    assert_eq!(news(&mut bus), [(1, "missed 4 of 1".to_owned())], "without waiting for a message");
    assert_eq!(message(&mut bus).len(), 2);
    assert_eq!(bus.stats().missed, 4);
}

#[test]
fn a_full_mailbox_is_a_gap_of_the_channels_that_missed_something_and_of_no_other() {
    let mut bus = bus(3 * run());
    bus.handle_shard(1, subscribe("tea", id(2)), NOW).unwrap();
    news(&mut bus);
    let tea = |bus: &mut Bus, len| {
        bus.handle_shard(0, publish("tea", &vec![b'x'; len]), NOW).unwrap();
        bus.handle_timeout(NOW);
        news(bus).len()
    };
    let large = 2 * run();
    for _ in 0..2 {
        assert_eq!(message(&mut bus).len(), 2);
    }
    assert_eq!([tea(&mut bus, large), tea(&mut bus, 1)], [0, 0], "too large for the rest, and then in its place");
    assert_eq!(message(&mut bus).len(), 2, "the other channel goes on");
    taken(&mut bus, 1, 2 * run());
    assert_eq!(news(&mut bus), [(1, "missed 2 of 2".to_owned())]);
    assert_eq!(tea(&mut bus, 1), 1);
}

#[test]
fn a_run_that_is_too_large_for_a_mailbox_that_is_half_empty_is_told_at_once() {
    let mut bus = bus(8 * run());
    for _ in 0..3 {
        assert_eq!(message(&mut bus).len(), 2);
    }
    bus.handle_shard(0, publish("chat", &vec![b'x'; 6 * run()]), NOW).unwrap();
    bus.handle_timeout(NOW);
    assert_eq!(news(&mut bus).last(), Some(&(1, "missed 1 of 1".to_owned())));
    assert_eq!(message(&mut bus).last(), Some(&(1, "run 1 xxxxxxxxxx".to_owned())), "and the channel goes on");
}

#[test]
fn a_worker_does_not_hear_what_it_missed_of_a_channel_that_it_has_left() {
    let mut bus = bus(1);
    message(&mut bus);
    message(&mut bus);
    bus.handle_shard(1, unsubscribe("chat", id(1)), NOW).unwrap();
    taken(&mut bus, 1, run());
    assert!(news(&mut bus).is_empty());
}

#[test]
fn an_empty_mailbox_takes_a_run_of_any_size() {
    let mut bus = bus(1);
    assert_eq!(message(&mut bus).len(), 2);
    assert_eq!(message(&mut bus).len(), 1);
    taken(&mut bus, 1, run());
    assert_eq!(message(&mut bus).len(), 3, "what was missed, and a run for each");
}

/// Found by the simulator: a worker that had said nothing yet of the little it took got nothing more, and so had
/// nothing to say.
#[test]
fn a_mailbox_whose_bytes_may_all_be_taken_out_takes_a_run_of_any_size() {
    for (bound, room) in [(run(), 1), (4 * run() - 1, 3), (4 * run(), 4)] {
        let mut bus = bus(bound);
        for _ in 0..5 {
            message(&mut bus);
        }
        assert_eq!(bus.stats().missed, 5 - room, "{bound} bytes");
    }
    let mut bus = bus(4 * run());
    message(&mut bus);
    let large = vec![b'x'; 8 * run()];
    bus.handle_shard(0, publish("chat", &large), NOW).unwrap();
    bus.handle_timeout(NOW);
    assert_eq!(bus.stats().missed, 0, "a quarter of it is in the mailbox, by what is said");
    bus.handle_shard(0, publish("chat", &large), NOW).unwrap();
    bus.handle_timeout(NOW);
    assert_eq!(bus.stats().missed, 2, "for both workers");
}

#[test]
fn news_says_how_many_bytes_of_messages_are_in_it() {
    let mut bus = bus(1 << 20);
    bus.handle_shard(0, publish("chat", b""), NOW).unwrap();
    bus.handle_shard(0, publish("chat", &[b'x'; 126]), NOW).unwrap();
    bus.handle_timeout(NOW);
    let mut bytes = [0; 2];
    while let Some((worker, news)) = bus.poll_shard() {
        bytes[worker] += news.run_bytes();
    }
    assert_eq!(bytes, [2 + 4 + 126; 2], "both messages with their headers, and nothing for the credit");
}
