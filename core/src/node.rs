//! A whole instance on one thread: one [`Shard`] and one [`Bus`], wired together. The [crate's page](crate) has an
//! example.
//!
//! A [`Node`] has one kind of socket: clients and Redis are read and written alike. A turn of an event loop:
//!
//! 1. Sleep until a socket is ready, at most until [`Node::poll_timeout`].
//! 2. Read each ready socket once and hand over what came: [`Node::handle_readable`], then [`Node::handle_read`].
//! 3. Call [`Node::handle_timeout`], whether or not it is time: it also carries messages from one part to the other.
//! 4. Do every [`Action`] of [`Node::poll_action`], and take every [`Event`] of [`Node::poll_event`]: nothing bounds
//!    what is not polled.
//!
//! To end, call [`Node::shutdown`], accept no more, and go on until [`Node::is_closed`].
//!
//! ```
//! use fanfare_core::node::{Action, Node};
//! use fanfare_core::settings::Settings;
//! use fanfare_core::time::Instant;
//!
//! let now = Instant::ZERO;
//! let mut node = Node::new(Settings::default(), None, 42, now);
//! let client = node.handle_connection(None, now);
//! node.shutdown(now);
//! assert!(!node.is_closed(), "the client has a tenth of the drain time for its request");
//! node.handle_reset(client, "connection reset by peer", now);
//! node.handle_timeout(now);
//! assert!(std::iter::from_fn(|| node.poll_action()).any(|action| action == Action::Close(client)));
//! assert!(node.is_closed());
//! ```

use std::collections::VecDeque;
use std::io::IoSlice;
use std::net::IpAddr;
use std::sync::Arc;

use crate::bus::{self, Bus};
use crate::error::Misuse;
use crate::histogram::Histogram;
use crate::http::Answer;
use crate::redis::{Endpoint, LinkId, RedisUrl};
use crate::settings::Settings;
use crate::shard::{self, SessionId, Shard};
use crate::shutdown::{Shutdown, Stage};
use crate::snapshot::{Share, Snapshot};
use crate::time::{Duration, Instant, earlier};

/// One of an instance's sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SocketId {
    /// A connection to Redis.
    Redis(LinkId),
    /// A client's.
    Client(SessionId),
}

impl SocketId {
    /// A small number, unique among the living sockets of an instance: a place for the embedder's own table, and the
    /// token or key that event libraries ask for. See [`SessionId::index`] for when another gets it.
    #[must_use]
    pub const fn index(self) -> usize {
        match self {
            Self::Redis(id) => id.index(),
            Self::Client(id) => LinkId::COUNT + id.index(),
        }
    }
}

/// A thing for the owner to do with a socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Connect to this endpoint; then [`Node::handle_connected`] or [`Node::handle_dial_failed`].
    ///
    /// It needs no timeout and no second try of yours: [`Action::Close`] ends one that takes longer than
    /// [`Limits::dial_time`](crate::limits::Limits::dial_time), and another follows.
    Dial(LinkId, Endpoint),
    /// Write once what [`Node::transmit`] lends; then [`Node::transmitted`], [`Node::blocked`] if the socket would block,
    /// or [`Node::handle_reset`].
    Write(SocketId),
    /// Ask [`Node::handle_readable`] and try to read: it had said no and would now say yes, or something is overdue and may
    /// have come without your having heard of it. For a connection to Redis that is being made, see before whether it has
    /// been.
    Read(SocketId),
    /// End the write side, and go on reading. If that fails the next read says why.
    EndWrites(SocketId),
    /// Have the connection reset when its socket is closed (`SO_LINGER` of zero), which is next: its client takes nothing,
    /// and the system would go on offering; or what the system holds for Redis is not to arrive any more. There may be no
    /// socket yet, if a dial took too long.
    Reset(SocketId),
    /// Close the socket, or give up its dial. No input that comes of it may reach the node any more. It comes for every
    /// socket, those of [`Node::handle_reset`] and of dials that failed among them, and may find that there is none.
    Close(SocketId),
}

/// Something that has happened, and is no [`Action`].
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// With a client.
    Shard(shard::Event),
    /// With Redis.
    Bus(bus::Event),
}

