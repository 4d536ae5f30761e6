//! Clients, shards, a bus and, if wanted, a scripted Redis, on a clock that jumps.

use std::io::IoSlice;
use std::sync::Arc;

use tungstenite::Message as ClientMessage;

use crate::bus::{self, Action, Bus};
use crate::error::{Closed, Error};
use crate::exchange::{self, WorkerId};
use crate::http::Answer;
use crate::limits::Limits;
use crate::redis::world::Server;
use crate::redis::{Lane, LinkId};
use crate::route::{Route, Routes};
use crate::settings::Settings;
use crate::shard::{Event, SessionId, Shard, SubscriberId};
use crate::time::{Duration, Instant};
use crate::ws::tests::{client_reads, frame};

pub(crate) const TEXT: u8 = 0x81;
pub(crate) const BINARY: u8 = 0x82;
pub(crate) const CLOSE: u8 = 0x88;
pub(crate) const PING: u8 = 0x89;

/// One client and its socket.
pub(crate) struct Client {
    pub(crate) worker: WorkerId,
    pub(crate) id: SessionId,
    /// Sent and not read yet.
    pub(crate) input: Vec<u8>,
    /// The client's end of the stream comes behind `input`.
    ends: bool,
    /// The shard said not to read, and has not named it since.
    pub(crate) waits: bool,
    /// What has arrived.
    pub(crate) got: Vec<u8>,
    /// How much more its socket takes.
    pub(crate) room: usize,
    blocked: bool,
    pub(crate) opened: bool,
    /// The write side was ended.
    pub(crate) ended: bool,
    pub(crate) closed: Option<Closed>,
    /// Its connection was to be reset.
    pub(crate) given_up: bool,
    /// What the embedder heard of messages that it lost.
    pub(crate) dropped: Vec<u64>,
}

pub(crate) struct World {
    pub(crate) shards: Vec<Shard>,
    pub(crate) bus: Bus,
    pub(crate) server: Server,
    pub(crate) is_reachable: bool,
    pub(crate) now: Instant,
    pub(crate) clients: Vec<Client>,
    /// Bytes of one read and of one write.
    pub(crate) pieces: (usize, usize),
    /// Decides what happens when, if not everything is to happen at once.
    pub(crate) lazy: Option<fastrand::Rng>,
    pub(crate) asked: Vec<SessionId>,
    pub(crate) scrapes: Vec<SessionId>,
    pub(crate) subscriber_events: Vec<(SubscriberId, Option<Arc<crate::run::Run>>)>,
    pub(crate) missed: u64,
    pub(crate) bus_events: Vec<bus::Event>,
    first_credit: i64,
}

pub(crate) fn limits() -> Limits {
    Limits::default()
}

/// For one worker and with these routes alone.
pub(crate) fn settings_with(routes: &[&str], limits: Limits) -> Settings {
    let routes = routes.iter().map(|route| route.parse().unwrap()).collect();
    Settings { routes: Routes::new(routes, "", &limits).unwrap(), ..settings(limits, 1) }
}

pub(crate) fn settings(limits: Limits, workers: usize) -> Settings {
    let more = ["/bytes=bytes,binary", "/news=news,publish=no", "/post=post,subscribe=no"];
    let routes: Vec<Route> = Routes::default_chat().into_iter().chain(more.map(|one| one.parse().unwrap())).collect();
    let page = Answer {
        status: 200,
        fields: Vec::new(),
        body: ["<html>", &"a page ".repeat(700), "</html>\n"].concat().into(),
    };
    // Whatever the limits of a test are, they need not make sense together.
    Settings {
        routes: Routes::new(routes, "", &limits).unwrap(),
        limits,
        files: [("/".to_owned(), page)].into(),
        workers,
        ..Settings::default()
    }
}

