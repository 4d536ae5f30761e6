//! What an instance counts, in [Prometheus' text format](https://prometheus.io/docs/instrumenting/exposition_formats/).
//!
//! A [`Snapshot`] holds the numbers of one moment: what the bus counts, and the sum of what the workers count. There is
//! no registry and nothing global; counting is plain additions where things happen, and all else is done when somebody
//! asks. A [`Node`](crate::node::Node) answers who connects for operation by itself; with several workers collect a
//! [`Share`] of each and answer [`Event::Scrape`](crate::shard::Event::Scrape) with [`Snapshot::answer`].
//!
//! Counters only grow while the process runs. Every label has few values, all of them there from the start, and none is
//! a client's or an embedder's choice: no channel, no address.

use core::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet, prometheus_text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use crate::bus::{self, Bus};
use crate::error::Unready;
use crate::histogram::Histogram;
use crate::http::Answer;
use crate::limits::Limits;
use crate::shard::{self, Shard};
use crate::time::Duration;
use table::{METRICS, Metric, Value};

mod table;
#[cfg(test)]
mod tests;

/// What the text is called in an HTTP answer.
pub const CONTENT_TYPE: &str = prometheus_text::CONTENT_TYPE;

/// What one worker counts.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Share {
    /// Of its shard.
    pub stats: shard::Stats,
    /// How far its sessions are.
    pub stages: shard::Stages,
    /// How long messages took from the bus's handing them over until each session's socket was written to once.
    /// Whoever drives the sockets measures it.
    pub fan_out: Histogram,
}

impl Share {
    /// The numbers of a worker. It looks at each of its sessions.
    #[must_use]
    pub fn new(shard: &Shard, fan_out: &Histogram) -> Self {
        Self { stats: shard.stats(), stages: shard.stages(), fan_out: *fan_out }
    }
}

/// What the system counts of a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Process {
    /// Time of processors that it took.
    pub cpu: Duration,
    /// Its threads.
    pub threads: u64,
    /// When it started, since 1970.
    pub started: Duration,
    /// Its address space.
    pub virtual_bytes: u64,
    /// Its memory.
    pub resident_bytes: u64,
    /// Its descriptors.
    pub open_files: u64,
    /// How many it may have.
    pub most_files: u64,
}

/// What an instance counts, at one moment.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Snapshot {
    /// Of the bus.
    pub bus: bus::Stats,
    /// Whether messages flow both ways.
    pub is_up: bool,
    /// What `/ready` tells.
    pub readiness: Result<(), Unready>,
    /// The bounds of what is buffered.
    pub limits: Limits,
    /// Since the start.
    pub uptime: Duration,
    /// The most connections of clients, if whoever drives the sockets has a bound.
    pub most_connections: Option<usize>,
    /// Connections that were accepted although there were as many.
    pub crowded: u64,
    /// How often accepting rested because no descriptor or memory was left.
    pub accept_rests: u64,
    /// Of the process, if it is one of the binaries and the system tells.
    pub process: Option<Process>,
    /// The source that the binary was built from, if whoever built it said so: `FANFARE_COMMIT` in the environment of the
    /// build.
    pub commit: &'static str,
    /// Whether messages go through Redis, not through this process alone.
    pub is_redis: bool,
    /// Lines of the log that were lost, if the process has that of the binaries.
    pub log_lines_dropped: u64,
    /// What the core can come to hold with as many connections, by its configuration.
    pub memory_bound: Option<usize>,
    /// The sum over all workers.
    pub workers: Share,
    /// How many workers that is.
    pub worker_count: usize,
    /// Those of them that did not tell their numbers in time, so that older ones stand for them.
    pub late_workers: usize,
}

impl Snapshot {
    /// What the bus counts and the worker says that is asked, yet without its share or any other.
    #[must_use]
    pub fn new(bus: &Bus, shard: &Shard, uptime: Duration) -> Self {
        let (is_up, readiness) = (bus.is_up(), shard.readiness());
        let (is_redis, commit) = (bus.is_redis(), option_env!("FANFARE_COMMIT").unwrap_or("unknown"));
        Self { bus: bus.stats(), is_up, readiness, uptime, is_redis, commit, ..Self::blank(shard.limits()) }
    }

