//! From a seed to a plan: who is there, and what befalls them.

use fanfare_core::limits::Limits;
use fanfare_core::redis::Lane;
use fanfare_core::route::{FrameType, OnGap, Policies, Slow};
use fanfare_core::time::{Duration, Instant};
use fastrand::Rng;

use super::plan::{
    ClientSetup, Deed, Driver, InstanceSetup, Kind, Line, Plan, RedisSetup, Room, Rudeness, Setup, Step, Way,
};
use super::slow::ENTRY_BYTES;

/// Simulated time in which things happen.
const LENGTH: Duration = Duration::from_secs(60);
const CLIENTS: usize = 50;
/// Microseconds a KiB: some 5 s for the longest message.
const THIN: u64 = 50_000;

impl Plan {
    /// The standard mix: at least 3 instances, 50 clients, and 60 seconds of sending, coming and going, with trouble.
    #[must_use]
    pub fn standard(seed: u64) -> Self {
        let mut draft = Draft::new(seed);
        draft.lives();
        draft.traffic();
        draft.troubles();
        draft.stands();
        draft.plan()
    }

    /// Nothing goes wrong, every bound is far away, and each room has one sender: what clients get is then settled
    /// whoever drives the instances.
    #[must_use]
    pub fn calm(seed: u64, driver: Driver) -> Self {
        let mut draft = Draft::new(seed);
        draft.setup.limits = Limits::default();
        // What waits when a socket is found to be full depends on who drives.
        draft.setup.rooms.retain(|room| room.policies.slow != Slow::Latest);
        draft.setup.instances.iter_mut().for_each(|instance| instance.driver = driver);
        for (i, client) in draft.setup.clients.iter_mut().enumerate() {
            (client.answers, client.returns, client.hasty) = (true, None, false);
            client.line = Line { room: 256 << 10, per_kib: 10, ..client.line };
            client.room = i % draft.setup.rooms.len();
        }
        for client in 0..draft.setup.clients.len() {
            draft.at(0, 500, Deed::Join(client));
        }
        for client in 0..draft.setup.rooms.len() {
            for _ in 0..40 {
                // Empty ones are numbered when Redis carries them out, which depends on who drives.
                let (bytes, pieces) = (draft.size().max(8), 1 + draft.rng.usize(..3));
                draft.at(5_000, 60_000, Deed::Send { client, bytes, pieces });
            }
        }
        draft.plan()
    }

    /// So many nodes, driven eagerly, and so many clients in one room, spread over the nodes, all on good lines;
    /// nothing happens yet.
    #[must_use]
    pub fn still(instances: usize, clients: usize) -> Self {
        let line = Line { latency: 1_000, jitter: 0, per_kib: 1, room: 256 << 10, crumbs: false };
        let client = |i| ClientSetup {
            instance: i % instances,
            room: 0,
            line,
            answers: true,
            returns: None,
            hasty: false,
            notes: false,
        };
        let (path, channel, policies) = ("/chat/r".into(), "chat:r".into(), Policies::default());
        let room = Room { path, channel, frame: FrameType::Text, publish: true, policies };
        let setup = Setup {
            instances: vec![InstanceSetup { workers: 1, driver: Driver::Eager }; instances],
            clients: (0..clients).map(client).collect(),
            rooms: vec![room],
            redis: RedisSetup { resp3: true, password: None, output_limit: 8 << 20 },
            limits: Limits::default(),
            line,
        };
        Self { seed: 1, setup, steps: Vec::new(), end: Instant::ZERO + LENGTH }
    }

    /// With one more thing that happens, so many milliseconds after the start.
    #[must_use]
    pub fn at(mut self, millis: u64, deed: Deed) -> Self {
        let at = Instant::from_micros(millis * 1_000);
        let place = self.steps.partition_point(|step| step.at <= at);
        self.steps.insert(place, Step { at, deed });
        self.end = self.end.max(at + Duration::from_secs(5));
        self
    }

    /// With all clients coming at the start.
    #[must_use]
    pub fn joined(self) -> Self {
        (0..self.setup.clients.len()).fold(self, |plan, client| plan.at(10, Deed::Join(client)))
    }
}

struct Draft {
    seed: u64,
    rng: Rng,
    setup: Setup,
    steps: Vec<Step>,
    /// The payload size of most messages, if queues are to be filled to the byte.
    usual: Option<usize>,
}

