//! Connections on tokio: sockets, and other streams that read and write.

use std::fmt;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use fanfare_drive::Stream;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// A connection on tokio: [from](From) a [`TcpStream`], which is fastest, or [over](Connection::over) anything else.
pub struct Connection(Kind);

/// A write to a closed connection is an error and no signal.
#[cfg(not(target_vendor = "apple"))]
const FLAGS: SendFlags = SendFlags::NOSIGNAL;
/// Apple's systems have an option of the socket for that, which the runtime sets.
#[cfg(target_vendor = "apple")]
const FLAGS: SendFlags = SendFlags::empty();

enum Kind {
    Tcp(TcpStream),
    Other(Box<Other<dyn Duplex>>),
}

/// Anything that reads and writes.
trait Duplex: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Duplex for T {}

struct Other<T: ?Sized> {
    /// What was read to learn whether there is anything to read, `None` at the end: there is no other way to ask.
    ahead: Option<io::Result<Option<u8>>>,
    behind: Behind,
    io: T,
}

/// The requested operations of a connection that are not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Behind {
    Nothing,
    Flush,
    Shutdown,
}

impl Connection {
    /// A connection over anything that reads and writes, such as TLS or a pipe. It is flushed after every write.
    pub fn over(io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Self {
        Self(Kind::Other(Box::new(Other { ahead: None, behind: Behind::Nothing, io })))
    }

    pub(crate) fn into_std(self) -> io::Result<std::net::TcpStream> {
        match self.0 {
            Kind::Tcp(stream) => stream.into_std(),
            Kind::Other(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }
}

impl From<TcpStream> for Connection {
    /// What is written is sent at once.
    fn from(stream: TcpStream) -> Self {
        // Fails only if the peer is gone already, which the first read says.
        let _ = stream.set_nodelay(true);
        Self(Kind::Tcp(stream))
    }
}

impl Stream for Connection {
    fn poll_read(&mut self, context: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        match &mut self.0 {
            Kind::Tcp(stream) => poll_read(stream, context, buffer),
            Kind::Other(other) => other.poll_read(context, buffer),
        }
    }

    fn poll_read_now(&mut self, context: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let stream = match &mut self.0 {
            Kind::Tcp(stream) => stream,
            // What is below it cannot be asked.
            Kind::Other(other) => return other.poll_read(context, buffer),
        };
        match recv(&*stream, buffer, RecvFlags::DONTWAIT) {
            Err(Errno::WOULDBLOCK | Errno::INTR) => Poll::Pending,
            result => Poll::Ready(result.map(|(read, _)| read).map_err(io::Error::from)),
        }
    }

    fn poll_readable(&mut self, context: &mut Context<'_>) -> Poll<()> {
        match &mut self.0 {
            Kind::Tcp(stream) => stream.poll_read_ready(context).map(drop),
            Kind::Other(other) => other.poll_readable(context),
        }
    }

    fn poll_write(&mut self, context: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let stream = match &mut self.0 {
            Kind::Tcp(stream) => stream,
            Kind::Other(other) => return other.poll_write(context, slices),
        };
        // Most writes are of one slice and find room: the runtime's own state of this socket, which lies in memory of
        // its own, is then not worth a look. An error is left for the runtime to meet, which has to know of a full
        // buffer.
        if let [one] = slices
            && let Ok(written) = send(&*stream, one, FLAGS)
        {
            return Poll::Ready(Ok(written));
        }
        loop {
            let result = match slices {
                [one] => stream.try_write(one),
                more => stream.try_write_vectored(more),
            };
            match result {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready!(stream.poll_write_ready(context))?,
                other => return Poll::Ready(other),
            }
        }
    }

    fn end_writes(&mut self, context: &mut Context<'_>) {
        match &mut self.0 {
            // It is ready at once, and fails only if the peer is gone, which the next read says.
            Kind::Tcp(stream) => drop(Pin::new(stream).poll_shutdown(context)),
            Kind::Other(other) => {
                other.behind = Behind::Shutdown;
                other.advance(context);
            }
        }
    }

    fn socket(&self) -> Option<BorrowedFd<'_>> {
        match &self.0 {
            Kind::Tcp(stream) => Some(stream.as_fd()),
            Kind::Other(_) => None,
        }
    }

    fn advance(&mut self, context: &mut Context<'_>) {
        if let Kind::Other(other) = &mut self.0 {
            other.advance(context);
        }
    }
}

impl Other<dyn Duplex> {
    fn poll_read(&mut self, context: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        match self.ahead.take().transpose()? {
            None => poll_read(&mut self.io, context, buffer),
            Some(None) => Poll::Ready(Ok(0)),
            Some(Some(byte)) => {
                let Some((first, rest)) = buffer.split_first_mut() else { return Poll::Ready(Ok(0)) };
                *first = byte;
                Poll::Ready(Ok(match poll_read(&mut self.io, context, rest) {
                    Poll::Pending => 1,
                    Poll::Ready(Ok(0)) if !rest.is_empty() => {
                        self.ahead = Some(Ok(None));
                        1
                    }
                    Poll::Ready(Ok(more)) => 1 + more,
                    Poll::Ready(Err(error)) => {
                        self.ahead = Some(Err(error));
                        1
                    }
                }))
            }
        }
    }

    fn poll_readable(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.ahead.is_none() {
            let mut byte = [0];
            let read = ready!(poll_read(&mut self.io, context, &mut byte));
            self.ahead = Some(read.map(|read| byte[..read].first().copied()));
        }
        Poll::Ready(())
    }

    fn poll_write(&mut self, context: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        // What was taken before leaves first, or something that buffers would take without end.
        ready!(self.poll_behind(context))?;
        let written = ready!(Pin::new(&mut self.io).poll_write_vectored(context, slices))?;
        self.behind = Behind::Flush;
        self.advance(context);
        Poll::Ready(Ok(written))
    }

    /// An error is left for the next read or write to say.
    fn advance(&mut self, context: &mut Context<'_>) {
        let _ = self.poll_behind(context);
    }

    fn poll_behind(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let io = Pin::new(&mut self.io);
        let result = ready!(match self.behind {
            Behind::Nothing => return Poll::Ready(Ok(())),
            Behind::Flush => io.poll_flush(context),
            Behind::Shutdown => io.poll_shutdown(context),
        });
        self.behind = Behind::Nothing;
        Poll::Ready(result)
    }
}

fn poll_read(
    io: &mut (impl AsyncRead + Unpin + ?Sized),
    context: &mut Context<'_>,
    buffer: &mut [u8],
) -> Poll<io::Result<usize>> {
    let mut buffer = ReadBuf::new(buffer);
    ready!(Pin::new(io).poll_read(context, &mut buffer))?;
    Poll::Ready(Ok(buffer.filled().len()))
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Tcp(stream) => f.debug_tuple("Tcp").field(stream).finish(),
            Kind::Other(other) => f.debug_struct("Other").field("behind", &other.behind).finish_non_exhaustive(),
        }
    }
}
