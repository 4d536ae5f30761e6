//! What a world is made of and what befalls it: a plan, which says in words what it is.

use core::fmt;

use fanfare_core::limits::Limits;
use fanfare_core::redis::Lane;
use fanfare_core::route::{FrameType, Policies};
use fanfare_core::time::Instant;

pub use super::pipe::Line;

/// A whole run: it repeats from this alone.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What is drawn at random while it runs comes from here.
    pub seed: u64,
    /// Who is there.
    pub setup: Setup,
    /// What happens, in order of time.
    pub steps: Vec<Step>,
    /// When the last step may be; then everything is mended, and has to come right.
    pub end: Instant,
}

/// Who is there.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Instances, each with its workers and its driver.
    pub instances: Vec<InstanceSetup>,
    /// Clients, who come when a step says so.
    pub clients: Vec<ClientSetup>,
    /// Where they meet.
    pub rooms: Vec<Room>,
    /// The one Redis.
    pub redis: RedisSetup,
    /// The bounds of all instances.
    pub limits: Limits,
    /// From the instances to Redis.
    pub line: Line,
}

/// How one instance is driven.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InstanceSetup {
    /// 1 is a `Node`; more are shards that share a bus through mailboxes.
    pub workers: usize,
    /// Who drives it.
    pub driver: Driver,
}

/// Both keep the contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    /// Does everything at once, in one order.
    Eager,
    /// Drains late, in any order, in part; acknowledges late; has short writes and early clocks.
    Lazy,
}

/// One client and its ways.
#[derive(Clone, Copy, Debug)]
pub struct ClientSetup {
    /// Where it connects to.
    pub instance: usize,
    /// What it joins.
    pub room: usize,
    /// Its path to the instance.
    pub line: Line,
    /// Whether it answers pings.
    pub answers: bool,
    /// Milliseconds after which it comes back when its connection has ended, if it does.
    pub returns: Option<u64>,
    /// Whether it sends its first message right behind the request.
    pub hasty: bool,
    /// Whether it wants to be told of what it does not get.
    pub notes: bool,
}

/// A path, and the channel that it leads to.
#[derive(Clone, Debug)]
pub struct Room {
    /// The request's path.
    pub path: String,
    /// The channel.
    pub channel: String,
    /// The type of its messages.
    pub frame: FrameType,
    /// Whether clients may publish.
    pub publish: bool,
    /// What becomes of sessions that cannot get every message.
    pub policies: Policies,
}

/// What kind of Redis it is.
#[derive(Clone, Debug)]
pub struct RedisSetup {
    /// Whether it knows `HELLO 3`.
    pub resp3: bool,
    /// What it asks for.
    pub password: Option<String>,
    /// Bytes that may wait for a subscriber before it is killed.
    pub output_limit: usize,
}

/// Something that happens.
#[derive(Clone, Debug)]
pub struct Step {
    /// When.
    pub at: Instant,
    /// What.
    pub deed: Deed,
}

