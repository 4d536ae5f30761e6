//! One instance: the real machines, and a driver that carries bytes, time and mail to and from them.

use std::collections::VecDeque;
use std::sync::Arc;

use fanfare_core::bus::{self, Bus};
use fanfare_core::error::Unready;
use fanfare_core::exchange::{ToBus, ToShard, WorkerId};
use fanfare_core::limits::Limits;
use fanfare_core::node::Node;
use fanfare_core::redis::RedisUrl;
use fanfare_core::settings::Settings;
use fanfare_core::shard::Shard;
use fanfare_core::time::Instant;
use fastrand::Rng;

use super::ground::{Event, Ground, Port};
use super::lanes::Lanes;
use super::pipe::micros;
use super::plan::{Driver, InstanceSetup};
use super::slow::Batch;
use super::sockets::Sockets;
use super::verdict::Promise;

/// A lazy driver comes back after at most so many microseconds.
const LAZINESS: u64 = 8_000;
/// Turns of one worker at one instant without anything to show for.
const IDLE_TURNS: u32 = 64;

/// The machines under test: a node, or what workers on threads of their own have.
pub(super) enum Machines {
    Node(Box<Node>),
    Apart { bus: Box<Bus>, shards: Vec<Shard> },
}

pub(super) struct Instance {
    pub(super) number: usize,
    driver: Driver,
    pub(super) machines: Machines,
    pub(super) workers: Vec<Worker>,
    pub(super) lanes: Lanes,
    pub(super) limits: Limits,
    pub(super) rng: Rng,
    pub(super) scratch: Vec<u8>,
    /// Messages that were counted as taken in and then refused: of the wrong type, or where none is allowed.
    pub(super) rejected: u64,
    /// When it said whether it can deliver, and what.
    pub(super) readiness: Vec<(Instant, Result<(), Unready>)>,
    /// It takes no turn before.
    stands_until: Instant,
}

/// What the driver of one worker has to remember.
#[derive(Default)]
pub(super) struct Worker {
    pub(super) sockets: Sockets,
    mail: VecDeque<(Instant, Mail)>,
    /// What the bus has read for it since it last handed news over.
    pub(super) arrived: Batch,
    /// For when its next turn is on the agenda.
    turn_at: Option<Instant>,
    /// Counts everything that moves.
    pub(super) moved: u64,
    /// The instant of the last turn, how much had moved by then, and how many turns since showed nothing.
    idle: (Instant, u64, u32),
}

enum Mail {
    Socket(Port, usize),
    News(ToShard, Batch),
    Wishes(WorkerId, ToBus),
}

#[derive(Clone, Copy)]
enum Task {
    Lanes,
    Mail,
    Sockets,
    Exchange,
    Timeouts,
    Write,
    Events,
}

impl Instance {
    pub(super) fn new(number: usize, setup: InstanceSetup, settings: Settings, url: &RedisUrl, seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let limits = settings.limits.clone();
        let start = Instant::ZERO;
        let machines = if setup.workers == 1 {
            Machines::Node(Box::new(Node::new(settings, Some(url.clone()), rng.u64(..), start)))
        } else {
            let settings = Arc::new(settings);
            let bus = Box::new(Bus::redis(url.clone(), "", &limits, setup.workers, rng.u64(..), start));
            let shard = |_| Shard::new(settings.clone(), rng.u64(..), start);
            Machines::Apart { bus, shards: (0..setup.workers).map(shard).collect() }
        };
        let workers = std::iter::repeat_with(Worker::default).take(setup.workers).collect();
        let (lanes, driver) = (Lanes::default(), setup.driver);
        Self {
            number,
            driver,
            machines,
            workers,
            lanes,
            limits,
            rng,
            scratch: vec![0; 64 << 10],
            rejected: 0,
            readiness: Vec::new(),
            stands_until: Instant::ZERO,
        }
    }

    pub(super) fn shard(&mut self, worker: WorkerId) -> &mut Shard {
        match &mut self.machines {
            Machines::Node(node) => &mut node.shard,
            Machines::Apart { shards, .. } => &mut shards[worker],
        }
    }

