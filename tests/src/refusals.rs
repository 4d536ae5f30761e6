//! A Redis that says no, for reasons that pass: it is busy, its disk fails, it is demoted, it takes permissions away.
//!
//! Another subscriber of the same Redis knows what was carried out. What was not is counted by an instance, and nothing
//! twice or out of order; what was reaches every client that was not told of a gap; and `/ready` says within two probe
//! periods whether messages arrive, and nothing else in between.

use std::collections::BTreeMap;
use std::io;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::chaos::Trial;
use crate::crowd::{Crowd, Summary};
use crate::metrics::Metrics;
use crate::redis::Redis;
use crate::resp::{Reply, Resp};
use crate::server::{Program, Server};
use crate::watch::Watch;

/// Clients of the crowd, their rooms, and their messages each second.
const MEMBERS: usize = 12;
const ROOMS: usize = 3;
const RATE: u32 = 60;

/// The probe period of the instances.
const PROBE: Duration = Duration::from_secs(1);

/// Two of them, and what this machine and the watch may add.
const KNOWN_WITHIN: Duration = Duration::from_millis(3_000);

/// How soon everybody has heard everything at the end.
const SETTLES_WITHIN: Duration = Duration::from_secs(30);

/// What the one who knows what was carried out waits for at the end.
const END: &str = "end";

/// What came of it.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    /// What the crowd went through.
    pub summary: Summary,
    /// How often Redis said no.
    pub refusals: usize,
    /// Messages that Redis carried out.
    pub carried_out: u64,
    /// Messages that the instances gave up, and those of which they do not know.
    pub lost: (u64, u64),
    /// Gaps that the instances counted.
    pub gaps: u64,
}

/// Why Redis says no.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refusal {
    /// It runs a script.
    Busy,
    /// It cannot save its data set, which concerns nobody who publishes.
    Disk,
    /// It follows another server.
    Demoted,
    /// The user may not publish any more.
    Publish,
    /// The user may not use any channel any more.
    Channels,
    /// The user may not subscribe or ping any more, which concerns nobody who has done so.
    Commands,
}

impl Refusal {
    const ALL: [Self; 6] = [Self::Busy, Self::Disk, Self::Publish, Self::Demoted, Self::Commands, Self::Channels];

    /// Whether messages do not arrive meanwhile.
    const fn hinders(self) -> bool {
        !matches!(self, Self::Disk | Self::Commands)
    }

    /// Begins it, for so long if it ends by itself.
    fn begin(self, redis: &Redis, time: Duration) -> io::Result<()> {
        match self {
            Self::Busy => run_script(redis, time),
            // The last save failed, and that counts as long as there is to be one.
            Self::Disk => command(redis, &["CONFIG", "SET", "save", "3600 1"]),
            Self::Demoted => command(redis, &["REPLICAOF", "127.0.0.1", "1"]),
            Self::Publish => command(redis, &["ACL", "SETUSER", "fanfare", "-publish"]),
            Self::Channels => command(redis, &["ACL", "SETUSER", "fanfare", "resetchannels"]),
            Self::Commands => command(redis, &["ACL", "SETUSER", "fanfare", "-subscribe", "-ping"]),
        }
    }

    fn end(self, redis: &Redis) -> io::Result<()> {
        match self {
            Self::Busy => Ok(()),
            Self::Disk => command(redis, &["CONFIG", "SET", "save", ""]),
            Self::Demoted => command(redis, &["REPLICAOF", "NO", "ONE"]),
            Self::Publish => command(redis, &["ACL", "SETUSER", "fanfare", "+publish"]),
            Self::Channels => command(redis, &["ACL", "SETUSER", "fanfare", "&*"]),
            Self::Commands => command(redis, &["ACL", "SETUSER", "fanfare", "+subscribe", "+ping"]),
        }
    }
}

/// When Redis said no, and why.
#[derive(Clone, Copy, Debug)]
struct Past {
    refusal: Refusal,
    begin: Instant,
    end: Instant,
}

struct Side {
    server: Server,
    admin: u16,
    watch: Watch,
}

