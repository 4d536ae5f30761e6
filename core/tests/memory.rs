//! The memory bound of a configuration, held against an allocator that counts: clients do the worst they can, and no
//! more is ever allocated than the formula says.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::alloc::System;
use std::io::IoSlice;

use cap::Cap;
use fanfare_core::http::Answer;
use fanfare_core::limits::Limits;
use fanfare_core::node::{Action, Node, SocketId};
use fanfare_core::redis::{Lane, LinkId, RedisUrl};
use fanfare_core::route::{Route, Routes};
use fanfare_core::settings::Settings;
use fanfare_core::time::{Duration, Instant};

#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

const MIB: usize = 1 << 20;
const SUBSCRIBER: LinkId = LinkId::new(0, Lane::Subscriber);
/// Larger than a request may be.
const LARGE_FILE: usize = 40 << 10;

/// What an instance is started with.
#[derive(Clone, Default)]
struct Config {
    limits: Limits,
    /// Beside the chat's.
    routes: Vec<Route>,
    redis: Option<RedisUrl>,
}

impl Config {
    fn settings(&self) -> Settings {
        let routes = self.routes.iter().cloned().chain(Routes::default_chat()).collect();
        let mut settings = Settings::new(self.limits.clone(), routes, "").unwrap();
        settings.files.insert("/large".to_owned(), Answer::text(200, vec![b'a'; LARGE_FILE]));
        settings
    }
}

/// An instance and its clients, who cost nothing themselves.
struct World {
    node: Node,
    now: Instant,
    clients: Vec<SocketId>,
    /// Take nothing, by the number of their sockets.
    stuck: Vec<bool>,
    /// Bytes of one read.
    scratch: Vec<u8>,
    /// What was written to Redis.
    to_redis: Vec<u8>,
    /// What was allocated before.
    before: usize,
    /// The most since then.
    most: usize,
}

impl World {
    fn new(config: &Config, clients: usize) -> Self {
        Self::asking(config, clients, false)
    }

    /// With an embedder that decides about each request, if it `asks`.
    fn asking(config: &Config, clients: usize, asks: bool) -> Self {
        let (ids, stuck) = (Vec::with_capacity(clients), vec![false; clients + 2]);
        let (scratch, to_redis) = (vec![0; 64 << 10], Vec::with_capacity(2 * MIB));
        let mut settings = config.settings();
        settings.ask = asks;
        let before = ALLOCATOR.allocated();
        let node = Node::new(settings, config.redis.clone(), 7, Instant::ZERO);
        Self { node, now: Instant::ZERO, clients: ids, stuck, scratch, to_redis, before, most: 0 }
    }

    fn connect(&mut self) -> SocketId {
        let id = self.node.handle_connection(None, self.now);
        self.clients.push(id);
        id
    }

    fn join(&mut self, path: &str) -> SocketId {
        let id = self.connect();
        self.read(id, &request(path, ""));
        self.settle();
        id
    }

    /// The client's bytes, as far as they are read.
    fn read(&mut self, id: SocketId, bytes: &[u8]) {
        for piece in bytes.chunks(16 << 10) {
            if self.node.handle_readable(id, self.now) {
                self.scratch[..piece.len()].copy_from_slice(piece);
                self.node.handle_read(id, &mut self.scratch[..piece.len()], false, self.now);
                self.look();
            }
        }
    }

    fn publish(&mut self, channel: &str, payload: &[u8]) {
        self.node.shard.publish(&channel.to_owned().into(), payload).unwrap();
        self.settle();
    }

    /// Everything moves that can.
    fn settle(&mut self) {
        loop {
            self.node.handle_timeout(self.now);
            self.look();
            while let Some(action) = self.node.poll_action() {
                match action {
                    Action::Write(id) if self.stuck[id.index()] => self.node.blocked(id),
                    Action::Write(id) => {
                        let mut slices = [IoSlice::new(&[]); 8];
                        let filled = self.node.transmit(id, &mut slices);
                        let bytes = slices[..filled].iter().map(|slice| slice.len()).sum();
                        if let SocketId::Redis(SUBSCRIBER) = id {
                            slices[..filled].iter().for_each(|slice| self.to_redis.extend_from_slice(slice));
                        }
                        self.node.transmitted(id, bytes, self.now).unwrap();
                    }
                    Action::EndWrites(id) => self.node.handle_eof(id, self.now),
                    Action::Read(_) | Action::Reset(_) | Action::Close(_) | Action::Dial(..) => {}
                }
            }
            while self.node.poll_event().is_some() {}
            self.look();
            if self.node.poll_timeout().is_none_or(|at| at > self.now) {
                return;
            }
        }
    }

