use super::*;
use crate::error::{Error, Side};
use crate::shard::Code;
use crate::shard::tests::world::{BINARY, World, limits, text};
use crate::ws::tests::frame;

fn snapshot(world: &World) -> Snapshot {
    let blank = Snapshot::new(&world.bus, &world.shards[0], world.now.since(crate::time::Instant::ZERO));
    let mut fan_out = Histogram::default();
    fan_out.record(Duration::from_micros(300));
    world.shards.iter().fold(blank, |sum, shard| sum.with(&Share::new(shard, &fan_out)))
}

#[test]
fn a_known_exchange_adds_up_over_all_workers() {
    for workers in [1, 2, 3] {
        let mut world = World::redis(limits(), workers);
        let clients = [(); 6].map(|()| world.join("/chat"));
        for (number, client) in clients.into_iter().enumerate() {
            world.send(client, &text(&format!("message {number}")));
        }
        world.send(clients[0], &frame(BINARY, b""));
        world.end(clients[0]);
        let refused = world.connect();
        world.send(refused, b"GET /nowhere HTTP/1.1\r\nHost: a\r\n\r\n");
        world.server.publish(b"chat", b"\xff");
        world.run();
        let Snapshot { bus, workers: Share { stats, stages, fan_out }, .. } = snapshot(&world);
        let sum = snapshot(&world);
        assert_eq!((sum.worker_count, sum.late_workers, sum.readiness, sum.is_up), (workers, 0, Ok(()), true));
        assert!(sum.is_redis);
        assert_eq!((stages.open, stages.answered, stats.opened), (5, 1, 6));
        let closes = |by, code| stats.closes.iter().find(|&(one, other, _)| (one, other) == (by, code)).unwrap().2;
        assert_eq!(closes(Side::Local, Code::Known(1003)), 1);
        assert_eq!(closes(Side::Peer, Code::Known(1000)), 0);
        assert_eq!((stats.errors.of(Error::FrameType), stats.errors.of(Error::NotFound)), (1, 1));
        assert_eq!((stats.messages_in, stats.deliveries, stats.queued_bytes), (7, 36, 0));
        assert_eq!((bus.publishes, bus.messages, bus.not_utf8), (6, 7, 1));
        assert_eq!((bus.channels, bus.subscribed, bus.connects), (1, 1, 2));
        let bytes: usize = world.clients.iter().map(|client| client.got.len()).sum();
        assert_eq!(stats.bytes_out, bytes as u64);
        assert_eq!((fan_out.count(), fan_out.sum()), (workers as u64, Duration::from_micros(300) * workers as u32));
    }
}

#[test]
fn an_outage_has_a_reason_a_gap_and_a_length() {
    let mut world = World::redis(limits(), 1);
    let client = world.join("/chat");
    world.lose_redis();
    world.send(client, &text("meanwhile"));
    let away = snapshot(&world);
    assert_eq!((away.readiness, away.is_up), (Err(Unready::NoConnection), false));
    assert_eq!((away.bus.channels, away.bus.subscribed, away.bus.gaps), (1, 0, 1));
    assert!(away.bus.publish_bytes > 9);
    world.pass(Duration::from_secs(5));
    world.is_reachable = true;
    world.pass(Duration::from_secs(3));
    let back = snapshot(&world);
    assert!(back.bus.gap_time > Duration::from_secs(5) && back.bus.dial_failures > 4);
    assert_eq!((back.readiness, back.uptime), (Ok(()), Duration::from_secs(8)));
}
