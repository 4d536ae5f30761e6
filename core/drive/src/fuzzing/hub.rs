//! A hub: sessions that are adopted or reserved, subscriptions and publishes of the program that it is part of.

use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use arbitrary::Arbitrary;
use bytes::Bytes;
use fanfare_core::error::Misuse;
use fanfare_core::limits::Limits;
use fanfare_core::route::{FrameType, Slow, Target};
use fanfare_core::time::Duration;

use super::drive::STEPS;
use super::peer::{MESSAGE_BYTES, Peer, check_authors, message};
use crate::mailbox::Mailbox;
use crate::memory::Memory;
use crate::{Heard, Hub, HubError, Reserved, ServeError, Setup, Subscription};

/// The steps of a hub, its clients and its program.
#[derive(Arbitrary, Debug)]
pub struct HubStory {
    steps: Vec<Step>,
}

/// Clients, subscriptions and so on are numbered modulo how many there are, and so are rooms.
#[derive(Arbitrary, Debug)]
enum Step {
    /// A WebSocket is handed over, with a message behind its request if it has a length.
    Adopt {
        room: u8,
        drops_oldest: bool,
        leftover: Option<u16>,
    },
    /// The same of a room's other frame type.
    AdoptBinary(u8),
    Reserve {
        room: u8,
        drops_oldest: bool,
    },
    /// The program waits no longer for a session that it wants to reserve.
    GiveUpReserving(u8),
    /// A reserved session gets its connection, and a message that was read with the request.
    Attach {
        reserved: u8,
        leftover: Option<u16>,
    },
    /// A reserved session is dropped.
    Release(u8),
    Subscribe(u8),
    /// The program waits no longer for a subscription.
    GiveUpSubscribing(u8),
    Unsubscribe(u8),
    /// The program takes so many messages out of a subscription.
    Take {
        subscription: u8,
        most: u8,
    },
    Publish {
        room: u8,
        len: u16,
    },
    /// A number of long messages, one after the other.
    Flood {
        room: u8,
        count: u8,
    },
    /// The program waits no longer for a publish to be accepted.
    GiveUpPublishing(u8),
    /// A client sends a message.
    Say {
        peer: u8,
        len: u16,
    },
    /// A client takes so many bytes from here on.
    Room {
        peer: u8,
        bytes: u16,
    },
    /// It takes everything.
    Free(u8),
    /// It does not answer from here on.
    Silence(u8),
    End(u8),
    Reset(u8),
    /// The hub's task gets no turn for a while.
    Stick(bool),
    /// Time passes, in tens of milliseconds.
    Pass(u16),
    Stop,
}

/// Rooms of which somebody hears every message, and one of which nobody does.
const HEARD_ROOMS: usize = 2;
const ROOMS: usize = HEARD_ROOMS + 1;
const QUEUE_BYTES: usize = 2_000;
/// What is said while the hub's task gets no turn comes all at once. Beyond this those who hear everything would not.
const UNHEARD_BYTES: usize = 1_000;
/// The hub's task: the one before starts it.
const WORKER: usize = 1;

pub(super) fn tell(memory: &Memory, story: &HubStory) {
    let mut teller = Teller::new(memory);
    for step in story.steps.iter().take(STEPS) {
        teller.step(step);
        teller.settle();
        teller.check();
    }
    teller.end();
}

/// What the program waits for.
struct Pending<T> {
    result: Arc<Mutex<Option<Result<T, HubError>>>>,
    task: usize,
}

