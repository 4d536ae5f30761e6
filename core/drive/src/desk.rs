//! The part of a worker that serves a hub: commands in, messages of subscriptions out, and the gate before publishes.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use super::error::HubError;
use super::roster::{self, HubChannel, HubMessage, HubSession, Page, Reviewer};
use super::watched::Watched;
use fanfare_core::error::Misuse;
use fanfare_core::exchange::WorkerId;
use fanfare_core::route::{FrameType, Target};
use fanfare_core::run::Run;
use fanfare_core::shard::{Decision, Event, Review, SessionId, Shard, SubscriberId};
use fanfare_core::snapshot::{Share, Snapshot};
use fanfare_core::time::{Duration, Instant};

/// What publishes may put into the mailbox between two turns of the worker: as much as one read of a client.
const IN_FLIGHT_BYTES: usize = 16 << 10;

/// What a hub wants of its worker.
pub(super) enum Command<S> {
    Adopt {
        stream: S,
        target: Target,
        tag: Option<u64>,
        leftover: Bytes,
    },
    Publish {
        channel: Bytes,
        payload: Bytes,
    },
    Subscribe {
        channel: Bytes,
        frame: FrameType,
        feed: Feed,
    },
    Unsubscribe(Arc<Watched<Inbox>>),
    Reserve {
        target: Target,
        reply: Reply<SessionId>,
    },
    /// A connection for a session that was reserved.
    Attach {
        session: SessionId,
        stream: S,
        tag: Option<u64>,
        leftover: Bytes,
    },
    /// There will be no connection for it.
    Release(SessionId),
    /// The first worker also gives what the bus counts.
    Measure(Reply<(Option<Box<Snapshot>>, Share)>),
    /// Those at some places from `first` on.
    Sessions {
        first: usize,
        reply: Reply<Page<HubSession>>,
    },
    Channels {
        first: usize,
        reply: Reply<Page<HubChannel>>,
    },
    /// How many it will close.
    Close {
        sessions: Vec<SessionId>,
        code: u16,
        reason: Box<str>,
        reply: Reply<usize>,
    },
}

/// What a publish passes on its way to the mailbox.
#[derive(Debug, Default)]
pub(super) struct Gate {
    /// The bus's queue of publishes is full.
    pub(super) full: bool,
    /// Bytes in the mailbox.
    pub(super) in_flight: usize,
    /// Nothing new passes any more.
    pub(super) stopped: bool,
    /// Nobody reads the mailbox any more.
    pub(super) ended: bool,
}

impl Gate {
    pub(super) fn is_open(&self) -> bool {
        !self.full && self.in_flight < IN_FLIGHT_BYTES
    }
}

/// Where a subscription's messages wait.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    pub(super) state: State,
    /// The oldest leave when it is full, and are counted.
    pub(super) items: VecDeque<Item>,
    /// What the runs among them take.
    pub(super) bytes: usize,
    pub(super) missed: u64,
    id: Option<SubscriberId>,
}

#[derive(Debug, Default)]
pub(super) enum State {
    #[default]
    Waiting,
    Subscribed,
    Refused(Misuse),
    Ended,
}

#[derive(Debug)]
pub(super) enum Item {
    Run(Arc<Run>),
    Gap(Duration),
}

impl Inbox {
    pub(super) fn pop(&mut self) -> Option<Item> {
        let item = self.items.pop_front();
        if let Some(Item::Run(run)) = &item {
            self.bytes -= run.memory();
        }
        item
    }

    /// Whoever keeps up takes any run, however large.
    fn push(&mut self, run: Arc<Run>, queue_bytes: usize) {
        self.bytes += run.memory();
        self.items.push_back(Item::Run(run));
        let mut gap = Duration::ZERO;
        while self.bytes > queue_bytes
            && self.items.len() > 1
            && let Some(item) = self.pop()
        {
            match item {
                Item::Run(run) => self.missed += run.len() as u64,
                // Nobody has heard of it.
                Item::Gap(before) => gap += before,
            }
        }
        match self.items.front_mut() {
            _ if gap.is_zero() => {}
            Some(Item::Gap(next)) => *next += gap,
            _ => self.items.push_front(Item::Gap(gap)),
        }
    }

    fn push_gap(&mut self, gap: Duration) {
        match self.items.back_mut() {
            // So that nothing but runs can fill it.
            Some(Item::Gap(before)) => *before += gap,
            _ => self.items.push_back(Item::Gap(gap)),
        }
    }
}

/// The end of an inbox at which messages come in. When it goes, wherever it is, nobody waits for more.
#[derive(Debug)]
pub(super) struct Feed(pub(super) Arc<Watched<Inbox>>);

impl Drop for Feed {
    fn drop(&mut self) {
        self.0.change(|inbox| {
            if !matches!(inbox.state, State::Refused(_)) {
                inbox.state = State::Ended;
            }
        });
    }
}

