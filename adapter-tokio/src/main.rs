//! The server on tokio.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::process::ExitCode;

use fanfare_core::config::cli::{self, Exit, Parsed, Program};
use fanfare_core::config::{Config, Log, LogFormat};

const PROGRAM: Program = Program {
    name: env!("CARGO_BIN_NAME"),
    version: env!("CARGO_PKG_VERSION"),
    about: "Spreads WebSocket messages over any number of server instances through Redis Pub/Sub.",
};

fn main() -> ExitCode {
    match cli::parse(&PROGRAM, std::env::args_os(), std::env::vars_os()) {
        Ok(Parsed { config, warnings }) => {
            for warning in warnings {
                eprintln!("{warning}");
            }
            run(config)
        }
        Err(Exit::Answer(text)) => {
            print(&text);
            ExitCode::SUCCESS
        }
        Err(Exit::Refusal(line)) => {
            eprintln!("{line}");
            ExitCode::from(2)
        }
    }
}

fn run(config: Config) -> ExitCode {
    start_log(config.log);
    // More descriptors are more clients; what the system does not give is met by resting from accepting.
    let descriptors = rlimit::increase_nofile_limit(u64::MAX).unwrap_or_default();
    tracing::debug!(descriptors, "limit of open files");
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("{}: the system refuses a runtime: {error}", PROGRAM.name);
            return ExitCode::FAILURE;
        }
    };
    let ready = |config: &Config, addresses: &[SocketAddr]| {
        print(&format!("{} {} {}\n", PROGRAM.name, PROGRAM.version, config.banner(addresses)));
    };
    match runtime.block_on(fanfare_tokio::serve(config, ready)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}: {error}", PROGRAM.name);
            ExitCode::FAILURE
        }
    }
}

fn start_log(log: Log) {
    let builder = tracing_subscriber::fmt().with_max_level(log.level).with_writer(io::stderr).with_target(false);
    match log.format {
        LogFormat::Text => builder.with_ansi(false).init(),
        LogFormat::Json => builder.json().init(),
    }
}

/// On standard output, which may be closed: that ends nothing.
fn print(text: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}
