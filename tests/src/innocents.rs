//! Clients that do nothing wrong, beside somebody who does: what their messages take, and whether they are closed.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::swarm::{Heard, Swarm, message};
use crate::wait_until;

/// What a client sends of a message before it waits, if it sends in two: about what a segment of TCP takes.
const FIRST_PART: usize = 1_460;

/// How long it waits.
const BETWEEN_PARTS: Duration = Duration::from_millis(10);

/// How long all may take to have heard themselves once.
const ARRIVAL: Duration = Duration::from_secs(30);

/// What each of them does.
#[derive(Clone, Copy, Debug)]
pub struct Manner {
    /// The room in which all are, or `None`: each in its own.
    pub room: Option<&'static str>,
    /// The length of its messages in bytes, at least 20.
    pub bytes: usize,
    /// A message leaves in two parts, with a pause in between, as on a network.
    pub in_two: bool,
    /// The time between two messages.
    pub interval: Duration,
}

/// A thread with the clients. Dropping it ends them.
pub struct Innocents {
    shared: Arc<Shared>,
}

/// What they went through.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Messages that came back.
    pub echoes: usize,
    /// What half of the messages took at most, those among them that have not come back yet.
    pub p50: Duration,
    /// What all but one in a hundred took at most.
    pub p99: Duration,
    /// What the slowest took.
    pub longest: Duration,
    /// Messages that did not come back although a later one did.
    pub missing: u64,
    /// Clients that were closed, each with its end.
    pub ended: Vec<String>,
}

struct Shared {
    account: Mutex<Account>,
    is_over: AtomicBool,
}

#[derive(Default)]
struct Account {
    took: Vec<Duration>,
    missing: u64,
    ended: Vec<String>,
    /// By client, those of its messages that have not come back, with when they were due.
    waiting: Vec<VecDeque<(u64, Instant)>>,
}

/// One client as its thread sees it.
struct Client {
    connection: usize,
    sent: u64,
    due: Instant,
    /// The second part of a message, and when it leaves.
    rest: Option<(Instant, Vec<u8>)>,
}

impl Innocents {
    /// Connects `count` clients to a server on loopback, and returns when each has heard itself.
    ///
    /// # Errors
    ///
    /// When that takes longer than 30 s.
    pub fn join(port: u16, count: usize, manner: Manner) -> io::Result<Self> {
        let mut swarm = Swarm::new()?;
        for number in 0..count {
            let path = manner.room.map_or_else(|| format!("/chat/innocent-{number}"), |room| format!("/chat/{room}"));
            swarm.grow(number + 1, port, &path)?;
        }
        let account = Account { waiting: vec![VecDeque::new(); count], ..Account::default() };
        let shared = Arc::new(Shared { account: Mutex::new(account), is_over: AtomicBool::new(false) });
        let now = Instant::now();
        // Not all at the same moment.
        let client = |number: usize| Client {
            connection: number,
            sent: 0,
            due: now + manner.interval * u32::try_from(number).unwrap_or(0) / u32::try_from(count).unwrap_or(1),
            rest: None,
        };
        let clients: Vec<_> = (0..count).map(client).collect();
        let thread_shared = Arc::clone(&shared);
        thread::spawn(move || live(&thread_shared, swarm, clients, manner));
        let innocents = Self { shared };
        let all_heard = || locked(&innocents.shared.account).took.len() >= 3 * count;
        wait_until("the innocents to hear themselves", ARRIVAL, all_heard)?;
        let _ = innocents.report();
        Ok(innocents)
    }

    /// What they went through since the last report, and what waits now.
    #[must_use]
    pub fn report(&self) -> Report {
        let mut account = locked(&self.shared.account);
        let echoes = account.took.len();
        let mut took = std::mem::take(&mut account.took);
        took.extend(account.waiting.iter().flatten().map(|(_, due)| due.elapsed()));
        let (missing, ended) = (std::mem::take(&mut account.missing), std::mem::take(&mut account.ended));
        drop(account);
        took.sort_unstable();
        let at = |share: f64| {
            took.get((took.len() as f64 * share) as usize).or_else(|| took.last()).copied().unwrap_or_default()
        };
        Report { echoes, p50: at(0.5), p99: at(0.99), longest: at(1.0), missing, ended }
    }
}

impl Drop for Innocents {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Relaxed);
    }
}

fn live(shared: &Shared, mut swarm: Swarm, mut clients: Vec<Client>, manner: Manner) {
    while !shared.is_over.load(Ordering::Relaxed) {
        for (number, client) in clients.iter_mut().enumerate() {
            client.speak(number, &mut swarm, shared, manner);
        }
        let listened = swarm.listen(Duration::from_millis(2), |number, heard| {
            let mut account = locked(&shared.account);
            match heard {
                Heard::Text(text) => account.hear(number, text),
                Heard::Gone(code, error) => account.ended.push(format!("innocent {number}: {code:?}, {error}")),
                Heard::Welcome | Heard::Binary(_) => {}
            }
        });
        if let Err(error) = listened {
            locked(&shared.account).ended.push(format!("the innocents cannot go on: {error}"));
            return;
        }
    }
}

impl Client {
    /// Sends what is due. Messages keep to their time, whatever became of those before: whoever is made to wait for one
    /// has the next ones wait as well.
    fn speak(&mut self, number: usize, swarm: &mut Swarm, shared: &Shared, manner: Manner) {
        let now = Instant::now();
        // To send fails only for a client that is gone, whose end is heard.
        if self.rest.as_ref().is_some_and(|(at, _)| *at <= now)
            && let Some((_, part)) = self.rest.take()
        {
            let _ = swarm.send(self.connection, &part);
        }
        if self.due > now || self.rest.is_some() || !swarm.is_open(self.connection) {
            return;
        }
        let start = format!("innocent {number} {} ", self.sent);
        let bytes = message(format!("{start:x<length$}", length = manner.bytes).as_bytes());
        locked(&shared.account).waiting[number].push_back((self.sent, self.due));
        let first = if manner.in_two { FIRST_PART.min(bytes.len()) } else { bytes.len() };
        let _ = swarm.send(self.connection, &bytes[..first]);
        if first < bytes.len() {
            self.rest = Some((now + BETWEEN_PARTS, bytes[first..].to_vec()));
        }
        self.sent += 1;
        self.due += manner.interval;
    }
}

impl Account {
    fn hear(&mut self, number: usize, text: &[u8]) {
        let Some(sequence) = own(number, text) else { return };
        while let Some((waiting, due)) = self.waiting[number].pop_front() {
            if waiting == sequence {
                self.took.push(due.elapsed());
                return;
            }
            self.missing += 1;
        }
        self.ended.push(format!("innocent {number} heard its message {sequence} again"));
    }
}

/// Which of its own messages a client hears. Those of others are none.
fn own(number: usize, text: &[u8]) -> Option<u64> {
    let words = text.strip_prefix(b"innocent ")?;
    let mut words = words.split(|&byte| byte == b' ').map(|word| str::from_utf8(word).ok()?.parse::<u64>().ok());
    (words.next()?? == number as u64).then(|| words.next()?).flatten()
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::own;

    #[test]
    fn a_client_knows_its_own_messages() {
        assert_eq!(own(3, b"innocent 3 17 xxxx"), Some(17));
        assert_eq!(own(3, b"innocent 30 17 xxxx"), None);
        assert_eq!(own(3, b"somebody else"), None);
    }
}
