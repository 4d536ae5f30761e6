//! What load balancers and Prometheus are told, where and when.

use super::world::{World, limits, ms, request, settings, text};
use crate::bus::Bus;
use crate::error::{Error, Unready};
use crate::exchange::{News, ToShard};
use crate::http::Answer;
use crate::route::Routes;
use crate::time::Instant;

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
fn whether_it_is_ready_is_what_the_bus_said_last() {
    let mut world = World::new();
    world.run();
    let tell = |world: &mut World, readiness| {
        let news = ToShard { news: vec![News::Ready(readiness)] };
        let now = world.now;
        world.shard().handle_bus(news, now);
    };
    for reason in Unready::ALL {
        tell(&mut world, Err(reason));
        let told = answer(&mut world, &plain("GET", "/ready"));
        assert!(told.starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{told}");
        assert!(told.contains("\r\nCache-Control: no-store\r\n") && told.contains("\r\nRetry-After: "));
        assert!(told.ends_with(&format!("\r\n\r\nnot ready: {reason}\n")), "{told}");
        assert_eq!(answer(&mut world, &plain("HEAD", "/ready")).split("\r\n\r\n").nth(1), Some(""));
        assert_eq!(admin_answer(&mut world, &plain("GET", "/ready")), told);
        tell(&mut world, Ok(()));
        let told = answer(&mut world, &plain("GET", "/ready"));
        assert!(told.starts_with("HTTP/1.1 200 OK\r\n") && told.ends_with("\r\n\r\nready\n"), "{told}");
    }
    assert!(answer(&mut world, &plain("PUT", "/ready")).starts_with("HTTP/1.1 405 "));
}

#[test]
fn it_is_not_ready_before_redis_was_reached() {
    let url = "redis://redis.test".parse().unwrap();
    let bus = Bus::redis(url, "", &limits(), 1, 1, Instant::ZERO);
    let mut world = World::from(settings(limits(), 1), bus);
    world.is_reachable = false;
    assert!(answer(&mut world, &plain("GET", "/ready")).ends_with("not ready: no connection to Redis\n"));
}

#[test]
fn while_it_drains_it_is_not_ready_and_serves_all_the_same() {
    let mut world = World::new();
    let before = world.join("/chat");
    world.shard().drain();
    assert!(answer(&mut world, &plain("GET", "/ready")).ends_with("not ready: this instance is shutting down\n"));
    let late = world.join("/chat");
    world.send(before, &text("hello"));
    assert_eq!(world.texts(late), ["hello"]);
    let now = world.now;
    world.shard().shutdown(now);
    assert!(answer(&mut world, &plain("GET", "/ready")).starts_with("HTTP/1.1 503 "));
}

#[test]
fn who_waits_for_credit_holds_up_no_answer() {
    let mut world = World::new();
    let paused = world.join("/chat");
    while world.shards[0].has_credit() {
        world.shard().publish(&"other".into(), &vec![b'x'; limits().message_bytes]).unwrap();
    }
    let (id, now) = (world.id(paused), world.now);
    world.shard().handle_read(id, &mut text("waits"), now);
    assert!(!world.shard().handle_readable(id, now));
    let client = world.connect();
    let id = world.id(client);
    assert!(world.shard().handle_readable(id, now));
    world.shard().handle_read(id, &mut plain("GET", "/live"), now);
    let mut slices = [std::io::IoSlice::new(&[])];
    assert_eq!(world.shards[0].transmit(id, &mut slices), 1);
    assert!(slices[0].starts_with(b"HTTP/1.1 200 "));
}

#[test]
fn it_is_live_without_redis_and_while_it_shuts_down() {
    let mut world = World::redis(limits(), 1);
    world.lose_redis();
    assert!(answer(&mut world, &plain("GET", "/live")).starts_with("HTTP/1.1 200 "));
    let now = world.now;
    world.shard().shutdown(now);
    world.pass(limits().drain_time);
    assert!(answer(&mut world, &plain("GET", "/live")).starts_with("HTTP/1.1 200 "));
    assert!(answer(&mut world, &plain("GET", "/")).starts_with("HTTP/1.1 503 "));
}

#[test]
fn a_websocket_is_for_the_routes_whatever_its_path() {
    let mut world = World::new();
    assert!(answer(&mut world, &request("/live")).starts_with("HTTP/1.1 404 "));
    let mut own = settings(limits(), 1);
    own.routes = Routes::new(vec!["/{room}={room}".parse().unwrap()], "", &limits()).unwrap();
    let bus = Bus::local(&own.limits, 1, 1, Instant::ZERO);
    let mut world = World::from(own, bus);
    for path in ["/live", "/ready", "/metrics"] {
        let client = world.join(path);
        assert_eq!(world.shards[0].channel_of(world.id(client)), &path.as_bytes()[1..]);
    }
    assert!(answer(&mut world, &plain("GET", "/live")).starts_with("HTTP/1.1 200 "));
    assert!(answer(&mut world, &plain("GET", "/metrics")).starts_with("HTTP/1.1 426 "));
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
