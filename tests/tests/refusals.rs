//! A Redis that says no for reasons that pass costs nothing that it carried out, and `/ready` is right all the time.
//!
//! This is the short form. The long one is `cargo run --release -p fanfare-tests --bin chaos -- --refusals --seconds 1800`.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use fanfare_tests::chaos::Trial;
use fanfare_tests::refusals::run;
use fanfare_tests::server::Program;

fanfare_tests::for_each_program! {
    what_redis_refuses_for_a_while_is_not_lost_and_readiness_is_right
}

fn what_redis_refuses_for_a_while_is_not_lost_and_readiness_is_right(program: Program) {
    // Each begins with other reasons.
    let seed = Program::ALL.iter().position(|&other| other == program).unwrap() as u64;
    let outcome = run(Trial { program, seed, time: Duration::from_secs(12) }).unwrap();
    assert!(outcome.refusals >= 2 && outcome.summary.heard > 1_000, "{outcome:?}");
}
