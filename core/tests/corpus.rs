//! Replays what the fuzzer has found worth keeping, on any compiler. `fuzz/README.md` says how it came about.

#![expect(clippy::disallowed_macros, reason = "a test may print")]

use std::path::{Path, PathBuf};

use fanfare_core::fuzzing::TARGETS;

fn replay(name: &str) {
    let (_, target) = TARGETS.iter().find(|(other, _)| *other == name).expect("a target of that name");
    let inputs = inputs(name);
    assert!(inputs.len() > 20, "{} inputs are no corpus", inputs.len());
    for path in inputs {
        let input = std::fs::read(&path).expect("it was just listed");
        // The name of the input is what one needs to run it alone.
        if let Err(panic) = std::panic::catch_unwind(|| target(&input)) {
            eprintln!("with {}", path.display());
            std::panic::resume_unwind(panic);
        }
    }
}

fn inputs(name: &str) -> Vec<PathBuf> {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz");
    let files = |folder| std::fs::read_dir(fuzz.join(folder).join(name)).into_iter().flatten();
    let mut paths: Vec<_> =
        files("corpus").chain(files("seeds")).map(|entry| entry.expect("a folder can be read").path()).collect();
    paths.sort();
    paths
}

macro_rules! replayed {
    ($($test:ident => $target:literal,)*) => {
        $(#[test] fn $test() { replay($target); })*

        #[test]
        fn no_target_is_forgotten() {
            assert!(TARGETS.iter().map(|(name, _)| *name).eq([$($target),*]));
        }
    };
}

replayed! {
    the_corpus_of_http_request_holds => "http_request",
    the_corpus_of_node_holds => "node",
    the_corpus_of_redis_link_holds => "redis_link",
    the_corpus_of_resp_decode_holds => "resp_decode",
    the_corpus_of_shard_holds => "shard",
    the_corpus_of_ws_roundtrip_holds => "ws_roundtrip",
    the_corpus_of_ws_session_holds => "ws_session",
}
