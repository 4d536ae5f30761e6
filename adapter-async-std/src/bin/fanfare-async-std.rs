//! The server on async-std.

use std::env;
use std::process::ExitCode;

use fanfare_async_std::{AsyncStd, On};
use fanfare_core::config::cli::Program;
use fanfare_core::drive::{self, program};

const PROGRAM: Program = Program { name: env!("CARGO_BIN_NAME"), version: env!("CARGO_PKG_VERSION") };

fn main() -> ExitCode {
    program::main(&PROGRAM, env::args_os(), env::vars_os(), |config, listeners| {
        let ready = |config: &_, addresses: &[_]| program::announce(&PROGRAM, config, addresses);
        async_std::task::block_on(drive::serve::<On<AsyncStd>>(config, listeners, ready))
    })
}
