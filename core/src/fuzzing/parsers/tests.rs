//! Texts of the words that the parsers know: a fuzzer takes long to make up the first.

use super::parsers;

const WORDS: &[&str] = &[
    "/",
    "/",
    "chat",
    "{room}",
    "{a}",
    "/{a}/{b}",
    "/{room}",
    "=",
    "=chat:",
    ",binary",
    ",text",
    ",publish=no",
    ",subscribe=no",
    ",slow=latest",
    ",on_gap=close",
    "redis://",
    "REDIS://",
    "user",
    ":",
    ":",
    "@",
    "[::1]",
    "[fe80::1",
    "%eth0",
    "]",
    "%",
    "%41",
    "%C3%A4",
    "http://",
    "https://",
    "chrome-extension://",
    "null",
    "file://",
    "*",
    "example.org",
    "EXAMPLE.org",
    "a.example.org",
    ":80",
    ":443",
    ":0",
    "192.0.2.1",
    "10.0.0.0",
    "/8",
    "/33",
    "::ffff:10.1.2.3",
    "fd00::",
    "/64",
    "0",
    "64",
    "18014398509481984",
    "KiB",
    "mib",
    "ms",
    "H",
    "?",
    "#",
    "\\",
    " ",
    ", ",
    "\t",
    "\r\n",
    "\0",
    "ä",
    "\u{202e}",
    "\u{85}",
];

#[test]
fn texts_of_known_words_hold() {
    for seed in 0..10_000 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut data = Vec::new();
        for text in 0..rng.usize(1..6) {
            if text > 0 {
                data.push(0xFF);
            }
            for _ in 0..rng.usize(1..6) {
                data.extend(WORDS[rng.usize(..WORDS.len())].bytes());
            }
        }
        parsers(&data);
    }
}
