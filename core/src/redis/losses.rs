//! Publishes that are lost with a connection or by waiting too long, and their log lines.

use tracing::{debug, warn};

use super::answers::Answer;
use super::connection::State;
use super::error::{LinkError, LinkErrorKind};
use super::link::{Link, Phase};
use super::publishes::Gone;
use super::{Lane, LinkEvent};
use crate::time::Instant;

impl Link {
    /// Ends the connection of `lane`, and the other one as well if this server is not the one to ask any more: what that one
    /// gets may not be all.
    pub(super) fn give_up(&mut self, lane: Lane, kind: LinkErrorKind, now: Instant) {
        let is_demoted = matches!(kind, LinkErrorKind::Replica | LinkErrorKind::Elsewhere(_));
        if is_demoted && self.are_ready() {
            let other = if lane == Lane::Subscriber { Lane::Publisher } else { Lane::Subscriber };
            self.lose(other, kind.clone(), true, now);
        }
        self.lose(lane, kind, true, now);
    }

    /// Ends the connection of `lane`, or its dial, and plans the next one.
    pub(super) fn lose(&mut self, lane: Lane, kind: LinkErrorKind, hang_up: bool, now: Instant) {
        let connection = self.connection(lane);
        if let State::Ready(since) = connection.state {
            if lane == Lane::Subscriber {
                // Behind what came in since the last answer there may have been more. And where messages do not come
                // in, answers say nothing of them.
                let is_delivered =
                    !matches!(kind, LinkErrorKind::Undelivered | LinkErrorKind::Replica | LinkErrorKind::Elsewhere(_));
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

    /// The connection that publishes is gone.
    pub(super) fn give_up_unconfirmed(&mut self) {
        self.elsewhere = None;
        let gone = self.publishes.handle_disconnected();
        self.handle_gone(&gone);
    }

    /// Counts what leaves the queue without a reply of its own.
    pub(super) fn handle_gone(&mut self, gone: &Gone) {
        let messages = gone.unconfirmed.commands;
        if messages > 0 {
            if let Some(unsaid) = self.said_unconfirmed.say(self.now) {
                let event = "publishes_unconfirmed";
                warn!(event, messages, unsaid, "the connection was lost before Redis confirmed these publishes");
            }
            self.events.push_back(LinkEvent::Unconfirmed { messages });
        }
        if gone.interrupted.commands > 0 {
            self.refuse(1, "the connection ended twice in the midst of one message".to_owned());
        }
        if gone.overtaken.commands > 0 {
            self.refuse(
                gone.overtaken.commands,
                "Redis carried out later publishes on the same channel first".to_owned(),
            );
        }
        self.released += [gone.done, gone.unconfirmed, gone.overtaken, gone.interrupted]
            .map(|part| part.bytes)
            .iter()
            .sum::<usize>();
    }

    /// Why the connection of `lane` has ended, as far as can be told.
    pub(super) fn closed(&self, lane: Lane, reason: &str) -> LinkErrorKind {
        let connection = self.connection(lane);
        match &connection.last_error {
            Some(text) if Answer::of(text.as_bytes()) == Answer::NotNow => LinkErrorKind::NotReady(text.clone()),
            Some(text) => LinkErrorKind::Closed(format!("{reason}; before that it said: {text}")),
            None if connection.is_unanswered() => LinkErrorKind::ClosedAtOnce(reason.to_owned()),
            None => LinkErrorKind::Closed(reason.to_owned()),
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
        let expired = self.publishes.expire(self.limits.publish_time, now);
        let messages = expired.commands;
        if messages == 0 {
            return;
        }
        if self.reported.expired == 0 && self.outages.is_told() {
            warn!(
                event = "publishes_expire",
                "publishes have waited too long and are given up; the number is logged when Redis is back"
            );
        }
        self.reported.expired += messages;
        self.released += expired.bytes;
        self.events.push_back(LinkEvent::Expired { messages });
    }

    pub(super) fn count_expired(&mut self) {
        let messages = core::mem::take(&mut self.reported.expired);
        if messages > 0 && self.outages.is_told() {
            warn!(event = "publishes_expired", messages, "publishes were given up because Redis was away for too long");
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
