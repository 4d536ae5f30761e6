//! What sessions see of a stretch in which messages may have passed by.

use super::world::{CLOSE, World, limits, request, settings_with, text};
use crate::error::Side;
use crate::limits::Limits;
use crate::time::Duration;
use crate::ws::tests::frame;

const ROUTES: [&str; 3] = ["/kept=kept", "/tight=tight,on_gap=close", "/post=post,subscribe=no,on_gap=close"];

/// A Redis that is connected, and routes of either policy.
fn world(change: impl FnOnce(&mut Limits)) -> World {
    let mut limits = limits();
    change(&mut limits);
    World::redis_with(settings_with(&ROUTES, limits))
}

/// Redis is away for a moment.
fn gap(world: &mut World) {
    world.lose_redis();
    world.is_reachable = true;
}

#[test]
fn on_a_route_that_says_close_a_gap_ends_sessions_over_the_time_that_it_may_take() {
    let mut world = world(|_| {});
    let clients: Vec<usize> = (0..200).map(|_| world.join("/tight")).collect();
    let closed = |world: &World| clients.iter().filter(|&&one| world.close_code(one) == Some(1012)).count();
    gap(&mut world);
    assert_eq!((closed(&world), world.shards[0].stats().gap_closes), (0, 200), "not at once");
    world.pass(Duration::from_micros(2_500_000));
    assert!((70..130).contains(&closed(&world)), "about half of them in half of the time: {}", closed(&world));
    world.pass(Duration::from_micros(2_500_000));
    assert_eq!(closed(&world), 200);
    world.send(clients[0], &frame(CLOSE, &1012_u16.to_be_bytes()));
    world.end(clients[0]);
    let end = world.clients[clients[0]].closed.unwrap();
    assert_eq!((end.by, end.code, end.error), (Side::Local, Some(1012), None));
}

#[test]
fn the_time_over_which_a_gap_closes_is_a_bound() {
    for (millis, at_once) in [(0, 50), (40, 0)] {
        let mut world = world(|limits| limits.gap_close_time = Duration::from_millis(millis));
        let clients: Vec<usize> = (0..50).map(|_| world.join("/tight")).collect();
        let closed = |world: &World| clients.iter().filter(|&&one| world.close_code(one) == Some(1012)).count();
        gap(&mut world);
        assert_eq!(closed(&world), at_once, "{millis} ms");
        world.pass(Duration::from_millis(millis));
        assert_eq!(closed(&world), 50, "{millis} ms");
    }
}

#[test]
fn whom_a_gap_closes_gets_what_came_before_it_and_nothing_later() {
    let mut world = world(|_| {});
    let [kept, tight] = [world.join("/kept"), world.join("/tight")];
    world.make_room(tight, 0);
    for channel in [b"kept", &b"tight"[..]] {
        world.server.publish(channel, b"before");
    }
    world.run();
    gap(&mut world);
    let again = world.connect();
    world.send(again, &request("/tight"));
    world.pass(Duration::from_secs(1));
    assert!(world.clients[again].opened);
    for channel in [b"kept", &b"tight"[..]] {
        world.server.publish(channel, b"after");
    }
    world.pass(Duration::from_secs(5));
    world.make_room(tight, usize::MAX);
    assert_eq!([kept, tight, again].map(|one| world.close_code(one)), [None, Some(1012), None]);
    assert_eq!([kept, tight, again].map(|one| world.texts(one).join(" ")), ["before after", "before", "after"]);
    gap(&mut world);
    world.pass(Duration::from_secs(5));
    assert_eq!(world.close_code(again), Some(1012), "the next gap concerns whoever came after the first");
}

#[test]
fn a_gap_concerns_nobody_who_gets_no_messages_or_is_not_open_yet() {
    let mut world = world(|_| {});
    let post = world.join("/post");
    world.server.is_mute = true;
    let waits = world.connect();
    world.send(waits, &request("/tight"));
    world.server.is_mute = false;
    gap(&mut world);
    world.pass(Duration::from_secs(6));
    assert_eq!([post, waits].map(|one| world.close_code(one)), [None, None]);
    assert!(world.clients[waits].opened);
    assert_eq!(world.shards[0].stats().gap_closes, 0);
}

#[test]
fn whoever_is_to_be_closed_for_a_gap_may_still_speak_leave_or_be_closed() {
    let mut world = world(|_| {});
    let [speaks, leaves, ends] = [world.join("/tight"), world.join("/tight"), world.join("/tight")];
    gap(&mut world);
    world.send(speaks, &text("last words"));
    world.send(leaves, &frame(CLOSE, &1000_u16.to_be_bytes()));
    let (id, now) = (world.id(ends), world.now);
    world.shard().close(id, 4000, "enough", now).unwrap();
    world.pass(Duration::from_secs(5));
    assert_eq!(world.server.published, [(b"tight".to_vec(), b"last words".to_vec())]);
    assert_eq!([speaks, leaves, ends].map(|one| world.close_code(one)), [Some(1012), Some(1000), Some(4000)]);
    world.shards[0].check();
}