    /// Redis takes both connections, as one that knows no HELLO.
    fn connect_to_redis(&mut self) {
        self.settle();
        // The last one to be greeted is the one whose commands are looked at.
        for id in [LinkId::new(0, Lane::Publisher), SUBSCRIBER] {
            self.node.handle_connected(id, self.now);
            self.settle();
            self.to_redis.clear();
            self.node.handle_read(SocketId::Redis(id), &mut b"-ERR\r\n+OK\r\n+PONG\r\n".to_vec(), false, self.now);
            self.settle();
        }
    }

    /// Redis confirms all subscriptions that it was asked for.
    fn confirm(&mut self) {
        while !self.to_redis.is_empty() {
            let mut words = self.to_redis.split(|&byte| byte == b'\n').filter(|word| !word.starts_with(b"$"));
            let mut replies = Vec::new();
            while let Some(head) = words.next().and_then(|word| word.strip_prefix(b"*")) {
                let count: usize = std::str::from_utf8(head).unwrap().trim().parse().unwrap();
                match words.next() {
                    Some(b"PING\r") => replies.extend(b"+PONG\r\n"),
                    command => assert_eq!(command, Some(&b"SUBSCRIBE\r"[..])),
                }
                for name in words.by_ref().take(count - 1) {
                    replies.extend(format!("*3\r\n$9\r\nsubscribe\r\n${}\r\n", name.len() - 1).into_bytes());
                    replies.extend([name, b"\n:1\r\n"].concat());
                }
            }
            self.to_redis.clear();
            self.node.handle_read(SocketId::Redis(SUBSCRIBER), &mut replies, false, self.now);
            drop(replies);
            self.settle();
        }
    }

    fn look(&mut self) {
        self.most = self.most.max(ALLOCATOR.allocated() - self.before);
    }

    /// The most that was held, which must be below the bound. It must be more than `least`, too: otherwise the clients
    /// did not do what they were to do.
    fn end(self, what: &str, config: &Config, least: usize) {
        let bound = config.settings().memory_bound().with(self.clients.len());
        let (most, before) = (self.most, self.before);
        assert!((least..=bound).contains(&most), "{what}: {most}, not between {least} and {bound}");
        drop(self.node);
        let left = ALLOCATOR.allocated().saturating_sub(before);
        assert!(left < MIB, "{what}: {left} bytes are never given back");
    }
}

/// Small bounds, so that nothing but what a client does can reach the sum.
fn config() -> Config {
    let mut config = Config::default();
    let limits = &mut config.limits;
    limits.all_queues_bytes = 2 * MIB;
    limits.queue_bytes = 256 << 10;
    limits.partial_bytes = 2 * MIB;
    limits.publish_bytes = MIB;
    limits.mailbox_bytes = MIB;
    limits.channel_bytes = 64;
    limits.lingering_channels = 1_000;
    config
}

/// Other bounds: heads and names as long as any are allowed to be in practice.
fn wide() -> Config {
    let mut config = config();
    (config.limits.head_bytes, config.limits.channel_bytes) = (128 << 10, 64 << 10);
    config.limits.lingering_channels = 20;
    config
}

/// The least that makes sense.
fn tiny() -> Config {
    let mut config = config();
    let limits = &mut config.limits;
    (limits.message_bytes, limits.queue_bytes, limits.all_queues_bytes) = (200, 200, 200);
    (limits.partial_bytes, limits.publish_bytes, limits.mailbox_bytes) = (200, 200, 200);
    (limits.head_bytes, limits.channel_bytes, limits.lingering_channels) = (1_024, 40, 0);
    config
}

fn request(path: &str, more: &str) -> Vec<u8> {
    format!(
        "GET {path} HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n{more}\r\n"
    )
    .into_bytes()
}

