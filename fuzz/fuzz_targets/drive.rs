#![no_main]

use fanfare_drive::fuzzing::{DriveStory, drive};

libfuzzer_sys::fuzz_target!(|story: DriveStory| drive(story));
