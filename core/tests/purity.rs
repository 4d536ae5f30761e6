//! The core reaches no clock, socket, thread or runtime: not through its own source, which the lints in `.clippy.toml`
//! watch, and not through its dependencies, which are listed here with the reason why each may be there.

#![expect(clippy::disallowed_types, reason = "a test may start programs")]

use std::collections::BTreeSet;
use std::process::Command;

/// Every package that the core is built with, and why it cannot bring the world in.
const ALLOWED: &[(&str, &str)] = &[
    ("ahash", "hashes; its own seeds are behind a feature that is off"),
    ("bytes", "memory"),
    ("cfg-if", "a macro"),
    ("fastrand", "numbers from a seed; its own seeds are behind a feature that is off"),
    ("httparse", "parses"),
    ("itoa", "formats"),
    ("memchr", "searches"),
    ("once_cell", "for tracing's list of subscribers"),
    ("percent-encoding", "decodes"),
    ("pin-project-lite", "a macro"),
    ("simdutf8", "checks"),
    ("slab", "memory"),
    ("tracing", "tells whoever subscribes; does nothing by itself"),
    ("tracing-core", "as tracing"),
    ("zerocopy", "for ahash: conversions"),
    // redis-protocol, of which only the decoders are used.
    ("redis-protocol", "parses; its codec for a runtime is behind a feature that is off"),
    ("cookie-factory", "serializes"),
    ("crc16", "hashes"),
    ("libc", "declarations"),
    ("log", "tells whoever subscribes"),
    ("minimal-lexical", "parses"),
    ("nom", "parses"),
    // tungstenite, of which only the accept key of a handshake is used.
    ("tungstenite", "over streams that its user makes; the core gives it none"),
    ("block-buffer", "memory"),
    ("chacha20", "for rand"),
    ("const-oid", "constants"),
    ("cpufeatures", "reads the processor's features"),
    ("crypto-common", "traits"),
    ("data-encoding", "encodes"),
    ("digest", "traits"),
    ("getrandom", "for tungstenite's client, which masks frames and is not used here"),
    ("http", "types"),
    ("hybrid-array", "memory"),
    ("rand", "for tungstenite's client, which masks frames and is not used here"),
    ("rand_core", "as rand"),
    ("sha1", "hashes"),
    ("thiserror", "a macro"),
    ("typenum", "types"),
];

#[test]
fn no_dependency_is_there_that_is_not_allowed() {
    let tree = Command::new(env!("CARGO"))
        .args(["tree", "--offline", "--locked", "--edges", "normal,no-proc-macro", "--prefix", "none"])
        .args(["--no-default-features", "--manifest-path", concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")])
        .output()
        .expect("cargo runs");
    assert!(tree.status.success(), "{}", String::from_utf8_lossy(&tree.stderr));
    let text = String::from_utf8(tree.stdout).expect("names are text");
    let built: BTreeSet<&str> = text.lines().filter_map(|line| line.split(' ').next()).collect();
    let allowed: BTreeSet<&str> = ALLOWED.iter().map(|&(name, _)| name).chain(["fanfare-core"]).collect();
    let stranger: Vec<_> = built.difference(&allowed).collect();
    assert!(stranger.is_empty(), "is it pure? then say why in this file: {stranger:?}");
    let gone: Vec<_> = allowed.difference(&built).collect();
    assert!(gone.is_empty(), "no longer there, so strike it out: {gone:?}");
}
