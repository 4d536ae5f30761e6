//! What came before a session was open costs credit as what comes later does.

use super::world::{CLOSE, PING, World, limits, ms, request, text};
use crate::error::Error;
use crate::exchange::publish_cost;
use crate::limits::Limits;
use crate::route::Target;
use crate::time::Duration;
use crate::ws::tests::frame;

/// One read, all of it messages.
const FLOOD: usize = (16 << 10) / 6;

fn one_read(name: &str) -> usize {
    (FLOOD + 1) * publish_cost(name.as_bytes(), 0)
}

/// The request and empty messages behind it, as many as fit into one read.
fn first_read(path: &str) -> Vec<u8> {
    let mut bytes = request(path);
    let messages = ((16 << 10) - bytes.len()) / text("").len();
    bytes.extend(text("").repeat(messages));
    bytes
}

/// A Redis that knows the chat and is away now.
fn away(change: impl FnOnce(&mut Limits)) -> World {
    let mut limits = limits();
    limits.publish_bytes = 1 << 10;
    change(&mut limits);
    let mut world = World::redis(limits, 1);
    world.join("/chat");
    world
}

fn check_bound(world: &World) {
    let most = (1 << 10) + one_read("chat");
    assert!(world.bus.stats().publish_bytes <= most, "{} of {most}", world.bus.stats().publish_bytes);
    assert!(!world.shards[0].has_credit());
}

#[test]
fn frames_behind_the_request_are_published_within_the_credit() {
    for path in ["/post", "/chat"] {
        let mut world = away(|limits| limits.pause_time = Duration::from_secs(100));
        world.lose_redis();
        let clients: Vec<usize> = (0..50).map(|_| world.connect()).collect();
        for &client in &clients {
            world.send(client, &first_read(path));
            world.run();
        }
        if path == "/post" {
            check_bound(&world);
        }
        world.is_reachable = true;
        world.pass(Duration::from_secs(90));
        let sent = clients.len() * ((first_read(path).len() - request(path).len()) / 6);
        assert_eq!(world.bus.stats().publishes, sent as u64, "{path}: nothing that was sent is lost");
        assert_eq!(world.shards[0].stats().discarded, 0);
    }
}

#[test]
fn sessions_that_one_confirmation_opens_publish_within_the_credit() {
    let mut world = away(|_| {});
    let now = world.now;
    let clients: Vec<_> = (0..50).map(|_| world.shard().handle_connection(None, now)).collect();
    for &id in &clients {
        assert!(world.shard().handle_readable(id, now));
        world.shard().handle_read(id, &mut first_read("/chat/new"), now);
        let client = world.add(0, id);
        world.clients[client].waits = true;
    }
    world.exchange();
    world.lose_redis();
    let channel = world.shards[0].channel_id(clients[0]);
    let news = vec![crate::exchange::News::Subscribed(channel)];
    world.shard().handle_bus(crate::exchange::ToShard { news }, now);
    assert!(world.shards[0].has_credit(), "nothing is published before its turn");
    world.run();
    let most = (1 << 10) + one_read("chat:new");
    assert!((1 << 10..=most).contains(&world.bus.stats().publish_bytes), "{}", world.bus.stats().publish_bytes);
}

#[test]
fn a_leftover_is_read_in_pieces_as_a_socket_would_be() {
    let mut world = away(|limits| limits.publish_bytes = 1 << 20);
    let now = world.now;
    let id = world.shard().adopt(Target::new("chat"), text("").repeat(3 * FLOOD), now).unwrap();
    world.shard().handle_leftover(id, text("last"), now);
    world.add(0, id);
    for pieces in (0..=3).rev() {
        let left = world.shards[0].leftover(id);
        assert_eq!(left.div_ceil(16 << 10), pieces + usize::from(left > 0 && pieces == 0), "{left}");
        assert!(!world.shard().handle_readable(id, now) || left == 0, "the socket waits");
        world.shard().handle_timeout(now);
    }
    assert!(world.shard().handle_readable(id, now));
    assert_eq!(world.shard().poll_readable(), Some(id));
    world.run();
    assert_eq!(world.bus.stats().publishes, 3 * FLOOD as u64 + 1);
}

#[test]
fn what_is_read_in_spite_of_a_leftover_comes_behind_it() {
    let mut world = away(|limits| limits.publish_bytes = 1 << 20);
    let now = world.now;
    let id = world.shard().adopt(Target::new("chat"), text("first"), now).unwrap();
    world.shard().handle_read(id, &mut text("second"), now);
    world.add(0, id);
    world.run();
    assert_eq!(world.texts(0), ["first", "second"]);
}

