//! Who must receive what: a model of the fleet that knows no bytes, only messages, their order and their losses.
//!
//! What Redis pushes to an instance is noted with its place in the stream. When the instance's bus has read that far
//! the message has *arrived*, and from then on every session that was open before has a right to it, in the order of
//! arrival. A session may get what arrived shortly before it was open, but then all of that.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use fanfare_core::error::{Closed, Error, Side};
use fanfare_core::limits::Limits;
use fanfare_core::route::{FrameType, Slow};
use fanfare_core::time::{Duration, Instant};

use super::messages::{Message, MessageId, Messages};
use super::plan::{ClientSetup, Room};
use super::told::Told;
use super::verdict::Promise;

/// Bounded time in which subscriptions are equal again (R4), and what a slow driver and slow lines add.
pub(super) const SUBSCRIBED_WITHIN: Duration = Duration::from_millis(6_000);
/// A message reaches a client that reads, on a good line, within this time from its arrival at the instance.
const PROMPT: Duration = Duration::from_millis(2_000);
/// Long enough for whatever an outage leaves behind to be over.
pub(super) const LONG_CALM: Duration = Duration::from_secs(25);

/// A bound from which on no traffic of a plan reaches it.
const ROOMY: usize = 1 << 20;

pub(super) type Verdict = Result<(), (Promise, String)>;

/// One connection of a client.
#[derive(Debug)]
pub(super) struct Visit {
    pub(super) client: usize,
    pub(super) instance: usize,
    pub(super) worker: usize,
    pub(super) room: usize,
    /// How many messages of its channel had arrived when it was open.
    pub(super) opened: Option<usize>,
    /// Which arrival comes next, once that is known.
    next: Option<usize>,
    /// Empty messages that came before the first that has a number.
    empty: usize,
    pub(super) excuses: Excuses,
    pub(super) over: bool,
    /// What the client sent and the instance has not read, with the end of each message in the stream.
    pub(super) sent: VecDeque<(u64, MessageId)>,
    /// What Redis carried out last of what the client sent.
    published: Option<MessageId>,
    /// Messages that were read from its socket and not taken in, which only a session that is closing may do.
    pub(super) untaken: usize,
    /// It was to be closed as a slow reader, or may have been.
    pub(super) condemned: bool,
    /// Its client wants notes, and gets them.
    pub(super) notes: bool,
    pub(super) told: Told,
    pub(super) opened_at: Option<Instant>,
}

impl Visit {
    /// Whether it is open and has no reason to be on the way to its end, where a session has left its channel.
    pub(super) const fn stays(&self) -> bool {
        self.opened.is_some() && !self.over && !self.condemned && !self.excuses.any()
    }
}

/// What a client has done, or suffered, that excuses how its session ends.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Excuses {
    /// It left, or its connection was broken.
    pub(super) gone: bool,
    /// It did not read, or its line stood still or is thin.
    pub(super) slow: bool,
    /// It does not answer pings.
    pub(super) mute: bool,
    /// It broke the protocol, and may be closed for this.
    pub(super) rude: Option<Error>,
    /// The embedder, or the end of the run, closed it.
    pub(super) closed: bool,
}

impl Excuses {
    /// Whether its session may be on its way to the end, for another reason than that it is slow.
    pub(super) const fn may_be_closing(self) -> bool {
        self.gone || self.rude.is_some() || self.closed
    }

    pub(super) const fn any(self) -> bool {
        self.gone || self.slow || self.mute || self.rude.is_some() || self.closed
    }
}

