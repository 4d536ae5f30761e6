//! The link: the two connections to Redis of one instance, as a client of
//! [Pub/Sub](https://redis.io/docs/latest/develop/pubsub/), in a pure state machine.
//!
//! The commonest failure of systems of this kind is silent: everything is connected and nothing arrives. So the link
//! works without end until what is wanted and what Redis has confirmed are equal, takes no sign of life for granted,
//! never sends a publish twice, and says what was lost.
//!
//! It needs `AUTH`, `SELECT`, `SUBSCRIBE`, `UNSUBSCRIBE` and `PUBLISH`; a server may refuse `HELLO`, `CLIENT SETNAME`, `ROLE`
//! and `PING`. Besides the channels that are wanted it uses one of its own, `fanfare:probe:` and 16 digits after the
//! prefix, to prove that what it publishes comes back.
//!
//! ```
//! use fanfare_core::limits::Limits;
//! use fanfare_core::redis::{Action, Lane, Link};
//! use fanfare_core::time::Instant;
//!
//! let url = "redis://app:secret@redis.example:6380/2".parse()?;
//! let mut link = Link::new(url, "", &Limits::default(), 42, Instant::ZERO);
//! link.subscribe("tea".into(), Instant::ZERO);
//! assert_eq!(link.poll_action(), Some(Action::Dial(Lane::Subscriber)));
//! link.handle_connected(Lane::Subscriber, Instant::ZERO);
//! // It logs in before it sends any command; `transmit` lends the bytes.
//! assert_eq!(link.poll_transmit(), Some(Lane::Subscriber));
//! assert!(!link.is_up());
//! # Ok::<(), fanfare_core::redis::url::RedisUrlError>(())
//! ```

mod answers;
mod connection;
mod deadlines;
mod endpoint;
mod error;
mod handshake;
mod link;
mod losses;
mod pause;
mod probe;
mod publishes;
mod replies;
mod subscriptions;
#[cfg(test)]
mod tests;
pub mod url;
mod window;
#[cfg(any(test, feature = "fuzzing"))]
#[cfg_attr(not(test), expect(dead_code, reason = "the fuzz targets need less of it than the tests"))]
pub(crate) mod world;

use core::time::Duration;

use bytes::Bytes;

use crate::histogram::Histogram;

pub use endpoint::{Endpoint, LinkId};
pub use error::{LinkError, LinkErrorKind};
pub use link::Link;
pub use url::RedisUrl;

use crate::time::Instant;

/// One of the link's two connections. A connection that subscribes is of little use for anything else in RESP2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// Receives messages.
    Subscriber,
    /// Sends them.
    Publisher,
}

impl Lane {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Subscriber, Self::Publisher];

    /// A name for logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Subscriber => "subscriber",
            Self::Publisher => "publisher",
        }
    }
}

/// Counts since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LinkStats {
    /// From a probe that was due to its coming in.
    pub probe_round_trip: Histogram,
    /// Probes that did not come in within [`Limits::probe_time`](crate::limits::Limits::probe_time).
    pub probes_missing: u64,
    /// From a PUBLISH that has left to its reply. Neither probes nor refused ones are counted.
    pub publish_latency: Histogram,
    /// Connections that took commands and were lost.
    pub lost_connections: u64,
}

/// A thing for the owner of a link to do with a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Connect to [`Link::endpoint`]; then [`Link::handle_connected`] or [`Link::handle_dial_failed`].
    Dial(Lane),
    /// Reset and close this lane's connection, or give up its dial. No input that comes of it may reach the link any more.
    /// What the system holds of it is not to reach Redis behind what leaves on the next one.
    HangUp(Lane),
    /// Something on this lane is overdue and may have come unnoticed by the owner: read what lies in the
    /// socket, or look whether the dial has succeeded, and hand that over; then [`Link::handle_looked`].
    Look(Lane),
}

/// An event of the link, for its owner.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LinkEvent {
    /// The link is whole: both lanes take commands, and every wanted channel is confirmed or refused.
    Up {
        /// How long messages may have been missed. `None` if none were: at the first start, and if only the publishing
        /// connection was lost.
        gap: Option<Duration>,
    },
    /// A connection that worked was lost, or could not be made again for another reason than before.
    Down {
        /// Which one. The loss of [`Lane::Subscriber`] opens a gap.
        lane: Lane,
        /// Why, in one line for people.
        reason: String,
    },
    /// The first attempt to reach Redis failed. Comes at most once: at once if waiting cannot help, else 4.8 s after the start; the link goes
    /// on trying.
    StartFailed(LinkError),
    /// The subscribing connection is lost: no channel is subscribed until [`LinkEvent::Subscribed`] says so again.
    Unsubscribed {
        /// Until when it is proven that all came in: from then on messages may have been missed.
        since: Instant,
    },
    /// Redis has confirmed a subscription.
    Subscribed(Bytes),
    /// Redis refuses a subscription. It is asked again after 5 s, a pause that doubles up to 30 s, and on the next
    /// connection.
    SubscribeRefused {
        /// The channel.
        channel: Bytes,
        /// In the words of Redis.
        reason: String,
    },
    /// Publishes left the backlog, whatever became of them.
    Released {
        /// Their size as commands.
        bytes: usize,
    },
    /// The connection was lost after these publishes and before their replies: nobody knows whether they were carried
    /// out. They are not sent again.
    Unconfirmed {
        /// Their number.
        messages: usize,
    },
    /// These publishes waited for longer than `Limits::publish_time` and are given up.
    Expired {
        /// Their number.
        messages: usize,
    },
    /// Redis answered these publishes with an error, or the connection ended twice in the midst of one. Those that Redis
    /// could not carry out at the moment are not among them, but for one that was overtaken on its channel.
    Refused {
        /// Their number.
        messages: usize,
        /// In the words of Redis.
        reason: String,
    },
    /// A message above `Limits::message_bytes` came in and was skipped.
    Oversized {
        /// Its channel.
        channel: Bytes,
        /// Its size.
        bytes: usize,
    },
}
