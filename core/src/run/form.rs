//! Forms of a run: the ways in which its messages are encoded for clients.

use core::ops::Range;

use bytes::Bytes;

/// What the messages of a run are encoded as.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Form {
    /// WebSocket frames: FIN set, not masked (RFC 6455 §5.2).
    #[default]
    Frames,
    /// Events of an event stream: only tests want them, to show that queues and policies work in every form.
    #[cfg(test)]
    Events,
}

/// The messages of a run in one form, back to back. Each takes at least one byte.
#[derive(Clone, Debug)]
pub(crate) struct Encoded {
    bytes: Bytes,
    /// Where each message but the last ends; the last ends with `bytes`, so that one message needs no offsets.
    ends: Box<[u32]>,
}

impl Encoded {
    /// `bytes` are shorter than 4 GiB.
    pub(super) fn new(bytes: Vec<u8>, ends: Vec<u32>) -> Self {
        Self { bytes: Bytes::from(bytes.into_boxed_slice()), ends: ends.into_boxed_slice() }
    }

    /// Every message.
    pub(crate) const fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The number of messages.
    pub(crate) fn messages(&self) -> u32 {
        // Each takes a byte, and offsets are below 4 GiB.
        if self.bytes.is_empty() { 0 } else { self.ends.len() as u32 + 1 }
    }

    /// Bytes of memory that it takes, its own fields among them.
    pub(super) fn memory(&self) -> usize {
        size_of::<Self>() + self.bytes.len() + size_of_val(&*self.ends)
    }

    /// Where `message` starts in [`bytes`](Self::bytes); their end for one that is not in the run.
    pub(crate) fn start(&self, message: u32) -> usize {
        message.checked_sub(1).map_or(0, |before| self.end(before))
    }

    fn end(&self, message: u32) -> usize {
        self.ends.get(message as usize).map_or(self.bytes.len(), |&end| end as usize)
    }

    /// How many bytes these messages take.
    pub(crate) fn span(&self, messages: Range<u32>) -> usize {
        self.start(messages.end) - self.start(messages.start)
    }

    /// The message that the byte at `at` is of, which is also how many of the first messages fit into so many bytes. The
    /// number of all if it lies behind the last.
    pub(crate) fn message_at(&self, at: usize) -> u32 {
        if at >= self.bytes.len() {
            return self.messages();
        }
        // Offsets are below 4 GiB.
        self.ends.partition_point(|&end| end as usize <= at) as u32
    }

    /// The first message that starts at `at` or behind it. The number of all if none does.
    pub(crate) fn starting_from(&self, at: usize) -> u32 {
        at.checked_sub(1).map_or(0, |before| self.messages().min(self.message_at(before) + 1))
    }
}
