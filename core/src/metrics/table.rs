//! Every metric: what it is called, what it means, where its numbers are.

use core::fmt;

use prometheus_client::metrics::MetricType;

use super::{Process, Share, Snapshot};
use crate::bus;
use crate::error::{Error, Side, Told, Unready};
use crate::histogram::Histogram;
use crate::limits::Limits;
use crate::shard::{self, Code};
use crate::time::Duration;

/// One metric.
pub(super) struct Metric {
    /// Without `fanfare_` in front and, of a counter, `_total` behind.
    pub(super) name: &'static str,
    pub(super) kind: MetricType,
    /// One or two sentences.
    pub(super) help: &'static str,
    pub(super) samples: Samples,
}

pub(super) enum Samples {
    /// Without labels.
    One(fn(&Snapshot) -> Value<'_>),
    /// Names every sample.
    Labelled(fn(&Snapshot, Sink<'_>) -> fmt::Result),
}

/// Takes the labels of a sample and its value.
pub(super) type Sink<'a> = &'a mut dyn FnMut(&[(&str, &str)], Value<'_>) -> fmt::Result;

pub(super) enum Value<'a> {
    Count(u64),
    /// In seconds.
    Time(Duration),
    /// A histogram, in seconds.
    Times(&'a Histogram),
}

pub(super) const METRICS: &[Metric] = &[
    // The instance.
    gauges(
        "build_info",
        "1, with the version of the core and the source of the build, if that is known.",
        |snapshot, sink| sink(&[("version", env!("CARGO_PKG_VERSION")), ("commit", snapshot.commit)], Value::Count(1)),
    ),
    gauge("uptime_seconds", "Time since the start.", |snapshot| Value::Time(snapshot.uptime)),
    gauge("ready", "1 if /ready says so, else 0.", |snapshot| flag(snapshot.readiness.is_ok())),
    gauges("unready", "1 for the reason that /ready gives, 0 for all others.", unready),
    gauges("bus", "1 for what carries messages, 0 for the other.", |snapshot, sink| {
        sink(&[("kind", "redis")], flag(snapshot.is_redis))?;
        sink(&[("kind", "process")], flag(!snapshot.is_redis))
    }),
    gauge("workers", "Threads that serve sessions.", |snapshot| size(snapshot.worker_count)),
    gauge(
        "workers_late",
        "Workers that are too busy to tell their numbers within a second; their last ones stand for them.",
        |snapshot| size(snapshot.late_workers),
    ),
    counter(
        "log_lines_dropped",
        "Lines of the log that were lost, because nobody took them or they could not be written.",
        |snapshot| Value::Count(snapshot.log_lines_dropped),
    ),
    // Sessions.
    gauges(
        "sessions",
        "Connections now, by stage, those for operation among them; open is an open WebSocket.",
        sessions,
    ),
    counter("sessions_opened", "WebSockets opened.", |snapshot| Value::Count(snapshot.workers.stats.opened)),
    counters(
        "sessions_closed",
        "WebSockets ended, by who ended them and the close code that was sent or received first.",
        sessions_closed,
    ),
    counters("session_errors", "WebSockets that an error ended, by the error.", |snapshot, sink| {
        errors(snapshot, sink, false)
    }),
    counters("refusals", "Requests that were refused, by the error.", |snapshot, sink| errors(snapshot, sink, true)),
    counter("session_pauses", "Times that a session was not read because no more publishes may wait.", |snapshot| {
        Value::Count(snapshot.workers.stats.pauses)
    }),
    gauges(
        "connections_limit",
        "The most connections of clients: what the limit of open files or --max-connections allows.",
        |snapshot, sink| snapshot.most_connections.map_or(Ok(()), |most| sink(&[], size(most))),
    ),
    counter(
        "crowded_connections",
        "Connections accepted although all places were taken: told so, or given the place of one that had said nothing.",
        |snapshot| Value::Count(snapshot.crowded),
    ),
    counter("accept_rests", "Times that accepting rested because no descriptor or memory was left.", |snapshot| {
        Value::Count(snapshot.accept_rests)
    }),
    // Messages.
    counter("client_messages", "Messages from clients.", |snapshot| Value::Count(snapshot.workers.stats.messages_in)),
    counter("publishes", "Messages accepted for the bus, from clients and from the embedding program.", |snapshot| {
        Value::Count(snapshot.bus.publishes)
    }),
    gauge("publishes_waiting", "Publishes that have yet to leave for Redis.", |snapshot| size(snapshot.bus.unsent)),
    counters(
        "publishes_lost",
        "Publishes that were given up at their age, may or may not have arrived when a connection was lost, or were \
         refused by Redis.",
        publishes_lost,
    ),
    counter("bus_messages", "Messages that came from the bus.", |snapshot| Value::Count(snapshot.bus.messages)),
    counters(
        "messages_dropped",
        "Messages dropped before they were in any queue: no UTF-8 on a text channel, above the limit, no room in a \
         worker's mailbox, or, without credit, behind the Close of a session or the cause of it.",
        messages_dropped,
    ),
    counter("deliveries", "Messages put into sessions' queues: one for each message and session.", |snapshot| {
        Value::Count(snapshot.workers.stats.deliveries)
    }),
    counters(
        "slow_reader_drops",
        "Messages that slow readers lost, by what their route says: each message once for each of them.",
        slow_reader_drops,
    ),
    counter("client_received_bytes", "Bytes read from clients, requests and frame headers among them.", |snapshot| {
        Value::Count(snapshot.workers.stats.bytes_in)
    }),
    counter("client_sent_bytes", "Bytes written to clients, answers and frame headers among them.", |snapshot| {
        Value::Count(snapshot.workers.stats.bytes_out)
    }),
    histogram(
        "fan_out_seconds",
        "Time from when the bus hands messages to a worker until the worker has written to each of their sessions' \
         sockets once; one for each turn of a worker. What waits for a slow reader is not in it.",
        |snapshot| Value::Times(&snapshot.workers.fan_out),
    ),
    // Redis.
    gauge("channels", "Channels that are to be subscribed: those with sessions, and those that linger.", |snapshot| {
        size(snapshot.bus.channels)
    }),
    gauge("channels_lingering", "Channels without sessions that stay subscribed for a while.", |snapshot| {
        size(snapshot.bus.lingering)
    }),
    counter(
        "linger_evictions",
        "Channels that were unsubscribed before their time because more than `--max-lingering` lingered.",
        |snapshot| Value::Count(snapshot.bus.linger_evictions),
    ),
    gauge("channels_subscribed", "Channels whose subscription is confirmed.", |snapshot| size(snapshot.bus.subscribed)),
    gauge("channels_refused", "Channels that Redis refuses: their clients get nothing.", |snapshot| {
        size(snapshot.bus.refused_channels)
    }),
    counter(
        "channels_refused_seconds",
        "How long channels were refused, the times of all channels together.",
        |snapshot| Value::Time(snapshot.bus.refused_time),
    ),
    gauge(
        "bus_up",
        "1 if both connections to Redis take commands and all channels are subscribed; without Redis always 1.",
        |snapshot| flag(snapshot.is_up),
    ),
    counter(
        "redis_connects",
        "Connections made to Redis: two at a start, one or two more after each loss.",
        |snapshot| Value::Count(snapshot.bus.connects),
    ),
    counter("redis_losses", "Connections to Redis that worked and were lost.", |snapshot| {
        Value::Count(snapshot.bus.lost_connections)
    }),
    counter("redis_dial_failures", "Connections to Redis that could not be made.", |snapshot| {
        Value::Count(snapshot.bus.dial_failures)
    }),
    counter("gaps", "Stretches in which messages of others may have passed by.", |snapshot| {
        Value::Count(snapshot.bus.gaps)
    }),
    counter("gap_seconds", "How long the gaps that have ended were together.", |snapshot| {
        Value::Time(snapshot.bus.gap_time)
    }),
    histogram(
        "probe_seconds",
        "Time from when a probe was due until what was published came back through the connection that subscribes.",
        |snapshot| Value::Times(&snapshot.bus.probe_round_trip),
    ),
    counter("probes_missing", "Probes that did not come in within their time.", |snapshot| {
        Value::Count(snapshot.bus.probes_missing)
    }),
    histogram("publish_seconds", "Time from when a publish has left to Redis's reply.", |snapshot| {
        Value::Times(&snapshot.bus.publish_latency)
    }),
    counter("redis_received_bytes", "Bytes read from Redis.", |snapshot| Value::Count(snapshot.bus.bytes_in)),
    counter("redis_sent_bytes", "Bytes written to Redis.", |snapshot| Value::Count(snapshot.bus.bytes_out)),
    // Bounds.
    gauges(
        "buffer_bytes",
        "What is buffered: for sessions that are behind, in unfinished messages, of publishes that wait for Redis or its \
         confirmation, and for the worker that is furthest behind.",
        buffers,
    ),
    gauges(
        "memory_bound_bytes",
        "The most memory that the core can come to hold with as many connections as fanfare_connections_limit.",
        |snapshot, sink| snapshot.memory_bound.map_or(Ok(()), |bytes| sink(&[], size(bytes))),
    ),
    gauges("buffer_limit_bytes", "The bounds of fanfare_buffer_bytes.", buffer_limits),
    // The process.
    counters("process_cpu_seconds", "Time of processors that the process took.", |snapshot, sink| {
        of_process(snapshot, sink, |process| Value::Time(process.cpu))
    }),
    gauges("process_threads", "Threads of the process.", |snapshot, sink| {
        of_process(snapshot, sink, |process| Value::Count(process.threads))
    }),
    gauges("process_start_time_seconds", "When the process started, in seconds since 1970.", |snapshot, sink| {
        of_process(snapshot, sink, |process| Value::Time(process.started))
    }),
    gauges("process_virtual_memory_bytes", "The address space of the process.", |snapshot, sink| {
        of_process(snapshot, sink, |process| Value::Count(process.virtual_bytes))
    }),
    gauges("process_resident_memory_bytes", "The memory of the process.", |snapshot, sink| {
        of_process(snapshot, sink, |process| Value::Count(process.resident_bytes))
    }),
    gauges("process_open_fds", "Descriptors of the process.", |snapshot, sink| {
        of_process(snapshot, sink, |process| Value::Count(process.open_files))
    }),
    gauges("process_max_fds", "The most descriptors that the process may have.", |snapshot, sink| {
        of_process(snapshot, sink, |process| Value::Count(process.most_files))
    }),
];

const fn counter(name: &'static str, help: &'static str, value: fn(&Snapshot) -> Value<'_>) -> Metric {
    Metric { name, kind: MetricType::Counter, help, samples: Samples::One(value) }
}

const fn gauge(name: &'static str, help: &'static str, value: fn(&Snapshot) -> Value<'_>) -> Metric {
    Metric { name, kind: MetricType::Gauge, help, samples: Samples::One(value) }
}

const fn histogram(name: &'static str, help: &'static str, value: fn(&Snapshot) -> Value<'_>) -> Metric {
    Metric { name, kind: MetricType::Histogram, help, samples: Samples::One(value) }
}

const fn counters(name: &'static str, help: &'static str, samples: fn(&Snapshot, Sink<'_>) -> fmt::Result) -> Metric {
    Metric { name, kind: MetricType::Counter, help, samples: Samples::Labelled(samples) }
}

const fn gauges(name: &'static str, help: &'static str, samples: fn(&Snapshot, Sink<'_>) -> fmt::Result) -> Metric {
    Metric { name, kind: MetricType::Gauge, help, samples: Samples::Labelled(samples) }
}

impl Samples {
    /// Gives each sample to `sink`.
    pub(super) fn give(&self, snapshot: &Snapshot, sink: Sink<'_>) -> fmt::Result {
        match self {
            Self::One(value) => sink(&[], value(snapshot)),
            Self::Labelled(samples) => samples(snapshot, sink),
        }
    }
}

fn of_process(snapshot: &Snapshot, sink: Sink<'_>, value: fn(&Process) -> Value<'static>) -> fmt::Result {
    snapshot.process.as_ref().map_or(Ok(()), |process| sink(&[], value(process)))
}

fn flag(value: bool) -> Value<'static> {
    Value::Count(u64::from(value))
}

fn size(value: usize) -> Value<'static> {
    Value::Count(value as u64)
}

fn unready(snapshot: &Snapshot, sink: Sink<'_>) -> fmt::Result {
    let value = |reason| flag(snapshot.readiness == Err(reason));
    Unready::ALL.into_iter().try_for_each(|reason| sink(&[("reason", &snake(reason))], value(reason)))
}

fn sessions(snapshot: &Snapshot, sink: Sink<'_>) -> fmt::Result {
    let stages = &snapshot.workers.stages;
    let counts = [
        ("head", stages.head),
        ("deciding", stages.deciding),
        ("joining", stages.joining),
        ("open", stages.open),
        ("closing", stages.closing),
        ("answered", stages.answered),
    ];
    counts.into_iter().try_for_each(|(stage, count)| sink(&[("stage", stage)], size(count)))
}

fn sessions_closed(snapshot: &Snapshot, sink: Sink<'_>) -> fmt::Result {
    snapshot.workers.stats.closes.iter().try_for_each(|(by, code, count)| {
        let by = match by {
            Side::Local => "server",
            Side::Peer => "client",
            Side::Transport => "network",
        };
        let code = match code {
            Code::Missing => "none".to_owned(),
            Code::Known(code) => code.to_string(),
            Code::Other => "other".to_owned(),
        };
        sink(&[("by", by), ("code", &code)], Value::Count(count))
    })
}

/// Those that are told by a status, or the others.
fn errors(snapshot: &Snapshot, sink: Sink<'_>, by_status: bool) -> fmt::Result {
    let is_wanted = |error: &Error| matches!(error.told(), Told::Status(_)) == by_status;
    let counts = snapshot.workers.stats.errors.iter().filter(|(error, _)| is_wanted(error));
    counts.into_iter().try_for_each(|(error, count)| sink(&[("error", &snake(error))], Value::Count(count)))
}

fn publishes_lost(snapshot: &Snapshot, sink: Sink<'_>) -> fmt::Result {
    let bus::Stats { expired, unconfirmed, refused, .. } = snapshot.bus;
    let counts = [("expired", expired), ("unconfirmed", unconfirmed), ("refused", refused)];
    counts.into_iter().try_for_each(|(reason, count)| sink(&[("reason", reason)], Value::Count(count)))
}

fn messages_dropped(snapshot: &Snapshot, sink: Sink<'_>) -> fmt::Result {
    let bus::Stats { not_utf8, oversized, missed, .. } = snapshot.bus;
    let closing = snapshot.workers.stats.discarded;
    let counts = [("not_utf8", not_utf8), ("oversized", oversized), ("mailbox", missed), ("closing", closing)];
    counts.into_iter().try_for_each(|(reason, count)| sink(&[("reason", reason)], Value::Count(count)))
}

fn slow_reader_drops(snapshot: &Snapshot, sink: Sink<'_>) -> fmt::Result {
    let shard::Stats { dropped_newest, dropped_oldest, dropped_latest, .. } = snapshot.workers.stats;
    let counts = [("drop_newest", dropped_newest), ("drop_oldest", dropped_oldest), ("latest", dropped_latest)];
    counts.into_iter().try_for_each(|(slow, count)| sink(&[("slow", slow)], Value::Count(count)))
}

fn buffers(snapshot: &Snapshot, sink: Sink<'_>) -> fmt::Result {
    let (Share { stats, .. }, bus) = (&snapshot.workers, &snapshot.bus);
    named_buffers(sink, [stats.queued_bytes, stats.partial_bytes, bus.publish_bytes, bus.fullest_mailbox])
}

fn buffer_limits(snapshot: &Snapshot, sink: Sink<'_>) -> fmt::Result {
    let &Limits { all_queues_bytes, partial_bytes, publish_bytes, mailbox_bytes, .. } = &snapshot.limits;
    named_buffers(sink, [all_queues_bytes, partial_bytes, publish_bytes, mailbox_bytes])
}

fn named_buffers(sink: Sink<'_>, bytes: [usize; 4]) -> fmt::Result {
    let names = ["queues", "partial", "publishes", "mailbox"];
    names.into_iter().zip(bytes).try_for_each(|(buffer, bytes)| sink(&[("buffer", buffer)], size(bytes)))
}

/// `SlowReader` as `slow_reader`.
fn snake(name: impl fmt::Debug) -> String {
    let mut snake = String::new();
    for letter in format!("{name:?}").chars() {
        if letter.is_ascii_uppercase() && !snake.is_empty() {
            snake.push('_');
        }
        snake.push(letter.to_ascii_lowercase());
    }
    snake
}
