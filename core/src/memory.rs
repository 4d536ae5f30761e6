//! The formula of the most memory that an instance can hold.
//!
//! ```
//! use fanfare_core::settings::Settings;
//!
//! let bound = Settings::default().memory_bound();
//! assert_eq!(bound.with(1_000), bound.fixed + 1_000 * bound.connection);
//! ```

use crate::settings::Settings;
use crate::units::Size;

#[cfg(test)]
mod tests;

/// One read from Redis.
const READ_FROM_REDIS: usize = 64 << 10;
/// Messages in one read of a client of 16 KiB, the smallest there are.
const MESSAGES_OF_A_READ: usize = (16 << 10) / 6;
/// What an empty publish takes as a command of Redis, beside the channel's name.
const EMPTY_PUBLISH: usize = 38;
/// Commands that wait stand in a buffer that doubles; while it does, the old one is there, too.
const BUFFER_FACTOR: usize = 3;
/// A publish that waits and one that is not confirmed take a place in a list each, beside their bytes.
const PUBLISH_FACTOR: usize = 5;
/// Control frames that wait for a client: 2 KiB, in a list that doubles.
const CONTROL_FRAMES: usize = 5 << 10;
/// A session, its places in lists and tables that double, and as much of a channel as is in shard, bus and link, with
/// three names.
const SESSION: usize = 3 << 10;
/// A channel that lingers, in bus and link, without its names.
const LINGERING: usize = 1 << 10;
/// What an open session holds beside that: a read in which a message found no credit, and what is free of an unfinished
/// message and of the runs that wait. A plain answer that is no file takes less.
const OPEN: usize = (16 << 10) + (4 << 10) + (4 << 10);
/// A channel that Redis has yet to unsubscribe, without its name. There are as many as were ever wanted, and some more.
const UNWANTED: usize = 512;
/// Channels that are being subscribed and unsubscribed, beyond those.
const IN_FLIGHT: usize = 2 << 20;
/// The head of an answer with a file.
const ANSWER_HEAD: usize = 1 << 10;
/// Connections for operation, beside those of clients, that the formula counts on.
pub const ADMIN_CONNECTIONS: usize = 8;
/// A worker's connections for which there is no place, and which are only told so, that the formula counts on.
pub const CROWDED_CONNECTIONS: usize = 4;
/// Everything that there is once and whose size depends on nothing.
const CONSTANT: usize = 1 << 20;

/// The most memory that the core of an instance holds, in bytes: see [`Settings::memory_bound`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemoryBound {
    /// Whatever the number of connections.
    pub fixed: usize,
    /// For each connection beside that, if it is in the worst of its states.
    pub connection: usize,
}

impl Settings {
    /// What an instance can come to hold, however its clients and Redis behave. The terms, of
    /// [`Limits`](crate::limits::Limits) and the number of workers:
    ///
    /// | bytes | for |
    /// | --- | --- |
    /// | 4/3 `all_queues_bytes` | runs that wait, each once, and every entry of a queue; a third for the table of runs |
    /// | `partial_bytes` | unfinished messages |
    /// | 5 `publish_bytes` | publishes that wait for Redis or its confirmation, and their places in lists |
    /// | `workers` × 3/2 `mailbox_bytes` | what the bus has handed to workers, and its places in lists |
    /// | `workers` × 12 (64 KiB + `message_bytes`) | what one turn brings: it is taken in whole |
    /// | `workers` × (1 MiB + 8 KiB × `channel_bytes`) | buffers, and the publishes of one read, each with the name |
    /// | `lingering_channels` × 3 (512 + `channel_bytes`) | channels that nobody is in any more |
    /// | 8 + 4 `workers` connections | for operation, and without a place |
    /// | 4 (64 KiB + `message_bytes`) + 3 MiB | replies of Redis that are not whole, commands on their way, and constants |
    ///
    /// and for each connection `head_bytes`, or 24 KiB if that is more, or the largest of [`Settings::files`] and 1
    /// KiB, for its request, its answer, or a read that waits for credit, 4 KiB of an unfinished message and 4 KiB of
    /// what it has not taken; 3 `channel_bytes`; and 8 1/2 KiB: control frames that it does not take, its session and
    /// channel, and a channel that it has left and Redis has yet to unsubscribe.
    ///
    /// Not in it: what the embedder leaves unpolled, publishes and refuses with, or hands over as a leftover beyond
    /// `head_bytes`; what the allocator, the runtime and the kernel take. A sum beyond `usize::MAX` is that.
    #[must_use]
    pub fn memory_bound(&self) -> MemoryBound {
        let (limits, workers) = (&self.limits, self.workers);
        let read = limits.message_bytes.saturating_add(READ_FROM_REDIS);
        let names = limits.channel_bytes.saturating_mul(3);
        let file = self.files.values().map(|file| file.body.len().saturating_add(ANSWER_HEAD)).max().unwrap_or(0);
        let request = limits.head_bytes.max(OPEN).max(file);
        let each = sum(&[
            (limits.mailbox_bytes / 2, 3),
            (read, 12),
            (limits.channel_bytes, BUFFER_FACTOR * MESSAGES_OF_A_READ),
            (EMPTY_PUBLISH, PUBLISH_FACTOR * MESSAGES_OF_A_READ),
            (CONSTANT / 2, 1),
        ]);
        let connection = sum(&[(request, 1), (names, 1), (CONTROL_FRAMES + SESSION + UNWANTED, 1)]);
        let others = workers.saturating_mul(CROWDED_CONNECTIONS).saturating_add(ADMIN_CONNECTIONS);
        MemoryBound {
            fixed: sum(&[
                (connection, others),
                (limits.all_queues_bytes / 3, 4),
                (limits.partial_bytes, 1),
                (limits.publish_bytes, PUBLISH_FACTOR),
                (each, workers),
                (names.saturating_add(LINGERING + UNWANTED), limits.lingering_channels),
                (read, 4),
                (CONSTANT + IN_FLIGHT, 1),
            ]),
            connection,
        }
    }
}

/// Of products that may be beyond `usize`, which has 32 bits on some targets: then it is the largest.
const fn sum(mut terms: &[(usize, usize)]) -> usize {
    let mut sum = 0_usize;
    while let [(bytes, times), rest @ ..] = terms {
        sum = sum.saturating_add(bytes.saturating_mul(*times));
        terms = rest;
    }
    sum
}

impl MemoryBound {
    /// The most for so many connections.
    #[must_use]
    pub const fn with(&self, connections: usize) -> usize {
        self.fixed.saturating_add(self.connection.saturating_mul(connections))
    }

    /// The same for people.
    #[must_use]
    pub fn sentence(&self, connections: usize) -> String {
        let kib = |bytes: usize| Size(bytes.checked_next_multiple_of(1 << 10).unwrap_or(bytes) as u64);
        let mib = |bytes: usize| Size((bytes >> 20 << 20) as u64);
        format!(
            "memory: at most {}, of which {} for each of at most {connections} connections",
            mib(self.with(connections)),
            kib(self.connection)
        )
    }
}