/// Lets it happen.
///
/// # Errors
///
/// When something does not hold that must, with what the instances printed.
pub fn run(trial: Trial) -> io::Result<Outcome> {
    let redis = Redis::start_with(&["--busy-reply-threshold", "100"])?;
    command(&redis, &["ACL", "SETUSER", "fanfare", "on", ">secret", "~*", "&*", "+@all"])?;
    break_disk(&redis)?;
    let url = format!("redis://fanfare:secret@127.0.0.1:{}", redis.port());
    let sides = [Side::start(&url, trial.program)?, Side::start(&url, trial.program)?];
    play(trial, &redis, &sides).map_err(|e| {
        let printed = sides.each_ref().map(|side| side.server.text());
        io::Error::other(format!("{e} ({trial:?})\nthe one printed\n{}\nthe other\n{}", printed[0], printed[1]))
    })
}

impl Side {
    fn start(url: &str, program: Program) -> io::Result<Self> {
        let probe = format!("{}ms", PROBE.as_millis());
        let args = ["--workers", "2", "--probe-interval", &probe, "--admin-listen", "127.0.0.1:0"];
        let mut server = program.start_on(url, &[&args[..], &["--redis-reconnect-max", "200ms"]].concat())?;
        let (admin, watch) = (server.admin_port()?, Watch::start(server.port()));
        Ok(Self { server, admin, watch })
    }
}

fn play(trial: Trial, redis: &Redis, sides: &[Side; 2]) -> io::Result<Outcome> {
    let mut rng = fastrand::Rng::with_seed(trial.seed);
    let carried_out = carried_out(redis)?;
    let ports = sides.each_ref().map(|side| side.server.port());
    let mut crowd = Crowd::gather(&ports, MEMBERS, ROOMS, RATE, rng.u64(..))?;
    crowd.live_until("both to be ready", KNOWN_WITHIN, |_| sides.iter().all(|side| side.watch.is_ready()))?;
    let (start, mut past) = (Instant::now(), Vec::new());
    while start.elapsed() < trial.time {
        past.push(refuse(past.len(), trial.seed, redis, &mut crowd, &mut rng)?);
    }
    crowd.live(KNOWN_WITHIN)?;
    for side in sides {
        check_readiness(&side.watch, start, &past)?;
    }
    let summary = crowd.part(SETTLES_WITHIN)?;
    redis.connect()?.publish(END, END.as_bytes())?;
    let carried_out = carried_out.join().map_err(|_| io::Error::other("the other subscriber panicked"))??;
    let (mut lost, mut gaps) = ((0, 0), 0);
    for side in sides {
        let metrics = Metrics::scrape(side.admin)?;
        let of = |why: &str| metrics.value(&format!("publishes_lost_total{{reason=\"{why}\"}}")) as u64;
        let (given_up, unknown) = (of("expired") + of("refused"), of("unconfirmed"));
        let missing = crowd.unexplained(side.server.port()) as u64;
        if missing > given_up + unknown {
            return Err(io::Error::other(format!("{missing} messages are missing, {given_up} are given up: {past:?}")));
        }
        lost = (lost.0 + given_up, lost.1 + unknown);
        gaps += metrics.value("gaps_total") as u64;
    }
    let left = summary.sent - carried_out;
    if summary.ended > 0 || !(lost.0..=lost.0 + lost.1).contains(&left) {
        let what = format!("{left} were not carried out, {} are given up, {} unknown", lost.0, lost.1);
        return Err(io::Error::other(format!("{what}: {summary:?} {past:?}")));
    }
    Ok(Outcome { summary, refusals: past.len(), carried_out, lost, gaps })
}

/// Redis says no for a while, long enough to be known or shorter, and then nothing happens for a while.
fn refuse(number: usize, seed: u64, redis: &Redis, crowd: &mut Crowd, rng: &mut fastrand::Rng) -> io::Result<Past> {
    // Each of them at first, by turns.
    let kinds = Refusal::ALL.len();
    let kind = if number < kinds { number + 2 * seed as usize } else { rng.usize(..kinds) };
    let refusal = Refusal::ALL[kind % kinds];
    let millis = |time: Duration| time.as_millis() as u64;
    let time = if rng.bool() { rng.u64(50..1_000) } else { millis(KNOWN_WITHIN) + rng.u64(200..1_000) };
    let time = Duration::from_millis(time);
    let begin = Instant::now();
    refusal.begin(redis, time)?;
    crowd.live(time)?;
    refusal.end(redis)?;
    let end = Instant::now();
    let calm = if rng.u8(..4) == 0 { rng.u64(..1_000) } else { millis(KNOWN_WITHIN) + rng.u64(200..1_000) };
    crowd.live(Duration::from_millis(calm))?;
    Ok(Past { refusal, begin, end })
}

