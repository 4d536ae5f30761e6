//! The server on smol.

use std::env;
use std::process::ExitCode;

use fanfare_async_std::drive;
use fanfare_async_std::{On, Smol};
use fanfare_server::cli::Program;
use fanfare_server::program;

const PROGRAM: Program = Program { name: env!("CARGO_BIN_NAME"), version: env!("CARGO_PKG_VERSION") };

fn main() -> ExitCode {
    program::main(&PROGRAM, env::args_os(), env::vars_os(), |setup, listeners, ready| {
        smol::block_on(drive::serve::<On<Smol>>(setup, listeners, ready))
    })
}
