//! Messages that the embedder decides about before they are published.
//!
//! A session whose rights say so ([`Rights::review`](crate::route::Rights::review)) has each of its messages put to the
//! embedder as [`Event::Review`], and [`Shard::decide`] answers the oldest that is open. So decisions, and with them
//! publishes, are in the order in which the messages came. A message that waits for its decision holds the credit that
//! its publish will take: all that wait are bounded by [`Limits::publish_bytes`](crate::limits::Limits::publish_bytes),
//! and beyond it sessions wait as they do for the bus. Pings, pongs and Closes are not held up.

use bytes::Bytes;

use super::credit::Credit;
use super::session::{Admission, Open};
use super::{Event, SessionId, Shard, Stats, get_mut};
use crate::error::{Error, Misuse};
use crate::exchange::publish_cost;
use crate::route::FrameType;
use crate::time::Instant;
use crate::ws::{self, MAX_REASON, may_be_sent};

/// A message of a client, to be decided about.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Review {
    /// Whose it is. The session may have ended since.
    pub session: SessionId,
    /// Its channel.
    pub channel: Bytes,
    /// What the client said; UTF-8 if the channel is of text.
    pub payload: Bytes,
}

/// What becomes of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Decision {
    /// This is published: the message itself, or another in its place, such as one with its sender's name. UTF-8 if the
    /// channel is of text.
    Publish(Bytes),
    /// Nobody receives it, and its client is not told.
    Drop,
    /// Nobody receives it, nor what its session has said behind it, and the session is closed, with this close code and
    /// reason.
    Close(u16, String),
}

/// A message that was put to the embedder.
#[derive(Debug)]
pub(super) struct Pending {
    session: SessionId,
    channel: Bytes,
    /// Of the channel.
    frame: FrameType,
    cost: usize,
    /// Its session was closed for a message before it.
    refused: bool,
}

impl Shard {
    /// Decides about the oldest message of [`Event::Review`] that is not decided about. [`Shard::is_empty`] waits for it, too.
    ///
    /// # Errors
    /// [`Misuse::WrongState`] if there is none, [`Misuse::MessageSize`], [`Misuse::Utf8`], [`Misuse::CloseCode`],
    /// [`Misuse::CloseReason`]; nothing changes, and the message still waits.
    pub fn decide(&mut self, decision: Decision, now: Instant) -> Result<(), Misuse> {
        let now = self.at(now);
        let Some(review) = self.reviews.front() else { return Err(Misuse::WrongState) };
        match &decision {
            Decision::Publish(payload) if payload.len() > self.settings.limits.message_bytes => {
                return Err(Misuse::MessageSize);
            }
            Decision::Publish(payload) if review.frame == FrameType::Text && str::from_utf8(payload).is_err() => {
                return Err(Misuse::Utf8);
            }
            Decision::Close(code, _) if !may_be_sent(*code) => return Err(Misuse::CloseCode),
            Decision::Close(_, reason) if reason.len() > MAX_REASON => return Err(Misuse::CloseReason),
            _ => {}
        }
        let Some(review) = self.reviews.pop_front() else { return Err(Misuse::WrongState) };
        self.reviews.shrink_to(super::KEPT);
        self.credit.give(review.cost);
        match decision {
            _ if review.refused => {}
            Decision::Publish(payload) => {
                self.credit.spend(&review.channel, payload.len());
                self.to_bus.publish(&review.channel, &payload);
            }
            Decision::Drop => {}
            Decision::Close(code, reason) => {
                let behind = self.reviews.iter_mut().filter(|other| other.session == review.session);
                behind.for_each(|other| other.refused = true);
                if let Some(session) = get_mut(&mut self.sessions, review.session) {
                    session.flags.admission = Admission::Discard;
                }
                // It may be closing already, or gone.
                let _ = self.close(review.session, code, &reason, now);
            }
        }
        Ok(())
    }
}

/// Takes a message of a session whose messages do not go to the bus at once, for the embedder to decide about.
#[cold]
pub(super) fn submit(
    id: SessionId,
    (open, admission): (&Open, Admission),
    message: ws::Message<'_>,
    (credit, stats): (&mut Credit, &mut Stats),
) -> Result<Option<(Pending, Event)>, Error> {
    if admission == Admission::Discard {
        stats.discarded += 1;
        return Ok(None);
    }
    if !open.target.rights.publish {
        return Err(Error::ReadOnly);
    }
    if message.frame != open.target.frame {
        return Err(Error::FrameType);
    }
    if !open.ws.can_send() && !credit.is_left() {
        // It is read in spite of the credit only for the sake of its Close.
        stats.discarded += 1;
        return Ok(None);
    }
    let (channel, payload) = (open.target.channel.clone(), Bytes::from(message.payload.into_owned()));
    credit.spend(&channel, payload.len());
    let cost = publish_cost(&channel, payload.len());
    let review = Review { session: id, channel: channel.clone(), payload };
    Ok(Some((
        Pending { session: id, channel, frame: message.frame, cost, refused: false },
        Event::Review(Box::new(review)),
    )))
}
