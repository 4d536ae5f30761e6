//! A TCP proxy between an instance and Redis that does to its connections what networks, servers and people do.
//!
//! It tells the two connections of an instance apart by the name that each gives itself, so that a fault can strike one
//! alone, in either direction. Each connection is two threads that look every few milliseconds for what they are to do.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::net::shutdown;
use rustix::net::sockopt::set_socket_linger;

use crate::port::ReservedPort;
use crate::resp::frame_length;

/// How soon a changed fault is noticed.
const TICK: Duration = Duration::from_millis(10);

/// Connections at a time; more are closed as they come.
const MAX_CONNECTIONS: usize = 64;

/// Listens on a port of its own on loopback. Dropping it cuts everything.
pub struct Proxy {
    port: ReservedPort,
    shared: Arc<Shared>,
}

/// One of the two connections of an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// It gets the messages.
    Subscriber,
    /// It publishes.
    Publisher,
}

/// A direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Commands.
    ToRedis,
    /// Replies and messages.
    ToInstance,
}

/// What becomes of the bytes of one lane in one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// They are read and thrown away, an end of the stream too: half of the connection is open to nowhere.
    Swallow,
    /// They are not read.
    Stall,
    /// They come later by this time, and in larger pieces.
    Delay(Duration),
    /// They come in pieces of one byte.
    Split,
    /// They come at so many bytes a second.
    Slow(usize),
    /// Messages are thrown away and replies come: Redis answers PING and delivers nothing.
    Mute,
}

/// How a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// In order, with a FIN to both sides.
    Cut,
    /// With a RST to both sides.
    Reset,
}

struct Shared {
    upstream: u16,
    listener: Mutex<Option<TcpListener>>,
    connections: Mutex<Vec<Arc<Connection>>>,
    /// By lane and way.
    faults: Mutex<[[Option<Fault>; 2]; 2]>,
    swallowed: AtomicUsize,
    pieces: AtomicUsize,
    is_over: AtomicBool,
}

struct Connection {
    instance: TcpStream,
    redis: TcpStream,
    lane: OnceLock<Lane>,
    end: OnceLock<End>,
    /// Directions in which nothing more will come.
    done: AtomicUsize,
    /// To be put between two frames, or wherever the stream stands, by way.
    injections: Mutex<[Vec<u8>; 2]>,
}

impl Lane {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Subscriber, Self::Publisher];

    /// The lane that a handshake names.
    fn named(handshake: &[u8]) -> Option<Self> {
        let says = |name: &[u8]| handshake.windows(name.len()).any(|window| window == name);
        if says(b"fanfare-subscriber") {
            Some(Self::Subscriber)
        } else {
            says(b"fanfare-publisher").then_some(Self::Publisher)
        }
    }
}

impl Way {
    /// Both.
    pub const ALL: [Self; 2] = [Self::ToRedis, Self::ToInstance];
}

impl Proxy {
    /// Passes connections on to `upstream`, a port on loopback.
    ///
    /// # Errors
    ///
    /// When there is no port to listen on.
    pub fn start(upstream: u16) -> io::Result<Self> {
        let port = ReservedPort::new()?;
        let shared = Arc::new(Shared {
            upstream,
            listener: Mutex::new(Some(listen(port.number())?)),
            connections: Mutex::default(),
            faults: Mutex::default(),
            swallowed: AtomicUsize::new(0),
            pieces: AtomicUsize::new(0),
            is_over: AtomicBool::new(false),
        });
        let acceptor = Arc::clone(&shared);
        thread::spawn(move || {
            while !acceptor.is_over.load(Ordering::Relaxed) {
                if !acceptor.accept() {
                    thread::sleep(TICK);
                }
            }
        });
        Ok(Self { port, shared })
    }

