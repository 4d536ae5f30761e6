//! From a request to an answer or an open session.

use super::world::{World, limits, ms, request, settings, text};
use crate::bus::Bus;
use crate::error::{Closed, Error, Side};
use crate::redis::Lane;
use crate::time::{Duration, Instant};

fn answer_to(head: &str) -> (World, usize) {
    let mut world = World::new();
    let client = world.connect();
    world.send(client, head.as_bytes());
    (world, client)
}

fn plain(method: &str, path: &str) -> (World, usize) {
    answer_to(&format!("{method} {path} HTTP/1.1\r\nHost: fanfare.test\r\n\r\n"))
}

#[test]
fn a_path_that_nobody_knows_is_404() {
    let (world, client) = plain("GET", "/nowhere");
    assert_eq!(world.status(client), 404);
    assert!(world.answer(client).ends_with("\r\n\r\nnothing is here.\n"));
    let (world, client) = plain("HEAD", "/nowhere");
    assert!(world.answer(client).ends_with("\r\n\r\n"), "an answer to HEAD has no body");
}

#[test]
fn the_page_is_served_and_its_head_alone_for_head() {
    let (world, client) = plain("GET", "/");
    let page = world.answer(client).to_owned();
    let (head, body) = page.split_once("\r\n\r\n").unwrap();
    assert!(page.starts_with("HTTP/1.1 200 ") && body.contains("<html"));
    assert!(world.clients[client].ended, "the write side ends behind the answer");
    let (world, client) = plain("HEAD", "/");
    assert_eq!(world.answer(client), format!("{head}\r\n\r\n"));
}

#[test]
fn methods_are_told_what_is_allowed_where() {
    let (world, client) = plain("POST", "/chat");
    assert_eq!(world.status(client), 405);
    assert!(world.answer(client).contains("\r\nAllow: GET, HEAD\r\n"));
    let (world, client) = plain("HEAD", "/chat");
    assert_eq!(world.status(client), 405);
    assert!(world.answer(client).contains("\r\nAllow: GET\r\n"));
}

#[test]
fn a_sockets_path_wants_an_upgrade() {
    let (world, client) = plain("GET", "/chat");
    assert_eq!(world.status(client), 426);
    assert!(world.answer(client).contains("\r\nSec-WebSocket-Version: 13\r\n"));
    assert!(world.answer(client).ends_with("this path speaks WebSocket version 13.\n"));
}

#[test]
fn load_balancers_ask_by_options_and_over_http_1_0() {
    for (line, status, body) in [
        ("GET /ready HTTP/1.0", 200, "ready\n"),
        ("GET /live HTTP/1.0", 200, "live\n"),
        ("OPTIONS / HTTP/1.0", 200, "ready\n"),
        ("OPTIONS * HTTP/1.1\r\nHost: h", 200, "ready\n"),
        ("OPTIONS /chat HTTP/1.1\r\nHost: h", 405, "only GET and HEAD are answered here.\n"),
        ("GET /chat/ HTTP/1.1\r\nHost: h", 404, "nothing is here.\n"),
        ("GET /?room=a|b&x={\"y\":\"\u{e9}\"} HTTP/1.1\r\nHost: h", 200, ""),
    ] {
        let (world, client) = answer_to(&format!("{line}\r\n\r\n"));
        assert_eq!(world.status(client), status, "{line}");
        assert!(world.answer(client).ends_with(body), "{line}: {}", world.answer(client));
        assert!(world.answer(client).contains("\r\nConnection: close\r\n"), "{line}");
        assert!(!world.answer(client).contains("\r\nDate: "), "nobody told the time");
        let allow = world.answer(client).contains("\r\nAllow: GET, HEAD, OPTIONS\r\n");
        assert_eq!(allow, line.starts_with("OPTIONS") && status == 200, "{line}");
    }
    let mut world = World::new();
    world.shards[0].drain();
    let client = world.connect();
    world.send(client, b"OPTIONS / HTTP/1.0\r\n\r\n");
    assert_eq!(world.status(client), 503, "nobody is to be sent here any more");
}

