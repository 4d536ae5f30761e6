//! Random histories, after which everything must have come right.

use std::collections::{BTreeMap, BTreeSet};

use fastrand::Rng;

use crate::limits::Limits;
use crate::redis::world::{World, ms, url};
use crate::redis::{Lane, LinkEvent};
use crate::resp::encode;

const CHANNELS: usize = 6;

struct History {
    world: World,
    rng: Rng,
    wanted: BTreeSet<String>,
    messages: usize,
    bytes: usize,
    events: Vec<LinkEvent>,
}

impl History {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let mut world = World::with(url(), &Limits::default(), seed);
        if rng.bool() {
            world.server.refuses_hello = Some("-ERR unknown command 'HELLO'\r\n");
        }
        world.piece = *rng.choice(&[1, 7, 50, usize::MAX]).unwrap();
        Self { world, rng, wanted: BTreeSet::new(), messages: 0, bytes: 0, events: Vec::new() }
    }

    fn step(&mut self) {
        let channel = format!("c{}", self.rng.usize(0..CHANNELS));
        let lane = *self.rng.choice(&Lane::ALL).unwrap();
        let world = &mut self.world;
        match self.rng.u8(0..26) {
            0..=3 => {
                world.subscribe(&channel);
                self.wanted.insert(channel);
            }
            4..=5 => {
                world.unsubscribe(&channel);
                self.wanted.remove(&channel);
            }
            6..=10 => {
                let payload = self.messages.to_string();
                let mut encoded = Vec::new();
                encode::publish(&mut encoded, channel.as_bytes(), payload.as_bytes());
                self.messages += 1;
                self.bytes += encoded.len();
                world.publish(&channel, &payload);
            }
            11 => world.cut(lane),
            12 => world.stop(),
            13..=14 => world.start(),
            15 => world.dials_hang = self.rng.bool(),
            16 if world.server.clients.contains_key(&lane) => drop(world.stuck.insert(lane)),
            17 if world.server.clients.contains_key(&lane) => drop(world.full.insert(lane)),
            18 => world.server.is_mute = self.rng.bool(),
            20 => world.server.delivers_nothing = self.rng.bool(),
            21 => {
                let choices: [&[&str]; 3] = [&[], &["PUBLISH"], &["SUBSCRIBE"]];
                world.server.denies_probes = choices[self.rng.usize(..3)].to_vec();
            }
            22..=23 => world.server.busy = self.rng.bool().then_some("-BUSY\r\n"),
            24 => world.server.elsewhere = self.rng.bool().then_some("-READONLY\r\n"),
            25 => world.server.is_replica = self.rng.bool(),
            19 => world.server.not_ready = self.rng.bool().then_some("-LOADING\r\n"),
            _ => self.open(),
        }
        let time = *self.rng.choice(&[0, 1, 50, 700, 6_000, 30_000]).unwrap();
        self.world.pass(ms(self.rng.u64(0..=time)));
        self.events.extend(self.world.take_events());
    }

    /// Sockets work again.
    fn open(&mut self) {
        self.world.stuck.clear();
        self.world.full.clear();
        for lane in Lane::ALL {
            self.world.link.handle_writable(lane);
        }
        self.world.run();
    }

    fn heal(&mut self) {
        self.world.server.is_mute = false;
        self.world.server.not_ready = None;
        self.world.server.delivers_nothing = false;
        self.world.server.busy = None;
        self.world.server.elsewhere = None;
        self.world.server.is_replica = false;
        self.world.server.denies_probes.clear();
        self.world.is_reachable = true;
        self.open();
        self.world.pass(ms(12_000));
        self.events.extend(self.world.take_events());
    }

    fn check(&self) {
        let world = &self.world;
        assert!(world.link.is_up());
        assert_eq!(world.link.readiness(), Ok(()));
        assert_eq!(world.link.confirmed_channels(), self.wanted.len());
        let server = world.server.channels();
        let server: BTreeSet<String> = server.iter().map(|name| String::from_utf8_lossy(name).into_owned()).collect();
        assert_eq!(server, self.wanted);
        assert!(world.link.is_flushed());
        self.check_publishes();
    }

    fn check_publishes(&self) {
        let mut times: BTreeMap<usize, usize> = BTreeMap::new();
        let mut last = None;
        for payload in self.world.published() {
            let number = payload.parse().unwrap();
            *times.entry(number).or_default() += 1;
            assert!(last < Some(number), "in order: {last:?}, {number}");
            last = Some(number);
        }
        assert!(times.values().all(|&times| times == 1), "at most once");
        let count = |of: fn(&LinkEvent) -> usize| self.events.iter().map(of).sum::<usize>();
        let unconfirmed = count(|event| if let LinkEvent::Unconfirmed { messages } = event { *messages } else { 0 });
        let expired = count(|event| if let LinkEvent::Expired { messages } = event { *messages } else { 0 });
        let released = count(|event| if let LinkEvent::Released { bytes } = event { *bytes } else { 0 });
        let refused = count(|event| if let LinkEvent::Refused { messages, .. } = event { *messages } else { 0 });
        let published = times.len();
        assert!(published + expired + refused <= self.messages, "what expired or was refused was not carried out");
        assert!(published + expired + unconfirmed + refused >= self.messages, "what was not sent is told");
        assert_eq!(released, self.bytes, "every credit comes back");
    }
}

#[test]
fn whatever_happens_the_link_comes_right_and_no_publish_is_doubled_or_silently_lost() {
    let (mut unconfirmed, mut expired, mut ups) = (0, 0, 0);
    for seed in 0..120 {
        let mut history = History::new(seed);
        for _ in 0..60 {
            history.step();
        }
        history.heal();
        history.check();
        for event in &history.events {
            match event {
                LinkEvent::Unconfirmed { .. } => unconfirmed += 1,
                LinkEvent::Expired { .. } => expired += 1,
                LinkEvent::Up { .. } => ups += 1,
                _ => {}
            }
        }
    }
    assert!(unconfirmed > 20 && expired > 20 && ups > 120, "the histories are eventful: {unconfirmed} {expired} {ups}");
}
