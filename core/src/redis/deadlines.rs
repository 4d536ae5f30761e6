//! Deadlines of the link that have passed.
//!
//! The clock alone ends no connection: this process may have stood still or had no turn, and the awaited bytes may lie
//! unread in the socket. So the owner looks first ([`Action::Look`](super::Action::Look)), and what it has read decides.

use super::Lane;
use super::connection::{Connection, Due, Look, State};
use super::error::{LinkError, LinkErrorKind};
use super::link::{Link, Phase};
use crate::time::{Duration, Instant};

/// From the start to [`LinkEvent::StartFailed`](super::LinkEvent::StartFailed), if no reason to give up shows before.
/// The documentation says 5 s.
pub(super) const START_TIME: Duration = Duration::from_millis(4_800);

/// What the start may take longer each time something has just come in.
const MORE_START_TIME: Duration = Duration::from_millis(500);

impl Link {
    /// The owner has looked at `lane`'s socket as [`Action::Look`](super::Action::Look) asks, and handed over what was
    /// there. To say so without having been asked does no harm.
    pub fn handle_looked(&mut self, lane: Lane, now: Instant) {
        let now = self.advance(now);
        self.parts(lane).0.handle_looked(now);
    }

    /// [`poll_timeout`](Self::poll_timeout) may have come. Too early or too often does no harm.
    pub fn handle_timeout(&mut self, now: Instant) {
        let now = self.advance(now);
        for lane in Lane::ALL {
            self.check_connection(lane, now);
        }
        self.check_probe(now);
        self.check_start(now);
        self.expire_publishes(now);
        self.subscriptions.handle_timeout(now);
        self.publishes.handle_timeout(now);
        self.settle(now);
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called; the present while an output is not polled.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let has_output = |connection: &Connection| {
            connection.hang_up
                || connection.look == Look::Wanted
                || matches!(connection.state, State::Due)
                || connection.has_offer()
        };
        let lanes = [&self.subscriber, &self.publisher];
        if !self.events.is_empty() || self.released > 0 || lanes.iter().any(|lane| has_output(lane)) {
            return Some(self.now);
        }
        if self.is_closed() {
            return None;
        }
        let settled = match self.phase {
            Phase::Settling(until) => Some(until),
            Phase::Partial | Phase::Open => None,
        };
        // What waits for a look has its turn when the owner has looked.
        let is_looked_at = |lane: &Connection| lane.look == Look::No;
        let ends = lanes.map(|lane| lane.deadline(&self.limits).filter(|_| is_looked_at(lane)).map(|(at, _)| at));
        let probe = self.probe.deadline(self.limits.probe_time, &self.subscriber, &self.publisher);
        let of_both = [self.start, probe].into_iter().filter(|_| lanes.into_iter().all(is_looked_at));
        let expiry = self.publishes.oldest().map(|queued| queued + self.limits.publish_time);
        let others = [settled, expiry, self.subscriptions.deadline(), self.publishes.deadline()];
        ends.into_iter().chain(of_both).chain(others).flatten().min()
    }

    /// Whether the owner has looked at both sockets since `at`.
    pub(super) fn are_looked_at(&mut self, at: Instant) -> bool {
        let [first, second] = [&mut self.subscriber, &mut self.publisher].map(|lane| lane.is_looked_at(at));
        first && second
    }

    fn check_connection(&mut self, lane: Lane, now: Instant) {
        let connection = self.connection(lane);
        let Some((at, due)) = connection.deadline(&self.limits).filter(|&(at, _)| at <= now) else { return };
        let is_resolving = connection.is_resolving;
        let connection = self.parts(lane).0;
        match due {
            Due::Nothing => {}
            Due::Ping => connection.ping(now),
            _ if !connection.is_looked_at(at) => {}
            Due::NotConnected => {
                let what = if is_resolving { "the name server has not answered" } else { "no connection" };
                let reason = format!("{what} within {:?}", self.limits.dial_time);
                self.lose(lane, LinkErrorKind::Unreachable(reason), true, now);
            }
            Due::Silent => self.lose(lane, LinkErrorKind::Silent, true, now),
        }
    }

    fn check_start(&mut self, now: Instant) {
        let Some(at) = self.start.filter(|&at| at <= now) else { return };
        if !self.are_looked_at(at) {
            return;
        }
        if [&self.subscriber, &self.publisher].iter().any(|lane| lane.is_connected() && lane.heard >= at) {
            self.start = Some(now + MORE_START_TIME);
            return;
        }
        let last = self.reported.publisher.clone().or_else(|| self.reported.subscriber.clone());
        let error = last.unwrap_or_else(|| LinkError::new(&self.url, LinkErrorKind::Silent));
        self.fail_start(error);
    }
}
