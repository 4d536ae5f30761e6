//! The wanted channels and those that Redis has confirmed, and the next commands that make them equal.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use super::pause::{Pause, doubled};
use crate::time::{Duration, Instant};

/// Channels in one command.
pub(super) const BATCH_CHANNELS: usize = 512;
/// Bytes of all channels in one command; a single channel may be longer.
const BATCH_BYTES: usize = 16 << 10;
/// Into so many commands a command is split that Redis refuses. More would find the channel that is to blame in fewer
/// round trips, fewer would cost fewer commands if only one is.
const PARTS: usize = 8;
/// The first and the longest pause before Redis is asked again for a refused channel on the same connection. It doubles.
pub(super) const REFUSED_PAUSES: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(30));
/// What a channel adds to a command besides its name, and to a window, roughly: there it takes places in lists.
const OVERHEAD: usize = 16;
const OVERHEAD_IN_FLIGHT: usize = 64;

/// Works until wanted and confirmed channels are equal, whatever happens in between.
///
/// Commands leave without waiting for the replies to those before. Replies come in the order of the commands, so that
/// each has one meaning; and a channel is in one command at a time. Each channel is in one [`State`], and the queues hold
/// exactly those that wait to be asked for, oldest first.
///
/// Channels that nobody wants any more and Redis still has are bounded by the most that were ever wanted at once, and two
/// windows: as long as a window of them waits, no more come in a round trip than leave, since both windows are the same.
#[derive(Clone, Debug, Default)]
pub(super) struct Subscriptions {
    channels: BTreeMap<Bytes, State>,
    /// What waits, for each [`Class`].
    queues: [BTreeMap<u64, Bytes>; Class::ALL.len()],
    /// Bytes in flight, for each [`Class`].
    used: [usize; Class::ALL.len()],
    /// Channels that Redis refused, by the time to ask again.
    refused: BTreeMap<(Instant, u64), Bytes>,
    /// Refused ones that are being asked for again.
    asking: usize,
    /// The next place in a queue.
    next: u64,
    /// The commands without all of their replies, oldest first.
    in_flight: VecDeque<Batch>,
    /// While Redis cannot change subscriptions.
    pause: Pause,
    wanted: usize,
    confirmed: usize,
}

/// A channel that is neither wanted nor known to Redis has no state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Wanted, and to be asked for.
    Subscribe { place: u64, ask: Ask },
    /// SUBSCRIBE is in flight.
    Subscribing { wanted: bool, ask: Ask },
    /// Wanted and confirmed.
    Subscribed,
    /// Confirmed and no longer wanted.
    Unsubscribe { place: u64 },
    /// UNSUBSCRIBE is in flight.
    Unsubscribing { wanted: bool },
    /// Wanted, but Redis refuses it. It was asked for alone so many times.
    Refused { at: Instant, place: u64, times: u8 },
}

/// How a channel is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ask {
    /// In a command of so many channels at most. Redis refuses a command as a whole and does not say for which channel:
    /// the bound shrinks until the channel that is to blame is alone.
    Among(u16),
    /// Alone, after it was refused so many times.
    Again(u8),
}

const FIRST: Ask = Ask::Among(BATCH_CHANNELS as u16);

/// What commands carry. Each class has a window of its own, so that none of them holds up another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    /// Channels that were not refused.
    New,
    /// Channels of commands that were refused.
    Suspect,
    /// Channels that were refused.
    Refused,
    /// Channels to be unsubscribed.
    Unwanted,
}

impl Class {
    const ALL: [Self; 4] = [Self::New, Self::Suspect, Self::Refused, Self::Unwanted];

    /// Bytes of channels in flight. Enough for 8,000 channels a second with the longest names, entered and left, over a
    /// round trip of 100 ms. What is entered is left sooner or later, so that those two are the same.
    const fn window(self) -> usize {
        match self {
            Self::New | Self::Unwanted => 256 << 10,
            Self::Suspect => 64 << 10,
            Self::Refused => 16 << 10,
        }
    }
}

impl Ask {
    const fn class(self) -> Class {
        match self {
            Self::Among(limit) if limit as usize == BATCH_CHANNELS => Class::New,
            Self::Among(_) => Class::Suspect,
            Self::Again(_) => Class::Refused,
        }
    }

    const fn limit(self) -> usize {
        match self {
            Self::Among(limit) => limit as usize,
            Self::Again(_) => 1,
        }
    }
}

