//! Shared encoded messages: a message from the bus is framed once and lent to every session of its channel.
//!
//! ```
//! use fanfare_core::route::FrameType;
//! use fanfare_core::run::RunBuilder;
//!
//! let mut builder = RunBuilder::new(FrameType::Text);
//! builder.push(b"tea")?;
//! builder.push(b"boils")?;
//! let run = builder.finish();
//! assert_eq!(run.bytes(), &b"\x81\x03tea\x81\x05boils"[..]);
//! assert_eq!(&run.bytes()[run.start(1)..], b"\x81\x05boils", "what a session lacks that has written the first");
//! # Ok::<(), fanfare_core::run::Refused>(())
//! ```

use core::fmt;
#[cfg(test)]
use std::sync::OnceLock;

use bytes::Bytes;

use crate::route::FrameType;
use crate::ws::frame::{Opcode, encode_header, header_len, payload_start};

pub(crate) use self::form::{Encoded, Form};

mod form;

/// The messages of one channel from one read from the bus, framed once into one shared buffer.
///
/// The bytes are complete server frames, back to back: FIN set, not masked (RFC 6455 §5.2). Any range of messages is a
/// range of bytes, so a session in the middle of a run needs no copy. A run is shorter than 4 GiB.
/// Cloning it copies at most the offsets of its frames.
#[derive(Clone, Debug)]
pub struct Run {
    /// The form that every run has from the start.
    frames: Encoded,
    /// Made when first wanted, once for all workers, as every other form would be.
    #[cfg(test)]
    events: OnceLock<Encoded>,
    frame: FrameType,
}

impl Run {
    /// Every frame, ready to be written.
    #[must_use]
    pub const fn bytes(&self) -> &Bytes {
        self.frames.bytes()
    }

    /// What it takes in memory as it was built, shared or not, in bytes: the frames, where they end, and a fixed part.
    /// It never changes.
    #[must_use]
    pub fn memory(&self) -> usize {
        /// The frame type, the counts of an `Arc` and of `Bytes`, and what an allocator keeps for three pieces.
        const FIXED: usize = 8 + 64;
        FIXED + self.frames.memory()
    }

    /// The number of messages.
    #[must_use]
    pub fn len(&self) -> usize {
        self.frames.messages() as usize
    }

    /// Whether there is no message in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.frames.bytes().is_empty()
    }

    /// The type of every frame.
    #[must_use]
    pub const fn frame(&self) -> FrameType {
        self.frame
    }

    /// Where the frame of `message` starts in [`bytes`](Self::bytes); their end for a message that is not in the run.
    #[must_use]
    pub fn start(&self, message: usize) -> usize {
        // A run has fewer than 2³² messages.
        self.frames.start(u32::try_from(message).unwrap_or(u32::MAX))
    }

    /// Where the frame of `message` ends in [`bytes`](Self::bytes); their end for a message that is not in the run.
    #[must_use]
    pub fn end(&self, message: usize) -> usize {
        self.start(message.saturating_add(1))
    }

    /// Its messages in `form`, which is made now if no session of any worker has wanted it before.
    pub(crate) fn encoded(&self, form: Form) -> &Encoded {
        match form {
            Form::Frames => &self.frames,
            #[cfg(test)]
            Form::Events => self.events.get_or_init(|| tests::events(self)),
        }
    }

    /// What it takes in memory with the forms made since it was built. It grows while other workers make more.
    pub(crate) fn memory_in_all_forms(&self) -> usize {
        #[cfg(test)]
        return self.memory() + self.events.get().map_or(0, Encoded::memory);
        #[cfg(not(test))]
        self.memory()
    }

    /// The messages without their headers.
    pub fn payloads(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.len()).map(|message| {
            let frame = &self.bytes()[self.start(message)..self.end(message)];
            &frame[payload_start(frame)..]
        })
    }
}

/// Collects messages into a [`Run`].
#[derive(Debug)]
pub struct RunBuilder {
    bytes: Vec<u8>,
    ends: Vec<u32>,
    frame: FrameType,
}

