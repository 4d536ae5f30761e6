//! Fanfare on tokio: the core's sockets, timers, threads and signals.
//!
//! [`serve`] is the whole server. [`Server`] is the same in pieces: [`Server::start`], [`Server::addresses`],
//! [`Server::stop`], [`Server::ended`]. [`Hub`] is an instance inside a tokio program of your own, with your routes and
//! your authorisation; the example `in_axum` has one.
//!
//! Each worker is one thread with a runtime of its own. What a worker does is in [`fanfare_drive`]; nothing here
//! knows WebSocket, HTTP or RESP.
//!
//! The feature `cli`, which is on unless it is switched off, is for the binary: command line, log, metrics as text and
//! the chat page, in `fanfare-server`. A program that embeds this wants `default-features = false`.
#![forbid(unsafe_code)]

mod connection;
mod runtime;

use std::net::SocketAddr;

pub use fanfare_core as core;
pub use fanfare_drive as drive;
pub use fanfare_drive::{Heard, HubChannel, HubError, HubMessage, HubSession, Listeners, ServeError, Setup};
#[cfg(feature = "cli")]
pub use fanfare_server as server;

pub use self::connection::Connection;
pub use self::runtime::Tokio;

/// Serves until SIGINT, SIGTERM or SIGQUIT, then shuts down; see [`drive::serve`].
///
/// `ready` is called with the addresses as soon as clients are accepted. [`drive::serve`] also takes listening sockets.
///
/// # Errors
/// See [`ServeError`].
pub async fn serve(setup: Setup, ready: impl FnOnce(&[SocketAddr])) -> Result<(), ServeError> {
    drive::serve::<Tokio>(setup, Listeners::default(), ready).await
}

/// A server that runs on threads of its own. Dropping it stops it.
pub type Server = drive::Server<Tokio>;

/// An instance inside another program; see [`drive::Hub`].
///
/// ```
/// # use fanfare_tokio::core::route::FrameType;
/// # use fanfare_tokio::{Heard, Hub, Setup};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let hub = Hub::start(Setup::default()).await?;
/// let mut news = hub.subscribe("news", FrameType::Text).await?;
/// hub.publish("news", "hello").await?;
/// assert_eq!(news.next().await, Some(Heard::Message("hello".into())));
/// hub.stop().await?;
/// # Ok(())
/// # }
/// ```
pub type Hub = drive::Hub<Tokio>;

/// A session of a [`Hub`] without its connection; see [`drive::Reserved`].
pub type Reserved = drive::Reserved<Tokio>;

/// The messages of one channel of a [`Hub`]; see [`drive::Subscription`].
pub type Subscription = drive::Subscription<Tokio>;
