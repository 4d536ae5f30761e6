//! What went wrong in public, elsewhere, as a plan each: every promise is kept, and what matters in the story is seen.

use std::time::Duration;

use fanfare_core::redis::Lane;
use fanfare_core::route::{FrameType, Policies};
use fanfare_tests::sim::plan::{Deed, Driver, Kind, Line, Plan, Room, Way};
use fanfare_tests::sim::{self, Report};

const SUBSCRIBER: Lane = Lane::Subscriber;
const PUBLISHER: Lane = Lane::Publisher;

/// Messages that come to every client in its room at the end of each plan.
const PROBES: usize = 1;

pub(super) fn kept(plan: &Plan) -> Report {
    let report = sim::run(plan, true);
    if let Some(failure) = report.failure {
        panic!("{plan}\n{}\n{failure}", report.trace.join("\n"));
    }
    report
}

pub(super) fn send(client: usize) -> Deed {
    Deed::Send { client, bytes: 100, pieces: 1 }
}

pub(super) fn publish(bytes: usize) -> Deed {
    Deed::Publish { room: 0, bytes, kind: Kind::Plain }
}

fn cut(instance: usize, lane: Lane, how: Way) -> Deed {
    Deed::Cut { instance, lane, how }
}

fn ends(report: &Report, name: &str) -> u64 {
    report.ends.get(name).copied().unwrap_or(0)
}

pub(super) fn all_received(report: &Report, count: usize) -> bool {
    report.received.iter().all(|received| received.len() == count + PROBES)
}

/// redis/redis#7855: clients listened on a broken TCP connection for hours.
#[test]
fn a_half_open_subscriber_is_found_without_traffic() {
    let plan = Plan::still(1, 3)
        .joined()
        .at(10_000, cut(0, SUBSCRIBER, Way::Silent))
        .at(11_000, publish(50))
        .at(24_000, publish(50));
    let report = kept(&plan);
    assert_eq!(report.buses[0].gaps, 1, "the message in between is lost, and that is known");
    assert!(all_received(&report, 1));
}

/// centrifugal/centrifugo#1189: the first dial after a failover was refused, and the retry never started.
#[test]
fn the_first_dials_after_an_outage_are_refused_and_tried_again() {
    let plan = Plan::still(3, 6)
        .joined()
        .at(10_000, Deed::StopRedis { silent: false })
        .at(15_000, Deed::StartRedis { loading: 0, refuses: 12 })
        .at(25_000, send(0));
    assert!(all_received(&kept(&plan), 1));
}

/// StackExchange.Redis#517, redis/lettuce PR#27: a second disconnect during resubscription lost the rest.
#[test]
fn disconnects_during_resubscription_lose_no_channel() {
    const ROOMS: usize = 1_500;
    let mut plan = Plan::still(1, ROOMS);
    plan.setup.line.latency = 40_000;
    plan.setup.line.per_kib = 2_000;
    plan.setup.rooms = chat_rooms(ROOMS);
    for (i, client) in plan.setup.clients.iter_mut().enumerate() {
        client.room = i;
    }
    let mut plan = plan.joined();
    for i in 0..10 {
        plan = plan.at(10_000 + 230 * i, cut(0, SUBSCRIBER, if i % 2 == 0 { Way::Reset } else { Way::Fin }));
    }
    for room in 0..ROOMS {
        plan = plan.at(25_000, Deed::Publish { room, bytes: 40, kind: Kind::Plain });
    }
    assert!(all_received(&kept(&plan), 1));
}

/// redis/redis#6412: a subscriber is killed at the output-buffer limit, again and again.
#[test]
fn a_subscriber_that_is_killed_for_its_output_comes_back_with_a_known_gap() {
    let mut plan = Plan::still(1, 2);
    plan.setup.redis.output_limit = 64 << 10;
    plan.setup.line = Line { per_kib: 2_000, room: 16 << 10, ..plan.setup.line };
    let mut plan = plan.joined();
    for i in 0..200 {
        plan = plan.at(10_000 + i, publish(4_000));
    }
    let report = kept(&plan.at(20_000, publish(10)));
    assert!(report.buses[0].gaps > 0);
    assert!(report.received.iter().all(|received| (2..202).contains(&received.len())));
}

