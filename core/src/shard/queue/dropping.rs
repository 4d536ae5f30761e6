//! Dropping messages from a full queue: whole ones, of which no byte has left.

use std::ops::Range;

use super::{Content, Entry, Queue, Runs};
use crate::run::{Encoded, Run};

/// What a session that is behind gets of a run, and how many messages it loses of the run and of what waited.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::shard) struct Kept {
    pub(in crate::shard) messages: Range<u32>,
    pub(in crate::shard) lost: u64,
}

impl Queue {
    /// Keeps as many of the run's first messages as there is room for within `bound`.
    pub(in crate::shard) fn keep_first(&self, run: &Run, bound: usize) -> Kept {
        let encoded = run.encoded(self.form);
        let end = encoded.message_at(self.room(bound));
        Kept { messages: 0..end, lost: u64::from(encoded.messages() - end) }
    }

    /// Drops what waits longest, and keeps as many of the run's last messages as there is room for within `bound`.
    pub(in crate::shard) fn keep_last(&mut self, runs: &mut Runs, run: &Run, bound: usize) -> Kept {
        let dropped = self.drop_oldest(runs, self.len_of(run), bound);
        self.end_of(run, bound, 0, dropped)
    }

    /// Drops every message that waits, and keeps the run's last one if there is room for it within `bound`.
    pub(in crate::shard) fn keep_only_last(&mut self, runs: &mut Runs, run: &Run, bound: usize) -> Kept {
        let dropped = self.drop_messages(runs);
        let last = run.encoded(self.form).messages().saturating_sub(1);
        self.end_of(run, bound, last, dropped)
    }

    /// The part of the run from message `least` or a later one on that fits, now that `dropped` messages have made room.
    fn end_of(&self, run: &Run, bound: usize, least: u32, dropped: u64) -> Kept {
        let encoded = run.encoded(self.form);
        let start = encoded.starting_from(encoded.bytes().len().saturating_sub(self.room(bound))).max(least);
        Kept { messages: start..encoded.messages(), lost: dropped + u64::from(start) }
    }

    /// Drops what waits longest until there is room within `bound` for one more run of `len` bytes, or nothing is left
    /// that may be dropped. Says how many messages it were.
    fn drop_oldest(&mut self, runs: &mut Runs, len: usize, bound: usize) -> u64 {
        let mut dropped = 0;
        while let excess = self.memory_with(len).saturating_sub(bound)
            && excess > 0
            && let Some(messages) =
                self.cut_oldest(runs, |encoded, first| encoded.starting_from(encoded.start(first) + excess))
        {
            dropped += messages;
        }
        dropped
    }

    /// Drops every message. Says how many they were.
    pub(in crate::shard) fn drop_messages(&mut self, runs: &mut Runs) -> u64 {
        let mut dropped = 0;
        while let Some(messages) = self.cut_oldest(runs, |encoded, _| encoded.messages()) {
            dropped += messages;
        }
        dropped
    }

    /// Drops every message but the newest. Says how many they were.
    pub(in crate::shard) fn keep_newest(&mut self, runs: &mut Runs) -> u64 {
        let unbegun = self.entries().enumerate().filter(|(_, entry)| runs.content(entry) == Content::Messages);
        let messages: u64 = unbegun.map(|(index, entry)| self.unbegun(index, entry).len() as u64).sum();
        let dropped = messages.saturating_sub(1);
        let mut left = dropped;
        while left > 0
            && let Some(messages) = self.cut_oldest(runs, |_, first| {
                // No run has so many that it matters.
                first.saturating_add(u32::try_from(left).unwrap_or(u32::MAX))
            })
        {
            left -= messages;
        }
        dropped - left
    }

    /// Drops the oldest messages of the oldest entry that has any of which nothing has left: those before the one that
    /// `to` says, given the run and the first that may go. Says how many they were; `None` if there is no such entry.
    fn cut_oldest(&mut self, runs: &mut Runs, to: impl FnOnce(&Encoded, u32) -> u32) -> Option<u64> {
        let (index, entry, Range { start, end }) = self.entries().enumerate().find_map(|(index, entry)| {
            let unbegun = self.unbegun(index, entry);
            let may_go = runs.content(entry) == Content::Messages && !unbegun.is_empty();
            may_go.then_some((index, *entry, unbegun))
        })?;
        let encoded = runs.get(entry.run, self.form);
        let to = to(encoded, start).min(end);
        self.bytes -= encoded.span(start..to);
        match (Entry::new(entry.run, entry.first..start), Entry::new(entry.run, to..end)) {
            (None, None) => {
                self.remove(index);
                runs.release(&entry);
            }
            (Some(one), None) | (None, Some(one)) => drop(self.replace(index, one)),
            (Some(begun), Some(rest)) => {
                self.replace(index, begun);
                runs.hold_again(&rest);
                self.insert(index + 1, rest);
            }
        }
        Some(u64::from(to - start))
    }

    /// The messages of the entry at `index` of which nothing has left.
    fn unbegun(&self, index: usize, entry: &Entry) -> Range<u32> {
        entry.first + u32::from(index == 0 && self.sent > 0)..entry.end.get()
    }
}
