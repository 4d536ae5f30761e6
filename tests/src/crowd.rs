//! Clients in rooms that talk all the time, and know of each message whether it came once, in order, or why it did not.
//!
//! Every message says who sent it and as which of its own. A hole in what a client hears of another is explained if the
//! client was told of a gap or of dropped messages, if it had to connect again, or if the sender lost its connection
//! before it heard the message itself. What remains is [`Crowd::unexplained`]: an instance must have counted it.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::time::{Duration, Instant};

use crate::swarm::{Heard, Swarm, message};

/// The subprotocol by which a client is told of what it may have missed.
const NOTES: &str = "Sec-WebSocket-Protocol: fanfare.notes\r\n";

/// The waits before a client that was closed connects again, at random.
const AGAIN: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(250));

/// How often nobody takes a client before that is an error.
const MAX_REFUSALS: u64 = 200;

/// The clients. Nobody says anything but in [`Crowd::live`] and what builds on it.
pub struct Crowd {
    swarm: Swarm,
    members: Vec<Member>,
    /// Members by the numbers of their connections.
    of_connection: Vec<usize>,
    rooms: usize,
    rng: fastrand::Rng,
    /// When the next message is due, and the time between two.
    next_word: Instant,
    interval: Duration,
    is_silent: bool,
    refusals: u64,
    heard: u64,
    /// Holes that are explained by a note, and by a connection that ended.
    told: u64,
    known: u64,
    unexplained: BTreeSet<(usize, u64)>,
    wrong: Option<String>,
}

struct Member {
    port: u16,
    connection: Option<usize>,
    is_in: bool,
    again: Instant,
    /// Connections that it had before.
    ended: u64,
    notes: u64,
    /// Messages it sent, which are numbered from 0.
    sent: u64,
    /// Those of its own that it has not heard because its connection ended.
    unheard: BTreeSet<u64>,
    heard: HashMap<usize, Mark>,
}

/// Where a client stands with a sender.
#[derive(Clone, Copy, Default)]
struct Mark {
    next: u64,
    notes: u64,
    ended: u64,
}

/// What a crowd went through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Messages sent.
    pub sent: u64,
    /// Messages heard, each as often as somebody heard it.
    pub heard: u64,
    /// Missing messages of which a client was told.
    pub told: u64,
    /// Missing messages that a client knows of because a connection ended.
    pub known: u64,
    /// Messages that somebody missed without being told.
    pub unexplained: usize,
    /// Connections that ended.
    pub ended: u64,
    /// Notes that clients got.
    pub notes: u64,
    /// Attempts to connect that nobody took.
    pub refusals: u64,
}

impl Crowd {
    /// Connects `members` clients, in turn to each of `ports`, in `rooms` rooms. Each second `rate` messages are sent.
    ///
    /// # Errors
    ///
    /// When not everybody is taken within 30 s.
    pub fn gather(ports: &[u16], members: usize, rooms: usize, rate: u32, seed: u64) -> io::Result<Self> {
        let now = Instant::now();
        let member = |number: usize| Member {
            port: ports[number % ports.len()],
            connection: None,
            is_in: false,
            again: now,
            ended: 0,
            notes: 0,
            sent: 0,
            unheard: BTreeSet::new(),
            heard: HashMap::new(),
        };
        let mut crowd = Self {
            swarm: Swarm::new()?,
            members: (0..members).map(member).collect(),
            of_connection: Vec::new(),
            rooms,
            rng: fastrand::Rng::with_seed(seed),
            next_word: now,
            interval: Duration::from_secs(1) / rate,
            is_silent: true,
            refusals: 0,
            heard: 0,
            told: 0,
            known: 0,
            unexplained: BTreeSet::new(),
            wrong: None,
        };
        crowd.live_until("all to be in", Duration::from_secs(30), Self::is_complete)?;
        crowd.is_silent = false;
        Ok(crowd)
    }

    /// Lets this time pass.
    ///
    /// # Errors
    ///
    /// When a client hears what it must not: a message twice, out of order, or what nobody said in its room.
    pub fn live(&mut self, time: Duration) -> io::Result<()> {
        let end = Instant::now() + time;
        while Instant::now() < end {
            self.turn()?;
        }
        Ok(())
    }

