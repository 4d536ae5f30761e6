//! Fan-out: one run goes into the queues of all sessions of its channel.

use std::sync::Arc;

use super::queue::Content;
use super::slow::Arrived;
use super::{Event, Shard, id_of};
use crate::exchange::ChannelId;
use crate::run::Run;
use crate::time::Instant;

impl Shard {
    /// Puts a run into the queue of every session of its channel, or what a session that is behind may have of it.
    pub(super) fn fan_out(&mut self, channel: ChannelId, run: &Arc<Run>, now: Instant) {
        let most = self.settings.limits.all_queues_bytes / self.settings.workers.max(1);
        let (mut full, mut overfull) = (false, false);
        let memory = run.memory_in_all_forms();
        if self.runs.memory() + memory > most && self.channels.get(channel).is_some() {
            self.make_room(memory, most, now);
            full = self.runs.memory() + memory > most;
            overfull = self.runs.memory() + memory > most + self.beyond_bytes();
        }
        // It may have gone with its last session.
        let Some(channel) = self.channels.get_mut(channel) else { return };
        let limits = &self.settings.limits;
        // Each message takes a byte at least, and a run is shorter than 4 GiB.
        let messages = run.len() as u32;
        let place = self.runs.next();
        let mut entries = 0;
        let mut slow = Vec::new();
        for &index in &channel.members {
            let session = &mut self.sessions[index as usize];
            if !session.takes_messages() {
                continue;
            }
            let id = id_of(index, session);
            let waits = !session.queue.is_empty();
            // A session that keeps up takes any run, however large; one whose socket is not full only had no turn yet.
            let is_full = full && (overfull || session.flags.blocked && !session.holds_little(&self.runs, 0, limits));
            let len = session.queue.len_of(run);
            let too_much = waits && (is_full || session.queue.memory_with(len) > limits.queue_bytes);
            if too_much || session.keeps_latest() {
                slow.push((id, is_full));
                continue;
            }
            if session.flags.blocked {
                // The run is not among those held yet.
                session.fall_in(index, &mut self.behind, (&self.runs, run.memory_in_all_forms()), limits, now);
            } else if !session.flags.listed {
                session.flags.listed = true;
                self.writable.push_back(id);
            }
            entries += u32::from(session.queue.push(place, 0..messages, len));
        }
        // Fewer than 2³² sessions, as everywhere.
        let holders = entries + slow.len() as u32;
        if holders > 0 {
            self.runs.hold(run.clone(), Content::Messages, holders);
        }
        self.stats.deliveries += u64::from(entries) * u64::from(messages);
        for &subscriber in &channel.subscribers {
            self.events.push_back(Event::Run(subscriber, run.clone()));
        }
        for (id, full) in slow {
            self.fall_behind(id, &Arrived { run, place, full }, now);
        }
        if self.runs.memory() > most {
            self.make_room(0, most + self.beyond_bytes(), now);
        }
    }
}
