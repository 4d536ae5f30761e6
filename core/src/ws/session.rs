//! The life of one open WebSocket.

use crate::error::{Closed, Error, Misuse, Side};
use crate::limits::Limits;
use crate::time::{Duration, Instant};

use super::close::{MAX_REASON, may_be_sent};
use super::control::Control;
use super::decoder::{Decoder, Event, Message};

/// As much as a control frame may have (RFC 6455 §5.5).
const MAX_NOTE: usize = 125;

/// How long a client is written to that has ended its stream right behind a message. The message comes back within that
/// time, if it comes at all: it has to go through Redis once.
pub const ECHO_TIME: Duration = Duration::from_secs(1);

/// As [`ECHO_TIME`], if data has left to the client since its message. Nearly always that was the echo, and then the client
/// holds its place for nothing.
pub const LIKELY_ECHO_TIME: Duration = Duration::from_millis(100);

/// Where a session is between its 101 and its end.
///
/// | state | our Close | the client's Close | reads |
/// | --- | --- | --- | --- |
/// | `Open` | | | yes |
/// | `HalfClosed` | | will not come: the client's stream has ended | nothing comes |
/// | `Closing` | waits | awaited | yes |
/// | `Awaiting` | is out | awaited | yes |
/// | `Answering` | waits | is here, or not wanted after an error | discards |
/// | `Parting` | waits | as `Answering`, and the client's stream has ended | discards |
/// | `Finished` | is out | is here, or not wanted after an error | discards |
/// | `Ended` | | | discards |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum State {
    /// Messages flow both ways.
    Open,
    /// Messages flow to the client alone, for a second: its stream has ended, without a Close, behind a message of its own.
    HalfClosed,
    /// We have asked to close; our Close waits to leave.
    Closing,
    /// Our Close is out, the client's answer is not here.
    Awaiting,
    /// Our Close is the last thing to happen: the answer to the client's, or the verdict on an error.
    Answering,
    /// As `Answering`, and the client's stream has ended: when our Close is out, the session has ended.
    Parting,
    /// Nothing more to write or to read. The owner shuts down the sending side and waits for the end of the stream, so
    /// that the client gets everything before the connection is dropped (RFC 6455 §7.1.1).
    Finished,
    /// Over. The owner drops the connection.
    Ended,
}

/// A ping of ours that no sign of life has answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ping {
    None,
    Waits,
    Left,
}

/// Whether what was read last had a message that comes back to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Echo {
    None,
    /// No data has left since.
    Due,
    /// Data has left since. That may have been the echo, or a message of another client.
    Likely,
}

impl Echo {
    /// How long the echo may take to come.
    const fn time(self) -> Duration {
        match self {
            Self::None => Duration::ZERO,
            Self::Due => ECHO_TIME,
            Self::Likely => LIKELY_ECHO_TIME,
        }
    }
}

/// What moves a session from state to state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Input {
    /// The owner wants to close.
    Close,
    /// The client's Close came.
    PeerClose,
    /// An error was found that the client learns of.
    Error,
    /// The last byte of our Close is out.
    CloseOut,
    /// The client's stream has ended.
    Eof,
    /// It has, and the client's own message is on its way back to it.
    HalfClose,
    /// The connection is lost, or given up at a deadline.
    Lost,
}

impl State {
    /// Every transition there is.
    const fn after(self, input: Input) -> Self {
        match (self, input) {
            (Self::Ended, _) | (_, Input::Lost) => Self::Ended,
            (Self::Open, Input::Close) => Self::Closing,
            (Self::Open, Input::HalfClose) => Self::HalfClosed,
            (Self::HalfClosed, Input::Close | Input::Error) => Self::Parting,
            (Self::Open | Self::Closing, Input::PeerClose | Input::Error) => Self::Answering,
            (Self::Awaiting, Input::PeerClose | Input::Error) => Self::Finished,
            (Self::Closing, Input::CloseOut) => Self::Awaiting,
            (Self::Answering, Input::CloseOut) => Self::Finished,
            (Self::Parting, Input::CloseOut) => Self::Ended,
            (Self::Answering | Self::Parting, Input::Eof | Input::HalfClose) => Self::Parting,
            (_, Input::Eof) | (Self::Closing | Self::Awaiting | Self::Finished, Input::HalfClose) => Self::Ended,
            (_, Input::Close | Input::PeerClose | Input::Error | Input::CloseOut | Input::HalfClose) => self,
        }
    }

    /// Whether a message may be queued for the client.
    const fn sends(self) -> bool {
        matches!(self, Self::Open | Self::HalfClosed)
    }

    /// Whether what the client sends still means something.
    const fn reads(self) -> bool {
        matches!(self, Self::Open | Self::Closing | Self::Awaiting)
    }
}

