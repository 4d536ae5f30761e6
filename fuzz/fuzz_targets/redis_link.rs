#![no_main]

use fanfare_core::fuzzing::{LinkStory, redis_link};

libfuzzer_sys::fuzz_target!(|story: LinkStory<'_>| redis_link(story));
