//! What sessions are told of what they do not get, and which of them a gap ends.

use fanfare_core::route::{OnGap, Slow};
use fanfare_core::time::{Duration, Instant};

use super::messages::MessageId;
use super::reference::{Reference, Verdict, Visit};
use super::verdict::Promise;

/// An instance's driver may learn a little late of what is over.
const LATE: Duration = Duration::from_secs(1);

impl Visit {
    /// The client has sent one more message.
    pub(super) fn count_sent(&mut self) {
        self.told.sent += 1;
    }

    /// The client was told that its connection lives, and how many of its messages were taken.
    fn hear_alive(&mut self, note: &str) -> Verdict {
        let received =
            note.split_once(r#","received":"#).and_then(|(_, number)| number.trim_end_matches('}').parse().ok());
        let before = self.told.received.replace(received.unwrap_or(u64::MAX));
        if received.is_some_and(|received| before.unwrap_or(0) <= received && received <= self.told.sent) {
            return Ok(());
        }
        let what =
            format!("client {} sent {} messages and was told {note} after {before:?}", self.client, self.told.sent);
        Err((Promise::Protocol, what))
    }
}

/// What a client has been told and not yet seen the other side of.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// Messages that it lost as a slow reader, since the last that came.
    dropped: u64,
    /// Messages that its worker lost, since the last that came.
    missed: u64,
    /// Messages that it has sent, and how many of them it was told were taken.
    sent: u64,
    received: Option<u64>,
    /// When the first message was published that passed by its instance, of which it was not told.
    owed: Option<Instant>,
}

impl Reference {
    /// The client got a note.
    pub(super) fn told(&mut self, visit: usize, note: &[u8]) -> Verdict {
        let note = String::from_utf8_lossy(note).into_owned();
        let view = &mut self.visits[visit];
        if let Some(alive) = note.strip_prefix(r#"{"type":"alive","seconds":"#) {
            return view.hear_alive(alive);
        }
        if let Some(messages) = note.strip_prefix(r#"{"type":"dropped","messages":"#) {
            view.told.dropped += messages.trim_end_matches('}').parse::<u64>().unwrap_or_default();
            return Ok(());
        }
        if let Some(messages) = note.strip_prefix(r#"{"type":"gap","messages":"#) {
            view.told.missed += messages.trim_end_matches('}').parse::<u64>().unwrap_or_default();
        }
        let is_gap = note.starts_with(r#"{"type":"gap","#);
        if !note.starts_with(r#"{"type":"gap_began","#) {
            view.told.owed = None;
        } else if !self.was_calm(&self.visits[visit]) {
            return Ok(());
        }
        if is_gap && (note.contains("messages") || !self.was_calm(&self.visits[visit])) {
            return Ok(());
        }
        let client = self.visits[visit].client;
        Err((Promise::Protocol, format!("client {client} was told {note}, and no gap was there")))
    }

    /// A message passed by the session.
    pub(super) fn passed_by_visit(&mut self, visit: usize, at: Instant) {
        let owed = &mut self.visits[visit].told.owed;
        *owed = Some(owed.map_or(at, |owed| owed.min(at)));
    }

    /// A message came behind what was lost in a gap: the client must have been told, or be closed instead.
    pub(super) fn check_told(&self, visit: usize, message: MessageId) -> Verdict {
        let view = &self.visits[visit];
        let tight = self.room(view.room).policies.on_gap == OnGap::Close;
        let at = self.messages.get(message).at;
        if (view.notes || tight) && view.told.owed.is_some_and(|owed| owed < at) {
            let what = format!("client {} got message {message} and never heard of the gap before it", view.client);
            return Err((Promise::NoSilentLoss, what));
        }
        Ok(())
    }

    /// A client got a message behind `skipped` that it did not get. Says how many of these nobody has accounted for.
    pub(super) fn unexplained(&mut self, visit: usize, skipped: u64, is_first: bool) -> Result<u64, (Promise, String)> {
        let view = &mut self.visits[visit];
        if self.rooms[view.room].policies.slow == Slow::Close {
            return Ok(skipped);
        }
        if !view.notes {
            self.instances[view.instance].dropped += skipped;
            return Ok(0);
        }
        let (dropped, missed) = (std::mem::take(&mut view.told.dropped), std::mem::take(&mut view.told.missed));
        // Those that were on the way when it came may count, and are none of its own.
        if dropped > skipped && !is_first {
            let what = format!("client {} misses {skipped} messages and was told of {dropped}", view.client);
            return Err((Promise::NoSilentLoss, what));
        }
        // Which of them the worker lost and which the session is not known.
        if dropped > 0 && skipped > dropped + missed {
            let told = dropped + missed;
            let what = format!("client {} misses {skipped} messages and was told of only {told}", view.client);
            return Err((Promise::NoSilentLoss, what));
        }
        Ok(if dropped > 0 { 0 } else { skipped })
    }

    /// Messages that sessions which want no notes did not get, on routes that drop some.
    pub(super) fn dropped(&self, instance: usize) -> u64 {
        self.instances[instance].dropped
    }

    /// The instance has dropped messages to one of its workers.
    pub(super) fn set_missed(&mut self, instance: usize) {
        self.instances[instance].has_missed = true;
    }

    /// Whether a gap may be about to end the session, or has.
    pub(super) fn may_be_doomed(&self, view: &Visit) -> bool {
        let is_tight = self.room(view.room).policies.on_gap == OnGap::Close;
        is_tight && (!self.was_calm(view) || self.instances[view.instance].has_missed)
    }

    /// Whether nothing was between the instance and Redis since the session was open.
    fn was_calm(&self, view: &Visit) -> bool {
        let opened = view.opened_at.unwrap_or(Instant::ZERO);
        self.instances[view.instance].calm.is_some_and(|since| since + LATE < opened || since == Instant::ZERO)
    }
}
