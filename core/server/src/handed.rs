//! Listening sockets that a service manager hands over.

use std::io;
use std::os::fd::OwnedFd;

use fanfare_drive::Listeners;

/// Those that this process was started with, as a service manager hands them over
/// ([`sd_listen_fds(3)`](https://www.freedesktop.org/software/systemd/man/latest/sd_listen_fds.html)): the
/// descriptors from 3 on, as many as `LISTEN_FDS` says, if `LISTEN_PID` is this process or not set. One that
/// `names`, the value of `LISTEN_FDNAMES`, calls `admin` is the admin address. Call it once, before there are other
/// threads: it removes the first two variables from the environment.
///
/// # Errors
/// A descriptor that is not a TCP socket that listens. The text says which.
pub(crate) fn listeners(names: &str) -> io::Result<Listeners> {
    let mut handed = listenfd::ListenFd::from_env();
    let mut names = names.split(':');
    let mut listeners = Listeners::default();
    for place in 0..handed.len() {
        let found = handed.take_tcp_listener(place).ok().flatten().map(OwnedFd::from);
        // What takes part in a connection is a TCP socket, too.
        let Some(socket) = found.filter(|socket| listens(&socket2::SockRef::from(socket))) else {
            return Err(io::Error::other(format!("fd {} is not a TCP socket that listens", 3 + place)));
        };
        if names.next() == Some("admin") {
            listeners.admin.push(socket);
        } else {
            listeners.clients.push(socket);
        }
    }
    Ok(listeners)
}

#[cfg(not(target_vendor = "apple"))]
fn listens(socket: &socket2::Socket) -> bool {
    socket.is_listener().unwrap_or(false)
}

/// Apple's systems do not tell; a socket without a peer is the most that can be asked for.
#[cfg(target_vendor = "apple")]
fn listens(socket: &socket2::Socket) -> bool {
    socket.peer_addr().is_err()
}
