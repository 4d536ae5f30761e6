//! The server on tokio.

use std::env;
use std::process::ExitCode;

use fanfare_server::cli::Program;
use fanfare_server::program;
use fanfare_tokio::Tokio;
use fanfare_tokio::drive::{self, ServeError};

const PROGRAM: Program = Program { name: env!("CARGO_BIN_NAME"), version: env!("CARGO_PKG_VERSION") };

fn main() -> ExitCode {
    program::main(&PROGRAM, env::args_os(), env::vars_os(), |setup, listeners, ready| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(ServeError::System)?;
        runtime.block_on(drive::serve::<Tokio>(setup, listeners, ready))
    })
}
