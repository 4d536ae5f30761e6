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

/// The most memory that was ever resident, in bytes, pages of files among it.
///
/// # Errors
///
/// When there is no such process.
pub fn most_memory(pid: u32) -> io::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    Ok(1024 * kilobytes.ok_or_else(|| io::Error::other("no VmHWM"))?)
}

/// What the kernel holds to be sent from `port` of 127.0.0.1 by sockets that their process has closed: how many sockets
/// have something, and how many bytes.
///
/// # Errors
///
/// When the kernel does not say.
pub fn orphaned(port: u16) -> io::Result<(usize, u64)> {
    // FIN-WAIT-1, LAST-ACK and CLOSING.
    const CLOSED: [&str; 3] = ["04", "09", "0B"];
    let table = fs::read_to_string("/proc/net/tcp")?;
    let local = format!("0100007F:{port:04X}");
    let unsent = table.lines().filter_map(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let is_one = fields.get(1) == Some(&local.as_str()) && CLOSED.contains(fields.get(3)?);
        let (unsent, _) = fields.get(4)?.split_once(':')?;
        is_one.then(|| u64::from_str_radix(unsent, 16).ok()).flatten().filter(|&unsent| unsent > 0)
    });
    Ok(unsent.fold((0, 0), |(sockets, bytes), unsent| (sockets + 1, bytes + unsent)))
}
