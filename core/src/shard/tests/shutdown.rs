//! How all sessions end when an instance does.

use super::world::{CLOSE, PING, World, limits, ms, request, settings, text};
use crate::bus::Bus;
use crate::error::{Error, Misuse};
use crate::limits::Limits;
use crate::route::Target;
use crate::time::{Duration, Instant};
use crate::ws::tests::frame;

fn open(world: &mut World, count: usize) -> Vec<usize> {
    (0..count).map(|_| world.join("/chat")).collect()
}

fn target() -> Target {
    Target::new("chat")
}

fn shut_down(world: &mut World) {
    let now = world.now;
    world.shards.iter_mut().for_each(|shard| shard.shutdown(now));
    world.run();
}

fn closed(world: &World, clients: &[usize]) -> usize {
    clients.iter().filter(|&&client| world.close_code(client) == Some(1001)).count()
}

#[test]
fn closes_come_one_by_one_and_all_of_them_within_half_of_the_drain_time() {
    // At 5 ms each, 200 take 1 s: half of the drain time, less than that, and more.
    for (drain, workers, takes) in [(2_000, 1, 1_000), (2_010, 1, 1_000), (1_000, 1, 500), (2_000, 2, 1_000)] {
        let mut world = World::with(Limits { drain_time: ms(drain), ..limits() }, workers);
        let clients = open(&mut world, 200);
        shut_down(&mut world);
        for quarter in 1..=4 {
            world.pass(ms(takes / 4));
            let due = quarter * 50;
            let closed = closed(&world, &clients);
            assert!((due - workers..=due + workers).contains(&closed), "{drain} ms: {closed} after {quarter} quarters");
        }
        assert_eq!(closed(&world, &clients), 200);
    }
}

#[test]
fn few_sessions_take_no_time_and_none_none() {
    let mut world = World::new();
    let clients = open(&mut world, 3);
    shut_down(&mut world);
    world.pass(ms(15));
    assert_eq!(closed(&world, &clients), 3);
    let mut empty = World::new();
    shut_down(&mut empty);
    assert!(empty.shard().is_empty());
}

#[test]
fn without_drain_time_all_are_closed_at_once() {
    let mut world = World::with(Limits { drain_time: Duration::ZERO, ..limits() }, 1);
    let clients = open(&mut world, 20);
    let (silent, half) = (world.connect(), world.connect());
    world.send(half, b"GET");
    world.clients[clients[0]].input.extend(text("goodbye"));
    shut_down(&mut world);
    let late = world.connect();
    world.send(late, &request("/chat"));
    assert_eq!(closed(&world, &clients), 20);
    assert!(world.clients[silent].closed.is_some());
    assert_eq!((world.status(half), world.status(late)), (503, 503));
    assert_eq!(world.shards[0].stats().messages_in, 1, "what came before the client's Close is taken");
    for client in clients {
        world.send(client, &frame(CLOSE, &1001_u16.to_be_bytes()));
        world.end(client);
    }
    world.end(half);
    world.end(late);
    assert!(world.shard().is_empty());
}

#[test]
fn the_moments_of_the_closes_come_from_the_seed() {
    let moments = |seed| {
        let own = settings(limits(), 1);
        let bus = Bus::local(&own.limits, 1, 1, Instant::ZERO);
        let mut world = World::from(own, bus);
        world.shards[0] = crate::shard::Shard::new(settings(limits(), 1).into(), seed, Instant::ZERO);
        open(&mut world, 20);
        shut_down(&mut world);
        let mut moments = Vec::new();
        while let Some(at) = world.poll_timeout().filter(|at| at.as_micros() < 1_000_000) {
            moments.push(at.as_micros());
            world.pass(at.since(world.now));
        }
        moments
    };
    assert_eq!(moments(1), moments(1));
    assert_ne!(moments(1), moments(2));
    assert!(moments(1).windows(2).any(|two| two[1] - two[0] != 5_000), "not in step: {:?}", moments(1));
}

#[test]
fn until_its_close_a_session_hears_and_speaks() {
    let mut world = World::new();
    let clients = open(&mut world, 100);
    shut_down(&mut world);
    world.pass(ms(250));
    let (first, last) = (clients[0], clients[99]);
    world.send(last, &text("hello"));
    assert_eq!((closed(&world, &[first]), world.texts(first).len()), (1, 0), "nothing behind a Close");
    assert_eq!(world.texts(last), ["hello"]);
    world.send(last, &frame(PING, b""));
    assert_eq!(world.messages(last).len(), 2);
}

