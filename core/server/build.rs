//! Finds out which source this is a build of, for `fanfare_build_info`: `FANFARE_COMMIT`, or else what `cargo package` noted.

use std::{env, fs};

/// Where `cargo package` puts the commit; not there in a work tree, whose state no commit names for sure.
const NOTED: &str = ".cargo_vcs_info.json";

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=FANFARE_COMMIT");
    let said = env::var("FANFARE_COMMIT").ok().filter(|commit| !commit.is_empty());
    let commit = said.or_else(|| noted(&fs::read_to_string(NOTED).ok()?)).unwrap_or_else(|| "unknown".to_owned());
    println!("cargo:rustc-env=FANFARE_BUILT_FROM={commit}");
}

/// As in `{"git": {"sha1": "…", "dirty": true}}`.
fn noted(info: &str) -> Option<String> {
    let (_, rest) = info.split_once("\"sha1\"")?;
    let commit = rest.split('"').nth(1)?;
    let is_dirty =
        info.split_once("\"dirty\"").is_some_and(|(_, rest)| rest.trim_start_matches([':', ' ']).starts_with("true"));
    Some(if is_dirty { format!("{commit}-dirty") } else { commit.to_owned() })
}
