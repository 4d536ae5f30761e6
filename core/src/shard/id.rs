//! The identifiers of sessions and subscribers.

/// Names a session, for as long as it lives and never another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId {
    pub(super) index: u32,
    pub(super) generation: u32,
}

impl SessionId {
    /// A small number, unique among the living sessions of a shard: a place for the embedder's own table.
    ///
    /// It is free for another as soon as its session has ended, which can be before `Closed` is polled. So keep the
    /// whole id in the table, too, and compare it.
    #[must_use]
    pub const fn index(self) -> usize {
        self.index as usize
    }
}

/// Names a subscriber that is not a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubscriberId(pub(super) u64);
