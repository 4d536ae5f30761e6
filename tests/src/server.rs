//! The server under test, as a process.

use std::env;
use std::io;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use crate::process::{Ended, Process, Signal};
use crate::redis::Redis;

/// One of the binaries under test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// `fanfare-tokio`.
    Tokio,
    /// `fanfare-async-std`.
    AsyncStd,
    /// `fanfare-smol`.
    Smol,
}

/// How an instance is started: which binary, and what carries its messages.
pub struct Setup {
    program: Program,
    redis: Option<Redis>,
}

/// A running instance on `127.0.0.1` and a port of its own. Dropping it kills it.
pub struct Server {
    process: Process,
    port: u16,
}

/// Makes tests of functions that take a [`Program`]: each for each binary.
#[macro_export]
macro_rules! for_each_program {
    (@ $module:ident $program:ident $($test:ident)*) => {
        mod $module {
            $(
                #[test]
                fn $test() {
                    super::$test($crate::server::Program::$program);
                }
            )*
        }
    };
    ($($test:ident)*) => {
        $crate::for_each_program!(@ tokio Tokio $($test)*);
        $crate::for_each_program!(@ async_std AsyncStd $($test)*);
        $crate::for_each_program!(@ smol Smol $($test)*);
    };
}

/// Makes tests of functions that take a [`Setup`]: each for each binary, with the embedded bus and with Redis.
#[macro_export]
macro_rules! for_each_setup {
    ($($test:ident)*) => {
        mod embedded {
            $(fn $test(program: $crate::server::Program) {
                super::$test(&$crate::server::Setup::embedded(program));
            })*
            $crate::for_each_program!($($test)*);
        }
        mod redis {
            $(fn $test(program: $crate::server::Program) {
                super::$test(&$crate::server::Setup::with_redis(program));
            })*
            $crate::for_each_program!($($test)*);
        }
    };
}

impl Program {
    /// Every binary.
    pub const ALL: [Self; 3] = [Self::Tokio, Self::AsyncStd, Self::Smol];

    /// What it is called.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tokio => "fanfare-tokio",
            Self::AsyncStd => "fanfare-async-std",
            Self::Smol => "fanfare-smol",
        }
    }

    /// A command that starts it with nothing of this process's own settings.
    #[must_use]
    pub fn command(self, args: &[&str]) -> Command {
        let mut command = Command::new(binaries().join(self.name()));
        let ours = |name: &str| {
            name.starts_with("FANFARE_") || name.starts_with("LISTEN_") || ["PORT", "HOST", "REDIS_URL"].contains(&name)
        };
        for (name, _) in env::vars_os() {
            if name.to_str().is_some_and(ours) {
                command.env_remove(name);
            }
        }
        command.args(args);
        command
    }

    /// Starts it, which is expected to end by itself, and waits up to 10 s for that.
    ///
    /// # Errors
    ///
    /// When it does not start or does not end.
    pub fn run(self, args: &[&str]) -> io::Result<Ended> {
        Process::start(&mut self.command(args))?.wait(Duration::from_secs(10))
    }

    /// Starts an instance with `args` and returns when it listens.
    ///
    /// # Errors
    ///
    /// When it does not say within 10 s that it listens.
    pub fn start(self, args: &[&str]) -> io::Result<Server> {
        Server::start_command(self.command(&["--host", "127.0.0.1", "--port", "0"]).args(args))
    }

    /// Starts it with `socket` as the descriptor 3 that a service manager hands over.
    ///
    /// # Errors
    ///
    /// When it does not start.
    pub fn start_process_on(self, socket: impl Into<OwnedFd>, args: &[&str]) -> io::Result<Process> {
        self.start_process_as("clients", socket, args)
    }

    /// As [`Program::start_process_on`], with a name for the socket.
    ///
    /// # Errors
    ///
    /// When it does not start.
    pub fn start_process_as(self, name: &str, socket: impl Into<OwnedFd>, args: &[&str]) -> io::Result<Process> {
        let server = self.command(args);
        let mut shell = Command::new("sh");
        shell.env("LISTEN_FDNAMES", name);
        shell.args(["-c", "LISTEN_FDS=1 LISTEN_PID=$$ exec \"$@\" 3<&0 0</dev/null", "sh"]);
        shell.arg(server.get_program()).args(server.get_args());
        for (name, _) in server.get_envs() {
            shell.env_remove(name);
        }
        Process::start_with(&mut shell, socket.into().into())
    }

    /// Starts an instance on a listening socket that is handed over.
    ///
    /// # Errors
    ///
    /// As [`Program::start`].
    pub fn start_on_listener(self, listener: &TcpListener, args: &[&str]) -> io::Result<Server> {
        Server::of(self.start_process_on(listener.try_clone()?, args)?)
    }

    /// Starts an instance that shares messages through `redis_url`.
    ///
    /// # Errors
    ///
    /// As [`Program::start`].
    pub fn start_on(self, redis_url: &str, args: &[&str]) -> io::Result<Server> {
        self.start(&[&["--redis-url", redis_url], args].concat())
    }
}

