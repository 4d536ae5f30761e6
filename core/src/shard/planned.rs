//! Planned closes, each at its own moment, so that clients do not all reconnect at once.

use std::ops::Range;

use super::session::{Planned, Session, Stage};
use super::{SessionId, Shard, get_mut};
use crate::error::Farewell;
use crate::time::{Duration, Instant};
use crate::ws::CloseWhen;

impl Shard {
    /// Has an open session closed at a random moment `within` so long from now, after what waits for it then. Of two
    /// plans the earlier holds.
    pub(super) fn plan_close(&mut self, id: SessionId, farewell: Farewell, within: Range<Duration>, now: Instant) {
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let at = now + Duration::from_micros(self.rng.u64(micros(within.start)..=micros(within.end)));
        let Some(session) = get_mut(&mut self.sessions, id) else { return };
        if session.takes_messages() && session.planned_at().is_none_or(|planned| at < planned) {
            session.rare.get_or_insert_default().planned = Some(Planned { at, farewell });
            self.settle(id, now);
        }
    }
}

impl Session {
    /// When the planned Close is due.
    pub(super) fn planned_at(&self) -> Option<Instant> {
        self.rare.as_ref()?.planned.map(|planned| planned.at)
    }

    /// Sends the planned Close.
    pub(super) fn close_as_planned(&mut self, now: Instant) {
        let planned = self.rare.as_mut().and_then(|rare| rare.planned.take());
        if let (Stage::Open(open), Some(planned)) = (&mut self.stage, planned) {
            // A session that is closing already refuses a second Close.
            let _ = open.ws.close(planned.farewell.code(), planned.farewell.text(), CloseWhen::AfterData, now);
        }
    }
}
