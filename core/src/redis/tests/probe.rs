//! What is proven by probes, and what follows where nothing is.

use std::io::IoSlice;

use crate::error::Unready;
use crate::limits::Limits;
use crate::redis::probe::State;
use crate::redis::world::{World, at, ms, url};
use crate::redis::{Action, Lane, Link, LinkEvent};
use crate::time::{Duration, Instant};

const P: Duration = Duration::from_secs(5);

fn world(probe_time: Duration) -> World {
    let mut world = World::with(url(), &Limits { probe_time, ..Limits::default() }, 7);
    world.subscribe("chat");
    world.take_events();
    world
}

/// Lets time pass until the link is ready, or is not; says for how long.
fn time_until(world: &mut World, is_ready: bool) -> Duration {
    let start = world.now;
    while world.link.readiness().is_ok() != is_ready {
        world.pass(ms(1));
        assert!(world.now.since(start) < Duration::from_secs(200), "{:?}", world.link.readiness());
    }
    world.now.since(start)
}

fn hang_ups(world: &World) -> Vec<(Duration, Lane)> {
    let hung_up = |&(at, action): &(Instant, Action)| match action {
        Action::HangUp(lane) => Some((at.since(Instant::ZERO), lane)),
        Action::Dial(_) | Action::Look(_) => None,
    };
    world.actions.iter().filter_map(hung_up).collect()
}

#[test]
fn a_link_is_ready_as_soon_as_its_first_probe_has_come_back_and_not_before() {
    let mut world = World::new();
    assert_eq!(world.link.readiness(), Err(Unready::NoConnection));
    world.server.delivers_nothing = true;
    world.subscribe("chat");
    assert!(world.link.is_up());
    assert_eq!(world.link.readiness(), Err(Unready::Unproven));
    let mut world = World::new();
    world.subscribe("chat");
    assert_eq!((world.link.readiness(), world.now), (Ok(()), Instant::ZERO));
    assert_eq!(world.take_events().len(), 2, "nothing of it but the channel's and that the link is up");
}

#[test]
fn a_probe_leaves_each_period_whatever_the_traffic_and_counts_as_none() {
    for period in [ms(1_000), P, ms(30_000)] {
        let mut world = world(period);
        for _ in 0..600 {
            world.pass(ms(100));
            world.publish("chat", "hello");
        }
        let probes = 1 + 60_000 / period.as_millis() as usize;
        assert_eq!(world.server.probes.len(), probes);
        assert_eq!(world.link.stats().probe_round_trip.count(), probes as u64);
        assert_eq!(world.link.stats().publish_latency.count(), 600);
        assert_eq!((world.received.len(), world.published().len()), (600, 600));
        assert_eq!((world.take_news(), world.link.publish_backlog()), (vec![], 0));
        assert_eq!((world.link.wanted_channels(), world.link.confirmed_channels()), (1, 1));
    }
}

#[test]
fn no_two_probes_are_alike() {
    let mut world = world(P);
    world.pass(ms(60_000));
    let mut payloads: Vec<&[u8]> = world.server.probes.iter().map(|(_, payload, _)| &payload[..]).collect();
    payloads.sort_unstable();
    payloads.dedup();
    assert_eq!(payloads.len(), 13);
}

#[test]
fn a_probe_may_take_its_time_and_no_longer() {
    for period in [ms(1), ms(1_000), P, ms(30_000)] {
        for (late, is_ready) in [(0, true), (1, false)] {
            let mut world = world(period);
            world.server.delivers_nothing = true;
            world.pass(2 * period - ms(1));
            assert!(world.link.readiness().is_ok(), "{period:?}");
            world.pass(ms(late));
            assert_eq!(world.link.readiness().is_ok(), is_ready, "{period:?}");
            assert_eq!(world.link.stats().probes_missing, late, "{period:?}");
        }
    }
}

