//! Fanfare on async-std and on smol: the core's sockets, timers, threads and signals.
//!
//! [`serve`] is the whole server on async-std; [`Server`] is the same in pieces. [`smol`] has both for smol.
//!
//! # Which of the two
//!
//! **smol, unless your program is on async-std already.** async-std is discontinued since March 2025
//! ([RUSTSEC-2025-0052](https://rustsec.org/advisories/RUSTSEC-2025-0052)): it gets no more fixes, tools such as
//! `cargo audit` report everything that depends on it, and its authors point to smol. It still works, and it stands on
//! the same crates for sockets and timers as smol (`async-io`, `polling`), which are maintained; what is frozen is the
//! layer above them. That layer also costs a little: it has no way to ask whether a socket has input but to read, and
//! it starts a pool of threads (as many as cores, or `ASYNC_STD_THREAD_COUNT`) that this server leaves idle.
//!
//! Both binaries take the same settings and behave the same, so that only the name changes.
//!
//! Each worker is one thread that blocks on one future. What a worker does is in [`fanfare_drive`]; nothing here
//! knows WebSocket, HTTP or RESP.
//!
//! The feature `cli`, which is on unless it is switched off, is for the binary: command line, log, metrics as text and
//! the chat page, in `fanfare-server`. A program that embeds this wants `default-features = false`.
#![forbid(unsafe_code)]

mod kind;
mod on_async_std;
mod on_smol;

use std::net::SocketAddr;

pub use fanfare_core as core;
pub use fanfare_drive as drive;
pub use fanfare_drive::{Listeners, ServeError, Setup};
#[cfg(feature = "cli")]
pub use fanfare_server as server;

pub use self::kind::{Kind, Listener, On};
pub use self::on_async_std::{AsyncStd, AsyncStdConnection};
pub use self::on_smol::{Smol, SmolConnection};

/// Serves until SIGINT, SIGTERM or SIGQUIT, then shuts down; see [`drive::serve`].
///
/// `ready` is called with the addresses as soon as clients are accepted. [`drive::serve`] also takes listening sockets.
///
/// # Errors
/// See [`ServeError`].
pub async fn serve(setup: Setup, ready: impl FnOnce(&[SocketAddr])) -> Result<(), ServeError> {
    drive::serve::<On<AsyncStd>>(setup, Listeners::default(), ready).await
}

/// A server that runs on threads of its own. Dropping it stops it.
pub type Server = drive::Server<On<AsyncStd>>;

/// An instance inside another program; see [`drive::Hub`].
pub type Hub = drive::Hub<On<AsyncStd>>;

/// The same on smol.
pub mod smol {
    use super::{Listeners, On, ServeError, Setup, Smol, SocketAddr, drive};

    /// As [`serve`](super::serve).
    ///
    /// # Errors
    /// See [`ServeError`].
    pub async fn serve(setup: Setup, ready: impl FnOnce(&[SocketAddr])) -> Result<(), ServeError> {
        drive::serve::<On<Smol>>(setup, Listeners::default(), ready).await
    }

    /// As [`Server`](super::Server).
    pub type Server = drive::Server<On<Smol>>;

    /// As [`Hub`](super::Hub).
    pub type Hub = drive::Hub<On<Smol>>;
}