impl Setup {
    /// Messages stay in the process.
    #[must_use]
    pub const fn embedded(program: Program) -> Self {
        Self { program, redis: None }
    }

    /// Messages go through a Redis of its own.
    ///
    /// # Panics
    ///
    /// When there is no Redis: without it the test means nothing.
    #[must_use]
    pub fn with_redis(program: Program) -> Self {
        Self { program, redis: Some(Redis::start().expect("redis-server starts")) }
    }

    /// Starts an instance with `args`.
    ///
    /// # Errors
    ///
    /// As [`Program::start`].
    pub fn start(&self, args: &[&str]) -> io::Result<Server> {
        match &self.redis {
            Some(redis) => self.program.start_on(&redis.url(), args),
            None => self.program.start(args),
        }
    }
}

impl Server {
    /// Starts `command`, which says on a line of its own where it listens.
    ///
    /// # Errors
    ///
    /// As [`Program::start`].
    pub fn start_command(command: &mut Command) -> io::Result<Self> {
        Self::of(Process::start(command)?)
    }

    /// What `process` is, once it says where it listens.
    ///
    /// # Errors
    ///
    /// As [`Program::start`].
    pub fn of(mut process: Process) -> io::Result<Self> {
        let port = process.wait_for_line(Duration::from_secs(10), listening_port)?;
        Ok(Self { process, port })
    }

    /// The port that it listens on.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// The port of its address for operation, if it was started with one.
    ///
    /// # Errors
    ///
    /// When it does not say within 10 s where that is.
    pub fn admin_port(&mut self) -> io::Result<u16> {
        self.process.wait_for_line(Duration::from_secs(10), admin_port)
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

    /// The most memory that it says its core can come to hold, in bytes.
    ///
    /// # Errors
    ///
    /// When it did not say so.
    pub fn memory_bound(&self) -> io::Result<u64> {
        let text = self.text();
        let mebibytes =
            text.split_once("memory: at most ").and_then(|(_, rest)| rest.split_once("MiB")?.0.parse().ok());
        mebibytes.map(|bound: u64| bound << 20).ok_or_else(|| io::Error::other(format!("no bound in {text}")))
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

    /// Sends any signal.
    ///
    /// # Errors
    ///
    /// When it is gone.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        self.process.signal(signal)
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

/// The port in a line such as `metrics are at http://127.0.0.1:9090/metrics`.
fn admin_port(line: &str) -> Option<u16> {
    let (_, url) = line.split_once("metrics are at http://")?;
    url.strip_suffix("/metrics")?.rsplit_once(':')?.1.parse().ok()
}

/// Where the binaries under test are: `FANFARE_BINARIES`, or else `target/release`, built first.
fn binaries() -> &'static Path {
    static DIRECTORY: OnceLock<PathBuf> = OnceLock::new();
    DIRECTORY.get_or_init(|| env::var_os("FANFARE_BINARIES").map_or_else(built, PathBuf::from))
}

fn built() -> PathBuf {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or_else(|| Path::new("/"));
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| top.join("target"), PathBuf::from);
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args(["build", "--quiet", "--release", "--package", "fanfare-tokio", "--package", "fanfare-async-std"])
        .current_dir(top)
        .status();
    // Without them no test means anything.
    assert!(status.as_ref().is_ok_and(std::process::ExitStatus::success), "cargo build failed: {status:?}");
    target.join("release")
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
