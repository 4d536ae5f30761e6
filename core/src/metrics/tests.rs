use std::collections::BTreeMap;

use super::*;
use crate::redis::Lane;
use crate::shard::tests::stats::distinct_stats;
use crate::shard::tests::world::{BINARY, World, limits, text};
use crate::ws::tests::frame;

fn snapshot(world: &World) -> Snapshot {
    let blank = Snapshot::new(&world.bus, &world.shards[0], world.now.since(crate::time::Instant::ZERO));
    let mut fan_out = Histogram::default();
    fan_out.record(Duration::from_micros(300));
    world.shards.iter().fold(blank, |sum, shard| sum.with(&Share::new(shard, &fan_out)))
}

/// Every sample by its name and labels. Comments come first and once, and tell the type of what follows.
fn samples(snapshot: &Snapshot) -> BTreeMap<String, f64> {
    let text = snapshot.text();
    assert!(text.ends_with('\n'));
    let mut samples = BTreeMap::new();
    let mut family = String::new();
    for line in text.lines() {
        if let Some(comment) = line.strip_prefix("# HELP ") {
            let (name, help) = comment.split_once(' ').unwrap();
            assert!(
                help.ends_with('.') && ["fanfare_", "process_"].iter().any(|prefix| name.starts_with(prefix)),
                "{line}"
            );
            family = name.to_owned();
        } else if let Some(comment) = line.strip_prefix("# TYPE ") {
            let (name, kind) = comment.split_once(' ').unwrap();
            assert_eq!((name, kind == "counter"), (&*family, family.ends_with("_total")), "{line}");
        } else {
            let (sample, value) = line.rsplit_once(' ').unwrap();
            assert!(sample.starts_with(&family), "{line}");
            let value = value.parse().unwrap();
            assert!(samples.insert(sample.to_owned(), value).is_none(), "{line} is there twice");
        }
    }
    samples
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
        let samples = samples(&snapshot(&world));
        let bytes: usize = world.clients.iter().map(|client| client.got.len()).sum();
        for (sample, value) in [
            ("fanfare_workers", workers as f64),
            ("fanfare_workers_late", 0.0),
            ("fanfare_ready", 1.0),
            ("fanfare_bus_up", 1.0),
            ("fanfare_sessions{stage=\"open\"}", 5.0),
            ("fanfare_sessions{stage=\"answered\"}", 1.0),
            ("fanfare_sessions_opened_total", 6.0),
            ("fanfare_sessions_closed_total{by=\"server\",code=\"1003\"}", 1.0),
            ("fanfare_sessions_closed_total{by=\"client\",code=\"1000\"}", 0.0),
            ("fanfare_session_errors_total{error=\"frame_type\"}", 1.0),
            ("fanfare_refusals_total{error=\"not_found\"}", 1.0),
            ("fanfare_client_messages_total", 7.0),
            ("fanfare_publishes_total", 6.0),
            ("fanfare_bus_messages_total", 7.0),
            ("fanfare_messages_dropped_total{reason=\"not_utf8\"}", 1.0),
            ("fanfare_deliveries_total", 36.0),
            ("fanfare_client_sent_bytes_total", bytes as f64),
            ("fanfare_channels", 1.0),
            ("fanfare_channels_subscribed", 1.0),
            ("fanfare_redis_connects_total", 2.0),
            ("fanfare_buffer_bytes{buffer=\"queues\"}", 0.0),
            ("fanfare_buffer_limit_bytes{buffer=\"queues\"}", limits().all_queues_bytes as f64),
            ("fanfare_fan_out_seconds_count", workers as f64),
            ("fanfare_fan_out_seconds_bucket{le=\"0.00025\"}", 0.0),
            ("fanfare_fan_out_seconds_bucket{le=\"0.0005\"}", workers as f64),
            ("fanfare_fan_out_seconds_bucket{le=\"+Inf\"}", workers as f64),
        ] {
            assert_eq!(samples.get(sample), Some(&value), "{sample} with {workers} workers");
        }
        assert!((samples["fanfare_fan_out_seconds_sum"] - 0.0003 * workers as f64).abs() < 1e-9);
    }
}

#[test]
fn an_outage_has_a_reason_a_gap_and_a_length() {
    let mut world = World::redis(limits(), 1);
    let client = world.join("/chat");
    world.lose_redis();
    world.send(client, &text("meanwhile"));
    let away = samples(&snapshot(&world));
    for (sample, value) in [
        ("fanfare_ready", 0.0),
        ("fanfare_bus_up", 0.0),
        ("fanfare_unready{reason=\"no_connection\"}", 1.0),
        ("fanfare_unready{reason=\"draining\"}", 0.0),
        ("fanfare_channels", 1.0),
        ("fanfare_channels_subscribed", 0.0),
        ("fanfare_gaps_total", 1.0),
    ] {
        assert_eq!(away.get(sample), Some(&value), "{sample}");
    }
    assert!(away["fanfare_buffer_bytes{buffer=\"publishes\"}"] > 9.0);
    world.pass(Duration::from_secs(5));
    world.is_reachable = true;
    world.pass(Duration::from_secs(3));
    let back = samples(&snapshot(&world));
    assert!(back["fanfare_gap_seconds_total"] > 5.0 && back["fanfare_redis_dial_failures_total"] > 4.0);
    assert_eq!((back["fanfare_ready"], back["fanfare_uptime_seconds"]), (1.0, 8.0));
}

