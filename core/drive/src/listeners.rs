//! The sockets that a server listens on: its own, or those that it was handed.

use std::os::fd::OwnedFd;

use super::acceptor::{Acceptor, CROWDED_ACCEPTS};
use super::address::ListenAddress;
use super::admin::Admin;
use super::error::ServeError;
use super::runtime::Runtime;
use super::setup::Setup;
use fanfare_core::memory::{ADMIN_CONNECTIONS, CROWDED_CONNECTIONS};

/// The default for the most clients.
const MOST_UNASKED: usize = 1 << 20;

/// Listening TCP sockets that another process or program has made, used instead of binding an address. If they stay
/// open from the end of one server to the start of the next, no connection is refused in between.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Listeners {
    /// For clients, instead of [`Setup::listen`].
    pub clients: Vec<OwnedFd>,
    /// For the admin address, instead of [`Setup::admin_listen`].
    pub admin: Vec<OwnedFd>,
}

impl Listeners {
    /// Listens for clients and, if configured, on the admin address.
    pub(super) async fn open<R: Runtime>(
        self,
        setup: &Setup,
        workers: usize,
    ) -> Result<(Acceptor<R>, Option<Admin<R>>), ServeError> {
        let admin = match &setup.admin_listen {
            _ if !self.admin.is_empty() => {
                warn_unused(setup.admin_listen.is_some(), "--admin-listen");
                Some(Acceptor::adopt(self.admin, workers).map_err(ServeError::Listener)?)
            }
            Some(address) => Some(bind(address, "--admin-listen", workers).await?),
            None => None,
        };
        let mut acceptor = if self.clients.is_empty() {
            bind(&setup.listen, "--port", workers).await?
        } else {
            warn_unused(setup.listen != ListenAddress::default(), "--host and --port");
            Acceptor::adopt(self.clients, workers).map_err(ServeError::Listener)?
        };
        // Those that came in one turn are held until its end.
        acceptor.spare(
            CROWDED_CONNECTIONS * workers + CROWDED_ACCEPTS + if admin.is_some() { ADMIN_CONNECTIONS } else { 0 },
        );
        match setup.max_connections {
            Some(most) => acceptor.limit(most.get(), "as many clients as max_connections allows are here"),
            // Some systems have a limit of open files of a billion, which says nothing of memory.
            None => acceptor.limit(MOST_UNASKED, "as many clients as there may be without --max-connections are here"),
        }
        let admin = admin
            .map(|acceptor| Admin::new(acceptor, workers, setup.metrics))
            .transpose()
            .map_err(ServeError::System)?;
        Ok((acceptor, admin))
    }
}

fn warn_unused(is_given: bool, options: &str) {
    if is_given {
        tracing::warn!(event = "option_unused", "a listening socket was handed over: {options} not used");
    }
}

async fn bind<R: Runtime>(at: &ListenAddress, option: &'static str, workers: usize) -> Result<Acceptor<R>, ServeError> {
    let port = at.port;
    Acceptor::bind(at.host.as_deref(), port, workers).await.map_err(|error| {
        let host = at.host.as_deref().map(|host| format!(" of {host}")).unwrap_or_default();
        ServeError::Bind { address: format!("port {port}{host}"), option, error }
    })
}