/// socketio/socket.io#4845 and its kin: a confirmation comes for a channel that nobody wants any more, and one that is
/// wanted again while it is dropped.
#[test]
fn channels_that_come_and_go_faster_than_their_confirmations_end_as_they_should() {
    let mut plan = Plan::still(1, 2);
    plan.setup.line.latency = 300_000;
    plan.setup.limits.linger_time = Duration::ZERO;
    for client in &mut plan.setup.clients {
        client.returns = Some(10);
    }
    let mut plan = plan.joined();
    for i in 0..40 {
        plan = plan.at(3_000 + 170 * i, Deed::Leave { client: (i % 2) as usize, how: Way::Reset });
    }
    let report = kept(&plan.at(15_000, publish(30)));
    assert!(all_received(&report, 1));
}

/// phoenix_pubsub_redis: a publish on a closed connection was logged and reported as a success.
#[test]
fn what_is_sent_while_redis_is_away_comes_to_everyone_once_it_is_back() {
    let mut plan = Plan::still(3, 9).joined().at(10_000, Deed::StopRedis { silent: false });
    for client in 0..9 {
        plan = plan.at(11_000 + client as u64, send(client));
    }
    let report = kept(&plan.at(15_000, Deed::StartRedis { loading: 0, refuses: 0 }));
    assert!(all_received(&report, 9));
    assert!(report.buses.iter().all(|bus| (bus.expired, bus.unconfirmed) == (0, 0)));
}

/// slact/nchan#190: Redis restarts with a large data set, and answers nothing but LOADING for a while.
#[test]
fn a_redis_that_loads_its_data_set_is_waited_for() {
    let plan = Plan::still(2, 4)
        .joined()
        .at(10_000, Deed::StopRedis { silent: false })
        .at(10_500, send(0))
        .at(11_000, Deed::StartRedis { loading: 20_000, refuses: 0 })
        .at(12_000, send(1));
    assert!(all_received(&kept(&plan), 2));
}

/// rails PR#51687, golemcloud/golem#3358: the budget of retries ran out, and the process was dead until its restart.
#[test]
fn an_outage_of_an_hour_is_no_longer_than_one_of_a_second() {
    let plan = Plan::still(2, 4)
        .joined()
        .at(10_000, Deed::StopRedis { silent: true })
        .at(20_000, send(0))
        .at(3_610_000, Deed::StartRedis { loading: 0, refuses: 0 })
        .at(3_620_000, send(1));
    let report = kept(&plan);
    assert!(all_received(&report, 1));
    assert_eq!(report.buses[0].expired, 1, "what waited for more than a minute is given up, and counted");
}

/// uNetworking/uWebSockets PR#1876: pongs waited behind a slow reader's queue, and healthy clients were declared dead.
#[test]
fn a_pong_does_not_wait_behind_a_slow_readers_queue() {
    let mut plan = Plan::still(1, 1);
    plan.setup.clients[0].line = Line { per_kib: 60_000, room: 4 << 10, ..plan.setup.line };
    let mut plan = plan.joined();
    for i in 0..10 {
        plan = plan.at(5_000 + i, publish(60_000));
    }
    for i in 0..20 {
        plan = plan.at(6_000 + 1_500 * i, Deed::Ping(0));
    }
    let report = kept(&plan);
    assert_eq!(ends(&report, "PongTimeout") + ends(&report, "SlowReader"), 0);
    // One message may have begun; the other nine would take half a minute.
    assert!(report.slowest_pong < Duration::from_secs(5), "{:?}", report.slowest_pong);
    assert!(all_received(&report, 10));
}