    pub(super) fn bus(&mut self) -> &mut Bus {
        match &mut self.machines {
            Machines::Node(node) => &mut node.bus,
            Machines::Apart { bus, .. } => bus,
        }
    }

    pub(super) fn is_lazy(&self) -> bool {
        self.driver == Driver::Lazy
    }

    /// A driver's clock: a lazy one's is sometimes a little late, which the machines must not mind.
    pub(super) fn clock(&mut self, ground: &Ground) -> Instant {
        let late = if self.is_lazy() && self.rng.u8(..8) == 0 { self.rng.u64(..2_000) } else { 0 };
        Instant::from_micros(ground.now.as_micros().saturating_sub(late))
    }

    /// A client's connection was accepted, by the listener of the first worker: whoever holds the fewest gets it.
    pub(super) fn accept(&mut self, port: Port, visit: usize, ground: &mut Ground) -> WorkerId {
        let load = |worker: &usize| self.workers[*worker].sockets.len() + self.workers[*worker].mail.len();
        let worker = (0..self.workers.len()).min_by_key(load).unwrap_or(0);
        self.post(worker, Mail::Socket(port, visit), ground);
        worker
    }

    /// Something at a client's socket may have changed.
    pub(super) fn socket_wakes(&mut self, worker: WorkerId, port: Port, ground: &mut Ground) {
        self.workers[worker].sockets.wake(port);
        self.plan_turn(worker, ground.now, ground);
    }

    /// None of its workers takes a turn until then.
    pub(super) fn stand_still(&mut self, until: Instant) {
        self.stands_until = self.stands_until.max(until);
    }

    /// Whether it takes no turn now.
    pub(super) fn stands_still(&self, ground: &Ground) -> bool {
        ground.now < self.stands_until
    }

    /// Has the worker take a turn at `at`, or a little later if it is lazy.
    pub(super) fn plan_turn(&mut self, worker: WorkerId, at: Instant, ground: &mut Ground) {
        let late = if self.is_lazy() && self.rng.bool() { self.rng.u64(..LAZINESS) } else { 0 };
        let at = at.max(ground.now).max(self.stands_until) + micros(late);
        let planned = &mut self.workers[worker].turn_at;
        if planned.is_none_or(|planned| at < planned || planned < ground.now) {
            *planned = Some(at);
            ground.at(at, Event::Turn { instance: self.number, worker });
        }
    }

    /// One turn of a worker. The eager driver does everything in the order of the adapters; the lazy one some of it,
    /// in any order, since the contract asks for none.
    pub(super) fn turn(&mut self, worker: WorkerId, ground: &mut Ground) {
        if self.workers[worker].turn_at != Some(ground.now) {
            return;
        }
        self.workers[worker].turn_at = None;
        if self.stands_still(ground) {
            return self.plan_turn(worker, self.stands_until, ground);
        }
        let mut tasks = [
            Task::Lanes,
            Task::Exchange,
            Task::Mail,
            Task::Sockets,
            Task::Exchange,
            Task::Timeouts,
            Task::Write,
            Task::Events,
            Task::Lanes,
            Task::Exchange,
        ];
        let mut count = tasks.len();
        if self.is_lazy() {
            self.rng.shuffle(&mut tasks);
            count = self.rng.usize(2..=tasks.len());
        }
        for &task in &tasks[..count] {
            self.perform(task, worker, ground);
        }
        self.check_bounds(worker, ground);
        self.plan_next(worker, ground);
    }

    fn perform(&mut self, task: Task, worker: WorkerId, ground: &mut Ground) {
        match task {
            Task::Lanes if worker == 0 => self.turn_lanes(ground),
            Task::Lanes => {}
            Task::Mail => self.take_mail(worker, ground),
            Task::Sockets => self.turn_sockets(worker, ground),
            Task::Exchange => self.exchange(worker, ground),
            Task::Timeouts => self.handle_timeouts(worker, ground),
            Task::Write => self.write_sockets(worker, ground),
            Task::Events => {
                self.take_events(worker, ground);
                if worker == 0 {
                    self.take_bus_events(ground);
                }
            }
        }
    }

