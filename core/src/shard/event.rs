//! The events of a shard for its embedder.

use std::sync::Arc;

use bytes::Bytes;

use super::id::{SessionId, SubscriberId};
use super::review::Review;
use super::session::Asked;
use crate::error::Closed;
use crate::run::Run;

/// An event of the shard, for the embedder.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// A client asks for a WebSocket: answer with [`Shard::accept`](super::Shard::accept) or
    /// [`Shard::refuse`](super::Shard::refuse) (only with [`Settings::ask`](crate::settings::Settings::ask)).
    Request(SessionId, Box<Asked>),
    /// A client asks for `/metrics` where that may be asked: answer with
    /// [`Shard::answer_scrape`](super::Shard::answer_scrape). The session gets 503 if there is no answer within
    /// [`Limits::head_time`](crate::limits::Limits::head_time) of its beginning.
    Scrape(SessionId),
    /// The WebSocket is open and its channel subscribed.
    Opened(SessionId),
    /// A client has said something that is not published until [`Shard::decide`](super::Shard::decide) says so (only with
    /// [`Rights::review`](crate::route::Rights::review)). It also comes for a session that has ended since.
    Review(Box<Review>),
    /// Nothing more will be written: end the write side, and go on reading until the peer ends its own or `Closed` comes.
    EndWrites(SessionId),
    /// The session's client has not ended its side and is not waited for any longer: have its connection reset when it is
    /// closed (`SO_LINGER` of zero), or the system goes on offering it what it does not take. `Closed` is next.
    GivenUp(SessionId),
    /// The session is gone: close its socket and forget its id.
    Closed(SessionId, Closed),
    /// A subscriber that is not a socket is subscribed.
    Subscribed(SubscriberId),
    /// Messages for a subscriber that is not a socket.
    Run(SubscriberId, Arc<Run>),
    /// A slow reader lost so many messages, by its route's [`Slow`](crate::route::Slow). Comes when it has caught up, or
    /// just before it is gone.
    Dropped(SessionId, u64),
    /// Messages of one of this shard's channels were dropped because its mailbox was full
    /// ([`Limits::mailbox_bytes`](crate::limits::Limits::mailbox_bytes)).
    Missed {
        /// The channel.
        channel: Bytes,
        /// Their number.
        messages: u64,
    },
}
