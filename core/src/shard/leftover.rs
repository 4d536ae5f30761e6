//! Input that was read from a socket before its session was open: what came behind the request, or behind a handshake that
//! somebody else made. It is treated as if it still lay in the socket, so that it costs credit as all input does.

use bytes::{Bytes, BytesMut};

use super::credit::READ_BYTES;
use super::session::{Session, Stage};
use super::{SessionId, Shard, extend_exactly, get_mut};
use crate::time::Instant;

/// As much as a turn reads from sockets.
const READS_AT_ONCE: usize = 64;

/// What was read of a session and is yet to be taken in.
#[derive(Debug, Default)]
pub(super) struct Leftover {
    bytes: BytesMut,
    /// The peer's end of the stream comes behind it.
    ends: bool,
    /// The session is in the shard's list of those whose leftover may be read.
    listed: bool,
}

impl Shard {
    /// `leftover` was read from the session's socket by somebody else, before the shard was asked whether it may be read.
    /// It is kept, and taken in as if it came from the socket now: in pieces of 16 KiB and only while there is credit to
    /// publish. [`Shard::handle_readable`] says no until then. The caller bounds it.
    ///
    /// For a session that is not about to open or open, or whose peer has ended its side, it does nothing.
    pub fn handle_leftover(&mut self, id: SessionId, leftover: Vec<u8>, now: Instant) {
        let now = self.at(now);
        let Some(session) = get_mut(&mut self.sessions, id) else { return };
        match &mut session.stage {
            Stage::Joining(joining) => extend_exactly(&mut joining.leftover, &leftover),
            Stage::Open(_) if !session.flags.peer_ended => {
                session.keep_leftover(leftover);
                self.settle(id, now);
            }
            Stage::Open(_) | Stage::Head(_) | Stage::Deciding(_) | Stage::Scraping { .. } | Stage::Answered { .. } => {}
        }
    }

    /// As [`Shard::handle_eof`], for a session that may not be read: its peer has ended its side, and nothing lies in the
    /// socket. If the shard keeps input of the session that came before, this does nothing: that counts, and the end is
    /// found behind it.
    pub fn handle_unread_eof(&mut self, id: SessionId, now: Instant) {
        let keeps_input = self.get(id).is_some_and(|session| match &session.stage {
            Stage::Deciding(deciding) => !deciding.leftover.is_empty(),
            Stage::Joining(joining) => !joining.leftover.is_empty(),
            Stage::Open(_) => session.has_leftover(),
            Stage::Head(_) | Stage::Scraping { .. } | Stage::Answered { .. } => false,
        });
        if !keeps_input {
            self.handle_eof(id, now);
        }
    }

    /// Reads each session once that has a leftover and need not wait, in the order in which they came; of many, the first.
    pub(super) fn read_leftovers(&mut self, now: Instant) {
        for _ in 0..self.leftovers.len().min(READS_AT_ONCE) {
            if let Some(id) = self.leftovers.pop_front() {
                self.read_leftover(id, now);
            }
        }
        self.leftovers.shrink_to(super::KEPT);
    }

    fn read_leftover(&mut self, id: SessionId, now: Instant) {
        let Some(session) = get_mut(&mut self.sessions, id) else { return };
        let Some(rare) = &mut session.rare else { return };
        rare.leftover.listed = false;
        if session.has_leftover() && self.ask(id, now) {
            self.take_leftover(id, now);
        }
    }

    /// All of the leftover, whatever the credit is: the owner has read what comes behind it.
    pub(super) fn flush_leftover(&mut self, id: SessionId, now: Instant) {
        while self.get(id).is_some_and(Session::has_leftover) {
            self.take_leftover(id, now);
        }
    }

    /// As much as one read brings, and then what comes behind the last of it.
    fn take_leftover(&mut self, id: SessionId, now: Instant) {
        let Some(rare) = get_mut(&mut self.sessions, id).and_then(|session| session.rare.as_mut()) else { return };
        let leftover = &mut rare.leftover;
        let mut piece = leftover.bytes.split_to(leftover.bytes.len().min(READ_BYTES));
        let is_last = leftover.bytes.is_empty();
        let ends = is_last && std::mem::take(&mut leftover.ends);
        #[cfg(feature = "fuzzing")]
        self.leftovers_read.push(id);
        self.read_frames(id, &mut piece, now);
        if ends {
            self.handle_eof(id, now);
        }
        if is_last && let Some(session) = get_mut(&mut self.sessions, id) {
            session.drop_rare_if_bare();
        }
    }

    /// Bytes that were read of an open session and are yet to be taken in.
    #[cfg(test)]
    pub(crate) fn leftover(&self, id: SessionId) -> usize {
        let rare = self.get(id).and_then(|session| session.rare.as_ref());
        rare.map_or(0, |rare| rare.leftover.bytes.len())
    }
}

#[cfg(feature = "fuzzing")]
impl Shard {
    /// Since when a session waits for credit.
    pub(crate) fn paused_since(&self, id: SessionId) -> Option<Instant> {
        self.get(id)?.paused
    }

    /// Whether others were named to be read, so that what credit there is is theirs.
    pub(crate) fn keeps_credit_from(&self, id: SessionId) -> bool {
        let own = self.get(id).is_some_and(|session| session.flags.promised);
        !own && self.promised > 0
    }
}

impl Session {
    pub(super) fn has_leftover(&self) -> bool {
        self.rare.as_ref().is_some_and(|rare| !rare.leftover.bytes.is_empty())
    }

    pub(super) fn keep_leftover(&mut self, more: Vec<u8>) {
        if more.is_empty() {
            return;
        }
        let bytes = &mut self.rare.get_or_insert_default().leftover.bytes;
        if bytes.is_empty() {
            *bytes = BytesMut::from(Bytes::from(more));
        } else {
            bytes.extend_from_slice(&more);
        }
    }

    /// Whether it is yet to be put into the list of those whose leftover may be read.
    pub(super) fn list_leftover(&mut self) -> bool {
        self.rare.as_mut().is_some_and(|rare| !std::mem::replace(&mut rare.leftover.listed, true))
    }

    /// The peer has ended its side. With a leftover that counts once it is taken in; says whether it has to wait.
    pub(super) fn ends_behind_leftover(&mut self) -> bool {
        let waits = self.has_leftover();
        if let Some(rare) = self.rare.as_mut().filter(|_| waits) {
            rare.leftover.ends = true;
        }
        waits
    }
}

impl Leftover {
    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}
