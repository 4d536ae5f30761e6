//! The decoder of a client's bytes: frames, fragments, UTF-8.

use std::borrow::Cow;
use std::mem;

use crate::error::Error;
use crate::limits::Limits;
use crate::route::FrameType;

use super::close;
use super::frame::{self, Frame, MAX_HEADER, Opcode, Room};
use super::mask::unmask;

/// A whole message of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message<'i> {
    /// Its type.
    pub frame: FrameType,
    /// Its bytes, checked to be UTF-8 if it is text: lent from the input if all of it lay there in one frame, else
    /// owned, so that the memory of a message that came in pieces goes with its last user.
    pub payload: Cow<'i, [u8]>,
}

/// What a client says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event<'i> {
    /// A message is whole.
    Message(Message<'i>),
    /// A ping, to be answered with a pong of the same payload, at most 125 bytes.
    Ping(Cow<'i, [u8]>),
    /// A pong, asked for or not.
    Pong(Cow<'i, [u8]>),
    /// The client says no more.
    Close {
        /// Why; `None` if the Close is empty.
        code: Option<u16>,
        /// Why, in words.
        reason: Cow<'i, str>,
    },
}

/// The receiving half of a connection (RFC 6455 §5 to §8), strict.
///
/// It owns memory only for the message or control frame that is not whole yet, as much as has arrived, at most twice
/// [`Limits::message_bytes`]. What an event is and where an error lies do not depend on how the bytes were cut.
#[derive(Debug, Default)]
pub struct Decoder {
    state: State,
    /// The message under way, if it is not whole in one read.
    partial: Option<Box<Partial>>,
    /// Payload of the control frame under way; such a frame may come between the fragments of a message.
    control: Vec<u8>,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// Before a frame, or in its header, of which `len` bytes have come.
    Header { bytes: [u8; MAX_HEADER], len: u8 },
    /// In a frame's payload; at least one byte of it is missing.
    Payload(Frame),
    /// After a Close.
    Closed,
    /// After an error.
    Failed(Error),
}

impl Default for State {
    fn default() -> Self {
        Self::Header { bytes: [0; MAX_HEADER], len: 0 }
    }
}

impl Decoder {
    /// A decoder before the first frame.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The next event in `input`, which moves on to what is behind it; what the event lends is unmasked in place.
    /// `None` means that all of `input` is used.
    ///
    /// After a Close all further input is used without an event.
    ///
    /// # Errors
    /// The first thing that is wrong, as soon as its first wrong byte is there, and again at each later call.
    pub fn next<'i>(&mut self, input: &mut &'i mut [u8], limits: &Limits) -> Result<Option<Event<'i>>, Error> {
        let event = self.read(input, limits);
        match &event {
            Ok(Some(Event::Close { .. })) => *self = Self { state: State::Closed, ..Self::default() },
            Err(error) => *self = Self { state: State::Failed(*error), ..Self::default() },
            Ok(_) => {}
        }
        event
    }

    /// Bytes of memory held for what is not whole yet.
    #[must_use]
    pub fn partial_bytes(&self) -> usize {
        let message = self.partial.as_ref().map_or(0, |partial| size_of::<Partial>() + partial.payload.capacity());
        message + self.control.capacity()
    }

    /// Whether the client has begun a frame or a message and not finished it.
    #[must_use]
    pub fn is_amid(&self) -> bool {
        self.partial.is_some() || matches!(self.state, State::Header { len: 1.., .. } | State::Payload(_))
    }

    /// Whether what comes next belongs to a message and not to a control frame, as far as `input` says.
    #[must_use]
    pub fn is_before_data(&self, input: &[u8]) -> bool {
        match self.state {
            State::Header { bytes, len } => {
                let first = if len > 0 { Some(&bytes[0]) } else { input.first() };
                first.is_some_and(|first| !frame::is_control(*first))
            }
            State::Payload(frame) => !frame.opcode.is_control(),
            State::Closed | State::Failed(_) => false,
        }
    }

    /// Whether a whole empty binary message comes next.
    #[must_use]
    pub fn is_before_empty(&self, input: &[u8]) -> bool {
        self.partial.is_none() && matches!(self.state, State::Header { len: 0, .. }) && frame::is_empty_binary(input)
    }

    fn read<'i>(&mut self, input: &mut &'i mut [u8], limits: &Limits) -> Result<Option<Event<'i>>, Error> {
        loop {
            let frame = match self.state {
                State::Header { bytes, len } => match self.read_header(bytes, len, input, limits)? {
                    Some(frame) => frame,
                    None => return Ok(None),
                },
                State::Payload(_) if input.is_empty() => return Ok(None),
                State::Payload(frame) => frame,
                State::Closed => {
                    take(input, input.len());
                    return Ok(None);
                }
                State::Failed(error) => return Err(error),
            };
            if let Some(event) = self.read_payload(frame, input)? {
                return Ok(Some(event));
            }
        }
    }

    /// Reads the rest of a header of which `len` bytes are in `kept`; `None` if `input` ends before it does.
    #[inline]
    fn read_header(
        &mut self,
        mut kept: [u8; MAX_HEADER],
        len: u8,
        input: &mut &mut [u8],
        limits: &Limits,
    ) -> Result<Option<Frame>, Error> {
        let room = self.room(limits);
        let len = usize::from(len);
        if len == 0
            && let Some((frame, used)) = frame::parse(input, &room)?
        {
            take(input, used);
            return Ok(Some(frame));
        }
        let added = input.len().min(MAX_HEADER - len);
        kept[len..len + added].copy_from_slice(&input[..added]);
        if let Some((frame, used)) = frame::parse(&kept[..len + added], &room)? {
            take(input, used - len);
            return Ok(Some(frame));
        }
        take(input, added);
        self.state = State::Header { bytes: kept, len: (len + added) as u8 };
        Ok(None)
    }

    fn room(&self, limits: &Limits) -> Room {
        let (inside, fragments, bytes) =
            self.partial.as_ref().map_or((false, 0, 0), |partial| (true, partial.fragments, partial.payload.len()));
        Room {
            inside,
            fragments: limits.message_fragments.saturating_sub(fragments),
            bytes: limits.message_bytes.saturating_sub(bytes),
        }
    }

    /// Reads as much of the payload of `frame` as `input` has; `None` if there is no event yet.
    #[inline]
    fn read_payload<'i>(&mut self, mut frame: Frame, input: &mut &'i mut [u8]) -> Result<Option<Event<'i>>, Error> {
        let piece = take(input, frame.left);
        frame.key = unmask(piece, frame.key);
        frame.left -= piece.len();
        self.state = if frame.left > 0 { State::Payload(frame) } else { State::default() };
        if frame.opcode.is_control() { self.read_control(frame, piece) } else { self.read_data(frame, piece) }
    }

    #[inline]
    fn read_data<'i>(&mut self, frame: Frame, piece: &'i [u8]) -> Result<Option<Event<'i>>, Error> {
        let kind = if frame.opcode == Opcode::Text { FrameType::Text } else { FrameType::Binary };
        let ends = frame.fin && frame.left == 0;
        if ends && self.partial.is_none() {
            if kind == FrameType::Text && simdutf8::basic::from_utf8(piece).is_err() {
                return Err(Error::Utf8);
            }
            return Ok(Some(Event::Message(Message { frame: kind, payload: Cow::Borrowed(piece) })));
        }
        let partial = self.partial.get_or_insert_with(|| Box::new(Partial::new(kind)));
        partial.push(piece)?;
        if frame.left == 0 {
            partial.fragments += 1;
        }
        match self.partial.take_if(|_| ends) {
            Some(partial) => partial.finish().map(|message| Some(Event::Message(message))),
            None => Ok(None),
        }
    }

    fn read_control<'i>(&mut self, frame: Frame, piece: &'i [u8]) -> Result<Option<Event<'i>>, Error> {
        let payload = if frame.left == 0 && self.control.is_empty() {
            Cow::Borrowed(piece)
        } else {
            self.control.extend_from_slice(piece);
            if frame.left > 0 {
                return Ok(None);
            }
            Cow::Owned(mem::take(&mut self.control))
        };
        Ok(Some(match frame.opcode {
            Opcode::Ping => Event::Ping(payload),
            Opcode::Pong => Event::Pong(payload),
            _ => {
                let (code, reason) = close::parse(payload)?;
                Event::Close { code, reason }
            }
        }))
    }
}

