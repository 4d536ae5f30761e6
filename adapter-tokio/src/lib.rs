//! Fanfare on tokio: the core's sockets, timers and signals.
//!
//! [`serve`] is the whole server. [`Server`] is the same in pieces: [`Server::start`], [`Server::addresses`],
//! [`Server::stop`], [`Server::ended`].
//!
//! Each worker is one thread with a runtime and a shard of its own. The first one also has the listener and the bus.
//! Nothing here knows WebSocket, HTTP or RESP: bytes go in, bytes come out, and the core says when to wake.
#![forbid(unsafe_code)]

mod lanes;
mod listener;
mod mailbox;
mod server;
mod signals;
mod sockets;
mod worker;

pub use fanfare_core as core;

pub use self::server::{ServeError, Server, serve};
