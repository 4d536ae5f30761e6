//! What an embedder decides and does by itself.

use bytes::Bytes;

use super::world::{CLOSE, TEXT, World, limits, ms, request, settings, text};
use crate::bus::Bus;
use crate::error::{Error, Misuse};
use crate::http::Answer;
use crate::route::{FrameType, Target};
use crate::time::{Duration, Instant};
use crate::ws::tests::frame;

fn asking() -> World {
    let mut own = settings(limits(), 1);
    own.ask = true;
    let bus = Bus::local(&own.limits, 1, 1, Instant::ZERO);
    World::from(own, bus)
}

fn target(channel: &str) -> Target {
    Target::new(channel.to_owned())
}

/// A client that offers two subprotocols and waits for the embedder.
fn asks(world: &mut World) -> usize {
    let client = world.connect();
    let mut head = String::from_utf8(request("/anything?token=1")).unwrap();
    head.insert_str(head.len() - 2, "Sec-WebSocket-Protocol: chat.v1, chat.v2\r\n");
    world.send(client, head.as_bytes());
    assert_eq!(world.asked, [world.id(client)]);
    client
}

#[test]
fn the_embedder_accepts_with_a_channel_and_a_subprotocol_of_its_choice() {
    let mut world = asking();
    let client = asks(&mut world);
    let (id, now) = (world.id(client), world.now);
    assert_eq!(world.shard().accept(id, target("x"), Some("chat.v3"), now), Err(Misuse::Subprotocol));
    assert_eq!(world.shard().accept(id, target(""), None, now), Err(Misuse::ChannelName));
    assert_eq!(world.shard().accept(id, target(&"x".repeat(256)), None, now), Err(Misuse::ChannelName));
    world.shard().accept(id, target("secret"), Some("chat.v2"), now).unwrap();
    world.run();
    assert_eq!(world.status(client), 101);
    assert!(world.answer(client).contains("\r\nSec-WebSocket-Protocol: chat.v2\r\n"));
    world.send(client, &text("hi"));
    assert_eq!(world.texts(client), ["hi"]);
}

#[test]
fn the_embedder_refuses_in_its_own_words() {
    let mut world = asking();
    let client = asks(&mut world);
    let (id, now) = (world.id(client), world.now);
    let answer = Answer::text(401, "Who are you?").with_field("WWW-Authenticate", "Bearer");
    world.shard().refuse(id, &answer, now).unwrap();
    world.run();
    assert_eq!(world.status(client), 401);
    assert!(world.answer(client).contains("\r\nWWW-Authenticate: Bearer\r\n"));
    assert!(world.answer(client).ends_with("Who are you?"));
    world.end(client);
    assert_eq!(world.error(client), Some(Error::Forbidden));
}

#[test]
fn an_embedder_that_does_not_decide_in_time_has_its_client_told_503() {
    let mut world = asking();
    let client = world.connect();
    world.pass(Duration::from_secs(9));
    world.send(client, &request("/chat"));
    world.pass(ms(999));
    assert_eq!(world.answer(client), "");
    world.pass(ms(1));
    assert_eq!(world.status(client), 503, "head and decision share one deadline");
    let (id, now) = (world.id(client), world.now);
    assert_eq!(world.shard().accept(id, target("x"), None, now), Err(Misuse::WrongState));
}

#[test]
fn frames_behind_the_head_wait_for_the_embedder() {
    let mut world = asking();
    let client = world.connect();
    world.send(client, &[request("/chat"), text("one")].concat());
    world.send(client, &text("two"));
    let (id, now) = (world.id(client), world.now);
    world.shard().accept(id, target("chat"), None, now).unwrap();
    world.run();
    assert_eq!(world.texts(client), ["one", "two"]);
}

#[test]
fn a_websocket_of_somebody_else_is_taken_in_with_what_was_read_of_it() {
    let mut world = World::new();
    let now = world.now;
    let id = world.shard().adopt(target("chat"), text("early"), now).unwrap();
    let client = world.add(0, id);
    world.run();
    world.send(client, &text("later"));
    assert_eq!(world.texts(client), ["early", "later"]);
    assert!(world.clients[client].got.starts_with(b"\x81\x05early"), "no 101 of ours");
}

#[test]
fn an_adopted_session_is_told_in_frames_what_others_are_told_in_http() {
    let mut world = World::redis(limits(), 1);
    world.lose_redis();
    let now = world.now;
    let adopt = |world: &mut World| {
        let id = world.shard().adopt(target("chat"), text("early"), now).unwrap();
        world.add(0, id)
    };
    let late = adopt(&mut world);
    world.pass(Duration::from_secs(5));
    assert_eq!(world.close_code(late), Some(1013));
    assert!(!world.clients[late].opened, "it never was");
    assert_eq!(world.shards[0].stats().messages_in, 0, "nor was its message taken");
    let now = world.now;
    let going = world.shard().adopt(target("chat"), Vec::new(), now).unwrap();
    let going = world.add(0, going);
    world.shard().shutdown(now);
    world.pass(Duration::from_secs(1));
    assert_eq!(world.close_code(going), Some(1001));
    assert_eq!(world.shard().adopt(target("chat"), Vec::new(), now), Err(Misuse::WrongState));
}