pub(crate) fn request(path: &str) -> Vec<u8> {
    format!(
        "GET {path} HTTP/1.1\r\nHost: fanfare.test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    .into_bytes()
}

pub(crate) fn text(message: &str) -> Vec<u8> {
    frame(TEXT, message.as_bytes())
}

pub(crate) const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with(limits(), 1)
    }

    pub(crate) fn with(limits: Limits, workers: usize) -> Self {
        let bus = Bus::local(&limits, workers, 1, Instant::ZERO);
        Self::from(settings(limits, workers), bus)
    }

    /// With a Redis that is connected.
    pub(crate) fn redis(limits: Limits, workers: usize) -> Self {
        Self::redis_with(settings(limits, workers))
    }

    /// The same, with settings of one's own.
    pub(crate) fn redis_with(settings: Settings) -> Self {
        let url = "redis://redis.test".parse().unwrap();
        let bus = Bus::redis(url, "", &settings.limits, settings.workers, 1, Instant::ZERO);
        let mut world = Self::from(settings, bus);
        world.run();
        assert!(world.bus.is_up());
        world
    }

    pub(crate) fn from(settings: Settings, bus: Bus) -> Self {
        let first_credit = exchange::first_credit(settings.limits.publish_bytes, settings.workers) as i64;
        let workers = settings.workers;
        let settings = Arc::new(settings);
        let shard = |seed| Shard::new(settings.clone(), seed, Instant::ZERO);
        Self {
            shards: (0..workers as u64).map(shard).collect(),
            bus,
            server: Server::default(),
            is_reachable: true,
            now: Instant::ZERO,
            clients: Vec::new(),
            pieces: (16 << 10, usize::MAX),
            lazy: None,
            asked: Vec::new(),
            scrapes: Vec::new(),
            subscriber_events: Vec::new(),
            missed: 0,
            bus_events: Vec::new(),
            first_credit,
        }
    }

    // What clients do.

    /// A client connects to the worker whose turn it is.
    pub(crate) fn connect(&mut self) -> usize {
        let worker = self.clients.len() % self.shards.len();
        let id = self.shards[worker].handle_connection(None, self.now);
        self.add(worker, id)
    }

    /// Somebody connects to the first worker's address for operation.
    pub(crate) fn connect_admin(&mut self) -> usize {
        let id = self.shards[0].handle_admin_connection(self.now);
        self.add(0, id)
    }

    pub(crate) fn add(&mut self, worker: WorkerId, id: SessionId) -> usize {
        self.clients.push(Client {
            worker,
            id,
            input: Vec::new(),
            ends: false,
            waits: false,
            got: Vec::new(),
            room: usize::MAX,
            blocked: false,
            opened: false,
            ended: false,
            closed: None,
            given_up: false,
            dropped: Vec::new(),
        });
        self.clients.len() - 1
    }

    /// A client that is open on `path`.
    pub(crate) fn join(&mut self, path: &str) -> usize {
        let client = self.connect();
        self.send(client, &request(path));
        assert!(self.clients[client].opened, "{:?}", String::from_utf8_lossy(&self.clients[client].got));
        client
    }

    pub(crate) fn send(&mut self, client: usize, bytes: &[u8]) {
        self.clients[client].input.extend_from_slice(bytes);
        self.run();
    }

    pub(crate) fn end(&mut self, client: usize) {
        self.clients[client].ends = true;
        self.run();
    }

    pub(crate) fn reset(&mut self, client: usize) {
        let (worker, id) = self.place(client);
        self.shards[worker].handle_reset(id);
        self.run();
    }

    /// The client's socket takes so many bytes more.
    pub(crate) fn make_room(&mut self, client: usize, room: usize) {
        self.clients[client].room = room;
        let (worker, id) = self.place(client);
        if room > 0 && std::mem::take(&mut self.clients[client].blocked) {
            self.shards[worker].handle_writable(id);
        }
        self.run();
    }

    // What they see.

    /// The HTTP answer, head and body; of a 101 the head.
    pub(crate) fn answer(&self, client: usize) -> &str {
        let got = &self.clients[client].got;
        let end = if got.starts_with(b"HTTP/1.1 101") { self.head_len(client) } else { got.len() };
        std::str::from_utf8(&got[..end]).unwrap()
    }

    pub(crate) fn status(&self, client: usize) -> u16 {
        self.answer(client)[9..12].parse().unwrap()
    }

    fn head_len(&self, client: usize) -> usize {
        let got = &self.clients[client].got;
        got.windows(4).position(|window| window == b"\r\n\r\n").map_or(0, |end| end + 4)
    }

    /// Every frame that came whole.
    pub(crate) fn messages(&self, client: usize) -> Vec<ClientMessage> {
        client_reads(&self.clients[client].got[self.head_len(client)..])
    }

    pub(crate) fn texts(&self, client: usize) -> Vec<String> {
        let messages = self.messages(client).into_iter();
        messages.filter(ClientMessage::is_text).map(|one| one.into_text().unwrap().to_string()).collect()
    }

    /// Code of the Close that came.
    pub(crate) fn close_code(&self, client: usize) -> Option<u16> {
        self.messages(client).into_iter().find_map(|message| match message {
            ClientMessage::Close(Some(close)) => Some(close.code.into()),
            _ => None,
        })
    }

    pub(crate) fn error(&self, client: usize) -> Option<Error> {
        self.clients[client].closed.and_then(|closed| closed.error)
    }

    pub(crate) fn shard(&mut self) -> &mut Shard {
        &mut self.shards[0]
    }

    pub(crate) fn id(&self, client: usize) -> SessionId {
        self.clients[client].id
    }

    fn place(&self, client: usize) -> (WorkerId, SessionId) {
        (self.clients[client].worker, self.clients[client].id)
    }

    // Time.

    /// Time passes, from deadline to deadline.
    pub(crate) fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        self.run();
        while let Some(at) = self.poll_timeout().filter(|&at| at <= end) {
            self.now = self.now.max(at);
            self.run();
        }
        self.now = end;
        self.run();
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.shards.iter().map(Shard::poll_timeout).chain([self.bus.poll_timeout()]).flatten().min()
    }

    /// Moves everything that can move now. Nothing may be due at once when it is over.
    pub(crate) fn run(&mut self) {
        for _ in 0..200_000 {
            let moved = match &mut self.lazy {
                None => self.exchange() | self.hear() | self.read() | self.write() | self.lanes() | self.due(),
                Some(rng) => match rng.u8(..6) {
                    0 => self.exchange(),
                    1 => self.hear(),
                    2 => self.read(),
                    3 => self.write(),
                    4 => self.lanes(),
                    _ => self.due(),
                },
            };
            if !moved && !(self.exchange() | self.hear() | self.read() | self.write() | self.lanes() | self.due()) {
                self.shards.iter().for_each(Shard::check);
                self.check_credit();
                assert!(self.poll_timeout().is_none_or(|at| at > self.now), "due, and nothing to do");
                return;
            }
        }
        panic!("it spins");
    }

    /// All credit is somewhere: with the shards, on the way, or in the queue of publishes.
    pub(crate) fn check_credit(&self) {
        let debts = self.bus.debts();
        let stats = self.bus.stats();
        assert_eq!(debts.iter().sum::<usize>(), stats.publish_bytes, "what is owed is what waits");
        for (shard, debt) in self.shards.iter().zip(debts) {
            assert_eq!(shard.credit_here() + debt as i64, self.first_credit, "credit leaks");
        }
    }

    pub(crate) fn exchange(&mut self) -> bool {
        let mut moved = false;
        for worker in 0..self.shards.len() {
            if let Some(wishes) = self.shards[worker].poll_bus() {
                self.bus.handle_shard(worker, wishes, self.now).unwrap();
                moved = true;
            }
        }
        while let Some((worker, news)) = self.bus.poll_shard() {
            self.shards[worker].handle_bus(news, self.now);
            moved = true;
        }
        moved
    }

    fn hear(&mut self) -> bool {
        let mut moved = false;
        for worker in 0..self.shards.len() {
            while let Some(event) = self.shards[worker].poll_event() {
                moved = true;
                self.handle_event(worker, event);
            }
            while let Some(id) = self.shards[worker].poll_readable() {
                moved = true;
                let client = self.find(worker, id);
                client.waits = false;
                let has_input = !client.input.is_empty() || client.ends;
                if !has_input && self.shards[worker].is_to_be_looked_at(id) {
                    self.shards[worker].handle_readable(id, self.now);
                }
            }
        }
        while let Some(event) = self.bus.poll_event() {
            self.bus_events.push(event);
        }
        moved
    }

    fn handle_event(&mut self, worker: WorkerId, event: Event) {
        match event {
            Event::Request(id, _) => {
                self.find(worker, id);
                self.asked.push(id);
            }
            Event::Scrape(id) => {
                self.find(worker, id);
                self.scrapes.push(id);
            }
            Event::Opened(id) => self.find(worker, id).opened = true,
            Event::EndWrites(id) => {
                let client = self.find(worker, id);
                assert!(!client.ended, "told once");
                client.ended = true;
            }
            Event::GivenUp(id) => self.find(worker, id).given_up = true,
            Event::Closed(id, closed) => {
                let client = self.find(worker, id);
                client.closed = Some(closed);
            }
            Event::Subscribed(subscriber) => self.subscriber_events.push((subscriber, None)),
            Event::Run(subscriber, run) => self.subscriber_events.push((subscriber, Some(run))),
            Event::Dropped(id, messages) => self.find(worker, id).dropped.push(messages),
            Event::Missed { messages, .. } => self.missed += messages,
            Event::Review(_) => panic!("nothing is reviewed"),
        }
    }

    /// Nothing is said of a session that is gone, hence also nothing twice about its end.
    fn find(&mut self, worker: WorkerId, id: SessionId) -> &mut Client {
        let client = self.clients.iter_mut().find(|client| (client.worker, client.id) == (worker, id)).unwrap();
        assert!(client.closed.is_none(), "an output for a session that is gone");
        client
    }

    fn read(&mut self) -> bool {
        let mut moved = false;
        for client in &mut self.clients {
            if client.closed.is_some() || client.waits || (client.input.is_empty() && !client.ends) {
                continue;
            }
            moved = true;
            let shard = &mut self.shards[client.worker];
            if !shard.handle_readable(client.id, self.now) {
                client.waits = true;
                continue;
            }
            if client.input.is_empty() {
                client.ends = false;
                shard.handle_eof(client.id, self.now);
                continue;
            }
            let most = self.pieces.0.min(client.input.len());
            let n = self.lazy.as_mut().map_or(most, |rng| rng.usize(1..=most));
            let mut piece: Vec<u8> = client.input.drain(..n).collect();
            shard.handle_read(client.id, &mut piece, self.now);
        }
        moved
    }

    fn write(&mut self) -> bool {
        let mut moved = false;
        for worker in 0..self.shards.len() {
            while let Some(id) = self.shards[worker].poll_transmit() {
                moved = true;
                self.find(worker, id);
                let Some(client) = self.clients.iter().position(|one| (one.worker, one.id) == (worker, id)) else {
                    continue;
                };
                while self.write_once(client) {}
            }
        }
        moved
    }

    fn write_once(&mut self, client: usize) -> bool {
        let client = &mut self.clients[client];
        let shard = &mut self.shards[client.worker];
        let mut slices = [IoSlice::new(&[]); 6];
        let filled = shard.transmit(client.id, &mut slices);
        if filled == 0 {
            return false;
        }
        assert!(!client.ended, "nothing is written after the end");
        if client.room == 0 {
            client.blocked = true;
            shard.blocked(client.id);
            return false;
        }
        let bytes: Vec<u8> = slices[..filled].iter().flat_map(|slice| slice.to_vec()).collect();
        let most = bytes.len().min(self.pieces.1).min(client.room);
        let n = self.lazy.as_mut().map_or(most, |rng| rng.usize(1..=most));
        client.got.extend_from_slice(&bytes[..n]);
        client.room = client.room.saturating_sub(if client.room == usize::MAX { 0 } else { n });
        shard.transmitted(client.id, n, self.now).unwrap();
        // A lazy driver leaves the rest for when the session is named again.
        self.lazy.is_none()
    }

    fn lanes(&mut self) -> bool {
        let mut moved = false;
        while let Some(action) = self.bus.poll_action() {
            moved = true;
            match action {
                Action::HangUp(id) => drop(self.server.clients.remove(&id.lane())),
                Action::Look(id) => self.bus.handle_looked(id, self.now),
                Action::Dial(id, _) if self.is_reachable => {
                    self.server.accept(id.lane());
                    self.bus.handle_connected(id, self.now);
                }
                Action::Dial(id, _) => self.bus.handle_dial_failed(id, "connection refused", self.now),
            }
        }
        while let Some(id) = self.bus.poll_transmit() {
            moved = true;
            let mut slices = [IoSlice::new(&[]); 4];
            let filled = self.bus.transmit(id, &mut slices);
            let bytes: Vec<u8> = slices[..filled].iter().flat_map(|slice| slice.to_vec()).collect();
            self.bus.transmitted(id, bytes.len(), self.now).unwrap();
            self.server.read(id.lane(), &bytes);
        }
        for lane in Lane::ALL {
            let Some(connection) = self.server.clients.get_mut(&lane) else { continue };
            if !connection.output.is_empty() {
                moved = true;
                let piece = connection.output.len().min(self.pieces.0);
                let bytes: Vec<u8> = connection.output.drain(..piece).collect();
                self.bus.handle_read(LinkId::new(0, lane), &bytes, false, self.now);
            }
        }
        moved
    }

    /// Redis is away until it is reachable again.
    pub(crate) fn lose_redis(&mut self) {
        self.is_reachable = false;
        for lane in Lane::ALL {
            self.cut(lane);
        }
    }

    pub(crate) fn cut(&mut self, lane: Lane) {
        if self.server.clients.remove(&lane).is_some() {
            self.bus.handle_closed(LinkId::new(0, lane), "connection reset", self.now);
        }
        self.run();
    }

    fn due(&mut self) -> bool {
        let is_due = |at: Option<Instant>| at.is_some_and(|at| at <= self.now);
        let mut moved = false;
        if is_due(self.bus.poll_timeout()) {
            self.bus.handle_timeout(self.now);
            moved = true;
        }
        for shard in &mut self.shards {
            if shard.poll_timeout().is_some_and(|at| at <= self.now) {
                shard.handle_timeout(self.now);
                moved = true;
            }
        }
        moved
    }
}
