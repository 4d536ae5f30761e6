//! A client that ends its side right behind a message still gets that back, and does not stay for it.

use super::world::{CLOSE, PING, World, limits, ms, request, text};
use crate::error::{Closed, Side};
use crate::limits::Limits;
use crate::ws::tests::frame;
use crate::ws::{ECHO_TIME, LIKELY_ECHO_TIME};

const BY_CLIENT: Option<Closed> = Some(Closed { by: Side::Peer, code: None, error: None });

#[test]
fn a_message_and_the_end_of_the_stream_get_the_echo() {
    let mut world = World::redis(limits(), 1);
    let [client, other] = ["/chat"; 2].map(|path| world.join(path));
    world.clients[client].input.extend(text("last"));
    world.end(client);
    assert_eq!(world.texts(client), ["last"]);
    assert!(world.clients[client].closed.is_none());
    world.send(other, &text("somebody else's"));
    world.pass(ECHO_TIME - ms(1));
    assert_eq!(world.texts(client).len(), 2, "as long as it is there it gets everything");
    world.pass(ms(1));
    assert_eq!(world.clients[client].closed, BY_CLIENT);
    assert!(!world.clients[client].given_up, "its echo has left and is not cut off");
}

#[test]
fn nobody_else_stays_behind_the_end_of_the_stream() {
    let cases: [(&str, Vec<u8>); 4] = [
        ("/chat", vec![]),
        ("/chat", frame(PING, b"")),
        ("/post", text("nothing comes back")),
        ("/chat", [text("one"), frame(0x01, b"and half of")].concat()),
    ];
    for (path, said) in cases {
        let mut world = World::new();
        let client = world.join(path);
        world.send(client, &said);
        world.end(client);
        assert!(world.clients[client].closed.is_some(), "{path} {said:?}");
    }
}

#[test]
fn a_client_that_has_its_echo_already_holds_its_place_for_a_moment_only() {
    let mut world = World::new();
    let [client, other, late] = ["/chat"; 3].map(|path| world.join(path));
    world.send(client, &text("came back"));
    world.end(client);
    world.pass(LIKELY_ECHO_TIME - ms(1));
    world.send(other, &text("it may have been this one"));
    assert_eq!(world.texts(client).len(), 2, "what left before may have been somebody else's");
    world.pass(ms(1));
    assert_eq!(world.clients[client].closed, BY_CLIENT);
    world.send(late, &text("came back"));
    world.pass(LIKELY_ECHO_TIME + ms(1));
    world.end(late);
    assert_eq!(world.clients[late].closed, BY_CLIENT);
}

#[test]
fn the_echo_of_a_message_of_long_ago_is_not_awaited() {
    for (millis, is_closed) in [(1_000, false), (1_001, true)] {
        let mut world = World::redis(limits(), 1);
        let client = world.join("/chat");
        world.lose_redis();
        world.send(client, &text("long ago"));
        world.pass(ms(millis));
        world.end(client);
        assert_eq!(world.clients[client].closed.is_some(), is_closed, "{millis} ms");
    }
}

#[test]
fn without_redis_it_is_gone_as_soon_and_its_message_stays() {
    let mut world = World::redis(Limits { publish_bytes: 100, ..limits() }, 1);
    let [client, waits, other] = ["/chat"; 3].map(|path| world.join(path));
    world.lose_redis();
    world.clients[client].input.extend(text(&"x".repeat(100)));
    world.end(client);
    world.clients[waits].input.extend(text("without credit"));
    world.end(waits);
    world.pass(ECHO_TIME);
    assert_eq!([client, waits].map(|client| world.clients[client].closed), [BY_CLIENT, None]);
    world.is_reachable = true;
    world.pass(ECHO_TIME * 3);
    assert_eq!((world.texts(other).len(), world.clients[waits].closed), (2, BY_CLIENT));
}

#[test]
fn whoever_is_written_to_alone_is_closed_as_others_are() {
    let mut world = World::new();
    let [client, resets] = ["/chat"; 2].map(|path| world.join(path));
    for client in [client, resets] {
        world.clients[client].input.extend(text("last"));
        world.end(client);
    }
    let (id, now) = (world.id(client), world.now);
    assert!(world.shards[0].is_unread(id) && !world.shard().handle_readable(id, now), "nobody reads it");
    world.shard().handle_unread_eof(id, now);
    world.run();
    assert!(world.clients[client].closed.is_none(), "its end is known already");
    world.shard().close(id, 1001, "bye", now).unwrap();
    world.reset(resets);
    assert_eq!(world.close_code(client), Some(1001));
    assert_eq!([client, resets].map(|client| world.clients[client].closed), [BY_CLIENT, BY_CLIENT]);
    let late = world.connect();
    world.send(late, &[request("/chat"), frame(CLOSE, b"")].concat());
    world.end(late);
    assert!(world.clients[late].closed.is_some());
}
