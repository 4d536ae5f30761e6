//! Many WebSocket clients on one thread.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use rustix::net::sockopt::set_socket_recv_buffer_size;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with};
use rustix::process::{Resource, getrlimit, setrlimit};

use crate::raw::{frame, good_request};

/// Handshakes under way at a time.
const GROUP: usize = 64;

/// Connections from one source address: it has some 28,000 ports, and the fuller it is the longer the kernel looks for one.
const PER_ADDRESS: usize = 4_000;

const BINARY: u8 = 0x82;
const CLOSE: u8 = 0x88;
const PING: u8 = 0x89;
const PONG: u8 = 0x8a;

/// Clients by number. A number is not used again.
pub struct Swarm {
    poll: Poll,
    events: Events,
    clients: Vec<Option<Connection>>,
    scratch: Box<[u8]>,
}

/// What a client hears.
#[derive(Debug)]
pub enum Heard<'a> {
    /// The answer to its handshake: it is open.
    Welcome,
    /// A text message.
    Text(&'a [u8]),
    /// A binary message.
    Binary(&'a [u8]),
    /// The end: the code of the server's Close, if there was one, and what ended it. Nothing comes after it.
    Gone(Option<u16>, io::Error),
}

struct Connection {
    stream: TcpStream,
    phase: Phase,
    /// The beginning of what is not whole yet. Empty, and without memory, most of the time.
    tail: Vec<u8>,
    /// What the socket had no room for.
    owed: Vec<u8>,
    /// The code of the server's Close.
    code: Option<u16>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Joining,
    Open,
    Leaving,
}

impl Swarm {
    /// A swarm without clients. Raises this process's limit of open files as far as it goes.
    ///
    /// # Errors
    ///
    /// When the system has no poll or keeps the limit.
    pub fn new() -> io::Result<Self> {
        let mut limit = getrlimit(Resource::Nofile);
        limit.current = limit.maximum;
        setrlimit(Resource::Nofile, limit)?;
        let scratch = vec![0; 256 * 1024].into();
        Ok(Self { poll: Poll::new()?, events: Events::with_capacity(1024), clients: Vec::new(), scratch })
    }

    /// Opens clients until there were `count` of them in all, in small groups, and returns when all are open.
    ///
    /// # Errors
    ///
    /// When one is not taken, or takes longer than 10 s.
    pub fn grow(&mut self, count: usize, port: u16, path: &str) -> io::Result<()> {
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

    /// How many clients there ever were: the number that the next one has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.clients.len()
    }

    /// Whether there was none yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.clients.is_empty()
    }

    /// Like [`Swarm::grow`], for a server that may close clients, these and others.
    ///
    /// # Errors
    ///
    /// When nobody listens, or a client is neither taken nor closed within 10 s.
    pub fn grow_unless_closed(&mut self, count: usize, port: u16, path: &str) -> io::Result<()> {
        while self.clients.len() < count {
            let group = self.clients.len()..count.min(self.clients.len() + GROUP);
            for _ in group.clone() {
                self.join(port, path)?;
            }
            let start = Instant::now();
            while group.clone().any(|number| self.clients[number].as_ref().is_some_and(|it| it.phase == Phase::Joining))
            {
                self.listen(Duration::from_millis(100), |_, _| {})?;
                if start.elapsed() > Duration::from_secs(10) {
                    return Err(io::Error::other(format!("handshakes of clients {group:?} take longer than 10 s")));
                }
            }
        }
        Ok(())
    }

    /// Whether its handshake is done and it has not begun to leave.
    #[must_use]
    pub fn is_open(&self, number: usize) -> bool {
        self.clients.get(number).and_then(Option::as_ref).is_some_and(|client| client.phase == Phase::Open)
    }

    /// Dials and sends the handshake of one more client, and returns its number. It is open when its answer has come.
    ///
    /// # Errors
    ///
    /// When nobody listens.
    pub fn join(&mut self, port: u16, path: &str) -> io::Result<usize> {
        self.join_with(port, path, "")
    }

    /// Like [`Swarm::join`], with more header fields, each with its end of line.
    ///
    /// # Errors
    ///
    /// As [`Swarm::join`].
    pub fn join_with(&mut self, port: u16, path: &str, fields: &str) -> io::Result<usize> {
        let number = self.clients.len();
        let fd = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        // A number whose source address would be beyond these comes after many have left.
        let last_byte = u8::try_from(2 + number / PER_ADDRESS % 200).map_err(io::Error::other)?;
        bind(&fd, &SocketAddrV4::new(Ipv4Addr::new(127, 0, 0, last_byte), 0))?;
        connect(&fd, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, port))?;
        let stream = std::net::TcpStream::from(fd);
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let mut stream = TcpStream::from_std(stream);
        self.poll.registry().register(&mut stream, Token(number), Interest::READABLE | Interest::WRITABLE)?;
        let mut client = Connection { stream, phase: Phase::Joining, tail: Vec::new(), owed: Vec::new(), code: None };
        let request = good_request(port, path);
        client.send(format!("{}{fields}\r\n", request.strip_suffix("\r\n").unwrap_or(&request)).as_bytes())?;
        self.clients.push(Some(client));
        Ok(number)
    }

    /// Begins the closing handshake. What the client hears until its end is not handed out any more.
    ///
    /// # Errors
    ///
    /// When the client is gone.
    pub fn leave(&mut self, number: usize) -> io::Result<()> {
        self.send(number, &frame(CLOSE, &1000_u16.to_be_bytes()))?;
        if let Some(client) = &mut self.clients[number] {
            client.phase = Phase::Leaving;
        }
        Ok(())
    }

    /// Ends a client's connection without a word.
    pub fn vanish(&mut self, number: usize) {
        self.clients[number] = None;
    }

    /// Takes a client from the poll, with a small buffer in its kernel: it reads nothing more, and what is sent to it
    /// piles up at the server.
    ///
    /// # Errors
    ///
    /// When the client is gone.
    pub fn stop_reading(&mut self, number: usize) -> io::Result<()> {
        let client = self.clients[number].as_mut().ok_or_else(|| gone(number))?;
        set_socket_recv_buffer_size(&client.stream, 4_096)?;
        self.poll.registry().deregister(&mut client.stream)
    }

    /// Sends frames that [`message`] made; what finds no room leaves in a later turn.
    ///
    /// # Errors
    ///
    /// When the client is gone.
    pub fn send(&mut self, number: usize, frames: &[u8]) -> io::Result<()> {
        match &mut self.clients[number] {
            Some(client) => client.send(frames).map_err(|e| of_client(number, &e)),
            None => Err(gone(number)),
        }
    }

    /// Waits for something to happen and hands every message to `hear`, with the number of the client that got it.
    ///
    /// Pings are answered.
    ///
    /// # Errors
    ///
    /// When a client is closed by the server.
    pub fn turn(&mut self, timeout: Duration, mut hear: impl FnMut(usize, &[u8])) -> io::Result<()> {
        let mut fault = None;
        self.listen(timeout, |number, heard| match heard {
            Heard::Text(payload) | Heard::Binary(payload) => hear(number, payload),
            Heard::Welcome => {}
            Heard::Gone(_, error) => {
                fault.get_or_insert_with(|| of_client(number, &error));
            }
        })?;
        fault.map_or(Ok(()), Err)
    }

    /// Like [`Swarm::turn`], for a swarm whose clients may be closed.
    ///
    /// # Errors
    ///
    /// When the poll fails.
    pub fn listen(&mut self, timeout: Duration, mut hear: impl FnMut(usize, Heard<'_>)) -> io::Result<()> {
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
                client.read(&mut self.scratch, |heard| hear(number, heard))
            };
            let Err(error) = step() else { continue };
            // Its end of the connection, and the server's Close before it, are what whoever leaves waits for.
            if client.phase != Phase::Leaving {
                hear(number, Heard::Gone(client.code, error));
            }
            self.clients[number] = None;
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

    fn read(&mut self, scratch: &mut [u8], mut hear: impl FnMut(Heard<'_>)) -> io::Result<()> {
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
    fn take(&mut self, bytes: &[u8], mut hear: impl FnMut(Heard<'_>)) -> io::Result<usize> {
        let mut at = 0;
        if self.phase == Phase::Joining {
            let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(0) };
            if !bytes.starts_with(b"HTTP/1.1 101 ") {
                return Err(io::Error::other(format!("not upgraded: {}", bytes.escape_ascii())));
            }
            self.phase = Phase::Open;
            hear(Heard::Welcome);
            at = end + 4;
        }
        while let Some((first, payload, length)) = first_frame(&bytes[at..]) {
            match first {
                CLOSE => {
                    self.code = payload.first_chunk().map(|code| u16::from_be_bytes(*code));
                    return Err(io::Error::other(format!("closed by the server: {}", payload.escape_ascii())));
                }
                PING => self.send(&frame(PONG, payload))?,
                PONG => {}
                _ if self.phase == Phase::Leaving => {}
                BINARY => hear(Heard::Binary(payload)),
                _ => hear(Heard::Text(payload)),
            }
            at += length;
        }
        Ok(at)
    }
}

/// A text message as a client's frame.
#[must_use]
pub fn message(text: &[u8]) -> Vec<u8> {
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

fn gone(number: usize) -> io::Error {
    io::Error::other(format!("client {number} is gone"))
}

fn of_client(number: usize, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("client {number}: {error}"))
}
