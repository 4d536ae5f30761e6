//! The bus inside one process: publishes wait here until the next turn delivers them.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::exchange::publish_cost;

/// What one turn delivers, as one read from Redis would: sessions are written to in between, so that a flood of
/// publishes is held back by credit and does not make every session look like a slow reader.
const TURN_BYTES: usize = 64 << 10;

#[derive(Debug, Default)]
pub(super) struct Local {
    queue: VecDeque<(Bytes, Bytes)>,
    bytes: usize,
}

impl Local {
    pub(super) fn publish(&mut self, name: Bytes, payload: Bytes) {
        self.bytes += publish_cost(&name, payload.len());
        self.queue.push_back((name, payload));
    }

    /// Hands over the oldest publishes, and says how much credit they give back.
    pub(super) fn deliver(&mut self, mut sink: impl FnMut(&[u8], &[u8])) -> usize {
        let mut delivered = 0;
        while delivered < TURN_BYTES
            && let Some((name, payload)) = self.queue.pop_front()
        {
            delivered += publish_cost(&name, payload.len());
            sink(&name, &payload);
        }
        self.bytes -= delivered;
        if self.queue.is_empty() {
            self.queue = VecDeque::new();
        }
        delivered
    }

    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}
