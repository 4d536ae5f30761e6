//! A client's ears: takes apart what a server sends, simply and strictly, and panics at anything that is not right.

use std::mem;

use crate::route::FrameType;

/// What a client has heard so far.
#[derive(Debug, Default)]
pub(super) struct Client {
    /// The status of the answer to its request. 101 from the start if there was no request.
    pub(super) status: Option<u16>,
    /// Whole data frames.
    pub(super) messages: Vec<(FrameType, Vec<u8>)>,
    /// Notes that are sent with the control frames.
    pub(super) alive: Vec<Vec<u8>>,
    /// Bytes of the other data frames, those of one that is not whole included.
    pub(super) data_bytes: usize,
    /// Payloads of pongs.
    pub(super) pongs: Vec<Vec<u8>>,
    pub(super) pings: usize,
    /// The payload of the Close, after which nothing may come.
    pub(super) close: Option<Vec<u8>>,
    /// What is not whole.
    tail: Vec<u8>,
    /// How much of `data_bytes` is of a frame in `tail`.
    begun: usize,
}

impl Client {
    /// A client that sends no request.
    pub(super) fn open() -> Self {
        Self { status: Some(101), ..Self::default() }
    }

    pub(super) fn hear(&mut self, bytes: &[u8]) {
        self.hear_some(bytes, &[]);
    }

    /// The client gets these bytes, before `more` that says what a frame in between will be.
    pub(super) fn hear_some(&mut self, bytes: &[u8], more: &[u8]) {
        self.tail.extend_from_slice(bytes);
        if self.status.is_none() {
            self.hear_head();
        }
        if self.status == Some(101) {
            while self.hear_frame() {}
            let is_alive = is_alive(&[&self.tail, more].concat());
            let is_data = self.tail.first().is_some_and(|first| first & 8 == 0) && !is_alive;
            let begun = if is_data { self.tail.len() } else { 0 };
            self.data_bytes = self.data_bytes + begun - mem::replace(&mut self.begun, begun);
        }
    }

    fn hear_head(&mut self) {
        let mut headers = [httparse::EMPTY_HEADER; 16];
        let mut parsed = httparse::Response::new(&mut headers);
        match parsed.parse(&self.tail) {
            Ok(httparse::Status::Partial) => {}
            Ok(httparse::Status::Complete(length)) => {
                self.status = parsed.code;
                self.tail.drain(..length);
            }
            Err(error) => panic!("not an answer ({error}): {:?}", self.tail),
        }
    }

    fn hear_frame(&mut self) -> bool {
        let Some((opcode, header, length)) = parse_header(&self.tail) else { return false };
        if self.tail.len() < header + length {
            return false;
        }
        assert!(self.close.is_none(), "a frame after the Close");
        let frame: Vec<u8> = self.tail.drain(..header + length).collect();
        let payload = frame[header..].to_vec();
        match opcode {
            2 if is_alive(&frame) => self.alive.push(payload),
            1 | 2 => {
                self.data_bytes += frame.len() - mem::take(&mut self.begun);
                let frame = if opcode == 1 { FrameType::Text } else { FrameType::Binary };
                self.messages.push((frame, payload));
            }
            8 => self.close = Some(payload),
            9 => self.pings += 1,
            _ => self.pongs.push(payload),
        }
        true
    }
}

/// Whether the first frame is a note that has no place among the messages.
fn is_alive(frames: &[u8]) -> bool {
    frames.first() == Some(&0x82) && frames.get(2..).is_some_and(|rest| rest.starts_with(b"{\"type\":\"alive\""))
}

/// Opcode and lengths of header and payload, once they are there (RFC 6455 §5.2).
fn parse_header(bytes: &[u8]) -> Option<(u8, usize, usize)> {
    let first = *bytes.first()?;
    assert!(matches!(first, 0x81 | 0x82 | 0x88..=0x8A), "a first byte of {first:#x}");
    let (header, length) = match *bytes.get(1)? {
        short @ 0..=125 => (2, usize::from(short)),
        126 => (4, usize::from(u16::from_be_bytes(*bytes.get(2..)?.first_chunk()?))),
        127 => (10, usize::try_from(u64::from_be_bytes(*bytes.get(2..)?.first_chunk()?)).expect("a sound length")),
        _ => panic!("a server's frame is not masked"),
    };
    let shortest = if length < 126 {
        2
    } else if length < 65_536 {
        4
    } else {
        10
    };
    assert_eq!(header, shortest, "the length is in its shortest form");
    assert!(first & 8 == 0 || length <= 125, "a control frame is short");
    Some((first & 15, header, length))
}