#[test]
fn a_handshake_has_a_tenth_of_the_drain_time_to_end_well() {
    for ends_well in [true, false] {
        let mut world = World::redis(limits(), 1);
        world.server.is_mute = true;
        let [silent, half, joining, late] = [(); 4].map(|()| world.connect());
        world.send(half, &request("/post")[..20]);
        world.send(joining, &request("/chat"));
        shut_down(&mut world);
        world.pass(ms(500));
        world.send(late, &request("/chat"));
        if ends_well {
            world.send(silent, &request("/post"));
            world.send(half, &request("/post")[20..]);
            world.pass(ms(1));
            assert!([silent, half].iter().all(|&client| world.clients[client].opened));
            world.send(silent, &text("just in time"));
            assert_eq!(world.server.published.len(), 1);
            world.pass(ms(499));
            assert_eq!(closed(&world, &[silent, half]), 2);
        } else {
            assert!([silent, half, joining].iter().all(|&client| world.clients[client].got.is_empty()));
            world.pass(ms(500));
            assert!(world.clients[silent].closed.is_some());
            assert_eq!(world.status(half), 503);
        }
        assert_eq!((world.status(joining), world.status(late)), (503, 503));
    }
}

#[test]
fn an_embedder_may_decide_until_then() {
    let mut own = settings(limits(), 1);
    own.ask = true;
    let bus = Bus::local(&own.limits, 1, 1, Instant::ZERO);
    let mut world = World::from(own, bus);
    let [quick, slow] = [(); 2].map(|()| world.connect());
    for client in [quick, slow] {
        world.send(client, &request("/chat"));
    }
    shut_down(&mut world);
    world.pass(ms(900));
    let (id, now) = (world.id(quick), world.now);
    world.shard().accept(id, target(), None, now).unwrap();
    world.pass(ms(100));
    assert_eq!((world.close_code(quick), world.status(slow)), (Some(1001), 503));
    let now = world.now;
    assert_eq!(world.shard().adopt(target(), Vec::new(), now), Err(Misuse::WrongState));
}

#[test]
fn who_connects_after_that_is_told_503() {
    for (millis, status) in [(999, 101), (1_000, 503), (1_001, 503)] {
        let mut world = World::new();
        shut_down(&mut world);
        world.pass(ms(millis));
        let late = world.connect();
        world.send(late, &request("/chat"));
        assert_eq!(world.status(late), status, "after {millis} ms");
        world.pass(ms(1));
        assert!(status == 503 || world.close_code(late) == Some(1001));
    }
}

#[test]
fn a_slow_reader_gets_what_it_takes_in_time_and_its_close_behind_that() {
    for reads in [true, false] {
        let mut world = World::new();
        let client = world.join("/chat");
        world.make_room(client, 0);
        world.send(client, &text("one"));
        world.send(client, &text("two"));
        shut_down(&mut world);
        world.pass(ms(5));
        if reads {
            world.make_room(client, usize::MAX);
            assert_eq!((world.texts(client).len(), world.close_code(client)), (2, Some(1001)));
        } else {
            world.pass(limits().close_time);
            assert_eq!((world.texts(client).len(), world.error(client)), (0, Some(Error::CloseTimeout)));
        }
    }
}

#[test]
fn who_waits_for_credit_is_closed_as_others_are() {
    let mut world = World::redis(Limits { publish_bytes: 10, ..limits() }, 1);
    let client = world.join("/chat");
    world.lose_redis();
    world.send(client, &text("accepted"));
    world.send(client, &text("not published"));
    world.send(client, &text("not read"));
    world.send(client, &text("nor this"));
    assert!(world.clients[client].waits);
    shut_down(&mut world);
    world.pass(ms(5));
    assert_eq!((closed(&world, &[client]), world.bus.stats().unsent), (1, 1), "the first waits for Redis");
    assert!(!world.clients[client].waits, "it is read for its Close");
}

#[test]
fn to_shut_down_twice_moves_no_close_away() {
    let mut world = World::new();
    let clients = open(&mut world, 100);
    shut_down(&mut world);
    world.pass(ms(250));
    shut_down(&mut world);
    world.pass(ms(250));
    assert_eq!(closed(&world, &clients), 100);
}
