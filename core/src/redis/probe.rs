//! The probe: the proof that messages published through Redis come back.
//!
//! Connections that stand and answer PING prove nothing about Pub/Sub. So a message of the link's own leaves every
//! [`Limits::probe_time`](crate::limits::Limits::probe_time), whatever else does, and has to come in on the other
//! connection.
//!
//! ```text
//!          link whole               due                       came in
//!   Idle ─────────────▶ Waits ─────────────▶ Out ─────────────────────────▶ Waits
//!    ▲                    │ ▲                 │ └─ refused ──────────────▶ Waits
//!    └── a lane is lost ──┴─┼─────────────────┘
//!                           └─ (subscription refused: asked again when due)
//! ```

use bytes::Bytes;
use tracing::{debug, warn};

use super::Lane;
use super::answers::Answer;
use super::connection::{Connection, Expected, RoleQuestion};
use super::error::{LinkErrorKind, advice, reply_text};
use super::link::Link;
use super::publishes::Aside;
use crate::error::Unready;
use crate::resp::{Reply, encode};
use crate::time::{Duration, Instant};

/// A probe's payload: its number in 16 hexadecimal digits.
pub(super) const PAYLOAD_BYTES: usize = 16;

/// How soon a probe leaves again that Redis could not carry out.
const BUSY_PAUSE: Duration = Duration::from_millis(500);

/// Where the link stands with its probes.
#[derive(Debug)]
pub(super) struct Probe {
    /// Nobody else's: it ends in a number drawn at random.
    channel: Bytes,
    subscription: Subscription,
    pub(super) state: State,
    /// Whether the last one came back on the present connections, and what is known otherwise.
    proof: Result<(), Unready>,
    /// When the one left that came in last on the present subscribing connection: until then everything came in.
    proven: Option<Instant>,
}

/// The subscription to the probe's channel on the present connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Subscription {
    None,
    Asked,
    Confirmed,
    Refused,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// The link is not whole, or ends.
    Idle,
    /// The next one is to leave at this time.
    Waits(Instant),
    Out(Out),
}

/// A probe that has not come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Out {
    number: u64,
    /// When it was due to leave. What it waits for in a socket's buffer is part of its round trip.
    since: Instant,
    /// Whether Redis has confirmed that it was published.
    is_published: bool,
    /// Whether it was found missing already.
    pub(super) is_missing: bool,
}

impl Out {
    /// When it means that a connection is to be made again. Before it is published, a publishing connection that still
    /// gets replies is slow and not dead: to end it would lose all that is on its way, again each time. Afterwards, it may
    /// lie unread among what has come in.
    fn hopeless(&self, period: Duration, subscriber: &Connection, publisher: &Connection) -> Instant {
        if self.is_published {
            subscriber.missed_since(self.since) + period
        } else {
            publisher.missed_since(self.since).max(publisher.replied) + period
        }
    }
}

impl Probe {
    pub(super) fn new(prefix: &str, number: u64) -> Self {
        Self {
            channel: format!("{prefix}fanfare:probe:{number:016x}").into(),
            subscription: Subscription::None,
            state: State::Idle,
            proof: Err(Unready::Unproven),
            proven: None,
        }
    }

    pub(super) const fn proof(&self) -> Result<(), Unready> {
        self.proof
    }

    pub(super) const fn proven(&self) -> Option<Instant> {
        self.proven
    }

    pub(super) fn is_mine(&self, channel: &[u8]) -> bool {
        self.channel == channel
    }

    /// The link is whole: what it carries can be proven from here on.
    pub(super) fn start(&mut self, period: Duration, now: Instant) {
        let is_refused = self.subscription == Subscription::Refused;
        self.state = State::Waits(if is_refused { now + period } else { now });
    }

    /// The link ends.
    pub(super) fn stop(&mut self) {
        self.state = State::Idle;
    }

    /// Redis could not carry something out: whether it delivers is to be proven soon, if it was proven before.
    pub(super) fn hasten(&mut self, now: Instant) {
        if let State::Waits(at) = self.state
            && self.proof.is_ok()
        {
            self.state = State::Waits(at.min(now));
        }
    }

    /// A connection is lost for `reason`, and every proof with it.
    pub(super) fn handle_lost(&mut self, lane: Lane, reason: Unready) {
        self.state = State::Idle;
        if lane == Lane::Subscriber {
            self.subscription = Subscription::None;
            self.proven = None;
        }
        self.proof = Err(match reason {
            // This is known until the contrary is, over all connections that are made meanwhile.
            Unready::Undelivered | Unready::Replica => reason,
            _ if self.subscription == Subscription::Refused && self.proof == Err(Unready::ProbeRefused) => {
                Unready::ProbeRefused
            }
            _ => Unready::Unproven,
        });
    }

