//! The list of connections that have something to do: their wakers put them on it and wake the worker.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Wake, Waker};

/// The list, in the order in which they rang.
#[derive(Debug)]
pub(super) struct Bells<K> {
    inner: Mutex<Inner<K>>,
}

#[derive(Debug)]
struct Inner<K> {
    rung: Vec<K>,
    /// The worker, while it sleeps.
    worker: Option<Waker>,
}

/// Rings for one connection, which is on the list at most once.
#[derive(Debug)]
pub(super) struct Bell<K> {
    key: K,
    rung: AtomicBool,
    bells: Arc<Bells<K>>,
}

impl<K> Default for Bells<K> {
    fn default() -> Self {
        Self { inner: Mutex::new(Inner { rung: Vec::new(), worker: None }) }
    }
}

impl<K> Bells<K> {
    pub(super) fn bell(self: &Arc<Self>, key: K) -> Arc<Bell<K>> {
        Arc::new(Bell { key, rung: AtomicBool::new(false), bells: self.clone() })
    }

    /// Takes the list. Each of them is to be [hushed](Bell::hush) before it is looked at.
    pub(super) fn take(&self) -> Vec<K> {
        let mut inner = self.lock();
        inner.worker = None;
        std::mem::take(&mut inner.rung)
    }

    /// Has `worker` woken by the next bell; says no if one has rung already.
    pub(super) fn sleep(&self, worker: &Waker) -> bool {
        let mut inner = self.lock();
        inner.worker = inner.rung.is_empty().then(|| worker.clone());
        inner.worker.is_some()
    }

    fn lock(&self) -> MutexGuard<'_, Inner<K>> {
        // Nothing panics while it is held.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Copy> Bell<K> {
    /// From here on it can ring again.
    pub(super) fn hush(&self) {
        self.rung.store(false, Ordering::Relaxed);
    }

    pub(super) fn ring(&self) {
        if self.rung.swap(true, Ordering::Relaxed) {
            return;
        }
        let worker = {
            let mut inner = self.bells.lock();
            inner.rung.push(self.key);
            inner.worker.take()
        };
        if let Some(worker) = worker {
            worker.wake();
        }
    }
}

impl<K: Copy + Send + Sync + 'static> Wake for Bell<K> {
    fn wake(self: Arc<Self>) {
        self.ring();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.ring();
    }
}
