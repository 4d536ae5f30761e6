//! The one listener of a process.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::task::{Context, Poll};

use fanfare_core::time::{Duration, Instant, Seldom};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};

/// Connections taken in one turn at most.
const ACCEPTS: usize = 64;
/// How many connections the kernel holds until they are accepted; it caps this at `net.core.somaxconn`.
const BACKLOG: i32 = 4_096;
/// Descriptors that clients leave to others: the connections to Redis, which may have to be made anew at any time, and
/// the look-up of its name.
const RESERVED: u64 = 16;
/// How long accepting rests when there is no descriptor or memory for another connection.
const REST: Duration = Duration::from_millis(500);

/// Sockets that listen, one for each address of the host's name.
pub(crate) struct Listener {
    sockets: Vec<TcpListener>,
    /// The most connections that there are descriptors for.
    most: usize,
    /// Out of descriptors until then, or until a connection is closed.
    rests_until: Option<Instant>,
    said_resting: Seldom,
}

/// Binds `host` (every address of both families if there is none) at `port` (a free one if 0).
pub(crate) async fn bind(host: Option<&str>, port: u16) -> io::Result<Vec<std::net::TcpListener>> {
    let Some(host) = host else {
        let dual = bind_address(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)));
        // A kernel without IPv6 has no dual-stack sockets.
        let socket = match dual {
            Err(error) if error.kind() != io::ErrorKind::AddrInUse => {
                bind_address(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)))?
            }
            other => other?,
        };
        return Ok(vec![socket]);
    };
    let mut sockets: Vec<std::net::TcpListener> = Vec::new();
    for address in tokio::net::lookup_host((host, port)).await? {
        // A free port found for the first address is taken for the others too.
        let port = sockets.first().map_or(Ok(port), |first| first.local_addr().map(|address| address.port()))?;
        sockets.push(bind_address(SocketAddr::new(address.ip(), port))?);
    }
    if sockets.is_empty() { Err(io::Error::from(io::ErrorKind::AddrNotAvailable)) } else { Ok(sockets) }
}

fn bind_address(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    // Without it, a restart would wait for the old connections' TIME_WAIT; a port in use stays an error.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

impl Listener {
    /// Takes over sockets that listen already. Must be called inside the runtime that is to drive them, when the
    /// process has all descriptors but those of connections.
    pub(crate) fn new(sockets: Vec<std::net::TcpListener>) -> io::Result<Self> {
        let most = match sockets.first() {
            Some(socket) => most_connections(socket)?,
            None => 0,
        };
        let sockets = sockets.into_iter().map(TcpListener::from_std).collect::<io::Result<_>>()?;
        Ok(Self { sockets, most, rests_until: None, said_resting: Seldom::default() })
    }

    /// Listens no longer: who connects now is refused at once and goes elsewhere.
    pub(crate) fn close(&mut self) {
        self.sockets.clear();
        self.rests_until = None;
    }

    /// Hands over the connections that wait, up to a bound, beside the `held` ones. Says whether more may wait.
    pub(crate) fn accept(
        &mut self,
        mut held: usize,
        now: Instant,
        context: &mut Context<'_>,
        mut sink: impl FnMut(TcpStream, IpAddr),
    ) -> bool {
        if self.rests_until.is_some_and(|until| now < until) {
            return false;
        }
        self.rests_until = None;
        for socket in &self.sockets {
            for turn in 0.. {
                if turn == ACCEPTS {
                    return true;
                }
                if held >= self.most {
                    return self.rest("too many connections for the limit of open files", now);
                }
                match socket.poll_accept(context) {
                    Poll::Pending => break,
                    Poll::Ready(Ok((stream, peer))) => {
                        held += 1;
                        // Fails only if the peer is gone already, which its first read says.
                        let _ = stream.set_nodelay(true);
                        sink(stream, peer.ip().to_canonical());
                    }
                    Poll::Ready(Err(error)) if is_exhausted(&error) => return self.rest(&error.to_string(), now),
                    // The connection that was to be accepted is gone again.
                    Poll::Ready(Err(error)) => tracing::debug!("a connection ended before it was accepted: {error}"),
                }
            }
        }
        false
    }

    /// A connection was closed: there is room again.
    pub(crate) fn connection_closed(&mut self, now: Instant) {
        self.rests_until = self.rests_until.map(|until| until.min(now));
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.rests_until
    }

    /// Accepts nothing for a while.
    fn rest(&mut self, reason: &str, now: Instant) -> bool {
        if let Some(unsaid) = self.said_resting.say(now) {
            tracing::warn!(unsaid, "accepting rests until a connection is closed: {reason}");
        }
        self.rests_until = Some(now + REST);
        false
    }
}

/// How many connections the limit of open files allows beside what is open now and what is reserved.
fn most_connections(socket: &std::net::TcpListener) -> io::Result<usize> {
    let (limit, _) = rlimit::Resource::NOFILE.get()?;
    // A new descriptor is the lowest that is free: all below it are taken.
    let taken = u64::try_from(socket.try_clone()?.as_raw_fd()).unwrap_or(0);
    Ok(usize::try_from(limit.saturating_sub(taken + RESERVED)).unwrap_or(usize::MAX).max(1))
}

/// No descriptor or memory is left for another connection (EMFILE, ENFILE, ENOBUFS, ENOMEM).
fn is_exhausted(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(24 | 23 | 105 | 12))
}
