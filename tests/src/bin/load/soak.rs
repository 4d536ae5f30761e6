//! Mixed load for as long as one likes: clients come, talk in rooms and go, in order or without a word.
//!
//! Every message says who sent it and as which of its own. So each client can tell at once that one is lost, doubled, out
//! of order or in the wrong room.

use std::collections::HashMap;
use std::io;
use std::time::{Duration, Instant};

use fanfare_tests::swarm::{Swarm, message};

use crate::Args;
use fanfare_tests::usage::memory;

const ROOMS: usize = 10;
const TALKS_PER_SECOND: f64 = 500.0;
const LEAVES_PER_SECOND: f64 = 20.0;

/// How long the last messages may take after the last was sent.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the server's memory may have grown by between the first third of the time and the last.
const GROWTH: (f64, u64) = (1.1, 4 << 20);

/// Seconds before which growth says nothing: everything grows at first.
const MEANINGFUL: usize = 60;

/// Everybody who ever was.
struct Soak<'a> {
    args: &'a Args,
    swarm: Swarm,
    members: Vec<Member>,
    /// Those who have not left, in no order.
    present: Vec<usize>,
    rng: fastrand::Rng,
    heard: u64,
}

struct Member {
    room: usize,
    /// How many messages it sent, which are numbered from 0.
    sent: u64,
    is_open: bool,
    /// It says nothing more and goes when it has heard its own last word.
    is_leaving: bool,
    /// How many messages others of its room had sent when it became open: it may miss those, and none after them.
    may_miss: HashMap<usize, u64>,
    /// The number of the message that must come next from each sender of whom it heard.
    next: HashMap<usize, u64>,
}

pub(crate) fn soak(args: &Args) -> io::Result<String> {
    let rng = fastrand::Rng::with_seed(args.seed);
    let mut soak = Soak { args, swarm: Swarm::new()?, members: Vec::new(), present: Vec::new(), rng, heard: 0 };
    let mut samples = Vec::new();
    let (mut talks, mut leaves) = (0_u32, 0_u32);
    let start = Instant::now();
    while start.elapsed() < args.time {
        let seconds = start.elapsed().as_secs_f64();
        soak.fill_up()?;
        while f64::from(talks) < seconds * TALKS_PER_SECOND {
            soak.somebody_talks()?;
            talks += 1;
        }
        while f64::from(leaves) < seconds * LEAVES_PER_SECOND {
            soak.somebody_wants_to_leave();
            leaves += 1;
        }
        soak.turn()?;
        if let Some(pid) = args.pid.filter(|_| samples.len() <= seconds as usize) {
            samples.push(memory(pid)?);
        }
    }
    soak.finish()?;
    let growth = flat(&samples)?;
    let (seconds, members, heard) = (start.elapsed().as_secs(), soak.members.len(), soak.heard);
    let sent: u64 = soak.members.iter().map(|member| member.sent).sum();
    Ok(format!("seconds={seconds} members={members} sent={sent} heard={heard} {growth}"))
}

