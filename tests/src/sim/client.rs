//! A client: it asks for a WebSocket, sends, reads, answers, closes, comes back, and is rude if the plan says so.

use std::collections::VecDeque;
use std::io::IoSlice;

use fanfare_core::error::Error;
use fanfare_core::route::FrameType;
use fanfare_core::time::{Duration, Instant};
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use super::frames;
use super::ground::{Event, Got, Ground, Port};
use super::pipe::micros;
use super::plan::{ClientSetup, Rudeness, Way};
use super::reference::Excuses;
use super::verdict::Promise;

/// From a ping to its pong, unless the client does not read or its path stands still: the longest message may be before
/// it, on the thinnest line, of which many would take much longer.
const PONG_WITHIN: Duration = Duration::from_secs(12);

/// The nonce of RFC 6455 §1.3.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

pub(super) struct Client {
    pub(super) number: usize,
    pub(super) setup: ClientSetup,
    pub(super) phase: Phase,
    port: Option<Port>,
    pub(super) visit: usize,
    reads: bool,
    /// It has ever not read in this visit, or its path or its instance has stood still.
    pub(super) is_hindered: bool,
    input: Vec<u8>,
    output: VecDeque<u8>,
    /// Bytes that ever went into `output`.
    put: u64,
    /// Pings without their pong, and whether nothing of ours was before them.
    pings: VecDeque<(Vec<u8>, Instant, bool)>,
    pinged: u32,
    rng: fastrand::Rng,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// No connection.
    Away,
    /// The request is out.
    Asking,
    Open,
    /// Our Close is out.
    Closing,
    /// Nothing more is expected but the end of the stream.
    Done,
}

impl Client {
    pub(super) fn new(number: usize, setup: ClientSetup, seed: u64) -> Self {
        Self {
            number,
            setup,
            phase: Phase::Away,
            port: None,
            visit: 0,
            reads: true,
            is_hindered: false,
            input: Vec::new(),
            output: VecDeque::new(),
            put: 0,
            pings: VecDeque::new(),
            pinged: 0,
            rng: fastrand::Rng::with_seed(seed),
        }
    }

    pub(super) fn port(&self) -> Option<Port> {
        self.port
    }

    pub(super) fn is_open(&self) -> bool {
        self.phase == Phase::Open
    }

    /// The connection stands: the request leaves.
    pub(super) fn connected(&mut self, port: Port, visit: usize, ground: &mut Ground) {
        let setup = self.setup;
        let seed = self.rng.u64(..);
        *self = Self { rng: fastrand::Rng::with_seed(seed), ..Self::new(self.number, setup, 0) };
        (self.port, self.visit, self.phase) = (Some(port), visit, Phase::Asking);
        let path = ground.reference.room(setup.room).path.clone();
        let head = format!(
            "GET {path} HTTP/1.1\r\nHost: fleet.test\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n{}\r\n",
            if setup.notes { "Sec-WebSocket-Protocol: fanfare.notes\r\n" } else { "" }
        );
        self.put_bytes(head.as_bytes());
        if setup.hasty && ground.reference.room(setup.room).publish {
            self.put_message(40, 1, ground);
        }
        self.turn(ground);
    }

    // What it does when the plan says so.

    pub(super) fn send(&mut self, bytes: usize, pieces: usize, ground: &mut Ground) {
        if self.is_open() && ground.reference.room(self.setup.room).publish {
            self.put_message(bytes, pieces, ground);
            self.turn(ground);
        }
    }

    pub(super) fn ping(&mut self, ground: &mut Ground) {
        if self.is_open() {
            self.pinged += 1;
            let payload = format!("{:.*}", (self.pinged % 9) as usize, "ping-abc").into_bytes();
            let mut bytes = Vec::new();
            frames::write(OpCode::Control(Control::Ping), true, self.rng.u32(..), &payload, &mut bytes);
            self.pings.push_back((payload, ground.now, self.output.is_empty()));
            self.put_bytes(&bytes);
            self.turn(ground);
        }
    }

    pub(super) fn set_reads(&mut self, reads: bool, ground: &mut Ground) {
        self.reads = reads;
        self.is_hindered = true;
        if self.port.is_some() {
            ground.reference.visits[self.visit].excuses.slow = true;
            self.turn(ground);
        }
    }

    pub(super) fn read_on(&mut self, ground: &mut Ground) {
        if !self.reads {
            self.set_reads(true, ground);
        }
    }

