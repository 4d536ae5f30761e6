//! Everything at once, by chance, and nothing is lost without a word, nothing comes twice, and nothing is left.
//!
//! This is the short form. The long one is `cargo run --release -p fanfare-tests --bin chaos`.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use fanfare_tests::chaos::{Trial, run};
use fanfare_tests::server::Program;

fanfare_tests::for_each_program! {
    a_crowd_amid_chaos_is_told_of_all_that_it_misses_and_nothing_is_left
}

fn a_crowd_amid_chaos_is_told_of_all_that_it_misses_and_nothing_is_left(program: Program) {
    let outcome = run(Trial { program, seed: 1, time: Duration::from_secs(6) }).unwrap();
    assert!(outcome.gaps > 0 && outcome.summary.ended > 0 && outcome.deeds > 100, "it was chaos: {outcome:?}");
}
