//! What a delivery and an idle connection cost the server.

use std::io;
use std::time::{Duration, Instant};

use fanfare_tests::swarm::{Swarm, message};

use crate::Args;
use fanfare_tests::usage::{cpu_seconds, memory};

/// Long enough for a chat's message, short enough that the cost is in the system calls.
const TEXT: [u8; 100] = [b'x'; 100];

/// How long nothing may arrive that must.
const PATIENCE: Duration = Duration::from_secs(10);

/// Rounds of `size` messages from one client to all of them; the next round begins when everybody has everything.
pub(crate) fn rounds(args: &Args, size: usize) -> io::Result<String> {
    let mut swarm = Swarm::new()?;
    swarm.grow(args.clients, args.port, &args.path)?;
    let frames = message(&TEXT).repeat(size);
    let mut sender = 0;
    let mut round = || {
        sender = (sender + 1) % args.clients;
        let expected = size * args.clients;
        deliver(&mut swarm, sender, &frames, expected)?;
        io::Result::Ok(expected)
    };
    // What grows on first use has grown then.
    run_for(args.time / 10, &mut round)?;
    let cpu_before = args.pid.map(cpu_seconds).transpose()?;
    let start = Instant::now();
    let deliveries = run_for(args.time, &mut round)?;
    let seconds = start.elapsed().as_secs_f64();
    let mut line =
        format!("deliveries={deliveries} seconds={seconds:.2} per_second={:.0}", deliveries as f64 / seconds);
    if let (Some(pid), Some(before)) = (args.pid, cpu_before) {
        let cpu = cpu_seconds(pid)? - before;
        line += &format!(" cpu_seconds={cpu:.2} per_cpu_second={:.0}", deliveries as f64 / cpu.max(0.01));
    }
    Ok(line)
}

/// Opens all clients, holds them for the time given, and at the end lets each of them hear a message.
pub(crate) fn idle(args: &Args) -> io::Result<String> {
    let memory = || args.pid.map_or(Ok(0), memory);
    let mut swarm = Swarm::new()?;
    // The first client pays for what all share.
    swarm.grow(1, args.port, &args.path)?;
    deliver(&mut swarm, 0, &message(&TEXT), 1)?;
    let before = memory()?;
    swarm.grow(args.clients, args.port, &args.path)?;
    let start = Instant::now();
    while start.elapsed() < args.time {
        swarm.turn(Duration::from_millis(100), |_, _| {})?;
    }
    let after = memory()?;
    deliver(&mut swarm, 0, &message(&TEXT), args.clients)?;
    let each = after.saturating_sub(before) / args.clients as u64;
    Ok(format!("connections={} bytes_each={each} bytes_before={before} bytes_after={after}", args.clients))
}

fn run_for(time: Duration, mut round: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    let start = Instant::now();
    let mut deliveries = 0;
    while start.elapsed() < time {
        deliveries += round()?;
    }
    Ok(deliveries)
}

/// Sends from one client and waits for `expected` deliveries in all.
fn deliver(swarm: &mut Swarm, sender: usize, frames: &[u8], expected: usize) -> io::Result<()> {
    swarm.send(sender, frames)?;
    let start = Instant::now();
    let mut delivered = 0;
    while delivered < expected {
        swarm.turn(Duration::from_secs(1), |_, _| delivered += 1)?;
        if start.elapsed() > PATIENCE {
            return Err(io::Error::other(format!("{delivered} of {expected} deliveries in {PATIENCE:?}")));
        }
    }
    if delivered > expected {
        return Err(io::Error::other(format!("{delivered} deliveries where {expected} were due")));
    }
    Ok(())
}
