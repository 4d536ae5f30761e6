//! What is counted adds up to what happened.

use super::world::{BINARY, CLOSE, World, limits, ms, request, settings, text};
use crate::bus::Bus;
use crate::error::{Error, Side};
use crate::shard::{Code, Stages, Stats};
use crate::time::Instant;
use crate::ws::tests::frame;

/// A client of `/chat` that has ended in some way, and one that was refused.
fn ended_in_every_way() -> World {
    let mut world = World::new();
    let close = |code: u16| frame(CLOSE, &code.to_be_bytes());
    for bytes in [close(1000), close(1001), close(4001), frame(CLOSE, b""), frame(BINARY, b""), frame(0x83, b"")] {
        let client = world.join("/chat");
        world.send(client, &bytes);
        world.end(client);
    }
    let [reset, ended, stays] = [(); 3].map(|()| world.join("/chat"));
    world.reset(reset);
    world.end(ended);
    for head in ["GET /nowhere HTTP/1.1\r\nHost: a\r\n\r\n", "GET / HTTP/1.1\r\nHost: a\r\n\r\n", "nonsense\r\n\r\n"] {
        let client = world.connect();
        world.send(client, head.as_bytes());
        world.end(client);
    }
    world.connect();
    world.pass(limits().head_time);
    assert_eq!(world.clients[stays].closed, None);
    world
}

#[test]
fn every_end_is_counted_as_its_event_tells_it() {
    let world = ended_in_every_way();
    let stats = world.shards[0].stats();
    let closes = |by, code| stats.closes.iter().find(|&(one, other, _)| (one, other) == (by, code)).unwrap().2;
    for (by, code, count) in [
        (Side::Peer, Code::Known(1000), 1),
        (Side::Peer, Code::Known(1001), 1),
        (Side::Peer, Code::Other, 1),
        // An empty Close, and an end without any.
        (Side::Peer, Code::Missing, 2),
        (Side::Transport, Code::Missing, 1),
        (Side::Local, Code::Known(1003), 1),
        (Side::Local, Code::Known(1002), 1),
    ] {
        assert_eq!(closes(by, code), count, "{by:?} {code:?}");
    }
    assert_eq!((stats.opened, stats.closes.total()), (9, 8), "one is still there");
    for &error in Error::ALL {
        let told = world.clients.iter().filter_map(|client| client.closed).filter(|closed| closed.error == Some(error));
        assert_eq!(stats.errors.of(error), told.count() as u64, "{error:?}");
    }
    assert_eq!(stats.errors.iter().map(|(_, count)| count).sum::<u64>(), 5);
}

#[test]
fn bytes_are_counted_as_they_pass_the_socket() {
    let mut world = World::new();
    let clients = [(); 3].map(|()| world.join("/chat"));
    world.send(clients[0], &text("hello"));
    let stats = world.shards[0].stats();
    assert_eq!(stats.bytes_in, (3 * request("/chat").len() + text("hello").len()) as u64);
    assert_eq!(stats.bytes_out, world.clients.iter().map(|client| client.got.len() as u64).sum::<u64>());
    assert_eq!((stats.messages_in, stats.deliveries), (1, 3));
}

#[test]
fn a_session_is_counted_in_the_stage_that_it_is_in() {
    let url = "redis://redis.test".parse().unwrap();
    let mut own = settings(limits(), 1);
    own.ask = true;
    let mut world = World::from(own, Bus::redis(url, "", &limits(), 1, 1, Instant::ZERO));
    world.is_reachable = false;
    let clients = [(); 5].map(|()| world.connect());
    world.send(clients[1], &request("/chat"));
    world.send(clients[2], b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let (id, now) = (world.id(clients[3]), world.now);
    world.send(clients[3], &request("/chat"));
    let target = || crate::route::Target::new("chat");
    world.shard().accept(id, target(), None, now).unwrap();
    // Needs no subscription.
    world.send(clients[4], &request("/post"));
    let mut mute = target();
    mute.rights.subscribe = false;
    let id = world.id(clients[4]);
    world.shard().accept(id, mute, None, now).unwrap();
    world.run();
    let seen = Stages { head: 1, deciding: 1, joining: 1, open: 1, closing: 0, answered: 1 };
    assert_eq!(world.shards[0].stages(), seen);
    world.shard().close(id, 1000, "", now).unwrap();
    world.run();
    assert_eq!(world.shards[0].stages(), Stages { open: 0, closing: 1, ..seen });
    world.pass(limits().head_time + limits().close_time + ms(1));
    assert_eq!(world.shards[0].stages(), Stages::default());
}

/// Each count is another number. Whoever adds one decides here whether metrics tell it.
pub(crate) fn distinct_stats() -> Stats {
    let Stats { closes, errors, .. } = ended_in_every_way().shards[0].stats();
    Stats {
        sessions: 2_001,
        opened: 2_002,
        messages_in: 2_003,
        bytes_in: 2_004,
        bytes_out: 2_005,
        deliveries: 2_006,
        missed: 2_007,
        slow_readers: 2_008,
        dropped_newest: 2_009,
        dropped_oldest: 2_010,
        dropped_latest: 2_011,
        gap_closes: 2_012,
        pauses: 2_013,
        discarded: 2_014,
        queued_bytes: 2_015,
        partial_bytes: 2_016,
        closes,
        errors,
    }
}

#[test]
fn the_sum_of_two_shards_has_each_of_their_counts() {
    let stats = distinct_stats();
    let mut sum = stats;
    sum.add(&stats);
    let numbers = |stats: &Stats| {
        let digits = format!("{stats:?}");
        let parts = digits.split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse::<u64>().ok());
        parts.collect::<Vec<_>>()
    };
    let twice: Vec<u64> = numbers(&stats).into_iter().map(|count| 2 * count).collect();
    assert_eq!(numbers(&sum), twice, "{stats:?}");
    let mut stages = Stages { head: 1, deciding: 2, joining: 3, open: 4, closing: 5, answered: 6 };
    stages.add(&stages.clone());
    assert_eq!(stages, Stages { head: 2, deciding: 4, joining: 6, open: 8, closing: 10, answered: 12 });
}
