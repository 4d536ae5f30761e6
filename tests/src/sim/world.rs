//! A fleet, its Redis, its clients and the network between them, on one clock that jumps from event to event.

use fanfare_core::redis::{Lane, RedisUrl};
use fanfare_core::route::{FrameType, Route, Routes};
use fanfare_core::settings::Settings;
use fanfare_core::time::{Duration, Instant};

use super::client::{Client, Phase};
use super::ground::{Event, Ground, Owner, Port, other};
use super::instance::Instance;
use super::plan::{Deed, Kind, Plan, Room, Way};
use super::redis::{Redis, State};
use super::reference::{Excuses, Reference};
use super::verdict::{Promise, Report};

/// From the end of the plan to the end of the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Everything comes right.
    Mended,
    /// One more message was published in every room.
    Probed,
    /// All clients were told to go.
    Emptied,
}

/// How often the world as a whole is looked at.
pub(super) const CHECK_EVERY: Duration = Duration::from_millis(500);
/// From silence on a connection to Redis to its end: a ping after 5 s, its answer within 5 s, and a margin.
const SILENCE_FOUND: Duration = Duration::from_millis(11_000);
/// How long a path may stand still after the end of the plan.
const STALLS_FOR: Duration = Duration::from_secs(10);
/// No plan of any mix needs as many.
const MOST_EVENTS: u64 = 1_000_000;

pub(super) struct World<'p> {
    pub(super) plan: &'p Plan,
    pub(super) ground: Ground,
    pub(super) redis: Redis,
    pub(super) instances: Vec<Instance>,
    pub(super) clients: Vec<Client>,
    /// For each instance, whether it and Redis are apart, and whether dials hang.
    pub(super) apart: Vec<Option<bool>>,
    /// For each instance, how many messages were missed before the last ones were published.
    pub(super) missed_before: Vec<u64>,
    /// For each instance, the room of a session that was not subscribed when the world was looked at last.
    pub(super) suspects: Vec<Option<usize>>,
    /// Since when everything is mended and nothing new begins.
    pub(super) settling: Option<Instant>,
    /// How far the end of the run has come.
    pub(super) stage: Stage,
    pub(super) done: bool,
    events: u64,
    opened: u64,
}

impl<'p> World<'p> {
    pub(super) fn new(plan: &'p Plan, traces: bool) -> Self {
        let setup = &plan.setup;
        let reference = Reference::new(&setup.rooms, setup.instances.len(), setup.clients.len(), &setup.limits);
        let mut rng = fastrand::Rng::with_seed(plan.seed);
        let url = match &setup.redis.password {
            Some(password) => format!("redis://:{password}@redis.test"),
            None => "redis://redis.test".to_owned(),
        };
        let url: RedisUrl = url.parse().expect("a URL");
        let instances = setup.instances.iter().enumerate();
        let instances = instances.map(|(i, instance)| {
            let mut settings = settings(plan);
            settings.workers = instance.workers;
            Instance::new(i, *instance, settings, &url, rng.u64(..))
        });
        let instances: Vec<Instance> = instances.collect();
        let clients = setup.clients.iter().enumerate();
        let clients = clients.map(|(i, client)| Client::new(i, *client, plan.seed ^ (i as u64) << 32)).collect();
        let mut world = Self {
            plan,
            ground: Ground::new(reference, traces),
            redis: Redis::new(setup.redis.clone()),
            apart: vec![None; instances.len()],
            missed_before: Vec::new(),
            suspects: vec![None; instances.len()],
            instances,
            clients,
            settling: None,
            stage: Stage::Mended,
            done: false,
            events: 0,
            opened: 0,
        };
        world.begin();
        world
    }

    fn begin(&mut self) {
        for i in 0..self.instances.len() {
            self.ground.reference.set_calm(i, true, Instant::ZERO);
            for worker in 0..self.instances[i].workers.len() {
                self.instances[i].plan_turn(worker, Instant::ZERO, &mut self.ground);
            }
        }
        if let Some(first) = self.plan.steps.first() {
            self.ground.at(first.at, Event::Step(0));
        }
        self.ground.at(self.plan.end, Event::Step(self.plan.steps.len()));
        self.ground.after(CHECK_EVERY, Event::Check);
    }

    /// Runs to the end, or to the first failure.
    pub(super) fn run(&mut self) {
        while self.ground.failure.is_none()
            && !self.done
            && let Some(event) = self.ground.next()
        {
            self.events += 1;
            if self.events > MOST_EVENTS {
                self.ground.fail(Promise::NoLivelock, format!("{MOST_EVENTS} events and no end"));
            }
            self.happen(event);
        }
    }

