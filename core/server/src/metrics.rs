//! The metrics of an instance in [Prometheus' text
//! format](https://prometheus.io/docs/instrumenting/exposition_formats/).
//!
//! A [`Snapshot`] holds the numbers of one moment. A server of [`Config::setup`](crate::Config::setup) answers on its
//! admin address by itself. For a hub or a node write [`text`], or answer its
//! [`Event::Scrape`](fanfare_core::shard::Event::Scrape) with [`answer`].
//!
//! Counters only grow while the process runs. Every label has few values, all of them there from the start, and none is
//! a client's or an embedder's choice: no channel, no address.
//!
//! ```
//! use fanfare_core::node::Node;
//! use fanfare_core::settings::Settings;
//! use fanfare_core::time::Instant;
//! use fanfare_server::metrics;
//!
//! let node = Node::new(Settings::default(), None, 42, Instant::ZERO);
//! let text = metrics::text(&node.metrics());
//! assert!(text.contains("\nfanfare_deliveries_total 0\n"));
//! ```

use core::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet, prometheus_text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use fanfare_core::http::Answer;
use fanfare_core::snapshot::Snapshot;
use fanfare_core::time::Duration;
use table::{METRICS, Metric, Value};

mod table;
#[cfg(test)]
mod tests;

/// The media type of the text in an HTTP answer.
pub const CONTENT_TYPE: &str = prometheus_text::CONTENT_TYPE;

/// The system's numbers of a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Process {
    /// Time of processors that it took.
    pub(crate) cpu: Duration,
    /// Its threads.
    pub(crate) threads: u64,
    /// When it started, since 1970.
    pub(crate) started: Duration,
    /// Its address space.
    pub(crate) virtual_bytes: u64,
    /// Its memory.
    pub(crate) resident_bytes: u64,
    /// Its descriptors.
    pub(crate) open_files: u64,
    /// How many it may have.
    pub(crate) most_files: u64,
}

/// The numbers of one moment, from which the text is made.
#[derive(Clone, Debug, Default)]
struct Numbers {
    instance: Snapshot,
    /// Of the process, if it is one of the binaries and the system tells.
    process: Option<Process>,
    /// Lines of the log that were lost, if the process has that of the binaries.
    log_lines_dropped: u64,
}

/// The metrics of an instance as text.
#[must_use]
pub fn text(instance: &Snapshot) -> String {
    Numbers { instance: instance.clone(), ..Numbers::default() }.text()
}

/// The answer to a request for `/metrics`.
#[must_use]
pub fn answer(instance: &Snapshot) -> Answer {
    answer_with(&text(instance))
}

/// The same for a process of its own, with the system's numbers of it.
#[cfg(feature = "cli")]
pub(crate) fn answer_of_process(instance: &Snapshot) -> Answer {
    let (process, log_lines_dropped) = (crate::process::now(), crate::log::dropped());
    answer_with(&Numbers { instance: instance.clone(), process, log_lines_dropped }.text())
}

fn answer_with(text: &str) -> Answer {
    Answer::text(200, text.to_owned()).with_field("Content-Type", CONTENT_TYPE)
}

impl Numbers {
    fn text(self) -> String {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(self));
        let mut text = String::new();
        // Writing to a string does not fail, nor does any label or number here.
        let _ = prometheus_text::encode(&mut text, &registry);
        text
    }
}

impl Collector for Numbers {
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

    fn encode(&self, numbers: &Numbers, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let name = self.full_name();
        let mut samples = encoder.encode_descriptor(&name, self.help, None, self.kind)?;
        self.samples.give(numbers, &mut |labels: &[(&str, &str)], value| {
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
    let blank = Numbers::default();
    let rows = METRICS.iter().map(|metric| metric.row(&blank));
    ["| metric | type | labels | meaning |\n| --- | --- | --- | --- |\n".to_owned()].into_iter().chain(rows).collect()
}

impl Metric {
    fn row(&self, blank: &Numbers) -> String {
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
