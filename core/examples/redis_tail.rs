//! Prints what a channel of Redis carries, with Fanfare's link to Redis and nothing else of it.
//!
//! Take it if your program speaks with clients in a way of its own, and wants Pub/Sub that lives through restarts of
//! Redis and says when messages may have been missed. Stop and start Redis while it runs.
//!
//! ```sh
//! cargo run --release -p fanfare-core --example redis_tail redis://127.0.0.1 chat
//! ```

#![allow(
    clippy::disallowed_macros,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "an embedder is the world that the core must not reach"
)]

use std::error::Error;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::ToSocketAddrs;
use std::{env, time};

use fanfare_core::limits::Limits;
use fanfare_core::redis::{Action, Lane, Link, LinkEvent, RedisUrl};
use fanfare_core::time::Instant;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

fn main() -> Result<(), Box<dyn Error>> {
    let (Some(url), Some(channel)) = (env::args().nth(1), env::args().nth(2)) else {
        return Err("usage: redis_tail redis://[user[:password]@]host[:port] channel".into());
    };
    let url: RedisUrl = url.parse()?;
    let seed = RandomState::new().hash_one(0);
    let limits = Limits::default();
    let mut link = Link::new(url.clone(), "", &limits, seed, Instant::ZERO);
    link.subscribe(channel.into(), Instant::ZERO);
    let poll = Poll::new()?;
    let scratch = vec![0; 64 << 10];
    Ok(Tail { url, limits, link, poll, sockets: [None, None], scratch, start: time::Instant::now() }.run()?)
}

struct Tail {
    url: RedisUrl,
    limits: Limits,
    link: Link,
    poll: Poll,
    /// By lane.
    sockets: [Option<TcpStream>; 2],
    scratch: Vec<u8>,
    start: time::Instant,
}

impl Tail {
    fn run(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(8);
        loop {
            // `mio` rounds up to its grain, so that no timer is early.
            let wait = self.link.poll_timeout().map(|at| at.since(self.now()));
            if let Err(error) = self.poll.poll(&mut events, wait)
                && error.kind() != ErrorKind::Interrupted
            {
                return Err(error);
            }
            for lane in events.iter().filter_map(|event| Lane::ALL.get(event.token().0)) {
                self.link.handle_writable(*lane);
                self.read(*lane)?;
            }
            self.link.handle_timeout(self.now());
            self.follow()?;
        }
    }

    /// Readiness is reported once, so everything is read. Commands leave in between, lest a flood hold them up.
    fn read(&mut self, lane: Lane) -> io::Result<()> {
        while let Some(socket) = &mut self.sockets[lane as usize] {
            match socket.read(&mut self.scratch) {
                Ok(0) => self.lose(lane, "the server closed the connection"),
                Ok(len) => {
                    let mut text = Vec::new();
                    let now = self.now();
                    self.link.handle_read(lane, &self.scratch[..len], len == self.scratch.len(), now, |_, payload| {
                        text.extend_from_slice(payload);
                        text.push(b'\n');
                    });
                    io::stdout().write_all(&text)?;
                    self.follow()?;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => self.lose(lane, &error.to_string()),
            }
        }
        Ok(())
    }

    /// Does and tells what the link asks for.
    fn follow(&mut self) -> io::Result<()> {
        while let Some(action) = self.link.poll_action() {
            match action {
                Action::HangUp(lane) => self.sockets[lane as usize] = None,
                Action::Look(lane) => {
                    self.read(lane)?;
                    self.link.handle_looked(lane, self.now());
                }
                Action::Dial(lane) => match self.dial(lane) {
                    Ok(socket) => {
                        self.sockets[lane as usize] = Some(socket);
                        self.link.handle_connected(lane, self.now());
                    }
                    Err(error) => self.link.handle_dial_failed(lane, &error.to_string(), self.now()),
                },
            }
        }
        while let Some(lane) = self.link.poll_transmit() {
            self.write(lane);
        }
        while let Some(event) = self.link.poll_event() {
            match event {
                LinkEvent::Up { gap: Some(gap) } => eprintln!("back; messages of {gap:?} may have been missed"),
                LinkEvent::Up { gap: None } => eprintln!("listening to {}", self.url),
                LinkEvent::Down { reason, .. } => eprintln!("{reason}"),
                LinkEvent::StartFailed(error) => eprintln!("{error}; trying on"),
                LinkEvent::SubscribeRefused { reason, .. } => eprintln!("not allowed to listen: {reason}"),
                LinkEvent::Oversized { bytes, .. } => eprintln!("left out a message of {bytes} bytes"),
                _ => {}
            }
        }
        Ok(())
    }

    fn write(&mut self, lane: Lane) {
        let Some(socket) = &mut self.sockets[lane as usize] else { return };
        let mut slices = [IoSlice::new(&[]); 4];
        let filled = self.link.transmit(lane, &mut slices);
        match socket.write_vectored(&slices[..filled]) {
            // Misuse is impossible: no more can be written than was lent.
            Ok(len) => drop(self.link.transmitted(lane, len, self.now())),
            Err(error) if error.kind() == ErrorKind::WouldBlock => self.link.blocked(lane),
            Err(error) => self.lose(lane, &error.to_string()),
        }
    }

    /// Connects, and blocks as long as that takes: nothing else waits here.
    fn dial(&self, lane: Lane) -> io::Result<TcpStream> {
        let mut result = Err(ErrorKind::AddrNotAvailable.into());
        for address in (self.url.host(), self.url.port()).to_socket_addrs()? {
            result = std::net::TcpStream::connect_timeout(&address, self.limits.dial_time);
            if result.is_ok() {
                break;
            }
        }
        let stream = result?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let mut socket = TcpStream::from_std(stream);
        let interests = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(&mut socket, Token(lane as usize), interests)?;
        Ok(socket)
    }

    fn lose(&mut self, lane: Lane, reason: &str) {
        self.sockets[lane as usize] = None;
        self.link.handle_closed(lane, reason, self.now());
    }

    fn now(&self) -> Instant {
        Instant::ZERO + self.start.elapsed()
    }
}
