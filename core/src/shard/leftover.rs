//! Held input of an open session: bytes that were read before it was open, behind the request or behind a handshake that
//! another program made, and messages without credit. It is treated as if it still lay in the socket.

use bytes::{Bytes, BytesMut};

use super::inbound::extend_exactly;
use super::intake::{Intake, Step};
use super::session::{Leftover, Session, Stage};
use super::{SessionId, Shard, get_mut};
use crate::time::Instant;

/// As much of what is held is taken in at a time as one read brings.
const READ_BYTES: usize = 16 << 10;

impl Shard {
    /// `leftover` was read from the session's socket by somebody else. It is kept, and taken in as if it came from the
    /// socket now: in pieces of 16 KiB, messages only while there is credit to publish. [`Shard::handle_readable`] says no
    /// until then. The caller bounds it.
    ///
    /// For a session that is not about to open or open, or whose peer has ended its side, it does nothing.
    pub fn handle_leftover(&mut self, id: SessionId, leftover: Vec<u8>, now: Instant) {
        let now = self.at(now);
        let Some(session) = get_mut(&mut self.sessions, id) else { return };
        match &mut session.stage {
            Stage::Joining(joining) => extend_exactly(&mut joining.leftover, &leftover),
            Stage::Open(_) if !session.flags.peer_ended => {
                self.keep_leftover(id, leftover, now);
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
            Stage::Open(_) => session.intake != Intake::Clear,
            Stage::Head(_) | Stage::Scraping { .. } | Stage::Answered { .. } => false,
        });
        if !keeps_input {
            self.handle_eof(id, now);
        }
    }

    /// What came before the session was open is held behind what is held already.
    pub(super) fn keep_leftover(&mut self, id: SessionId, more: Vec<u8>, now: Instant) {
        let Some(session) = get_mut(&mut self.sessions, id).filter(|_| !more.is_empty()) else { return };
        let bytes = &mut session.rare.get_or_insert_default().leftover.bytes;
        if bytes.is_empty() {
            *bytes = BytesMut::from(Bytes::from(more));
        } else {
            bytes.extend_from_slice(&more);
        }
        self.step_intake(id, Step::Hold, now);
    }

    /// Holds what is left of a read, and before it was taken out what was held `behind` that.
    pub(super) fn hold(&mut self, id: SessionId, rest: &[u8], behind: BytesMut, now: Instant) {
        if rest.is_empty() && behind.is_empty() {
            return;
        }
        let Some(session) = get_mut(&mut self.sessions, id) else { return };
        let mut bytes = BytesMut::from(rest);
        bytes.unsplit(behind);
        session.rare.get_or_insert_default().leftover.bytes = bytes;
        self.step_intake(id, if rest.is_empty() { Step::Hold } else { Step::Starve(now) }, now);
    }

    /// As much of what is held as one read brings, and then what comes behind the last of it.
    pub(super) fn take_in(&mut self, id: SessionId, admits: bool, now: Instant) {
        let (mut bytes, ends) = self.take_held(id, now);
        let behind = bytes.split_off(bytes.len().min(READ_BYTES));
        #[cfg(feature = "fuzzing")]
        self.taken_in.push(id);
        self.read_frames(id, (&mut bytes, behind), admits, now);
        if ends {
            self.handle_eof(id, now);
        }
    }

    /// Takes out what is held, and says whether the peer's end comes behind it.
    pub(super) fn take_held(&mut self, id: SessionId, now: Instant) -> (BytesMut, bool) {
        self.step_intake(id, Step::Take, now);
        let Some(session) = get_mut(&mut self.sessions, id) else { return Default::default() };
        let Some(rare) = &mut session.rare else { return Default::default() };
        let Leftover { bytes, ends } = std::mem::take(&mut rare.leftover);
        session.drop_rare_if_bare();
        (bytes, ends)
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
    pub(crate) fn waits_since(&self, id: SessionId) -> Option<Instant> {
        self.get(id)?.intake.waits()
    }
}

impl Session {
    /// The peer has ended its side. If input is held, that counts once it is taken in; says whether it has to wait.
    pub(super) fn ends_behind_held(&mut self) -> bool {
        let waits = self.intake != Intake::Clear;
        if let Some(rare) = self.rare.as_mut().filter(|_| waits) {
            rare.leftover.ends = true;
        }
        waits
    }
}
