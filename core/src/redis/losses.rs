//! What is lost with a connection or by waiting too long, and what is said of it.

use tracing::{debug, warn};

use super::connection::{Expected, State};
use super::error::{LinkError, LinkErrorKind};
use super::link::{Link, Phase};
use super::{Lane, LinkEvent};
use crate::time::Instant;

impl Link {
    /// Ends the connection of `lane`, or its dial, and plans the next one.
    pub(super) fn lose(&mut self, lane: Lane, kind: LinkErrorKind, hang_up: bool, now: Instant) {
        let connection = self.connection(lane);
        if let State::Ready(since) = connection.state {
            if lane == Lane::Subscriber {
                // Behind what came in since the last answer there may have been more. And where messages do not come
                // in, answers say nothing of them.
                let is_delivered = !matches!(kind, LinkErrorKind::Undelivered);
                let known = if is_delivered { connection.answered } else { self.probe.proven().unwrap_or(since) };
                self.gap.get_or_insert(known);
                self.events.push_back(LinkEvent::Unsubscribed { since: known });
            }
            self.stats.lost_connections += 1;
        }
        match lane {
            Lane::Subscriber => {
                self.subscriptions.handle_disconnected();
                self.publishes.drop_probe();
            }
            Lane::Publisher => self.give_up_unconfirmed(),
        }
        self.cause = kind.unready();
        self.probe.handle_lost(lane, self.cause);
        self.phase = Phase::Partial;
        self.was_lost |= self.has_started;
        let connection = match lane {
            Lane::Subscriber => &mut self.subscriber,
            Lane::Publisher => &mut self.publisher,
        };
        connection.hang_up |= hang_up;
        connection.handle_lost(self.limits.reconnect_times, &mut self.rng, now);
        self.report(lane, LinkError::new(&self.url, kind));
    }

    pub(super) fn give_up_unconfirmed(&mut self) {
        self.publishes.handle_disconnected();
        let expected = self.publisher.expected.iter();
        let messages = expected.filter(|(expected, _)| matches!(expected, Expected::Publish(_))).count();
        if messages > 0 {
            if let Some(unsaid) = self.said_unconfirmed.say(self.now) {
                let event = "publishes_unconfirmed";
                warn!(event, messages, unsaid, "the connection was lost before Redis confirmed these publishes");
            }
            self.events.push_back(LinkEvent::Unconfirmed { messages });
            self.release(self.unconfirmed_bytes);
        }
    }

    /// Says why `lane` is lost, unless that was said since the link was whole last, or links are lost again and again.
    pub(super) fn report(&mut self, lane: Lane, error: LinkError) {
        let is_first = self.reported.subscriber.is_none() && self.reported.publisher.is_none();
        let reported = match lane {
            Lane::Subscriber => &mut self.reported.subscriber,
            Lane::Publisher => &mut self.reported.publisher,
        };
        let is_known = reported.replace(error.clone()).as_ref() == Some(&error);
        if self.has_started {
            let untold = if is_first { self.outages.begin(self.now) } else { self.outages.go_on(self.now) };
            let is_told = untold.is_some() || !is_known && self.outages.is_told();
            log_lost(lane, &error, untold.unwrap_or(0), is_told);
            if !is_known {
                self.events.push_back(LinkEvent::Down { lane, reason: error.to_string() });
            }
        } else if !is_known && self.start.is_some() && !error.is_passing() {
            self.fail_start(error);
        } else {
            log_lost(lane, &error, 0, false);
        }
    }

    pub(super) fn fail_start(&mut self, error: LinkError) {
        self.start = None;
        self.events.push_back(LinkEvent::StartFailed(error));
    }

    pub(super) fn expire_publishes(&mut self, now: Instant) {
        let (messages, bytes) = self.publishes.expire(self.limits.publish_time, now);
        if messages == 0 {
            return;
        }
        if self.reported.expired == 0 && self.outages.is_told() {
            warn!(
                event = "publishes_expire",
                "publishes have waited too long and are given up; their number follows when Redis is back"
            );
        }
        self.reported.expired += messages;
        self.released += bytes;
        self.events.push_back(LinkEvent::Expired { messages });
    }

    pub(super) fn count_expired(&mut self) {
        let messages = core::mem::take(&mut self.reported.expired);
        if messages > 0 && self.outages.is_told() {
            warn!(
                event = "publishes_expired",
                messages, "so many publishes were given up because Redis was away for too long"
            );
        }
    }
}

fn log_lost(lane: Lane, error: &LinkError, untold: u64, is_told: bool) {
    let (event, lane) = ("redis_lost", lane.name());
    if is_told {
        warn!(event, lane, untold, "{error}");
    } else {
        debug!(event, lane, "{error}");
    }
}
