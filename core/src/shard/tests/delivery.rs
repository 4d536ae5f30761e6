//! Messages from the bus to sessions: all of them, in order, once, and encoded once.

use std::io::IoSlice;

use super::world::{BINARY, PING, TEXT, World, limits, request, settings, text};
use crate::bus::Bus;
use crate::error::Error;
use crate::redis::world::Server;
use crate::redis::{Lane, LinkId};
use crate::route::FrameType;
use crate::time::{Duration, Instant};
use crate::ws::tests::frame;

/// What other instances publish is numbered; a session sees an unbroken sequence from its 101 to the end, whatever
/// the cuts of both streams.
#[test]
fn from_its_101_on_a_session_gets_every_message_in_order_and_once() {
    for seed in 0..40 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut world = World::redis(limits(), 1 + seed as usize % 2);
        world.pieces = (1 << rng.u32(0..12), 1 << rng.u32(0..12));
        let mut first = Vec::new();
        for number in 0..120 {
            match rng.u8(..8) {
                0 => {
                    world.connect();
                    first.push(None);
                    let client = first.len() - 1;
                    world.clients[client].input.extend(request("/chat"));
                }
                1 => world.run(),
                _ => {}
            }
            // A message that comes when a session is not open yet is none of its own.
            world.server.publish(b"chat", number.to_string().as_bytes());
            if rng.bool() {
                world.run();
            }
            for (client, first) in first.iter_mut().enumerate() {
                if first.is_none() && world.clients[client].opened {
                    *first = Some(number + 1);
                }
            }
        }
        world.run();
        for (client, first) in first.into_iter().enumerate() {
            let texts = world.texts(client);
            let numbers: Vec<u32> = texts.iter().map(|text| text.parse().unwrap()).collect();
            assert!(numbers.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{numbers:?}");
            assert!(numbers.last().is_none_or(|&last| last == 119));
            if let Some(first) = first {
                assert!(numbers.len() as u32 >= 120 - first, "{first} {numbers:?}");
            }
        }
    }
}

#[test]
fn the_101_leaves_after_the_confirmation_and_not_before() {
    let mut world = World::redis(limits(), 1);
    world.server.swallows = true;
    let client = world.connect();
    world.send(client, &request("/chat"));
    assert_eq!(world.answer(client), "");
    assert!(!world.server.log.iter().any(|(_, command)| command == "SUBSCRIBE"));
    world.server.swallows = false;
    world.cut(Lane::Subscriber);
    world.pass(Duration::from_secs(1));
    assert_eq!(world.status(client), 101);
    world.server.publish(b"chat", b"first");
    world.run();
    assert_eq!(world.texts(client), ["first"]);
}

#[test]
fn the_messages_of_one_read_are_one_run_a_channel_and_one_piece_of_memory() {
    let mut world = World::redis(limits(), 1);
    let clients = [world.join("/chat"), world.join("/chat"), world.join("/chat/tea")];
    for client in clients {
        world.make_room(client, 0);
    }
    for number in 0..10 {
        world.server.publish(b"chat", format!("{number}").as_bytes());
        world.server.publish(b"chat:tea", format!("tea {number}").as_bytes());
    }
    let bytes = std::mem::take(&mut world.server.clients.get_mut(&Lane::Subscriber).unwrap().output);
    let now = world.now;
    world.bus.handle_read(LinkId::new(0, Lane::Subscriber), &bytes, false, now);
    world.exchange();
    let lent = clients.map(|client| {
        let mut slices = [IoSlice::new(&[]); 4];
        assert_eq!(world.shards[0].transmit(world.id(client), &mut slices), 1, "one run");
        (slices[0].as_ptr(), slices[0].len())
    });
    assert_eq!(lent[0], lent[1], "lent to both from the same place");
    assert_ne!(lent[0].0, lent[2].0);
    assert_eq!((lent[0].1, lent[2].1), (30, 70));
    for client in clients {
        world.make_room(client, usize::MAX);
    }
    assert_eq!((world.texts(clients[0]).len(), world.texts(clients[2]).len()), (10, 10));
    assert_eq!(world.shards[0].stats().deliveries, 30);
}

#[test]
fn two_workers_share_one_subscription_and_one_encoding() {
    let mut world = World::redis(limits(), 2);
    let clients: Vec<usize> = (0..4).map(|_| world.join("/chat")).collect();
    for &client in &clients {
        world.make_room(client, 0);
    }
    world.server.publish(b"chat", b"hello");
    world.run();
    let place = |client: usize| {
        let mut slices = [IoSlice::new(&[]); 1];
        let client = &world.clients[client];
        assert_eq!(world.shards[client.worker].transmit(client.id, &mut slices), 1);
        slices[0].as_ptr()
    };
    assert!(clients.iter().all(|&client| place(client) == place(0)));
    assert_eq!(count(&world.server, "SUBSCRIBE"), 1);
}

fn count(server: &Server, command: &str) -> usize {
    server.log.iter().filter(|(_, one)| one == command).count()
}

#[test]
fn pongs_overtake_what_waits_but_never_cut_a_frame() {
    let mut world = World::new();
    let client = world.join("/chat");
    world.make_room(client, 0);
    world.clients[client].got.clear();
    world.send(client, &[text("first message"), text("second message")].concat());
    world.make_room(client, 4);
    world.send(client, &frame(PING, b"are you there"));
    world.make_room(client, usize::MAX);
    let expected = b"\x81\x0Dfirst message\x8A\x0Dare you there\x81\x0Esecond message";
    assert_eq!(world.clients[client].got, expected);
}

