//! The driver's side of the two connections to Redis.

use std::io::IoSlice;

use fanfare_core::bus::Action;
use fanfare_core::redis::{Lane, LinkId};

use super::ground::{Event, Got, Ground, Port};
use super::instance::Instance;
use super::pipe::micros;
use super::verdict::Promise;

/// One read from Redis.
const READ_BYTES: usize = 64 << 10;

#[derive(Default)]
pub(super) struct Lanes([Socket; LinkId::COUNT]);

#[derive(Default)]
struct Socket {
    port: Option<Port>,
    /// Counts dials, so that the result of one that was given up is known.
    attempt: u32,
    blocked: bool,
    /// Something may be there to read, or room to write.
    ready: bool,
    /// The bus wants to know when it was read.
    to_look: bool,
    /// The connection was made, refused, and the bus does not know yet.
    result: Option<Result<Port, ()>>,
}

impl Lanes {
    pub(super) fn are_ready(&self) -> bool {
        self.0.iter().any(|socket| socket.ready || socket.result.is_some())
    }

    pub(super) fn wake(&mut self, lane: Lane) {
        self.0[lane as usize].ready = true;
    }

    pub(super) fn port(&self, lane: Lane) -> Option<Port> {
        self.0[lane as usize].port
    }

    /// The result of a dial. Says whether anybody still wants it.
    pub(super) fn dialled(&mut self, lane: Lane, attempt: u32, result: Result<Port, ()>) -> bool {
        let socket = &mut self.0[lane as usize];
        let is_wanted = socket.attempt == attempt;
        if is_wanted {
            socket.result = Some(result);
        }
        is_wanted
    }
}

impl Instance {
    /// Does what the bus asks for, reads each lane once and writes what it has to say.
    pub(super) fn turn_lanes(&mut self, ground: &mut Ground) {
        self.act(ground);
        for lane in Lane::ALL {
            self.finish_dial(lane, ground);
            self.read_lane(lane, ground);
            if std::mem::take(&mut self.lanes.0[lane as usize].to_look) {
                let now = self.clock(ground);
                self.bus().handle_looked(id_of(lane), now);
            }
        }
        while let Some(id) = self.bus().poll_transmit() {
            self.write_lane(id.lane(), ground);
        }
        self.act(ground);
    }

    fn act(&mut self, ground: &mut Ground) {
        while let Some(action) = self.bus().poll_action() {
            self.workers[0].moved += 1;
            match action {
                Action::HangUp(id) => self.hang_up(id.lane(), ground),
                Action::Look(id) => {
                    let socket = &mut self.lanes.0[id.index()];
                    (socket.ready, socket.to_look) = (true, true);
                }
                Action::Dial(id, _) => {
                    let (lane, socket) = (id.lane(), &mut self.lanes.0[id.index()]);
                    socket.attempt += 1;
                    let (instance, attempt) = (self.number, socket.attempt);
                    let time = micros(300 + self.rng.u64(..3_000));
                    ground.after(time, Event::Dialled { instance, lane, attempt });
                }
            }
        }
    }

    fn hang_up(&mut self, lane: Lane, ground: &mut Ground) {
        let socket = &mut self.lanes.0[lane as usize];
        socket.attempt += 1;
        let dialled = socket.result.take().and_then(Result::ok);
        for port in [socket.port.take(), dialled].into_iter().flatten() {
            ground.reference.lane_lost(self.number, port.conn);
            ground.close(port);
        }
        (socket.blocked, socket.ready) = (false, false);
    }

    fn finish_dial(&mut self, lane: Lane, ground: &mut Ground) {
        let now = self.clock(ground);
        let socket = &mut self.lanes.0[lane as usize];
        let Some(result) = socket.result.take() else { return };
        self.workers[0].moved += 1;
        match result {
            Ok(port) => {
                (socket.port, socket.blocked, socket.ready) = (Some(port), false, true);
                self.bus().handle_connected(id_of(lane), now);
            }
            Err(()) => self.bus().handle_dial_failed(id_of(lane), "connection refused", now),
        }
    }

    fn read_lane(&mut self, lane: Lane, ground: &mut Ground) {
        let now = self.clock(ground);
        let socket = &mut self.lanes.0[lane as usize];
        let Some(port) = socket.port else { return };
        if !std::mem::take(&mut socket.ready) {
            return;
        }
        if std::mem::take(&mut socket.blocked) {
            self.bus().handle_writable(id_of(lane));
        }
        let mut scratch = std::mem::take(&mut self.scratch);
        match ground.read(port, &mut scratch[..READ_BYTES]) {
            Got::Nothing => {}
            Got::Bytes(n) => {
                self.workers[0].moved += 1;
                self.lanes.0[lane as usize].ready = ground.is_readable(port);
                let (taken, at) = (ground.taken(port), ground.now);
                for id in ground.reference.read_by_bus(self.number, port.conn, taken, at) {
                    let message = ground.reference.messages.get(id);
                    self.note_arrival(message.room, message.payload.len(), taken);
                }
                self.bus().handle_read(id_of(lane), &scratch[..n], n == READ_BYTES, now);
                let (bus, model) = (self.bus().stats().oversized, ground.reference.oversized[self.number]);
                if bus < model {
                    ground.fail(Promise::NoSilentLoss, format!("{bus} messages too big are counted, {model} came"));
                }
            }
            got @ (Got::End | Got::Broken) => {
                self.workers[0].moved += 1;
                self.hang_up(lane, ground);
                let reason = if got == Got::End { "the server closed the connection" } else { "connection reset" };
                self.bus().handle_closed(id_of(lane), reason, now);
            }
        }
        self.scratch = scratch;
    }

    fn write_lane(&mut self, lane: Lane, ground: &mut Ground) {
        let Some(port) = self.lanes.0[lane as usize].port else { return };
        let now = self.clock(ground);
        loop {
            let most = if self.is_lazy() { self.rng.usize(1..=4) } else { 4 };
            let bus = self.bus();
            let mut slices = [IoSlice::new(&[]); 4];
            let filled = bus.transmit(id_of(lane), &mut slices[..most]);
            if filled == 0 {
                return;
            }
            match ground.write(port, &slices[..filled]) {
                Ok(0) => {
                    bus.blocked(id_of(lane));
                    self.lanes.0[lane as usize].blocked = true;
                    return;
                }
                Ok(written) => {
                    if let Err(misuse) = bus.transmitted(id_of(lane), written, now) {
                        return ground.fail(Promise::Protocol, format!("what was lent is not known: {misuse}"));
                    }
                    self.workers[0].moved += 1;
                }
                Err(()) => {
                    self.hang_up(lane, ground);
                    return self.bus().handle_closed(id_of(lane), "connection reset", now);
                }
            }
        }
    }
}

/// There is one Redis.
const fn id_of(lane: Lane) -> LinkId {
    LinkId::new(0, lane)
}