impl<T> Pending<T> {
    fn take(&self) -> Option<Result<T, HubError>> {
        self.result.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// A subscription and what it has heard.
struct Ear {
    subscription: Subscription<Memory>,
    room: usize,
    /// The place in its room's order of what comes next, once a message has come.
    next: Option<usize>,
    /// Messages that were dropped before the first.
    missed: usize,
    /// From this place on it hears everything.
    open_from: usize,
    got: Vec<String>,
}

/// How it has stopped, once it has.
type Stopping = Mutex<Option<Result<(), ServeError>>>;

struct Teller<'a> {
    memory: &'a Memory,
    hub: Hub<Memory>,
    is_stuck: bool,
    /// Bytes that the hub's task has yet to hear of.
    unheard: usize,
    is_stopped: bool,
    /// The hub's task got no turn while it was to stop.
    stood_still_stopping: bool,
    stopping: Option<Arc<Stopping>>,
    /// Who hears every message of a room.
    witnesses: Vec<Subscription<Memory>>,
    /// Every message of those rooms, in the order in which it was heard.
    orders: Vec<Vec<String>>,
    /// Messages of the program that were accepted, of those rooms.
    accepted: Vec<Vec<String>>,
    publishes: Vec<(usize, String, Pending<()>)>,
    published: usize,
    peers: Vec<(Peer, Slow)>,
    reserving: Vec<(usize, Slow, Pending<Reserved<Memory>>)>,
    reserved: Vec<(usize, Slow, usize, Reserved<Memory>)>,
    /// Sessions that the program no longer wanted while they were being reserved.
    given_up: usize,
    subscribing: Vec<(usize, Pending<Subscription<Memory>>)>,
    ears: Vec<Ear>,
}

fn channel(room: usize) -> Bytes {
    format!("room:{room}").into()
}

fn target(room: usize, slow: Slow) -> Target {
    let mut target = Target::new(channel(room));
    target.policies.slow = slow;
    target
}

fn slow(drops_oldest: bool) -> Slow {
    if drops_oldest { Slow::DropOldest } else { Slow::Close }
}

/// What `future` comes to at once, if anything.
fn now_or_never<T>(future: impl Future<Output = T>) -> Option<T> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}

impl<'a> Teller<'a> {
    fn new(memory: &'a Memory) -> Self {
        let mut setup = Setup::default();
        setup.settings.limits = Limits::default();
        let limits = &mut setup.settings.limits;
        limits.message_bytes = MESSAGE_BYTES;
        (limits.queue_bytes, limits.all_queues_bytes) = (QUEUE_BYTES, 4 * QUEUE_BYTES);
        (limits.publish_bytes, limits.mailbox_bytes, limits.partial_bytes) = (1_000, 4_000, 2_000);
        let started = memory.start(Hub::<Memory>::start(setup));
        let hub = started.lock().unwrap_or_else(PoisonError::into_inner).take();
        let hub = hub.expect("it starts at once").expect("a hub");
        let witnesses = (0..HEARD_ROOMS).map(|room| {
            let (hub, channel) = (hub.clone(), channel(room));
            let heard = memory.start(async move { hub.subscribe(channel, FrameType::Text).await });
            let heard = heard.lock().unwrap_or_else(PoisonError::into_inner).take();
            heard.expect("it is subscribed at once").expect("a subscription")
        });
        let witnesses = witnesses.collect();
        Self {
            memory,
            hub,
            is_stuck: false,
            unheard: 0,
            is_stopped: false,
            stood_still_stopping: false,
            stopping: None,
            witnesses,
            orders: vec![Vec::new(); HEARD_ROOMS],
            accepted: vec![Vec::new(); HEARD_ROOMS],
            publishes: Vec::new(),
            published: 0,
            peers: Vec::new(),
            reserving: Vec::new(),
            reserved: Vec::new(),
            given_up: 0,
            subscribing: Vec::new(),
            ears: Vec::new(),
        }
    }