#[derive(Debug, Default)]
pub(super) struct Instance {
    /// What Redis has pushed and the bus has not read, by connection, with its end in that stream.
    on_the_way: BTreeMap<u32, VecDeque<(u64, MessageId)>>,
    /// The same for probes, each with the time at which Redis carried it out.
    pub(super) probes: BTreeMap<u32, VecDeque<(u64, Instant)>>,
    /// When the last probe was carried out that the bus has read.
    pub(super) proven: Option<Instant>,
    /// By room, in order.
    arrivals: Vec<Vec<(MessageId, Instant)>>,
    /// The place of each message among its room's arrivals, plus one.
    places: Vec<u32>,
    /// Since when nothing has been between it and Redis.
    pub(super) calm: Option<Instant>,
    /// Until when there was, or may have been, trouble.
    troubled: Instant,
    /// Messages that some session of a worker did not get and had a right to.
    holes: BTreeSet<(usize, MessageId)>,
    /// Where in memory the one frame of each message lies.
    addresses: BTreeMap<MessageId, usize>,
    /// When the first message was published that the bus will never read and some session had a right to, since the
    /// link was whole last.
    lost: Option<Instant>,
    published: u64,
    /// Messages that sessions without notes did not get, on routes that drop some.
    pub(super) dropped: u64,
    pub(super) has_missed: bool,
    /// It takes no turn before.
    pub(super) stands_until: Instant,
    /// How many connections to Redis it may have lost: nothing but its own standing still is to be seen since.
    pub(super) lost_connections: Option<u64>,
}

#[derive(Debug)]
pub(super) struct Reference {
    pub(super) messages: Messages,
    pub(super) visits: Vec<Visit>,
    pub(super) rooms: Vec<Room>,
    /// Rooms by channel name.
    by_channel: BTreeMap<Vec<u8>, usize>,
    pub(super) instances: Vec<Instance>,
    pub(super) received: Vec<Vec<MessageId>>,
    pub(super) deliveries: u64,
    pub(super) limits: Limits,
    /// Messages too big that the buses have skipped, by instance.
    pub(super) oversized: Vec<u64>,
    pub(super) ends: BTreeMap<String, u64>,
    pub(super) slowest_pong: Duration,
    /// Whether Redis refuses probes, and since when.
    pub(super) probes_forbidden: (bool, Instant),
}

impl Reference {
    pub(super) fn new(rooms: &[Room], instances: usize, clients: usize, limits: &Limits) -> Self {
        let instance = || Instance { arrivals: vec![Vec::new(); rooms.len()], ..Instance::default() };
        Self {
            messages: Messages::default(),
            visits: Vec::new(),
            by_channel: rooms.iter().enumerate().map(|(i, room)| (room.channel.clone().into_bytes(), i)).collect(),
            rooms: rooms.to_vec(),
            instances: std::iter::repeat_with(instance).take(instances).collect(),
            received: vec![Vec::new(); clients],
            deliveries: 0,
            limits: limits.clone(),
            oversized: vec![0; instances],
            ends: BTreeMap::new(),
            slowest_pong: Duration::ZERO,
            probes_forbidden: (false, Instant::ZERO),
        }
    }

    pub(super) fn room(&self, room: usize) -> &Room {
        &self.rooms[room]
    }

    /// How large a message of the room is to be: where some are dropped, nobody could say which of the empty ones came.
    pub(super) fn size(&self, room: usize, bytes: usize) -> usize {
        if self.rooms[room].policies.slow == Slow::Close { bytes } else { bytes.max(8) }
    }

    /// Whether messages may be dropped to sessions of the room that have no excuse.
    pub(super) fn may_drop(&self, room: usize) -> bool {
        let is_tight = self.limits.queue_bytes < ROOMY || self.limits.all_queues_bytes < ROOMY;
        self.rooms[room].policies.slow != Slow::Close && is_tight
    }

    pub(super) fn room_of(&self, channel: &[u8]) -> Option<usize> {
        self.by_channel.get(channel).copied()
    }

    // From Redis to the bus.

    /// Redis carries out a PUBLISH of instance `from`, or of another program. Says which message it is.
    pub(super) fn published(
        &mut self,
        from: Option<usize>,
        channel: &[u8],
        payload: &[u8],
        now: Instant,
    ) -> Result<MessageId, (Promise, String)> {
        let Some(room) = self.room_of(channel) else {
            let channel = String::from_utf8_lossy(channel);
            return Err((Promise::Protocol, format!("a publish to {channel:?}, which is no channel")));
        };
        let known = self.messages.identify(payload).map_err(|what| (Promise::Protocol, what))?;
        let frame = self.rooms[room].frame;
        let id = known.unwrap_or_else(|| self.messages.make(room, 0, frame));
        let message = self.messages.get(id);
        if message.room != room {
            return Err((Promise::Protocol, format!("message {id} was published to another channel")));
        }
        if message.published {
            return Err((Promise::NoDuplicates, format!("message {id} was published twice")));
        }
        if let Some(sender) = message.sender {
            let before = self.visits[sender].published.replace(id);
            if before > Some(id) {
                let what = format!("message {id} was published after {before:?}, which its client sent later");
                return Err((Promise::Order, what));
            }
        }
        self.messages.set_published(id, now);
        if let Some(from) = from {
            self.instances[from].published += 1;
        }
        Ok(id)
    }

