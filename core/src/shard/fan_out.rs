//! Messages in from sessions, messages out to them, and the end of a session.

use std::sync::Arc;

use bytes::BytesMut;

use super::credit::Step;
use super::deadlines::Overdue;
use super::queue::Content;
use super::session::{Session, Stage};
use super::slow::Arrived;
use super::{Event, SessionId, Shard, get_mut, id_of};
use crate::error::{Closed, Error, Side};
use crate::exchange::ChannelId;
use crate::run::Run;
use crate::time::Instant;

impl Shard {
    /// Every message that is whole goes to the bus, if the session `admits` any; if not, the first and what comes behind it
    /// is held, before what was held `behind` the input.
    pub(super) fn read_frames(
        &mut self,
        id: SessionId,
        (mut input, behind): (&mut [u8], BytesMut),
        admits: bool,
        now: Instant,
    ) {
        let limits = &self.settings.limits;
        let Some(session) = get_mut(&mut self.sessions, id) else { return };
        let Stage::Open(open) = &mut session.stage else { return };
        let admits = admits || !open.needs_credit();
        let asks = open.target.notes;
        let (mut error, mut has_message) = (None, false);
        let (mut taken, mut is_asked) = (0, false);
        while let Some(message) = if admits {
            open.ws.handle_read(&mut input, limits, now)
        } else {
            open.ws.handle_read_before_data(&mut input, asks, limits, now)
        } {
            has_message = true;
            if message.frame != open.target.frame && open.is_question(&message) {
                is_asked = true;
                continue;
            }
            self.stats.messages_in += 1;
            if !open.target.rights.publish {
                error = Some(Error::ReadOnly);
            } else if message.frame != open.target.frame {
                error = Some(Error::FrameType);
            } else if !open.ws.can_send() && !self.credit.is_left() {
                // It is read in spite of the credit only for the sake of its Close.
                self.stats.discarded += 1;
                continue;
            } else {
                self.credit.spend(&open.target.channel, message.payload.len());
                self.to_bus.publish(&open.target.channel, &message.payload);
                taken += 1;
                continue;
            }
            break;
        }
        let is_unfinished = open.ws.is_amid() || open.unfinished.is_some();
        session.flags.spoke = taken > 0;
        if is_asked || taken > 0 {
            session.note_alive(taken, limits);
        }
        if is_unfinished {
            self.note_unfinished(id, has_message, now);
        }
        if error.is_none() {
            self.hold(id, input, behind, now);
        }
        if let Some(error) = error {
            self.fail(id, error, now);
        } else {
            self.settle(id, now);
        }
        self.bound_unfinished(now);
    }

    /// Puts a run into the queue of every session of its channel, or what a session that is behind may have of it.
    pub(super) fn fan_out(&mut self, channel: ChannelId, run: &Arc<Run>, now: Instant) {
        let most = self.settings.limits.all_queues_bytes / self.settings.workers.max(1);
        let (mut full, mut overfull) = (false, false);
        if self.runs.memory() + run.memory() > most && self.channels.get(channel).is_some() {
            self.make_room(run.memory(), most, now);
            full = self.runs.memory() + run.memory() > most;
            overfull = self.runs.memory() + run.memory() > most + self.beyond_bytes();
        }
        // It may have gone with its last session.
        let Some(channel) = self.channels.get_mut(channel) else { return };
        let limits = &self.settings.limits;
        let len = run.bytes().len();
        let place = self.runs.next();
        let mut entries = 0;
        let mut slow = Vec::new();
        for &index in &channel.members {
            let session = &mut self.sessions[index as usize];
            if !session.takes_messages() {
                continue;
            }
            let id = id_of(index, session);
            let waits = !session.queue.is_empty();
            // Whoever keeps up takes any run, however large; and whose socket is not full has only had no turn yet.
            let is_full = full && (overfull || session.flags.blocked && !session.holds_little(&self.runs, 0, limits));
            let too_much = waits && (is_full || session.queue.memory_with(len) > limits.queue_bytes);
            if too_much || session.keeps_latest() {
                slow.push((id, is_full));
                continue;
            }
            entries += 1;
            if session.flags.blocked {
                // The run is not among those held yet.
                session.fall_in(index, &mut self.behind, (&self.runs, run.memory()), limits, now);
            } else if !session.flags.listed {
                session.flags.listed = true;
                self.writable.push_back(id);
            }
            session.queue.push(place, len);
        }
        // Fewer than 2³² sessions, as everywhere.
        let holders = entries + slow.len() as u32;
        if holders > 0 {
            self.runs.hold(run.clone(), Content::Messages, holders);
        }
        self.stats.deliveries += u64::from(entries) * run.len() as u64;
        for &subscriber in &channel.subscribers {
            self.events.push_back(Event::Run(subscriber, run.clone()));
        }
        for (id, full) in slow {
            self.fall_behind(id, &Arrived { run, place, full }, now);
        }
        if self.runs.memory() > most {
            self.make_room(0, most + self.beyond_bytes(), now);
        }
    }

    /// An open session ends for `error`. A slow reader gets nothing more than the rest of a begun frame; who else is
    /// closed gets what waits for it.
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

    /// Has the session named by [`Shard::poll_transmit`] if it has something to write.
    pub(super) fn list(&mut self, id: SessionId) {
        let Some(session) = get_mut(&mut self.sessions, id) else { return };
        if !session.flags.listed && !session.flags.blocked && session.has_output() {
            session.flags.listed = true;
            self.writable.push_back(id);
        }
    }

    pub(super) fn insert(&mut self, stage: Stage) -> SessionId {
        self.generation = self.generation.wrapping_add(1);
        self.ledger.count();
        let index = self.sessions.insert(Session::new(self.generation, stage)) as u32;
        SessionId { index, generation: self.generation }
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