/// What a hub waits to be told; that nobody will say is an answer, too.
#[derive(Debug)]
pub(super) struct Reply<T>(pub(super) Arc<Watched<Option<Result<T, HubError>>>>);

impl<T> Default for Reply<T> {
    fn default() -> Self {
        Self(Arc::new(Watched::default()))
    }
}

impl<T> Reply<T> {
    pub(super) fn give(&self, result: Result<T, HubError>) {
        self.0.change(|reply| *reply = Some(result));
    }
}

impl<T> Drop for Reply<T> {
    fn drop(&mut self) {
        self.0.change(|reply| {
            reply.get_or_insert(Err(HubError::Stopped));
        });
    }
}

/// What a worker keeps for its hub. When it goes, nothing more can be asked of the hub.
#[derive(Debug)]
pub(super) struct Desk {
    gate: Arc<Watched<Gate>>,
    feeds: BTreeMap<SubscriberId, (Bytes, Feed)>,
    /// Sessions that wait for their connections.
    reserved: BTreeSet<SessionId>,
    /// The numbers that the program gave to sessions.
    tags: BTreeMap<SessionId, u64>,
    /// Sessions that are to be closed once they are open, with which code and reason.
    doomed: BTreeMap<SessionId, (u16, Box<str>)>,
    /// Publishes go to this worker.
    has_gate: bool,
    /// Decides about each message of a client before it is published.
    reviewer: Option<Reviewer>,
    /// What one inbox holds at most.
    queue_bytes: usize,
}

impl Desk {
    pub(super) fn new(
        gate: Arc<Watched<Gate>>,
        worker: WorkerId,
        queue_bytes: usize,
        reviewer: Option<Reviewer>,
    ) -> Self {
        Self {
            gate,
            feeds: BTreeMap::new(),
            reserved: BTreeSet::new(),
            tags: BTreeMap::new(),
            doomed: BTreeMap::new(),
            has_gate: worker == 0,
            reviewer,
            queue_bytes,
        }
    }

    pub(super) fn subscribe(&mut self, channel: Bytes, frame: FrameType, feed: Feed, shard: &mut Shard) {
        match shard.subscribe(&channel, frame) {
            Ok(id) => {
                feed.0.look(|inbox| inbox.id = Some(id));
                self.feeds.insert(id, (channel, feed));
            }
            Err(misuse) => feed.0.change(|inbox| inbox.state = State::Refused(misuse)),
        }
    }

    pub(super) fn unsubscribe(&mut self, inbox: &Watched<Inbox>, shard: &mut Shard) {
        let id = inbox.look(|inbox| inbox.id);
        if let Some((id, (channel, _))) = id.and_then(|id| self.feeds.remove_entry(&id)) {
            // Misuse is impossible: it is subscribed as long as it is in the table.
            let _ = shard.unsubscribe(&channel, id);
        }
    }

    /// Enters the channel now, so that what comes from here on waits for the connection.
    /// Says whether there is a session.
    pub(super) fn reserve(
        &mut self,
        target: Target,
        reply: &Reply<SessionId>,
        shard: &mut Shard,
        now: Instant,
    ) -> bool {
        let result = self.adopt(target, Bytes::new(), shard, now);
        if let Ok(session) = result {
            shard.blocked(session);
            self.reserved.insert(session);
        }
        // If nobody waits any more the session ends for want of a pong.
        reply.give(result.map_err(HubError::Misuse));
        result.is_ok()
    }

    /// Whether the session waits for its connection.
    pub(super) fn is_reserved(&self, session: SessionId) -> bool {
        self.reserved.contains(&session)
    }

    /// Whether the session waited for its connection. It does so no longer.
    pub(super) fn take_reserved(&mut self, session: SessionId) -> bool {
        self.reserved.remove(&session)
    }

    /// Takes in a session, whose messages are reviewed if those of this hub are.
    pub(super) fn adopt(
        &self,
        mut target: Target,
        leftover: Bytes,
        shard: &mut Shard,
        now: Instant,
    ) -> Result<SessionId, Misuse> {
        target.rights.review = self.reviewer.is_some();
        shard.adopt(target, leftover.into(), now)
    }

    fn decide(&self, message: &Review, shard: &mut Shard, now: Instant) {
        let tag = self.tags.get(&message.session).copied();
        let decision = self.reviewer.as_ref().map_or(Decision::Drop, |Reviewer(decide)| {
            decide(&HubMessage { tag, channel: &message.channel, payload: &message.payload })
        });
        if let Err(misuse) = shard.decide(decision, now) {
            tracing::warn!(
                event = "decision_refused",
                "a message is dropped, the decision about it is not valid: {misuse}"
            );
            // Misuse is impossible: the message still waits.
            let _ = shard.decide(Decision::Drop, now);
        }
    }

    pub(super) fn tag(&mut self, session: SessionId, tag: Option<u64>) {
        if let Some(tag) = tag {
            self.tags.insert(session, tag);
        }
    }