    /// When something is to be done.
    pub(super) fn deadline(
        &self,
        period: Duration,
        subscriber: &Connection,
        publisher: &Connection,
    ) -> Option<Instant> {
        match self.state {
            State::Waits(at) if matches!(self.subscription, Subscription::Confirmed | Subscription::Refused) => {
                Some(at)
            }
            State::Out(out) if out.is_missing => Some(out.hopeless(period, subscriber, publisher)),
            State::Out(out) => Some(publisher.left(out.since) + period),
            State::Idle | State::Waits(_) => None,
        }
    }

    fn handle_confirmed(&mut self, now: Instant) {
        self.subscription = Subscription::Confirmed;
        if let State::Waits(at) = self.state {
            self.state = State::Waits(at.min(now));
        }
    }

    /// Redis does not publish or subscribe, for `reason`: there is nothing to prove anything by, and nothing to repair.
    fn handle_refused(&mut self, reason: Unready, period: Duration, now: Instant) {
        self.proof = Err(reason);
        self.state = match self.state {
            State::Idle => State::Idle,
            State::Waits(_) => State::Waits(now + period),
            State::Out(out) => State::Waits((out.since + period).max(now)),
        };
    }

    /// A message came in on the channel. Whatever is not the probe that is out is an old one, or a stranger's. Returns how
    /// long the probe took.
    fn handle_message(&mut self, payload: &[u8], period: Duration, now: Instant) -> Option<Duration> {
        match self.state {
            State::Out(out) if payload == self::payload(out.number).as_bytes() => {
                self.proven = Some(out.since);
                self.proof = Ok(());
                self.state = State::Waits(out.since + period);
                Some(now.since(out.since))
            }
            _ => {
                debug!(event = "probe_foreign", "a message on the probe's channel that is not the probe");
                None
            }
        }
    }
}

fn payload(number: u64) -> String {
    format!("{number:016x}")
}

/// The payload of a mark, as long as a probe's.
fn mark(position: u64) -> String {
    format!("={position:015x}")
}

/// The position of a mark.
fn marked(payload: &[u8]) -> Option<u64> {
    let digits = core::str::from_utf8(payload.strip_prefix(b"=")?).ok()?;
    u64::from_str_radix(digits, 16).ok()
}

impl Link {
    /// Subscribes to the probe's channel by a command of its own, before all others: where it is refused it holds no
    /// other channel up.
    pub(super) fn subscribe_to_probe(&mut self, now: Instant) {
        if self.probe.subscription == Subscription::None {
            self.ask_for_probe(now);
        }
    }

    fn ask_for_probe(&mut self, now: Instant) {
        encode::subscribe(&mut self.subscriber.control, [&self.probe.channel[..]].into_iter());
        self.subscriber.expected.push_back((Expected::ProbeSubscription, now));
        self.probe.subscription = Subscription::Asked;
    }

    /// Sends what is due. It neither waits for publishes that have not begun to leave nor for other instances.
    ///
    /// A probe says nothing of what leaves on the subscribing connection, where messages may come in for ever: a PING
    /// goes along.
    pub(super) fn send_probe(&mut self, now: Instant) {
        let State::Waits(at) = self.probe.state else { return };
        if at > now || !matches!(self.probe.subscription, Subscription::Confirmed | Subscription::Refused) {
            return;
        }
        if self.subscriber.expected.is_empty() {
            self.subscriber.ping(now);
        }
        match self.probe.subscription {
            Subscription::Confirmed => {
                let number = self.rng.u64(..);
                self.push_aside(Aside::Probe(number), &payload(number));
                self.ask_for_role();
                self.probe.state = State::Out(Out { number, since: now, is_published: false, is_missing: false });
            }
            Subscription::Refused => {
                self.ask_for_probe(now);
                self.probe.state = State::Waits(now + self.limits.probe_time);
            }
            Subscription::None | Subscription::Asked => {}
        }
    }

    /// Draws the consequences of a probe that does not come back.
    ///
    /// If it was published, nobody can say which connection is at fault: after a failover each may end at another
    /// server. Both are made again. If it was not, the publishing one alone is known not to answer.
    pub(super) fn check_probe(&mut self, now: Instant) {
        let period = self.limits.probe_time;
        let State::Out(out) = self.probe.state else { return };
        let missing = self.publisher.left(out.since) + period;
        if missing > now || !self.are_looked_at(missing) {
            return;
        }
        let State::Out(out) = &mut self.probe.state else { return };
        if !out.is_missing {
            out.is_missing = true;
            self.stats.probes_missing += 1;
            self.probe.proof = Err(Unready::Undelivered);
        }
        let State::Out(out) = self.probe.state else { return };
        let hopeless = out.hopeless(period, &self.subscriber, &self.publisher);
        if hopeless > now || !self.are_looked_at(hopeless) {
            return;
        }
        if out.is_published {
            self.lose(Lane::Subscriber, LinkErrorKind::Undelivered, true, now);
            self.lose(Lane::Publisher, LinkErrorKind::Undelivered, true, now);
        } else {
            self.lose(Lane::Publisher, LinkErrorKind::Silent, true, now);
        }
    }

