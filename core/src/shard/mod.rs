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
//! to [`Shard::handle_read`]. If it says no, leave the socket alone until [`Shard::poll_readable`] names the session, then
//! ask again. A message that finds no credit to publish is kept, with what was read behind it, and the socket waits until it
//! is taken in. While [`Shard::is_unread`] says so, no read finds that the client has hung up: look now and then in another way,
//! or it keeps its place. How much one read holds is yours to choose, and is what bounds are exceeded by at most: 16 KiB is good.
//! What came behind a request, before the session was open, is kept in the same way. What is kept is taken in by
//! [`Shard::handle_timeout`], which is due at once while some of it may be.
//!
//! **Writing.** [`Shard::poll_transmit`] names each session that has new output, once. Write what
//! [`Shard::transmit`] lends and say how much left by [`Shard::transmitted`], after which the session is named again if
//! there is more. If the socket takes no more, say [`Shard::blocked`], and [`Shard::handle_writable`] when it does
//! again. Between `transmit` and
//! its `transmitted` nothing else may be called that changes the shard: what is lent is what would leave at that moment.
//!
//! **Operation.** Plain requests for `/live` and `/ready` are answered here, whatever else is served; connections of
//! [`Shard::handle_admin_connection`] may also ask for `/metrics`.
//!
//! **Time.** Call [`Shard::handle_timeout`] at [`Shard::poll_timeout`] or as soon after as the runtime can. Nobody is
//! dropped by the clock alone: a session whose deadline has passed is named by [`Shard::poll_readable`], and judged by the
//! next [`Shard::handle_timeout`] after you have asked [`Shard::handle_readable`] and read what it lets you. An
//! earlier `now` than the latest seen counts as the latest seen. A deadline that has moved away is still reported
//! once; the call is a no-op then.
//!
//! **The bus.** Hand every [`ToBus`] of [`Shard::poll_bus`] to [`Bus::handle_shard`](crate::bus::Bus::handle_shard) and
//! every [`ToShard`] of [`Bus::poll_shard`](crate::bus::Bus::poll_shard) to its worker's [`Shard::handle_bus`], in order.
//!
//! # The life of a session
//!
//! | stage | leaves it by | on its deadline |
//! | --- | --- | --- |
//! | reads the request head (RFC 9112) | a complete head | 408, or nothing if nothing came; [`head_time`] |
//! | waits for the embedder, with [`Settings::ask`] | [`Shard::accept`], [`Shard::refuse`] | 503; the same deadline |
//! | waits for metrics | [`Shard::answer_scrape`] | 503; the same deadline |
//! | waits for its channel's subscription | the bus's confirmation: 101 and [`Event::Opened`] | 503; [`confirm_time`] |
//! | open (RFC 6455) | a Close of either side, an error | a ping, then the end; [`ping_time`], [`pong_time`] |
//! | open, a message has begun | its last byte | Close 1013; [`message_time`] |
//! | open, a message waits for credit | credit | Close 1013; [`pause_time`] |
//! | open, missed a gap that its route does not keep it through | the end, otherwise | Close 1012; [`gap_close_time`] |
//! | open, the client has ended its side right behind a message | 1 s | the end |
//! | closing, or a plain answer leaves | the peer's end | the end; [`close_time`] |
//!
//! [`Event::Closed`] is the last that is heard of a session, whichever way it ends.
//!
//! # Memory
//!
//! An open session that keeps up takes less than 300 bytes here, and shares its channel's name. Beyond that a shard
//! holds, of the [`Limits`] that an instance's workers share in equal parts: unfinished messages,
//! runs that some session has yet to take, and what one read published and [`Shard::poll_bus`] has not fetched. A run
//! counts once, by what it takes in memory. Events that are not polled are not bounded. What that comes to for a whole
//! instance is [`Settings::memory_bound`](crate::settings::Settings::memory_bound).
//!
//! [`head_time`]: crate::limits::Limits::head_time
//! [`confirm_time`]: crate::limits::Limits::confirm_time
//! [`ping_time`]: crate::limits::Limits::ping_time
//! [`pong_time`]: crate::limits::Limits::pong_time
//! [`gap_close_time`]: crate::limits::Limits::gap_close_time
//! [`pause_time`]: crate::limits::Limits::pause_time
//! [`message_time`]: crate::limits::Limits::message_time
//! [`close_time`]: crate::limits::Limits::close_time

