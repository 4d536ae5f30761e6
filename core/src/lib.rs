//! Fanfare's core: WebSocket sessions, Redis Pub/Sub and fan-out as one pure state machine.
#![forbid(unsafe_code)]

pub mod config;
pub mod error;
pub mod http;
pub mod limits;
pub mod redis;
pub mod resp;
pub mod route;
pub mod run;
pub mod time;
pub mod ws;
