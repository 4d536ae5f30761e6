#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fanfare_drive::fuzzing::listen_address(data));
