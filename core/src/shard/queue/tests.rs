//! A queue in every form beside a list of single messages, which says what waits and what that costs.

use std::collections::{HashMap, VecDeque};
use std::io::IoSlice;
use std::sync::Arc;

use super::dropping::Kept;
use super::{Content, ENTRY_BYTES, Entry, Missing, Queue, Runs};
use crate::note::Note;
use crate::route::{FrameType, Slow};
use crate::run::{Encoded, Form, Run, RunBuilder};
use crate::ws::tests::seeded;

const FORMS: [Form; 2] = [Form::Frames, Form::Events];

/// One message that waits.
#[derive(Debug)]
struct Item {
    /// The number of its run among all that there were.
    run: usize,
    message: usize,
    content: Content,
    bytes: Vec<u8>,
}

/// A session's queue and what should be in it.
struct Twin {
    form: Form,
    queue: Queue,
    items: VecDeque<Item>,
    /// Bytes of the first that have left.
    sent: usize,
    /// Messages lost in the last note of a drop.
    noted: u64,
}

/// What a payload is in a form, said in other words than the code's.
fn encoded(form: Form, is_note: bool, payload: &str) -> Vec<u8> {
    match form {
        Form::Frames => {
            let opcode = if is_note { 0x82 } else { 0x81 };
            let short = u8::try_from(payload.len()).ok().filter(|&len| len < 126);
            let mut frame = vec![opcode, short.unwrap_or(126)];
            if short.is_none() {
                frame.extend_from_slice(&(payload.len() as u16).to_be_bytes());
            }
            [frame, payload.into()].concat()
        }
        Form::Events => format!("data: {}\n\n", payload.replace('\n', "\ndata: ")).into(),
    }
}