/// A request and as many empty messages behind it as one read has room for.
fn first_read(path: &str, more: &str) -> Vec<u8> {
    let mut bytes = request(path, more);
    let message = masked(0x81, 0, 0);
    while bytes.len() + message.len() <= 16 << 10 {
        bytes.extend(&message);
    }
    bytes
}

fn masked(first: u8, len: usize, sent: usize) -> Vec<u8> {
    let mut frame = vec![first];
    if len < 126 {
        frame.push(0x80 | len as u8);
    } else if let Ok(len) = u16::try_from(len) {
        frame.push(0x80 | 126);
        frame.extend(len.to_be_bytes());
    } else {
        frame.push(0x80 | 127);
        frame.extend((len as u64).to_be_bytes());
    }
    frame.extend([0; 4]);
    frame.resize(frame.len() + sent, b'x');
    frame
}

/// One test, since all threads of a process have one allocator.
#[test]
fn whatever_clients_do_no_more_is_allocated_than_the_formula_says() {
    for config in [config(), wide(), tiny()] {
        half_a_request_each(&config);
        requests_for_a_file_that_are_never_taken(&config);
        answers_to_a_long_origin_that_are_never_taken(&config);
        requests_that_an_embedder_takes_its_time_for(&config);
        pings_without_end(&config);
        frames_behind_the_request(&config, None);
        frames_behind_the_request(&config, Some("redis://127.0.0.1:1"));
        one_connection_after_the_other(&config);
        messages_with_the_longest_name(&config);
    }
    half_a_message_each();
    readers_that_never_read(1);
    readers_that_never_read(4_000);
    one_run_each();
    publishes_while_redis_is_away(0);
    publishes_while_redis_is_away(10_000);
    reads_that_wait_for_credit();
    rooms_that_come_and_go();
    for config in [config(), wide()] {
        rooms_that_redis_has_yet_to_unsubscribe(&config);
    }
}

fn half_a_message_each() {
    let config = config();
    let half = masked(0x81, 64 << 10, 32 << 10);
    let mut world = World::new(&config, 10_000);
    for _ in 0..10_000 {
        let id = world.join("/chat");
        // Whoever is refused more does not leave for that.
        world.stuck[id.index()] = true;
        world.read(id, &half);
        world.settle();
    }
    assert!(world.node.shard.stats().partial_bytes <= config.limits.partial_bytes);
    world.end("10,000 clients with half a message each", &config, config.limits.partial_bytes * 9 / 10);
}

fn readers_that_never_read(payload: usize) {
    const CLIENTS: usize = 1_000;
    let config = config();
    let mut world = World::new(&config, CLIENTS);
    for number in 0..CLIENTS {
        let id = world.join("/chat");
        world.stuck[id.index()] = number % 100 == 0;
    }
    // Until what waits for each is above its bound, whether by bytes or by entries.
    for _ in 0..config.limits.queue_bytes / (payload + 24) + 1 {
        world.publish("chat", &vec![b'x'; payload]);
    }
    assert_eq!(world.node.shard.stats().slow_readers, 10);
    let least = config.limits.queue_bytes / 2;
    world.end(&format!("1 % never read messages of {payload} bytes"), &config, least);
}

fn one_run_each() {
    const CLIENTS: usize = 2_000;
    let config = config();
    let mut world = World::new(&config, CLIENTS);
    for number in 0..CLIENTS {
        let id = world.join(&format!("/chat/{number}"));
        world.stuck[id.index()] = true;
        world.publish(&format!("chat:{number}"), &[b'x'; 60_000]);
    }
    world.end("2,000 rooms of one who never reads", &config, config.limits.all_queues_bytes);
}

fn half_a_request_each(config: &Config) {
    const CLIENTS: usize = 600;
    let mut world = World::new(config, CLIENTS);
    let line = format!("GET /chat HTTP/1.1\r\nX: {}", "x".repeat(config.limits.head_bytes - 30));
    for _ in 0..CLIENTS {
        let id = world.connect();
        for piece in line.as_bytes().chunks(3_000) {
            world.read(id, piece);
        }
        world.settle();
    }
    world.end("half a request each", config, CLIENTS * config.limits.head_bytes * 9 / 10);
}

