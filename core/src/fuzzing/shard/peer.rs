//! One client as the model sees it.

use core::ops::Range;
use std::collections::VecDeque;

use super::Said;
use crate::fuzzing::client::Client;
use crate::route::{FrameType, OnGap, Slow, Target};
use crate::time::Instant;

#[derive(Debug)]
pub(super) struct Peer<'a> {
    pub(super) target: Target,
    pub(super) phase: Phase,
    /// Frames that the client has not heard wholly.
    pub(super) queue: VecDeque<Frame>,
    /// Bytes of the first of them that it has heard.
    begun: usize,
    /// Since when a message of it waits for credit.
    pub(super) waits: Option<Instant>,
    /// The shard said not to read it, and has not named it since.
    pub(super) is_unread: bool,
    /// A message of the client's has begun and never ends.
    pub(super) is_amid: bool,
    /// The shard has named it since it was written to last.
    pub(super) is_named: bool,
    pub(super) is_blocked: bool,
    /// Since when it has been behind.
    pub(super) behind: Option<Instant>,
    /// The client says nothing more.
    pub(super) has_ended: bool,
    /// What it said before it was open, what was read of it elsewhere, and what waits for credit.
    pub(super) leftover: Vec<Said<'a>>,
    /// It ended behind that.
    ends_behind: bool,
    /// A gap has begun that its route does not keep it through.
    pub(super) is_doomed: bool,
    /// Messages of its own that were taken.
    pub(super) received: u64,
    /// Messages that it lost since it was told of any, or rather its embedder.
    pub(super) untold: u64,
    /// What it knows of what it does not get, if it wants to know.
    notes: Notes,
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
    pub(super) kind: Kind,
    /// Of a message, its number among all that this peer had a right to, from 1 on.
    pub(super) ordinal: u64,
    pub(super) len: usize,
    pub(super) payload: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Kind {
    Message,
    Gap,
    GapBegan,
    Dropped,
}