    fn blank(limits: &Limits) -> Self {
        Self {
            bus: bus::Stats::default(),
            is_up: false,
            readiness: Ok(()),
            limits: limits.clone(),
            uptime: Duration::ZERO,
            most_connections: None,
            crowded: 0,
            accept_rests: 0,
            process: None,
            commit: "unknown",
            is_redis: false,
            log_lines_dropped: 0,
            memory_bound: None,
            workers: Share::default(),
            worker_count: 0,
            late_workers: 0,
        }
    }

    /// Adds what one worker counts.
    #[must_use]
    pub fn with(mut self, share: &Share) -> Self {
        self.workers.stats.add(&share.stats);
        self.workers.stages.add(&share.stages);
        self.workers.fan_out.add(&share.fan_out);
        self.worker_count += 1;
        self
    }

    /// The whole text.
    #[must_use]
    pub fn text(&self) -> String {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(self.clone()));
        let mut text = String::new();
        // Writing to a string does not fail, nor does any label or number here.
        let _ = prometheus_text::encode(&mut text, &registry);
        text
    }

    /// The answer to who asks for `/metrics`.
    #[must_use]
    pub fn answer(&self) -> Answer {
        Answer::text(200, self.text()).with_field("Content-Type", CONTENT_TYPE)
    }
}

impl Collector for Snapshot {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        METRICS.iter().try_for_each(|metric| metric.encode(self, &mut encoder))
    }
}

impl Metric {
    /// What every process has is called alike everywhere.
    fn full_name(&self) -> String {
        let prefix = if self.name.starts_with("process_") { "" } else { "fanfare_" };
        format!("{prefix}{}", self.name)
    }

    fn encode(&self, snapshot: &Snapshot, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let name = self.full_name();
        let mut samples = encoder.encode_descriptor(&name, self.help, None, self.kind)?;
        self.samples.give(snapshot, &mut |labels: &[(&str, &str)], value| {
            let mut sample = samples.encode_family(&labels)?;
            match (self.kind, value) {
                (MetricType::Counter, Value::Count(count)) => sample.encode_counter::<NoLabelSet, _, f64>(&count, None),
                (MetricType::Counter, Value::Time(time)) => {
                    sample.encode_counter::<NoLabelSet, _, f64>(&time.as_secs_f64(), None)
                }
                (_, Value::Count(count)) => sample.encode_gauge(&count),
                (_, Value::Time(time)) => sample.encode_gauge(&time.as_secs_f64()),
                (_, Value::Times(times)) => {
                    let mut below = 0;
                    // Each bucket without those before it, as the encoder wants them.
                    let buckets = times.buckets().map(|(bound, count)| {
                        let own = count - core::mem::replace(&mut below, count);
                        (bound.as_secs_f64(), own)
                    });
                    let buckets: Vec<(f64, u64)> = buckets.collect();
                    sample.encode_histogram::<NoLabelSet>(times.sum().as_secs_f64(), times.count(), &buckets, None)
                }
            }
        })
    }
}

/// All metrics as a Markdown table, for the manual.
#[must_use]
pub fn metrics_table() -> String {
    let blank = Snapshot::blank(&Limits::default());
    let rows = METRICS.iter().map(|metric| metric.row(&blank));
    ["| metric | type | labels | meaning |\n| --- | --- | --- | --- |\n".to_owned()].into_iter().chain(rows).collect()
}

impl Metric {
    fn row(&self, blank: &Snapshot) -> String {
        let mut labels: Vec<(String, Vec<String>)> = Vec::new();
        let mut collect = |sample: &[(&str, &str)], _: Value<'_>| {
            for &(name, value) in sample {
                let value = format!("`{value}`");
                match labels.iter_mut().find(|(other, _)| other == name) {
                    None => labels.push((name.to_owned(), vec![value])),
                    Some((_, values)) if values.contains(&value) => {}
                    Some((_, values)) => values.push(value),
                }
            }
            Ok(())
        };
        // Nothing fails that only collects.
        let _ = self.samples.give(blank, &mut collect);
        let labels: Vec<_> = labels.iter().map(|(name, values)| format!("`{name}`: {}", values.join(", "))).collect();
        let total = if self.kind == MetricType::Counter { "_total" } else { "" };
        let (name, kind, help) = (self.full_name(), self.kind.as_str(), self.help);
        format!("| `{name}{total}` | {kind} | {} | {help} |\n", labels.join("; "))
    }
}