fn lent(slices: &[IoSlice<'_>]) -> Vec<u8> {
    slices.iter().flat_map(|slice| slice.iter().copied()).collect()
}

fn run_of(payloads: &[String]) -> Arc<Run> {
    let mut builder = RunBuilder::new(FrameType::Text);
    payloads.iter().for_each(|payload| builder.push(payload.as_bytes()).unwrap());
    Arc::new(builder.finish())
}

impl Twin {
    fn new(form: Form) -> Self {
        Self { form, queue: Queue::new(form), items: VecDeque::new(), sent: 0, noted: 0 }
    }

    fn items_of(&self, number: usize, payloads: &[String]) -> Vec<Item> {
        let item = |(message, payload): (usize, &String)| {
            let bytes = encoded(self.form, false, payload);
            Item { run: number, message, content: Content::Messages, bytes }
        };
        payloads.iter().enumerate().map(item).collect()
    }

    fn bytes(&self) -> usize {
        self.items.iter().map(|item| item.bytes.len()).sum::<usize>() - self.sent
    }

    /// Messages side by side in a run are one entry.
    fn entries(&self) -> usize {
        let is_new = |(before, item): &(&Item, &Item)| (before.run, before.message + 1) != (item.run, item.message);
        let between = self.items.iter().zip(self.items.iter().skip(1)).filter(is_new).count();
        between + usize::from(!self.items.is_empty())
    }

    fn memory(&self) -> usize {
        self.bytes() + self.entries().saturating_sub(1) * ENTRY_BYTES
    }

    fn memory_with(&self, len: usize) -> usize {
        self.memory() + len + if self.items.is_empty() { 0 } else { ENTRY_BYTES }
    }

    fn room(&self, bound: usize) -> usize {
        bound.saturating_sub(self.memory_with(0))
    }

    fn begun(&self) -> usize {
        usize::from(self.sent > 0)
    }

    fn drop_oldest(&mut self) -> bool {
        let may_go = |(index, item): (usize, &Item)| index >= self.begun() && item.content == Content::Messages;
        let oldest = self.items.iter().enumerate().position(may_go);
        oldest.is_some_and(|index| self.items.remove(index).is_some())
    }

    fn write(&mut self, runs: &mut Runs, mut n: usize) {
        self.queue.sent(runs, n);
        n = n.min(self.bytes()) + self.sent;
        while let Some(item) = self.items.front().filter(|item| item.bytes.len() <= n) {
            n -= item.bytes.len();
            self.items.pop_front();
        }
        self.sent = n;
        if self.items.is_empty() {
            self.noted = 0;
        }
    }

    /// A run that was put at `place`, for a session of that policy. `is_latest` if its socket is full.
    fn deliver(&mut self, runs: &mut Runs, (place, run): (u32, &Run), items: Vec<Item>, slow: Slow, bound: usize) {
        let all = items.len();
        let len: usize = items.iter().map(|item| item.bytes.len()).sum();
        assert_eq!(self.queue.len_of(run), len);
        assert_eq!(self.queue.memory_with(len), self.memory_with(len));
        if slow == Slow::Close || slow != Slow::Latest && self.memory_with(len) <= bound {
            assert!(self.queue.push(place, 0..all as u32, len));
            self.items.extend(items);
            return;
        }
        let (kept, expected) = match slow {
            Slow::Close | Slow::DropNewest => {
                let mut room = self.room(bound);
                let fits = |item: &&Item| room.checked_sub(item.bytes.len()).inspect(|left| room = *left).is_some();
                let fitting = items.iter().take_while(fits).count() as u32;
                (
                    self.queue.keep_first(run, bound),
                    Kept { messages: 0..fitting, lost: u64::from(all as u32 - fitting) },
                )
            }
            Slow::DropOldest | Slow::Latest => {
                let is_latest = slow == Slow::Latest;
                let mut lost = 0;
                while (is_latest || self.memory_with(len) > bound) && self.drop_oldest() {
                    lost += 1;
                }
                let mut room = self.room(bound);
                let fits = |item: &&Item| room.checked_sub(item.bytes.len()).inspect(|left| room = *left).is_some();
                let most = if is_latest { 1 } else { all };
                let start = (all - items.iter().rev().take_while(fits).count().min(most)) as u32;
                let kept = if is_latest {
                    self.queue.keep_only_last(runs, run, bound)
                } else {
                    self.queue.keep_last(runs, run, bound)
                };
                (kept, Kept { messages: start..all as u32, lost: lost + u64::from(start) })
            }
        };
        assert_eq!(kept, expected, "{slow:?}");
        let messages = kept.messages.clone();
        self.items.extend(items.into_iter().filter(|item| messages.contains(&(item.message as u32))));
        if !self.queue.push_part(place, run, kept.messages) {
            runs.give_back(place);
        }
        self.note_dropped(runs, kept.lost, slow);
    }

    fn note_dropped(&mut self, runs: &mut Runs, lost: u64, slow: Slow) {
        if lost == 0 {
            return;
        }
        let missing = if slow == Slow::DropNewest { Missing::Behind } else { Missing::Before };
        let is_more = self.hole(missing).any(|index| self.items[index].content == Content::Dropped);
        assert_eq!(self.queue.has_note(runs, Content::Dropped, missing), is_more);
        self.noted = lost + if is_more { self.noted } else { 0 };
        self.put_note(runs, Note::Dropped { messages: self.noted }, Content::Dropped, missing);
        if missing == Missing::Before {
            self.queue.merge_gaps(runs);
            let is_gap = |index: &usize| self.items[*index].content == Content::Gap;
            let gaps: Vec<usize> = self.hole(missing).filter(is_gap).collect();
            for index in gaps.into_iter().rev().skip(1) {
                self.items.remove(index);
            }
        }
    }

    fn put_note(&mut self, runs: &mut Runs, note: Note, content: Content, missing: Missing) {
        /// None is side by side with another.
        const NOTE: usize = usize::MAX;
        let place = runs.hold(Arc::new(note.encode()), content, 1);
        self.queue.put_note(runs, place, missing);
        let bytes = encoded(self.form, true, &note.to_string());
        let item = Item { run: NOTE, message: NOTE - 1, content, bytes };
        let mut hole = self.hole(missing);
        let end = hole.end;
        match hole.find(|&index| self.items[index].content == content) {
            Some(index) => self.items[index] = item,
            None => self.items.insert(end, item),
        }
    }

    fn drop_note(&mut self, runs: &mut Runs, content: Content) {
        self.queue.drop_note(runs, content);
        if let Some(index) = self.hole(Missing::Behind).find(|&index| self.items[index].content == content) {
            self.items.remove(index);
        }
    }

    fn hole(&self, missing: Missing) -> std::ops::Range<usize> {
        let is_note = |item: &&Item| item.content != Content::Messages;
        let (begun, len) = (self.begun(), self.items.len());
        match missing {
            Missing::Before => begun..begun + self.items.iter().skip(begun).take_while(is_note).count(),
            Missing::Behind => len - self.items.iter().skip(begun).rev().take_while(is_note).count()..len,
        }
    }

    fn keep_newest(&mut self, runs: &mut Runs) {
        let unbegun = self.items.iter().skip(self.begun());
        let lost = unbegun.filter(|item| item.content == Content::Messages).count().saturating_sub(1);
        for _ in 0..lost {
            assert!(self.drop_oldest());
        }
        assert_eq!(self.queue.keep_newest(runs), lost as u64);
        self.note_dropped(runs, lost as u64, Slow::Latest);
    }

    fn drop_messages(&mut self, runs: &mut Runs) {
        let mut lost = 0;
        while self.drop_oldest() {
            lost += 1;
        }
        assert_eq!(self.queue.drop_messages(runs), lost);
        self.note_dropped(runs, lost, Slow::DropOldest);
    }

    fn drop_unbegun(&mut self, runs: &mut Runs) {
        self.queue.drop_unbegun(runs);
        self.items.truncate(self.begun());
    }

    /// All that waits is lent, in order, however few slices there are and whatever is skipped.
    fn check(&self, runs: &Runs) {
        let bytes = self.items.iter().map(|item| &item.bytes[..]).collect::<Vec<_>>().concat()[self.sent..].to_vec();
        let begun = self.items.front().filter(|_| self.sent > 0).map_or(0, |item| item.bytes.len() - self.sent);
        assert_eq!(self.queue.begun(runs), &bytes[..begun]);
        assert_eq!((self.queue.bytes(), self.queue.memory()), (bytes.len(), self.memory()));
        assert_eq!((self.queue.is_empty(), self.queue.len()), (bytes.is_empty(), self.entries()));
        for skip in [0, begun, bytes.len() / 2, bytes.len()] {
            for most in [0, 1, 2, 64] {
                let mut out = [IoSlice::new(&[]); 64];
                let filled = self.queue.slices(runs, skip, &mut out[..most]);
                let lent = lent(&out[..filled]);
                assert!(filled <= most && out[..filled].iter().all(|slice| !slice.is_empty()));
                assert!(bytes[skip..].starts_with(&lent), "{:?} {skip} {most}", self.form);
                assert!(lent.len() == bytes.len() - skip || filled == most, "{:?} {skip} {most}", self.form);
            }
        }
    }
}

/// The same runs for a session in each form, which share them; each reads in its own way.
fn story(seed: u64, slow: Slow) {
    let mut random = seeded(seed);
    let mut runs = Runs::default();
    let mut twins = FORMS.map(Twin::new);
    let bound = random.usize(0..600);
    for number in 0..200 {
        let payloads: Vec<String> = (0..random.usize(1..5))
            .map(|_| (0..random.usize(0..140)).map(|_| *random.choice(b"abc\n").unwrap() as char).collect())
            .collect();
        match random.u8(..12) {
            0..4 => {
                let run = run_of(&payloads);
                twins.iter().for_each(|twin| _ = twin.queue.len_of(&run));
                let place = runs.next();
                assert_eq!(runs.hold(run.clone(), Content::Messages, 2), place);
                for twin in &mut twins {
                    let items = twin.items_of(number, &payloads);
                    twin.deliver(&mut runs, (place, &run), items, slow, bound);
                }
            }
            choice => {
                let twin = &mut twins[random.usize(..2)];
                match choice {
                    4..8 => {
                        let n = random.usize(..=twin.bytes());
                        twin.write(&mut runs, n);
                    }
                    8 => {
                        let began = Note::GapBegan { epoch: number as u64 };
                        twin.put_note(&mut runs, began, Content::GapBegan, Missing::Behind);
                    }
                    9 => {
                        twin.drop_note(&mut runs, Content::GapBegan);
                        let missed = Note::Missed { messages: number as u64 };
                        twin.put_note(&mut runs, missed, Content::Gap, Missing::Behind);
                    }
                    10 => twin.keep_newest(&mut runs),
                    _ if random.bool() => twin.drop_messages(&mut runs),
                    _ => twin.drop_unbegun(&mut runs),
                }
            }
        }
        let mut entries = HashMap::new();
        for twin in &twins {
            twin.check(&runs);
            twin.queue.count_entries(&runs, &mut entries);
        }
        runs.check(&entries);
    }
    for twin in &mut twins {
        twin.queue.clear(&mut runs);
    }
    assert_eq!(runs.memory(), 0);
}

#[test]
fn in_every_form_what_waits_is_what_a_list_of_messages_says() {
    for seed in 0..40 {
        for slow in [Slow::Close, Slow::DropNewest, Slow::DropOldest, Slow::Latest] {
            story(seed, slow);
        }
    }
}

/// Three messages in runs of their own, and one more of which as many bytes have left as there can be.
#[test]
fn a_write_may_end_at_every_byte_in_every_form() {
    let payloads = [vec!["one".to_owned(), "two\nlines".into(), String::new()], vec!["x".repeat(130), "5".into()]];
    for form in FORMS {
        let all: Vec<u8> = payloads.iter().flatten().flat_map(|payload| encoded(form, false, payload)).collect();
        for n in 0..=all.len() {
            let (mut runs, mut queue) = (Runs::default(), Queue::new(form));
            for run in payloads.iter().map(|payloads| run_of(payloads)) {
                let len = queue.len_of(&run);
                let messages = run.len() as u32;
                let place = runs.hold(run, Content::Messages, 1);
                assert!(queue.push(place, 0..messages, len));
            }
            queue.sent(&mut runs, n);
            let mut out = [IoSlice::new(&[]); 4];
            let filled = queue.slices(&runs, 0, &mut out);
            assert_eq!(lent(&out[..filled]), &all[n..], "{form:?} {n}");
            queue.sent(&mut runs, all.len() - n);
            assert!(queue.is_empty() && queue.is_single_run());
            assert_eq!(runs.memory(), 0);
        }
    }
}

#[test]
fn a_run_counts_with_the_forms_that_its_sessions_wanted() {
    let mut runs = Runs::default();
    let plain = run_of(&["plain".into()]);
    runs.hold(plain.clone(), Content::Messages, 1);
    assert_eq!(runs.memory(), plain.memory() + ENTRY_BYTES);
    let event = run_of(&["event".into()]);
    let mut queue = Queue::new(Form::Events);
    let len = queue.len_of(&event);
    let place = runs.hold(event.clone(), Content::Messages, 1);
    assert!(queue.push(place, 0..1, len));
    let both = event.memory() + size_of::<Encoded>() + len;
    assert_eq!(runs.memory(), plain.memory() + both + 2 * ENTRY_BYTES);
    assert!(queue.keeps_at_most(&runs, Some(both)));
    assert!(!queue.keeps_at_most(&runs, Some(both - 1)));
    // Another worker wants the first as events: this one counts as it did.
    plain.encoded(Form::Events);
    runs.give_back(0);
    assert_eq!(runs.memory(), both + ENTRY_BYTES);
    queue.clear(&mut runs);
    assert_eq!(runs.memory(), 0);
    let note = Arc::new(Note::Missed { messages: 1 }.encode());
    let place = runs.hold(note.clone(), Content::Gap, 1);
    queue.put_note(&mut runs, place, Missing::Behind);
    let both = note.memory() + size_of::<Encoded>() + queue.bytes();
    assert_eq!((runs.memory(), note.memory_in_all_forms()), (both + ENTRY_BYTES, both));
    queue.clear(&mut runs);
    assert_eq!(runs.memory(), 0);
}

#[test]
fn an_entry_is_three_numbers_of_four_bytes() {
    assert_eq!((size_of::<Entry>(), size_of::<Option<Entry>>()), (12, 12));
}