/// A message of which something is missing.
#[derive(Debug)]
struct Partial {
    frame: FrameType,
    /// Frames that have come whole.
    fragments: u32,
    payload: Vec<u8>,
    /// How much of a text is known to be UTF-8: all but the at most 3 bytes of a last character that is not whole.
    checked: usize,
}

impl Partial {
    const fn new(frame: FrameType) -> Self {
        Self { frame, fragments: 0, payload: Vec::new(), checked: 0 }
    }

    /// Adds what has arrived. Text is checked at once, so that it fails at its first wrong byte (RFC 6455 §8.1).
    fn push(&mut self, piece: &[u8]) -> Result<(), Error> {
        self.payload.extend_from_slice(piece);
        if self.frame == FrameType::Text {
            self.checked += match simdutf8::compat::from_utf8(&self.payload[self.checked..]) {
                Ok(text) => text.len(),
                Err(error) if error.error_len().is_none() => error.valid_up_to(),
                Err(_) => return Err(Error::Utf8),
            };
        }
        Ok(())
    }

    fn finish(self) -> Result<Message<'static>, Error> {
        if self.frame == FrameType::Text && self.checked < self.payload.len() {
            return Err(Error::Utf8);
        }
        Ok(Message { frame: self.frame, payload: Cow::Owned(self.payload) })
    }
}

/// Splits off the first `n` bytes of `input`, or all if there are fewer.
#[inline]
fn take<'i>(input: &mut &'i mut [u8], n: usize) -> &'i mut [u8] {
    let n = n.min(input.len());
    let (taken, rest) = mem::take(input).split_at_mut(n);
    *input = rest;
    taken
}
