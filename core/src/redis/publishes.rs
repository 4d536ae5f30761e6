//! The publishes that wait for Redis, encoded.

use std::collections::VecDeque;

use crate::resp::encode;
use crate::time::{Duration, Instant};

/// Room that the emptied queue keeps.
const KEPT_BYTES: usize = 256 << 10;
const KEPT_COMMANDS: usize = 4 << 10;

/// Commands that are not wholly written, oldest first. A probe stands before all that are not begun.
#[derive(Debug, Default)]
pub(super) struct Publishes {
    bytes: VecDeque<u8>,
    commands: VecDeque<Command>,
    /// Bytes of the first command that are written to the present connection. Zero while one is of a probe.
    written: usize,
    /// At most one that is begun, and one that is not.
    probes: VecDeque<Probe>,
    /// Bytes of the first probe that are written.
    probe_written: usize,
}

#[derive(Debug)]
struct Probe {
    number: u64,
    command: Vec<u8>,
}

/// A command that is wholly written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    /// A publish of so many bytes.
    Publish(usize),
    /// The probe of that number.
    Probe(u64),
}

#[derive(Debug)]
struct Command {
    length: usize,
    queued: Instant,
}

impl Publishes {
    pub(super) fn push(&mut self, channel: &[u8], payload: &[u8], now: Instant) {
        let before = self.bytes.len();
        encode::publish(&mut self.bytes, channel, payload);
        self.commands.push_back(Command { length: self.bytes.len() - before, queued: now });
    }

    /// Puts a probe before everything that is not begun, in place of one that is not.
    pub(super) fn push_probe(&mut self, number: u64, channel: &[u8], payload: &[u8]) {
        self.drop_probe();
        let mut command = Vec::new();
        encode::publish(&mut command, channel, payload);
        self.probes.push_back(Probe { number, command });
    }

    /// Takes back a probe that is not begun.
    pub(super) fn drop_probe(&mut self) {
        self.probes.truncate(usize::from(self.probe_written > 0));
    }

    /// Bytes of all publishes here.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Publishes here.
    pub(super) fn len(&self) -> usize {
        self.commands.len()
    }

    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    /// What may be written next: the rest of a command that is partly written and a probe, whether or not `open`, and
    /// all that remains once there are none.
    pub(super) fn lent(&self, open: bool) -> [&[u8]; 2] {
        if self.written == 0
            && let Some(probe) = self.probes.front()
        {
            return [&probe.command[self.probe_written..], &[]];
        }
        let end = self.lent_end(open && self.probes.is_empty());
        let (first, second) = self.bytes.as_slices();
        let cut = first.len();
        [
            &first[self.written.min(cut)..end.min(cut)],
            &second[self.written.saturating_sub(cut)..end.saturating_sub(cut)],
        ]
    }

    /// `bytes` of what is lent are written. Calls `sent` with each command that is thereby complete.
    pub(super) fn handle_written(&mut self, bytes: usize, mut sent: impl FnMut(Sent)) {
        if self.written == 0
            && let Some(probe) = self.probes.front()
        {
            self.probe_written += bytes;
            if self.probe_written >= probe.command.len() {
                sent(Sent::Probe(probe.number));
                self.probes.pop_front();
                self.probe_written = 0;
            }
            return;
        }
        self.written += bytes;
        while let Some(first) = self.commands.front()
            && first.length <= self.written
        {
            let length = first.length;
            self.written -= length;
            self.remove_first(length);
            sent(Sent::Publish(length));
        }
        self.shrink();
    }

    /// The connection is gone. A command that was partly written was not executed, and will be written whole again.
    pub(super) fn handle_disconnected(&mut self) {
        self.written = 0;
        self.probe_written = 0;
        self.probes.clear();
    }

    /// Takes out the commands that are as old as `age`; returns their number and bytes.
    pub(super) fn expire(&mut self, age: Duration, now: Instant) -> (usize, usize) {
        let (mut messages, mut bytes) = (0, 0);
        while let Some(queued) = self.oldest()
            && queued + age <= now
        {
            let length = self.commands.front().map_or(0, |first| first.length);
            self.remove_first(length);
            messages += 1;
            bytes += length;
        }
        self.shrink();
        (messages, bytes)
    }

    /// When the oldest command was queued that can still be taken back.
    pub(super) fn oldest(&self) -> Option<Instant> {
        if self.written > 0 { None } else { self.commands.front().map(|first| first.queued) }
    }

    fn lent_end(&self, open: bool) -> usize {
        match self.commands.front() {
            Some(first) if !open && self.written > 0 => first.length,
            Some(_) if open => self.bytes.len(),
            _ => 0,
        }
    }

    fn remove_first(&mut self, length: usize) {
        self.commands.pop_front();
        self.bytes.drain(..length);
    }

    fn shrink(&mut self) {
        if self.commands.is_empty() {
            self.bytes.shrink_to(KEPT_BYTES);
            self.commands.shrink_to(KEPT_COMMANDS);
        }
    }
}
