//! A whole instance on one thread and `mio`: no async runtime, no lock, one scratch buffer for all sockets.
//!
//! Take it if you have an event loop of your own, or want one. It takes the servers' options (`--help`) except for those
//! on workers and logs; it never gives Redis up, and it ends when it is killed.
//!
//! ```sh
//! PORT=3000 REDIS_URL=redis://127.0.0.1 cargo run --release -p fanfare-server --features cli --example blocking
//! ```

use std::collections::BTreeSet;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::{Shutdown, ToSocketAddrs};
use std::{env, mem, process, time};

use fanfare_core::bus;
use fanfare_core::node::{Action, Event, Node, SocketId};
use fanfare_core::redis::{Endpoint, LinkId};
use fanfare_core::time::Instant;
use fanfare_server::cli::{self, Exit, Program};
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};

const PROGRAM: Program = Program { name: "blocking", version: env!("CARGO_PKG_VERSION") };
const LISTENER: Token = Token(usize::MAX);

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
    println!("{}", config.banner(&[listener.local_addr()?]));
    let seed = RandomState::new().hash_one(0);
    let node = Node::new(config.settings()?, config.redis, seed, Instant::ZERO);
    let (sockets, ready, scratch) = (Vec::new(), BTreeSet::new(), vec![0; 64 << 10]);
    Ok(Instance { node, poll, listener, sockets, ready, scratch, dials: 0, start: time::Instant::now() }.run()?)
}

struct Instance {
    node: Node,
    poll: Poll,
    listener: TcpListener,
    /// Each at the index of its id.
    sockets: Vec<Option<Socket>>,
    /// Sockets that may have something to read, those of Redis first.
    ready: BTreeSet<SocketId>,
    scratch: Vec<u8>,
    /// Each takes the next address of Redis's name.
    dials: usize,
    start: time::Instant,
}

struct Socket {
    id: SocketId,
    stream: TcpStream,
    is_dialing: bool,
}

