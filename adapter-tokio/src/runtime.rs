//! What the core asks of a runtime, by tokio.

use std::future::Future;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::num::NonZero;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::thread;

use fanfare_core::drive::{Runtime, Signal, Stream};
use fanfare_core::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task;

/// tokio, with the start of the server as its epoch.
#[derive(Clone, Copy, Debug)]
pub struct Tokio {
    epoch: tokio::time::Instant,
}

/// A connection on tokio.
#[derive(Debug)]
pub struct Connection(TcpStream);

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

    fn sleep_until(&self, at: Instant) -> impl Future<Output = ()> + Send + 'static {
        // tokio's timers fire at full milliseconds.
        tokio::time::sleep_until(self.epoch + Duration::from_millis(at.as_micros().div_ceil(1_000)))
    }

    fn yield_now() -> impl Future<Output = ()> + Send {
        task::yield_now()
    }

    fn spawn(name: String, worker: impl Future<Output = ()> + Send + 'static) -> io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        // A task of its own wakes for less than the root of the runtime. It polls many sockets in one go, so the
        // runtime's budget for one task is not for it.
        let work = async { task::spawn(task::unconstrained(worker)).await };
        thread::Builder::new().name(name).spawn(move || runtime.block_on(work))?;
        Ok(())
    }

    fn cores() -> io::Result<NonZero<usize>> {
        thread::available_parallelism()
    }

    fn seed() -> io::Result<u64> {
        getrandom::u64().map_err(io::Error::other)
    }

    fn signals() -> io::Result<impl FnMut(&mut Context<'_>) -> Poll<Signal> + Send> {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        Ok(move |context: &mut Context<'_>| {
            if interrupt.poll_recv(context).is_ready() {
                return Poll::Ready(Signal::Interrupt);
            }
            terminate.poll_recv(context).map(|_| Signal::Terminate)
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

    fn local_address(listener: &TcpListener) -> io::Result<SocketAddr> {
        listener.local_addr()
    }

    fn poll_accept(
        listener: &mut TcpListener,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<(Connection, SocketAddr)>> {
        let (stream, peer) = ready!(listener.poll_accept(context))?;
        // Fails only if the peer is gone already, which the first read says.
        let _ = stream.set_nodelay(true);
        Poll::Ready(Ok((Connection(stream), peer)))
    }

    async fn connect(host: String, port: u16) -> io::Result<Connection> {
        let stream = TcpStream::connect((host, port)).await?;
        stream.set_nodelay(true)?;
        Ok(Connection(stream))
    }

    fn detach(stream: Connection) -> io::Result<std::net::TcpStream> {
        stream.0.into_std()
    }

    fn attach(parcel: std::net::TcpStream) -> io::Result<Connection> {
        TcpStream::from_std(parcel).map(Connection)
    }
}

impl Stream for Connection {
    fn poll_read(&mut self, context: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut buffer = ReadBuf::new(buffer);
        ready!(Pin::new(&mut self.0).poll_read(context, &mut buffer))?;
        Poll::Ready(Ok(buffer.filled().len()))
    }

    fn poll_readable(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.0.poll_read_ready(context).map(drop)
    }

    fn poll_write(&mut self, context: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        loop {
            let result = match slices {
                [one] => self.0.try_write(one),
                more => self.0.try_write_vectored(more),
            };
            match result {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready!(self.0.poll_write_ready(context))?,
                other => return Poll::Ready(other),
            }
        }
    }

    fn end_writes(&mut self) {
        // It is ready at once, and fails only if the peer is gone, which the next read says.
        let _ = Pin::new(&mut self.0).poll_shutdown(&mut Context::from_waker(std::task::Waker::noop()));
    }
}
