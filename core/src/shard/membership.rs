//! Membership of sessions, and of the embedder's subscribers, in channels.

use bytes::Bytes;

use super::session::{Member, Stage};
use super::{Event, SessionId, Shard, SubscriberId, get_mut, id_of};
use crate::error::Misuse;
use crate::exchange::{ChannelId, Wish};
use crate::route::{FrameType, Target};
use crate::time::Instant;

impl Shard {
    /// Subscribes the embedder itself to a channel: [`Event::Run`]s follow, from [`Event::Subscribed`] on every one.
    ///
    /// # Errors
    /// [`Misuse::ChannelName`], [`Misuse::FrameType`]; nothing changes.
    pub fn subscribe(&mut self, channel: &Bytes, frame: FrameType) -> Result<SubscriberId, Misuse> {
        self.channels.check_name(channel, frame, &self.settings)?;
        self.subscribers += 1;
        let subscriber = SubscriberId(self.subscribers);
        let (id, new) = self.channels.find_or_add(channel, frame);
        if new {
            self.to_bus.wishes.push(Wish::Subscribe { channel: id, name: channel.clone(), frame });
        }
        let channel = self.channels.at_mut(id.index);
        channel.subscribers.push(subscriber);
        if channel.subscribed {
            self.events.push_back(Event::Subscribed(subscriber));
        }
        Ok(subscriber)
    }

    /// Ends a subscription of the embedder's. What is in the queue of events for it stays there.
    ///
    /// # Errors
    /// [`Misuse::NoSuchSubscriber`]; nothing changes.
    pub fn unsubscribe(&mut self, channel: &[u8], subscriber: SubscriberId) -> Result<(), Misuse> {
        let index = self.channels.index_of(channel).ok_or(Misuse::NoSuchSubscriber)?;
        let subscribers = &mut self.channels.at_mut(index).subscribers;
        let place = subscribers.iter().position(|&one| one == subscriber).ok_or(Misuse::NoSuchSubscriber)?;
        subscribers.swap_remove(place);
        self.drop_channel_if_empty(index);
        Ok(())
    }

    /// The session enters its channel; the 101 leaves as soon as that is subscribed.
    pub(super) fn join(&mut self, id: SessionId, now: Instant) {
        let Some(session) = get_mut(&mut self.sessions, id) else { return };
        let Stage::Joining(joining) = &mut session.stage else { return };
        let Target { channel: name, frame, rights, .. } = &mut joining.target;
        if !rights.subscribe {
            return self.open(id, now);
        }
        let (channel, new) = self.channels.find_or_add(name, *frame);
        if new {
            self.to_bus.wishes.push(Wish::Subscribe { channel, name: name.clone(), frame: *frame });
        }
        let entered = self.channels.at_mut(channel.index);
        // All sessions of a channel share one name.
        *name = entered.name.clone();
        session.member = Some(Member { channel: channel.index, place: entered.members.len() as u32 });
        entered.members.push(id.index);
        if entered.subscribed {
            self.open(id, now);
        } else {
            self.settle(id, now);
        }
    }

    /// The bus delivers every message of the channel from here on.
    pub(super) fn channel_subscribed(&mut self, channel: ChannelId, now: Instant) {
        self.gap_ended(channel, now);
        let Some(channel) = self.channels.get_mut(channel) else { return };
        channel.subscribed = true;
        let waiting: Vec<SessionId> = channel
            .members
            .iter()
            .map(|&index| (index, &self.sessions[index as usize]))
            .filter(|(_, session)| matches!(session.stage, Stage::Joining(_)))
            .map(|(index, session)| id_of(index, session))
            .collect();
        for &subscriber in &channel.subscribers {
            self.events.push_back(Event::Subscribed(subscriber));
        }
        for id in waiting {
            self.open(id, now);
        }
    }

    /// The session leaves its channel, if it is in one.
    pub(super) fn leave(&mut self, id: SessionId) {
        let Some(session) = get_mut(&mut self.sessions, id) else { return };
        let Some(member) = session.member.take() else { return };
        let members = &mut self.channels.at_mut(member.channel).members;
        members.swap_remove(member.place as usize);
        if members.len() < members.capacity() / 4 {
            members.shrink_to(members.capacity() / 2);
        }
        if let Some(&moved) = members.get(member.place as usize)
            && let Some(moved) = &mut self.sessions[moved as usize].member
        {
            moved.place = member.place;
        }
        self.drop_channel_if_empty(member.channel);
    }

    fn drop_channel_if_empty(&mut self, index: u32) {
        if let Some((channel, name)) = self.channels.remove_if_empty(index) {
            self.to_bus.wishes.push(Wish::Unsubscribe { channel, name });
        }
    }
}
