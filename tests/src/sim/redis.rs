//! A Redis that keeps the rules of the real one for the few commands of the link.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::IoSlice;

use fanfare_core::redis::Lane;

use super::ground::{Got, Ground, Owner, Port};
use super::plan::RedisSetup;
use super::verdict::Promise;

pub(super) struct Redis {
    setup: RedisSetup,
    pub(super) state: State,
    /// Whether it passes no message on.
    pub(super) holds: bool,
    /// Dials that are still refused although it runs.
    pub(super) refuses: u32,
    clients: BTreeMap<Port, Client>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Down,
    /// Answers a PING by an error.
    Loading,
    Up,
    /// Its process is stopped; the kernel takes connections and bytes on.
    Frozen,
}

/// A connection.
struct Client {
    /// The instance and lane at the other end.
    from: (usize, Lane),
    resp3: bool,
    is_logged_in: bool,
    channels: BTreeSet<Vec<u8>>,
    input: Vec<u8>,
    output: VecDeque<u8>,
    /// Bytes that ever went into `output`.
    put: u64,
}

impl Redis {
    pub(super) fn new(setup: RedisSetup) -> Self {
        Self { setup, state: State::Up, holds: false, refuses: 0, clients: BTreeMap::new() }
    }

    /// Whether a dial succeeds now.
    pub(super) fn takes_dial(&mut self) -> bool {
        if self.refuses > 0 && self.state != State::Down {
            self.refuses -= 1;
            return false;
        }
        self.state != State::Down
    }

    pub(super) fn accept(&mut self, port: Port, from: (usize, Lane)) {
        let client = Client {
            from,
            resp3: false,
            is_logged_in: self.setup.password.is_none(),
            channels: BTreeSet::new(),
            input: Vec::new(),
            output: VecDeque::new(),
            put: 0,
        };
        self.clients.insert(port, client);
    }

    /// Its end of a lane's present connection.
    pub(super) fn port_of(&self, instance: usize, lane: Lane, ground: &Ground) -> Option<Port> {
        let is_held = |port: &Port| ground.peer(*port) == Some(Owner::Lane { instance, lane });
        self.clients.iter().filter(|(_, client)| client.from == (instance, lane)).map(|(&port, _)| port).rfind(is_held)
    }

    /// All of its ends.
    pub(super) fn ports(&self) -> Vec<Port> {
        self.clients.keys().copied().collect()
    }

    /// What is subscribed on one connection, but for a probe's channel.
    pub(super) fn channels(&self, port: Port) -> Option<BTreeSet<&[u8]>> {
        let channels = &self.clients.get(&port)?.channels;
        Some(channels.iter().map(|name| &name[..]).filter(|name| !is_probe(name)).collect())
    }

    /// The process ends. Its connections are reset, or not even that.
    pub(super) fn stop(&mut self, silent: bool, ground: &mut Ground) {
        self.state = State::Down;
        for port in std::mem::take(&mut self.clients).into_keys() {
            if silent { ground.lose(port) } else { ground.reset(port) }
        }
    }

    /// `CLIENT KILL`.
    pub(super) fn drop_client(&mut self, port: Port, ground: &mut Ground) {
        if self.clients.remove(&port).is_some() {
            ground.finish(port);
            ground.close(port);
        }
    }

    pub(super) fn thaw(&mut self, ground: &mut Ground) {
        if self.state == State::Frozen {
            self.state = State::Up;
            self.ports().into_iter().for_each(|port| self.turn(port, ground));
        }
    }

    /// Reads, carries out and answers what is there.
    pub(super) fn turn(&mut self, port: Port, ground: &mut Ground) {
        if matches!(self.state, State::Down | State::Frozen) {
            return;
        }
        let mut scratch = [0; 16 << 10];
        loop {
            let Some(client) = self.clients.get_mut(&port) else { return };
            match ground.read(port, &mut scratch) {
                Got::Bytes(n) => client.input.extend_from_slice(&scratch[..n]),
                Got::Nothing => break,
                Got::End | Got::Broken => {
                    self.clients.remove(&port);
                    return ground.close(port);
                }
            }
        }
        let Some(client) = self.clients.get_mut(&port) else { return };
        let input = std::mem::take(&mut client.input);
        let mut at = 0;
        loop {
            match command(&input[at..]) {
                Ok(Some((words, len))) => {
                    at += len;
                    self.execute(port, &words, ground);
                }
                Ok(None) => break,
                Err(what) => {
                    let name = self.clients.get(&port).map_or("a lane", |client| client.from.1.name());
                    let rest = String::from_utf8_lossy(&input[at..input.len().min(at + 40)]).into_owned();
                    ground.fail(Promise::Protocol, format!("no command for redis: {what} on a {name}, at {rest:?}"));
                    break;
                }
            }
        }
        if let Some(client) = self.clients.get_mut(&port) {
            client.input = input;
            client.input.drain(..at);
        }
        self.flush(port, ground);
    }

