//! Where a server listens: at addresses of its own choice, or on sockets that listened before it started.

use std::os::fd::OwnedFd;

use super::acceptor::{Acceptor, CROWDED_ACCEPTS};
use super::admin::Admin;
use super::runtime::Runtime;
use super::server::ServeError;
use crate::config::Config;
use crate::config::memory::{ADMIN_CONNECTIONS, CROWDED_CONNECTIONS};

/// The most clients if nobody says how many.
const MOST_UNASKED: usize = 1 << 20;

/// Listening TCP sockets that somebody else made: used instead of binding an address. Whoever keeps them open over the
/// end of one server and the start of the next loses no connection in between.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Listeners {
    /// For clients, instead of [`Config::host`] and [`Config::port`].
    pub clients: Vec<OwnedFd>,
    /// For operation, instead of [`Config::admin_listen`].
    pub admin: Vec<OwnedFd>,
}

impl Listeners {
    /// Those that this process was started with, as a service manager hands them over
    /// ([`sd_listen_fds(3)`](https://www.freedesktop.org/software/systemd/man/latest/sd_listen_fds.html)): the
    /// descriptors from 3 on, as many as `LISTEN_FDS` says, if `LISTEN_PID` is this process or not set. One that
    /// `names`, the value of `LISTEN_FDNAMES`, calls `admin` is for operation. To be called before there are other
    /// threads, and once: it takes the first two variables out of the environment.
    ///
    /// # Errors
    /// A descriptor that is not a TCP socket that listens. The text says which.
    #[cfg(feature = "cli")]
    pub fn from_env(names: &str) -> std::io::Result<Self> {
        let mut handed = listenfd::ListenFd::from_env();
        let mut names = names.split(':');
        let mut listeners = Self::default();
        for place in 0..handed.len() {
            let found = handed.take_tcp_listener(place).ok().flatten().map(OwnedFd::from);
            // What takes part in a connection is a TCP socket, too.
            let Some(socket) = found.filter(|socket| listens(&socket2::SockRef::from(socket))) else {
                return Err(std::io::Error::other(format!("fd {} is not a TCP socket that listens", 3 + place)));
            };
            if names.next() == Some("admin") {
                listeners.admin.push(socket);
            } else {
                listeners.clients.push(socket);
            }
        }
        Ok(listeners)
    }

    /// Listens for clients and, if that is wanted, for operation.
    pub(super) async fn open<R: Runtime>(
        self,
        config: &Config,
        workers: usize,
    ) -> Result<(Acceptor<R>, Option<Admin<R>>), ServeError> {
        let admin = match &config.admin_listen {
            _ if !self.admin.is_empty() => {
                warn_unused(config.admin_listen.is_some(), "--admin-listen");
                Some(Acceptor::adopt(self.admin, workers).map_err(ServeError::Listener)?)
            }
            Some(address) => Some(bind(address.host.as_deref(), address.port, "--admin-listen", workers).await?),
            None => None,
        };
        let mut acceptor = if self.clients.is_empty() {
            bind(config.host.as_deref(), config.port, "--port", workers).await?
        } else {
            warn_unused(config.host.is_some() || config.port != Config::default().port, "--host and --port");
            Acceptor::adopt(self.clients, workers).map_err(ServeError::Listener)?
        };
        // Those that came in one turn are held until its end.
        acceptor.spare(CROWDED_CONNECTIONS + CROWDED_ACCEPTS + if admin.is_some() { ADMIN_CONNECTIONS } else { 0 });
        match config.max_connections {
            Some(most) => acceptor.limit(most.get(), "as many clients as max_connections allows are here"),
            // Some systems have a limit of open files of a billion, which says nothing of memory.
            None => acceptor.limit(MOST_UNASKED, "as many clients as there may be without --max-connections are here"),
        }
        let admin = admin.map(|acceptor| Admin::new(acceptor, workers)).transpose().map_err(ServeError::System)?;
        Ok((acceptor, admin))
    }
}

#[cfg(all(feature = "cli", not(target_vendor = "apple")))]
fn listens(socket: &socket2::Socket) -> bool {
    socket.is_listener().unwrap_or(false)
}

/// Apple's systems do not tell; a socket without a peer is the most that can be asked for.
#[cfg(all(feature = "cli", target_vendor = "apple"))]
fn listens(socket: &socket2::Socket) -> bool {
    socket.peer_addr().is_err()
}

fn warn_unused(is_given: bool, options: &str) {
    if is_given {
        tracing::warn!(event = "option_unused", "a listening socket was handed over: {options} not used");
    }
}

async fn bind<R: Runtime>(
    host: Option<&str>,
    port: u16,
    option: &'static str,
    workers: usize,
) -> Result<Acceptor<R>, ServeError> {
    Acceptor::bind(host, port, workers).await.map_err(|error| {
        let host = host.map(|host| format!(" of {host}")).unwrap_or_default();
        ServeError::Bind { address: format!("port {port}{host}"), option, error }
    })
}
