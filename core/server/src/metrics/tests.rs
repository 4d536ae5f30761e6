use std::collections::BTreeMap;
use std::io::IoSlice;

use fanfare_core::bus;
use fanfare_core::error::Unready;
use fanfare_core::histogram::Histogram;
use fanfare_core::node::{Action, Node, SocketId};
use fanfare_core::settings::Settings;
use fanfare_core::shard;
use fanfare_core::snapshot::Share;
use fanfare_core::time::Instant;

use super::*;

/// An instance of one worker without Redis, and what its clients have got.
struct World {
    node: Node,
    got: BTreeMap<SocketId, Vec<u8>>,
    now: Instant,
}

impl World {
    fn new() -> Self {
        Self { node: Node::new(Settings::default(), None, 7, Instant::ZERO), got: BTreeMap::new(), now: Instant::ZERO }
    }

    fn connect(&mut self, bytes: &[u8]) -> SocketId {
        let id = self.node.handle_connection(None, self.now);
        self.send(id, bytes);
        id
    }

    fn join(&mut self) -> SocketId {
        self.connect(
            b"GET /chat HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
            Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        )
    }

    fn send(&mut self, id: SocketId, bytes: &[u8]) {
        self.node.handle_read(id, &mut bytes.to_vec(), false, self.now);
        self.settle();
    }

    fn end(&mut self, id: SocketId) {
        self.node.handle_eof(id, self.now);
        self.settle();
    }

    /// Everything moves that can.
    fn settle(&mut self) {
        self.node.handle_timeout(self.now);
        while let Some(action) = self.node.poll_action() {
            let Action::Write(id) = action else { continue };
            let mut slices = [IoSlice::new(&[]); 16];
            let filled = self.node.transmit(id, &mut slices);
            let bytes: Vec<u8> = slices[..filled].iter().flat_map(|slice| slice.iter().copied()).collect();
            self.node.transmitted(id, bytes.len(), self.now).unwrap();
            self.got.entry(id).or_default().extend(bytes);
        }
        while self.node.poll_event().is_some() {}
    }

    /// What so many workers count of which each has done the same.
    fn numbers(&self, workers: usize) -> Numbers {
        let mut fan_out = Histogram::default();
        fan_out.record(Duration::from_micros(300));
        let blank = Snapshot::new(&self.node.bus, &self.node.shard, self.now.since(Instant::ZERO));
        let share = Share::new(&self.node.shard, &fan_out);
        let instance = (0..workers).fold(blank, |sum, _| sum.with(&share));
        Numbers { instance, ..Numbers::default() }
    }
}

/// A client's frame, of which the key is zero.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    [&[first, 0x80 | payload.len() as u8, 0, 0, 0, 0], payload].concat()
}

fn text_frame(message: &str) -> Vec<u8> {
    frame(0x81, message.as_bytes())
}

