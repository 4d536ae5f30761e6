//! The server under test, as a process.

use std::env;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use crate::process::{Ended, Process, Signal};

/// A running instance on `127.0.0.1` and a port of its own. Dropping it kills it.
pub struct Server {
    process: Process,
    port: u16,
}

/// The binary under test: `FANFARE_BIN`, or else `target/release/fanfare-tokio`, built first.
///
/// # Panics
///
/// When it cannot be built: without it no test means anything.
#[must_use]
pub fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| match env::var_os("FANFARE_BIN") {
        Some(path) => PathBuf::from(path),
        None => built(),
    })
}

/// A command that starts the binary under test with nothing of this process's own settings.
#[must_use]
pub fn command(args: &[&str]) -> Command {
    let mut command = Command::new(binary());
    let ours = |name: &str| name.starts_with("FANFARE_") || ["PORT", "HOST", "REDIS_URL"].contains(&name);
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(ours) {
            command.env_remove(name);
        }
    }
    command.args(args);
    command
}

/// Starts the binary, which is expected to end by itself, and waits up to 10 s for that.
///
/// # Errors
///
/// When it does not start or does not end.
pub fn run(args: &[&str]) -> io::Result<Ended> {
    Process::start(&mut command(args))?.wait(Duration::from_secs(10))
}

impl Server {
    /// Starts an instance with `args` and returns when it listens.
    ///
    /// # Errors
    ///
    /// When it does not say within 10 s that it listens.
    pub fn start(args: &[&str]) -> io::Result<Self> {
        Self::start_command(command(&["--host", "127.0.0.1", "--port", "0"]).args(args))
    }

    /// Starts an instance that shares messages through `redis_url`.
    ///
    /// # Errors
    ///
    /// As [`Server::start`].
    pub fn start_on(redis_url: &str, args: &[&str]) -> io::Result<Self> {
        Self::start(&[&["--redis-url", redis_url], args].concat())
    }

    /// Starts `command`, which says on a line of its own where it listens.
    ///
    /// # Errors
    ///
    /// As [`Server::start`].
    pub fn start_command(command: &mut Command) -> io::Result<Self> {
        let mut process = Process::start(command)?;
        let port = process.wait_for_line(Duration::from_secs(10), listening_port)?;
        Ok(Self { process, port })
    }

    /// The port that it listens on.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// The process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Everything it printed so far.
    #[must_use]
    pub fn text(&self) -> String {
        self.process.lines().iter().map(|line| format!("{}\n", line.text)).collect()
    }

    /// Asks it to end (SIGTERM).
    ///
    /// # Errors
    ///
    /// When it is gone.
    pub fn terminate(&self) -> io::Result<()> {
        self.process.signal(Signal::TERM)
    }

    /// Asks it to end as Ctrl-C does (SIGINT).
    ///
    /// # Errors
    ///
    /// When it is gone.
    pub fn interrupt(&self) -> io::Result<()> {
        self.process.signal(Signal::INT)
    }

    /// Freezes it: connections stay open and nothing moves.
    ///
    /// # Errors
    ///
    /// When it is gone.
    pub fn freeze(&self) -> io::Result<()> {
        self.process.signal(Signal::STOP)
    }

    /// Ends a [`Server::freeze`].
    ///
    /// # Errors
    ///
    /// When it is gone.
    pub fn thaw(&self) -> io::Result<()> {
        self.process.signal(Signal::CONT)
    }

    /// Waits for its end.
    ///
    /// # Errors
    ///
    /// When it still runs after `within`.
    pub fn wait(&mut self, within: Duration) -> io::Result<Ended> {
        self.process.wait(within)
    }
}

/// The port in a line such as `listening on http://localhost:3000/`.
fn listening_port(line: &str) -> Option<u16> {
    let (_, url) = line.split_once("listening on http://")?;
    let authority = url.split(['/', ' ']).next()?;
    authority.rsplit_once(':')?.1.parse().ok()
}

fn built() -> PathBuf {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or_else(|| Path::new("/"));
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| top.join("target"), PathBuf::from);
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args(["build", "--quiet", "--release", "--package", "fanfare-tokio", "--bin", "fanfare-tokio"])
        .current_dir(top)
        .status();
    assert!(status.as_ref().is_ok_and(std::process::ExitStatus::success), "cargo build failed: {status:?}");
    target.join("release/fanfare-tokio")
}

#[cfg(test)]
mod tests {
    use super::listening_port;

    #[test]
    fn the_port_is_read_from_the_line_whatever_stands_around_it() {
        assert_eq!(listening_port("INFO listening on http://localhost:3000/"), Some(3000));
        assert_eq!(listening_port("listening on http://[::1]:81/ (2 workers)"), Some(81));
        assert_eq!(listening_port("bus: this process only"), None);
    }
}