/// When our Close may leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseWhen {
    /// When the owner has no more data pending.
    AfterData,
    /// Ahead of data that has not begun to leave; the owner drops that data.
    Now,
}

/// The life of one open WebSocket: frames in, control frames out, pings and their deadline, the closing handshake
/// (RFC 6455 §5.5, §7). The [module](super) says what its owner does.
///
/// An earlier `now` counts as the latest seen. After an error or the client's Close, input is discarded.
#[derive(Debug)]
pub struct Session {
    state: State,
    decoder: Decoder,
    control: Control,
    /// Which side began to end the session and why; settled before `state` is `Ended`.
    cause: Option<Closed>,
    latest: Instant,
    /// What the one deadline counts from: the last sign of life, our unanswered ping, or the queueing of our Close.
    since: Instant,
    ping: Ping,
    /// Since when the owner has not read from this session.
    paused: Option<Instant>,
    /// Whether the client's socket was full, and nothing has left since.
    stalled: bool,
    echo: Echo,
    /// Shortens the time to a ping: 0 not at all, 255 by almost a tenth.
    jitter: u8,
}

impl Session {
    /// A session right after its 101. `jitter` is random, so that sessions opened together are not pinged together.
    #[must_use]
    pub fn new(jitter: u8, now: Instant) -> Self {
        Self {
            state: State::Open,
            decoder: Decoder::new(),
            control: Control::default(),
            cause: None,
            latest: now,
            since: now,
            ping: Ping::None,
            paused: None,
            stalled: false,
            echo: Echo::None,
            jitter,
        }
    }

    // Getters.

    /// Where the session is.
    #[must_use]
    pub const fn state(&self) -> State {
        self.state
    }

    /// Whether new data may be queued for the client.
    #[must_use]
    pub const fn can_send(&self) -> bool {
        self.state.sends()
    }

    /// How the session ended; `None` until it has.
    #[must_use]
    pub const fn closed(&self) -> Option<Closed> {
        if matches!(self.state, State::Ended) { self.cause } else { None }
    }

    /// Bytes of memory held for a message or control frame that is not whole yet: this session's share of
    /// [`Limits::partial_bytes`].
    #[must_use]
    pub fn partial_bytes(&self) -> usize {
        self.decoder.partial_bytes()
    }

    /// Whether the client has begun a message or a control frame and not finished it.
    #[must_use]
    pub fn is_amid(&self) -> bool {
        self.decoder.is_amid()
    }