impl Draft {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let (mut limits, usual) = limits(&mut rng);
        // With tight bounds a session may be on its way to the end, out of its channel, without anybody else's doing.
        if usual.is_none() && rng.u8(..4) == 0 {
            let linger = rng.usize(..3);
            limits.linger_time = Duration::from_millis([0, 100, 1_000][linger]);
            // So few that some have to go before their time.
            limits.lingering_channels = [10_000, 10_000, 1][linger];
        }
        let rooms = rooms(&mut rng);
        let instance = |rng: &mut Rng| InstanceSetup {
            workers: if rng.bool() { 1 } else { rng.usize(2..=3) },
            driver: if rng.u8(..3) == 0 { Driver::Eager } else { Driver::Lazy },
        };
        let instances: Vec<_> = (0..rng.usize(3..=4)).map(|_| instance(&mut rng)).collect();
        let mut clients: Vec<_> = (0..CLIENTS).map(|_| client(&mut rng, instances.len(), rooms.len())).collect();
        if let Some(usual) = usual {
            // A socket that is full at the end of a frame leaves whole frames in the queue.
            clients.iter_mut().for_each(|client| client.line.room -= client.line.room % (usual + 4));
        }
        let redis = RedisSetup {
            resp3: rng.u8(..4) > 0,
            password: rng.bool().then(|| "a secret".to_owned()),
            output_limit: if rng.u8(..4) == 0 { 128 << 10 } else { 8 << 20 },
        };
        let latency = [100, 1_000, 20_000][rng.usize(..3)];
        let line = Line { latency, jitter: latency, per_kib: 2, room: 64 << 10, crumbs: rng.bool() };
        Self { seed, rng, setup: Setup { instances, clients, rooms, redis, limits, line }, steps: Vec::new(), usual }
    }

    fn plan(mut self) -> Plan {
        // Stable: what is drawn first happens first.
        self.steps.sort_by_key(|step| step.at);
        Plan { seed: self.seed, setup: self.setup, steps: self.steps, end: Instant::ZERO + LENGTH }
    }

    /// Somewhere between two times in milliseconds.
    fn at(&mut self, from: u64, to: u64, deed: Deed) {
        let at = Instant::from_micros(self.rng.u64(from * 1_000..to * 1_000));
        self.steps.push(Step { at, deed });
    }

    /// Clients come, some go, and some of these come back, often within the time that a channel lingers.
    fn lives(&mut self) {
        let millis = LENGTH.as_millis() as u64;
        for client in 0..CLIENTS {
            let early = self.rng.u8(..4) > 0;
            self.at(0, if early { 3_000 } else { millis }, Deed::Join(client));
            if self.rng.u8(..8) == 0 {
                // Gone again before its channel can be confirmed.
                let from = self.rng.u64(3_000..millis);
                self.at(from, from + 1, Deed::Join(client));
                self.at(from + 1, from + 60, Deed::Leave { client, how: Way::Reset });
            }
            if self.rng.u8(..3) == 0 {
                continue;
            }
            let mut from = self.rng.u64(5_000..millis - 5_000);
            while from < millis {
                let how = match self.rng.u8(..8) {
                    0 => Way::Silent,
                    1 => Way::Reset,
                    2 => Way::Fin,
                    _ => Way::Orderly,
                };
                self.at(from, from + 1, Deed::Leave { client, how });
                let away = self.rng.u64(10..9_000);
                self.at(from + away, from + away + 1, Deed::Join(client));
                from += away + self.rng.u64(3_000..40_000);
            }
        }
    }

    /// Messages and pings, in bursts now and then, and from programs beside.
    fn traffic(&mut self) {
        let millis = LENGTH.as_millis() as u64;
        for _ in 0..self.rng.usize(200..500) {
            let client = self.rng.usize(..CLIENTS);
            let (bytes, pieces) = (self.size(), if self.rng.u8(..4) == 0 { self.rng.usize(1..6) } else { 1 });
            self.at(500, millis, Deed::Send { client, bytes, pieces });
        }
        for _ in 0..self.rng.usize(..4) {
            let (client, from) = (self.rng.usize(..CLIENTS), self.rng.u64(2_000..millis));
            for _ in 0..self.rng.usize(5..60) {
                let bytes = self.size().min(4_000);
                self.at(from, from + 300, Deed::Send { client, bytes, pieces: 1 });
            }
        }
        for _ in 0..self.rng.usize(..60) {
            let client = self.rng.usize(..CLIENTS);
            self.at(500, millis, Deed::Ping(client));
        }
        for _ in 0..self.rng.usize(20..100) {
            let (room, bytes) = (self.rng.usize(..self.setup.rooms.len()), self.size());
            let kind = match self.rng.u8(..20) {
                0 => Kind::NotUtf8,
                1 => Kind::TooBig,
                _ => Kind::Plain,
            };
            self.at(500, millis, Deed::Publish { room, bytes, kind });
        }
    }

    /// A few of everything that can go wrong.
    fn troubles(&mut self) {
        let millis = LENGTH.as_millis() as u64;
        for _ in 0..self.rng.usize(..12) {
            let client = self.rng.usize(..CLIENTS);
            let from = self.rng.u64(2_000..millis);
            match self.rng.u8(..8) {
                0 | 1 => self.slow_reader(client, from),
                7 => self.pings_amid_data(client, from),
                2 => {
                    let stall = self.rng.u64(100..30_000);
                    self.at(from, from + 1, Deed::Stall { client, millis: stall });
                }
                3 => self.at(from, from + 1, Deed::CloseSession(client)),
                _ => {
                    let rudeness = Rudeness::ALL[self.rng.usize(..Rudeness::ALL.len())];
                    self.at(from, from + 1, Deed::Rude { client, rudeness });
                }
            }
        }
        if self.rng.u8(..8) == 0 {
            self.at(5_000, millis, Deed::Storm);
        }
        for _ in 0..self.rng.usize(..5) {
            let (instance, from) = (self.rng.usize(..self.setup.instances.len()), self.rng.u64(1_000..millis));
            let length = self.rng.u64(50..15_000);
            match self.rng.u8(..14) {
                0..5 => {
                    for _ in 0..self.rng.usize(1..4) {
                        let lane = Lane::ALL[self.rng.usize(..2)];
                        let how = [Way::Fin, Way::Reset, Way::Silent][self.rng.usize(..3)];
                        let near = self.rng.u64(1..1_500);
                        self.at(from, from + near, Deed::Cut { instance, lane, how });
                    }
                }
                5..7 => {
                    let hang = self.rng.bool();
                    self.at(from, from + 1, Deed::Isolate { instance, hang });
                    self.at(from + length, from + length + 1, Deed::Reunite(instance));
                }
                7 | 8 => {
                    let silent = self.rng.u8(..4) == 0;
                    let loading = if self.rng.bool() { 0 } else { self.rng.u64(1..4_000) };
                    let refuses = self.rng.u32(..4);
                    self.at(from, from + 1, Deed::StopRedis { silent });
                    self.at(from + length, from + length + 1, Deed::StartRedis { loading, refuses });
                }
                9 | 10 => {
                    let (lane, inward) = (Lane::ALL[self.rng.usize(..2)], self.rng.bool());
                    self.at(from, from + 1, Deed::HalfOpen { instance, lane, inward });
                }
                11 => {
                    self.at(from, from + 1, Deed::HoldMessages);
                    self.at(from + length, from + length + 1, Deed::PassMessages);
                }
                12 => {
                    self.at(from, from + 1, Deed::ForbidProbes);
                    self.at(from + length, from + length + 1, Deed::AllowProbes);
                }
                _ => {
                    self.at(from, from + 1, Deed::FreezeRedis);
                    self.at(from + length, from + length + 1, Deed::ThawRedis);
                }
            }
        }
    }

    /// Instances that stand still, some for longer than any deadline of a client.
    fn stands(&mut self) {
        let millis = LENGTH.as_millis() as u64;
        for _ in 0..self.rng.usize(..3) {
            let (instance, from) = (self.rng.usize(..self.setup.instances.len()), self.rng.u64(1_000..millis));
            let millis = if self.rng.bool() { self.rng.u64(50..5_000) } else { self.rng.u64(5_000..45_000) };
            self.at(from, from + 1, Deed::StandStill { instance, millis });
        }
    }

    /// A client stops reading while its room is busy.
    fn slow_reader(&mut self, client: usize, from: u64) {
        self.at(from, from + 1, Deed::StopReading(client));
        let room = self.setup.clients[client].room;
        for _ in 0..self.rng.usize(..60) {
            let bytes = self.size();
            self.at(from, from + 8_000, Deed::Publish { room, bytes, kind: Kind::Plain });
        }
        let later = from + self.rng.u64(500..20_000);
        self.at(later, later + 1, Deed::ReadOn(client));
    }

    /// A client with a thin line pings while much waits for it.
    fn pings_amid_data(&mut self, client: usize, from: u64) {
        let ClientSetup { line, room, .. } = &mut self.setup.clients[client];
        (line.per_kib, line.room) = (THIN, 4 << 10);
        let room = *room;
        for _ in 0..self.rng.usize(8..16) {
            let bytes = self.rng.usize(8_000..20_000);
            self.at(from, from + 300, Deed::Publish { room, bytes, kind: Kind::Plain });
        }
        for i in 0..10 {
            self.at(from + 700 * i, from + 700 * (i + 1), Deed::Ping(client));
        }
    }

    /// Mostly small; now and then where the length of a frame takes another form, or as large as can be.
    fn size(&mut self) -> usize {
        let most = self.setup.limits.message_bytes;
        if let Some(usual) = self.usual
            && self.rng.u8(..8) > 0
        {
            return usual;
        }
        let size = match self.rng.u8(..40) {
            0 => [0, 125, 126, 127, 65_535, 65_536][self.rng.usize(..6)],
            1 => most - self.rng.usize(..2),
            2..10 => self.rng.usize(8..8_000),
            _ => self.rng.usize(8..300),
        };
        size.min(most)
    }
}

