//! What is handed out beside the programs is right: alerts, dashboard, units, packages and the least version of Rust.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use fanfare_tests::server::Program;
use serde_json::{Value, json};

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

fn tool(path: &str) -> PathBuf {
    top().join("tests/.tools").join(path)
}

/// A folder of its own, gone with the value.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("fanfare-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.0.join(name), text).unwrap();
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
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
}

#[test]
fn alerts_fire_in_their_case_and_in_no_other() {
    const CASES: &str = "tests/tests/operate/alerts.test.yml";
    let names = |text: &str, mark| -> BTreeSet<String> {
        let rest = text.lines().filter_map(|line| line.split_once(mark));
        rest.map(|(_, name)| name.split([',', ' ']).next().unwrap_or_default().to_owned()).collect()
    };
    let cases = fs::read_to_string(top().join(CASES)).unwrap();
    assert_eq!(names(&handed_out("alerts.yml"), "alert: "), names(&cases, "alertname: "), "each has a case");
    output(Command::new(tool("bin/promtool")).args(["check", "rules", "core/docs/operate/alerts.yml"]));
    output(Command::new(tool("bin/promtool")).args(["test", "rules", CASES]));
}

#[test]
fn grafana_and_prometheus_understand_the_dashboard() {
    output(
        Command::new(tool("python/bin/python"))
            .args(["tests/interop/grafana_dashboard.py", "core/docs/operate/dashboard.json"]),
    );
    let dashboard: Value = serde_json::from_str(&handed_out("dashboard.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let targets = panels.flat_map(|panel| panel["targets"].as_array().unwrap());
    let queries: Vec<_> =
        targets.map(|target| target["expr"].as_str().unwrap().replace("$__rate_interval", "5m")).collect();
    assert!(queries.len() >= 25, "{queries:?}");
    let rule = |(number, query)| json!({ "record": format!("panel:{number}"), "expr": query });
    let rules: Vec<_> = queries.iter().enumerate().map(rule).collect();
    // JSON is YAML.
    let file = Scratch::new("queries");
    file.write("rules.yml", &json!({ "groups": [{ "name": "dashboard", "rules": rules }] }).to_string());
    output(Command::new(tool("bin/promtool")).args(["check", "rules"]).arg(file.0.join("rules.yml")));
}

/// The least that `systemd-analyze security` says of the service is 0, the most 10.
const EXPOSURE: &str = "15";

#[test]
fn systemd_understands_the_units_and_finds_little_exposed() {
    let units = Scratch::new("units");
    let program = Path::new(env!("CARGO_BIN_EXE_faults"));
    for unit in ["fanfare.service", "fanfare.socket"] {
        let text = handed_out(unit).replace("/usr/local/bin/fanfare-tokio", program.to_str().unwrap());
        units.write(unit, &text);
    }
    let files = ["fanfare.service", "fanfare.socket"].map(|unit| units.0.join(unit));
    let verified = Command::new("systemd-analyze").args(["verify", "--man=no"]).args(&files).output().unwrap();
    let complaints = String::from_utf8_lossy(&verified.stderr);
    assert!(verified.status.success() && complaints.is_empty(), "{complaints}");
    // In tenths.
    output(
        Command::new("systemd-analyze")
            .args(["security", "--offline=true", "--no-pager"])
            .arg(format!("--threshold={EXPOSURE}"))
            .arg(&files[0]),
    );
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

/// Source files of what is published, without tests.
fn sources(folder: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        let name = entry.file_name().unwrap().to_str().unwrap();
        let is_left_out = matches!(name, "tests" | "tests.rs" | "examples" | "fuzzing" | "target");
        if entry.is_dir() && !is_left_out {
            sources(&entry, found);
        } else if name.ends_with(".rs") && !is_left_out {
            let text = fs::read_to_string(&entry).unwrap();
            let (code, _tests) = text.split_once("\n#[cfg(test)]\nmod tests {").unwrap_or((&text, ""));
            found.push(code.to_owned());
        }
    }
}

/// The events that the sources log, with their levels.
fn logged_events() -> BTreeMap<String, BTreeSet<&'static str>> {
    const LEVELS: [&str; 4] = ["error", "warn", "info", "debug"];
    let mut files = Vec::new();
    for folder in ["core", "adapter-tokio", "adapter-async-std"] {
        sources(&top().join(folder), &mut files);
    }
    let mut events: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
    let mut add = |rest: &str, level: Option<&'static str>| {
        let (name, _) = rest.split_once('"').unwrap();
        events.entry(name.to_owned()).or_default().insert(level.unwrap_or_else(|| panic!("a level for {name}")));
    };
    for text in &files {
        // A field of a line that is being logged.
        for (at, mark) in text.match_indices("event = \"") {
            let before = text[..at].trim_end();
            if before.ends_with("let") {
                continue;
            }
            let level = LEVELS.iter().filter_map(|level| Some((before.rfind(&format!("{level}!("))?, *level)));
            add(&text[at + mark.len()..], level.max().map(|(_, level)| level));
        }
        // A name that is used by the next statement.
        for mark in [
            "let event = \"",
            "let (event, channel) = (\"",
            "let (event, lane) = (\"",
            "let (event, route, other) = (\"",
        ] {
            for (at, _) in text.match_indices(mark) {
                let after = &text[at + mark.len()..];
                let statements = after.split("let ").next().unwrap().split("\n\n").next().unwrap();
                for level in LEVELS.into_iter().filter(|level| statements.contains(&format!("{level}!("))) {
                    add(after, Some(level));
                }
            }
        }
        // What a binary says about its start and its end.
        for (at, mark) in text.match_indices("complain(\"") {
            let after = &text[at + mark.len()..];
            add(after, Some(if after.lines().next().unwrap().contains("Level::WARN") { "warn" } else { "error" }));
        }
        for (at, mark) in text.match_indices("announce_lines(\"") {
            add(&text[at + mark.len()..], Some("info"));
        }
    }
    events
}

