//! What a process has used, from `/proc`.

use std::fs;
use std::io;

/// User and system time of all its threads, in seconds. Its grain is 10 ms.
///
/// # Errors
///
/// When there is no such process.
pub fn cpu_seconds(pid: u32) -> io::Result<f64> {
    // The kernel's USER_HZ, which is 100 on every platform of Linux that this runs on.
    const TICKS_PER_SECOND: f64 = 100.0;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The second field, a name in brackets, may have blanks in it.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks: u64 = fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    Ok(ticks as f64 / TICKS_PER_SECOND)
}

/// Resident memory in bytes, without pages of files.
///
/// # Errors
///
/// When there is no such process.
pub fn memory(pid: u32) -> io::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    Ok(1024 * kilobytes.ok_or_else(|| io::Error::other("no RssAnon"))?)
}
