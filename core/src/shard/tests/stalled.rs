//! Readers that take nothing: what they send keeps them no longer, and how their connections end.

use super::world::{CLOSE, World, limits, ms, request, text};
use crate::error::{Error, Side};
use crate::time::Duration;
use crate::ws::tests::frame;

const PONG: u8 = 0x8A;

/// A client that reads nothing, and a message that waits for it.
fn stuck(world: &mut World) -> usize {
    let client = world.join("/chat");
    world.make_room(client, 0);
    world.shard().publish(&"chat".into(), b"hello").unwrap();
    world.run();
    client
}

/// Lets seconds pass in which the client says something; at which one it is gone.
fn gone_after(world: &mut World, client: usize, mut act: impl FnMut(&mut World, u64)) -> Option<u64> {
    (1..=120).find(|&second| {
        world.pass(Duration::from_secs(1));
        act(world, second);
        world.clients[client].closed.is_some()
    })
}

#[test]
fn whoever_takes_nothing_is_gone_after_ping_and_pong_whatever_it_sends() {
    for said in [frame(PONG, b""), frame(0x89, b"?"), text("hello")] {
        let mut world = World::new();
        let client = stuck(&mut world);
        let gone = gone_after(&mut world, client, |world, _| world.send(client, &said));
        assert!(gone.is_some_and(|second| (32..=36).contains(&second)), "{said:?}: {gone:?}");
        assert_eq!(world.error(client), Some(Error::PongTimeout));
        assert!(world.clients[client].given_up);
    }
}

#[test]
fn whoever_takes_something_now_and_then_stays() {
    let mut world = World::new();
    let client = stuck(&mut world);
    let gone = gone_after(&mut world, client, |world, second| {
        world.send(client, &frame(PONG, b""));
        if second % 30 == 0 {
            world.make_room(client, 1);
            world.shard().publish(&"chat".into(), b"more").unwrap();
            world.run();
        }
    });
    assert_eq!(gone, None);
    world.make_room(client, usize::MAX);
    assert_eq!(world.texts(client).len(), 5);
}

/// The process stood still meanwhile, and is told that the socket takes bytes again before it has written any.
#[test]
fn whoever_takes_something_by_its_deadline_is_not_judged_before_it_is_written() {
    for takes in [true, false] {
        let mut world = World::new();
        let client = stuck(&mut world);
        world.pass(Duration::from_secs(26));
        world.now = world.now + Duration::from_secs(3_600);
        let (id, now) = (world.id(client), world.now);
        world.shard().handle_timeout(now);
        assert_eq!(world.shard().poll_readable(), Some(id));
        world.shard().handle_writable(id);
        assert!(world.shard().handle_readable(id, now));
        world.shard().handle_timeout(now);
        if takes {
            world.make_room(client, usize::MAX);
        }
        world.run();
        let error = (!takes).then_some(Error::PongTimeout);
        assert_eq!(world.clients[client].closed.and_then(|closed| closed.error), error);
        assert_eq!(world.texts(client).len(), usize::from(takes));
    }
}

/// Its pong lies unread, but it could take something.
#[test]
fn whoever_takes_nothing_and_waits_for_credit_is_gone_as_soon() {
    let mut limits = limits();
    (limits.publish_bytes, limits.pause_time) = (1_000, Duration::from_secs(200));
    let mut world = World::redis_with(super::world::settings(limits, 1));
    let client = stuck(&mut world);
    world.pass(ms(100));
    world.is_reachable = false;
    world.shard().publish(&"chat".into(), &[b'm'; 2_000]).unwrap();
    world.send(client, &text("mine"));
    let gone = gone_after(&mut world, client, |_, _| {});
    assert!(gone.is_some_and(|second| (32..=36).contains(&second)), "{gone:?}");
}

#[test]
fn only_connections_whose_clients_have_not_ended_are_reset() {
    let mut world = World::new();
    let [ends, closes, silent, lost] = [(); 4].map(|()| world.join("/chat"));
    let idle = world.connect();
    let [page, stuck_page] = [usize::MAX, 100].map(|room| {
        let client = world.connect();
        world.make_room(client, room);
        world.send(client, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        client
    });
    let asks = world.connect();
    world.send(asks, &request("/nowhere"));
    world.end(asks);
    world.end(ends);
    world.send(closes, &frame(CLOSE, b""));
    world.end(closes);
    world.reset(lost);
    for _ in 0..60 {
        world.pass(Duration::from_secs(1));
    }
    let all = [ends, closes, silent, lost, idle, page, stuck_page, asks];
    let ended = all.map(|client| world.clients[client].closed.unwrap().by);
    use Side::{Local, Peer, Transport};
    assert_eq!(ended, [Peer, Peer, Local, Transport, Local, Local, Local, Local]);
    let given_up = all.map(|client| world.clients[client].given_up);
    // What has left of the page wholly may still be on its way.
    assert_eq!(given_up, [false, false, true, false, false, false, true, false]);
}
