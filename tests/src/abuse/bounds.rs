//! Abuses that take all there is of something that has a bound.

use std::any::Any;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use rustix::net::sockopt::set_socket_linger;

use super::{ALONE_IN_A_ROOM, Abuse, Bus, Stage, words};
use crate::innocents::Manner;
use crate::metrics::get;
use crate::raw::{frame, good_request};
use crate::redis::Redis;
use crate::swarm::Swarm;
use crate::wait_until;

const TEXT: u8 = 0x81;
const TEXT_FIRST: u8 = 0x01;

/// Bounds that a server reaches soon.
const SMALL: &str = "--max-all-queues 4MiB --max-partial 4MiB --max-publish-queue 1MiB --max-mailbox 1MiB";

pub(super) const ABUSES: &[Abuse] = &[
    Abuse {
        name: "frames_behind_heads",
        args: |_| words(&format!("{SMALL} --max-connections 300")),
        bus: Bus::Local,
        manner: ALONE_IN_A_ROOM,
        is_served: true,
        deed: |stage| frames_behind_heads(stage, false),
    },
    Abuse {
        name: "frames_behind_heads_on_redis",
        args: |_| words(&format!("{SMALL} --max-connections 300")),
        bus: Bus::Redis,
        manner: ALONE_IN_A_ROOM,
        is_served: true,
        deed: |stage| frames_behind_heads(stage, false),
    },
    Abuse {
        name: "frames_behind_heads_while_redis_hangs",
        args: |_| words(&format!("{SMALL} --max-connections 300")),
        bus: Bus::Redis,
        manner: ALONE_IN_A_ROOM,
        is_served: false,
        deed: |stage| frames_behind_heads(stage, true),
    },
    Abuse {
        name: "unfinished_messages",
        args: |scale| words(&format!("--max-partial {}KiB", 32 * scale.connections)),
        bus: Bus::Local,
        manner: Manner { bytes: 3_000, in_two: true, ..ALONE_IN_A_ROOM },
        is_served: true,
        deed: unfinished_messages,
    },
    Abuse {
        name: "all_places_taken",
        args: |scale| words(&format!("--max-connections {}", scale.innocents + scale.connections / 2)),
        bus: Bus::Local,
        manner: ALONE_IN_A_ROOM,
        is_served: true,
        deed: all_places_taken,
    },
    Abuse {
        name: "free_places",
        args: |scale| words(&format!("--max-connections {}", scale.innocents + PLACES)),
        bus: Bus::Local,
        manner: ALONE_IN_A_ROOM,
        is_served: true,
        deed: free_places,
    },
    Abuse {
        name: "hung_up_clients_that_wait_for_credit",
        args: |_| words("--max-publish-queue 64KiB --pause-timeout 30s --redis-reply-timeout 60s"),
        bus: Bus::Redis,
        manner: ALONE_IN_A_ROOM,
        is_served: false,
        deed: hung_up_clients,
    },
];

fn connect(port: u16) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    stream.set_write_timeout(Some(Duration::from_secs(2)))?;
    Ok(stream)
}

/// Ends a connection with a reset.
fn reset(stream: TcpStream) -> io::Result<()> {
    set_socket_linger(&stream, Some(Duration::ZERO))?;
    drop(stream);
    Ok(())
}

/// Each connection brings as many empty messages as fit into one read behind its request, and goes.
fn frames_behind_heads(stage: &Stage<'_>, redis_hangs: bool) -> io::Result<Box<dyn Any>> {
    // Who comes joins a channel that is subscribed: Redis need not answer for that.
    let held = upgraded(stage.port(), "/chat/flood")?;
    let mut bytes = good_request(stage.port(), "/chat/flood").into_bytes();
    let empty = frame(TEXT, b"");
    while bytes.len() + empty.len() <= 16_384 {
        bytes.extend_from_slice(&empty);
    }
    let redis = stage.redis.filter(|_| redis_hangs);
    redis.map_or(Ok(()), Redis::freeze)?;
    let taken = stage.repeat(|_| {
        let mut stream = connect(stage.port())?;
        stream.set_read_timeout(Some(Duration::from_millis(500)))?;
        stream.write_all(&bytes)?;
        // Our 101: the request and what is behind it has been read.
        stream.read_exact(&mut [0])?;
        reset(stream)
    });
    redis.map_or(Ok(()), Redis::thaw)?;
    if taken == 0 { Err(io::Error::other("nobody was served")) } else { Ok(Box::new(held)) }
}