/// The defaults, or bounds so tight that they are reached, with the payload size that fills a queue to the byte.
fn limits(rng: &mut Rng) -> (Limits, Option<usize>) {
    let mut limits = Limits::default();
    if rng.u8(..3) > 0 {
        return (limits, None);
    }
    let usual = rng.usize(130..1_000);
    let frame = usual + 4;
    limits.message_bytes = rng.usize(usual..2_000).max(usual);
    limits.queue_bytes = (frame * rng.usize(3..12)).max(limits.message_bytes) + rng.usize(..2);
    if rng.bool() {
        // Exactly so many frames, each in a run of its own, or one byte less.
        let frames = rng.usize(3..12);
        limits.queue_bytes = frame * frames + ENTRY_BYTES * (frames - 1) - rng.usize(..2);
        limits.message_bytes = limits.message_bytes.min(limits.queue_bytes);
    }
    if rng.u8(..3) == 0 {
        limits.all_queues_bytes = limits.queue_bytes * rng.usize(3..20);
    }
    if rng.bool() {
        limits.publish_bytes = limits.message_bytes * rng.usize(4..40);
    }
    if rng.u8(..3) == 0 {
        limits.mailbox_bytes = limits.message_bytes * rng.usize(4..40);
    }
    if rng.u8(..3) == 0 {
        limits.partial_bytes = limits.message_bytes * rng.usize(50..100);
    }
    if rng.bool() {
        limits.publish_time = Duration::from_millis(rng.u64(2_000..20_000));
    }
    (limits, Some(usual))
}