    fn step(&mut self, step: &Step) {
        if matches!(step, Step::Adopt { .. } | Step::Attach { .. } | Step::Publish { .. } | Step::Say { .. }) {
            if self.unheard + MESSAGE_BYTES > UNHEARD_BYTES {
                return;
            }
            self.unheard += MESSAGE_BYTES;
        }
        match *step {
            Step::Adopt { room, drops_oldest, leftover } => self.adopt(room, slow(drops_oldest), leftover),
            Step::AdoptBinary(room) => self.adopt_binary(usize::from(room) % HEARD_ROOMS),
            Step::Reserve { room, drops_oldest } => self.reserve(usize::from(room) % ROOMS, slow(drops_oldest)),
            Step::GiveUpReserving(number) => {
                if let Some((.., pending)) = pick(&mut self.reserving, number) {
                    self.given_up += 1;
                    self.memory.cancel(pending.task);
                }
            }
            Step::Attach { reserved, leftover } => self.attach(reserved, leftover),
            Step::Release(number) => drop(pick(&mut self.reserved, number)),
            Step::Subscribe(room) => {
                let (room, hub, task) = (usize::from(room) % ROOMS, self.hub.clone(), self.memory.started());
                let subscribe = async move { hub.subscribe(channel(room), FrameType::Text).await };
                let result = self.memory.start(subscribe);
                self.subscribing.push((room, Pending { result, task }));
            }
            Step::GiveUpSubscribing(number) => {
                if let Some((_, pending)) = pick(&mut self.subscribing, number) {
                    self.memory.cancel(pending.task);
                }
            }
            Step::Unsubscribe(number) => drop(pick(&mut self.ears, number)),
            Step::Take { subscription, most } => {
                if let Some(place) = place(self.ears.len(), subscription) {
                    self.take(place, most.into());
                }
            }
            Step::Publish { room, len } => {
                self.publish(usize::from(room) % ROOMS, usize::from(len) % (MESSAGE_BYTES + 50));
            }
            Step::Flood { room, count } => {
                for _ in 0..count % 8 {
                    if !self.is_stuck {
                        self.publish(usize::from(room) % ROOMS, MESSAGE_BYTES);
                        self.settle();
                    }
                }
            }
            Step::GiveUpPublishing(number) => {
                if let Some((.., pending)) = pick(&mut self.publishes, number) {
                    self.memory.cancel(pending.task);
                }
            }
            Step::Pass(time) => self.memory.pass(Duration::from_millis(10) * u32::from(time)),
            Step::Stick(stuck) => self.stick(stuck),
            Step::Stop => self.stop(),
            Step::Say { peer, .. }
            | Step::Room { peer, .. }
            | Step::Free(peer)
            | Step::Silence(peer)
            | Step::End(peer)
            | Step::Reset(peer) => {
                if let Some(place) = place(self.peers.len(), peer) {
                    self.step_of_peer(place, step);
                }
            }
        }
    }

    fn step_of_peer(&mut self, place: usize, step: &Step) {
        let (peer, _) = &mut self.peers[place];
        match *step {
            Step::Say { len, .. } if peer.is_open() => peer.say(place, len.into()),
            Step::Room { bytes, .. } => peer.take_at_most(bytes.into()),
            Step::Free(_) => peer.take_at_most(usize::MAX),
            Step::Silence(_) => peer.answers = false,
            Step::End(_) => peer.end(),
            Step::Reset(_) => peer.reset(),
            _ => {}
        }
    }

    fn adopt(&mut self, room: u8, slow: Slow, leftover: Option<u16>) {
        let (room, (client, end)) = (usize::from(room) % ROOMS, self.memory.pair());
        let mut peer = Peer::new(client, room, false);
        let leftover = leftover.map(|len| peer.next_message(self.peers.len(), len.into())).unwrap_or_default();
        let result = self.hub.adopt(end, target(room, slow), leftover.into());
        assert_eq!(result, if self.is_stopped { Err(HubError::Stopped) } else { Ok(()) });
        if result.is_ok() {
            self.peers.push((peer, slow));
        }
    }

