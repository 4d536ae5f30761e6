//! Networks, Redis and people do their worst: clients get each message once or are told, and `/ready` tells the truth.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use fanfare_tests::faults::{KINDS, Trial, run};
use fanfare_tests::server::Program;

/// What an instance may have grown by when everything has gone wrong: what may wait for Redis and for its workers, and
/// what an allocator makes of it.
const GROWTH: u64 = 24 << 20;

/// The probe period, and the longest that Redis may take to answer: what a busy machine does not reach by itself.
const PROBE: Duration = Duration::from_millis(1_500);

/// Lets one of `each` kinds go wrong, from the kind of this number on.
fn is_told_of_what_is_missing(program: Program, redis: usize, from: usize, each: usize) {
    let (probe, hold) = (PROBE, Duration::ZERO);
    let trial = Trial { program, clients: 100, rooms: 5, rate: 100, probe, hold, redis, seed: each as u64 };
    let outcome = run(trial, KINDS.iter().copied().skip(from).step_by(each)).unwrap();
    let (most, before) = outcome.memory;
    assert!(most <= before + GROWTH, "{outcome:?}");
    assert_eq!(outcome.summary.ended, 0, "nobody was closed: {outcome:?}");
    assert!(outcome.summary.told > 0 && outcome.gaps > 0, "the faults were felt: {outcome:?}");
}

#[test]
fn a_client_gets_each_message_once_or_is_told_whatever_fails() {
    const { assert!(KINDS.len() >= 30) }
    is_told_of_what_is_missing(Program::Tokio, 0, 0, 2);
}

/// At the same time, so that neither takes long.
#[test]
fn and_the_other_half_of_what_fails() {
    is_told_of_what_is_missing(Program::Tokio, 0, 1, 2);
}

#[test]
fn on_async_std_and_another_redis_too() {
    is_told_of_what_is_missing(Program::AsyncStd, 1, 0, 5);
}

#[test]
fn on_smol_and_another_redis_too() {
    is_told_of_what_is_missing(Program::Smol, 1, 2, 5);
}