    /// Asks the server of the publishing connection whether it is a replica by now.
    fn ask_for_role(&mut self) {
        let mut command = Vec::new();
        match self.publisher.role {
            Some(RoleQuestion::Hello) => encode::hello(&mut command, None),
            Some(RoleQuestion::Role) => encode::role(&mut command),
            None => return,
        }
        self.publishes.push_aside(Aside::Role, command);
    }

    /// Sends the mark that is due between two publishes.
    pub(super) fn send_mark(&mut self) {
        if let Some(position) = self.publishes.due_mark() {
            self.push_aside(Aside::Mark(position), &mark(position));
        }
    }

    fn push_aside(&mut self, aside: Aside, payload: &str) {
        let mut command = Vec::new();
        encode::publish(&mut command, &self.probe.channel, payload.as_bytes());
        self.publishes.push_aside(aside, command);
    }

    /// Whether what is published on the probe's channel comes in, if anything does.
    pub(super) fn is_probed(&self) -> bool {
        self.subscriber.is_ready() && self.probe.subscription == Subscription::Confirmed
    }

    pub(super) fn handle_probe(&mut self, payload: &[u8], now: Instant) {
        if let Some(position) = marked(payload) {
            return self.publishes.handle_mark(position);
        }
        if let Some(time) = self.probe.handle_message(payload, self.limits.probe_time, now) {
            self.stats.probe_round_trip.record(time);
        }
        if self.probe.proof.is_ok() {
            self.reported.probe = None;
        }
    }

    /// Whether a confirmation for `channel` would answer [`Link::ask_for_probe`].
    pub(super) fn expects_probe(&self, channel: &[u8]) -> bool {
        let expected = self.subscriber.expected.front();
        matches!(expected, Some((Expected::ProbeSubscription, _))) && self.probe.is_mine(channel)
    }

    pub(super) fn handle_probe_subscribed(&mut self, now: Instant) {
        self.subscriber.replied = now;
        self.subscriber.expected.pop_front();
        self.probe.handle_confirmed(now);
    }

    pub(super) fn handle_probe_subscription_error(&mut self, error: &[u8], now: Instant) -> Result<(), LinkErrorKind> {
        self.probe.subscription = Subscription::Refused;
        self.handle_probe_error(error, now)
    }

    /// Redis has answered the PUBLISH of a probe.
    pub(super) fn handle_probe_reply(
        &mut self,
        number: u64,
        reply: Reply<'_>,
        now: Instant,
    ) -> Result<(), LinkErrorKind> {
        if let Reply::Error(error) = reply {
            return self.handle_probe_error(error, now);
        }
        if let State::Out(out) = &mut self.probe.state
            && out.number == number
        {
            out.is_published = true;
        }
        Ok(())
    }

    fn handle_probe_error(&mut self, error: &[u8], now: Instant) -> Result<(), LinkErrorKind> {
        let (reason, period) = (reply_text(error, &self.url), self.limits.probe_time);
        let is_news = self.reported.probe.as_ref() != Some(&reason);
        match Answer::of(error) {
            Answer::Elsewhere | Answer::LoggedOut => return Err(LinkErrorKind::of(error, &self.url)),
            Answer::NotNow => {
                if is_news {
                    warn!(event = "redis_busy", reason, "Redis cannot serve at the moment: publishes wait");
                }
                // The end of it is to be known soon.
                self.probe.handle_refused(Unready::Busy, BUSY_PAUSE.min(period), now);
            }
            answer => {
                if is_news && answer == Answer::NotAllowed {
                    let channel = String::from_utf8_lossy(&self.probe.channel);
                    let pattern = channel.get(..channel.len() - PAYLOAD_BYTES).unwrap_or_default();
                    warn!(
                        event = "probe_refused",
                        reason, "Redis does not allow the probe: let this user SUBSCRIBE and PUBLISH on {pattern}*"
                    );
                } else if is_news {
                    warn!(event = "probe_refused", reason, "Redis refuses the probe: {}", advice(&reason));
                }
                self.probe.handle_refused(Unready::ProbeRefused, period, now);
            }
        }
        self.reported.probe = Some(reason);
        Ok(())
    }
}