/// A half-open client: its host is gone, and the kernel takes our pings for it.
#[test]
fn a_client_that_is_gone_without_a_word_is_found_by_a_ping() {
    let plan = Plan::still(1, 2).joined().at(5_000, Deed::Leave { client: 0, how: Way::Silent });
    let report = kept(&plan);
    assert_eq!(ends(&report, "PongTimeout"), 1);
}

/// firezone/firezone#11493, phoenixframework/phoenix#4045: everyone reconnects at once.
#[test]
fn all_clients_come_back_at_once() {
    let plan = Plan::still(3, 300).joined().at(10_000, Deed::Storm).at(10_400, send(5)).at(11_000, Deed::Storm);
    let report = kept(&plan.at(20_000, send(6)));
    assert!(report.received.iter().all(|received| (2..=3).contains(&received.len())));
    assert_eq!(report.visits, 900);
}

/// oven-sh/bun PR#32852: an unsubscribe discarded what was queued.
#[test]
fn who_is_closed_gets_what_was_queued_before() {
    let mut plan = Plan::still(1, 2);
    plan.setup.clients[0].line = Line { per_kib: 5_000, room: 4 << 10, ..plan.setup.line };
    let mut plan = plan.joined();
    for i in 0..20 {
        plan = plan.at(5_000 + i, publish(10_000));
    }
    let report = kept(&plan.at(5_100, Deed::CloseSession(0)));
    assert_eq!(report.received[0].len(), 20);
}

/// django/channels#1717: messages were lost while Redis was away, and nobody was told.
#[test]
fn every_loss_of_the_subscriber_is_a_gap_and_of_the_publisher_is_none() {
    for (lane, how, gaps) in [
        (SUBSCRIBER, Way::Fin, 1),
        (SUBSCRIBER, Way::Reset, 1),
        (SUBSCRIBER, Way::Silent, 1),
        (PUBLISHER, Way::Fin, 0),
        (PUBLISHER, Way::Reset, 0),
        (PUBLISHER, Way::Silent, 0),
    ] {
        let plan = Plan::still(2, 2).joined().at(10_000, cut(0, lane, how)).at(10_001, send(1)).at(30_000, send(0));
        let report = kept(&plan);
        assert_eq!(report.buses.iter().map(|bus| bus.gaps).collect::<Vec<_>>(), [gaps, 0], "{lane:?} {how:?}");
    }
}

/// A box in between forgets a connection, and answers the next packet with a reset: the gap began long before.
#[test]
fn a_reset_that_ends_a_silence_tells_of_all_of_it() {
    let plan = Plan::still(1, 2)
        .joined()
        .at(10_000, cut(0, SUBSCRIBER, Way::Silent))
        .at(11_000, publish(30))
        .at(14_000, cut(0, SUBSCRIBER, Way::Reset));
    assert_eq!(kept(&plan).buses[0].gaps, 1);
}

/// redis/redis-py CVE-2023-28858 and its kin: after a lost connection, replies were taken for those of other commands.
#[test]
fn a_publish_without_a_reply_is_counted_and_not_sent_again() {
    let mut plan = Plan::still(2, 4);
    plan.setup.line.latency = 200_000;
    let plan = plan.joined().at(10_000, send(0)).at(10_300, cut(0, PUBLISHER, Way::Reset)).at(20_000, send(0));
    let report = kept(&plan);
    assert_eq!(report.buses[0].unconfirmed, 1);
    assert!(all_received(&report, 2), "Redis had carried it out");
}

