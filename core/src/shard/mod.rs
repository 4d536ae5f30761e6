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
//! | open, the client has ended its side right behind a message | 1 s, or 100 ms if data has left since | the end |
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

mod admin;
mod behind;
mod channels;
mod credit;
mod deadlines;
mod event;
mod fan_out;
mod gap;
mod handshake;
mod id;
mod inbound;
mod intake;
mod ledger;
mod leftover;
mod lifecycle;
mod listing;
mod membership;
mod outbound;
mod places;
mod planned;
mod queue;
mod review;
mod session;
mod shutdown;
mod slow;
mod stats;
#[cfg(test)]
pub(crate) mod tests;
mod unfinished;

use std::collections::VecDeque;
use std::sync::Arc;

use slab::Slab;

use self::channels::Channels;
use self::credit::Credit;
pub use self::event::Event;
pub use self::id::{SessionId, SubscriberId};
use self::ledger::Ledger;
pub use self::listing::{ChannelInfo, SessionInfo};
use self::queue::Runs;
pub use self::review::{Decision, Review};
pub use self::session::Asked;
use self::session::Session;
use self::shutdown::Ending;
pub use self::stats::{Closes, Code, Errors, Stages, Stats};
use crate::error::Unready;
use crate::exchange::{self, News, ToBus, ToShard, Wish};
use crate::http::OriginRefused;
use crate::limits::Limits;
use crate::settings::Settings;
use crate::time::{Duration, Instant, Seldom, SeldomEach, Timers};

/// Room that an emptied list of the shard's keeps.
const KEPT: usize = 1 << 10;
/// Sessions for which one call does what is due, some 1 ms of work.
const DUE_AT_ONCE: usize = 1 << 10;

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
    /// Clients' connections in the order in which they came, and among them some that have sent their request.
    mute: VecDeque<SessionId>,
    /// Sessions of which held input was taken in, for the model beside it.
    #[cfg(feature = "fuzzing")]
    pub(crate) taken_in: Vec<SessionId>,
    /// Sessions whose pings have left since.
    pinged: Vec<SessionId>,
    /// Sessions to be judged when time comes in next, among them some that are gone.
    looked: Vec<SessionId>,
    /// Sessions about which the bus is to be asked, and those about which it was, as often as it was.
    to_ask_bus: Vec<SessionId>,
    asked_bus: VecDeque<Vec<SessionId>>,
    events: VecDeque<Event>,
    /// Messages that were put to the embedder, oldest first.
    reviews: VecDeque<review::Pending>,
    subscribers: u64,
    ending: Ending,
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
            reviews: VecDeque::new(),
            subscribers: 0,
            ending: Ending::Serving,
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

    // Outputs.

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

    /// The next event. Can change after every input and command.
    ///
    /// Nothing bounds what is not polled.
    pub fn poll_event(&mut self) -> Option<Event> {
        let event = self.events.pop_front();
        if event.is_none() {
            self.events.shrink_to(KEPT);
        }
        event
    }

    /// The next batch for the bus: everything since the last call. Can change after every input and command.
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
