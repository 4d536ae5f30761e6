//! Clients do their worst, and nobody else is closed for it or waits for long; the server stays within its memory.
//!
//! This is the short form, which can be passed on a busy machine. The long one, from 500 connections and against the
//! clock, is `cargo run --release -p fanfare-tests --bin abuse`.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use fanfare_tests::abuse::{Scale, named, run};
use fanfare_tests::server::Program;

/// Makes tests of abuses by their names.
macro_rules! abuses {
    ($($name:ident)*) => {
        fanfare_tests::for_each_program! { $($name)* }
        $(fn $name(program: Program) {
            withstands(program, stringify!($name));
        })*
    };
}

abuses! {
    frames_behind_heads
    frames_behind_heads_on_redis
    frames_behind_heads_while_redis_hangs
    unfinished_messages
    dam
    hung_up_clients_that_wait_for_credit
    readers_that_only_pong
    what_the_kernel_keeps
    publishing_faster_than_reading
    rooms_that_linger
    long_origins
}

fn withstands(program: Program, name: &str) {
    let scale = Scale { connections: 60, innocents: 24, time: Duration::from_secs(2), p99: Duration::from_secs(2) };
    if let Err(fault) = run(named(name), program, scale) {
        panic!("{fault}");
    }
}
