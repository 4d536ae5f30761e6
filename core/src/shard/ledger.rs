//! A log line when a session opens and when it ends, if that level is on.

use core::fmt;
use core::net::IpAddr;
use std::collections::BTreeMap;

use super::id::SessionId;
use crate::error::{Closed, Side};
use crate::http::Client;
use crate::quote::cut_bytes;
use crate::time::Instant;

/// What these lines are called in `--log-level`.
const SESSIONS: &str = "fanfare_core::sessions";

/// Numbers all sessions of a shard, and knows those that are there while their lines are wanted.
#[derive(Debug)]
pub(super) struct Ledger {
    /// Random, so that no number comes twice, in whatever process.
    first: u64,
    /// Sessions so far.
    count: u64,
    known: BTreeMap<SessionId, Entry>,
}

#[derive(Debug)]
struct Entry {
    client: Client,
    /// When it came, and then when it was open.
    since: Instant,
    /// Once it is open.
    channel: Option<Box<str>>,
}

/// Names a session for good, where its id is another's sooner or later.
pub(super) struct Number(u64);

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl Ledger {
    pub(super) fn new(seed: u64) -> Self {
        // Apart from what else is drawn from the seed.
        let first = fastrand::Rng::with_seed(!seed).u64(..);
        Self { first, count: 0, known: BTreeMap::new() }
    }

    pub(super) fn count(&mut self) {
        self.count += 1;
    }

    /// The number of a session that was counted among the last 2³².
    pub(super) fn number(&self, id: SessionId) -> Number {
        let younger = (self.count as u32).wrapping_sub(id.generation);
        Number(self.first.wrapping_add(self.count.wrapping_sub(u64::from(younger))))
    }

    /// A connection was accepted.
    pub(super) fn begin(&mut self, id: SessionId, peer: Option<IpAddr>, now: Instant) {
        if tracing::enabled!(target: SESSIONS, tracing::Level::DEBUG) {
            let client = Client { address: peer, proxy: None };
            self.known.insert(id, Entry { client, since: now, channel: None });
        }
    }

    /// Its request says who it is, which `client` finds out.
    pub(super) fn identify(&mut self, id: SessionId, client: impl FnOnce(Option<IpAddr>) -> Client) {
        if let Some(entry) = self.known.get_mut(&id) {
            entry.client = client(entry.client.address);
        }
    }

    pub(super) fn opened(&mut self, id: SessionId, channel: &[u8], now: Instant) {
        let session = self.number(id);
        let Some(entry) = self.known.get_mut(&id) else { return };
        let channel = &*cut_bytes(channel);
        (entry.since, entry.channel) = (now, Some(channel.into()));
        let (client, proxy) = entry.client.fields();
        tracing::debug!(target: SESSIONS, event = "session_opened", %session, client, proxy, channel, "a session is open");
    }

    pub(super) fn ended(&mut self, id: SessionId, closed: &Closed, now: Instant) {
        let session = self.number(id);
        let Some(entry) = self.known.remove(&id) else { return };
        let (client, proxy) = entry.client.fields();
        let (code, error) = (closed.code, closed.error.map(|error| error.text()));
        let by = match closed.by {
            Side::Local => "server",
            Side::Peer => "client",
            Side::Transport => "network",
        };
        let seconds = now.since(entry.since).as_secs_f64();
        if let Some(channel) = entry.channel.as_deref() {
            tracing::debug!(
                target: SESSIONS,
                event = "session_closed",
                %session, client, proxy, channel, seconds, by, code, error,
                "a session has ended"
            );
        } else if let Some(error) = error {
            tracing::debug!(
                target: SESSIONS,
                event = "request_refused",
                %session, client, proxy, by, error,
                "a connection ended before it became a session"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_number_comes_twice() {
        let mut ledger = Ledger::new(7);
        let mut number = |generation| {
            ledger.count();
            ledger.number(SessionId { index: 3, generation }).0
        };
        let first = number(1);
        assert_eq!((number(2), number(3)), (first.wrapping_add(1), first.wrapping_add(2)));
        ledger.count = u64::from(u32::MAX) + 5;
        let id = |generation| SessionId { index: 3, generation };
        assert_eq!(ledger.number(id(4)).0, first.wrapping_add(u64::from(u32::MAX) + 4), "generations come again");
        assert_eq!(ledger.number(id(u32::MAX)).0, first.wrapping_add(u64::from(u32::MAX) - 1));
        assert_ne!(Ledger::new(8).first, Ledger::new(7).first);
    }
}