/// What can happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deed {
    /// A client connects, unless it is there.
    Join(usize),
    /// A client sends a message, if it is connected.
    Send {
        /// Who.
        client: usize,
        /// How large.
        bytes: usize,
        /// In how many frames.
        pieces: usize,
    },
    /// A client sends a ping.
    Ping(usize),
    /// A client reads nothing from now on.
    StopReading(usize),
    /// A client reads again.
    ReadOn(usize),
    /// A client's path does not move for so many milliseconds.
    Stall {
        /// Who.
        client: usize,
        /// How long, in milliseconds.
        millis: u64,
    },
    /// A client goes.
    Leave {
        /// Who.
        client: usize,
        /// In which way.
        how: Way,
    },
    /// A client breaks the protocol.
    Rude {
        /// Who.
        client: usize,
        /// In which way.
        rudeness: Rudeness,
    },
    /// Every client's connection is reset, and all come back at once.
    Storm,
    /// The embedder closes a client's session.
    CloseSession(usize),
    /// Another program publishes.
    Publish {
        /// Where.
        room: usize,
        /// How large.
        bytes: usize,
        /// Of what kind.
        kind: Kind,
    },
    /// A connection to Redis ends.
    Cut {
        /// Whose.
        instance: usize,
        /// Which of the two.
        lane: Lane,
        /// In which way.
        how: Way,
    },
    /// An instance and Redis no longer reach each other: what stands falls silent, dials are refused or hang.
    Isolate {
        /// Whose.
        instance: usize,
        /// Whether dials hang, instead of being refused.
        hang: bool,
    },
    /// They reach each other again.
    Reunite(usize),
    /// Redis is gone; its connections are reset, or just fall silent.
    StopRedis {
        /// Whether nobody says so.
        silent: bool,
    },
    /// Redis is back, loads for so many milliseconds, and refuses the first dials.
    StartRedis {
        /// How long it loads, in milliseconds.
        loading: u64,
        /// How many dials it refuses first.
        refuses: u32,
    },
    /// What one end of a connection to Redis writes vanishes from here on; the other way still works.
    HalfOpen {
        /// Whose.
        instance: usize,
        /// Which of the two.
        lane: Lane,
        /// Whether it is what Redis writes.
        inward: bool,
    },
    /// Redis answers everything and passes no message on.
    HoldMessages,
    /// Redis passes messages on again.
    PassMessages,
    /// Redis refuses to publish probes and to subscribe to them.
    ForbidProbes,
    /// Redis allows probes again.
    AllowProbes,
    /// Redis takes everything and does nothing.
    FreezeRedis,
    /// Redis goes on.
    ThawRedis,
    /// An instance takes no turn, as a process that is stopped; everything else goes on, and its sockets fill.
    StandStill {
        /// Which.
        instance: usize,
        /// How long, in milliseconds.
        millis: u64,
    },
}

/// How a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// With a Close (a client), or by the end of the stream.
    Orderly,
    /// By the end of the stream alone.
    Fin,
    /// By a reset, in the middle of whatever is on its way.
    Reset,
    /// Without a word: the other end knows nothing.
    Silent,
}

/// What kind of payload another program publishes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// As it should be.
    Plain,
    /// Not UTF-8: must not come through on a text channel.
    NotUtf8,
    /// Beyond the limit: must not come through.
    TooBig,
}

/// How a client breaks the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rudeness {
    /// A frame that is not masked.
    Unmasked,
    /// A reserved bit.
    ReservedBit,
    /// A reserved opcode.
    BadOpcode,
    /// A continuation of nothing.
    Continuation,
    /// Text that is not UTF-8.
    NotUtf8,
    /// A message of one byte too many.
    TooLong,
    /// The other frame type, or a message where none is allowed.
    WrongType,
    /// A ping of 126 bytes.
    LongPing,
}

impl Rudeness {
    /// All.
    pub const ALL: [Self; 8] = [
        Self::Unmasked,
        Self::ReservedBit,
        Self::BadOpcode,
        Self::Continuation,
        Self::NotUtf8,
        Self::TooLong,
        Self::WrongType,
        Self::LongPing,
    ];
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {}", self.seed)?;
        for (i, instance) in self.setup.instances.iter().enumerate() {
            writeln!(f, "instance {i}: {instance}")?;
        }
        let redis = &self.setup.redis;
        let (version, login) = (if redis.resp3 { 3 } else { 2 }, redis.password.is_some());
        writeln!(f, "redis: RESP{version}, password: {login}, {} bytes of output at most", redis.output_limit)?;
        writeln!(f, "line to redis: {}", self.setup.line)?;
        for (i, client) in self.setup.clients.iter().enumerate().filter(|(i, _)| self.mentions(*i)) {
            let room = &self.setup.rooms[client.room];
            write!(f, "client {i}: in {} of instance {}, line: {}", room.path, client.instance, client.line)?;
            write!(f, "{}", if client.answers { "" } else { ", answers no ping" })?;
            write!(f, "{}", if client.notes { ", wants notes" } else { "" })?;
            write!(f, "{}", if client.hasty { ", does not wait for the 101" } else { "" })?;
            match client.returns {
                Some(millis) => writeln!(f, ", comes back after {millis} ms")?,
                None => writeln!(f)?,
            }
        }
        for step in &self.steps {
            writeln!(f, "{:>9.3} s  {}", step.at.as_micros() as f64 / 1e6, step.deed)?;
        }
        write!(f, "{:>9.3} s  everything is mended", self.end.as_micros() as f64 / 1e6)
    }
}