/// What it is, what is told of it, whether it outlives its connection, and how it begins.
type Loss = (&'static str, Unready, bool, fn(&mut World));

/// The losses of delivery.
const LOSSES: [Loss; 8] = [
    ("nothing is delivered", Unready::Undelivered, true, |world| world.server.delivers_nothing = true),
    ("nothing is answered", Unready::Silent, true, |world| world.server.swallows = true),
    ("no permission", Unready::ProbeRefused, true, |world| world.server.denies_probes = vec!["PUBLISH"]),
    ("gone", Unready::NoConnection, true, World::stop),
    ("another password", Unready::Refused, true, |world| {
        world.server.login = Some(("app", "another"));
        world.cut(Lane::Publisher);
        world.pass(ms(100));
    }),
    ("half-open to the subscriber", Unready::Undelivered, false, |world| {
        world.stuck.insert(Lane::Subscriber);
    }),
    ("half-open from the publisher", Unready::Silent, false, |world| {
        world.full.insert(Lane::Publisher);
    }),
    ("half-open both ways", Unready::Silent, false, |world| {
        world.full.extend(Lane::ALL);
        world.stuck.extend(Lane::ALL);
    }),
];

#[test]
fn every_loss_of_delivery_is_found_within_two_periods_with_its_reason_and_so_is_its_end() {
    for period in [ms(1_000), ms(2_000), ms(4_900)] {
        for (name, reason, lasts, break_it) in LOSSES {
            for after in [0, 1, 500, 999, 1_000] {
                let mut world = world(period);
                world.pass(ms(30_000 + after));
                break_it(&mut world);
                let found = time_until(&mut world, false);
                assert!(found <= 2 * period, "{name} after {after} ms: {found:?}");
                assert_eq!(world.link.readiness(), Err(reason), "{name}");
                if lasts {
                    world.pass(ms(20_000));
                    assert!(world.link.readiness().is_err(), "{name}");
                }
                world.server.delivers_nothing = false;
                world.server.swallows = false;
                world.server.denies_probes.clear();
                world.server.login = None;
                world.start();
                world.full.clear();
                world.stuck.clear();
                let back = time_until(&mut world, true);
                assert!(back <= ms(5_000 + 750), "{name}: {back:?}");
                world.publish("chat", "hello");
                world.pass(ms(2_000));
                assert_eq!(world.received.last(), Some(&(b"chat".to_vec(), b"hello".to_vec())), "{name}");
            }
        }
    }
}

#[test]
fn where_nothing_is_delivered_both_connections_are_made_again_and_it_stays_the_reason() {
    let mut world = world(P);
    world.pass(ms(1_000));
    world.server.delivers_nothing = true;
    world.pass(ms(9_000));
    assert_eq!(hang_ups(&world), Lane::ALL.map(|lane| (2 * P, lane)));
    for _ in 0..30_000 {
        world.pass(ms(1));
        let reason = world.link.readiness().unwrap_err();
        assert!(matches!(reason, Unready::Undelivered | Unready::Subscribing), "{reason}");
    }
    assert!(hang_ups(&world).len() < 14, "once a period, not in a tight loop");
}

#[test]
fn the_gap_of_what_was_not_delivered_reaches_back_to_the_last_probe_that_was() {
    let mut world = world(P);
    world.pass(ms(6_000));
    world.server.delivers_nothing = true;
    // A pong is no proof of delivery.
    world.pass(ms(4_000));
    let wire = world.server.clients.get_mut(&Lane::Subscriber).unwrap();
    wire.output.extend_from_slice(b">2\r\n$6\r\nserver\r\n$1\r\nx\r\n");
    world.run();
    world.pass(ms(5_000));
    world.server.delivers_nothing = false;
    time_until(&mut world, true);
    let gaps: Vec<Duration> =
        world.events.iter().filter_map(|event| if let LinkEvent::Up { gap } = event { *gap } else { None }).collect();
    let [gap] = gaps[..] else { panic!("{gaps:?}") };
    assert!(gap >= 2 * P && gap < 2 * P + ms(750), "{gap:?}");
}

#[test]
fn a_probe_that_is_not_allowed_is_a_reason_and_repaired_by_nothing_but_permission() {
    for command in ["SUBSCRIBE", "PUBLISH"] {
        let mut world = World::new();
        world.server.denies_probes = vec![command];
        world.subscribe("chat");
        for _ in 0..60 {
            world.publish("chat", "hello");
            assert_eq!(world.link.readiness(), Err(Unready::ProbeRefused), "{command}");
            world.pass(ms(1_000));
        }
        assert_eq!(world.received.len(), 60, "{command}: delivery goes on");
        assert_eq!(world.actions.len(), 2, "{command}: nothing is dialled again");
        world.cut(Lane::Publisher);
        world.pass(ms(751));
        assert_eq!(world.link.readiness(), Err(Unready::ProbeRefused), "{command}: nor is it forgotten");
        world.actions.truncate(2);
        world.server.denies_probes.clear();
        assert!(time_until(&mut world, true) <= P);
        world.pass(ms(60_000));
        assert_eq!((world.link.readiness(), world.actions.len()), (Ok(()), 2));
    }
}

#[test]
fn neither_an_old_probe_nor_a_strangers_message_proves_anything() {
    let mut world = world(P);
    world.server.delivers_nothing = true;
    world.pass(P);
    let (channel, old, _) = world.server.probes[0].clone();
    world.server.delivers_nothing = false;
    for payload in [&old[..], b"", b"stranger", &[b'x'; 70_000]] {
        assert_eq!(world.server.deliver(&channel, payload), 1);
        world.run();
    }
    assert_eq!((world.received.len(), world.take_events()), (0, vec![]), "nobody is told of them");
    world.pass(P);
    assert_eq!(world.link.stats().probes_missing, 1);
    time_until(&mut world, true);
    // What was on the old connection's channel comes late.
    let (_, last, _) = world.server.probes[1].clone();
    assert_eq!(world.server.deliver(&channel, &last), 1);
    world.run();
    assert_eq!(world.link.readiness(), Ok(()));
}

#[test]
fn a_probe_waits_for_the_command_that_is_begun_and_for_no_other() {
    let mut world = world(ms(1_000));
    world.full.insert(Lane::Publisher);
    for number in 0..100 {
        world.publish("chat", &number.to_string());
    }
    world.full.clear();
    world.link.handle_writable(Lane::Publisher);
    let mut slices = [IoSlice::new(&[]); 4];
    world.link.transmit(Lane::Publisher, &mut slices);
    let begun = slices[0][..20].to_vec();
    world.link.transmitted(Lane::Publisher, 20, world.now).unwrap();
    world.server.read(Lane::Publisher, &begun);
    world.link.blocked(Lane::Publisher);
    world.pass(ms(1_000));
    world.piece = 7;
    world.link.handle_writable(Lane::Publisher);
    world.run();
    assert_eq!(world.server.probes[1].2, 1, "behind the first of a hundred");
    assert_eq!((world.published().len(), world.received.len()), (100, 100));
    assert!(world.link.is_flushed() && world.link.readiness().is_ok(), "each reply found its command");
    assert_eq!(world.link.stats().probe_round_trip.sum(), Duration::ZERO);
}

#[test]
fn what_a_probe_waits_for_in_a_full_socket_is_part_of_its_round_trip() {
    let mut world = world(P);
    world.full.insert(Lane::Publisher);
    world.pass(P + ms(3_000));
    world.full.clear();
    world.link.handle_writable(Lane::Publisher);
    world.run();
    assert_eq!(world.link.stats().probe_round_trip.sum(), ms(3_000));
    assert_eq!(world.link.readiness(), Ok(()));
}

#[test]
fn a_publisher_that_is_slow_and_answers_is_not_ready_and_not_made_again() {
    let mut world = world(P);
    world.stuck.insert(Lane::Publisher);
    world.server.delivers_nothing = true;
    for number in 0..10 {
        world.publish("chat", &number.to_string());
    }
    for _ in 0..10 {
        world.pass(ms(4_000));
        world.link.handle_read(Lane::Publisher, b":0\r\n", false, world.now, |_, _| {});
    }
    assert_eq!(world.link.readiness(), Err(Unready::Undelivered));
    assert_eq!((hang_ups(&world), world.link.is_flushed()), (vec![], true));
    let (channel, payload, _) = world.server.probes.last().unwrap().clone();
    world.server.delivers_nothing = false;
    world.server.deliver(&channel, &payload);
    world.run();
    assert_eq!(world.link.readiness(), Ok(()), "late is better than never");
}

#[test]
fn a_lost_publisher_takes_its_probe_along() {
    let mut world = world(P);
    world.full.insert(Lane::Publisher);
    world.pass(P);
    world.cut(Lane::Publisher);
    world.pass(ms(750));
    assert_eq!((world.server.probes.len(), world.link.readiness()), (2, Ok(())));
}

#[test]
fn a_probe_that_is_begun_when_the_subscriber_is_lost_ends_and_proves_nothing() {
    let mut world = world(ms(1_000));
    world.full.insert(Lane::Publisher);
    world.pass(ms(1_000));
    world.full.clear();
    world.link.handle_writable(Lane::Publisher);
    let mut slices = [IoSlice::new(&[]); 4];
    world.link.transmit(Lane::Publisher, &mut slices);
    let begun = slices[0][..20].to_vec();
    assert_eq!(world.link.poll_transmit(), Some(Lane::Publisher));
    world.link.transmitted(Lane::Publisher, 20, world.now).unwrap();
    world.server.read(Lane::Publisher, &begun);
    world.cut(Lane::Subscriber);
    assert_eq!(world.server.probes.len(), 2);
    assert_eq!(world.link.readiness(), Err(Unready::NoConnection));
    world.pass(ms(750));
    assert_eq!((world.server.probes.len(), world.link.readiness()), (3, Ok(())));
    assert_eq!(world.link.stats().lost_connections, 1);
}

#[test]
fn a_probe_waits_for_every_subscription_but_not_for_other_instances() {
    let mut world = world(P);
    world.cut(Lane::Subscriber);
    world.stuck.insert(Lane::Subscriber);
    world.pass(ms(60));
    world.piece = 200;
    while world.link.readiness() != Err(Unready::Subscribing) {
        world.stuck.remove(&Lane::Subscriber);
        world.piece = 1;
        let Some(client) = world.server.clients.get_mut(&Lane::Subscriber) else {
            world.pass(ms(1));
            continue;
        };
        let bytes: Vec<u8> = client.output.drain(..client.output.len().min(1)).collect();
        world.link.handle_read(Lane::Subscriber, &bytes, false, world.now, |_, _| {});
    }
    assert_eq!(world.server.probes.len(), 1);
    world.run();
    assert_eq!((world.server.probes.len(), world.link.readiness()), (2, Ok(())), "while publishes wait for others");
}

#[test]
fn a_probe_fits_however_small_messages_must_be() {
    for message_bytes in [1, 15, 16, 17] {
        let mut world = World::with(url(), &Limits { message_bytes, ..Limits::default() }, 7);
        world.subscribe("chat");
        for bytes in [message_bytes, message_bytes + 1] {
            world.server.deliver(b"chat", &vec![b'x'; bytes]);
        }
        world.run();
        assert_eq!((world.link.readiness(), world.received.len()), (Ok(()), 1));
        let bytes = message_bytes + 1;
        assert!(world.take_events().contains(&LinkEvent::Oversized { channel: "chat".into(), bytes }));
    }
}

#[test]
fn the_channel_has_the_prefix_and_a_number_of_the_instances_own() {
    let mut channels = Vec::new();
    for seed in 1..=2 {
        let mut world = World::new();
        world.link = Link::new(at("redis://redis.test"), "staging:", &Limits::default(), seed, Instant::ZERO);
        world.run();
        let channel = String::from_utf8(world.server.probes[0].0.clone()).unwrap();
        assert!(channel.starts_with("staging:fanfare:probe:") && channel.len() == 22 + 16, "{channel}");
        channels.push(channel);
    }
    assert_ne!(channels[0], channels[1]);
}

#[test]
fn closing_waits_for_no_probe_and_sends_none() {
    let mut world = world(P);
    world.stuck.insert(Lane::Publisher);
    world.pass(P);
    world.publish("chat", "last");
    world.link.close(world.now);
    world.pass(ms(1_000));
    assert!(!world.link.is_closed(), "the publish is not confirmed");
    world.pass(ms(3_000));
    world.stuck.clear();
    world.run();
    assert!(world.link.is_closed());
    assert_eq!(world.server.probes.len(), 2);
}

fn name(world: &World) -> &'static str {
    match world.link.probe.state {
        State::Idle => "idle",
        State::Waits(_) => "waits",
        State::Out(out) if out.is_missing => "missing",
        State::Out(_) => "out",
    }
}

