//! The link: both connections, the subscriptions and the publishes.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::Bytes;
use fastrand::Rng;
use tracing::info;

use super::connection::{Connection, Expected, State};
use super::deadlines::START_TIME;
use super::error::{LinkError, LinkErrorKind};
use super::probe::{PAYLOAD_BYTES, Probe};
use super::publishes::{Publishes, Sent};
use super::subscriptions::{Kind, Subscriptions};
use super::{Action, Endpoint, Lane, LinkEvent, LinkStats, RedisUrl};
use crate::error::{Misuse, Unready};
use crate::limits::Limits;
use crate::resp::{Decoder, Frame, encode};
use crate::time::{Duration, Episodes, Instant, Seldom};

/// What is lent at most for one write.
const LENT_BYTES: usize = 256 << 10;

/// What another instance needs after its dial until it is subscribed again.
const RESUBSCRIBE_TIME: Duration = Duration::from_millis(100);

/// The link to Redis of one instance.
///
/// Starts by wanting both connections dialled. After every input or command the owner drains
/// [`poll_action`](Self::poll_action), [`poll_transmit`](Self::poll_transmit) and [`poll_event`](Self::poll_event), and
/// sleeps until readiness or [`poll_timeout`](Self::poll_timeout). An earlier `now` counts as the latest seen.
///
/// # When publishes leave
///
/// They wait until the link is *whole*: both connections take commands and, since the subscribing one was made, every
/// wanted channel was confirmed or refused once. Otherwise the clients of this very instance would miss what they send.
/// Channels that are wanted later hold nothing back.
///
/// After an outage they wait for one reconnect bound (`Limits::reconnect_times`) and a tenth of a second more. The other instances of the same
/// Redis lost it too and dial again within that bound; a message that leaves before they are subscribed again is lost
/// for their clients, and the queue is there so that it is not. At the first start nobody waits for anybody.
///
/// A publish that was written wholly and has no reply when its connection is lost may have been carried out. It is
/// reported and never sent again. One that was written in part was not carried out, and leaves again.
#[derive(Debug)]
pub struct Link {
    pub(super) url: RedisUrl,
    pub(super) limits: Limits,
    pub(super) rng: Rng,
    pub(super) now: Instant,
    pub(super) subscriber: Connection,
    pub(super) publisher: Connection,
    pub(super) subscriptions: Subscriptions,
    pub(super) publishes: Publishes,
    pub(super) probe: Probe,
    /// Why the publishing connection is to be made again once everything sent has its reply.
    pub(super) elsewhere: Option<LinkErrorKind>,
    pub(super) phase: Phase,
    /// Until when a start that does not succeed is not reported; `None` once it was, or has succeeded.
    pub(super) start: Option<Instant>,
    /// Whether both connections have taken commands at once.
    pub(super) has_started: bool,
    /// Whether a connection was lost since the link was whole.
    pub(super) was_lost: bool,
    /// Why a connection was lost last.
    pub(super) cause: Unready,
    /// Since when messages may be missed.
    pub(super) gap: Option<Instant>,
    pub(super) is_closing: bool,
    /// What was said last, so that a repetition says nothing.
    pub(super) reported: Reported,
    pub(super) outages: Episodes,
    pub(super) said_unconfirmed: Seldom,
    pub(super) said_refused: Seldom,
    pub(super) events: VecDeque<LinkEvent>,
    pub(super) released: usize,
    pub(super) stats: LinkStats,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// A connection or a subscription is missing.
    Partial,
    /// Whole, but others may not be yet.
    Settling(Instant),
    /// Whole, and publishes leave.
    Open,
}

#[derive(Debug, Default)]
pub(super) struct Reported {
    pub(super) subscriber: Option<LinkError>,
    pub(super) publisher: Option<LinkError>,
    pub(super) subscribe: Option<String>,
    pub(super) publish: Option<String>,
    pub(super) probe: Option<String>,
    /// Publishes given up since the link was whole.
    pub(super) expired: usize,
}