impl Instance {
    fn run(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(1_024);
        loop {
            let now = self.now();
            let next = if self.ready.is_empty() { self.node.poll_timeout() } else { Some(now) };
            // It rounds up to its grain, so that no timer is early.
            match self.poll.poll(&mut events, next.map(|next| next.since(now))) {
                Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
            let now = self.now();
            for event in &events {
                self.note(event.token(), event.is_writable());
            }
            for id in mem::take(&mut self.ready) {
                self.read(id, now);
            }
            self.node.handle_timeout(now);
            while let Some(action) = self.node.poll_action() {
                self.act(action, now);
            }
            while let Some(event) = self.node.poll_event() {
                if let Event::Bus(event @ (bus::Event::StartFailed(_) | bus::Event::Down { .. })) = event {
                    eprintln!("trying on: {event:?}");
                }
            }
            self.accept(now);
        }
    }

    /// In every turn, since clients that there is no descriptor for wait until a socket is closed. The rest of a crowd has
    /// the next turn, which comes at once: new sockets are writable.
    fn accept(&mut self, now: Instant) {
        for _ in 0..64 {
            match self.listener.accept() {
                Ok((stream, peer)) => {
                    self.node.set_wall_clock(time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default(), now);
                    let id = self.node.handle_connection(Some(peer.ip()), now);
                    if let Err(error) = self.insert(id, stream, false) {
                        self.node.handle_reset(id, &error.to_string(), now);
                    }
                }
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
                Err(_) => return,
            }
        }
    }

    fn note(&mut self, token: Token, is_writable: bool) {
        let Some(Some(socket)) = self.sockets.get(token.0) else { return };
        let id = socket.id;
        if is_writable {
            self.node.handle_writable(id);
        }
        self.ready.insert(id);
    }

    /// Says whether the socket is connected, which one to Redis is not at first.
    fn is_connected(&mut self, id: SocketId, now: Instant) -> bool {
        let Some(socket) = socket(&mut self.sockets, id) else { return false };
        let (true, SocketId::Redis(link)) = (socket.is_dialing, id) else { return true };
        match socket.stream.take_error().and_then(|error| error.map_or_else(|| socket.stream.peer_addr(), Err)) {
            Ok(_) => {
                socket.is_dialing = false;
                self.node.handle_connected(link, now);
            }
            Err(error) if error.kind() == ErrorKind::NotConnected => {}
            Err(error) => self.node.handle_dial_failed(link, &error.to_string(), now),
        }
        !socket.is_dialing
    }

    /// Reads a socket once, so that no flood holds up the others.
    fn read(&mut self, id: SocketId, now: Instant) {
        let is_connected = self.is_connected(id, now);
        if !self.node.handle_readable(id, now) || !is_connected {
            return;
        }
        let Some(socket) = socket(&mut self.sockets, id) else { return };
        let room = if let SocketId::Redis(_) = id { 64 << 10 } else { 16 << 10 };
        match socket.stream.read(&mut self.scratch[..room]) {
            Ok(0) => return self.node.handle_eof(id, now),
            Ok(len) => self.node.handle_read(id, &mut self.scratch[..len], len == room, now),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return,
            Err(error) => return self.node.handle_reset(id, &error.to_string(), now),
        }
        // Readiness is reported once: what is left is read in the next turn.
        self.ready.insert(id);
    }

    fn act(&mut self, action: Action, now: Instant) {
        match action {
            Action::Dial(id, endpoint) => {
                if let Err(error) = self.dial(id, endpoint) {
                    self.node.handle_dial_failed(id, &error.to_string(), now);
                }
            }
            Action::Write(id) => self.write(id, now),
            Action::Read(id) => drop(self.ready.insert(id)),
            // Fails only if the peer is gone, which the next read says.
            Action::EndWrites(id) => {
                drop(socket(&mut self.sockets, id).map(|socket| socket.stream.shutdown(Shutdown::Write)));
            }
            Action::Reset(id) => {
                drop(
                    socket(&mut self.sockets, id)
                        .map(|socket| socket2::SockRef::from(&socket.stream).set_linger(Some(time::Duration::ZERO))),
                );
            }
            Action::Close(id) => {
                if socket(&mut self.sockets, id).is_some() {
                    self.sockets[id.index()] = None;
                }
            }
        }
    }

    fn write(&mut self, id: SocketId, now: Instant) {
        let Some(socket) = socket(&mut self.sockets, id) else { return };
        let mut slices = [IoSlice::new(&[]); 8];
        let filled = self.node.transmit(id, &mut slices);
        match socket.stream.write_vectored(&slices[..filled]) {
            // Misuse is impossible: no more can be written than was lent.
            Ok(len) => drop(self.node.transmitted(id, len, now)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => self.node.blocked(id),
            Err(error) => self.node.handle_reset(id, &error.to_string(), now),
        }
    }

    /// A name is looked up on this thread: everybody waits for a slow name server.
    fn dial(&mut self, id: LinkId, endpoint: Endpoint) -> io::Result<()> {
        let Endpoint::Tcp { host, port } = endpoint else { return Err(ErrorKind::Unsupported.into()) };
        let addresses: Vec<_> = (host, port).to_socket_addrs()?.collect();
        let address = addresses.get(self.dials % addresses.len().max(1)).ok_or(ErrorKind::AddrNotAvailable)?;
        self.dials += 1;
        self.insert(SocketId::Redis(id), TcpStream::connect(*address)?, true)
    }

    fn insert(&mut self, id: SocketId, mut stream: TcpStream, is_dialing: bool) -> io::Result<()> {
        // Fails only if the peer is gone, which the first read says.
        let _ = stream.set_nodelay(true);
        self.poll.registry().register(&mut stream, Token(id.index()), Interest::READABLE | Interest::WRITABLE)?;
        if self.sockets.len() <= id.index() {
            self.sockets.resize_with(id.index() + 1, || None);
        }
        self.sockets[id.index()] = Some(Socket { id, stream, is_dialing });
        Ok(())
    }

    fn now(&self) -> Instant {
        Instant::ZERO + self.start.elapsed()
    }
}

fn socket(sockets: &mut [Option<Socket>], id: SocketId) -> Option<&mut Socket> {
    sockets.get_mut(id.index())?.as_mut().filter(|socket| socket.id == id)
}
