//! Who is read when little may be published.

use super::world::{CLOSE, World, limits, ms, request, text};
use crate::error::Error;
use crate::exchange::publish_cost;
use crate::limits::Limits;
use crate::route::{Rights, Target};
use crate::shard::intake::{Intake, Step};
use crate::time::{Duration, Instant};
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
fn a_message_that_finds_no_credit_is_kept_and_the_socket_is_not_read_until_there_is_some() {
    for (bound, waits) in [(message_cost(10) + 1, false), (message_cost(10), true), (message_cost(10) - 1, true)] {
        let (mut world, clients) = world(&["/chat", "/news"], |limits| limits.publish_bytes = bound);
        world.send(clients[0], &text("0123456789"));
        world.send(clients[0], &text("waits"));
        let id = world.id(clients[0]);
        let held = if waits { text("waits").len() } else { 0 };
        assert_eq!(world.shards[0].leftover(id), held, "{bound} bytes");
        assert_eq!(world.shards[0].stats().pauses, u64::from(waits));
        world.send(clients[0], &text("stays in the socket"));
        world.send(clients[0], &text("too"));
        assert!(world.clients[clients[0]].waits && !world.clients[clients[0]].input.is_empty());
        world.send(clients[1], &frame(0x89, b"still read"));
        assert_eq!(world.messages(clients[1]).len(), 1, "whoever may not publish needs no credit");
        world.is_reachable = true;
        world.pass(Duration::from_secs(3));
        assert_eq!(world.texts(clients[0]), ["0123456789", "waits", "stays in the socket", "too"]);
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
fn after_pause_time_a_message_without_credit_is_refused_with_1013() {
    let (mut world, clients) = world(&["/chat"], |limits| limits.publish_bytes = 100);
    world.send(clients[0], &text(&"x".repeat(100)));
    world.send(clients[0], &text("waits"));
    world.pass(Duration::from_millis(9_999));
    assert_eq!(world.close_code(clients[0]), None);
    world.pass(ms(1));
    assert_eq!(world.close_code(clients[0]), Some(1013));
    assert_eq!(world.shards[0].stats().discarded, 1);
    world.send(clients[0], &frame(CLOSE, b""));
    world.end(clients[0]);
    assert_eq!(world.error(clients[0]), Some(Error::NoCredit));
}

#[test]
fn an_end_behind_a_message_that_is_refused_is_the_end() {
    let (mut world, clients) = world(&["/chat"], |limits| limits.publish_bytes = 100);
    world.send(clients[0], &text(&"x".repeat(100)));
    world.send(clients[0], &text("waits"));
    let (id, now) = (world.id(clients[0]), world.now);
    world.shard().handle_unread_eof(id, now);
    assert!(world.shard().contains(id), "what was sent before counts");
    world.shard().handle_eof(id, now);
    world.pass(Duration::from_secs(10));
    assert_eq!(world.close_code(clients[0]), Some(1013));
    assert_eq!(world.error(clients[0]), Some(Error::NoCredit));
}

/// Somebody else's flood delays no pong, and a dead client does not live on for it.
#[test]
fn what_needs_no_credit_is_taken_in_at_once() {
    let (mut world, clients) = world(&["/chat"; 4], |limits| {
        limits.publish_bytes = 100;
        limits.publish_time = Duration::from_secs(1_000);
    });
    let [flood, quiet, begins, dead] = clients[..] else { unreachable!() };
    world.send(flood, &text(&"x".repeat(100)));
    world.send(begins, &frame(0x01, b"a message that"));
    world.pass(Duration::from_secs(10));
    assert_eq!(world.close_code(begins), Some(1013), "a part of a message waits as a whole one does");
    for round in 1..6 {
        world.send(quiet, &frame(0x8A, b"an answer"));
        world.send(quiet, &frame(0x89, b"still there?"));
        assert_eq!((world.clients[quiet].waits, world.messages(quiet).len()), (false, round), "round {round}");
        world.pass(Duration::from_secs(10));
    }
    assert_eq!(world.error(dead), Some(Error::PongTimeout), "its ping has had no answer");
    world.send(quiet, &frame(CLOSE, b""));
    assert!(world.clients[quiet].ended);
    world.end(quiet);
    assert_eq!((world.error(quiet), world.shards[0].stats().pauses), (None, 1));
}

#[test]
fn control_frames_before_a_message_without_credit_and_around_its_parts_are_taken_in() {
    let (mut world, clients) = world(&["/chat"; 2], |limits| limits.publish_bytes = 100);
    let [flood, client] = clients[..] else { unreachable!() };
    world.send(client, &frame(0x01, b"begun with credit"));
    world.send(flood, &text(&"x".repeat(100)));
    world.send(client, &frame(0x89, b"1"));
    let mut bytes = frame(0x89, b"2");
    bytes.extend(frame(0x80, b", ended without"));
    bytes.extend(frame(0x89, b"behind that"));
    // Cut in a ping, and then in the first byte of the rest.
    let (first, rest) = bytes.split_at(4);
    world.send(client, first);
    assert_eq!(world.messages(client).len(), 1);
    world.send(client, rest);
    assert_eq!(world.messages(client).len(), 2, "the third lies behind the message");
    world.is_reachable = true;
    world.pass(Duration::from_secs(3));
    assert_eq!(world.messages(client).len(), 5);
    assert_eq!(world.texts(client).last().map(String::as_str), Some("begun with credit, ended without"));
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
    let mut world = World::with(Limits { publish_bytes: 200, ..limits() }, 1);
    let clients = ["/chat"; 2].map(|path| world.join(path));
    let [first, later] = clients.map(|client| world.id(client));
    let now = world.now;
    world.shard().publish(&"elsewhere".into(), &[b'x'; 200]).unwrap();
    world.shard().handle_read(first, &mut text("first"), now);
    while !world.shard().has_credit() {
        world.bus.handle_timeout(now);
        world.exchange();
    }
    // The first in line has its turn when time is told next.
    assert_eq!(world.shard().poll_timeout(), Some(now));
    world.shard().handle_read(later, &mut text("later"), now);
    world.run();
    assert_eq!(world.texts(clients[0]), ["first", "later"]);
}

#[test]
fn those_who_wait_take_turns_a_read_each() {
    let mut world = World::with(Limits { publish_bytes: 1 << 10, ..limits() }, 1);
    let clients = ["/chat"; 3].map(|path| world.join(path));
    for (client, message) in clients.into_iter().zip(["a", "b", "c"]) {
        world.clients[client].input.extend(text(&message.repeat(4_000)).repeat(12));
    }
    world.run();
    let texts: Vec<String> = world.texts(clients[0]).iter().map(|text| text[..1].to_owned()).collect();
    for name in ["a", "b", "c"] {
        assert_eq!(texts.iter().filter(|text| *text == name).count(), 12);
    }
    for turn in texts.windows(6) {
        assert!(turn.iter().any(|text| *text != turn[0]), "one read holds four messages at most: {texts:?}");
    }
}

#[test]
fn nobody_waits_while_there_is_credit() {
    let (mut world, clients) = world(&["/chat"; 200], |limits| limits.publish_bytes = 100);
    world.send(clients[0], &text(&"x".repeat(100)));
    for &client in &clients[1..] {
        world.send(client, &text("!"));
    }
    assert_eq!(world.shards[0].stats().pauses, 199);
    world.is_reachable = true;
    world.pass(Duration::from_secs(3));
    assert_eq!(world.texts(clients[0]).len(), 200);
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
        let rights = Rights::PUBLISH;
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
        let [_, line] = world.shards[0].credit.lists();
        assert!(line.len() <= 20, "round {round}: {}", line.len());
    }
    assert_eq!(world.shards[0].stats().sessions, usize::from(world.clients[0].closed.is_none()));
}

/// Every state of a session's input against everything that happens to it.
#[test]
fn where_input_stands_is_a_table() {
    use Intake::{Clear, Held, Waits};
    let [past, now] = [1, 2].map(|second| Instant::ZERO + Duration::from_secs(second));
    let table = [
        (Clear, [Held, Waits(now), Clear, Clear]),
        (Held, [Held, Waits(now), Held, Clear]),
        (Waits(past), [Waits(past), Waits(past), Held, Clear]),
    ];
    for (before, after) in table {
        let steps = [Step::Hold, Step::Starve(now), Step::Free, Step::Take];
        assert_eq!(steps.map(|step| before.after(step)), after, "{before:?}");
    }
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
