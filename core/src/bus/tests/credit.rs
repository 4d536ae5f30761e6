//! Credit is neither lost nor made, whatever becomes of the publishes.

use crate::bus::{Event, Loss};
use crate::redis::Lane;
use crate::shard::tests::world::{World, limits, text};
use crate::time::Duration;

/// The world checks the sum of credit after each step.
#[test]
fn whatever_happens_to_redis_the_credit_is_conserved() {
    for seed in 0..25 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut limits = limits();
        limits.publish_bytes = 1 << rng.u32(9..14);
        limits.publish_time = Duration::from_millis(rng.u64(200..3_000));
        let mut world = World::redis(limits, 1 + seed as usize % 3);
        let clients: Vec<usize> = (0..6).map(|one| world.join(["/chat", "/post", "/chat/tea"][one % 3])).collect();
        world.pieces.0 = 1 << rng.u32(4..14);
        for _ in 0..80 {
            let client = clients[rng.usize(..clients.len())];
            match rng.u8(..14) {
                0 => world.lose_redis(),
                1 | 2 => world.is_reachable = true,
                3 => world.cut(Lane::Publisher),
                4 => world.cut(Lane::Subscriber),
                5 => world.server.is_mute = rng.bool(),
                6 => drop(world.server.denied.insert(b"post".to_vec())),
                7 => world.server.denied.clear(),
                8 | 9 => world.pass(Duration::from_millis(rng.u64(..2_000))),
                10 if rng.u8(..5) == 0 => world.reset(client),
                _ => {
                    let message = text(&"x".repeat(rng.usize(..100)));
                    world.clients[client].input.extend(message.repeat(rng.usize(..20)));
                    world.run();
                }
            }
            world.check_credit();
        }
        world.is_reachable = true;
        world.server.is_mute = false;
        world.pass(Duration::from_secs(60));
        assert_eq!(world.bus.stats().publish_bytes, 0);
        assert!(world.shards.iter().all(|shard| shard.has_credit()), "everything came back");
        let mut lost = [0; 3];
        for event in &world.bus_events {
            if let Event::Lost { messages, loss } = event {
                lost[*loss as usize] += *messages as u64;
            }
        }
        let stats = world.bus.stats();
        assert_eq!(
            lost,
            [Loss::Expired, Loss::Unconfirmed, Loss::Refused].map(|loss| match loss {
                Loss::Expired => stats.expired,
                Loss::Unconfirmed => stats.unconfirmed,
                Loss::Refused => stats.refused,
            })
        );
    }
}

#[test]
fn the_worker_that_owes_most_is_paid_first() {
    let mut limits = limits();
    limits.publish_bytes = 4_000;
    let mut world = World::redis(limits, 2);
    let [light, heavy] = [world.join("/chat"), world.join("/chat")];
    world.lose_redis();
    world.send(light, &text("x"));
    world.send(heavy, &text(&"x".repeat(500)).repeat(3));
    let debts = world.bus.debts();
    assert!(debts[0] < debts[1]);
    world.pass(Duration::from_secs(60));
    assert_eq!((world.bus.debts(), world.bus.stats().expired), (vec![0, 0], 4));
}