/// oven-sh/bun#32483: a flood of messages while they cannot leave takes all memory.
#[test]
fn a_flood_while_redis_is_away_is_held_back_and_ended_at_last() {
    let mut plan = Plan::still(1, 4);
    plan.setup.limits.publish_bytes = 64 << 10;
    let mut plan = plan.joined().at(9_000, Deed::StopRedis { silent: false });
    for i in 0..200 {
        plan = plan.at(10_000 + 10 * i, Deed::Send { client: 0, bytes: 4_000, pieces: 2 });
    }
    let plan = plan.at(30_000, Deed::StartRedis { loading: 0, refuses: 0 }).at(40_000, send(1));
    let report = kept(&plan);
    assert_eq!(ends(&report, "NoCredit"), 1, "who did not send is not closed");
}

/// With workers, a mailbox that is full loses whole runs for that worker alone, and says how many messages.
#[test]
fn a_full_mailbox_is_counted() {
    let mut plan = Plan::still(1, 12);
    plan.setup.instances[0].workers = 3;
    plan.setup.limits.message_bytes = 4 << 10;
    plan.setup.limits.mailbox_bytes = 4 << 10;
    let mut plan = plan.joined();
    for _ in 0..40 {
        plan = plan.at(5_000, publish(4_000));
    }
    let report = kept(&plan.at(10_000, publish(10)));
    assert!(report.buses[0].missed > 0);
    assert!(report.received.iter().any(|received| received.len() == 41 + PROBES), "not for everyone");
}

/// The confirmation of a subscription and the first message behind a gap can come in one read.
#[test]
fn a_gap_is_told_before_the_first_message_behind_it_however_soon_that_comes() {
    let mut plan = Plan::still(1, 4).joined();
    plan.setup.instances[0].driver = Driver::Lazy;
    plan.setup.clients.iter_mut().for_each(|client| client.notes = true);
    for round in 0..20 {
        plan = plan.at(10_000 + 2_000 * round, cut(0, SUBSCRIBER, Way::Reset));
        for number in 0..300 {
            plan = plan.at(10_000 + 2_000 * round + 4 * number, publish(40));
        }
    }
    kept(&plan);
}

/// Stuck readers fill all queues that there are: they pay, and not clients that are behind for a moment (R8).
#[test]
fn who_holds_a_full_bound_pays_and_nobody_else() {
    const STUCK: usize = 10;
    let mut plan = Plan::still(1, STUCK + 2);
    (plan.setup.limits.queue_bytes, plan.setup.limits.all_queues_bytes) = (512 << 10, 512 << 10);
    plan.setup.rooms = chat_rooms(STUCK + 1);
    // The first two are in one room, and each of the others in its own.
    for (i, client) in plan.setup.clients.iter_mut().enumerate() {
        client.room = i.saturating_sub(1);
        // While its line stalls, more than what is free of each waits for the first.
        client.line.room = if i == 0 { 2 << 10 } else { 16 << 10 };
    }
    let mut plan = plan.joined();
    for client in 2..STUCK + 2 {
        plan = plan.at(10_000, Deed::StopReading(client));
    }
    for at in 0..400 {
        let room = 1 + at as usize % STUCK;
        plan = plan.at(11_000 + 25 * at, Deed::Publish { room, bytes: 20_000, kind: Kind::Plain });
        if at % 10 == 5 {
            plan = plan.at(11_000 + 25 * at, Deed::Stall { client: 0, millis: 150 });
        }
        plan = plan.at(11_010 + 25 * at, publish(2_000));
    }
    let report = kept(&plan);
    assert!(ends(&report, "SlowReader") > 0, "{:?}", report.ends);
    assert!(report.received[..2].iter().all(|received| received.len() == 400 + PROBES));
}

/// A process that was stopped, or that a machine paused, finds all deadlines of its clients behind it when it goes on. A
/// lazy driver tells the time before it reads, if it likes.
fn stopped(driver: Driver, clients: usize) -> Plan {
    let mut plan = Plan::still(1, clients);
    plan.setup.instances[0].driver = driver;
    plan.joined()
}

const DRIVERS: [Driver; 2] = [Driver::Eager, Driver::Lazy];

fn stands(millis: u64) -> Deed {
    Deed::StandStill { instance: 0, millis }
}

