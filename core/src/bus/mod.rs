//! The bus carries a publish to every instance: inside this process ([`Bus::local`], the default) or through Redis
//! ([`Bus::redis`]).
//!
//! An instance has one bus, whatever the number of its workers, so that Redis sends each message once to each
//! instance. The bus subscribes to the channels that some worker wants, lets a channel linger when nobody does, frames
//! the messages of one channel that came in one read into one [`Run`](crate::run::Run), and hands that to each worker that has the channel.
//!
//! Publishes wait in a queue bounded by [`Limits::publish_bytes`]. Each worker has its share of that as credit and
//! stops reading the sessions that publish when it is used up; what leaves the queue comes back as credit.
//!
//! Without Redis, [`Bus::handle_timeout`] delivers what was published, 64 KiB a turn, and is due at once while anything
//! waits: sessions are written to in between.
//!
//! With Redis, the bus is driven like a session's socket, for a socket of each [`LinkId`](crate::redis::LinkId): do what
//! [`Bus::poll_action`] says, tell it by [`Bus::handle_connected`] or [`Bus::handle_dial_failed`] what became of a dial,
//! hand it what was read ([`Bus::handle_read`], 64 KiB at a time are good) and write what [`Bus::poll_transmit`] and
//! [`Bus::transmit`] give. [`Link`] says what it makes of that. Nothing but Redis's Pub/Sub is used
//! (<https://redis.io/docs/latest/develop/pubsub/>).
//!
//! A worker that does not take its news in is owed at most [`Limits::mailbox_bytes`]; what comes beyond that is dropped
//! for that worker alone, and reported to it. A channel has one frame type in all workers.
//!
//! ```
//! use fanfare_core::bus::{Action, Bus};
//! use fanfare_core::error::Unready;
//! use fanfare_core::limits::Limits;
//! use fanfare_core::time::Instant;
//!
//! let url = "redis://redis.example".parse()?;
//! let mut bus = Bus::redis(url, "", &Limits::default(), 1, 42, Instant::ZERO);
//! while let Some(action) = bus.poll_action() {
//!     if let Action::Dial(id, _) = action {
//!         // Nobody listens there; the bus asks for another dial later, at `poll_timeout`.
//!         bus.handle_dial_failed(id, "connection refused", Instant::ZERO);
//!     }
//! }
//! assert_eq!(bus.readiness(), Err(Unready::NoConnection));
//! assert!(bus.poll_timeout() > Some(Instant::ZERO));
//! # Ok::<(), fanfare_core::redis::url::RedisUrlError>(())
//! ```

mod channels;
mod connections;
mod local;
#[cfg(test)]
pub(crate) mod tests;
mod workers;

use std::collections::VecDeque;

use bytes::Bytes;

use self::channels::Channels;
pub use self::connections::Action;
use self::local::Local;
use self::workers::Workers;
use crate::error::{Misuse, Unready};
use crate::exchange::{Gap, News, ToBus, ToShard, Wish, WorkerId, publish_cost};
use crate::histogram::Histogram;
use crate::limits::Limits;
use crate::quote::cut_bytes;
use crate::redis::{Link, LinkError, LinkEvent, RedisUrl};
use crate::time::{Duration, Episodes, Instant, Seldom, earlier};

/// An event of the bus, for the embedder.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// Redis could not be used at the first try. The bus goes on trying; whether to wait is the embedder's choice.
    StartFailed(LinkError),
    /// Everything wanted is subscribed and publishes leave.
    Up,
    /// A connection is lost: publishes wait.
    Down {
        /// Why, for people.
        reason: String,
    },
    /// The connection that subscribes is lost: messages of others may be missed from here on.
    GapBegan {
        /// Its number among the gaps of this instance, from 1 on.
        epoch: u64,
    },
    /// Everything wanted is subscribed again.
    GapEnded(Gap),
    /// The instance can deliver from end to end, or cannot any more, or for another reason than before.
    Ready(Result<(), Unready>),
    /// Publishes will not be delivered, or nobody knows whether they were. They are counted in [`Stats`] as well.
    Lost {
        /// Their number.
        messages: usize,
        /// What became of them.
        loss: Loss,
    },
}

/// What became of publishes that did not go the usual way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Loss {
    /// They waited for longer than [`Limits::publish_time`] and were given up.
    Expired,
    /// The connection died after them and before their replies. They are not sent again.
    Unconfirmed,
    /// Redis refused them.
    Refused,
}

