//! A fleet in a box: real instances, one Redis, many clients and the network between them, in one thread, on a clock
//! that jumps, from one seed.
//!
//! A [`Plan`] says who is there and what befalls them; [`run`] plays it and holds every step against a reference of
//! who must receive what. A plan that fails is made short by [`shrink`], and says in words what it is.

mod checks;
mod client;
mod frames;
mod generate;
mod ground;
mod instance;
mod lanes;
mod messages;
mod pipe;
pub mod plan;
mod proofs;
mod redis;
mod reference;
mod shrinking;
mod slow;
mod sockets;
mod told;
mod verdict;
mod walk;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

pub use plan::Plan;
pub use shrinking::shrink;
pub use verdict::{Failure, Promise, Report};

/// Plays a plan to its end, or to the first thing that is wrong. With `traces` the report says what happened.
#[must_use]
pub fn run(plan: &Plan, traces: bool) -> Report {
    let mut world = world::World::new(plan, traces);
    let played = catch_unwind(AssertUnwindSafe(|| world.run()));
    if let Err(panic) = played {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic");
        world.ground.fail(Promise::NoPanic, text);
    }
    world.report()
}