/// The channels of a command in flight that are not answered yet.
#[derive(Clone, Debug)]
pub(super) struct Batch {
    class: Class,
    pub(super) channels: VecDeque<Bytes>,
}

impl Batch {
    pub(super) const fn kind(&self) -> Kind {
        match self.class {
            Class::New | Class::Suspect | Class::Refused => Kind::Subscribe,
            Class::Unwanted => Kind::Unsubscribe,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Subscribe,
    Unsubscribe,
}

/// A reply that answers nothing that was asked.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct OutOfTurn;

impl Subscriptions {
    /// Wants `channel`. Returns whether it is confirmed already.
    pub(super) fn want(&mut self, channel: Bytes) -> bool {
        let Some(state) = self.channels.get_mut(&channel) else {
            self.wanted += 1;
            self.enqueue_subscribe(channel, FIRST);
            return false;
        };
        let confirmed = match *state {
            State::Subscribing { wanted: false, ask } => {
                *state = State::Subscribing { wanted: true, ask };
                false
            }
            State::Unsubscribing { wanted: false } => {
                *state = State::Unsubscribing { wanted: true };
                false
            }
            State::Unsubscribe { place } => {
                *state = State::Subscribed;
                self.queue(Class::Unwanted).remove(&place);
                true
            }
            State::Subscribed => return true,
            State::Subscribe { .. }
            | State::Refused { .. }
            | State::Subscribing { wanted: true, .. }
            | State::Unsubscribing { wanted: true } => return false,
        };
        self.wanted += 1;
        confirmed
    }

    /// No longer wants `channel`.
    pub(super) fn unwant(&mut self, channel: &[u8]) {
        let Some((name, state)) = self.channels.get_key_value(channel) else { return };
        let (name, state) = (name.clone(), *state);
        match state {
            State::Subscribe { place, ask } => {
                self.queue(ask.class()).remove(&place);
                self.channels.remove(channel);
            }
            State::Refused { at, place, .. } => {
                self.refused.remove(&(at, place));
                self.channels.remove(channel);
            }
            State::Subscribing { wanted: true, ask } => {
                self.channels.insert(name, State::Subscribing { wanted: false, ask });
            }
            State::Unsubscribing { wanted: true } => {
                self.channels.insert(name, State::Unsubscribing { wanted: false });
            }
            State::Subscribed => self.enqueue_unsubscribe(name),
            State::Unsubscribe { .. }
            | State::Subscribing { wanted: false, .. }
            | State::Unsubscribing { wanted: false } => return,
        }
        self.wanted -= 1;
    }

    /// The next command, which is then in flight. `None` if there is nothing to ask for, or what there is has to wait for
    /// replies.
    pub(super) fn next_batch(&mut self) -> Option<&Batch> {
        if self.pause.until().is_some() {
            return None;
        }
        let class = Class::ALL
            .into_iter()
            .find(|&class| !self.queues[class as usize].is_empty() && self.used[class as usize] < class.window())?;
        let (mut channels, mut bytes, mut bound) = (VecDeque::new(), 0, BATCH_CHANNELS);
        while let Some(entry) = self.queues[class as usize].first_entry() {
            let Some(state) = self.channels.get_mut(entry.get()) else { break };
            if let State::Subscribe { ask, .. } = *state {
                bound = bound.min(ask.limit());
            }
            bytes += cost(entry.get());
            if !channels.is_empty() && (channels.len() >= bound || bytes > BATCH_BYTES) {
                break;
            }
            *state = match *state {
                State::Subscribe { ask, .. } => State::Subscribing { wanted: true, ask },
                _ => State::Unsubscribing { wanted: false },
            };
            channels.push_back(entry.remove());
        }
        self.used[class as usize] += channels.iter().map(in_flight).sum::<usize>();
        self.asking += usize::from(class == Class::Refused);
        self.in_flight.push_back(Batch { class, channels });
        self.in_flight.back()
    }

    /// Redis has subscribed to `channel`. Returns its name if it is still wanted, and whether that ends the command.
    pub(super) fn handle_subscribed(&mut self, channel: &[u8]) -> Result<(Option<Bytes>, bool), OutOfTurn> {
        let (name, ends) = self.answered(Kind::Subscribe, channel)?;
        self.confirmed += 1;
        if matches!(self.channels.get(channel), Some(State::Subscribing { wanted: true, .. })) {
            self.channels.insert(name.clone(), State::Subscribed);
            return Ok((Some(name), ends));
        }
        self.enqueue_unsubscribe(name);
        Ok((None, ends))
    }

    /// Redis has unsubscribed from `channel`. Returns whether that ends the command.
    pub(super) fn handle_unsubscribed(&mut self, channel: &[u8]) -> Result<bool, OutOfTurn> {
        let (name, ends) = self.answered(Kind::Unsubscribe, channel)?;
        self.confirmed -= 1;
        if self.channels.get(channel) == Some(&State::Unsubscribing { wanted: true }) {
            self.enqueue_subscribe(name, FIRST);
        } else {
            self.channels.remove(channel);
        }
        Ok(ends)
    }

    /// Redis has answered the oldest command in flight with an error, which concerns all of its channels.
    ///
    /// Returns the channel that is refused, once it is known which one it is.
    pub(super) fn handle_refused(&mut self, now: Instant) -> Result<Option<Bytes>, OutOfTurn> {
        let Batch { class, mut channels } = self.take_batch()?;
        // An UNSUBSCRIBE that is refused leaves nothing to try but a new connection.
        if class == Class::Unwanted {
            return Err(OutOfTurn);
        }
        let alone = if channels.len() == 1 { channels.pop_front() } else { None };
        let limit = u16::try_from(channels.len().div_ceil(PARTS)).unwrap_or(u16::MAX);
        for channel in channels {
            self.after_error(channel, |this, name, _| this.enqueue_subscribe(name, Ask::Among(limit)));
        }
        let Some(channel) = alone else { return Ok(None) };
        let mut refused = None;
        self.after_error(channel, |this, name, ask| {
            let times = if let Ask::Again(times) = ask { times.saturating_add(1) } else { 0 };
            let (at, place) = (now + doubled(REFUSED_PAUSES, times.into()), this.place());
            this.refused.insert((at, place), name.clone());
            this.channels.insert(name.clone(), State::Refused { at, place, times });
            refused = Some(name);
        });
        Ok(refused)
    }

    /// Redis has answered the oldest command in flight that it cannot carry it out at the moment: it is asked again after
    /// a pause. Returns the channels that are still subscribed and wanted again.
    pub(super) fn handle_not_now(&mut self, now: Instant) -> Result<Vec<Bytes>, OutOfTurn> {
        let Batch { class, channels } = self.take_batch()?;
        let mut confirmed = Vec::new();
        for channel in channels {
            if class == Class::Unwanted {
                let wanted = self.channels.get(&channel) == Some(&State::Unsubscribing { wanted: true });
                if wanted {
                    self.channels.insert(channel.clone(), State::Subscribed);
                    confirmed.push(channel);
                } else {
                    self.enqueue_unsubscribe(channel);
                }
            } else {
                self.after_error(channel, Self::enqueue_subscribe);
            }
        }
        self.pause.begin(now);
        Ok(confirmed)
    }

    /// Asks again for the refused channels whose pause is over.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        while let Some(entry) = self.refused.first_entry()
            && entry.key().0 <= now
        {
            let channel = entry.remove();
            if let Some(&State::Refused { times, .. }) = self.channels.get(&channel) {
                self.enqueue_subscribe(channel, Ask::Again(times));
            }
        }
        self.pause.handle_timeout(now);
    }

    /// The connection is gone, and every subscription with it.
    pub(super) fn handle_disconnected(&mut self) {
        self.in_flight.clear();
        self.used = Default::default();
        self.asking = 0;
        self.pause.end();
        self.confirmed = 0;
        self.queues.iter_mut().for_each(BTreeMap::clear);
        self.refused.clear();
        let (next, queues) = (&mut self.next, &mut self.queues);
        self.channels.retain(|channel, state| {
            let ask = match *state {
                State::Unsubscribe { .. }
                | State::Subscribing { wanted: false, .. }
                | State::Unsubscribing { wanted: false } => return false,
                State::Subscribe { ask, .. } | State::Subscribing { wanted: true, ask } => ask,
                State::Refused { times, .. } => Ask::Again(times),
                State::Subscribed | State::Unsubscribing { wanted: true } => FIRST,
            };
            *next += 1;
            *state = State::Subscribe { place: *next, ask };
            queues[ask.class() as usize].insert(*next, channel.clone());
            true
        });
    }

    /// Whether every wanted channel has its answer. One that was refused has it, also while it is asked for again.
    pub(super) fn is_settled(&self) -> bool {
        [Class::New, Class::Suspect]
            .iter()
            .all(|&class| self.queues[class as usize].is_empty() && self.used[class as usize] == 0)
    }

    /// When something is to be asked for again.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let refused = self.refused.first_key_value().map(|(&(at, _), _)| at);
        refused.into_iter().chain(self.pause.until()).min()
    }

