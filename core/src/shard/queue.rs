//! The queue of one session: ranges of messages of shared runs, never copies.

#[cfg(test)]
use std::collections::HashMap;
use std::collections::VecDeque;
use std::io::IoSlice;
use std::num::NonZeroU32;
use std::ops::Range;
use std::sync::Arc;

use slab::Slab;

use crate::run::{Encoded, Form, Run};

pub(super) use self::notes::Missing;

mod dropping;
mod notes;
#[cfg(test)]
mod tests;

/// The runs that some session's queue still refers to.
#[derive(Debug, Default)]
pub(super) struct Runs {
    slots: Slab<Slot>,
    memory: usize,
}

#[derive(Debug)]
struct Slot {
    run: Arc<Run>,
    /// What it took in memory when it was counted last. Another worker may have made one more form of it since.
    memory: usize,
    entries: u32,
    content: Content,
}

/// What a run is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Content {
    Messages,
    /// One note of a gap that has ended.
    Gap,
    /// One note of a gap that has begun.
    GapBegan,
    /// One note of messages that were dropped, for one session.
    Dropped,
}

impl Runs {
    /// Keeps `run` until [`Runs::release`] was called as often as `entries` says.
    pub(super) fn hold(&mut self, run: Arc<Run>, content: Content, entries: u32) -> u32 {
        let memory = run.memory_in_all_forms();
        self.memory += memory + entries as usize * ENTRY_BYTES;
        index(self.slots.insert(Slot { run, memory, entries, content }))
    }

    /// Where the next [`Runs::hold`] will put its run.
    pub(super) fn next(&self) -> u32 {
        index(self.slots.vacant_key())
    }

    /// What all runs held take in memory, each counted once, and every entry that refers to them.
    pub(super) const fn memory(&self) -> usize {
        self.memory
    }

    /// A session has put the run into its queue in a form that may be new.
    fn count_forms(&mut self, run: u32) {
        let slot = &mut self.slots[run as usize];
        self.memory -= slot.memory;
        slot.memory = slot.run.memory_in_all_forms();
        self.memory += slot.memory;
    }

    /// Every run is held by as many entries as there are, by the run's place.
    #[cfg(test)]
    pub(super) fn check(&self, entries: &HashMap<u32, u32>) {
        let held = self.slots.iter().map(|(place, slot)| (place as u32, slot.entries)).collect();
        assert_eq!(entries, &held, "entries of runs");
        let memory = |slot: &Slot| slot.memory + slot.entries as usize * ENTRY_BYTES;
        assert_eq!(self.memory, self.slots.iter().map(|(_, slot)| memory(slot)).sum::<usize>());
    }

    /// One of the entries that [`Runs::hold`] counted is not wanted.
    pub(super) fn give_back(&mut self, run: u32) {
        let slot = &mut self.slots[run as usize];
        slot.entries -= 1;
        self.memory -= ENTRY_BYTES;
        if slot.entries == 0 {
            self.memory -= slot.memory;
            self.slots.remove(run as usize);
        }
    }

    fn get(&self, run: u32, form: Form) -> &Encoded {
        self.slots[run as usize].run.encoded(form)
    }

    fn content(&self, entry: &Entry) -> Content {
        self.slots[entry.run as usize].content
    }

    /// There is one more entry of the same run.
    fn hold_again(&mut self, entry: &Entry) {
        self.slots[entry.run as usize].entries += 1;
        self.memory += ENTRY_BYTES;
    }

    fn release(&mut self, entry: &Entry) {
        self.give_back(entry.run);
    }
}

/// Fewer than 2³² runs fit into the bounds of any configuration.
fn index(key: usize) -> u32 {
    u32::try_from(key).unwrap_or(u32::MAX)
}

/// Messages of a run that are still to leave, at least one.
#[derive(Clone, Copy, Debug)]
struct Entry {
    run: u32,
    first: u32,
    /// Behind the last. Never 0, so that an `Option` takes no more.
    end: NonZeroU32,
}

impl Entry {
    /// `None` without a message.
    fn new(run: u32, Range { start: first, end }: Range<u32>) -> Option<Self> {
        let end = NonZeroU32::new(end).filter(|end| first < end.get())?;
        Some(Self { run, first, end })
    }

    const fn messages(&self) -> Range<u32> {
        self.first..self.end.get()
    }
}

