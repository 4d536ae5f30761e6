//! The connections to Redis of a bus: what their owner says of each, and is asked to do.

use std::io::IoSlice;

use super::{Bus, Carrier};
use crate::error::Misuse;
use crate::redis::{self, Endpoint, Lane, Link, LinkId};
use crate::time::Instant;

/// A thing for the owner of a bus to do with a socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Connect to this endpoint; then [`Bus::handle_connected`] or [`Bus::handle_dial_failed`].
    Dial(LinkId, Endpoint),
    /// Reset and close this connection, or give up its dial. No input that comes of it may reach the bus any more. What the
    /// system holds of it is not to reach Redis behind what leaves on the next one.
    HangUp(LinkId),
    /// Something on this connection is overdue and may have come without the owner having heard of it: read what lies in
    /// the socket, or look whether the dial has succeeded, and hand that over; then [`Bus::handle_looked`].
    Look(LinkId),
}

impl Bus {
    // Inputs.

    /// A connection to Redis stands.
    pub fn handle_connected(&mut self, id: LinkId, now: Instant) {
        self.stats.connects += 1;
        self.with_lane(id, now, Link::handle_connected);
    }

    /// A dial waits for a name server, or no longer does.
    pub fn handle_resolving(&mut self, id: LinkId, is_resolving: bool) {
        self.with_lane(id, self.latest, |link, lane, _| link.handle_resolving(lane, is_resolving));
    }

    /// A connection to Redis could not be made; `reason` is for people.
    pub fn handle_dial_failed(&mut self, id: LinkId, reason: &str, now: Instant) {
        self.stats.dial_failures += 1;
        self.with_lane(id, now, |link, lane, now| link.handle_dial_failed(lane, reason, now));
    }

    /// A socket was looked at as [`Action::Look`] asks; see [`Link::handle_looked`].
    pub fn handle_looked(&mut self, id: LinkId, now: Instant) {
        self.with_lane(id, now, Link::handle_looked);
    }

    /// `input` was read from a socket, and `more` may lie there; see [`Link::handle_read`]. Nothing of it is kept but an
    /// unfinished tail.
    pub fn handle_read(&mut self, id: LinkId, input: &[u8], more: bool, now: Instant) {
        let now = self.at(now);
        let Some((link, lane)) = lane_of(&mut self.carrier, id) else { return };
        self.stats.bytes_in += input.len() as u64;
        link.handle_read(lane, input, more, now, |name, payload| self.channels.add_message(name, payload, now));
        // A channel is subscribed before its first message comes, also if both were read at once.
        self.follow_link();
        self.seal_runs();
    }

    /// A connection has ended; `reason` is for people.
    pub fn handle_closed(&mut self, id: LinkId, reason: &str, now: Instant) {
        self.with_lane(id, now, |link, lane, now| link.handle_closed(lane, reason, now));
    }

    /// The first `n` bytes that [`Bus::transmit`] lent have left.
    ///
    /// # Errors
    /// [`Misuse::TooMuchTransmitted`] if so many were not lent; nothing changes.
    pub fn transmitted(&mut self, id: LinkId, n: usize, now: Instant) -> Result<(), Misuse> {
        let now = self.at(now);
        let (link, lane) = lane_of(&mut self.carrier, id).ok_or(Misuse::TooMuchTransmitted)?;
        let result = link.transmitted(lane, n, now);
        self.stats.bytes_out += if result.is_ok() { n as u64 } else { 0 };
        self.follow_link();
        result
    }

    /// A socket takes no more, until [`Bus::handle_writable`].
    pub fn blocked(&mut self, id: LinkId) {
        self.with_lane(id, self.latest, |link, lane, _| link.blocked(lane));
    }

    /// A socket takes bytes again.
    pub fn handle_writable(&mut self, id: LinkId) {
        self.with_lane(id, self.latest, |link, lane, _| link.handle_writable(lane));
    }

    // Outputs.

    /// The next thing to do with a socket. Can change after every input.
    pub fn poll_action(&mut self) -> Option<Action> {
        let link = self.link_mut()?;
        Some(match link.poll_action()? {
            redis::Action::Dial(lane) => Action::Dial(id_of(lane), link.endpoint()),
            redis::Action::HangUp(lane) => Action::HangUp(id_of(lane)),
            redis::Action::Look(lane) => Action::Look(id_of(lane)),
        })
    }

    /// A connection that has new output, named once. Can change after every input.
    pub fn poll_transmit(&mut self) -> Option<LinkId> {
        self.link_mut()?.poll_transmit().map(id_of)
    }

    /// Lends what a connection has to write, in order, into `out`; says how many slices it filled. It only looks.
    #[must_use]
    pub fn transmit<'a>(&'a self, id: LinkId, out: &mut [IoSlice<'a>]) -> usize {
        match &self.carrier {
            Carrier::Redis(link) if id.node() == 0 => link.transmit(id.lane(), out),
            Carrier::Redis(_) | Carrier::Local(_) => 0,
        }
    }

    fn with_lane(&mut self, id: LinkId, now: Instant, input: impl FnOnce(&mut Link, Lane, Instant)) {
        let now = self.at(now);
        if let Some((link, lane)) = lane_of(&mut self.carrier, id) {
            input(link, lane, now);
        }
        self.follow_link();
    }
}

/// The link and the lane that a connection is. There is one link.
fn lane_of(carrier: &mut Carrier, id: LinkId) -> Option<(&mut Link, Lane)> {
    match carrier {
        Carrier::Redis(link) if id.node() == 0 => Some((link, id.lane())),
        Carrier::Redis(_) | Carrier::Local(_) => None,
    }
}

const fn id_of(lane: Lane) -> LinkId {
    LinkId::new(0, lane)
}
