//! Everything at once, by chance, around a crowd that knows what it must hear; see `fanfare_tests::chaos`. With
//! `--refusals`, a Redis that says no again and again; see `fanfare_tests::refusals`.
//!
//! ```text
//! chaos [--refusals] [--program NAME] [--seed N] [--seeds N] [--seconds N]
//! ```
//!
//! It prints a line for each seed and program, and fails where something does not hold.
#![forbid(unsafe_code)]

use std::env;
use std::process::ExitCode;
use std::time::Duration;

use fanfare_tests::chaos;
use fanfare_tests::refusals;
use fanfare_tests::server::Program;

const USAGE: &str = "usage: chaos [--refusals] [--program fanfare-tokio] [--seed N] [--seeds N] [--seconds N]
by default every program, 5 seeds from 1 on, 30 s each";

fn main() -> ExitCode {
    let mut words: Vec<String> = env::args().skip(1).collect();
    let is_of_refusals = words.first().is_some_and(|word| word == "--refusals");
    words.drain(..usize::from(is_of_refusals));
    let (mut programs, mut first, mut seeds, mut seconds) = (Program::ALL.to_vec(), 1, 5, 30);
    for pair in words.chunks(2) {
        let parsed = match pair {
            [name, value] => match name.as_str() {
                "--program" => Program::ALL.into_iter().find(|it| it.name() == value).map(|it| programs = vec![it]),
                "--seed" => value.parse().ok().map(|seed| first = seed),
                "--seeds" => value.parse().ok().map(|count| seeds = count),
                "--seconds" => value.parse().ok().map(|time| seconds = time),
                _ => None,
            },
            _ => None,
        };
        if parsed.is_none() {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    }
    let mut failed = 0;
    for seed in first..first + seeds {
        for &program in &programs {
            let trial = chaos::Trial { program, seed, time: Duration::from_secs(seconds) };
            let outcome = if is_of_refusals {
                refusals::run(trial).map(|outcome| format!("{outcome:?}"))
            } else {
                chaos::run(trial).map(|outcome| format!("{outcome:?}"))
            };
            match outcome {
                Ok(outcome) => println!("{} seed={seed} {outcome}", program.name()),
                Err(error) => {
                    failed += 1;
                    println!("{} seed={seed} FAILED {error}", program.name());
                }
            }
        }
    }
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