/// One shard and one bus.
#[derive(Debug)]
pub struct Node {
    /// Sessions and fan-out, for commands and getters: its outputs are the node's.
    pub shard: Shard,
    /// The part that carries publishes to every instance, for commands and getters: its outputs are the node's.
    pub bus: Bus,
    /// When it was made.
    since: Instant,
    latest: Instant,
    actions: VecDeque<Action>,
    events: VecDeque<Event>,
    drain_time: Duration,
    shutdown: Shutdown,
    lost: u64,
}

impl Node {
    /// An instance of one worker, whatever `settings.workers` says; with `redis` one of many that share it. All that is
    /// random comes from `seed`, which nobody outside should know: hash tables are keyed by it.
    #[must_use]
    pub fn new(mut settings: Settings, redis: Option<RedisUrl>, seed: u64, now: Instant) -> Self {
        settings.workers = 1;
        let mut rng = fastrand::Rng::with_seed(seed);
        let bus = match redis {
            Some(url) => Bus::redis(url, &settings.channel_prefix, &settings.limits, 1, rng.u64(..), now),
            None => Bus::local(&settings.limits, 1, rng.u64(..), now),
        };
        let drain_time = settings.limits.drain_time;
        let shard = Shard::new(Arc::new(settings), rng.u64(..), now);
        let (actions, events) = (VecDeque::new(), VecDeque::new());
        let shutdown = Shutdown::new(1);
        Self { shard, bus, since: now, latest: now, actions, events, drain_time, shutdown, lost: 0 }
    }

    // Inputs.

    /// What a wall clock shows, for the Date field of answers; see [`Shard::set_wall_clock`].
    pub const fn set_wall_clock(&mut self, since_epoch: Duration, now: Instant) {
        self.shard.set_wall_clock(since_epoch, now);
    }

    /// A client's connection was accepted; see [`Shard::handle_connection`].
    pub fn handle_connection(&mut self, peer: Option<IpAddr>, now: Instant) -> SocketId {
        SocketId::Client(self.shard.handle_connection(peer, now))
    }

    /// A connection for operation was accepted; see [`Shard::handle_admin_connection`]. Answer its
    /// [`shard::Event::Scrape`] by [`Node::answer_scrape`] with a text of [`Node::metrics`].
    pub fn handle_admin_connection(&mut self, now: Instant) -> SocketId {
        SocketId::Client(self.shard.handle_admin_connection(now))
    }

    /// Answers [`shard::Event::Scrape`].
    ///
    /// # Errors
    /// As [`Shard::answer_scrape`].
    pub fn answer_scrape(&mut self, id: SessionId, answer: &Answer, now: Instant) -> Result<(), Misuse> {
        self.shard.answer_scrape(id, answer, now)
    }

    /// A connection to Redis stands.
    pub fn handle_connected(&mut self, id: LinkId, now: Instant) {
        self.bus.handle_connected(id, now);
    }

    /// A connection to Redis could not be made; `reason` is for people. Should there be something to close,
    /// [`Action::Close`] comes for it.
    pub fn handle_dial_failed(&mut self, id: LinkId, reason: &str, now: Instant) {
        self.see(now);
        self.actions.push_back(Action::Close(SocketId::Redis(id)));
        self.bus.handle_dial_failed(id, reason, now);
    }

    /// A socket is readable: may it be read? If not, [`Action::Read`] names it when it may.
    pub fn handle_readable(&mut self, id: SocketId, now: Instant) -> bool {
        match id {
            SocketId::Client(id) => self.shard.handle_readable(id, now),
            SocketId::Redis(link) => {
                self.bus.handle_looked(link, now);
                true
            }
        }
    }

    /// `input` was read from a socket, and `more` may lie there: it filled the buffer. Nothing of it is kept but an
    /// unfinished tail; it may be changed in place.
    pub fn handle_read(&mut self, id: SocketId, input: &mut [u8], more: bool, now: Instant) {
        match id {
            SocketId::Client(id) => self.shard.handle_read(id, input, now),
            SocketId::Redis(link) => self.bus.handle_read(link, input, more, now),
        }
    }

    /// A socket's peer has ended its side of the stream: a read gave no bytes. [`Node::handle_readable`] says no from
    /// here on.
    pub fn handle_eof(&mut self, id: SocketId, now: Instant) {
        match id {
            SocketId::Client(id) => self.shard.handle_eof(id, now),
            SocketId::Redis(_) => self.handle_reset(id, "the server closed the connection", now),
        }
    }

