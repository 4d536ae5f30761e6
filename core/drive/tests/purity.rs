//! The driver is built with the core and what reaches the system for it, each listed here with the reason, and nothing
//! that only a process of its own needs.

#![expect(clippy::disallowed_types, reason = "a test may start programs")]

use std::collections::BTreeSet;
use std::process::Command;

/// Every package that the driver is built with beside those of the core, and what for.
const ALLOWED: &[(&str, &str)] = &[
    ("bitflags", "for rustix: constants"),
    ("linux-raw-sys", "for rustix: declarations"),
    ("rlimit", "the limit of open files"),
    ("rustix", "polls a descriptor"),
    ("socket2", "options of sockets"),
];

#[test]
fn no_dependency_is_there_that_is_not_allowed() {
    let strangers: BTreeSet<String> = built("/Cargo.toml")
        .difference(&built("/../Cargo.toml"))
        .filter(|name| *name != "fanfare-drive")
        .cloned()
        .collect();
    let allowed = ALLOWED.iter().map(|&(name, _)| name.to_owned()).collect();
    assert_eq!(strangers, allowed, "what for? then say so in this file, or strike it out");
}

/// The packages that the package of a manifest is built with.
fn built(manifest: &str) -> BTreeSet<String> {
    let tree = Command::new(env!("CARGO"))
        .args(["tree", "--offline", "--locked", "--edges", "normal,no-proc-macro", "--prefix", "none"])
        .args(["--no-default-features", "--manifest-path"])
        .arg(format!("{}{manifest}", env!("CARGO_MANIFEST_DIR")))
        .output()
        .expect("cargo runs");
    assert!(tree.status.success(), "{}", String::from_utf8_lossy(&tree.stderr));
    let text = String::from_utf8(tree.stdout).expect("names are text");
    text.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}
