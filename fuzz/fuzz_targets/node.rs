#![no_main]

use fanfare_core::fuzzing::{NodeStory, node};

libfuzzer_sys::fuzz_target!(|story: NodeStory<'_>| node(story));