    /// Channels that Redis has refused when it was asked last.
    pub(super) fn refused(&self) -> usize {
        self.refused.len() + self.queues[Class::Refused as usize].len() + self.asking
    }

    /// Channels that are wanted.
    pub(super) const fn wanted(&self) -> usize {
        self.wanted
    }

    /// Channels that Redis has confirmed on the present connection, wanted or not.
    pub(super) const fn confirmed(&self) -> usize {
        self.confirmed
    }

    /// All that decides what comes next, the same for two that behave alike: places count only by their order.
    #[cfg(test)]
    pub(super) fn shape(&self) -> String {
        let states = self.channels.iter().map(|(name, state)| match *state {
            State::Subscribe { ask, .. } => format!("{name:?} to be asked for among {}", ask.limit()),
            State::Subscribing { wanted, ask } => format!("{name:?} asked among {} {wanted}", ask.limit()),
            State::Unsubscribe { .. } => format!("{name:?} to be dropped"),
            State::Refused { .. } => format!("{name:?} refused"),
            other => format!("{name:?} {other:?}"),
        });
        let queues: Vec<_> = self.queues.iter().map(|queue| queue.values().collect::<Vec<_>>()).collect();
        let refused: Vec<_> = self.refused.values().collect();
        let is_held = self.pause.until().is_some();
        format!("{:?} {queues:?} {refused:?} {:?} {is_held}", states.collect::<Vec<_>>(), self.in_flight)
    }

