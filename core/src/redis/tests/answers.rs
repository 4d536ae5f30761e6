//! What Redis says no to, and why.

use crate::error::Unready;
use crate::limits::Limits;
use crate::redis::window::WINDOW;
use crate::redis::world::{World, at, ms, url};
use crate::redis::{Action, Lane, LinkEvent};

const BUSY: &str = "-BUSY Redis is busy running a script.\r\n";

fn received(world: &World) -> Vec<&str> {
    world.received.iter().map(|(_, payload)| core::str::from_utf8(payload).unwrap()).collect()
}

fn dials(world: &World, lane: Lane) -> usize {
    world.actions.iter().filter(|(_, action)| *action == Action::Dial(lane)).count()
}

fn losses(world: &mut World) -> usize {
    let count = |event| match event {
        LinkEvent::Refused { messages, .. } | LinkEvent::Unconfirmed { messages } | LinkEvent::Expired { messages } => {
            messages
        }
        _ => 0,
    };
    world.take_events().into_iter().map(count).sum()
}

#[test]
fn what_redis_cannot_do_at_the_moment_waits_in_order() {
    for error in [BUSY, "-LOADING x\r\n", "-TRYAGAIN x\r\n", "-MASTERDOWN x\r\n", "-CLUSTERDOWN x\r\n", "-OOM x\r\n"] {
        let mut world = World::up();
        world.subscribe("chat");
        world.publish("chat", "before");
        world.server.busy = Some(error);
        // Several are on their way when the first answer comes.
        world.stuck.insert(Lane::Publisher);
        ["one", "two", "three"].iter().for_each(|payload| world.publish("chat", payload));
        world.stuck.clear();
        world.run();
        world.publish("chat", "four");
        world.subscribe("tea");
        world.pass(ms(100));
        assert_eq!(world.link.readiness(), Err(Unready::Busy), "{error}");
        world.pass(ms(20_000));
        assert_eq!(received(&world), ["before"]);
        assert_eq!((world.link.readiness(), world.link.is_up()), (Err(Unready::Busy), true));
        world.server.busy = None;
        world.pass(ms(1_000));
        assert_eq!(received(&world), ["before", "one", "two", "three", "four"], "{error}");
        assert_eq!(world.server.channels().len(), 2);
        assert_eq!((world.link.readiness(), losses(&mut world)), (Ok(()), 0));
        assert_eq!((dials(&world, Lane::Publisher), dials(&world, Lane::Subscriber)), (1, 1));
        assert!(world.link.is_flushed());
    }
}

#[test]
fn what_was_overtaken_on_its_channel_is_given_up_and_nothing_else() {
    let mut world = World::up();
    world.subscribe("chat");
    world.subscribe("tea");
    world.server.busy = Some(BUSY);
    world.stuck.insert(Lane::Publisher);
    world.publish("chat", "one");
    world.publish("tea", "two");
    world.server.busy = None;
    world.publish("chat", "three");
    world.server.busy = Some(BUSY);
    world.publish("chat", "four");
    world.stuck.clear();
    world.server.busy = None;
    world.run();
    world.pass(ms(1_000));
    assert_eq!(received(&world), ["three", "two", "four"]);
    assert_eq!(losses(&mut world), 1);
    assert!(world.link.is_flushed());
}

#[test]
fn what_was_not_carried_out_outlives_the_connection() {
    let mut world = World::up();
    world.subscribe("chat");
    world.server.busy = Some(BUSY);
    world.publish("chat", "one");
    world.publish("chat", "two");
    world.server.busy = None;
    world.cut(Lane::Publisher);
    world.pass(ms(3_000));
    assert_eq!((losses(&mut world), received(&world)), (0, vec!["one", "two"]));
}

#[test]
fn what_waits_for_a_busy_redis_expires_at_its_age() {
    let limits = Limits { publish_time: ms(3_000), ..Limits::default() };
    let mut world = World::with(url(), &limits, 7);
    world.subscribe("chat");
    world.server.busy = Some(BUSY);
    world.publish("chat", "old");
    world.pass(ms(2_000));
    world.publish("chat", "young");
    world.pass(ms(1_999));
    assert_eq!(losses(&mut world), 1);
    world.server.busy = None;
    world.pass(ms(1_000));
    assert_eq!((losses(&mut world), received(&world)), (0, vec!["young"]));
}

#[test]
fn another_server_is_looked_for_when_redis_names_one() {
    for error in ["-READONLY You can't write\r\n", "-MOVED 1 host:1\r\n", "-NOAUTH Authentication required.\r\n"] {
        let mut world = World::up();
        world.subscribe("chat");
        world.server.elsewhere = Some(error);
        world.stuck.insert(Lane::Publisher);
        world.publish("chat", "one");
        world.publish("chat", "two");
        world.stuck.clear();
        world.run();
        assert!(world.link.readiness().is_err(), "{error}");
        world.server.elsewhere = None;
        world.pass(ms(3_000));
        assert_eq!((losses(&mut world), received(&world)), (0, vec!["one", "two"]), "{error}");
        assert!(dials(&world, Lane::Publisher) > 1);
        assert_eq!(dials(&world, Lane::Subscriber) > 1, !error.starts_with("-NOAUTH"), "a demoted server is left");
    }
}

