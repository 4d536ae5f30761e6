//! Many WebSocket clients on one thread.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

use fanfare_tests::raw::{frame, good_request};
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use rustix::net::{AddressFamily, SocketType, bind, connect, socket};
use rustix::process::{Resource, getrlimit, setrlimit};

/// Handshakes under way at a time.
const GROUP: usize = 64;

/// Connections from one source address: it has some 28,000 ports, and the fuller it is the longer the kernel looks for one.
const PER_ADDRESS: usize = 4_000;

const CLOSE: u8 = 0x88;
const PING: u8 = 0x89;
const PONG: u8 = 0x8a;

/// Clients by number. A number is not used again.
pub(crate) struct Swarm {
    poll: Poll,
    events: Events,
    clients: Vec<Option<Connection>>,
    scratch: Box<[u8]>,
}

struct Connection {
    stream: TcpStream,
    phase: Phase,
    /// The beginning of what is not whole yet. Empty, and without memory, most of the time.
    tail: Vec<u8>,
    /// What the socket had no room for.
    owed: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Joining,
    Open,
    Leaving,
}

impl Swarm {
    /// A swarm without clients. Raises this process's limit of open files as far as it goes.
    pub(crate) fn new() -> io::Result<Self> {
        let mut limit = getrlimit(Resource::Nofile);
        limit.current = limit.maximum;
        setrlimit(Resource::Nofile, limit)?;
        let scratch = vec![0; 256 * 1024].into();
        Ok(Self { poll: Poll::new()?, events: Events::with_capacity(1024), clients: Vec::new(), scratch })
    }

    /// Opens clients until there were `count` of them in all, in small groups, and returns when all are open.
    pub(crate) fn grow(&mut self, count: usize, port: u16, path: &str) -> io::Result<()> {
        while self.clients.len() < count {
            let group = self.clients.len()..count.min(self.clients.len() + GROUP);
            for _ in group.clone() {
                self.join(port, path)?;
            }
            let start = Instant::now();
            while !group.clone().all(|number| self.is_open(number)) {
                self.turn(Duration::from_millis(100), |_, _| {})?;
                if start.elapsed() > Duration::from_secs(10) {
                    return Err(io::Error::other(format!("handshakes of clients {group:?} take longer than 10 s")));
                }
            }
        }
        Ok(())
    }

    /// Whether its handshake is done and it has not begun to leave.
    pub(crate) fn is_open(&self, number: usize) -> bool {
        self.clients.get(number).and_then(Option::as_ref).is_some_and(|client| client.phase == Phase::Open)
    }

    /// Dials and sends the handshake of one more client, and returns its number. It is open when its answer has come.
    pub(crate) fn join(&mut self, port: u16, path: &str) -> io::Result<usize> {
        let number = self.clients.len();
        let fd = socket(AddressFamily::INET, SocketType::STREAM, None)?;
        // A number whose source address would be beyond these comes after many have left.
        let last_byte = u8::try_from(2 + number / PER_ADDRESS % 200).map_err(io::Error::other)?;
        bind(&fd, &SocketAddrV4::new(Ipv4Addr::new(127, 0, 0, last_byte), 0))?;
        connect(&fd, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, port))?;
        let stream = std::net::TcpStream::from(fd);
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let mut stream = TcpStream::from_std(stream);
        self.poll.registry().register(&mut stream, Token(number), Interest::READABLE | Interest::WRITABLE)?;
        let mut client = Connection { stream, phase: Phase::Joining, tail: Vec::new(), owed: Vec::new() };
        client.send(good_request(port, path).as_bytes())?;
        self.clients.push(Some(client));
        Ok(number)
    }

    /// Begins the closing handshake. What the client hears until its end is not handed out any more.
    pub(crate) fn leave(&mut self, number: usize) -> io::Result<()> {
        self.send(number, &frame(CLOSE, &1000_u16.to_be_bytes()))?;
        if let Some(client) = &mut self.clients[number] {
            client.phase = Phase::Leaving;
        }
        Ok(())
    }

    /// Ends a client's connection without a word.
    pub(crate) fn vanish(&mut self, number: usize) {
        self.clients[number] = None;
    }

    /// Sends frames that [`message`] made; what finds no room leaves in a later turn.
    pub(crate) fn send(&mut self, number: usize, frames: &[u8]) -> io::Result<()> {
        match &mut self.clients[number] {
            Some(client) => client.send(frames).map_err(|e| of_client(number, &e)),
            None => Err(io::Error::other(format!("client {number} is gone"))),
        }
    }

    /// Waits for something to happen and hands every message to `hear`, with the number of the client that got it.
    ///
    /// Pings are answered. A client whom the server closes is an error.
    pub(crate) fn turn(&mut self, timeout: Duration, mut hear: impl FnMut(usize, &[u8])) -> io::Result<()> {
        match self.poll.poll(&mut self.events, Some(timeout)) {
            Err(e) if e.kind() == ErrorKind::Interrupted => return Ok(()),
            other => other?,
        }
        for event in &self.events {
            let number = event.token().0;
            let Some(client) = &mut self.clients[number] else { continue };
            let mut step = || {
                if event.is_writable() {
                    client.send(&[])?;
                }
                client.read(&mut self.scratch, |payload| hear(number, payload))
            };
            match step() {
                Ok(()) => {}
                // Its end of the connection, and the server's Close before it.
                Err(_) if client.phase == Phase::Leaving => self.clients[number] = None,
                Err(e) => return Err(of_client(number, &e)),
            }
        }
        Ok(())
    }
}