#[test]
fn subscribers_that_are_not_sockets_get_every_run_from_their_confirmation_on() {
    let mut world = World::new();
    let channel = Bytes::from_static(b"chat");
    let subscriber = world.shard().subscribe(&channel, FrameType::Text).unwrap();
    world.run();
    let client = world.join("/chat");
    world.send(client, &text("hello"));
    let second = world.shard().subscribe(&channel, FrameType::Text).unwrap();
    world.run();
    let [(first, None), (same, Some(run)), (other, None)] = &world.subscriber_events[..] else {
        panic!("{:?}", world.subscriber_events)
    };
    assert_eq!((first, same, other), (&subscriber, &subscriber, &second));
    assert_eq!(run.payloads().collect::<Vec<_>>(), [b"hello"]);
    world.shard().unsubscribe(b"chat", subscriber).unwrap();
    assert_eq!(world.shard().unsubscribe(b"chat", subscriber), Err(Misuse::NoSuchSubscriber));
    assert_eq!(world.shard().unsubscribe(b"tea", second), Err(Misuse::NoSuchSubscriber));
    world.send(client, &text("again"));
    assert_eq!(world.subscriber_events.len(), 4, "only the second hears it");
}

#[test]
fn a_channel_has_one_frame_type_as_long_as_somebody_is_in_it() {
    let mut world = World::new();
    let channel = Bytes::from_static(b"chat");
    let client = world.join("/chat");
    assert_eq!(world.shard().subscribe(&channel, FrameType::Binary), Err(Misuse::FrameType));
    let binary = Target { frame: FrameType::Binary, ..target("chat") };
    let now = world.now;
    assert_eq!(world.shard().adopt(binary.clone(), Vec::new(), now), Err(Misuse::FrameType));
    world.reset(client);
    world.shard().adopt(binary, Vec::new(), now).unwrap();
}

#[test]
fn the_embedder_publishes_within_the_bounds_of_a_message() {
    let mut world = World::new();
    let client = world.join("/chat");
    let bounds = limits();
    let shard = world.shard();
    let publish = |shard: &mut crate::shard::Shard, name: usize, len: usize| {
        shard.publish(&Bytes::from(vec![b'n'; name]), &vec![b'x'; len])
    };
    assert_eq!(publish(shard, 0, 1), Err(Misuse::ChannelName));
    assert_eq!(publish(shard, bounds.channel_bytes, bounds.message_bytes), Ok(()));
    assert_eq!(publish(shard, bounds.channel_bytes + 1, 1), Err(Misuse::ChannelName));
    assert_eq!(publish(shard, 1, bounds.message_bytes + 1), Err(Misuse::MessageSize));
    shard.publish(&"chat".into(), b"from the embedder").unwrap();
    world.run();
    assert_eq!(world.texts(client), ["from the embedder"]);
}

#[test]
fn closing_a_session_lets_what_waits_for_it_leave_first() {
    let mut world = World::new();
    let client = world.join("/chat");
    world.make_room(client, 0);
    world.send(client, &text("last words"));
    let (id, now) = (world.id(client), world.now);
    world.shard().close(id, 4000, "enough", now).unwrap();
    world.make_room(client, usize::MAX);
    assert_eq!(world.texts(client), ["last words"]);
    assert_eq!(world.close_code(client), Some(4000));
    assert_eq!(world.clients[client].closed, None, "the client has yet to answer");
    world.send(client, &frame(CLOSE, &4000_u16.to_be_bytes()));
    assert!(world.clients[client].ended);
    world.end(client);
    assert_eq!(world.clients[client].closed.and_then(|closed| closed.code), Some(4000));
}

#[test]
fn a_client_that_does_not_answer_our_close_is_dropped_after_close_time() {
    let mut world = World::new();
    let client = world.join("/chat");
    let (id, now) = (world.id(client), world.now);
    world.shard().close(id, 1000, "", now).unwrap();
    world.pass(Duration::from_millis(4_999));
    assert_eq!(world.clients[client].closed, None);
    world.pass(ms(1));
    assert_eq!(world.error(client), Some(Error::CloseTimeout));
}

#[test]
fn a_session_without_the_right_to_subscribe_gets_nothing_and_needs_no_confirmation() {
    let mut world = World::redis(limits(), 1);
    world.server.is_mute = true;
    let client = world.join("/post");
    world.send(client, &frame(TEXT, b"only in"));
    assert_eq!(world.server.published, [(b"post".to_vec(), b"only in".to_vec())]);
    assert_eq!(world.texts(client), Vec::<String>::new());
}
