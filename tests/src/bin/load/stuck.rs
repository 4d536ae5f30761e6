//! What clients that never read cost those who do.

use std::io;
use std::time::{Duration, Instant};

use fanfare_tests::metrics::Metrics;
use fanfare_tests::swarm::{Heard, Swarm, message};

use crate::Args;

/// What a message is filled up to: large enough that who does not read has a full queue within seconds, small enough
/// that the flood under way together stays below the bound of who reads.
const LENGTH: usize = 1_000;

/// One of so many clients floods: it sends its next message when its last has come back.
const FLOODER_OF: usize = 10;

/// One of so many clients never reads.
const STUCK_OF: usize = 100;

/// How long the last messages may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the stuck ones may make of the 99th percentile of the others, and the time before which that is chance.
const BOUND: (f64, Duration) = (3.0, Duration::from_secs(5));

/// The flood without the stuck clients, then with them.
pub(crate) fn stuck(args: &Args) -> io::Result<String> {
    let mut swarm = Swarm::new()?;
    let stuck = args.clients.div_ceil(STUCK_OF);
    let readers = args.clients - stuck;
    swarm.grow(readers, args.port, &args.path)?;
    let without = percentile_99(flood(&mut swarm, readers, args.time)?)?;
    swarm.grow(args.clients, args.port, &args.path)?;
    for number in readers..args.clients {
        swarm.stop_reading(number)?;
    }
    let with = percentile_99(flood(&mut swarm, readers, args.time)?)?;
    let slow =
        |port| io::Result::Ok(Metrics::scrape(port)?.value("session_errors_total{error=\"slow_reader\"}") as usize);
    let closed = args.admin.map(slow).transpose()?;
    let ratio = with as f64 / without.max(1) as f64;
    let line = format!(
        "readers={readers} stuck={stuck} closed={} p99_us_without={without} p99_us_with={with} ratio={ratio:.2}",
        closed.map_or_else(|| "?".to_owned(), |closed| closed.to_string())
    );
    if ratio > BOUND.0 && args.time >= BOUND.1 {
        return Err(io::Error::other(format!("the others suffer too much: {line}")));
    }
    Ok(line)
}

/// Lets the flooders flood, and returns how many microseconds each message took to each of the first `readers` clients.
fn flood(swarm: &mut Swarm, readers: usize, time: Duration) -> io::Result<Vec<u32>> {
    let flooders = readers.div_ceil(FLOODER_OF);
    let start = Instant::now();
    let mut due: Vec<_> = (0..flooders).collect();
    let mut micros = Vec::new();
    let (mut sent, mut heard) = (0, 0);
    loop {
        let is_over = start.elapsed() > time;
        if is_over && heard == sent * readers {
            return Ok(micros);
        }
        if start.elapsed() > time + PATIENCE {
            return Err(io::Error::other(format!("{heard} of {} deliveries", sent * readers)));
        }
        for sender in due.drain(..) {
            if !is_over {
                let text = format!("{sender} {} {:x<LENGTH$}", start.elapsed().as_micros(), "");
                swarm.send(sender, &message(&text.as_bytes()[..LENGTH]))?;
                sent += 1;
            }
        }
        let mut fault = None;
        swarm.listen(Duration::from_millis(10), |number, what| match what {
            Heard::Text(text) => match parse(text) {
                Some((sender, at)) => {
                    heard += 1;
                    micros.push(u32::try_from(start.elapsed().as_micros()).unwrap_or(u32::MAX).saturating_sub(at));
                    due.extend((number == sender).then_some(sender));
                }
                None => fault = Some(format!("client {number} heard what nobody said")),
            },
            Heard::Welcome => {}
            Heard::Binary(_) => fault = Some(format!("client {number} heard a binary message")),
            Heard::Gone(_, error) => fault = Some(format!("client {number}: {error}")),
        })?;
        fault.map_or(Ok(()), |fault| Err(io::Error::other(fault)))?;
    }
}

/// The sender and the microsecond of a message.
fn parse(text: &[u8]) -> Option<(usize, u32)> {
    let mut words = text.split(|&byte| byte == b' ').map(str::from_utf8);
    let (sender, at) = (words.next()?.ok()?, words.next()?.ok()?);
    Some((sender.parse().ok()?, at.parse().ok()?))
}

fn percentile_99(mut micros: Vec<u32>) -> io::Result<u32> {
    let at = micros.len().saturating_sub(1) * 99 / 100;
    if micros.is_empty() {
        return Err(io::Error::other("nothing was heard"));
    }
    Ok(*micros.select_nth_unstable(at).1)
}