#[test]
fn a_replica_is_not_used() {
    for refuses_hello in [None, Some("-ERR unknown command 'HELLO'\r\n")] {
        let mut world = World::new();
        world.server.refuses_hello = refuses_hello;
        world.run();
        world.subscribe("chat");
        world.take_events();
        // A role that could not be told once is asked for again.
        world.server.busy = Some(BUSY);
        world.pass(ms(5_000));
        world.server.busy = None;
        world.pass(ms(5_000));
        assert_eq!(world.link.readiness(), Ok(()));
        // Demoted while connected.
        world.server.is_replica = true;
        world.pass(ms(5_000));
        assert_eq!(world.link.readiness(), Err(Unready::Replica), "{refuses_hello:?}");
        assert!(world.take_events().iter().any(|event| matches!(event, LinkEvent::Unsubscribed { .. })));
        world.publish("chat", "hello");
        world.server.is_replica = false;
        world.pass(ms(3_000));
        assert_eq!((received(&world), world.link.readiness()), (vec!["hello"], Ok(())));
    }
    // At the dial.
    let mut world = World::new();
    world.server.is_replica = true;
    world.run();
    world.pass(ms(4_000));
    assert_eq!((world.take_events(), world.link.readiness()), (vec![], Err(Unready::Replica)));
    world.server.is_replica = false;
    world.pass(ms(799));
    assert_eq!(world.take_events(), [LinkEvent::Up { gap: None }]);
}

#[test]
fn a_server_that_does_not_tell_its_role_is_asked_once() {
    let mut world = World::new();
    world.server.refuses_hello = Some("-ERR unknown command 'HELLO'\r\n");
    world.server.refuses_names = true;
    world.run();
    world.server.log.clear();
    world.pass(ms(60_000));
    assert_eq!(world.server.log.iter().filter(|(_, name)| name == "ROLE").count(), 0);
    assert_eq!(world.link.readiness(), Ok(()));
}

#[test]
fn a_ping_that_is_refused_for_reasons_of_its_own_stops_nothing() {
    for error in
        ["-MISCONF Redis is configured to save RDB snapshots\r\n", "-ERR unknown command 'PING'\r\n", "-NOPERM x\r\n"]
    {
        let mut world = World::new();
        world.server.not_ready = Some(error);
        world.run();
        world.subscribe("chat");
        world.cut(Lane::Subscriber);
        world.pass(ms(60_000));
        world.publish("chat", "hello");
        assert_eq!((received(&world), world.link.readiness()), (vec!["hello"], Ok(())), "{error}");
    }
}

#[test]
fn a_message_in_whose_midst_two_connections_ended_is_given_up() {
    for blames in [false, true] {
        let mut world = World::up();
        world.subscribe("chat");
        world.full.insert(Lane::Publisher);
        world.publish("chat", "poison");
        world.publish("chat", "behind");
        let tries = if blames { 1 } else { 2 };
        for attempt in 1..=tries {
            // Ten bytes of it leave, and the connection ends.
            world.link.transmitted(Lane::Publisher, 10, world.now).unwrap();
            if blames {
                let error = b"-ERR Protocol error: invalid bulk length\r\n";
                world.link.handle_read(Lane::Publisher, error, false, world.now, |_, _| {});
            }
            world.cut(Lane::Publisher);
            assert_eq!(losses(&mut world), usize::from(attempt == tries), "{blames}");
            while !world.link.publisher.is_ready() {
                world.pass(ms(10));
            }
            if attempt < tries {
                world.full.insert(Lane::Publisher);
                world.pass(ms(1_000));
            }
        }
        world.pass(ms(2_000));
        assert_eq!((losses(&mut world), received(&world)), (0, vec!["behind"]));
    }
}

#[test]
fn publishing_stays_within_a_window_of_what_has_come_in() {
    let limits = Limits { probe_time: ms(600_000), reply_time: ms(600_000), ..Limits::default() };
    let mut world = World::with(url(), &limits, 7);
    world.subscribe("chat");
    world.stuck.insert(Lane::Subscriber);
    let payload = "x".repeat(60_000);
    for _ in 0..100 {
        world.publish("chat", &payload);
    }
    let sent: usize = world.server.published.iter().map(|(_, payload)| payload.len()).sum();
    let window = usize::try_from(WINDOW).unwrap();
    assert!((window - 60_000..window + 70_000).contains(&sent), "{sent}");
    assert!(world.link.publish_backlog() > 6_000_000 - sent - 100_000, "the rest waits");
    world.stuck.clear();
    world.run();
    assert_eq!((world.received.len(), world.link.is_flushed()), (100, true));
}