/// What an entry takes: a list that grows doubles, and one that shrinks halves.
const ENTRY_BYTES: usize = 2 * size_of::<Entry>();

/// The data frames that wait for one session, oldest first. Empty, it owns no memory.
#[derive(Debug, Default)]
pub(super) struct Queue {
    /// The oldest entry stands here, so that a session that keeps up never allocates.
    first: Option<Entry>,
    /// `None` or not empty.
    #[expect(clippy::box_collection, reason = "8 bytes instead of 32 in every session that keeps up")]
    rest: Option<Box<VecDeque<Entry>>>,
    bytes: usize,
    /// Bytes of the oldest message that have left in a partial write.
    sent: u32,
    /// The form in which its session gets every run.
    form: Form,
}

impl Queue {
    #[cfg(test)]
    pub(super) fn new(form: Form) -> Self {
        Self { form, ..Self::default() }
    }

    /// Bytes that wait.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// What it takes: all bytes that wait, and the entries behind the first.
    pub(super) fn memory(&self) -> usize {
        self.bytes + self.rest_len() * ENTRY_BYTES
    }

    /// How many bytes `run` is for its session.
    pub(super) fn len_of(&self, run: &Run) -> usize {
        run.encoded(self.form).bytes().len()
    }

    /// What it takes with one more run of `len` bytes behind the first.
    pub(super) fn memory_with(&self, len: usize) -> usize {
        self.memory() + len + if self.first.is_some() { ENTRY_BYTES } else { 0 }
    }

    /// Whether the runs of which something waits take no more than `most` bytes, all of each.
    pub(super) fn keeps_at_most(&self, runs: &Runs, most: Option<usize>) -> bool {
        let take = |left: usize, entry: &Entry| left.checked_sub(runs.slots[entry.run as usize].memory);
        most.and_then(|most| self.entries().try_fold(most, take)).is_some()
    }

