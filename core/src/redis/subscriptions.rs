//! The channels that are wanted and the ones that Redis has confirmed, and what to ask for next.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use crate::time::{Duration, Instant};

/// Channels in one command.
pub(super) const BATCH_CHANNELS: usize = 512;
/// Bytes of all channels in one command; a single channel may be longer.
const BATCH_BYTES: usize = 16 << 10;
/// How long a refused channel waits before Redis is asked again on the same connection.
pub(super) const REFUSED_PAUSE: Duration = Duration::from_secs(5);

/// Works until wanted and confirmed channels are equal, whatever happens in between.
///
/// One command is in flight at a time, so that each reply has one meaning; what is wanted meanwhile gathers into the
/// next command. Each channel is in one [`State`], and `subscribe` and `unsubscribe` hold exactly those that are in the
/// state of the same name, oldest first.
#[derive(Clone, Debug, Default)]
pub(super) struct Subscriptions {
    channels: BTreeMap<Bytes, State>,
    subscribe: BTreeMap<u64, Bytes>,
    unsubscribe: BTreeMap<u64, Bytes>,
    /// Channels that Redis refused, with the time to ask again.
    refused: BTreeMap<u64, (Instant, Bytes)>,
    /// The next place in a queue.
    next: u64,
    in_flight: Option<Batch>,
    wanted: usize,
    confirmed: usize,
}

/// A channel that is neither wanted nor known to Redis has no state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Wanted, and to be asked for. `limit` bounds the command it goes into: it is halved when Redis refuses a
    /// command, until the channel that is to blame is alone.
    Subscribe { place: u64, limit: usize },
    /// SUBSCRIBE is in flight.
    Subscribing { wanted: bool },
    /// Wanted and confirmed.
    Subscribed,
    /// Confirmed and no longer wanted.
    Unsubscribe { place: u64 },
    /// UNSUBSCRIBE is in flight.
    Unsubscribing { wanted: bool },
    /// Wanted, but Redis refuses it.
    Refused { place: u64 },
}

