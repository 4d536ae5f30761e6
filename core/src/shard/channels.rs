//! The channels that sessions of this shard, or subscribers of the embedder, want.

use std::collections::HashMap;

use ahash::RandomState;
use bytes::Bytes;
use slab::Slab;

use super::id::SubscriberId;
use super::listing::ChannelInfo;
use crate::error::Misuse;
use crate::exchange::ChannelId;
use crate::route::{FrameType, RESERVED, Target};
use crate::settings::Settings;
use crate::time::Instant;

#[derive(Debug)]
pub(super) struct Channels {
    slots: Slab<Channel>,
    by_name: HashMap<Bytes, u32, RandomState>,
    generation: u32,
}

#[derive(Debug)]
pub(super) struct Channel {
    generation: u32,
    pub(super) name: Bytes,
    pub(super) frame: FrameType,
    /// Whether the bus said so.
    pub(super) subscribed: bool,
    /// The gap that has begun and not ended here: its number, and from when messages may have been missed.
    pub(super) gap: Option<(u64, Instant)>,
    /// Sessions by index, those still in their handshake among them, in no order.
    pub(super) members: Vec<u32>,
    pub(super) subscribers: Vec<SubscriberId>,
}

impl Channels {
    pub(super) fn new(rng: &mut fastrand::Rng) -> Self {
        let hasher = RandomState::with_seeds(rng.u64(..), rng.u64(..), rng.u64(..), rng.u64(..));
        Self { slots: Slab::new(), by_name: HashMap::with_hasher(hasher), generation: 0 }
    }

    /// Whether a session may enter its channel.
    pub(super) fn check(&self, target: &Target, settings: &Settings) -> Result<(), Misuse> {
        if target.notes && target.frame != FrameType::Text {
            return Err(Misuse::Notes);
        }
        self.check_name(&target.channel, target.frame, settings)
    }

    /// Whether a session or a subscriber may enter the channel of that name.
    pub(super) fn check_name(&self, name: &[u8], frame: FrameType, settings: &Settings) -> Result<(), Misuse> {
        let behind_prefix = name.strip_prefix(settings.channel_prefix.as_bytes());
        let is_reserved = behind_prefix.is_some_and(|name| name.starts_with(RESERVED.as_bytes()));
        if name.is_empty() || name.len() > settings.limits.channel_bytes || is_reserved {
            return Err(Misuse::ChannelName);
        }
        let carries_other = self.index_of(name).is_some_and(|index| self.slots[index as usize].frame != frame);
        if carries_other { Err(Misuse::FrameType) } else { Ok(()) }
    }

    pub(super) fn info(&self, place: usize) -> Option<ChannelInfo<'_>> {
        let channel = self.slots.get(place)?;
        let (sessions, subscribers) = (channel.members.len(), channel.subscribers.len());
        Some(ChannelInfo { name: &channel.name, frame: channel.frame, sessions, subscribers })
    }

    pub(super) fn places(&self) -> usize {
        self.slots.capacity()
    }

    pub(super) fn index_of(&self, name: &[u8]) -> Option<u32> {
        self.by_name.get(name).copied()
    }

    /// The channel of that name, and whether it is new.
    pub(super) fn find_or_add(&mut self, name: &Bytes, frame: FrameType) -> (ChannelId, bool) {
        if let Some(&index) = self.by_name.get(name) {
            return (self.id(index), false);
        }
        self.generation = self.generation.wrapping_add(1);
        let index = self.slots.insert(Channel {
            generation: self.generation,
            name: name.clone(),
            frame,
            subscribed: false,
            gap: None,
            members: Vec::new(),
            subscribers: Vec::new(),
        }) as u32;
        self.by_name.insert(name.clone(), index);
        (self.id(index), true)
    }

    /// `None` for a channel that is no more, even if another has its place now.
    pub(super) fn get_mut(&mut self, id: ChannelId) -> Option<&mut Channel> {
        self.slots.get_mut(id.index as usize).filter(|channel| channel.generation == id.generation)
    }

    pub(super) fn get(&self, id: ChannelId) -> Option<&Channel> {
        self.slots.get(id.index as usize).filter(|channel| channel.generation == id.generation)
    }

    pub(super) fn at_mut(&mut self, index: u32) -> &mut Channel {
        &mut self.slots[index as usize]
    }

    pub(super) fn id(&self, index: u32) -> ChannelId {
        ChannelId { index, generation: self.slots[index as usize].generation }
    }

    /// Forgets the channel if nobody is left in it, and says which it was.
    pub(super) fn remove_if_empty(&mut self, index: u32) -> Option<(ChannelId, Bytes)> {
        let channel = &self.slots[index as usize];
        if !channel.members.is_empty() || !channel.subscribers.is_empty() {
            return None;
        }
        let id = self.id(index);
        let channel = self.slots.remove(index as usize);
        self.by_name.remove(&channel.name);
        if self.by_name.len() < self.by_name.capacity() / 4 {
            self.by_name.shrink_to(self.by_name.len() * 2);
        }
        Some((id, channel.name))
    }

    /// The bus has lost its connection: nothing is subscribed until it says so again. `lost` sees each that was.
    pub(super) fn begin_gap(&mut self, epoch: u64, since: Instant, mut lost: impl FnMut(&Channel)) {
        for (_, channel) in &mut self.slots {
            if std::mem::take(&mut channel.subscribed) {
                channel.gap = Some((epoch, since));
                lost(channel);
            }
        }
    }

    #[cfg(test)]
    pub(super) fn members(&self, index: u32) -> &[u32] {
        &self.slots[index as usize].members
    }

    #[cfg(test)]
    pub(super) fn all_members(&self) -> usize {
        self.slots.iter().map(|(_, channel)| channel.members.len()).sum()
    }

    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.by_name.capacity()
    }
}
