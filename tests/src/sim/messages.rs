//! Every message of a run: its bytes, which can be told from any other's, and where it has been.

use fanfare_core::route::FrameType;
use fanfare_core::time::Instant;

/// Counted from 0 in the order in which they are made.
pub(super) type MessageId = u32;

/// Hexadecimal digits at the start of every message that is not empty.
const DIGITS: usize = 8;

#[derive(Debug)]
pub(super) struct Message {
    pub(super) room: usize,
    pub(super) payload: Vec<u8>,
    /// Whether Redis has carried its publish out, and when.
    pub(super) published: bool,
    pub(super) at: Instant,
    /// The visit of the client that sent it.
    pub(super) sender: Option<usize>,
}

#[derive(Debug, Default)]
pub(super) struct Messages {
    all: Vec<Message>,
}

impl Messages {
    /// A message with these very bytes, which no client must get.
    pub(super) fn make_unwanted(&mut self, room: usize, bytes: usize) -> MessageId {
        let id = self.make(room, bytes.max(DIGITS + 1), FrameType::Binary);
        let payload = &mut self.all[id as usize].payload;
        payload.truncate(bytes.max(DIGITS));
        payload.push(0xFF);
        id
    }

    /// A message of `bytes` bytes; from 1 to 7 there is no room for its number, which makes it 8.
    pub(super) fn make(&mut self, room: usize, bytes: usize, frame: FrameType) -> MessageId {
        let id = self.all.len() as u32;
        let bytes = if bytes == 0 { 0 } else { bytes.max(DIGITS) };
        self.all.push(Message {
            room,
            payload: payload(id, bytes, frame),
            published: false,
            at: Instant::ZERO,
            sender: None,
        });
        id
    }

    pub(super) fn get(&self, id: MessageId) -> &Message {
        &self.all[id as usize]
    }

    pub(super) fn set_published(&mut self, id: MessageId, at: Instant) {
        let message = &mut self.all[id as usize];
        (message.published, message.at) = (true, at);
    }

    pub(super) fn set_sender(&mut self, id: MessageId, visit: usize) {
        self.all[id as usize].sender = Some(visit);
    }

    /// Which message this is; `None` for an empty one, and an error for what nobody ever made.
    pub(super) fn identify(&self, payload: &[u8]) -> Result<Option<MessageId>, String> {
        if payload.is_empty() {
            return Ok(None);
        }
        let digits = payload.get(..DIGITS).and_then(|digits| core::str::from_utf8(digits).ok());
        let id = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok());
        let Some((id, message)) = id.and_then(|id| self.all.get(id as usize).map(|message| (id, message))) else {
            return Err(format!("{} bytes that nobody sent: {:?}", payload.len(), head(payload)));
        };
        if message.payload != payload {
            let (ours, theirs) = (message.payload.len(), payload.len());
            let same = message.payload.iter().zip(payload).take_while(|(a, b)| a == b).count();
            return Err(format!("message {id} of {ours} bytes came as {theirs} bytes, different from byte {same} on"));
        }
        Ok(Some(id))
    }
}

/// The number, then a pattern that begins elsewhere for each number; on a text route with characters of 1 to 4 bytes.
fn payload(id: MessageId, bytes: usize, frame: FrameType) -> Vec<u8> {
    const TEXT: &str = "plain words, déjà vu, €uro, \u{1F600} and so on; ";
    let mut payload = Vec::with_capacity(bytes);
    if bytes > 0 {
        payload.extend_from_slice(format!("{id:08x}").as_bytes());
    }
    match frame {
        FrameType::Binary => {
            let pattern: [u8; 251] = core::array::from_fn(|i| (i as u8).wrapping_mul(31).wrapping_add(id as u8));
            while payload.len() < bytes {
                payload.extend_from_slice(&pattern[..pattern.len().min(bytes - payload.len())]);
            }
        }
        FrameType::Text => {
            payload.extend(std::iter::repeat_n(b'.', (id as usize % 7).min(bytes - payload.len())));
            while payload.len() + TEXT.len() <= bytes {
                payload.extend_from_slice(TEXT.as_bytes());
            }
            payload.resize(bytes, b'x');
        }
    }
    payload
}

fn head(payload: &[u8]) -> String {
    String::from_utf8_lossy(&payload[..payload.len().min(24)]).into_owned()
}
