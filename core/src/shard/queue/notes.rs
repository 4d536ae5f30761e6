//! Notes among waiting messages: each stands where messages are missing, and at each place there is one of a kind.

use core::num::NonZeroU32;
use core::ops::Range;

use super::{Content, Entry, Queue, Runs};

/// Where messages are missing that a session did not get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::shard) enum Missing {
    /// Before all that wait, but for a message that has begun to leave.
    Before,
    /// Behind all that wait.
    Behind,
}

impl Queue {
    /// Puts the note that [`Runs::hold`] put at `note` where messages are missing. It takes the place of one of its kind
    /// that is there and has not begun to leave.
    pub(in crate::shard) fn put_note(&mut self, runs: &mut Runs, note: u32, missing: Missing) {
        let entry = Entry { run: note, first: 0, end: NonZeroU32::MIN };
        let content = runs.content(&entry);
        self.bytes += runs.get(note, self.form).bytes().len();
        runs.count_forms(note);
        match self.note_at(runs, content, missing) {
            Some(index) => {
                let old = self.replace(index, entry);
                self.let_go(runs, old);
            }
            None => self.insert(self.hole(runs, missing).end, entry),
        }
    }

    /// Whether a note of this kind stands there and has not begun to leave.
    pub(in crate::shard) fn has_note(&self, runs: &Runs, content: Content, missing: Missing) -> bool {
        self.note_at(runs, content, missing).is_some()
    }

    /// Drops a note of this kind that stands behind all that wait and has not begun to leave.
    pub(in crate::shard) fn drop_note(&mut self, runs: &mut Runs, content: Content) {
        if let Some(index) = self.note_at(runs, content, Missing::Behind) {
            let old = self.remove(index);
            self.let_go(runs, old);
        }
    }

    /// Of several notes of a gap that stand before the oldest message, now that what was between them is gone, only the
    /// last stays.
    pub(in crate::shard) fn merge_gaps(&mut self, runs: &mut Runs) {
        let hole = self.hole(runs, Missing::Before);
        let is_gap = |index: &usize| self.entry(*index).is_some_and(|entry| runs.content(entry) == Content::Gap);
        let gaps: Vec<usize> = hole.filter(is_gap).collect();
        for &index in gaps.iter().rev().skip(1) {
            let old = self.remove(index);
            self.let_go(runs, old);
        }
    }

    fn let_go(&mut self, runs: &mut Runs, entry: Option<Entry>) {
        if let Some(entry) = entry {
            self.bytes -= runs.get(entry.run, self.form).span(entry.messages());
            runs.release(&entry);
        }
    }

    fn note_at(&self, runs: &Runs, content: Content, missing: Missing) -> Option<usize> {
        let is_it = |index: &usize| self.entry(*index).is_some_and(|entry| runs.content(entry) == content);
        self.hole(runs, missing).find(is_it)
    }

    /// The notes that stand there, which may be none.
    fn hole(&self, runs: &Runs, missing: Missing) -> Range<usize> {
        let is_note = |entry: &&Entry| runs.content(entry) != Content::Messages;
        let begun = usize::from(self.sent > 0);
        match missing {
            Missing::Before => begun..begun + self.entries().skip(begun).take_while(is_note).count(),
            Missing::Behind => {
                let len = self.len();
                let notes = self.entries().rev().take(len - begun).take_while(is_note).count();
                len - notes..len
            }
        }
    }
}
