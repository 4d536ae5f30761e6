//! One worker's share of an instance: its sessions, its channels, the fan-out to them and what waits to be written.
//!
//! A [`Shard`] is driven like every machine of this crate: inputs (`handle_*`), commands, outputs (`poll_*`). After
//! inputs and commands, drain all outputs that interest you; none is lost if you drain later.
//!
//! ```text
//!                 handle_connection, handle_readable, handle_read, handle_eof, handle_reset
//!   a socket  ─────────────────────────────────────────────────────────────────────────────▶ ┌───────┐ poll_bus
//!             ◀───────────────────────────────────────────────────────────────────────────── │ Shard │ ──────────▶ bus
//!                 poll_transmit, transmit, transmitted, blocked, handle_writable             └───────┘ ◀──────────
//!                 poll_readable, poll_event (EndWrites, Closed)                                         handle_bus
//! ```
//!
//! **Reading.** When a socket is readable, ask [`Shard::handle_readable`]; if it says yes, read once and hand the bytes
//! to [`Shard::handle_read`]. If it says no, leave the socket alone until [`Shard::poll_readable`] names the session.
//!
//! **Writing.** [`Shard::poll_transmit`] names each session that has new output, once. Write what
//! [`Shard::transmit`] lends and say how much left by [`Shard::transmitted`], after which the session is named again if
//! there is more. If the socket takes no more, say [`Shard::blocked`], and [`Shard::handle_writable`] when it does
//! again. Between `transmit` and its `transmitted` no other input may be given for that session.
//!
//! **Time.** Call [`Shard::handle_timeout`] at [`Shard::poll_timeout`] or as soon after as the runtime can. An
//! earlier `now` than the latest seen counts as the latest seen.

mod channels;
mod fan_out;
mod handshake;
mod queue;
mod session;

use std::collections::VecDeque;
use std::io::IoSlice;
use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use slab::Slab;

use self::channels::Channels;
use self::queue::Runs;
pub use self::session::Asked;
use self::session::{Head, Joining, Session, Stage};
use crate::config::Settings;
use crate::error::{Closed, Error, Misuse, Side};
use crate::exchange::{self, News, ToBus, ToShard, Wish};
use crate::http::RequestReader;
use crate::route::Target;
use crate::run::Run;
use crate::time::{Instant, Timers};
use crate::ws::CloseWhen;

/// Names a session, for as long as it lives and never another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId {
    index: u32,
    generation: u32,
}

impl SessionId {
    /// A small number, unique among the living sessions of a shard: a place for the embedder's own table.
    #[must_use]
    pub const fn index(self) -> usize {
        self.index as usize
    }
}

/// Names a subscriber that is not a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubscriberId(u64);

/// What the embedder hears.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// A client asks for a WebSocket: answer with [`Shard::accept`] or [`Shard::refuse`] (only with [`Settings::ask`]).
    Request(SessionId, Box<Asked>),
    /// The WebSocket is open and its channel subscribed.
    Opened(SessionId),
    /// Nothing more will be written: end the write side, and go on reading until the peer ends its own or `Closed` comes.
    EndWrites(SessionId),
    /// The session is gone: close its socket and forget its id.
    Closed(SessionId, Closed),
    /// A subscriber that is not a socket is subscribed.
    Subscribed(SubscriberId),
    /// Messages for a subscriber that is not a socket.
    Run(SubscriberId, Arc<Run>),
}

/// Counts since the start, and what is there now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Sessions now, those in their handshake among them.
    pub sessions: usize,
    /// Open WebSockets since the start.
    pub opened: u64,
    /// Messages from clients.
    pub messages_in: u64,
    /// Messages put into sessions' queues: one for each message and session.
    pub deliveries: u64,
    /// Messages that the bus had for this worker and could not hand over.
    pub missed: u64,
    /// Sessions closed as slow readers.
    pub slow_readers: u64,
    /// Times that a session was paused for want of credit.
    pub pauses: u64,
}

