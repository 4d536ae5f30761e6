//! Every metric: what it is called, what it means, where its numbers are.

use core::fmt;

use prometheus_client::metrics::MetricType;

use super::{Numbers, Process};
use fanfare_core::bus;
use fanfare_core::error::{Error, Side, Unready};
use fanfare_core::histogram::Histogram;
use fanfare_core::limits::Limits;
use fanfare_core::shard::{self, Code};
use fanfare_core::time::Duration;

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
    One(fn(&Numbers) -> Value<'_>),
    /// Names every sample.
    Labelled(fn(&Numbers, Sink<'_>) -> fmt::Result),
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

/// The commit that this was built from, if it is known: see `build.rs`.
const COMMIT: &str = env!("FANFARE_BUILT_FROM");

pub(super) const METRICS: &[Metric] = &[
    // The instance.
    gauges(
        "build_info",
        "1, with the version of the core and the source of the build, if that is known.",
        |_, sink| sink(&[("version", env!("CARGO_PKG_VERSION")), ("commit", COMMIT)], Value::Count(1)),
    ),
    gauge("uptime_seconds", "Time since the start.", |numbers| Value::Time(numbers.instance.uptime)),
    gauge("ready", "1 if /ready says so, else 0.", |numbers| flag(numbers.instance.readiness.is_ok())),
    gauges("unready", "1 for the reason that /ready gives, 0 for all others.", unready),
    gauges("bus", "1 for the kind of bus that carries messages, 0 for the other.", |numbers, sink| {
        sink(&[("kind", "redis")], flag(numbers.instance.is_redis))?;
        sink(&[("kind", "process")], flag(!numbers.instance.is_redis))
    }),
    gauge("workers", "Threads that serve sessions.", |numbers| size(numbers.instance.worker_count)),
    gauge(
        "workers_late",
        "Workers that did not report their numbers within a second; their last numbers are used.",
        |numbers| size(numbers.instance.late_workers),
    ),
    counter("log_lines_dropped", "Lines of the log that were lost because they could not be written.", |numbers| {
        Value::Count(numbers.log_lines_dropped)
    }),
    // Sessions.
    gauges(
        "sessions",
        "Connections now, by stage, those to the admin address included; open is an open WebSocket.",
        sessions,
    ),
    counter("sessions_opened", "WebSockets opened.", |numbers| Value::Count(numbers.instance.workers.stats.opened)),
    counters(
        "sessions_closed",
        "WebSockets ended, by the side that ended them and the close code that was sent or received first.",
        sessions_closed,
    ),
    counters("session_errors", "WebSockets that an error ended, by the error.", |numbers, sink| {
        errors(numbers, sink, false)
    }),
    counters("refusals", "Requests that were refused, by the error.", |numbers, sink| errors(numbers, sink, true)),
    counter("session_pauses", "Times that a message was held because no more publishes may wait.", |numbers| {
        Value::Count(numbers.instance.workers.stats.pauses)
    }),
    gauges(
        "connections_limit",
        "The most connections of clients: what the limit of open files or --max-connections allows.",
        |numbers, sink| numbers.instance.most_connections.map_or(Ok(()), |most| sink(&[], size(most))),
    ),
    counter(
        "crowded_connections",
        "Connections accepted although all places were taken: they got an answer, or the place of a connection that had sent no request.",
        |numbers| Value::Count(numbers.instance.crowded),
    ),
    counter("accept_rests", "Times that accepting stopped because no descriptor or memory was left.", |numbers| {
        Value::Count(numbers.instance.accept_rests)
    }),
    // Messages.
    counter("client_messages", "Messages from clients.", |numbers| {
        Value::Count(numbers.instance.workers.stats.messages_in)
    }),
    counter("publishes", "Messages accepted for the bus, from clients and from the embedding program.", |numbers| {
        Value::Count(numbers.instance.bus.publishes)
    }),
    gauge("publishes_waiting", "Publishes that have yet to leave for Redis.", |numbers| {
        size(numbers.instance.bus.unsent)
    }),
    counters(
        "publishes_lost",
        "Publishes that expired, that were not confirmed when a connection was lost and may have arrived, or that Redis refused.",
        publishes_lost,
    ),
    counter("bus_messages", "Messages that came from the bus.", |numbers| Value::Count(numbers.instance.bus.messages)),
    counters(
        "messages_dropped",
        "Messages dropped before they were in any queue: no UTF-8 on a text channel, above the limit, no room in a \
         worker's mailbox, or, without credit, behind the Close of a session or the cause of it.",
        messages_dropped,
    ),
    counter("deliveries", "Messages put into sessions' queues: one for each message and session.", |numbers| {
        Value::Count(numbers.instance.workers.stats.deliveries)
    }),
    counters(
        "slow_reader_drops",
        "Messages that slow readers lost, by what their route says: each message once for each of them.",
        slow_reader_drops,
    ),
    counter("client_received_bytes", "Bytes read from clients, requests and frame headers among them.", |numbers| {
        Value::Count(numbers.instance.workers.stats.bytes_in)
    }),
    counter("client_sent_bytes", "Bytes written to clients, answers and frame headers among them.", |numbers| {
        Value::Count(numbers.instance.workers.stats.bytes_out)
    }),
    histogram(
        "fan_out_seconds",
        "Time from when the bus hands messages to a worker until the worker has written to each of their sessions' \
         sockets once; one for each turn of a worker. What waits for a slow reader is not in it.",
        |numbers| Value::Times(&numbers.instance.workers.fan_out),
    ),
    // Redis.
    gauge("channels", "Channels that are to be subscribed: those with sessions, and those that linger.", |numbers| {
        size(numbers.instance.bus.channels)
    }),
    gauge("channels_lingering", "Channels without sessions that stay subscribed for a while.", |numbers| {
        size(numbers.instance.bus.lingering)
    }),
    counter(
        "linger_evictions",
        "Channels that were unsubscribed before their time because more than `--max-lingering` lingered.",
        |numbers| Value::Count(numbers.instance.bus.linger_evictions),
    ),
    gauge("channels_subscribed", "Channels whose subscription is confirmed.", |numbers| {
        size(numbers.instance.bus.subscribed)
    }),
    gauge("channels_refused", "Channels that Redis refuses: their clients get nothing.", |numbers| {
        size(numbers.instance.bus.refused_channels)
    }),
    counter(
        "channels_refused_seconds",
        "Total time for which channels were refused, added up over all channels.",
        |numbers| Value::Time(numbers.instance.bus.refused_time),
    ),
    gauge(
        "bus_up",
        "1 if both connections to Redis take commands and all channels are subscribed; without Redis always 1.",
        |numbers| flag(numbers.instance.is_up),
    ),
    counter(
        "redis_connects",
        "Connections made to Redis: two at a start, one or two more after each loss.",
        |numbers| Value::Count(numbers.instance.bus.connects),
    ),
    counter("redis_losses", "Connections to Redis that worked and were lost.", |numbers| {
        Value::Count(numbers.instance.bus.lost_connections)
    }),
    counter("redis_dial_failures", "Connections to Redis that could not be made.", |numbers| {
        Value::Count(numbers.instance.bus.dial_failures)
    }),
    counter("gaps", "Periods in which messages of other instances may have been missed.", |numbers| {
        Value::Count(numbers.instance.bus.gaps)
    }),
    counter("gap_seconds", "Total time of the gaps that have ended.", |numbers| {
        Value::Time(numbers.instance.bus.gap_time)
    }),
    histogram(
        "probe_seconds",
        "Time from when a probe was due until what was published came back through the connection that subscribes.",
        |numbers| Value::Times(&numbers.instance.bus.probe_round_trip),
    ),
    counter("probes_missing", "Probes that did not come back in time.", |numbers| {
        Value::Count(numbers.instance.bus.probes_missing)
    }),
    histogram("publish_seconds", "Time from when a publish has left to Redis's reply.", |numbers| {
        Value::Times(&numbers.instance.bus.publish_latency)
    }),
    counter("redis_received_bytes", "Bytes read from Redis.", |numbers| Value::Count(numbers.instance.bus.bytes_in)),
    counter("redis_sent_bytes", "Bytes written to Redis.", |numbers| Value::Count(numbers.instance.bus.bytes_out)),
    // Bounds.
    gauges(
        "buffer_bytes",
        "Bytes in buffers: for sessions that are behind, of unfinished messages, of publishes that wait for Redis or its confirmation, and for the worker that is furthest behind, which tells what it has taken in a quarter of the bound at a time: up to as much shows when nothing waits.",
        buffers,
    ),
    gauges(
        "memory_bound_bytes",
        "The most memory that the core can hold with fanfare_connections_limit connections.",
        |numbers, sink| numbers.instance.memory_bound.map_or(Ok(()), |bytes| sink(&[], size(bytes))),
    ),
    gauges("buffer_limit_bytes", "The bounds of fanfare_buffer_bytes.", buffer_limits),
    // The process.
    counters("process_cpu_seconds", "Time of processors that the process took.", |numbers, sink| {
        of_process(numbers, sink, |process| Value::Time(process.cpu))
    }),
    gauges("process_threads", "Threads of the process.", |numbers, sink| {
        of_process(numbers, sink, |process| Value::Count(process.threads))
    }),
    gauges("process_start_time_seconds", "When the process started, in seconds since 1970.", |numbers, sink| {
        of_process(numbers, sink, |process| Value::Time(process.started))
    }),
    gauges("process_virtual_memory_bytes", "The address space of the process.", |numbers, sink| {
        of_process(numbers, sink, |process| Value::Count(process.virtual_bytes))
    }),
    gauges("process_resident_memory_bytes", "The memory of the process.", |numbers, sink| {
        of_process(numbers, sink, |process| Value::Count(process.resident_bytes))
    }),
    gauges("process_open_fds", "Descriptors of the process.", |numbers, sink| {
        of_process(numbers, sink, |process| Value::Count(process.open_files))
    }),
    gauges("process_max_fds", "The most descriptors that the process may have.", |numbers, sink| {
        of_process(numbers, sink, |process| Value::Count(process.most_files))
    }),
];

const fn counter(name: &'static str, help: &'static str, value: fn(&Numbers) -> Value<'_>) -> Metric {
    Metric { name, kind: MetricType::Counter, help, samples: Samples::One(value) }
}

const fn gauge(name: &'static str, help: &'static str, value: fn(&Numbers) -> Value<'_>) -> Metric {
    Metric { name, kind: MetricType::Gauge, help, samples: Samples::One(value) }
}

const fn histogram(name: &'static str, help: &'static str, value: fn(&Numbers) -> Value<'_>) -> Metric {
    Metric { name, kind: MetricType::Histogram, help, samples: Samples::One(value) }
}

const fn counters(name: &'static str, help: &'static str, samples: fn(&Numbers, Sink<'_>) -> fmt::Result) -> Metric {
    Metric { name, kind: MetricType::Counter, help, samples: Samples::Labelled(samples) }
}

const fn gauges(name: &'static str, help: &'static str, samples: fn(&Numbers, Sink<'_>) -> fmt::Result) -> Metric {
    Metric { name, kind: MetricType::Gauge, help, samples: Samples::Labelled(samples) }
}

impl Samples {
    /// Gives each sample to `sink`.
    pub(super) fn give(&self, numbers: &Numbers, sink: Sink<'_>) -> fmt::Result {
        match self {
            Self::One(value) => sink(&[], value(numbers)),
            Self::Labelled(samples) => samples(numbers, sink),
        }
    }
}

fn of_process(numbers: &Numbers, sink: Sink<'_>, value: fn(&Process) -> Value<'static>) -> fmt::Result {
    numbers.process.as_ref().map_or(Ok(()), |process| sink(&[], value(process)))
}

fn flag(value: bool) -> Value<'static> {
    Value::Count(u64::from(value))
}

fn size(value: usize) -> Value<'static> {
    Value::Count(value as u64)
}

fn unready(numbers: &Numbers, sink: Sink<'_>) -> fmt::Result {
    let value = |reason| flag(numbers.instance.readiness == Err(reason));
    Unready::ALL.into_iter().try_for_each(|reason| sink(&[("reason", &snake(reason))], value(reason)))
}

fn sessions(numbers: &Numbers, sink: Sink<'_>) -> fmt::Result {
    let stages = &numbers.instance.workers.stages;
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

fn sessions_closed(numbers: &Numbers, sink: Sink<'_>) -> fmt::Result {
    numbers.instance.workers.stats.closes.iter().try_for_each(|(by, code, count)| {
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

/// Those that clients get as a status, or the others.
fn errors(numbers: &Numbers, sink: Sink<'_>, by_status: bool) -> fmt::Result {
    let is_wanted = |error: &Error| error.told().status().is_some() == by_status;
    let counts = numbers.instance.workers.stats.errors.iter().filter(|(error, _)| is_wanted(error));
    counts.into_iter().try_for_each(|(error, count)| sink(&[("error", &snake(error))], Value::Count(count)))
}

fn publishes_lost(numbers: &Numbers, sink: Sink<'_>) -> fmt::Result {
    let bus::Stats { expired, unconfirmed, refused, .. } = numbers.instance.bus;
    let counts = [("expired", expired), ("unconfirmed", unconfirmed), ("refused", refused)];
    counts.into_iter().try_for_each(|(reason, count)| sink(&[("reason", reason)], Value::Count(count)))
}

fn messages_dropped(numbers: &Numbers, sink: Sink<'_>) -> fmt::Result {
    let bus::Stats { not_utf8, oversized, missed, .. } = numbers.instance.bus;
    let closing = numbers.instance.workers.stats.discarded;
    let counts = [("not_utf8", not_utf8), ("oversized", oversized), ("mailbox", missed), ("closing", closing)];
    counts.into_iter().try_for_each(|(reason, count)| sink(&[("reason", reason)], Value::Count(count)))
}

fn slow_reader_drops(numbers: &Numbers, sink: Sink<'_>) -> fmt::Result {
    let shard::Stats { dropped_newest, dropped_oldest, dropped_latest, .. } = numbers.instance.workers.stats;
    let counts = [("drop_newest", dropped_newest), ("drop_oldest", dropped_oldest), ("latest", dropped_latest)];
    counts.into_iter().try_for_each(|(slow, count)| sink(&[("slow", slow)], Value::Count(count)))
}

fn buffers(numbers: &Numbers, sink: Sink<'_>) -> fmt::Result {
    let (stats, bus) = (&numbers.instance.workers.stats, &numbers.instance.bus);
    named_buffers(sink, [stats.queued_bytes, stats.partial_bytes, bus.publish_bytes, bus.fullest_mailbox])
}

fn buffer_limits(numbers: &Numbers, sink: Sink<'_>) -> fmt::Result {
    let &Limits { all_queues_bytes, partial_bytes, publish_bytes, mailbox_bytes, .. } = &numbers.instance.limits;
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
