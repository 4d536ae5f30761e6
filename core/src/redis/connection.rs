//! One of the two connections: when it is dialled, which replies it expects and when it counts as dead.

use std::collections::VecDeque;

use fastrand::Rng;

use super::handshake::{Handshake, Step};
use super::publishes::Aside;
use super::{Lane, RedisUrl};
use crate::limits::Limits;
use crate::resp::{Decoder, encode};
use crate::time::{Duration, Instant};

/// The longest that being behind excuses a missing reply. By then Redis has given up a subscriber that reads too slowly
/// (`client-output-buffer-limit pubsub`).
const BEHIND_TIME: Duration = Duration::from_secs(60);

/// One lane of the link.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) lane: Lane,
    pub(super) state: State,
    pub(super) decoder: Decoder,
    /// Everything but publishes. It is only added to between two publishes and leaves before the next.
    pub(super) control: VecDeque<u8>,
    /// The commands without a reply, oldest first, with the time at which they left; for all but PUBLISH the time
    /// at which they were to leave.
    pub(super) expected: VecDeque<(Expected, Instant)>,
    /// When anything came last.
    pub(super) heard: Instant,
    /// Whether anything has come on this connection.
    has_heard: bool,
    /// Whether the dial waits for a name server.
    pub(super) is_resolving: bool,
    /// When Redis last answered a command, or one channel of it.
    pub(super) replied: Instant,
    /// When it was read last, if that read was as large as one may be: more has come than was read.
    behind: Option<Instant>,
    /// When the newest command that was answered was to leave. Messages and answers come in one order, so that what was
    /// published before has come in.
    pub(super) answered: Instant,
    pub(super) is_blocked: bool,
    /// Whether there is output that [`super::Link::poll_transmit`] has not named.
    pub(super) is_offered: bool,
    /// Whether [`super::Link::poll_action`] has to end the last connection.
    pub(super) hang_up: bool,
    /// Whether the owner is to look at the socket.
    pub(super) look: Look,
    /// When the owner looked at the socket last.
    looked: Instant,
    /// Bytes that waited to be written after the last input.
    unsent: usize,
    /// Since when they have waited without any progress.
    stalled: Instant,
    /// Whether the socket was full since they wait.
    pub(super) was_blocked: bool,
    /// When something was written last that had waited for long, and not for the socket. What is missed may have been a
    /// part of it.
    written_late: Instant,
    /// Failures in a row.
    failures: u32,
    /// The last error reply of the handshake, which may say why the connection ends.
    pub(super) last_error: Option<String>,
    /// How this server is asked for its role; `None` if it does not say.
    pub(super) role: Option<RoleQuestion>,
}

/// A command whose reply tells whether a server is a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RoleQuestion {
    Hello,
    Role,
}

#[derive(Debug)]
pub(super) enum State {
    /// Nothing to do before this time.
    Waiting(Instant),
    /// To be dialled as soon as the action is polled.
    Due,
    /// Being dialled, at most until this time.
    Dialing(Instant),
    Handshaking(Handshake),
    /// Takes commands since this time.
    Ready(Instant),
    /// Not dialled any more.
    Closed,
}

/// How far the owner has come with looking at a socket on which something is overdue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    No,
    /// [`super::Link::poll_action`] has to ask for it.
    Wanted,
    /// The owner was asked for it.
    Asked,
}

/// A command without a reply.
#[derive(Clone, Copy, Debug)]
pub(super) enum Expected {
    Handshake(Step),
    Ping,
    /// SUBSCRIBE or UNSUBSCRIBE, one confirmation for each channel.
    Subscriptions,
    /// PUBLISH of a client.
    Publish,
    /// SUBSCRIBE to the probe's channel.
    ProbeSubscription,
    /// What leaves between publishes.
    Aside(Aside),
}

/// What is due on a connection.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Due {
    Nothing,
    Ping,
    /// Dialling took too long.
    NotConnected,
    /// A reply, or room to write, took too long.
    Silent,
}

impl Connection {
    /// One that takes messages of so many bytes.
    pub(super) fn new(lane: Lane, message_bytes: usize, now: Instant) -> Self {
        Self {
            lane,
            state: State::Due,
            decoder: Decoder::new(message_bytes),
            control: VecDeque::new(),
            expected: VecDeque::new(),
            heard: now,
            has_heard: false,
            is_resolving: false,
            replied: now,
            behind: None,
            answered: now,
            is_blocked: false,
            is_offered: false,
            hang_up: false,
            look: Look::No,
            looked: now,
            unsent: 0,
            stalled: now,
            was_blocked: false,
            written_late: now,
            failures: 0,
            last_error: None,
            role: None,
        }
    }

    pub(super) const fn is_ready(&self) -> bool {
        matches!(self.state, State::Ready(_))
    }

    pub(super) const fn is_connected(&self) -> bool {
        matches!(self.state, State::Handshaking(_) | State::Ready(_))
    }

    /// The connection is there: starts the handshake.
    pub(super) fn handle_connected(&mut self, url: &RedisUrl, now: Instant) {
        self.heard = now;
        self.replied = now;
        self.answered = now;
        self.role = Some(RoleQuestion::Hello);
        self.state = State::Handshaking(Handshake::default());
        self.write_handshake(Step::Hello, url, now);
    }

    /// Whether no byte has come since the connection was made.
    pub(super) const fn is_unanswered(&self) -> bool {
        matches!(self.state, State::Handshaking(_)) && !self.has_heard
    }

