//! The state of an open session's input.
//!
//! Every session is read, whatever the credit: what needs none (pings, pongs, a Close, a question for a note) is taken in
//! at once. The first byte of a message that finds no credit, and what was read behind it, is held, at most one read of
//! each session, and the socket is not read until that is taken in.
//!
//! | state | its socket | left by |
//! | --- | --- | --- |
//! | `Clear` | is read | input that is handed over: `Held`; a message without credit: `Waits` |
//! | `Held` | waits | its turn, in which it is taken in: `Clear`, or as from there |
//! | `Waits` | waits, as do its deadlines | credit, when it is first in line; our Close: `Held`; [`pause_time`]: Close 1013 |
//!
//! [`pause_time`]: crate::limits::Limits::pause_time

use crate::time::Instant;

/// Where the input of an open session stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Intake {
    /// All that was read is taken in.
    #[default]
    Clear,
    /// Some is held, and has its turn in the next call of [`Shard::handle_timeout`].
    Held,
    /// A message is held that found no credit at that time.
    Waits(Instant),
}

/// What happens to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Input is held that has not been looked at.
    Hold,
    /// A message found no credit, and is held.
    Starve(Instant),
    /// The session needs no credit any more.
    Free,
    /// What is held is taken out.
    Take,
}

impl Intake {
    /// Every transition there is.
    pub(super) const fn after(self, step: Step) -> Self {
        match (self, step) {
            (_, Step::Take) => Self::Clear,
            (Self::Clear | Self::Held, Step::Starve(now)) => Self::Waits(now),
            (Self::Clear, Step::Hold) | (Self::Waits(_), Step::Free) => Self::Held,
            (Self::Held | Self::Waits(_), Step::Hold)
            | (Self::Waits(_), Step::Starve(_))
            | (Self::Clear | Self::Held, Step::Free) => self,
        }
    }

    /// Since when it waits for credit.
    pub(super) const fn waits(self) -> Option<Instant> {
        if let Self::Waits(since) = self { Some(since) } else { None }
    }
}
