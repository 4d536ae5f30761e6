//! One direction of a TCP connection: bytes that leave in pieces, travel, and wait to be read.

use std::collections::VecDeque;
use std::io::IoSlice;

use fanfare_core::time::{Duration, Instant};
use fastrand::Rng;

/// What a connection's path is like, the same both ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line {
    /// From one end to the other, in microseconds.
    pub latency: u64,
    /// Up to so much is added to the latency of each write, in microseconds. Order stays.
    pub jitter: u64,
    /// Microseconds that each KiB keeps the line busy.
    pub per_kib: u64,
    /// Bytes that the sender can have on their way and unread before its socket is full.
    pub room: usize,
    /// Whether reads and writes stop at random places, down to single bytes.
    pub crumbs: bool,
}

#[derive(Debug)]
pub(super) struct Pipe {
    line: Line,
    rng: Rng,
    /// Written and unread.
    bytes: VecDeque<u8>,
    /// Until which byte of the stream what was written has arrived, and when; not yet come true.
    travelling: VecDeque<(Instant, u64)>,
    written: u64,
    arrived: u64,
    taken: u64,
    busy_until: Instant,
    /// When the end of the stream arrives.
    fin: Option<Instant>,
    /// Nothing arrives any more and nobody says so.
    lost: bool,
    /// The writer found no room.
    pub(super) writer_waits: bool,
    /// For when the reader is woken.
    pub(super) wake: Option<Instant>,
}

impl Pipe {
    pub(super) fn new(line: Line, seed: u64, now: Instant) -> Self {
        Self {
            line,
            rng: Rng::with_seed(seed),
            bytes: VecDeque::new(),
            travelling: VecDeque::new(),
            written: 0,
            arrived: 0,
            taken: 0,
            busy_until: now,
            fin: None,
            lost: false,
            writer_waits: false,
            wake: None,
        }
    }

    pub(super) const fn line(&self) -> Line {
        self.line
    }

    /// Bytes that the reader ever took.
    pub(super) const fn taken(&self) -> u64 {
        self.taken
    }

    /// Takes as much as there is room for, and says how much.
    pub(super) fn write(&mut self, slices: &[IoSlice<'_>], now: Instant) -> usize {
        let room = self.line.room.saturating_sub(self.bytes.len());
        let whole: usize = slices.iter().map(|slice| slice.len()).sum();
        let taken = self.piece(whole.min(room));
        let mut left = taken;
        for slice in slices {
            let part = left.min(slice.len());
            self.bytes.extend(&slice[..part]);
            left -= part;
        }
        self.writer_waits |= taken < whole;
        if taken > 0 {
            self.written += taken as u64;
            self.busy_until = self.busy_until.max(now) + micros(self.line.per_kib * taken as u64 / 1024);
            let due = self.due();
            self.travelling.push_back((due, self.written));
        }
        taken
    }

    /// No more will be written.
    pub(super) fn finish(&mut self, now: Instant) {
        if self.fin.is_none() {
            self.busy_until = self.busy_until.max(now);
            self.fin = Some(self.due());
        }
    }

    pub(super) fn read(&mut self, out: &mut [u8], now: Instant) -> usize {
        self.move_on(now);
        let here = usize::try_from(self.arrived - self.taken).unwrap_or(usize::MAX);
        let taken = self.piece(here.min(out.len()));
        let (first, second) = self.bytes.as_slices();
        let cut = taken.min(first.len());
        out[..cut].copy_from_slice(&first[..cut]);
        out[cut..taken].copy_from_slice(&second[..taken - cut]);
        self.bytes.drain(..taken);
        self.taken += taken as u64;
        taken
    }

    pub(super) fn has_arrived(&mut self, now: Instant) -> bool {
        self.move_on(now);
        self.arrived > self.taken
    }

    /// Whether the end of the stream is all that is left to read.
    pub(super) fn has_ended(&self, now: Instant) -> bool {
        !self.lost && self.taken == self.written && self.fin.is_some_and(|fin| fin <= now)
    }

    /// When something arrives next, after `now`.
    pub(super) fn next_arrival(&mut self, now: Instant) -> Option<Instant> {
        self.move_on(now);
        let data = self.travelling.front().map(|&(due, _)| due);
        let end = self.fin.filter(|&fin| fin > now && !self.lost);
        data.or(end)
    }

    /// From now on nothing arrives.
    pub(super) fn lose(&mut self, now: Instant) {
        self.move_on(now);
        self.lost = true;
        self.travelling.clear();
    }

    /// What is on its way waits until then.
    pub(super) fn stall(&mut self, until: Instant) {
        self.busy_until = self.busy_until.max(until);
        for (due, _) in &mut self.travelling {
            *due = (*due).max(until);
        }
        self.fin = self.fin.map(|fin| fin.max(until));
    }

    fn due(&mut self) -> Instant {
        let due = self.busy_until + micros(self.line.latency + self.rng.u64(0..=self.line.jitter));
        self.travelling.back().map_or(due, |&(last, _)| due.max(last))
    }

    fn move_on(&mut self, now: Instant) {
        if self.lost {
            self.travelling.clear();
        }
        while let Some(&(due, until)) = self.travelling.front()
            && due <= now
        {
            self.arrived = until;
            self.travelling.pop_front();
        }
    }

    /// All of it on a smooth line; on the other kind now and then a few bytes, so that every place is cut at some time.
    fn piece(&mut self, most: usize) -> usize {
        if !self.line.crumbs || most <= 1 {
            return most;
        }
        match self.rng.u8(..8) {
            0 => self.rng.usize(1..=most.min(9)),
            1 => self.rng.usize(1..=most),
            _ => most,
        }
    }
}

pub(super) fn micros(micros: u64) -> Duration {
    Duration::from_micros(micros)
}
