//! A shared value with waiters for its changes.

use std::future::poll_fn;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use slab::Slab;

#[derive(Debug, Default)]
pub(super) struct Watched<T> {
    inner: Mutex<Inner<T>>,
}

#[derive(Debug, Default)]
struct Inner<T> {
    value: T,
    waiting: Slab<Waker>,
}

/// The entry of one who waits, given up by whoever stops waiting.
struct Waiting<'a, T> {
    watched: &'a Watched<T>,
    key: Option<usize>,
}

impl<T> Watched<T> {
    /// Changes the value and wakes all who wait.
    pub(super) fn change<U>(&self, change: impl FnOnce(&mut T) -> U) -> U {
        let (changed, waiting) = {
            let mut inner = self.lock();
            let changed = change(&mut inner.value);
            let waiting: Vec<Waker> = inner.waiting.iter().map(|(_, waker)| waker.clone()).collect();
            (changed, waiting)
        };
        waiting.into_iter().for_each(Waker::wake);
        changed
    }

    /// Looks at the value and changes nothing that anybody waits for.
    pub(super) fn look<U>(&self, look: impl FnOnce(&mut T) -> U) -> U {
        look(&mut self.lock().value)
    }

    /// Waits until `take` finds something.
    pub(super) async fn wait<U>(&self, mut take: impl FnMut(&mut T) -> Option<U>) -> U {
        let mut entry = Waiting { watched: self, key: None };
        poll_fn(|context| {
            let mut inner = self.lock();
            if let Some(found) = take(&mut inner.value) {
                return Poll::Ready(found);
            }
            match entry.key {
                Some(key) => inner.waiting[key].clone_from(context.waker()),
                None => entry.key = Some(inner.waiting.insert(context.waker().clone())),
            }
            Poll::Pending
        })
        .await
    }

    fn lock(&self) -> MutexGuard<'_, Inner<T>> {
        // Nothing panics while it is held.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Drop for Waiting<'_, T> {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            // Dropped only after the lock is free: a waker may own the last handle on something.
            let waker = self.watched.lock().waiting.try_remove(key);
            drop(waker);
        }
    }
}
