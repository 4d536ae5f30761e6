//! Dropping messages from a full queue: whole ones, of which no byte has left.

use super::{Content, Entry, Queue, Runs};
use crate::run::Run;

impl Queue {
    /// Drops what waits longest until there is room within `bound` for one more run of `len` bytes, or nothing is left
    /// that may be dropped. Says how many messages it were.
    pub(in crate::shard) fn drop_oldest(&mut self, runs: &mut Runs, len: usize, bound: usize) -> u64 {
        let mut dropped = 0;
        while let excess = self.memory_with(len).saturating_sub(bound)
            && excess > 0
            && let Some(messages) = self.cut_oldest(runs, |run, start, end| run.boundary(start + excess).min(end))
        {
            dropped += messages;
        }
        dropped
    }

    /// Drops every message. Says how many they were.
    pub(in crate::shard) fn drop_messages(&mut self, runs: &mut Runs) -> u64 {
        let mut dropped = 0;
        while let Some(messages) = self.cut_oldest(runs, |_, _, end| end) {
            dropped += messages;
        }
        dropped
    }

    /// Drops every message but the newest. Says how many they were.
    pub(in crate::shard) fn keep_newest(&mut self, runs: &mut Runs) -> u64 {
        let messages = self.entries().filter(|entry| runs.content(entry) == Content::Messages).map(|entry| {
            let run = runs.get(entry);
            let start = run.boundary(entry.at as usize);
            run.messages_in(start, entry.end as usize)
        });
        let dropped = messages.sum::<u64>().saturating_sub(1);
        let mut left = dropped;
        while left > 0
            && let Some(messages) = self.cut_oldest(runs, |run, start, end| {
                let here = run.messages_in(start, end).min(left);
                run.start((run.messages_in(0, start) + here) as usize)
            })
        {
            left -= messages;
        }
        dropped - left
    }

    /// Drops the oldest messages of the oldest entry that has any of which nothing has left, up to where `to` says, given
    /// the run and from where to where they are. Says how many they were; `None` if there is no such entry.
    fn cut_oldest(&mut self, runs: &mut Runs, to: impl FnOnce(&Run, usize, usize) -> usize) -> Option<u64> {
        let (index, entry, start) = self.entries().enumerate().find_map(|(index, entry)| {
            let start = runs.get(entry).boundary(entry.at as usize);
            let may_go = runs.content(entry) == Content::Messages && start < entry.end as usize;
            may_go.then_some((index, *entry, start))
        })?;
        let run = runs.get(&entry);
        let (has_begun, end) = (start > entry.at as usize, entry.end as usize);
        let to = to(run, start, end);
        let messages = run.messages_in(start, to);
        self.bytes -= to - start;
        // Offsets in a run are below 4 GiB.
        let rest = (to < end).then_some(Entry { at: to as u32, ..entry });
        let begun = has_begun.then_some(Entry { end: start as u32, ..entry });
        match (begun, rest) {
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
        Some(messages)
    }
}
