//! The server on tokio.

use std::env;
use std::process::ExitCode;

use fanfare_core::config::cli::Program;
use fanfare_core::drive::{self, ServeError, program};
use fanfare_tokio::Tokio;

const PROGRAM: Program = Program { name: env!("CARGO_BIN_NAME"), version: env!("CARGO_PKG_VERSION") };

fn main() -> ExitCode {
    program::main(&PROGRAM, env::args_os(), env::vars_os(), |config, listeners| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(ServeError::System)?;
        let ready = |config: &_, addresses: &[_]| program::announce(&PROGRAM, config, addresses);
        runtime.block_on(drive::serve::<Tokio>(config, listeners, ready))
    })
}
