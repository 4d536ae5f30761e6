//! What is looked at now and then, and how a run ends: everything has to come right, to the last byte.

use fanfare_core::redis::Lane;
use fanfare_core::time::Duration;

use super::ground::Event;
use super::plan::{Kind, Way};
use super::reference::SUBSCRIBED_WITHIN;
use super::verdict::Promise;
use super::world::{CHECK_EVERY, Stage, World};

/// From the end of the plan to the probes: what fell silent last is found, and what is subscribed equal again.
const MENDED_WITHIN: Duration = Duration::from_secs(18);
/// More than the last message of a room takes of a mailbox.
const PROBE_BYTES: usize = 1 << 10;
/// From a message in every room to its last byte at every client.
const PROBED_WITHIN: Duration = Duration::from_secs(4);
/// From the last goodbye until nobody is held any more: a ping, its deadline, a Close and the linger, and a margin.
const EMPTY_WITHIN: Duration = Duration::from_secs(60);

impl World<'_> {
    pub(super) fn check(&mut self) {
        self.check_subscriptions();
        self.check_readiness();
        if let Some(since) = self.settling {
            let time = self.ground.now.since(since);
            match self.stage {
                Stage::Mended if time >= MENDED_WITHIN => {
                    self.missed_before = self.instances.iter_mut().map(|one| one.bus().stats().missed).collect();
                    (0..self.plan.setup.rooms.len()).for_each(|room| self.publish(room, 200, Kind::Plain));
                    self.stage = Stage::Probed;
                }
                Stage::Probed if time >= MENDED_WITHIN + PROBED_WITHIN => {
                    self.check_mailboxes();
                    self.check_deliveries();
                    self.check_publishes();
                    for client in &mut self.clients {
                        client.leave(Way::Orderly, &mut self.ground);
                    }
                    self.stage = Stage::Emptied;
                }
                Stage::Emptied if time >= MENDED_WITHIN + PROBED_WITHIN + EMPTY_WITHIN => {
                    self.check_empty();
                    self.done = true;
                }
                Stage::Mended | Stage::Probed | Stage::Emptied => {}
            }
        }
        self.ground.after(CHECK_EVERY, Event::Check);
    }

    /// R4, for every instance that has had nothing between it and Redis for long enough.
    fn check_subscriptions(&mut self) {
        for i in 0..self.instances.len() {
            if !self.ground.reference.is_calm_for(i, SUBSCRIBED_WITHIN, self.ground.now) {
                continue;
            }
            if !self.instances[i].bus().is_up() {
                self.ground.fail(Promise::Subscribed, format!("instance {i} reaches redis, and its link is not whole"));
                return;
            }
            let port = self.redis.port_of(i, Lane::Subscriber, &self.ground);
            let Some(channels) = port.and_then(|port| self.redis.channels(port)) else { continue };
            let visits = &self.ground.reference.visits;
            let of_this = visits.iter().filter(|view| view.instance == i && view.stays());
            // Whoever is to be closed for a gap has left its channel.
            let of_this = of_this.filter(|view| !self.ground.reference.may_be_doomed(view));
            // Redis knows channels by their bytes.
            let missing = of_this.map(|view| view.room).find(|&room| {
                let channel = &self.ground.reference.room(room).channel;
                !channels.contains(channel.as_bytes())
            });
            // The end of a session is heard when the client has answered its Close.
            if let Some(room) = missing
                && self.suspects[i] == Some(room)
            {
                let channel = &self.ground.reference.room(room).channel;
                let what = format!("instance {i} has sessions in {channel} and is not subscribed to it");
                self.ground.fail(Promise::Subscribed, what);
                return;
            }
            self.suspects[i] = missing;
        }
    }

    /// R7, of the bus and of what its shards have heard.
    fn check_readiness(&mut self) {
        let now = self.ground.now;
        for i in 0..self.instances.len() {
            let instance = &mut self.instances[i];
            let heard = instance.bus().readiness();
            self.ground.judge(self.ground.reference.check_readiness(i, heard, now));
            for worker in 0..instance.workers.len() {
                let heard = instance.shard(worker).readiness();
                self.ground.judge(self.ground.reference.check_readiness(i, heard, now));
            }
        }
    }

    /// One small message in every room, when all else is over, finds room in every mailbox.
    fn check_mailboxes(&mut self) {
        if self.plan.setup.limits.mailbox_bytes < PROBE_BYTES * self.plan.setup.rooms.len() {
            return;
        }
        for (i, &before) in self.missed_before.iter().enumerate() {
            let more = self.instances[i].bus().stats().missed - before;
            if more > 0 {
                let what =
                    format!("{more} messages found a mailbox of instance {i} full when nothing else was under way");
                return self.ground.fail(Promise::Bounds, what);
            }
        }
    }

    /// R3, at the end: every client that is open and reads has got everything, and was heard.
    fn check_deliveries(&mut self) {
        for client in &self.clients {
            let view = &self.ground.reference.visits;
            let Some(view) = view.get(client.visit).filter(|view| client.is_open() && view.client == client.number)
            else {
                continue;
            };
            let reference = &self.ground.reference;
            if view.excuses.any() || view.over || reference.may_be_doomed(view) || reference.may_drop(view.room) {
                continue;
            }
            let (number, instance) = (client.number, view.instance);
            let unread = view.sent.len() + view.untaken.saturating_sub(usize::from(client.setup.hasty));
            let missing = self.ground.reference.missing(client.visit);
            let missed = self.instances[instance].bus().stats().missed;
            if let Some(message) = missing
                && self.ground.reference.holes(instance).len() as u64 > missed
            {
                let what = format!(
                    "client {number} of instance {instance} never got message {message}, and {missed} are counted as missed"
                );
                return self.ground.fail(Promise::NoSilentLoss, what);
            }
            if unread > 0 {
                let what = format!("{unread} messages of client {number} were not taken in by instance {instance}");
                return self.ground.fail(Promise::NoLostPublish, what);
            }
        }
    }

    /// Every publish that was taken in is carried out, or counted.
    fn check_publishes(&mut self) {
        for i in 0..self.instances.len() {
            let instance = &mut self.instances[i];
            let stats = instance.bus().stats();
            let shards: Vec<_> = (0..instance.workers.len()).map(|worker| instance.shard(worker).stats()).collect();
            let taken_in: u64 = shards.iter().map(|shard| shard.messages_in).sum();
            // Behind our Close and beyond the credit a message is counted and dropped.
            let discarded: u64 = shards.iter().map(|shard| shard.discarded).sum();
            let accepted = taken_in - instance.rejected - discarded;
            let certain = accepted.saturating_sub(stats.expired + stats.refused);
            let published = self.ground.reference.published_by(i);
            if stats.publish_bytes > 0 || !(certain.saturating_sub(stats.unconfirmed)..=certain).contains(&published) {
                let what = format!(
                    "instance {i} took in {accepted} messages, redis has {published} of them, {} are expired, \
                     {} unconfirmed, {} refused, {} wait",
                    stats.expired, stats.unconfirmed, stats.refused, stats.unsent
                );
                return self.ground.fail(Promise::NoLostPublish, what);
            }
            if let Some(lost) = self.ground.reference.take_lost(i) {
                let what = format!("instance {i} has missed messages since {lost:?} and knows of no gap");
                return self.ground.fail(Promise::NoSilentLoss, what);
            }
        }
    }

    /// Everyone has gone: nothing is left of them.
    fn check_empty(&mut self) {
        for i in 0..self.instances.len() {
            let instance = &mut self.instances[i];
            for worker in 0..instance.workers.len() {
                let (stats, sockets) = (instance.shard(worker).stats(), instance.workers[worker].sockets.len());
                // Who was opened has ended, and that was counted.
                let uncounted = stats.opened.abs_diff(stats.closes.total());
                if (stats.sessions, stats.queued_bytes, stats.partial_bytes, sockets, uncounted) != (0, 0, 0, 0, 0) {
                    let what = format!("instance {i}, worker {worker} holds {stats:?} when all have gone");
                    return self.ground.fail(Promise::CleanEnd, what);
                }
            }
            let channels = instance.bus().stats().channels;
            let port = self.redis.port_of(i, Lane::Subscriber, &self.ground);
            let subscribed = port.and_then(|port| self.redis.channels(port)).map_or(0, |channels| channels.len());
            if channels + subscribed > 0 {
                let what = format!("instance {i} holds {channels} channels when all have gone, redis {subscribed}");
                return self.ground.fail(Promise::CleanEnd, what);
            }
        }
    }
}
