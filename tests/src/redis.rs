//! A real Redis or Valkey server that a test can kill, freeze and start again on the same port.

use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::port::ReservedPort;
use crate::process::{Process, Signal};
use crate::resp::Resp;

/// How long a server may take to be ready.
const START: Duration = Duration::from_secs(30);

/// A server on a port of its own, with its files in a directory of its own. Dropping it kills it.
pub struct Redis {
    program: PathBuf,
    args: Vec<String>,
    directory: PathBuf,
    port: ReservedPort,
    process: Option<Process>,
}

/// Every server program on this machine that a test of the link should pass with: Redis, and Valkey where present.
///
/// `tests/.tools/bin`, which `./tests/run` fills, counts before `PATH`.
#[must_use]
pub fn programs() -> Vec<PathBuf> {
    ["redis-server", "valkey-server"].iter().filter_map(|name| find(name)).collect()
}

impl Redis {
    /// Starts the first of [`programs`].
    ///
    /// # Errors
    ///
    /// When there is none, or as [`Redis::restart`].
    pub fn start() -> io::Result<Self> {
        Self::start_with(&[])
    }

    /// Like [`Redis::start`], with more arguments for the server.
    ///
    /// # Errors
    ///
    /// As [`Redis::start`].
    pub fn start_with(args: &[&str]) -> io::Result<Self> {
        let programs = programs();
        let program =
            programs.first().ok_or_else(|| io::Error::other("no redis-server: apt-get install redis-server"))?;
        Self::start_program(program, args)
    }

    /// Starts `program` with `args`.
    ///
    /// # Errors
    ///
    /// As [`Redis::restart`].
    pub fn start_program(program: &Path, args: &[&str]) -> io::Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let directory = env::temp_dir().join(format!("fanfare-redis-{}-{number}", std::process::id()));
        fs::create_dir_all(&directory)?;
        let args = args.iter().map(|&arg| arg.to_owned()).collect();
        let mut redis =
            Self { program: program.to_owned(), args, directory, port: ReservedPort::new()?, process: None };
        redis.restart()?;
        Ok(redis)
    }

    /// What runs, or ran last.
    #[must_use]
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// Takes its directory away, so that it cannot save anything any more.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn lose_disk(&self) -> io::Result<()> {
        fs::remove_dir_all(&self.directory)
    }

    /// The port, the same after each restart.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port.number()
    }

    /// What `REDIS_URL` should be, without credentials.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port())
    }

    /// The process id while it runs.
    #[must_use]
    pub fn id(&self) -> Option<u32> {
        self.process.as_ref().map(Process::id)
    }

    /// Ends it as a power cut would. Its connections are reset by the kernel.
    ///
    /// # Errors
    ///
    /// When it does not end.
    pub fn kill(&mut self) -> io::Result<()> {
        if let Some(mut process) = self.process.take() {
            process.signal(Signal::KILL)?;
            process.wait(Duration::from_secs(5))?;
        }
        Ok(())
    }

    /// Starts it on the same port, and returns when it takes connections.
    ///
    /// # Errors
    ///
    /// When it ends or does not say within 30 s that it is ready, with what it printed.
    pub fn restart(&mut self) -> io::Result<()> {
        let mut command = Command::new(&self.program);
        command.args(["--bind", "127.0.0.1", "--port", &self.port().to_string()]);
        command.args(["--save", "", "--appendonly", "no", "--daemonize", "no", "--dir"]).arg(&self.directory);
        let mut process = Process::start(command.args(&self.args))?;
        process.wait_for_line(START, |line| line.contains("Ready to accept connections").then_some(()))?;
        self.process = Some(process);
        Ok(())
    }

    /// Starts another program of [`programs`] in its place, on the same port and with the same arguments, after
    /// [`Redis::kill`].
    ///
    /// # Errors
    ///
    /// As [`Redis::start_program`].
    pub fn restart_as(&mut self, program: &Path) -> io::Result<()> {
        program.clone_into(&mut self.program);
        self.restart()
    }

    /// Freezes it: connections stay open and nothing is answered.
    ///
    /// # Errors
    ///
    /// When it does not run.
    pub fn freeze(&self) -> io::Result<()> {
        self.signal(Signal::STOP)
    }

    /// Ends a [`Redis::freeze`].
    ///
    /// # Errors
    ///
    /// When it does not run.
    pub fn thaw(&self) -> io::Result<()> {
        self.signal(Signal::CONT)
    }

    /// A connection to it.
    ///
    /// # Errors
    ///
    /// When it cannot be reached.
    pub fn connect(&self) -> io::Result<Resp> {
        Resp::connect(self.port())
    }

    fn signal(&self, signal: Signal) -> io::Result<()> {
        self.process.as_ref().ok_or_else(|| io::Error::other("Redis does not run"))?.signal(signal)
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.process = None;
        // A directory left behind in the temporary directory does no harm.
        let _ = fs::remove_dir_all(&self.directory);
    }
}

fn find(name: &str) -> Option<PathBuf> {
    let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join(".tools/bin");
    let path = env::var_os("PATH").unwrap_or_default();
    let mut directories = std::iter::once(tools).chain(env::split_paths(&path));
    directories.find_map(|directory| Some(directory.join(name)).filter(|file| file.is_file()))
}
