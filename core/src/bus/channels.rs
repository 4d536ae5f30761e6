//! The channels that workers want, and those that linger after the last worker left.

use std::collections::HashMap;
use std::sync::Arc;

use ahash::RandomState;
use bytes::Bytes;
use slab::Slab;

use crate::exchange::{ChannelId, WorkerId};
use crate::quote::cut_bytes;
use crate::route::FrameType;
use crate::run::{Run, RunBuilder};
use crate::time::{Instant, Seldom, Timers};

#[derive(Debug)]
pub(super) struct Channels {
    slots: Slab<Channel>,
    by_name: HashMap<Bytes, usize, RandomState>,
    lingering: Timers<usize>,
    /// Channels with a message that is not in a sealed run yet, in order of their first.
    touched: Vec<usize>,
    /// Messages that came in, and those of them that were no text on a text channel.
    pub(super) messages: u64,
    pub(super) not_utf8: u64,
    said_not_utf8: Seldom,
}

#[derive(Debug)]
struct Channel {
    name: Bytes,
    frame: FrameType,
    subscribed: bool,
    /// Workers that want it, each with its own id for it. Empty while it lingers.
    members: Vec<(WorkerId, ChannelId)>,
    lingers_until: Option<Instant>,
    building: Option<RunBuilder>,
}

/// What [`Channels::join`] found.
pub(super) struct Known {
    pub(super) new: bool,
    pub(super) subscribed: bool,
}

impl Channels {
    pub(super) fn new(seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let hasher = RandomState::with_seeds(rng.u64(..), rng.u64(..), rng.u64(..), rng.u64(..));
        Self {
            slots: Slab::new(),
            by_name: HashMap::with_hasher(hasher),
            lingering: Timers::new(),
            touched: Vec::new(),
            messages: 0,
            not_utf8: 0,
            said_not_utf8: Seldom::default(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// A worker wants the channel, under its own `id` for it.
    pub(super) fn join(&mut self, name: &Bytes, frame: FrameType, worker: WorkerId, id: ChannelId) -> Known {
        let (index, new) = match self.by_name.get(name) {
            Some(&index) => (index, false),
            None => (self.add(name, frame), true),
        };
        let channel = &mut self.slots[index];
        self.lingering.set(index, &mut channel.lingers_until, None);
        if channel.members.is_empty() {
            channel.frame = frame;
        } else if channel.frame != frame {
            let (event, channel) = ("frame_types_differ", &*cut_bytes(name));
            tracing::error!(event, channel, "two workers use the channel with different frame types");
        }
        channel.members.push((worker, id));
        Known { new, subscribed: channel.subscribed }
    }

    fn add(&mut self, name: &Bytes, frame: FrameType) -> usize {
        let index = self.slots.insert(Channel {
            name: name.clone(),
            frame,
            subscribed: false,
            members: Vec::new(),
            lingers_until: None,
            building: None,
        });
        self.by_name.insert(name.clone(), index);
        index
    }

    /// A worker no longer wants the channel. With nobody left it lingers.
    pub(super) fn leave(&mut self, name: &[u8], worker: WorkerId, id: ChannelId, until: Instant) {
        let Some(&index) = self.by_name.get(name) else { return };
        let channel = &mut self.slots[index];
        channel.members.retain(|member| *member != (worker, id));
        if channel.members.is_empty() {
            self.lingering.set(index, &mut channel.lingers_until, Some(until));
        }
    }

    /// How many linger.
    pub(super) fn lingering(&self) -> usize {
        self.lingering.len()
    }

    /// Forgets the channel that has lingered longest, if that is long enough by `now`, and says which.
    pub(super) fn pop_lingered(&mut self, now: Instant) -> Option<Bytes> {
        let index = self.lingering.pop_due(now)?;
        let channel = self.slots.remove(index);
        self.by_name.remove(&channel.name);
        if self.by_name.len() < self.by_name.capacity() / 4 {
            self.by_name.shrink_to(self.by_name.len() * 2);
        }
        Some(channel.name)
    }

    pub(super) fn next_lingered(&self) -> Option<Instant> {
        self.lingering.next()
    }

    /// Every message of the channel from here on comes in; `tell` is called for each worker that this concerns.
    pub(super) fn subscribed(&mut self, name: &[u8], mut tell: impl FnMut(WorkerId, ChannelId)) {
        let Some(&index) = self.by_name.get(name) else { return };
        let channel = &mut self.slots[index];
        if !channel.subscribed {
            channel.subscribed = true;
            for &(worker, id) in &channel.members {
                tell(worker, id);
            }
        }
    }

    pub(super) fn unsubscribed_all(&mut self) {
        for (_, channel) in &mut self.slots {
            channel.subscribed = false;
        }
    }

    /// A message came in. It waits for [`Channels::seal_runs`].
    pub(super) fn add_message(&mut self, name: &[u8], payload: &[u8], now: Instant) {
        self.messages += 1;
        // A channel that nobody wants any more may still carry what was on its way.
        let Some(&index) = self.by_name.get(name) else { return };
        let channel = &mut self.slots[index];
        if channel.members.is_empty() {
            return;
        }
        let builder = channel.building.get_or_insert_with(|| {
            self.touched.push(index);
            RunBuilder::new(channel.frame)
        });
        // The other reason to refuse, a run of 4 GiB, is beyond what one read can hold.
        if builder.push(payload).is_err() {
            self.not_utf8 += 1;
            if let Some(unsaid) = self.said_not_utf8.say(now) {
                let (event, channel) = ("message_not_utf8", &*cut_bytes(name));
                tracing::warn!(
                    event,
                    channel,
                    unsaid,
                    "a message that is not UTF-8 came on a text channel and was dropped"
                );
            }
        }
    }

    /// Hands over one run for each channel that had messages, to each worker that wants it.
    pub(super) fn seal_runs(&mut self, mut hand_over: impl FnMut(WorkerId, ChannelId, &Arc<Run>)) {
        for index in self.touched.drain(..) {
            let channel = &mut self.slots[index];
            let Some(builder) = channel.building.take() else { continue };
            if builder.is_empty() {
                continue;
            }
            let run = Arc::new(builder.finish());
            for &(worker, id) in &channel.members {
                hand_over(worker, id, &run);
            }
        }
    }

    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.by_name.capacity()
    }
}