impl Link {
    /// A link that wants to be dialled. `prefix` stands before the name of the channel that it probes,
    /// `fanfare:probe:` and 16 digits. What is random comes from `seed`, those digits among it: no two links of a Redis
    /// may have the same.
    #[must_use]
    pub fn new(url: RedisUrl, prefix: &str, limits: &Limits, seed: u64, now: Instant) -> Self {
        let mut rng = Rng::with_seed(seed);
        // A probe always fits.
        let message_bytes = limits.message_bytes.max(PAYLOAD_BYTES);
        Self {
            url,
            limits: limits.clone(),
            probe: Probe::new(prefix, rng.u64(..)),
            rng,
            now,
            subscriber: Connection::new(Lane::Subscriber, message_bytes, now),
            publisher: Connection::new(Lane::Publisher, message_bytes, now),
            subscriptions: Subscriptions::default(),
            publishes: Publishes::default(),
            elsewhere: None,
            phase: Phase::Partial,
            start: Some(now + START_TIME),
            has_started: false,
            was_lost: false,
            cause: Unready::NoConnection,
            gap: None,
            is_closing: false,
            reported: Reported::default(),
            outages: Episodes::new(),
            said_unconfirmed: Seldom::default(),
            said_refused: Seldom::default(),
            events: VecDeque::new(),
            released: 0,
            stats: LinkStats::default(),
        }
    }

    // Commands.

    /// Wants `channel`; [`LinkEvent::Subscribed`] tells when it is confirmed, at once if it is.
    pub fn subscribe(&mut self, channel: Bytes, now: Instant) {
        let now = self.advance(now);
        if self.subscriptions.want(channel.clone()) {
            self.events.push_back(LinkEvent::Subscribed(channel));
        }
        self.settle(now);
    }

    /// No longer wants `channel`. Messages of it may still come for a while.
    pub fn unsubscribe(&mut self, channel: &[u8], now: Instant) {
        let now = self.advance(now);
        self.subscriptions.unwant(channel);
        self.settle(now);
    }

    /// Queues a publish. The caller bounds the queue by [`publish_backlog`](Self::publish_backlog).
    pub fn publish(&mut self, channel: &[u8], payload: &[u8], now: Instant) {
        let now = self.advance(now);
        self.publishes.push(channel, payload, now);
        self.settle(now);
    }

    /// Shuts down: what is queued leaves if the publishing connection takes commands, whether or not the link is whole,
    /// since there will be no better time. Then, or if that connection is not there or is lost, both are ended.
    ///
    /// [`is_closed`](Self::is_closed) tells the end, [`is_flushed`](Self::is_flushed) whether everything was confirmed.
    pub fn close(&mut self, now: Instant) {
        let now = self.advance(now);
        self.is_closing = true;
        self.probe.stop();
        self.publishes.drop_probe();
        self.settle(now);
    }

    // Inputs.

    /// The dial of `lane` has succeeded.
    pub fn handle_connected(&mut self, lane: Lane, now: Instant) {
        let now = self.advance(now);
        let (connection, url) = self.parts(lane);
        if matches!(connection.state, State::Dialing(_)) {
            connection.handle_connected(url, now);
        }
        self.settle(now);
    }

    /// The dial of `lane` has failed for `reason`, a few words for people.
    pub fn handle_dial_failed(&mut self, lane: Lane, reason: &str, now: Instant) {
        let now = self.advance(now);
        if matches!(self.connection(lane).state, State::Dialing(_)) {
            self.lose(lane, LinkErrorKind::Unreachable(reason.to_owned()), false, now);
        }
        self.settle(now);
    }

    /// The dial of `lane` waits for a name server, or no longer does. It changes nothing but what is said of a dial that
    /// takes too long.
    pub fn handle_resolving(&mut self, lane: Lane, is_resolving: bool) {
        self.parts(lane).0.is_resolving = is_resolving;
    }