    /// How many publishes of the instance Redis has carried out.
    pub(super) fn published_by(&self, instance: usize) -> u64 {
        self.instances[instance].published
    }

    /// Redis pushes a message to an instance; it ends at byte `end` of the connection's stream.
    pub(super) fn pushed(&mut self, instance: usize, conn: u32, end: u64, message: MessageId) {
        self.instances[instance].on_the_way.entry(conn).or_default().push_back((end, message));
    }

    /// The bus has read the first `taken` bytes of a connection's stream. Says which messages have arrived by that.
    pub(super) fn read_by_bus(&mut self, instance: usize, conn: u32, taken: u64, now: Instant) -> Vec<MessageId> {
        self.probes_read(instance, conn, taken);
        let Some(pushes) = self.instances[instance].on_the_way.get_mut(&conn) else { return Vec::new() };
        let mut arrived = Vec::new();
        while let Some(&(end, message)) = pushes.front()
            && end <= taken
        {
            arrived.push(message);
            pushes.pop_front();
        }
        arrived.retain(|&message| self.arrive(instance, message, now));
        arrived
    }

    /// Says whether the message may come through.
    fn arrive(&mut self, instance: usize, id: MessageId, now: Instant) -> bool {
        let message = self.messages.get(id);
        let (room, frame) = (message.room, self.rooms[message.room].frame);
        if message.payload.len() > self.limits.message_bytes {
            self.oversized[instance] += 1;
            return false;
        }
        let is_text = frame == FrameType::Text;
        if is_text && core::str::from_utf8(&message.payload).is_err() {
            return false;
        }
        let instance = &mut self.instances[instance];
        instance.arrivals[room].push((id, now));
        let place = id as usize;
        if instance.places.len() <= place {
            instance.places.resize(place + 1, 0);
        }
        instance.places[place] = instance.arrivals[room].len() as u32;
        true
    }

    /// Redis has pushed message `id` to the instances `to`. Any other that has a session in its room misses it.
    pub(super) fn passed_by(&mut self, id: MessageId, to: &[usize], now: Instant) {
        let message = self.messages.get(id);
        if message.payload.len() > self.limits.message_bytes {
            return;
        }
        let room = message.room;
        for visit in 0..self.visits.len() {
            let view = &self.visits[visit];
            if view.room != room || view.over || view.opened.is_none() || to.contains(&view.instance) {
                continue;
            }
            if view.stays() && !self.may_be_doomed(view) {
                let instance = view.instance;
                self.instances[instance].lost.get_or_insert(now);
            }
            self.passed_by_visit(visit, now);
        }
    }

    /// A subscribing connection is gone, and what was pushed to it and not read.
    pub(super) fn lane_lost(&mut self, instance: usize, conn: u32) {
        self.instances[instance].probes.remove(&conn);
        let Some(pushes) = self.instances[instance].on_the_way.remove(&conn) else { return };
        for (_, id) in pushes {
            let Message { room, at, ref payload, .. } = *self.messages.get(id);
            if payload.len() > self.limits.message_bytes {
                continue;
            }
            for visit in 0..self.visits.len() {
                let view = &self.visits[visit];
                if (view.instance, view.room) != (instance, room) || view.over || view.opened.is_none() {
                    continue;
                }
                if !self.may_be_doomed(view) {
                    let lost = &mut self.instances[instance].lost;
                    *lost = Some(lost.map_or(at, |lost| lost.min(at)));
                }
                self.passed_by_visit(visit, at);
            }
        }
    }

    /// Since when the instance misses messages, as of the last time that this was asked.
    pub(super) fn take_lost(&mut self, instance: usize) -> Option<Instant> {
        self.instances[instance].lost.take()
    }

    // From the shard to clients.

