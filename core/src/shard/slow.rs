//! Slow readers: what they lose, by their route's policy.

use std::sync::Arc;

use super::queue::{Content, Missing};
use super::session::{Session, Stage};
use super::{Event, SessionId, Shard, get_mut};
use crate::error::Error;
use crate::note::Note;
use crate::route::Slow;
use crate::run::Run;
use crate::time::Instant;

/// A run that is not to be put whole behind what waits.
pub(super) struct Arrived<'a> {
    pub(super) run: &'a Run,
    /// Where the shard holds it, once for each session that is asked.
    pub(super) place: u32,
    /// No more may wait for all sessions together.
    pub(super) full: bool,
}

impl Shard {
    /// The session is behind, and all of the run would be too much for it.
    pub(super) fn fall_behind(&mut self, id: SessionId, arrived: &Arrived<'_>, now: Instant) {
        let Some(session) = get_mut(&mut self.sessions, id) else { return };
        let bound = self.settings.limits.queue_bytes;
        let Arrived { run, place, full } = *arrived;
        let kept = match session.slow() {
            Slow::Close => {
                self.runs.give_back(place);
                self.stats.slow_readers += 1;
                return self.fail(id, Error::SlowReader, now);
            }
            Slow::DropNewest => session.queue.keep_first(run, if full { 0 } else { bound }),
            Slow::DropOldest | Slow::Latest if full || session.keeps_latest() => {
                session.queue.keep_only_last(&mut self.runs, run, bound)
            }
            Slow::DropOldest | Slow::Latest => session.queue.keep_last(&mut self.runs, run, bound),
        };
        self.stats.deliveries += kept.messages.len() as u64;
        if !session.queue.push_part(place, run, kept.messages) {
            self.runs.give_back(place);
        }
        self.lost(id, kept.lost, now);
        if let Some(session) = get_mut(&mut self.sessions, id) {
            if session.queue.is_empty() {
                session.catch_up(id.index, &mut self.behind);
            } else {
                session.fall_in(id.index, &mut self.behind, (&self.runs, 0), &self.settings.limits, now);
            }
        }
        self.list(id);
    }

    /// The session's socket takes no more: of what waits, only what its route says goes on waiting.
    pub(super) fn keep_latest(&mut self, id: SessionId) {
        let now = self.latest;
        let Some(session) = get_mut(&mut self.sessions, id) else { return };
        let dropped = session.queue.keep_newest(&mut self.runs);
        self.lost(id, dropped, now);
    }

    /// So many messages were dropped of what the session had a right to.
    pub(super) fn lost(&mut self, id: SessionId, messages: u64, now: Instant) {
        let Some(session) = get_mut(&mut self.sessions, id) else { return };
        if messages == 0 {
            return;
        }
        *match session.slow() {
            Slow::Close | Slow::DropNewest => &mut self.stats.dropped_newest,
            Slow::DropOldest => &mut self.stats.dropped_oldest,
            Slow::Latest => &mut self.stats.dropped_latest,
        } += messages;
        session.rare.get_or_insert_default().dropped += messages;
        self.note_dropped(id, messages);
        if let Some(unsaid) = self.said_dropped.say(now) {
            tracing::warn!(
                event = "slow_reader",
                session = %self.ledger.number(id),
                messages,
                unsaid,
                "a slow reader loses messages"
            );
        }
    }

    /// Tells the client, where the messages are missing.
    fn note_dropped(&mut self, id: SessionId, messages: u64) {
        let Some(session) = get_mut(&mut self.sessions, id) else { return };
        if !session.has_notes() {
            return;
        }
        let missing = if session.slow() == Slow::DropNewest { Missing::Behind } else { Missing::Before };
        let is_more = session.queue.has_note(&self.runs, Content::Dropped, missing);
        let rare = session.rare.get_or_insert_default();
        rare.noted = messages + if is_more { rare.noted } else { 0 };
        let note = Note::Dropped { messages: rare.noted }.encode();
        let place = self.runs.hold(Arc::new(note), Content::Dropped, 1);
        session.queue.put_note(&mut self.runs, place, missing);
        if missing == Missing::Before {
            session.queue.merge_gaps(&mut self.runs);
        }
    }

    /// The session has caught up or is gone: tells what it lost.
    pub(super) fn caught_up(&mut self, id: SessionId) {
        let Some(session) = get_mut(&mut self.sessions, id) else { return };
        session.catch_up(id.index, &mut self.behind);
        if let Some(messages) = session.take_dropped() {
            self.events.push_back(Event::Dropped(id, messages));
        }
    }
}

impl Session {
    /// Whether of what waits for it only the newest message is to go on waiting.
    pub(super) fn keeps_latest(&self) -> bool {
        self.flags.blocked && self.wants_latest()
    }

    /// Out of line: it is asked of everyone whose socket is full, and inlined it would be in the way of all others.
    #[cold]
    fn wants_latest(&self) -> bool {
        self.slow() == Slow::Latest && self.takes_messages()
    }

    /// Whether its client gets notes of what it misses.
    pub(super) fn has_notes(&self) -> bool {
        matches!(&self.stage, Stage::Open(open) if open.target.notes && open.ws.can_send())
    }

    pub(super) fn slow(&self) -> Slow {
        match &self.stage {
            Stage::Open(open) => open.target.policies.slow,
            _ => Slow::Close,
        }
    }

    fn take_dropped(&mut self) -> Option<u64> {
        let rare = self.rare.as_mut()?;
        let messages = std::mem::take(&mut rare.dropped);
        // What waits has left, its notes included.
        rare.noted = 0;
        self.drop_rare_if_bare();
        (messages > 0).then_some(messages)
    }
}