    /// A channel carries one type of frames: the connection is let go of.
    fn adopt_binary(&mut self, room: usize) {
        let (client, end) = self.memory.pair();
        let mut target = target(room, Slow::Close);
        target.frame = FrameType::Binary;
        let result = self.hub.adopt(end, target, Bytes::new());
        self.memory.run();
        assert_eq!(result.is_err(), self.is_stopped);
        assert!(self.is_stuck || client.is_closed());
    }

    fn reserve(&mut self, room: usize, slow: Slow) {
        let (hub, task) = (self.hub.clone(), self.memory.started());
        let result = self.memory.start(async move { hub.reserve(target(room, slow)).await });
        self.reserving.push((room, slow, Pending { result, task }));
    }

    fn attach(&mut self, number: u8, leftover: Option<u16>) {
        let Some((room, slow, open_from, reserved)) = pick(&mut self.reserved, number) else { return };
        let (client, end) = self.memory.pair();
        let mut peer = Peer::new(client, room, false);
        peer.open_from = Some(open_from);
        let leftover = leftover.map(|len| peer.next_message(self.peers.len(), len.into())).unwrap_or_default();
        reserved.adopt(end, leftover.into());
        self.peers.push((peer, slow));
    }

    fn publish(&mut self, room: usize, len: usize) {
        self.published += 1;
        let (message, hub) = (message('h', 0, self.published, len), self.hub.clone());
        let (payload, task) = (message.clone(), self.memory.started());
        let result = self.memory.start(async move { hub.publish(channel(room), payload).await });
        self.publishes.push((room, message, Pending { result, task }));
    }

    fn stick(&mut self, stuck: bool) {
        self.is_stuck = stuck;
        self.memory.set_stuck(WORKER, stuck);
    }

    fn stop(&mut self) {
        if !self.is_stopped {
            self.is_stopped = true;
            let hub = self.hub.clone();
            self.stopping = Some(self.memory.start(async move { hub.stop().await }));
        }
    }

    /// Everybody hears what there is to hear.
    fn settle(&mut self) {
        self.stood_still_stopping |= self.is_stopped && self.is_stuck;
        loop {
            self.memory.run();
            self.witness();
            if self.peers.iter_mut().filter_map(|(peer, _)| peer.read().then_some(())).count() == 0 {
                break;
            }
        }
        self.hear_of_publishes();
        self.hear_of_reserved();
        self.hear_of_subscribed();
        if !self.is_stuck {
            self.unheard = MESSAGE_BYTES * self.publishes.len();
            for (peer, _) in &mut self.peers {
                let here = self.orders.get(peer.room).map_or(0, Vec::len);
                peer.open_from.get_or_insert(here);
            }
        }
    }

    fn witness(&mut self) {
        for (witness, order) in self.witnesses.iter_mut().zip(&mut self.orders) {
            while let Some(Some(heard)) = now_or_never(witness.next()) {
                let Heard::Message(message) = heard else { panic!("{heard:?}, though all was taken at once") };
                order.push(String::from_utf8(message.to_vec()).expect("text"));
            }
        }
    }

    fn hear_of_publishes(&mut self) {
        self.publishes.retain(|(room, message, pending)| {
            match pending.take() {
                None => return true,
                Some(Ok(())) => {
                    assert!(message.len() <= MESSAGE_BYTES);
                    if let Some(accepted) = self.accepted.get_mut(*room) {
                        accepted.push(message.clone());
                    }
                }
                Some(Err(HubError::Misuse(Misuse::MessageSize))) => assert!(message.len() > MESSAGE_BYTES),
                Some(Err(error)) => assert!(self.is_stopped && error == HubError::Stopped, "{error}"),
            }
            false
        });
    }

    fn hear_of_reserved(&mut self) {
        let (orders, reserved, is_stopped) = (&self.orders, &mut self.reserved, self.is_stopped);
        self.reserving.retain(|(room, slow, pending)| {
            match pending.take() {
                None => return true,
                Some(Ok(session)) => reserved.push((*room, *slow, orders.get(*room).map_or(0, Vec::len), session)),
                // The clock may jump while the hub's task gets no turn.
                Some(Err(HubError::NotConfirmed)) => {}
                Some(Err(error)) => assert!(is_stopped && error == HubError::Stopped, "{error}"),
            }
            false
        });
    }