    pub(super) fn report(&mut self) -> Report {
        Report {
            failure: self.ground.failure.take(),
            trace: self.ground.trace.take().unwrap_or_default(),
            digest: self.ground.digest,
            received: std::mem::take(&mut self.ground.reference.received),
            events: self.events,
            deliveries: self.ground.reference.deliveries,
            visits: self.opened,
            published: (0..self.instances.len()).map(|i| self.ground.reference.published_by(i)).sum(),
            readiness: self.instances.iter_mut().map(|instance| std::mem::take(&mut instance.readiness)).collect(),
            buses: self.instances.iter_mut().map(|instance| instance.bus().stats()).collect(),
            slowest_pong: self.ground.reference.slowest_pong,
            ends: std::mem::take(&mut self.ground.reference.ends),
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Step(step) if step < self.plan.steps.len() => {
                let deed = &self.plan.steps[step].deed;
                self.ground.tell(|| deed.to_string());
                self.perform(deed);
                if let Some(next) = self.plan.steps.get(step + 1) {
                    self.ground.at(next.at, Event::Step(step + 1));
                }
            }
            Event::Step(_) => self.settle(),
            Event::Wake(port) => self.wake(port),
            Event::Turn { instance, worker } => self.instances[instance].turn(worker, &mut self.ground),
            Event::Dialled { instance, lane, attempt } => self.dialled(instance, lane, attempt),
            Event::Return { client, visit } => {
                if self.clients[client].visit == visit && self.settling.is_none() {
                    self.join(client);
                }
            }
            Event::Loaded => {
                if self.redis.state == State::Loading {
                    self.redis.state = State::Up;
                    self.note_weather(Duration::ZERO);
                }
            }
            Event::Check => self.check(),
        }
    }

    fn wake(&mut self, port: Port) {
        match self.ground.owner(port) {
            Some(Owner::Client(client)) => self.clients[client].turn(&mut self.ground),
            Some(Owner::Redis) => self.redis.turn(port, &mut self.ground),
            Some(Owner::Worker { instance, worker }) => {
                self.instances[instance].socket_wakes(worker, port, &mut self.ground);
            }
            Some(Owner::Lane { instance, lane }) => {
                let instance = &mut self.instances[instance];
                if instance.lanes.port(lane) == Some(port) {
                    instance.lanes.wake(lane);
                    instance.plan_turn(0, self.ground.now, &mut self.ground);
                }
            }
            None => {}
        }
    }

    fn dialled(&mut self, instance: usize, lane: Lane, attempt: u32) {
        if self.apart[instance] == Some(true) {
            return;
        }
        let takes = self.apart[instance].is_none() && self.redis.takes_dial();
        let result = if takes {
            let owners = [Owner::Lane { instance, lane }, Owner::Redis];
            let seed = self.plan.seed ^ (instance as u64) << 8 ^ (lane as u64) << 16 ^ u64::from(attempt) << 24;
            let [ours, theirs] = self.ground.connect(owners, self.plan.setup.line, seed);
            Ok((ours, theirs))
        } else {
            Err(())
        };
        let one = &mut self.instances[instance];
        if one.lanes.dialled(lane, attempt, result.map(|(ours, _)| ours)) {
            if let Ok((_, theirs)) = result {
                self.redis.accept(theirs, (instance, lane));
            }
            one.plan_turn(0, self.ground.now, &mut self.ground);
        } else if let Ok((ours, theirs)) = result {
            self.ground.close(ours);
            self.ground.close(theirs);
        }
    }

    pub(super) fn join(&mut self, client: usize) {
        if self.clients[client].phase != Phase::Away {
            return;
        }
        let setup = self.clients[client].setup;
        let line = setup.line;
        let is_slow = line.per_kib > 20_000 || line.room < 16 << 10;
        let excuses = Excuses { slow: is_slow, mute: !setup.answers, ..Excuses::default() };
        let visit = self.ground.reference.visit(client, &setup, excuses);
        self.opened += 1;
        let owners = [Owner::Client(client), Owner::Worker { instance: setup.instance, worker: 0 }];
        let seed = self.plan.seed ^ (client as u64) << 20 ^ (visit as u64) << 40;
        let [ours, theirs] = self.ground.connect(owners, line, seed);
        let instance = &mut self.instances[setup.instance];
        let is_hindered = instance.stands_still(&self.ground);
        let worker = instance.accept(theirs, visit, &mut self.ground);
        self.ground.set_owner(theirs, Owner::Worker { instance: setup.instance, worker });
        self.ground.reference.visits[visit].worker = worker;
        self.clients[client].connected(ours, visit, &mut self.ground);
        self.clients[client].is_hindered |= is_hindered;
    }

