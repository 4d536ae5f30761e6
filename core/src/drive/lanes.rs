//! The connections of the bus.

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use super::bells::{Bell, Bells};
use super::runtime::{Runtime, Stream};
use crate::bus::Bus;
use crate::redis::{Action, Lane, RedisUrl};
use crate::time::Instant;

/// Slices of one write.
const SLICES: usize = 4;

/// Both connections to Redis, if the bus has any.
pub(super) struct Lanes<R: Runtime> {
    server: Option<(String, u16)>,
    bells: Arc<Bells<Lane>>,
    connections: [Connection<R::Stream>; 2],
}

struct Connection<S> {
    lane: Lane,
    state: State<S>,
    bell: Arc<Bell<Lane>>,
    /// Rings the bell.
    waker: Waker,
}

enum State<S> {
    None,
    Dialing(Pin<Box<dyn Future<Output = io::Result<S>> + Send>>),
    Open { stream: S, blocked: bool },
}

impl<R: Runtime> Lanes<R> {
    pub(super) fn new(redis: Option<&RedisUrl>) -> Self {
        let bells = Arc::<Bells<Lane>>::default();
        let connections = [Lane::Subscriber, Lane::Publisher].map(|lane| {
            let bell = bells.bell(lane);
            let waker = Waker::from(bell.clone());
            Connection { lane, state: State::None, bell, waker }
        });
        Self { server: redis.map(|url| (url.host().to_owned(), url.port())), bells, connections }
    }

    /// Reads each connection that has something to do once.
    pub(super) fn read(&mut self, bus: &mut Bus, scratch: &mut [u8], now: Instant) {
        for lane in self.bells.take() {
            self.connection(lane).turn(bus, scratch, now);
        }
    }

    /// Makes and ends connections as the bus asks, and writes what it has for them, as far as they take it.
    pub(super) fn write(&mut self, bus: &mut Bus, now: Instant) {
        while let Some(action) = bus.poll_action() {
            match action {
                Action::HangUp(lane) => self.connection(lane).state = State::None,
                Action::Dial(lane) => {
                    let Some((host, port)) = self.server.clone() else { continue };
                    let dial = Box::pin(R::connect(host, port));
                    let connection = self.connection(lane);
                    connection.state = State::Dialing(dial);
                    connection.bell.ring();
                }
            }
        }
        while let Some(lane) = bus.poll_transmit() {
            self.connection(lane).write(bus, now);
        }
    }

    /// Has `worker` woken by the next connection that has something to do; says no if one already has.
    pub(super) fn sleep(&self, worker: &Waker) -> bool {
        self.bells.sleep(worker)
    }

    fn connection(&mut self, lane: Lane) -> &mut Connection<R::Stream> {
        &mut self.connections[match lane {
            Lane::Subscriber => 0,
            Lane::Publisher => 1,
        }]
    }
}

impl<S: Stream> Connection<S> {
    fn turn(&mut self, bus: &mut Bus, scratch: &mut [u8], now: Instant) {
        self.bell.hush();
        let mut context = Context::from_waker(&self.waker);
        match &mut self.state {
            State::None => {}
            State::Dialing(dial) => match dial.as_mut().poll(&mut context) {
                Poll::Pending => {}
                Poll::Ready(Ok(stream)) => {
                    self.state = State::Open { stream, blocked: false };
                    self.bell.ring();
                    bus.handle_connected(self.lane, now);
                }
                Poll::Ready(Err(error)) => {
                    self.state = State::None;
                    bus.handle_dial_failed(self.lane, &error.to_string(), now);
                }
            },
            State::Open { stream, blocked } => {
                // If it rang for something else, the next write says so at little cost.
                if std::mem::take(blocked) {
                    bus.handle_writable(self.lane);
                }
                match stream.poll_read(&mut context, scratch) {
                    Poll::Pending => {}
                    Poll::Ready(Err(error)) => self.close(bus, &error.to_string(), now),
                    Poll::Ready(Ok(0)) => self.close(bus, "the server closed the connection", now),
                    Poll::Ready(Ok(read)) => {
                        if stream.poll_readable(&mut context).is_ready() {
                            self.bell.ring();
                        }
                        bus.handle_read(self.lane, &scratch[..read], now);
                    }
                }
            }
        }
    }

    fn write(&mut self, bus: &mut Bus, now: Instant) {
        let State::Open { stream, blocked } = &mut self.state else { return };
        loop {
            let mut slices = [IoSlice::new(&[]); SLICES];
            let filled = bus.transmit(self.lane, &mut slices);
            if filled == 0 {
                return;
            }
            match stream.poll_write(&mut Context::from_waker(&self.waker), &slices[..filled]) {
                Poll::Ready(Ok(0)) => return self.close(bus, "the connection takes nothing more", now),
                Poll::Ready(Ok(written)) => {
                    // Misuse is impossible: no more can be written than was lent.
                    let _ = bus.transmitted(self.lane, written, now);
                }
                Poll::Pending => {
                    bus.blocked(self.lane);
                    *blocked = true;
                    return;
                }
                Poll::Ready(Err(error)) => return self.close(bus, &error.to_string(), now),
            }
        }
    }

    fn close(&mut self, bus: &mut Bus, reason: &str, now: Instant) {
        self.state = State::None;
        bus.handle_closed(self.lane, reason, now);
    }
}