#[test]
fn what_there_is_to_see_never_changes_and_counts_only_grow() {
    let mut world = World::redis(limits(), 2);
    let mut before = samples(&snapshot(&world));
    let clients = [(); 3].map(|()| world.join("/chat"));
    type Step = fn(&mut World, [usize; 3]);
    let steps: [Step; 5] = [
        |world, clients| world.send(clients[0], &text("hello")),
        |world, clients| world.reset(clients[0]),
        |world, _| world.cut(Lane::Publisher),
        |world, _| world.pass(Duration::from_secs(60)),
        |world, _| {
            let now = world.now;
            world.shards.iter_mut().for_each(|shard| shard.shutdown(now));
        },
    ];
    for step in steps {
        step(&mut world, clients);
        let after = samples(&snapshot(&world));
        assert!(before.keys().eq(after.keys()));
        for (sample, value) in
            before.iter().filter(|(sample, _)| sample.contains("_total") || sample.contains("_bucket"))
        {
            assert!(after[sample] >= *value, "{sample} shrank");
        }
        before = after;
    }
    assert_eq!(before["fanfare_unready{reason=\"draining\"}"], 1.0);
}

#[test]
fn every_count_is_told() {
    let (mut times, mut snapshot) = (Histogram::default(), Snapshot::blank(&limits()));
    times.record(Duration::from_secs(1_100));
    snapshot.workers.stats = distinct_stats();
    snapshot.bus = bus::Stats {
        refused_channels: 1_024,
        refused_time: Duration::from_secs(1_025),
        channels: 1_001,
        subscribed: 1_002,
        publishes: 1_003,
        messages: 1_004,
        not_utf8: 1_005,
        oversized: 1_006,
        missed: 1_007,
        expired: 1_008,
        unconfirmed: 1_009,
        refused: 1_010,
        gaps: 1_011,
        gap_time: Duration::from_secs(1_012),
        lost_connections: 1_013,
        probe_round_trip: times,
        probes_missing: 1_014,
        publish_latency: times,
        publish_bytes: 1_015,
        unsent: 1_016,
        fullest_mailbox: 1_017,
        connects: 1_018,
        dial_failures: 1_019,
        bytes_in: 1_020,
        bytes_out: 1_021,
        lingering: 1_022,
        linger_evictions: 1_023,
    };
    // Told otherwise: by their stages, by the bus, by their error, by their close code.
    let otherwise = [2_001, 2_007, 2_008, 2_012].map(f64::from);
    let told: Vec<f64> = samples(&snapshot).into_values().collect();
    for count in (1_001..=1_025).chain(2_001..=2_016).chain([1_100]).map(f64::from) {
        assert_ne!(told.contains(&count), otherwise.contains(&count), "{count}");
    }
}

#[test]
fn counts_are_exact_beyond_what_a_floating_point_number_holds() {
    let world = World::new();
    let mut snapshot = snapshot(&world);
    snapshot.bus.messages = u64::MAX;
    assert!(snapshot.text().contains("\nfanfare_bus_messages_total 18446744073709551615\n"));
}

#[test]
fn the_answer_says_which_format_it_is() {
    let answer = snapshot(&World::new()).answer();
    assert_eq!(answer.status, 200);
    let content_type = ("Content-Type", "text/plain; version=0.0.4; charset=utf-8".into());
    assert!(answer.fields.contains(&content_type), "{:?}", answer.fields);
}

#[test]
fn the_table_has_a_row_for_each_metric_and_its_labels() {
    let table = metrics_table();
    for sample in samples(&snapshot(&World::new())).keys() {
        let (name, labels) = sample.split_once('{').unwrap_or((sample, ""));
        let name = ["_bucket", "_sum", "_count"].iter().fold(name, |name, end| match name.strip_suffix(end) {
            Some(base) if base.ends_with("_seconds") => base,
            _ => name,
        });
        let row = table.lines().find(|row| row.starts_with(&format!("| `{name}` |"))).unwrap();
        for label in
            labels.trim_end_matches('}').split(',').filter(|label| !label.is_empty() && !label.starts_with("le="))
        {
            let (label, value) = label.split_once('=').unwrap();
            assert!(row.contains(&format!("`{label}`: `")) && row.contains(&value.replace('"', "`")), "{row}");
        }
    }
}
