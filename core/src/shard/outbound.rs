//! Outbound: the bytes that sessions have to write, and the results of writes.

use std::io::IoSlice;

use super::session::{Session, Stage};
use super::{KEPT, SessionId, Shard, get_mut};
use crate::error::Misuse;
use crate::time::Instant;

impl Shard {
    /// A session that has new output. Can change after every input and command.
    pub fn poll_transmit(&mut self) -> Option<SessionId> {
        while let Some(id) = self.writable.pop_front() {
            let Some(session) = self.get_mut(id) else { continue };
            session.flags.listed = false;
            if !session.flags.blocked && session.has_output() {
                return Some(id);
            }
        }
        self.writable.shrink_to(KEPT);
        None
    }

    /// How many sessions [`Shard::poll_transmit`] names before one that has been named already, or is listed from now on.
    #[must_use]
    pub fn to_transmit(&self) -> usize {
        self.writable.len()
    }

    /// Lends what the session has to write, in order, into `out`; says how many slices it filled. It only looks.
    #[must_use]
    pub fn transmit<'a>(&'a self, id: SessionId, out: &mut [IoSlice<'a>]) -> usize {
        self.get(id).map_or(0, |session| session.slices(&self.runs, out))
    }

    /// The first `n` bytes that [`Shard::transmit`] lent have left.
    ///
    /// `now` may be some time before they left. If that can be long, because this process may stand still in between,
    /// call [`Shard::handle_written`] afterwards.
    ///
    /// # Errors
    /// [`Misuse::TooMuchTransmitted`] if so many were not lent, [`Misuse::NoSuchSession`]; nothing changes.
    pub fn transmitted(&mut self, id: SessionId, n: usize, now: Instant) -> Result<(), Misuse> {
        let now = self.at(now);
        let session = get_mut(&mut self.sessions, id).ok_or(Misuse::NoSuchSession)?;
        if session.sent(&mut self.runs, n, now)? {
            self.pinged.push(id);
        }
        self.stats.bytes_out += n as u64;
        // Nothing follows from a write to a session that is open and up to date, which nearly all are.
        if !session.takes_messages() || session.has_output() || session.rare.is_some() {
            self.settle(id, now);
        }
        Ok(())
    }

    /// Whether a ping has left since the last [`Shard::handle_written`] or [`Shard::handle_timeout`].
    #[must_use]
    pub const fn has_pinged(&self) -> bool {
        !self.pinged.is_empty()
    }

    /// All writes of a turn are over, and it is `now`: the time for the answer to each ping that left with them counts from
    /// here. Of use when [`Shard::has_pinged`].
    pub fn handle_written(&mut self, now: Instant) {
        let now = self.at(now);
        for id in std::mem::take(&mut self.pinged) {
            if let Some(Stage::Open(open)) = self.get_mut(id).map(|session| &mut session.stage) {
                open.ws.ping_left(now);
            }
        }
    }

    /// The session's socket takes no more. It is not named by [`Shard::poll_transmit`] until [`Shard::handle_writable`].
    pub fn blocked(&mut self, id: SessionId) {
        let now = self.latest;
        let Some(session) = self.get_mut(id) else { return };
        session.flags.blocked = true;
        if let Stage::Open(open) = &mut session.stage {
            open.ws.handle_blocked(now);
        }
        let is_paused = session.intake.waits().is_some();
        if let Some(session) = get_mut(&mut self.sessions, id) {
            session.fall_in(id.index, &mut self.behind, (&self.runs, 0), &self.settings.limits, now);
        }
        if is_paused {
            self.settle(id, now);
        }
        if self.get(id).is_some_and(Session::keeps_latest) {
            self.keep_latest(id);
        }
    }

    /// The session's socket takes bytes again.
    pub fn handle_writable(&mut self, id: SessionId) {
        if let Some(session) = self.get_mut(id) {
            session.flags.blocked = false;
            self.list(id);
        }
    }

    /// What waits for one session, in memory: bounded by
    /// [`Limits::queue_bytes`](crate::limits::Limits::queue_bytes).
    #[must_use]
    pub fn queued_bytes(&self, id: SessionId) -> usize {
        self.get(id).map_or(0, |session| session.queue.memory())
    }

    /// Has the session named by [`Shard::poll_transmit`] if it has something to write.
    pub(super) fn list(&mut self, id: SessionId) {
        let Some(session) = get_mut(&mut self.sessions, id) else { return };
        if !session.flags.listed && !session.flags.blocked && session.has_output() {
            session.flags.listed = true;
            self.writable.push_back(id);
        }
    }
}
