//! What a hub's program can see of its sessions and channels, and which sessions it closes.
//!
//! A worker is asked for so many places at a time that its turn stays short, whatever the number of sessions.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use super::desk::{Command, Reply};
use super::error::HubError;
use super::hub::Hub;
use super::mailbox::Mailbox;
use super::runtime::Runtime;
use fanfare_core::error::Misuse;
use fanfare_core::exchange::WorkerId;
use fanfare_core::route::{FrameType, Target};
use fanfare_core::shard::{ChannelInfo, Decision, SessionId, SessionInfo, Shard};
use fanfare_core::ws::{MAX_REASON, may_be_sent};

/// Places that a worker looks at in one turn for one caller.
const PLACES_AT_ONCE: usize = 1 << 10;

/// One session of a [`Hub`], as it was when the hub was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HubSession {
    /// What it was given by [`Hub::adopt_tagged`] or [`Reserved::tag`](crate::Reserved::tag).
    pub tag: Option<u64>,
    /// Its channel, and what it may do there.
    pub target: Target,
    /// Whether it is open. If not, it waits for its channel to be subscribed.
    pub is_open: bool,
    /// Bytes that wait for it, counted as [`Limits::queue_bytes`](fanfare_core::limits::Limits::queue_bytes) counts.
    pub queue_bytes: usize,
    id: SessionId,
}

/// One channel of a [`Hub`], as it was when the hub was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HubChannel {
    /// Its name.
    pub name: Bytes,
    /// The type of all its messages.
    pub frame: FrameType,
    /// Sessions that receive it.
    pub sessions: usize,
    /// [`Subscription`](crate::Subscription)s to it.
    pub subscriptions: usize,
}

/// A client's message that a hub's function decides about.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct HubMessage<'a> {
    /// Its session's, from [`Hub::adopt_tagged`] or [`Reserved::tag`](crate::Reserved::tag).
    pub tag: Option<u64>,
    /// Its channel.
    pub channel: &'a Bytes,
    /// What the client said; UTF-8 if the channel is of text.
    pub payload: &'a Bytes,
}

/// The function of a program that decides about messages.
#[derive(Clone)]
pub(super) struct Reviewer(pub(super) Arc<dyn Fn(&HubMessage<'_>) -> Decision + Send + Sync>);

impl fmt::Debug for Reviewer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reviewer")
    }
}

/// Some places of one worker.
#[derive(Debug)]
pub(super) struct Page<T> {
    items: Vec<T>,
    /// Where to go on.
    next: Option<usize>,
}

impl<T> Page<T> {
    fn new(first: usize, places: usize, items: impl FnOnce(std::ops::Range<usize>) -> Vec<T>) -> Self {
        let end = first.saturating_add(PLACES_AT_ONCE).min(places);
        Self { items: items(first.min(end)..end), next: (end < places).then_some(end) }
    }
}

/// Where a caller's next page begins.
#[derive(Default)]
struct At {
    worker: WorkerId,
    place: usize,
}

pub(super) fn sessions(shard: &Shard, tags: &BTreeMap<SessionId, u64>, first: usize) -> Page<HubSession> {
    let item = |session: SessionInfo<'_>| HubSession {
        tag: tags.get(&session.id).copied(),
        target: session.target.clone(),
        is_open: session.is_open,
        queue_bytes: session.queue_bytes,
        id: session.id,
    };
    Page::new(first, shard.session_places(), |places| shard.sessions(places).map(item).collect())
}

pub(super) fn channels(shard: &Shard, first: usize) -> Page<HubChannel> {
    let item = |channel: ChannelInfo<'_>| HubChannel {
        name: channel.name.clone(),
        frame: channel.frame,
        sessions: channel.sessions,
        subscriptions: channel.subscribers,
    };
    Page::new(first, shard.channel_places(), |places| shard.channels(places).map(item).collect())
}

