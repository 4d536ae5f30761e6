//! What is handed out beside the programs is right: alerts, dashboard, units, packages and the least version of Rust.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use fanfare_tests::server::Program;

fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn handed_out(name: &str) -> String {
    fs::read_to_string(top().join("core/docs/operate").join(name)).unwrap()
}

fn output(command: &mut Command) -> String {
    let output = command.current_dir(top()).output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || "-_".contains(c)))
}

/// The metrics of the table, a histogram by its series.
fn metrics() -> BTreeSet<String> {
    let table = fs::read_to_string(top().join("core/docs/metrics.md")).unwrap();
    let rows = table.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` | "));
    rows.flat_map(|(name, rest)| {
        let suffixes: &[_] = if rest.starts_with("histogram") { &["_bucket", "_count", "_sum"] } else { &[""] };
        suffixes.iter().map(move |suffix| format!("{name}{suffix}"))
    })
    .collect()
}

#[test]
fn alerts_and_dashboard_ask_for_metrics_that_exist() {
    let metrics = metrics();
    assert!(metrics.len() > 30, "{metrics:?}");
    for (name, least) in [("alerts.yml", 8), ("dashboard.json", 25)] {
        let text = handed_out(name);
        let named: BTreeSet<_> = words(&text).filter(|word| word.starts_with("fanfare_")).collect();
        assert!(named.len() >= least, "{name}: {named:?}");
        let unknown: Vec<_> = named.iter().filter(|metric| !metrics.contains(**metric)).collect();
        assert!(unknown.is_empty(), "{name}: {unknown:?}");
    }
    output(Command::new("python3").args(["-m", "json.tool", "core/docs/operate/dashboard.json"]));
}

#[test]
fn the_unit_uses_options_that_exist() {
    let help = Program::Tokio.run(&["--help"]).unwrap().text();
    let unit = handed_out("fanfare.service");
    let options: Vec<_> = words(&unit).filter(|word| word.starts_with("--")).collect();
    assert!(options.len() >= 4, "{options:?}");
    for option in options {
        assert!(help.contains(&format!("{option} ")) || help.contains(&format!("{option}[")), "{option}");
    }
}

#[test]
fn every_package_has_readme_and_licences() {
    for package in ["fanfare-core", "fanfare-tokio", "fanfare-async-std"] {
        let files = output(Command::new(env!("CARGO")).args([
            "package",
            "--offline",
            "--allow-dirty",
            "--list",
            "--package",
            package,
        ]));
        let files: BTreeSet<_> = files.lines().collect();
        for file in ["README.md", "LICENSE-MIT", "LICENSE-APACHE", "Cargo.toml", "src/lib.rs"] {
            assert!(files.contains(file), "{package}: {file}");
        }
    }
}

#[test]
fn no_dependency_needs_a_newer_rust_than_we_promise() {
    let script = r#"
import json, sys
packages = json.load(sys.stdin)["packages"]
number = lambda text: tuple(int(part) for part in (text + ".0.0").split(".")[:3])
ours = {package["rust_version"] for package in packages if package["source"] is None}
assert len(ours) == 1, ours
print([package["id"] for package in packages if number(package["rust_version"] or "1") > number(min(ours))])
"#;
    let cargo = env!("CARGO");
    let pipe = format!(
        "'{cargo}' metadata --offline --locked --filter-platform x86_64-unknown-linux-gnu --format-version 1 | python3 -c \"$0\""
    );
    assert_eq!(output(Command::new("sh").args(["-c", &pipe, script])), "[]\n");
}