    pub(super) fn write_handshake(&mut self, first: Step, url: &RedisUrl, now: Instant) {
        let steps = Handshake::write(first, self.lane, url, &mut self.control);
        self.expected.extend(steps.into_iter().map(|step| (Expected::Handshake(step), now)));
    }

    pub(super) fn ping(&mut self, now: Instant) {
        encode::ping(&mut self.control);
        self.expected.push_back((Expected::Ping, now));
    }

    /// The connection, or the dial, has failed: nothing of it is kept. The next dial is some time off.
    ///
    /// The wait is taken at random between zero and a bound that doubles with each failure, so that the instances that
    /// lost Redis together do not come back together. Only a connection that lasted resets the bound: one that Redis
    /// kills each time all channels are subscribed must not be made again at the fastest pace.
    pub(super) fn handle_lost(&mut self, (base, cap): (Duration, Duration), rng: &mut Rng, now: Instant) {
        if let State::Ready(since) = self.state
            && now.since(since) >= cap
        {
            self.failures = 0;
        }
        let bound = base.saturating_mul(1 << self.failures.min(20)).min(cap);
        let wait = rng.u64(0..=u64::try_from(bound.as_micros()).unwrap_or(u64::MAX));
        self.failures = self.failures.saturating_add(1);
        self.clear(State::Waiting(now + Duration::from_micros(wait)));
    }

    /// Ends the connection for good.
    pub(super) fn close(&mut self) {
        self.hang_up |= self.is_connected() || matches!(self.state, State::Dialing(_));
        self.clear(State::Closed);
    }

    fn clear(&mut self, state: State) {
        self.state = state;
        self.decoder.reset();
        self.control = VecDeque::new();
        self.expected = VecDeque::new();
        self.is_blocked = false;
        self.was_blocked = false;
        self.is_offered = false;
        self.behind = None;
        self.look = Look::No;
        self.unsent = 0;
        self.has_heard = false;
        self.is_resolving = false;
        self.last_error = None;
    }

    /// Notes how much output there is after an input; offers it if it has grown.
    pub(super) fn note_output(&mut self, unsent: usize, now: Instant) {
        if self.unsent == 0 {
            self.stalled = now;
        }
        self.is_offered |= unsent > self.unsent;
        self.unsent = unsent;
    }

    /// `unsent` bytes are left after some were written.
    pub(super) fn handle_written(&mut self, unsent: usize, reply_time: Duration, now: Instant) {
        if !self.was_blocked && now.since(self.stalled) >= reply_time / 4 {
            self.written_late = now;
        }
        self.was_blocked &= unsent > 0;
        self.unsent = unsent;
        self.stalled = now;
        self.is_offered = unsent > 0;
    }

    /// Bytes were read, and `more` may lie behind them.
    pub(super) fn handle_input(&mut self, more: bool, now: Instant) {
        self.heard = now;
        self.has_heard = true;
        self.behind = more.then_some(now);
    }

    /// Whether the owner has looked at the socket since `at`, and written what it takes. If not, it is asked to.
    pub(super) fn is_looked_at(&mut self, at: Instant) -> bool {
        let is_open = self.is_connected() || matches!(self.state, State::Dialing(_));
        if !is_open || self.looked >= at {
            return !self.has_offer();
        }
        if self.look == Look::No {
            self.look = Look::Wanted;
        }
        false
    }

    /// The owner is asked to look. It also tries to write.
    pub(super) const fn ask_to_look(&mut self) -> bool {
        let is_wanted = matches!(self.look, Look::Wanted);
        if is_wanted {
            self.look = Look::Asked;
            self.is_offered |= self.is_blocked;
            self.is_blocked = false;
        }
        is_wanted
    }

    pub(super) const fn handle_looked(&mut self, now: Instant) {
        self.look = Look::No;
        self.looked = now;
    }

    /// From when on the reply is missed to a command that was to leave at `left`. Replies come behind all messages that
    /// came before them: while we are behind with reading those, it is not Redis that is slow.
    pub(super) fn missed_since(&self, left: Instant) -> Instant {
        let left = self.left(left);
        self.behind.map_or(left, |behind| left.max(behind.min(left + BEHIND_TIME)))
    }

    /// When a command that was to leave at `left` has left, at the latest.
    pub(super) fn left(&self, left: Instant) -> Instant {
        left.max(self.written_late)
    }

    /// Whether there is output to be named.
    pub(super) const fn has_offer(&self) -> bool {
        self.is_offered && !self.is_blocked && self.unsent > 0
    }

    /// What is due next, and when.
    ///
    /// A reply is late when for `reply_time` its command has not left, no other reply has come, and we were not behind: a
    /// long pipeline that is being answered is not dead, one that is merely still being swallowed is.
    pub(super) fn deadline(&self, limits: &Limits) -> Option<(Instant, Due)> {
        match self.state {
            State::Waiting(until) => return Some((until, Due::Nothing)),
            State::Dialing(until) => return Some((until, Due::NotConnected)),
            State::Due | State::Closed => return None,
            State::Handshaking(_) | State::Ready(_) => {}
        }
        let reply =
            self.expected.front().map(|&(_, left)| self.missed_since(left).max(self.replied) + limits.reply_time);
        let room = (self.unsent > 0).then(|| self.stalled + limits.reply_time);
        match reply.into_iter().chain(room).min() {
            Some(at) => Some((at, Due::Silent)),
            None => Some((self.heard + limits.redis_ping_time, Due::Ping)),
        }
    }
}
