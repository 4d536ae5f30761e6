//! Everything at once, by chance: clients that come, go and send nonsense, connections to Redis that end, and a crowd in
//! the middle of it that knows of each of its messages whether it came once, in order, or why it did not.
//!
//! Afterwards, when everybody has left, nothing is left: the gauges of both instances are at zero, and they end in order.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use rustix::net::sockopt::{set_socket_linger, set_socket_recv_buffer_size};

use crate::crowd::{Crowd, Summary};
use crate::faults::{Side, command, lost};
use crate::metrics::Metrics;
use crate::proxy::{End, Lane};
use crate::raw::{frame, good_request};
use crate::redis::Redis;
use crate::server::Program;
use crate::usage::most_memory;
use crate::wait_until;

/// Clients of the crowd, and their rooms.
const MEMBERS: usize = 60;
const ROOMS: usize = 6;

/// Messages of the crowd each second.
const RATE: u32 = 100;

/// Connections of the mob at a time.
const MOB: usize = 60;

/// How soon everything is settled when nothing goes wrong any more.
const SETTLES_WITHIN: Duration = Duration::from_secs(30);

/// What is tried.
#[derive(Clone, Copy, Debug)]
pub struct Trial {
    /// Both instances are this.
    pub program: Program,
    /// Where all choices come from. What a machine makes of them differs from run to run.
    pub seed: u64,
    /// How long.
    pub time: Duration,
}

/// What came of it.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    /// What the crowd went through.
    pub summary: Summary,
    /// Gaps that the instances counted.
    pub gaps: u64,
    /// What the mob did.
    pub deeds: u64,
}

/// Lets it happen.
///
/// # Errors
///
/// When something does not hold that must, with what the instances printed.
pub fn run(trial: Trial) -> io::Result<Outcome> {
    let redis = Redis::start()?;
    let side = || Side::start(&redis, trial.program, Duration::from_millis(1_500), &["--linger", "500ms"]);
    let mut sides = [side()?, side()?];
    play(trial, &redis, &mut sides).map_err(|e| {
        let printed = sides.each_ref().map(|side| side.server.text());
        io::Error::other(format!("{e} ({trial:?})\nthe one printed\n{}\nthe other\n{}", printed[0], printed[1]))
    })
}

fn play(trial: Trial, redis: &Redis, sides: &mut [Side; 2]) -> io::Result<Outcome> {
    let mut rng = fastrand::Rng::with_seed(trial.seed);
    let ports = sides.each_ref().map(|side| side.server.port());
    let mut crowd = Crowd::gather(&ports, MEMBERS, ROOMS, RATE, rng.u64(..))?;
    let mut mob = Mob { ports, members: Vec::new(), deeds: 0 };
    let end = Instant::now() + trial.time;
    let (mut strikes, mut next_strike) = (0, Instant::now() + Duration::from_millis(500));
    while Instant::now() < end {
        crowd.live(Duration::from_millis(5))?;
        mob.act(&mut rng);
        if rng.usize(..40) == 0 {
            crowd.scatter(1 + rng.usize(..5))?;
        }
        if Instant::now() >= next_strike {
            strike(strikes, redis, sides, &mut rng)?;
            strikes += 1;
            next_strike = Instant::now() + Duration::from_millis(rng.u64(300..1_500));
        }
    }
    let deeds = mob.deeds;
    drop(mob);
    let summary = crowd.part(SETTLES_WITHIN)?;
    let mut gaps = 0;
    for side in &*sides {
        let metrics = Metrics::scrape(side.admin)?;
        let (lost, missing) = (lost(&metrics), crowd.unexplained(side.server.port()) as u64);
        if missing > lost {
            return Err(io::Error::other(format!("{missing} messages are missing, {lost} are counted: {summary:?}")));
        }
        gaps += metrics.value("gaps_total") as u64;
    }
    drop(crowd);
    for side in sides {
        nothing_is_left(side)?;
    }
    Ok(Outcome { summary, gaps, deeds })
}

/// A connection to Redis ends, on the way or at Redis. The first strike concerns everybody.
fn strike(number: usize, redis: &Redis, sides: &[Side; 2], rng: &mut fastrand::Rng) -> io::Result<()> {
    let lanes: &[Lane] = match rng.usize(..3) {
        0 => &[Lane::Subscriber],
        1 => &[Lane::Publisher],
        _ => &Lane::ALL,
    };
    match number % 4 {
        0 => command(redis, "CLIENT KILL TYPE pubsub SKIPME yes")?,
        1 => sides[rng.usize(..2)].proxy.end(lanes, End::Cut),
        2 => command(redis, "CLIENT KILL TYPE normal SKIPME yes")?,
        _ => sides[rng.usize(..2)].proxy.end(lanes, End::Reset),
    }
    Ok(())
}