    /// A client has connected.
    pub(super) fn visit(&mut self, client: usize, setup: &ClientSetup, excuses: Excuses) -> usize {
        let (instance, room) = (setup.instance, setup.room);
        let notes = setup.notes && self.rooms[room].frame == FrameType::Text;
        self.visits.push(Visit {
            client,
            instance,
            worker: 0,
            room,
            opened: None,
            next: None,
            empty: 0,
            excuses,
            over: false,
            sent: VecDeque::new(),
            published: None,
            untaken: 0,
            condemned: false,
            notes,
            told: Told::default(),
            opened_at: None,
        });
        self.visits.len() - 1
    }

    /// A client has sent a message that ends at byte `end` of its stream.
    pub(super) fn sent(&mut self, visit: usize, end: u64, message: MessageId) {
        self.visits[visit].count_sent();
        self.visits[visit].sent.push_back((end, message));
        self.messages.set_sender(message, visit);
    }

    /// The instance says that the session is open.
    pub(super) fn opened(&mut self, visit: usize, now: Instant) {
        let visit = &mut self.visits[visit];
        visit.opened_at = Some(now);
        visit.opened = Some(self.instances[visit.instance].arrivals[visit.room].len());
    }

    /// A client got a message.
    pub(super) fn delivered(&mut self, visit: usize, payload: &[u8], now: Instant) -> Verdict {
        let id = self.messages.identify(payload).map_err(|what| (Promise::Protocol, what))?;
        self.deliveries += 1;
        let Some(id) = id else { return self.delivered_empty(visit) };
        self.check_told(visit, id)?;
        let view = &mut self.visits[visit];
        let instance = &mut self.instances[view.instance];
        self.received[view.client].push(id);
        let (client, at) = (view.client, view.instance);
        let who = || format!("client {client} of instance {at} got message {id}");
        let place = instance.places.get(id as usize).copied().unwrap_or(0) as usize;
        if place == 0 || self.messages.get(id).room != view.room {
            return Err((Promise::Protocol, format!("{}, which never arrived for its channel", who())));
        }
        let (place, arrivals) = (place - 1, &instance.arrivals[view.room]);
        let next = view.next.unwrap_or_else(|| {
            // The empty messages that came first are those right before, if such are there.
            let start = place.saturating_sub(view.empty);
            let are_empty = arrivals[start..place].iter().all(|&(id, _)| self.messages.get(id).payload.is_empty());
            let known = if are_empty { start } else { place };
            if view.opened.is_some_and(|opened| opened < known) { view.opened.unwrap_or(place) } else { place }
        });
        if place < next {
            let was_skipped = instance.holes.contains(&(view.worker, id));
            let promise = if was_skipped { Promise::Order } else { Promise::NoDuplicates };
            return Err((promise, format!("{} a second time, or after later ones", who())));
        }
        let (number, late, is_first) =
            (view.instance, now.since(arrivals[place].1.max(instance.stands_until)), view.next.is_none());
        if !view.excuses.any() && late > PROMPT {
            return Err((Promise::NoLivelock, format!("{} {late:?} after that had arrived", who())));
        }
        view.next = Some(place + 1);
        let (room, worker) = (view.room, view.worker);
        let unexplained = self.unexplained(visit, (place - next) as u64, is_first)? as usize;
        let Instance { holes, arrivals, .. } = &mut self.instances[number];
        holes.extend(arrivals[room][next..next + unexplained].iter().map(|&(skipped, _)| (worker, skipped)));
        Ok(())
    }

    fn delivered_empty(&mut self, visit: usize) -> Verdict {
        let view = &mut self.visits[visit];
        let Some(next) = view.next else {
            view.empty += 1;
            return Ok(());
        };
        let instance = &mut self.instances[view.instance];
        let arrivals = &instance.arrivals[view.room];
        let Some(skipped) = arrivals[next..].iter().position(|&(id, _)| self.messages.get(id).payload.is_empty())
        else {
            let what = format!("client {} of instance {} got an empty message too many", view.client, view.instance);
            return Err((Promise::NoDuplicates, what));
        };
        instance.holes.extend(arrivals[next..next + skipped].iter().map(|&(skipped, _)| (view.worker, skipped)));
        view.next = Some(next + skipped + 1);
        Ok(())
    }

