//! What becomes known when the connection that subscribes is lost.

use crate::bus::Event;
use crate::error::Unready;
use crate::exchange::Gap;
use crate::redis::Lane;
use crate::shard::tests::world::{World, limits};
use crate::time::Duration;

/// What was heard of gaps since the last call.
fn gaps(world: &mut World) -> Vec<Result<u64, Gap>> {
    let heard = world.bus_events.drain(..).filter_map(|event| match event {
        Event::GapBegan { epoch } => Some(Ok(epoch)),
        Event::GapEnded(gap) => Some(Err(gap)),
        _ => None,
    });
    heard.collect()
}

#[test]
fn a_gap_is_numbered_and_measured_and_every_shard_knows_the_state() {
    let mut world = World::redis(limits(), 2);
    world.join("/chat");
    assert_eq!(gaps(&mut world), []);
    let second = Duration::from_secs(1);
    for epoch in 1..=3 {
        world.pass(Duration::from_secs(30));
        world.lose_redis();
        assert_eq!(gaps(&mut world), [Ok(epoch)]);
        assert!(world.shards.iter().all(|shard| shard.readiness() == Err(Unready::NoConnection)));
        let before = world.bus.stats().gap_time;
        world.pass(10 * second);
        world.is_reachable = true;
        world.pass(2 * second);
        let [Err(gap)] = gaps(&mut world)[..] else { panic!("one gap") };
        assert!(gap.epoch == epoch && gap.duration > 10 * second && gap.duration < 17 * second, "{gap:?}");
        let stats = world.bus.stats();
        assert_eq!((stats.gaps, stats.gap_time), (epoch, before + gap.duration));
        assert!(world.shards.iter().all(|shard| shard.readiness() == Ok(())));
    }
}

#[test]
fn the_loss_of_the_connection_that_publishes_is_no_gap() {
    let mut world = World::redis(limits(), 1);
    world.join("/chat");
    world.cut(Lane::Publisher);
    world.pass(Duration::from_secs(2));
    assert_eq!((gaps(&mut world), world.bus.stats().gaps), (vec![], 0));
}