impl RunBuilder {
    /// No message yet; all will be of the type `frame`.
    #[must_use]
    pub const fn new(frame: FrameType) -> Self {
        Self { bytes: Vec::new(), ends: Vec::new(), frame }
    }

    /// Frames one more message.
    ///
    /// # Errors
    /// [`Refused`], and nothing is added: text that is not UTF-8, or a run that is full.
    pub fn push(&mut self, payload: &[u8]) -> Result<(), Refused> {
        let end = end_after(self.bytes.len(), payload.len()).ok_or(Refused::Full)?;
        let opcode = match self.frame {
            FrameType::Text => Opcode::Text,
            FrameType::Binary => Opcode::Binary,
        };
        if opcode == Opcode::Text && simdutf8::basic::from_utf8(payload).is_err() {
            return Err(Refused::NotUtf8);
        }
        if self.bytes.is_empty() {
            // Most runs are of one message: its bytes are then the right size at once.
            self.bytes.reserve_exact(end as usize);
        } else {
            self.ends.push(self.bytes.len() as u32);
        }
        encode_header(opcode, payload.len(), &mut self.bytes);
        self.bytes.extend_from_slice(payload);
        Ok(())
    }

    /// Whether no message has been added.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Bytes of all frames so far.
    #[must_use]
    pub const fn byte_len(&self) -> usize {
        self.bytes.len()
    }

    /// The run. It owns no more memory than its frames need.
    #[must_use]
    pub fn finish(self) -> Run {
        Run {
            frames: Encoded::new(self.bytes, self.ends),
            #[cfg(test)]
            events: OnceLock::new(),
            frame: self.frame,
        }
    }
}

/// Why a run does not accept a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refused {
    /// The run is of text and the message is not UTF-8.
    NotUtf8,
    /// The run would reach 4 GiB: finish it and begin another. Only a message of that size is refused by an empty run.
    Full,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotUtf8 => "a message of a text run is not UTF-8",
            Self::Full => "the run is full",
        })
    }
}

impl std::error::Error for Refused {}

