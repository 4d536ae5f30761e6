//! Every state that three channels can come to, by any events in any order.

use std::collections::{BTreeSet, HashSet, VecDeque};

use crate::redis::subscriptions::{Kind, REFUSED_PAUSES, Subscriptions};
use crate::time::Instant;

const CHANNELS: [&str; 3] = ["a", "b", "c"];

#[derive(Clone, Copy, Debug)]
enum Event {
    Want(usize),
    Unwant(usize),
    /// What there is to ask for leaves.
    Ask,
    /// Redis answers one channel of the oldest command in flight.
    Confirm,
    /// Redis answers the oldest command in flight with an error.
    Refuse,
    /// Redis answers the oldest command in flight that it cannot carry it out at the moment.
    NotNow,
    /// With it goes what was in flight, whether Redis had carried it out or not.
    Disconnect,
    /// Time passes until everything may be asked for again.
    Pass,
}

#[derive(Clone, Default)]
struct Model {
    subscriptions: Subscriptions,
    wanted: BTreeSet<&'static str>,
    /// What Redis has subscribed on the present connection.
    server: BTreeSet<String>,
    /// What is left of each command in flight, and whether something of it was answered.
    asked: VecDeque<(Kind, Vec<String>, bool)>,
    /// Channels of which the owner was told that they are confirmed, on any connection.
    told: BTreeSet<String>,
    now: Instant,
}

impl Model {
    /// Returns whether the event was possible.
    fn apply(&mut self, event: Event) -> bool {
        match event {
            Event::Want(i) => {
                self.wanted.insert(CHANNELS[i]);
                if self.subscriptions.want(CHANNELS[i].into()) {
                    assert!(self.server.contains(CHANNELS[i]), "confirmed means confirmed");
                    self.told.insert(CHANNELS[i].to_owned());
                }
            }
            Event::Unwant(i) => {
                self.wanted.remove(CHANNELS[i]);
                self.told.remove(CHANNELS[i]);
                self.subscriptions.unwant(CHANNELS[i].as_bytes());
            }
            Event::Ask => {
                if !self.ask() {
                    return false;
                }
            }
            Event::Confirm => {
                if self.asked.is_empty() {
                    return false;
                }
                self.confirm();
            }
            Event::Refuse => {
                // Redis carries out a command as a whole or not at all.
                if !matches!(self.asked.front(), Some((Kind::Subscribe, _, false))) {
                    return false;
                }
                self.asked.pop_front();
                self.subscriptions.handle_refused(self.now).expect("in turn");
            }
            Event::NotNow => {
                if !matches!(self.asked.front(), Some((_, _, false))) {
                    return false;
                }
                self.asked.pop_front();
                let confirmed = self.subscriptions.handle_not_now(self.now).expect("in turn");
                for channel in confirmed {
                    let channel = String::from_utf8(channel.to_vec()).expect("text");
                    assert!(self.wanted.contains(&channel[..]) && self.server.contains(&channel));
                    self.told.insert(channel);
                }
            }
            Event::Disconnect => {
                self.server.clear();
                self.asked.clear();
                self.told.clear();
                self.subscriptions.handle_disconnected();
            }
            Event::Pass => {
                self.now = self.now + REFUSED_PAUSES.1;
                self.subscriptions.handle_timeout(self.now);
            }
        }
        assert_eq!(self.subscriptions.wanted(), self.wanted.len());
        assert_eq!(self.subscriptions.confirmed(), self.server.len());
        true
    }

    /// The same for models with the same future.
    fn shape(&self) -> String {
        let (asked, shape) = (&self.asked, self.subscriptions.shape());
        format!("{:?} {:?} {:?} {asked:?} {shape}", self.wanted, self.server, self.told)
    }

