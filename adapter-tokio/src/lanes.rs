//! The sockets of the bus.

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use fanfare_core::bus::Bus;
use fanfare_core::redis::{Action, Lane, RedisUrl};
use fanfare_core::time::Instant;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::TcpStream;

type Dial = Pin<Box<dyn Future<Output = io::Result<TcpStream>> + Send>>;

/// Both connections to Redis, if the bus has any.
pub(crate) struct Lanes {
    server: Option<(String, u16)>,
    sockets: [Socket; 2],
}

enum Socket {
    None,
    Dialing(Dial),
    Open { stream: TcpStream, blocked: bool },
}

const LANES: [Lane; 2] = [Lane::Subscriber, Lane::Publisher];

impl Lanes {
    pub(crate) fn new(redis: Option<&RedisUrl>) -> Self {
        let server = redis.map(|url| (url.host().to_owned(), url.port()));
        Self { server, sockets: [Socket::None, Socket::None] }
    }

    /// Does what the bus asks for, and reads each connection once. Says whether there is more to read at once.
    pub(crate) fn read(&mut self, bus: &mut Bus, scratch: &mut [u8], now: Instant, context: &mut Context<'_>) -> bool {
        self.act(bus);
        let mut more = false;
        for (socket, lane) in self.sockets.iter_mut().zip(LANES) {
            socket.finish_dial(lane, bus, now, context);
            more |= socket.read(lane, bus, scratch, now, context);
        }
        more
    }

    /// Writes what the bus has for its connections, as far as they take it. Says whether one is to be read at once.
    pub(crate) fn write(&mut self, bus: &mut Bus, now: Instant, context: &mut Context<'_>) -> bool {
        self.act(bus);
        let mut connected = false;
        for (socket, lane) in self.sockets.iter_mut().zip(LANES) {
            // A dial that begins in this turn is woken for only once it was polled.
            connected |= socket.finish_dial(lane, bus, now, context);
        }
        while let Some(lane) = bus.poll_transmit() {
            self.sockets[place(lane)].write(lane, bus, now, context);
        }
        connected
    }

    fn act(&mut self, bus: &mut Bus) {
        while let Some(action) = bus.poll_action() {
            match action {
                Action::HangUp(lane) => self.sockets[place(lane)] = Socket::None,
                Action::Dial(lane) => {
                    let Some(server) = self.server.clone() else { continue };
                    self.sockets[place(lane)] = Socket::Dialing(Box::pin(async move {
                        let stream = TcpStream::connect((server.0.as_str(), server.1)).await?;
                        stream.set_nodelay(true)?;
                        Ok(stream)
                    }));
                }
            }
        }
    }
}

impl Socket {
    /// Says whether the connection stands since now.
    fn finish_dial(&mut self, lane: Lane, bus: &mut Bus, now: Instant, context: &mut Context<'_>) -> bool {
        let Self::Dialing(dial) = self else { return false };
        let Poll::Ready(result) = dial.as_mut().poll(context) else { return false };
        match result {
            Ok(stream) => {
                *self = Self::Open { stream, blocked: false };
                bus.handle_connected(lane, now);
                true
            }
            Err(error) => {
                *self = Self::None;
                bus.handle_dial_failed(lane, &error.to_string(), now);
                false
            }
        }
    }

    fn read(
        &mut self,
        lane: Lane,
        bus: &mut Bus,
        scratch: &mut [u8],
        now: Instant,
        context: &mut Context<'_>,
    ) -> bool {
        let Self::Open { stream, blocked } = self else { return false };
        if *blocked && stream.poll_write_ready(context).is_ready() {
            *blocked = false;
            bus.handle_writable(lane);
        }
        let mut buffer = ReadBuf::new(scratch);
        match Pin::new(&mut *stream).poll_read(context, &mut buffer) {
            Poll::Pending => false,
            Poll::Ready(Err(error)) => {
                self.close(lane, bus, &error.to_string(), now);
                false
            }
            Poll::Ready(Ok(())) if buffer.filled().is_empty() => {
                self.close(lane, bus, "the server closed the connection", now);
                false
            }
            Poll::Ready(Ok(())) => {
                bus.handle_read(lane, buffer.filled(), now);
                // Has the waker registered, or there is more to read in the next turn.
                stream.poll_read_ready(context).is_ready()
            }
        }
    }

    fn write(&mut self, lane: Lane, bus: &mut Bus, now: Instant, context: &mut Context<'_>) {
        let Self::Open { stream, blocked } = self else { return };
        loop {
            let mut slices = [IoSlice::new(&[]); 4];
            let filled = bus.transmit(lane, &mut slices);
            if filled == 0 {
                return;
            }
            match stream.try_write_vectored(&slices[..filled]) {
                Ok(written) => {
                    // Misuse is impossible: no more can be written than was lent.
                    let _ = bus.transmitted(lane, written, now);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    bus.blocked(lane);
                    *blocked = true;
                    if stream.poll_write_ready(context).is_ready() {
                        context.waker().wake_by_ref();
                    }
                    return;
                }
                Err(error) => return self.close(lane, bus, &error.to_string(), now),
            }
        }
    }

    fn close(&mut self, lane: Lane, bus: &mut Bus, reason: &str, now: Instant) {
        *self = Self::None;
        bus.handle_closed(lane, reason, now);
    }
}

fn place(lane: Lane) -> usize {
    match lane {
        Lane::Subscriber => 0,
        Lane::Publisher => 1,
    }
}
