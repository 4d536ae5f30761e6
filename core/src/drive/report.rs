//! What whoever started a server hears of its workers.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use super::server::ServeError;

#[derive(Debug, Default)]
pub(super) struct Report {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    started: Option<Result<Vec<SocketAddr>, ServeError>>,
    ended: Option<Result<(), ServeError>>,
    has_ended: bool,
    waker: Option<Waker>,
}

impl Report {
    /// Clients are accepted at these addresses, or never will be.
    pub(super) fn set_started(&self, result: Result<Vec<SocketAddr>, ServeError>) {
        self.set(|inner| inner.started = Some(result));
    }

    /// The server is over. Only the first word counts.
    pub(super) fn set_ended(&self, result: Result<(), ServeError>) {
        self.set(|inner| {
            if !inner.has_ended {
                inner.has_ended = true;
                inner.ended = Some(result);
            }
        });
    }

    pub(super) async fn started(&self) -> Result<Vec<SocketAddr>, ServeError> {
        self.wait(|inner| match (inner.started.take(), inner.ended.take()) {
            (Some(result), _) => Some(result),
            (None, Some(Err(error))) => Some(Err(error)),
            (None, Some(Ok(()))) => Some(Err(ServeError::System(io::Error::other("the first worker ended too soon")))),
            (None, None) => None,
        })
        .await
    }

    /// How it ended. Who asks again is told that all is well.
    pub(super) async fn ended(&self) -> Result<(), ServeError> {
        self.wait(|inner| inner.has_ended.then(|| inner.ended.take().unwrap_or(Ok(())))).await
    }

    fn set(&self, change: impl FnOnce(&mut Inner)) {
        let waker = {
            let mut inner = self.lock();
            change(&mut inner);
            inner.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    async fn wait<T>(&self, mut take: impl FnMut(&mut Inner) -> Option<T>) -> T {
        poll_fn(|context| {
            let mut inner = self.lock();
            match take(&mut inner) {
                Some(value) => Poll::Ready(value),
                None => {
                    inner.waker = Some(context.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing panics while it is held.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
