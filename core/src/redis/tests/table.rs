//! Every state of a lane and every input.

use crate::redis::connection::State;
use crate::redis::world::{World, ms};
use crate::redis::{Action, Lane};

const LANE: Lane = Lane::Subscriber;
const INPUTS: [&str; 7] = ["connected", "refused", "closed", "pong", "junk", "late", "close"];

fn name(world: &World) -> &'static str {
    match world.link.subscriber.state {
        State::Waiting(_) => "waiting",
        State::Due => "due",
        State::Dialing(_) => "dialing",
        State::Handshaking(_) => "handshaking",
        State::Ready(_) => "ready",
        State::Closed => "closed",
    }
}

/// A world whose subscriber is in the named state; whatever happens next is the test's doing.
fn world_in(state: &str) -> World {
    let mut world = World::new();
    world.dials_hang = true;
    world.is_reachable = state == "ready" || state == "waiting" || state == "closed";
    match state {
        "due" => {}
        "dialing" => world.run(),
        "handshaking" => {
            assert_eq!(world.link.poll_action(), Some(Action::Dial(LANE)));
            world.link.handle_connected(LANE, world.now);
        }
        "ready" => world.run(),
        "waiting" => {
            world.run();
            world.server.clients.remove(&LANE);
            world.link.handle_closed(LANE, "reset", world.now);
        }
        "closed" => {
            world.run();
            world.link.close(world.now);
        }
        other => panic!("{other}"),
    }
    assert_eq!(name(&world), state);
    world
}

#[test]
fn every_state_has_an_answer_to_every_input() {
    // The state after each input of INPUTS, and whether the old connection is to be hung up.
    let table = [
        ("due", ["due", "due", "due", "due", "due", "due", "closed"]),
        ("dialing", ["handshaking", "waiting", "dialing", "dialing", "dialing", "waiting!", "closed!"]),
        ("handshaking", ["handshaking", "handshaking", "waiting", "handshaking", "waiting!", "waiting!", "closed!"]),
        ("ready", ["ready", "ready", "waiting", "waiting!", "waiting!", "ready", "closed!"]),
        ("waiting", ["waiting", "waiting", "waiting", "waiting", "waiting", "due", "closed"]),
        ("closed", ["closed!", "closed!", "closed!", "closed!", "closed!", "closed!", "closed!"]),
    ];
    for (state, expected) in table {
        for (input, expected) in INPUTS.into_iter().zip(expected) {
            let mut world = world_in(state);
            let now = world.now;
            match input {
                "connected" => world.link.handle_connected(LANE, now),
                "refused" => world.link.handle_dial_failed(LANE, "refused", now),
                "closed" => world.link.handle_closed(LANE, "reset", now),
                "pong" => world.link.handle_read(LANE, b"+PONG\r\n", false, now, |_, _| {}),
                "junk" => world.link.handle_read(LANE, b"junk", false, now, |_, _| {}),
                "late" => world.time_out(now + ms(7_000)),
                "close" => world.link.close(now),
                other => panic!("{other}"),
            }
            let hang_up = if world.link.subscriber.hang_up { "!" } else { "" };
            assert_eq!(format!("{}{hang_up}", name(&world)), expected, "{state}, {input}");
        }
    }
}

#[test]
fn commands_are_taken_in_every_state() {
    for state in ["due", "dialing", "handshaking", "ready", "waiting"] {
        let mut world = world_in(state);
        world.link.subscribe("chat".into(), world.now);
        world.link.publish(b"chat", b"hello", world.now);
        world.is_reachable = true;
        if state == "handshaking" {
            world.server.accept(LANE);
        }
        world.run();
        world.pass(ms(8_000));
        assert_eq!(world.received, [(b"chat".to_vec(), b"hello".to_vec())], "{state}");
    }
}