    // What the plan asks for.

    fn perform(&mut self, deed: &Deed) {
        match *deed {
            Deed::Join(client) => self.join(client),
            Deed::Send { client, bytes, pieces } => self.clients[client].send(bytes, pieces, &mut self.ground),
            Deed::Ping(client) => self.clients[client].ping(&mut self.ground),
            Deed::StopReading(client) => self.clients[client].set_reads(false, &mut self.ground),
            Deed::ReadOn(client) => self.clients[client].set_reads(true, &mut self.ground),
            Deed::Stall { client, millis } => {
                if let Some(port) = self.clients[client].port() {
                    self.ground.reference.visits[self.clients[client].visit].excuses.slow = true;
                    self.clients[client].is_hindered = true;
                    // What was said meanwhile has to arrive before everything is looked at.
                    let latest = self.plan.end + STALLS_FOR;
                    self.ground.stall(port, latest.min(self.ground.now + Duration::from_millis(millis)));
                }
            }
            Deed::Leave { client, how } => self.clients[client].leave(how, &mut self.ground),
            Deed::Rude { client, rudeness } => {
                self.clients[client].be_rude(rudeness, self.plan.setup.limits.message_bytes, &mut self.ground);
            }
            Deed::Storm => {
                for client in 0..self.clients.len() {
                    if self.clients[client].phase != Phase::Away {
                        self.clients[client].leave(Way::Reset, &mut self.ground);
                        self.join(client);
                    }
                }
            }
            Deed::CloseSession(client) => self.close_session(client),
            Deed::Publish { room, bytes, kind } => self.publish(room, bytes, kind),
            Deed::Cut { instance, lane, how } => self.cut(instance, lane, how),
            Deed::Isolate { instance, hang } => {
                self.apart[instance] = Some(hang);
                for lane in Lane::ALL {
                    if let Some(port) = self.instances[instance].lanes.port(lane) {
                        self.ground.lose(port);
                    }
                }
                self.note_calm(instance, SILENCE_FOUND);
            }
            Deed::Reunite(instance) => {
                if self.apart[instance].take().is_some() {
                    self.note_calm(instance, Duration::ZERO);
                }
            }
            Deed::HalfOpen { instance, lane, inward } => {
                if let Some(port) = self.instances[instance].lanes.port(lane) {
                    self.ground.lose_half(if inward { other(port) } else { port });
                    self.note_calm(instance, SILENCE_FOUND);
                }
            }
            Deed::HoldMessages => {
                self.redis.holds = true;
                self.note_weather(Duration::ZERO);
            }
            Deed::PassMessages => {
                // A probe that was held may only be missed a while later.
                let later = if std::mem::take(&mut self.redis.holds) { SILENCE_FOUND } else { Duration::ZERO };
                self.note_weather(later);
            }
            Deed::ForbidProbes => self.ground.reference.forbid_probes(true, self.ground.now),
            Deed::AllowProbes => self.ground.reference.forbid_probes(false, self.ground.now),
            Deed::StopRedis { silent } => {
                self.redis.stop(silent, &mut self.ground);
                self.note_weather(if silent { SILENCE_FOUND } else { Duration::ZERO });
            }
            Deed::StartRedis { loading, refuses } => self.start_redis(loading, refuses),
            Deed::FreezeRedis => {
                if self.redis.state == State::Up {
                    self.redis.state = State::Frozen;
                    self.note_weather(Duration::ZERO);
                }
            }
            Deed::ThawRedis => {
                self.redis.thaw(&mut self.ground);
                self.note_weather(Duration::ZERO);
            }
            Deed::StandStill { instance, millis } => self.stand_still(instance, Duration::from_millis(millis)),
        }
    }

    /// No client is excused by it: what it sent meanwhile lies in its socket, and counts when the instance goes on.
    fn stand_still(&mut self, instance: usize, time: Duration) {
        let until = self.plan.end.min(self.ground.now + time);
        self.instances[instance].stand_still(until);
        let view = &mut self.ground.reference.instances[instance];
        view.stands_until = view.stands_until.max(until);
        for client in self.clients.iter_mut().filter(|client| client.setup.instance == instance) {
            client.is_hindered = true;
        }
        let was_calm = self.ground.reference.is_calm_for(instance, SILENCE_FOUND, self.ground.now);
        // Redis may have given its connections up meanwhile.
        self.note_calm(instance, until.since(self.ground.now) + SILENCE_FOUND);
        let lost = self.instances[instance].bus().stats().lost_connections;
        self.ground.reference.instances[instance].lost_connections = was_calm.then_some(lost);
    }

