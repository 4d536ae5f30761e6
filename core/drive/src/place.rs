//! A worker's place in its instance.

use std::sync::Arc;

use fanfare_core::exchange::WorkerId;

use crate::mailbox::Mailbox;
use crate::report::Report;
use crate::runtime::Runtime;

/// Which worker it is, and how it reaches the others.
pub(super) struct Place<R: Runtime> {
    pub(super) id: WorkerId,
    pub(super) runtime: R,
    pub(super) mailboxes: Arc<[Mailbox<R>]>,
    pub(super) report: Arc<Report>,
}
