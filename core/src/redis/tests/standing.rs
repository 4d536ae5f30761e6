//! A process that stood still reads what Redis sent before it calls Redis dead.

use crate::limits::Limits;
use crate::redis::world::{World, ms, url};
use crate::redis::{Action, Lane, LinkEvent};
use crate::time::{Duration, Instant};

/// Longer than any deadline of the link.
const LONG: Duration = Duration::from_secs(100);

fn looks(world: &World) -> Vec<Lane> {
    let look = |&(_, action): &(Instant, Action)| if let Action::Look(lane) = action { Some(lane) } else { None };
    world.actions.iter().filter_map(look).collect()
}

/// What Redis sends waits in the sockets from here on, as far as the link knows.
fn stop_reading(world: &mut World) {
    world.stuck.extend(Lane::ALL);
}

#[test]
fn replies_that_lie_in_the_socket_are_read_before_they_are_missed() {
    // As long as one reply takes, a probe, and longer than anything.
    for time in [ms(5_000), ms(8_000), LONG] {
        let mut world = World::up();
        stop_reading(&mut world);
        world.subscribe("chat");
        world.publish("chat", "hello");
        // A ping is out on either connection, and a probe.
        world.pass(ms(4_999));
        world.take_events();
        world.actions.clear();
        world.stuck.clear();
        world.now = world.now + time;
        world.link.handle_timeout(world.now);
        assert_eq!(world.link.readiness(), Ok(()), "{time:?}: nothing is said before it is known");
        world.stand_still(ms(0));
        assert!(looks(&world).len() >= 2, "{time:?}: {:?}", world.actions);
        assert!(world.link.is_up() && world.link.is_flushed() && world.link.readiness().is_ok(), "{time:?}");
        let news = world.take_news();
        assert_eq!(news, [LinkEvent::Subscribed("chat".into())], "{time:?}");
        assert_eq!((world.link.stats().lost_connections, world.link.stats().probes_missing), (0, 0), "{time:?}");
    }
}

#[test]
fn what_has_not_come_is_missed_after_the_look() {
    let mut world = World::up();
    stop_reading(&mut world);
    world.subscribe("chat");
    world.stand_still(LONG);
    assert!(!world.link.is_up());
    assert!(looks(&world).contains(&Lane::Subscriber));
}

/// A read may bring only a part of what lies there.
#[test]
fn all_that_lies_there_is_read_before_the_rest_is_missed() {
    let mut world = World::up();
    stop_reading(&mut world);
    for i in 0..500 {
        world.subscribe(&format!("room:{i}"));
    }
    world.stuck.clear();
    world.piece = 7;
    world.stand_still(LONG);
    assert!(world.link.is_up());
    assert_eq!((world.link.confirmed_channels(), world.link.stats().lost_connections), (500, 0));
}

#[test]
fn a_socket_that_has_room_again_is_written_before_it_counts_as_stalled() {
    let mut world = World::up();
    world.full.extend(Lane::ALL);
    world.subscribe("chat");
    world.publish("chat", "hello");
    // The owner has not heard that there is room.
    world.full.clear();
    world.stand_still(ms(30_000));
    assert!(world.link.is_up() && world.link.is_flushed());
    assert_eq!((world.published(), world.link.stats().lost_connections), (vec!["hello"], 0));
}

#[test]
fn a_dial_that_has_succeeded_is_found_before_it_counts_as_failed() {
    let mut world = World::new();
    (world.is_reachable, world.dials_hang) = (false, true);
    world.run();
    world.late.extend(Lane::ALL);
    world.stand_still(LONG);
    assert!(world.link.is_up(), "{:?}", world.actions);
    assert!(!world.take_events().iter().any(|event| matches!(event, LinkEvent::StartFailed(_))), "it has not failed");
}

#[test]
fn a_start_that_has_come_to_nothing_fails_after_the_look() {
    let mut world = World::new();
    (world.is_reachable, world.dials_hang) = (false, true);
    world.run();
    world.stand_still(ms(4_800));
    assert!(world.take_events().iter().any(|event| matches!(event, LinkEvent::StartFailed(_))));
}

/// Some owners answer late.
#[test]
fn nothing_is_asked_twice_and_nobody_spins_until_the_owner_has_looked() {
    let limits = Limits { probe_time: Duration::from_secs(300), ..Limits::default() };
    let mut world = World::with(url(), &limits, 7);
    world.run();
    world.server.is_mute = true;
    world.subscribe("chat");
    let late = world.now + limits.reply_time;
    world.link.handle_timeout(late);
    assert_eq!(world.link.poll_timeout(), Some(late), "an action is to be polled");
    assert_eq!(world.link.poll_action(), Some(Action::Look(Lane::Subscriber)));
    while let Some(lane) = world.link.poll_transmit() {
        world.link.blocked(lane);
    }
    world.link.handle_timeout(late + ms(1));
    assert_eq!(world.link.poll_action(), None);
    assert!(world.link.poll_timeout().is_none_or(|at| at > late + ms(1)), "it waits for the owner");
    world.link.handle_looked(Lane::Subscriber, late + ms(2));
    assert!(world.link.poll_timeout().is_some_and(|at| at <= late + ms(2)));
    world.link.handle_timeout(late + ms(2));
    assert_eq!(world.link.poll_action(), Some(Action::HangUp(Lane::Subscriber)));
}

/// The owner had no time to write either.
#[test]
fn what_leaves_late_has_all_of_its_time_from_then_on() {
    let mut world = World::up();
    // A ping on either connection and a probe are to leave.
    let due = world.link.poll_timeout().expect("a probe is due");
    world.link.handle_timeout(due);
    world.now = due + LONG;
    world.link.handle_timeout(world.now);
    world.stuck.extend(Lane::ALL);
    world.stand_still(ms(0));
    world.pass(ms(4_000));
    world.stuck.clear();
    world.run();
    world.pass(LONG);
    assert_eq!((world.link.stats().lost_connections, world.link.stats().probes_missing), (0, 0));
}
