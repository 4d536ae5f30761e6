//! The listening sockets of a process, and when it stops accepting for a while.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use super::bells::{Bell, Bells};
use super::runtime::Runtime;
use fanfare_core::time::{Duration, Instant, Seldom};

/// Connections taken in one turn at most.
const ACCEPTS: usize = 64;
/// Connections taken in one turn when all places are taken.
pub(super) const CROWDED_ACCEPTS: usize = 4;
/// How many connections the kernel holds until they are accepted; it caps this at `net.core.somaxconn`.
const BACKLOG: u32 = 4_096;
/// Descriptors that clients leave free: for the connections to Redis, which may have to be made again at any time, and
/// for the look-up of its name.
const RESERVED: u64 = 16;
/// Descriptors that a worker's runtime opens for itself.
const RESERVED_PER_WORKER: u64 = 8;
/// How long accepting stops when there is no descriptor or memory for another connection.
const REST: Duration = Duration::from_millis(500);

/// Sockets that listen, one for each address of the host's name.
pub(super) struct Acceptor<R: Runtime> {
    listeners: Vec<Listening<R>>,
    bells: Arc<Bells<usize>>,
    /// The most connections that there are descriptors for.
    most: usize,
    /// What is said when there are as many.
    full: &'static str,
    /// Connections accepted although there were as many.
    crowded: u64,
    said_full: Seldom,
    /// How often accepting rested.
    rests: u64,
    /// Out of descriptors until then, or until a connection is closed.
    rests_until: Option<Instant>,
    said_resting: Seldom,
}

struct Listening<R: Runtime> {
    listener: R::Listener,
    bell: Arc<Bell<usize>>,
    /// Rings the bell.
    waker: Waker,
}

impl<R: Runtime> Acceptor<R> {
    /// Listens at `host` (every address of both families if there is none) and `port` (a free one if 0), for so many
    /// workers.
    pub(super) async fn bind(host: Option<&str>, port: u16, workers: usize) -> io::Result<Self> {
        let mut acceptor = Self::idle();
        match host {
            None => acceptor.bind_everywhere(port)?,
            Some(host) => {
                for address in R::resolve(host, port).await? {
                    acceptor.listen(address.ip(), port)?;
                }
            }
        }
        let last = acceptor.listeners.last().ok_or(io::ErrorKind::AddrNotAvailable)?;
        acceptor.most = most_connections(&last.listener, workers as u64)?;
        Ok(acceptor)
    }

    /// Takes over sockets that listen already.
    pub(super) fn adopt(sockets: Vec<OwnedFd>, workers: usize) -> io::Result<Self> {
        let mut acceptor = Self::idle();
        for socket in sockets {
            // The number of an inherited descriptor says nothing; that of a new one tells how many are taken.
            acceptor.most = most_connections(&socket.try_clone()?, workers as u64)?;
            acceptor.add(R::adopt(socket)?);
        }
        Ok(acceptor)
    }

    /// Listens nowhere.
    pub(super) fn idle() -> Self {
        Self {
            listeners: Vec::new(),
            bells: Arc::default(),
            most: 0,
            full: "too many connections for the limit of open files",
            crowded: 0,
            said_full: Seldom::default(),
            rests: 0,
            rests_until: None,
            said_resting: Seldom::default(),
        }
    }

    /// Listens no longer: who connects now is refused at once and goes elsewhere.
    pub(super) fn close(&mut self) {
        self.listeners.clear();
        self.rests_until = None;
    }

    /// Leaves so many connections to others.
    pub(super) fn spare(&mut self, connections: usize) {
        self.most = self.most.saturating_sub(connections).max(1);
    }

    /// The most connections at once; 0 for one that listens nowhere.
    pub(super) const fn most(&self) -> usize {
        self.most
    }

    /// How often accepting rested.
    pub(super) const fn rests(&self) -> u64 {
        self.rests
    }

    /// How many connections were accepted although all places were taken.
    pub(super) const fn crowded(&self) -> u64 {
        self.crowded
    }

    /// Takes no more than so many at once; `full` is said when there are as many.
    pub(super) fn limit(&mut self, connections: usize, full: &'static str) {
        if connections < self.most {
            self.most = connections;
            self.full = full;
        }
    }

