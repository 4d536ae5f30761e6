//! The report of the workers to the owner of a server: started, or ended and why.

use std::io;
use std::net::SocketAddr;

use super::error::ServeError;
use super::watched::Watched;

#[derive(Debug, Default)]
pub(super) struct Report(Watched<Inner>);

#[derive(Debug, Default)]
struct Inner {
    started: Option<Result<Vec<SocketAddr>, ServeError>>,
    ended: Option<Result<(), ServeError>>,
    has_ended: bool,
}

impl Report {
    /// Clients are accepted at these addresses, or never will be.
    pub(super) fn set_started(&self, result: Result<Vec<SocketAddr>, ServeError>) {
        self.0.change(|inner| inner.started = Some(result));
    }

    /// The server is over. Only the first word counts.
    pub(super) fn set_ended(&self, result: Result<(), ServeError>) {
        self.0.change(|inner| {
            if !inner.has_ended {
                inner.has_ended = true;
                inner.ended = Some(result);
            }
        });
    }

    pub(super) async fn started(&self) -> Result<Vec<SocketAddr>, ServeError> {
        let too_soon = || ServeError::System(io::Error::other("the first worker ended too soon"));
        self.0
            .wait(|inner| match (inner.started.take(), inner.ended.take()) {
                (Some(result), _) => Some(result),
                (None, Some(Err(error))) => Some(Err(error)),
                (None, Some(Ok(()))) => Some(Err(too_soon())),
                (None, None) => None,
            })
            .await
    }

    /// How it ended. A second call gives `Ok`.
    pub(super) async fn ended(&self) -> Result<(), ServeError> {
        self.0.wait(|inner| inner.has_ended.then(|| inner.ended.take().unwrap_or(Ok(())))).await
    }
}
