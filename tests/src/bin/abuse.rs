//! Abuses of a server from many connections, one after the other, beside innocent clients; see `fanfare_tests::abuse`.
//!
//! ```text
//! abuse [--program NAME] [--connections N] [--innocents N] [--seconds N] [--p99-ms N] [ABUSE…]
//! ```
//!
//! It prints a line for each abuse, and fails where something does not hold. Run it on an otherwise idle machine:
//! `cargo run --release -p fanfare-tests --bin abuse`.
#![forbid(unsafe_code)]

use std::env;
use std::process::ExitCode;
use std::time::Duration;

use fanfare_tests::abuse::{Abuse, Scale, all, run};
use fanfare_tests::server::Program;

const USAGE: &str =
    "usage: abuse [--program fanfare-tokio] [--connections N] [--innocents N] [--seconds N] [--p99-ms N] [ABUSE…]
by default every abuse on each program, from 500 connections beside 24 innocent clients, for 10 s,
and one in a hundred messages may take longer than 250 ms";

struct Args {
    programs: Vec<Program>,
    scale: Scale,
    abuses: Vec<&'static Abuse>,
}

fn main() -> ExitCode {
    let words: Vec<String> = env::args().skip(1).collect();
    let Some(args) = parse(&words) else {
        eprintln!("{USAGE}\nabuses: {}", all().map(|abuse| abuse.name).collect::<Vec<_>>().join(" "));
        return ExitCode::from(2);
    };
    let mut failed = 0;
    for &program in &args.programs {
        for abuse in &args.abuses {
            match run(abuse, program, args.scale) {
                Ok(outcome) => println!(
                    "{} {}: echoes={} p99={:?} longest={:?} before={:?} resident={}MiB allowed={}MiB",
                    program.name(),
                    abuse.name,
                    outcome.during.echoes,
                    outcome.during.p99,
                    outcome.during.longest,
                    outcome.before.p99,
                    outcome.memory.0,
                    outcome.memory.1,
                ),
                Err(error) => {
                    failed += 1;
                    println!("{} FAILED {error}", program.name());
                }
            }
        }
    }
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn parse(words: &[String]) -> Option<Args> {
    let (time, p99) = (Duration::from_secs(10), Duration::from_millis(250));
    let scale = Scale { connections: 500, innocents: 24, time, p99 };
    let mut args = Args { programs: Program::ALL.into(), scale, abuses: Vec::new() };
    let mut words = words.iter();
    while let Some(word) = words.next() {
        if let Some(abuse) = all().find(|abuse| abuse.name == word) {
            args.abuses.push(abuse);
            continue;
        }
        let value = words.next()?;
        match word.as_str() {
            "--program" => args.programs = vec![Program::ALL.into_iter().find(|program| program.name() == value)?],
            "--connections" => args.scale.connections = value.parse().ok()?,
            "--innocents" => args.scale.innocents = value.parse().ok().filter(|&count| count > 0)?,
            "--seconds" => args.scale.time = Duration::from_secs(value.parse().ok()?),
            "--p99-ms" => args.scale.p99 = Duration::from_millis(value.parse().ok()?),
            _ => return None,
        }
    }
    if args.abuses.is_empty() {
        args.abuses = all().collect();
    }
    Some(args)
}