    /// Carries wishes and news: at once within a thread, by mail between threads.
    fn exchange(&mut self, worker: WorkerId, ground: &mut Ground) {
        let now = self.clock(ground);
        loop {
            let (bus, shards) = match &mut self.machines {
                Machines::Node(_) => return self.with_node(ground, |node| node.exchange(now)),
                Machines::Apart { bus, shards } => (bus, shards),
            };
            if let Some(wishes) = shards[worker].poll_bus() {
                self.workers[worker].moved += 1;
                if worker == 0 {
                    bus.handle_shard(0, wishes, now).expect("one of its workers");
                } else {
                    self.post(0, Mail::Wishes(worker, wishes), ground);
                }
            } else if worker == 0
                && let Some((to, news)) = bus.poll_shard()
            {
                self.workers[0].moved += 1;
                let batch = std::mem::take(&mut self.workers[to].arrived);
                if to == 0 {
                    self.hand_news(0, news, &batch, ground);
                } else {
                    self.post(to, Mail::News(news, batch), ground);
                }
            } else {
                return;
            }
        }
    }

    fn hand_news(&mut self, worker: WorkerId, news: ToShard, batch: &Batch, ground: &mut Ground) {
        let now = self.clock(ground);
        let forecast = self.forecast(worker, batch, ground);
        self.shard(worker).handle_bus(news, now);
        self.compare(worker, forecast, ground);
    }

    /// A node exchanges wishes and news by itself.
    fn with_node(&mut self, ground: &mut Ground, input: impl FnOnce(&mut Node)) {
        let batch = std::mem::take(&mut self.workers[0].arrived);
        let forecast = self.forecast(0, &batch, ground);
        if let Machines::Node(node) = &mut self.machines {
            input(node);
        }
        self.compare(0, forecast, ground);
    }

    /// Mail takes its time and stays in order.
    fn post(&mut self, to: WorkerId, mail: Mail, ground: &mut Ground) {
        let delay = if self.is_lazy() { self.rng.u64(..LAZINESS) } else { 20 };
        let last = self.workers[to].mail.back().map_or(Instant::ZERO, |&(due, _)| due);
        let due = last.max(ground.now + micros(delay));
        self.workers[to].mail.push_back((due, mail));
        self.plan_turn(to, due, ground);
    }

    fn take_mail(&mut self, worker: WorkerId, ground: &mut Ground) {
        while let Some(&(due, _)) = self.workers[worker].mail.front()
            && due <= ground.now
            && let Some((_, mail)) = self.workers[worker].mail.pop_front()
        {
            self.workers[worker].moved += 1;
            let now = self.clock(ground);
            match mail {
                Mail::Socket(port, visit) => {
                    let id = self.shard(worker).handle_connection(None, now);
                    self.workers[worker].sockets.insert(id, port, visit);
                }
                Mail::News(news, batch) => self.hand_news(worker, news, &batch, ground),
                Mail::Wishes(from, wishes) => {
                    self.bus().handle_shard(from, wishes, now).expect("one of its workers");
                }
            }
        }
    }

    fn handle_timeouts(&mut self, worker: WorkerId, ground: &mut Ground) {
        let now = self.clock(ground);
        match &mut self.machines {
            Machines::Node(_) => self.with_node(ground, |node| node.handle_timeout(now)),
            Machines::Apart { bus, shards } => {
                if worker == 0 {
                    bus.handle_timeout(now);
                }
                shards[worker].handle_timeout(now);
            }
        }
    }

    fn take_bus_events(&mut self, ground: &mut Ground) {
        let number = self.number;
        while let Some(event) = self.bus().poll_event() {
            self.workers[0].moved += 1;
            ground.tell(|| format!("instance {number}: {event:?}"));
            if let bus::Event::Ready(readiness) = event {
                self.readiness.push((ground.now, readiness));
            }
            // Without a gap, it was the other connection: the loss of the subscribing one may yet be found.
            let bus::Event::GapEnded(gap) = event else { continue };
            let Some(lost) = ground.reference.take_lost(number) else { continue };
            let since = Instant::ZERO + ground.now.since(Instant::ZERO + gap.duration);
            // A driver's clock may be a little late.
            if since > lost + micros(10_000) {
                let what = format!("instance {number} missed messages since {lost:?} and told of {gap:?}");
                ground.fail(Promise::NoSilentLoss, what);
            }
        }
    }

