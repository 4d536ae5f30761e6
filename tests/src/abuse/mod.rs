//! Clients that do their worst from many connections, beside innocent ones: who is closed, who waits, and what it takes.
//!
//! What must hold whatever the abuse: no innocent client is closed and none misses a message of its own, what they send
//! comes back in time, resident memory stays below 1.3 times the bound that the server printed and 32 MiB, and `/live`
//! answers.

mod bounds;
mod crowds;
mod readers;

use std::any::Any;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Resource, getrlimit, setrlimit};

use crate::distance::Distance;
use crate::innocents::{Innocents, Manner, Report};
use crate::metrics::{Metrics, get};
use crate::redis::Redis;
use crate::server::{Program, Server};
use crate::usage::most_memory;

/// How long the innocents are alone before, and afterwards.
const ALONE: Duration = Duration::from_millis(1_000);

/// The time between two looks at the server during an abuse.
const LOOK: Duration = Duration::from_millis(250);

/// How long `/live` may take.
const LIVE_WITHIN: Duration = Duration::from_secs(5);

const MIB: u64 = 1 << 20;

/// How many abuse, beside how many, for how long, and what is in time.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    /// Connections that abuse.
    pub connections: usize,
    /// Clients beside them.
    pub innocents: usize,
    /// How long an abuse that has no end of its own lasts.
    pub time: Duration,
    /// What all but one in a hundred of the innocents' messages may take.
    pub p99: Duration,
}

/// One abuse.
pub struct Abuse {
    /// What it is called.
    pub name: &'static str,
    /// Options of the server, by the number of connections that abuse.
    args: fn(Scale) -> Vec<String>,
    bus: Bus,
    manner: Manner,
    /// Whether messages can come back meanwhile.
    is_served: bool,
    /// What is done. It returns what has to stay until everything was looked at.
    deed: fn(&Stage<'_>) -> io::Result<Box<dyn Any>>,
}

/// What carries the messages.
#[derive(Clone, Copy)]
enum Bus {
    Local,
    Redis,
    /// A Redis that is this far away in each direction.
    Far(Duration),
}

/// Where it is done.
struct Stage<'a> {
    server: &'a Server,
    admin: u16,
    redis: Option<&'a Redis>,
    scale: Scale,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The innocents before.
    pub before: Report,
    /// The innocents from the beginning of the abuse on.
    pub during: Report,
    /// The most resident memory, and what is allowed, in MiB.
    pub memory: (u64, u64),
    /// What was wrong.
    pub faults: Vec<String>,
}

/// Every abuse.
pub fn all() -> impl Iterator<Item = &'static Abuse> {
    bounds::ABUSES.iter().chain(readers::ABUSES).chain(crowds::ABUSES)
}

/// The abuse of this name.
///
/// # Panics
///
/// When there is none.
#[must_use]
pub fn named(name: &str) -> &'static Abuse {
    all().find(|abuse| abuse.name == name).unwrap_or_else(|| panic!("no abuse is called {name}"))
}

/// Lets one abuse happen to a server of its own.
///
/// # Errors
///
/// When something cannot be set up, or is wrong afterwards.
pub fn run(abuse: &Abuse, program: Program, scale: Scale) -> io::Result<Outcome> {
    raise_limit()?;
    let redis = if matches!(abuse.bus, Bus::Local) { None } else { Some(Redis::start()?) };
    let distance = match (abuse.bus, &redis) {
        (Bus::Far(time), Some(redis)) => Some(Distance::start(redis.port(), time)?),
        _ => None,
    };
    let mut args: Vec<_> = ["--workers", "2", "--admin-listen", "127.0.0.1:0"].map(str::to_owned).into();
    args.extend((abuse.args)(scale));
    let url = distance.as_ref().map(Distance::url).or_else(|| redis.as_ref().map(Redis::url));
    args.extend(url.into_iter().flat_map(|url| ["--redis-url".to_owned(), url]));
    let mut server = program.start(&args.iter().map(String::as_str).collect::<Vec<_>>())?;
    let admin = server.admin_port()?;

    let innocents = Innocents::join(server.port(), scale.innocents, abuse.manner)?;
    thread::sleep(ALONE);
    let before = innocents.report();
    let watch = Watch::start(admin);
    let done = (abuse.deed)(&Stage { server: &server, admin, redis: redis.as_ref(), scale });
    thread::sleep(ALONE);
    let during = innocents.report();
    let mut faults = watch.end();
    let stay = done.map_err(|e| faults.push(e.to_string())).ok();

    let allowed = server.memory_bound()? * 13 / 10 + 32 * MIB;
    let most = most_memory(server.id()).unwrap_or(u64::MAX);
    drop(stay);
    judge(abuse, scale, &before, &during, &mut faults);
    if most > allowed {
        faults.push(format!("{} MiB resident, {} MiB allowed", most / MIB, allowed / MIB));
    }
    let outcome = Outcome { before, during, memory: (most / MIB, allowed / MIB), faults };
    if outcome.faults.is_empty() {
        return Ok(outcome);
    }
    let end =
        server.wait(Duration::ZERO).map_or_else(|_| String::new(), |ended| format!("\nit ended: {:?}", ended.code));
    let printed: String = server.text().chars().take(4_000).collect();
    Err(io::Error::other(format!("{}: {outcome:#?}{end}\nit printed\n{printed}", abuse.name)))
}