/// Counts since the start, and what is there now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Channels wanted or lingering.
    pub channels: usize,
    /// Of these, those that are subscribed.
    pub subscribed: usize,
    /// Of these, those that linger. Bounded by [`Limits::lingering_channels`].
    pub lingering: usize,
    /// Channels that lingered less than [`Limits::linger_time`], because too many did.
    pub linger_evictions: u64,
    /// Channels that Redis refuses.
    pub refused_channels: usize,
    /// How long channels were refused, the times of all of them together.
    pub refused_time: Duration,
    /// Messages that workers had published.
    pub publishes: u64,
    /// Messages that came from the bus, in all channels.
    pub messages: u64,
    /// Messages dropped because a text channel's payload was not UTF-8.
    pub not_utf8: u64,
    /// Messages skipped because they were beyond [`Limits::message_bytes`].
    pub oversized: u64,
    /// Messages dropped because a worker's mailbox was full.
    pub missed: u64,
    /// Publishes given up at [`Limits::publish_time`].
    pub expired: u64,
    /// Publishes that may or may not have arrived: the connection died before their reply.
    pub unconfirmed: u64,
    /// Publishes that Redis refused.
    pub refused: u64,
    /// Periods in which messages of others may have been missed, one that has not ended among them.
    pub gaps: u64,
    /// How long the gaps that have ended were together.
    pub gap_time: Duration,
    /// Connections to Redis that worked and were lost.
    pub lost_connections: u64,
    /// From a probe that was due to its coming in.
    pub probe_round_trip: Histogram,
    /// Probes that did not come in within [`Limits::probe_time`].
    pub probes_missing: u64,
    /// From a publish that has left to Redis's reply.
    pub publish_latency: Histogram,
    /// Bytes of publishes that wait or are not confirmed.
    pub publish_bytes: usize,
    /// Publishes that wait to leave.
    pub unsent: usize,
    /// What was handed over to the worker that is furthest behind and not yet taken in, in memory. Bounded by
    /// [`Limits::mailbox_bytes`].
    pub fullest_mailbox: usize,
    /// Connections made to Redis, two at a start.
    pub connects: u64,
    /// Connections to Redis that could not be made.
    pub dial_failures: u64,
    /// Bytes read from Redis.
    pub bytes_in: u64,
    /// Bytes written to Redis.
    pub bytes_out: u64,
}

/// The bus of one instance. See the [module](self).
#[derive(Debug)]
pub struct Bus {
    carrier: Carrier,
    channels: Channels,
    workers: Workers,
    limits: Limits,
    latest: Instant,
    events: VecDeque<Event>,
    stats: Stats,
    in_gap: bool,
    /// Since when as many channels are refused as are.
    refused_since: Instant,
    /// As it was reported last.
    readiness: Result<(), Unready>,
    gaps: Episodes,
    unready: Episodes,
    said_missed: Seldom,
    said_oversized: Seldom,
}

#[derive(Debug)]
enum Carrier {
    Local(Local),
    Redis(Box<Link>),
}

impl Bus {
    /// A bus that ends at this process. All that is random in it comes from `seed`.
    #[must_use]
    pub fn local(limits: &Limits, workers: usize, seed: u64, now: Instant) -> Self {
        Self::new(Carrier::Local(Local::default()), limits, workers, seed, now)
    }

    /// A bus through the Redis at `url`; `prefix` stands before the channel that it probes, as it does before all others.
    /// All that is random in it comes from `seed`, which no other instance may have: see [`Link::new`].
    #[must_use]
    pub fn redis(url: RedisUrl, prefix: &str, limits: &Limits, workers: usize, seed: u64, now: Instant) -> Self {
        let link = Link::new(url, prefix, limits, seed, now);
        Self::new(Carrier::Redis(Box::new(link)), limits, workers, seed.wrapping_add(1), now)
    }

    fn new(carrier: Carrier, limits: &Limits, workers: usize, seed: u64, now: Instant) -> Self {
        let mut bus = Self {
            carrier,
            channels: Channels::new(seed),
            workers: Workers::new(workers, limits),
            limits: limits.clone(),
            latest: now,
            events: VecDeque::new(),
            stats: Stats::default(),
            in_gap: false,
            refused_since: now,
            readiness: Err(Unready::NoConnection),
            gaps: Episodes::new(),
            unready: Episodes::new(),
            said_missed: Seldom::default(),
            said_oversized: Seldom::default(),
        };
        bus.follow_readiness();
        bus
    }

