//! One client as the model sees it.

use std::collections::VecDeque;

use crate::fuzzing::client::Client;
use crate::route::{OnGap, Slow, Target};
use crate::time::Instant;

#[derive(Debug)]
pub(super) struct Peer {
    pub(super) target: Target,
    pub(super) phase: Phase,
    /// Frames that the client has not heard wholly.
    pub(super) queue: VecDeque<Frame>,
    /// Bytes of the first of them that it has heard.
    begun: usize,
    /// Since when it waits for credit.
    pub(super) paused: Option<Instant>,
    /// The shard said not to read it, and has not named it since.
    pub(super) is_unread: bool,
    /// A message of the client's has begun and never ends.
    pub(super) is_amid: bool,
    /// The shard has named it since it was written to last.
    pub(super) is_named: bool,
    pub(super) is_blocked: bool,
    /// The client says nothing more.
    pub(super) has_ended: bool,
    /// A gap has begun that its route does not keep it through.
    pub(super) is_doomed: bool,
    /// Messages that it lost since it was told of any, or rather its embedder.
    pub(super) untold: u64,
    client: Client,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Phase {
    Asked {
        until: Instant,
    },
    Joining {
        until: Instant,
        is_adopted: bool,
    },
    Open,
    /// A Close of ours is on its way or out. Whether what the client says still counts.
    Closing {
        reads: bool,
    },
    /// A plain answer is on its way or out.
    Answered,
}

#[derive(Clone, Debug)]
pub(super) struct Frame {
    /// The number of its run.
    pub(super) run: usize,
    /// Its number in the run.
    pub(super) index: usize,
    pub(super) len: usize,
    pub(super) payload: Vec<u8>,
}

impl Peer {
    pub(super) fn new(client: Client, target: Target, phase: Phase) -> Self {
        Self {
            target,
            phase,
            queue: VecDeque::new(),
            begun: 0,
            paused: None,
            is_unread: false,
            is_amid: false,
            is_named: false,
            is_blocked: false,
            has_ended: false,
            is_doomed: false,
            untold: 0,
            client,
        }
    }

    /// Whether it is in its channel.
    pub(super) fn is_member(&self) -> bool {
        self.target.rights.subscribe && matches!(self.phase, Phase::Joining { .. } | Phase::Open) && !self.is_doomed
    }

    /// Whether a gap is the end of it.
    pub(super) fn dies_of_gaps(&self) -> bool {
        self.is_member() && self.phase == Phase::Open && self.target.policies.on_gap == OnGap::Close
    }

    /// Bytes that it has yet to hear, and 24 for each piece of a run among them.
    pub(super) fn queue_memory(&self) -> usize {
        let mut pieces = 0;
        let mut next = None;
        for frame in &self.queue {
            pieces += usize::from(next != Some((frame.run, frame.index)));
            next = Some((frame.run, frame.index + 1));
        }
        self.queue.iter().map(|frame| frame.len).sum::<usize>() - self.begun + 24 * pieces
    }

    /// Only the newest message is to wait for it.
    pub(super) fn keeps_latest(&self) -> bool {
        self.is_blocked && self.target.policies.slow == Slow::Latest && self.phase == Phase::Open
    }

    /// Loses the oldest message of which it has heard nothing. Says whether there was one.
    pub(super) fn drop_oldest(&mut self) -> bool {
        let is_there = self.queue.remove(usize::from(self.begun > 0)).is_some();
        self.untold += u64::from(is_there);
        is_there
    }

    /// Takes of a run what its policy lets it have, although not all of it and of what waits fits. Says how many messages
    /// it took.
    pub(super) fn take_what_fits(&mut self, frames: &[Frame], is_full: bool, bound: usize) -> u64 {
        let len = |frames: &[Frame]| frames.iter().map(|frame| frame.len).sum::<usize>();
        let mut taken = frames;
        if self.target.policies.slow == Slow::DropNewest {
            while let Some((_, rest)) = taken.split_last()
                && (is_full || self.queue_memory() + len(taken) > bound)
            {
                taken = rest;
            }
        } else {
            let only_newest = is_full || self.keeps_latest();
            while (only_newest || self.queue_memory() + len(taken) > bound) && self.drop_oldest() {}
            while let Some((_, rest)) = taken.split_first()
                && (only_newest && !rest.is_empty() || self.queue_memory() + len(taken) > bound)
            {
                taken = rest;
            }
        }
        self.untold += (frames.len() - taken.len()) as u64;
        self.queue.extend(taken.iter().cloned());
        taken.len() as u64
    }

    /// How many messages it has heard nothing of.
    pub(super) fn unheard(&self) -> usize {
        self.queue.len() - usize::from(self.begun > 0)
    }

    /// The client gets these bytes: the frames that are next, in their order.
    pub(super) fn hear(&mut self, bytes: &[u8]) {
        let before = self.client.data_bytes;
        self.client.hear(bytes);
        self.begun += self.client.data_bytes - before;
        let mut heard = self.client.messages.drain(..);
        while let Some(frame) = self.queue.front()
            && self.begun >= frame.len
        {
            assert_eq!(heard.next(), Some((self.target.frame, frame.payload.clone())));
            self.begun -= frame.len;
            self.queue.pop_front();
        }
        assert_eq!(heard.next(), None, "nothing else is heard");
        assert!(self.begun == 0 || !self.queue.is_empty());
    }

    pub(super) fn close(&mut self, reads: bool) {
        self.phase = Phase::Closing { reads };
        self.paused = None;
    }

    /// It reads too slowly: only the rest of a frame that has begun to leave still does.
    pub(super) fn drop_queue(&mut self) {
        self.queue.truncate(usize::from(self.begun > 0));
        self.close(false);
    }

    pub(super) fn end_input(&mut self) {
        self.has_ended = true;
        if let Phase::Closing { reads } = &mut self.phase {
            *reads = false;
        }
    }

    /// Whoever has something to write and can write is named.
    pub(super) fn check_named(&self, has_output: bool) {
        assert!(self.is_named || self.is_blocked || !has_output, "forgotten: {self:?}");
    }
}
