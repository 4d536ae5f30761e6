//! Deadlines that have passed. The clock alone ends no session: the awaited bytes may have arrived and lie unread, because
//! this process stood still or had no turn. So the owner is asked to look first.

use super::intake::Intake;
use super::session::{Overdue, Session, Stage};
use super::{DUE_AT_ONCE, SessionId, Shard, get_mut};
use crate::error::{Closed, Error, Side};
use crate::exchange::Wish;
use crate::limits::Limits;
use crate::time::Instant;

/// A session is read so often before it is judged, as long as each read brings something: behind it may lie more. So who
/// sends byte by byte gains as many turns, and no time that counts.
const READS: u8 = 64;

impl Shard {
    /// One of the session's deadlines may have passed.
    pub(super) fn session_timeout(&mut self, id: SessionId, now: Instant) {
        let Some(session) = get_mut(&mut self.sessions, id) else { return };
        if session.flags.overdue != Overdue::No {
            return;
        }
        let limits = &self.settings.limits;
        if session.next_deadline(limits).is_none_or(|deadline| deadline > now) {
            return self.settle(id, now);
        }
        if session.planned_at().is_some_and(|at| at <= now) || session.is_to_be_pinged(limits, now) {
            return self.judge(id, now);
        }
        if session.awaits_bus() {
            session.flags.overdue = Overdue::AwaitsBus;
            self.to_ask_bus.push(id);
        } else {
            self.have_looked_at(id);
        }
    }

    /// Has the owner look at the session's socket before it is judged.
    fn have_looked_at(&mut self, id: SessionId) {
        let Some(session) = get_mut(&mut self.sessions, id) else { return };
        if session.may_be_read() {
            session.flags.overdue = Overdue::ToLook;
            self.readable.push_back(id);
        } else {
            // Only the embedder can help it, or what its socket takes, until the next turn.
            session.flags.overdue = Overdue::Looked;
            self.looked.push(id);
        }
    }

    /// The owner asks whether it may read: it has been told to look, or looks by itself.
    pub(super) fn note_look(&mut self, id: SessionId) {
        let Some(session) = get_mut(&mut self.sessions, id) else { return };
        if session.flags.overdue == Overdue::ToLook {
            session.flags.overdue = Overdue::Looked;
            self.looked.push(id);
        }
    }

    /// Something was read: behind it may lie what its deadline waits for.
    pub(super) fn note_read(&mut self, id: SessionId) {
        let Some(session) = get_mut(&mut self.sessions, id) else { return };
        let flags = &mut session.flags;
        if flags.overdue == Overdue::Looked && flags.overdue_reads < READS {
            flags.overdue_reads += 1;
            flags.overdue = Overdue::ToLook;
            self.readable.push_back(id);
        }
    }

    /// Asks the bus about those whose deadline it can still meet.
    pub(super) fn ask_bus(&mut self) {
        if !self.to_ask_bus.is_empty() {
            self.asked_bus.push_back(std::mem::take(&mut self.to_ask_bus));
            self.to_bus.wishes.push(Wish::Look);
        }
    }

    /// Whatever the bus had when it was asked first is here.
    pub(super) fn bus_has_looked(&mut self) {
        for id in self.asked_bus.pop_front().unwrap_or_default() {
            if self.get(id).is_some_and(|session| session.flags.overdue == Overdue::AwaitsBus) {
                self.have_looked_at(id);
            }
        }
    }

    /// Judges those for whom the owner has looked. Those whose sockets were full and are not any more are judged by what
    /// they take, and those whose input is held and about to be taken in by that.
    pub(super) fn judge_looked(&mut self, now: Instant) {
        let count = self.looked.len().min(DUE_AT_ONCE);
        let mut looked = std::mem::take(&mut self.looked);
        self.looked = looked.split_off(count);
        for id in looked {
            let Some(session) = self.get(id).filter(|session| session.flags.overdue == Overdue::Looked) else {
                continue;
            };
            if session.is_offered_output() || self.has_turn(session) {
                self.looked.push(id);
            } else {
                self.judge(id, now);
            }
        }
    }

    /// Whether input of the session is held that is taken in without anything else.
    fn has_turn(&self, session: &Session) -> bool {
        match session.intake {
            Intake::Clear => false,
            Intake::Held => true,
            Intake::Waits(_) => self.credit.is_left(),
        }
    }

    /// Does what is due, unless what has arrived has moved the deadline.
    fn judge(&mut self, id: SessionId, now: Instant) {
        let Some(session) = get_mut(&mut self.sessions, id) else { return };
        session.flags.overdue = Overdue::No;
        session.flags.overdue_reads = 0;
        let limits = &self.settings.limits;
        if session.next_deadline(limits).is_none_or(|deadline| deadline > now) {
            return self.settle(id, now);
        }
        if session.planned_at().is_some_and(|at| at <= now) {
            session.close_as_planned(now);
            return self.settle(id, now);
        }
        let is_late = session.message_deadline(limits).is_some_and(|at| at <= now);
        let is_starved = session.pause_deadline(limits).is_some_and(|at| at <= now);
        let local = |error| Closed { by: Side::Local, code: None, error };
        match &mut session.stage {
            Stage::Head(head) if head.reader.is_empty() => self.remove(id, local(Some(self.late(Error::SlowHead)))),
            Stage::Head(_) => self.answer_error(id, self.late(Error::SlowHead), now),
            Stage::Deciding(_) | Stage::Scraping { .. } => self.answer_error(id, Error::Unavailable, now),
            Stage::Joining(_) => self.answer_error(id, self.late(Error::NotConfirmed), now),
            Stage::Answered { error, .. } => {
                let error = *error;
                self.remove(id, local(error));
            }
            Stage::Open(_) if is_starved => self.refuse_held(id, now),
            Stage::Open(_) if is_late => self.fail(id, Error::SlowMessage, now),
            Stage::Open(open) => {
                if open.ws.handle_timeout(limits, now) {
                    session.note_alive(0, limits);
                }
                self.settle(id, now);
            }
        }
    }
}

impl Session {
    /// Whether nothing worse is due than a ping.
    fn is_to_be_pinged(&self, limits: &Limits, now: Instant) -> bool {
        let is_due = |deadline: Option<Instant>| deadline.is_some_and(|at| at <= now);
        matches!(&self.stage, Stage::Open(open) if !open.ws.is_awaited() && is_due(open.ws.deadline(limits)))
            && !is_due(self.turn_deadline(limits))
    }

    /// Whether its socket was full when it was written last, and it is about to be written again.
    fn is_offered_output(&self) -> bool {
        self.flags.listed && !self.flags.blocked && matches!(&self.stage, Stage::Open(open) if open.ws.is_stalled())
    }

    /// Whether its deadline may be met by what the bus has for it: a confirmation, or credit.
    fn awaits_bus(&self) -> bool {
        match &self.stage {
            Stage::Joining(_) => true,
            Stage::Open(_) => self.intake.waits().is_some(),
            Stage::Head(_) | Stage::Deciding(_) | Stage::Scraping { .. } | Stage::Answered { .. } => false,
        }
    }
}
