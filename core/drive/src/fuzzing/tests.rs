//! Random stories, for those who have no fuzzer, and one of each kind by hand.

use arbitrary::{Arbitrary, Unstructured};

use super::{DriveStory, drive, listen_address};

#[test]
fn random_stories_end_well() {
    let mut seed = 7_u64;
    for _ in 0..2_000 {
        let mut bytes = [0; 400];
        for byte in &mut bytes {
            // Knuth's generator is random enough to make stories up.
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            *byte = (seed >> 56) as u8;
        }
        let story = DriveStory::arbitrary_take_rest(Unstructured::new(&bytes)).expect("a story");
        drive(story);
    }
}

#[test]
fn addresses_that_look_like_some_hold() {
    for text in
        ["127.0.0.1:9090", "[::1]:0", ":1", "[fe80::1%eth0]:65535", "a:b:1", "[a]:1", "%:1", "[]:1", "a\u{85}:1"]
    {
        listen_address(text.as_bytes());
    }
}
