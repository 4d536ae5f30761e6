//! A bounded queue of lines before standard error or standard output, which may be slow, stalled, full or closed.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};

/// The most bytes that wait, and as many may be on their way out.
const ROOM: usize = 256 << 10;
/// The longest that the end of a process waits while nothing leaves, and the longest in all.
const PATIENCE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(5));

/// An output with a queue and a thread of its own, so that writers never wait. Lines that find no room in the queue, or
/// cannot be written, are lost and counted.
#[derive(Clone, Debug)]
pub(super) struct Outlet(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<Queue>,
    /// Something waits, or has left.
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    /// Whole lines.
    waiting: Vec<u8>,
    is_writing: bool,
    /// Bytes that have left.
    written: u64,
    /// Lines that have not.
    dropped: u64,
}

impl Outlet {
    /// An outlet to `output`, whose thread is called `name`. The thread calls `tell` with the number of lines that were
    /// lost in all when one can be written again.
    pub(super) fn start(name: &str, output: OwnedFd, tell: impl Fn(u64) + Send + 'static) -> io::Result<Self> {
        let outlet = Self(Arc::default());
        let shared = outlet.0.clone();
        let writer = Writer { output: output.into(), is_in_line: false };
        thread::Builder::new().name(name.to_owned()).spawn(move || shared.run(writer, &tell))?;
        Ok(outlet)
    }

    /// Queues whole lines.
    pub(super) fn push(&self, lines: &[u8]) {
        let mut queue = self.0.lock();
        if queue.waiting.len() + lines.len() > ROOM {
            queue.dropped += count_lines(lines);
            return;
        }
        queue.waiting.extend_from_slice(lines);
        drop(queue);
        self.0.changed.notify_all();
    }

    /// Lines that were lost.
    pub(super) fn dropped(&self) -> u64 {
        self.0.lock().dropped
    }