    /// Bytes were read from `lane`. `sink` gets channel and payload of each message in their order.
    ///
    /// `more` says that more may lie in the socket: the read filled its buffer. Until a read without it, a reply or a
    /// probe that does not come within its time may still lie there, and ends nothing for up to a minute.
    pub fn handle_read(
        &mut self,
        lane: Lane,
        mut input: &[u8],
        more: bool,
        now: Instant,
        mut sink: impl FnMut(&[u8], &[u8]),
    ) {
        let now = self.advance(now);
        let connection = self.parts(lane).0;
        if !connection.is_connected() {
            return;
        }
        connection.handle_input(more, now);
        let mut decoder = core::mem::replace(&mut connection.decoder, Decoder::new(0));
        let result = loop {
            let result = match decoder.decode(&mut input) {
                Ok(None) => break Ok(()),
                Ok(Some(Frame::Message { channel, payload })) if self.takes_messages(lane) => {
                    if self.probe.is_mine(channel) {
                        self.handle_probe(payload, now);
                    } else if payload.len() > self.limits.message_bytes {
                        self.handle_oversized(channel, payload.len());
                    } else {
                        sink(channel, payload);
                    }
                    Ok(())
                }
                Ok(Some(frame)) => self.handle_frame(lane, frame, now),
                Err(error) => Err(LinkErrorKind::NotRedis(error)),
            };
            if result.is_err() {
                break result;
            }
        };
        self.parts(lane).0.decoder = decoder;
        if let Err(kind) = result {
            self.give_up(lane, kind, now);
        }
        self.settle(now);
    }

    /// The connection of `lane` has ended, by its peer or by any error, for `reason`, a few words for people.
    pub fn handle_closed(&mut self, lane: Lane, reason: &str, now: Instant) {
        let now = self.advance(now);
        if self.connection(lane).is_connected() {
            let kind = self.closed(lane, reason);
            self.lose(lane, kind, false, now);
        }
        self.settle(now);
    }

    /// Lends what is to be written to `lane`, in up to four slices and 256 KiB; returns how many of `out` are used. Only
    /// looks.
    pub fn transmit<'a>(&'a self, lane: Lane, out: &mut [IoSlice<'a>]) -> usize {
        let (first, second) = self.connection(lane).control.as_slices();
        let [third, fourth] = self.lent_publishes(lane);
        let mut left = LENT_BYTES;
        let cut = [first, second, third, fourth].map(|slice| {
            let cut = &slice[..slice.len().min(left)];
            left -= cut.len();
            cut
        });
        let slices = cut.into_iter().filter(|slice| !slice.is_empty());
        out.iter_mut().zip(slices).map(|(place, slice)| *place = IoSlice::new(slice)).count()
    }

    /// The first `bytes` of what [`transmit`](Self::transmit) lends for `lane` are written.
    ///
    /// # Errors
    ///
    /// [`Misuse::TooMuchTransmitted`] if that is more than it lends; nothing changes.
    pub fn transmitted(&mut self, lane: Lane, bytes: usize, now: Instant) -> Result<(), Misuse> {
        let now = self.advance(now);
        if bytes > self.unsent(lane) {
            return Err(Misuse::TooMuchTransmitted);
        }
        if bytes == 0 {
            return Ok(());
        }
        let connection = match lane {
            Lane::Subscriber => &mut self.subscriber,
            Lane::Publisher => &mut self.publisher,
        };
        let control = bytes.min(connection.control.len());
        connection.control.drain(..control);
        if bytes > control {
            self.publishes.handle_written(bytes - control, |sent| {
                let expected = match sent {
                    Sent::Publish => Expected::Publish,
                    Sent::Aside(aside) => Expected::Aside(aside),
                };
                connection.expected.push_back((expected, now));
            });
            self.send_mark();
        }
        let unsent = self.unsent(lane);
        let reply_time = self.limits.reply_time;
        self.parts(lane).0.handle_written(unsent, reply_time, now);
        Ok(())
    }

    /// The socket of `lane` takes no more. [`poll_transmit`](Self::poll_transmit) does not name it until
    /// [`handle_writable`](Self::handle_writable).
    pub fn blocked(&mut self, lane: Lane) {
        let connection = self.parts(lane).0;
        (connection.is_blocked, connection.was_blocked) = (true, true);
    }

    /// The socket of `lane` takes bytes again.
    pub fn handle_writable(&mut self, lane: Lane) {
        let connection = self.parts(lane).0;
        connection.is_offered |= connection.is_blocked;
        connection.is_blocked = false;
    }