    fn execute(&mut self, port: Port, words: &[&[u8]], ground: &mut Ground) {
        let (is_loading, password) = (self.state == State::Loading, self.setup.password.as_deref());
        let Some(client) = self.clients.get_mut(&port) else { return };
        let right = |given: &[u8]| password.is_some_and(|password| password.as_bytes() == given);
        match words {
            [b"HELLO", ..] if !self.setup.resp3 => client.reply(b"-ERR unknown command 'HELLO'\r\n"),
            [b"HELLO", b"3", b"AUTH", _, given] if !right(given) => client.reply(b"-WRONGPASS invalid password\r\n"),
            [b"HELLO", b"3", rest @ ..] if client.is_logged_in || !rest.is_empty() => {
                (client.is_logged_in, client.resp3) = (true, true);
                client.reply(b"%2\r\n$6\r\nserver\r\n$5\r\nredis\r\n$5\r\nproto\r\n:3\r\n");
            }
            [b"AUTH", .., given] if right(given) => {
                client.is_logged_in = true;
                client.reply(b"+OK\r\n");
            }
            [b"AUTH", ..] => client.reply(b"-WRONGPASS invalid password\r\n"),
            _ if !client.is_logged_in => client.reply(b"-NOAUTH Authentication required.\r\n"),
            [b"ROLE"] => client.reply(b"*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n"),
            [b"CLIENT", ..] | [b"SELECT", _] => client.reply(b"+OK\r\n"),
            [b"PING"] if is_loading => client.reply(b"-LOADING Redis is loading the dataset in memory\r\n"),
            [b"PING"] if !client.resp3 && !client.channels.is_empty() => {
                client.reply(b"*2\r\n$4\r\npong\r\n$0\r\n\r\n");
            }
            [b"PING"] => client.reply(b"+PONG\r\n"),
            [b"SUBSCRIBE" | b"PUBLISH", channel, ..]
                if is_probe(channel) && ground.reference.are_probes_forbidden() =>
            {
                client.reply(b"-NOPERM No permissions to access a channel\r\n");
            }
            [kind @ (b"SUBSCRIBE" | b"UNSUBSCRIBE"), channels @ ..] => {
                if let Err(what) = client.change(*kind == b"SUBSCRIBE", channels) {
                    ground.fail(Promise::Protocol, what);
                }
            }
            [b"PUBLISH", channel, payload] => {
                let from = client.from.0;
                let receivers = if is_probe(channel) {
                    self.publish_probe(from, channel, payload, ground)
                } else {
                    self.publish(Some(from), channel, payload, ground)
                };
                if let Some(client) = self.clients.get_mut(&port) {
                    client.reply(format!(":{receivers}\r\n").as_bytes());
                }
            }
            other => {
                let name = other.first().map(|word| String::from_utf8_lossy(word).into_owned());
                ground.fail(Promise::Protocol, format!("a command that the link must not need: {name:?}"));
            }
        }
    }

    /// What an instance says to itself. Says how many got it.
    fn publish_probe(&mut self, from: usize, channel: &[u8], payload: &[u8], ground: &mut Ground) -> usize {
        if self.holds {
            return 0;
        }
        let subscribed = self.clients.iter_mut().filter(|(_, client)| client.channels.contains(channel));
        let ports: Vec<Port> = subscribed
            .map(|(&port, client)| {
                client.push(&[b"message", channel, payload]);
                assert_eq!(client.from.0, from, "nobody hears another's probes");
                // A mark between publishes proves nothing.
                if !payload.starts_with(b"=") {
                    ground.reference.probe_pushed(from, port.conn, client.put, ground.now);
                }
                port
            })
            .collect();
        ports.iter().for_each(|&port| self.flush(port, ground));
        ports.len()
    }