    fn close_session(&mut self, client: usize) {
        let visit = self.clients[client].visit;
        if !self.clients[client].is_open() {
            return;
        }
        let instance = &mut self.instances[self.clients[client].setup.instance];
        if instance.stands_still(&self.ground) {
            return;
        }
        for worker in 0..instance.workers.len() {
            let session = instance.workers[worker].sockets.visits().find(|&(one, _)| one == visit);
            if let Some((_, id)) = session {
                self.ground.reference.visits[visit].excuses.closed = true;
                let now = self.ground.now;
                // Refused if it is closing already.
                let _ = instance.shard(worker).close(id, 1000, "that is all", now);
                instance.plan_turn(worker, now, &mut self.ground);
            }
        }
    }

    pub(super) fn publish(&mut self, room: usize, bytes: usize, kind: Kind) {
        let Room { channel, frame, .. } = self.ground.reference.room(room).clone();
        let most = self.plan.setup.limits.message_bytes;
        let bytes = self.ground.reference.size(room, bytes);
        let messages = &mut self.ground.reference.messages;
        let id = match kind {
            Kind::Plain => messages.make(room, bytes.min(most), frame),
            Kind::NotUtf8 if frame == FrameType::Text => messages.make_unwanted(room, bytes.min(most - 1)),
            Kind::NotUtf8 => messages.make(room, bytes.min(most), frame),
            Kind::TooBig => messages.make(room, most + 1 + bytes, frame),
        };
        if matches!(self.redis.state, State::Down | State::Frozen) {
            return;
        }
        let payload = self.ground.reference.messages.get(id).payload.clone();
        self.redis.publish(None, channel.as_bytes(), &payload, &mut self.ground);
    }

    fn cut(&mut self, instance: usize, lane: Lane, how: Way) {
        let Some(port) = self.instances[instance].lanes.port(lane) else { return };
        match how {
            Way::Orderly | Way::Fin => self.redis.drop_client(other(port), &mut self.ground),
            Way::Reset => self.ground.cut(port),
            Way::Silent => self.ground.lose(port),
        }
        self.note_calm(instance, if how == Way::Silent { SILENCE_FOUND } else { Duration::ZERO });
    }

    fn start_redis(&mut self, loading: u64, refuses: u32) {
        if self.redis.state != State::Down {
            return;
        }
        self.redis.state = if loading > 0 { State::Loading } else { State::Up };
        self.redis.refuses = refuses;
        self.ground.after(Duration::from_millis(loading), Event::Loaded);
        self.note_weather(Duration::ZERO);
    }

    /// Redis or the path to it has changed, for all instances.
    fn note_weather(&mut self, later: Duration) {
        (0..self.instances.len()).for_each(|instance| self.note_calm(instance, later));
    }

    /// What has happened is known to the link only `later`.
    fn note_calm(&mut self, instance: usize, later: Duration) {
        let is_calm = self.redis.state == State::Up && !self.redis.holds && self.apart[instance].is_none();
        self.ground.reference.set_calm(instance, is_calm, self.ground.now + later);
    }

    /// The plan is over: everything is mended, and has to come right.
    fn settle(&mut self) {
        self.ground.tell(|| "everything is mended".to_owned());
        self.settling = Some(self.ground.now);
        for instance in 0..self.instances.len() {
            self.perform(&Deed::Reunite(instance));
        }
        self.perform(&Deed::ThawRedis);
        self.perform(&Deed::PassMessages);
        self.perform(&Deed::AllowProbes);
        self.perform(&Deed::StartRedis { loading: 0, refuses: 0 });
        for client in 0..self.clients.len() {
            self.clients[client].read_on(&mut self.ground);
        }
    }
}

fn settings(plan: &Plan) -> Settings {
    let routes = [
        "/chat/{room}=chat:{room}",
        "/bin/{room}=bin:{room},binary",
        "/feed/{room}=feed:{room},publish=no",
        "/new/{room}=new:{room},slow=drop_newest",
        "/old/{room}=old:{room},slow=drop_oldest",
        "/late/{room}=late:{room},slow=latest,publish=no,binary",
        "/last/{room}=last:{room},slow=latest",
        "/tight/{room}=tight:{room},on_gap=close",
    ];
    let given: Vec<Route> = routes.iter().map(|route| route.parse().expect("a route")).collect();
    let chat =
        Routes::default_chat().into_iter().filter(|chat| given.iter().all(|one| one.pattern() != chat.pattern()));
    let routes = given.iter().cloned().chain(chat).collect();
    Settings::new(plan.setup.limits.clone(), routes, "").expect("settings that make sense")
}
