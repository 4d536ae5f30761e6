//! Who is read when little may be published.

use super::world::{CLOSE, World, limits, ms, request, text};
use crate::error::Error;
use crate::exchange::publish_cost;
use crate::limits::Limits;
use crate::route::{Rights, Target};
use crate::time::Duration;
use crate::ws::tests::frame;

/// A Redis that was there for the handshakes and is away now, and so much credit.
fn world(clients: &[&str], change: impl FnOnce(&mut Limits)) -> (World, Vec<usize>) {
    let mut limits = limits();
    change(&mut limits);
    let mut world = World::redis(limits, 1);
    let clients = clients.iter().map(|path| world.join(path)).collect();
    world.lose_redis();
    (world, clients)
}

fn message_cost(len: usize) -> usize {
    publish_cost(b"chat", len)
}

#[test]
fn a_session_that_finds_no_credit_is_not_read_until_there_is_some() {
    for (bound, reads) in [(message_cost(10) + 1, true), (message_cost(10), false), (message_cost(10) - 1, false)] {
        let (mut world, clients) = world(&["/chat", "/news"], |limits| limits.publish_bytes = bound);
        world.send(clients[0], &text("0123456789"));
        world.send(clients[0], &text("waits"));
        assert_eq!(world.clients[clients[0]].input.is_empty(), reads, "{bound} bytes");
        assert_eq!(world.shards[0].stats().pauses, u64::from(!reads || world.clients[clients[0]].waits));
        world.send(clients[1], &frame(0x89, b"still read"));
        assert_eq!(world.messages(clients[1]).len(), 1, "whoever may not publish needs no credit");
        world.is_reachable = true;
        world.pass(Duration::from_secs(3));
        assert_eq!(world.texts(clients[0]), ["0123456789", "waits"]);
    }
}

#[test]
fn what_was_read_is_admitted_whole_and_the_bound_is_exceeded_by_one_read_at_most() {
    let (mut world, clients) = world(&["/chat", "/chat"], |limits| limits.publish_bytes = 1 << 10);
    for &client in &clients {
        world.clients[client].input.extend(text("0123456789").repeat(5_000));
    }
    world.run();
    let one_read = (16 << 10) / text("0123456789").len() + 1;
    let most = (1 << 10) + one_read * message_cost(10);
    assert!((1 << 10..=most).contains(&world.bus.stats().publish_bytes), "{:?}", world.bus.stats());
    assert!(world.clients.iter().all(|client| client.waits && !client.input.is_empty()));
}

#[test]
fn after_pause_time_a_session_without_credit_is_closed_with_1013() {
    let (mut world, clients) = world(&["/chat"], |limits| limits.publish_bytes = 100);
    world.send(clients[0], &text(&"x".repeat(100)));
    world.send(clients[0], &text("waits"));
    world.pass(Duration::from_millis(9_999));
    assert_eq!(world.close_code(clients[0]), None);
    world.pass(ms(1));
    assert_eq!(world.close_code(clients[0]), Some(1013));
    world.send(clients[0], &frame(CLOSE, b""));
    world.end(clients[0]);
    assert_eq!(world.error(clients[0]), Some(Error::NoCredit));
}

#[test]
fn who_has_nothing_to_publish_outlives_any_want_of_credit() {
    let (mut world, clients) = world(&["/chat"; 3], |limits| {
        limits.publish_bytes = 100;
        limits.publish_time = Duration::from_secs(1_000);
    });
    let [flood, quiet, begins] = clients[..] else { unreachable!() };
    world.send(flood, &text(&"x".repeat(100)));
    world.send(begins, &frame(0x01, b"a message that"));
    world.pass(Duration::from_secs(10));
    assert_eq!(world.close_code(begins), Some(1013));
    for round in 0..5 {
        world.send(quiet, &frame(0x8A, b"an answer"));
        world.send(quiet, &frame(0x89, b"still there?"));
        assert!(world.clients[quiet].waits, "round {round}");
        world.pass(Duration::from_secs(10));
        assert!(!world.clients[quiet].waits && world.close_code(quiet).is_none(), "round {round}");
    }
    world.send(quiet, &frame(CLOSE, b""));
    world.pass(Duration::from_secs(10));
    world.end(quiet);
    assert_eq!(world.error(quiet), None);
}