mod behind;
mod channels;
mod credit;
mod deadlines;
mod fan_out;
mod gap;
mod handshake;
mod health;
mod ledger;
mod leftover;
mod places;
mod planned;
mod queue;
mod session;
mod shutdown;
mod slow;
mod stats;
#[cfg(test)]
pub(crate) mod tests;
mod unfinished;

use std::collections::VecDeque;
use std::io::IoSlice;
use std::net::IpAddr;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use slab::Slab;

use self::channels::Channels;
use self::credit::Credit;
use self::deadlines::Overdue;
use self::ledger::Ledger;
use self::queue::Runs;
pub use self::session::Asked;
use self::session::{Head, Joining, Session, Stage};
pub use self::stats::{Closes, Code, Errors, Stages, Stats};
use crate::error::{Closed, Error, Misuse, Side, Unready};
use crate::exchange::{self, News, ToBus, ToShard, Wish};
use crate::http::{Answer, Method, OriginRefused, RequestReader};
use crate::limits::Limits;
use crate::note;
use crate::route::Target;
use crate::run::Run;
use crate::settings::Settings;
use crate::time::{Duration, Instant, Seldom, SeldomEach, Timers};
use crate::ws::CloseWhen;

/// Room that an emptied list of the shard's keeps.
const KEPT: usize = 1 << 10;
/// Sessions for which one call does what is due, some 1 ms of work.
const DUE_AT_ONCE: usize = 1 << 10;

/// Names a session, for as long as it lives and never another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId {
    index: u32,
    generation: u32,
}

impl SessionId {
    /// A small number, unique among the living sessions of a shard: a place for the embedder's own table.
    ///
    /// It is free for another as soon as its session has ended, which can be before `Closed` is polled. So keep the
    /// whole id in the table, too, and compare it.
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
    /// Somebody asks for `/metrics` where that may be asked: answer with [`Shard::answer_scrape`]. The session is told 503
    /// if there is no answer within [`Limits::head_time`](crate::limits::Limits::head_time) of its beginning.
    Scrape(SessionId),
    /// The WebSocket is open and its channel subscribed.
    Opened(SessionId),
    /// Nothing more will be written: end the write side, and go on reading until the peer ends its own or `Closed` comes.
    EndWrites(SessionId),
    /// The session's client has not ended its side and is not waited for any longer: have its connection reset when it is
    /// closed (`SO_LINGER` of zero), or the system goes on offering it what it does not take. `Closed` is next.
    GivenUp(SessionId),
    /// The session is gone: close its socket and forget its id.
    Closed(SessionId, Closed),
    /// A subscriber that is not a socket is subscribed.
    Subscribed(SubscriberId),
    /// Messages for a subscriber that is not a socket.
    Run(SubscriberId, Arc<Run>),
    /// A slow reader lost so many messages, by its route's [`Slow`](crate::route::Slow). Comes when it has caught up, or
    /// just before it is gone.
    Dropped(SessionId, u64),
    /// Messages of one of this shard's channels were dropped because its mailbox was full
    /// ([`Limits::mailbox_bytes`](crate::limits::Limits::mailbox_bytes)).
    Missed {
        /// The channel.
        channel: Bytes,
        /// Their number.
        messages: u64,
    },
}