    /// How long one more run may be within `bound`.
    fn room(&self, bound: usize) -> usize {
        bound.saturating_sub(self.memory_with(0))
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    /// Appends these messages of the run that [`Runs::hold`] puts at `place`. Returns whether there are any.
    pub(super) fn push_part(&mut self, place: u32, run: &Run, messages: Range<u32>) -> bool {
        let len = run.encoded(self.form).span(messages.clone());
        self.push(place, messages, len)
    }

    /// Like [`Queue::push_part`], for messages that are known to be `len` bytes.
    pub(super) fn push(&mut self, place: u32, messages: Range<u32>, len: usize) -> bool {
        let Some(entry) = Entry::new(place, messages) else { return false };
        self.bytes += len;
        if self.first.is_none() {
            self.first = Some(entry);
        } else {
            self.rest.get_or_insert_default().push_back(entry);
        }
        true
    }

    /// Bytes of a message of which a part has left already. Nothing may stand between the two.
    pub(super) fn begun<'a>(&self, runs: &'a Runs) -> &'a [u8] {
        let Some(entry) = self.first.as_ref().filter(|_| self.sent > 0) else { return &[] };
        let encoded = runs.get(entry.run, self.form);
        &encoded.bytes()[encoded.start(entry.first) + self.sent as usize..encoded.start(entry.first + 1)]
    }

    /// Lends what waits from byte `skip` on, in order, into `out`; says how many slices it filled.
    pub(super) fn slices<'a>(&self, runs: &'a Runs, mut skip: usize, out: &mut [IoSlice<'a>]) -> usize {
        // A session that keeps up has one entry, and then it is all that waits.
        if let (Some(only), None, 0, [first, ..]) = (&self.first, &self.rest, skip, &mut *out) {
            let encoded = runs.get(only.run, self.form);
            let start = encoded.start(only.first) + self.sent as usize;
            *first = IoSlice::new(&encoded.bytes()[start..start + self.bytes]);
            return 1;
        }
        skip += self.sent as usize;
        let mut filled = 0;
        for entry in self.entries() {
            if filled == out.len() {
                break;
            }
            let encoded = runs.get(entry.run, self.form);
            let (start, end) = (encoded.start(entry.first), encoded.start(entry.end.get()));
            let taken = skip.min(end - start);
            skip -= taken;
            if taken < end - start {
                out[filled] = IoSlice::new(&encoded.bytes()[start + taken..end]);
                filled += 1;
            }
        }
        filled
    }

    /// `n` bytes have left, or as many as there were.
    #[inline]
    pub(super) fn sent(&mut self, runs: &mut Runs, n: usize) {
        // A socket nearly always takes everything.
        if n < self.bytes { self.sent_partly(runs, n) } else { self.clear(runs) }
    }

    fn sent_partly(&mut self, runs: &mut Runs, n: usize) {
        self.bytes -= n;
        let mut n = n + self.sent as usize;
        while let Some(entry) = &mut self.first {
            let encoded = runs.get(entry.run, self.form);
            let left = encoded.span(entry.messages());
            if n < left {
                let at = encoded.start(entry.first) + n;
                entry.first = encoded.message_at(at);
                // A run is shorter than 4 GiB.
                self.sent = (at - encoded.start(entry.first)) as u32;
                break;
            }
            n -= left;
            self.drop_first(runs);
        }
    }

    /// Drops all messages of which nothing has left.
    pub(super) fn drop_unbegun(&mut self, runs: &mut Runs) {
        let begun = self.begun(runs).len();
        while let Some(entry) = self.pop_rest() {
            runs.release(&entry);
        }
        match &mut self.first {
            Some(entry) if begun > 0 => entry.end = NonZeroU32::MIN.saturating_add(entry.first),
            _ => self.clear(runs),
        }
        self.bytes = begun;
    }

    /// Drops everything.
    pub(super) fn clear(&mut self, runs: &mut Runs) {
        while self.first.is_some() {
            self.drop_first(runs);
        }
        self.bytes = 0;
    }

    #[cfg(test)]
    pub(super) fn count_entries(&self, runs: &Runs, entries: &mut HashMap<u32, u32>) {
        let mut bytes = 0;
        for entry in self.entries() {
            *entries.entry(entry.run).or_default() += 1;
            bytes += runs.get(entry.run, self.form).span(entry.messages());
        }
        assert_eq!(self.bytes + self.sent as usize, bytes, "bytes that wait");
    }

    #[cfg(test)]
    pub(super) fn is_single_run(&self) -> bool {
        self.rest.is_none()
    }

    // Entries by their place, the oldest at 0.

    fn entries(&self) -> impl DoubleEndedIterator<Item = &Entry> {
        self.first.iter().chain(self.rest.iter().flat_map(|rest| rest.iter()))
    }

    pub(super) fn len(&self) -> usize {
        usize::from(self.first.is_some()) + self.rest_len()
    }

    fn rest_len(&self) -> usize {
        self.rest.as_ref().map_or(0, |rest| rest.len())
    }

    fn entry(&self, index: usize) -> Option<&Entry> {
        match index.checked_sub(1) {
            None => self.first.as_ref(),
            Some(index) => self.rest.as_ref()?.get(index),
        }
    }

    fn replace(&mut self, index: usize, entry: Entry) -> Option<Entry> {
        match index.checked_sub(1) {
            None => self.first.replace(entry),
            Some(index) => Some(std::mem::replace(self.rest.as_mut()?.get_mut(index)?, entry)),
        }
    }

    fn insert(&mut self, index: usize, entry: Entry) {
        let pushed_back = if index == 0 { self.first.replace(entry) } else { Some(entry) };
        if let Some(entry) = pushed_back {
            self.rest.get_or_insert_default().insert(index.saturating_sub(1), entry);
        }
    }

    fn remove(&mut self, index: usize) -> Option<Entry> {
        let Some(index) = index.checked_sub(1) else {
            let rest = self.pop_rest();
            return std::mem::replace(&mut self.first, rest);
        };
        let rest = self.rest.as_mut()?;
        let entry = rest.remove(index);
        if rest.is_empty() {
            self.rest = None;
        }
        entry
    }

    fn drop_first(&mut self, runs: &mut Runs) {
        if let Some(entry) = self.first.take() {
            runs.release(&entry);
        }
        self.sent = 0;
        self.first = self.pop_rest();
    }

    fn pop_rest(&mut self) -> Option<Entry> {
        let rest = self.rest.as_mut()?;
        let entry = rest.pop_front();
        if rest.is_empty() {
            self.rest = None;
        } else if rest.len() < rest.capacity() / 4 {
            rest.shrink_to(rest.capacity() / 2);
        }
        entry
    }
}
