//! Unfinished messages: how long they may take, and which session pays when there are too many.

use super::session::{Session, Stage, Unfinished};
use super::{SessionId, Shard, get_mut, id_of};
use crate::error::Error;
use crate::limits::Limits;
use crate::time::Instant;

/// What a session may hold of unfinished messages that does not count for the bound of all of them, so that nobody can take
/// it from others: any message that comes in two or three segments fits in.
pub(super) const FREE_BYTES: usize = 4 << 10;

impl Unfinished {
    /// What counts for the bound of all.
    pub(super) const fn counted(&self) -> usize {
        self.bytes.saturating_sub(FREE_BYTES)
    }
}

impl Shard {
    /// Something was read of a session. Notes what of it is not whole; `is_new` says that this began just now, behind a
    /// message that is whole.
    pub(super) fn note_unfinished(&mut self, id: SessionId, is_new: bool, now: Instant) {
        let Some(session) = get_mut(&mut self.sessions, id) else { return };
        let Stage::Open(open) = &mut session.stage else { return };
        if !open.ws.is_amid() {
            return self.forget_unfinished(id);
        }
        let begun = || Box::new(Unfinished { since: now, bytes: 0, place: None });
        let unfinished = open.unfinished.get_or_insert_with(begun);
        if is_new {
            unfinished.since = now;
        }
        let bytes = open.ws.partial_bytes();
        self.partial -= unfinished.counted();
        unfinished.bytes = bytes;
        self.partial += unfinished.counted();
        let place = (unfinished.counted() > 0).then_some(unfinished.since);
        self.unfinished.set(id.index, &mut unfinished.place, place);
    }

    /// Ends those that have been at a message for longest, until what is unfinished fits into its bound.
    pub(super) fn bound_unfinished(&mut self, now: Instant) {
        while self.partial > self.settings.limits.partial_bytes / self.settings.workers.max(1)
            && let Some(index) = self.unfinished.first()
        {
            let id = id_of(index, &self.sessions[index as usize]);
            self.fail(id, Error::PartialFull, now);
        }
    }

    pub(super) fn forget_unfinished(&mut self, id: SessionId) {
        let Some(session) = get_mut(&mut self.sessions, id) else { return };
        if let Stage::Open(open) = &mut session.stage
            && let Some(mut unfinished) = open.unfinished.take()
        {
            self.partial -= unfinished.counted();
            self.unfinished.set(id.index, &mut unfinished.place, None);
        }
    }
}

impl Session {
    /// When a message that it has begun has to be whole. The time stands still while it is not read.
    pub(super) fn message_deadline(&self, limits: &Limits) -> Option<Instant> {
        match &self.stage {
            Stage::Open(open) if self.intake.waits().is_none() && open.ws.can_send() => {
                open.unfinished.as_ref().map(|unfinished| unfinished.since + limits.message_time)
            }
            _ => None,
        }
    }
}