    /// The worker sleeps until its machines want it, and not if they want it now.
    fn plan_next(&mut self, worker: WorkerId, ground: &mut Ground) {
        let machines = match &self.machines {
            Machines::Node(node) => node.poll_timeout(),
            Machines::Apart { bus, shards } if worker == 0 => {
                [bus.poll_timeout(), shards[0].poll_timeout()].into_iter().flatten().min()
            }
            Machines::Apart { shards, .. } => shards[worker].poll_timeout(),
        };
        let this = &mut self.workers[worker];
        let mail = this.mail.front().map(|&(due, _)| due);
        let ready = (this.sockets.is_ready() || (worker == 0 && self.lanes.are_ready())).then_some(ground.now);
        let Some(next) = [machines, mail, ready].into_iter().flatten().min() else { return };
        if this.idle.0 != ground.now || this.idle.1 != this.moved {
            this.idle = (ground.now, this.moved, 0);
        }
        this.idle.2 += 1;
        let idle_turns = this.idle.2;
        if idle_turns > IDLE_TURNS {
            let what =
                format!("instance {}, worker {worker}: {idle_turns} turns for nothing, and wants more", self.number);
            ground.fail(Promise::NoLivelock, what);
        }
        self.plan_turn(worker, next, ground);
    }

    fn check_bounds(&mut self, worker: WorkerId, ground: &mut Ground) {
        let (number, workers) = (self.number, self.workers.len());
        if worker == 0 {
            let stats = self.bus().stats();
            let most = self.limits.publish_bytes + workers * most_of_one_read(&self.limits);
            if stats.publish_bytes > most {
                let what = format!("instance {number}: {} bytes of publishes, {most} at most", stats.publish_bytes);
                ground.fail(Promise::Bounds, what);
            }
            if stats.missed > 0 {
                ground.reference.set_missed(number);
            }
            let (lost, most) = (stats.lost_connections, ground.reference.instances[number].lost_connections);
            if most.is_some_and(|most| lost > most) {
                let what = format!("instance {number} stood still and gave a sound connection to Redis up");
                ground.fail(Promise::Readiness, what);
            }
            self.check_drops(ground);
            let holes = ground.reference.holes(number);
            if let Some((worker, message)) = holes.first()
                && holes.len() as u64 > stats.missed
            {
                let (counted, lost) = (stats.missed, holes.len());
                let what = format!(
                    "instance {number} counts {counted} messages as missed, and sessions did not get {lost}; the first is \
                     message {message}, in worker {worker}"
                );
                ground.fail(Promise::NoSilentLoss, what);
            }
        }
        let stats = self.shard(worker).stats();
        let (queued, partial) = (stats.queued_bytes, stats.partial_bytes);
        // A session that keeps up takes any run of one read, whatever waits for others.
        let most = self.limits.all_queues_bytes / workers + self.workers[worker].sockets.len() * (68 << 10);
        if queued > most || partial > self.limits.partial_bytes / workers {
            ground.fail(Promise::Bounds, format!("instance {number}: {queued} bytes queued, {partial} unfinished"));
        }
    }
}

impl Instance {
    /// What slow readers did not get is counted.
    fn check_drops(&mut self, ground: &mut Ground) {
        let number = self.number;
        let counted: u64 = (0..self.workers.len())
            .map(|worker| self.shard(worker).stats())
            .map(|stats| stats.dropped_newest + stats.dropped_oldest + stats.dropped_latest)
            .sum();
        let dropped = ground.reference.dropped(number);
        if dropped > counted && self.bus().stats().missed == 0 {
            let what = format!("instance {number}: sessions did not get {dropped} messages, {counted} are counted");
            ground.fail(Promise::NoSilentLoss, what);
        }
    }
}

/// What one read of a client's socket may add to the publish queue: empty messages grow most.
fn most_of_one_read(limits: &Limits) -> usize {
    const READ_BYTES: usize = 16 << 10;
    const FRAME_BYTES: usize = 6;
    const COMMAND_BYTES: usize = 64;
    READ_BYTES + READ_BYTES.div_ceil(FRAME_BYTES) * (COMMAND_BYTES + 32) + limits.message_bytes
}
