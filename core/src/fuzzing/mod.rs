//! The bodies of the fuzz targets: each takes whatever a fuzzer makes up and panics if a promise of this crate is
//! broken.
//!
//! They are here and not in `fuzz/` so that they reach into the crate, and so that its tests replay the corpus on a
//! stable compiler. The readers of a stream take bytes, of which the first says how the rest is cut into pieces. The
//! parsers of settings and fields take texts. The machines take a story: a list of steps that `arbitrary` makes of the
//! bytes and that can be printed.

mod client;
mod http_request;
mod node;
mod parsers;
mod redis_link;
mod resp_decode;
mod resp_grammar;
mod shard;
mod ws_roundtrip;
mod ws_session;

pub use http_request::http_request;
pub use node::{NodeStory, node};
pub use parsers::parsers;
pub use redis_link::{LinkStory, redis_link};
pub use resp_decode::resp_decode;
pub use shard::{ShardStory, shard};
pub use ws_roundtrip::{Conversation, ws_roundtrip};
pub use ws_session::ws_session;

use arbitrary::{Arbitrary, Unstructured};

/// What a fuzzer calls with bytes.
pub type Target = fn(&[u8]);

/// Every target by name.
pub const TARGETS: &[(&str, Target)] = &[
    ("http_request", http_request),
    ("node", |data| tell(data, node)),
    ("parsers", parsers),
    ("redis_link", |data| tell(data, redis_link)),
    ("resp_decode", resp_decode),
    ("shard", |data| tell(data, shard)),
    ("ws_roundtrip", |data| tell(data, ws_roundtrip)),
    ("ws_session", ws_session),
];

/// Runs `target` on the story that `data` stands for, if it stands for one.
fn tell<'a, T: Arbitrary<'a>>(data: &'a [u8], target: fn(T)) {
    if let Ok(story) = T::arbitrary_take_rest(Unstructured::new(data)) {
        target(story);
    }
}

/// How a stream of bytes is cut into pieces.
#[derive(Clone, Copy, Debug)]
enum Cut {
    Whole,
    Bytewise,
    /// Where a random number generator with this seed says.
    Random(u8),
}

impl Cut {
    fn pieces(self, bytes: &[u8]) -> Vec<&[u8]> {
        match self {
            Self::Whole => vec![bytes],
            Self::Bytewise => bytes.chunks(1).collect(),
            Self::Random(seed) => random_pieces(bytes, fastrand::Rng::with_seed(seed.into())),
        }
    }
}

fn random_pieces(mut bytes: &[u8], mut random: fastrand::Rng) -> Vec<&[u8]> {
    // Not so many pieces of a long stream that the fuzzer gets nothing else done.
    let longest = (1 << random.u32(1..10)).max(bytes.len() / 500);
    let mut pieces = Vec::new();
    while !bytes.is_empty() {
        let (piece, rest) = bytes.split_at(random.usize(1..=longest).min(bytes.len()));
        pieces.push(piece);
        bytes = rest;
    }
    pieces
}