/// When all clients are gone, an instance holds nothing, and ends in order.
fn nothing_is_left(side: &mut Side) -> io::Result<()> {
    let mut left = String::new();
    let settled = wait_until("nothing to be left", SETTLES_WITHIN, || {
        left = gauges(side.admin).unwrap_or_else(|e| e.to_string());
        left.is_empty()
    });
    settled.map_err(|e| io::Error::other(format!("{e}: {left}")))?;
    let (most, bound) = (most_memory(side.server.id())?, side.server.memory_bound()?);
    if most > bound / 10 * 13 + (32 << 20) {
        return Err(io::Error::other(format!("{most} bytes resident for a bound of {bound}")));
    }
    side.server.terminate()?;
    let ended = side.server.wait(SETTLES_WITHIN)?;
    if ended.code == Some(0) { Ok(()) } else { Err(io::Error::other(format!("it ended with {:?}", ended.code))) }
}

/// The gauges that are not what they are of an instance without clients.
fn gauges(admin: u16) -> io::Result<String> {
    let metrics = Metrics::scrape(admin)?;
    let stages = ["head", "deciding", "joining", "open", "closing", "answered"];
    let buffers = ["queues", "partial", "publishes", "mailbox"];
    let stages = stages.map(|stage| format!("sessions{{stage=\"{stage}\"}}"));
    let buffers = buffers.map(|buffer| format!("buffer_bytes{{buffer=\"{buffer}\"}}"));
    let own = ["publishes_waiting", "channels", "channels_subscribed"].map(str::to_owned);
    let mut left = String::new();
    for sample in stages.iter().chain(&buffers).chain(&own) {
        let most = match sample {
            // The question itself is a connection, whose stage is told or not.
            it if it.contains("head") || it.contains("answered") => 1.0,
            // A worker tells only now and then what it has taken out of its mailbox.
            it if it.contains("mailbox") => metrics.value("buffer_limit_bytes{buffer=\"mailbox\"}") / 4.0,
            _ => 0.0,
        };
        let value = metrics.value(sample);
        if value > most {
            left += &format!("{sample} is {value}; ");
        }
    }
    if metrics.value("ready") != 1.0 {
        left += "it is not ready; ";
    }
    Ok(left)
}

/// Connections that do what they like.
struct Mob {
    ports: [u16; 2],
    /// Each with whether it may send what is no message: in a room of the crowd it could become one.
    members: Vec<(TcpStream, bool)>,
    deeds: u64,
}

impl Mob {
    /// One thing that is done by chance. It may fail: the server closes who breaks rules.
    fn act(&mut self, rng: &mut fastrand::Rng) {
        self.deeds += 1;
        if self.members.len() < MOB && rng.bool() {
            self.members.extend(self.join(rng).ok());
            return;
        }
        if self.members.is_empty() {
            return;
        }
        let at = rng.usize(..self.members.len());
        let (member, is_apart) = &mut self.members[at];
        let done = match rng.usize(..8) {
            0 => {
                drop(self.members.swap_remove(at));
                Ok(())
            }
            1 => set_socket_linger(member, Some(Duration::ZERO)).map_err(Into::into).map(|()| {
                drop(self.members.swap_remove(at));
            }),
            2 if *is_apart => member.write_all(&nonsense(rng)),
            3 => member.write_all(&frame(0x89, b"ping")),
            4 => member.write_all(&frame(0x88, &1000_u16.to_be_bytes())),
            5 => member.shutdown(std::net::Shutdown::Write),
            _ => member.read(&mut [0; 65_536]).map(|_| ()),
        };
        if done.is_err_and(|e| e.kind() != ErrorKind::WouldBlock) {
            self.members.swap_remove(at);
        }
    }

    /// A new connection: some ask for nothing, some for half, and some listen where the crowd talks and never read.
    fn join(&self, rng: &mut fastrand::Rng) -> io::Result<(TcpStream, bool)> {
        let port = self.ports[rng.usize(..2)];
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        set_socket_recv_buffer_size(&stream, 4 << 10)?;
        stream.set_nonblocking(true)?;
        let is_apart = rng.bool();
        let path = if is_apart { format!("/chat/mob-{}", rng.u8(..)) } else { format!("/chat/{}", rng.usize(..ROOMS)) };
        let mut bytes = good_request(port, &path).into_bytes();
        match rng.usize(..6) {
            0 => bytes.clear(),
            1 => bytes.truncate(rng.usize(..bytes.len())),
            2 => bytes = nonsense(rng),
            3 if is_apart => (0..rng.usize(..500)).for_each(|_| bytes.extend(frame(0x81, b"behind"))),
            _ => {}
        }
        stream.write_all(&bytes)?;
        Ok((stream, is_apart))
    }
}

/// Frames and bytes that break rules or are not whole. None is a message that others hear.
fn nonsense(rng: &mut fastrand::Rng) -> Vec<u8> {
    match rng.usize(..5) {
        0 => (0..rng.usize(1..200)).map(|_| rng.u8(..)).map(|byte| if byte == 0x81 { 0 } else { byte }).collect(),
        1 => frame(0x01, &vec![b'x'; rng.usize(..3_000)]),
        2 => frame(0x81, b"\xff"),
        3 => frame(0x82, b"binary"),
        _ => {
            let mut begun = frame(0x81, &vec![b'x'; rng.usize(200..60_000)]);
            begun.truncate(rng.usize(1..begun.len() - 1));
            begun
        }
    }
}