#[test]
fn an_instance_that_stood_still_drops_nobody_whose_pong_or_close_lies_in_its_socket() {
    for driver in DRIVERS {
        // Idle clients are pinged after 25 s.
        for at in (25_000..25_060).step_by(5) {
            let report = kept(&stopped(driver, 8).at(at, stands(30_000)));
            assert_eq!(ends(&report, "PongTimeout"), 0, "{driver:?} {at}");
            assert!(all_received(&report, 0), "{driver:?} {at}");
        }
        for wait in (2..20).step_by(3) {
            let plan = (0..8).fold(stopped(driver, 8), |plan, client| plan.at(9_999, Deed::CloseSession(client)));
            assert_eq!(ends(&kept(&plan.at(9_999 + wait, stands(30_000))), "CloseTimeout"), 0, "{driver:?} {wait}");
        }
    }
}

#[test]
fn an_instance_that_stood_still_in_the_middle_of_heads_and_messages_reads_the_rest() {
    for driver in DRIVERS {
        let mut plan = stopped(driver, 40);
        for client in &mut plan.setup.clients {
            client.line = Line { jitter: 1_000_000, crumbs: true, ..client.line };
        }
        let mut plan = plan.at(400, stands(20_000));
        for client in 0..40 {
            plan = plan.at(24_000, Deed::Send { client, bytes: 1_000, pieces: 4 });
        }
        let report = kept(&plan.at(24_400, stands(35_000)));
        assert_eq!((ends(&report, "SlowHead"), ends(&report, "SlowMessage")), (0, 0), "{driver:?}");
        assert!(report.received.iter().all(|received| received.len() == 40 + PROBES), "{driver:?}: all are there");
    }
}

#[test]
fn an_instance_that_stood_still_gives_no_sound_connection_to_redis_up() {
    for driver in DRIVERS {
        // Pings and probes leave every 5 s, and messages are on their way in either direction all the time.
        for at in (19_990..20_012).step_by(2) {
            let mut plan = stopped(driver, 8).at(at, stands(8_000));
            for i in 0..1_500 {
                plan = plan.at(17_000 + 10 * i, send(i as usize % 8));
            }
            let report = kept(&plan);
            assert_eq!(report.buses[0].lost_connections, 0, "{driver:?} {at}");
            assert_eq!((report.buses[0].gaps, report.buses[0].probes_missing), (0, 0), "{driver:?} {at}");
        }
    }
}

/// Somebody else's flood fills the queue of publishes while Redis is away: nobody's pong waits behind it, and a client
/// that is gone does not stay for it.
#[test]
fn without_credit_an_instance_that_stood_still_drops_who_is_gone_and_nobody_else() {
    for driver in DRIVERS {
        let mut plan = stopped(driver, 8);
        plan.setup.limits.publish_bytes = 64 << 10;
        let mut plan = plan.joined().at(9_000, Deed::StopRedis { silent: false });
        for i in 0..200 {
            plan = plan.at(10_000 + 10 * i, Deed::Send { client: 0, bytes: 4_000, pieces: 2 });
        }
        let plan = plan
            .at(22_500, Deed::Leave { client: 7, how: Way::Silent })
            .at(25_020, stands(30_000))
            .at(90_000, Deed::StartRedis { loading: 0, refuses: 0 });
        let report = kept(&plan);
        assert_eq!((ends(&report, "NoCredit"), ends(&report, "PongTimeout")), (1, 1), "{driver:?}: {:?}", report.ends);
    }
}

/// So many text rooms of the chat, in which everybody may speak.
fn chat_rooms(count: usize) -> Vec<Room> {
    let room = |i| Room {
        path: format!("/chat/{i}"),
        channel: format!("chat:{i}"),
        frame: FrameType::Text,
        publish: true,
        policies: Policies::default(),
    };
    (0..count).map(room).collect()
}
