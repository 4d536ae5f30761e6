//! Fanfare's core: WebSocket sessions, Redis Pub/Sub and fan-out as one pure state machine.
#![forbid(unsafe_code)]

pub mod bus;
pub mod config;
#[cfg(feature = "drive")]
pub mod drive;
pub mod error;
pub mod exchange;
pub mod http;
pub mod limits;
pub mod node;
pub mod redis;
pub mod resp;
pub mod route;
pub mod run;
pub mod shard;
pub mod time;
pub mod ws;
