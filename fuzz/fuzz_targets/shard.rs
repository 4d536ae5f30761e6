#![no_main]

use fanfare_core::fuzzing::{ShardStory, shard};

libfuzzer_sys::fuzz_target!(|story: ShardStory<'_>| shard(story));