fn answers_to_a_long_origin_that_are_never_taken(config: &Config) {
    const CLIENTS: usize = 600;
    let mut world = World::new(config, CLIENTS);
    // Two bytes each, which would be seven in quotes.
    let origin = "\u{300}".repeat((config.limits.head_bytes - 200) / 2);
    let request = request("/chat", &format!("Origin: {origin}\r\n"));
    for _ in 0..CLIENTS {
        let id = world.connect();
        world.stuck[id.index()] = true;
        world.read(id, &request);
        world.settle();
    }
    world.end("answers to a long origin", config, CLIENTS * 300);
}

fn requests_that_an_embedder_takes_its_time_for(config: &Config) {
    const CLIENTS: usize = 600;
    let mut world = World::asking(config, CLIENTS, true);
    let letters = ('a'..='z').chain('A'..='Z').chain('0'..='9');
    let names: Vec<String> = letters.flat_map(|a| ('a'..='z').map(move |b| format!("{a}{b}"))).collect();
    let room = config.limits.head_bytes - 250;
    let (many, most) = (names.join(","), vec!["n".repeat(room / 33 - 2); 32]);
    let most: Vec<String> = most.iter().zip(&names).map(|(long, name)| name.clone() + long).collect();
    for offered in [many[..many[..room.min(many.len())].rfind(',').unwrap()].to_owned(), most.join(",")] {
        let head = request("/chat", &format!("Sec-WebSocket-Protocol: {offered}\r\n"));
        for number in 0..CLIENTS / 2 {
            let id = world.connect();
            // Behind it, in the same read as its end, what fits.
            let mut bytes = head.clone();
            if number % 2 == 0 {
                bytes.extend(masked(0x81, 0, 0).repeat(config.limits.head_bytes / 6));
            }
            world.read(id, &bytes);
            world.settle();
        }
    }
    world.end("requests that wait for the embedder", config, CLIENTS * config.limits.head_bytes / 20);
}

fn frames_behind_the_request(config: &Config, redis: Option<&str>) {
    const CLIENTS: usize = 500;
    let mut config = config.clone();
    config.redis = redis.map(|url| url.parse().unwrap());
    config.routes = vec!["/in=a,subscribe=no".parse().unwrap()];
    let path = if redis.is_some() { "/in" } else { "/chat" };
    let (mut world, bytes) = (World::new(&config, CLIENTS), first_read(path, ""));
    for _ in 0..CLIENTS {
        let id = world.connect();
        world.read(id, &bytes[..bytes.len().min(request(path, "").len() + config.limits.head_bytes)]);
        // As if the bus never had the time to deliver.
        world.node.exchange(world.now);
        while world.node.poll_event().is_some() {}
        world.look();
    }
    world.settle();
    let most = config.limits.publish_bytes + (16 << 10) / 6 * 50;
    assert!(world.node.bus.stats().publish_bytes <= most, "{} of {most}", world.node.bus.stats().publish_bytes);
    world.end("frames behind the request", &config, config.limits.publish_bytes);
}

/// Each in another room, which lingers.
fn one_connection_after_the_other(config: &Config) {
    let mut world = World::new(config, 1);
    let name = "n".repeat(config.limits.channel_bytes.min(4_000) - 20);
    for number in 0..5_000 {
        world.now = world.now + Duration::from_micros(40);
        let id = world.node.handle_connection(None, world.now);
        world.read(id, &request(&format!("/chat/{number}-{name}"), ""));
        world.settle();
        world.node.handle_reset(id, "gone", world.now);
        world.settle();
    }
    assert_eq!(world.node.bus.stats().lingering, config.limits.lingering_channels);
    let held = config.limits.lingering_channels * 2;
    world.clients.push(SocketId::Redis(SUBSCRIBER));
    world.end("one connection after the other", config, held * config.limits.channel_bytes.min(4_000) / 2);
}

fn messages_with_the_longest_name(config: &Config) {
    let mut config = config.clone();
    config.redis = Some("redis://127.0.0.1:1".parse().unwrap());
    config.routes = vec!["/in/{x}=a{x},subscribe=no".parse().unwrap()];
    let mut world = World::new(&config, 1);
    let id = world.join(&format!("/in/{}", "n".repeat(config.limits.channel_bytes - 1)));
    world.read(id, &masked(0x81, 0, 0).repeat((16 << 10) / 6));
    world.settle();
    world.end("one read with the longest name", &config, config.limits.channel_bytes * 2_000);
}

