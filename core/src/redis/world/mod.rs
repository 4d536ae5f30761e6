//! A link, a server and the network between them, on a clock that jumps.

mod server;

use std::collections::BTreeSet;
use std::io::IoSlice;

use bytes::Bytes;

pub(crate) use self::server::Server;
use crate::limits::Limits;
use crate::redis::{Action, Lane, Link, LinkEvent, RedisUrl};
use crate::time::{Duration, Instant};

pub(crate) struct World {
    pub(crate) link: Link,
    pub(crate) server: Server,
    pub(crate) now: Instant,
    pub(crate) is_reachable: bool,
    /// Dials hang instead of failing while the server cannot be reached.
    pub(crate) dials_hang: bool,
    /// Bytes that go through in one read or write.
    pub(crate) piece: usize,
    /// Nothing goes out on these lanes: their sockets are full.
    pub(crate) full: BTreeSet<Lane>,
    /// Nothing comes in on these lanes.
    pub(crate) stuck: BTreeSet<Lane>,
    /// Their dials have succeeded, which is found only by a look.
    pub(crate) late: BTreeSet<Lane>,
    pub(crate) actions: Vec<(Instant, Action)>,
    pub(crate) events: Vec<LinkEvent>,
    pub(crate) received: Vec<(Vec<u8>, Vec<u8>)>,
}

pub(crate) fn url() -> RedisUrl {
    at("redis://redis.test")
}

pub(crate) fn at(url: &str) -> RedisUrl {
    url.parse().expect("a URL")
}

