//! The bodies of the fuzz targets: each takes whatever a fuzzer makes up and panics if a promise of this package is broken.
//! The core has more of them.

mod drive;
mod hub;
mod listen_address;
mod peer;
mod server;
#[cfg(test)]
mod tests;

pub use drive::{DriveStory, drive};
pub use hub::HubStory;
pub use listen_address::listen_address;
pub use server::ServerStory;

use arbitrary::{Arbitrary, Unstructured};

/// What a fuzzer calls with bytes.
pub type Target = fn(&[u8]);

/// Every target by name.
pub const TARGETS: &[(&str, Target)] = &[("drive", |data| tell(data, drive)), ("listen_address", listen_address)];

/// Runs `target` on the story that `data` stands for, if it stands for one.
fn tell<'a, T: Arbitrary<'a>>(data: &'a [u8], target: fn(T)) {
    if let Ok(story) = T::arbitrary_take_rest(Unstructured::new(data)) {
        target(story);
    }
}