impl Connection {
    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.owed.is_empty() {
            let sent = write(&mut self.stream, bytes)?;
            self.owed.extend_from_slice(&bytes[sent..]);
        } else {
            self.owed.extend_from_slice(bytes);
            let sent = write(&mut self.stream, &self.owed)?;
            self.owed.drain(..sent);
        }
        Ok(())
    }

    fn read(&mut self, scratch: &mut [u8], mut hear: impl FnMut(&[u8])) -> io::Result<()> {
        loop {
            let length = match self.stream.read(scratch) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(length) => length,
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(e) => return Err(e),
            };
            if self.tail.is_empty() {
                let used = self.take(&scratch[..length], &mut hear)?;
                self.tail.extend_from_slice(&scratch[used..length]);
            } else {
                let mut bytes = std::mem::take(&mut self.tail);
                bytes.extend_from_slice(&scratch[..length]);
                let used = self.take(&bytes, &mut hear)?;
                self.tail.extend_from_slice(&bytes[used..]);
            }
            // The kernel says when there is more.
            if length < scratch.len() {
                return Ok(());
            }
        }
    }

    /// Takes whole frames out of `bytes`, after the head of the answer, and returns how much of it they were.
    fn take(&mut self, bytes: &[u8], mut hear: impl FnMut(&[u8])) -> io::Result<usize> {
        let mut at = 0;
        if self.phase == Phase::Joining {
            let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(0) };
            if !bytes.starts_with(b"HTTP/1.1 101 ") {
                return Err(io::Error::other(format!("not upgraded: {}", bytes.escape_ascii())));
            }
            self.phase = Phase::Open;
            at = end + 4;
        }
        while let Some((first, payload, length)) = first_frame(&bytes[at..]) {
            match first {
                CLOSE => return Err(io::Error::other(format!("closed by the server: {}", payload.escape_ascii()))),
                PING => self.send(&frame(PONG, payload))?,
                PONG => {}
                _ if self.phase == Phase::Leaving => {}
                _ => hear(payload),
            }
            at += length;
        }
        Ok(at)
    }
}

/// A text message as a client's frame.
pub(crate) fn message(text: &[u8]) -> Vec<u8> {
    frame(0x81, text)
}

/// The first byte, payload and length of the frame at the beginning of `bytes`, if it is whole.
fn first_frame(bytes: &[u8]) -> Option<(u8, &[u8], usize)> {
    let (start, length) = match *bytes {
        [_, length @ 0..=125, ..] => (2, usize::from(length)),
        [_, 126, high, low, ..] => (4, usize::from(high) << 8 | usize::from(low)),
        [_, 127, _, _, _, _, a, b, c, d, ..] => (10, u32::from_be_bytes([a, b, c, d]) as usize),
        _ => return None,
    };
    Some((bytes[0], bytes.get(start..start + length)?, start + length))
}

fn write(stream: &mut TcpStream, bytes: &[u8]) -> io::Result<usize> {
    let mut sent = 0;
    while sent < bytes.len() {
        match stream.write(&bytes[sent..]) {
            Ok(length) => sent += length,
            Err(e) if e.kind() == ErrorKind::WouldBlock => break,
            Err(e) => return Err(e),
        }
    }
    Ok(sent)
}

fn of_client(number: usize, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("client {number}: {error}"))
}
