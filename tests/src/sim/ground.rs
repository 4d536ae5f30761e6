//! What all parts of a world stand on: the clock, the agenda, the connections, and the reference that judges them.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io::IoSlice;

use fanfare_core::redis::Lane;
use fanfare_core::time::{Duration, Instant};

use super::pipe::{Line, Pipe, micros};
use super::reference::Reference;
use super::verdict::{Failure, Promise};

/// What happens at a time of the agenda.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Event {
    /// The next step of the plan.
    Step(usize),
    /// One end of a connection has something to read, or room to write.
    Wake(Port),
    /// A worker looks at what there is to do.
    Turn { instance: usize, worker: usize },
    /// A dial of a lane has its result.
    Dialled { instance: usize, lane: Lane, attempt: u32 },
    /// A client comes back.
    Return { client: usize, visit: usize },
    /// Redis has loaded its data set.
    Loaded,
    /// The world as a whole is looked at.
    Check,
}

/// One end of a connection: 0 is the one that dialled, 1 the one that accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Port {
    pub(super) conn: u32,
    pub(super) side: u8,
}

/// Who holds an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    Client(usize),
    Worker { instance: usize, worker: usize },
    Lane { instance: usize, lane: Lane },
    Redis,
}

/// What a read gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Got {
    Bytes(usize),
    /// Nothing is here yet.
    Nothing,
    /// The peer has ended its side.
    End,
    /// The connection is reset.
    Broken,
}

#[derive(Debug)]
struct Conn {
    /// By the side that writes.
    pipes: [Pipe; 2],
    owners: [Owner; 2],
    /// Whether the end still has its socket.
    open: [bool; 2],
    /// When the end hears that the connection is reset.
    broken: [Option<Instant>; 2],
    lost: bool,
}

pub(super) struct Ground {
    pub(super) now: Instant,
    agenda: BinaryHeap<Reverse<(Instant, u64, Event)>>,
    entries: u64,
    conns: Vec<Option<Box<Conn>>>,
    pub(super) reference: Reference,
    pub(super) failure: Option<Failure>,
    /// What happened, in words, if anybody wants to read it.
    pub(super) trace: Option<Vec<String>>,
    /// Changes with every byte that moves and the time at which it does.
    pub(super) digest: u64,
}

impl Ground {
    pub(super) fn new(reference: Reference, traces: bool) -> Self {
        Self {
            now: Instant::ZERO,
            agenda: BinaryHeap::new(),
            entries: 0,
            conns: Vec::new(),
            reference,
            failure: None,
            trace: traces.then(Vec::new),
            digest: 0,
        }
    }

    // The agenda.

    pub(super) fn at(&mut self, at: Instant, event: Event) {
        self.entries += 1;
        self.agenda.push(Reverse((at.max(self.now), self.entries, event)));
    }

    pub(super) fn after(&mut self, time: Duration, event: Event) {
        self.at(self.now + time, event);
    }

    /// The next event; the clock jumps to it.
    pub(super) fn next(&mut self) -> Option<Event> {
        let Reverse((at, _, event)) = self.agenda.pop()?;
        self.now = at;
        if let Event::Wake(port) = event
            && let Some(conn) = &mut self.conns[port.conn as usize]
            && let wake = &mut conn.pipes[usize::from(1 - port.side)].wake
            && wake.is_some_and(|wake| wake <= at)
        {
            *wake = None;
            self.wake_reader(port);
        }
        Some(event)
    }

    // Verdicts.

    /// Only the first one counts.
    pub(super) fn fail(&mut self, promise: Promise, what: impl Into<String>) {
        if self.failure.is_none() {
            self.failure = Some(Failure { promise, at: self.now, what: what.into() });
        }
    }

    pub(super) fn judge(&mut self, verdict: Result<(), (Promise, String)>) {
        if let Err((promise, what)) = verdict {
            self.fail(promise, what);
        }
    }

