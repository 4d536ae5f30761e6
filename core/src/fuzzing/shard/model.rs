//! Who is where and must hear what, as simply as it can be said.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use super::Said;
use super::peer::{Frame, Kind, Peer, Phase};
use crate::exchange::{ChannelId, ToBus, Wish, first_credit, publish_cost};
use crate::fuzzing::client::Client;
use crate::limits::Limits;
use crate::route::{FrameType, Slow, Target};
use crate::run::{Run, RunBuilder};
use crate::shard::{Event, SessionId, Shard, SubscriberId};
use crate::time::Instant;

#[derive(Debug)]
pub(super) struct Model<'a> {
    limits: Limits,
    asks: bool,
    pub(super) now: Instant,
    pub(super) is_closing: bool,
    peers: BTreeMap<SessionId, Peer<'a>>,
    /// The embedder's own subscribers, and the runs that they must get.
    subscribers: Vec<(SubscriberId, Bytes, VecDeque<Arc<Run>>)>,
    /// The channels that the shard wants, as the bus heard of them.
    pub(super) channels: BTreeMap<Bytes, Channel>,
    /// A channel that the shard wanted once.
    pub(super) outdated: Option<ChannelId>,
    credit: i64,
    /// Credit that the bus has not given back.
    debt: usize,
    /// Publishes that the bus must hear of.
    publishes: VecDeque<(Bytes, Vec<u8>)>,
    /// Sessions of which the embedder must hear that they are open.
    opened: BTreeSet<SessionId>,
    /// What each run takes in memory.
    runs: Vec<usize>,
    /// Bytes of runs that the shard got and has not told the bus of.
    pub(super) taken: usize,
    deliveries: u64,
    slow_readers: u64,
    gap_closes: u64,
    pub(super) epoch: u64,
    missed: u64,
    /// Messages lost to `drop_newest`, `drop_oldest`, `latest`.
    dropped: [u64; 3],
    number: u64,
    /// How often the shard waits to hear that the bus has looked.
    pub(super) looks: usize,
}

#[derive(Debug)]
pub(super) struct Channel {
    id: ChannelId,
    pub(super) frame: FrameType,
    is_subscribed: bool,
    /// Since when it was not subscribed, if it had been.
    gap: Option<(u64, Instant)>,
}

impl<'a> Model<'a> {
    pub(super) fn new(limits: Limits, asks: bool) -> Self {
        let credit = first_credit(limits.publish_bytes, 1) as i64;
        Self {
            limits,
            asks,
            now: Instant::ZERO,
            is_closing: false,
            peers: BTreeMap::new(),
            subscribers: Vec::new(),
            channels: BTreeMap::new(),
            outdated: None,
            credit,
            debt: 0,
            publishes: VecDeque::new(),
            opened: BTreeSet::new(),
            runs: Vec::new(),
            taken: 0,
            deliveries: 0,
            slow_readers: 0,
            gap_closes: 0,
            epoch: 0,
            missed: 0,
            dropped: [0; 3],
            number: 0,
            looks: 0,
        }
    }

    pub(super) fn check(&self, shard: &Shard) {
        let members = self.peers.values().filter(|peer| peer.is_member()).map(|peer| &peer.target.channel);
        let wanted: BTreeSet<&Bytes> = members.chain(self.subscribers.iter().map(|(_, channel, _)| channel)).collect();
        assert!(self.channels.keys().eq(wanted.iter().copied()), "{:?} for {wanted:?}", self.channels);
        assert!(self.publishes.is_empty(), "a publish was lost: {:?}", self.publishes);
        assert!(self.opened.is_empty(), "not opened: {:?}", self.opened);
        assert!(self.subscribers.iter().all(|(_, _, runs)| runs.is_empty()), "a subscriber missed something");
        assert!(self.taken <= self.limits.mailbox_bytes / 4);
        let stats = shard.stats();
        assert_eq!(stats.sessions, self.peers.len());
        assert_eq!((stats.deliveries, stats.slow_readers), (self.deliveries, self.slow_readers));
        assert_eq!([stats.dropped_newest, stats.dropped_oldest, stats.dropped_latest], self.dropped);
        assert_eq!((stats.gap_closes, stats.missed), (self.gap_closes, self.missed));
        assert!(
            self.peers.values().all(|peer| peer.untold == 0 || !peer.queue.is_empty()),
            "a loss that nobody heard of"
        );
        assert_eq!(shard.has_credit(), self.credit > 0);
        let is_forgotten = |id, peer: &Peer<'_>| peer.is_unread && self.may_be_read(id);
        assert!(!self.peers.iter().any(|(&id, peer)| is_forgotten(id, peer)), "may be read, and nobody said so");
    }

