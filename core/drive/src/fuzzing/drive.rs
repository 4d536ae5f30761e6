//! Servers and hubs on the runtime of memory.

use arbitrary::Arbitrary;

use super::hub::{self, HubStory};
use super::server::{self, ServerStory};
use crate::memory::Memory;

/// The story of a hub, or of a server.
#[derive(Arbitrary, Debug)]
pub enum DriveStory {
    /// To a hub.
    Hub(HubStory),
    /// To a server.
    Server(ServerStory),
}

/// Steps that are told of a story.
pub(super) const STEPS: usize = 100;

/// Tells the story in a world of its own. Nothing spins: the runtime of memory bounds how often tasks are woken in a row.
pub fn drive(story: DriveStory) {
    let memory = Memory::fresh();
    match story {
        DriveStory::Hub(story) => hub::tell(&memory, &story),
        DriveStory::Server(story) => server::tell(&memory, &story),
    }
    memory.end();
}