    fn bind_everywhere(&mut self, port: u16) -> io::Result<()> {
        let (v6, v4) = (Ipv6Addr::UNSPECIFIED.into(), Ipv4Addr::UNSPECIFIED.into());
        match self.listen(v6, port) {
            // A socket for IPv6 nearly always has IPv4 too, and then the same port is not free a second time.
            Ok(()) => self.listen(v4, port).or_else(|error| if is_taken(&error) { Ok(()) } else { Err(error) }),
            Err(error) if is_taken(&error) => Err(error),
            // A kernel without IPv6.
            Err(_) => self.listen(v4, port),
        }
    }

    fn listen(&mut self, ip: IpAddr, port: u16) -> io::Result<()> {
        // A free port found for the first address is taken for the others too.
        let port = match self.listeners.first() {
            Some(first) => R::local_address(&first.listener)?.port(),
            None => port,
        };
        self.add(R::listen(SocketAddr::new(ip, port), BACKLOG)?);
        Ok(())
    }

    fn add(&mut self, listener: R::Listener) {
        let bell = self.bells.bell(self.listeners.len());
        bell.ring();
        let waker = Waker::from(bell.clone());
        self.listeners.push(Listening { listener, bell, waker });
    }

    pub(super) fn addresses(&self) -> io::Result<Vec<SocketAddr>> {
        self.listeners.iter().map(|listening| R::local_address(&listening.listener)).collect()
    }

    /// Hands over the connections that wait, up to a bound, beside the `held` ones, each with whether it has a place.
    pub(super) fn accept(&mut self, mut held: usize, now: Instant, mut sink: impl FnMut(R::Stream, IpAddr, bool)) {
        if self.rests_until.is_some_and(|until| now < until) {
            return;
        }
        self.rests_until = None;
        let mut crowded = 0;
        for place in self.bells.take() {
            let Some(Listening { listener, bell, waker }) = self.listeners.get_mut(place) else { continue };
            bell.hush();
            let mut context = Context::from_waker(waker);
            for turn in 0.. {
                if turn == ACCEPTS || crowded == CROWDED_ACCEPTS {
                    bell.ring();
                    break;
                }
                match R::poll_accept(listener, &mut context) {
                    Poll::Pending => break,
                    Poll::Ready(Ok((stream, peer))) => {
                        let has_place = held < self.most;
                        held += 1;
                        if !has_place {
                            crowded += 1;
                            self.crowded += 1;
                            if let Some(unsaid) = self.said_full.say(now) {
                                tracing::warn!(event = "full", unsaid, "all places are taken: {}", self.full);
                            }
                        }
                        sink(stream, peer.ip().to_canonical(), has_place);
                    }
                    Poll::Ready(Err(error)) if is_exhausted(&error) => {
                        self.rest(&error.to_string(), now);
                        return;
                    }
                    // The connection that was to be accepted is gone again.
                    Poll::Ready(Err(error)) => {
                        tracing::debug!(event = "accept_failed", "a connection ended before it was accepted: {error}");
                    }
                }
            }
        }
    }

    /// Has `worker` woken by the next listener that has something to do; says no if one already has.
    pub(super) fn sleep(&self, worker: &Waker) -> bool {
        self.rests_until.is_some() || self.bells.sleep(worker)
    }

    /// A connection was closed: there is room again.
    pub(super) fn connection_closed(&mut self, now: Instant) {
        self.rests_until = self.rests_until.map(|until| until.min(now));
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.rests_until
    }

    /// Accepts nothing for a while, and then looks at all listeners.
    fn rest(&mut self, reason: &str, now: Instant) {
        if let Some(unsaid) = self.said_resting.say(now) {
            tracing::warn!(event = "accepting_rests", unsaid, "not accepting until a connection closes: {reason}");
        }
        self.rests += 1;
        self.rests_until = Some(now + REST);
        for listening in &self.listeners {
            // Some may have been taken off the list and not looked at.
            listening.bell.hush();
            listening.bell.ring();
        }
    }
}

/// How many connections the limit of open files allows beside what is open now and what is reserved.
fn most_connections(listener: &impl AsRawFd, workers: u64) -> io::Result<usize> {
    let (limit, _) = rlimit::Resource::NOFILE.get()?;
    // A new descriptor is the lowest that is free: all below it are taken.
    let taken = u64::try_from(listener.as_raw_fd()).unwrap_or(0) + 1;
    let others = taken + RESERVED + RESERVED_PER_WORKER * workers;
    Ok(usize::try_from(limit.saturating_sub(others)).unwrap_or(usize::MAX).max(1))
}

fn is_taken(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrInUse
}

/// No descriptor or memory is left for another connection (EMFILE, ENFILE, ENOBUFS, ENOMEM).
fn is_exhausted(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM))
}