    /// Waits until everything has left, for as long as something leaves.
    pub(super) fn finish(&self) {
        let (patience, end) = (PATIENCE.0, Instant::now() + PATIENCE.1);
        let mut queue = self.0.lock();
        while (queue.is_writing || !queue.waiting.is_empty()) && Instant::now() < end {
            let written = queue.written;
            let (next, timeout) = self.0.changed.wait_timeout(queue, patience).unwrap_or_else(PoisonError::into_inner);
            queue = next;
            if timeout.timed_out() && queue.written == written {
                return;
            }
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, mut writer: Writer, tell: &impl Fn(u64)) {
        let (mut lines, mut told) = (Vec::new(), 0);
        loop {
            self.take(&mut lines);
            let mut lost = 0;
            for line in lines.split_inclusive(|&byte| byte == b'\n') {
                match writer.write_line(line) {
                    Ok(()) => self.left(line.len()),
                    Err(_) => lost += 1,
                }
            }
            let mut queue = self.lock();
            queue.dropped += lost;
            let dropped = queue.dropped;
            drop(queue);
            // Said once what is written arrives again, or it would be lost as well.
            if lost == 0 && dropped > told {
                told = dropped;
                tell(dropped);
            }
        }
    }

    /// Waits for lines and takes all of them.
    fn take(&self, lines: &mut Vec<u8>) {
        lines.clear();
        let mut queue = self.lock();
        queue.is_writing = false;
        self.changed.notify_all();
        while queue.waiting.is_empty() {
            queue = self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        std::mem::swap(&mut queue.waiting, lines);
        queue.is_writing = true;
    }

    fn left(&self, bytes: usize) {
        self.lock().written += bytes as u64;
        self.changed.notify_all();
    }
}

/// Writes without the locks of the standard library, which a write that stalls would hold.
struct Writer {
    output: File,
    /// A line was begun that could not be ended.
    is_in_line: bool,
}

impl Writer {
    /// Writes one line, however long that takes.
    fn write_line(&mut self, line: &[u8]) -> io::Result<()> {
        if self.is_in_line {
            self.write_all(b"\n")?;
        }
        self.write_all(line)
    }

    fn write_all(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.output.write(bytes) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    self.is_in_line = bytes[written - 1] != b'\n';
                    bytes = &bytes[written..];
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Somebody who shares the output made it non-blocking.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.wait()?,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn wait(&self) -> io::Result<()> {
        match poll(&mut [PollFd::from_borrowed_fd(self.output.as_fd(), PollFlags::OUT)], None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

fn count_lines(lines: &[u8]) -> u64 {
    lines.iter().filter(|&&byte| byte == b'\n').count() as u64
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, PipeReader, PipeWriter, pipe};
    use std::os::unix::net::UnixStream;
    use std::sync::mpsc;

    use super::*;

    fn to(output: impl Into<OwnedFd>) -> Outlet {
        Outlet::start("test", output.into(), |_| {}).expect("a thread")
    }

    fn next_line(reader: &mut impl BufRead) -> String {
        let mut line = String::new();
        reader.read_line(&mut line).expect("a line");
        line
    }

    /// Pushes lines until one is lost; returns how many were not.
    fn fill(outlet: &Outlet) -> usize {
        (0..)
            .find(|number| {
                outlet.push(format!("{number:0>999}\n").as_bytes());
                outlet.dropped() > 0
            })
            .expect("a bound")
    }

    #[test]
    fn lines_leave_in_order() {
        let (reader, writer) = pipe().expect("a pipe");
        let outlet = to(writer);
        for number in 0..1_000 {
            outlet.push(format!("{number}\n").as_bytes());
        }
        let mut reader = BufReader::new(reader);
        for number in 0..1_000 {
            assert_eq!(next_line(&mut reader), format!("{number}\n"));
        }
        outlet.finish();
        assert_eq!(outlet.dropped(), 0);
    }

    fn stalls_and_goes_on(reader: impl io::Read, outlet: &Outlet) {
        let kept = fill(outlet);
        assert!(kept >= ROOM / 1_000, "{kept}");
        let start = Instant::now();
        outlet.finish();
        assert!(start.elapsed() < PATIENCE.1, "the end does not wait for whom nothing is taken by");
        let mut reader = BufReader::new(reader);
        for number in 0..kept {
            assert_eq!(
                next_line(&mut reader).trim_start_matches('0').trim(),
                format!("{number}").trim_start_matches('0')
            );
        }
        outlet.push(b"again\n");
        assert_eq!(next_line(&mut reader), "again\n", "what is lost is whole lines");
        outlet.finish();
        assert_eq!(outlet.dropped(), 1);
    }

    #[test]
    fn a_stalled_reader_costs_lines_and_nothing_else() {
        let (reader, writer): (PipeReader, PipeWriter) = pipe().expect("a pipe");
        stalls_and_goes_on(reader, &to(writer));
    }

    #[test]
    fn an_output_that_does_not_block_is_waited_for() {
        let (reader, writer) = UnixStream::pair().expect("a pair");
        writer.set_nonblocking(true).expect("non-blocking");
        stalls_and_goes_on(reader, &to(writer));
    }

    #[test]
    fn what_cannot_be_written_is_counted() {
        let (reader, writer) = pipe().expect("a pipe");
        drop(reader);
        let full = File::options().write(true).open("/dev/full").expect("/dev/full");
        for outlet in [to(writer), to(full)] {
            for _ in 0..3 {
                outlet.push(b"a line\n");
            }
            outlet.finish();
            assert_eq!(outlet.dropped(), 3);
        }
    }

    #[test]
    fn losses_are_told_once_lines_arrive_again() {
        let (reader, writer) = pipe().expect("a pipe");
        let (told, tell) = mpsc::channel();
        let outlet =
            Outlet::start("test", writer.into(), move |lines| told.send(lines).expect("sent")).expect("a thread");
        fill(&outlet);
        assert!(tell.try_recv().is_err());
        let mut reader = BufReader::new(reader);
        while tell.try_recv().is_err() {
            next_line(&mut reader);
            outlet.push(b"more\n");
        }
    }

    #[test]
    fn a_line_that_was_cut_is_ended_before_the_next() {
        let (reader, writer) = pipe().expect("a pipe");
        let mut writer = Writer { output: OwnedFd::from(writer).into(), is_in_line: false };
        writer.write_all(b"half a l").expect("room");
        writer.write_line(b"whole\n").expect("room");
        drop(writer);
        let lines: Vec<_> = BufReader::new(reader).lines().map_while(Result::ok).collect();
        assert_eq!(lines, ["half a l", "whole"]);
    }
}
