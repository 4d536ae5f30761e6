//! A whole server on any async runtime: the turn of a worker, its sockets and wakes, and how workers reach each other,
//! start and end.
//!
//! An adapter implements [`Runtime`] (sockets, timers, threads, signals) and [`Stream`] (one connection), and has
//! [`serve`] and [`Server`] for it. Nothing in here opens a socket, reads a clock or starts a thread by itself. The
//! further parts of a process of its own (command line, log, metrics as text) are in `fanfare-server`.
//!
//! Each worker of a server is a thread with a shard of its own. The first one also has the listener and the bus. A turn
//! is: Redis first, each ready client once, timers, then the writes. A connection has no task and no buffer: its waker
//! puts it on its worker's list, and the worker reads it into the one buffer that it has.
//!
//! A [`Hub`] has one such worker or several, without a listener, as tasks of another program, which supplies
//! connections, publishes and subscriptions.
//!
//! This package is for Unix: it hands descriptors to the system. The core itself, [`fanfare_core`], runs anywhere.
#![forbid(unsafe_code)]
// Their order differs from run to run.
#![warn(clippy::iter_over_hash_type)]

mod acceptor;
mod address;
mod admin;
mod bells;
mod crowd;
mod desk;
mod dial;
mod error;
mod fan_out;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod head;
mod hub;
mod kernel;
mod lanes;
mod listeners;
mod mailbox;
#[cfg(any(test, feature = "fuzzing"))]
#[cfg_attr(not(test), allow(dead_code, reason = "the tests need more of it than the fuzz targets"))]
mod memory;
mod place;
mod report;
mod roster;
mod runtime;
mod seat;
mod server;
mod setup;
mod sockets;
#[cfg(test)]
mod tests;
mod watched;
mod worker;

pub use fanfare_core as core;

pub use self::address::{ListenAddress, ListenAddressError, is_host};
pub use self::error::{HubError, ServeError};
pub use self::hub::{Heard, Hub, Reserved, Subscription};
pub use self::listeners::Listeners;
pub use self::roster::{HubChannel, HubMessage, HubSession};
pub use self::runtime::{HungUp, Runtime, Signal, Stream};
pub use self::server::{Server, serve};
pub use self::setup::Setup;