/// Everybody begins a message and does not end it, large ones first, then ever smaller ones, and answers pings.
fn unfinished_messages(stage: &Stage<'_>) -> io::Result<Box<dyn Any>> {
    let mut swarm = Swarm::new()?;
    let count = stage.scale.connections;
    for (share, length) in [(6, 64_000), (8, 8_000), (9, 1_000), (10, 400)] {
        let from = swarm.len();
        swarm.grow_unless_closed(count * share / 10, stage.port(), "/chat/hoard")?;
        let mut begun = frame(TEXT_FIRST, &vec![b'x'; length]);
        begun.truncate(begun.len() - 1);
        for number in from..swarm.len() {
            // Whoever was too much has been closed.
            let _ = swarm.send(number, &begun);
        }
    }
    let end = Instant::now() + stage.scale.time;
    while Instant::now() < end {
        swarm.listen(Duration::from_millis(20), |_, _| {})?;
    }
    Ok(Box::new(swarm))
}

/// Connections that say nothing take all places. Who asks for `/live` at the address of the clients has an answer.
fn all_places_taken(stage: &Stage<'_>) -> io::Result<Box<dyn Any>> {
    let mut mute: Vec<TcpStream> = (0..stage.scale.connections).filter_map(|_| connect(stage.port()).ok()).collect();
    let end = Instant::now() + stage.scale.time;
    while Instant::now() < end {
        for path in ["/live", "/ready"] {
            let start = Instant::now();
            let answer = get(stage.port(), path)?;
            if answer.status != 200 || start.elapsed() > stage.scale.p99 + Duration::from_secs(1) {
                return Err(io::Error::other(format!("{path}: {answer:?} after {:?}", start.elapsed())));
            }
        }
        // What the server closes is opened anew.
        for stream in &mut mute {
            stream.set_nonblocking(true)?;
            if !matches!(stream.read(&mut [0]), Err(e) if e.kind() == io::ErrorKind::WouldBlock)
                && let Ok(other) = connect(stage.port())
            {
                *stream = other;
            }
        }
        thread::sleep(Duration::from_millis(100));
    }
    Ok(Box::new(mute))
}

/// How soon a free place is used.
const SOON: Duration = Duration::from_millis(200);

/// Places besides those of the innocents.
const PLACES: usize = 10;

/// All places are taken, one after the other becomes free, and somebody waits for it.
fn free_places(stage: &Stage<'_>) -> io::Result<Box<dyn Any>> {
    let mut held: Vec<TcpStream> =
        (0..PLACES).map(|_| upgraded(stage.port(), "/chat/held")).collect::<io::Result<_>>()?;
    let mut took = Vec::new();
    for turn in 0..4 * PLACES {
        let (port, path) = (stage.port(), "/chat/next");
        let mut next = connect(port)?;
        next.set_read_timeout(Some(Duration::from_secs(10)))?;
        next.write_all(good_request(port, path).as_bytes())?;
        let start = Instant::now();
        reset(held.swap_remove(turn % PLACES))?;
        next.read_exact(&mut [0])?;
        took.push(start.elapsed());
        held.push(next);
    }
    took.sort_unstable();
    // A busy machine makes any of them late, but not a quarter.
    let late = took[took.len() * 3 / 4];
    if late > SOON {
        return Err(io::Error::other(format!("a quarter of the free places were used after {late:?} or later")));
    }
    Ok(Box::new(held))
}

fn upgraded(port: u16, path: &str) -> io::Result<TcpStream> {
    let mut stream = connect(port)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(good_request(port, path).as_bytes())?;
    stream.read_exact(&mut [0])?;
    Ok(stream)
}

/// Redis takes nothing, everybody sends until nothing more is read, and hangs up: their places are free at once.
fn hung_up_clients(stage: &Stage<'_>) -> io::Result<Box<dyn Any>> {
    let redis = stage.redis.ok_or_else(|| io::Error::other("no Redis"))?;
    let before = stage.sessions()?;
    let mut streams: Vec<_> =
        (0..stage.scale.connections).map(|_| upgraded(stage.port(), "/chat/held")).collect::<io::Result<_>>()?;
    redis.freeze()?;
    let message = frame(TEXT, &[b'x'; 1_000]);
    for stream in &mut streams {
        for _ in 0..20 {
            stream.write_all(&message)?;
        }
    }
    let paused = wait_until("sessions to be paused", Duration::from_secs(10), || {
        stage.metric("session_pauses_total").is_ok_and(|pauses| pauses > 0.0)
    });
    let freed = paused.and_then(|_| {
        streams.into_iter().try_for_each(reset)?;
        wait_until("their places to be free", Duration::from_secs(5), || {
            stage.sessions().is_ok_and(|sessions| sessions <= before + 1)
        })
    });
    redis.thaw()?;
    freed?;
    Ok(Box::new(()))
}