    /// Control frames that may go out now, ahead of data that has not begun to leave: pings and pongs at once, our
    /// Close too unless it lets the owner's pending data go first.
    ///
    /// Can change with every call that takes `&mut self`, but never loses a frame that has begun to leave.
    #[must_use]
    pub fn control(&self, data_pending: bool) -> &[u8] {
        self.control.lend(data_pending)
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due: for a ping, for want of a sign of life, or for want of the
    /// end of the closing handshake. Can change with every call that takes `&mut self`.
    #[must_use]
    pub fn deadline(&self, limits: &Limits) -> Option<Instant> {
        let time = match self.state {
            State::Ended => return None,
            State::HalfClosed => self.echo.time(),
            State::Open if self.paused.is_some() && !self.stalled => return None,
            State::Open if self.ping != Ping::None => limits.pong_time,
            State::Open => limits.ping_time.saturating_sub(limits.ping_time / 2560 * u32::from(self.jitter)),
            _ => limits.close_time,
        };
        Some(self.since + time)
    }

    /// Whether the session ends at its deadline, since a sign of life or the end of the closing handshake is awaited.
    /// Otherwise the client is only pinged then.
    #[must_use]
    pub const fn is_awaited(&self) -> bool {
        !matches!((self.state, self.ping), (State::Open, Ping::None))
    }

    /// Whether the client's socket was full, and nothing has left since.
    #[must_use]
    pub const fn is_stalled(&self) -> bool {
        self.stalled
    }

    // Inputs.

    /// The next message in `input`, which moves on to what is behind it. Everything else in it is dealt with on the
    /// way: pings are answered, the client's Close is answered, an error becomes a Close. `None`: all of it is used.
    ///
    /// Messages that come after our own Close, and before the client's, are given too: the client sent them in good
    /// faith. Afterwards, [`partial_bytes`](Self::partial_bytes) may have grown, by no more than `input` had.
    pub fn handle_read<'i>(&mut self, input: &mut &'i mut [u8], limits: &Limits, now: Instant) -> Option<Message<'i>> {
        let now = self.see_input(input, now);
        while self.state.reads() {
            match self.decoder.next(input, limits) {
                Ok(Some(Event::Message(message))) => return Some(message),
                Ok(None) => return None,
                event => self.handle_control(event, now),
            }
        }
        *input = &mut [];
        None
    }

    /// As [`handle_read`](Self::handle_read), up to the first byte of a message, with which `input` then begins: for an
    /// owner that can take no message now, and keeps the rest. With `asks` an empty binary message is no such message,
    /// and is given.
    pub fn handle_read_before_data<'i>(
        &mut self,
        input: &mut &'i mut [u8],
        asks: bool,
        limits: &Limits,
        now: Instant,
    ) -> Option<Message<'i>> {
        let now = self.see_input(input, now);
        while self.state.reads() {
            let is_question = asks && self.decoder.is_before_empty(input);
            if input.is_empty() || self.decoder.is_before_data(input) && !is_question {
                return None;
            }
            match self.decoder.next(input, limits) {
                Ok(Some(Event::Message(message))) => return Some(message),
                event => self.handle_control(event, now),
            }
        }
        *input = &mut [];
        None
    }

    fn see_input(&mut self, input: &[u8], now: Instant) -> Instant {
        let now = self.see(now);
        // A client that takes nothing is no reader, whatever it sends.
        if !input.is_empty() && !self.stalled {
            self.note_life(now);
        }
        now
    }

    fn handle_control(&mut self, event: Result<Option<Event<'_>>, Error>, now: Instant) {
        match event {
            Ok(Some(Event::Ping(payload))) if self.state == State::Open => self.control.pong(&payload),
            Ok(Some(Event::Close { code, .. })) => {
                self.record(Side::Peer, code, None);
                self.leave(Input::PeerClose, code, "", CloseWhen::AfterData, now);
            }
            Ok(_) => {}
            Err(error) => self.fail(error, now),
        }
    }

    /// The client's stream has ended. A Close of ours that answers something may still reach it.
    pub fn handle_eof(&mut self, now: Instant) {
        self.see(now);
        self.record(if self.decoder.is_amid() { Side::Transport } else { Side::Peer }, None, None);
        self.step(Input::Eof);
    }

    /// What was read has been taken in, and it had a message that comes back to the client, or none.
    pub const fn note_echo(&mut self, is_awaited: bool) {
        self.echo = if is_awaited { Echo::Due } else { Echo::None };
    }

    /// The client's stream has ended. It is written to for [`ECHO_TIME`] more if its message, see
    /// [`note_echo`](Self::note_echo), came within that time; for [`LIKELY_ECHO_TIME`] if data has left since; otherwise this
    /// is [`handle_eof`](Self::handle_eof).
    pub fn handle_half_close(&mut self, now: Instant) {
        let now = self.see(now);
        let is_late = self.ping != Ping::None || now > self.since + self.echo.time();
        if self.state != State::Open || self.echo == Echo::None || self.decoder.is_amid() || self.stalled || is_late {
            return self.handle_eof(now);
        }
        self.record(Side::Peer, None, None);
        self.since = now;
        self.step(Input::HalfClose);
    }

    /// The connection is lost: reading or writing failed.
    pub fn handle_reset(&mut self, now: Instant) {
        self.see(now);
        self.record(Side::Transport, None, None);
        self.step(Input::Lost);
    }

    /// Bytes of data were written: a sign of life.
    ///
    /// It answers a ping but does not put off the next: a connection's buffer takes bytes for a dead client as well.
    pub fn handle_progress(&mut self, now: Instant) {
        let now = self.see(now);
        if self.echo == Echo::Due && self.state == State::Open {
            self.echo = Echo::Likely;
        }
        if self.ping != Ping::None || self.stalled {
            self.stalled = false;
            self.note_life(now);
        }
    }

    /// The client's socket takes no more. From here on bytes that leave are the only sign of life, until some do.
    pub fn handle_blocked(&mut self, now: Instant) {
        let now = self.see(now);
        if !std::mem::replace(&mut self.stalled, true) {
            self.note_life(now);
        }
    }

    /// The first `n` bytes of [`control`](Self::control) have left. No sign of life, since our ping is among them, unless
    /// the client's socket was full: then it has made room. If the ping has left by now, `true` is returned, and the time
    /// for its answer counts from `now`.
    ///
    /// # Errors
    /// [`Misuse::TooMuchTransmitted`] if there are fewer.
    pub fn control_sent(&mut self, n: usize, now: Instant) -> Result<bool, Misuse> {
        if self.control.sent(n)? {
            self.step(Input::CloseOut);
        }
        let now = self.see(now);
        if self.stalled && n > 0 {
            self.handle_progress(now);
        }
        let has_left = self.ping == Ping::Waits && !self.control.has_ping();
        if has_left {
            self.ping = Ping::Left;
            self.ping_left(now);
        }
        Ok(has_left)
    }

    /// Our ping has left no later than now, if nothing has come since that answers it.
    pub fn ping_left(&mut self, now: Instant) {
        let now = self.see(now);
        if self.ping == Ping::Left && self.state == State::Open {
            self.since = now;
            self.paused = self.paused.map(|_| now);
        }
    }

    /// Does what is due at [`deadline`](Self::deadline); nothing before it. Says whether that was a ping.
    pub fn handle_timeout(&mut self, limits: &Limits, now: Instant) -> bool {
        let now = self.see(now);
        if self.deadline(limits).is_none_or(|deadline| now < deadline) {
            return false;
        }
        if self.state == State::HalfClosed {
            self.step(Input::Eof);
        } else if self.state != State::Open {
            self.fail(Error::CloseTimeout, now);
        } else if self.ping != Ping::None {
            self.fail(Error::PongTimeout, now);
        } else {
            self.control.ping();
            self.ping = Ping::Waits;
            self.since = now;
            return true;
        }
        false
    }

    // Commands.

    /// Begins the closing handshake. The client has [`Limits::close_time`] from now to finish it.
    ///
    /// # Errors
    /// [`Misuse::CloseCode`], [`Misuse::CloseReason`], [`Misuse::WrongState`] if the session is not open.
    pub fn close(&mut self, code: u16, reason: &str, when: CloseWhen, now: Instant) -> Result<(), Misuse> {
        if !may_be_sent(code) {
            return Err(Misuse::CloseCode);
        }
        if reason.len() > MAX_REASON {
            return Err(Misuse::CloseReason);
        }
        if !self.state.sends() {
            return Err(Misuse::WrongState);
        }
        let now = self.see(now);
        self.record(Side::Local, Some(code), None);
        self.leave(Input::Close, Some(code), reason, when, now);
        Ok(())
    }

    /// Sends a binary message of at most 125 bytes with the control frames, as long as the session is open: ahead of data
    /// that waits, and no sign of life. It takes the place of an earlier one that has not begun to leave.
    pub fn note(&mut self, payload: &[u8]) {
        if self.state == State::Open && payload.len() <= MAX_NOTE {
            self.control.note(payload);
        }
    }

    /// Ends the session for an error: the owner's to call for those that it finds itself.
    ///
    /// The client gets what [`Error::told`] says, after the data that waits, except a slow reader, which would
    /// not get there. An error that no Close stands for ends the session at once. The first error stays.
    pub fn fail(&mut self, error: Error, now: Instant) {
        let now = self.see(now);
        let Some(code) = error.told().code() else {
            self.record(Side::Local, None, Some(error));
            return self.step(Input::Lost);
        };
        let when = if error == Error::SlowReader { CloseWhen::Now } else { CloseWhen::AfterData };
        self.record(Side::Local, Some(code), Some(error));
        self.leave(Input::Error, Some(code), error.text(), when, now);
    }

    /// The owner stops reading from this session: as long as it is open, its deadline stands still, unless its socket is
    /// full.
    pub fn pause(&mut self, now: Instant) {
        let now = self.see(now);
        self.paused.get_or_insert(now);
    }

    /// The owner reads again.
    pub fn resume(&mut self, now: Instant) {
        let now = self.see(now);
        if let Some(paused) = self.paused.take()
            && self.state == State::Open
            && !self.stalled
        {
            self.since = self.since + now.since(paused);
        }
    }

    // Helpers.

    fn see(&mut self, now: Instant) -> Instant {
        self.latest = self.latest.max(now);
        self.latest
    }

    fn note_life(&mut self, now: Instant) {
        if self.state == State::Open {
            self.ping = Ping::None;
            self.since = now;
            // What `resume` adds is the time that has stood still since `since`.
            self.paused = self.paused.map(|_| now);
        }
    }

    /// Settles who ended the session; what is settled stays, and so does the first error.
    fn record(&mut self, by: Side, code: Option<u16>, error: Option<Error>) {
        if !matches!(self.state, State::Finished | State::Ended) {
            let cause = self.cause.get_or_insert(Closed { by, code, error: None });
            cause.error = cause.error.or(error);
        }
    }

    /// Leaves the open state with a Close; later, only a Close that is in a hurry changes anything for the one queued.
    fn leave(&mut self, input: Input, code: Option<u16>, reason: &str, when: CloseWhen, now: Instant) {
        if self.state.sends() {
            self.control.close(code, reason, when == CloseWhen::AfterData);
            self.since = now;
        } else if when == CloseWhen::Now {
            self.control.hurry();
        }
        self.step(input);
    }

    /// Enters the next state and gives back what it does not need.
    fn step(&mut self, input: Input) {
        self.state = self.state.after(input);
        if !self.state.reads() {
            self.decoder = Decoder::new();
        }
        if self.state == State::Ended {
            self.control = Control::default();
        }
    }
}
