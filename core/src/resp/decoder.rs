//! The decoder: frames from a byte stream in any pieces.

use core::mem;

use redis_protocol::{
    resp2::{self, types::RangeFrame as Resp2},
    resp3::{self, types::RangeFrame as Resp3},
};

use super::scanner::{Scan, Scanner, Shape};
use super::{Frame, Reply, RespError, push};

/// Room that an emptied tail may keep for the next frame that comes in pieces.
const KEPT_BYTES: usize = 16 << 10;

/// Takes frames out of a stream of bytes.
///
/// Holds nothing but the unfinished frame at the end of the last input: at most `message_bytes` and 64 KiB more.
#[derive(Debug)]
pub struct Decoder {
    message_bytes: usize,
    scanner: Scanner,
    /// The unfinished frame, or the one that was handed out last.
    tail: Vec<u8>,
    /// Whether `tail` was handed out.
    spent: bool,
    /// Length of the payload that is being skipped; `tail` is the frame up to it.
    skipped: Option<usize>,
    failed: Option<RespError>,
}

impl Decoder {
    /// A decoder at the beginning of a stream that skips payloads of more than `message_bytes`.
    #[must_use]
    pub fn new(message_bytes: usize) -> Self {
        Self { message_bytes, scanner: Scanner::default(), tail: Vec::new(), spent: false, skipped: None, failed: None }
    }

    /// Starts over at the beginning of another stream.
    pub fn reset(&mut self) {
        *self = Self::new(self.message_bytes);
    }

    /// The next frame, taken off the front of `input`. `None` once all of `input` is taken.
    ///
    /// # Errors
    ///
    /// The first error stays: every later call returns it again.
    pub fn decode<'a, 'i: 'a>(&'a mut self, input: &mut &'i [u8]) -> Result<Option<Frame<'a>>, RespError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        if mem::take(&mut self.spent) {
            self.tail.clear();
            self.tail.shrink_to(KEPT_BYTES);
        }
        if self.scanner.is_between_frames()
            && let Some((channel, payload, length)) = push::message(input, self.message_bytes)
        {
            *input = &input[length..];
            return Ok(Some(Frame::Message { channel, payload }));
        }
        let end = self.find_end(input).inspect_err(|&error| self.failed = Some(error))?;
        let Some((piece, shape)) = end else { return Ok(None) };
        if let Some(bytes) = self.skipped.take() {
            self.spent = true;
            let channel = push::message_head(&self.tail).unwrap_or_default();
            return Ok(Some(Frame::Oversized { channel, bytes }));
        }
        let frame = if self.tail.is_empty() {
            piece
        } else {
            self.tail.extend_from_slice(piece);
            self.spent = true;
            &self.tail
        };
        match interpret(frame, shape) {
            Ok(frame) => Ok(Some(frame)),
            Err(error) => {
                self.failed = Some(error);
                Err(error)
            }
        }
    }

    /// Takes the rest of the present frame off `input`, passing over attributes; keeps it if the frame goes on.
    fn find_end<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<(&'a [u8], Shape)>, RespError> {
        loop {
            match self.scanner.scan(input, self.message_bytes)? {
                Scan::More => {
                    self.keep(input, input.len());
                    return Ok(None);
                }
                Scan::Large { at, length } => {
                    self.keep(input, at);
                    self.judge(length)?;
                }
                Scan::End { at, shape: Shape::Attributes } => {
                    *input = &input[at..];
                    self.tail.clear();
                }
                Scan::End { at, shape } => {
                    let (piece, rest) = input.split_at(at);
                    *input = rest;
                    return Ok(Some((piece, shape)));
                }
            }
        }
    }

    fn keep(&mut self, input: &mut &[u8], length: usize) {
        let (piece, rest) = input.split_at(length);
        *input = rest;
        if self.skipped.is_none() {
            self.tail.extend_from_slice(piece);
        }
    }

    /// A large bulk string may be the payload of a message; of any other frame it is a part like the rest.
    fn judge(&mut self, length: usize) -> Result<(), RespError> {
        if push::message_head(&self.tail).is_none() {
            return self.scanner.count(length);
        }
        if length > self.message_bytes {
            self.skipped = Some(length);
        }
        Ok(())
    }
}

/// What a complete frame says.
fn interpret(frame: &[u8], shape: Shape) -> Result<Frame<'_>, RespError> {
    if let Some((channel, payload, _)) = push::message(frame, usize::MAX) {
        return Ok(Frame::Message { channel, payload });
    }
    if let Some(other) = push::other(frame) {
        return Ok(other);
    }
    let reply = match shape {
        Shape::Resp2 => resp2_reply(frame),
        Shape::Resp3 | Shape::Attributes if frame.first() == Some(&b'>') => return Ok(Frame::Push),
        Shape::Resp3 | Shape::Attributes => resp3_reply(frame),
    };
    reply.map(Frame::Reply).ok_or(RespError::Value)
}

fn resp2_reply(frame: &[u8]) -> Option<Reply<'_>> {
    let (decoded, length) = resp2::decode::decode_range(frame).ok()??;
    if length != frame.len() {
        return None;
    }
    Some(match decoded {
        Resp2::SimpleString(range) if slice(frame, range)? == b"PONG" => Reply::Pong,
        Resp2::SimpleString(range) => Reply::Simple(slice(frame, range)?),
        Resp2::Error(range) => Reply::Error(slice(frame, range)?),
        Resp2::Integer(value) => Reply::Integer(value),
        Resp2::BulkString(range) => Reply::Bulk(slice(frame, range)?),
        Resp2::Null => Reply::Null,
        Resp2::Array(_) => Reply::Other(frame),
    })
}

/// What RESP2 has types for is of its shape, unless it lies in something of RESP3, so that no arm is needed for it.
fn resp3_reply(frame: &[u8]) -> Option<Reply<'_>> {
    let (decoded, length) = resp3::decode::complete::decode_range(frame).ok()??;
    if length != frame.len() {
        return None;
    }
    Some(match decoded {
        Resp3::BlobError { data, .. } => Reply::Error(slice(frame, data)?),
        Resp3::Null => Reply::Null,
        _ => Reply::Other(frame),
    })
}

fn slice(frame: &[u8], (start, end): (usize, usize)) -> Option<&[u8]> {
    frame.get(start..end)
}