#[test]
fn an_answer_has_a_date_once_the_time_was_told() {
    let mut world = World::new();
    let now = world.now;
    world.shards[0].set_wall_clock(Duration::from_secs(784_111_777), now);
    let client = world.connect();
    world.pass(ms(2_500));
    world.send(client, b"GET /live HTTP/1.1\r\nHost: h\r\n\r\n");
    assert!(world.answer(client).contains("\r\nDate: Sun, 06 Nov 1994 08:49:39 GMT\r\n"), "{}", world.answer(client));
}

#[test]
fn who_lost_the_upgrade_on_the_way_is_told_so() {
    let head = String::from_utf8(request("/chat")).unwrap();
    for lost in [head.replace("HTTP/1.1", "HTTP/1.0"), head.replace("Upgrade: websocket\r\n", "")] {
        let (world, client) = answer_to(&lost);
        assert_eq!(world.status(client), 426);
        assert!(world.answer(client).contains("pass Upgrade and Connection on"), "{}", world.answer(client));
    }
}

#[test]
fn another_sites_page_is_refused_with_both_names() {
    let mut head = String::from_utf8(request("/chat")).unwrap();
    head.insert_str(head.len() - 2, "Origin: https://evil.test\r\n");
    let (world, client) = answer_to(&head);
    assert_eq!(world.status(client), 403);
    assert!(world.answer(client).contains("evil.test") && world.answer(client).contains("fanfare.test"));
    assert_eq!(world.shards[0].stats().opened, 0);
}

#[test]
fn an_answer_waits_for_the_clients_end_and_no_longer_than_close_time() {
    let (mut world, client) = plain("GET", "/nowhere");
    world.pass(Duration::from_millis(4_999));
    assert_eq!(world.clients[client].closed, None);
    world.pass(ms(1));
    let gone = Closed { by: Side::Local, code: None, error: Some(Error::NotFound) };
    assert_eq!(world.clients[client].closed, Some(gone));
    let (mut world, client) = plain("GET", "/nowhere");
    world.end(client);
    assert_eq!(world.clients[client].closed, Some(gone));
}

