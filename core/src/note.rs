//! Notes: in-band information for clients about missing messages, and the sign that the connection lives.
//!
//! A client of a text route that offers the subprotocol [`SUBPROTOCOL`] and has it accepted gets notes. The messages of
//! its route are text frames; a note is a binary frame with one JSON object in UTF-8:
//!
//! | note | meaning |
//! | --- | --- |
//! | `{"type":"dropped","messages":12}` | The client reads too slowly: 12 messages are missing here, by its route's [`Slow`](crate::route::Slow). |
//! | `{"type":"gap","seconds":1.5,"epoch":3}` | The server was cut off from Redis for 1.5 s: messages sent meanwhile are missing here. `epoch` is the gap's number in that instance's log. |
//! | `{"type":"gap","messages":7}` | The server was overloaded: at least 7 messages are missing here. |
//! | `{"type":"gap_began","epoch":3}` | The server is cut off from Redis: nothing arrives until the note of this gap, or of a later one. |
//! | `{"type":"alive","seconds":25.000,"received":7}` | The connection lives, and the next `alive` comes within 25 s. The server has taken the first 7 messages that the client sent on this connection. |
//!
//! A note of a loss stands between the messages before and behind it. Between two messages at most one note of each
//! type waits; of several gaps it is the last, and the end of a gap replaces its beginning. Clients ignore types and
//! members that they do not know; more may be added.
//!
//! `alive` is the first note, follows messages of the client, and comes with each ping, which browsers hide. It is not
//! in order with messages: it leaves ahead of those that wait. A client that has received nothing for twice the time is
//! cut off and should connect again. To ask at once, for instance after a sleep, it sends an empty binary message,
//! which is no message of its route: the server answers with `alive`.
//!
//! The server publishes every message that it has taken, unless the embedding program drops it
//! ([`Rights::review`](crate::route::Rights::review)). A message that comes back afterwards with the text of one of the
//! client's own may be that one or another client's.
//!
//! On a binary route a note would look like a message. The subprotocol is never accepted there, and browsers fail a
//! connection if the server accepts none of the subprotocols that they offer.
//!
//! ```
//! use fanfare_core::http::RequestReader;
//! use fanfare_core::limits::Limits;
//! use fanfare_core::note::SUBPROTOCOL;
//!
//! // A web server that makes the handshake itself, before it sets `Target::notes` and hands over the connection.
//! let head = b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
//!     Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: chat, fanfare.notes\r\n\r\n";
//! let (request, _) = RequestReader::new().read(head, &Limits::default())?.expect("the head is whole");
//! let upgrade = request.upgrade()?;
//! assert!(upgrade.offers(SUBPROTOCOL));
//! let fields = upgrade.fields(Some(SUBPROTOCOL))?;
//! assert!(fields.contains(&("Sec-WebSocket-Protocol", "fanfare.notes")));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use core::fmt;

use crate::route::FrameType;
use crate::run::{Run, RunBuilder};
use crate::time::Duration;

/// The name of the subprotocol in `Sec-WebSocket-Protocol` (RFC 6455 §1.9).
pub const SUBPROTOCOL: &str = "fanfare.notes";

/// One note. Its Display is the payload of the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Note {
    /// So many messages, because the client reads too slowly.
    Dropped { messages: u64 },
    /// Whatever was sent in so much time.
    Gap { time: Duration, epoch: u64 },
    /// At least so many messages, because the server was overloaded.
    Missed { messages: u64 },
    /// Whatever is sent from here on, until the gap ends.
    GapBegan { epoch: u64 },
    /// Nothing: the connection lives. The next comes within `time`, and so many messages were taken of the client.
    Alive { time: Duration, received: u64 },
}

impl Note {
    /// As one frame.
    pub(crate) fn encode(self) -> Run {
        let mut builder = RunBuilder::new(FrameType::Binary);
        // A binary run of so few bytes takes any payload.
        let _ = builder.push(self.to_string().as_bytes());
        builder.finish()
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dropped { messages } => write!(f, r#"{{"type":"dropped","messages":{messages}}}"#),
            Self::Gap { time, epoch } => {
                write!(f, r#"{{"type":"gap","seconds":{},"epoch":{epoch}}}"#, Seconds(*time))
            }
            Self::GapBegan { epoch } => write!(f, r#"{{"type":"gap_began","epoch":{epoch}}}"#),
            Self::Alive { time, received } => {
                write!(f, r#"{{"type":"alive","seconds":{},"received":{received}}}"#, Seconds(*time))
            }
            Self::Missed { messages } => write!(f, r#"{{"type":"gap","messages":{messages}}}"#),
        }
    }
}

/// To the millisecond.
struct Seconds(Duration);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03}", self.0.as_secs(), self.0.subsec_millis())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_are_small_objects_of_json_in_a_binary_frame() {
        let table = [
            (Note::Dropped { messages: 12 }, r#"{"type":"dropped","messages":12}"#),
            (
                Note::Gap { time: Duration::from_micros(61_007_900), epoch: 3 },
                r#"{"type":"gap","seconds":61.007,"epoch":3}"#,
            ),
            (Note::Missed { messages: 7 }, r#"{"type":"gap","messages":7}"#),
            (Note::GapBegan { epoch: 3 }, r#"{"type":"gap_began","epoch":3}"#),
            (
                Note::Alive { time: Duration::from_secs(25), received: 7 },
                r#"{"type":"alive","seconds":25.000,"received":7}"#,
            ),
        ];
        for (note, text) in table {
            let run = note.encode();
            assert_eq!((run.frame(), run.payloads().collect::<Vec<_>>()), (FrameType::Binary, vec![text.as_bytes()]));
        }
        for longest in [
            Note::Gap { time: Duration::MAX, epoch: u64::MAX },
            Note::Alive { time: Duration::MAX, received: u64::MAX },
        ] {
            assert!(longest.encode().bytes().len() <= 127, "as the memory of a session counts on");
        }
    }
}
