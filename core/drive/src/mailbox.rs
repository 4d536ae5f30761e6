//! Mailboxes: batches and connections from one worker's thread to another's.

use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use super::desk::Command;
use super::runtime::Runtime;
use fanfare_core::exchange::{ToBus, ToShard, WorkerId};
use fanfare_core::memory::CROWDED_CONNECTIONS;
use fanfare_core::snapshot::Share;
use fanfare_core::time::{Duration, Instant};

/// One piece of mail.
pub(super) enum Mail<R: Runtime> {
    /// A client's connection, for this worker to hold.
    Client(R::Parcel, IpAddr),
    /// The same, of one that has no place: it may get that of another which has not sent its request yet.
    Crowded {
        parcel: R::Parcel,
        peer: IpAddr,
        /// How many there are.
        places: usize,
    },
    /// From an embedder, through its hub.
    Command(Command<R::Stream>),
    /// From the bus, which handed it over then.
    News(ToShard, Instant),
    /// For the bus.
    Wishes(WorkerId, ToBus),
    /// Tell the first worker what you count.
    Measure,
    /// What another worker counts.
    Share(WorkerId, Box<Share>),
    /// The instance is about to end: listening ends after this time.
    Drain { delay: Duration },
    /// Listening has ended: close all sessions.
    Close,
    /// A worker's sessions are all gone; its wishes came before this.
    Empty,
    /// The first worker has ended.
    End,
}

/// A worker's mailbox. The shards and the bus bound what lies in it.
pub(super) struct Mailbox<R: Runtime> {
    inner: Mutex<Inner<R>>,
    /// Sessions that the worker holds, those on their way to it among them.
    sessions: AtomicUsize,
    /// How many of them may be replaced, as far as is known: they have not sent their request yet.
    mute: AtomicUsize,
}

struct Inner<R: Runtime> {
    mail: Vec<Mail<R>>,
    waker: Option<Waker>,
}

impl<R: Runtime> Default for Mailbox<R> {
    fn default() -> Self {
        Self {
            inner: Mutex::new(Inner { mail: Vec::new(), waker: None }),
            sessions: AtomicUsize::new(0),
            mute: AtomicUsize::new(0),
        }
    }
}

impl<R: Runtime> Mailbox<R> {
    /// Puts mail in and wakes the worker.
    pub(super) fn post(&self, mail: Mail<R>) {
        let waker = {
            let mut inner = self.lock();
            inner.mail.push(mail);
            inner.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Takes all mail out, and has `waker` woken by the next.
    pub(super) fn take(&self, waker: &Waker) -> Vec<Mail<R>> {
        let mut inner = self.lock();
        if !inner.waker.as_ref().is_some_and(|known| known.will_wake(waker)) {
            inner.waker = Some(waker.clone());
        }
        std::mem::take(&mut inner.mail)
    }

    /// The sessions of all workers.
    pub(super) fn sessions(mailboxes: &[Self]) -> usize {
        mailboxes.iter().map(|mailbox| mailbox.sessions.load(Ordering::Relaxed)).sum()
    }

    /// The worker with the fewest sessions, which gets one more.
    pub(super) fn add_session(mailboxes: &[Self]) -> WorkerId {
        let load = |mailbox: &Self| mailbox.sessions.load(Ordering::Relaxed);
        let fewest = mailboxes.iter().enumerate().min_by_key(|(_, mailbox)| load(mailbox)).map_or(0, |(id, _)| id);
        mailboxes[fewest].sessions.fetch_add(1, Ordering::Relaxed);
        fewest
    }

    /// The worker has one session more.
    pub(super) fn count_session(&self) {
        self.sessions.fetch_add(1, Ordering::Relaxed);
    }

    /// The worker holds connections that may be replaced, or no more.
    pub(super) fn set_mute(&self, has_mute: bool) {
        let number = if has_mute { CROWDED_CONNECTIONS } else { 0 };
        if self.mute.load(Ordering::Relaxed) != number {
            self.mute.store(number, Ordering::Relaxed);
        }
    }

    /// A worker with a connection that may be replaced. Of each only a few are until it says so again, and only so many
    /// are under way to it.
    pub(super) fn take_mute(mailboxes: &[Self]) -> Option<WorkerId> {
        let take = |mailbox: &Self| {
            mailbox.mute.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |mute| mute.checked_sub(1)).is_ok()
        };
        mailboxes.iter().position(take)
    }

    /// The worker has one session less.
    pub(super) fn remove_session(&self) {
        self.sessions.fetch_sub(1, Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, Inner<R>> {
        // Nothing panics while it is held.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
