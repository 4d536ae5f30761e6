//! The sockets and timers of smol.

use std::future::Future;
use std::io::{self, IoSlice, Read};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::task::{Context, Poll, ready};

use fanfare_core::time::Duration;
use fanfare_drive::Stream;
use smol::{Async, Timer};

use crate::kind::{Kind, poll_write};

/// smol.
#[derive(Clone, Copy, Debug, Default)]
pub struct Smol;

/// A connection on smol.
#[derive(Debug)]
pub struct SmolConnection(Async<TcpStream>);

impl Kind for Smol {
    type Stream = SmolConnection;
    type Listener = Async<TcpListener>;

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        smol::block_on(future)
    }

    fn spawn_task(work: impl Future<Output = ()> + Send + 'static) {
        smol::spawn(work).detach();
    }

    async fn sleep(time: Duration) {
        Timer::after(time).await;
    }

    async fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        smol::net::resolve((host, port)).await
    }

    fn listener(listener: TcpListener) -> io::Result<Async<TcpListener>> {
        Async::new(listener)
    }

    async fn accept(listener: &Async<TcpListener>) -> io::Result<(SmolConnection, SocketAddr)> {
        let (stream, peer) = listener.accept().await?;
        // Fails only if the peer is gone already, which the first read says.
        let _ = stream.get_ref().set_nodelay(true);
        Ok((SmolConnection(stream), peer))
    }

    async fn connect(address: SocketAddr) -> io::Result<SmolConnection> {
        let stream = Async::<TcpStream>::connect(address).await?;
        stream.get_ref().set_nodelay(true)?;
        Ok(SmolConnection(stream))
    }
}

impl Stream for SmolConnection {
    fn poll_read(&mut self, context: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        loop {
            // Asked first, an event is used up, and asking again after the read waits for the next one.
            ready!(self.0.poll_readable(context))?;
            match self.0.get_ref().read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                other => return Poll::Ready(other),
            }
        }
    }

    fn poll_read_now(&mut self, _context: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        match self.0.get_ref().read(buffer) {
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                Poll::Pending
            }
            other => Poll::Ready(other),
        }
    }

    fn poll_readable(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.0.poll_readable(context).map(drop)
    }

    fn poll_write(&mut self, context: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        poll_write(&mut self.0, context, slices)
    }

    fn socket(&self) -> Option<BorrowedFd<'_>> {
        Some(self.0.as_fd())
    }

    fn end_writes(&mut self, _context: &mut Context<'_>) {
        // Fails only if the peer is gone, which the next read says.
        let _ = self.0.get_ref().shutdown(Shutdown::Write);
    }
}
