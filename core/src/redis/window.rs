//! The window: how far publishing may be ahead of reading.
//!
//! Redis keeps what a subscriber has not read and cuts the subscriber off when that is too much
//! (`client-output-buffer-limit pubsub`). An instance that publishes faster than it reads its own messages would be cut
//! off again and again. So marks leave between the publishes, on the channel of the probe: a mark that comes in says that
//! everything before it has come in.

/// Bytes of publishes ahead of the last mark that came in. A quarter of what Redis lets a subscriber be behind for long by
/// default (`32mb 8mb 60`), so that several instances may flood the same channels.
pub(super) const WINDOW: u64 = 2 << 20;

/// Positions count the bytes of publishes that were sent, over all connections.
#[derive(Debug)]
pub(super) struct Window {
    /// Nothing tells what has come in: everything may leave.
    is_open: bool,
    sent: u64,
    /// What has come in, or never will.
    settled: u64,
    /// Where the last mark stands.
    marked: u64,
}

impl Default for Window {
    fn default() -> Self {
        Self { is_open: true, sent: 0, settled: 0, marked: 0 }
    }
}

impl Window {
    pub(super) const fn handle_sent(&mut self, bytes: usize) {
        self.sent += bytes as u64;
    }

    /// Whether another command may leave when `granted` bytes will before it.
    pub(super) const fn has_room(&self, granted: usize) -> bool {
        self.is_open || self.sent + granted as u64 - self.settled < WINDOW
    }

    /// The position of a mark that is to leave now.
    pub(super) const fn due_mark(&mut self) -> Option<u64> {
        if self.is_open || self.sent - self.marked < WINDOW / 4 {
            return None;
        }
        self.marked = self.sent;
        Some(self.sent)
    }

    pub(super) fn handle_mark(&mut self, position: u64) {
        self.settled = self.settled.max(position.min(self.sent));
    }

    /// A connection is gone, and with it the marks that were on their way.
    pub(super) const fn handle_lost(&mut self) {
        self.settled = self.sent;
        self.marked = self.sent;
    }

    /// Returns whether that is a change.
    pub(super) const fn set_open(&mut self, is_open: bool) -> bool {
        let is_new = self.is_open != is_open;
        if is_new {
            self.is_open = is_open;
            self.handle_lost();
        }
        is_new
    }
}