#[test]
fn who_is_heard_out_but_says_nothing_has_all_the_time_again() {
    let (mut world, clients) = world(&["/chat"; 2], |limits| limits.publish_bytes = 100);
    world.send(clients[0], &text(&"x".repeat(100)));
    world.send(clients[1], &text("gone before it is read"));
    world.clients[clients[1]].input.clear();
    world.pass(Duration::from_secs(10));
    let (id, now) = (world.id(clients[1]), world.now);
    assert!(world.shard().handle_readable(id, now), "named, and asked for");
    world.send(clients[1], &text("late"));
    world.pass(Duration::from_millis(9_999));
    assert_eq!(world.close_code(clients[1]), None);
    world.pass(ms(1));
    assert_eq!(world.close_code(clients[1]), Some(1013));
    assert_eq!(world.shards[0].stats().discarded, 1);
}

#[test]
fn the_pong_deadline_stands_still_while_a_session_waits_for_credit() {
    let (mut world, clients) = world(&["/chat"], |limits| {
        limits.publish_bytes = 100;
        limits.pause_time = Duration::from_secs(200);
        limits.publish_time = Duration::from_secs(1_000);
    });
    world.send(clients[0], &text(&"x".repeat(100)));
    world.send(clients[0], &text("waits"));
    world.pass(Duration::from_secs(99));
    assert_eq!(world.messages(clients[0]), [], "not even a ping");
    world.is_reachable = true;
    world.pass(Duration::from_secs(3));
    assert_eq!(world.texts(clients[0]).len(), 2);
}

#[test]
fn sessions_are_read_again_in_the_order_in_which_they_came_to_wait() {
    let (mut world, clients) = world(&["/chat"; 6], |limits| limits.publish_bytes = 100);
    world.send(clients[0], &text(&"x".repeat(100)));
    for &client in [3, 1, 5, 2, 4].iter() {
        world.send(clients[client], &text(&client.to_string()));
    }
    world.is_reachable = true;
    world.pass(Duration::from_secs(3));
    assert_eq!(world.texts(clients[0])[1..], ["3", "1", "5", "2", "4"]);
}

#[test]
fn whoever_comes_later_does_not_get_ahead_of_those_who_wait() {
    let (mut world, clients) = world(&["/chat"; 3], |limits| limits.publish_bytes = 100);
    world.send(clients[0], &text(&"x".repeat(100)));
    world.send(clients[1], &text("waits"));
    world.is_reachable = true;
    // The embedder does not read the first in line at once: its place is kept.
    world.clients[clients[1]].input.clear();
    world.pass(Duration::from_secs(3));
    assert!(world.shard().has_credit() && !world.clients[clients[1]].waits);
    world.send(clients[2], &text("later"));
    assert!(world.clients[clients[2]].waits);
    world.send(clients[1], &text("first"));
    assert_eq!(world.texts(clients[0])[1..], ["first", "later"]);
}

#[test]
fn who_was_named_and_finds_the_credit_gone_is_first_in_line_again() {
    let (mut world, clients) = world(&["/chat"; 3], |limits| limits.publish_bytes = 100);
    world.send(clients[0], &text(&"x".repeat(100)));
    world.send(clients[1], &text("waits"));
    world.send(clients[2], &text("second"));
    world.clients[clients[1]].input.clear();
    world.is_reachable = true;
    world.pass(Duration::from_secs(3));
    assert!(!world.clients[clients[1]].waits && world.clients[clients[2]].waits);
    world.lose_redis();
    world.shard().publish(&"elsewhere".into(), &[b'x'; 100]).unwrap();
    world.send(clients[1], &text("first"));
    assert!(world.clients[clients[1]].waits);
    world.is_reachable = true;
    world.pass(Duration::from_secs(3));
    assert_eq!(world.texts(clients[0])[1..], ["first", "second"]);
}