fn requests_for_a_file_that_are_never_taken(config: &Config) {
    const CLIENTS: usize = 600;
    let mut world = World::new(config, CLIENTS);
    for _ in 0..CLIENTS {
        let id = world.connect();
        world.stuck[id.index()] = true;
        world.read(id, b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n");
        world.settle();
    }
    world.end("files never taken", config, CLIENTS * LARGE_FILE);
}

fn pings_without_end(config: &Config) {
    const CLIENTS: usize = 600;
    let pings = masked(0x89, 125, 125).repeat(40);
    let mut world = World::new(config, CLIENTS);
    for _ in 0..CLIENTS {
        let id = world.join("/chat");
        world.stuck[id.index()] = true;
        world.read(id, &pings);
        world.settle();
    }
    world.end("clients who ping and never read", config, CLIENTS * 2_000);
}

fn publishes_while_redis_is_away(payload: usize) {
    const CLIENTS: usize = 200;
    let mut config = config();
    config.redis = Some("redis://127.0.0.1:1".parse().unwrap());
    config.routes = vec!["/in=a,subscribe=no".parse().unwrap()];
    let messages = masked(0x81, payload, payload).repeat(16_000 / (payload + 6));
    let mut world = World::new(&config, CLIENTS);
    for _ in 0..CLIENTS {
        let id = world.join("/in");
        world.read(id, &messages);
        world.settle();
    }
    assert!(!world.node.shard.has_credit());
    let least = config.limits.publish_bytes;
    world.end(&format!("publishes of {payload} bytes while Redis is away"), &config, least);
}

/// Behind what is free of an unfinished message, and beside what its socket does not take.
fn reads_that_wait_for_credit() {
    const CLIENTS: usize = 2_000;
    let mut config = config();
    config.redis = Some("redis://127.0.0.1:1".parse().unwrap());
    config.routes = vec!["/in=a,subscribe=no".parse().unwrap()];
    let mut world = World::new(&config, CLIENTS);
    let begun = masked(0x01, 4_000, 4_000);
    for _ in 0..CLIENTS {
        let id = world.join("/in");
        world.read(id, &begun);
    }
    while world.node.shard.has_credit() {
        world.node.shard.publish(&"a".into(), &[b'x'; 10_000]).unwrap();
    }
    let more = masked(0x00, 16_000, 16_000);
    for id in world.clients.clone() {
        world.read(id, &more);
        world.read(id, &more);
    }
    world.settle();
    world.end("reads that wait for credit", &config, CLIENTS * 20_000);
}

fn rooms_that_come_and_go() {
    const CLIENTS: usize = 2_000;
    let config = config();
    let mut world = World::new(&config, CLIENTS);
    for round in 0..10 {
        for number in 0..CLIENTS {
            world.join(&format!("/chat/{round}-{number}-{}", "n".repeat(30)));
        }
        while let Some(id) = world.clients.pop() {
            world.node.handle_reset(id, "gone", world.now);
        }
        world.now = world.now + Duration::from_secs(6);
        world.settle();
    }
    for _ in 0..CLIENTS {
        world.connect();
    }
    world.end("rooms that come and go", &config, MIB);
}

/// Everybody leaves, and comes back to other rooms before Redis has answered.
fn rooms_that_redis_has_yet_to_unsubscribe(config: &Config) {
    const CLIENTS: usize = 1_000;
    let mut config = config.clone();
    config.redis = Some("redis://127.0.0.1:1".parse().unwrap());
    (config.limits.linger_time, config.limits.lingering_channels) = (Duration::ZERO, 0);
    let name = "n".repeat(config.limits.channel_bytes.min(4_000) - 20);
    let mut world = World::new(&config, CLIENTS);
    world.connect_to_redis();
    for round in 0..2 {
        while let Some(id) = world.clients.pop() {
            world.node.handle_reset(id, "gone", world.now);
        }
        world.settle();
        for number in 0..CLIENTS {
            world.join(&format!("/chat/{round}-{number}-{name}"));
            if round == 0 {
                world.confirm();
            }
        }
    }
    let stats = world.node.bus.stats();
    assert_eq!((stats.channels, stats.subscribed), (CLIENTS, CLIENTS), "others are subscribed than are wanted");
    world.end("rooms that Redis has yet to unsubscribe", &config, 2 * CLIENTS * name.len());
}