    // Outputs.

    /// A lane with output that was not named yet. Can change with every input and command.
    pub fn poll_transmit(&mut self) -> Option<Lane> {
        let lane = Lane::ALL.into_iter().find(|&lane| self.connection(lane).has_offer())?;
        self.parts(lane).0.is_offered = false;
        Some(lane)
    }

    /// The next thing to do with a socket. Can change with every input and command.
    ///
    /// A [`Action::HangUp`] comes before the [`Action::Dial`] of the same lane: an old subscriber is gone before a new
    /// one subscribes.
    pub fn poll_action(&mut self) -> Option<Action> {
        let deadline = self.now + self.limits.dial_time;
        for lane in Lane::ALL {
            let connection = self.parts(lane).0;
            if core::mem::take(&mut connection.hang_up) {
                return Some(Action::HangUp(lane));
            }
            if connection.ask_to_look() {
                return Some(Action::Look(lane));
            }
            if matches!(connection.state, State::Due) {
                connection.state = State::Dialing(deadline);
                return Some(Action::Dial(lane));
            }
        }
        None
    }

    /// What happened. Can change with every input and command.
    pub fn poll_event(&mut self) -> Option<LinkEvent> {
        self.events.pop_front().or_else(|| {
            let bytes = core::mem::take(&mut self.released);
            (bytes > 0).then_some(LinkEvent::Released { bytes })
        })
    }

    // Getters.

    /// Where both connections lead.
    #[must_use]
    pub fn endpoint(&self) -> Endpoint {
        Endpoint::of(&self.url)
    }

    /// Bytes of all publishes, encoded, that wait to be written or for their replies.
    #[must_use]
    pub fn publish_backlog(&self) -> usize {
        self.publishes.bytes()
    }

    /// Publishes that wait to be written: after [`close`](Self::close) what was not sent.
    #[must_use]
    pub fn unsent_publishes(&self) -> usize {
        self.publishes.unsent()
    }

