//! Abuses by how much is asked for in how little time.

use std::any::Any;
use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use rustix::net::sockopt::set_socket_linger;

use super::{ALONE_IN_A_ROOM, Abuse, Bus, Stage, words};
use crate::metrics::Metrics;
use crate::raw::{Raw, good_request};
use crate::swarm::{Heard, Swarm, message};

/// How far Redis is away in one direction.
const AWAY: Duration = Duration::from_millis(10);

pub(super) const ABUSES: &[Abuse] = &[
    Abuse {
        name: "walk_through_rooms_far_from_redis",
        args: |_| words("--max-connections 5000"),
        bus: Bus::Far(AWAY),
        manner: ALONE_IN_A_ROOM,
        is_served: true,
        deed: walk_through_rooms,
    },
    Abuse {
        name: "publishing_faster_than_reading",
        args: |_| vec![],
        bus: Bus::Redis,
        manner: ALONE_IN_A_ROOM,
        is_served: true,
        deed: publishing_faster_than_reading,
    },
    Abuse {
        name: "rooms_that_linger",
        args: |scale| {
            let most = scale.innocents + 20;
            words(&format!(
                "--linger 60s --max-connections {most} --max-all-queues 4MiB --max-partial 4MiB \
                 --max-publish-queue 1MiB --max-mailbox 1MiB"
            ))
        },
        bus: Bus::Local,
        manner: ALONE_IN_A_ROOM,
        is_served: true,
        deed: rooms_that_linger,
    },
    Abuse {
        name: "long_origins",
        args: |scale| {
            let most = scale.innocents + scale.connections;
            words(&format!(
                "--max-connections {most} --max-all-queues 4MiB --max-partial 4MiB --max-publish-queue 1MiB \
                 --max-mailbox 1MiB --max-head 64KiB"
            ))
        },
        bus: Bus::Local,
        manner: ALONE_IN_A_ROOM,
        is_served: true,
        deed: long_origins,
    },
];

/// Two threads enter one new room after the other, and somebody enters a new one now and then.
fn walk_through_rooms(stage: &Stage<'_>) -> io::Result<Box<dyn Any>> {
    let open = [const { Mutex::new(VecDeque::new()) }; 2];
    let name = "x".repeat(230);
    let took = thread::scope(|scope| {
        let visitor = scope.spawn(|| visit_new_rooms(stage));
        stage.repeat(|turn| {
            let mut stream = TcpStream::connect(("127.0.0.1", stage.port()))?;
            stream.write_all(good_request(stage.port(), &format!("/chat/{turn}-{name}")).as_bytes())?;
            let mut open = open[turn % 2].lock().map_err(|_| io::Error::other("the other thread panicked"))?;
            open.push_back(stream);
            // It stays for a moment, so that its room is asked for.
            if open.len() > stage.scale.connections / 2 {
                open.pop_front();
            }
            Ok(())
        });
        visitor.join().map_err(|_| io::Error::other("the visitor panicked"))
    })?;
    let mut took = took?;
    took.sort_unstable();
    let (late, allowed) = (took[took.len() * 9 / 10], 6 * AWAY + stage.scale.p99);
    if late > allowed {
        return Err(io::Error::other(format!("a tenth of the new rooms took {late:?} or longer, {allowed:?} allowed")));
    }
    Ok(Box::new(()))
}

/// How long each of some new rooms took to be entered.
fn visit_new_rooms(stage: &Stage<'_>) -> io::Result<Vec<Duration>> {
    let end = Instant::now() + stage.scale.time;
    let mut took = Vec::new();
    while Instant::now() < end || took.is_empty() {
        let start = Instant::now();
        let path = format!("/chat/visit-{}", took.len());
        Raw::upgrade(stage.port(), &path).map_err(|e| io::Error::other(format!("{path}: {e}")))?;
        took.push(start.elapsed());
        thread::sleep(Duration::from_millis(100));
    }
    Ok(took)
}

/// Everybody sends large messages as fast as they are taken, and reads them. Redis, with its default bound for what a
/// subscriber has yet to read, must not have to cut the instance off.
fn publishing_faster_than_reading(stage: &Stage<'_>) -> io::Result<Box<dyn Any>> {
    const AHEAD: usize = 8;
    let count = stage.scale.connections.min(100);
    let mut swarm = Swarm::new()?;
    for number in 0..count {
        swarm.grow(number + 1, stage.port(), &format!("/chat/flood-{number}"))?;
    }
    let frames = message(&[b'x'; 60_000]);
    let end = Instant::now() + stage.scale.time;
    let mut due = vec![AHEAD; count];
    while Instant::now() < end {
        for (number, due) in due.iter_mut().enumerate() {
            for _ in 0..std::mem::take(due) {
                // Its end is heard.
                let _ = swarm.send(number, &frames);
            }
        }
        swarm.listen(Duration::from_millis(5), |number, heard| {
            if let Heard::Text(_) = heard {
                due[number] += 1;
            }
        })?;
    }
    let metrics = Metrics::scrape(stage.admin)?;
    let (gaps, losses) = (metrics.value("gaps_total"), metrics.value("redis_losses_total"));
    if gaps + losses > 0.0 {
        return Err(io::Error::other(format!("{gaps} gaps, {losses} connections to Redis lost")));
    }
    Ok(Box::new(swarm))
}

/// One connection after the other, each to another room, and reset.
fn rooms_that_linger(stage: &Stage<'_>) -> io::Result<Box<dyn Any>> {
    let name = "x".repeat(230);
    stage.repeat(|turn| {
        let mut stream = TcpStream::connect(("127.0.0.1", stage.port()))?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        stream.write_all(good_request(stage.port(), &format!("/chat/{turn}-{name}")).as_bytes())?;
        stream.read_exact(&mut [0])?;
        set_socket_linger(&stream, Some(Duration::ZERO))?;
        Ok(())
    });
    Ok(Box::new(()))
}

/// What the log may take for all refusals of one abuse.
const LOG: usize = 64 << 10;

/// Requests whose answer quotes something long, by clients that do not read it.
fn long_origins(stage: &Stage<'_>) -> io::Result<Box<dyn Any>> {
    let before = stage.server.text().len();
    let origin = "\u{300}".repeat(30_000);
    let request = good_request(stage.port(), "/chat");
    let request = request.replacen("Upgrade:", &format!("Origin: {origin}\r\nUpgrade:"), 1);
    let mut streams = Vec::new();
    for _ in 0..stage.scale.connections {
        let mut stream = TcpStream::connect(("127.0.0.1", stage.port()))?;
        stream.set_write_timeout(Some(Duration::from_secs(2)))?;
        // It may have been refused before it was whole.
        let _ = stream.write_all(request.as_bytes());
        streams.push(stream);
    }
    let said = stage.server.text().len() - before;
    if said > LOG {
        return Err(io::Error::other(format!("{said} bytes of log for {} refusals", streams.len())));
    }
    Ok(Box::new(streams))
}