#[test]
fn nothing_waits_for_echoes_that_cannot_come() {
    let payload = "x".repeat(60_000);
    let flood = |world: &mut World, channel: &str| (0..100).for_each(|_| world.publish(channel, &payload));
    // The probe is refused, so that no mark comes in.
    for denied in [&["SUBSCRIBE"][..], &["PUBLISH"]] {
        let mut world = World::new();
        world.server.denies_probes = denied.to_vec();
        world.run();
        flood(&mut world, "chat");
        assert!(world.link.is_flushed(), "{denied:?}");
    }
    // Nobody here has the channel.
    let mut world = World::up();
    flood(&mut world, "other");
    assert!(world.link.is_flushed());
    // The marks are lost with a connection.
    for lane in Lane::ALL {
        let mut world = World::up();
        world.subscribe("chat");
        world.stuck.insert(Lane::Subscriber);
        flood(&mut world, "chat");
        assert!(!world.link.is_flushed());
        world.cut(lane);
        world.stuck.clear();
        world.run();
        world.pass(ms(5_000));
        assert!(world.link.is_flushed(), "{lane:?}");
    }
    // At the end, with a subscriber that is stuck.
    let mut world = World::up();
    world.link.close(world.now);
    world.run();
    assert!(world.link.is_closed());
}

#[test]
fn logins_fall_back_as_other_clients_do() {
    let hello_unknown = Some("-ERR unknown command 'HELLO'\r\n");
    let cases = [
        // Behind Envoy.
        ("redis://app:s3cret@a", Some(("app", "s3cret")), Some("-NOAUTH Authentication required.\r\n"), false),
        // A user, and a server that knows none.
        ("redis://h:s3cret@a", Some(("default", "s3cret")), hello_unknown, true),
        // A password, and a server without.
        ("redis://h:s3cret@a", None, hello_unknown, true),
        ("redis://:s3cret@a", None, hello_unknown, true),
    ];
    for (url, login, refuses_hello, is_old) in cases {
        let mut world = World::with(at(url), &Limits::default(), 7);
        world.server.login = login;
        world.server.refuses_hello = refuses_hello;
        world.server.has_no_users = is_old;
        world.run();
        assert!(world.link.is_up(), "{url} {login:?}");
    }
    // A wrong one is a wrong one.
    let mut world = World::with(at("redis://h:wrong@a"), &Limits::default(), 7);
    world.server.login = Some(("default", "s3cret"));
    world.server.refuses_hello = hello_unknown;
    world.server.has_no_users = true;
    world.run();
    assert!(
        matches!(&world.take_events()[..], [LinkEvent::StartFailed(error)] if error.to_string().contains("password"))
    );
}

#[test]
fn the_last_words_before_an_end_are_told() {
    let told = |words: &str| {
        let mut world = World::new();
        world.server.swallows = true;
        world.run();
        for lane in Lane::ALL {
            world.server.clients.get_mut(&lane).unwrap().output = words.into();
        }
        world.run();
        world.cut(Lane::Publisher);
        world.cut(Lane::Subscriber);
        world.is_reachable = false;
        world.dials_hang = true;
        world.pass(ms(1_000));
        format!("{:?}", world.link.reported.publisher)
    };
    assert!(told("-ERR go away\r\n").contains("before that it said: ERR go away"));
    assert!(told("-ERR max concurrent connections exceeded\r\n").contains("NotReady(\"ERR max concurrent"));
    assert!(told("").contains("ClosedAtOnce"), "{}", told(""));
}

#[test]
fn refused_channels_hold_up_nobody() {
    let mut world = World::up();
    for i in 0..3_000 {
        world.link.subscribe(format!("a:{i}").into(), world.now);
        world.server.denied.insert(format!("a:{i}").into_bytes());
    }
    world.subscribe("keep");
    world.run();
    let commands = world.server.log.iter().filter(|(_, name)| name == "SUBSCRIBE").count();
    assert!(commands < 3_000 + 3_000 / 6 + 20, "{commands}");
    // On the next connection they are asked for again, and answered as slowly as can be.
    world.cut(Lane::Subscriber);
    world.pass(ms(1_000));
    assert!(world.link.is_up());
    world.take_events();
    world.stuck.insert(Lane::Subscriber);
    world.pass(ms(4_900));
    assert!(world.link.is_up(), "asking again takes nothing away");
    world.stuck.clear();
    world.run();
    world.publish("keep", "hello");
    assert_eq!(received(&world), ["hello"]);
    assert_eq!(world.link.refused_channels(), 3_000);
}
