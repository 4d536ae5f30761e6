//! A whole instance with any bytes on all of its sockets at once, to clients, to Redis, and a clock that jumps.

use std::collections::BTreeMap;
use std::io::IoSlice;

use arbitrary::Arbitrary;

use super::client::Client;
use crate::error::Error;
use crate::http::Answer;
use crate::limits::Limits;
use crate::node::{Action, Event, Node, SocketId};
use crate::redis::world::{Server, url};
use crate::redis::{Lane, LinkId};
use crate::resp::encode;
use crate::route::Routes;
use crate::settings::Settings;
use crate::shard::{self, Asked, SessionId};
use crate::time::{Duration, Instant};

/// What happens to an instance.
#[derive(Arbitrary, Debug)]
pub struct NodeStory<'a> {
    seed: u8,
    has_redis: bool,
    asks: bool,
    steps: Vec<Step<'a>>,
}

/// Sessions are numbered modulo how many there are.
#[derive(Arbitrary, Debug)]
enum Step<'a> {
    /// A client connects and says nothing.
    Connect,
    /// A client asks for a room.
    Join(u8),
    Read(u8, &'a [u8]),
    /// A client sends a text message.
    Say(u8, &'a str),
    /// So many bytes go out.
    Write(u8, u8),
    /// Everything goes out, to all clients.
    WriteAll,
    Block(u8),
    Free(u8),
    Eof(u8),
    Reset(u8),
    Publish(&'a [u8]),
    /// Redis says something that it was not asked for.
    Lie(Lane, &'a [u8]),
    Cut(Lane),
    Reachable(bool),
    Mute(bool),
    /// So many hundredths of a second pass.
    Pass(u16),
    Shutdown,
}

const PUBLISH_BYTES: usize = 2_000;
/// The longest input of one read, and the shortest frame in it.
const READ_BYTES: usize = 1_024;
const FRAME_BYTES: usize = 6;

/// Tells the story and shuts down; afterwards nothing may be left.
pub fn node(story: NodeStory<'_>) {
    let mut teller = Teller::new(&story);
    for step in story.steps.iter().take(200) {
        teller.step(step);
        teller.settle();
        teller.check();
    }
    teller.end();
}

struct Teller {
    node: Node,
    redis: Server,
    is_reachable: bool,
    clients: BTreeMap<SocketId, Client>,
    now: Instant,
}

impl Teller {
    fn new(story: &NodeStory<'_>) -> Self {
        let limits = Limits {
            head_bytes: 400,
            message_bytes: 200,
            partial_bytes: 1_000,
            queue_bytes: 500,
            all_queues_bytes: 1_500,
            publish_bytes: PUBLISH_BYTES,
            mailbox_bytes: 2_000,
            ..Limits::default()
        };
        let mut settings = Settings::new(limits, Routes::default_chat(), "").expect("sound settings");
        settings.files.insert("/".to_owned(), Answer::text(200, "the page"));
        settings.ask = story.asks;
        Self {
            node: Node::new(settings, story.has_redis.then(url), story.seed.into(), Instant::ZERO),
            redis: Server::default(),
            is_reachable: true,
            clients: BTreeMap::new(),
            now: Instant::ZERO,
        }
    }

    fn step(&mut self, step: &Step<'_>) {
        let now = self.now;
        match *step {
            Step::Connect => drop(self.connect()),
            Step::Join(room) => {
                let id = self.connect();
                let head = format!(
                    "GET /chat/{} HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
                     Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n",
                    room % 3
                );
                self.read(id, head.as_bytes());
            }
            Step::Read(client, bytes) => self.with(client, |this, id| this.read(id, bytes)),
            Step::Say(client, text) => self.with(client, |this, id| {
                let text = &text.as_bytes()[..text.len().min(125)];
                this.read(id, &[&[0x81, 0x80 | text.len() as u8, 0, 0, 0, 0], text].concat());
            }),
            Step::Write(client, bytes) => self.with(client, |this, id| this.write(id, bytes.into())),
            Step::WriteAll => self.write_all(),
            Step::Block(client) => self.with(client, |this, id| this.node.blocked(id)),
            Step::Free(client) => self.with(client, |this, id| this.node.handle_writable(id)),
            Step::Eof(client) => self.with(client, |this, id| this.node.handle_eof(id, now)),
            Step::Reset(client) => self.with(client, |this, id| this.node.handle_reset(id, "reset", now)),
            Step::Publish(payload) => {
                if self.node.shard.has_credit() {
                    let fits = self.node.shard.publish(&"chat".into(), payload).is_ok();
                    assert_eq!(fits, payload.len() <= 200);
                }
            }
            Step::Lie(lane, bytes) => {
                if let Some(client) = self.redis.clients.get_mut(&lane) {
                    client.output.extend_from_slice(bytes);
                }
            }
            Step::Cut(lane) => self.cut(lane),
            Step::Reachable(reachable) => {
                self.is_reachable = reachable;
                if !reachable {
                    Lane::ALL.into_iter().for_each(|lane| self.cut(lane));
                }
            }
            Step::Mute(mute) => self.redis.is_mute = mute,
            Step::Pass(hundredths) => self.pass(Duration::from_millis(u64::from(hundredths) * 10)),
            Step::Shutdown => self.node.shard.shutdown(now),
        }
    }

    fn with(&mut self, number: u8, act: impl FnOnce(&mut Self, SocketId)) {
        let number = usize::from(number) % self.clients.len().max(1);
        if let Some(&id) = self.clients.keys().nth(number) {
            act(self, id);
        }
    }

    fn connect(&mut self) -> SocketId {
        let id = self.node.handle_connection(Some([192, 0, 2, 7].into()), self.now);
        self.clients.insert(id, Client::default());
        id
    }

    /// Bytes that may not be read are lost: a client need not keep its word either.
    fn read(&mut self, id: SocketId, bytes: &[u8]) {
        for piece in bytes.chunks(READ_BYTES) {
            if self.node.handle_readable(id, self.now) {
                self.node.handle_read(id, &mut piece.to_vec(), false, self.now);
            }
        }
    }

    /// Whatever leaves must make sense to a strict client, and to Redis.
    fn write(&mut self, id: SocketId, most: usize) {
        let mut slices = [IoSlice::new(&[]); 8];
        let filled = self.node.transmit(id, &mut slices);
        let bytes: Vec<u8> = slices[..filled].iter().flat_map(|slice| slice.to_vec()).take(most).collect();
        match id {
            SocketId::Redis(id) => self.redis.read(id.lane(), &bytes),
            SocketId::Client(_) => self.clients.get_mut(&id).expect("only who is there is named").hear(&bytes),
        }
        self.node.transmitted(id, bytes.len(), self.now).expect("it was lent");
    }

    fn write_all(&mut self) {
        for id in self.clients.keys().copied().collect::<Vec<_>>() {
            self.node.handle_writable(id);
            self.write(id, usize::MAX);
        }
    }

    fn cut(&mut self, lane: Lane) {
        if self.redis.clients.contains_key(&lane) {
            self.node.handle_reset(SocketId::Redis(LinkId::new(0, lane)), "connection reset", self.now);
        }
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        self.settle();
        let mut rounds = 0;
        while let Some(at) = self.node.poll_timeout().filter(|&at| at <= end) {
            rounds = if at > self.now { 0 } else { rounds + 1 };
            assert!(rounds < 100, "the instance spins");
            self.now = self.now.max(at);
            self.node.handle_timeout(self.now);
            self.settle();
        }
        self.now = end;
        self.node.handle_timeout(end);
    }

    /// Moves everything that can move now, but for what clients have yet to read.
    fn settle(&mut self) {
        loop {
            self.node.exchange(self.now);
            let has_moved = self.act() | self.read_from_redis() | self.take_event();
            if !has_moved {
                return;
            }
        }
    }

    fn act(&mut self) -> bool {
        let Some(action) = self.node.poll_action() else { return false };
        match action {
            Action::Dial(id, _) if self.is_reachable => {
                self.redis.accept(id.lane());
                self.node.handle_connected(id, self.now);
            }
            Action::Dial(id, _) => self.node.handle_dial_failed(id, "connection refused", self.now),
            Action::Write(id @ SocketId::Redis(_)) => self.write(id, usize::MAX),
            Action::Reset(SocketId::Redis(_)) => {}
            Action::Reset(id) => assert!(self.clients.contains_key(&id), "it is closed next"),
            Action::Close(SocketId::Redis(id)) => drop(self.redis.clients.remove(&id.lane())),
            Action::Close(id) => drop(self.clients.remove(&id).expect("closed once")),
            Action::Read(id) => drop(self.node.handle_readable(id, self.now)),
            Action::Write(id) | Action::EndWrites(id) => assert!(self.clients.contains_key(&id)),
        }
        true
    }

    fn read_from_redis(&mut self) -> bool {
        for lane in Lane::ALL {
            let Some(client) = self.redis.clients.get_mut(&lane).filter(|client| !client.output.is_empty()) else {
                continue;
            };
            let mut bytes = std::mem::take(&mut client.output);
            self.node.handle_read(SocketId::Redis(LinkId::new(0, lane)), &mut bytes, false, self.now);
            return true;
        }
        false
    }

    fn take_event(&mut self) -> bool {
        let Some(event) = self.node.poll_event() else { return false };
        if let Event::Shard(shard::Event::Request(id, asked)) = event {
            self.decide(id, *asked);
        }
        true
    }

    fn decide(&mut self, id: SessionId, asked: Asked) {
        // The request may have waited for its decision too long, or its client may have gone.
        let _ = match asked.route {
            Some(target) => self.node.shard.accept(id, target, None, self.now),
            None => self.node.shard.refuse(id, &Answer::for_error(Error::NotFound), self.now),
        };
    }

    /// The queue's bound is exceeded by what was in one read at most, where the smallest frames are the worst.
    fn check(&self) {
        let stats = self.node.bus.stats();
        let overdraft = READ_BYTES / FRAME_BYTES * encode::publish_len("chat:0".len(), 0) + READ_BYTES;
        assert!(stats.publish_bytes <= PUBLISH_BYTES + overdraft, "{stats:?}");
        assert_eq!(self.node.shard.stats().sessions, self.clients.len());
        assert!(self.node.shard.readiness().is_err() || self.node.bus.readiness().is_ok(), "the shard has heard of it");
    }

    fn end(&mut self) {
        self.node.shard.shutdown(self.now);
        self.settle();
        self.write_all();
        self.pass(Duration::from_secs(70));
        assert!(self.node.shard.is_empty(), "{:?}", self.clients);
        self.node.bus.close(self.now);
        self.redis.is_mute = false;
        self.pass(Duration::from_secs(70));
        assert!(self.node.bus.is_closed());
        assert_eq!((self.node.bus.stats().channels, self.node.poll_timeout()), (0, None));
    }
}