    pub(super) fn tell(&mut self, what: impl FnOnce() -> String) {
        let at = self.now;
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{:>9.3} s  {}", at.as_micros() as f64 / 1e6, what()));
        }
    }

    // Connections.

    /// A connection that stands. The ports are the dialler's and the acceptor's.
    pub(super) fn connect(&mut self, owners: [Owner; 2], line: Line, seed: u64) -> [Port; 2] {
        let pipes = [seed, seed ^ 0x5DEE_CE66].map(|seed| Pipe::new(line, seed, self.now));
        let conn = self.conns.len() as u32;
        self.conns.push(Some(Box::new(Conn { pipes, owners, open: [true; 2], broken: [None; 2], lost: false })));
        [Port { conn, side: 0 }, Port { conn, side: 1 }]
    }

    pub(super) fn owner(&self, port: Port) -> Option<Owner> {
        let conn = self.conns[port.conn as usize].as_ref()?;
        conn.open[usize::from(port.side)].then_some(conn.owners[usize::from(port.side)])
    }

    /// Who holds the other end.
    pub(super) fn peer(&self, port: Port) -> Option<Owner> {
        self.owner(other(port))
    }

    pub(super) fn set_owner(&mut self, port: Port, owner: Owner) {
        if let Some(conn) = &mut self.conns[port.conn as usize] {
            conn.owners[usize::from(port.side)] = owner;
        }
    }

    /// Bytes that were read at this end since the connection stands.
    pub(super) fn taken(&self, port: Port) -> u64 {
        self.conns[port.conn as usize].as_ref().map_or(0, |conn| conn.pipes[usize::from(1 - port.side)].taken())
    }

    /// Writes what there is room for; an error when the connection is known to be reset.
    pub(super) fn write(&mut self, port: Port, slices: &[IoSlice<'_>]) -> Result<usize, ()> {
        let (now, side) = (self.now, usize::from(port.side));
        let Some(conn) = &mut self.conns[port.conn as usize] else { return Err(()) };
        if conn.broken[side].is_some_and(|at| at <= now) {
            return Err(());
        }
        let pipe = &mut conn.pipes[side];
        let written = pipe.write(slices, now);
        self.digest = mix(self.digest, now, port, written as u64);
        if !conn.open[1 - side] && !conn.lost && conn.broken[side].is_none() && written > 0 {
            // Whoever writes to a socket that was closed is told so a round trip later.
            let at = now + micros(2 * conn.pipes[side].line().latency);
            conn.broken[side] = Some(at);
            self.at(at, Event::Wake(port));
            return Ok(written);
        }
        self.wake_reader(other(port));
        Ok(written)
    }

    pub(super) fn read(&mut self, port: Port, out: &mut [u8]) -> Got {
        let (now, side) = (self.now, usize::from(port.side));
        let Some(conn) = &mut self.conns[port.conn as usize] else { return Got::Broken };
        if conn.broken[side].is_some_and(|at| at <= now) {
            return Got::Broken;
        }
        let pipe = &mut conn.pipes[1 - side];
        let n = pipe.read(out, now);
        if n == 0 {
            return if pipe.has_ended(now) { Got::End } else { Got::Nothing };
        }
        let hears_of_room = std::mem::take(&mut pipe.writer_waits).then(|| now + micros(pipe.line().latency));
        let sum = checksum(&out[..n]);
        self.digest = mix(self.digest, now, port, sum);
        if let Some(at) = hears_of_room {
            self.at(at, Event::Wake(other(port)));
        }
        Got::Bytes(n)
    }

    /// Whether a read would give anything but [`Got::Nothing`].
    pub(super) fn is_readable(&mut self, port: Port) -> bool {
        let (now, side) = (self.now, usize::from(port.side));
        let Some(conn) = &mut self.conns[port.conn as usize] else { return true };
        let pipe = &mut conn.pipes[1 - side];
        conn.broken[side].is_some_and(|at| at <= now) || pipe.has_arrived(now) || pipe.has_ended(now)
    }

    /// Ends the writing side. A second time does nothing.
    pub(super) fn finish(&mut self, port: Port) {
        let now = self.now;
        if let Some(conn) = &mut self.conns[port.conn as usize] {
            conn.pipes[usize::from(port.side)].finish(now);
            self.wake_reader(other(port));
        }
    }

    /// Closes the socket. As with TCP, the peer hears a reset if something was unread, and the end of the stream if not.
    pub(super) fn close(&mut self, port: Port) {
        let now = self.now;
        let Some(conn) = &mut self.conns[port.conn as usize] else { return };
        if conn.pipes[usize::from(1 - port.side)].has_arrived(now) {
            return self.reset(port);
        }
        self.finish(port);
        self.forget(port);
    }

    /// Closes the socket without more ado: what is on its way is lost.
    pub(super) fn reset(&mut self, port: Port) {
        let (now, side) = (self.now, usize::from(port.side));
        let Some(conn) = &mut self.conns[port.conn as usize] else { return };
        if !conn.lost {
            let at = now + micros(conn.pipes[side].line().latency);
            conn.broken[1 - side].get_or_insert(at);
            self.at(at, Event::Wake(other(port)));
        }
        self.forget(port);
    }

    /// Both ends hear a reset, as from a box in between.
    pub(super) fn cut(&mut self, port: Port) {
        let now = self.now;
        let Some(conn) = &mut self.conns[port.conn as usize] else { return };
        conn.broken = conn.broken.map(|broken| Some(broken.unwrap_or(now)));
        self.at(now, Event::Wake(port));
        self.at(now, Event::Wake(other(port)));
    }

    /// Nothing passes any more, and nobody says so.
    pub(super) fn lose(&mut self, port: Port) {
        let now = self.now;
        let Some(conn) = &mut self.conns[port.conn as usize] else { return };
        conn.lost = true;
        conn.pipes.iter_mut().for_each(|pipe| pipe.lose(now));
    }

    /// What is written at this end vanishes from now on, and nobody says so.
    pub(super) fn lose_half(&mut self, port: Port) {
        let now = self.now;
        if let Some(conn) = &mut self.conns[port.conn as usize] {
            conn.pipes[usize::from(port.side)].lose(now);
        }
    }

    /// Nothing passes until then.
    pub(super) fn stall(&mut self, port: Port, until: Instant) {
        let Some(conn) = &mut self.conns[port.conn as usize] else { return };
        conn.pipes.iter_mut().for_each(|pipe| pipe.stall(until));
    }

    fn forget(&mut self, port: Port) {
        let place = &mut self.conns[port.conn as usize];
        let Some(conn) = place else { return };
        conn.open[usize::from(port.side)] = false;
        if conn.open == [false; 2] {
            *place = None;
        }
    }

    fn wake_reader(&mut self, port: Port) {
        let now = self.now;
        let Some(conn) = &mut self.conns[port.conn as usize] else { return };
        let pipe = &mut conn.pipes[usize::from(1 - port.side)];
        if let Some(at) = pipe.next_arrival(now)
            && pipe.wake.is_none_or(|wake| at < wake)
        {
            pipe.wake = Some(at);
            self.at(at, Event::Wake(port));
        }
    }
}

pub(super) const fn other(port: Port) -> Port {
    Port { conn: port.conn, side: 1 - port.side }
}

fn checksum(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    let sum = words.iter().fold(bytes.len() as u64, |sum, word| sum.rotate_left(7) ^ u64::from_le_bytes(*word));
    rest.iter().fold(sum, |sum, &byte| sum.rotate_left(7) ^ u64::from(byte))
}

fn mix(digest: u64, now: Instant, port: Port, sum: u64) -> u64 {
    let word = now.as_micros() ^ u64::from(port.conn) << 40 ^ u64::from(port.side) << 63 ^ sum;
    (digest.rotate_left(5) ^ word).wrapping_mul(0x517C_C1B7_2722_0A95)
}
