//! What the binaries have in common: everything but the runtime.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::process::ExitCode;

use tracing::Level;

use super::listeners::Listeners;
use super::log;
use super::server::ServeError;
use crate::config::cli::{self, Exit, Parsed, Program};
use crate::config::{Config, Log};

/// A binary's `main`: reads the settings as [`cli::parse`] does, starts the log on standard error, raises the limit of open
/// files, takes the listening sockets that a service manager hands over ([`Listeners::from_env`]) and calls `serve`.
///
/// The exit code is 0 after an orderly end, 2 for settings that make no sense, and else what [`ServeError::exit_code`]
/// says; with each but 0 goes one line on standard error.
///
/// Neither output makes the process wait. Lines that nobody takes, or that cannot be written, are lost and counted.
pub fn main(
    program: &Program,
    args: impl IntoIterator<Item = OsString>,
    env: impl IntoIterator<Item = (OsString, OsString)>,
    serve: impl FnOnce(Config, Listeners) -> Result<(), ServeError>,
) -> ExitCode {
    let args: Vec<OsString> = args.into_iter().collect();
    let env: Vec<(OsString, OsString)> = env.into_iter().collect();
    let names =
        env.iter().find(|(name, _)| name == "LISTEN_FDNAMES").and_then(|(_, names)| names.clone().into_string().ok());
    let format = cli::log_format(&args, &env);
    let parsed = cli::parse(program, args, env);
    // Changes the environment, which wants to happen before there is a thread.
    let handed = Listeners::from_env(&names.unwrap_or_default()).map_err(ServeError::Listener);
    let settings = match &parsed {
        Ok(parsed) => parsed.config.log.clone(),
        Err(_) => Log { format, ..Config::default().log },
    };
    if log::start(&settings).is_err() {
        // There is no thread for a log, and there will be none for a worker.
        return ExitCode::FAILURE;
    }
    let code = match parsed {
        Ok(Parsed { config, warnings }) => {
            for warning in warnings {
                log::complain("unknown_setting", Level::WARN, &warning);
            }
            run(program, config, handed, serve)
        }
        Err(Exit::Answer(text)) => {
            log::announce(&text, || announce_lines("answer", &text));
            ExitCode::SUCCESS
        }
        Err(Exit::Refusal(line)) => {
            log::complain("refused_settings", Level::ERROR, &line);
            ExitCode::from(2)
        }
    };
    log::finish();
    code
}

fn run(
    program: &Program,
    config: Config,
    handed: Result<Listeners, ServeError>,
    serve: impl FnOnce(Config, Listeners) -> Result<(), ServeError>,
) -> ExitCode {
    // More descriptors are more clients; what the system does not give is met by resting from accepting.
    let descriptors = rlimit::increase_nofile_limit(u64::MAX).unwrap_or_default();
    tracing::debug!(event = "started", version = program.version, descriptors, "limit of open files");
    match handed.and_then(|listeners| serve(config, listeners)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log::complain("ended", Level::ERROR, &format!("{}: {error}", program.name));
            ExitCode::from(error.exit_code())
        }
    }
}

/// Says on standard output that clients are accepted: what [`serve`](super::serve) is to call.
pub fn announce(program: &Program, config: &Config, addresses: &[SocketAddr]) {
    let text = format!("{} {} {}\n", program.name, program.version, config.banner(addresses));
    log::announce(&text, || announce_lines("listening", &text));
}

/// One object for each line.
fn announce_lines(event: &'static str, text: &str) {
    for line in text.lines() {
        tracing::info!(target: log::ANNOUNCED, event, "{line}");
    }
}
