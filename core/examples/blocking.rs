//! A whole instance on one thread and `mio`: no async runtime, no lock, one scratch buffer for all sockets.
//!
//! Take it if you have an event loop of your own, or want one. It takes the servers' options (`--help`) except for those
//! on workers and logs; it never gives Redis up, and it ends when it is killed.
//!
//! ```sh
//! PORT=3000 REDIS_URL=redis://127.0.0.1 cargo run --release -p fanfare-core --features cli --example blocking
//! ```

#![allow(
    clippy::disallowed_macros,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "an embedder is the world that the core must not reach"
)]

use std::collections::{BTreeSet, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::{Shutdown, SocketAddr, ToSocketAddrs};
use std::{env, mem, num::NonZero, process, time, vec};

use fanfare_core::config::Config;
use fanfare_core::config::cli::{self, Exit, Program};
use fanfare_core::node::{Action, Event, Node, SocketId};
use fanfare_core::time::{Duration, Instant};
use fanfare_core::{bus, redis::Lane};
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};

const PROGRAM: Program = Program { name: "blocking", version: env!("CARGO_PKG_VERSION") };

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let config = match cli::parse(&PROGRAM, env::args_os(), env::vars_os()) {
        Ok(parsed) => parsed.config,
        Err(Exit::Answer(text) | Exit::Refusal(text)) => {
            eprintln!("{text}");
            process::exit(2);
        }
    };
    let address = (config.host.as_deref().unwrap_or("::"), config.port).to_socket_addrs()?.next();
    let mut listener = TcpListener::bind(address.ok_or("the host has no address")?)?;
    let poll = Poll::new()?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    let seed = RandomState::new().hash_one(0);
    let node = Node::new(config.settings(NonZero::<usize>::MIN)?, config.redis.clone(), seed, Instant::ZERO);
    println!("{}", config.banner(&[listener.local_addr()?]));
    let start = time::Instant::now();
    let (sockets, ready, scratch) = (HashMap::new(), BTreeSet::new(), vec![0; 64 << 10]);
    let accept_at = Some(Instant::ZERO);
    Ok(Instance { config, node, poll, listener, accept_at, sockets, ready, scratch, start }.run()?)
}

struct Instance {
    config: Config,
    node: Node,
    poll: Poll,
    listener: TcpListener,
    /// When to accept again, if clients may wait for it.
    accept_at: Option<Instant>,
    sockets: HashMap<Token, Socket>,
    /// Sockets that may have something to read.
    ready: BTreeSet<Token>,
    scratch: Vec<u8>,
    start: time::Instant,
}

struct Socket {
    id: SocketId,
    stream: TcpStream,
    /// For a connection that is not made yet: the addresses to try next.
    dialing: Option<vec::IntoIter<SocketAddr>>,
    /// The peer has ended its side, though not all may be read yet.
    ending: bool,
}

impl Instance {
    fn run(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(1_024);
        loop {
            let next = [self.node.poll_timeout(), self.accept_at].into_iter().flatten().min();
            let wait = if self.ready.is_empty() { next.map(|at| at.since(self.now())) } else { Some(Duration::ZERO) };
            // It rounds up to its grain, so that no timer is early.
            if let Err(error) = self.poll.poll(&mut events, wait)
                && error.kind() != ErrorKind::Interrupted
            {
                return Err(error);
            }
            let now = self.now();
            for event in &events {
                self.note(event, now);
            }
            self.accept(now);
            // The tokens of Redis come first.
            for token in mem::take(&mut self.ready) {
                self.read(token, now);
            }
            let now = self.now();
            self.node.handle_timeout(now);
            while let Some(action) = self.node.poll_action() {
                self.act(action, now);
            }
            while let Some(event) = self.node.poll_event() {
                if let Event::Bus(event @ (bus::Event::StartFailed(_) | bus::Event::Down { .. })) = event {
                    eprintln!("trying on: {event:?}");
                }
            }
        }
    }

    fn note(&mut self, event: &mio::event::Event, now: Instant) {
        let Some(socket) = self.sockets.get_mut(&event.token()) else {
            if event.token() == LISTENER {
                self.accept_at.get_or_insert(now);
            }
            return;
        };
        if socket.dialing.is_some() {
            return self.finish_dial(event.token(), now);
        }
        if event.is_writable() {
            self.node.handle_writable(socket.id);
        }
        socket.ending |= event.is_read_closed() || event.is_error();
        self.ready.insert(event.token());
    }

    fn accept(&mut self, now: Instant) {
        for _ in 0..64 {
            if self.accept_at.is_none_or(|at| now < at) {
                return;
            }
            match self.listener.accept() {
                Ok((stream, peer)) => {
                    let id = self.node.handle_connection(Some(peer.ip().to_canonical()), now);
                    self.insert(id, stream, None, now);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.accept_at = None,
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    // Out of descriptors, most likely: to try again at once would be to spin.
                    eprintln!("accepting rests: {error}");
                    self.accept_at = Some(now + Duration::from_millis(500));
                }
            }
        }
    }

