//! The memory bound of a configuration, held against an allocator that counts: clients do the worst they can, and no
//! more is ever allocated than the formula says.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::alloc::System;
use std::io::IoSlice;
use std::num::NonZero;

use cap::Cap;
use fanfare_core::config::Config;
use fanfare_core::node::{Action, Node, SocketId};
use fanfare_core::time::{Duration, Instant};

#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

const MIB: usize = 1 << 20;

/// An instance and its clients, who cost nothing themselves.
struct World {
    node: Node,
    now: Instant,
    clients: Vec<SocketId>,
    /// Take nothing, by the number of their sockets.
    stuck: Vec<bool>,
    scratch: Vec<u8>,
    /// What was allocated before.
    before: usize,
    /// The most since then.
    most: usize,
}

impl World {
    fn new(config: &Config, clients: usize) -> Self {
        let (ids, stuck) = (Vec::with_capacity(clients), vec![false; clients + 2]);
        let scratch = vec![0; 64 << 10];
        let settings = config.settings(NonZero::<usize>::MIN).unwrap();
        let before = ALLOCATOR.allocated();
        let node = Node::new(settings, config.redis.clone(), 7, Instant::ZERO);
        Self { node, now: Instant::ZERO, clients: ids, stuck, scratch, before, most: 0 }
    }

    fn connect(&mut self) -> SocketId {
        let id = self.node.handle_connection(None, self.now);
        self.clients.push(id);
        id
    }

    fn join(&mut self, path: &str) -> SocketId {
        let id = self.connect();
        let head = format!(
            "GET {path} HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        );
        self.read(id, head.as_bytes());
        self.settle();
        id
    }

    /// The client's bytes, as far as they are read.
    fn read(&mut self, id: SocketId, bytes: &[u8]) {
        for piece in bytes.chunks(16 << 10) {
            if self.node.handle_readable(id, self.now) {
                self.scratch[..piece.len()].copy_from_slice(piece);
                self.node.handle_read(id, &mut self.scratch[..piece.len()], self.now);
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
                        self.node.transmitted(id, bytes, self.now).unwrap();
                    }
                    Action::EndWrites(id) => self.node.handle_eof(id, self.now),
                    Action::Read(_) | Action::Close(_) | Action::Dial(_) => {}
                }
            }
            while self.node.poll_event().is_some() {}
            self.look();
            if self.node.poll_timeout().is_none_or(|at| at > self.now) {
                return;
            }
        }
    }

    fn look(&mut self) {
        self.most = self.most.max(ALLOCATOR.allocated() - self.before);
    }

    /// The most that was held, which must be below the bound. It must be more than `least`, too: otherwise the clients
    /// did not do what they were to do.
    fn end(self, what: &str, config: &Config, least: usize) {
        let bound = config.memory_bound(NonZero::<usize>::MIN).with(self.clients.len());
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
    config
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
    half_a_message_each();
    readers_that_never_read(1);
    readers_that_never_read(4_000);
    one_run_each();
    half_a_request_each();
    requests_for_the_page_that_are_never_taken();
    pings_without_end();
    publishes_while_redis_is_away(0);
    publishes_while_redis_is_away(10_000);
    rooms_that_come_and_go();
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

fn half_a_request_each() {
    const CLIENTS: usize = 2_000;
    let config = config();
    let mut world = World::new(&config, CLIENTS);
    let line = format!("GET /chat HTTP/1.1\r\nX: {}", "x".repeat(config.limits.head_bytes - 30));
    for _ in 0..CLIENTS {
        let id = world.connect();
        for piece in line.as_bytes().chunks(3_000) {
            world.read(id, piece);
        }
        world.settle();
    }
    world.end("2,000 half requests", &config, CLIENTS * config.limits.head_bytes * 9 / 10);
}

fn requests_for_the_page_that_are_never_taken() {
    const CLIENTS: usize = 2_000;
    let config = config();
    let mut world = World::new(&config, CLIENTS);
    for _ in 0..CLIENTS {
        let id = world.connect();
        world.stuck[id.index()] = true;
        world.read(id, b"GET /page.js HTTP/1.1\r\nHost: a\r\n\r\n");
        world.settle();
    }
    world.end("2,000 pages never taken", &config, CLIENTS * (8 << 10));
}

fn pings_without_end() {
    const CLIENTS: usize = 2_000;
    let config = config();
    let pings = masked(0x89, 125, 125).repeat(40);
    let mut world = World::new(&config, CLIENTS);
    for _ in 0..CLIENTS {
        let id = world.join("/chat");
        world.stuck[id.index()] = true;
        world.read(id, &pings);
        world.settle();
    }
    world.end("2,000 clients who ping and never read", &config, CLIENTS * 2_000);
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
