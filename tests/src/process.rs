//! A child process with its lines, its signals and its end.

use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

pub use rustix::process::Signal;
use rustix::process::{Pid, kill_process};

/// A running program. Dropping it kills it.
pub struct Process {
    child: Child,
    lines: Arc<Mutex<Vec<Line>>>,
    readers: Vec<thread::JoinHandle<()>>,
}

/// A line of output, without its end.
#[derive(Clone, Debug)]
pub struct Line {
    /// It came on standard error, not standard output.
    pub is_error: bool,
    /// Its text; bytes that are not UTF-8 are replaced.
    pub text: String,
}

/// How a process ended.
#[derive(Debug)]
pub struct Ended {
    /// Its exit code, or `None` if a signal ended it.
    pub code: Option<i32>,
    /// Everything it printed.
    pub lines: Vec<Line>,
}

impl Ended {
    /// The lines on standard error.
    #[must_use]
    pub fn errors(&self) -> Vec<&str> {
        self.lines.iter().filter(|line| line.is_error).map(|line| line.text.as_str()).collect()
    }

    /// Both outputs as one text.
    #[must_use]
    pub fn text(&self) -> String {
        self.lines.iter().map(|line| format!("{}\n", line.text)).collect()
    }
}

impl Process {
    /// Starts `command` with its output captured and without standard input.
    ///
    /// # Errors
    ///
    /// When the program cannot be started.
    pub fn start(command: &mut Command) -> io::Result<Self> {
        Self::start_with(command, Stdio::null())
    }

    /// Starts `command` with its output captured and `stdin` as its standard input.
    ///
    /// # Errors
    ///
    /// When the program cannot be started.
    pub fn start_with(command: &mut Command, stdin: Stdio) -> io::Result<Self> {
        Self::start_between(command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped()))
    }

    /// Starts `command` with what it has as standard input and outputs; those that are pipes of ours are captured.
    ///
    /// # Errors
    ///
    /// When the program cannot be started.
    pub fn start_between(command: &mut Command) -> io::Result<Self> {
        let program = command.get_program().to_owned();
        let mut child =
            command.spawn().map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", Path::new(&program).display())))?;
        let lines = Arc::new(Mutex::new(Vec::new()));
        let mut readers = Vec::new();
        if let Some(out) = child.stdout.take() {
            readers.push(collect(out, false, &lines));
        }
        if let Some(err) = child.stderr.take() {
            readers.push(collect(err, true, &lines));
        }
        Ok(Self { child, lines, readers })
    }

    /// The process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it printed so far.
    #[must_use]
    pub fn lines(&self) -> Vec<Line> {
        locked(&self.lines).clone()
    }

    /// The first line in which `pick` finds something, printed before `within` has passed.
    ///
    /// # Errors
    ///
    /// When the process ends first, which is known at once, or the time is over; the text has all that was printed.
    pub fn wait_for_line<T>(&mut self, within: Duration, pick: impl Fn(&str) -> Option<T>) -> io::Result<T> {
        let start = Instant::now();
        loop {
            let ended = self.child.try_wait()?;
            if ended.is_some() {
                self.read_to_the_end();
            }
            if let Some(found) = self.lines().iter().find_map(|line| pick(&line.text)) {
                return Ok(found);
            }
            let what = match ended {
                Some(status) => format!("the process ended ({status})"),
                None if start.elapsed() > within => format!("the expected line did not come within {within:?}"),
                None => {
                    thread::sleep(Duration::from_millis(5));
                    continue;
                }
            };
            return Err(io::Error::other(format!("{what}; it printed {:#?}", self.lines())));
        }
    }

    /// Sends `signal`.
    ///
    /// # Errors
    ///
    /// When the process is gone.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        Ok(kill_process(Pid::from_child(&self.child), signal)?)
    }

    /// Waits for the end.
    ///
    /// # Errors
    ///
    /// When the process is still there after `within`.
    pub fn wait(&mut self, within: Duration) -> io::Result<Ended> {
        let status = self.wait_for_status(within)?;
        self.read_to_the_end();
        Ok(Ended { code: status.code(), lines: self.lines() })
    }

    /// Reads what an ended process has printed.
    fn read_to_the_end(&mut self) {
        for reader in self.readers.drain(..) {
            // A reader ends with its pipe; it cannot fail.
            let _ = reader.join();
        }
    }

    fn wait_for_status(&mut self, within: Duration) -> io::Result<ExitStatus> {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if start.elapsed() > within {
                return Err(io::Error::other(format!(
                    "still running after {within:?}; it printed {:#?}",
                    self.lines()
                )));
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only if the process has already been waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn collect(from: impl Read + Send + 'static, is_error: bool, into: &Arc<Mutex<Vec<Line>>>) -> thread::JoinHandle<()> {
    let into = Arc::clone(into);
    thread::spawn(move || {
        for bytes in BufReader::new(from).split(b'\n').map_while(Result::ok) {
            let text = String::from_utf8_lossy(&bytes).trim_end_matches('\r').to_owned();
            locked(&into).push(Line { is_error, text });
        }
    })
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
