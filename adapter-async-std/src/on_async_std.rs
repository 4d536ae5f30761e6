//! The sockets and timers of async-std.

use std::future::Future;
use std::io::{self, IoSlice};
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use async_std::io::Read;
use async_std::net::{TcpListener, TcpStream, ToSocketAddrs};
use async_std::task;
use fanfare_core::time::Duration;
use fanfare_drive::Stream;

use crate::kind::{Kind, poll_write};

/// async-std.
#[derive(Clone, Copy, Debug, Default)]
pub struct AsyncStd;

/// A connection on async-std.
#[derive(Debug)]
pub struct AsyncStdConnection {
    stream: TcpStream,
    /// What was read to learn whether there is anything to read: there is no other way to ask.
    ahead: Option<io::Result<u8>>,
}

impl Kind for AsyncStd {
    type Stream = AsyncStdConnection;
    type Listener = TcpListener;

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        task::block_on(future)
    }

    fn spawn_task(work: impl Future<Output = ()> + Send + 'static) {
        task::spawn(work);
    }

    fn sleep(time: Duration) -> impl Future<Output = ()> + Send + 'static {
        task::sleep(time)
    }

    async fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        Ok((host, port).to_socket_addrs().await?.collect())
    }

    fn listener(listener: std::net::TcpListener) -> io::Result<TcpListener> {
        Ok(listener.into())
    }

    async fn accept(listener: &TcpListener) -> io::Result<(AsyncStdConnection, SocketAddr)> {
        let (stream, peer) = listener.accept().await?;
        // Fails only if the peer is gone already, which the first read says.
        let _ = stream.set_nodelay(true);
        Ok((AsyncStdConnection { stream, ahead: None }, peer))
    }

    async fn connect(address: SocketAddr) -> io::Result<AsyncStdConnection> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(AsyncStdConnection { stream, ahead: None })
    }
}

impl Stream for AsyncStdConnection {
    fn poll_read(&mut self, context: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let Some(first) = self.ahead.take() else {
            return Pin::new(&mut self.stream).poll_read(context, buffer);
        };
        buffer[0] = first?;
        match Pin::new(&mut self.stream).poll_read(context, &mut buffer[1..]) {
            Poll::Pending => Poll::Ready(Ok(1)),
            Poll::Ready(Ok(read)) => Poll::Ready(Ok(1 + read)),
            Poll::Ready(Err(error)) => {
                self.ahead = Some(Err(error));
                Poll::Ready(Ok(1))
            }
        }
    }

    fn poll_readable(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.ahead.is_none() {
            let mut first = [0];
            self.ahead = match ready!(Pin::new(&mut self.stream).poll_read(context, &mut first)) {
                // The end is there for the next read too.
                Ok(0) => None,
                Ok(_) => Some(Ok(first[0])),
                Err(error) => Some(Err(error)),
            };
        }
        Poll::Ready(())
    }

    fn poll_write(&mut self, context: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        poll_write(&mut self.stream, context, slices)
    }

    fn socket(&self) -> Option<BorrowedFd<'_>> {
        Some(self.stream.as_fd())
    }

    fn end_writes(&mut self, _context: &mut Context<'_>) {
        // Fails only if the peer is gone, which the next read says.
        let _ = self.stream.shutdown(Shutdown::Write);
    }
}
