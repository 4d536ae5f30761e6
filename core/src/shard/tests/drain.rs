//! When outputs are drained makes no difference to what a session gets.

use std::io::IoSlice;

use tungstenite::Message;

use super::world::{PING, World, limits, request, text};
use crate::time::Duration;
use crate::ws::tests::frame;

/// Data and control frames of each client: within its kind the order is the same, whoever drains.
fn play(seed: u64, lazy: Option<fastrand::Rng>) -> Vec<(Vec<Message>, Vec<Message>)> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut world = World::redis(limits(), 1 + seed as usize % 2);
    let clients: Vec<usize> = ["/chat", "/chat", "/bytes", "/news"].map(|path| world.join(path)).to_vec();
    world.lazy = lazy;
    for step in 0..200 {
        let client = clients[rng.usize(..clients.len())];
        match rng.u8(..8) {
            0 => world.make_room(client, rng.usize(..40)),
            1 => world.make_room(client, usize::MAX),
            2 => world.send(client, &frame(PING, step.to_string().as_bytes())),
            3 => world.pass(Duration::from_millis(rng.u64(..50))),
            _ => {
                let channel: &[u8] = [&b"chat"[..], b"bytes", b"news"][rng.usize(..3)];
                world.server.publish(channel, "m".repeat(rng.usize(..200)).as_bytes());
                if rng.bool() {
                    world.run();
                }
            }
        }
    }
    for &client in &clients {
        let (worker, id, now) = (world.clients[client].worker, world.id(client), world.now);
        world.shards[worker].close(id, 1000, "that was all", now).unwrap();
        world.make_room(client, usize::MAX);
    }
    world.run();
    clients.iter().map(|&client| by_kind(world.messages(client))).collect()
}

/// Control frames may overtake data.
fn by_kind(messages: Vec<Message>) -> (Vec<Message>, Vec<Message>) {
    messages.into_iter().partition(|one| one.is_text() || one.is_binary())
}

#[test]
fn a_lazy_driver_and_an_eager_one_deliver_the_same() {
    for seed in 0..25 {
        let eager = play(seed, None);
        assert!(eager.iter().all(|(data, control)| data.len() > 5 && !control.is_empty()));
        for lazy in 0..2 {
            assert_eq!(eager, play(seed, Some(fastrand::Rng::with_seed(lazy))), "seed {seed}");
        }
    }
}

#[test]
fn byte_by_byte_is_the_same_as_at_once() {
    let play = |pieces| {
        let mut world = World::new();
        let clients = [world.join("/chat"), world.join("/chat")];
        world.pieces = pieces;
        for round in 0..20 {
            world.clients[clients[0]].input.extend(text(&"x".repeat(round * 13)));
            world.send(clients[0], &frame(PING, &[b'p'; 99]));
        }
        clients.map(|client| by_kind(world.messages(client)))
    };
    assert_eq!(play((16 << 10, usize::MAX)), play((1, 1)));
}

#[test]
fn output_is_named_once_until_there_is_more() {
    let mut world = World::new();
    let client = world.join("/chat");
    let (id, now) = (world.id(client), world.now);
    let message = |world: &mut World| {
        world.shard().publish(&"chat".into(), b"x").unwrap();
        world.exchange();
        world.bus.handle_timeout(now);
        world.exchange();
    };
    message(&mut world);
    message(&mut world);
    let shard = world.shard();
    assert_eq!(shard.poll_transmit(), Some(id));
    assert_eq!(shard.poll_transmit(), None, "named once for both");
    shard.handle_read(id, &mut frame(PING, b""), now);
    assert_eq!((shard.poll_transmit(), shard.poll_transmit()), (Some(id), None));
    shard.transmitted(id, 1, now).unwrap();
    assert_eq!((shard.poll_transmit(), shard.poll_transmit()), (Some(id), None), "there is a rest");
    shard.blocked(id);
    message(&mut world);
    assert_eq!(world.shard().poll_transmit(), None, "a full socket is not offered more");
    world.shard().handle_writable(id);
    assert_eq!(world.shard().poll_transmit(), Some(id));
    let mut slices = [IoSlice::new(&[]); 8];
    let filled = world.shards[0].transmit(id, &mut slices);
    let rest: usize = slices[..filled].iter().map(|slice| slice.len()).sum();
    assert_eq!((filled, rest), (4, 1 + 3 * 3), "the rest of the pong, three messages");
    assert_eq!(world.shard().transmitted(id, rest + 1, now), Err(crate::error::Misuse::TooMuchTransmitted));
    world.shard().transmitted(id, rest, now).unwrap();
    assert_eq!(world.shards[0].transmit(id, &mut [IoSlice::new(&[])]), 0);
}

#[test]
fn nobody_is_named_who_has_gone_since() {
    let mut world = World::redis(limits(), 1);
    world.server.is_mute = true;
    let client = world.connect();
    world.send(client, &request("/chat"));
    let (id, now) = (world.id(client), world.now);
    let shard = world.shard();
    assert!(!shard.handle_readable(id, now));
    shard.shutdown(now);
    shard.handle_reset(id);
    assert_eq!((shard.poll_readable(), shard.poll_transmit()), (None, None));
}

#[test]
fn the_present_is_due_while_an_output_is_unpolled_and_only_then() {
    let mut world = World::new();
    let now = world.now;
    let client = world.connect();
    let id = world.id(client);
    let in_ten = Some(now + Duration::from_secs(10));
    assert_eq!(world.shard().poll_timeout(), in_ten, "nothing but the head's deadline");
    let shard = world.shard();
    shard.handle_read(id, &mut request("/chat"), now);
    assert_eq!(shard.poll_timeout(), Some(now), "a wish for the bus");
    world.exchange();
    let shard = world.shard();
    assert_eq!(shard.poll_timeout(), Some(now), "an event and output");
    while shard.poll_event().is_some() {}
    assert_eq!(shard.poll_timeout(), Some(now), "output");
    assert_eq!(shard.poll_transmit(), Some(id));
    assert!(shard.poll_timeout() > Some(now), "offered, whether or not it was written");
    shard.blocked(id);
    assert!(shard.poll_timeout() > Some(now), "no spin on a full socket");
    shard.handle_writable(id);
    assert_eq!(shard.poll_timeout(), Some(now));
}

#[test]
fn time_does_not_run_backwards() {
    let mut world = World::new();
    let client = world.join("/chat");
    let id = world.id(client);
    world.pass(Duration::from_secs(20));
    let earlier = crate::time::Instant::ZERO;
    let now = world.now;
    world.shard().handle_timeout(now);
    let before = world.shard().poll_timeout();
    world.shard().handle_read(id, &mut frame(PING, b""), earlier);
    world.shard().handle_timeout(earlier);
    world.run();
    assert!(world.shard().poll_timeout() >= before);
    world.pass(Duration::from_secs(22));
    assert_eq!(world.messages(client).len(), 1, "a pong, and no ping before its time");
}
