//! The effect of frames from Redis on the link.

use bytes::Bytes;
use tracing::{debug, warn};

use super::answers::Answer;
use super::connection::{Expected, RoleQuestion, State};
use super::error::{LinkErrorKind, reply_text};
use super::handshake::{Progress, Step};
use super::link::Link;
use super::publishes::Aside;
use super::subscriptions::OutOfTurn;
use super::{Lane, LinkEvent};
use crate::quote::cut_bytes;
use crate::resp::{Frame, Reply, is_replica};
use crate::time::Instant;

impl Link {
    /// Takes any frame but a message. An error ends the connection.
    pub(super) fn handle_frame(&mut self, lane: Lane, frame: Frame<'_>, now: Instant) -> Result<(), LinkErrorKind> {
        match frame {
            Frame::Push => Ok(()),
            Frame::Oversized { channel, bytes } if self.takes_messages(lane) => {
                self.handle_oversized(channel, bytes);
                Ok(())
            }
            Frame::Subscribed { channel } if lane == Lane::Subscriber && self.expects_probe(channel) => {
                self.handle_probe_subscribed(now);
                Ok(())
            }
            Frame::Subscribed { channel } if lane == Lane::Subscriber => {
                let (wanted, ends) = self.subscriptions.handle_subscribed(channel)?;
                self.events.extend(wanted.map(LinkEvent::Subscribed));
                self.confirmed(ends, now)
            }
            Frame::Unsubscribed { channel: Some(channel) } if lane == Lane::Subscriber => {
                let ends = self.subscriptions.handle_unsubscribed(channel)?;
                self.confirmed(ends, now)
            }
            Frame::Reply(reply) => self.handle_reply(lane, reply, now),
            Frame::Message { .. } | Frame::Oversized { .. } | Frame::Subscribed { .. } | Frame::Unsubscribed { .. } => {
                Err(LinkErrorKind::OutOfTurn)
            }
        }
    }

    pub(super) fn handle_oversized(&mut self, channel: &[u8], bytes: usize) {
        if self.probe.is_mine(channel) {
            return;
        }
        self.events.push_back(LinkEvent::Oversized { channel: Bytes::copy_from_slice(channel), bytes });
    }

    /// A confirmation has come, the last of its command if `ends`. It must be that command's turn.
    fn confirmed(&mut self, ends: bool, now: Instant) -> Result<(), LinkErrorKind> {
        self.subscriber.replied = now;
        let Some(&(Expected::Subscriptions, left)) = self.subscriber.expected.front() else {
            return Err(LinkErrorKind::OutOfTurn);
        };
        if ends {
            self.subscriber.expected.pop_front();
            self.subscriber.answered = left;
        }
        Ok(())
    }

    fn handle_reply(&mut self, lane: Lane, reply: Reply<'_>, now: Instant) -> Result<(), LinkErrorKind> {
        let connection = self.parts(lane).0;
        connection.replied = now;
        let expected = connection.expected.pop_front();
        connection.answered = expected.map_or(connection.answered, |(_, left)| left);
        match (expected, reply) {
            (Some((Expected::Handshake(step), _)), _) => self.handle_handshake(lane, step, reply, now),
            (Some((Expected::Ping, _)), Reply::Pong | Reply::Error(_)) => Ok(()),
            (Some((Expected::Subscriptions, _)), Reply::Error(error)) => self.handle_subscribe_error(error, now),
            (Some((Expected::ProbeSubscription, _)), Reply::Error(error)) => {
                self.handle_probe_subscription_error(error, now)
            }
            (Some((Expected::Aside(Aside::Role), _)), Reply::Other(_) | Reply::Error(_)) => self.handle_role(reply),
            (Some((Expected::Aside(Aside::Mark(position)), _)), Reply::Integer(_) | Reply::Error(_)) => {
                if matches!(reply, Reply::Error(_)) {
                    self.publishes.handle_mark(position);
                }
                Ok(())
            }
            (Some((Expected::Aside(Aside::Probe(number)), _)), Reply::Integer(_) | Reply::Error(_)) => {
                self.handle_probe_reply(number, reply, now)
            }
            (Some((Expected::Publish, left)), Reply::Integer(_)) => {
                self.stats.publish_latency.record(now.since(left));
                self.released += self.publishes.handle_published(now).bytes;
                self.reported.publish = None;
                Ok(())
            }
            (Some((Expected::Publish, _)), Reply::Error(error)) => {
                self.handle_publish_error(error, now);
                Ok(())
            }
            (None, Reply::Error(error)) => {
                if lane == Lane::Publisher && Answer::of(error) == Answer::Broken {
                    self.publishes.blame();
                }
                Err(LinkErrorKind::Refused(reply_text(error, &self.url)))
            }
            (None, _) => Err(LinkErrorKind::OutOfTurn),
            (Some(unanswered), _) => {
                // A publish is to be counted as unconfirmed when this ends its connection.
                self.parts(lane).0.expected.push_front(unanswered);
                Err(LinkErrorKind::OutOfTurn)
            }
        }
    }

