//! The protocol of Redis: RESP2 and RESP3 framing of bytes that arrive in any pieces.
//!
//! Follows the [protocol specification](https://redis.io/docs/latest/develop/reference/protocol-spec/) and the
//! [Pub/Sub page](https://redis.io/docs/latest/develop/pubsub/).
//!
//! The push that carries a message is read by hand, with no allocation. Every other frame is first ended by a linear
//! scanner with a bounded depth, and only then given to the decoder of `redis-protocol`: that one recurses without a
//! bound, starts over with every piece of a frame and does not look at terminators.
//!
//! ```
//! use fanfare_core::resp::{Decoder, Frame};
//!
//! let mut decoder = Decoder::new(1 << 10);
//! let mut read: &[u8] = b"*3\r\n$7\r\nmessage\r\n$3\r\ntea\r\n$5\r\nbo";
//! assert_eq!(decoder.decode(&mut read)?, None, "the rest is still to come");
//! let mut read: &[u8] = b"ils\r\n";
//! assert_eq!(decoder.decode(&mut read)?, Some(Frame::Message { channel: b"tea", payload: b"boils" }));
//! # Ok::<(), fanfare_core::resp::RespError>(())
//! ```

mod decoder;
pub mod encode;
mod push;
mod scanner;
#[cfg(test)]
mod tests;

use core::fmt;

pub use decoder::Decoder;

/// One complete frame. Its bytes are borrowed from the input, or from the decoder if the frame came in pieces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// A message of a subscribed channel.
    Message {
        /// The channel it was published to.
        channel: &'a [u8],
        /// The published bytes.
        payload: &'a [u8],
    },
    /// A message above `Limits::message_bytes`. Its payload was skipped as it came in.
    Oversized {
        /// The channel it was published to.
        channel: &'a [u8],
        /// Length of the payload.
        bytes: usize,
    },
    /// Redis has subscribed this connection to one channel.
    Subscribed {
        /// The channel.
        channel: &'a [u8],
    },
    /// Redis has unsubscribed this connection from one channel.
    Unsubscribed {
        /// The channel; `None` answers an UNSUBSCRIBE without arguments when there was no subscription.
        channel: Option<&'a [u8]>,
    },
    /// A push of RESP3 of another kind. It answers no command.
    Push,
    /// The answer to the oldest command without one.
    Reply(Reply<'a>),
}

/// The answer to a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply<'a> {
    /// `+PONG`, or the `pong` array that answers PING on a RESP2 connection with subscriptions.
    Pong,
    /// A simple string, such as `OK`.
    Simple(&'a [u8]),
    /// An error: by convention a code in capitals, a blank and a text. Not always UTF-8.
    Error(&'a [u8]),
    /// An integer.
    Integer(i64),
    /// A bulk string.
    Bulk(&'a [u8]),
    /// The null of either version.
    Null,
    /// An aggregate or a type of RESP3 that has no place here, as it came.
    Other(&'a [u8]),
}

/// Bytes that are not RESP, or beyond the decoder's bounds. The connection is of no more use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RespError {
    /// No frame begins with this byte.
    Type(u8),
    /// A length that is not in plain decimal, has more than nine digits, or is negative but not the null of RESP2.
    Length,
    /// CRLF does not follow where it must.
    Terminator,
    /// A streamed aggregate or chunked string, which Redis never sends.
    Streamed,
    /// A value that its type does not allow.
    Value,
    /// More than eight aggregates within each other.
    Depth,
    /// More than 4,096 elements in a frame.
    Elements,
    /// A frame other than a message beyond 64 KiB.
    Size,
}

impl fmt::Display for RespError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Type(_) => "an unknown type of frame",
            Self::Length => "an invalid length",
            Self::Terminator => "a missing line end",
            Self::Streamed => "a streamed frame",
            Self::Value => "an invalid value",
            Self::Depth => "a frame that is nested too deeply",
            Self::Elements => "a frame of too many elements",
            Self::Size => "a frame that is too big",
        })
    }
}

impl std::error::Error for RespError {}

/// Whether the reply to HELLO or ROLE says that the server is a replica. A reply that says nothing of a role is of none.
#[must_use]
pub fn is_replica(reply: &[u8]) -> bool {
    const KEY: &[u8] = b"role\r\n";
    let line = |bytes: &'_ [u8]| bytes.iter().position(|&byte| byte == b'\r').unwrap_or(bytes.len());
    let role = match reply.windows(KEY.len()).position(|window| window == KEY) {
        Some(at) => &reply[at + KEY.len()..],
        // ROLE answers an array that begins with it.
        None => reply.get(line(reply) + 2..).unwrap_or_default(),
    };
    // A bulk string, as Redis writes it, or a simple one.
    let role = match role.first() {
        Some(b'$') => role.get(line(role) + 2..).unwrap_or_default(),
        Some(b'+') => &role[1..],
        _ => return false,
    };
    matches!(&role[..line(role)], b"replica" | b"slave")
}
