//! The connections to Redis of a process that stood still, or that finds several addresses.

use std::net::{IpAddr, SocketAddr};
use std::task::{Context, Poll, Waker};

use fanfare_core::time::{Duration, Instant};

use super::setup;
use crate::dial::Race;
use crate::memory::{Client, Memory, REDIS, SILENT};
use crate::runtime::Runtime;
use crate::{Server, Setup};

const SECOND: Duration = Duration::from_secs(1);

/// An instance with both of its connections, which Redis has greeted. It allows no probe.
fn started() -> (Memory, Server<Memory>, [Client; 2]) {
    let memory = Memory::default();
    let lanes = [memory.redis(usize::MAX), memory.redis(usize::MAX)];
    let setup = Setup { redis: Some("redis://redis.test".parse().unwrap()), ..setup(1) };
    let server = memory.start(Server::<Memory>::start(setup));
    lanes[0].send(b"-ERR unknown command\r\n+OK\r\n+PONG\r\n");
    lanes[1].send(b"-ERR unknown command\r\n+OK\r\n+PONG\r\n");
    lanes[0].send(b"-NOPERM\r\n");
    let server = server.lock().unwrap().take().unwrap().unwrap();
    (memory, server, lanes)
}

#[test]
fn a_reply_that_nobody_has_heard_of_when_the_clock_jumps_keeps_the_connection() {
    let (memory, _server, lanes) = started();
    memory.pass(5 * SECOND);
    for (lane, pong) in lanes.iter().zip(["+PONG\r\n-NOPERM\r\n", "+PONG\r\n"]) {
        assert!(String::from_utf8_lossy(&lane.take()).contains("PING"));
        lane.send_unheard(pong.as_bytes());
    }
    memory.pass(8 * SECOND);
    memory.pass(SECOND);
    assert!(lanes.iter().all(|lane| !lane.is_closed()));
}

/// A dial that has not succeeded when its time is over, as far as the runtime has heard.
#[test]
fn a_dial_that_succeeded_while_the_process_stood_still_is_not_made_again() {
    let memory = Memory::default();
    let lanes = [memory.redis(0), memory.redis(0)];
    let setup = Setup { redis: Some("redis://redis.test".parse().unwrap()), ..setup(1) };
    let _server = memory.start(Server::<Memory>::start(setup));
    // Nobody is woken for it.
    lanes.iter().for_each(|lane| lane.put_room());
    memory.pass(3 * SECOND);
    memory.pass(SECOND);
    assert_eq!(memory.lock().dialled.len(), 2);
    assert!(lanes.iter().all(|lane| !lane.is_closed() && lane.take().starts_with(b"*")), "they are greeted");
}

/// Longer than a dial may take (2 s).
#[test]
fn a_slow_name_server_is_asked_once_and_its_answer_serves_the_next_dial() {
    let memory = Memory::default();
    let lanes = [memory.redis(usize::MAX), memory.redis(usize::MAX)];
    memory.lock().lookup_time = 3 * SECOND;
    let setup = Setup { redis: Some("redis://redis.test".parse().unwrap()), ..setup(1) };
    let server = memory.start(Server::<Memory>::start(setup));
    for _ in 0..60 {
        memory.pass(SECOND / 20);
        assert!(server.lock().unwrap().is_none(), "it waits");
    }
    assert!(memory.lock().dialled.is_empty());
    for _ in 0..60 {
        memory.pass(SECOND / 20);
    }
    let (lookups, dials) = {
        let world = memory.lock();
        (world.lookups, world.dialled.len())
    };
    assert_eq!((lookups, dials), (3, 2), "one for each connection, and one for where to listen");
    assert!(lanes.iter().all(|lane| lane.take().starts_with(b"*")), "they are greeted");
}

/// The addresses that a race has dialled so far, by their last number, and after how long.
fn dialled(memory: &Memory) -> Vec<(u8, u64)> {
    let world = memory.lock();
    let of = |address: &SocketAddr| if let IpAddr::V4(ip) = address.ip() { ip.octets()[3] } else { 0 };
    world.dialled.iter().map(|(at, address)| (of(address), at.since(Instant::ZERO).as_millis() as u64)).collect()
}

fn race(ports: &[u16]) -> Race<Memory> {
    let at = |(number, &port)| SocketAddr::new([192, 0, 2, number as u8 + 1].into(), port);
    Race::new(&ports.iter().enumerate().map(at).collect::<Vec<_>>(), 2 * SECOND)
}

fn poll(race: &mut Race<Memory>, memory: &Memory) -> Poll<Result<(), String>> {
    race.poll(memory, memory.now(), &mut Context::from_waker(Waker::noop())).map_ok(drop)
}

#[test]
fn the_next_address_is_tried_when_one_is_silent_for_a_while_or_has_failed() {
    const REFUSES: u16 = 1;
    let memory = Memory::default();
    let _redis = memory.redis(usize::MAX);
    let mut race = race(&[SILENT, REFUSES, SILENT, REDIS]);
    assert!(poll(&mut race, &memory).is_pending());
    assert_eq!(dialled(&memory), [(1, 0)]);
    for _ in 0..30 {
        memory.pass(SECOND / 100);
        if poll(&mut race, &memory).is_ready() {
            panic!("the last one is not due yet: {:?}", dialled(&memory));
        }
    }
    // The second has failed at once, so that the third did not wait.
    assert_eq!(dialled(&memory), [(1, 0), (2, 250), (3, 250)]);
    memory.pass(SECOND / 5);
    assert_eq!(poll(&mut race, &memory), Poll::Ready(Ok(())));
    assert_eq!(dialled(&memory)[3], (4, 500));
}

#[test]
fn all_of_many_addresses_are_tried_within_half_of_the_time() {
    let memory = Memory::default();
    let mut race = race(&[SILENT; 20]);
    for _ in 0..100 {
        assert!(poll(&mut race, &memory).is_pending());
        memory.pass(SECOND / 100);
    }
    assert_eq!(dialled(&memory).len(), 20);
}

#[test]
fn a_race_that_is_lost_says_what_became_of_each() {
    let memory = Memory::default();
    let lost = poll(&mut race(&[1, 1]), &memory);
    assert!(matches!(&lost, Poll::Ready(Err(text)) if text.contains("192.0.2.1: ") && text.contains("; 192.0.2.2: ")));
    assert_eq!(poll(&mut race(&[]), &memory), Poll::Ready(Err("the name has no address".to_owned())));
}