/// The end of a frame that begins after `before` bytes; `None` if no offset can express it.
fn end_after(before: usize, payload: usize) -> Option<u32> {
    let end = before.checked_add(header_len(payload))?.checked_add(payload)?;
    u32::try_from(end).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ws::tests::{client_reads, seeded};

    /// One event for each message, one line of data for each of its lines.
    pub(super) fn events(run: &Run) -> Encoded {
        let (mut bytes, mut ends) = (Vec::new(), Vec::new());
        for payload in run.payloads() {
            for line in payload.split(|&byte| byte == b'\n') {
                bytes.extend_from_slice(b"data: ");
                bytes.extend_from_slice(line);
                bytes.push(b'\n');
            }
            bytes.push(b'\n');
            ends.push(bytes.len() as u32);
        }
        ends.pop();
        Encoded::new(bytes, ends)
    }

    fn run(frame: FrameType, payloads: &[Vec<u8>]) -> Run {
        let mut builder = RunBuilder::new(frame);
        for payload in payloads {
            builder.push(payload).unwrap();
        }
        builder.finish()
    }

    #[test]
    fn an_independent_client_reads_every_message_of_a_run() {
        let mut random = seeded(1);
        let lengths = [0, 1, 125, 126, 127, 65_535, 65_536, 7];
        let payloads: Vec<Vec<u8>> = lengths.iter().map(|&len| (0..len).map(|_| random.u8(..)).collect()).collect();
        let run = run(FrameType::Binary, &payloads);
        let read: Vec<Vec<u8>> =
            client_reads(run.bytes()).into_iter().map(|message| message.into_data().to_vec()).collect();
        assert_eq!(read, payloads);
        assert_eq!(run.payloads().collect::<Vec<_>>(), payloads);
        for (message, payload) in payloads.iter().enumerate() {
            let frame = &run.bytes()[run.start(message)..run.end(message)];
            assert_eq!(client_reads(frame)[0].clone().into_data(), payload);
        }
    }

    #[test]
    fn each_form_knows_its_messages_by_place_and_by_size() {
        let run = run(FrameType::Text, &["a".into(), "bc".into(), "def".into()]);
        // Frames have a header of 2 bytes, events 8 bytes around each line.
        for (form, starts) in [(Form::Frames, [0, 3, 7, 12]), (Form::Events, [0, 9, 19, 30])] {
            let encoded = run.encoded(form);
            assert_eq!((encoded.messages(), encoded.bytes().len()), (3, starts[3]), "{form:?}");
            assert_eq!([0, 1, 2, 3].map(|message| encoded.start(message)), starts);
            assert_eq!([4, u32::MAX].map(|message| encoded.start(message)), [starts[3]; 2]);
            for at in 0..starts[3] + 2 {
                let before = |at: usize| starts[1..].iter().filter(|&&end| end <= at).count() as u32;
                assert_eq!(encoded.message_at(at), before(at), "{form:?} {at}");
                let from = starts.iter().position(|&start| start >= at).unwrap_or(3);
                assert_eq!(encoded.starting_from(at), from as u32, "{form:?} {at}");
            }
            for (start, end) in [(0, 0), (0, 1), (1, 3), (0, 3)] {
                assert_eq!(encoded.span(start..end), starts[end as usize] - starts[start as usize]);
            }
        }
    }

    #[test]
    fn a_form_is_made_once_when_it_is_first_wanted() {
        let run = run(FrameType::Text, &["one".into(), "two\nlines".into()]);
        let memory = run.memory();
        assert_eq!(run.memory_in_all_forms(), memory);
        let made = run.encoded(Form::Events).bytes().as_ptr();
        assert_eq!(run.encoded(Form::Events).bytes().as_ptr(), made);
        assert_eq!(&run.encoded(Form::Events).bytes()[..], b"data: one\n\ndata: two\ndata: lines\n\n");
        assert_eq!(run.memory_in_all_forms(), memory + size_of::<Encoded>() + 34 + 4, "its bytes and one offset");
        assert_eq!(run.memory(), memory, "a mailbox gets back what it gave");
    }

    #[test]
    fn text_stays_text() {
        let run = run(FrameType::Text, &["a".into(), "\u{1F600}".into()]);
        assert_eq!(run.frame(), FrameType::Text);
        assert!(client_reads(run.bytes()).iter().all(tungstenite::Message::is_text));
    }

    #[test]
    fn a_run_of_one_has_no_offsets_and_no_spare_bytes() {
        let run = run(FrameType::Text, &[b"hello".to_vec()]);
        assert_eq!((run.len(), run.start(0), run.end(0), run.frames.memory()), (1, 0, 7, size_of::<Encoded>() + 7));
        assert_eq!(&run.bytes()[..], b"\x81\x05hello");
    }

    #[test]
    fn an_empty_builder_makes_an_empty_run() {
        let run = run(FrameType::Text, &[]);
        assert!(run.is_empty());
        assert_eq!((run.len(), run.end(0), run.payloads().count()), (0, 0, 0));
    }

    #[test]
    fn bad_text_is_refused_and_leaves_no_trace() {
        let mut builder = RunBuilder::new(FrameType::Text);
        assert_eq!(builder.push(b"\xFF"), Err(Refused::NotUtf8));
        assert!(builder.is_empty());
        builder.push(b"one").unwrap();
        assert_eq!(builder.push(b"\xE2\x82"), Err(Refused::NotUtf8));
        assert_eq!(builder.byte_len(), 5);
        builder.push(b"two").unwrap();
        assert_eq!(builder.finish().payloads().collect::<Vec<_>>(), [b"one", b"two"]);
    }

    #[test]
    fn bytes_need_not_be_text_in_a_binary_run() {
        assert_eq!(run(FrameType::Binary, &[vec![0xFF]]).payloads().next(), Some(&[0xFF][..]));
    }

    #[test]
    fn a_run_ends_below_4_gib() {
        let max = u32::MAX as usize;
        assert_eq!(end_after(max - 12, 10), Some(u32::MAX));
        assert_eq!(end_after(max - 11, 10), None);
        assert_eq!(end_after(0, max - 10), Some(u32::MAX));
        assert_eq!(end_after(0, max - 9), None);
        assert_eq!(end_after(1, usize::MAX), None);
        assert_eq!(end_after(usize::MAX, 0), None);
    }
}
