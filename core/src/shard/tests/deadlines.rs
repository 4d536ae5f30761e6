//! A deadline is judged after what has arrived: whatever lies in a socket when the clock jumps is read first.

use super::world::{CLOSE, PING, World, ms, request, text};
use crate::error::Error;
use crate::limits::Limits;
use crate::shard::SessionId;
use crate::time::{Duration, Instant};
use crate::ws::tests::frame;

const LONG: Duration = Duration::from_secs(3_600);

/// The time of each thing that a client must say before a deadline, in which it is silent.
fn limits() -> Limits {
    Limits {
        ping_time: ms(2_000),
        pong_time: ms(1_000),
        head_time: ms(1_000),
        close_time: ms(1_000),
        ..Limits::default()
    }
}

/// A session before its deadline, what would meet that, and the error that it otherwise ends with.
type Case = (&'static str, fn(&mut World) -> usize, Vec<u8>, Option<Error>);

fn cases() -> Vec<Case> {
    let pinged = |world: &mut World| {
        let client = world.join("/chat");
        world.pass(ms(2_000));
        client
    };
    let closing = |world: &mut World| {
        let client = world.join("/chat");
        let (id, now) = (world.id(client), world.now);
        world.shard().close(id, 1000, "", now).unwrap();
        world.run();
        client
    };
    let begun = |world: &mut World| {
        let client = world.connect();
        world.send(client, &request("/chat")[..20]);
        client
    };
    // A ping is due, too.
    let amid = |world: &mut World| {
        let client = world.join("/chat");
        world.send(client, &frame(0x01, b"he"));
        client
    };
    vec![
        ("the rest of a message", amid, frame(0x80, b"re"), Some(Error::SlowMessage)),
        ("a head", World::connect, request("/chat"), Some(Error::SlowHead)),
        ("the rest of a head", begun, request("/chat")[20..].to_vec(), Some(Error::SlowHead)),
        ("a pong", pinged, frame(0x8A, b""), Some(Error::PongTimeout)),
        ("a message", pinged, text("here"), Some(Error::PongTimeout)),
        ("a Close", closing, frame(CLOSE, b"\x03\xe8"), Some(Error::CloseTimeout)),
    ]
}

/// Each case, with and without credit to publish: a client that has sent nothing waits for none.
fn worlds() -> impl Iterator<Item = (Case, bool)> {
    [true, false].into_iter().flat_map(|has_credit| cases().into_iter().map(move |case| (case, has_credit)))
}

fn spend_credit(world: &mut World) {
    let most = world.shards[0].limits().message_bytes;
    while world.shards[0].has_credit() {
        world.shard().publish(&"elsewhere".into(), &vec![b'x'; most]).unwrap();
    }
}

/// Time jumps far beyond the deadline, and the shard hears of that before anything else.
fn jump(world: &mut World) -> Instant {
    world.now = world.now + LONG;
    let now = world.now;
    world.shard().handle_timeout(now);
    now
}

fn named(world: &mut World) -> Option<SessionId> {
    std::iter::from_fn(|| world.shard().poll_readable()).last()
}

#[test]
fn whatever_has_arrived_when_a_deadline_is_found_to_have_passed_is_read_first() {
    for ((what, make, bytes, _), has_credit) in worlds() {
        let mut world = World::with(limits(), 1);
        let client = make(&mut world);
        if !has_credit {
            spend_credit(&mut world);
        }
        let id = world.id(client);
        let now = jump(&mut world);
        assert_eq!(named(&mut world), Some(id), "{what}");
        for _ in 0..3 {
            // It is not judged before its owner has looked, however often time is told.
            world.shard().handle_timeout(now);
        }
        assert!(world.shard().handle_readable(id, now), "{what}");
        world.shard().handle_read(id, &mut bytes.clone(), now);
        world.shard().handle_timeout(now);
        world.run();
        let error = world.error(client);
        assert_eq!(error, None, "{what}");
    }
}

#[test]
fn who_has_sent_nothing_is_judged_as_soon_as_its_owner_has_looked() {
    for ((what, make, _, error), has_credit) in worlds() {
        let mut world = World::with(limits(), 1);
        let client = make(&mut world);
        if !has_credit {
            spend_credit(&mut world);
        }
        let id = world.id(client);
        let now = jump(&mut world);
        assert_eq!(named(&mut world), Some(id), "{what}");
        assert!(world.shard().handle_readable(id, now), "{what}");
        assert_eq!(world.shard().poll_timeout(), Some(now), "{what}");
        world.shard().handle_timeout(now);
        world.run();
        world.end(client);
        assert_eq!(world.error(client), error, "{what}");
    }
}

/// What comes in small pieces gains a few turns, so that what lies in the socket can be read, and no time.
#[test]
fn bytes_that_do_not_meet_the_deadline_do_not_put_it_off() {
    for (piece, looks) in [(1, 65), (8 << 10, 65)] {
        let limits = Limits { head_bytes: 1 << 20, ..limits() };
        let mut world = World::with(limits, 1);
        let client = world.connect();
        world.send(client, b"GET /");
        let id = world.id(client);
        let now = jump(&mut world);
        let mut looked = 0;
        while named(&mut world) == Some(id) {
            assert!(world.shard().handle_readable(id, now));
            world.shard().handle_read(id, &mut vec![b'a'; piece], now);
            world.shard().handle_timeout(now);
            looked += 1;
        }
        assert_eq!(looked, looks, "pieces of {piece}");
        world.run();
        assert_eq!(world.status(client), 408);
    }
}

/// The time for its answer begins when the ping has left, however late that is.
#[test]
fn the_time_of_a_ping_counts_from_when_it_left() {
    let mut world = World::with(limits(), 1);
    let client = world.join("/chat");
    let id = world.id(client);
    let due = world.now + ms(2_000);
    world.shard().handle_timeout(due);
    assert_eq!(world.shard().poll_transmit(), Some(id));
    let mut slices = [std::io::IoSlice::new(&[]); 4];
    assert_eq!(world.shard().transmit(id, &mut slices), 1);
    assert_eq!(slices[0][0], PING);
    // The process stands still before the write, and once more before the end of the turn.
    let left = due + LONG;
    world.shard().transmitted(id, 2, left).unwrap();
    assert!(world.shard().has_pinged());
    let written = left + LONG;
    world.shard().handle_written(written);
    assert!(!world.shard().has_pinged());
    world.now = written;
    world.pass(ms(999));
    assert!(world.clients[client].closed.is_none());
    world.pass(ms(1));
    assert_eq!(world.error(client), Some(Error::PongTimeout));
}

/// The subscription's confirmation is on its way, or credit is.
#[test]
fn who_waits_for_the_bus_is_judged_after_what_the_bus_has() {
    let mut world = World::with(limits(), 1);
    let client = world.connect();
    let (id, now) = (world.id(client), world.now);
    world.shard().handle_read(id, &mut request("/chat"), now);
    let now = jump(&mut world);
    for _ in 0..3 {
        world.shard().handle_timeout(now);
        assert!(world.shard().contains(id) && named(&mut world).is_none(), "the bus has not been asked");
    }
    world.run();
    assert!(world.clients[client].opened);
}

/// A socket that was full takes bytes again, while the session waits for credit.
#[test]
fn who_waits_for_the_bus_is_judged_after_what_its_socket_takes_as_well() {
    for takes in [true, false] {
        let limits = Limits { pause_time: 2 * LONG, publish_time: 4 * LONG, publish_bytes: 100, ..limits() };
        let mut world = World::redis(limits, 1);
        let client = world.join("/chat");
        let id = world.id(client);
        world.lose_redis();
        world.make_room(client, 0);
        world.send(client, &frame(PING, b"a pong is to leave"));
        world.send(client, &text(&"x".repeat(100)));
        world.send(client, &text("waits"));
        // A ping waits for its socket, too.
        world.pass(ms(2_000));
        let now = jump(&mut world);
        world.exchange();
        assert!(world.shard().contains(id), "the bus has nothing for it, and its socket is yet to be offered the pong");
        if takes {
            world.make_room(client, usize::MAX);
        }
        world.run();
        assert_eq!(world.shard().contains(id), takes);
        assert_eq!(world.now, now);
    }
}
