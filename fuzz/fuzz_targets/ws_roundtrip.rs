#![no_main]

use fanfare_core::fuzzing::{Conversation, ws_roundtrip};

libfuzzer_sys::fuzz_target!(|story: Conversation<'_>| ws_roundtrip(story));