fn world_in(state: &str) -> World {
    let mut world = if state == "idle" { World::new() } else { world(P) };
    match state {
        "idle" => {
            world.is_reachable = false;
            world.run();
        }
        "waits" => {}
        "out" => {
            world.server.delivers_nothing = true;
            world.pass(P);
        }
        "missing" => {
            world.stuck.insert(Lane::Publisher);
            world.server.delivers_nothing = true;
            world.pass(P);
            world.pass(ms(4_000));
            world.link.publisher.replied = world.now;
            world.pass(ms(1_000));
        }
        other => panic!("{other}"),
    }
    assert_eq!(name(&world), state);
    world
}

#[test]
fn every_state_has_an_answer_to_every_input() {
    let inputs = ["subscriber lost", "publisher lost", "came in", "stranger", "refused", "period", "close"];
    let table = [
        ("idle", ["idle", "idle", "idle", "idle", "idle", "idle", "idle"]),
        ("waits", ["idle", "idle", "waits", "waits", "waits", "out", "idle"]),
        ("out", ["idle", "idle", "waits", "out", "waits", "idle", "idle"]),
        ("missing", ["idle", "idle", "waits", "missing", "waits", "idle", "idle"]),
    ];
    for (state, expected) in table {
        for (input, expected) in inputs.into_iter().zip(expected) {
            let mut world = world_in(state);
            let now = world.now;
            let payload = match world.link.probe.state {
                State::Out(_) => world.server.probes.last().unwrap().1.clone(),
                _ => b"0123456789abcdef".to_vec(),
            };
            match input {
                "subscriber lost" => world.link.handle_closed(Lane::Subscriber, "reset", now),
                "publisher lost" => world.link.handle_closed(Lane::Publisher, "reset", now),
                "came in" => world.link.handle_probe(&payload, now),
                "stranger" => world.link.handle_probe(b"stranger", now),
                "refused" => world.link.handle_probe_subscription_error(b"NOPERM", now).expect("no end"),
                "period" => world.time_out(now + P),
                "close" => world.link.close(now),
                other => panic!("{other}"),
            }
            assert_eq!(name(&world), expected, "{state}, {input}");
        }
    }
}