    fn handle_handshake(
        &mut self,
        lane: Lane,
        step: Step,
        reply: Reply<'_>,
        now: Instant,
    ) -> Result<(), LinkErrorKind> {
        let (connection, url) = self.parts(lane);
        let State::Handshaking(handshake) = &mut connection.state else { return Err(LinkErrorKind::OutOfTurn) };
        if let Reply::Error(error) = reply {
            connection.last_error = Some(reply_text(error, url));
        }
        match handshake.handle_reply(step, reply, url)? {
            Progress::Wait => {}
            Progress::WithoutHello => connection.role = Some(RoleQuestion::Role),
            Progress::LogIn(step) => connection.write_handshake(step, url, now),
            Progress::Done => {
                connection.last_error = None;
                connection.state = State::Ready(now);
            }
        }
        Ok(())
    }

    fn handle_subscribe_error(&mut self, error: &[u8], now: Instant) -> Result<(), LinkErrorKind> {
        let reason = reply_text(error, &self.url);
        match Answer::of(error) {
            Answer::NotNow => {
                let confirmed = self.subscriptions.handle_not_now(now)?;
                self.events.extend(confirmed.into_iter().map(LinkEvent::Subscribed));
                return Ok(());
            }
            Answer::Elsewhere | Answer::LoggedOut => return Err(LinkErrorKind::of(error, &self.url)),
            _ => {}
        }
        let Ok(refused) = self.subscriptions.handle_refused(now) else { return Err(LinkErrorKind::Refused(reason)) };
        let Some(channel) = refused else { return Ok(()) };
        if self.reported.subscribe.as_ref() == Some(&reason) {
            let (event, channel) = ("subscription_refused", &*cut_bytes(&channel));
            debug!(event, channel, reason, "Redis refuses a subscription");
        } else {
            let (event, channel) = ("subscription_refused", &*cut_bytes(&channel));
            warn!(event, channel, reason, "Redis refuses a subscription; there may be more");
            self.reported.subscribe = Some(reason.clone());
        }
        self.events.push_back(LinkEvent::SubscribeRefused { channel, reason });
        Ok(())
    }

    fn handle_publish_error(&mut self, error: &[u8], now: Instant) {
        let answer = Answer::of(error);
        match answer {
            Answer::NotNow => self.publishes.handle_not_now(now),
            Answer::Elsewhere | Answer::LoggedOut => {
                self.publishes.handle_not_now(now);
                self.elsewhere.get_or_insert_with(|| LinkErrorKind::of(error, &self.url));
            }
            _ => {
                self.released += self.publishes.handle_refused(now).bytes;
                return self.refuse(1, reply_text(error, &self.url));
            }
        }
        // Whether anything is delivered is to be known soon.
        self.probe.hasten(now);
    }

    /// Publishes are given up for `reason`.
    pub(super) fn refuse(&mut self, count: usize, reason: String) {
        if self.reported.publish.as_ref() != Some(&reason) {
            if let Some(unsaid) = self.said_refused.say(self.now) {
                warn!(event = "publishes_refused", reason, unsaid, "Redis refuses publishes");
            }
            self.reported.publish = Some(reason.clone());
        }
        match self.events.back_mut() {
            Some(LinkEvent::Refused { messages, reason: last }) if *last == reason => *messages += count,
            _ => self.events.push_back(LinkEvent::Refused { messages: count, reason }),
        }
    }

    /// What the server says of its role. One that does not say is believed to be right.
    fn handle_role(&mut self, reply: Reply<'_>) -> Result<(), LinkErrorKind> {
        match reply {
            Reply::Other(frame) if is_replica(frame) => Err(LinkErrorKind::Replica),
            Reply::Other(_) => Ok(()),
            // It is asked again with the next probe.
            Reply::Error(error) if Answer::of(error) == Answer::NotNow => Ok(()),
            _ => {
                self.publisher.role = None;
                Ok(())
            }
        }
    }
}

impl From<OutOfTurn> for LinkErrorKind {
    fn from(_: OutOfTurn) -> Self {
        Self::OutOfTurn
    }
}