    /// Whether the link is whole.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.phase != Phase::Partial
    }

    /// Whether what is published comes back from end to end, and why not.
    ///
    /// # Errors
    ///
    /// The reason.
    pub fn readiness(&self) -> Result<(), Unready> {
        match (self.are_ready(), self.is_up()) {
            _ if self.is_closing => Err(Unready::Draining),
            (true, true) => self.probe.proof(),
            (true, false) => Err(Unready::Subscribing),
            (false, _) => Err(self.cause),
        }
    }

    /// Counts since the start.
    #[must_use]
    pub const fn stats(&self) -> &LinkStats {
        &self.stats
    }

    /// Whether every publish has left the backlog.
    #[must_use]
    pub fn is_flushed(&self) -> bool {
        self.publish_backlog() == 0
    }

    /// Whether [`close`](Self::close) has come to its end.
    #[must_use]
    pub const fn is_closed(&self) -> bool {
        matches!((&self.subscriber.state, &self.publisher.state), (State::Closed, State::Closed))
    }

    /// Channels that are wanted.
    #[must_use]
    pub const fn wanted_channels(&self) -> usize {
        self.subscriptions.wanted()
    }

    /// Channels that Redis has confirmed on the present connection. Equal to the wanted ones in the long run, but for
    /// refused ones.
    #[must_use]
    pub const fn confirmed_channels(&self) -> usize {
        self.subscriptions.confirmed()
    }

    /// Channels that are wanted and that Redis refuses, as far as is known.
    #[must_use]
    pub fn refused_channels(&self) -> usize {
        self.subscriptions.refused()
    }

    // Changes of the link as a whole.

    /// Draws the consequences of whatever came in: everything that follows from the state alone is here.
    pub(super) fn settle(&mut self, now: Instant) {
        let are_ready = self.are_ready();
        if are_ready && !self.has_started {
            self.has_started = true;
            self.start = None;
        }
        self.resume_publishes(now);
        if self.subscriber.is_ready() {
            self.subscribe_to_probe(now);
            self.write_subscriptions(now);
        }
        self.publishes.set_echoing(self.is_probed());
        match self.phase {
            Phase::Partial if are_ready && self.subscriptions.is_settled() => self.become_whole(now),
            Phase::Settling(until) if until <= now => self.phase = Phase::Open,
            Phase::Partial | Phase::Settling(_) | Phase::Open => {}
        }
        self.send_probe(now);
        if self.is_closing && (self.is_flushed() || !self.publisher.is_ready()) {
            self.end();
        }
        for lane in Lane::ALL {
            let unsent = self.unsent(lane);
            let connection = self.parts(lane).0;
            connection.note_output(unsent, now);
            if let State::Waiting(until) = connection.state
                && until <= now
            {
                connection.state = State::Due;
            }
        }
    }

    fn write_subscriptions(&mut self, now: Instant) {
        while let Some(batch) = self.subscriptions.next_batch() {
            let (names, out) = (batch.channels.iter().map(|name| &name[..]), &mut self.subscriber.control);
            match batch.kind() {
                Kind::Subscribe => encode::subscribe(out, names),
                Kind::Unsubscribe => encode::unsubscribe(out, names),
            }
            self.subscriber.expected.push_back((Expected::Subscriptions, now));
        }
    }

    /// Lets publishes leave again that Redis could not carry out, on a new connection if that may help.
    fn resume_publishes(&mut self, now: Instant) {
        if !self.publishes.is_answered() {
            return;
        }
        if let Some(kind) = self.elsewhere.take() {
            return self.give_up(Lane::Publisher, kind, now);
        }
        let gone = self.publishes.resume();
        self.handle_gone(&gone);
    }

    fn become_whole(&mut self, now: Instant) {
        let settled = now + self.limits.reconnect_times.1 + RESUBSCRIBE_TIME;
        self.phase = if self.was_lost { Phase::Settling(settled) } else { Phase::Open };
        let channels = self.subscriptions.confirmed();
        if !self.was_lost {
            info!(event = "redis_connected", channels, "Redis is connected");
        } else if self.outages.is_told() {
            info!(event = "redis_back", channels, "Redis is back");
        }
        self.was_lost = false;
        if !self.is_closing {
            self.probe.start(self.limits.probe_time, now);
        }
        self.count_expired();
        self.reported = Reported { probe: self.reported.probe.take(), ..Reported::default() };
        let gap = self.gap.take().map(|since| now.since(since));
        self.events.push_back(LinkEvent::Up { gap });
    }

    fn end(&mut self) {
        self.count_expired();
        self.give_up_unconfirmed();
        self.subscriber.close();
        self.publisher.close();
        self.phase = Phase::Partial;
        self.start = None;
    }

    pub(super) fn are_ready(&self) -> bool {
        self.subscriber.is_ready() && self.publisher.is_ready()
    }

    pub(super) fn takes_messages(&self, lane: Lane) -> bool {
        lane == Lane::Subscriber && self.subscriber.is_ready()
    }

    fn lent_publishes(&self, lane: Lane) -> [&[u8]; 2] {
        if lane == Lane::Publisher && self.publisher.is_ready() {
            self.publishes.lent(self.is_open())
        } else {
            [&[], &[]]
        }
    }

    fn unsent(&self, lane: Lane) -> usize {
        self.connection(lane).control.len() + self.lent_publishes(lane).iter().map(|slice| slice.len()).sum::<usize>()
    }

    fn is_open(&self) -> bool {
        self.phase == Phase::Open || self.is_closing
    }

    pub(super) const fn connection(&self, lane: Lane) -> &Connection {
        match lane {
            Lane::Subscriber => &self.subscriber,
            Lane::Publisher => &self.publisher,
        }
    }

    pub(super) fn parts(&mut self, lane: Lane) -> (&mut Connection, &RedisUrl) {
        let connection = match lane {
            Lane::Subscriber => &mut self.subscriber,
            Lane::Publisher => &mut self.publisher,
        };
        (connection, &self.url)
    }

    pub(super) fn advance(&mut self, now: Instant) -> Instant {
        self.now = self.now.max(now);
        self.now
    }
}