impl<'a> Peer<'a> {
    pub(super) fn new(client: Client, target: Target, phase: Phase) -> Self {
        Self {
            target,
            phase,
            queue: VecDeque::new(),
            begun: 0,
            waits: None,
            is_unread: false,
            is_amid: false,
            is_named: false,
            is_blocked: false,
            behind: None,
            has_ended: false,
            leftover: Vec::new(),
            ends_behind: false,
            is_doomed: false,
            received: 0,
            untold: 0,
            notes: Notes::default(),
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
        self.queue.iter().map(|frame| frame.len).sum::<usize>() - self.begun + 24 * self.pieces()
    }

    /// Pieces of runs that wait.
    pub(super) fn pieces(&self) -> usize {
        let mut pieces = 0;
        let mut next = None;
        for frame in &self.queue {
            pieces += usize::from(next != Some((frame.run, frame.index)));
            next = Some((frame.run, frame.index + 1));
        }
        pieces
    }

    /// Only the newest message is to wait for it.
    pub(super) fn keeps_latest(&self) -> bool {
        self.is_blocked && self.target.policies.slow == Slow::Latest && self.phase == Phase::Open
    }

    /// Loses the oldest message of which it has heard nothing. Says whether there was one.
    pub(super) fn drop_oldest(&mut self) -> bool {
        let begun = usize::from(self.begun > 0);
        let oldest = (begun..self.queue.len()).find(|&at| self.queue[at].kind == Kind::Message);
        self.untold += u64::from(oldest.is_some());
        oldest.is_some_and(|at| self.queue.remove(at).is_some())
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
        self.queue.iter().skip(usize::from(self.begun > 0)).filter(|frame| frame.kind == Kind::Message).count()
    }

    /// Messages come that it has a right to.
    pub(super) fn number(&mut self, frames: &[Frame]) -> Vec<Frame> {
        let first = self.notes.rights + 1;
        self.notes.rights += frames.len() as u64;
        (first..).zip(frames).map(|(ordinal, frame)| Frame { ordinal, ..frame.clone() }).collect()
    }

    /// Puts a note where messages are missing, in the place of one of its kind.
    pub(super) fn put_note(&mut self, note: Frame, is_in_front: bool) {
        if note.kind == Kind::Gap {
            self.notes.gaps.push(self.notes.rights);
        }
        let hole = self.hole(is_in_front);
        match hole.clone().find(|&at| self.queue[at].kind == note.kind) {
            Some(at) => self.queue[at] = note,
            None => self.queue.insert(hole.end, note),
        }
        if is_in_front {
            let is_gap = |at: &usize| self.queue[*at].kind == Kind::Gap;
            let gaps: Vec<usize> = self.hole(true).filter(is_gap).collect();
            for at in gaps.into_iter().rev().skip(1) {
                self.queue.remove(at);
            }
        }
    }

    /// A gap has ended of whose beginning it may not have heard.
    pub(super) fn drop_beginning(&mut self) {
        if let Some(at) = self.hole(false).find(|&at| self.queue[at].kind == Kind::GapBegan) {
            self.queue.remove(at);
        }
    }

    /// How many messages are missing by the note that would be replaced.
    pub(super) fn noted(&self, is_in_front: bool) -> u64 {
        let mut notes = self.hole(is_in_front).map(|at| &self.queue[at]).filter(|frame| frame.kind == Kind::Dropped);
        notes.next().map_or(0, |note| messages_in(&note.payload))
    }

    fn hole(&self, is_in_front: bool) -> Range<usize> {
        let begun = usize::from(self.begun > 0);
        let is_note = |frame: &&Frame| frame.kind != Kind::Message;
        if is_in_front {
            return begun..begun + self.queue.iter().skip(begun).take_while(is_note).count();
        }
        let len = self.queue.len();
        len - self.queue.iter().skip(begun).rev().take_while(is_note).count()..len
    }

    /// The client gets these bytes: the frames that are next, in their order.
    pub(super) fn hear(&mut self, bytes: &[u8], more: &[u8]) {
        let before = self.client.data_bytes;
        self.client.hear_some(bytes, more);
        self.hear_alive(more.is_empty());
        self.begun += self.client.data_bytes - before;
        let mut heard = self.client.messages.drain(..);
        while let Some(frame) = self.queue.front()
            && self.begun >= frame.len
        {
            let is_message = frame.kind == Kind::Message;
            let frame_type = if is_message { self.target.frame } else { FrameType::Binary };
            assert_eq!(heard.next(), Some((frame_type, frame.payload.clone())));
            assert!(is_message || self.target.notes, "a note for who wants none");
            if self.target.notes {
                self.notes.hear(frame);
            }
            self.begun -= frame.len;
            self.queue.pop_front();
        }
        assert_eq!(heard.next(), None, "nothing else is heard");
        assert!(self.begun == 0 || !self.queue.is_empty());
        drop(heard);
        self.note_behind(None);
    }

    /// Something of what waits has changed: it is behind from when its socket is full until nothing waits.
    pub(super) fn note_behind(&mut self, now: Option<Instant>) {
        if self.queue.is_empty() {
            self.behind = None;
        } else if self.is_blocked {
            self.behind = self.behind.or(now);
        }
    }

    /// Everything that waits is given up with its place.
    pub(super) fn drop_all(&mut self) {
        (self.begun, self.behind) = (0, None);
        self.queue.clear();
    }

    /// The client is told what was taken of its messages, and in the end of all of them.
    fn hear_alive(&mut self, is_all: bool) {
        for note in self.client.alive.drain(..) {
            let note = String::from_utf8(note).expect("JSON");
            let received = note.strip_prefix(r#"{"type":"alive","seconds":25.000,"received":"#).expect("a note");
            let received: u64 = received.trim_end_matches('}').parse().expect("a number");
            assert!(self.target.notes, "a note for who wants none");
            assert!(self.notes.received.is_none_or(|before| before <= received) && received <= self.received);
            self.notes.received = Some(received);
        }
        if is_all && self.target.notes && self.phase == Phase::Open {
            assert_eq!(self.notes.received, Some(self.received), "what was taken");
        }
    }

    pub(super) fn close(&mut self, reads: bool) {
        self.phase = Phase::Closing { reads };
        self.waits = None;
    }

    /// It reads too slowly: only the rest of a frame that has begun to leave still does.
    pub(super) fn drop_queue(&mut self) {
        self.queue.truncate(usize::from(self.begun > 0));
        self.note_behind(None);
        self.close(false);
    }

    /// Its stream ends, behind what is yet to be read of it.
    pub(super) fn end(&mut self) {
        if !self.leftover.is_empty() && matches!(self.phase, Phase::Open | Phase::Closing { .. }) {
            self.ends_behind = true;
        } else {
            self.end_input();
        }
    }

    /// Its end counts once all that was read before is taken in.
    pub(super) fn end_leftover(&mut self) {
        if self.leftover.is_empty() && std::mem::take(&mut self.ends_behind) {
            self.end_input();
        }
    }

    /// It gets a plain answer, and nothing that it says means anything.
    pub(super) fn answer(&mut self) {
        self.phase = Phase::Answered;
        self.leftover.clear();
    }

    /// It was handed over, and cannot be in its channel: what it said before is not taken.
    pub(super) fn turn_away(&mut self) {
        self.leftover.clear();
        self.close(true);
    }

    fn end_input(&mut self) {
        self.has_ended = true;
        if let Phase::Closing { reads } = &mut self.phase {
            *reads = false;
        }
    }

    /// Whether it asks whether the connection lives.
    pub(super) fn is_question(&self, said: &Said<'_>) -> bool {
        self.target.notes && !self.is_amid && matches!(said, Said::Message { is_text: false, bytes: b"" })
    }

    /// Whether what it says waits for credit.
    pub(super) fn needs_credit_for(&self, said: &Said<'_>) -> bool {
        let is_data = !matches!(said, Said::Ping(_) | Said::Close) && !self.is_question(said);
        is_data && self.phase == Phase::Open && self.target.rights.publish
    }

    /// Whoever has something to write and can write is named.
    pub(super) fn check_named(&self, has_output: bool) {
        assert!(self.is_named || self.is_blocked || !has_output, "forgotten: {self:?}");
    }
}

/// What a client knows of what it does not get.
#[derive(Debug, Default)]
struct Notes {
    /// How many messages there were that it had a right to.
    rights: u64,
    /// Behind which of them there were gaps.
    gaps: Vec<u64>,
    /// The last that came.
    heard: u64,
    /// Messages that are missing behind it, as the client was told.
    dropped: u64,
    /// Whether the client was told of a gap behind it.
    has_gap: bool,
    /// How many of its own messages were taken, as it was told last.
    received: Option<u64>,
}

impl Notes {
    /// A message comes only after notes of all that is missing before it.
    fn hear(&mut self, frame: &Frame) {
        match frame.kind {
            Kind::Gap => self.has_gap = true,
            Kind::GapBegan => {}
            Kind::Dropped => self.dropped += messages_in(&frame.payload),
            Kind::Message => {
                assert_eq!(self.dropped, frame.ordinal - self.heard - 1, "the sum of what is missing");
                let is_between = |gap: &u64| (self.heard..frame.ordinal).contains(gap);
                assert_eq!(self.has_gap, self.gaps.iter().any(is_between), "a gap");
                self.gaps.retain(|&gap| gap >= frame.ordinal);
                (self.heard, self.dropped, self.has_gap) = (frame.ordinal, 0, false);
            }
        }
    }
}

fn messages_in(payload: &[u8]) -> u64 {
    let digits: Vec<u8> = payload.iter().copied().filter(u8::is_ascii_digit).collect();
    String::from_utf8(digits).expect("digits").parse().expect("a number")
}
