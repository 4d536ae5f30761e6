//! Gaps: periods in which messages may have been missed, and what their sessions learn of them.

use std::sync::Arc;

use super::queue::{Content, Missing};
use super::session::Stage;
use super::{Event, Shard, id_of};
use crate::error::Farewell;
use crate::exchange::ChannelId;
use crate::note::Note;
use crate::quote::cut_bytes;
use crate::route::OnGap;
use crate::time::{Duration, Instant};

impl Shard {
    /// The bus has lost its subscriptions: every message of a channel may be missed until it is subscribed again.
    pub(super) fn gap_began(&mut self, epoch: u64, since: Instant, now: Instant) {
        let mut members = Vec::new();
        self.channels.begin_gap(epoch, since, |channel| members.extend_from_slice(&channel.members));
        self.close_for_gap(&members, now);
        self.note_gap(&members, Note::GapBegan { epoch }, Content::GapBegan);
    }

    /// The channel is subscribed again: its messages come from here on.
    pub(super) fn gap_ended(&mut self, channel: ChannelId, now: Instant) {
        let Some(channel) = self.channels.get_mut(channel) else { return };
        if let Some((epoch, since)) = channel.gap.take() {
            let members = channel.members.clone();
            // A session that has not taken the note of its beginning needs only this.
            for &index in &members {
                self.sessions[index as usize].queue.drop_note(&mut self.runs, Content::GapBegan);
            }
            self.note_gap(&members, Note::Gap { time: now.since(since), epoch }, Content::Gap);
        }
    }

    /// Messages of the channel found no room in this worker's mailbox: a gap that has ended already. It concerns all
    /// sessions that are in it at the time of the report, since nobody knows which of them came just before.
    pub(super) fn missed(&mut self, channel: ChannelId, messages: u64, now: Instant) {
        self.stats.missed += messages;
        let Some(channel) = self.channels.get(channel) else { return };
        let (name, members) = (channel.name.clone(), channel.members.clone());
        if let Some(unsaid) = self.said_missed.say(now) {
            let channel = &*cut_bytes(&name);
            tracing::warn!(
                event = "mailbox_full",
                channel,
                messages,
                unsaid,
                "messages were dropped: this worker's mailbox is full"
            );
        }
        self.events.push_back(Event::Missed { channel: name, messages });
        self.close_for_gap(&members, now);
        self.note_gap(&members, Note::Missed { messages }, Content::Gap);
    }

    /// Of these sessions, those that do not outlive a gap get nothing more, and are closed soon. A later session has
    /// missed nothing.
    fn close_for_gap(&mut self, members: &[u32], now: Instant) {
        for &index in members {
            let session = &self.sessions[index as usize];
            let Stage::Open(open) = &session.stage else { continue };
            if open.target.policies.on_gap == OnGap::Close {
                let id = id_of(index, session);
                self.leave(id);
                self.stats.gap_closes += 1;
                self.plan_close(id, Farewell::Gap, Duration::ZERO..self.settings.limits.gap_close_time, now);
            }
        }
    }

    /// Those of these sessions that want notes get one, encoded once, behind what waits for them.
    fn note_gap(&mut self, members: &[u32], note: Note, content: Content) {
        let listens = |&index: &u32| {
            let session = &self.sessions[index as usize];
            session.member.is_some() && session.has_notes()
        };
        let listeners: Vec<u32> = members.iter().copied().filter(listens).collect();
        if listeners.is_empty() {
            return;
        }
        let note = Arc::new(note.encode());
        // Fewer than 2³² sessions, as everywhere.
        let place = self.runs.hold(note, content, listeners.len() as u32);
        for index in listeners {
            let session = &mut self.sessions[index as usize];
            session.queue.put_note(&mut self.runs, place, Missing::Behind);
            let id = id_of(index, session);
            self.list(id);
        }
    }
}