    // What is there.

    pub(super) fn sessions(&self) -> Vec<SessionId> {
        self.peers.keys().copied().collect()
    }

    pub(super) fn session(&self, number: u8) -> Option<SessionId> {
        self.peers.keys().nth(usize::from(number) % self.peers.len().max(1)).copied()
    }

    pub(super) fn channel(&self, number: u8) -> Option<Bytes> {
        self.channels.keys().nth(usize::from(number) % self.channels.len().max(1)).cloned()
    }

    pub(super) fn peer(&mut self, id: SessionId) -> &mut Peer<'a> {
        self.peers.get_mut(&id).expect("only what is there is named")
    }

    pub(super) fn next_number(&mut self) -> u64 {
        self.number += 1;
        self.number
    }

    /// Whether the target's channel has its frame type, if it is there.
    pub(super) fn fits(&self, target: &Target) -> bool {
        self.channels.get(&target.channel).is_none_or(|channel| channel.frame == target.frame)
    }

    pub(super) fn may_be_read(&self, id: SessionId) -> bool {
        let peer = &self.peers[&id];
        match peer.phase {
            _ if peer.has_ended || !peer.leftover.is_empty() => false,
            Phase::Asked { .. } | Phase::Joining { .. } => false,
            Phase::Open | Phase::Closing { .. } | Phase::Answered => true,
        }
    }

    // What clients and the embedder do.

    pub(super) fn connect(&mut self, id: SessionId, target: Target, early: Vec<Said<'a>>) {
        let fits = self.fits(&target);
        let phase = if self.asks && !self.is_closing {
            Phase::Asked { until: self.now + self.limits.head_time }
        } else {
            Phase::Answered
        };
        self.peers.insert(id, Peer::new(Client::default(), target, phase));
        if !self.is_closing && (self.asks || fits) {
            self.peer(id).leftover = early;
        }
        if !self.is_closing && !self.asks && fits {
            self.join(id);
        }
    }

    pub(super) fn adopt(&mut self, id: SessionId, target: Target, early: Vec<Said<'a>>) {
        self.peers.insert(id, Peer::new(Client::open(), target, Phase::Open));
        self.peer(id).leftover = early;
        self.enter(id, true);
    }

    pub(super) fn join(&mut self, id: SessionId) {
        self.enter(id, false);
    }

    fn enter(&mut self, id: SessionId, is_adopted: bool) {
        let target = &self.peers[&id].target;
        let is_subscribed = self.channels.get(&target.channel).is_some_and(|channel| channel.is_subscribed);
        if is_subscribed || !target.rights.subscribe {
            self.open(id);
        } else {
            let until = self.now + self.limits.confirm_time;
            self.peer(id).phase = Phase::Joining { until, is_adopted };
        }
    }

    fn open(&mut self, id: SessionId) {
        self.peer(id).phase = Phase::Open;
        self.opened.insert(id);
    }

    pub(super) fn hand_over(&mut self, id: SessionId, said: &Said<'a>) {
        let peer = self.peer(id);
        let takes = matches!(peer.phase, Phase::Joining { .. } | Phase::Open | Phase::Closing { .. });
        if takes && !peer.has_ended {
            peer.leftover.push(said.clone());
        }
    }

    /// The shard has taken in what was held of the session, messages only if there is credit.
    pub(super) fn hear_leftover(&mut self, id: SessionId) {
        let has_credit = self.credit > 0;
        let peer = self.peer(id);
        let needs_credit = peer.phase == Phase::Open && peer.target.rights.publish;
        assert!(peer.waits.is_none() || has_credit || !needs_credit, "taken in without credit: {peer:?}");
        assert!(matches!(peer.phase, Phase::Open | Phase::Closing { .. }) && !peer.leftover.is_empty(), "{peer:?}");
        peer.waits = None;
        let said = std::mem::take(&mut peer.leftover);
        self.hear_all(id, said);
    }

    /// Nothing more can be done without time: a session of which something is held waits for credit.
    pub(super) fn wait(&mut self, id: SessionId, since: Option<Instant>) {
        let has_credit = self.credit > 0;
        let peer = self.peer(id);
        if !peer.leftover.is_empty() && matches!(peer.phase, Phase::Open | Phase::Closing { .. }) {
            assert!(peer.phase == Phase::Open && peer.target.rights.publish && !has_credit, "held: {peer:?}");
            assert!(since == peer.waits && since.is_some());
        }
    }

    /// The first message for which there is no credit waits, and so does what comes behind it.
    pub(super) fn hear_all(&mut self, id: SessionId, said: Vec<Said<'a>>) {
        let mut said = said.into_iter().peekable();
        let has_credit = self.credit > 0;
        while let Some(next) = said.peek()
            && (has_credit || !self.peer(id).needs_credit_for(next))
        {
            self.hear(id, next);
            said.next();
        }
        let now = self.now;
        let peer = self.peer(id);
        peer.leftover = said.collect();
        peer.waits = (!peer.leftover.is_empty()).then_some(now);
        peer.end_leftover();
    }

    fn hear(&mut self, id: SessionId, said: &Said<'_>) {
        let message_bytes = self.limits.message_bytes;
        let has_credit = self.credit > 0;
        let peer = self.peer(id);
        if !matches!(peer.phase, Phase::Open | Phase::Closing { reads: true }) {
            return;
        }
        match said {
            _ if peer.is_question(said) => {}
            Said::Message { is_text, bytes } => {
                let frame = if *is_text { FrameType::Text } else { FrameType::Binary };
                let is_valid = !peer.is_amid
                    && bytes.len() <= message_bytes
                    && (!is_text || core::str::from_utf8(bytes).is_ok())
                    && frame == peer.target.frame
                    && peer.target.rights.publish;
                if !is_valid {
                    return peer.close(false);
                }
                if peer.phase != Phase::Open && !has_credit {
                    return;
                }
                peer.received += 1;
                let channel = peer.target.channel.clone();
                let cost = publish_cost(&channel, bytes.len());
                self.credit -= cost as i64;
                self.debt += cost;
                self.publishes.push_back((channel, bytes.to_vec()));
            }
            Said::Beginning if !peer.is_amid => peer.is_amid = true,
            Said::Ping(_) => {}
            Said::Beginning | Said::Close | Said::NotMasked => peer.close(false),
        }
    }

    pub(super) fn pause(&mut self, id: SessionId) {
        let peer = self.peer(id);
        peer.is_unread |= !peer.has_ended;
    }

    pub(super) fn resume(&mut self, id: SessionId) {
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.is_unread = false;
        }
    }

    pub(super) fn subscribe(&mut self, id: SubscriberId, target: &Target) {
        self.subscribers.push((id, target.channel.clone(), VecDeque::new()));
    }

    pub(super) fn unsubscribe(&mut self, number: u8) -> Option<(SubscriberId, Bytes)> {
        if self.subscribers.is_empty() {
            return None;
        }
        let (id, channel, _) = self.subscribers.remove(usize::from(number) % self.subscribers.len());
        Some((id, channel))
    }

    pub(super) fn shut_down(&mut self) {
        self.is_closing = true;
        for peer in self.peers.values_mut() {
            match peer.phase {
                Phase::Open => peer.close(true),
                Phase::Joining { is_adopted: true, .. } => peer.turn_away(),
                Phase::Asked { .. } | Phase::Joining { .. } => peer.answer(),
                Phase::Closing { .. } | Phase::Answered => {}
            }
        }
    }

    pub(super) fn advance(&mut self, now: Instant) {
        self.now = self.now.max(now);
        let (now, pause_time) = (self.now, self.limits.pause_time);
        for peer in self.peers.values_mut() {
            match peer.phase {
                Phase::Joining { until, is_adopted: true } if until <= now => peer.turn_away(),
                Phase::Asked { until } | Phase::Joining { until, .. } if until <= now => peer.answer(),
                Phase::Open if peer.is_doomed => peer.close(true),
                Phase::Open if peer.waits.is_some_and(|since| since + pause_time <= now) => {
                    assert!(self.credit <= 0, "waits for credit that is there");
                    peer.leftover.clear();
                    peer.close(false);
                    peer.end_leftover();
                }
                _ => {}
            }
        }
    }

    // What the bus does.

    pub(super) fn take_wishes(&mut self, wishes: ToBus) {
        let mut payloads = &wishes.payloads[..];
        for wish in wishes.wishes {
            match wish {
                Wish::Subscribe { channel: id, name, frame } => {
                    let old = self.channels.insert(name, Channel { id, frame, is_subscribed: false, gap: None });
                    assert!(old.is_none(), "wanted twice: {old:?}");
                }
                Wish::Unsubscribe { channel, name } => {
                    let old = self.channels.remove(&name);
                    assert_eq!(old.map(|old| old.id), Some(channel));
                    self.outdated = Some(channel);
                }
                Wish::Publish { name, len } => {
                    let (payload, rest) = payloads.split_at(len);
                    payloads = rest;
                    assert_eq!(self.publishes.pop_front(), Some((name, payload.to_vec())));
                }
                Wish::Taken { bytes } => self.taken = self.taken.checked_sub(bytes).expect("so much was handed over"),
                Wish::Look => self.looks += 1,
            }
        }
        assert!(payloads.is_empty());
    }

    pub(super) fn take_event(&mut self, event: Event) {
        match event {
            Event::Request(id, _) => assert!(matches!(self.peer(id).phase, Phase::Asked { .. })),
            Event::Opened(id) => assert!(self.opened.remove(&id), "opened without a reason"),
            Event::EndWrites(id) => {
                assert!(matches!(self.peer(id).phase, Phase::Closing { .. } | Phase::Answered));
            }
            Event::GivenUp(id) => assert!(self.peers.contains_key(&id), "it is closed next"),
            Event::Closed(id, _) => {
                let peer = self.peers.remove(&id).expect("closed once");
                assert_eq!(peer.untold, 0, "it ended and nobody heard of what it lost");
            }
            Event::Dropped(id, messages) => {
                let untold = &mut self.peer(id).untold;
                // It may have lost more since that was told.
                *untold = untold.checked_sub(messages).expect("no more than it lost");
            }
            Event::Scrape(_) => panic!("no connection is for operation"),
            Event::Review(_) => panic!("nothing is reviewed"),
            Event::Subscribed(_) | Event::Missed { .. } => {}
            Event::Run(id, run) => {
                let subscriber = self.subscribers.iter_mut().find(|(other, _, _)| *other == id);
                let expected = subscriber.expect("a subscriber").2.pop_front().expect("a run");
                assert!(Arc::ptr_eq(&run, &expected));
            }
        }
    }

    pub(super) fn confirm(&mut self, name: &Bytes) -> ChannelId {
        let channel = self.channels.get_mut(name).expect("it is wanted");
        channel.is_subscribed = true;
        let id = channel.id;
        if let Some((epoch, since)) = channel.gap.take() {
            let time = self.now.since(since);
            let (seconds, millis) = (time.as_secs(), time.subsec_millis());
            let text = format!("{{\"type\":\"gap\",\"seconds\":{seconds}.{millis:03},\"epoch\":{epoch}}}");
            let members = self.peers.values_mut().filter(|peer| peer.is_member() && peer.target.channel == name);
            members.for_each(Peer::drop_beginning);
            self.note_gap(name, &text);
        }
        let is_joining = |peer: &Peer<'_>| matches!(peer.phase, Phase::Joining { .. }) && peer.target.channel == name;
        let joining: Vec<_> = self.peers.iter().filter(|(_, peer)| is_joining(peer)).map(|(&id, _)| id).collect();
        joining.into_iter().for_each(|id| self.open(id));
        id
    }

    /// Every open session of the channel gets the run, unless it is behind and would be too far behind.
    pub(super) fn deliver(&mut self, name: &Bytes, run: &Arc<Run>, payloads: &[Vec<u8>]) -> ChannelId {
        let (len, memory) = (run.bytes().len(), run.memory());
        let is_full = !self.make_room(memory);
        self.runs.push(memory);
        self.taken += memory;
        let number = self.runs.len() - 1;
        let frame = |(index, payload): (usize, &Vec<u8>)| Frame {
            run: number,
            index,
            kind: Kind::Message,
            ordinal: 0,
            len: run.end(index) - run.start(index),
            payload: payload.clone(),
        };
        let frames: Vec<Frame> = payloads.iter().enumerate().map(frame).collect();
        for peer in self.peers.values_mut() {
            if peer.phase != Phase::Open || !peer.is_member() || peer.target.channel != name {
                continue;
            }
            let is_full = is_full && peer.is_blocked;
            let frames = peer.number(&frames);
            let is_too_much =
                !peer.queue.is_empty() && (is_full || peer.queue_memory() + len > self.limits.queue_bytes);
            let slow = peer.target.policies.slow;
            if !is_too_much && !peer.keeps_latest() {
                self.deliveries += payloads.len() as u64;
                peer.queue.extend(frames.iter().cloned());
            } else if slow == Slow::Close {
                self.slow_readers += 1;
                peer.drop_queue();
            } else {
                let lost = peer.untold;
                self.deliveries += peer.take_what_fits(&frames, is_full, self.limits.queue_bytes);
                let lost = peer.untold - lost;
                self.dropped[slow as usize - 1] += lost;
                note_dropped(peer, lost, slow != Slow::DropNewest, &mut self.runs);
            }
            peer.note_behind(Some(self.now));
        }
        for (_, channel, runs) in &mut self.subscribers {
            if channel == name {
                runs.push_back(run.clone());
            }
        }
        self.channels[name].id
    }

    /// Has those pay that have been behind for longest. Says whether there is room for so much more.
    fn make_room(&mut self, memory: usize) -> bool {
        while self.held_memory() + memory > self.limits.all_queues_bytes {
            let behind = self.peers.iter().filter_map(|(id, peer)| Some((peer.behind?, id.index(), *id)));
            let Some((_, _, id)) = behind.min() else { return false };
            let peer = self.peers.get_mut(&id).expect("it was there");
            let slow = peer.target.policies.slow;
            if peer.phase != Phase::Open {
                peer.drop_all();
            } else if matches!(slow, Slow::Close | Slow::DropNewest) {
                self.slow_readers += 1;
                peer.drop_queue();
            } else {
                let lost = peer.untold;
                while peer.drop_oldest() {}
                let lost = peer.untold - lost;
                self.dropped[slow as usize - 1] += lost;
                peer.behind = None;
                if lost == 0 {
                    self.slow_readers += 1;
                    peer.drop_all();
                    peer.close(false);
                } else {
                    note_dropped(peer, lost, true, &mut self.runs);
                    peer.note_behind(Some(self.now));
                }
            }
        }
        true
    }

    /// Each run that somebody has not heard wholly counts once, and 24 bytes for each piece of one that waits.
    fn held_memory(&self) -> usize {
        let held: BTreeSet<usize> =
            self.peers.values().flat_map(|peer| peer.queue.iter().map(|frame| frame.run)).collect();
        let pieces: usize = self.peers.values().map(Peer::pieces).sum();
        held.into_iter().map(|run| self.runs[run]).sum::<usize>() + 24 * pieces
    }

    pub(super) fn repay(&mut self) -> usize {
        let bytes = std::mem::take(&mut self.debt);
        self.credit += bytes as i64;
        bytes
    }

    /// The session's socket takes no more.
    pub(super) fn block(&mut self, id: SessionId) {
        let peer = self.peers.get_mut(&id).expect("only what is there is named");
        peer.is_blocked = true;
        peer.is_named = false;
        peer.note_behind(Some(self.now));
        let lost = peer.untold;
        while peer.keeps_latest() && peer.unheard() > 1 {
            peer.drop_oldest();
        }
        let lost = peer.untold - lost;
        self.dropped[2] += lost;
        note_dropped(peer, lost, true, &mut self.runs);
    }

    pub(super) fn lose_bus(&mut self) {
        self.epoch += 1;
        let mut lost = Vec::new();
        for (name, channel) in &mut self.channels {
            if std::mem::take(&mut channel.is_subscribed) {
                channel.gap = Some((self.epoch, self.now));
                lost.push(name.clone());
            }
        }
        lost.iter().for_each(|name| self.doom(name));
        let note =
            note(Kind::GapBegan, &format!("{{\"type\":\"gap_began\",\"epoch\":{}}}", self.epoch), &mut self.runs);
        lost.iter().for_each(|name| self.put_notes(name, &note));
    }

    /// A gap in the channel: it is the end of whose route says so.
    fn doom(&mut self, name: &Bytes) {
        for peer in self.peers.values_mut().filter(|peer| peer.dies_of_gaps() && peer.target.channel == name) {
            peer.is_doomed = true;
            self.gap_closes += 1;
        }
    }

    /// Messages of the channel did not fit into the shard's mailbox.
    pub(super) fn miss(&mut self, name: &Bytes, messages: u64) -> ChannelId {
        self.missed += messages;
        self.doom(name);
        self.note_gap(name, &format!("{{\"type\":\"gap\",\"messages\":{messages}}}"));
        self.channels[name].id
    }

    /// Whoever is open in the channel and wants notes gets one, from the same memory.
    fn note_gap(&mut self, name: &Bytes, text: &str) {
        let note = note(Kind::Gap, text, &mut self.runs);
        self.put_notes(name, &note);
    }

    fn put_notes(&mut self, name: &Bytes, note: &Frame) {
        let is_there = |peer: &Peer<'_>| peer.phase == Phase::Open && peer.is_member() && peer.target.channel == name;
        for peer in self.peers.values_mut().filter(|peer| is_there(peer) && peer.target.notes) {
            peer.put_note(note.clone(), false);
        }
    }
}

/// Messages of a peer were dropped: it hears where, if it wants to.
fn note_dropped(peer: &mut Peer<'_>, messages: u64, is_in_front: bool, runs: &mut Vec<usize>) {
    if messages > 0 && peer.target.notes && peer.phase == Phase::Open {
        let messages = messages + peer.noted(is_in_front);
        let text = format!("{{\"type\":\"dropped\",\"messages\":{messages}}}");
        peer.put_note(note(Kind::Dropped, &text, runs), is_in_front);
    }
}

/// A note as a run of its own.
fn note(kind: Kind, text: &str, runs: &mut Vec<usize>) -> Frame {
    let mut builder = RunBuilder::new(FrameType::Binary);
    builder.push(text.as_bytes()).expect("bytes");
    let run = builder.finish();
    runs.push(run.memory());
    Frame { run: runs.len() - 1, index: 0, kind, ordinal: 0, len: run.bytes().len(), payload: text.as_bytes().to_vec() }
}
