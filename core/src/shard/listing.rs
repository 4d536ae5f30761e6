//! What an embedder can see of a shard: its WebSockets and its channels, piece by piece.
//!
//! Sessions and channels have places from 0 on. A place that is free is left out, and one that is freed is taken again,
//! so a listing in several pieces shows each session that is there all the time, once.

use core::ops::Range;

use bytes::Bytes;

use super::session::{Session, Stage};
use super::{SessionId, Shard, id_of};
use crate::route::{FrameType, Target};

/// One WebSocket, as it is now.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SessionInfo<'a> {
    /// Its name, for [`Shard::close`].
    pub id: SessionId,
    /// Its channel, and what it may do there.
    pub target: &'a Target,
    /// Whether it is open. If not, it waits for its channel to be subscribed.
    pub is_open: bool,
    /// Bytes that wait for it, counted as [`Limits::queue_bytes`](crate::limits::Limits::queue_bytes) counts.
    pub queue_bytes: usize,
}

/// One channel that this shard wants, as it is now.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ChannelInfo<'a> {
    /// Its name, the prefix included.
    pub name: &'a Bytes,
    /// The type of all its messages.
    pub frame: FrameType,
    /// Sessions of this shard that receive it, those that wait for it to be subscribed among them.
    pub sessions: usize,
    /// Subscribers of the embedder's own.
    pub subscribers: usize,
}

impl Shard {
    /// A WebSocket that is open or waits for its channel; `None` if it is closing or gone.
    #[must_use]
    pub fn session(&self, id: SessionId) -> Option<SessionInfo<'_>> {
        self.get(id).and_then(|session| session.info(id))
    }

    /// The WebSockets at these places that are open or wait for their channel. It looks at each place, so ask for some
    /// thousand at a time, up to [`Shard::session_places`].
    pub fn sessions(&self, places: Range<usize>) -> impl Iterator<Item = SessionInfo<'_>> {
        places.filter_map(|place| {
            let session = self.sessions.get(place)?;
            session.info(id_of(u32::try_from(place).ok()?, session))
        })
    }

    /// No session has this place or a higher one.
    #[must_use]
    pub fn session_places(&self) -> usize {
        self.sessions.capacity()
    }

    /// The channels at these places, as [`Shard::sessions`].
    pub fn channels(&self, places: Range<usize>) -> impl Iterator<Item = ChannelInfo<'_>> {
        places.filter_map(|place| self.channels.info(place))
    }

    /// No channel has this place or a higher one.
    #[must_use]
    pub fn channel_places(&self) -> usize {
        self.channels.places()
    }
}

impl Session {
    fn info(&self, id: SessionId) -> Option<SessionInfo<'_>> {
        let (target, is_open) = match &self.stage {
            Stage::Joining(joining) => (&joining.target, false),
            Stage::Open(open) if open.ws.can_send() => (&open.target, true),
            _ => return None,
        };
        Some(SessionInfo { id, target, is_open, queue_bytes: self.queue.memory() })
    }
}
