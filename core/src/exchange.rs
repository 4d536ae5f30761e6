//! The batches that shards and the bus exchange. An adapter carries them between threads and never looks into them.
//!
//! A [`ToBus`] goes from a worker's shard to the bus, a [`ToShard`] comes back. The batches of each worker stay in
//! order.
//!
//! ```
//! use std::sync::Arc;
//!
//! use fanfare_core::bus::Bus;
//! use fanfare_core::route::FrameType;
//! use fanfare_core::settings::Settings;
//! use fanfare_core::shard::{Event, Shard};
//! use fanfare_core::time::Instant;
//!
//! let (settings, now) = (Arc::new(Settings::default()), Instant::ZERO);
//! let mut bus = Bus::local(&settings.limits, 1, 42, now);
//! let mut shard = Shard::new(settings, 43, now);
//! shard.subscribe(&"tea".into(), FrameType::Text)?;
//! shard.publish(&"tea".into(), b"boils")?;
//!
//! // With several workers, both kinds of batches go through queues between threads.
//! while let Some(wishes) = shard.poll_bus() {
//!     bus.handle_shard(0, wishes, now)?;
//! }
//! bus.handle_timeout(now);
//! while let Some((0, news)) = bus.poll_shard() {
//!     shard.handle_bus(news, now);
//! }
//!
//! let mut received = Vec::new();
//! while let Some(event) = shard.poll_event() {
//!     if let Event::Run(_, run) = event {
//!         received.extend(run.payloads().map(<[u8]>::to_vec));
//!     }
//! }
//! assert_eq!(received, [b"boils"]);
//! # Ok::<(), fanfare_core::error::Misuse>(())
//! ```

use bytes::Bytes;
use std::sync::Arc;

use crate::error::Unready;
use crate::resp::encode;
use crate::route::FrameType;
use crate::run::Run;
use crate::time::{Duration, Instant};

/// A worker of an instance, counted from 0.
pub type WorkerId = usize;

/// The wishes and publishes of one shard for the bus, in order.
#[derive(Debug, Default)]
pub struct ToBus {
    pub(crate) wishes: Vec<Wish>,
    /// The payloads of all [`Wish::Publish`], back to back.
    pub(crate) payloads: Vec<u8>,
}

#[derive(Debug)]
pub(crate) enum Wish {
    Subscribe {
        channel: ChannelId,
        name: Bytes,
        frame: FrameType,
    },
    Unsubscribe {
        channel: ChannelId,
        name: Bytes,
    },
    Publish {
        name: Bytes,
        len: usize,
    },
    /// Runs that take so many bytes of memory were taken out of this worker's mailbox.
    Taken {
        bytes: usize,
    },
    /// Say [`News::Looked`] behind all that is there for this worker, read or not.
    Look,
}

/// The news and runs of the bus for one shard, in order.
#[derive(Debug, Default)]
pub struct ToShard {
    pub(crate) news: Vec<News>,
}

#[derive(Debug)]
pub(crate) enum News {
    /// Every message of the channel from here on arrives.
    Subscribed(ChannelId),
    Run {
        channel: ChannelId,
        run: Arc<Run>,
    },
    /// So many messages of the channel did not fit into this worker's mailbox, before what comes of it from here on.
    Missed {
        channel: ChannelId,
        messages: u64,
    },
    /// So many bytes may be published again.
    Credit(usize),
    /// The bus lost the connection that subscribes: no channel is subscribed until it is said again. Comes once more if
    /// that happens again before the gap has ended.
    GapBegan {
        /// The gap's number.
        epoch: u64,
        /// From when messages may have been missed.
        since: Instant,
    },
    /// Every wanted channel is subscribed again.
    GapEnded(Gap),
    /// Whether the instance can deliver from end to end. Until this is said first, it cannot.
    Ready(Result<(), Unready>),
    /// The answer to [`Wish::Look`], once for each.
    Looked,
}

/// A period in which messages of other instances may have been missed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Gap {
    /// Its number among the gaps of this instance, from 1 on.
    pub epoch: u64,
    /// From when on messages may have been missed, rather too early than too late, until every wanted channel was
    /// subscribed again.
    pub duration: Duration,
}

/// A channel's identifier in one shard. The generation distinguishes it from earlier channels at the same index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ChannelId {
    pub(crate) index: u32,
    pub(crate) generation: u32,
}

impl ToBus {
    pub(crate) fn publish(&mut self, name: &Bytes, payload: &[u8]) {
        self.payloads.extend_from_slice(payload);
        self.wishes.push(Wish::Publish { name: name.clone(), len: payload.len() });
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.wishes.is_empty()
    }
}

impl ToShard {
    /// Bytes of the messages in it, framed. A worker that has taken in about as much as one read from Redis lets its
    /// sessions write before it takes in more; otherwise a burst would look as if none of them kept up.
    #[must_use]
    pub fn run_bytes(&self) -> usize {
        let len = |news: &News| if let News::Run { run, .. } = news { run.bytes().len() } else { 0 };
        self.news.iter().map(len).sum()
    }
}

/// The credit that a publish takes from its worker, and that the bus returns when the publish has left: its size as a
/// command, whatever carries it.
#[must_use]
pub fn publish_cost(name: &[u8], payload_len: usize) -> usize {
    encode::publish_len(name.len(), payload_len)
}

/// The credit each worker starts with.
pub(crate) fn first_credit(publish_bytes: usize, workers: usize) -> usize {
    publish_bytes / workers.max(1)
}

/// How many bytes a worker may take out of its mailbox before it reports that: each report may wake the bus's thread.
pub(crate) const fn unsaid_bytes(mailbox_bytes: usize) -> usize {
    mailbox_bytes / 4
}
