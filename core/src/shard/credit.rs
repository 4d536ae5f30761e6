//! Who may publish: the worker's share of the bus's publish queue, and the sessions that wait for some of it.

use bytes::Bytes;

use super::session::{LastRead, Stage};
use super::{SessionId, Shard, get_mut};
use crate::error::Misuse;
use crate::exchange::publish_cost;
use crate::time::Instant;

/// What a session that is named is expected to use: one read.
pub(super) const READ_BYTES: usize = 16 << 10;

impl Shard {
    /// A session's socket is readable: may it be read? If not, [`Shard::poll_readable`] names it when it may.
    ///
    /// No is said while the embedder or the bus has yet to answer, while what came behind the request is yet to be taken in,
    /// when no credit to publish is left, and after the peer's end. For want of credit the session waits in line and its pong deadline stands still. After
    /// [`Limits::pause_time`](crate::limits::Limits::pause_time) it is named to be read once: a message, or a part of one,
    /// ends it with 1013; a ping, a pong or a Close does not.
    pub fn handle_readable(&mut self, id: SessionId, now: Instant) -> bool {
        let now = self.at(now);
        self.note_look(id);
        let Some(session) = get_mut(&mut self.sessions, id) else { return false };
        if session.has_leftover() {
            session.flags.unread = true;
            return false;
        }
        let is_yes = self.ask(id, now);
        if let Some(session) = get_mut(&mut self.sessions, id)
            && !session.flags.peer_ended
        {
            session.flags.unread |= !is_yes;
        }
        is_yes
    }

    /// Whether [`Shard::handle_readable`] has said no and it may not be asked again yet. Nobody reads such a session, so
    /// that its end has to be found otherwise: by [`Shard::handle_reset`] and [`Shard::handle_unread_eof`].
    #[must_use]
    pub fn is_unread(&self, id: SessionId) -> bool {
        self.get(id).is_some_and(|session| session.flags.unread && !session.flags.peer_ended)
    }

    /// Whether the session may be read now, its socket or its leftover. If it has to wait for credit, it stands in line.
    pub(super) fn ask(&mut self, id: SessionId, now: Instant) -> bool {
        let free = self.free_credit();
        let Some(session) = get_mut(&mut self.sessions, id) else { return false };
        let promised = std::mem::take(&mut session.flags.promised);
        self.promised -= i64::from(promised);
        if session.flags.peer_ended {
            return false;
        }
        // Who has no promise stands behind those that have one.
        if session.may_be_read(if promised { self.credit } else { free }) {
            session.unpause(now);
            session.flags.last_read.ask();
            return true;
        }
        session.flags.last_read = LastRead::None;
        if let Stage::Open(open) = &mut session.stage
            && session.paused.is_none()
        {
            session.paused = Some(now);
            open.ws.pause(now);
            if promised {
                self.paused.push_front(id);
            } else {
                self.paused.push_back(id);
                self.stats.pauses += 1;
            }
            self.settle(id, now);
        }
        false
    }

    /// What [`Shard::handle_readable`] would say, without telling the shard that anything waits.
    #[must_use]
    pub fn may_be_read(&self, id: SessionId) -> bool {
        self.get(id).is_some_and(|session| {
            !session.has_leftover()
                && session.may_be_read(if session.flags.promised { self.credit } else { self.free_credit() })
        })
    }

    /// Publishes a message in the embedder's own name.
    ///
    /// Nothing stops it at the end of the credit: an embedder that floods looks at [`Shard::has_credit`] first.
    ///
    /// # Errors
    /// [`Misuse::InvalidArgument`] if the channel's name is empty or beyond
    /// [`Limits::channel_bytes`](crate::limits::Limits::channel_bytes), or the payload beyond
    /// [`Limits::message_bytes`](crate::limits::Limits::message_bytes).
    pub fn publish(&mut self, channel: &Bytes, payload: &[u8]) -> Result<(), Misuse> {
        let limits = &self.settings.limits;
        if channel.is_empty() || channel.len() > limits.channel_bytes || payload.len() > limits.message_bytes {
            return Err(Misuse::InvalidArgument);
        }
        self.credit -= cost(channel, payload.len());
        self.to_bus.publish(channel, payload);
        Ok(())
    }

    /// Whether the bus takes publishes without exceeding its bound.
    #[must_use]
    pub const fn has_credit(&self) -> bool {
        self.credit > 0
    }

    /// A session has waited for credit long enough. What it has to say may be no message, and then it stays.
    pub(super) fn hear_out(&mut self, id: SessionId, now: Instant) {
        let Some(session) = get_mut(&mut self.sessions, id) else { return };
        session.unpause(now);
        session.flags.last_read = LastRead::Due;
        // Nearly always the first in line.
        if let Some(place) = self.paused.iter().position(|&other| other == id) {
            self.paused.remove(place);
        }
        self.settle(id, now);
    }

    /// Has those read again that wait longest, as far as the credit will go.
    pub(super) fn resume_paused(&mut self, now: Instant) {
        while let Some(&id) = self.paused.front() {
            let free = self.free_credit();
            // Who is gone, or closing, waits no more.
            let waiting = get_mut(&mut self.sessions, id).filter(|session| session.paused.is_some());
            if waiting.is_some() && free <= 0 {
                return;
            }
            self.paused.pop_front();
            if let Some(session) = waiting {
                session.unpause(now);
                session.flags.promised = true;
                self.promised += 1;
                self.settle(id, now);
            }
        }
        self.paused.shrink_to(super::KEPT);
    }

    /// Whether [`Shard::resume_paused`] has something to do.
    pub(super) fn can_resume(&self) -> bool {
        !self.paused.is_empty() && self.free_credit() > 0
    }

    /// What is left beyond what those that were named will use.
    const fn free_credit(&self) -> i64 {
        self.credit - self.promised * READ_BYTES as i64
    }
}

/// What a publish takes of the credit.
pub(super) fn cost(channel: &[u8], payload_len: usize) -> i64 {
    i64::try_from(publish_cost(channel, payload_len)).unwrap_or(i64::MAX)
}
