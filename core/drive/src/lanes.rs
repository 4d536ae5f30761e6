//! The connections of the bus to Redis.

use std::collections::BTreeMap;
use std::future::Future;
use std::io::IoSlice;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use super::bells::{Bell, Bells};
use super::dial::{Lookup, Race, look_up};
use super::kernel;
use super::runtime::{Runtime, Stream};
use fanfare_core::bus::{Action, Bus};
use fanfare_core::redis::{Endpoint, LinkId};
use fanfare_core::time::{Duration, Instant};

/// Slices of one write.
const SLICES: usize = 4;
/// After so many bytes a connection is written no more in one turn, so that clients do not wait for a full queue.
const TURN_BYTES: usize = 256 << 10;
/// When something is overdue, the runtime has so long to notice what has arrived: it may have stood still as well.
const LOOK_TIME: Duration = Duration::from_millis(50);

/// The connections to Redis, if the bus has any.
pub(super) struct Lanes<R: Runtime> {
    runtime: R,
    dial_time: Duration,
    bells: Arc<Bells<LinkId>>,
    connections: BTreeMap<LinkId, Connection<R>>,
}

struct Connection<R: Runtime> {
    id: LinkId,
    state: State<R>,
    bell: Arc<Bell<LinkId>>,
    /// Rings the bell.
    waker: Waker,
    /// The bus wants to know what has arrived when this is over.
    look: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

enum State<R: Runtime> {
    /// A lookup that took longer than its dial is of use for the next one.
    None(Option<Lookup>),
    Resolving(Lookup),
    Connecting(Race<R>),
    Open {
        stream: R::Stream,
        blocked: bool,
        /// Why nothing can be written any more. What was sent before may still say more.
        broken: Option<String>,
    },
}

impl<R: Runtime> Lanes<R> {
    pub(super) fn new(runtime: R, dial_time: Duration) -> Self {
        Self { runtime, dial_time, bells: Arc::default(), connections: BTreeMap::new() }
    }

    /// Reads each connection that has something to do once.
    pub(super) fn read(&mut self, bus: &mut Bus, scratch: &mut [u8], now: Instant) {
        for id in self.bells.take() {
            let (runtime, time) = (self.runtime.clone(), self.dial_time);
            self.connection(id).turn(bus, scratch, (&runtime, time), now);
        }
    }

    /// Makes and ends connections as the bus asks, and writes what it has for them, as far as they take it and
    /// a turn may go.
    pub(super) fn write(&mut self, bus: &mut Bus, now: Instant) {
        while let Some(action) = bus.poll_action() {
            match action {
                Action::HangUp(id) => self.connection(id).hang_up(),
                Action::Look(id) => {
                    let sleep = Box::pin(self.runtime.sleep_until(now + LOOK_TIME));
                    let connection = self.connection(id);
                    connection.look = Some(sleep);
                    connection.bell.ring();
                }
                Action::Dial(id, Endpoint::Tcp { host, port }) => {
                    self.connection(id).dial(|| look_up::<R>(host, port));
                    bus.handle_resolving(id, true);
                }
                Action::Dial(id, endpoint) => {
                    bus.handle_dial_failed(id, &format!("there is no way to reach {endpoint:?}"), now);
                }
            }
        }
        while let Some(id) = bus.poll_transmit() {
            self.connection(id).write(bus, now);
        }
    }

    /// Has `worker` woken by the next connection that has something to do; says no if one already has.
    pub(super) fn sleep(&self, worker: &Waker) -> bool {
        self.bells.sleep(worker)
    }

    fn connection(&mut self, id: LinkId) -> &mut Connection<R> {
        self.connections.entry(id).or_insert_with(|| {
            let bell = self.bells.bell(id);
            let waker = Waker::from(bell.clone());
            Connection { id, state: State::None(None), bell, waker, look: None }
        })
    }
}

impl<R: Runtime> Connection<R> {
    fn dial(&mut self, look_up: impl FnOnce() -> Lookup) {
        let lookup = match std::mem::replace(&mut self.state, State::None(None)) {
            State::None(Some(lookup)) => lookup,
            _ => look_up(),
        };
        self.state = State::Resolving(lookup);
        self.bell.ring();
    }

    /// What the system still holds must not reach Redis behind what leaves on the next connection.
    fn hang_up(&mut self) {
        self.state = match std::mem::replace(&mut self.state, State::None(None)) {
            State::Resolving(lookup) => State::None(Some(lookup)),
            State::Open { stream, .. } => {
                stream.socket().map(kernel::reset);
                State::None(None)
            }
            _ => State::None(None),
        };
        self.look = None;
    }

