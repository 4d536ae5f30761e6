//! Fanfare on tokio: the core's sockets, timers, threads and signals.
//!
//! [`serve`] is the whole server. [`Server`] is the same in pieces: [`Server::start`], [`Server::addresses`],
//! [`Server::stop`], [`Server::ended`].
//!
//! Each worker is one thread with a runtime of its own. What a worker does is in [`fanfare_core::drive`]; nothing here
//! knows WebSocket, HTTP or RESP.
#![forbid(unsafe_code)]

mod runtime;

use std::net::SocketAddr;

pub use fanfare_core as core;
use fanfare_core::config::Config;
use fanfare_core::drive;
pub use fanfare_core::drive::ServeError;

pub use self::runtime::{Connection, Tokio};

/// Serves until SIGINT or SIGTERM, then shuts down; a second signal ends it at once.
///
/// `ready` hears the addresses as soon as clients are accepted.
///
/// # Errors
/// See [`ServeError`].
pub async fn serve(config: Config, ready: impl FnOnce(&Config, &[SocketAddr])) -> Result<(), ServeError> {
    drive::serve::<Tokio>(config, ready).await
}

/// A server that runs on threads of its own. Dropping it stops it.
pub type Server = drive::Server<Tokio>;
