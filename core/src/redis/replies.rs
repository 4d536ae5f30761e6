//! What the frames that Redis sends mean for the link.

use bytes::Bytes;
use tracing::{debug, warn};

use super::connection::{Expected, State};
use super::error::{LinkErrorKind, reply_text};
use super::handshake::{Progress, Step};
use super::link::Link;
use super::subscriptions::OutOfTurn;
use super::{Lane, LinkEvent};
use crate::quote::cut_bytes;
use crate::resp::{Frame, Reply};
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
            (Some((Expected::Subscriptions, _)), Reply::Error(error)) => self.handle_subscribe_refused(error, now),
            (Some((Expected::ProbeSubscription, _)), Reply::Error(error)) => {
                self.handle_probe_subscription_refused(error, now);
                Ok(())
            }
            (Some((Expected::Probe(number), _)), Reply::Integer(_) | Reply::Error(_)) => {
                self.handle_probe_reply(number, reply, now);
                Ok(())
            }
            (Some((Expected::Publish(bytes), left)), Reply::Integer(_)) => {
                self.stats.publish_latency.record(now.since(left));
                self.release(bytes);
                self.reported.publish = None;
                Ok(())
            }
            (Some((Expected::Publish(bytes), _)), Reply::Error(error)) => {
                self.release(bytes);
                self.handle_publish_refused(reply_text(error, &self.url));
                Ok(())
            }
            (None, Reply::Error(error)) => Err(LinkErrorKind::Refused(reply_text(error, &self.url))),
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
        match handshake.handle_reply(step, reply, url)? {
            Progress::Wait => {}
            Progress::LogIn => connection.write_handshake(Step::Auth, url, now),
            Progress::Done => connection.state = State::Ready(now),
        }
        Ok(())
    }

    fn handle_subscribe_refused(&mut self, error: &[u8], now: Instant) -> Result<(), LinkErrorKind> {
        let reason = reply_text(error, &self.url);
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

    fn handle_publish_refused(&mut self, reason: String) {
        if self.reported.publish.as_ref() != Some(&reason) {
            if let Some(unsaid) = self.said_refused.say(self.now) {
                warn!(event = "publishes_refused", reason, unsaid, "Redis refuses publishes");
            }
            self.reported.publish = Some(reason.clone());
        }
        match self.events.back_mut() {
            Some(LinkEvent::Refused { messages, reason: last }) if *last == reason => *messages += 1,
            _ => self.events.push_back(LinkEvent::Refused { messages: 1, reason }),
        }
    }

    pub(super) fn release(&mut self, bytes: usize) {
        self.unconfirmed_bytes -= bytes;
        self.released += bytes;
    }
}

impl From<OutOfTurn> for LinkErrorKind {
    fn from(_: OutOfTurn) -> Self {
        Self::OutOfTurn
    }
}
