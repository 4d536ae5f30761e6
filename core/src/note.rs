//! What a client is told in-band: of messages that it did not get, where they are missing, and that the connection lives.
//!
//! A client of a text route that offers the subprotocol [`SUBPROTOCOL`] and has it accepted gets notes. The messages of
//! its route are text frames, a note is a binary frame with one object of JSON in UTF-8:
//!
//! | note | meaning |
//! | --- | --- |
//! | `{"type":"dropped","messages":12}` | The client reads too slowly: so many messages are missing here, by its route's [`Slow`](crate::route::Slow). |
//! | `{"type":"gap","seconds":1.5,"epoch":3}` | The server was cut off for so long: whatever was sent meanwhile is missing here. `epoch` counts the gaps of that instance, as its log does. |
//! | `{"type":"gap","messages":7}` | The server was overloaded: at least so many messages are missing here. |
//! | `{"type":"gap_began","epoch":3}` | The server is cut off: nothing comes until the note of this gap, or of a later one. |
//! | `{"type":"alive","seconds":25.000,"received":7}` | The connection lives, and the next of these comes within so many seconds. The server has taken the client's first so many messages on this connection. |
//!
//! A note of a loss stands between the messages before and behind it. Between two messages there is at most one of each
//! type that has not begun to leave; of several gaps it is the last, and the end of one takes the place of its beginning.
//! More types and members may come: a client leaves alone what it does not know.
//!
//! `alive` comes first of all, then whenever the client has sent messages, and with each ping, of which browsers show
//! nothing. It has no place among the messages, but leaves ahead of those that wait. A client that has got nothing at
//! all for twice the time is cut off, and connects again. One that cannot wait for that, after a sleep for instance, sends
//! an empty binary message, which is no message of its route: it is answered by `alive` at once.
//!
//! What the server has taken it publishes; a message that comes back afterwards with the text of one of the client's own
//! may be that one or somebody else's.
//!
//! On a binary route a note could not be told from a message. There the subprotocol is never accepted, and browsers end
//! a connection whose server accepts none of what they offer.

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
