//! What a client is told of messages that it did not get, in-band and where they are missing.
//!
//! A client of a text route that offers the subprotocol [`SUBPROTOCOL`] and has it accepted gets notes. The messages of
//! its route are text frames, a note is a binary frame with one object of JSON in UTF-8:
//!
//! | note | meaning |
//! | --- | --- |
//! | `{"type":"dropped","messages":12}` | The client reads too slowly: so many messages are missing here, by its route's [`Slow`](crate::route::Slow). |
//! | `{"type":"gap","seconds":1.5,"epoch":3}` | The server was cut off for so long: whatever was sent meanwhile is missing here. `epoch` counts the gaps of that instance, as its log does. |
//! | `{"type":"gap","messages":7}` | The server was overloaded: at least so many messages are missing here. |
//!
//! A note stands between the messages before and behind the loss. Between two messages there is at most one of each type
//! that has not begun to leave; of several gaps it is the last. More types and members may come: a client leaves alone
//! what it does not know.
//!
//! On a binary route a note could not be told from a message. There the subprotocol is never accepted, and browsers end
//! a connection whose server accepts none of what they offer.

use core::fmt;

use crate::route::FrameType;
use crate::run::{Run, RunBuilder};
use crate::time::Duration;

/// The name of the subprotocol in `Sec-WebSocket-Protocol` (RFC 6455 §1.9).
pub const SUBPROTOCOL: &str = "fanfare.notes";

/// What is missing. Its Display is the payload of the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Note {
    /// So many messages, because the client reads too slowly.
    Dropped { messages: u64 },
    /// Whatever was sent in so much time.
    Gap { time: Duration, epoch: u64 },
    /// At least so many messages, because the server was overloaded.
    Missed { messages: u64 },
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
                let (seconds, millis) = (time.as_secs(), time.subsec_millis());
                write!(f, r#"{{"type":"gap","seconds":{seconds}.{millis:03},"epoch":{epoch}}}"#)
            }
            Self::Missed { messages } => write!(f, r#"{{"type":"gap","messages":{messages}}}"#),
        }
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
        ];
        for (note, text) in table {
            let run = note.encode();
            assert_eq!((run.frame(), run.payloads().collect::<Vec<_>>()), (FrameType::Binary, vec![text.as_bytes()]));
        }
        let longest = Note::Gap { time: Duration::MAX, epoch: u64::MAX }.encode();
        assert!(longest.bytes().len() <= 127, "as the memory of a session counts on");
    }
}