    /// What `REDIS_URL` should be, without credentials.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port())
    }

    /// The port that it listens on.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port.number()
    }

    /// Connections that stand.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.shared.live().len()
    }

    /// Bytes that [`Fault::Swallow`] has thrown away so far.
    #[must_use]
    pub fn swallowed(&self) -> usize {
        self.shared.swallowed.load(Ordering::Relaxed)
    }

    /// Pieces in which bytes were passed on so far.
    #[must_use]
    pub fn pieces(&self) -> usize {
        self.shared.pieces.load(Ordering::Relaxed)
    }

    /// Does this to the bytes of these lanes in these directions from here on, on new connections too.
    pub fn set(&self, lanes: &[Lane], ways: &[Way], fault: Fault) {
        let mut faults = locked(&self.shared.faults);
        for &lane in lanes {
            for &way in ways {
                faults[lane as usize][way as usize] = Some(fault);
            }
        }
    }

    /// Ends the standing connections of these lanes.
    pub fn end(&self, lanes: &[Lane], end: End) {
        for connection in self.shared.live().iter().filter(|connection| connection.is_of(lanes)) {
            connection.finish(end);
        }
    }

    /// Puts these bytes into the standing connections of these lanes; on the way to the instance between two frames.
    pub fn inject(&self, lanes: &[Lane], way: Way, bytes: &[u8]) {
        for connection in self.shared.live().iter().filter(|connection| connection.is_of(lanes)) {
            locked(&connection.injections)[way as usize].extend_from_slice(bytes);
        }
    }

    /// Refuses new connections, as if nobody listened.
    pub fn refuse(&self) {
        if let Some(listener) = locked(&self.shared.listener).take() {
            // A process that another thread starts right now has a copy of the socket for a moment, so that to close it
            // is not enough. This fails only for a socket that does not listen.
            let _ = shutdown(&listener, rustix::net::Shutdown::Both);
        }
    }

    /// Ends all faults. Connections from which bytes are missing are reset: what follows would make no sense.
    ///
    /// # Errors
    ///
    /// When its port was taken after [`Proxy::refuse`].
    pub fn heal(&self) -> io::Result<()> {
        *locked(&self.shared.faults) = Default::default();
        let mut listener = locked(&self.shared.listener);
        if listener.is_none() {
            *listener = Some(listen(self.port())?);
        }
        Ok(())
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Relaxed);
        self.refuse();
        self.end(&Lane::ALL, End::Cut);
    }
}

impl Shared {
    /// Takes one connection, if one waits.
    fn accept(self: &Arc<Self>) -> bool {
        let accepted = locked(&self.listener).as_ref().map(TcpListener::accept);
        let Some(Ok((instance, _))) = accepted else { return false };
        // Whoever cannot be served sees its connection end at once.
        let Ok(connection) = Connection::new(instance, self.upstream) else { return true };
        let connection = Arc::new(connection);
        let mut live = self.live();
        if live.len() < MAX_CONNECTIONS {
            live.push(Arc::clone(&connection));
            for way in Way::ALL {
                let pump =
                    Pump { shared: Arc::clone(self), connection: Arc::clone(&connection), way, held: Vec::new() };
                thread::spawn(move || pump.run());
            }
        }
        true
    }

    /// The connections that stand.
    fn live(&self) -> MutexGuard<'_, Vec<Arc<Connection>>> {
        let mut connections = locked(&self.connections);
        connections.retain(|connection| connection.end.get().is_none());
        connections
    }

    fn fault(&self, lane: Option<&Lane>, way: Way) -> Option<Fault> {
        locked(&self.faults)[*lane? as usize][way as usize]
    }
}

impl Connection {
    fn new(instance: TcpStream, upstream: u16) -> io::Result<Self> {
        let redis = TcpStream::connect(("127.0.0.1", upstream))?;
        for stream in [&instance, &redis] {
            stream.set_nonblocking(false)?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(TICK))?;
            stream.set_write_timeout(Some(TICK))?;
        }
        Ok(Self {
            instance,
            redis,
            lane: OnceLock::new(),
            end: OnceLock::new(),
            done: AtomicUsize::new(0),
            injections: Mutex::default(),
        })
    }

    /// A connection that has not given its name yet belongs to no lane.
    fn is_of(&self, lanes: &[Lane]) -> bool {
        self.lane.get().is_some_and(|lane| lanes.contains(lane))
    }

    /// Ends it; only the first end counts. The sockets are closed when both pumps have seen it.
    fn finish(&self, end: End) {
        if self.end.set(end).is_err() {
            return;
        }
        for stream in [&self.instance, &self.redis] {
            // Both fail only for a socket that has ended already.
            let _ = match end {
                End::Cut => stream.shutdown(Shutdown::Both),
                End::Reset => set_socket_linger(stream, Some(Duration::ZERO)).map_err(Into::into),
            };
        }
    }
}

/// One direction of one connection.
struct Pump {
    shared: Arc<Shared>,
    connection: Arc<Connection>,
    way: Way,
    /// Read and not passed on yet; on the way to the instance whole frames only.
    held: Vec<u8>,
}

