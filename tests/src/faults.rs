//! Two instances, a Redis, and between them everything that goes wrong, one thing after the other, while clients talk.
//!
//! What must hold: nothing comes twice or out of order; what is missing somebody was told of; `/ready` says within two
//! probe periods that messages do not arrive, and afterwards that they do again; instances live on, and within bounds.

use std::io;
use std::time::{Duration, Instant};

use crate::crowd::{Crowd, Summary};
use crate::metrics::Metrics;
use crate::proxy::{End, Fault, Lane, Proxy, Way};
use crate::redis::{self, Redis};
use crate::server::{Program, Server};
use crate::usage::memory;
use crate::watch::Watch;

const SUBSCRIBER: &[Lane] = &[Lane::Subscriber];
const PUBLISHER: &[Lane] = &[Lane::Publisher];
const BOTH: &[Lane] = &Lane::ALL;
const OUT: &[Way] = &[Way::ToRedis];
const IN: &[Way] = &[Way::ToInstance];
const EVERY: &[Way] = &Way::ALL;

/// How long a fault lasts that does not keep messages from arriving.
const HARMLESS: Duration = Duration::from_millis(700);

/// What this machine, its proxies and the watch may add to the time within which an instance knows that it is cut off.
const SLACK: Duration = Duration::from_secs(1);

/// How soon messages arrive again after a fault has ended.
const RECOVERS_WITHIN: Duration = Duration::from_secs(20);

