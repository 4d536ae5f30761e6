//! What the binaries have in common: everything but the runtime.

#![expect(clippy::disallowed_methods, reason = "what a process says to its terminal is said here")]

use std::ffi::OsString;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::process::ExitCode;

use super::listeners::Listeners;
use super::server::ServeError;
use crate::config::cli::{self, Exit, Parsed, Program};
use crate::config::{Config, Log, LogFormat};

/// A binary's `main`: reads the settings as [`cli::parse`] does, starts the log on standard error, raises the limit of open
/// files, takes the listening sockets that a service manager hands over ([`Listeners::from_env`]) and calls `serve`.
///
/// The exit code is 0 after an orderly end, 2 for settings that make no sense, and else what [`ServeError::exit_code`]
/// says; with each but 0 goes one line on standard error.
pub fn main(
    program: &Program,
    args: impl IntoIterator<Item = OsString>,
    env: impl IntoIterator<Item = (OsString, OsString)>,
    serve: impl FnOnce(Config, Listeners) -> Result<(), ServeError>,
) -> ExitCode {
    let env: Vec<(OsString, OsString)> = env.into_iter().collect();
    let names =
        env.iter().find(|(name, _)| name == "LISTEN_FDNAMES").and_then(|(_, names)| names.clone().into_string().ok());
    match cli::parse(program, args, env) {
        Ok(Parsed { config, warnings }) => {
            for warning in warnings {
                complain(&warning);
            }
            start_log(config.log);
            // More descriptors are more clients; what the system does not give is met by resting from accepting.
            let descriptors = rlimit::increase_nofile_limit(u64::MAX).unwrap_or_default();
            tracing::debug!(descriptors, "limit of open files");
            let handed = Listeners::from_env(&names.unwrap_or_default()).map_err(ServeError::Listener);
            match handed.and_then(|listeners| serve(config, listeners)) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => {
                    complain(&format!("{}: {error}", program.name));
                    ExitCode::from(error.exit_code())
                }
            }
        }
        Err(Exit::Answer(text)) => {
            print(&text);
            ExitCode::SUCCESS
        }
        Err(Exit::Refusal(line)) => {
            complain(&line);
            ExitCode::from(2)
        }
    }
}

/// Says on standard output that clients are accepted: what [`serve`](super::serve) is to call.
pub fn announce(program: &Program, config: &Config, addresses: &[SocketAddr]) {
    print(&format!("{} {} {}\n", program.name, program.version, config.banner(addresses)));
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

/// On standard error, which may be closed: that ends nothing.
fn complain(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}