impl Pump {
    fn run(mut self) {
        let mut tail = Vec::new();
        let (mut has_ended, mut has_lost) = (false, false);
        let mut read_at = Instant::now();
        while self.connection.end.get().is_none() {
            if self.held.is_empty() {
                self.held = std::mem::take(&mut locked(&self.connection.injections)[self.way as usize]);
            }
            let fault = self.shared.fault(self.connection.lane.get(), self.way);
            let step = if fault == Some(Fault::Swallow) {
                has_lost |= has_ended || !self.held.is_empty();
                self.shared.swallowed.fetch_add(self.held.len(), Ordering::Relaxed);
                self.held.clear();
                self.read(&mut tail, &mut has_ended)
            } else if has_lost {
                Err(ErrorKind::ConnectionReset.into())
            } else if !self.held.is_empty() {
                self.pass(fault, read_at)
            } else if has_ended {
                // It fails only for a socket that has ended already. The rest is the other direction's.
                let _ = self.to().shutdown(Shutdown::Write);
                break;
            } else if fault == Some(Fault::Stall) {
                thread::sleep(TICK);
                Ok(())
            } else {
                let step = self.read(&mut tail, &mut has_ended);
                read_at = Instant::now();
                step
            };
            if step.is_err() {
                self.connection.finish(End::Reset);
            }
        }
        if self.connection.done.fetch_add(1, Ordering::Relaxed) == 1 {
            self.connection.finish(End::Cut);
        }
        drop(self.shared.live());
    }

    /// Reads what comes within a tick.
    fn read(&mut self, tail: &mut Vec<u8>, has_ended: &mut bool) -> io::Result<()> {
        if *has_ended {
            thread::sleep(TICK);
            return Ok(());
        }
        let mut chunk = [0; 16_384];
        let length = match self.from().read(&mut chunk) {
            Ok(length) => length,
            Err(e) if is_waiting(&e) => return Ok(()),
            Err(e) => return Err(e),
        };
        *has_ended = length == 0;
        let bytes = &chunk[..length];
        if self.way == Way::ToRedis {
            if let Some(lane) = Lane::named(bytes) {
                // The first name is the only one.
                let _ = self.connection.lane.set(lane);
            }
            self.held.extend_from_slice(bytes);
            return Ok(());
        }
        tail.extend_from_slice(bytes);
        // It may have been set while nothing came.
        let fault = self.shared.fault(self.connection.lane.get(), self.way);
        let mut at = 0;
        while let Some(length) = frame_length(&tail[at..])? {
            let frame = &tail[at..at + length];
            if fault != Some(Fault::Mute) || !is_message(frame) {
                self.held.extend_from_slice(frame);
            }
            at += length;
        }
        tail.drain(..at);
        Ok(())
    }

    /// Does with what is held what the fault says, or a part of it.
    fn pass(&mut self, fault: Option<Fault>, read_at: Instant) -> io::Result<()> {
        let all = self.held.len();
        match fault {
            None | Some(Fault::Mute | Fault::Swallow) => self.write(all),
            Some(Fault::Stall) => {
                thread::sleep(TICK);
                Ok(())
            }
            Some(Fault::Delay(time)) => match (read_at + time).checked_duration_since(Instant::now()) {
                Some(left) => {
                    thread::sleep(left.min(TICK));
                    Ok(())
                }
                None => self.write(all),
            },
            Some(Fault::Split) => self.write(1),
            Some(Fault::Slow(rate)) => {
                thread::sleep(TICK);
                self.write((rate / 100).clamp(1, all))
            }
        }
    }

    fn write(&mut self, length: usize) -> io::Result<()> {
        match self.to().write(&self.held[..length]) {
            Ok(written) => {
                self.held.drain(..written);
                self.shared.pieces.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }
            Err(e) if is_waiting(&e) => Ok(()),
            Err(e) => Err(e),
        }
    }

    fn from(&self) -> &TcpStream {
        match self.way {
            Way::ToRedis => &self.connection.instance,
            Way::ToInstance => &self.connection.redis,
        }
    }

    fn to(&self) -> &TcpStream {
        match self.way {
            Way::ToRedis => &self.connection.redis,
            Way::ToInstance => &self.connection.instance,
        }
    }
}

fn listen(port: u16) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(("127.0.0.1", port))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

fn is_waiting(error: &io::Error) -> bool {
    [ErrorKind::WouldBlock, ErrorKind::TimedOut, ErrorKind::Interrupted].contains(&error.kind())
}

/// Whether a frame is a message of a channel, in RESP3 or RESP2.
fn is_message(frame: &[u8]) -> bool {
    [b">", b"*"]
        .iter()
        .any(|kind| frame.strip_prefix(*kind).is_some_and(|rest| rest.starts_with(b"3\r\n$7\r\nmessage\r\n")))
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