    /// Takes `channel` out of the oldest command in flight.
    ///
    /// Redis answers in the order of the arguments, so that the search ends at its first step.
    fn answered(&mut self, kind: Kind, channel: &[u8]) -> Result<(Bytes, bool), OutOfTurn> {
        let batch = self.in_flight.front_mut().filter(|batch| batch.kind() == kind).ok_or(OutOfTurn)?;
        let at = batch.channels.iter().position(|name| name == channel).ok_or(OutOfTurn)?;
        let name = batch.channels.remove(at).ok_or(OutOfTurn)?;
        self.used[batch.class as usize] -= in_flight(&name);
        let ends = batch.channels.is_empty();
        if ends {
            self.asking -= usize::from(batch.class == Class::Refused);
            self.in_flight.pop_front();
            self.pause.end();
        }
        Ok((name, ends))
    }

    /// Takes the oldest command in flight, of which nothing more will be answered.
    fn take_batch(&mut self) -> Result<Batch, OutOfTurn> {
        let batch = self.in_flight.pop_front().ok_or(OutOfTurn)?;
        self.used[batch.class as usize] -= batch.channels.iter().map(in_flight).sum::<usize>();
        self.asking -= usize::from(batch.class == Class::Refused);
        Ok(batch)
    }

    /// Goes on with a channel whose SUBSCRIBE was not carried out, unless nobody wants it any more.
    fn after_error(&mut self, channel: Bytes, go_on: impl FnOnce(&mut Self, Bytes, Ask)) {
        if let Some(&State::Subscribing { wanted: true, ask }) = self.channels.get(&channel) {
            go_on(self, channel, ask);
        } else {
            self.channels.remove(&channel);
        }
    }

    fn enqueue_subscribe(&mut self, channel: Bytes, ask: Ask) {
        let place = self.place();
        self.queue(ask.class()).insert(place, channel.clone());
        self.channels.insert(channel, State::Subscribe { place, ask });
    }

    fn enqueue_unsubscribe(&mut self, channel: Bytes) {
        let place = self.place();
        self.queue(Class::Unwanted).insert(place, channel.clone());
        self.channels.insert(channel, State::Unsubscribe { place });
    }

    const fn queue(&mut self, class: Class) -> &mut BTreeMap<u64, Bytes> {
        &mut self.queues[class as usize]
    }

    const fn place(&mut self) -> u64 {
        self.next += 1;
        self.next
    }
}

/// What a channel takes of a command.
fn cost(channel: &Bytes) -> usize {
    channel.len() + OVERHEAD
}

/// What a channel takes of a window.
fn in_flight(channel: &Bytes) -> usize {
    channel.len() + OVERHEAD_IN_FLIGHT
}