    /// Whether nobody may read the socket now, so that no read finds that its client has hung up; see
    /// [`Shard::is_unread`].
    #[must_use]
    pub fn is_unread(&self, id: SocketId) -> bool {
        matches!(id, SocketId::Client(id) if self.shard.is_unread(id))
    }

    /// As [`Node::handle_eof`], for a client for which [`Node::is_unread`] says yes: it has hung up, and nothing lies in its
    /// socket.
    pub fn handle_unread_eof(&mut self, id: SocketId, now: Instant) {
        if let SocketId::Client(id) = id {
            self.shard.handle_unread_eof(id, now);
        }
    }

    /// A socket is of no more use: reading or writing failed. `reason` is for people. Not for errors that pass, as
    /// "would block" and "interrupted".
    pub fn handle_reset(&mut self, id: SocketId, reason: &str, now: Instant) {
        self.see(now);
        match id {
            SocketId::Client(id) => self.shard.handle_reset(id),
            SocketId::Redis(link) => {
                self.actions.push_back(Action::Close(id));
                self.bus.handle_closed(link, reason, now);
            }
        }
    }

    /// The first `n` bytes that [`Node::transmit`] lent have left; [`Action::Write`] comes again if there is more.
    ///
    /// # Errors
    /// [`Misuse::TooMuchTransmitted`] if so many were not lent, [`Misuse::NoSuchSession`].
    pub fn transmitted(&mut self, id: SocketId, n: usize, now: Instant) -> Result<(), Misuse> {
        match id {
            SocketId::Client(id) => self.shard.transmitted(id, n, now),
            SocketId::Redis(link) => self.bus.transmitted(link, n, now),
        }
    }

    /// A socket takes no more. There is no [`Action::Write`] for it until [`Node::handle_writable`].
    pub fn blocked(&mut self, id: SocketId) {
        match id {
            SocketId::Client(id) => self.shard.blocked(id),
            SocketId::Redis(link) => self.bus.blocked(link),
        }
    }

    /// A socket takes bytes again. To say so of one that was not blocked does no harm.
    pub fn handle_writable(&mut self, id: SocketId) {
        match id {
            SocketId::Client(id) => self.shard.handle_writable(id),
            SocketId::Redis(link) => self.bus.handle_writable(link),
        }
    }

