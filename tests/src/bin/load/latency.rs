//! How long a light client's messages take, and the flood beside it.

use std::io;
use std::time::{Duration, Instant};

use fanfare_tests::swarm::{Swarm, message};

use crate::Args;

/// Between two messages of the light load.
const INTERVAL: Duration = Duration::from_millis(5);

/// Messages of the flood that are on their way at most: together below the queue's bound of 1 MiB, so that what is
/// measured is a flood and not how a slow reader is treated.
const UNDER_WAY: u64 = 4_000;

/// Messages of the flood in one write.
const CHUNK: u64 = 100;

/// One message every 5 ms, whether or not the last has arrived, and how long each takes to each client.
pub(crate) fn light(args: &Args) -> io::Result<String> {
    let mut swarm = Swarm::new()?;
    swarm.grow(args.clients, args.port, &args.path)?;
    let start = Instant::now();
    let mut micros: Vec<u64> = Vec::new();
    let mut sent = 0;
    let end = args.time + Duration::from_secs(5);
    let due = u32::try_from(args.time.as_millis() / INTERVAL.as_millis()).map_err(io::Error::other)?;
    while micros.len() < due as usize * args.clients {
        let now = start.elapsed();
        if now > end {
            return Err(io::Error::other(format!("{} of {} deliveries", micros.len(), due as usize * args.clients)));
        }
        let next = INTERVAL * sent;
        if sent < due && now >= next {
            // Counted from when it was due: a generator that is late must not hide that.
            let text = format!("{:>100}", next.as_micros());
            swarm.send(sent as usize % args.clients, &message(text.as_bytes()))?;
            sent += 1;
            continue;
        }
        let wait = if sent < due { next - now } else { INTERVAL };
        swarm.turn(wait.min(INTERVAL), |_, text| {
            let due = str::from_utf8(text).ok().and_then(|text| text.trim_start().parse::<u64>().ok()).unwrap_or(0);
            micros.push(u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX) - due);
        })?;
    }
    micros.sort_unstable();
    let at = |permille: usize| micros[(micros.len() - 1) * permille / 1000];
    Ok(format!("messages={due} p50_us={} p99_us={} max_us={}", at(500), at(990), at(1000)))
}

/// One client sends 128-byte messages as fast as the slowest of all clients gets them.
pub(crate) fn flood(args: &Args) -> io::Result<String> {
    let mut swarm = Swarm::new()?;
    swarm.grow(args.clients, args.port, &args.path)?;
    let chunk = message(&[b'x'; 128]).repeat(CHUNK as usize);
    let mut heard = vec![0_u64; args.clients];
    let mut sent = 0;
    let start = Instant::now();
    while start.elapsed() < args.time {
        let slowest = heard.iter().copied().min().unwrap_or(0);
        if sent + CHUNK - slowest <= UNDER_WAY {
            swarm.send(0, &chunk)?;
            sent += CHUNK;
        }
        let wait = if sent + CHUNK - slowest <= UNDER_WAY { Duration::ZERO } else { Duration::from_millis(100) };
        swarm.turn(wait, |number, _| heard[number] += 1)?;
    }
    let deliveries: u64 = heard.iter().sum();
    let per_second = deliveries as f64 / start.elapsed().as_secs_f64();
    Ok(format!("messages={sent} deliveries={deliveries} per_second={per_second:.0}"))
}
