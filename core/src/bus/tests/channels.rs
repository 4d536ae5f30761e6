//! Who wants which channel, and for how long.

use bytes::Bytes;

use super::super::Bus;
use crate::error::Misuse;
use crate::exchange::{ChannelId, News, ToBus, Wish};
use crate::limits::Limits;
use crate::route::FrameType;
use crate::time::{Duration, Instant};

pub(super) const fn id(index: u32) -> ChannelId {
    ChannelId { index, generation: 0 }
}

pub(super) fn subscribe(name: &'static str, channel: ChannelId) -> ToBus {
    let wish = Wish::Subscribe { channel, name: Bytes::from_static(name.as_bytes()), frame: FrameType::Text };
    ToBus { wishes: vec![wish], payloads: Vec::new() }
}

pub(super) fn unsubscribe(name: &'static str, channel: ChannelId) -> ToBus {
    let wish = Wish::Unsubscribe { channel, name: Bytes::from_static(name.as_bytes()) };
    ToBus { wishes: vec![wish], payloads: Vec::new() }
}

pub(super) fn publish(name: &'static str, payload: &[u8]) -> ToBus {
    let mut wishes = ToBus::default();
    wishes.publish(&Bytes::from_static(name.as_bytes()), payload);
    wishes
}

/// News for all workers, one line each: runs by their payloads.
pub(super) fn news(bus: &mut Bus) -> Vec<(usize, String)> {
    let mut lines = Vec::new();
    while let Some((worker, batch)) = bus.poll_shard() {
        for item in batch.news {
            lines.push((
                worker,
                match item {
                    News::Subscribed(channel) => format!("subscribed {}", channel.index),
                    News::Run { channel, run } => {
                        let payloads: Vec<_> = run.payloads().map(String::from_utf8_lossy).collect();
                        format!("run {} {}", channel.index, payloads.join(" "))
                    }
                    News::Missed { channel, messages } => format!("missed {messages} of {}", channel.index),
                    News::Credit(_) | News::Ready(_) | News::Looked => continue,
                    News::GapBegan { .. } => "gap".to_owned(),
                    News::GapEnded(gap) => format!("gap {} ended", gap.epoch),
                },
            ));
        }
    }
    lines
}

fn bus(workers: usize) -> Bus {
    Bus::local(&Limits::default(), workers, 1, Instant::ZERO)
}

#[test]
fn each_worker_hears_of_its_channels_under_its_own_names() {
    let mut bus = bus(3);
    let now = Instant::ZERO;
    bus.handle_shard(0, subscribe("chat", id(7)), now).unwrap();
    bus.handle_shard(2, subscribe("chat", id(1)), now).unwrap();
    bus.handle_shard(1, subscribe("tea", id(7)), now).unwrap();
    assert_eq!(
        news(&mut bus),
        [(0, "subscribed 7".to_owned()), (1, "subscribed 7".to_owned()), (2, "subscribed 1".to_owned())]
    );
    bus.handle_shard(1, publish("chat", b"a"), now).unwrap();
    bus.handle_shard(1, publish("tea", b"b"), now).unwrap();
    bus.handle_shard(0, publish("chat", b"c"), now).unwrap();
    assert_eq!(bus.poll_timeout(), Some(now), "publishes wait for the next turn");
    bus.handle_timeout(now);
    assert_eq!(news(&mut bus), [(0, "run 7 a c".to_owned()), (1, "run 7 b".to_owned()), (2, "run 1 a c".to_owned())]);
    assert_eq!(bus.poll_timeout(), None);
}

#[test]
fn a_worker_that_the_bus_was_not_made_for_is_misuse() {
    let mut bus = bus(2);
    assert_eq!(bus.handle_shard(2, publish("chat", b"x"), Instant::ZERO), Err(Misuse::NoSuchWorker));
    assert_eq!((bus.stats().unsent, bus.debts()), (0, vec![0, 0]));
}

#[test]
fn a_channel_lingers_from_its_last_worker_on_and_no_longer() {
    let mut bus = bus(2);
    let second = Duration::from_secs(1);
    bus.handle_shard(0, subscribe("chat", id(0)), Instant::ZERO).unwrap();
    bus.handle_shard(1, subscribe("chat", id(0)), Instant::ZERO).unwrap();
    bus.handle_shard(0, unsubscribe("chat", id(0)), Instant::ZERO).unwrap();
    news(&mut bus);
    assert_eq!(bus.poll_timeout(), None, "one worker is left");
    bus.handle_shard(1, unsubscribe("chat", id(0)), Instant::ZERO + second).unwrap();
    let end = Instant::ZERO + second + Limits::default().linger_time;
    assert_eq!(bus.poll_timeout(), Some(end));
    bus.handle_timeout(Instant::from_micros(end.as_micros() - 1));
    assert_eq!(bus.stats().channels, 1);
    bus.handle_timeout(end);
    assert_eq!((bus.stats().channels, bus.poll_timeout()), (0, None));
}

