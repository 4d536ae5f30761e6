use std::error::Error;

use crate::limits::Limits;
use crate::redis::world::{World, at, ms, url};
use crate::redis::{Lane, LinkError, LinkErrorKind, LinkEvent, RedisUrl};

fn with_login() -> RedisUrl {
    at("redis://app:s3cret@redis.test")
}

fn world(url: RedisUrl) -> World {
    World::with(url, &Limits::default(), 7)
}

fn commands(world: &World, lane: Lane) -> Vec<&str> {
    world.server.log.iter().filter(|(of, _)| *of == lane).map(|(_, name)| name.as_str()).collect()
}

/// The only event of a start that fails at once.
fn start_error(mut world: World) -> (LinkErrorKind, String) {
    world.run();
    failed_start(world)
}

/// The only event of a start that fails because waiting has not helped.
fn late_start_error(mut world: World) -> (LinkErrorKind, String) {
    world.run();
    world.pass(ms(4_799));
    assert_eq!(world.take_events(), []);
    world.pass(ms(1));
    failed_start(world)
}

fn failed_start(mut world: World) -> (LinkErrorKind, String) {
    match &world.take_events()[..] {
        [LinkEvent::StartFailed(error)] => (error.kind().clone(), error.to_string()),
        other => panic!("one failed start: {other:?}"),
    }
}

#[test]
fn both_lanes_are_ready_after_one_write_each() {
    let mut world = world(at("redis://app:s3cret@redis.test/3"));
    world.server.login = Some(("app", "s3cret"));
    world.run();
    assert_eq!(world.take_events(), [LinkEvent::Up { gap: None }]);
    for lane in Lane::ALL {
        assert_eq!(commands(&world, lane)[..4], ["HELLO", "CLIENT", "SELECT", "PING"]);
    }
}

#[test]
fn a_password_alone_is_that_of_the_default_user() {
    for refuses_hello in [None, Some("-ERR unknown command 'HELLO'\r\n")] {
        let mut world = world(at("redis://:s3cret@redis.test"));
        world.server.login = Some(("default", "s3cret"));
        world.server.refuses_hello = refuses_hello;
        world.run();
        assert!(world.link.is_up());
    }
}

#[test]
fn a_server_that_refuses_hello_is_spoken_to_in_resp2() {
    for error in ["-ERR unknown command 'HELLO'\r\n", "-NOPROTO unsupported protocol version\r\n", "-NOPERM hello\r\n"]
    {
        for login in [None, Some(("app", "s3cret"))] {
            let mut world = world(if login.is_some() { with_login() } else { url() });
            world.server.login = login;
            world.server.refuses_hello = Some(error);
            world.server.refuses_names = true;
            world.subscribe("chat");
            world.publish("chat", "hello");
            assert!(world.link.is_up(), "{error}");
            assert_eq!(world.received, [(b"chat".to_vec(), b"hello".to_vec())]);
            world.pass(ms(60_000));
            let dials = world.actions.len();
            assert_eq!(dials, 2, "PING has its answer in the subscribed state of RESP2 too");
        }
    }
}

#[test]
fn a_reply_may_be_split_at_every_byte() {
    for refuses_hello in [None, Some("-ERR unknown command 'HELLO'\r\n")] {
        for piece in 1..40 {
            let mut world = world(with_login());
            world.server.login = Some(("app", "s3cret"));
            world.server.refuses_hello = refuses_hello;
            world.piece = piece;
            world.subscribe("chat");
            world.publish("chat", "hello");
            assert_eq!(world.received, [(b"chat".to_vec(), b"hello".to_vec())], "pieces of {piece}");
            let up = world.events.iter().filter(|event| matches!(event, LinkEvent::Up { .. })).count();
            assert_eq!(up, 1);
        }
    }
}

#[test]
fn a_wrong_password_is_told_at_once_and_never_shown() {
    for refuses_hello in [None, Some("-ERR unknown command 'HELLO', with args beginning with: '3' 's3cret'\r\n")] {
        let mut world = world(with_login());
        world.server.login = Some(("app", "another"));
        world.server.refuses_hello = refuses_hello;
        let (kind, text) = start_error(world);
        assert_eq!(kind, LinkErrorKind::PasswordWrong);
        assert!(text.contains("redis.test:6379") && !text.contains("s3cret"), "{text}");
    }
}

#[test]
fn a_missing_password_is_told_at_once() {
    for refuses_hello in [None, Some("-ERR unknown command 'HELLO'\r\n")] {
        let mut world = world(url());
        world.server.login = Some(("app", "s3cret"));
        world.server.refuses_hello = refuses_hello;
        assert_eq!(start_error(world).0, LinkErrorKind::PasswordMissing);
    }
}

#[test]
fn a_database_that_is_not_there_is_told_at_once() {
    assert_eq!(start_error(world(at("redis://redis.test/16"))).0, LinkErrorKind::Database(16));
}