fn rooms(rng: &mut Rng) -> Vec<Room> {
    use FrameType::{Binary, Text};
    let drops = |slow| {
        let mut policies = Policies::default();
        policies.slow = slow;
        policies
    };
    let mut tight = Policies::default();
    tight.on_gap = OnGap::Close;
    let kinds = [
        ("chat", Text, true, Policies::default()),
        ("bin", Binary, true, Policies::default()),
        ("feed", Text, false, Policies::default()),
        ("new", Text, true, drops(Slow::DropNewest)),
        ("old", Text, true, drops(Slow::DropOldest)),
        ("late", Binary, false, drops(Slow::Latest)),
        ("last", Text, true, drops(Slow::Latest)),
        ("tight", Text, true, tight),
    ];
    (0..rng.usize(2..=12))
        .map(|i| {
            let (kind, frame, publish, policies) = kinds[if i < 2 { i } else { rng.usize(..kinds.len()) }];
            Room { path: format!("/{kind}/r{i}"), channel: format!("{kind}:r{i}"), frame, publish, policies }
        })
        .collect()
}

fn client(rng: &mut Rng, instances: usize, rooms: usize) -> ClientSetup {
    let latency = [200, 5_000, 80_000][rng.usize(..3)];
    let (per_kib, room) = match rng.u8(..12) {
        0 => (THIN, 4 << 10),
        1 => (100, 2 << 10),
        _ => (20, 64 << 10),
    };
    ClientSetup {
        instance: rng.usize(..instances),
        room: rng.usize(..rooms),
        line: Line { latency, jitter: latency / 2, per_kib, room, crumbs: rng.bool() },
        answers: rng.u8(..20) > 0,
        returns: (rng.u8(..3) > 0).then(|| rng.u64(50..6_000)),
        hasty: rng.u8(..12) == 0,
        notes: rng.bool(),
    }
}
