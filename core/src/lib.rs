//! Fanfare's core: WebSocket sessions, Redis Pub/Sub and fan-out as one pure state machine.
#![forbid(unsafe_code)]

pub mod bus;
pub mod config;
pub mod error;
pub mod exchange;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
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
