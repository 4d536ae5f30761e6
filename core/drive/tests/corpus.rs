//! Replays what the fuzzer has found worth keeping, on any compiler. `fuzz/README.md` says how it came about.

#![expect(clippy::disallowed_macros, clippy::disallowed_methods, reason = "a test may print and read files")]

use std::path::Path;

use fanfare_drive::fuzzing::TARGETS;

fn replay(name: &str, least: usize) {
    let (_, target) = TARGETS.iter().find(|(other, _)| *other == name).expect("a target of that name");
    let inputs = inputs(name);
    assert!(inputs.len() >= least, "{} inputs are no corpus", inputs.len());
    for (place, input) in inputs {
        // Where the input stands is what one needs to run it alone.
        if let Err(panic) = std::panic::catch_unwind(|| target(&input)) {
            eprintln!("with {place}");
            std::panic::resume_unwind(panic);
        }
    }
}

/// Every input of a target and where it stands: a line of what was found, or a seed.
fn inputs(name: &str) -> Vec<(String, Vec<u8>)> {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz");
    let found = fuzz.join("found").join(name).with_extension("hex");
    let lines = std::fs::read_to_string(&found).unwrap_or_default();
    let found = lines.lines().enumerate().map(|(at, line)| (format!("{}:{}", found.display(), at + 1), bytes(line)));
    let seeds = std::fs::read_dir(fuzz.join("seeds").join(name)).into_iter().flatten().map(|entry| {
        let path = entry.expect("a folder can be read").path();
        let seed = std::fs::read(&path).expect("it was just listed");
        (path.display().to_string(), seed)
    });
    found.chain(seeds).collect()
}

fn bytes(hex: &str) -> Vec<u8> {
    let pairs = (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16));
    pairs.collect::<Result<_, _>>().expect("pairs of hexadecimal digits")
}

#[test]
fn the_corpus_of_drive_holds() {
    replay("drive", 20);
}

#[test]
fn the_corpus_of_listen_address_holds() {
    replay("listen_address", 10);
}

#[test]
fn no_target_is_forgotten() {
    assert!(TARGETS.iter().map(|(name, _)| *name).eq(["drive", "listen_address"]));
}
