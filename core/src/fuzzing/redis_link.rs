//! The link against a Redis and a network that do anything, after which a sound Redis must find it sound.

use std::collections::{BTreeMap, BTreeSet};

use arbitrary::Arbitrary;

use crate::limits::Limits;
use crate::redis::world::{World, ms, url};
use crate::redis::{Lane, LinkEvent};
use crate::resp::encode;

/// What happens to a link.
#[derive(Arbitrary, Debug)]
pub struct LinkStory<'a> {
    seed: u8,
    refuses_hello: bool,
    steps: Vec<Step<'a>>,
}

#[derive(Arbitrary, Debug)]
enum Step<'a> {
    Subscribe(Channel),
    Unsubscribe(Channel),
    Publish(Channel, u8),
    /// Another client of Redis publishes.
    Other(Channel, &'a [u8]),
    /// Twice so many milliseconds pass.
    Pass(u16),
    /// Redis says something that it was not asked for.
    Say(Lane, &'a [u8]),
    /// So many bytes go through in one read or write.
    Piece(u8),
    Cut(Lane),
    Fill(Lane),
    Block(Lane),
    Free,
    Network {
        reachable: bool,
        dials_hang: bool,
    },
    Mute(bool),
    Loading(bool),
    /// Redis carries nothing out that Pub/Sub needs.
    Busy(bool),
    /// Redis names another server to publish to.
    Elsewhere(bool),
    Replica(bool),
    Deny(Channel),
    Close,
    /// Redis takes messages and passes none on.
    DeliverNothing(bool),
    /// Redis refuses to publish probes, or to subscribe to them.
    DenyProbes {
        publish: bool,
        subscribe: bool,
    },
}

#[derive(Arbitrary, Debug)]
struct Channel(u8);

impl Channel {
    fn name(&self) -> String {
        format!("c{}", self.0 % 5)
    }
}

impl<'a> Arbitrary<'a> for Lane {
    fn arbitrary(u: &mut arbitrary::Unstructured<'a>) -> arbitrary::Result<Self> {
        u.choose(&Self::ALL).copied()
    }
}

/// Tells the story, heals everything, and looks for what is wrong.
pub fn redis_link(story: LinkStory<'_>) {
    let mut teller = Teller::new(&story);
    for step in story.steps.iter().take(200) {
        teller.step(step);
        teller.check_step();
    }
    teller.heal();
    teller.check_end();
}

struct Teller {
    world: World,
    wanted: BTreeSet<String>,
    /// Publishes so far, numbered from 0, and their bytes as commands.
    messages: usize,
    bytes: usize,
    /// Counts of publishes that the link reported, and bytes that it gave back.
    expired: usize,
    unconfirmed: usize,
    refused: usize,
    released: usize,
    /// Redis lied, so that its word for a publish means nothing.
    has_lied: bool,
    is_closing: bool,
}

impl Teller {
    fn new(story: &LinkStory<'_>) -> Self {
        let limits = Limits { message_bytes: 200, ..Limits::default() };
        let mut world = World::with(url(), &limits, story.seed.into());
        if story.refuses_hello {
            world.server.refuses_hello = Some("-ERR unknown command 'HELLO'\r\n");
        }
        Self {
            world,
            wanted: BTreeSet::new(),
            messages: 0,
            bytes: 0,
            expired: 0,
            unconfirmed: 0,
            refused: 0,
            released: 0,
            has_lied: false,
            is_closing: false,
        }
    }

    fn step(&mut self, step: &Step<'_>) {
        let world = &mut self.world;
        match step {
            Step::Subscribe(channel) => {
                self.wanted.insert(channel.name());
                world.subscribe(&channel.name());
            }
            Step::Unsubscribe(channel) => {
                self.wanted.remove(&channel.name());
                world.unsubscribe(&channel.name());
            }
            Step::Publish(channel, length) if !self.is_closing => self.publish(&channel.name(), *length),
            Step::Publish(..) => {}
            Step::Other(channel, payload) => drop(world.server.deliver(channel.name().as_bytes(), payload)),
            Step::Pass(time) => world.pass(ms(u64::from(*time) * 2)),
            Step::Say(lane, bytes) => {
                self.has_lied = true;
                if let Some(client) = world.server.clients.get_mut(lane) {
                    client.output.extend_from_slice(bytes);
                }
            }
            Step::Piece(piece) => world.piece = usize::from(*piece).max(1),
            Step::Cut(lane) => world.cut(*lane),
            Step::Fill(lane) if world.server.clients.contains_key(lane) => drop(world.stuck.insert(*lane)),
            Step::Block(lane) if world.server.clients.contains_key(lane) => drop(world.full.insert(*lane)),
            Step::Fill(_) | Step::Block(_) => {}
            Step::Free => self.free(),
            Step::Network { reachable, dials_hang } => {
                world.dials_hang = *dials_hang;
                if *reachable { world.start() } else { world.stop() }
            }
            Step::Mute(mute) => world.server.is_mute = *mute,
            Step::Loading(loading) => world.server.not_ready = loading.then_some("-LOADING\r\n"),
            Step::Busy(busy) => world.server.busy = busy.then_some("-BUSY\r\n"),
            Step::Elsewhere(elsewhere) => world.server.elsewhere = elsewhere.then_some("-READONLY\r\n"),
            Step::Replica(replica) => world.server.is_replica = *replica,
            Step::Deny(channel) => drop(world.server.denied.insert(channel.name().into_bytes())),
            Step::DeliverNothing(nothing) => world.server.delivers_nothing = *nothing,
            Step::DenyProbes { publish, subscribe } => {
                let denied = [("PUBLISH", *publish), ("SUBSCRIBE", *subscribe)];
                world.server.denies_probes =
                    denied.iter().filter(|(_, is_denied)| *is_denied).map(|one| one.0).collect();
            }
            Step::Close => {
                self.is_closing = true;
                world.link.close(world.now);
            }
        }
        self.world.run();
    }

    /// Each payload begins with its number.
    fn publish(&mut self, channel: &str, length: u8) {
        let payload = format!("{}:{}", self.messages, "x".repeat(length.into()));
        self.messages += 1;
        self.bytes += encode::publish_len(channel.len(), payload.len());
        self.world.publish(channel, &payload);
    }

    /// Sockets work again.
    fn free(&mut self) {
        self.world.stuck.clear();
        self.world.full.clear();
        for lane in Lane::ALL {
            self.world.link.handle_writable(lane);
        }
        self.world.run();
    }

    fn heal(&mut self) {
        let world = &mut self.world;
        world.server.is_mute = false;
        world.server.not_ready = None;
        world.server.busy = None;
        world.server.elsewhere = None;
        world.server.is_replica = false;
        world.server.denied.clear();
        world.server.denies_probes.clear();
        world.server.delivers_nothing = false;
        world.is_reachable = true;
        // Lies live as long as their connection.
        Lane::ALL.into_iter().for_each(|lane| world.cut(lane));
        self.free();
        self.world.pass(ms(20_000));
        self.check_step();
    }

    fn check_step(&mut self) {
        for event in self.world.take_events() {
            match event {
                LinkEvent::Expired { messages } => self.expired += messages,
                LinkEvent::Unconfirmed { messages } => self.unconfirmed += messages,
                LinkEvent::Refused { messages, .. } => self.refused += messages,
                LinkEvent::Released { bytes } => self.released += bytes,
                LinkEvent::Subscribed(channel) => {
                    assert!(self.wanted.iter().any(|wanted| wanted.as_bytes() == channel), "nobody wants {channel:?}");
                }
                LinkEvent::Oversized { bytes, .. } => assert!(bytes > 200),
                _ => {}
            }
        }
        let link = &self.world.link;
        assert_eq!(link.wanted_channels(), self.wanted.len());
        assert_eq!(link.publish_backlog() + self.released, self.bytes, "every credit comes back once");
        assert!(self.world.received.drain(..).all(|(_, payload)| payload.len() <= 200));
        self.world.actions.clear();
    }

    fn check_end(&self) {
        let link = &self.world.link;
        if self.is_closing {
            assert!(link.is_closed() && link.poll_timeout().is_none());
        } else {
            assert!(link.is_up() && link.is_flushed());
            assert_eq!(link.confirmed_channels(), self.wanted.len());
            let channels = self.world.server.channels();
            assert!(channels.into_iter().eq(self.wanted.iter().map(String::as_bytes)), "{link:?}");
            assert_eq!(link.readiness(), Ok(()));
        }
        self.check_publishes();
    }

    /// At most once and in order; and what did not arrive was reported, if Redis was honest.
    fn check_publishes(&self) {
        let mut last = None;
        let mut times: BTreeMap<usize, usize> = BTreeMap::new();
        for payload in self.world.published() {
            let number: usize = payload.split_once(':').expect("a number").0.parse().expect("a number");
            assert!(last < Some(number), "{number} after {last:?}");
            last = Some(number);
            *times.entry(number).or_default() += 1;
        }
        let unsent = self.world.link.unsent_publishes();
        let not_sent = self.expired + unsent + if self.has_lied { 0 } else { self.refused };
        assert!(times.len() + not_sent <= self.messages, "what expired or was refused was not carried out");
        let told = self.expired + self.unconfirmed + self.refused + unsent;
        assert!(self.has_lied || times.len() + told >= self.messages, "a silent loss");
    }
}