    fn insert(
        &mut self,
        id: SocketId,
        mut stream: TcpStream,
        dialing: Option<vec::IntoIter<SocketAddr>>,
        now: Instant,
    ) {
        // Fails only if the peer is gone, which the first read says.
        let _ = stream.set_nodelay(true);
        match self.poll.registry().register(&mut stream, token(id), Interest::READABLE | Interest::WRITABLE) {
            Ok(()) => drop(self.sockets.insert(token(id), Socket { id, stream, dialing, ending: false })),
            Err(error) => self.node.handle_reset(id, &error.to_string(), now),
        }
    }

    /// Reads a socket once, so that no flood holds up the others.
    fn read(&mut self, token: Token, now: Instant) {
        let Some(Socket { id, stream, ending, .. }) = self.sockets.get_mut(&token) else { return };
        if !self.node.handle_readable(*id, now) {
            return;
        }
        let room = if let SocketId::Redis(_) = id { 64 << 10 } else { 16 << 10 };
        match stream.read(&mut self.scratch[..room]) {
            Ok(0) => self.node.handle_eof(*id, now),
            Ok(len) => {
                self.node.handle_read(*id, &mut self.scratch[..len], now);
                // Readiness is told once: what is left is read in the next turn.
                if len == room || *ending {
                    self.ready.insert(token);
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => self.node.handle_reset(*id, &error.to_string(), now),
        }
    }

    fn act(&mut self, action: Action, now: Instant) {
        match action {
            Action::Dial(lane) => {
                // A name is looked up on this thread: everybody waits for a slow name server.
                let server = self.config.redis.as_ref().map(|redis| (redis.host(), redis.port()));
                match server.map(|server| server.to_socket_addrs()).transpose() {
                    Ok(addresses) => self.dial(lane, addresses.unwrap_or_default(), "the name has no address", now),
                    Err(error) => self.node.handle_dial_failed(lane, &error.to_string(), now),
                }
            }
            Action::Write(id) => self.write(id, now),
            Action::Read(id) => drop(self.ready.insert(token(id))),
            Action::EndWrites(id) => {
                // Fails only if the peer is gone, which the next read says.
                let _ = self.sockets.get(&token(id)).map(|socket| socket.stream.shutdown(Shutdown::Write));
            }
            Action::Close(id) => {
                self.sockets.remove(&token(id));
                // There is a descriptor again.
                self.accept_at = self.accept_at.map(|_| now);
            }
        }
    }

    fn write(&mut self, id: SocketId, now: Instant) {
        let Some(socket) = self.sockets.get_mut(&token(id)) else { return };
        let mut slices = [IoSlice::new(&[]); 8];
        let filled = self.node.transmit(id, &mut slices);
        match socket.stream.write_vectored(&slices[..filled]) {
            // Misuse is impossible: no more can be written than was lent.
            Ok(len) => drop(self.node.transmitted(id, len, now)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => self.node.blocked(id),
            Err(error) => self.node.handle_reset(id, &error.to_string(), now),
        }
    }

    /// Begins to connect to the first of `addresses` that can be tried; `reason` is what is wrong if there is none.
    fn dial(&mut self, lane: Lane, mut addresses: vec::IntoIter<SocketAddr>, reason: &str, now: Instant) {
        match addresses.next().map(TcpStream::connect) {
            Some(Ok(stream)) => self.insert(SocketId::Redis(lane), stream, Some(addresses), now),
            Some(Err(error)) => self.dial(lane, addresses, &error.to_string(), now),
            None => self.node.handle_dial_failed(lane, reason, now),
        }
    }

    fn finish_dial(&mut self, token: Token, now: Instant) {
        let Some(socket) = self.sockets.get_mut(&token) else { return };
        let (SocketId::Redis(lane), Some(addresses)) = (socket.id, &mut socket.dialing) else { return };
        match socket.stream.take_error().and_then(|error| error.map_or_else(|| socket.stream.peer_addr(), Err)) {
            Ok(_) => {
                socket.dialing = None;
                self.node.handle_connected(lane, now);
            }
            Err(error) if error.kind() == ErrorKind::NotConnected => {}
            Err(error) => {
                let addresses = mem::take(addresses);
                self.sockets.remove(&token);
                self.dial(lane, addresses, &error.to_string(), now);
            }
        }
    }

    fn now(&self) -> Instant {
        Instant::ZERO + self.start.elapsed()
    }
}

const LISTENER: Token = Token(2);

/// Clients follow the two connections to Redis and the listener.
fn token(id: SocketId) -> Token {
    Token(match id {
        SocketId::Redis(lane) => lane as usize,
        SocketId::Client(id) => 3 + id.index(),
    })
}
