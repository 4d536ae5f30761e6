//! The bus, with a scripted Redis and inside the process.

mod channels;
mod credit;
mod gaps;
mod mailbox;
mod stats;

use super::Bus;

impl Bus {
    /// The credit that each worker has used and not got back.
    pub(crate) fn debts(&self) -> Vec<usize> {
        self.workers.debts()
    }
}