#[test]
fn at_the_bound_the_channel_that_has_lingered_longest_goes_first() {
    let limits = Limits { lingering_channels: 2, ..Limits::default() };
    let mut bus = Bus::local(&limits, 1, 1, Instant::ZERO);
    let names = ["first", "second", "third"];
    for (index, (name, seconds)) in names.into_iter().zip(1..).enumerate() {
        let id = id(index as u32);
        bus.handle_shard(0, subscribe(name, id), Instant::ZERO).unwrap();
        bus.handle_shard(0, unsubscribe(name, id), Instant::ZERO + Duration::from_secs(seconds)).unwrap();
        let stats = bus.stats();
        assert_eq!((stats.lingering, stats.channels), ((index + 1).min(2), (index + 1).min(2)), "{name}");
        assert_eq!(stats.linger_evictions, u64::from(index == 2));
    }
    news(&mut bus);
    assert_eq!(bus.poll_timeout(), Some(Instant::ZERO + Duration::from_secs(2) + limits.linger_time), "the second");
    bus.handle_shard(0, subscribe("third", id(7)), Instant::ZERO).unwrap();
    assert_eq!((bus.stats().lingering, bus.stats().channels), (1, 2), "one that is wanted again does not count");
}

#[test]
fn messages_of_a_lingering_channel_go_nowhere() {
    let mut bus = bus(1);
    bus.handle_shard(0, subscribe("chat", id(0)), Instant::ZERO).unwrap();
    bus.handle_shard(0, unsubscribe("chat", id(0)), Instant::ZERO).unwrap();
    news(&mut bus);
    bus.handle_shard(0, publish("chat", b"x"), Instant::ZERO).unwrap();
    bus.handle_timeout(Instant::ZERO);
    assert!(news(&mut bus).is_empty());
    assert_eq!((bus.stats().messages, bus.stats().unsent), (1, 0));
}

#[test]
fn a_turn_inside_the_process_delivers_as_much_as_one_read_would_bring() {
    let mut bus = bus(1);
    bus.handle_shard(0, subscribe("chat", id(0)), Instant::ZERO).unwrap();
    for number in 0..10 {
        bus.handle_shard(0, publish("chat", &[b'0' + number; 16 << 10]), Instant::ZERO).unwrap();
    }
    news(&mut bus);
    let mut turns = Vec::new();
    while bus.poll_timeout() == Some(Instant::ZERO) {
        bus.handle_timeout(Instant::ZERO);
        turns.push(news(&mut bus)[0].1.split(' ').count() - 2);
    }
    assert_eq!(turns, [4, 4, 2]);
}

#[test]
fn text_that_is_not_utf8_is_dropped_and_counted() {
    let mut bus = bus(1);
    bus.handle_shard(0, subscribe("chat", id(0)), Instant::ZERO).unwrap();
    for payload in [&b"one"[..], b"\xFF", b"two"] {
        bus.handle_shard(0, publish("chat", payload), Instant::ZERO).unwrap();
    }
    bus.handle_timeout(Instant::ZERO);
    assert_eq!(news(&mut bus)[1..], [(0, "run 0 one two".to_owned())]);
    assert_eq!(bus.stats().not_utf8, 1);
}

#[test]
fn the_table_of_channels_shrinks_when_they_are_gone() {
    let mut bus = bus(1);
    for index in 0..500 {
        let name = Bytes::from(format!("chat:{index}"));
        let frame = FrameType::Text;
        let wish = Wish::Subscribe { channel: id(index), name: name.clone(), frame };
        let gone = Wish::Unsubscribe { channel: id(index), name };
        bus.handle_shard(0, ToBus { wishes: vec![wish, gone], payloads: Vec::new() }, Instant::ZERO).unwrap();
    }
    let before = bus.channels.capacity();
    bus.handle_timeout(Instant::from_micros(u64::MAX));
    assert!(bus.channels.capacity() < before / 4);
}