#[test]
fn every_event_of_the_log_is_in_its_table() {
    let page = fs::read_to_string(top().join("core/docs/events.md")).unwrap();
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` | "));
    let documented: BTreeMap<_, BTreeSet<_>> =
        rows.map(|(name, rest)| (name.to_owned(), rest.split(" |").next().unwrap().split(", ").collect())).collect();
    assert!(documented.len() > 40, "{documented:?}");
    assert_eq!(logged_events(), documented);
}

/// The name that a heading has in links, as GitHub makes it.
fn anchor(heading: &str) -> String {
    let kept = heading.trim().chars().filter(|&c| c.is_alphanumeric() || " -_".contains(c));
    kept.collect::<String>().to_lowercase().replace(' ', "-")
}

#[test]
fn every_link_of_the_pages_leads_somewhere() {
    let mut links = 0;
    for page in [
        "README.md",
        "core/DESIGN.md",
        "core/docs/operating.md",
        "core/docs/options.md",
        "core/docs/metrics.md",
        "core/docs/events.md",
        "fuzz/README.md",
        "tests/bench/README.md",
        "tests/mutants/README.md",
        ".github/CONTRIBUTING.md",
        ".github/SECURITY.md",
    ] {
        let path = top().join(page);
        let text = fs::read_to_string(&path).unwrap();
        // A link may be broken over two lines, and what stands in fences is no text.
        let prose: String = text.split("\n```").step_by(2).collect();
        for rest in prose.split("](").skip(1) {
            let target = rest.split(')').next().unwrap();
            if target.starts_with("http") {
                continue;
            }
            links += 1;
            let (file, heading) = target.split_once('#').unwrap_or((target, ""));
            let file = if file.is_empty() { path.clone() } else { path.parent().unwrap().join(file) };
            assert!(file.exists(), "{page}: {target}");
            if !heading.is_empty() {
                let there = fs::read_to_string(&file).unwrap();
                let mut headings = there.lines().filter_map(|line| line.strip_prefix('#'));
                assert!(headings.any(|line| anchor(line.trim_start_matches('#')) == heading), "{page}: {target}");
            }
        }
    }
    assert!(links > 50, "{links}");
}

#[test]
fn the_loop_in_readme_knows_every_action() {
    let node = fs::read_to_string(top().join("core/src/node.rs")).unwrap();
    let (_, rest) = node.split_once("pub enum Action {").unwrap();
    let variants = rest.split("\n}").next().unwrap().lines().map(str::trim).filter(|line| !line.starts_with("//"));
    let readme = fs::read_to_string(top().join("README.md")).unwrap();
    let names: Vec<_> = variants.filter_map(|line| line.split_once('(')).map(|(name, _)| name).collect();
    assert!(names.len() >= 6, "{names:?}");
    for name in names {
        assert!(readme.contains(&format!("Action::{name}(")), "{name}");
    }
}

#[test]
fn every_package_has_readme_and_licences() {
    for package in ["fanfare-core", "fanfare-drive", "fanfare-server", "fanfare-tokio", "fanfare-async-std"] {
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