pub(crate) const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with(url(), &Limits::default(), 7)
    }

    pub(crate) fn with(url: RedisUrl, limits: &Limits, seed: u64) -> Self {
        Self {
            link: Link::new(url, "", limits, seed, Instant::ZERO),
            server: Server::default(),
            now: Instant::ZERO,
            is_reachable: true,
            dials_hang: false,
            piece: usize::MAX,
            full: BTreeSet::new(),
            stuck: BTreeSet::new(),
            late: BTreeSet::new(),
            actions: Vec::new(),
            events: Vec::new(),
            received: Vec::new(),
        }
    }

    /// A world in which the link is whole.
    pub(crate) fn up() -> Self {
        let mut world = Self::new();
        world.run();
        assert!(world.link.is_up());
        world.take_events();
        world
    }

    pub(crate) fn subscribe(&mut self, channel: &str) {
        self.link.subscribe(Bytes::copy_from_slice(channel.as_bytes()), self.now);
        self.run();
    }

    pub(crate) fn unsubscribe(&mut self, channel: &str) {
        self.link.unsubscribe(channel.as_bytes(), self.now);
        self.run();
    }

    pub(crate) fn publish(&mut self, channel: &str, payload: &str) {
        self.link.publish(channel.as_bytes(), payload.as_bytes(), self.now);
        self.run();
    }

    /// The connection breaks.
    pub(crate) fn cut(&mut self, lane: Lane) {
        if self.server.clients.remove(&lane).is_some() {
            self.link.handle_closed(lane, "connection reset", self.now);
        }
        self.full.remove(&lane);
        self.stuck.remove(&lane);
        self.run();
    }

    /// Redis stops.
    pub(crate) fn stop(&mut self) {
        self.is_reachable = false;
        Lane::ALL.into_iter().for_each(|lane| self.cut(lane));
    }

    pub(crate) fn start(&mut self) {
        self.is_reachable = true;
    }

    /// Lets time pass, from deadline to deadline.
    pub(crate) fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        let mut last = (self.now, 0);
        while let Some(at) = self.link.poll_timeout().filter(|&at| at <= end) {
            self.now = self.now.max(at);
            self.link.handle_timeout(self.now);
            self.run();
            last = if last.0 == self.now { (self.now, last.1 + 1) } else { (self.now, 0) };
            assert!(last.1 < 3, "the link spins: {:?} {:?}", self.link, self.actions.last());
        }
        self.now = end;
        self.link.handle_timeout(end);
        self.run();
    }

    /// This process has no turn for so long, while everybody else goes on.
    pub(crate) fn stand_still(&mut self, time: Duration) {
        self.now = self.now + time;
        while self.link.poll_timeout().is_some_and(|at| at <= self.now) {
            self.link.handle_timeout(self.now);
            self.run();
        }
    }

    /// Time has come to `now`; nothing lies in the sockets, and they take nothing.
    #[cfg(test)]
    pub(crate) fn time_out(&mut self, now: Instant) {
        self.link.handle_timeout(now);
        while Lane::ALL.map(|lane| self.link.parts(lane).0.ask_to_look()).contains(&true) {
            while let Some(lane) = self.link.poll_transmit() {
                self.link.blocked(lane);
            }
            Lane::ALL.into_iter().for_each(|lane| self.link.handle_looked(lane, now));
            self.link.handle_timeout(now);
        }
    }

    /// Moves everything that can move now.
    pub(crate) fn run(&mut self) {
        while self.act() | self.write() | self.read() | self.take() {}
    }

    pub(crate) fn take_events(&mut self) -> Vec<LinkEvent> {
        core::mem::take(&mut self.events)
    }

    /// Events but for those of credits.
    pub(crate) fn take_news(&mut self) -> Vec<LinkEvent> {
        let mut events = self.take_events();
        events.retain(|event| !matches!(event, LinkEvent::Released { .. }));
        events
    }

    pub(crate) fn published(&self) -> Vec<&str> {
        self.server.published.iter().map(|(_, payload)| core::str::from_utf8(payload).expect("text")).collect()
    }

    fn act(&mut self) -> bool {
        let Some(action) = self.link.poll_action() else { return false };
        self.actions.push((self.now, action));
        match action {
            Action::HangUp(lane) => {
                self.server.clients.remove(&lane);
                self.full.remove(&lane);
                self.stuck.remove(&lane);
            }
            Action::Dial(lane) if self.is_reachable => {
                self.server.accept(lane);
                self.link.handle_connected(lane, self.now);
            }
            Action::Dial(_) if self.dials_hang => {}
            Action::Look(lane) if self.late.remove(&lane) => {
                self.server.accept(lane);
                self.link.handle_connected(lane, self.now);
                self.link.handle_looked(lane, self.now);
            }
            Action::Dial(lane) => self.link.handle_dial_failed(lane, "connection refused", self.now),
            Action::Look(lane) => {
                while self.read_lane(lane) {}
                self.link.handle_looked(lane, self.now);
            }
        }
        true
    }

    fn write(&mut self) -> bool {
        let Some(lane) = self.link.poll_transmit() else { return false };
        if self.full.contains(&lane) {
            self.link.blocked(lane);
            return true;
        }
        let mut slices = [IoSlice::new(&[]); 4];
        let used = self.link.transmit(lane, &mut slices);
        assert!(used > 0, "a lane that is named has output");
        let mut bytes = slices[..used].iter().flat_map(|slice| slice.to_vec()).collect::<Vec<_>>();
        bytes.truncate(self.piece);
        self.link.transmitted(lane, bytes.len(), self.now).expect("so much was lent");
        self.server.read(lane, &bytes);
        true
    }

    fn read(&mut self) -> bool {
        Lane::ALL.into_iter().any(|lane| self.read_lane(lane))
    }

    fn read_lane(&mut self, lane: Lane) -> bool {
        let Some(client) = self.server.clients.get_mut(&lane) else { return false };
        if self.stuck.contains(&lane) || client.output.is_empty() {
            return false;
        }
        let piece = client.output.len().min(self.piece);
        let bytes: Vec<u8> = client.output.drain(..piece).collect();
        let (more, received) = (!client.output.is_empty(), &mut self.received);
        self.link.handle_read(lane, &bytes, more, self.now, |channel, payload| {
            received.push((channel.to_vec(), payload.to_vec()));
        });
        true
    }

    fn take(&mut self) -> bool {
        let Some(event) = self.link.poll_event() else { return false };
        self.events.push(event);
        true
    }
}
