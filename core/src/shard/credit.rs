//! Credit: the worker's share of the bus's publish queue, and the sessions that wait for some of it.

use std::collections::VecDeque;

use bytes::Bytes;

use super::intake::{Intake, Step};
use super::session::{Session, Stage};
use super::{KEPT, SessionId, Shard, get_mut};
use crate::error::{Error, Misuse};
use crate::exchange::publish_cost;
use crate::limits::Limits;
use crate::time::Instant;

/// Held input is taken in from so many sessions in one call, as much as a turn reads from sockets.
const READS_AT_ONCE: usize = 64;

/// What may be published, and the sessions that wait for some of it or for their turn.
#[derive(Debug)]
pub(super) struct Credit {
    /// Bytes that may still be published; below zero by at most what one read held.
    left: i64,
    /// Sessions that wait for credit, longest waiting first; among them some that do not any more.
    line: VecDeque<SessionId>,
    /// Sessions whose input is held and has not been looked at; among them some that are gone.
    held: VecDeque<SessionId>,
}

impl Credit {
    pub(super) const fn new(left: i64) -> Self {
        Self { left, line: VecDeque::new(), held: VecDeque::new() }
    }

    pub(super) fn give(&mut self, bytes: usize) {
        self.left = self.left.saturating_add(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// A message of that size goes to the bus.
    pub(super) fn spend(&mut self, channel: &[u8], payload_len: usize) {
        self.left -= i64::try_from(publish_cost(channel, payload_len)).unwrap_or(i64::MAX);
    }

    pub(super) const fn is_left(&self) -> bool {
        self.left > 0
    }

    /// Whether somebody may publish who has not stood in line.
    pub(super) fn is_free(&self) -> bool {
        self.left > 0 && self.line.is_empty()
    }

    /// Whether input that is held may be taken in now.
    pub(super) fn has_turn(&self) -> bool {
        !self.held.is_empty() || self.left > 0 && !self.line.is_empty()
    }

    #[cfg(test)]
    pub(super) const fn left(&self) -> i64 {
        self.left
    }

    #[cfg(test)]
    pub(super) const fn lists(&self) -> [&VecDeque<SessionId>; 2] {
        [&self.held, &self.line]
    }
}

impl Shard {
    /// Publishes a message in the embedder's own name.
    ///
    /// Nothing stops it at the end of the credit: an embedder that floods looks at [`Shard::has_credit`] first.
    ///
    /// # Errors
    /// [`Misuse::ChannelName`], [`Misuse::MessageSize`].
    pub fn publish(&mut self, channel: &Bytes, payload: &[u8]) -> Result<(), Misuse> {
        let limits = &self.settings.limits;
        if channel.is_empty() || channel.len() > limits.channel_bytes {
            return Err(Misuse::ChannelName);
        }
        if payload.len() > limits.message_bytes {
            return Err(Misuse::MessageSize);
        }
        self.credit.spend(channel, payload.len());
        self.to_bus.publish(channel, payload);
        Ok(())
    }

    /// Whether the bus takes publishes without exceeding its bound.
    #[must_use]
    pub const fn has_credit(&self) -> bool {
        self.credit.is_left()
    }

    /// Something has happened to a session's input.
    pub(super) fn step_intake(&mut self, id: SessionId, step: Step, now: Instant) {
        let Some(session) = get_mut(&mut self.sessions, id) else { return };
        let (before, after) = (session.intake, session.intake.after(step));
        if before == after {
            return;
        }
        session.intake = after;
        if let Intake::Waits(since) = before {
            session.resume(since, now);
        }
        match after {
            Intake::Clear => {}
            Intake::Held => self.credit.held.push_back(id),
            Intake::Waits(_) => {
                session.pause(now);
                self.credit.line.push_back(id);
                self.stats.pauses += 1;
            }
        }
    }

    /// Takes in input that is held: first of those in line, as far as the credit goes; of many, the first, and of each no
    /// more than one read.
    pub(super) fn take_in_held(&mut self, now: Instant) {
        let mut held = self.credit.held.len();
        for _ in 0..READS_AT_ONCE {
            if self.credit.is_left()
                && let Some(id) = self.first_in_line()
            {
                self.credit.line.pop_front();
                self.take_in(id, true, now);
            } else if held > 0
                && let Some(id) = self.credit.held.pop_front()
            {
                held -= 1;
                if self.get(id).is_some_and(|session| session.intake == Intake::Held) {
                    self.take_in(id, self.credit.is_free(), now);
                }
            } else {
                break;
            }
        }
        self.credit.held.shrink_to(KEPT);
        self.credit.line.shrink_to(KEPT);
    }

    /// All that is held, whatever the credit is: the owner has read what comes behind it.
    pub(super) fn flush_held(&mut self, id: SessionId, now: Instant) {
        while let Some(session) = self.get(id)
            && session.intake != Intake::Clear
        {
            if session.intake.waits().is_some() {
                self.credit.line.retain(|&other| other != id);
            }
            self.take_in(id, true, now);
        }
    }

    /// A session has waited for credit long enough: its message is not taken.
    pub(super) fn refuse_held(&mut self, id: SessionId, now: Instant) {
        let (mut held, ends) = self.take_held(id, now);
        let Some(session) = get_mut(&mut self.sessions, id) else { return };
        if let Stage::Open(open) = &mut session.stage
            && open.ws.handle_read(&mut &mut held[..], &self.settings.limits, now).is_some()
        {
            self.stats.messages_in += 1;
            self.stats.discarded += 1;
        }
        self.fail(id, Error::NoCredit, now);
        if ends {
            self.handle_eof(id, now);
        }
        self.first_in_line();
    }

    /// The session that waits longest. Those before it that wait no more are forgotten: as all in the line leave it in
    /// time, it is not longer than what came in within that time.
    fn first_in_line(&mut self) -> Option<SessionId> {
        while let Some(&id) = self.credit.line.front() {
            if self.get(id).is_some_and(|session| session.intake.waits().is_some()) {
                return Some(id);
            }
            self.credit.line.pop_front();
        }
        None
    }
}

impl Session {
    /// When its wait for credit is over.
    pub(super) fn pause_deadline(&self, limits: &Limits) -> Option<Instant> {
        self.intake.waits().map(|since| since + limits.pause_time)
    }

    /// Its time stands still.
    fn pause(&mut self, now: Instant) {
        if let Stage::Open(open) = &mut self.stage {
            open.ws.pause(now);
        }
    }

    /// Its time goes on; it stood still since then.
    fn resume(&mut self, since: Instant, now: Instant) {
        if let Stage::Open(open) = &mut self.stage {
            open.ws.resume(now);
            if let Some(unfinished) = &mut open.unfinished {
                unfinished.since = unfinished.since + now.since(since);
            }
        }
    }
}
