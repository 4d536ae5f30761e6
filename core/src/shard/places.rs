//! Which session gives way when there are more connections than places.

use std::net::IpAddr;

use super::session::{Session, Stage};
use super::{SessionId, Shard, get_mut};
use crate::error::{Closed, Error, Side};
use crate::time::{Duration, Instant};

/// How long a connection without a place has for its request, if [`Limits::head_time`](crate::limits::Limits::head_time)
/// is not less.
const CROWDED_TIME: Duration = Duration::from_secs(2);

impl Shard {
    /// A client's connection was accepted although all places are taken. It gets `/live` and `/ready`, and 503 for all
    /// else, and has 2 s for its request. How many there are is the owner's to bound, by [`Shard::drop_one_of`].
    pub fn handle_crowded_connection(&mut self, peer: Option<IpAddr>, now: Instant) -> SessionId {
        let now = self.at(now);
        let id = self.connect(peer, now);
        if let Some(session) = get_mut(&mut self.sessions, id) {
            session.flags.crowded = true;
            session.hurry(now + CROWDED_TIME);
            self.settle(id, now);
        }
        id
    }

    /// There is a place for a connection of [`Shard::handle_crowded_connection`]: it is a client's as all others from here
    /// on. Says no if it is gone or has told its request.
    pub fn give_place(&mut self, id: SessionId) -> bool {
        let Some(session) = get_mut(&mut self.sessions, id) else { return false };
        if !matches!(session.stage, Stage::Head(_)) {
            return false;
        }
        session.flags.crowded = false;
        self.note_mute(id);
        true
    }

    /// Drops, among connections that were accepted one after the other, the one that can best make room for another: the
    /// first that has its answer, else the first whose request is not whole, else the first that is being answered. Says no
    /// if all do something else.
    pub fn drop_one_of(&mut self, among: &[SessionId], now: Instant) -> bool {
        let rank = |session: &Session| match session.stage {
            Stage::Answered { .. } if !session.has_output() => Some(0),
            Stage::Head(_) => Some(1),
            Stage::Answered { .. } => Some(2),
            _ => None,
        };
        let ranked = among.iter().filter_map(|&id| Some((rank(self.get(id)?)?, id)));
        let Some((_, id)) = ranked.min_by_key(|&(rank, _)| rank) else { return false };
        self.give_way(id, now);
        true
    }

    /// Whether some client's connection has not told its request yet.
    pub fn has_mute(&mut self) -> bool {
        self.trim_mute();
        !self.mute.is_empty()
    }

    /// Drops the oldest client's connection that has not told its request yet, so that another gets its place.
    pub fn drop_mute(&mut self, now: Instant) -> bool {
        self.trim_mute();
        let Some(id) = self.mute.pop_front() else { return false };
        self.give_way(id, now);
        true
    }

    /// A client's connection is here that has yet to tell its request.
    pub(super) fn note_mute(&mut self, id: SessionId) {
        if self.mute.len() == self.mute.capacity() {
            let sessions = &self.sessions;
            self.mute.retain(|&id| is_mute(sessions, id));
        }
        self.trim_mute();
        self.mute.push_back(id);
    }

    fn trim_mute(&mut self) {
        while self.mute.front().is_some_and(|&id| !is_mute(&self.sessions, id)) {
            self.mute.pop_front();
        }
    }

    fn give_way(&mut self, id: SessionId, now: Instant) {
        self.at(now);
        self.remove(id, Closed { by: Side::Local, code: None, error: Some(Error::Unavailable) });
    }
}

fn is_mute(sessions: &slab::Slab<Session>, id: SessionId) -> bool {
    let session = sessions.get(id.index()).filter(|session| session.generation == id.generation);
    session.is_some_and(|session| matches!(session.stage, Stage::Head(_)))
}