    fn turn(&mut self, bus: &mut Bus, scratch: &mut [u8], dialing: (&R, Duration), now: Instant) {
        self.bell.hush();
        let mut context = Context::from_waker(&self.waker);
        let looks = self.look.as_mut().is_some_and(|sleep| sleep.as_mut().poll(&mut context).is_ready());
        self.go_on(bus, scratch, dialing, looks, now);
        if looks {
            self.look = None;
            bus.handle_looked(self.id, now);
        }
    }

    /// Goes on with whatever it is about. If it `looks`, the system itself is asked what has arrived.
    fn go_on(&mut self, bus: &mut Bus, scratch: &mut [u8], (runtime, time): (&R, Duration), looks: bool, now: Instant) {
        let mut context = Context::from_waker(&self.waker);
        if let State::Resolving(lookup) = &mut self.state {
            match lookup.as_mut().poll(&mut context) {
                Poll::Pending => return,
                Poll::Ready(Ok(addresses)) => {
                    bus.handle_resolving(self.id, false);
                    self.state = State::Connecting(Race::new(&addresses, time));
                }
                Poll::Ready(Err(error)) => {
                    self.state = State::None(None);
                    return bus.handle_dial_failed(self.id, &error.to_string(), now);
                }
            }
        }
        match &mut self.state {
            State::None(_) | State::Resolving(_) => {}
            State::Connecting(race) => match race.poll(runtime, now, &mut context) {
                Poll::Pending => {}
                Poll::Ready(Ok(stream)) => {
                    self.state = State::Open { stream, blocked: false, broken: None };
                    self.bell.ring();
                    bus.handle_connected(self.id, now);
                }
                Poll::Ready(Err(reason)) => {
                    self.state = State::None(None);
                    bus.handle_dial_failed(self.id, &reason, now);
                }
            },
            State::Open { stream, blocked, broken } => {
                // If it rang for something else, the next write says so at little cost.
                if std::mem::take(blocked) && broken.is_none() {
                    bus.handle_writable(self.id);
                }
                let mut read = stream.poll_read(&mut context, scratch);
                if looks && read.is_pending() {
                    read = stream.poll_read_now(&mut context, scratch);
                }
                match (read, broken) {
                    (Poll::Pending, None) => {}
                    (Poll::Ready(Ok(0)) | Poll::Pending, Some(reason)) => {
                        let reason = std::mem::take(reason);
                        self.close(bus, &reason, now);
                    }
                    (Poll::Ready(Err(error)), _) => self.close(bus, &error.to_string(), now),
                    (Poll::Ready(Ok(0)), None) => self.close(bus, "the server closed the connection", now),
                    (Poll::Ready(Ok(read)), broken) => {
                        if broken.is_some() || stream.poll_readable(&mut context).is_ready() {
                            self.bell.ring();
                        }
                        bus.handle_read(self.id, &scratch[..read], read == scratch.len(), now);
                    }
                }
            }
        }
    }

    fn write(&mut self, bus: &mut Bus, now: Instant) {
        let State::Open { stream, blocked, broken } = &mut self.state else { return };
        let mut left = TURN_BYTES;
        loop {
            let mut slices = [IoSlice::new(&[]); SLICES];
            let filled = bus.transmit(self.id, &mut slices);
            if filled == 0 {
                return;
            }
            let written = match left {
                0 => Poll::Pending,
                _ => stream.poll_write(&mut Context::from_waker(&self.waker), &slices[..filled]),
            };
            match written {
                Poll::Ready(Ok(written)) if written > 0 => {
                    left = left.saturating_sub(written);
                    // Misuse is impossible: no more can be written than was lent.
                    let _ = bus.transmitted(self.id, written, now);
                    continue;
                }
                Poll::Pending => {}
                Poll::Ready(Ok(_)) => *broken = Some("the connection takes nothing more".to_owned()),
                Poll::Ready(Err(error)) => *broken = Some(error.to_string()),
            }
            bus.blocked(self.id);
            *blocked = true;
            if left == 0 || broken.is_some() {
                self.bell.ring();
            }
            return;
        }
    }

    fn close(&mut self, bus: &mut Bus, reason: &str, now: Instant) {
        self.state = State::None(None);
        bus.handle_closed(self.id, reason, now);
    }
}
