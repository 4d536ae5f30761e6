//! Plays fleets from seeds and says whether every promise was kept.
//!
//! ```text
//! sim --seed N [--story]       one seed; if it fails, or with --story, the plan in words and what happened
//! sim --seeds N [--from M]     the seeds M to M + N - 1 on all cores, up to the first failure
//! ```
//!
//! On two cores a second buys some hundred seeds. Each is 142 s in the life of three or four instances and 50 clients:
//! together some 13,000 connections, 29,000 publishes and 340,000 deliveries.

use std::io::{IsTerminal, Write, stderr};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use fanfare_tests::sim::{self, Failure, Plan};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |name: &str| {
        let place = arguments.iter().position(|argument| argument == name)?;
        arguments.get(place + 1)?.parse::<u64>().ok()
    };
    let story = arguments.iter().any(|argument| argument == "--story");
    match (number("--seed"), number("--seeds")) {
        (Some(seed), None) => play_one(seed, story),
        (None, Some(seeds)) => play_many(number("--from").unwrap_or(0), seeds),
        _ => {
            eprintln!("sim --seed N [--story] | sim --seeds N [--from M]");
            ExitCode::from(2)
        }
    }
}

fn play_one(seed: u64, story: bool) -> ExitCode {
    name_seed_in_panics();
    SEED.with(|current| current.set(seed));
    let plan = Plan::standard(seed);
    let report = sim::run(&plan, story);
    let Some(failure) = report.failure else {
        if story {
            println!("{plan}\n\n{}", report.trace.join("\n"));
        }
        println!(
            "seed {seed}: every promise was kept: {} clients' visits, {} publishes, {} deliveries, {} events, digest \
             {:016x}\nbuses: {:#?}\nends: {:?}",
            report.visits, report.published, report.deliveries, report.events, report.digest, report.buses, report.ends
        );
        return ExitCode::SUCCESS;
    };
    println!("seed {seed} fails: {failure}");
    if story {
        tell(&plan, &failure);
    } else {
        println!("a short story of it: --seed {seed} --story");
    }
    ExitCode::FAILURE
}

/// The shortest plan that fails alike, in words, and what happens in it.
fn tell(plan: &Plan, failure: &Failure) {
    let short = sim::shrink(plan, failure.promise);
    let report = sim::run(&short, true);
    println!("\n{} of {} steps are enough:\n\n{short}\n", short.steps.len(), plan.steps.len());
    println!("what happens:\n\n{}\n", report.trace.join("\n"));
    if let Some(failure) = report.failure {
        println!("{failure}");
    }
}

fn play_many(from: u64, seeds: u64) -> ExitCode {
    name_seed_in_panics();
    let (next, done, over) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
    let failed: Mutex<Option<(u64, Failure)>> = Mutex::new(None);
    let totals = Mutex::new([0; 4]);
    let start = Instant::now();
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    let seed = from + next.fetch_add(1, Ordering::Relaxed);
                    if seed >= from + seeds {
                        return;
                    }
                    SEED.with(|current| current.set(seed));
                    let report = sim::run(&Plan::standard(seed), false);
                    if let Some(failure) = report.failure {
                        over.store(true, Ordering::Relaxed);
                        let mut failed = failed.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                        if failed.as_ref().is_none_or(|(other, _)| seed < *other) {
                            *failed = Some((seed, failure));
                        }
                    }
                    let done = done.fetch_add(1, Ordering::Relaxed) + 1;
                    let mut totals = totals.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                    for (total, more) in
                        totals.iter_mut().zip([report.visits, report.published, report.deliveries, report.events])
                    {
                        *total += more;
                    }
                    show_progress(done, seeds, start);
                }
            });
        }
    });
    let (done, seconds) = (done.into_inner(), start.elapsed().as_secs_f64());
    let [visits, published, deliveries, events] = totals.into_inner().unwrap_or_default();
    eprintln!();
    println!(
        "{done} seeds in {seconds:.1} s: {:.0} a second; {visits} visits, {published} publishes, {deliveries} \
         deliveries, {events} events",
        done as f64 / seconds
    );
    match failed.into_inner().unwrap_or_default() {
        Some((seed, failure)) => {
            println!("seed {seed} fails: {failure}\na short story of it: --seed {seed} --story");
            ExitCode::FAILURE
        }
        None => ExitCode::SUCCESS,
    }
}

fn show_progress(done: u64, seeds: u64, start: Instant) {
    if !stderr().is_terminal() || (!done.is_multiple_of(10) && done != seeds) {
        return;
    }
    let full = (done * 40 / seeds.max(1)) as usize;
    let rate = done as f64 / start.elapsed().as_secs_f64().max(0.001);
    // Nobody is hurt by a progress bar that cannot be written.
    let _ = write!(stderr(), "\r[{:<40}] {done}/{seeds}, {rate:.0} seeds a second ", "#".repeat(full));
}

thread_local! {
    static SEED: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

/// In a release build a panic ends the process: the seed is to be known by then.
fn name_seed_in_panics() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let seed = SEED.with(std::cell::Cell::get);
        println!("seed {seed} panics; a build without --release can tell the story: --seed {seed} --story");
        usual(panic);
    }));
}
