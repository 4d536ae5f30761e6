//! The server on async-std.

use std::env;
use std::process::ExitCode;

use fanfare_async_std::drive;
use fanfare_async_std::{AsyncStd, On};
use fanfare_server::cli::Program;
use fanfare_server::program;

const PROGRAM: Program = Program { name: env!("CARGO_BIN_NAME"), version: env!("CARGO_PKG_VERSION") };

fn main() -> ExitCode {
    program::main(&PROGRAM, env::args_os(), env::vars_os(), |setup, listeners, ready| {
        async_std::task::block_on(drive::serve::<On<AsyncStd>>(setup, listeners, ready))
    })
}