impl Soak<'_> {
    /// Lets new members join in the place of those who left. Some give up before they are answered.
    fn fill_up(&mut self) -> io::Result<()> {
        while self.present.len() < self.args.clients {
            let room = self.rng.usize(..ROOMS);
            let number = self.swarm.join(self.args.port, &format!("{}/soak-{room}", self.args.path))?;
            let is_fickle = self.rng.u8(..20) == 0;
            self.members.push(Member {
                room,
                sent: 0,
                is_open: false,
                is_leaving: false,
                may_miss: HashMap::new(),
                next: HashMap::new(),
            });
            if is_fickle {
                self.swarm.vanish(number);
            } else {
                self.present.push(number);
            }
        }
        Ok(())
    }

    /// One or a burst of messages from a random member.
    fn somebody_talks(&mut self) -> io::Result<()> {
        let Some(&number) = self.rng.choice(&self.present) else { return Ok(()) };
        let member = &mut self.members[number];
        if !member.is_open || member.is_leaving {
            return Ok(());
        }
        let burst = if self.rng.u8(..20) == 0 { 20 } else { 1 };
        let mut frames = Vec::new();
        for _ in 0..burst {
            let length = if self.rng.u8(..50) == 0 { self.rng.usize(..8_000) } else { self.rng.usize(..200) };
            frames.extend(message(format!("{number} {} {:x<length$}", member.sent, "").as_bytes()));
            member.sent += 1;
        }
        self.swarm.send(number, &frames)
    }

    fn somebody_wants_to_leave(&mut self) {
        if let Some(&number) = self.rng.choice(&self.present) {
            self.members[number].is_leaving = true;
        }
    }

    fn turn(&mut self) -> io::Result<()> {
        let Self { swarm, members, heard, .. } = self;
        let mut fault = None;
        swarm.turn(Duration::from_millis(1), |number, text| {
            *heard += 1;
            if let Err(e) = hear(members, number, text) {
                fault.get_or_insert(e);
            }
        })?;
        fault.map_or(Ok(()), |e| Err(io::Error::other(e)))?;
        self.note_who_is_open();
        self.let_go()
    }

    fn note_who_is_open(&mut self) {
        for &number in &self.present {
            if !self.members[number].is_open && self.swarm.is_open(number) {
                let room = self.members[number].room;
                let others = self.present.iter().filter(|&&other| self.members[other].room == room);
                let may_miss = others.map(|&other| (other, self.members[other].sent)).collect();
                self.members[number].may_miss = may_miss;
                self.members[number].is_open = true;
            }
        }
    }

    /// Those who want to leave and have heard their own last word go.
    fn let_go(&mut self) -> io::Result<()> {
        let mut at = 0;
        while at < self.present.len() {
            let number = self.present[at];
            let member = &mut self.members[number];
            if member.is_open && member.is_leaving && member.next.get(&number).copied().unwrap_or(0) == member.sent {
                if self.rng.bool() {
                    self.swarm.leave(number)?;
                } else {
                    self.swarm.vanish(number);
                }
                member.next = HashMap::new();
                member.may_miss = HashMap::new();
                self.present.swap_remove(at);
            } else {
                at += 1;
            }
        }
        Ok(())
    }

    /// Waits until everybody who is left has heard everything that was said since they came.
    fn finish(&mut self) -> io::Result<()> {
        let start = Instant::now();
        while let Some(missing) = self.missing() {
            if start.elapsed() > PATIENCE {
                return Err(io::Error::other(format!("lost at the end: {missing}")));
            }
            self.turn()?;
        }
        Ok(())
    }

    fn missing(&self) -> Option<String> {
        for &number in &self.present {
            let member = &self.members[number];
            for (other, sender) in self.members.iter().enumerate().filter(|(_, sender)| sender.room == member.room) {
                let base = member.may_miss.get(&other).copied();
                // Who had left before it came is not among those whom it may miss.
                let was_there = base.is_some() || other > number || member.next.contains_key(&other);
                let next = member.next.get(&other).copied().or(base).unwrap_or(0);
                if was_there && next < sender.sent {
                    return Some(format!(
                        "client {number} waits for {next} of {} messages of client {other}",
                        sender.sent
                    ));
                }
            }
        }
        None
    }
}

fn hear(members: &mut [Member], number: usize, text: &[u8]) -> Result<(), String> {
    let mut words = text.split(|&byte| byte == b' ').map(|word| str::from_utf8(word).ok()?.parse::<u64>().ok());
    let (Some(Some(sender)), Some(Some(sequence))) = (words.next(), words.next()) else {
        return Err(format!("client {number} heard what nobody said: {}", text.escape_ascii()));
    };
    let sender = sender as usize;
    if members.get(sender).is_none_or(|other| other.room != members[number].room || other.sent <= sequence) {
        return Err(format!("client {number} heard what was not said in its room: {}", text.escape_ascii()));
    }
    let member = &mut members[number];
    let is_right = match member.next.get(&sender) {
        Some(&next) => sequence == next,
        None if member.is_open => sequence <= member.may_miss.get(&sender).copied().unwrap_or(0),
        // In the same read as the answer to its handshake.
        None => true,
    };
    if !is_right {
        let next = member.next.get(&sender);
        return Err(format!("client {number} heard message {sequence} of client {sender}, and {next:?} was next"));
    }
    member.next.insert(sender, sequence + 1);
    Ok(())
}

/// The largest memory in the first and last third of the time; an error if it grew.
fn flat(samples: &[u64]) -> io::Result<String> {
    let third = samples.len().div_ceil(3);
    let largest = |part: &[u64]| part.iter().copied().max().unwrap_or(0);
    let (first, last) = (largest(&samples[..third]), largest(&samples[samples.len() - third..]));
    if samples.len() > MEANINGFUL && last as f64 > first as f64 * GROWTH.0 + GROWTH.1 as f64 {
        return Err(io::Error::other(format!("memory grew from {first} to {last} bytes")));
    }
    Ok(format!("memory_first_third={first} memory_last_third={last}"))
}