/// Those who were named publish nothing, so that no credit comes back for which the others could be named.
#[test]
fn nobody_waits_while_there_is_credit_that_others_do_not_use() {
    let mut paths = vec!["/chat"; 40];
    paths[0] = "/chat/flood";
    let (mut world, clients) = world(&paths, |limits| limits.publish_bytes = 100);
    world.send(clients[0], &text(&"x".repeat(100)));
    for &client in &clients[1..] {
        world.send(client, &frame(0x89, b"ping"));
    }
    assert_eq!(world.shards[0].stats().pauses, 39);
    world.is_reachable = true;
    world.pass(Duration::from_secs(3));
    assert!(clients[1..].iter().all(|&client| world.messages(client).len() == 1));
}

#[test]
fn the_line_does_not_remember_those_who_are_gone() {
    let (mut world, clients) = world(&["/chat"], |limits| {
        limits.publish_bytes = 100;
        limits.publish_time = Duration::from_secs(3_600);
        limits.confirm_time = Duration::from_secs(3_600);
    });
    world.send(clients[0], &text(&"x".repeat(100)));
    for round in 0..50 {
        let rights = Rights { publish: true, subscribe: false };
        let target = Target { rights, ..Target::new("post") };
        for _ in 0..10 {
            let now = world.now;
            let id = world.shard().adopt(target.clone(), Vec::new(), now).unwrap();
            let client = world.add(0, id);
            world.send(client, &text("never"));
            if client % 3 == 0 {
                world.reset(client);
            }
        }
        world.pass(Duration::from_secs(20));
        assert!(world.shards[0].paused.len() <= 20, "round {round}: {}", world.shards[0].paused.len());
    }
    assert_eq!(world.shards[0].stats().sessions, usize::from(world.clients[0].closed.is_none()));
}

/// It was asked to be read while it joined, and opens when no credit is left.
#[test]
fn a_session_that_opens_without_credit_takes_its_place_in_the_line() {
    let (mut world, clients) = world(&["/chat"], |limits| limits.publish_bytes = 100);
    let late = world.connect();
    world.send(late, &request("/chat"));
    world.send(late, &text("patient"));
    assert!(world.clients[late].waits);
    world.send(clients[0], &text(&"x".repeat(100)));
    world.is_reachable = true;
    world.pass(Duration::from_secs(3));
    assert_eq!(world.texts(late).last().map(String::as_str), Some("patient"));
}

#[test]
fn behind_our_close_a_client_is_read_for_its_close_and_publishes_within_the_credit() {
    let (mut world, clients) = world(&["/chat"], |limits| limits.publish_bytes = 100);
    world.send(clients[0], &text(&"x".repeat(100)));
    let backlog = world.bus.stats().publish_bytes;
    world.clients[clients[0]].input.extend(text("flood").repeat(10_000));
    world.clients[clients[0]].input.extend(frame(CLOSE, &1001_u16.to_be_bytes()));
    let now = world.now;
    world.shard().shutdown(now);
    world.pass(ms(5));
    assert!(world.clients[clients[0]].ended, "the closing handshake is over");
    assert_eq!(world.bus.stats().publish_bytes, backlog);
    assert_eq!(world.shards[0].stats().discarded, 10_000);
}

#[test]
fn a_flood_inside_one_process_is_held_back_and_nobody_becomes_a_slow_reader() {
    let mut small = limits();
    small.publish_bytes = 64 << 10;
    small.queue_bytes = 256 << 10;
    let mut world = World::with(small, 2);
    let clients: Vec<usize> = (0..20).map(|_| world.join("/chat")).collect();
    for &client in &clients {
        world.clients[client].input.extend(text(&"x".repeat(1_000)).repeat(100));
    }
    world.run();
    assert!(clients.iter().all(|&client| world.texts(client).len() == 2_000));
}
