//! Inbound: bytes from a session's socket become messages for the bus.

use bytes::BytesMut;

use super::session::{Admission, Overdue, Stage};
use super::{SessionId, Shard, get_mut, review};
use crate::error::{Closed, Error, Side};
use crate::time::Instant;
use crate::ws;

impl Shard {
    /// `input` was read from the session's socket. It is unmasked in place; nothing of it is kept but an unfinished tail.
    ///
    /// All of it is taken, whatever [`Shard::handle_readable`] said before, and for a session that is gone nothing.
    pub fn handle_read(&mut self, id: SessionId, input: &mut [u8], now: Instant) {
        let now = self.at(now);
        let limit = self.settings.limits.head_bytes;
        let Some(session) = get_mut(&mut self.sessions, id) else { return };
        self.stats.bytes_in += input.len() as u64;
        if session.flags.overdue != Overdue::No {
            self.note_read(id);
        }
        let Some(session) = get_mut(&mut self.sessions, id) else { return };
        match &mut session.stage {
            Stage::Head(_) => self.read_head(id, input, now),
            Stage::Open(_) => {
                self.flush_held(id, now);
                self.read_frames(id, (input, BytesMut::new()), self.credit.is_free(), now);
            }
            Stage::Deciding(deciding) if deciding.held() + input.len() <= limit => {
                extend_exactly(&mut deciding.leftover, input);
            }
            Stage::Joining(joining) if joining.held() + input.len() <= limit => {
                extend_exactly(&mut joining.leftover, input);
            }
            Stage::Deciding(_) | Stage::Joining(_) => self.answer_error(id, Error::LongHead, now),
            Stage::Scraping { .. } | Stage::Answered { .. } => {}
        }
    }

    /// A session's socket is readable: may it be read? If not, [`Shard::poll_readable`] names it when it may.
    ///
    /// No is said while the embedder or the bus has yet to answer, while input that was read before is yet to be taken in,
    /// such as a message for which there was no credit to publish, and after the peer's end.
    pub fn handle_readable(&mut self, id: SessionId, now: Instant) -> bool {
        self.at(now);
        self.note_look(id);
        let Some(session) = get_mut(&mut self.sessions, id) else { return false };
        let is_yes = session.may_be_read();
        session.flags.unread |= !is_yes && !session.flags.peer_ended;
        is_yes
    }

    /// Whether nobody reads the session, so that its end has to be found otherwise: by [`Shard::handle_reset`] and
    /// [`Shard::handle_unread_eof`]. [`Shard::handle_readable`] has said no and it may not be asked again yet, or the client
    /// has ended its side and is still written to.
    #[must_use]
    pub fn is_unread(&self, id: SessionId) -> bool {
        self.get(id).is_some_and(|session| session.flags.unread)
    }

    /// The session's peer has ended its side of the stream. An answer or a Close that is on its way still leaves; and if the
    /// last that came was a message, what its channel brings for a second more, so that its sender gets its echo.
    /// [`Shard::handle_readable`] says no from here on. Once more, this does nothing.
    pub fn handle_eof(&mut self, id: SessionId, now: Instant) {
        let now = self.at(now);
        let Some(session) = self.get_mut(id) else { return };
        if session.ends_behind_held() {
            return;
        }
        if std::mem::replace(&mut session.flags.peer_ended, true) {
            return;
        }
        match &mut session.stage {
            Stage::Head(head) if !head.reader.is_empty() => self.answer_error(id, Error::HeadSyntax, now),
            Stage::Head(_) | Stage::Deciding(_) | Stage::Joining(_) => {
                self.remove(id, Closed { by: Side::Peer, code: None, error: None });
            }
            Stage::Open(open) => {
                // If the client is gone and waits for an echo, that finds it out.
                open.ws.handle_half_close(now);
                session.flags.unread |= open.ws.state() == ws::State::HalfClosed;
                self.settle(id, now);
            }
            Stage::Scraping { .. } | Stage::Answered { .. } => self.settle(id, now),
        }
    }

    /// The session's connection is gone: a reset, or any error of its socket.
    pub fn handle_reset(&mut self, id: SessionId) {
        let now = self.latest;
        let Some(session) = self.get_mut(id) else { return };
        let error = match &mut session.stage {
            Stage::Open(open) => {
                open.ws.handle_reset(now);
                return self.settle(id, now);
            }
            Stage::Answered { error, .. } => *error,
            Stage::Head(_) | Stage::Deciding(_) | Stage::Joining(_) | Stage::Scraping { .. } => None,
        };
        self.remove(id, Closed { by: Side::Transport, code: None, error });
    }

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
            if session.flags.admission != Admission::Publish {
                match review::submit(id, (open, session.flags.admission), message, (&mut self.credit, &mut self.stats))
                {
                    Ok(Some((pending, event))) => {
                        self.reviews.push_back(pending);
                        self.events.push_back(event);
                        taken += 1;
                        continue;
                    }
                    Ok(None) => continue,
                    Err(refused) => error = Some(refused),
                }
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
        open.ws.note_echo(taken > 0 && session.member.is_some());
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
}

/// Without the spare room that a list takes otherwise: so many may hold one that what they hold is bounded closely.
pub(super) fn extend_exactly(list: &mut Vec<u8>, more: &[u8]) {
    list.reserve_exact(more.len());
    list.extend_from_slice(more);
}