    /// A session of the instance is lent a message's frame at this address.
    pub(super) fn lies_at(&mut self, instance: usize, message: MessageId, address: usize) -> Verdict {
        let known = *self.instances[instance].addresses.entry(message).or_insert(address);
        if known == address {
            return Ok(());
        }
        Err((Promise::OneEncoding, format!("instance {instance} holds message {message} more than once")))
    }

    /// Holes in what the sessions of an instance got.
    pub(super) fn holes(&self, instance: usize) -> &BTreeSet<(usize, MessageId)> {
        &self.instances[instance].holes
    }

    /// What a client that is open and reads has a right to and did not get at the end. It is a hole from now on.
    pub(super) fn missing(&mut self, visit: usize) -> Option<MessageId> {
        let view = &self.visits[visit];
        let next = view.next.or_else(|| view.opened.map(|opened| opened + view.empty))?;
        let instance = &mut self.instances[view.instance];
        let missing = instance.arrivals[view.room].get(next..).unwrap_or_default();
        instance.holes.extend(missing.iter().map(|&(id, _)| (view.worker, id)));
        missing.first().map(|&(id, _)| id)
    }

    // Between an instance and Redis.

    /// Whether nothing has been between the instance and Redis for so long.
    pub(super) fn is_calm_for(&self, instance: usize, time: Duration, now: Instant) -> bool {
        self.instances[instance].calm.is_some_and(|since| since + time <= now)
    }

    /// Whether something is between the instance and Redis now, and before when the link cannot know of all that was.
    pub(super) fn set_calm(&mut self, instance: usize, is_calm: bool, not_before: Instant) {
        let instance = &mut self.instances[instance];
        instance.lost_connections = None;
        instance.troubled = instance.troubled.max(not_before);
        instance.calm = is_calm.then_some(instance.troubled);
    }

    /// The link has lost a connection although nothing is in between.
    pub(super) fn ruffle(&mut self, instance: usize, now: Instant) {
        let is_calm = self.instances[instance].calm.is_some();
        self.set_calm(instance, is_calm, now);
    }

    // Ends.

    /// The instance says that a session has ended. Is there a reason?
    pub(super) fn closed(&mut self, visit: usize, closed: Closed, now: Instant) -> Verdict {
        let name = closed.error.map_or_else(|| format!("{:?}", closed.by), |error| format!("{error:?}"));
        *self.ends.entry(name).or_default() += 1;
        let view = &mut self.visits[visit];
        view.over = true;
        let (excuses, client, instance) = (view.excuses, view.client, view.instance);
        let allowed = match closed.error {
            None if closed.code == Some(1012) => self.may_be_doomed(&self.visits[visit]),
            None if closed.by == Side::Local => excuses.closed,
            None => excuses.gone || excuses.closed,
            Some(error) if Some(error) == excuses.rude => true,
            Some(Error::PongTimeout) => excuses.gone || excuses.slow || excuses.mute,
            Some(Error::CloseTimeout) => excuses.gone || excuses.slow || excuses.mute,
            // Whether the bound was reached is another check's: with a tight one a burst is enough.
            Some(Error::SlowReader) => excuses.any() || self.limits.queue_bytes < ROOMY,
            Some(Error::PartialFull) => self.limits.partial_bytes < ROOMY,
            Some(Error::SlowMessage) => excuses.gone || excuses.slow,
            Some(Error::SlowHead) => excuses.gone || excuses.slow,
            Some(Error::HeadSyntax) => excuses.gone,
            Some(Error::NotConfirmed) => !self.is_calm_for(instance, Duration::from_secs(5) + SUBSCRIBED_WITHIN, now),
            Some(Error::NoCredit) => !self.is_calm_for(instance, Duration::from_secs(10) + SUBSCRIBED_WITHIN, now),
            Some(_) => false,
        };
        if allowed {
            return Ok(());
        }
        if closed.error == Some(Error::NotConfirmed) {
            let channel = &self.rooms[self.visits[visit].room].channel;
            let since = self.instances[instance].calm.unwrap_or_default();
            let what = format!(
                "instance {instance} did not subscribe to {channel} in time for client {client}, and nothing has been \
                 between it and redis since {:.3} s",
                since.as_micros() as f64 / 1e6
            );
            return Err((Promise::Subscribed, what));
        }
        Err((
            Promise::FairEnd,
            format!("client {client} of instance {instance} was ended without a reason: {closed:?}"),
        ))
    }
}