impl Plan {
    fn mentions(&self, client: usize) -> bool {
        self.steps.iter().any(|step| step.deed.client() == Some(client))
    }
}

impl Deed {
    /// Whom of the clients it is about.
    #[must_use]
    pub const fn client(&self) -> Option<usize> {
        match *self {
            Self::Join(client) | Self::Ping(client) | Self::StopReading(client) | Self::ReadOn(client) => Some(client),
            Self::Send { client, .. } | Self::Stall { client, .. } | Self::Leave { client, .. } => Some(client),
            Self::Rude { client, .. } | Self::CloseSession(client) => Some(client),
            _ => None,
        }
    }
}

impl fmt::Display for InstanceSetup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.workers {
            1 => write!(f, "a node, driver: {:?}", self.driver),
            workers => write!(f, "{workers} workers with mailboxes, driver: {:?}", self.driver),
        }
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} µs", self.latency)?;
        write!(f, "{}", if self.jitter > 0 { ", jitter" } else { "" })?;
        write!(f, "{}", if self.per_kib > 0 { ", slow" } else { "" })?;
        write!(f, "{}", if self.crumbs { ", cuts anywhere" } else { "" })?;
        write!(f, ", {} bytes of room", self.room)
    }
}

impl fmt::Display for Deed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Join(client) => write!(f, "client {client} connects"),
            Self::Send { client, bytes, pieces } => write!(f, "client {client} sends {bytes} bytes in {pieces} frames"),
            Self::Ping(client) => write!(f, "client {client} pings"),
            Self::StopReading(client) => write!(f, "client {client} stops reading"),
            Self::ReadOn(client) => write!(f, "client {client} reads again"),
            Self::Stall { client, millis } => write!(f, "client {client}'s path stands still for {millis} ms"),
            Self::Leave { client, how } => write!(f, "client {client} goes ({how:?})"),
            Self::Rude { client, rudeness } => write!(f, "client {client} is rude: {rudeness:?}"),
            Self::Storm => write!(f, "all clients are reset and come back at once"),
            Self::CloseSession(client) => write!(f, "the embedder closes client {client}'s session"),
            Self::Publish { room, bytes, kind } => {
                write!(f, "another program publishes {bytes} bytes in room {room} ({kind:?})")
            }
            Self::Cut { instance, lane, how } => {
                write!(f, "instance {instance}'s {} connection ends ({how:?})", lane.name())
            }
            Self::Isolate { instance, hang } => {
                write!(
                    f,
                    "instance {instance} and redis are apart, dials {}",
                    if *hang { "hang" } else { "are refused" }
                )
            }
            Self::Reunite(instance) => write!(f, "instance {instance} and redis reach each other again"),
            Self::StopRedis { silent } => {
                write!(f, "redis stops, its connections {}", if *silent { "fall silent" } else { "are reset" })
            }
            Self::StartRedis { loading, refuses } => {
                write!(f, "redis starts, loads for {loading} ms, refuses {refuses} dials")
            }
            Self::HalfOpen { instance, lane, inward } => {
                let from = if *inward { "redis" } else { "the instance" };
                write!(f, "what {from} writes to instance {instance}'s {} connection vanishes", lane.name())
            }
            Self::HoldMessages => write!(f, "redis passes no message on"),
            Self::PassMessages => write!(f, "redis passes messages on again"),
            Self::ForbidProbes => write!(f, "redis refuses probes"),
            Self::AllowProbes => write!(f, "redis allows probes"),
            Self::FreezeRedis => write!(f, "redis freezes"),
            Self::ThawRedis => write!(f, "redis thaws"),
            Self::StandStill { instance, millis } => write!(f, "instance {instance} stands still for {millis} ms"),
        }
    }
}