    /// A PUBLISH, of an instance or of another program. Says how many got it.
    pub(super) fn publish(
        &mut self,
        from: Option<usize>,
        channel: &[u8],
        payload: &[u8],
        ground: &mut Ground,
    ) -> usize {
        let id = match ground.reference.published(from, channel, payload, ground.now) {
            Ok(id) => id,
            Err((promise, what)) => {
                ground.fail(promise, what);
                return 0;
            }
        };
        if self.holds {
            // What Redis itself loses nobody can know of.
            return 0;
        }
        let ports: Vec<Port> = self
            .clients
            .iter()
            .filter(|(_, client)| client.channels.contains(channel))
            .map(|(&port, _)| port)
            .collect();
        let mut pushed_to = Vec::new();
        for &port in &ports {
            let Some(client) = self.clients.get_mut(&port) else { continue };
            client.push(&[b"message", channel, payload]);
            // What is pushed to a connection that its instance has given up reaches nobody.
            let (instance, lane) = client.from;
            if ground.peer(port) == Some(Owner::Lane { instance, lane }) {
                pushed_to.push(instance);
                ground.reference.pushed(instance, port.conn, client.put, id);
            }
            self.flush(port, ground);
        }
        ground.reference.passed_by(id, &pushed_to, ground.now);
        ports.len()
    }

    /// Writes what waits. A subscriber that leaves too much of it is killed.
    fn flush(&mut self, port: Port, ground: &mut Ground) {
        let Some(client) = self.clients.get_mut(&port) else { return };
        while !client.output.is_empty() {
            let (first, second) = client.output.as_slices();
            match ground.write(port, &[IoSlice::new(first), IoSlice::new(second)]) {
                Ok(0) | Err(()) => break,
                Ok(n) => drop(client.output.drain(..n)),
            }
        }
        if client.output.len() > self.setup.output_limit {
            let (instance, lane) = client.from;
            ground.tell(|| format!("redis kills instance {instance}'s {}: too much output", lane.name()));
            self.clients.remove(&port);
            ground.reference.ruffle(instance, ground.now);
            ground.reset(port);
        }
    }
}

impl Client {
    fn reply(&mut self, bytes: &[u8]) {
        self.output.extend(bytes);
        self.put += bytes.len() as u64;
    }

    fn change(&mut self, subscribe: bool, channels: &[&[u8]]) -> Result<(), String> {
        for channel in channels {
            let changes =
                if subscribe { self.channels.insert(channel.to_vec()) } else { self.channels.remove(*channel) };
            if !changes {
                let name = String::from_utf8_lossy(channel).into_owned();
                return Err(format!("{name:?} is (un)subscribed twice on one connection"));
            }
            let kind: &[u8] = if subscribe { b"subscribe" } else { b"unsubscribe" };
            self.words(3, &[kind, channel]);
            let count = format!(":{}\r\n", self.channels.len());
            self.reply(count.as_bytes());
        }
        Ok(())
    }

    fn push(&mut self, words: &[&[u8]]) {
        self.words(words.len(), words);
    }

    fn words(&mut self, count: usize, words: &[&[u8]]) {
        let kind = if self.resp3 { '>' } else { '*' };
        self.reply(format!("{kind}{count}\r\n").as_bytes());
        for word in words {
            self.reply(format!("${}\r\n", word.len()).as_bytes());
            self.reply(word);
            self.reply(b"\r\n");
        }
    }
}

fn is_probe(channel: &[u8]) -> bool {
    channel.starts_with(b"fanfare:probe:")
}

/// What stands at the start of some input, and where what follows begins; `None` while it is not whole.
type Parsed<T> = Result<Option<(T, usize)>, String>;

/// A command.
fn command(input: &[u8]) -> Parsed<Vec<&[u8]>> {
    let Some((count, mut at)) = number(input, b'*', 0)? else { return Ok(None) };
    let mut words = Vec::with_capacity(count.min(16));
    for _ in 0..count {
        let Some((len, start)) = number(input, b'$', at)? else { return Ok(None) };
        let Some(word) = input.get(start..start + len) else { return Ok(None) };
        words.push(word);
        at = start + len + 2;
        if input.len() < at {
            return Ok(None);
        }
    }
    Ok(Some((words, at)))
}

/// The number of a line that begins with `kind` at `at`.
fn number(input: &[u8], kind: u8, at: usize) -> Parsed<usize> {
    let Some(line) = input.get(at..).filter(|line| !line.is_empty()) else { return Ok(None) };
    if line[0] != kind {
        return Err(format!("{:?} where {:?} must be", char::from(line[0]), char::from(kind)));
    }
    let Some(end) = line.iter().take(20).position(|&byte| byte == b'\r').filter(|end| line.len() > end + 1) else {
        return if line.len() < 20 { Ok(None) } else { Err("an endless number".to_owned()) };
    };
    let number = core::str::from_utf8(&line[1..end]).ok().and_then(|number| number.parse().ok());
    let number = number.ok_or_else(|| format!("{:?} is no number", String::from_utf8_lossy(&line[1..end])))?;
    Ok(Some((number, at + end + 2)))
}