#[test]
fn an_end_behind_a_leftover_waits_until_that_is_published() {
    let mut world = away(|limits| limits.publish_bytes = 100);
    world.lose_redis();
    world.send(0, &text(&"x".repeat(100)));
    let client = world.connect();
    let mut bytes = request("/post");
    bytes.extend(text("goodbye"));
    world.send(client, &bytes);
    let (id, now) = (world.id(client), world.now);
    assert!(world.shards[0].leftover(id) > 0 && !world.shard().handle_readable(id, now));
    world.shard().handle_eof(id, now);
    world.run();
    assert!(world.clients[client].closed.is_none());
    world.is_reachable = true;
    world.pass(Duration::from_secs(3));
    assert!(world.clients[client].closed.is_some_and(|closed| closed.error.is_none()));
    assert_eq!(world.bus.stats().publishes, 2);
}

#[test]
fn a_leftover_is_judged_as_what_comes_later() {
    for (said, closes) in [(text("message"), true), (frame(PING, b"alive?"), false), (frame(CLOSE, b""), false)] {
        let mut world = away(|limits| limits.publish_bytes = 100);
        world.lose_redis();
        world.send(0, &text(&"x".repeat(100)));
        let client = world.connect();
        let mut bytes = request("/post");
        bytes.extend(&said);
        world.send(client, &bytes);
        assert_eq!(world.messages(client).len(), usize::from(!closes), "only a message waits for credit");
        world.pass(Duration::from_millis(9_999));
        assert_eq!(world.close_code(client), None, "{said:?}");
        world.pass(ms(1));
        assert_eq!(world.close_code(client) == Some(1013), closes, "{said:?}");
        if closes {
            world.send(client, &frame(CLOSE, b""));
            world.end(client);
            assert_eq!(world.error(client), Some(Error::NoCredit));
            assert_eq!(world.shards[0].stats().discarded, 1);
        }
    }
}

/// The line is one, whether a message lies in the socket or came behind the request.
#[test]
fn a_leftover_waits_in_line_with_those_whose_sockets_wait() {
    let mut world = away(|limits| limits.publish_bytes = 100);
    let later = world.join("/chat");
    world.lose_redis();
    world.send(0, &text(&"x".repeat(100)));
    let first = world.connect();
    let mut bytes = request("/post");
    bytes.extend(text("first"));
    world.send(first, &bytes);
    world.send(later, &text("second"));
    world.is_reachable = true;
    world.pass(Duration::from_secs(3));
    assert_eq!(world.shards[0].stats().pauses, 2);
    assert_eq!(world.texts(later).last().map(String::as_str), Some("second"));
}

#[test]
fn behind_our_close_a_leftover_is_read_for_the_clients_close() {
    let mut world = away(|limits| limits.publish_bytes = 100);
    world.lose_redis();
    world.send(0, &text(&"x".repeat(100)));
    let client = world.connect();
    let mut bytes = request("/post");
    bytes.extend(text("too much"));
    bytes.extend(frame(CLOSE, b""));
    world.send(client, &bytes);
    let (id, now) = (world.id(client), world.now);
    world.shard().close(id, 1000, "", now).unwrap();
    world.run();
    assert!(world.clients[client].ended, "the closing handshake is over");
    assert_eq!(world.shards[0].stats().discarded, 1);
    world.end(client);
    assert!(world.clients[client].closed.is_some());
}

#[test]
fn who_may_not_publish_needs_no_credit_for_what_came_early() {
    let mut world = away(|limits| limits.publish_bytes = 100);
    let reader = world.join("/news");
    world.send(0, &text(&"x".repeat(100)));
    world.shard().publish(&"elsewhere".into(), &[b'x'; 10_000]).unwrap();
    let client = world.connect();
    let mut bytes = request("/news");
    bytes.extend(frame(PING, b"early"));
    world.send(client, &bytes);
    assert_eq!((world.messages(client).len(), world.messages(reader).len()), (1, 0));
}

#[test]
fn what_few_sessions_have_is_given_back_with_the_leftover() {
    let mut world = away(|limits| limits.publish_bytes = 1 << 20);
    let client = world.connect();
    let mut bytes = request("/chat");
    bytes.extend(text("early"));
    world.send(client, &bytes);
    world.run();
    let id = world.id(client);
    assert!(world.shards[0].get(id).unwrap().rare.is_none());
}
