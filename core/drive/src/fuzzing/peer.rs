//! A client that reads strictly, and what it has got.

use std::fmt::Write;

use crate::memory::{Client, text};

/// The longest message that is allowed.
pub(super) const MESSAGE_BYTES: usize = 400;

/// One client and what is known of it.
pub(super) struct Peer {
    pub(super) client: Client,
    pub(super) room: usize,
    /// What has arrived and is not whole.
    input: Vec<u8>,
    /// It has yet to read the answer to its request.
    wants_answer: bool,
    /// The status of that answer.
    pub(super) status: u16,
    /// Messages, in order.
    pub(super) got: Vec<String>,
    /// From this place of its room's order on it gets everything.
    pub(super) open_from: Option<usize>,
    /// It takes all that comes.
    pub(super) is_free: bool,
    /// It answers pings and Closes.
    pub(super) answers: bool,
    /// It was told that it is over, or has ended its side, or reset the connection.
    pub(super) is_over: bool,
    said: usize,
}

impl Peer {
    /// A client that is read as an open WebSocket, or first its answer.
    pub(super) fn new(client: Client, room: usize, wants_answer: bool) -> Self {
        Self {
            client,
            room,
            input: Vec::new(),
            wants_answer,
            status: 0,
            got: Vec::new(),
            open_from: None,
            is_free: true,
            answers: true,
            is_over: false,
            said: 0,
        }
    }

    /// Its WebSocket is open, as far as it knows.
    pub(super) fn is_open(&self) -> bool {
        !self.wants_answer && !self.is_over && (self.status == 0 || self.status == 101) && !self.client.is_closed()
    }

    /// The frame of its next message, which no other message is like.
    pub(super) fn next_message(&mut self, name: usize, len: usize) -> Vec<u8> {
        self.said += 1;
        text(&message('p', name, self.said, len.min(MESSAGE_BYTES)))
    }

    /// Reads what has arrived, and answers it. Says whether there was anything.
    pub(super) fn read(&mut self) -> bool {
        let came = self.client.take();
        let has_come = !came.is_empty();
        self.input.extend(came);
        if self.wants_answer && !self.read_answer() {
            return has_come;
        }
        let input = std::mem::take(&mut self.input);
        let mut rest = &input[..];
        while let Some((first, payload, behind)) = frame(rest) {
            rest = behind;
            self.handle(first, payload);
        }
        self.input = rest.to_vec();
        has_come
    }

    /// The head of the answer to its request; says whether it is there, and that of a WebSocket.
    fn read_answer(&mut self) -> bool {
        let end = self.input.windows(4).position(|bytes| bytes == b"\r\n\r\n");
        let Some(end) = end else { return false };
        let head = String::from_utf8(self.input[..end].to_vec()).expect("a head is text");
        let status =
            head.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)).and_then(|status| status.parse().ok());
        self.status = status.unwrap_or_else(|| panic!("no answer: {head}"));
        if self.status != 101 {
            return false;
        }
        self.wants_answer = false;
        self.input.drain(..end + 4);
        true
    }

    fn handle(&mut self, first: u8, payload: &[u8]) {
        match first {
            0x81 => self.got.push(String::from_utf8(payload.to_vec()).expect("messages are text")),
            0x89 if self.answers => self.client.send(&masked(0x8A, payload)),
            0x88 => {
                assert!(payload.len() != 1, "a Close of one byte");
                if self.answers && !self.is_over {
                    self.client.send(&masked(0x88, payload));
                    self.client.change(|pipe| pipe.input_ends = true);
                }
                self.is_over = true;
            }
            0x89 | 0x8A => {}
            _ => panic!("a frame that begins with {first:#x}"),
        }
    }

    pub(super) fn say(&mut self, name: usize, len: usize) {
        let frame = self.next_message(name, len);
        self.client.send(&frame);
    }

    /// It takes so many bytes from here on, and everything if that is `usize::MAX`.
    pub(super) fn take_at_most(&mut self, bytes: usize) {
        self.is_free = bytes == usize::MAX;
        self.client.change(|pipe| pipe.room = bytes);
    }

    pub(super) fn end(&mut self) {
        self.is_over = true;
        self.client.change(|pipe| pipe.input_ends = true);
    }

    pub(super) fn reset(&mut self) {
        self.is_over = true;
        self.client.change(|pipe| pipe.is_reset = true);
    }
}

/// A message of so many bytes if it has room for what tells it from all others: who has published it, and its number.
pub(super) fn message(kind: char, name: usize, number: usize, len: usize) -> String {
    let mut text = String::new();
    let _ = write!(text, "{kind}{name}-{number};");
    text.extend(std::iter::repeat_n('x', len.saturating_sub(text.len())));
    text
}

/// Who has published a message, and its number.
pub(super) fn author(message: &str) -> (&str, usize) {
    let (name, rest) = message.split_once('-').expect("a name");
    let (number, _) = rest.split_once(';').expect("a number");
    (name, number.parse().expect("digits"))
}

/// No message came twice, and those of one author came in order.
pub(super) fn check_authors(got: &[String]) {
    let mut last = std::collections::BTreeMap::new();
    for message in got {
        let (name, number) = author(message);
        let before = last.insert(name, number);
        assert!(before.is_none_or(|before| before < number), "{name}: {number} after {before:?}");
    }
}

/// A client's short frame of which the key is zero.
fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    [&[first, 0x80 | payload.len() as u8, 0, 0, 0, 0], payload].concat()
}

/// The first whole frame of a server, which masks nothing, and what is behind it.
fn frame(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[first, len], rest) = bytes.split_first_chunk()?;
    let (len, rest) = match len {
        0..126 => (usize::from(len), rest),
        126 => {
            let (len, rest) = rest.split_first_chunk()?;
            (usize::from(u16::from_be_bytes(*len)), rest)
        }
        _ => panic!("a frame that is masked or too long"),
    };
    (rest.len() >= len).then(|| (first, &rest[..len], &rest[len..]))
}
