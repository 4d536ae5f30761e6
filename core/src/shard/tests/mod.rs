//! Shards and a bus in a small world of clients: what each session sees, whatever happens in whatever order.

mod admin;
mod asking;
mod bounds;
mod check;
mod credit;
mod deadlines;
mod delivery;
mod drain;
mod gap;
mod half_close;
mod handshake;
mod leftover;
mod notes;
mod review;
mod shutdown;
mod slow;
mod stalled;
pub(crate) mod stats;
mod table;
pub(crate) mod world;
