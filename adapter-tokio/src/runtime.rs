//! The driver's runtime on tokio.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::num::NonZero;
use std::os::fd::OwnedFd;
use std::task::{Context, Poll, ready};
use std::thread;
use std::time::SystemTime;

use fanfare_core::time::{Duration, Instant};
use fanfare_drive::{Runtime, Signal};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task;

use crate::Connection;

/// tokio, with the start of the server as its epoch.
#[derive(Clone, Copy, Debug)]
pub struct Tokio {
    epoch: tokio::time::Instant,
}

impl Default for Tokio {
    fn default() -> Self {
        Self { epoch: tokio::time::Instant::now() }
    }
}

impl Runtime for Tokio {
    type Stream = Connection;
    type Listener = TcpListener;
    type Parcel = std::net::TcpStream;

    fn now(&self) -> Instant {
        Instant::ZERO + self.epoch.elapsed()
    }

    fn wall_clock() -> Duration {
        // A clock that stands before 1970 has not been set.
        SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default()
    }

    fn sleep_until(&self, at: Instant) -> impl Future<Output = ()> + Send + 'static {
        // tokio's timers fire at full milliseconds.
        tokio::time::sleep_until(self.epoch + Duration::from_millis(at.as_micros().div_ceil(1_000)))
    }

    fn yield_now() -> impl Future<Output = ()> + Send {
        task::yield_now()
    }

    fn spawn(name: String, worker: impl Future<Output = ()> + Send + 'static) -> io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        // A task of its own wakes for less than the root of the runtime.
        let work = async { spawn_worker(worker).await };
        thread::Builder::new().name(name).spawn(move || runtime.block_on(work))?;
        Ok(())
    }

    fn spawn_task(work: impl Future<Output = ()> + Send + 'static) {
        drop(spawn_worker(work));
    }

    fn cores() -> io::Result<NonZero<usize>> {
        thread::available_parallelism()
    }

    fn seed() -> io::Result<u64> {
        getrandom::u64().map_err(io::Error::other)
    }

    fn signals() -> io::Result<impl FnMut(&mut Context<'_>) -> Poll<Signal> + Send> {
        let caught = Signal::ALL.into_iter().map(|one| Ok((signal(kind(one))?, one)));
        let mut caught = caught.collect::<io::Result<Vec<_>>>()?;
        Ok(move |context: &mut Context<'_>| {
            let came = caught.iter_mut().find_map(|(one, name)| one.poll_recv(context).is_ready().then_some(*name));
            came.map_or(Poll::Pending, Poll::Ready)
        })
    }

    async fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        Ok(tokio::net::lookup_host((host, port)).await?.collect())
    }

    fn listen(address: SocketAddr, backlog: u32) -> io::Result<TcpListener> {
        let socket = if address.is_ipv6() { TcpSocket::new_v6() } else { TcpSocket::new_v4() }?;
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(backlog)
    }

    fn adopt(socket: OwnedFd) -> io::Result<TcpListener> {
        let listener = std::net::TcpListener::from(socket);
        listener.set_nonblocking(true)?;
        TcpListener::from_std(listener)
    }

    fn local_address(listener: &TcpListener) -> io::Result<SocketAddr> {
        listener.local_addr()
    }

    fn poll_accept(
        listener: &mut TcpListener,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<(Connection, SocketAddr)>> {
        let (stream, peer) = ready!(listener.poll_accept(context))?;
        Poll::Ready(Ok((stream.into(), peer)))
    }

    async fn connect(address: SocketAddr) -> io::Result<Connection> {
        Ok(TcpStream::connect(address).await?.into())
    }

    fn detach(stream: Connection) -> io::Result<std::net::TcpStream> {
        stream.into_std()
    }

    fn attach(parcel: std::net::TcpStream) -> io::Result<Connection> {
        TcpStream::from_std(parcel).map(Connection::from)
    }
}

const fn kind(signal: Signal) -> SignalKind {
    match signal {
        Signal::Interrupt => SignalKind::interrupt(),
        Signal::Terminate => SignalKind::terminate(),
        Signal::Quit => SignalKind::quit(),
        Signal::Hangup => SignalKind::hangup(),
        Signal::User1 => SignalKind::user_defined1(),
        Signal::User2 => SignalKind::user_defined2(),
        Signal::Alarm => SignalKind::alarm(),
    }
}

/// A worker polls many sockets in one go, so the runtime's budget for one task is not for it.
fn spawn_worker(worker: impl Future<Output = ()> + Send + 'static) -> task::JoinHandle<()> {
    task::spawn(task::unconstrained(worker))
}