impl<R: Runtime> Hub<R> {
    /// The number of sessions, those among them that are reserved or wait for their channel.
    #[must_use]
    pub fn session_count(&self) -> usize {
        Mailbox::sessions(&self.shared.mailboxes)
    }

    /// All sessions, in no order, without those that are closing. A session that comes or goes meanwhile may be in it or
    /// not.
    ///
    /// # Errors
    /// [`HubError::Stopped`].
    pub async fn sessions(&self) -> Result<Vec<HubSession>, HubError> {
        let mut all = Vec::new();
        let mut at = At::default();
        while let Some(page) = self.next_page(&mut at, |first, reply| Command::Sessions { first, reply }).await? {
            all.extend(page);
        }
        Ok(all)
    }

    /// All channels with a session or a subscription, sorted by name. One that comes or goes meanwhile may be in it or not.
    ///
    /// # Errors
    /// [`HubError::Stopped`].
    pub async fn channels(&self) -> Result<Vec<HubChannel>, HubError> {
        let mut all = BTreeMap::<Bytes, HubChannel>::new();
        let mut at = At::default();
        while let Some(page) = self.next_page(&mut at, |first, reply| Command::Channels { first, reply }).await? {
            for item in page {
                all.entry(item.name.clone())
                    .and_modify(|channel| {
                        channel.sessions += item.sessions;
                        channel.subscriptions += item.subscriptions;
                    })
                    .or_insert(item);
            }
        }
        Ok(all.into_values().collect())
    }

    /// Closes the sessions that `which` chooses, with this close code and reason, behind what waits for them; returns how
    /// many. A session that waits for its channel is closed when it is open. Sessions that come meanwhile may be missed:
    /// first see to it that your own code adopts no more of them.
    ///
    /// All clients that are closed may connect again at once; close a few at a time if they are many.
    ///
    /// # Errors
    /// [`HubError::Misuse`] with [`Misuse::CloseCode`] or [`Misuse::CloseReason`], and no session is closed;
    /// [`HubError::Stopped`], and some may be.
    pub async fn close_sessions(
        &self,
        code: u16,
        reason: &str,
        mut which: impl FnMut(&HubSession) -> bool,
    ) -> Result<usize, HubError> {
        if !may_be_sent(code) {
            return Err(HubError::Misuse(Misuse::CloseCode));
        }
        if reason.len() > MAX_REASON {
            return Err(HubError::Misuse(Misuse::CloseReason));
        }
        let mut closed = 0;
        let mut at = At::default();
        loop {
            let worker = at.worker;
            let page = self.next_page(&mut at, |first, reply| Command::Sessions { first, reply }).await?;
            let Some(page) = page else { return Ok(closed) };
            let chosen: Vec<_> = page.iter().filter(|session| which(session)).map(|session| session.id).collect();
            if !chosen.is_empty() {
                let close = |reply| Command::Close { sessions: chosen, code, reason: reason.into(), reply };
                closed += self.ask(worker, close).await?;
            }
        }
    }

    /// The places from `at` on, which moves behind them; `None` behind those of the last worker.
    async fn next_page<T>(
        &self,
        at: &mut At,
        command: impl FnOnce(usize, Reply<Page<T>>) -> Command<R::Stream>,
    ) -> Result<Option<Vec<T>>, HubError> {
        if at.worker == self.shared.mailboxes.len() {
            return Ok(None);
        }
        let page = self.ask(at.worker, |reply| command(at.place, reply)).await?;
        *at = match page.next {
            Some(place) => At { place, ..*at },
            None => At { worker: at.worker + 1, place: 0 },
        };
        Ok(Some(page.items))
    }

    /// Asks a worker, and waits for its answer.
    pub(super) async fn ask<T>(
        &self,
        worker: WorkerId,
        command: impl FnOnce(Reply<T>) -> Command<R::Stream>,
    ) -> Result<T, HubError> {
        let reply = Reply::default();
        let answer = reply.0.clone();
        self.shared.command(worker, command(reply))?;
        answer.wait(Option::take).await
    }
}