/// One worker's sessions. See the [module](self) for how to drive it.
#[derive(Debug)]
pub struct Shard {
    settings: Arc<Settings>,
    rng: fastrand::Rng,
    latest: Instant,
    sessions: Slab<Session>,
    generation: u32,
    timers: Timers<u32>,
    channels: Channels,
    runs: Runs,
    /// Bytes of unfinished messages.
    partial: usize,
    /// Bytes that may still be published; below zero by at most what one read held.
    credit: i64,
    /// Sessions without credit, longest waiting first.
    paused: VecDeque<SessionId>,
    to_bus: ToBus,
    /// Bytes of runs taken out of the mailbox that the bus was not told of.
    taken: usize,
    writable: VecDeque<SessionId>,
    readable: VecDeque<SessionId>,
    events: VecDeque<Event>,
    subscribers: u64,
    closing: bool,
    stats: Stats,
}

impl Shard {
    /// A shard without sessions. All that is random in it comes from `seed`.
    #[must_use]
    pub fn new(settings: Arc<Settings>, seed: u64, now: Instant) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let credit = exchange::first_credit(settings.limits.publish_bytes, settings.workers);
        Self {
            channels: Channels::new(&mut rng),
            rng,
            latest: now,
            sessions: Slab::new(),
            generation: 0,
            timers: Timers::new(),
            runs: Runs::default(),
            partial: 0,
            credit: i64::try_from(credit).unwrap_or(i64::MAX),
            paused: VecDeque::new(),
            to_bus: ToBus::default(),
            taken: 0,
            writable: VecDeque::new(),
            readable: VecDeque::new(),
            events: VecDeque::new(),
            subscribers: 0,
            closing: false,
            stats: Stats::default(),
            settings,
        }
    }

    // Inputs.

    /// A client's connection was accepted. `peer` is its address, for the origin policy and the embedder.
    pub fn handle_connection(&mut self, peer: Option<IpAddr>, now: Instant) -> SessionId {
        let now = self.at(now);
        let deadline = now + self.settings.limits.head_time;
        let id = self.insert(Stage::Head(Box::new(Head { reader: RequestReader::new(), peer, deadline })));
        self.settle(id, now);
        id
    }

    /// A session's socket is readable: may it be read? If not, [`Shard::poll_readable`] names it when it may.
    ///
    /// No is said while the embedder or the bus has yet to answer, and when no credit to publish is left.
    pub fn handle_readable(&mut self, id: SessionId, now: Instant) -> bool {
        let now = self.at(now);
        let credit = self.credit;
        let Some(session) = self.get_mut(id) else { return false };
        let may = session.may_be_read(credit);
        if !may {
            session.flags.unread = true;
            if let Stage::Open(open) = &mut session.stage
                && session.paused.is_none()
            {
                session.paused = Some(now);
                open.ws.pause(now);
                self.paused.push_back(id);
                self.stats.pauses += 1;
                self.settle(id, now);
            }
        }
        may
    }

    /// `input` was read from the session's socket. It is unmasked in place; nothing of it is kept but an unfinished tail.
    pub fn handle_read(&mut self, id: SessionId, input: &mut [u8], now: Instant) {
        let now = self.at(now);
        let limit = self.settings.limits.head_bytes;
        let Some(session) = self.get_mut(id) else { return };
        match &mut session.stage {
            Stage::Head(_) => self.read_head(id, input, now),
            Stage::Open(_) => self.read_frames(id, input, now),
            Stage::Deciding(deciding) if deciding.leftover.len() + input.len() <= limit => {
                deciding.leftover.extend_from_slice(input);
            }
            Stage::Joining(joining) if joining.leftover.len() + input.len() <= limit => {
                joining.leftover.extend_from_slice(input);
            }
            Stage::Deciding(_) | Stage::Joining(_) => self.turn_away(id, Error::LongHead, 1009, now),
            Stage::Answered { .. } => {}
        }
    }

    /// The session's peer has ended its side of the stream.
    pub fn handle_eof(&mut self, id: SessionId, now: Instant) {
        let now = self.at(now);
        let Some(session) = self.get_mut(id) else { return };
        session.flags.peer_ended = true;
        match &mut session.stage {
            Stage::Head(head) if !head.reader.is_empty() => self.answer_error(id, Error::HeadSyntax, now),
            Stage::Head(_) | Stage::Deciding(_) | Stage::Joining(_) => {
                self.remove(id, Closed { by: Side::Peer, code: None, error: None });
            }
            Stage::Open(open) => {
                open.ws.handle_eof(now);
                self.settle(id, now);
            }
            Stage::Answered { .. } => self.settle(id, now),
        }
    }

    /// The session's connection is gone: a reset, or any error of its socket.
    pub fn handle_reset(&mut self, id: SessionId) {
        let now = self.latest;
        let Some(session) = self.get_mut(id) else { return };
        let error = match &mut session.stage {
            Stage::Open(open) => {
                open.ws.handle_reset(now);
                return self.settle(id, now);
            }
            Stage::Answered { error, .. } => *error,
            Stage::Head(_) | Stage::Deciding(_) | Stage::Joining(_) => None,
        };
        self.remove(id, Closed { by: Side::Transport, code: None, error });
    }

    /// The first `n` bytes that [`Shard::transmit`] lent have left.
    ///
    /// # Errors
    /// [`Misuse::TooMuchTransmitted`] if so many were not lent, [`Misuse::NoSuchSession`]; nothing changes.
    pub fn transmitted(&mut self, id: SessionId, n: usize, now: Instant) -> Result<(), Misuse> {
        let now = self.at(now);
        let session = get_mut(&mut self.sessions, id).ok_or(Misuse::NoSuchSession)?;
        session.sent(&mut self.runs, n, now)?;
        // Nothing follows from a write to a session that is open and up to date, which nearly all are.
        if !session.takes_messages() || session.has_output() {
            self.settle(id, now);
        }
        Ok(())
    }

    /// The session's socket takes no more. It is not named by [`Shard::poll_transmit`] until [`Shard::handle_writable`].
    pub fn blocked(&mut self, id: SessionId) {
        if let Some(session) = self.get_mut(id) {
            session.flags.blocked = true;
        }
    }

    /// The session's socket takes bytes again.
    pub fn handle_writable(&mut self, id: SessionId) {
        if let Some(session) = self.get_mut(id) {
            session.flags.blocked = false;
            self.list(id);
        }
    }

    /// The bus's news.
    pub fn handle_bus(&mut self, news: ToShard, now: Instant) {
        let now = self.at(now);
        for item in news.news {
            match item {
                News::Subscribed(channel) => self.channel_subscribed(channel, now),
                News::Run { channel, run } => {
                    self.taken += run.bytes().len();
                    self.fan_out(channel, &run, now);
                }
                News::Missed { messages } => self.stats.missed += messages,
                News::Credit(bytes) => self.credit += i64::try_from(bytes).unwrap_or(i64::MAX),
                News::Unsubscribed => self.channels.unsubscribed_all(),
            }
        }
        // Said now and then: each time may wake the bus's thread.
        if self.taken > self.settings.limits.mailbox_bytes / 4 {
            self.to_bus.wishes.push(Wish::Taken { bytes: std::mem::take(&mut self.taken) });
        }
        self.resume_paused(now);
    }

    /// Time has come to `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        let now = self.at(now);
        while let Some(index) = self.timers.pop_due(now) {
            let session = &mut self.sessions[index as usize];
            session.deadline = None;
            let id = SessionId { index, generation: session.generation };
            self.session_timeout(id, now);
        }
    }

    // Commands.

    /// Answers [`Event::Request`]: the client joins `target`'s channel, with one of the subprotocols that it offered
    /// or none. The 101 leaves when the channel is subscribed.
    ///
    /// # Errors
    /// [`Misuse::WrongState`] if the session does not wait for an answer, [`Misuse::InvalidArgument`] if the
    /// subprotocol was not offered, or the channel's name is empty or too long or the channel carries the other frame type,
    /// [`Misuse::NoSuchSession`].
    pub fn accept(
        &mut self,
        id: SessionId,
        target: Target,
        subprotocol: Option<&str>,
        now: Instant,
    ) -> Result<(), Misuse> {
        let now = self.at(now);
        self.check_channel(&target.channel, target.frame)?;
        let session = get_mut(&mut self.sessions, id).ok_or(Misuse::NoSuchSession)?;
        let Stage::Deciding(deciding) = &mut session.stage else { return Err(Misuse::WrongState) };
        if subprotocol.is_some_and(|one| deciding.subprotocols.iter().all(|other| other != one)) {
            return Err(Misuse::InvalidArgument);
        }
        let switch = Some(deciding.upgrade.answer(subprotocol)?);
        let leftover = std::mem::take(&mut deciding.leftover);
        self.join(id, switch, target, leftover, now);
        Ok(())
    }

    /// Answers [`Event::Request`] with an error's HTTP status.
    ///
    /// # Errors
    /// [`Misuse::WrongState`] if the session does not wait for an answer, [`Misuse::NoSuchSession`].
    pub fn refuse(&mut self, id: SessionId, error: Error, now: Instant) -> Result<(), Misuse> {
        let now = self.at(now);
        let session = get_mut(&mut self.sessions, id).ok_or(Misuse::NoSuchSession)?;
        let Stage::Deciding(_) = &session.stage else { return Err(Misuse::WrongState) };
        self.answer_error(id, error, now);
        Ok(())
    }

    /// Takes in a WebSocket whose handshake somebody else made; `leftover` is what was read behind it.
    ///
    /// # Errors
    /// [`Misuse::InvalidArgument`] if the channel's name is empty or too long, or the channel carries the other frame type.
    pub fn adopt(&mut self, target: Target, leftover: Vec<u8>, now: Instant) -> Result<SessionId, Misuse> {
        let now = self.at(now);
        self.check_channel(&target.channel, target.frame)?;
        let deadline = now + self.settings.limits.confirm_time;
        let joining = Joining { switch: None, target: target.clone(), leftover: Vec::new(), deadline };
        let id = self.insert(Stage::Joining(Box::new(joining)));
        self.join(id, None, target, leftover, now);
        Ok(id)
    }

    /// Closes an open session, after what waits for it has left.
    ///
    /// # Errors
    /// [`Misuse::InvalidArgument`] for a code or reason that cannot be sent, [`Misuse::WrongState`] if it is not open,
    /// [`Misuse::NoSuchSession`].
    pub fn close(&mut self, id: SessionId, code: u16, reason: &str, now: Instant) -> Result<(), Misuse> {
        let now = self.at(now);
        let session = get_mut(&mut self.sessions, id).ok_or(Misuse::NoSuchSession)?;
        let Stage::Open(open) = &mut session.stage else { return Err(Misuse::WrongState) };
        open.ws.close(code, reason, CloseWhen::AfterData, now)?;
        self.settle(id, now);
        Ok(())
    }

    /// Publishes a message in the embedder's own name.
    ///
    /// Nothing stops it at the end of the credit: an embedder that floods looks at [`Shard::has_credit`] first.
    pub fn publish(&mut self, channel: &Bytes, payload: &[u8]) {
        self.credit -= cost(channel, payload.len());
        self.to_bus.publish(channel, payload);
    }

    /// Whether the bus takes publishes without exceeding its bound.
    #[must_use]
    pub const fn has_credit(&self) -> bool {
        self.credit > 0
    }

    /// Ends all sessions: those that are open by a Close with 1001 behind what waits for them, others by 503. New
    /// connections get 503 from here on. [`Shard::is_empty`] tells when all are gone.
    pub fn shutdown(&mut self, now: Instant) {
        let now = self.at(now);
        self.closing = true;
        let ids: Vec<SessionId> = self.sessions.iter().map(|(index, session)| id_of(index, session)).collect();
        for id in ids {
            let Some(session) = self.get_mut(id) else { continue };
            match &mut session.stage {
                Stage::Open(open) => {
                    // A session that is closing already refuses a second Close.
                    let _ = open.ws.close(1001, "the server is going away", CloseWhen::AfterData, now);
                    self.settle(id, now);
                }
                Stage::Head(head) if head.reader.is_empty() => {
                    self.remove(id, Closed { by: Side::Local, code: None, error: None });
                }
                Stage::Head(_) | Stage::Deciding(_) | Stage::Joining(_) => {
                    self.turn_away(id, Error::Unavailable, 1001, now);
                }
                Stage::Answered { .. } => {}
            }
        }
    }

    // Outputs.

    /// A session that has new output. Can change after every input and command.
    pub fn poll_transmit(&mut self) -> Option<SessionId> {
        while let Some(id) = self.writable.pop_front() {
            let Some(session) = self.get_mut(id) else { continue };
            session.flags.listed = false;
            if !session.flags.blocked && session.has_output() {
                return Some(id);
            }
        }
        None
    }

    /// Lends what the session has to write, in order, into `out`; says how many slices it filled. It only looks.
    #[must_use]
    pub fn transmit<'a>(&'a self, id: SessionId, out: &mut [IoSlice<'a>]) -> usize {
        self.get(id).map_or(0, |session| session.slices(&self.runs, out))
    }

    /// A session whose socket may be read again after [`Shard::handle_readable`] said no. Can change after
    /// [`Shard::handle_bus`], [`Shard::accept`], [`Shard::refuse`], [`Shard::handle_timeout`].
    pub fn poll_readable(&mut self) -> Option<SessionId> {
        self.readable.pop_front()
    }

    /// What has happened. Can change after every input and command.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// What the bus should hear. Can change after every input and command.
    pub fn poll_bus(&mut self) -> Option<ToBus> {
        if self.to_bus.is_empty() { None } else { Some(std::mem::take(&mut self.to_bus)) }
    }

    /// The next instant at which [`Shard::handle_timeout`] has something to do; the latest one seen while another output
    /// is still to be polled.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let unpolled = !self.events.is_empty()
            || !self.readable.is_empty()
            || !self.writable.is_empty()
            || !self.to_bus.is_empty();
        if unpolled { Some(self.latest) } else { self.timers.next() }
    }

    // Getters.

    /// Whether no session is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    /// Counts since the start.
    #[must_use]
    pub fn stats(&self) -> Stats {
        Stats { sessions: self.sessions.len(), ..self.stats }
    }

    fn get(&self, id: SessionId) -> Option<&Session> {
        self.sessions.get(id.index()).filter(|session| session.generation == id.generation)
    }

    fn get_mut(&mut self, id: SessionId) -> Option<&mut Session> {
        get_mut(&mut self.sessions, id)
    }

    fn at(&mut self, now: Instant) -> Instant {
        self.latest = self.latest.max(now);
        self.latest
    }
}

/// For where the shard's other fields are borrowed too.
fn get_mut(sessions: &mut Slab<Session>, id: SessionId) -> Option<&mut Session> {
    sessions.get_mut(id.index()).filter(|session| session.generation == id.generation)
}

fn id_of(index: usize, session: &Session) -> SessionId {
    // A shard has fewer than 2³² sessions: a process cannot have as many sockets.
    SessionId { index: index as u32, generation: session.generation }
}

fn cost(channel: &[u8], payload_len: usize) -> i64 {
    i64::try_from(exchange::publish_cost(channel, payload_len)).unwrap_or(i64::MAX)
}