/// A message of the channel `chat` that is so long on the wire.
fn message(len: usize) -> Vec<u8> {
    let head = |payload: usize| format!(">3\r\n$7\r\nmessage\r\n$4\r\nchat\r\n${payload}\r\n");
    let payload = len - head(len).len() - 2;
    [head(payload).as_bytes(), &vec![b'x'; payload], b"\r\n"].concat()
}

/// What Redis sent lies in the socket, behind messages: it is not Redis that is slow. That lasts a minute at most.
#[test]
fn whoever_is_behind_with_reading_does_not_take_redis_for_dead() {
    for (more, ended) in [(true, Duration::from_secs(70)), (false, 2 * P)] {
        let mut world = world(P);
        world.server.delivers_nothing = true;
        while hang_ups(&world).is_empty() {
            let now = world.now;
            world.link.handle_read(Lane::Subscriber, &message(1_000), more, now, |_, _| {});
            world.pass(ms(500));
            assert!(world.now <= Instant::ZERO + ended, "{more}");
        }
        let both = Lane::ALL.map(|lane| (ended, lane));
        assert_eq!(hang_ups(&world), both, "{more}");
    }
}

/// The same without any answer, as if those lay behind the messages.
#[test]
fn whoever_is_behind_waits_for_replies_too() {
    let limits = Limits { reply_time: ms(1_000), probe_time: Duration::from_secs(300), ..Limits::default() };
    let mut world = World::with(url(), &limits, 7);
    world.subscribe("chat");
    world.server.is_mute = true;
    let asked = limits.redis_ping_time;
    while hang_ups(&world).iter().all(|&(_, lane)| lane != Lane::Subscriber) {
        let now = world.now;
        world.link.handle_read(Lane::Subscriber, &message(1_000), true, now, |_, _| {});
        // Heard all the time, it is asked by nothing but this.
        world.link.subscribe("another".into(), now);
        world.pass(ms(500));
        assert!(world.now <= Instant::ZERO + asked + Duration::from_secs(61));
    }
    let ended = hang_ups(&world).iter().find(|(_, lane)| *lane == Lane::Subscriber).unwrap().0;
    assert_eq!(ended, Duration::from_secs(61), "a minute, and the time for a reply");
}

/// The read behind a full one shows that nothing lies unread.
#[test]
fn whoever_has_caught_up_misses_what_has_not_come() {
    for (reads, ended) in [(&[true][..], 14), (&[true, false], 10)] {
        let mut world = world(P);
        world.server.delivers_nothing = true;
        world.pass(Duration::from_secs(9));
        for &more in reads {
            let now = world.now;
            world.link.handle_read(Lane::Subscriber, &message(1_000), more, now, |_, _| {});
        }
        world.pass(Duration::from_secs(20));
        assert_eq!(hang_ups(&world)[0], (Duration::from_secs(ended), Lane::Subscriber), "{reads:?}");
    }
}
