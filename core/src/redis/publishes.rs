//! The encoded publishes that Redis is not known to have carried out.

use core::ops::Range;
use std::collections::{BTreeSet, VecDeque};

use super::pause::Pause;
use super::window::Window;
use crate::resp::encode;
use crate::time::{Duration, Instant};

/// Room that the emptied queue keeps.
const KEPT_BYTES: usize = 256 << 10;
const KEPT_COMMANDS: usize = 4 << 10;

/// Commands without a reply, oldest first, in three parts:
///
/// ```text
///   held: leaves again, and what was sent behind it │ sent: wholly written │ unsent, the first perhaps partly written
/// ```
///
/// What else leaves on the same connection stands before all publishes that are not begun.
#[derive(Debug, Default)]
pub(super) struct Publishes {
    bytes: VecDeque<u8>,
    commands: VecDeque<Command>,
    held: Part,
    /// What Redis answered to each of the held ones.
    answers: VecDeque<Outcome>,
    sent: Part,
    /// The first of the unsent ones, as many as may leave before more of what was sent has come in.
    granted: Part,
    /// Bytes of the first unsent command that are written to the present connection. Zero while one is of an aside.
    written: usize,
    /// Commands that are no publishes of clients.
    asides: VecDeque<(Aside, Vec<u8>)>,
    /// Bytes of the first aside that are written.
    aside_written: usize,
    /// While Redis cannot publish.
    pause: Pause,
    /// Only one command leaves, to see whether Redis carries it out.
    is_trying: bool,
    window: Window,
    /// Commands pushed since the start.
    pushed: u64,
    /// The number of the command in whose midst a connection has ended.
    interrupted: Option<u64>,
}

/// A command that is no publish of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Aside {
    /// The PUBLISH of the probe of that number.
    Probe(u64),
    /// The PUBLISH of a mark, to learn that all that was sent up to this position has come in.
    Mark(u64),
    /// Asks whether this server is a replica.
    Role,
}

/// A command that is wholly written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    Publish,
    Aside(Aside),
}

/// What leaves the queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) commands: usize,
    pub(super) bytes: usize,
}

impl Part {
    const fn add(&mut self, bytes: usize) {
        self.commands += 1;
        self.bytes += bytes;
    }

    const fn remove(&mut self, bytes: usize) {
        self.commands -= 1;
        self.bytes -= bytes;
    }
}

/// What leaves the queue when a connection ends, or when what was held leaves again.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Gone {
    /// They were carried out, or refused and counted.
    pub(super) done: Part,
    /// They were sent and may have been carried out.
    pub(super) unconfirmed: Part,
    /// They were not carried out, but a later one on the same channel was: they must not come behind it.
    pub(super) overtaken: Part,
    /// It was partly written when a connection ended, twice.
    pub(super) interrupted: Part,
}