#[test]
fn a_client_that_ends_its_side_still_gets_the_whole_answer() {
    let mut world = World::new();
    let client = world.connect();
    world.clients[client].room = 0;
    world.send(client, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    world.end(client);
    assert_eq!(world.clients[client].closed, None);
    world.make_room(client, 100);
    assert_eq!(world.clients[client].closed, None);
    world.make_room(client, usize::MAX);
    assert!(world.clients[client].closed.is_some());
    assert!(world.answer(client).ends_with("</html>\n"));
}

#[test]
fn a_head_that_ends_too_soon_or_takes_too_long_is_told_so() {
    let mut world = World::new();
    let [silent, half, slow, slow_head] = [(); 4].map(|()| world.connect());
    world.end(silent);
    assert_eq!(world.clients[silent].closed, Some(Closed { by: Side::Peer, code: None, error: None }));
    world.send(half, b"GET /");
    world.end(half);
    assert_eq!((world.status(half), world.error(half)), (400, Some(Error::HeadSyntax)));
    world.send(slow, b"GET /");
    world.send(slow_head, b"HEAD /");
    world.pass(Duration::from_millis(9_999));
    assert_eq!(world.answer(slow), "");
    world.pass(ms(1));
    assert_eq!(world.status(slow), 408);
    assert!(world.answer(slow_head).ends_with("\r\n\r\n"), "no body for HEAD");
}

#[test]
fn a_connection_that_says_nothing_is_dropped_without_a_word() {
    let mut world = World::new();
    let client = world.connect();
    world.pass(Duration::from_secs(10));
    assert_eq!((world.answer(client), world.error(client)), ("", Some(Error::SlowHead)));
}

#[test]
fn a_request_is_the_same_however_it_is_cut() {
    for piece in 1..request("/chat").len() {
        let mut world = World::new();
        world.pieces.0 = piece;
        let client = world.join("/chat");
        assert_eq!(world.status(client), 101);
    }
}

#[test]
fn what_comes_behind_the_head_are_frames_after_our_101() {
    let mut world = World::redis(limits(), 1);
    let client = world.connect();
    world.send(client, &[request("/chat"), text("early")].concat());
    assert_eq!(world.texts(client), ["early"]);
    assert_eq!(world.server.published, [(b"chat".to_vec(), b"early".to_vec())]);
}

#[test]
fn what_comes_behind_a_head_that_is_refused_is_not_even_looked_at() {
    let (mut world, client) = plain("GET", "/chat");
    world.send(client, &[request("/chat"), text("smuggled")].concat());
    assert_eq!(world.answer(client).matches("HTTP/1.1").count(), 1);
    assert_eq!(world.shards[0].stats().messages_in, 0);
}

#[test]
fn what_comes_while_the_bus_has_yet_to_answer_is_not_read() {
    let mut world = World::redis(limits(), 1);
    world.server.is_mute = true;
    let client = world.connect();
    world.send(client, &request("/chat"));
    world.send(client, &text("later"));
    assert!(world.clients[client].waits);
    assert_eq!(world.answer(client), "");
    world.server.is_mute = false;
    world.cut(Lane::Subscriber);
    world.pass(Duration::from_secs(2));
    assert_eq!(world.texts(client), ["later"]);
}

/// An embedder that reads without asking.
#[test]
fn bytes_behind_the_head_are_bounded() {
    for (more, error) in [(0, None), (1, Some(Error::LongHead))] {
        let mut own = settings(limits(), 1);
        own.ask = true;
        let bound = own.limits.head_bytes;
        let bus = Bus::local(&own.limits, 1, 1, Instant::ZERO);
        let mut world = World::from(own, bus);
        let client = world.connect();
        world.send(client, &request("/chat"));
        let (id, now) = (world.id(client), world.now);
        world.shard().handle_read(id, &mut vec![0; bound - 1], now);
        world.shard().handle_read(id, &mut vec![0; 1 + more], now);
        world.run();
        assert_eq!(error.is_some(), world.clients[client].ended);
        if error.is_some() {
            assert_eq!(world.status(client), 431);
        }
    }
}

#[test]
fn a_head_at_the_bound_passes_and_one_above_does_not() {
    let bound = limits().head_bytes;
    for (len, status) in [(bound - 1, 101), (bound, 101), (bound + 1, 431)] {
        let mut head = String::from_utf8(request("/chat")).unwrap();
        let filler = len - head.len() - "x: \r\n".len();
        head.insert_str(head.len() - 2, &format!("x: {}\r\n", "y".repeat(filler)));
        let (world, client) = answer_to(&head);
        assert_eq!(world.status(client), status, "{len} bytes");
    }
}

#[test]
fn a_subscription_that_is_not_confirmed_in_time_is_503_with_retry_after() {
    let mut world = World::redis(limits(), 1);
    world.lose_redis();
    let client = world.connect();
    world.send(client, &request("/chat"));
    world.pass(Duration::from_millis(4_999));
    assert_eq!(world.answer(client), "");
    world.pass(ms(1));
    assert_eq!((world.status(client), world.shards[0].stats().opened), (503, 0));
    assert!(world.answer(client).contains("\r\nRetry-After: 5\r\n"));
}

#[test]
fn a_channels_name_is_bounded() {
    let bound = limits().channel_bytes - "chat:".len();
    for (len, status) in [(1, 101), (bound, 101), (bound + 1, 400)] {
        let mut world = World::new();
        let client = world.connect();
        world.send(client, &request(&format!("/chat/{}", "r".repeat(len))));
        assert_eq!(world.status(client), status, "{len} bytes");
    }
}