/// Whether an instance has said that it is ready when messages arrived, and that it is not when they did not.
fn check_readiness(watch: &Watch, start: Instant, past: &[Past]) -> io::Result<()> {
    let hinders = past.iter().filter(|past| past.refusal.hinders());
    let mut calm = start;
    for &Past { refusal, begin, end } in hinders {
        expect(watch, true, (calm, begin), refusal)?;
        expect(watch, false, (begin + KNOWN_WITHIN, end), refusal)?;
        calm = end + KNOWN_WITHIN;
    }
    expect(watch, true, (calm, Instant::now()), Refusal::Disk)
}

/// Whether an instance said all the time that it is ready, or that it is not.
fn expect(watch: &Watch, is_ready: bool, (from, to): (Instant, Instant), next: Refusal) -> io::Result<()> {
    if from >= to {
        return Ok(());
    }
    match watch.since(from).iter().find(|word| word.at < to && word.is_ready != is_ready) {
        None => Ok(()),
        Some(word) => Err(io::Error::other(format!(
            "it says {:?}, {:?} after all had to know better; {next:?} is, or is next",
            word.text,
            word.at.saturating_duration_since(from)
        ))),
    }
}

/// Counts the crowd's messages that Redis carries out, each once and each sender's in order.
fn carried_out(redis: &Redis) -> io::Result<JoinHandle<io::Result<u64>>> {
    let mut subscriber = redis.connect()?;
    for channel in (0..ROOMS).map(|room| format!("chat:{room}")).chain([END.to_owned()]) {
        subscriber.subscribe(&channel)?;
    }
    Ok(thread::spawn(move || {
        let (mut last, mut count) = (BTreeMap::new(), 0);
        loop {
            let payload = String::from_utf8(subscriber.message()?).map_err(io::Error::other)?;
            if payload == END {
                return Ok(count);
            }
            let parsed =
                payload.split_once(' ').and_then(|(sender, number)| Some((sender.to_owned(), number.parse().ok()?)));
            let Some((sender, number)): Option<(String, u64)> = parsed else {
                return Err(io::Error::other(format!("nobody says {payload:?}")));
            };
            count += 1;
            if let Some(before) = last.insert(sender, number)
                && before >= number
            {
                return Err(io::Error::other(format!("{payload:?} was carried out behind {before}")));
            }
        }
    }))
}

/// Redis tries to save its data set and fails.
fn break_disk(redis: &Redis) -> io::Result<()> {
    redis.lose_disk()?;
    command(redis, &["BGSAVE"])?;
    let failed = || matches!(ask(redis, &["INFO", "persistence"]), Ok(Reply::Bulk(Some(text))) if contains(&text, "rdb_last_bgsave_status:err"));
    crate::wait_until("a save to fail", SETTLES_WITHIN, failed).map(drop)
}

fn contains(text: &[u8], part: &str) -> bool {
    String::from_utf8_lossy(text).contains(part)
}

/// A script that runs for so long.
fn run_script(redis: &Redis, time: Duration) -> io::Result<()> {
    const SCRIPT: &str = "local function now() local t = redis.call('TIME') return t[1] * 1000 + t[2] / 1000 end \
                          local stop = now() + ARGV[1] repeat until now() >= stop return 1";
    let mut connection: Resp = redis.connect()?;
    connection.send(&[b"EVAL", SCRIPT.as_bytes(), b"0", time.as_millis().to_string().as_bytes()])
}

fn ask(redis: &Redis, words: &[&str]) -> io::Result<Reply> {
    redis.connect()?.command(&words.iter().map(|word| word.as_bytes()).collect::<Vec<_>>())
}

fn command(redis: &Redis, words: &[&str]) -> io::Result<()> {
    match ask(redis, words)? {
        Reply::Error(error) => Err(io::Error::other(format!("{words:?}: {error}"))),
        _ => Ok(()),
    }
}