    /// Whether it goes through Redis.
    #[must_use]
    pub const fn is_redis(&self) -> bool {
        matches!(self.carrier, Carrier::Redis(_))
    }

    // Inputs.

    /// A worker's wishes, in the order in which its shard gave them.
    ///
    /// # Errors
    /// [`Misuse::NoSuchWorker`] if the bus was made for fewer workers; nothing changes.
    pub fn handle_shard(&mut self, worker: WorkerId, wishes: ToBus, now: Instant) -> Result<(), Misuse> {
        if worker >= self.workers.len() {
            return Err(Misuse::NoSuchWorker);
        }
        let now = self.at(now);
        let mut payloads = Bytes::from(wishes.payloads);
        for wish in wishes.wishes {
            match wish {
                Wish::Subscribe { channel, name, frame } => {
                    let known = self.channels.join(&name, frame, worker, channel);
                    if known.subscribed {
                        self.workers.tell(worker, News::Subscribed(channel));
                    } else if known.new {
                        self.want(name, now);
                    }
                }
                Wish::Unsubscribe { channel, name } => {
                    self.channels.leave(&name, worker, channel, now + self.limits.linger_time);
                    self.workers.left(worker, channel);
                }
                Wish::Publish { name, len } => {
                    self.stats.publishes += 1;
                    self.workers.spend(worker, publish_cost(&name, len));
                    self.publish(name, payloads.split_to(len), now);
                }
                Wish::Taken { bytes } => self.workers.taken(worker, bytes),
                Wish::Look => self.workers.tell(worker, News::Looked),
            }
        }
        self.evict_lingering(now);
        self.follow_link();
        Ok(())
    }

    /// Time has come to `now`. Too early or too often does no harm.
    pub fn handle_timeout(&mut self, now: Instant) {
        let now = self.at(now);
        while let Some(name) = self.channels.pop_lingered(now) {
            self.unwant(&name, now);
        }
        match &mut self.carrier {
            Carrier::Local(local) => {
                let released = local.deliver(|name, payload| {
                    self.channels.add_message(name, payload, now);
                });
                self.workers.release(released);
                self.seal_runs();
            }
            Carrier::Redis(link) => link.handle_timeout(now),
        }
        self.follow_link();
    }

    // Commands.

    /// Lets what was accepted leave; no publishes are expected after this. [`Bus::is_closed`] tells when it has, or when
    /// nothing more can; [`Stats::unsent`] is then what was lost.
    pub fn close(&mut self, now: Instant) {
        self.with_link(now, Link::close);
    }

    // Outputs.

    /// News for a worker, to be handed to its shard in order. Can change after every input.
    pub fn poll_shard(&mut self) -> Option<(WorkerId, ToShard)> {
        self.workers.poll()
    }