/// One worker's sessions. See the [module](self) for how to drive it.
#[derive(Debug)]
pub struct Shard {
    settings: Arc<Settings>,
    rng: fastrand::Rng,
    latest: Instant,
    sessions: Slab<Session>,
    /// Sessions that are operation's, not clients'.
    admins: usize,
    generation: u32,
    timers: Timers<u32>,
    channels: Channels,
    runs: Runs,
    /// Bytes of unfinished messages, without what is free of each.
    partial: usize,
    /// Those for which more waits than is free, by since when their sockets have been full and they have not caught up.
    behind: Timers<u32>,
    /// Those that hold more than is free of an unfinished message, by when its first byte came.
    unfinished: Timers<u32>,
    credit: Credit,
    to_bus: ToBus,
    /// Bytes of runs taken out of the mailbox that the bus was not told of.
    taken: usize,
    /// Whether the bus can deliver from end to end.
    readiness: Result<(), Unready>,
    writable: VecDeque<SessionId>,
    readable: VecDeque<SessionId>,
    /// Clients' connections in the order in which they came, and among them some that have told their request.
    mute: VecDeque<SessionId>,
    /// Sessions of which held input was taken in, for the model beside it.
    #[cfg(feature = "fuzzing")]
    pub(crate) taken_in: Vec<SessionId>,
    /// Sessions whose pings have left since.
    pinged: Vec<SessionId>,
    /// Sessions to be judged when time is told next, among them some that are gone.
    looked: Vec<SessionId>,
    /// Sessions about which the bus is to be asked, and those about which it was, as often as it was.
    to_ask_bus: Vec<SessionId>,
    asked_bus: VecDeque<Vec<SessionId>>,
    events: VecDeque<Event>,
    subscribers: u64,
    /// It is not to be sent new clients.
    draining: bool,
    /// Once it shuts down: until when handshakes may end well.
    closing: Option<Instant>,
    /// The time since the Unix epoch at [`Instant::ZERO`].
    wall_clock: Option<Duration>,
    stats: Stats,
    ledger: Ledger,
    said_origin: SeldomEach<OriginRefused>,
    said_dropped: Seldom,
    said_missed: Seldom,
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
            admins: 0,
            generation: 0,
            timers: Timers::new(),
            runs: Runs::default(),
            partial: 0,
            behind: Timers::new(),
            unfinished: Timers::new(),
            credit: Credit::new(i64::try_from(credit).unwrap_or(i64::MAX)),
            to_bus: ToBus::default(),
            taken: 0,
            readiness: Err(Unready::NoConnection),
            writable: VecDeque::new(),
            readable: VecDeque::new(),
            mute: VecDeque::new(),
            #[cfg(feature = "fuzzing")]
            taken_in: Vec::new(),
            pinged: Vec::new(),
            looked: Vec::new(),
            to_ask_bus: Vec::new(),
            asked_bus: VecDeque::new(),
            events: VecDeque::new(),
            subscribers: 0,
            draining: false,
            closing: None,
            wall_clock: None,
            stats: Stats::default(),
            ledger: Ledger::new(seed),
            said_origin: SeldomEach::new(),
            said_dropped: Seldom::default(),
            said_missed: Seldom::default(),
            settings,
        }
    }

    // Inputs.

    /// So much time has passed since the Unix epoch at `now`: plain answers have a Date field from here on (RFC 9110
    /// §6.6.1). Say it again now and then, such as with each connection, since wall clocks are set.
    pub const fn set_wall_clock(&mut self, since_epoch: Duration, now: Instant) {
        self.wall_clock = Some(since_epoch.saturating_sub(now.since(Instant::ZERO)));
    }

    /// A client's connection was accepted. `peer` is its address, for the origin policy and the embedder. It has
    /// [`Limits::head_time`](crate::limits::Limits::head_time) for its request.
    pub fn handle_connection(&mut self, peer: Option<IpAddr>, now: Instant) -> SessionId {
        let now = self.at(now);
        let id = self.connect(peer, now);
        self.note_mute(id);
        id
    }

    fn connect(&mut self, peer: Option<IpAddr>, now: Instant) -> SessionId {
        let deadline = now + self.settings.limits.head_time;
        let id = self.insert(Stage::Head(Box::new(Head { reader: RequestReader::new(), peer, deadline })));
        self.ledger.begin(id, peer, now);
        self.settle(id, now);
        id
    }

    /// `input` was read from the session's socket. It is unmasked in place; nothing of it is kept but an unfinished tail.
    ///
    /// All of it is taken, whatever [`Shard::handle_readable`] said before, and for a session that is gone nothing.
    pub fn handle_read(&mut self, id: SessionId, input: &mut [u8], now: Instant) {
        let now = self.at(now);
        let limit = self.settings.limits.head_bytes;
        let Some(session) = get_mut(&mut self.sessions, id) else { return };
        self.stats.bytes_in += input.len() as u64;
        if session.flags.overdue != Overdue::No {
            self.note_read(id);
        }
        let Some(session) = get_mut(&mut self.sessions, id) else { return };
        match &mut session.stage {
            Stage::Head(_) => self.read_head(id, input, now),
            Stage::Open(_) => {
                self.flush_held(id, now);
                self.read_frames(id, (input, BytesMut::new()), self.credit.is_free(), now);
            }
            Stage::Deciding(deciding) if deciding.held() + input.len() <= limit => {
                extend_exactly(&mut deciding.leftover, input);
            }
            Stage::Joining(joining) if joining.held() + input.len() <= limit => {
                extend_exactly(&mut joining.leftover, input);
            }
            Stage::Deciding(_) | Stage::Joining(_) => self.answer_error(id, Error::LongHead, now),
            Stage::Scraping { .. } | Stage::Answered { .. } => {}
        }
    }

    /// The session's peer has ended its side of the stream. An answer or a Close that is on its way still leaves; and if the
    /// last that came was a message, what its channel brings for a second more, so that its sender gets its echo.
    /// [`Shard::handle_readable`] says no from here on. Once more, this does nothing.
    pub fn handle_eof(&mut self, id: SessionId, now: Instant) {
        let now = self.at(now);
        let Some(session) = self.get_mut(id) else { return };
        if session.ends_behind_held() {
            return;
        }
        if std::mem::replace(&mut session.flags.peer_ended, true) {
            return;
        }
        match &mut session.stage {
            Stage::Head(head) if !head.reader.is_empty() => self.answer_error(id, Error::HeadSyntax, now),
            Stage::Head(_) | Stage::Deciding(_) | Stage::Joining(_) => {
                self.remove(id, Closed { by: Side::Peer, code: None, error: None });
            }
            Stage::Open(open) => {
                if session.flags.spoke && session.member.is_some() {
                    // If the client is gone, the echo finds that out.
                    open.ws.handle_half_close(now);
                    session.flags.unread = true;
                } else {
                    open.ws.handle_eof(now);
                }
                self.settle(id, now);
            }
            Stage::Scraping { .. } | Stage::Answered { .. } => self.settle(id, now),
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
            Stage::Head(_) | Stage::Deciding(_) | Stage::Joining(_) | Stage::Scraping { .. } => None,
        };
        self.remove(id, Closed { by: Side::Transport, code: None, error });
    }

    /// The first `n` bytes that [`Shard::transmit`] lent have left.
    ///
    /// `now` may be some time before they left. If that can be long, because this process may stand still in between,
    /// call [`Shard::handle_written`] afterwards.
    ///
    /// # Errors
    /// [`Misuse::TooMuchTransmitted`] if so many were not lent, [`Misuse::NoSuchSession`]; nothing changes.
    pub fn transmitted(&mut self, id: SessionId, n: usize, now: Instant) -> Result<(), Misuse> {
        let now = self.at(now);
        let session = get_mut(&mut self.sessions, id).ok_or(Misuse::NoSuchSession)?;
        if session.sent(&mut self.runs, n, now)? {
            self.pinged.push(id);
        }
        self.stats.bytes_out += n as u64;
        // Nothing follows from a write to a session that is open and up to date, which nearly all are.
        if !session.takes_messages() || session.has_output() || session.rare.is_some() {
            self.settle(id, now);
        }
        Ok(())
    }

    /// All writes of a turn are over, and it is `now`: the time for the answer to each ping that left with them counts from
    /// here. Of use when [`Shard::has_pinged`].
    pub fn handle_written(&mut self, now: Instant) {
        let now = self.at(now);
        for id in std::mem::take(&mut self.pinged) {
            if let Some(Stage::Open(open)) = self.get_mut(id).map(|session| &mut session.stage) {
                open.ws.ping_left(now);
            }
        }
    }

    /// The session's socket takes no more. It is not named by [`Shard::poll_transmit`] until [`Shard::handle_writable`].
    pub fn blocked(&mut self, id: SessionId) {
        let now = self.latest;
        let Some(session) = self.get_mut(id) else { return };
        session.flags.blocked = true;
        if let Stage::Open(open) = &mut session.stage {
            open.ws.handle_blocked(now);
        }
        let is_paused = session.intake.waits().is_some();
        if let Some(session) = get_mut(&mut self.sessions, id) {
            session.fall_in(id.index, &mut self.behind, (&self.runs, 0), &self.settings.limits, now);
        }
        if is_paused {
            self.settle(id, now);
        }
        if self.get(id).is_some_and(Session::keeps_latest) {
            self.keep_latest(id);
        }
    }

    /// The session's socket takes bytes again.
    pub fn handle_writable(&mut self, id: SessionId) {
        if let Some(session) = self.get_mut(id) {
            session.flags.blocked = false;
            self.list(id);
        }
    }

    /// The bus's news, in the order in which the bus gave them.
    pub fn handle_bus(&mut self, news: ToShard, now: Instant) {
        let now = self.at(now);
        for item in news.news {
            match item {
                News::Subscribed(channel) => self.channel_subscribed(channel, now),
                News::Run { channel, run } => {
                    self.taken += run.memory();
                    self.fan_out(channel, &run, now);
                }
                News::Missed { channel, messages } => self.missed(channel, messages, now),
                News::Credit(bytes) => self.credit.give(bytes),
                News::GapBegan { epoch, since } => self.gap_began(epoch, since, now),
                News::GapEnded(gap) => tracing::debug!(event = "gap_ended", gap.epoch, "subscribed again"),
                News::Ready(readiness) => self.readiness = readiness,
                News::Looked => self.bus_has_looked(),
            }
        }
        if self.taken > exchange::unsaid_bytes(self.settings.limits.mailbox_bytes) {
            self.to_bus.wishes.push(Wish::Taken { bytes: std::mem::take(&mut self.taken) });
        }
    }

    /// Time has come to `now`. Too early or too often does no harm. Of many sessions for which something is due some have
    /// their turn at the next call, for which [`Shard::poll_timeout`] then asks at once.
    pub fn handle_timeout(&mut self, now: Instant) {
        let now = self.at(now);
        self.pinged.clear();
        self.pinged.shrink_to(KEPT);
        self.judge_looked(now);
        for _ in 0..DUE_AT_ONCE {
            let Some(index) = self.timers.pop_due(now) else { break };
            let session = &mut self.sessions[index as usize];
            session.deadline = None;
            let id = id_of(index, session);
            self.session_timeout(id, now);
        }
        self.ask_bus();
        self.take_in_held(now);
    }

    // Commands.

    /// Answers [`Event::Request`]: the client joins `target`'s channel, with one of the subprotocols that it offered
    /// or none. The 101 leaves when the channel is subscribed. With [`note::SUBPROTOCOL`] and no other the session gets
    /// notes, whatever `target` says.
    ///
    /// # Errors
    /// [`Misuse::WrongState`] if the session does not wait for an answer, [`Misuse::InvalidArgument`] if the
    /// subprotocol was not offered or is that of [`note`] on a binary channel, or the channel's name is empty or too long
    /// or the channel carries the other frame type, [`Misuse::NoSuchSession`].
    pub fn accept(
        &mut self,
        id: SessionId,
        mut target: Target,
        subprotocol: Option<&str>,
        now: Instant,
    ) -> Result<(), Misuse> {
        let now = self.at(now);
        let session = get_mut(&mut self.sessions, id).ok_or(Misuse::NoSuchSession)?;
        let Stage::Deciding(deciding) = &mut session.stage else { return Err(Misuse::WrongState) };
        let switch = Some(deciding.upgrade.answer(subprotocol)?);
        target.notes = subprotocol == Some(note::SUBPROTOCOL);
        self.channels.check(&target, &self.settings)?;
        let leftover = std::mem::take(&mut deciding.leftover);
        let confirmed = now + self.settings.limits.confirm_time;
        let deadline = self.closing.map_or(confirmed, |until| until.min(confirmed));
        session.stage = Stage::Joining(Box::new(Joining { switch, target, leftover, deadline }));
        self.join(id, now);
        Ok(())
    }

    /// Answers [`Event::Request`] with a plain HTTP answer, for instance `Answer::text(401, "Who are you?")` or
    /// [`Answer::for_error`]. The session's [`Closed`] will say [`Error::Forbidden`].
    ///
    /// # Errors
    /// [`Misuse::WrongState`] if the session does not wait for an answer, [`Misuse::InvalidArgument`] for a status
    /// that is not 200 to 599, [`Misuse::NoSuchSession`]; nothing changes.
    pub fn refuse(&mut self, id: SessionId, answer: &Answer, now: Instant) -> Result<(), Misuse> {
        let now = self.at(now);
        let session = self.get(id).ok_or(Misuse::NoSuchSession)?;
        let Stage::Deciding(_) = &session.stage else { return Err(Misuse::WrongState) };
        if !(200..600).contains(&answer.status) {
            return Err(Misuse::InvalidArgument);
        }
        self.answer(id, answer, Method::Get, Some(Error::Forbidden), now);
        Ok(())
    }

    /// Takes in a WebSocket whose 101 somebody else has sent; `leftover` is what was read behind the request, to be taken in
    /// as by [`Shard::handle_leftover`]. If its channel is not confirmed in time it is closed with 1013.
    ///
    /// # Errors
    /// [`Misuse::InvalidArgument`] if the channel's name is empty or too long, or the channel carries the other frame
    /// type, [`Misuse::WrongState`] after [`Shard::shutdown`]; nothing changes.
    pub fn adopt(&mut self, target: Target, leftover: Vec<u8>, now: Instant) -> Result<SessionId, Misuse> {
        let now = self.at(now);
        if self.closing.is_some() {
            return Err(Misuse::WrongState);
        }
        self.channels.check(&target, &self.settings)?;
        let deadline = now + self.settings.limits.confirm_time;
        let id = self.insert(Stage::Joining(Box::new(Joining { switch: None, target, leftover, deadline })));
        self.ledger.begin(id, None, now);
        self.join(id, now);
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
        self.writable.shrink_to(KEPT);
        None
    }

    /// How many sessions [`Shard::poll_transmit`] names before one that has been named already, or is listed from now on.
    #[must_use]
    pub fn to_transmit(&self) -> usize {
        self.writable.len()
    }

    /// Lends what the session has to write, in order, into `out`; says how many slices it filled. It only looks.
    #[must_use]
    pub fn transmit<'a>(&'a self, id: SessionId, out: &mut [IoSlice<'a>]) -> usize {
        self.get(id).map_or(0, |session| session.slices(&self.runs, out))
    }

    /// A session whose socket is to be looked at: it may be read again after [`Shard::handle_readable`] said no, or one of
    /// its deadlines has passed. Can change after every input and command. Ask [`Shard::handle_readable`] for each one that
    /// is named, whether or not anything is known to have come, and try to read: only then is it judged.
    pub fn poll_readable(&mut self) -> Option<SessionId> {
        while let Some(id) = self.readable.pop_front() {
            if self.get(id).is_some() {
                return Some(id);
            }
        }
        self.readable.shrink_to(KEPT);
        None
    }

    /// What has happened. Can change after every input and command.
    ///
    /// Nothing bounds what is not polled.
    pub fn poll_event(&mut self) -> Option<Event> {
        let event = self.events.pop_front();
        if event.is_none() {
            self.events.shrink_to(KEPT);
        }
        event
    }

    /// What the bus should hear: everything since the last call. Can change after every input and command.
    pub fn poll_bus(&mut self) -> Option<ToBus> {
        if self.to_bus.is_empty() { None } else { Some(std::mem::take(&mut self.to_bus)) }
    }

    /// The next instant at which [`Shard::handle_timeout`] has something to do; the latest one seen while another output
    /// is still to be polled.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let unpolled = !self.events.is_empty()
            || !self.readable.is_empty()
            || !self.looked.is_empty()
            || !self.writable.is_empty()
            || !self.to_bus.is_empty()
            || self.credit.has_turn();
        if unpolled { Some(self.latest) } else { self.timers.next() }
    }

    // Getters.

    /// Whether no session is left, those of [`Shard::handle_admin_connection`] aside.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sessions.len() == self.admins
    }

    /// Whether a ping has left since the last [`Shard::handle_written`] or [`Shard::handle_timeout`].
    #[must_use]
    pub const fn has_pinged(&self) -> bool {
        !self.pinged.is_empty()
    }

    /// Whether the session has not ended.
    #[must_use]
    pub fn contains(&self, id: SessionId) -> bool {
        self.get(id).is_some()
    }

    /// What waits for one session, in memory: bounded by
    /// [`Limits::queue_bytes`](crate::limits::Limits::queue_bytes).
    #[must_use]
    pub fn queued_bytes(&self, id: SessionId) -> usize {
        self.get(id).map_or(0, |session| session.queue.memory())
    }

    /// Every bound.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.settings.limits
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

/// Without the spare room that a list takes otherwise: so many may hold one that what they hold is bounded closely.
fn extend_exactly(list: &mut Vec<u8>, more: &[u8]) {
    list.reserve_exact(more.len());
    list.extend_from_slice(more);
}

/// For where the shard's other fields are borrowed too.
fn get_mut(sessions: &mut Slab<Session>, id: SessionId) -> Option<&mut Session> {
    sessions.get_mut(id.index()).filter(|session| session.generation == id.generation)
}

fn id_of(index: u32, session: &Session) -> SessionId {
    SessionId { index, generation: session.generation }
}

fn ids_of<'a>(sessions: impl Iterator<Item = (usize, &'a Session)>) -> Vec<SessionId> {
    // A shard has fewer than 2³² sessions: a process cannot have as many sockets.
    sessions.map(|(index, session)| id_of(index as u32, session)).collect()
}
