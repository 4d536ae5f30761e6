//! What the tests share: real servers under test, a real Redis, and clients for both.
//!
//! Everything here blocks, and everything that waits has a deadline. Programs are started on ports of their own,
//! on loopback, and are ended by their process id when the value that stands for them is dropped.
#![forbid(unsafe_code)]

pub mod abuse;
pub mod balancer;
pub mod chaos;
pub mod client;
pub mod crowd;
pub mod distance;
pub mod faults;
pub mod innocents;
pub mod metrics;
pub mod port;
pub mod process;
pub mod proxy;
pub mod raw;
pub mod redis;
pub mod refusals;
pub mod resp;
pub mod server;
pub mod sim;
pub mod swarm;

pub mod usage;
pub mod watch;

use std::io;
use std::time::{Duration, Instant};

/// Asks `ready` every few milliseconds until it says yes; an error after `within`.
///
/// # Errors
///
/// [`io::ErrorKind::TimedOut`], naming `what` was waited for.
pub fn wait_until(what: &str, within: Duration, mut ready: impl FnMut() -> bool) -> io::Result<Duration> {
    let start = Instant::now();
    while !ready() {
        if start.elapsed() > within {
            return Err(io::Error::new(io::ErrorKind::TimedOut, format!("waited {within:?} for {what}")));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(start.elapsed())
}
