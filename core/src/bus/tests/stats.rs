//! What is counted adds up to what happened.

use crate::redis::Lane;
use crate::shard::tests::world::{World, limits, text};
use crate::time::Duration;

#[test]
fn what_passes_the_bus_is_counted_on_both_sides() {
    let mut world = World::redis(limits(), 2);
    let clients = [(); 4].map(|()| world.join("/chat"));
    let other = world.join("/chat/tea");
    for client in clients {
        world.send(client, &text("hello"));
    }
    world.send(other, &text("nobody else hears this"));
    let stats = world.bus.stats();
    assert_eq!((stats.publishes, stats.messages, stats.unsent), (5, 5, 0));
    assert_eq!((stats.channels, stats.subscribed), (2, 2));
    assert!(stats.bytes_in > 0 && stats.bytes_out > 0, "{stats:?}");
    assert_eq!((stats.connects, stats.dial_failures), (2, 0));
}

#[test]
fn an_outage_shows_in_the_subscriptions_and_in_the_dials() {
    let mut world = World::redis(limits(), 1);
    world.join("/chat");
    world.lose_redis();
    let stats = world.bus.stats();
    assert_eq!((stats.channels, stats.subscribed), (1, 0));
    world.pass(Duration::from_secs(10));
    let failures = world.bus.stats().dial_failures;
    assert!(failures >= 20, "{failures}");
    world.is_reachable = true;
    world.pass(Duration::from_secs(2));
    let stats = world.bus.stats();
    assert_eq!((stats.subscribed, stats.connects), (1, 4));
    world.cut(Lane::Publisher);
    world.pass(Duration::from_secs(2));
    assert_eq!(world.bus.stats().connects, 5);
}