/// One thing that goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Connections end once.
    Ends(&'static [Lane], End),
    /// They end ten times, faster than anybody can settle.
    Flap,
    /// Bytes fare so for a while.
    Flow(&'static [Lane], &'static [Way], Fault),
    /// Connections end and nobody listens.
    Unreachable,
    /// Connections end, and new ones are accepted and never answered.
    Dumb,
    /// Bytes come that nobody sent.
    Inject(&'static [Lane], Way, &'static [u8]),
    /// Redis is stopped (SIGSTOP).
    Freeze,
    /// Redis is killed and started again.
    Kill,
    /// It is killed, and the other program that speaks its protocol, if there is one, takes its place.
    Replace,
    /// `CLIENT KILL TYPE` of this.
    KillClients(&'static str),
    /// `CLIENT PAUSE`.
    PauseClients,
    /// The password changes, and changes back.
    Password,
}

/// Everything that goes wrong, in the order in which it does.
pub const KINDS: &[Kind] = &[
    Kind::Ends(BOTH, End::Cut),
    Kind::Flow(SUBSCRIBER, IN, Fault::Mute),
    Kind::Ends(SUBSCRIBER, End::Reset),
    Kind::Flow(BOTH, EVERY, Fault::Swallow),
    Kind::Inject(PUBLISHER, Way::ToInstance, b"-ERR injected\r\n"),
    Kind::Flow(SUBSCRIBER, IN, Fault::Swallow),
    Kind::Ends(PUBLISHER, End::Cut),
    Kind::Flow(BOTH, EVERY, Fault::Split),
    Kind::Freeze,
    Kind::Flow(PUBLISHER, OUT, Fault::Swallow),
    Kind::Inject(SUBSCRIBER, Way::ToInstance, b"\0\xff no Redis says this\r\n"),
    Kind::Unreachable,
    Kind::KillClients("pubsub"),
    Kind::Flow(BOTH, EVERY, Fault::Stall),
    Kind::Flow(SUBSCRIBER, EVERY, Fault::Delay(Duration::from_millis(50))),
    Kind::Ends(PUBLISHER, End::Reset),
    Kind::Kill,
    Kind::Flow(PUBLISHER, IN, Fault::Swallow),
    Kind::Inject(SUBSCRIBER, Way::ToInstance, b"-ERR injected\r\n"),
    Kind::Flow(BOTH, EVERY, Fault::Slow(50_000)),
    Kind::Dumb,
    Kind::Flow(SUBSCRIBER, IN, Fault::Stall),
    Kind::Inject(PUBLISHER, Way::ToRedis, b"*1\r\n$3\r\nfoo"),
    Kind::Ends(SUBSCRIBER, End::Cut),
    Kind::Password,
    Kind::Flow(SUBSCRIBER, OUT, Fault::Swallow),
    Kind::Flap,
    Kind::Flow(PUBLISHER, OUT, Fault::Stall),
    Kind::PauseClients,
    Kind::Inject(PUBLISHER, Way::ToInstance, b"$5\r\nhello\r\n"),
    Kind::Flow(PUBLISHER, IN, Fault::Stall),
    Kind::Replace,
    Kind::Ends(BOTH, End::Reset),
    Kind::KillClients("normal"),
    Kind::Flow(PUBLISHER, EVERY, Fault::Delay(Duration::from_millis(50))),
    Kind::Inject(SUBSCRIBER, Way::ToRedis, b"GET / HTTP/1.1\r\n\r\n"),
];

/// What is tried.
#[derive(Clone, Copy, Debug)]
pub struct Trial {
    /// Both instances are this.
    pub program: Program,
    /// Clients of both together.
    pub clients: usize,
    /// Their rooms.
    pub rooms: usize,
    /// Messages a second of all together.
    pub rate: u32,
    /// The probe period.
    pub probe: Duration,
    /// How long a fault that cuts an instance off lasts at least.
    pub hold: Duration,
    /// Which of [`redis::programs`] it begins with, counted around.
    pub redis: usize,
    /// Where the clients' choices come from.
    pub seed: u64,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What the clients went through.
    pub summary: Summary,
    /// The longest that an instance took to know that messages did not arrive.
    pub knew_within: Duration,
    /// The longest that it took until they arrived again, and that was known.
    pub recovered_within: Duration,
    /// The most memory of an instance, in bytes, and what it had when all clients were there.
    pub memory: (u64, u64),
    /// Publishes that instances counted as lost.
    pub lost: u64,
    /// Gaps that instances counted.
    pub gaps: u64,
}

struct Scene {
    trial: Trial,
    redis: Redis,
    sides: [Side; 2],
    crowd: Crowd,
    outcome: Outcome,
}

/// An instance and what stands between it and Redis.
pub(crate) struct Side {
    pub(crate) proxy: Proxy,
    pub(crate) server: Server,
    pub(crate) admin: u16,
    watch: Watch,
}

/// Lets each of `kinds` go wrong.
///
/// # Errors
///
/// When something does not hold that must, with what went wrong last and what the instances printed.
pub fn run(trial: Trial, kinds: impl IntoIterator<Item = Kind>) -> io::Result<Outcome> {
    let mut scene = Scene::set(trial)?;
    let mut last = None;
    let played = kinds.into_iter().enumerate().try_for_each(|(number, kind)| {
        last = Some(kind);
        scene.play(number, kind)
    });
    played.and_then(|()| scene.finish()).map_err(|e| {
        let printed = scene.sides.each_ref().map(|side| side.server.text());
        io::Error::other(format!("{e} (at {last:?})\nthe one printed\n{}\nthe other\n{}", printed[0], printed[1]))
    })
}

impl Kind {
    /// Whether messages do not arrive as long as it lasts.
    const fn cuts_off(self) -> bool {
        match self {
            Self::Flow(lanes, _, Fault::Mute) => lanes[0] as usize == Lane::Subscriber as usize,
            Self::Flow(_, _, fault) => matches!(fault, Fault::Swallow | Fault::Stall),
            Self::Unreachable | Self::Dumb | Self::Freeze | Self::Kill | Self::PauseClients | Self::Password => true,
            Self::Ends(..) | Self::Flap | Self::Inject(..) | Self::Replace | Self::KillClients(_) => false,
        }
    }

    /// Whether it strikes Redis itself, and so both instances.
    const fn is_of_redis(self) -> bool {
        match self {
            Self::Ends(..) | Self::Flap | Self::Flow(..) | Self::Unreachable | Self::Dumb | Self::Inject(..) => false,
            Self::Freeze | Self::Kill | Self::Replace => true,
            Self::KillClients(_) | Self::PauseClients | Self::Password => true,
        }
    }
}

impl Scene {
    fn set(trial: Trial) -> io::Result<Self> {
        let programs = redis::programs();
        let redis = match programs.get(trial.redis % programs.len().max(1)) {
            Some(program) => Redis::start_program(program, &[])?,
            None => Redis::start()?,
        };
        let side = || Side::start(&redis, trial.program, trial.probe, &[]);
        let sides = [side()?, side()?];
        let ports = sides.each_ref().map(|side| side.server.port());
        let crowd = Crowd::gather(&ports, trial.clients, trial.rooms, trial.rate, trial.seed)?;
        let outcome = Outcome {
            summary: crowd.summary(),
            knew_within: Duration::ZERO,
            recovered_within: Duration::ZERO,
            memory: (0, 0),
            lost: 0,
            gaps: 0,
        };
        let mut scene = Self { trial, redis, sides, crowd, outcome };
        scene.recover()?;
        scene.crowd.live(Duration::from_secs(1))?;
        scene.outcome.memory.1 = scene.memory()?;
        Ok(scene)
    }

    fn play(&mut self, number: usize, kind: Kind) -> io::Result<()> {
        // One side, the other, both.
        let struck: &[usize] = match number % 3 {
            _ if kind.is_of_redis() => &[0, 1],
            2 => &[0, 1],
            1 => &[1],
            _ => &[0],
        };
        let start = Instant::now();
        self.strike(kind, struck)?;
        if kind.cuts_off() {
            let within = 2 * self.trial.probe + SLACK;
            self.crowd.live(within)?;
            for &side in struck {
                let words = self.sides[side].watch.since(start);
                let Some(word) = words.iter().find(|word| !word.is_ready) else {
                    return Err(io::Error::other(format!("not known to be cut off after {within:?}: {words:?}")));
                };
                self.outcome.knew_within = self.outcome.knew_within.max(word.at.saturating_duration_since(start));
            }
            self.crowd.live(self.trial.hold.saturating_sub(start.elapsed()))?;
        } else {
            self.crowd.live(HARMLESS)?;
        }
        let unstruck = (0..2).find(|side| !struck.contains(side)).map(|side| self.sides[side].watch.since(start));
        if let Some(words) = unstruck.filter(|words| words.iter().any(|word| !word.is_ready)) {
            return Err(io::Error::other(format!("an instance that was not struck was not ready: {words:?}")));
        }
        self.mend(kind)?;
        self.recover()?;
        self.outcome.memory.0 = self.outcome.memory.0.max(self.memory()?);
        self.crowd.live(Duration::from_millis(200))
    }

    fn strike(&mut self, kind: Kind, struck: &[usize]) -> io::Result<()> {
        let Self { redis, sides, crowd, .. } = self;
        let proxies = || struck.iter().map(|&side| &sides[side].proxy);
        match kind {
            Kind::Ends(lanes, end) => proxies().for_each(|proxy| proxy.end(lanes, end)),
            Kind::Flap => {
                for _ in 0..10 {
                    proxies().for_each(|proxy| proxy.end(BOTH, End::Reset));
                    crowd.live(Duration::from_millis(50))?;
                }
            }
            Kind::Flow(lanes, ways, fault) => proxies().for_each(|proxy| proxy.set(lanes, ways, fault)),
            Kind::Unreachable => {
                proxies().for_each(Proxy::refuse);
                proxies().for_each(|proxy| proxy.end(BOTH, End::Reset));
            }
            Kind::Dumb => {
                proxies().for_each(|proxy| proxy.set(BOTH, EVERY, Fault::Swallow));
                proxies().for_each(|proxy| proxy.end(BOTH, End::Cut));
            }
            Kind::Inject(lanes, way, bytes) => proxies().for_each(|proxy| proxy.inject(lanes, way, bytes)),
            Kind::Freeze => redis.freeze()?,
            Kind::Kill => redis.kill()?,
            Kind::Replace => {
                redis.kill()?;
                crowd.live(HARMLESS)?;
            }
            Kind::KillClients(kind) => command(redis, &format!("CLIENT KILL TYPE {kind} SKIPME yes"))?,
            Kind::PauseClients => {
                let millis = (2 * self.trial.probe + SLACK).as_millis();
                command(redis, &format!("CLIENT PAUSE {millis} ALL"))?;
            }
            Kind::Password => change_password(redis, "", "changed")?,
        }
        Ok(())
    }

    fn mend(&mut self, kind: Kind) -> io::Result<()> {
        for side in &self.sides {
            side.proxy.heal()?;
        }
        match kind {
            Kind::Freeze => self.redis.thaw(),
            Kind::Kill => self.redis.restart(),
            Kind::Replace => {
                let programs = redis::programs();
                let other = programs.iter().rev().find(|program| program.as_path() != self.redis.program());
                match other {
                    Some(other) => self.redis.restart_as(other),
                    None => self.redis.restart(),
                }
            }
            Kind::Password => change_password(&self.redis, "changed", ""),
            _ => Ok(()),
        }
    }

    /// Waits until both instances say that messages arrive, and finds that they still run.
    fn recover(&mut self) -> io::Result<()> {
        let Self { sides, crowd, outcome, .. } = self;
        let start = Instant::now();
        let is_ready = |side: &Side| side.watch.since(start).last().is_some_and(|word| word.is_ready);
        // What was heard before the end of the fault is not news.
        crowd.live(Duration::from_millis(50))?;
        let took = crowd.live_until("/ready", RECOVERS_WITHIN, |_| sides.iter().all(is_ready))?;
        outcome.recovered_within = outcome.recovered_within.max(took);
        let ended = sides.iter_mut().any(|side| side.server.wait(Duration::ZERO).is_ok());
        if ended { Err(io::Error::other("an instance ended")) } else { Ok(()) }
    }

    fn memory(&self) -> io::Result<u64> {
        let each = self.sides.each_ref().map(|side| memory(side.server.id()));
        each.into_iter().try_fold(0, |most, memory| Ok(most.max(memory?)))
    }

    fn finish(&mut self) -> io::Result<Outcome> {
        let summary = self.crowd.part(RECOVERS_WITHIN)?;
        self.outcome.summary = summary;
        for side in &self.sides {
            let metrics = Metrics::scrape(side.admin)?;
            let lost = lost(&metrics);
            let unexplained = self.crowd.unexplained(side.server.port());
            if unexplained as u64 > lost {
                return Err(io::Error::other(format!(
                    "{unexplained} messages are missing, {lost} are counted: {summary:?}"
                )));
            }
            self.outcome.lost += lost;
            self.outcome.gaps += metrics.value("gaps_total") as u64;
        }
        Ok(self.outcome.clone())
    }
}

impl Side {
    /// Starts an instance whose probes, and replies of Redis, may take `probe`, with more arguments.
    pub(crate) fn start(redis: &Redis, program: Program, probe: Duration, more: &[&str]) -> io::Result<Self> {
        let proxy = Proxy::start(redis.port())?;
        let probe = format!("{}ms", probe.as_millis());
        let mut server = program.start_on(
            &proxy.url(),
            &[
                &["--workers", "2", "--probe-interval", &probe, "--admin-listen", "127.0.0.1:0"][..],
                &["--redis-reply-timeout", &probe, "--redis-dial-timeout", "500ms", "--redis-reconnect-max", "200ms"],
                &["--max-publish-queue", "2MiB", "--max-all-queues", "64MiB", "--max-mailbox", "1MiB"],
                more,
            ]
            .concat(),
        )?;
        let admin = server.admin_port()?;
        let watch = Watch::start(server.port());
        Ok(Self { proxy, server, admin, watch })
    }
}

/// Publishes that did not arrive, or of which the instance does not know.
pub(crate) fn lost(metrics: &Metrics) -> u64 {
    let each = ["expired", "unconfirmed", "refused"].map(|why| format!("publishes_lost_total{{reason=\"{why}\"}}"));
    each.iter().map(|sample| metrics.value(sample) as u64).sum()
}

pub(crate) fn command(redis: &Redis, line: &str) -> io::Result<()> {
    let mut connection = redis.connect()?;
    let parts: Vec<_> = line.split(' ').map(str::as_bytes).collect();
    match connection.command(&parts)? {
        crate::resp::Reply::Error(error) => Err(io::Error::other(error)),
        _ => Ok(()),
    }
}

/// Changes the password and ends all connections, which otherwise would stay.
fn change_password(redis: &Redis, from: &str, to: &str) -> io::Result<()> {
    let mut connection = redis.connect()?;
    if !from.is_empty() {
        connection.command(&[b"AUTH", from.as_bytes()])?;
    }
    connection.command(&[b"CONFIG", b"SET", b"requirepass", to.as_bytes()])?;
    for kind in ["pubsub", "normal"] {
        connection.command(&[b"CLIENT", b"KILL", b"TYPE", kind.as_bytes(), b"SKIPME", b"yes"])?;
    }
    Ok(())
}