    /// The next event. Can change after every input. Nothing bounds what is not polled.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// The next instant at which [`Bus::handle_timeout`] has something to do; the latest one seen while another output
    /// is still to be polled.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        if !self.events.is_empty() || self.workers.has_news() {
            return Some(self.latest);
        }
        let carrier = match &self.carrier {
            Carrier::Local(local) => (!local.is_empty()).then_some(self.latest),
            Carrier::Redis(link) => link.poll_timeout(),
        };
        earlier(carrier, self.channels.next_lingered())
    }

    // Getters.

    /// Whether [`Bus::close`] has come to its end: what could leave has left. Without Redis, whether nothing is queued.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        match &self.carrier {
            Carrier::Local(local) => local.is_empty(),
            Carrier::Redis(link) => link.is_closed(),
        }
    }

    /// Whether messages flow both ways.
    #[must_use]
    pub fn is_up(&self) -> bool {
        match &self.carrier {
            Carrier::Local(_) => true,
            Carrier::Redis(link) => link.is_up(),
        }
    }

    /// Whether what is published comes back from end to end, and why not. Without Redis it always does.
    ///
    /// # Errors
    /// The reason.
    pub fn readiness(&self) -> Result<(), Unready> {
        match &self.carrier {
            Carrier::Local(_) => Ok(()),
            Carrier::Redis(link) => link.readiness(),
        }
    }

    /// Counts since the start.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let channels = self.channels.len();
        let (publish_bytes, fullest_mailbox) = (self.publish_bytes(), self.workers.fullest_mailbox());
        let lingering = self.channels.lingering();
        let (messages, not_utf8) = (self.channels.messages, self.channels.not_utf8);
        let stats = Stats { channels, lingering, messages, not_utf8, publish_bytes, fullest_mailbox, ..self.stats };
        match &self.carrier {
            Carrier::Local(local) => Stats { subscribed: channels, unsent: local.len(), ..stats },
            Carrier::Redis(link) => Stats {
                subscribed: link.confirmed_channels(),
                refused_time: self.refused_time(),
                unsent: link.unsent_publishes(),
                lost_connections: link.stats().lost_connections,
                probe_round_trip: link.stats().probe_round_trip,
                probes_missing: link.stats().probes_missing,
                publish_latency: link.stats().publish_latency,
                ..stats
            },
        }
    }

    fn refused_time(&self) -> Duration {
        let (since, count) = (self.refused_since, u32::try_from(self.stats.refused_channels).unwrap_or(u32::MAX));
        self.stats.refused_time + self.latest.since(since).saturating_mul(count)
    }

    fn publish_bytes(&self) -> usize {
        match &self.carrier {
            Carrier::Local(local) => local.bytes(),
            Carrier::Redis(link) => link.publish_backlog(),
        }
    }

    fn publish(&mut self, name: Bytes, payload: Bytes, now: Instant) {
        match &mut self.carrier {
            Carrier::Local(local) => local.publish(name, payload),
            Carrier::Redis(link) => link.publish(&name, &payload, now),
        }
    }

    /// A channel is wanted that was not.
    fn want(&mut self, name: Bytes, now: Instant) {
        match &mut self.carrier {
            Carrier::Local(_) => self.subscribed(&name),
            Carrier::Redis(link) => link.subscribe(name, now),
        }
    }

    /// A channel is not wanted any more.
    fn unwant(&mut self, name: &[u8], now: Instant) {
        if let Carrier::Redis(link) = &mut self.carrier {
            link.unsubscribe(name, now);
        }
    }

    /// Of too many channels that linger, those go that have done so longest.
    fn evict_lingering(&mut self, now: Instant) {
        while self.channels.lingering() > self.limits.lingering_channels
            && let Some(name) = self.channels.pop_lingered(Instant::from_micros(u64::MAX))
        {
            self.stats.linger_evictions += 1;
            self.unwant(&name, now);
        }
    }

    fn subscribed(&mut self, name: &[u8]) {
        let workers = &mut self.workers;
        self.channels.subscribed(name, |worker, channel| workers.tell(worker, News::Subscribed(channel)));
    }

    /// The messages of one read, or of one delivery inside the process, go out as one run a channel.
    fn seal_runs(&mut self) {
        let (workers, stats, said, now) = (&mut self.workers, &mut self.stats, &mut self.said_missed, self.latest);
        self.channels.seal_runs(|worker, channel, run| {
            if !workers.hand_over(worker, channel, run) {
                stats.missed += run.len() as u64;
                if let Some(unsaid) = said.say(now) {
                    tracing::warn!(
                        event = "worker_behind",
                        worker,
                        unsaid,
                        "a worker does not keep up: messages to it are dropped"
                    );
                }
            }
        });
    }

    fn with_link(&mut self, now: Instant, input: impl FnOnce(&mut Link, Instant)) {
        let now = self.at(now);
        if let Carrier::Redis(link) = &mut self.carrier {
            input(link, now);
        }
        self.follow_link();
    }

    /// Takes in what has happened on the link.
    fn follow_link(&mut self) {
        while let Some(event) = self.link_mut().and_then(Link::poll_event) {
            match event {
                LinkEvent::Subscribed(name) => self.subscribed(&name),
                LinkEvent::Released { bytes } => self.workers.release(bytes),
                LinkEvent::Unsubscribed { since } => {
                    // What came before a gap is not behind it.
                    self.seal_runs();
                    self.gap_began(since);
                }
                LinkEvent::Up { gap } => {
                    if let Some(duration) = gap {
                        self.gap_ended(duration);
                    }
                    self.events.push_back(Event::Up);
                }
                LinkEvent::Down { reason, .. } => self.events.push_back(Event::Down { reason }),
                LinkEvent::StartFailed(error) => self.events.push_back(Event::StartFailed(error)),
                LinkEvent::Expired { messages } => self.lost(messages, Loss::Expired),
                LinkEvent::Unconfirmed { messages } => self.lost(messages, Loss::Unconfirmed),
                LinkEvent::Refused { messages, .. } => self.lost(messages, Loss::Refused),
                LinkEvent::Oversized { channel, bytes } => {
                    self.stats.oversized += 1;
                    if let Some(unsaid) = self.said_oversized.say(self.latest) {
                        let (event, channel) = ("message_oversized", &*cut_bytes(&channel));
                        tracing::warn!(
                            event,
                            channel,
                            bytes,
                            unsaid,
                            "a message from Redis is above the limit and was skipped"
                        );
                    }
                }
                LinkEvent::SubscribeRefused { .. } => {}
            }
        }
        let refused = self.link_mut().map_or(0, |link| link.refused_channels());
        if refused != self.stats.refused_channels {
            self.stats.refused_time = self.refused_time();
            (self.stats.refused_channels, self.refused_since) = (refused, self.latest);
        }
        self.follow_readiness();
    }

    fn gap_began(&mut self, since: Instant) {
        let is_new = !std::mem::replace(&mut self.in_gap, true);
        self.stats.gaps += u64::from(is_new);
        let epoch = self.stats.gaps;
        self.channels.unsubscribed_all();
        self.workers.tell_all(|| News::GapBegan { epoch, since });
        if is_new {
            if let Some(untold) = self.gaps.begin(self.latest) {
                tracing::warn!(
                    event = "gap_began",
                    epoch,
                    untold,
                    "gap began: messages of other instances may be missed"
                );
            }
            self.events.push_back(Event::GapBegan { epoch });
        }
    }

    fn gap_ended(&mut self, duration: Duration) {
        self.in_gap = false;
        self.stats.gap_time += duration;
        let gap = Gap { epoch: self.stats.gaps, duration };
        if self.gaps.is_told() || duration >= Seldom::TIME {
            let (epoch, seconds) = (gap.epoch, duration.as_secs_f64());
            tracing::warn!(
                event = "gap_ended",
                epoch,
                seconds,
                "gap ended: messages of other instances may have been missed"
            );
        }
        self.workers.tell_all(|| News::GapEnded(gap));
        self.events.push_back(Event::GapEnded(gap));
    }

    /// Tells whether the instance can deliver, if that is news.
    fn follow_readiness(&mut self) {
        let readiness = self.readiness();
        let was_ready = self.readiness.is_ok();
        match readiness {
            _ if readiness == self.readiness && self.unready.is_told() => return,
            Ok(()) if readiness == self.readiness => return,
            Ok(()) if matches!(self.carrier, Carrier::Redis(_)) => {
                if self.unready.is_told() {
                    tracing::info!(event = "ready", "ready: published messages come back");
                }
            }
            // Whoever asked for that has said so.
            Ok(()) | Err(Unready::Draining) => {}
            Err(reason) => {
                let now = self.latest;
                let untold = if was_ready { self.unready.begin(now) } else { self.unready.go_on(now) };
                if let Some(untold) = untold {
                    tracing::warn!(event = "not_ready", untold, "not ready: {reason}");
                }
            }
        }
        if readiness == self.readiness {
            return;
        }
        self.readiness = readiness;
        self.workers.tell_all(|| News::Ready(readiness));
        if matches!(self.carrier, Carrier::Redis(_)) {
            self.events.push_back(Event::Ready(readiness));
        }
    }

    fn lost(&mut self, messages: usize, loss: Loss) {
        *match loss {
            Loss::Expired => &mut self.stats.expired,
            Loss::Unconfirmed => &mut self.stats.unconfirmed,
            Loss::Refused => &mut self.stats.refused,
        } += messages as u64;
        self.events.push_back(Event::Lost { messages, loss });
    }

    fn link_mut(&mut self) -> Option<&mut Link> {
        match &mut self.carrier {
            Carrier::Redis(link) => Some(link),
            Carrier::Local(_) => None,
        }
    }

    fn at(&mut self, now: Instant) -> Instant {
        self.latest = self.latest.max(now);
        self.latest
    }
}
