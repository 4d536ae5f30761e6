//! Stretches in which messages may have passed by, and what the sessions that are there then see of them.

use super::session::Stage;
use super::{SessionId, Shard};
use crate::route::OnGap;
use crate::time::{Duration, Instant};

/// The Close of a session whose route says so.
const CODE: u16 = 1012;
const REASON: &str = "messages may have been missed, connect again";

impl Shard {
    /// The bus has lost its subscriptions: every message of a channel may pass by until it is subscribed again.
    pub(super) fn gap_began(&mut self, now: Instant) {
        let mut members = Vec::new();
        self.channels.unsubscribe_all(|channel| members.extend_from_slice(&channel.members));
        self.close_for_gap(&members, now);
    }

    /// Of these sessions, those that do not outlive a gap get nothing more, and are closed soon. Who comes later has
    /// missed nothing.
    fn close_for_gap(&mut self, members: &[u32], now: Instant) {
        for &index in members {
            let session = &self.sessions[index as usize];
            let Stage::Open(open) = &session.stage else { continue };
            if open.target.policies.on_gap == OnGap::Close {
                let id = SessionId { index, generation: session.generation };
                self.leave(id);
                self.stats.gap_closes += 1;
                self.plan_close(id, (CODE, REASON), Duration::ZERO..self.settings.limits.gap_close_time, now);
            }
        }
    }
}