/// Every sample by its name and labels. Comments come first and once, and tell the type of what follows.
fn samples(numbers: &Numbers) -> BTreeMap<String, f64> {
    let text = numbers.clone().text();
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

/// Six clients, of whom one is refused a message and one a path.
fn known_exchange() -> World {
    let mut world = World::new();
    let clients = [(); 6].map(|()| world.join());
    for (number, client) in clients.into_iter().enumerate() {
        world.send(client, &text_frame(&format!("message {number}")));
    }
    world.send(clients[0], &frame(0x82, b""));
    world.end(clients[0]);
    world.connect(b"GET /nowhere HTTP/1.1\r\nHost: a\r\n\r\n");
    world
}

#[test]
fn a_known_exchange_adds_up_over_all_workers() {
    for workers in [1, 2, 3] {
        let world = known_exchange();
        let samples = samples(&world.numbers(workers));
        let (times, bytes) = (workers as f64, world.got.values().map(Vec::len).sum::<usize>());
        for (sample, value) in [
            ("fanfare_workers", workers as f64),
            ("fanfare_workers_late", 0.0),
            ("fanfare_ready", 1.0),
            ("fanfare_bus_up", 1.0),
            ("fanfare_sessions{stage=\"open\"}", 5.0 * times),
            ("fanfare_sessions{stage=\"answered\"}", 1.0 * times),
            ("fanfare_sessions_opened_total", 6.0 * times),
            ("fanfare_sessions_closed_total{by=\"server\",code=\"1003\"}", 1.0 * times),
            ("fanfare_sessions_closed_total{by=\"client\",code=\"1000\"}", 0.0),
            ("fanfare_session_errors_total{error=\"frame_type\"}", 1.0 * times),
            ("fanfare_refusals_total{error=\"not_found\"}", 1.0 * times),
            ("fanfare_client_messages_total", 7.0 * times),
            ("fanfare_publishes_total", 6.0),
            ("fanfare_bus_messages_total", 6.0),
            ("fanfare_deliveries_total", 36.0 * times),
            ("fanfare_client_sent_bytes_total", bytes as f64 * times),
            ("fanfare_channels", 1.0),
            ("fanfare_channels_subscribed", 1.0),
            ("fanfare_buffer_bytes{buffer=\"queues\"}", 0.0),
            ("fanfare_buffer_limit_bytes{buffer=\"queues\"}", Settings::default().limits.all_queues_bytes as f64),
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
    let mut numbers = World::new().numbers(1);
    let instance = &mut numbers.instance;
    (instance.readiness, instance.is_up, instance.is_redis) = (Err(Unready::NoConnection), false, true);
    (instance.bus.channels, instance.bus.gaps, instance.bus.gap_time) = (1, 2, Duration::from_millis(5_500));
    (instance.bus.publish_bytes, instance.uptime) = (48, Duration::from_secs(8));
    let samples = samples(&numbers);
    for (sample, value) in [
        ("fanfare_ready", 0.0),
        ("fanfare_bus_up", 0.0),
        ("fanfare_bus{kind=\"redis\"}", 1.0),
        ("fanfare_unready{reason=\"no_connection\"}", 1.0),
        ("fanfare_unready{reason=\"draining\"}", 0.0),
        ("fanfare_channels", 1.0),
        ("fanfare_channels_subscribed", 0.0),
        ("fanfare_gaps_total", 2.0),
        ("fanfare_gap_seconds_total", 5.5),
        ("fanfare_buffer_bytes{buffer=\"publishes\"}", 48.0),
        ("fanfare_uptime_seconds", 8.0),
    ] {
        assert_eq!(samples.get(sample), Some(&value), "{sample}");
    }
}

#[test]
fn what_there_is_to_see_never_changes_and_counts_only_grow() {
    let mut world = World::new();
    let mut before = samples(&world.numbers(2));
    let clients = [(); 3].map(|()| world.join());
    type Step = fn(&mut World, [SocketId; 3]);
    let steps: [Step; 4] = [
        |world, clients| world.send(clients[0], &text_frame("hello")),
        |world, clients| world.node.handle_reset(clients[0], "gone", world.now),
        |world, _| world.now = world.now + Duration::from_secs(60),
        |world, _| world.node.shutdown(world.now),
    ];
    for step in steps {
        step(&mut world, clients);
        world.settle();
        let after = samples(&world.numbers(2));
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
    let mut times = Histogram::default();
    times.record(Duration::from_secs(1_100));
    let mut numbers = known_exchange().numbers(1);
    let shard::Stats { closes, errors, .. } = numbers.instance.workers.stats;
    let mut stats = shard::Stats::default();
    (stats.sessions, stats.opened, stats.messages_in, stats.bytes_in) = (2_001, 2_002, 2_003, 2_004);
    (stats.bytes_out, stats.deliveries, stats.missed, stats.slow_readers) = (2_005, 2_006, 2_007, 2_008);
    (stats.dropped_newest, stats.dropped_oldest, stats.dropped_latest) = (2_009, 2_010, 2_011);
    (stats.gap_closes, stats.pauses, stats.discarded) = (2_012, 2_013, 2_014);
    (stats.queued_bytes, stats.partial_bytes) = (2_015, 2_016);
    let mut bus = bus::Stats::default();
    (bus.channels, bus.subscribed, bus.publishes, bus.messages) = (1_001, 1_002, 1_003, 1_004);
    (bus.not_utf8, bus.oversized, bus.missed, bus.expired) = (1_005, 1_006, 1_007, 1_008);
    (bus.unconfirmed, bus.refused, bus.gaps) = (1_009, 1_010, 1_011);
    (bus.gap_time, bus.refused_time) = (Duration::from_secs(1_012), Duration::from_secs(1_025));
    (bus.lost_connections, bus.probes_missing, bus.publish_bytes, bus.unsent) = (1_013, 1_014, 1_015, 1_016);
    (bus.fullest_mailbox, bus.connects, bus.dial_failures, bus.bytes_in) = (1_017, 1_018, 1_019, 1_020);
    (bus.bytes_out, bus.lingering, bus.linger_evictions, bus.refused_channels) = (1_021, 1_022, 1_023, 1_024);
    // A field that is new is to have a number here.
    for counts in [format!("{stats:#?}"), format!("{bus:#?}")] {
        let is_own = |line: &&str| line.starts_with("    ") && !line.starts_with("     ");
        let zeros = counts.lines().filter(is_own).filter(|line| line.ends_with(": 0,") || line.ends_with(": 0ns,"));
        assert_eq!(zeros.collect::<Vec<_>>(), [""; 0]);
    }
    (bus.probe_round_trip, bus.publish_latency) = (times, times);
    (stats.closes, stats.errors) = (closes, errors);
    (numbers.instance.workers.stats, numbers.instance.bus) = (stats, bus);
    // Told otherwise: by their stages, by the bus, by their error, by their close code.
    let otherwise = [2_001, 2_007, 2_008, 2_012].map(f64::from);
    let told: Vec<f64> = samples(&numbers).into_values().collect();
    for count in (1_001..=1_025).chain(2_001..=2_016).chain([1_100]).map(f64::from) {
        assert_ne!(told.contains(&count), otherwise.contains(&count), "{count}");
    }
}

#[test]
fn what_the_system_counts_of_a_process_is_told_of_one() {
    let mut numbers = World::new().numbers(1);
    assert!(!numbers.clone().text().contains("\nprocess_"));
    let second = Duration::from_secs(1);
    numbers.process = Some(Process {
        cpu: 3_001 * second,
        threads: 3_002,
        started: 3_003 * second,
        virtual_bytes: 3_004,
        resident_bytes: 3_005,
        open_files: 3_006,
        most_files: 3_007,
    });
    numbers.log_lines_dropped = 3_008;
    let told: Vec<f64> = samples(&numbers).into_values().collect();
    assert!((3_001..=3_008).map(f64::from).all(|count| told.contains(&count)), "{told:?}");
}

#[test]
fn counts_are_exact_beyond_what_a_floating_point_number_holds() {
    let mut numbers = World::new().numbers(1);
    numbers.instance.bus.messages = u64::MAX;
    assert!(text(&numbers.instance).contains("\nfanfare_bus_messages_total 18446744073709551615\n"));
}

#[test]
fn the_answer_says_which_format_it_is() {
    let answer = answer(&World::new().numbers(1).instance);
    assert_eq!(answer.status, 200);
    let content_type = ("Content-Type", "text/plain; version=0.0.4; charset=utf-8".into());
    assert!(answer.fields.contains(&content_type), "{:?}", answer.fields);
}

#[test]
fn the_table_has_a_row_for_each_metric_and_its_labels() {
    let table = metrics_table();
    for sample in samples(&World::new().numbers(1)).keys() {
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