/// What Redis answered to a publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Published,
    Refused,
    NotNow,
    /// The connection ended first.
    Unconfirmed,
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
        self.pushed += 1;
        self.grant();
    }

    /// Puts a command before every publish that is not begun, in place of one of its kind that is not; a mark in place of
    /// none.
    pub(super) fn push_aside(&mut self, aside: Aside, command: Vec<u8>) {
        let mut is_begun = self.aside_written > 0;
        self.asides.retain(|(other, _)| {
            let is_same = core::mem::discriminant(other) == core::mem::discriminant(&aside);
            core::mem::take(&mut is_begun) || matches!(other, Aside::Mark(_)) || !is_same
        });
        self.asides.push_back((aside, command));
    }

    /// Takes back what is not begun of the probe.
    pub(super) fn drop_probe(&mut self) {
        let mut is_begun = self.aside_written > 0;
        self.asides.retain(|(aside, _)| core::mem::take(&mut is_begun) || matches!(aside, Aside::Mark(_)));
    }

    /// Bytes of all publishes here.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Publishes here that have to leave.
    pub(super) fn unsent(&self) -> usize {
        self.commands.len() - self.sent.commands
    }

    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    /// What may be written next: the rest of a command that is partly written and an aside, whether or not `open`, and
    /// what is granted of the rest once there are none.
    pub(super) fn lent(&self, open: bool) -> [&[u8]; 2] {
        if self.written == 0
            && let Some((_, command)) = self.asides.front()
        {
            return [&command[self.aside_written..], &[]];
        }
        let begin = self.held.bytes + self.sent.bytes;
        let (start, end) = (begin + self.written, begin + self.lent_bytes(open && self.asides.is_empty()));
        let (first, second) = self.bytes.as_slices();
        let cut = first.len();
        [&first[start.min(cut)..end.min(cut)], &second[start.saturating_sub(cut)..end.saturating_sub(cut)]]
    }

    /// Bytes of unsent commands that may be written, what is written of the first included.
    fn lent_bytes(&self, open: bool) -> usize {
        let is_free = open && self.pause.until().is_none() && self.held.commands == 0;
        let first = self.commands.get(self.sent.commands + self.held.commands).map_or(0, |first| first.length);
        match (is_free, self.is_trying) {
            (true, false) => self.granted.bytes,
            (true, true) if self.sent.commands == 0 => first,
            _ if self.written > 0 => first,
            _ => 0,
        }
    }

    /// `bytes` of what is lent are written. Calls `sent` with each command that is thereby complete.
    pub(super) fn handle_written(&mut self, bytes: usize, mut sent: impl FnMut(Sent)) {
        if self.written == 0
            && let Some((aside, command)) = self.asides.front()
        {
            self.aside_written += bytes;
            if self.aside_written >= command.len() {
                sent(Sent::Aside(*aside));
                self.asides.pop_front();
                self.aside_written = 0;
            }
            return;
        }
        self.written += bytes;
        while let Some(first) = self.commands.get(self.held.commands + self.sent.commands)
            && first.length <= self.written
        {
            let length = first.length;
            self.written -= length;
            self.sent.add(length);
            self.window.handle_sent(length);
            if self.granted.commands > 0 {
                self.granted.remove(length);
            }
            sent(Sent::Publish);
        }
    }

    /// Redis has carried out the oldest publish that was sent. Returns what leaves the queue at once.
    pub(super) fn handle_published(&mut self, now: Instant) -> Part {
        self.handle_answer(Outcome::Published, now)
    }

    /// Redis has refused the oldest publish that was sent. Returns what leaves the queue at once.
    pub(super) fn handle_refused(&mut self, now: Instant) -> Part {
        self.handle_answer(Outcome::Refused, now)
    }

    /// Redis has not carried out the oldest publish that was sent. It leaves again, after a pause.
    pub(super) fn handle_not_now(&mut self, now: Instant) {
        self.handle_answer(Outcome::NotNow, now);
    }

    fn handle_answer(&mut self, outcome: Outcome, now: Instant) -> Part {
        let Some(length) = self.commands.get(self.held.commands).map(|command| command.length) else {
            return Part::default();
        };
        if self.sent.commands == 0 {
            return Part::default();
        }
        self.sent.remove(length);
        if outcome == Outcome::NotNow {
            self.pause.begin(now);
        } else if self.held.commands == 0 {
            self.pause.end();
            self.is_trying = false;
            let done = self.remove(0..1);
            self.grant();
            return done;
        }
        self.held.add(length);
        self.answers.push_back(outcome);
        Part::default()
    }

    /// What was held leaves again once its pause is over and everything that was sent has its reply.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        self.pause.handle_timeout(now);
    }

    /// Lets what was held leave, one command at first, if it is time. Returns what does not.
    pub(super) fn resume(&mut self) -> Gone {
        if self.held.commands == 0 || self.pause.until().is_some() || !self.is_answered() {
            return Gone::default();
        }
        self.is_trying = true;
        self.rewind()
    }

    /// Whether everything that was begun is sent, and everything that was sent has its reply.
    pub(super) const fn is_answered(&self) -> bool {
        self.sent.commands == 0 && self.written == 0
    }

    /// When something may leave that is held.
    pub(super) const fn deadline(&self) -> Option<Instant> {
        self.pause.until()
    }

    /// Redis has found fault with what is partly written: the next end of the connection is its end, too.
    pub(super) fn blame(&mut self) {
        if self.written > 0 {
            self.interrupted = Some(self.number(self.held.commands + self.sent.commands));
        }
    }

    /// The connection is gone. A command that was partly written was not carried out and will be written whole again, but
    /// not if that is what happened to it before: then it may be the reason.
    pub(super) fn handle_disconnected(&mut self) -> Gone {
        let mut interrupted = Part::default();
        let first = self.held.commands + self.sent.commands;
        if self.written > 0 {
            let number = Some(self.number(first));
            if self.interrupted == number {
                interrupted = self.remove(first..first + 1);
                self.interrupted = None;
            } else {
                self.interrupted = number;
            }
        }
        self.held.commands += self.sent.commands;
        self.held.bytes += self.sent.bytes;
        self.answers.resize(self.held.commands, Outcome::Unconfirmed);
        self.sent = Part::default();
        self.written = 0;
        self.asides.clear();
        self.aside_written = 0;
        self.pause.end();
        self.is_trying = false;
        self.window.handle_lost();
        Gone { interrupted, ..self.rewind() }
    }

    /// Takes out the commands that are as old as `age` and not on their way.
    pub(super) fn expire(&mut self, age: Duration, now: Instant) -> Part {
        let is_old = |command: &&Command| command.queued + age <= now;
        let held = self.commands.iter().zip(&self.answers);
        let held = held.take_while(|(command, answer)| is_old(command) && **answer == Outcome::NotNow).count();
        let mut expired = self.remove(0..held);
        self.answers.drain(..held);
        self.held.commands -= expired.commands;
        self.held.bytes -= expired.bytes;
        if self.written == 0 {
            let first = self.held.commands + self.sent.commands;
            let unsent = self.commands.iter().skip(first).take_while(is_old).count();
            let more = self.remove(first..first + unsent);
            expired.commands += more.commands;
            expired.bytes += more.bytes;
            if more.commands > 0 {
                self.granted = Part::default();
                self.grant();
            }
        }
        expired
    }

    /// When the oldest command was queued that can still be taken back.
    pub(super) fn oldest(&self) -> Option<Instant> {
        let first = match (self.answers.front(), self.written) {
            (Some(Outcome::NotNow), _) => 0,
            (None, 0) => self.sent.commands,
            _ => return None,
        };
        self.commands.get(first).map(|command| command.queued)
    }

    /// Whether what is sent comes in again on the other connection, so that marks tell how far.
    pub(super) fn set_echoing(&mut self, is_echoing: bool) {
        if self.window.set_open(!is_echoing) {
            self.granted = Part::default();
            self.grant();
        }
    }

    /// The mark of that position has come in, or never will.
    pub(super) fn handle_mark(&mut self, position: u64) {
        self.window.handle_mark(position);
        self.grant();
    }

    /// The position of a mark that is due.
    pub(super) fn due_mark(&mut self) -> Option<u64> {
        self.window.due_mark()
    }

    /// Grants as many of the unsent commands as the window has room for.
    fn grant(&mut self) {
        let first = self.held.commands + self.sent.commands;
        while let Some(next) = self.commands.get(first + self.granted.commands)
            && self.window.has_room(self.granted.bytes)
        {
            self.granted.add(next.length);
        }
        // What is begun goes on.
        if self.written > 0
            && self.granted.commands == 0
            && let Some(begun) = self.commands.get(first)
        {
            self.granted.add(begun.length);
        }
    }

    /// What was held is to be sent as if it never had been; what has its answer leaves the queue.
    fn rewind(&mut self) -> Gone {
        let answers = core::mem::take(&mut self.answers);
        let held = core::mem::take(&mut self.held);
        let mut gone = Gone::default();
        if answers.iter().all(|&answer| answer == Outcome::Unconfirmed) {
            gone.unconfirmed = self.remove(0..held.commands);
        } else if answers.iter().any(|&answer| answer != Outcome::NotNow) {
            gone = self.sort_out(&answers, held);
        }
        self.granted = Part::default();
        self.grant();
        gone
    }

    /// Keeps what was not carried out, in its order, unless it was overtaken.
    fn sort_out(&mut self, answers: &VecDeque<Outcome>, held: Part) -> Gone {
        let commands: Vec<Command> = self.commands.drain(..held.commands).collect();
        let bytes: Vec<u8> = self.bytes.drain(..held.bytes).collect();
        let (mut gone, mut end, mut seen) = (Gone::default(), bytes.len(), BTreeSet::new());
        for (command, answer) in commands.into_iter().zip(answers).rev() {
            let encoded = &bytes[end - command.length..end];
            end -= command.length;
            let channel = channel(encoded);
            match answer {
                Outcome::Published => {
                    seen.extend(channel);
                    gone.done.add(command.length);
                }
                Outcome::Unconfirmed => {
                    seen.extend(channel);
                    gone.unconfirmed.add(command.length);
                }
                Outcome::Refused => gone.done.add(command.length),
                Outcome::NotNow if channel.is_some_and(|channel| seen.contains(channel)) => {
                    gone.overtaken.add(command.length);
                }
                Outcome::NotNow => {
                    encoded.iter().rev().for_each(|&byte| self.bytes.push_front(byte));
                    self.commands.push_front(command);
                }
            }
        }
        gone
    }

    /// The number of the command at `at` among all that were ever pushed; it keeps it as long as nothing behind it leaves.
    fn number(&self, at: usize) -> u64 {
        self.pushed - (self.commands.len() - at) as u64
    }

    /// Where the command at `at` begins. What is asked for nearly always is the first, or behind parts of known length.
    fn offset(&self, at: usize) -> usize {
        self.commands.iter().take(at).map(|command| command.length).sum()
    }

    fn remove(&mut self, commands: Range<usize>) -> Part {
        if commands.is_empty() {
            return Part::default();
        }
        let start = self.offset(commands.start);
        let bytes = self.commands.range(commands.clone()).map(|command| command.length).sum();
        let removed = Part { commands: commands.len(), bytes };
        self.commands.drain(commands);
        self.bytes.drain(start..start + bytes);
        if self.commands.is_empty() {
            self.bytes.shrink_to(KEPT_BYTES);
            self.commands.shrink_to(KEPT_COMMANDS);
        }
        removed
    }
}

/// The encoded channel of an encoded PUBLISH.
fn channel(command: &[u8]) -> Option<&[u8]> {
    let rest = command.get(encode::PUBLISH_HEAD.len()..)?;
    let digits = rest.iter().position(|&byte| byte == b'\r')?;
    let length: usize = core::str::from_utf8(rest.get(1..digits)?).ok()?.parse().ok()?;
    rest.get(..digits + 2 + length)
}