    /// The session is gone.
    pub(super) fn forget(&mut self, session: SessionId) {
        self.reserved.remove(&session);
        self.tags.remove(&session);
        self.doomed.remove(&session);
    }

    pub(super) fn sessions(&self, first: usize, shard: &Shard) -> Page<HubSession> {
        roster::sessions(shard, &self.tags, first)
    }

    /// Closes these sessions, or has them closed once they are open; says how many.
    pub(super) fn close(&mut self, ids: &[SessionId], end: (u16, &str), shard: &mut Shard, now: Instant) -> usize {
        let (code, reason) = end;
        ids.iter()
            .filter(|&&id| match shard.session(id) {
                None => false,
                Some(session) if session.is_open => shard.close(id, code, reason, now).is_ok(),
                Some(_) => {
                    self.doomed.entry(id).or_insert_with(|| (code, reason.into()));
                    true
                }
            })
            .count()
    }

    pub(super) fn hear(&mut self, event: Event, shard: &mut Shard, now: Instant) {
        match event {
            Event::Review(message) => self.decide(&message, shard, now),
            Event::Opened(id) => {
                if let Some((code, reason)) = self.doomed.remove(&id) {
                    // Misuse is impossible, unless it is closing already.
                    let _ = shard.close(id, code, &reason, now);
                }
            }
            Event::Subscribed(id) => self.change(id, |inbox| inbox.state = State::Subscribed),
            Event::Run(id, run) => self.change(id, |inbox| inbox.push(run, self.queue_bytes)),
            Event::Missed { channel, messages } => {
                let feeds = self.feeds.values().filter(|(name, _)| *name == channel);
                feeds.for_each(|(_, feed)| feed.0.change(|inbox| inbox.missed += messages));
            }
            _ => {}
        }
    }

    /// Messages of others may have been missed for so long.
    pub(super) fn hear_gap(&self, gap: Duration) {
        self.change_all(|inbox| inbox.push_gap(gap));
    }

    /// The mailbox has been read: others may publish, if the bus takes more.
    pub(super) fn settle(&self, shard: &Shard) {
        if !self.has_gate {
            return;
        }
        let full = !shard.has_credit();
        let is_settled = self.gate.look(|gate| gate.in_flight == 0 && gate.full == full);
        if !is_settled {
            self.gate.change(|gate| (gate.in_flight, gate.full) = (0, full));
        }
    }

    fn change(&self, id: SubscriberId, change: impl FnOnce(&mut Inbox)) {
        if let Some((_, feed)) = self.feeds.get(&id) {
            feed.0.change(change);
        }
    }

    fn change_all(&self, change: impl Fn(&mut Inbox)) {
        self.feeds.values().for_each(|(_, feed)| feed.0.change(&change));
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        self.gate.change(|gate| (gate.stopped, gate.ended) = (true, true));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fanfare_core::bus::Bus;
    use fanfare_core::run::RunBuilder;
    use fanfare_core::settings::Settings;

    #[test]
    fn a_session_that_waits_for_its_channel_is_closed_when_it_is_open() {
        let (settings, now) = (Arc::new(Settings::default()), Instant::ZERO);
        let mut bus = Bus::local(&settings.limits, 1, 1, now);
        let mut shard = Shard::new(settings, 2, now);
        let mut desk = Desk::new(Arc::default(), 0, 1 << 10, None);
        let id = shard.adopt(Target::new("tea"), Vec::new(), now).unwrap();
        assert!(!shard.session(id).unwrap().is_open);
        assert_eq!(desk.close(&[id, id], (4001, "bye"), &mut shard, now), 2);
        while let Some(wishes) = shard.poll_bus() {
            bus.handle_shard(0, wishes, now).unwrap();
        }
        while let Some((_, news)) = bus.poll_shard() {
            shard.handle_bus(news, now);
        }
        while let Some(event) = shard.poll_event() {
            desk.hear(event, &mut shard, now);
        }
        assert!(shard.session(id).is_none() && shard.contains(id), "it is closing");
        assert!(desk.doomed.is_empty());
    }

    #[test]
    fn a_gap_outlasts_the_messages_that_make_room() {
        let mut builder = RunBuilder::new(FrameType::Text);
        builder.push(b"hello").unwrap();
        let run = Arc::new(builder.finish());
        let mut inbox = Inbox::default();
        for seconds in 1..=3 {
            inbox.push(run.clone(), run.memory());
            inbox.push_gap(Duration::from_secs(seconds));
        }
        inbox.push(run.clone(), run.memory());
        assert_eq!((inbox.missed, inbox.bytes), (3, run.memory()));
        assert!(matches!(inbox.pop(), Some(Item::Gap(gap)) if gap == Duration::from_secs(6)));
        assert!(matches!(inbox.pop(), Some(Item::Run(_))));
        assert!(inbox.pop().is_none());
    }
}
