//! The log of a process, and its few lines about start and end.

use core::fmt::{self, Write};
use std::backtrace::{Backtrace, BacktraceStatus};
use std::io;
use std::os::fd::AsFd;
use std::panic::{self, PanicHookInfo};
use std::sync::OnceLock;

use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Level, Metadata};
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FormatFields, MakeWriter};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use super::outlet::Outlet;
use crate::config::{Log, LogFormat};
use fanfare_core::quote::{Plain, Quoted};

/// Lines of these targets are written at any level: those for standard output, and those about a start or an end.
pub(super) const ANNOUNCED: &str = "fanfare::announced";
const COMPLAINED: &str = "fanfare::complained";

/// The outputs of this process, which has one log and one panic hook.
static VOICE: OnceLock<Voice> = OnceLock::new();

#[derive(Debug)]
struct Voice {
    out: Outlet,
    err: Outlet,
    format: LogFormat,
}

/// Takes over standard output and standard error. From here on no output makes this process wait, and all of standard
/// error has one format, a panic included.
pub(super) fn start(log: &Log) -> io::Result<()> {
    let out = Outlet::start("out", io::stdout().as_fd().try_clone_to_owned()?, |_| {})?;
    let err = Outlet::start("log", io::stderr().as_fd().try_clone_to_owned()?, |lines| {
        tracing::warn!(event = "log_lines_dropped", lines, "lines of this log were lost: they could not be written");
    })?;
    if VOICE.set(Voice { out, err, format: log.format }).is_err() {
        return Ok(());
    }
    let targets = Targets::new()
        .with_default(log.level)
        .with_targets(log.parts.iter().flat_map(|&(part, level)| targets(part).map(move |target| (target, level))))
        .with_target(ANNOUNCED, LevelFilter::INFO)
        .with_target(COMPLAINED, LevelFilter::INFO);
    // What cannot be written must not be reported by a print of its own, which would panic.
    let builder = tracing_subscriber::fmt()
        .with_max_level(
            log.parts.iter().map(|&(_, level)| level).fold(log.level.max(LevelFilter::INFO), LevelFilter::max),
        )
        .with_writer(ByTarget)
        .with_target(false)
        .with_ansi(false)
        .log_internal_errors(false);
    // A subscriber that is set already stays.
    let _ = match log.format {
        LogFormat::Text => builder.fmt_fields(ForPeople).finish().with(targets).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).finish().with(targets).try_init(),
    };
    panic::set_hook(Box::new(log_panic));
    Ok(())
}

/// Where the lines of one of [`Log::PARTS`] come from.
fn targets(part: &str) -> impl Iterator<Item = String> {
    let of_process = ["fanfare_drive", "fanfare_server"].map(str::to_owned);
    let (core, others) = if part == "drive" { (None, Some(of_process)) } else { (Some(part), None) };
    core.map(|part| format!("fanfare_core::{part}")).into_iter().chain(others.into_iter().flatten())
}

/// Waits for the last lines, for a bounded time.
pub(super) fn finish() {
    if let Some(Voice { out, err, .. }) = VOICE.get() {
        out.finish();
        err.finish();
    }
}

/// Log lines that were lost since the start.
pub(super) fn dropped() -> u64 {
    VOICE.get().map_or(0, |voice| voice.err.dropped())
}

/// Lines for standard output, which are facts in JSON.
pub(super) fn announce(text: &str, facts: impl FnOnce()) {
    match VOICE.get() {
        Some(Voice { out, format: LogFormat::Text, .. }) => out.push(text.as_bytes()),
        Some(_) => facts(),
        None => {}
    }
}

/// A line about a start or an end, on standard error.
pub(super) fn complain(event: &'static str, level: Level, line: &str) {
    match VOICE.get() {
        Some(Voice { err, format: LogFormat::Text, .. }) => err.push(format!("{line}\n").as_bytes()),
        Some(_) if level == Level::WARN => tracing::warn!(target: COMPLAINED, event, "{line}"),
        Some(_) => tracing::error!(target: COMPLAINED, event, "{line}"),
        None => {}
    }
}

/// In the place of the standard library's hook, which would print past the log.
fn log_panic(info: &PanicHookInfo<'_>) {
    let payload = info.payload();
    let text = payload.downcast_ref::<&str>().copied().or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    let text = text.unwrap_or("no text");
    let place = info.location().map(tracing::field::display);
    let thread = std::thread::current();
    let backtrace = Backtrace::capture();
    let backtrace = (backtrace.status() == BacktraceStatus::Captured).then(|| backtrace.to_string());
    tracing::error!(
        target: COMPLAINED,
        event = "panic",
        thread = thread.name(),
        place,
        backtrace,
        "a defect of this program, please report it: {text}"
    );
    finish();
}

/// Which output a line is for.
struct ByTarget;

impl<'a> MakeWriter<'a> for ByTarget {
    type Writer = Lines;

    fn make_writer(&'a self) -> Lines {
        Lines(VOICE.get().map(|voice| &voice.err))
    }

    fn make_writer_for(&'a self, metadata: &Metadata<'_>) -> Lines {
        let is_announced = metadata.target() == ANNOUNCED;
        Lines(VOICE.get().map(|voice| if is_announced { &voice.out } else { &voice.err }))
    }
}

/// Accepts whole lines from the formatter.
struct Lines(Option<&'static Outlet>);

impl io::Write for Lines {
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        if let Some(outlet) = self.0 {
            outlet.push(lines);
        }
        Ok(lines.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes a line's fields: the message as it is, and the others with their names, texts in quotes. The name of the
/// event is for programs.
struct ForPeople;

impl<'writer> FormatFields<'writer> for ForPeople {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'writer>, fields: R) -> fmt::Result {
        let mut text = TextFields { writer, is_first: true, result: Ok(()) };
        fields.record(&mut text);
        text.result
    }
}

struct TextFields<'writer> {
    writer: Writer<'writer>,
    is_first: bool,
    result: fmt::Result,
}

impl TextFields<'_> {
    fn write(&mut self, field: &Field, value: fmt::Arguments<'_>) {
        if field.name() == "event" || self.result.is_err() {
            return;
        }
        let blank = if std::mem::take(&mut self.is_first) { "" } else { " " };
        self.result = match field.name() {
            "message" => write!(self.writer, "{blank}").and_then(|()| write!(Plain(&mut self.writer), "{value}")),
            name => write!(self.writer, "{blank}{name}=").and_then(|()| write!(Plain(&mut self.writer), "{value}")),
        };
    }
}

impl Visit for TextFields<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.write(field, format_args!("{}", Quoted(value)));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.write(field, format_args!("{value:?}"));
    }
}
