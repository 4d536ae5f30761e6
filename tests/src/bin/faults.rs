//! Everything goes wrong between two instances and Redis while many clients talk; see `fanfare_tests::faults`.
//!
//! ```text
//! faults [--clients N] [--rate N] [--probe-ms N] [--hold-ms N] [--program NAME] [--seed N] [--rounds N] [--redis N]
//! ```
//!
//! It prints one line, and fails where something does not hold.
#![forbid(unsafe_code)]

use std::env;
use std::process::ExitCode;
use std::time::Duration;

use fanfare_tests::faults::{KINDS, Trial, run};
use fanfare_tests::server::Program;

const USAGE: &str =
    "usage: faults [--clients N] [--rate N] [--probe-ms N] [--hold-ms N] [--program fanfare-tokio] [--seed N]
              [--rounds N] [--redis N]
by default 1,000 clients, 200 messages a second, a probe every second, and each fault once (in later
rounds in another order), for no longer than an instance may take to notice it";

/// Clients in one room, half of them on each instance.
const ROOM: usize = 20;

fn main() -> ExitCode {
    let words: Vec<String> = env::args().skip(1).collect();
    let Some((trial, rounds)) = parse(&words) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let mut rng = fastrand::Rng::with_seed(trial.seed);
    let rounds = (0..rounds).flat_map(|round| {
        let mut kinds = KINDS.to_vec();
        if round > 0 {
            rng.shuffle(&mut kinds);
        }
        kinds
    });
    let kinds: Vec<_> = rounds.collect();
    let count = kinds.len();
    match run(trial, kinds) {
        Ok(outcome) => {
            println!("faults={count} {outcome:?}");
            ExitCode::SUCCESS
        }
        Err(e) => {
            eprintln!("faults: {e}");
            ExitCode::FAILURE
        }
    }
}

fn parse(words: &[String]) -> Option<(Trial, usize)> {
    let (probe, hold) = (Duration::from_secs(1), Duration::ZERO);
    let mut trial =
        Trial { program: Program::Tokio, clients: 1_000, rooms: 0, rate: 200, probe, hold, redis: 0, seed: 1 };
    let mut rounds = 1;
    for pair in words.chunks(2) {
        let [name, value] = pair else { return None };
        match name.as_str() {
            "--clients" => trial.clients = value.parse().ok().filter(|&clients| clients > 0)?,
            "--rate" => trial.rate = value.parse().ok().filter(|&rate| rate > 0)?,
            "--probe-ms" => trial.probe = Duration::from_millis(value.parse().ok().filter(|&millis| millis > 0)?),
            "--hold-ms" => trial.hold = Duration::from_millis(value.parse().ok()?),
            "--program" => trial.program = Program::ALL.into_iter().find(|program| program.name() == value)?,
            "--redis" => trial.redis = value.parse().ok()?,
            "--seed" => trial.seed = value.parse().ok()?,
            "--rounds" => rounds = value.parse().ok().filter(|&rounds| rounds > 0)?,
            _ => return None,
        }
    }
    trial.rooms = trial.clients.div_ceil(ROOM);
    Some((trial, rounds))
}
