//! The orderly end of all sessions.

use super::session::{Session, Stage};
use super::{SessionId, Shard, ids_of};
use crate::error::{Error, Farewell};
use crate::time::{Duration, Instant};

/// From one Close to the next of an instance, if there is time: what comes back to the rest of the fleet are then 200
/// handshakes a second.
const PACE: Duration = Duration::from_millis(5);

/// How far a shard is on the way to its end, of which each stage follows the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// Nobody has asked for it.
    Serving,
    /// It is not to be sent new clients, and serves on.
    Draining,
    /// All sessions are closed. Handshakes may end well until then.
    Closing { until: Instant },
}

impl Ending {
    /// Once all sessions are closed: until when handshakes may end well.
    pub(super) const fn closes_by(self) -> Option<Instant> {
        if let Self::Closing { until } = self { Some(until) } else { None }
    }
}

impl Shard {
    /// Says from here on that it is not ready, and serves on as before, so that load balancers look elsewhere before
    /// [`Shard::shutdown`], which says the same, ends anything.
    pub const fn drain(&mut self) {
        if matches!(self.ending, Ending::Serving) {
            self.ending = Ending::Draining;
        }
    }

    /// Ends all sessions, and takes no new ones. [`Shard::is_empty`] tells when all are gone; how long to wait for that is
    /// the embedder's choice, usually [`Limits::drain_time`](crate::limits::Limits::drain_time).
    ///
    /// - Open sessions go on until they are closed with 1001, behind what waits for them. The closes come one by one, an
    ///   instance's 5 ms apart or closer, so that all have left within half of the drain time; each at a random moment of
    ///   its own interval.
    /// - Handshakes have a tenth of the drain time to end well. Such a session is closed within that time, too; who
    ///   waits for an answer then gets 503.
    /// - Connections that come later get 503, and [`Shard::adopt`] is refused.
    pub fn shutdown(&mut self, now: Instant) {
        let now = self.at(now);
        self.drain();
        let (limits, workers) = (&self.settings.limits, self.settings.workers);
        let until = self.ending.closes_by().unwrap_or(now + limits.drain_time / 10);
        self.ending = Ending::Closing { until };
        let clients = self.sessions.iter().filter(|(_, session)| !session.flags.admin);
        let ids = ids_of(clients);
        let count = u32::try_from(ids.len()).unwrap_or(u32::MAX);
        let pace = PACE.saturating_mul(u32::try_from(workers).unwrap_or(u32::MAX));
        let each = pace.min(limits.drain_time / 2 / count.max(1));
        for (place, id) in (0..count).zip(ids) {
            let Some(session) = self.get_mut(id) else { continue };
            if session.takes_messages() {
                self.plan_close(id, Farewell::GoingAway, each * place..each * (place + 1), now);
            } else {
                session.hurry(until);
                self.settle(id, now);
            }
        }
        // With no time to spread anything over, all is due.
        self.handle_timeout(now);
    }

    /// A handshake has ended well. While the shard shuts down, that is not for long.
    pub(super) fn close_latecomer(&mut self, id: SessionId, now: Instant) {
        if let Some(until) = self.ending.closes_by() {
            self.plan_close(id, Farewell::GoingAway, Duration::ZERO..until.since(now), now);
        }
    }

    /// What a handshake fails for at its deadline.
    pub(super) const fn late(&self, error: Error) -> Error {
        if self.ending.closes_by().is_some() { Error::Unavailable } else { error }
    }
}

impl Session {
    /// A handshake has to end by then.
    pub(super) fn hurry(&mut self, until: Instant) {
        let deadline = match &mut self.stage {
            Stage::Head(head) => &mut head.deadline,
            Stage::Deciding(deciding) => &mut deciding.deadline,
            Stage::Joining(joining) => &mut joining.deadline,
            Stage::Open(_) | Stage::Scraping { .. } | Stage::Answered { .. } => return,
        };
        *deadline = until.min(*deadline);
    }
}
