//! The load generator: thousands of WebSocket clients on one thread, cheap enough not to be what is measured.
//!
//! ```text
//! load MODE --port PORT [--pid PID] [--clients N] [--seconds S] [--path PATH] [--seed N] [--admin PORT]
//! ```
//!
//! It prints one line of `name=value` pairs. With `--pid`, the server's CPU time and memory are among them.
#![forbid(unsafe_code)]

mod latency;
mod soak;
mod stuck;
mod throughput;

use std::env;
use std::process::ExitCode;
use std::time::Duration;

const USAGE: &str =
    "usage: load MODE --port PORT [--pid PID] [--clients N] [--seconds S] [--path PATH] [--seed N] [--admin PORT]
modes:
  closed  one message at a time to all clients: the next when all have it
  burst   50 messages at a time, likewise
  idle    opens the clients and holds them: memory of each
  light   one message every 5 ms: how long each takes
  flood   one client sends as fast as the others get it
  stuck   one client in ten floods, one in a hundred never reads: what the others suffer from the latter
  soak    clients in rooms come, talk and go: nothing lost, doubled or out of order, memory flat";

/// What the command line says.
struct Args {
    port: u16,
    pid: Option<u32>,
    clients: usize,
    time: Duration,
    path: String,
    seed: u64,
    /// Of the server, to count those that it closed.
    admin: Option<u16>,
}

fn main() -> ExitCode {
    let words: Vec<String> = env::args().skip(1).collect();
    let Some((mode, args)) = words.split_first().and_then(|(mode, rest)| Some((mode.as_str(), parse(rest)?))) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let outcome = match mode {
        "closed" => throughput::rounds(&args, 1),
        "burst" => throughput::rounds(&args, 50),
        "idle" => throughput::idle(&args),
        "light" => latency::light(&args),
        "flood" => latency::flood(&args),
        "stuck" => stuck::stuck(&args),
        "soak" => soak::soak(&args),
        _ => Err(std::io::Error::other(USAGE)),
    };
    match outcome {
        Ok(line) => {
            println!("mode={mode} {line}");
            ExitCode::SUCCESS
        }
        Err(e) => {
            eprintln!("{mode}: {e}");
            ExitCode::FAILURE
        }
    }
}

fn parse(words: &[String]) -> Option<Args> {
    let mut args = Args {
        port: 0,
        pid: None,
        clients: 1_000,
        time: Duration::from_secs(3),
        path: "/chat".into(),
        seed: 1,
        admin: None,
    };
    for pair in words.chunks(2) {
        let [name, value] = pair else { return None };
        match name.as_str() {
            "--port" => args.port = value.parse().ok()?,
            "--pid" => args.pid = Some(value.parse().ok()?),
            "--clients" => args.clients = value.parse().ok().filter(|&clients| clients > 0)?,
            "--seconds" => args.time = Duration::try_from_secs_f64(value.parse().ok()?).ok()?,
            "--admin" => args.admin = Some(value.parse().ok()?),
            "--path" => args.path.clone_from(value),
            "--seed" => args.seed = value.parse().ok()?,
            _ => return None,
        }
    }
    (args.port != 0).then_some(args)
}
