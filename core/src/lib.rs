//! Fanfare's core: WebSocket sessions, Redis Pub/Sub and fan-out as one pure state machine.
#![forbid(unsafe_code)]

pub mod error;
pub mod limits;
pub mod redis;
pub mod resp;
pub mod time;
