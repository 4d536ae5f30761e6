//! What load balancers and Prometheus are told, where and when.

use super::world::{World, limits, ms, request};
use crate::error::Error;
use crate::http::Answer;

fn plain(method: &str, path: &str) -> Vec<u8> {
    format!("{method} {path} HTTP/1.1\r\nHost: a\r\n\r\n").into_bytes()
}

/// What a new client is answered.
fn answer(world: &mut World, request: &[u8]) -> String {
    let client = world.connect();
    world.send(client, request);
    world.answer(client).to_owned()
}

/// What who connects for operation is answered.
fn admin_answer(world: &mut World, request: &[u8]) -> String {
    let client = world.connect_admin();
    world.send(client, request);
    world.answer(client).to_owned()
}

#[test]
fn a_process_that_turns_is_live() {
    let mut world = World::new();
    let live = answer(&mut world, &plain("GET", "/live"));
    assert!(live.starts_with("HTTP/1.1 200 OK\r\n") && live.ends_with("\r\n\r\nlive\n"), "{live}");
    assert!(live.contains("\r\nCache-Control: no-store\r\n"));
    let head = answer(&mut world, &plain("HEAD", "/live"));
    assert_eq!(head, live.trim_end_matches("live\n"), "an answer to HEAD has no body");
    assert!(answer(&mut world, &plain("POST", "/live")).contains("\r\nAllow: GET, HEAD\r\n"));
    assert_eq!(admin_answer(&mut world, &plain("GET", "/live")), live);
    let stats = world.shards[0].stats();
    assert_eq!((stats.errors.of(Error::Method), stats.errors.iter().map(|(_, count)| count).sum::<u64>()), (1, 1));
}

#[test]
fn it_is_live_without_redis_and_while_it_shuts_down() {
    let mut world = World::redis(limits(), 1);
    world.lose_redis();
    assert!(answer(&mut world, &plain("GET", "/live")).starts_with("HTTP/1.1 200 "));
    let now = world.now;
    world.shard().shutdown(now);
    assert!(answer(&mut world, &plain("GET", "/live")).starts_with("HTTP/1.1 200 "));
    assert!(answer(&mut world, &plain("GET", "/")).starts_with("HTTP/1.1 503 "));
}

#[test]
fn a_websocket_is_for_the_routes_whatever_its_path() {
    let mut world = World::new();
    assert!(answer(&mut world, &request("/live")).starts_with("HTTP/1.1 404 "));
}

#[test]
fn metrics_are_for_operation_alone() {
    let mut world = World::new();
    assert!(answer(&mut world, &plain("GET", "/metrics")).starts_with("HTTP/1.1 404 "));
    for method in ["GET", "HEAD"] {
        let client = world.connect_admin();
        world.send(client, &plain(method, "/metrics"));
        let (id, now) = (world.id(client), world.now);
        assert_eq!((world.scrapes.pop(), world.answer(client)), (Some(id), ""));
        world.shard().answer_scrape(id, &Answer::text(200, "fanfare_ready 1\n"), now).unwrap();
        world.run();
        assert_eq!(world.answer(client).ends_with("\r\n\r\nfanfare_ready 1\n"), method == "GET");
        assert_eq!(world.status(client), 200);
    }
}

#[test]
fn nothing_else_is_for_operation() {
    let mut world = World::new();
    for request in [plain("GET", "/"), plain("GET", "/chat"), request("/chat"), request("/nowhere")] {
        assert!(admin_answer(&mut world, &request).starts_with("HTTP/1.1 404 "));
    }
    assert!(admin_answer(&mut world, &plain("POST", "/metrics")).starts_with("HTTP/1.1 405 "));
    let slow = world.connect_admin();
    world.send(slow, b"GET /metr");
    world.pass(limits().head_time);
    assert_eq!(world.status(slow), 408);
}

#[test]
fn who_waits_for_metrics_in_vain_is_told_so_and_may_have_ended_its_side() {
    let mut world = World::new();
    let client = world.connect_admin();
    world.send(client, &plain("GET", "/metrics"));
    world.end(client);
    world.pass(limits().head_time - ms(1));
    assert_eq!((world.answer(client), world.clients[client].closed), ("", None));
    world.pass(ms(1));
    assert_eq!((world.status(client), world.error(client)), (503, Some(Error::Unavailable)));
}

#[test]
fn a_shutdown_waits_for_clients_and_not_for_operation() {
    let mut world = World::new();
    let (client, admin, scrape) = (world.join("/chat"), world.connect_admin(), world.connect_admin());
    world.send(scrape, &plain("GET", "/metrics"));
    let now = world.now;
    world.shard().shutdown(now);
    world.run();
    assert!(!world.shard().is_empty());
    world.reset(client);
    assert!(world.shard().is_empty());
    assert_eq!(world.shards[0].stats().sessions, 2);
    world.send(admin, &plain("GET", "/live"));
    assert_eq!(world.status(admin), 200);
}
