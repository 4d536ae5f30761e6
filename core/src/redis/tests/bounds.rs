//! Each bound at, below and above.

use crate::limits::Limits;
use crate::redis::publishes::Publishes;
use crate::redis::subscriptions::{BATCH_CHANNELS, Subscriptions};
use crate::redis::world::{World, ms, url};
use crate::redis::{Action, Lane, LinkEvent};
use crate::time::{Duration, Instant};

#[test]
fn a_publish_expires_at_its_age_and_not_before() {
    let mut world = World::up();
    world.stop();
    world.publish("chat", "one");
    world.pass(ms(59_999));
    world.publish("chat", "two");
    let backlog = world.link.publish_backlog();
    world.take_events();
    world.pass(ms(1));
    let events = world.take_events();
    assert_eq!(events, [LinkEvent::Expired { messages: 1 }, LinkEvent::Released { bytes: backlog / 2 }]);
    assert_eq!(world.link.publish_backlog(), backlog / 2);
    world.start();
    world.pass(ms(2_000));
    assert_eq!(world.published(), ["two"]);
}

#[test]
fn a_dial_may_take_its_time_and_no_longer() {
    for (at, hangs_up) in [(1_999, false), (2_000, true)] {
        let mut world = World::new();
        world.is_reachable = false;
        world.dials_hang = true;
        world.run();
        world.pass(ms(at));
        assert_eq!(world.actions.iter().any(|(_, action)| *action == Action::HangUp(Lane::Publisher)), hangs_up);
    }
}

#[test]
fn a_handshake_without_an_answer_is_given_up() {
    for (at, hangs_up) in [(4_999, false), (5_000, true)] {
        let mut world = World::new();
        world.server.swallows = true;
        world.run();
        world.pass(ms(at));
        assert_eq!(world.actions.iter().any(|(_, action)| *action == Action::HangUp(Lane::Subscriber)), hangs_up);
    }
}

#[test]
fn a_lane_is_pinged_after_silence_alone() {
    let limits = Limits { probe_time: ms(1_000_000), ..Limits::default() };
    let mut world = World::with(url(), &limits, 7);
    world.subscribe("chat");
    world.server.log.clear();
    for _ in 0..10 {
        world.pass(ms(4_999));
        world.server.publish(b"chat", b"x");
        world.publish("other", "x");
    }
    assert!(!world.server.log.iter().any(|(_, name)| name == "PING"));
    world.pass(ms(5_000));
    let pings = world.server.log.iter().filter(|(_, name)| name == "PING").count();
    assert_eq!(pings, 2, "one on each lane");
}

#[test]
fn waits_between_dials_grow_to_the_cap_and_are_spread() {
    let limits = Limits { reconnect_times: (ms(100), ms(400)), ..Limits::default() };
    let mut longest = [Duration::ZERO; 5];
    for seed in 0..200 {
        let mut world = World::with(url(), &limits, seed);
        world.is_reachable = false;
        world.run();
        world.pass(ms(3_000));
        let dials: Vec<Instant> = world
            .actions
            .iter()
            .filter(|(_, action)| *action == Action::Dial(Lane::Publisher))
            .map(|&(at, _)| at)
            .collect();
        for (i, pair) in dials.windows(2).take(5).enumerate() {
            longest[i] = longest[i].max(pair[1].since(pair[0]));
        }
    }
    for (longest, bound) in longest.into_iter().zip([100, 200, 400, 400, 400]) {
        assert!(longest <= ms(bound) && longest > ms(bound * 9 / 10), "{longest:?} of {bound}");
    }
}

#[test]
fn the_same_seed_dials_at_the_same_times() {
    let actions = |seed| {
        let mut world = World::with(url(), &Limits::default(), seed);
        world.is_reachable = false;
        world.run();
        world.pass(ms(10_000));
        world.actions
    };
    assert_eq!(actions(1), actions(1));
    assert_ne!(actions(1), actions(2));
}

#[test]
fn a_batch_is_bounded_in_channels_and_bytes() {
    let sizes = |names: &mut dyn Iterator<Item = String>| {
        let mut subscriptions = Subscriptions::default();
        names.for_each(|name| assert!(!subscriptions.want(name.into())));
        let mut sizes = Vec::new();
        while let Some(batch) = subscriptions.next_batch() {
            let channels = batch.channels.clone();
            sizes.push(channels.len());
            channels.iter().for_each(|name| assert!(subscriptions.handle_subscribed(name).is_ok()));
        }
        sizes
    };
    assert_eq!(sizes(&mut (0..BATCH_CHANNELS).map(|i| i.to_string())), [512]);
    assert_eq!(sizes(&mut (0..=BATCH_CHANNELS).map(|i| i.to_string())), [512, 1]);
    assert_eq!(sizes(&mut (0..100).map(|i| format!("{i:0240}"))), [64, 36], "16 KiB of names and their lengths");
    assert_eq!(sizes(&mut (0..2).map(|i| format!("{i:020000}"))), [1, 1], "a longer one goes alone");
}

#[test]
fn the_queue_gives_its_memory_back() {
    let mut publishes = Publishes::default();
    for _ in 0..100_000 {
        publishes.push(b"chat", &[b'x'; 100], Instant::ZERO);
    }
    let bytes = publishes.bytes();
    let mut sent = 0;
    publishes.handle_written(bytes, |_| sent += 1);
    assert_eq!((sent, publishes.bytes(), publishes.unsent()), (100_000, bytes, 0));
    let released: usize = (0..sent).map(|_| publishes.handle_published(Instant::ZERO).bytes).sum();
    assert_eq!((released, publishes.bytes()), (bytes, 0));
    assert!(publishes.capacity() <= (512 << 10), "{}", publishes.capacity());
}

#[test]
fn an_earlier_time_counts_as_the_latest_seen() {
    let mut world = World::up();
    world.pass(ms(4_000));
    world.stop();
    world.link.publish(b"chat", b"one", Instant::ZERO);
    world.now = Instant::ZERO + ms(63_999);
    world.link.handle_timeout(world.now);
    assert_eq!(world.link.unsent_publishes(), 1, "its age counts from the fourth second");
    world.link.handle_timeout(world.now + ms(1));
    assert_eq!(world.link.unsent_publishes(), 0);
}

#[test]
fn acknowledging_more_than_was_lent_is_refused_and_changes_nothing() {
    let mut world = World::up();
    world.link.publish(b"chat", b"one", world.now);
    let length = world.link.publish_backlog();
    assert!(world.link.transmitted(Lane::Publisher, length + 1, world.now).is_err());
    world.run();
    assert_eq!(world.published(), ["one"]);
}