    fn confirm(&mut self) {
        let (kind, channels, is_begun) = self.asked.front_mut().expect("something is in flight");
        *is_begun = true;
        let (kind, channel, is_last) = (*kind, channels.remove(0), channels.is_empty());
        let ends = match kind {
            Kind::Subscribe => {
                assert!(self.server.insert(channel.clone()), "asked for twice: {channel}");
                let (wanted, ends) = self.subscriptions.handle_subscribed(channel.as_bytes()).expect("in turn");
                assert_eq!(wanted.is_some(), self.wanted.contains(&channel[..]));
                self.told.extend(wanted.map(|_| channel));
                ends
            }
            Kind::Unsubscribe => {
                assert!(self.server.remove(&channel), "dropped twice: {channel}");
                self.subscriptions.handle_unsubscribed(channel.as_bytes()).expect("in turn")
            }
        };
        assert_eq!(ends, is_last);
        if is_last {
            self.asked.pop_front();
        }
    }

    /// Writes one command, whether or not others are in flight.
    fn ask(&mut self) -> bool {
        let Some(batch) = self.subscriptions.next_batch() else { return false };
        let name = |channel: &bytes::Bytes| String::from_utf8(channel.to_vec()).unwrap();
        let channels: Vec<_> = batch.channels.iter().map(name).collect();
        let in_flight = |channel| self.asked.iter().any(|(_, channels, _)| channels.contains(channel));
        assert!(!channels.is_empty() && !channels.iter().any(in_flight), "a channel is in one command at a time");
        self.asked.push_back((batch.kind(), channels, false));
        true
    }

    /// Redis answers everything from now on: the sets become equal in a few steps.
    fn converge(&mut self) {
        for _ in 0..2 {
            while self.apply(Event::Ask) || self.apply(Event::Confirm) {}
            self.apply(Event::Pass);
        }
        let server: BTreeSet<&str> = self.server.iter().map(String::as_str).collect();
        assert_eq!(server, self.wanted);
        let told: BTreeSet<&str> = self.told.iter().map(String::as_str).collect();
        assert_eq!(told, self.wanted, "the owner knows");
        assert!(self.subscriptions.is_settled() && self.subscriptions.deadline().is_none());
    }
}

/// Disconnects, changes of mind, refusals and confirmations that come late or never, as many as one likes: there are not
/// that many states. From each of them the sets become equal.
#[test]
fn wanted_and_confirmed_channels_become_equal_after_any_events_in_any_order() {
    let mut events = vec![Event::Ask, Event::Confirm, Event::Refuse, Event::NotNow, Event::Disconnect, Event::Pass];
    events.extend((0..CHANNELS.len()).flat_map(|i| [Event::Want(i), Event::Unwant(i)]));
    let mut seen = HashSet::new();
    let mut unexplored = vec![Model::default()];
    while let Some(model) = unexplored.pop() {
        for &event in &events {
            let mut next = Model { now: Instant::ZERO, ..model.clone() };
            if next.apply(event) && seen.insert(next.shape()) {
                next.clone().converge();
                unexplored.push(next);
            }
        }
    }
    assert!(seen.len() > 9_000, "{} states", seen.len());
}

#[test]
fn a_refused_unsubscribe_leaves_nothing_but_a_new_connection() {
    let mut model = Model::default();
    for event in [Event::Want(0), Event::Ask, Event::Confirm, Event::Unwant(0), Event::Ask] {
        assert!(model.apply(event));
    }
    assert!(model.subscriptions.handle_refused(model.now).is_err());
}

#[test]
fn answers_that_nobody_asked_for_are_found() {
    let mut model = Model::default();
    assert!(model.subscriptions.handle_subscribed(b"a").is_err());
    assert!(model.apply(Event::Want(0)) && model.apply(Event::Ask));
    assert!(model.subscriptions.handle_subscribed(b"b").is_err());
    assert!(model.subscriptions.handle_unsubscribed(b"a").is_err());
    assert!(model.subscriptions.handle_subscribed(b"a").is_ok());
    assert!(model.subscriptions.handle_subscribed(b"a").is_err());
}
