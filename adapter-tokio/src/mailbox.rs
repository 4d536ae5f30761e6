//! What goes from one worker's thread to another's.

use std::net::{IpAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use fanfare_core::exchange::{ToBus, ToShard, WorkerId};
use fanfare_core::time::Duration;

/// One piece of mail.
#[derive(Debug)]
pub(crate) enum Mail {
    /// A client's connection, for this worker to hold.
    Socket(TcpStream, IpAddr),
    /// From the bus.
    News(ToShard),
    /// For the bus.
    Wishes(WorkerId, ToBus),
    /// Close all sessions, and end within this time.
    Shutdown(Duration),
    /// A worker's sessions are all gone; its wishes came before this.
    Empty,
    /// Every worker is empty and the bus flushed, or the time is over.
    End,
}

/// A worker's mailbox. The core bounds what lies in it.
#[derive(Debug, Default)]
pub(crate) struct Mailbox {
    inner: Mutex<Inner>,
    /// Sessions that the worker holds, those on their way to it among them.
    pub(crate) sessions: AtomicUsize,
}

#[derive(Debug, Default)]
struct Inner {
    mail: Vec<Mail>,
    waker: Option<Waker>,
}

impl Mailbox {
    /// Puts mail in and wakes the worker.
    pub(crate) fn post(&self, mail: Mail) {
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
    pub(crate) fn take(&self, waker: &Waker) -> Vec<Mail> {
        let mut inner = self.lock();
        if !inner.waker.as_ref().is_some_and(|known| known.will_wake(waker)) {
            inner.waker = Some(waker.clone());
        }
        std::mem::take(&mut inner.mail)
    }

    /// The mailbox of whoever holds the fewest sessions.
    pub(crate) fn least_loaded(mailboxes: &[std::sync::Arc<Self>]) -> WorkerId {
        let load = |mailbox: &std::sync::Arc<Self>| mailbox.sessions.load(Ordering::Relaxed);
        mailboxes.iter().enumerate().min_by_key(|(_, mailbox)| load(mailbox)).map_or(0, |(id, _)| id)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing panics while it is held.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
