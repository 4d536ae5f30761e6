//! What a run comes to.

use core::fmt;

use fanfare_core::bus;
use fanfare_core::error::Unready;
use fanfare_core::time::{Duration, Instant};

/// What is held against a world, after the promises of the design and the contract of every state machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Promise {
    /// R1: a session sees a subsequence of what Redis delivered, in its order; and Redis carries out a subsequence of what
    /// a client sent, in its order.
    Order,
    /// R2: no duplicate comes from us.
    NoDuplicates,
    /// R3: from its 101 on a session gets every message, or the loss is counted.
    NoSilentLoss,
    /// A publish is carried out, or counted as lost.
    NoLostPublish,
    /// R4: what is wanted is subscribed, within the bounded time.
    Subscribed,
    /// R7: who cannot deliver from end to end says so in time, and so does who can again.
    Readiness,
    /// R5: every bound holds, and nothing is given up below it.
    Bounds,
    /// Each message is framed once for all sessions of an instance.
    OneEncoding,
    /// Peers get well-formed bytes, and the right ones.
    Protocol,
    /// Nobody is dropped without a reason, and whoever is gone is dropped in time.
    FairEnd,
    /// Nothing is left behind when everyone has gone.
    CleanEnd,
    /// What is due is done in time, and without spinning.
    NoLivelock,
    /// Nothing panics.
    NoPanic,
    /// The driver that drains late and the one that drains at once agree.
    Agreement,
}

/// The first thing that went wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What was not kept.
    pub promise: Promise,
    /// When.
    pub at: Instant,
    /// The case, in a sentence.
    pub what: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} at {:.3} s: {}", self.promise, self.at.as_micros() as f64 / 1e6, self.what)
    }
}

/// What became of one world.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// What went wrong, if anything did.
    pub failure: Option<Failure>,
    /// What happened, line by line, if the run was traced.
    pub trace: Vec<String>,
    /// Equal for equal runs, down to the byte and the microsecond.
    pub digest: u64,
    /// The numbers of the messages that each client got, in order, over all its visits.
    pub received: Vec<Vec<u32>>,
    /// Events that were dealt with.
    pub events: u64,
    /// Messages that came to clients.
    pub deliveries: u64,
    /// WebSockets that were opened.
    pub visits: u64,
    /// Publishes that Redis carried out.
    pub published: u64,
    /// When each instance said whether it can deliver, and what.
    pub readiness: Vec<Vec<(Instant, Result<(), Unready>)>>,
    /// What each instance's bus counted, at the end.
    pub buses: Vec<bus::Stats>,
    /// The longest time from a client's ping to its pong.
    pub slowest_pong: Duration,
    /// How many sessions ended for each reason, by its name.
    pub ends: std::collections::BTreeMap<String, u64>,
}