fn judge(abuse: &Abuse, scale: Scale, before: &Report, during: &Report, faults: &mut Vec<String>) {
    if !during.ended.is_empty() {
        faults.push(format!("{} of the innocents were closed", during.ended.len()));
    }
    // A Redis that hangs for long loses what was on its way, and clients are told.
    if abuse.is_served && during.missing > 0 {
        faults.push(format!("{} messages of the innocents did not come back", during.missing));
    }
    // A busy machine makes them wait without any abuse.
    let allowed = scale.p99 + 4 * before.p99;
    if abuse.is_served && during.p99 > allowed {
        faults.push(format!("one in a hundred messages of the innocents took {:?}, {allowed:?} allowed", during.p99));
    }
}

/// Raises this process's limit of open files as far as it goes.
fn raise_limit() -> io::Result<()> {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    Ok(setrlimit(Resource::Nofile, limit)?)
}

/// A thread that asks the server for `/live` all the time.
struct Watch {
    faults: Arc<Mutex<Vec<String>>>,
    is_over: Arc<AtomicBool>,
}

impl Watch {
    fn start(admin: u16) -> Self {
        let watch = Self { faults: Arc::default(), is_over: Arc::default() };
        let (faults, is_over) = (Arc::clone(&watch.faults), Arc::clone(&watch.is_over));
        thread::spawn(move || {
            while !is_over.load(Ordering::Relaxed) {
                let start = Instant::now();
                let fault = match get(admin, "/live") {
                    Ok(answer) if answer.status == 200 && start.elapsed() < LIVE_WITHIN => None,
                    Ok(answer) => Some(format!("/live said {} after {:?}", answer.status, start.elapsed())),
                    Err(error) => Some(format!("/live: {error}")),
                };
                faults.lock().unwrap_or_else(PoisonError::into_inner).extend(fault);
                thread::sleep(LOOK);
            }
        });
        watch
    }

    fn end(self) -> Vec<String> {
        self.is_over.store(true, Ordering::Relaxed);
        std::mem::take(&mut self.faults.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Stage<'_> {
    fn port(&self) -> u16 {
        self.server.port()
    }

    fn metric(&self, sample: &str) -> io::Result<f64> {
        Ok(Metrics::scrape(self.admin)?.value(sample))
    }

    /// Connections of all kinds that the server has now.
    fn sessions(&self) -> io::Result<usize> {
        let metrics = Metrics::scrape(self.admin)?;
        let stages = ["head", "deciding", "joining", "open", "closing", "answered"];
        Ok(stages.iter().map(|stage| metrics.value(&format!("sessions{{stage=\"{stage}\"}}")) as usize).sum())
    }

    /// Does something again and again on two threads until the time is over, and says how often. What fails is tried anew.
    fn repeat(&self, deed: impl Fn(usize) -> io::Result<()> + Sync) -> usize {
        let end = Instant::now() + self.scale.time;
        thread::scope(|scope| {
            let threads = [0, 1].map(|number| {
                let deed = &deed;
                scope.spawn(move || {
                    let mut count = 0;
                    for turn in 0.. {
                        if Instant::now() >= end {
                            break;
                        }
                        count += usize::from(deed(2 * turn + number).is_ok());
                    }
                    count
                })
            });
            threads.map(|thread| thread.join().unwrap_or(0)).iter().sum()
        })
    }
}

/// Arguments as they are written.
fn words(line: &str) -> Vec<String> {
    line.split_ascii_whitespace().map(str::to_owned).collect()
}

/// Each in its own room, a message that leaves at once.
const ALONE_IN_A_ROOM: Manner = Manner { room: None, bytes: 40, in_two: false, interval: Duration::from_millis(50) };
