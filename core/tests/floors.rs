//! Modules stand on the floors that `DESIGN.md` says, and use what it says.

#![expect(clippy::disallowed_methods, reason = "a test may read files")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// What is between backticks.
fn quoted(text: &str) -> impl Iterator<Item = String> + '_ {
    text.split('`').skip(1).step_by(2).map(str::to_owned)
}

/// The floor of each module.
fn floors(design: &str) -> BTreeMap<String, u32> {
    let (_, rest) = design.split_once("| floor | modules |").expect("the table of floors");
    let rows = rest.lines().skip(2).take_while(|line| line.starts_with('|'));
    rows.flat_map(|row| {
        let cells: Vec<_> = row.trim_matches('|').split('|').map(str::trim).collect();
        let floor = cells[0].parse().expect("a number");
        quoted(cells[1]).map(move |module| (module, floor)).collect::<Vec<_>>()
    })
    .collect()
}

/// Pairs of modules of one floor, of which the first may use the second.
fn within_a_floor(design: &str) -> BTreeSet<(String, String)> {
    let (_, rest) = design.split_once("Within a floor there are only these uses:").expect("the uses");
    let sentence = rest.split(". ").next().unwrap_or_default();
    let mut pairs = BTreeSet::new();
    for part in sentence.split(';') {
        let (user, used) = part.split_once('→').expect("an arrow");
        // What is in brackets is the reason.
        let used = used.split('(').next().unwrap_or_default();
        for user in quoted(user) {
            pairs.extend(quoted(used).map(|used| (user.clone(), used)));
        }
    }
    pairs
}

/// Adds what the sources under `path`, which belong to `module`, use.
fn add_uses(path: &Path, module: &str, uses: &mut BTreeSet<(String, String)>) {
    if path.is_dir() {
        for entry in fs::read_dir(path).expect("a folder") {
            let entry = entry.expect("a file").path();
            if !entry.ends_with("tests") && !entry.ends_with("tests.rs") {
                add_uses(&entry, module, uses);
            }
        }
        return;
    }
    let text = fs::read_to_string(path).expect("a source");
    let code = text.split("\n#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    for line in code.lines().filter(|line| !line.trim_start().starts_with("//")) {
        for rest in line.split("crate::").skip(1) {
            let used: String = rest.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
            assert!(!used.is_empty(), "a use of several modules in one line: {}: {line}", path.display());
            if used != module {
                uses.insert((module.to_owned(), used));
            }
        }
    }
}

#[test]
fn a_module_uses_the_floors_below_it_and_what_the_design_names() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let design = fs::read_to_string(root.join("DESIGN.md")).expect("the design");
    let (floors, pairs) = (floors(&design), within_a_floor(&design));
    let mut uses = BTreeSet::new();
    let lib = fs::read_to_string(root.join("src/lib.rs")).expect("the crate");
    let modules =
        lib.lines().filter_map(|line| line.trim_start_matches("pub ").strip_prefix("mod ")?.strip_suffix(';'));
    for module in modules.filter(|module| *module != "fuzzing") {
        assert!(floors.contains_key(module), "{module} has no floor");
        for path in [root.join(format!("src/{module}.rs")), root.join("src").join(module)] {
            if path.exists() {
                add_uses(&path, module, &mut uses);
            }
        }
    }
    assert!(uses.len() > 40, "{uses:?}");
    let in_a_floor: BTreeSet<_> = uses
        .into_iter()
        .filter(|(user, used)| {
            let floor = |module: &String| floors.get(module).unwrap_or_else(|| panic!("{module} has no floor"));
            assert!(floor(used) <= floor(user), "{user} uses {used}, which is above it");
            floor(used) == floor(user)
        })
        .collect();
    assert_eq!(in_a_floor, pairs);
}
