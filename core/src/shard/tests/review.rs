//! Messages that the embedder decides about.

use std::io::IoSlice;
use std::sync::Arc;

use bytes::Bytes;

use crate::bus::Bus;
use crate::error::Misuse;
use crate::limits::Limits;
use crate::route::{Rights, Target};
use crate::settings::Settings;
use crate::shard::{Decision, Event, SessionId, Shard};
use crate::time::Instant;
use crate::ws::tests::frame;

const NOW: Instant = Instant::ZERO;

struct World {
    shard: Shard,
    bus: Bus,
    /// Reviewed.
    speaker: SessionId,
    /// Hears the same channel.
    other: SessionId,
}

fn world(limits: Limits) -> World {
    let settings = Arc::new(Settings { limits, ..Settings::default() });
    let (mut shard, bus) = (Shard::new(settings.clone(), 1, NOW), Bus::local(&settings.limits, 1, 2, NOW));
    let mut target = Target::new("tea");
    let other = shard.adopt(target.clone(), Vec::new(), NOW).unwrap();
    target.rights = Rights { review: true, ..Rights::ALL };
    let speaker = shard.adopt(target, Vec::new(), NOW).unwrap();
    let mut world = World { shard, bus, speaker, other };
    world.exchange();
    world
}

impl World {
    fn exchange(&mut self) {
        for _ in 0..3 {
            self.shard.handle_timeout(NOW);
            while let Some(wishes) = self.shard.poll_bus() {
                self.bus.handle_shard(0, wishes, NOW).unwrap();
            }
            self.bus.handle_timeout(NOW);
            while let Some((_, news)) = self.bus.poll_shard() {
                self.shard.handle_bus(news, NOW);
            }
        }
    }

    fn say(&mut self, messages: &[&str]) {
        let mut read: Vec<u8> = messages.iter().flat_map(|message| frame(0x81, message.as_bytes())).collect();
        self.shard.handle_read(self.speaker, &mut read, NOW);
        self.exchange();
    }

    /// What is to be decided about, as far as the shard has said.
    fn reviews(&mut self) -> Vec<String> {
        let events = std::iter::from_fn(|| self.shard.poll_event());
        let review = |event| if let Event::Review(review) = event { Some(review.payload) } else { None };
        events.filter_map(review).map(|payload| String::from_utf8(payload.into()).unwrap()).collect()
    }

    fn decide(&mut self, decision: Decision) -> Result<(), Misuse> {
        let result = self.shard.decide(decision, NOW);
        self.exchange();
        result
    }

    /// What leaves for `id`.
    fn written(&mut self, id: SessionId) -> Vec<u8> {
        let mut slices = [IoSlice::new(&[]); 16];
        let filled = self.shard.transmit(id, &mut slices);
        let bytes: Vec<u8> = slices[..filled].iter().flat_map(|slice| slice.iter().copied()).collect();
        self.shard.transmitted(id, bytes.len(), NOW).unwrap();
        bytes
    }
}

fn publish(payload: &'static str) -> Decision {
    Decision::Publish(Bytes::from(payload))
}

#[test]
fn messages_are_published_as_decided_and_in_order() {
    let mut world = world(Limits::default());
    let credit = world.shard.credit.left();
    world.say(&["one", "two", "three"]);
    assert_eq!(world.reviews(), ["one", "two", "three"]);
    assert_eq!(world.written(world.other), b"", "nothing is published by itself");
    world.decide(publish("ann: one")).unwrap();
    world.decide(Decision::Drop).unwrap();
    world.decide(publish("three")).unwrap();
    for id in [world.speaker, world.other] {
        assert_eq!(world.written(id), b"\x81\x08ann: one\x81\x05three");
    }
    assert_eq!(world.decide(Decision::Drop), Err(Misuse::WrongState), "there is none left");
    assert_eq!(world.shard.credit.left(), credit);
}

#[test]
fn a_session_that_is_closed_for_a_message_says_nothing_more() {
    let mut world = world(Limits::default());
    let credit = world.shard.credit.left();
    world.say(&["bad", "behind it"]);
    world.decide(Decision::Close(4003, "no".to_owned())).unwrap();
    world.say(&["later"]);
    assert_eq!(world.reviews(), ["bad", "behind it"]);
    world.decide(publish("behind it")).unwrap();
    assert_eq!(world.decide(Decision::Drop), Err(Misuse::WrongState));
    assert_eq!((world.written(world.speaker), world.written(world.other)), (b"\x88\x04\x0F\xA3no".to_vec(), vec![]));
    assert_eq!((world.shard.credit.left(), world.shard.stats().discarded), (credit, 1));
}

#[test]
fn messages_that_wait_for_their_decision_hold_credit_and_so_are_bounded() {
    let mut world = world(Limits { message_bytes: 100, publish_bytes: 150, ..Limits::default() });
    let long = "x".repeat(100);
    world.say(&[&long, "second"]);
    world.say(&["third"]);
    assert_eq!(world.reviews(), [&long, "second"], "what is read once may go beyond it");
    assert!(!world.shard.handle_readable(world.speaker, NOW), "the third waits for credit");
    world.decide(Decision::Drop).unwrap();
    assert_eq!(world.reviews(), ["third"]);
    assert!(world.shard.handle_readable(world.speaker, NOW));
}

#[test]
fn a_message_outlives_its_session_and_the_shard_waits_for_its_decision() {
    let mut world = world(Limits::default());
    world.say(&["last"]);
    world.shard.handle_reset(world.speaker);
    world.decide(publish("last")).unwrap();
    assert_eq!(world.written(world.other), b"\x81\x04last");
    let mut left = self::world(Limits::default());
    left.say(&["last"]);
    left.shard.handle_reset(left.speaker);
    left.shard.handle_reset(left.other);
    assert!(!left.shard.is_empty());
    left.decide(Decision::Close(1008, String::new())).unwrap();
    assert!(left.shard.is_empty());
}

#[test]
fn a_decision_that_cannot_be_changes_nothing() {
    let mut world = world(Limits::default());
    let most = Limits::default().message_bytes;
    assert_eq!(world.decide(publish("early")), Err(Misuse::WrongState));
    world.say(&["hello"]);
    let long = Decision::Publish(vec![b'x'; most + 1].into());
    assert_eq!(world.decide(long), Err(Misuse::MessageSize));
    assert_eq!(world.decide(Decision::Publish(Bytes::from_static(b"\xFF"))), Err(Misuse::Utf8));
    assert_eq!(world.decide(Decision::Close(1005, String::new())), Err(Misuse::CloseCode));
    assert_eq!(world.decide(Decision::Close(1000, "r".repeat(124))), Err(Misuse::CloseReason));
    world.decide(publish("hello")).unwrap();
    assert_eq!(world.written(world.other), b"\x81\x05hello");
}