    pub(super) fn leave(&mut self, how: Way, ground: &mut Ground) {
        let Some(port) = self.port else { return };
        ground.reference.visits[self.visit].excuses.gone = true;
        match how {
            Way::Orderly if self.is_open() => {
                let mut bytes = Vec::new();
                frames::write(OpCode::Control(Control::Close), true, 7, &1000u16.to_be_bytes(), &mut bytes);
                self.put_bytes(&bytes);
                self.phase = Phase::Closing;
                self.turn(ground);
            }
            Way::Orderly | Way::Fin => {
                ground.finish(port);
                self.phase = Phase::Done;
            }
            Way::Reset => {
                ground.reset(port);
                self.gone(ground);
            }
            Way::Silent => {
                ground.lose(port);
                self.gone(ground);
            }
        }
    }

    pub(super) fn be_rude(&mut self, rudeness: Rudeness, message_bytes: usize, ground: &mut Ground) {
        if !self.is_open() {
            return;
        }
        let room = ground.reference.room(self.setup.room);
        let (frame, publish) = (room.frame, room.publish);
        let mut bytes = Vec::new();
        frames::write_rude(rudeness, frame, message_bytes, &mut bytes);
        let error = match rudeness {
            Rudeness::Unmasked => Error::NotMasked,
            Rudeness::ReservedBit => Error::ReservedBits,
            Rudeness::BadOpcode => Error::Opcode,
            Rudeness::Continuation => Error::Fragmentation,
            Rudeness::NotUtf8 => Error::Utf8,
            Rudeness::TooLong => Error::LongMessage,
            Rudeness::WrongType if !publish => Error::ReadOnly,
            Rudeness::WrongType => Error::FrameType,
            Rudeness::LongPing => Error::LongControl,
        };
        // The first error is what ends a connection.
        ground.reference.visits[self.visit].excuses.rude.get_or_insert(error);
        self.put_bytes(&bytes);
        self.turn(ground);
    }

    // The connection.

    /// Reads what is there and writes what it can.
    pub(super) fn turn(&mut self, ground: &mut Ground) {
        let Some(port) = self.port else { return };
        let mut scratch = [0; 8 << 10];
        while self.reads {
            match ground.read(port, &mut scratch) {
                Got::Bytes(n) => {
                    self.input.extend_from_slice(&scratch[..n]);
                    self.take_in(ground);
                    if self.port.is_none() {
                        return;
                    }
                }
                Got::Nothing => break,
                Got::End => return self.ended(ground),
                Got::Broken => {
                    ground.reference.visits[self.visit].excuses.gone = true;
                    ground.reset(port);
                    return self.gone(ground);
                }
            }
        }
        while !self.output.is_empty() {
            let (first, second) = self.output.as_slices();
            match ground.write(port, &[IoSlice::new(first), IoSlice::new(second)]) {
                Ok(0) | Err(()) => break,
                Ok(n) => drop(self.output.drain(..n)),
            }
        }
    }

    /// The server has ended its side: so does the client.
    fn ended(&mut self, ground: &mut Ground) {
        if self.phase == Phase::Open && !ground.reference.visits[self.visit].excuses.any() {
            ground.fail(Promise::FairEnd, format!("client {}'s stream ended without a Close", self.number));
        }
        if let Some(port) = self.port {
            ground.close(port);
        }
        self.gone(ground);
    }

    /// Without a connection it may come back.
    fn gone(&mut self, ground: &mut Ground) {
        (self.port, self.phase) = (None, Phase::Away);
        if let Some(millis) = self.setup.returns {
            let wait = micros(millis * 1_000 + self.rng.u64(0..100_000));
            ground.after(wait, Event::Return { client: self.number, visit: self.visit });
        }
    }

    fn take_in(&mut self, ground: &mut Ground) {
        if self.phase == Phase::Asking {
            let Some(end) = self.input.windows(4).position(|window| window == b"\r\n\r\n") else { return };
            let head: Vec<u8> = self.input.drain(..end + 4).collect();
            self.answered(&head, ground);
        }
        let mut at = 0;
        while matches!(self.phase, Phase::Open | Phase::Closing) {
            match frames::read(&self.input[at..]) {
                Ok(Some((got, len))) => {
                    at += len;
                    self.got(got, ground);
                }
                Ok(None) => break,
                Err(what) => return ground.fail(Promise::Protocol, what),
            }
        }
        match self.phase {
            Phase::Open | Phase::Closing => drop(self.input.drain(..at)),
            Phase::Away | Phase::Asking | Phase::Done => self.input.clear(),
        }
    }