    /// Time has come to `now`; what the shard and the bus have to say to each other is exchanged. Too early or too often
    /// does no harm. Without Redis, this is also the turn that delivers what was published, 64 KiB at a time.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.see(now);
        self.exchange(now);
        self.bus.handle_timeout(now);
        self.shard.handle_timeout(now);
        self.exchange(now);
        self.follow_shutdown();
    }

    /// Carries wishes and news between the two until neither has any. [`Node::handle_timeout`] does so, too.
    pub fn exchange(&mut self, now: Instant) {
        loop {
            if let Some(wishes) = self.shard.poll_bus() {
                // Misuse is impossible: the bus is made for one worker.
                let _ = self.bus.handle_shard(0, wishes, now);
            } else if let Some((_, news)) = self.bus.poll_shard() {
                self.shard.handle_bus(news, now);
            } else {
                return;
            }
        }
    }

    /// Begins the end: sessions end as by [`Shard::shutdown`], then what was published leaves, for which Redis may yet
    /// come back, then both connections to Redis are closed. Go on as before, but accept no more, until
    /// [`Node::is_closed`]. If load balancers are to notice before, call [`Shard::drain`]
    /// [`Limits::drain_delay`](crate::limits::Limits::drain_delay) earlier: here it is the owner's to wait.
    pub fn shutdown(&mut self, now: Instant) {
        self.see(now);
        if self.shutdown.stage() == Stage::Serving {
            self.shutdown.begin(&self.bus, Duration::ZERO, self.drain_time, self.latest);
            self.shutdown.advance(&mut self.bus, self.latest);
            self.shard.shutdown(now);
        }
    }

    // Outputs.

    /// Whether [`Node::shutdown`] has come to its end, at the latest after
    /// [`Limits::drain_time`](crate::limits::Limits::drain_time). What is left then is given up: [`Node::lost`] says how
    /// many publishes, [`shard::Stats::sessions`] how many sessions.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.shutdown.stage() == Stage::Ended
    }

    /// How many publishes were accepted and not delivered, or not confirmed by Redis, once [`Node::is_closed`].
    #[must_use]
    pub const fn lost(&self) -> u64 {
        self.lost
    }

    /// The next thing to do with a socket. Can change after every input and command, those of [`Node::shard`] and
    /// [`Node::bus`] among them.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.sort();
        self.actions
            .pop_front()
            .or_else(|| match self.bus.poll_action()? {
                bus::Action::Dial(id, endpoint) => Some(Action::Dial(id, endpoint)),
                bus::Action::HangUp(id) => {
                    self.actions.push_back(Action::Close(SocketId::Redis(id)));
                    Some(Action::Reset(SocketId::Redis(id)))
                }
                bus::Action::Look(id) => Some(Action::Read(SocketId::Redis(id))),
            })
            .or_else(|| self.shard.poll_readable().map(SocketId::Client).map(Action::Read))
            // Redis before the clients, so that others get a message as early as our own.
            .or_else(|| self.bus.poll_transmit().map(SocketId::Redis).map(Action::Write))
            .or_else(|| self.shard.poll_transmit().map(SocketId::Client).map(Action::Write))
    }

    /// The next event. Can change as [`Node::poll_action`].
    pub fn poll_event(&mut self) -> Option<Event> {
        self.sort();
        self.events.pop_front()
    }

    /// Lends what a socket has to write, in order, into `out`; says how many slices it filled. It only looks.
    #[must_use]
    pub fn transmit<'a>(&'a self, id: SocketId, out: &mut [IoSlice<'a>]) -> usize {
        match id {
            SocketId::Client(id) => self.shard.transmit(id, out),
            SocketId::Redis(link) => self.bus.transmit(link, out),
        }
    }

    /// The next instant at which [`Node::handle_timeout`] has something to do; the latest one seen while another output
    /// is still to be polled, and once the node [is closed](Node::is_closed), so that nobody sleeps past its end.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let unpolled = !self.actions.is_empty() || !self.events.is_empty();
        let ends = self.shutdown.deadline(&self.bus, self.latest);
        let is_idle = self.is_all_gone() && self.bus.stats().publish_bytes == 0;
        let own = if unpolled || is_idle { Some(self.latest) } else { ends };
        earlier(own, earlier(self.shard.poll_timeout(), self.bus.poll_timeout()))
    }

    // Getters.

    /// Its counts. Nothing measures its fan-out: that is for the owner, which drives its sockets.
    #[must_use]
    pub fn metrics(&self) -> Snapshot {
        let share = Share::new(&self.shard, &Histogram::default());
        Snapshot::new(&self.bus, &self.shard, self.latest.since(self.since)).with(&share)
    }

    fn follow_shutdown(&mut self) {
        if self.is_all_gone() {
            self.shutdown.worker_is_empty();
        }
        while let Some(stage) = self.shutdown.advance(&mut self.bus, self.latest) {
            if stage == Stage::Ended {
                self.lost = self.shutdown.lost(&mut self.bus);
            }
        }
    }

    /// Whether the sessions were to be closed, and all are.
    fn is_all_gone(&self) -> bool {
        self.shutdown.stage() >= Stage::Closing && self.shard.is_empty()
    }

    /// Tells what is to be done from what is only to be heard.
    fn sort(&mut self) {
        while let Some(event) = self.shard.poll_event() {
            match event {
                shard::Event::EndWrites(id) => self.actions.push_back(Action::EndWrites(SocketId::Client(id))),
                shard::Event::Closed(id, _) => {
                    self.actions.push_back(Action::Close(SocketId::Client(id)));
                    self.events.push_back(Event::Shard(event));
                }
                shard::Event::GivenUp(id) => self.actions.push_back(Action::Reset(SocketId::Client(id))),
                _ => self.events.push_back(Event::Shard(event)),
            }
        }
        self.events.extend(std::iter::from_fn(|| self.bus.poll_event()).map(Event::Bus));
    }

    fn see(&mut self, now: Instant) {
        self.latest = self.latest.max(now);
    }
}

#[cfg(test)]
mod tests;
