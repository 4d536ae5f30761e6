//! The `process_*` metrics: what the system counts of this process.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::sync::OnceLock;
use std::time::SystemTime;

use crate::metrics::Process;
use fanfare_core::time::Duration;

static STARTED: OnceLock<Duration> = OnceLock::new();

/// Notes when the process started, once. A service may see of `/proc` only itself, and so not when the system did.
pub(super) fn started() -> Duration {
    *STARTED.get_or_init(|| SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default())
}

/// The numbers of this moment; `None` where the system has no `/proc`.
pub(super) fn now() -> Option<Process> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    let (page, ticks) = (rustix::param::page_size() as u64, rustix::param::clock_ticks_per_second());
    let mut process = parse(&stat, page, ticks)?;
    process.started = started();
    process.open_files = open_files();
    process.most_files = rlimit::Resource::NOFILE.get().map_or(0, |(soft, _)| soft);
    Some(process)
}

/// Reads a line of proc_pid_stat(5). The name of the program stands in parentheses and may have any character.
fn parse(stat: &str, page: u64, ticks: u64) -> Option<Process> {
    let (_, fields) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = fields.split_ascii_whitespace().collect();
    // The first of these is field 3 of the manual.
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    let time = |count: u64| Some(Duration::from_secs_f64(count as f64 / ticks.max(1) as f64));
    Some(Process {
        cpu: time(field(14)? + field(15)?)?,
        threads: field(20)?,
        started: Duration::ZERO,
        virtual_bytes: field(23)?,
        resident_bytes: field(24)? * page,
        open_files: 0,
        most_files: 0,
    })
}

/// New kernels say how many there are, old ones list them.
fn open_files() -> u64 {
    match fs::metadata("/proc/self/fd").map(|directory| directory.size()) {
        Ok(0) | Err(_) => fs::read_dir("/proc/self/fd").map_or(0, |files| files.count() as u64),
        Ok(count) => count,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_whatever_the_program_is_called() {
        let stat =
            "7 (a) b (c) S 1 7 7 0 -1 4194560 9 0 0 0 150 50 0 0 20 0 5 0 12345 8192 3 18446744073709551615 1 1 0";
        let process = parse(stat, 4_096, 100).expect("a line");
        assert_eq!(process.cpu, Duration::from_secs(2));
        assert_eq!(process.threads, 5);
        assert_eq!((process.virtual_bytes, process.resident_bytes), (8_192, 12_288));
        assert_eq!(parse("7 (a) S 1", 4_096, 100), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_has_numbers() {
        let process = now().expect("/proc");
        assert!(process.open_files >= 3 && process.resident_bytes > 1 << 20 && process.threads >= 1);
        assert!(process.started > Duration::from_secs(1_600_000_000), "seconds since 1970");
    }
}