    /// The head of an answer has come.
    fn answered(&mut self, head: &[u8], ground: &mut Ground) {
        let head = String::from_utf8_lossy(head);
        if head.starts_with("HTTP/1.1 101 ") {
            let accept = tungstenite::handshake::derive_accept_key(KEY.as_bytes());
            if !head.to_ascii_lowercase().contains(&format!("sec-websocket-accept: {}", accept.to_ascii_lowercase())) {
                ground.fail(Promise::Protocol, format!("a wrong 101: {head}"));
            }
            let has_notes = head.contains("\r\nSec-WebSocket-Protocol: fanfare.notes\r\n");
            if has_notes != ground.reference.visits[self.visit].notes {
                ground.fail(Promise::Protocol, format!("a wrong subprotocol: {head}"));
            }
            self.phase = Phase::Open;
            return;
        }
        self.phase = Phase::Done;
        let status = head.get(9..12).unwrap_or_default();
        if !matches!(status, "503" | "408") {
            ground.fail(Promise::Protocol, format!("client {} was answered: {head}", self.number));
        }
    }

    fn got(&mut self, got: frames::Got, ground: &mut Ground) {
        let excuses: Excuses = ground.reference.visits[self.visit].excuses;
        match got {
            frames::Got::Data(OpCode::Data(Data::Binary), note) if ground.reference.visits[self.visit].notes => {
                let verdict = ground.reference.told(self.visit, &note);
                ground.judge(verdict);
            }
            frames::Got::Data(opcode, payload) => {
                if opcode != frames::opcode(ground.reference.room(self.setup.room).frame) {
                    return ground.fail(Promise::Protocol, format!("client {} got the wrong type", self.number));
                }
                let verdict = ground.reference.delivered(self.visit, &payload, ground.now);
                ground.judge(verdict);
            }
            frames::Got::Ping(payload) if self.setup.answers && self.phase == Phase::Open => {
                let mut bytes = Vec::new();
                frames::write(OpCode::Control(Control::Pong), true, self.rng.u32(..), &payload, &mut bytes);
                self.put_bytes(&bytes);
            }
            frames::Got::Ping(_) => {}
            frames::Got::Pong(payload) => {
                // A server may answer only the latest of several pings (RFC 6455 §5.5.3).
                let place = self.pings.iter().position(|(ping, ..)| *ping == payload);
                match place {
                    Some(place) => {
                        let (_, pinged, is_first) = self.pings[place];
                        let waited = ground.now.since(pinged);
                        self.pings.drain(..=place);
                        let slowest = &mut ground.reference.slowest_pong;
                        *slowest = waited.max(*slowest);
                        if waited > PONG_WITHIN && is_first && !self.is_hindered {
                            let what = format!("client {} got its pong {waited:?} after its ping", self.number);
                            ground.fail(Promise::NoLivelock, what);
                        }
                    }
                    None if payload == b"in between" => {}
                    None => ground.fail(Promise::Protocol, format!("a pong that nobody asked for: {payload:?}")),
                }
            }
            frames::Got::Close(code) => {
                if self.phase == Phase::Open {
                    let answer = code.map(u16::to_be_bytes);
                    let mut bytes = Vec::new();
                    let answer = answer.as_ref().map_or(&[][..], |code| code);
                    frames::write(OpCode::Control(Control::Close), true, self.rng.u32(..), answer, &mut bytes);
                    self.put_bytes(&bytes);
                } else if excuses.rude.is_none()
                    && !excuses.closed
                    && ![Some(1000), Some(1012), Some(1013)].contains(&code)
                {
                    ground.fail(Promise::Protocol, format!("client {}'s Close is answered by {code:?}", self.number));
                }
                self.phase = Phase::Done;
            }
        }
    }

    fn put_message(&mut self, bytes: usize, pieces: usize, ground: &mut Ground) {
        let frame: FrameType = ground.reference.room(self.setup.room).frame;
        let bytes = ground.reference.size(self.setup.room, bytes);
        let id = ground.reference.messages.make(self.setup.room, bytes, frame);
        let mut out = Vec::new();
        frames::write_message(frame, pieces, &mut self.rng, &ground.reference.messages.get(id).payload, &mut out);
        self.put_bytes(&out);
        ground.reference.sent(self.visit, self.put, id);
    }

    fn put_bytes(&mut self, bytes: &[u8]) {
        self.output.extend(bytes);
        self.put += bytes.len() as u64;
    }
}