    fn hear_of_subscribed(&mut self) {
        let (orders, ears, is_stopped) = (&self.orders, &mut self.ears, self.is_stopped);
        self.subscribing.retain(|(room, pending)| {
            match pending.take() {
                None => return true,
                Some(Ok(subscription)) => ears.push(Ear {
                    subscription,
                    room: *room,
                    next: None,
                    missed: 0,
                    open_from: orders.get(*room).map_or(0, Vec::len),
                    got: Vec::new(),
                }),
                Some(Err(error)) => assert!(is_stopped && error == HubError::Stopped, "{error}"),
            }
            false
        });
    }

    /// The program takes messages out of a subscription: each is the next of its room, but for those that it is told it
    /// missed.
    fn take(&mut self, place: usize, most: usize) {
        let ear = &mut self.ears[place];
        for _ in 0..most {
            match now_or_never(ear.subscription.next()) {
                None | Some(None) => break,
                Some(Some(Heard::Missed(messages))) => match &mut ear.next {
                    Some(next) => *next += messages as usize,
                    None => ear.missed += messages as usize,
                },
                Some(Some(Heard::Message(message))) => {
                    let message = String::from_utf8(message.to_vec()).expect("text");
                    if let Some(order) = self.orders.get(ear.room) {
                        let at = order.iter().position(|other| *other == message).expect("somebody else heard it");
                        assert!(ear.next.is_none_or(|next| next == at), "{message} is at {at}, not {:?}", ear.next);
                        assert!(ear.next.is_some() || at <= ear.open_from + ear.missed, "the first is at {at}");
                        ear.next = Some(at + 1);
                    }
                    ear.got.push(message);
                }
                Some(Some(other)) => panic!("{other:?} without Redis"),
            }
        }
        check_authors(&ear.got);
    }

    fn check(&self) {
        for order in &self.orders {
            check_authors(order);
        }
        for (peer, slow) in &self.peers {
            check_authors(&peer.got);
            let Some(order) = self.orders.get(peer.room) else { continue };
            let places = peer.got.iter().map(|message| order.iter().position(|other| other == message));
            let places: Vec<usize> = places.collect::<Option<_>>().expect("somebody else heard it");
            assert!(places.is_sorted());
            if *slow == Slow::Close {
                assert!(places.windows(2).all(|pair| pair[0] + 1 == pair[1]), "a message is missing: {places:?}");
            }
            let is_complete = peer.is_open() && peer.is_free && !self.is_stuck && !self.is_stopped;
            if let (true, Some(open_from)) = (is_complete, peer.open_from)
                && open_from < order.len()
            {
                assert_eq!(places.last(), Some(&(order.len() - 1)), "the last has not come, open from {open_from}");
                if *slow == Slow::Close {
                    assert!(places[0] <= open_from, "the first is at {}, open from {open_from}", places[0]);
                }
            }
        }
        if !self.is_stuck {
            self.check_accepted();
        }
    }

    /// What was accepted of the program is heard, once.
    fn check_accepted(&self) {
        for (accepted, order) in self.accepted.iter().zip(&self.orders) {
            let own: Vec<_> = order.iter().filter(|message| message.starts_with('h')).collect();
            assert!(own.iter().copied().eq(accepted), "accepted {accepted:?}, heard {own:?}");
        }
    }