    /// Lets time pass until `done`, and says how much.
    ///
    /// # Errors
    ///
    /// As [`Crowd::live`], and when it takes longer than `within`.
    pub fn live_until(
        &mut self,
        what: &str,
        within: Duration,
        mut done: impl FnMut(&Self) -> bool,
    ) -> io::Result<Duration> {
        let start = Instant::now();
        while !done(self) {
            if start.elapsed() > within {
                return Err(io::Error::other(format!("waited {within:?} for {what}: {:?}", self.summary())));
            }
            self.turn()?;
        }
        Ok(start.elapsed())
    }

    /// Whether everybody has a connection.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.members.iter().all(|member| member.is_in)
    }

    /// Ends the connections of so many members, at random, half of them in order. They come back as others do.
    ///
    /// # Errors
    ///
    /// As [`Crowd::live`].
    pub fn scatter(&mut self, count: usize) -> io::Result<()> {
        for _ in 0..count {
            let member = self.rng.usize(..self.members.len());
            let Member { connection: Some(number), is_in: true, .. } = self.members[member] else { continue };
            // Who has been closed without knowing it yet cannot leave in order.
            if self.rng.bool() || self.swarm.leave(number).is_err() {
                self.swarm.vanish(number);
            }
            self.lose(member)?;
        }
        Ok(())
    }

    /// Everybody says a last word, which everybody in the room must hear within the time.
    ///
    /// # Errors
    ///
    /// As [`Crowd::live_until`].
    pub fn part(&mut self, within: Duration) -> io::Result<Summary> {
        self.is_silent = true;
        self.live_until("all to be in", within, Self::is_complete)?;
        for member in 0..self.members.len() {
            self.speak(member)?;
        }
        self.live_until("everybody's last word", within, |crowd| crowd.first_missing().is_none()).map_err(|e| {
            let missing = self.first_missing();
            io::Error::other(format!("{e}; member {missing:?} waits"))
        })?;
        Ok(self.summary())
    }

    /// What happened so far.
    #[must_use]
    pub fn summary(&self) -> Summary {
        Summary {
            sent: self.members.iter().map(|member| member.sent).sum(),
            heard: self.heard,
            told: self.told,
            known: self.known,
            unexplained: self.unexplained.len(),
            ended: self.members.iter().map(|member| member.ended).sum(),
            notes: self.members.iter().map(|member| member.notes).sum(),
            refusals: self.refusals,
        }
    }

    /// How many messages that were sent through `port` somebody missed without being told.
    #[must_use]
    pub fn unexplained(&self, port: u16) -> usize {
        self.unexplained.iter().filter(|(sender, _)| self.members[*sender].port == port).count()
    }

    /// Clients and connections.
    #[must_use]
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether nobody is here.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    fn room(&self, member: usize) -> usize {
        // Neighbours are on different instances and in the same room.
        member * self.rooms / self.members.len()
    }

    fn turn(&mut self) -> io::Result<()> {
        self.join_again()?;
        let now = Instant::now();
        while !self.is_silent && self.next_word <= now {
            // A turn that took long is not made up for.
            self.next_word = (self.next_word + self.interval).max(now - Duration::from_millis(100));
            let member = self.rng.usize(..self.members.len());
            if self.members[member].is_in {
                self.speak(member)?;
            }
        }
        let mut all = Vec::new();
        self.swarm.listen(Duration::from_millis(5), |number, heard| match heard {
            Heard::Text(text) => {
                all.push((number, News::Text(parse(text).ok_or_else(|| text.escape_ascii().to_string()))));
            }
            Heard::Welcome => all.push((number, News::Welcome)),
            Heard::Binary(note)
                if [b"{\"type\":\"alive\"", b"{\"type\":\"gap_be"].iter().any(|one| note.starts_with(*one)) => {}
            // The other notes are of losses.
            Heard::Binary(_) => all.push((number, News::Note)),
            Heard::Gone(..) => all.push((number, News::Gone)),
        })?;
        for (number, news) in all {
            let member = self.of_connection[number];
            match news {
                News::Welcome => self.members[member].is_in = true,
                News::Text(Ok((sender, sequence))) => self.hear(member, sender, sequence),
                News::Text(Err(text)) => self.wrong = Some(format!("member {member} heard what nobody said: {text}")),
                News::Note => self.members[member].notes += 1,
                News::Gone => self.lose(member)?,
            }
        }
        self.wrong.take().map_or(Ok(()), |wrong| Err(io::Error::other(wrong)))
    }

    fn join_again(&mut self) -> io::Result<()> {
        let now = Instant::now();
        for member in 0..self.members.len() {
            if self.members[member].connection.is_none() && self.members[member].again <= now {
                let path = format!("/chat/{}", self.room(member));
                match self.swarm.join_with(self.members[member].port, &path, NOTES) {
                    Ok(number) => {
                        self.of_connection.resize(number + 1, member);
                        self.members[member].connection = Some(number);
                    }
                    Err(_) => self.wait(member)?,
                }
            }
        }
        Ok(())
    }

    fn wait(&mut self, member: usize) -> io::Result<()> {
        let millis = self.rng.u64(AGAIN.0.as_millis() as u64..AGAIN.1.as_millis() as u64);
        self.members[member].again = Instant::now() + Duration::from_millis(millis);
        self.refusals += 1;
        if self.refusals > MAX_REFUSALS * self.members.len() as u64 {
            return Err(io::Error::other("nobody takes the clients"));
        }
        Ok(())
    }

    fn speak(&mut self, member: usize) -> io::Result<()> {
        let Member { connection: Some(number), sent, .. } = &mut self.members[member] else { return Ok(()) };
        let (number, text) = (*number, format!("{member} {sent}"));
        *sent += 1;
        // An end that the swarm has yet to hear of is heard of in the next turn.
        let _ = self.swarm.send(number, &message(text.as_bytes()));
        Ok(())
    }

    /// A connection has ended, or was not taken.
    fn lose(&mut self, number: usize) -> io::Result<()> {
        let member = &mut self.members[number];
        member.connection = None;
        if member.is_in {
            member.is_in = false;
            member.ended += 1;
            let next = member.heard.get(&number).map_or(0, |mark| mark.next);
            member.unheard.extend(next..member.sent);
        }
        self.wait(number)
    }

    fn hear(&mut self, member: usize, sender: usize, sequence: u64) {
        self.heard += 1;
        if sender >= self.members.len() || self.room(sender) != self.room(member) {
            self.wrong = Some(format!("member {member} heard {sequence} of member {sender}, who is in another room"));
            return;
        }
        if sequence >= self.members[sender].sent {
            self.wrong = Some(format!("member {member} heard {sequence} of member {sender}, who did not say it"));
            return;
        }
        let Member { notes, ended, .. } = self.members[member];
        let mark = self.members[member].heard.get(&sender).copied().unwrap_or_default();
        if sequence < mark.next {
            let next = mark.next;
            self.wrong = Some(format!("member {member} heard {sequence} of member {sender}, and {next} was next"));
            return;
        }
        for missing in mark.next..sequence {
            if mark.notes != notes {
                self.told += 1;
            } else if mark.ended != ended || self.members[sender].unheard.contains(&missing) {
                self.known += 1;
            } else {
                self.unexplained.insert((sender, missing));
            }
        }
        self.members[member].heard.insert(sender, Mark { next: sequence + 1, notes, ended });
    }

    /// Somebody who has not heard the last word of somebody, and how much is missing.
    fn first_missing(&self) -> Option<(usize, usize, u64)> {
        (0..self.members.len()).find_map(|member| {
            let room = self.room(member);
            let others = (0..self.members.len()).filter(|&other| self.room(other) == room);
            let next = |other| self.members[member].heard.get(&other).map_or(0, |mark| mark.next);
            others.map(|other| (member, other, self.members[other].sent - next(other))).find(|&(_, _, left)| left > 0)
        })
    }
}

enum News {
    Welcome,
    /// Sender and number, or the text that has none.
    Text(Result<(usize, u64), String>),
    Note,
    Gone,
}

fn parse(text: &[u8]) -> Option<(usize, u64)> {
    let (sender, sequence) = str::from_utf8(text).ok()?.split_once(' ')?;
    Some((sender.parse().ok()?, sequence.parse().ok()?))
}
