//! The beginning of a session, what follows from each change of one, and its end.

use std::net::IpAddr;

use super::intake::Step;
use super::session::{Head, Joining, Overdue, Session, Stage};
use super::{Event, SessionId, Shard, get_mut};
use crate::error::{Closed, Error, Misuse, Side};
use crate::http::RequestReader;
use crate::route::Target;
use crate::time::Instant;
use crate::ws::CloseWhen;

impl Shard {
    /// A client's connection was accepted. `peer` is its address, for the origin policy and the embedder. It has
    /// [`Limits::head_time`](crate::limits::Limits::head_time) for its request.
    pub fn handle_connection(&mut self, peer: Option<IpAddr>, now: Instant) -> SessionId {
        let now = self.at(now);
        let id = self.connect(peer, now);
        self.note_mute(id);
        id
    }

    pub(super) fn connect(&mut self, peer: Option<IpAddr>, now: Instant) -> SessionId {
        let deadline = now + self.settings.limits.head_time;
        let id = self.insert(Stage::Head(Box::new(Head { reader: RequestReader::new(), peer, deadline })));
        self.ledger.begin(id, peer, now);
        self.settle(id, now);
        id
    }

    /// Takes in a WebSocket whose 101 somebody else has sent; `leftover` is what was read behind the request, to be taken in
    /// as by [`Shard::handle_leftover`]. If its channel is not confirmed in time it is closed with 1013.
    ///
    /// # Errors
    /// [`Misuse::ChannelName`], [`Misuse::FrameType`], [`Misuse::Notes`], [`Misuse::WrongState`] after
    /// [`Shard::shutdown`]; nothing changes.
    pub fn adopt(&mut self, target: Target, leftover: Vec<u8>, now: Instant) -> Result<SessionId, Misuse> {
        let now = self.at(now);
        if self.ending.closes_by().is_some() {
            return Err(Misuse::WrongState);
        }
        self.channels.check(&target, &self.settings)?;
        let deadline = now + self.settings.limits.confirm_time;
        let id = self.insert(Stage::Joining(Box::new(Joining { switch: None, target, leftover, deadline })));
        self.ledger.begin(id, None, now);
        self.join(id, now);
        Ok(id)
    }

    /// Closes an open session, after what waits for it has left.
    ///
    /// # Errors
    /// [`Misuse::CloseCode`], [`Misuse::CloseReason`], [`Misuse::WrongState`] if it is not open,
    /// [`Misuse::NoSuchSession`].
    pub fn close(&mut self, id: SessionId, code: u16, reason: &str, now: Instant) -> Result<(), Misuse> {
        let now = self.at(now);
        let session = get_mut(&mut self.sessions, id).ok_or(Misuse::NoSuchSession)?;
        let Stage::Open(open) = &mut session.stage else { return Err(Misuse::WrongState) };
        open.ws.close(code, reason, CloseWhen::AfterData, now)?;
        self.settle(id, now);
        Ok(())
    }

    /// Whether no session is left, those of [`Shard::handle_admin_connection`] aside, and no message waits for
    /// [`Shard::decide`].
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sessions.len() == self.admins && self.reviews.is_empty()
    }

    /// Whether the session has not ended.
    #[must_use]
    pub fn contains(&self, id: SessionId) -> bool {
        self.get(id).is_some()
    }

    pub(super) fn insert(&mut self, stage: Stage) -> SessionId {
        self.generation = self.generation.wrapping_add(1);
        self.ledger.count();
        let index = self.sessions.insert(Session::new(self.generation, stage)) as u32;
        SessionId { index, generation: self.generation }
    }

    /// Brings everything that depends on a session's state in line with it. Follows every change of a session.
    pub(super) fn settle(&mut self, id: SessionId, now: Instant) {
        let Some(session) = get_mut(&mut self.sessions, id) else { return };
        if let Some(closed) = session.closed() {
            return self.remove(id, closed);
        }
        if session.flags.unread && session.may_be_read() {
            session.flags.unread = false;
            self.readable.push_back(id);
        }
        let waits_in_vain = session.waits_in_vain();
        if session.has_finished() && !session.flags.ended_writes {
            session.flags.ended_writes = true;
            self.events.push_back(Event::EndWrites(id));
        }
        // A deadline that moves away is left to fire early, once: most move with every byte.
        let deadline = session.next_deadline(&self.settings.limits);
        let is_judged = session.flags.overdue == Overdue::No;
        if is_judged && (deadline.is_none() || session.deadline.is_none() || deadline < session.deadline) {
            self.timers.set(id.index, &mut session.deadline, deadline);
        }
        let closing = matches!(&session.stage, Stage::Open(open) if !open.ws.can_send());
        let may_have_dropped = session.rare.is_some() && session.queue.is_empty();
        self.list(id);
        if may_have_dropped {
            self.caught_up(id);
        }
        if waits_in_vain {
            self.step_intake(id, Step::Free, now);
        }
        if closing {
            self.leave(id);
        }
    }

    /// An open session ends for `error`. A slow reader gets nothing more than the rest of a begun frame; any other
    /// session gets what waits for it.
    pub(super) fn fail(&mut self, id: SessionId, error: Error, now: Instant) {
        self.forget_unfinished(id);
        let Some(session) = get_mut(&mut self.sessions, id) else { return };
        let Stage::Open(open) = &mut session.stage else { return };
        tracing::debug!(event = "session_error", session = %self.ledger.number(id), "closing: {error}");
        open.ws.fail(error, now);
        if error == Error::SlowReader {
            session.queue.drop_unbegun(&mut self.runs);
        }
        self.settle(id, now);
    }

    pub(super) fn remove(&mut self, id: SessionId, closed: Closed) {
        self.leave(id);
        self.caught_up(id);
        self.forget_unfinished(id);
        let Some(session) = get_mut(&mut self.sessions, id) else { return };
        Self::count_end(&mut self.stats, session, &closed);
        session.queue.clear(&mut self.runs);
        self.timers.set(id.index, &mut session.deadline, None);
        self.admins -= usize::from(session.flags.admin);
        let is_given_up = closed.by != Side::Transport && session.is_waited_for();
        self.sessions.remove(id.index());
        if is_given_up {
            self.events.push_back(Event::GivenUp(id));
        }
        self.ledger.ended(id, &closed, self.latest);
        self.events.push_back(Event::Closed(id, closed));
    }
}