    fn end(mut self) {
        self.stick(false);
        for (peer, _) in &mut self.peers {
            peer.is_free = true;
            peer.client.change(|pipe| pipe.room = usize::MAX);
        }
        self.settle();
        self.check();
        self.check_losses();
        for place in 0..self.ears.len() {
            self.take(place, usize::MAX);
            let ear = &self.ears[place];
            let (next, order) = (ear.next, self.orders.get(ear.room));
            if let Some(order) = order.filter(|order| ear.open_from < order.len()) {
                let end = next.unwrap_or(ear.open_from + ear.missed);
                assert_eq!(end, order.len(), "a subscription neither heard all nor was told so");
            }
        }
        self.reserved.clear();
        self.ears.clear();
        self.settle();
        self.check_places();
        self.peers.iter_mut().for_each(|(peer, _)| peer.end());
        self.settle();
        // A Close that nobody answers, and a session that nobody took.
        for _ in 0..4 {
            self.memory.pass(Duration::from_secs(20));
            self.settle();
        }
        assert!(self.peers.iter().all(|(peer, _)| peer.client.is_closed()), "a connection is never let go of");
        // Once the time to shut down is over nobody counts who is cut off.
        if !self.is_stopped {
            assert_eq!(Mailbox::sessions(&self.hub.shared.mailboxes), 0);
            self.check_nothing_is_left();
        }
        self.stop();
        self.memory.pass(Duration::from_secs(20));
        self.memory.run();
        let ended =
            self.stopping.take().and_then(|result| result.lock().unwrap_or_else(PoisonError::into_inner).take());
        // Whose turn comes after the time to shut down loses what came in the last one.
        let is_late = self.stood_still_stopping && matches!(ended, Some(Err(ServeError::Unflushed { .. })));
        assert!(is_late || matches!(ended, Some(Ok(()))), "{ended:?}");
        assert_eq!(self.memory.running(), 0, "a task does not end");
    }

    /// Sessions that drop messages lost no more than was counted.
    fn check_losses(&self) {
        if self.is_stopped {
            return;
        }
        let Some(counts) = self.metrics() else { return };
        let lost = self.peers.iter().filter(|(peer, _)| peer.is_open()).map(|(peer, _)| {
            let order = self.orders.get(peer.room).map_or(0, Vec::len);
            let from = peer.open_from.unwrap_or(order);
            let wanted = self.orders.get(peer.room).map_or(&[][..], |order| &order[from..]);
            wanted.iter().filter(|message| !peer.got.contains(message)).count()
        });
        let (lost, counted) = (lost.sum::<usize>(), counts.workers.stats.dropped_oldest);
        assert!(lost as u64 <= counted, "{lost} messages are missing, {counted} counted");
    }

    /// A reserved session that was dropped has given its place back, without waiting for a pong that does not come.
    fn check_places(&self) {
        let Some(counts) = self.metrics() else { return };
        let clients = self.peers.iter().filter(|(peer, _)| !peer.client.is_closed()).count();
        let sessions = counts.workers.stats.sessions;
        assert!(sessions <= clients + self.given_up, "{sessions} sessions of {clients} clients");
    }

    fn check_nothing_is_left(&self) {
        let counts = self.metrics().expect("it has not stopped");
        let (stats, stages) = (&counts.workers.stats, &counts.workers.stages);
        assert_eq!((stats.sessions, stats.queued_bytes, stats.partial_bytes), (0, 0, 0), "{stages:?}");
        assert_eq!(counts.bus.publish_bytes, 0);
        // Those of the witnesses; the others have lingered.
        assert_eq!((counts.bus.channels, counts.bus.lingering), (HEARD_ROOMS, 0));
    }

    fn metrics(&self) -> Option<fanfare_core::snapshot::Snapshot> {
        let hub = self.hub.clone();
        let counts = self.memory.start(async move { hub.metrics().await });
        counts.lock().unwrap_or_else(PoisonError::into_inner).take()?.ok()
    }
}

/// The place of one of so many.
fn place(count: usize, number: u8) -> Option<usize> {
    usize::from(number).checked_rem(count)
}

/// Takes one out.
fn pick<T>(list: &mut Vec<T>, number: u8) -> Option<T> {
    place(list.len(), number).map(|place| list.remove(place))
}