/// The channels of the command in flight that are not answered yet.
#[derive(Clone, Debug)]
pub(super) struct Batch {
    pub(super) kind: Kind,
    pub(super) channels: VecDeque<Bytes>,
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
            self.enqueue_subscribe(channel, BATCH_CHANNELS);
            return false;
        };
        let confirmed = match *state {
            State::Subscribing { wanted: false } => {
                *state = State::Subscribing { wanted: true };
                false
            }
            State::Unsubscribing { wanted: false } => {
                *state = State::Unsubscribing { wanted: true };
                false
            }
            State::Unsubscribe { place } => {
                *state = State::Subscribed;
                self.unsubscribe.remove(&place);
                true
            }
            State::Subscribed => return true,
            State::Subscribe { .. }
            | State::Refused { .. }
            | State::Subscribing { wanted: true }
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
            State::Subscribe { place, .. } => {
                self.subscribe.remove(&place);
                self.channels.remove(channel);
            }
            State::Refused { place } => {
                self.refused.remove(&place);
                self.channels.remove(channel);
            }
            State::Subscribing { wanted: true } => {
                self.channels.insert(name, State::Subscribing { wanted: false });
            }
            State::Unsubscribing { wanted: true } => {
                self.channels.insert(name, State::Unsubscribing { wanted: false });
            }
            State::Subscribed => self.enqueue_unsubscribe(name),
            State::Unsubscribe { .. }
            | State::Subscribing { wanted: false }
            | State::Unsubscribing { wanted: false } => return,
        }
        self.wanted -= 1;
    }

    /// The next command, which is then in flight. `None` while one is, or if there is nothing to ask for.
    pub(super) fn next_batch(&mut self) -> Option<&Batch> {
        if self.in_flight.is_some() {
            return None;
        }
        let (subscribe, unsubscribe) = (self.subscribe.first_key_value(), self.unsubscribe.first_key_value());
        let kind = match (subscribe, unsubscribe) {
            (None, None) => return None,
            (Some((asked, _)), Some((dropped, _))) if dropped < asked => Kind::Unsubscribe,
            (None, Some(_)) => Kind::Unsubscribe,
            (Some(_), _) => Kind::Subscribe,
        };
        let (mut channels, mut bytes, mut bound) = (VecDeque::new(), 0, BATCH_CHANNELS);
        let queue = if kind == Kind::Subscribe { &mut self.subscribe } else { &mut self.unsubscribe };
        while let Some(entry) = queue.first_entry() {
            let Some(state) = self.channels.get_mut(entry.get()) else { break };
            if let State::Subscribe { limit, .. } = *state {
                bound = bound.min(limit);
            }
            bytes += entry.get().len();
            if !channels.is_empty() && (channels.len() >= bound || bytes > BATCH_BYTES) {
                break;
            }
            *state = match kind {
                Kind::Subscribe => State::Subscribing { wanted: true },
                Kind::Unsubscribe => State::Unsubscribing { wanted: false },
            };
            channels.push_back(entry.remove());
        }
        Some(self.in_flight.insert(Batch { kind, channels }))
    }

    /// Redis has subscribed to `channel`. Returns its name if it is still wanted, and whether that ends the command.
    pub(super) fn handle_subscribed(&mut self, channel: &[u8]) -> Result<(Option<Bytes>, bool), OutOfTurn> {
        let (name, ends) = self.answered(Kind::Subscribe, channel)?;
        self.confirmed += 1;
        if self.channels.get(channel) == Some(&State::Subscribing { wanted: true }) {
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
            self.enqueue_subscribe(name, BATCH_CHANNELS);
        } else {
            self.channels.remove(channel);
        }
        Ok(ends)
    }

    /// Redis has answered the command in flight with an error, which concerns all of its channels.
    ///
    /// Returns the channel that is refused, once it is known which one it is.
    pub(super) fn handle_refused(&mut self, now: Instant) -> Result<Option<Bytes>, OutOfTurn> {
        let Batch { kind, mut channels } = self.in_flight.take().ok_or(OutOfTurn)?;
        // An UNSUBSCRIBE that is refused leaves nothing to try but a new connection.
        if kind == Kind::Unsubscribe {
            return Err(OutOfTurn);
        }
        let limit = channels.len() / 2;
        let alone = if limit == 0 { channels.pop_front() } else { None };
        for channel in channels {
            self.after_refusal(channel, |this, name| this.enqueue_subscribe(name, limit));
        }
        let Some(channel) = alone else { return Ok(None) };
        let mut refused = None;
        self.after_refusal(channel, |this, name| {
            let place = this.place();
            this.refused.insert(place, (now + REFUSED_PAUSE, name.clone()));
            this.channels.insert(name.clone(), State::Refused { place });
            refused = Some(name);
        });
        Ok(refused)
    }

    /// Asks again for the refused channels whose pause is over.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        while let Some(entry) = self.refused.first_entry()
            && entry.get().0 <= now
        {
            let (_, channel) = entry.remove();
            self.enqueue_subscribe(channel, 1);
        }
    }

    /// The connection is gone, and every subscription with it.
    pub(super) fn handle_disconnected(&mut self) {
        self.in_flight = None;
        self.confirmed = 0;
        self.subscribe.clear();
        self.unsubscribe.clear();
        self.refused.clear();
        let (next, subscribe) = (&mut self.next, &mut self.subscribe);
        self.channels.retain(|channel, state| {
            let limit = match *state {
                State::Unsubscribe { .. }
                | State::Subscribing { wanted: false }
                | State::Unsubscribing { wanted: false } => return false,
                State::Subscribe { limit, .. } => limit,
                State::Refused { .. } => 1,
                State::Subscribed | State::Subscribing { wanted: true } | State::Unsubscribing { wanted: true } => {
                    BATCH_CHANNELS
                }
            };
            *state = State::Subscribe { place: *next, limit };
            subscribe.insert(*next, channel.clone());
            *next += 1;
            true
        });
    }

    /// Whether nothing is in flight or to be asked for. Refused channels have their answer.
    pub(super) fn is_settled(&self) -> bool {
        self.in_flight.is_none() && self.subscribe.is_empty() && self.unsubscribe.is_empty()
    }

    /// When the next refused channel is to be asked for again.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.refused.first_key_value().map(|(_, &(at, _))| at)
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
            State::Subscribe { limit, .. } => format!("{name:?} to be asked for among {limit}"),
            State::Unsubscribe { .. } => format!("{name:?} to be dropped"),
            State::Refused { .. } => format!("{name:?} refused"),
            other => format!("{name:?} {other:?}"),
        });
        let mut places: Vec<_> = self.subscribe.iter().chain(&self.unsubscribe).collect();
        places.sort();
        let places: Vec<_> = places.into_iter().map(|(_, name)| name).collect();
        let refused: Vec<_> = self.refused.values().collect();
        format!("{:?} {places:?} {refused:?} {:?}", states.collect::<Vec<_>>(), self.in_flight)
    }

    /// Takes `channel` out of the command in flight.
    ///
    /// Redis answers in the order of the arguments, so that the search ends at its first step.
    fn answered(&mut self, kind: Kind, channel: &[u8]) -> Result<(Bytes, bool), OutOfTurn> {
        let batch = self.in_flight.as_mut().filter(|batch| batch.kind == kind).ok_or(OutOfTurn)?;
        let at = batch.channels.iter().position(|name| name == channel).ok_or(OutOfTurn)?;
        let name = batch.channels.remove(at).ok_or(OutOfTurn)?;
        let ends = batch.channels.is_empty();
        if ends {
            self.in_flight = None;
        }
        Ok((name, ends))
    }

    /// Goes on with a channel whose SUBSCRIBE was refused, unless nobody wants it any more.
    fn after_refusal(&mut self, channel: Bytes, go_on: impl FnOnce(&mut Self, Bytes)) {
        if self.channels.get(&channel) == Some(&State::Subscribing { wanted: true }) {
            go_on(self, channel);
        } else {
            self.channels.remove(&channel);
        }
    }

    fn enqueue_subscribe(&mut self, channel: Bytes, limit: usize) {
        let place = self.place();
        self.subscribe.insert(place, channel.clone());
        self.channels.insert(channel, State::Subscribe { place, limit });
    }

    fn enqueue_unsubscribe(&mut self, channel: Bytes) {
        let place = self.place();
        self.unsubscribe.insert(place, channel.clone());
        self.channels.insert(channel, State::Unsubscribe { place });
    }

    fn place(&mut self) -> u64 {
        self.next += 1;
        self.next
    }
}
