//! What a shard counts. Counts only grow; nothing here is looked at to decide anything.

use super::session::Stage;
use super::{Session, Shard};
use crate::error::{Closed, Error, Side};

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
    /// Bytes read from clients, requests and frame headers among them.
    pub bytes_in: u64,
    /// Bytes written to clients, answers and frame headers among them.
    pub bytes_out: u64,
    /// Messages put into sessions' queues: one for each message and session, those that are dropped later among them.
    pub deliveries: u64,
    /// Messages that the bus had for this worker and could not hand over.
    pub missed: u64,
    /// Sessions closed as slow readers.
    pub slow_readers: u64,
    /// Messages that slow readers lost because no more fitted into their queues.
    pub dropped_newest: u64,
    /// Messages that slow readers lost to make room for newer ones.
    pub dropped_oldest: u64,
    /// Messages that slow readers lost because only the newest is of use to them.
    pub dropped_latest: u64,
    /// Sessions closed, or about to be, because messages may have been missed.
    pub gap_closes: u64,
    /// Times that a message was held for want of credit, and its session paused.
    pub pauses: u64,
    /// Messages that came when no credit was left to publish them: behind our Close, or from a session that has waited
    /// for credit long enough and ends for it. Also those behind a message for which the embedder has closed its session
    /// ([`Decision::Close`](super::Decision::Close)).
    pub discarded: u64,
    /// WebSockets that have ended.
    pub closes: Closes,
    /// What was wrong with requests that were refused and with WebSockets that have ended.
    pub errors: Errors,
    /// Memory of the runs that wait for some session now, each counted once. Bounded by
    /// [`Limits::all_queues_bytes`](crate::limits::Limits::all_queues_bytes).
    pub queued_bytes: usize,
    /// Bytes of unfinished messages now. Bounded by [`Limits::partial_bytes`](crate::limits::Limits::partial_bytes).
    pub partial_bytes: usize,
}

impl Stats {
    /// Adds another shard's.
    pub fn add(&mut self, other: &Self) {
        self.sessions += other.sessions;
        self.opened += other.opened;
        self.messages_in += other.messages_in;
        self.bytes_in += other.bytes_in;
        self.bytes_out += other.bytes_out;
        self.deliveries += other.deliveries;
        self.missed += other.missed;
        self.slow_readers += other.slow_readers;
        self.dropped_newest += other.dropped_newest;
        self.dropped_oldest += other.dropped_oldest;
        self.dropped_latest += other.dropped_latest;
        self.gap_closes += other.gap_closes;
        self.pauses += other.pauses;
        self.discarded += other.discarded;
        self.queued_bytes += other.queued_bytes;
        self.partial_bytes += other.partial_bytes;
        let closes = self.closes.0.as_flattened_mut().iter_mut().zip(other.closes.0.as_flattened());
        closes.for_each(|(sum, more)| *sum += more);
        self.errors.0.iter_mut().zip(&other.errors.0).for_each(|(sum, more)| *sum += more);
    }
}

/// WebSockets that have ended, by who ended them and with which close code.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Closes([[u64; CODES.len()]; SIDES.len()]);

const SIDES: [Side; 3] = [Side::Local, Side::Peer, Side::Transport];

/// Every code that a Close frame may carry and that RFC 6455 or its registry gives a meaning.
const CODES: [Code; 14] = [
    Code::Missing,
    Code::Known(1000),
    Code::Known(1001),
    Code::Known(1002),
    Code::Known(1003),
    Code::Known(1007),
    Code::Known(1008),
    Code::Known(1009),
    Code::Known(1010),
    Code::Known(1011),
    Code::Known(1012),
    Code::Known(1013),
    Code::Known(1014),
    Code::Other,
];

/// Close codes as they are counted: few enough for each to have a count of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// No Close was sent or received, or it had no code.
    Missing,
    /// One of RFC 6455 or its registry.
    Known(u16),
    /// One that applications choose, 3000 to 4999.
    Other,
}

impl Closes {
    fn count(&mut self, closed: &Closed) {
        let code = closed.code.map_or(Code::Missing, Code::Known);
        let place = CODES.iter().position(|&one| one == code).unwrap_or(CODES.len() - 1);
        self.0[closed.by as usize][place] += 1;
    }

    /// Every count, those of zero among them.
    pub fn iter(&self) -> impl Iterator<Item = (Side, Code, u64)> {
        let side = |(&side, counts): (&Side, &[u64; CODES.len()])| {
            let counts = *counts;
            CODES.into_iter().zip(counts).map(move |(code, count)| (side, code, count))
        };
        SIDES.iter().zip(&self.0).flat_map(side)
    }

    /// All of them together.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.as_flattened().iter().sum()
    }
}

/// How often each [`Error`] was the first of its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Errors([u64; Error::ALL.len()]);

impl Default for Errors {
    fn default() -> Self {
        Self([0; Error::ALL.len()])
    }
}

impl Errors {
    pub(super) fn count(&mut self, error: Error) {
        self.0[error as usize] += 1;
    }

    /// How often it was `error`.
    #[must_use]
    pub const fn of(&self, error: Error) -> u64 {
        self.0[error as usize]
    }

    /// Every count, those of zero among them.
    pub fn iter(&self) -> impl Iterator<Item = (Error, u64)> {
        Error::ALL.iter().copied().zip(self.0)
    }
}

/// Sessions now, by how far they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stages {
    /// They send their request.
    pub head: usize,
    /// The embedder has yet to decide about the request.
    pub deciding: usize,
    /// They wait for their channel's subscription.
    pub joining: usize,
    /// Open WebSockets.
    pub open: usize,
    /// WebSockets whose closing handshake has begun.
    pub closing: usize,
    /// They wait for metrics, or are given a plain answer.
    pub answered: usize,
}

impl Stages {
    /// Adds another shard's.
    pub const fn add(&mut self, other: &Self) {
        self.head += other.head;
        self.deciding += other.deciding;
        self.joining += other.joining;
        self.open += other.open;
        self.closing += other.closing;
        self.answered += other.answered;
    }

    fn count(&mut self, session: &Session) {
        *match &session.stage {
            Stage::Head(_) => &mut self.head,
            Stage::Deciding(_) => &mut self.deciding,
            Stage::Joining(_) => &mut self.joining,
            Stage::Open(open) if open.ws.can_send() => &mut self.open,
            Stage::Open(_) => &mut self.closing,
            Stage::Scraping { .. } | Stage::Answered { .. } => &mut self.answered,
        } += 1;
    }
}

impl Shard {
    /// Counts since the start, and what is there now.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let (queued_bytes, partial_bytes) = (self.runs.memory(), self.partial);
        Stats { sessions: self.sessions.len(), queued_bytes, partial_bytes, ..self.stats }
    }

    /// How far the sessions are. It looks at each of them, so that no count of stages can go wrong.
    #[must_use]
    pub fn stages(&self) -> Stages {
        let mut stages = Stages::default();
        self.sessions.iter().for_each(|(_, session)| stages.count(session));
        stages
    }

    /// `session` is over. A plain answer was counted when it was given.
    pub(super) fn count_end(stats: &mut Stats, session: &Session, closed: &Closed) {
        if matches!(session.stage, Stage::Answered { .. }) {
            return;
        }
        if matches!(session.stage, Stage::Open(_)) {
            stats.closes.count(closed);
        }
        if let Some(error) = closed.error {
            stats.errors.count(error);
        }
    }
}
