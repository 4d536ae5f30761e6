//! Fanfare's core: WebSocket sessions, Redis Pub/Sub and fan-out as one pure state machine.
//!
//! A client's WebSocket message becomes a publish on its channel; every instance that has sessions on that channel
//! passes it on to all of them. This crate makes every decision about that and does no I/O: it has no socket, clock,
//! thread or runtime. The embedder moves bytes between it and sockets and supplies the time; `fanfare-tokio` is such an
//! embedder, and a server ready to run. Three packages stand on this one, each on those before it: `fanfare-drive` is
//! the turn of a worker on any async runtime, `fanfare-server` has what a process of its own needs (command line, log,
//! metrics as text, the chat page), and the adapters `fanfare-tokio` and `fanfare-async-std` are runtimes and binaries.
//!
//! # Where to begin
//!
//! - [`node::Node`] is a whole instance on one thread, one [`shard::Shard`] and one [`bus::Bus`]: what most embedders
//!   hold.
//! - With several threads, hold a [`shard::Shard`] on each and one [`bus::Bus`] for all, and carry
//!   [`exchange::ToBus`] and [`exchange::ToShard`] between them, each worker's in order.
//! - On an async runtime, the package `fanfare-drive` is a whole server without the runtime: implement its `Runtime`
//!   and `Stream` in some 150 lines, as `fanfare-tokio` and `fanfare-async-std` do.
//! - [`settings::Settings`] configures shards, [`limits::Limits`] has the bounds, [`route::Routes`] maps paths to
//!   channels, [`note`] describes what clients learn about losses.
//! - [`ws`], [`http`], [`resp`] and [`redis`] are the protocols by themselves, for other uses.
//!
//! # The contract
//!
//! 1. **Time and randomness come in.** Inputs take `now`, microseconds since an epoch of your choice, the same for all
//!    workers ([`time::Instant`]); an earlier `now` counts as the latest seen. Seeds come in at the constructor. The
//!    same inputs give the same outputs, byte for byte.
//! 2. **There are four kinds of methods**: getters; inputs from the world (`handle_*`, and `transmitted` and `blocked`,
//!    the results of a write); commands (`accept`, `publish`, `close`, …); outputs (`poll_*`), to be drained until they
//!    return `None`. A call that the state does not allow returns
//!    [`error::Misuse`] and changes nothing.
//! 3. **Input memory is yours.** The bytes read are unmasked in place and not kept, except for an unfinished tail
//!    within the limits. One scratch buffer serves all sessions of a thread; an idle session owns none.
//! 4. **Output is lent, written, acknowledged.** `poll_transmit` names each session with new output, once. `transmit`
//!    lends slices for a vectored write and changes nothing; `transmitted` says how many bytes have left. If the socket
//!    is full, call `blocked`, and `handle_writable` when it has room again. A session has no write buffer.
//! 5. **`poll_timeout` is when something must happen next**: the present only while an output has not been polled, so
//!    that no wake-up is lost and no full socket makes you spin. Calling `handle_timeout` early or repeatedly is
//!    harmless; round deadlines up to your timer's resolution.
//! 6. **A message is encoded once** and lent to every socket from the same memory ([`run::Run`]).
//! 7. **Every buffer has a bound**, in [`limits::Limits`] or, if nobody needs to change it, as a constant of its
//!    module. Nothing is reserved on a length that a peer claims. You bound two things yourself: the number of
//!    connections, and the events that you have not polled.
//!    [`Settings::memory_bound`](settings::Settings::memory_bound) is the sum of the rest.
//! 8. **The first error of a connection ends it** and stays ([`error::Error`]); one table gives the status or the
//!    close code for each. Closes without an error are 1001 (shutdown) and 1012 (a gap).
//!    `Closed` comes once for each session, and nothing comes for it afterwards.
//!
//! Below every bound, the data that a session gets does not depend on when you drain. Pings, pongs and Closes may
//! overtake waiting data.
//!
//! # The loop
//!
//! ```text
//! wait until a socket is readable or writable, or until node.poll_timeout()
//!
//! a connection accepted ─▶ handle_connection
//! a socket readable     ─▶ if handle_readable says yes: read once ─▶ handle_read, handle_eof, handle_reset
//! a socket writable     ─▶ handle_writable
//! a dial done           ─▶ handle_connected, handle_dial_failed
//! handle_timeout           in every turn: it also carries batches between shard and bus
//!
//! poll_action ─▶ Write: transmit, write ─▶ transmitted, blocked, handle_reset
//!                Read: treat that socket as readable again
//!                EndWrites: shutdown(SHUT_WR)   Close: close the socket   Dial: connect to Redis
//!                Reset: set SO_LINGER to zero, so that the close that follows resets the connection
//! poll_event  ─▶ poll every event, and use those that you need
//! ```
//!
//! - `now` is `Instant::ZERO + start.elapsed()`, with `start` of [`std::time::Instant`]. A seed comes from
//!   the system's randomness, for instance `RandomState::new().hash_one(0)`.
//! - [`node::SocketId::index`] is the token, key or place of a socket in your event library and table.
//! - Switch Nagle's algorithm off (`TCP_NODELAY`), or a message waits until the one before it is acknowledged.
//! - Read each socket once a turn, and at most a few dozen KiB, so that a flood does not delay other clients.
//! - "Would block" is no error: after a write call `blocked`, after a read do nothing. On "interrupted" try again.
//! - With level-triggered readiness, ask for input only while `handle_readable` says yes or after `Read`, and for room
//!   only between `blocked` and `handle_writable`; otherwise you never sleep. With edge-triggered readiness, treat a
//!   socket as readable in the next turn as well, until a read would block.
//! - Resolve Redis's host name off this thread; a slow name server stalls every client otherwise.
//! - When the system has no descriptor for another connection, stop accepting until a socket is closed; otherwise the
//!   loop spins.
//! - To end: [`node::Node::shutdown`], close the listener, and go on until [`node::Node::is_closed`].
//!
//! # Example
//!
//! Two clients in one room, on memory instead of sockets:
//!
//! ```
//! use std::io::IoSlice;
//!
//! use fanfare_core::node::{Action, Node, SocketId};
//! use fanfare_core::settings::Settings;
//! use fanfare_core::time::Instant;
//!
//! /// Everything that is to be written, as sockets would take it.
//! fn written(node: &mut Node, now: Instant) -> Vec<(SocketId, Vec<u8>)> {
//!     let mut all = Vec::new();
//!     node.handle_timeout(now);
//!     while let Some(action) = node.poll_action() {
//!         let Action::Write(id) = action else { continue };
//!         let mut slices = [IoSlice::new(&[]); 16];
//!         let filled = node.transmit(id, &mut slices);
//!         let bytes: Vec<u8> = slices[..filled].iter().flat_map(|slice| slice.iter().copied()).collect();
//!         node.transmitted(id, bytes.len(), now).expect("no more than was lent");
//!         all.push((id, bytes));
//!     }
//!     all
//! }
//!
//! let now = Instant::ZERO;
//! let mut node = Node::new(Settings::default(), None, 42, now);
//!
//! let clients = [(); 2].map(|()| {
//!     let id = node.handle_connection(None, now);
//!     let mut read = *b"GET /chat/tea HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n\
//!         Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
//!     assert!(node.handle_readable(id, now));
//!     node.handle_read(id, &mut read, false, now);
//!     assert!(written(&mut node, now)[0].1.starts_with(b"HTTP/1.1 101 Switching Protocols\r\n"));
//!     id
//! });
//!
//! // A masked text frame comes from the first; its key is zero to keep it readable.
//! node.handle_read(clients[0], &mut *b"\x81\x85\0\0\0\0hello".to_vec(), false, now);
//! assert_eq!(written(&mut node, now), clients.map(|id| (id, b"\x81\x05hello".to_vec())), "both get it");
//! ```
#![forbid(unsafe_code)]
// Their order differs from run to run.
#![warn(clippy::iter_over_hash_type)]

pub mod bus;
pub mod error;
pub mod exchange;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
pub mod histogram;
pub mod http;
pub mod limits;
pub mod memory;
pub mod node;
pub mod note;
pub mod quote;
pub mod redis;
pub mod resp;
pub mod route;
pub mod run;
pub mod settings;
pub mod shard;
pub mod shutdown;
pub mod snapshot;
pub mod time;
pub mod units;
pub mod ws;
