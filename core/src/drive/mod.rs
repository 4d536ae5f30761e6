//! A whole server, on whatever runtime: the turn of a worker, its sockets and wakes, how workers reach each other, start
//! and end.
//!
//! An adapter implements [`Runtime`] (sockets, timers, threads, signals) and [`Stream`] (one connection), and has
//! [`serve`] and [`Server`] for it. Nothing in here opens a socket, reads a clock or starts a thread by itself, but for
//! what a process of its own says (`program`), which has a thread for each output.
//!
//! Each worker is one thread with a shard of its own. The first one also has the listener and the bus. A turn is: Redis
//! first, each ready client once, timers, then the writes. A connection has no task and no buffer: its waker puts it on
//! its worker's list, and the worker reads it into the one buffer that it has.
//!
//! A [`Hub`] is one such worker without a listener, as a task of somebody's own program: connections, publishes and
//! subscriptions come from there.

mod acceptor;
mod admin;
mod bells;
mod crowd;
mod desk;
mod dial;
mod fan_out;
mod head;
mod hub;
mod kernel;
mod lanes;
mod listeners;
#[cfg(feature = "cli")]
mod log;
mod mailbox;
#[cfg(feature = "cli")]
mod outlet;
#[cfg(feature = "cli")]
mod process;
#[cfg(feature = "cli")]
pub mod program;
mod report;
mod runtime;
mod seat;
mod server;
mod sockets;
#[cfg(test)]
mod tests;
mod watched;
mod worker;

pub use self::hub::{Heard, Hub, HubError, Reserved, Subscription};
pub use self::listeners::Listeners;
pub use self::runtime::{HungUp, Runtime, Signal, Stream};
pub use self::server::{ServeError, Server, serve};