#[test]
fn an_unreachable_server_is_waited_for_a_while() {
    let mut world = world(url());
    world.is_reachable = false;
    let (kind, text) = late_start_error(world);
    assert_eq!(kind, LinkErrorKind::Unreachable("connection refused".to_owned()));
    assert!(text.starts_with("Redis at redis.test:6379 cannot be reached (connection refused)"), "{text}");
}

#[test]
fn protected_mode_is_told_in_the_words_of_redis() {
    let mut world = world(url());
    world.server.refuses_hello = Some("-DENIED Redis is running in protected mode\r\n");
    let (kind, _) = start_error(world);
    assert_eq!(kind, LinkErrorKind::Refused("DENIED Redis is running in protected mode".to_owned()));
}

#[test]
fn what_is_not_redis_is_told_at_once() {
    let mut world = world(url());
    world.server.swallows = true;
    world.run();
    world.server.clients.get_mut(&Lane::Publisher).unwrap().output = b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec();
    let (kind, text) = start_error(world);
    let LinkErrorKind::NotRedis(cause) = kind else { panic!("{kind:?}") };
    let error = LinkError::new(&url(), LinkErrorKind::NotRedis(cause));
    assert_eq!(error.source().map(ToString::to_string), Some(cause.to_string()));
    assert!(text.contains("does not speak the Redis protocol"), "{text}");
}

#[test]
fn a_start_without_an_answer_fails_within_five_seconds_and_goes_on() {
    for dials_hang in [false, true] {
        let mut world = world(url());
        world.server.swallows = true;
        world.dials_hang = dials_hang;
        world.is_reachable = !dials_hang;
        world.run();
        world.pass(ms(4_799));
        assert_eq!(world.take_events(), []);
        world.pass(ms(1));
        assert!(matches!(&world.take_events()[..], [LinkEvent::StartFailed(_)]));
        world.server.swallows = false;
        world.is_reachable = true;
        world.pass(ms(10_000));
        assert_eq!(world.take_events(), [LinkEvent::Up { gap: None }]);
    }
}

#[test]
fn loading_is_waited_for() {
    for error in ["-LOADING Redis is loading the dataset in memory\r\n", "-MASTERDOWN Link with MASTER is down\r\n"] {
        let mut world = world(url());
        world.server.not_ready = Some(error);
        world.run();
        world.pass(ms(3_000));
        assert_eq!(world.take_events(), [], "no reason to give up yet");
        world.server.not_ready = None;
        world.pass(ms(999));
        assert_eq!(world.take_events(), [LinkEvent::Up { gap: None }]);
    }
}

#[test]
fn loading_for_too_long_is_a_failed_start_that_says_so() {
    let mut world = world(url());
    world.server.not_ready = Some("-LOADING Redis is loading the dataset in memory\r\n");
    world.run();
    world.pass(ms(4_800));
    let events = world.take_events();
    let [LinkEvent::StartFailed(error)] = &events[..] else { panic!("{events:?}") };
    assert!(error.to_string().contains("LOADING Redis is loading the dataset in memory"), "{error}");
    world.pass(ms(60_000));
    assert_eq!(world.take_events(), [], "told once");
}

#[test]
fn a_password_that_changes_later_is_a_reason_and_not_an_end() {
    let mut world = world(with_login());
    world.server.login = Some(("app", "s3cret"));
    world.run();
    world.take_events();
    world.server.login = Some(("app", "changed"));
    world.cut(Lane::Subscriber);
    world.pass(ms(60_000));
    let reasons: Vec<String> = world
        .take_events()
        .into_iter()
        .filter(|event| !matches!(event, LinkEvent::Unsubscribed { .. }))
        .map(|event| match event {
            LinkEvent::Down { lane: Lane::Subscriber, reason } => reason,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(reasons.len(), 2, "once per reason, not per retry: {reasons:?}");
    assert!(reasons[1].contains("refuses the user or the password") && !reasons[1].contains("s3cret"));
    world.server.login = Some(("app", "s3cret"));
    world.pass(ms(1_000));
    assert!(matches!(world.take_events()[..], [LinkEvent::Up { gap: Some(_) }]));
}

#[test]
fn error_texts_are_one_line_without_the_password() {
    let text = |reply: &[u8]| crate::redis::error::reply_text(reply, &with_login());
    assert_eq!(text(b"ERR no s3cret here\r\n\x1b[1m"), "ERR no *** here[1m");
    assert_eq!(text(b"ERR unknown command 'AUTH', with args beginning with: 's3c"), "ERR unknown command 'AUTH', ");
    assert_eq!(text(&[b'x'; 1_000]).len(), 200);
}

#[test]
fn an_address_of_version_6_is_shown_in_brackets() {
    let mut world = world(at("redis://[::1]"));
    world.is_reachable = false;
    assert!(late_start_error(world).1.contains("[::1]:6379"));
}