#[test]
fn the_other_frame_type_is_refused_both_ways() {
    let mut world = World::redis(limits(), 1);
    let (texts, bytes, news) = (world.join("/chat"), world.join("/bytes"), world.join("/news"));
    world.server.publish(b"bytes", b"\xFF\x00");
    world.server.publish(b"chat", b"\xFF");
    world.run();
    assert_eq!(world.messages(bytes), [tungstenite::Message::binary(b"\xFF\x00".to_vec())]);
    assert_eq!(world.messages(texts), []);
    assert_eq!(world.bus.stats().not_utf8, 1);
    world.send(texts, &[text("kept"), frame(BINARY, b"x"), text("after")].concat());
    world.send(bytes, &frame(TEXT, b"x"));
    world.send(news, &text("x"));
    assert_eq!([texts, bytes, news].map(|one| world.close_code(one)), [Some(1003), Some(1003), Some(1008)]);
    let published: Vec<&[u8]> = world.server.published.iter().skip(2).map(|(_, payload)| &payload[..]).collect();
    assert_eq!(published, [b"kept"], "what came before the wrong frame is taken, what came behind it is not");
    world.end(texts);
    assert_eq!(world.error(texts), Some(Error::FrameType));
}

#[test]
fn a_dead_client_is_found_out_and_our_ping_does_not_speak_for_it() {
    let mut world = World::new();
    let client = world.join("/chat");
    world.pass(Duration::from_millis(24_999));
    assert_eq!(world.messages(client).len(), 1, "a ping, a little early at random");
    world.pass(Duration::from_secs(11));
    assert_eq!(world.error(client), Some(Error::PongTimeout));
    assert!(world.clients[client].closed.is_some());
}

#[test]
fn a_client_that_answers_or_takes_data_lives() {
    let mut world = World::new();
    let [pongs, takes] = [world.join("/chat"), world.join("/chat/tea")];
    for _ in 0..10 {
        world.pass(Duration::from_secs(9));
        world.send(pongs, &frame(0x8A, b""));
        world.shard().publish(&"chat:tea".into(), b"x").unwrap();
        world.run();
    }
    assert!(world.clients[pongs].closed.is_none() && world.clients[takes].closed.is_none());
}

/// Within the linger a session is open without a word to Redis.
#[test]
fn who_comes_back_within_the_linger_is_open_at_once_and_is_unsubscribed_once_after_it() {
    let mut world = World::redis(limits(), 2);
    let client = world.join("/chat");
    world.reset(client);
    world.pass(Duration::from_millis(4_999));
    world.server.is_mute = true;
    let again = world.join("/chat");
    world.server.is_mute = false;
    assert_eq!(count(&world.server, "SUBSCRIBE"), 1);
    world.server.publish(b"chat", b"hello");
    world.run();
    assert_eq!(world.texts(again), ["hello"]);
    world.reset(again);
    world.pass(Duration::from_millis(4_999));
    assert_eq!(count(&world.server, "UNSUBSCRIBE"), 0);
    world.pass(Duration::from_secs(60));
    assert_eq!((count(&world.server, "UNSUBSCRIBE"), world.bus.stats().channels), (1, 0));
    world.join("/chat");
    assert_eq!(count(&world.server, "SUBSCRIBE"), 2);
}

#[test]
fn while_the_bus_is_down_sessions_stay_and_new_ones_wait_until_it_is_subscribed_again() {
    let mut world = World::redis(limits(), 1);
    let old = world.join("/chat");
    world.lose_redis();
    let new = world.connect();
    world.send(new, &request("/chat"));
    assert_eq!(world.answer(new), "", "the subscription of before does not count");
    world.pass(Duration::from_secs(2));
    assert_eq!(world.answer(new), "");
    world.is_reachable = true;
    world.pass(Duration::from_secs(2));
    assert_eq!(world.status(new), 101);
    world.send(new, &text("back"));
    assert_eq!((world.texts(old), world.texts(new)), (vec!["back".to_owned()], vec!["back".to_owned()]));
}

#[test]
fn all_sessions_of_a_channel_share_its_name() {
    let mut world = World::new();
    let clients = [world.join("/chat/tea"), world.join("/chat/tea")];
    let names = clients.map(|client| world.shards[0].channel_of(world.id(client)).as_ptr());
    assert_eq!(names[0], names[1]);
}

#[test]
fn a_session_is_small() {
    // Only tests have a second form, of which a queue keeps a byte.
    let form = size_of::<crate::shard::queue::Queue>() - 32;
    let session = size_of::<crate::shard::session::Session>() - form;
    assert!(session <= 280, "{session} bytes");
    let mut world = World::new();
    let client = world.join("/chat");
    world.send(client, &text("one message through it"));
    let session = world.shards[0].get(world.id(client)).unwrap();
    assert!(session.answer.is_none() && session.queue.is_empty(), "an idle session owns no buffer");
}

#[test]
fn runs_keep_their_type_when_a_channel_changes_it() {
    let mut own = settings(limits(), 1);
    own.ask = true;
    let bus = Bus::local(&own.limits, 1, 1, Instant::ZERO);
    let mut world = World::from(own, bus);
    let name = bytes::Bytes::from_static(b"free");
    for frame in [FrameType::Text, FrameType::Binary] {
        let subscriber = world.shard().subscribe(&name, frame).unwrap();
        world.run();
        world.shard().publish(&name, b"x").unwrap();
        world.run();
        let (_, run) = world.subscriber_events.pop().unwrap();
        assert_eq!(run.map(|run| run.frame()), Some(frame));
        world.shard().unsubscribe(&name, subscriber).unwrap();
        world.run();
    }
}
