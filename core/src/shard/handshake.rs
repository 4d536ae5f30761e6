//! From the first byte of a request to an open WebSocket, or to a plain answer.

use core::net::IpAddr;

use bytes::Bytes;

use super::session::{Deciding, Leaving, Member, Open, Stage};
use super::{Asked, Event, SessionId, Shard, SubscriberId, get_mut, id_of};
use crate::error::{Error, Misuse};
use crate::exchange::{ChannelId, Wish};
use crate::http::{Answer, Method, OriginRefused, Request};
use crate::note;
use crate::route::{FrameType, Target};
use crate::time::Instant;
use crate::ws::{self, CloseWhen};

/// What a client is told whose request lost what makes it a WebSocket's on the way.
const LOST_UPGRADE: &str = "a proxy in front must speak HTTP/1.1 here, and pass Upgrade and Connection on";

impl Shard {
    pub(super) fn read_head(&mut self, id: SessionId, input: &mut [u8], now: Instant) {
        let Some(session) = get_mut(&mut self.sessions, id) else { return };
        let Stage::Head(head) = &mut session.stage else { return };
        match head.reader.read(input, &self.settings.limits) {
            Ok(None) => {}
            Ok(Some((request, len))) => self.request(id, request, &input[len..], now),
            Err(error) => self.answer_error(id, error, now),
        }
    }

    /// A valid request: for operation, a file, a WebSocket, or what is wrong with it.
    fn request(&mut self, id: SessionId, request: Request, leftover: &[u8], now: Instant) {
        self.ledger.identify(id, |peer| self.settings.origins.client(&request, peer));
        if self.answer_operation(id, &request, now) {
            return;
        }
        let is_crowded = self.get(id).is_some_and(|session| session.flags.crowded);
        if is_crowded || self.closing.is_some_and(|until| until <= now) {
            return self.answer_error(id, Error::Unavailable, now);
        }
        if !request.wants_upgrade() && self.settings.files.contains_key(request.path()) {
            let settings = self.settings.clone();
            return self.answer(id, &settings.files[request.path()], request.method(), None, now);
        }
        let route = match self.settings.routes.find(request.path()) {
            Some(Ok(target)) => Some(target),
            Some(Err(error)) if !self.settings.ask => return self.answer_request_error(id, error, &request, now),
            None if !self.settings.ask => return self.answer_request_error(id, Error::NotFound, &request, now),
            Some(Err(_)) | None => None,
        };
        let upgrade = match request.upgrade() {
            Ok(upgrade) => upgrade,
            Err(error) => return self.answer_request_error(id, error, &request, now),
        };
        // Both wait for the embedder's answer.
        if leftover.len() + upgrade.offered_bytes() > self.settings.limits.head_bytes {
            return self.answer_error(id, Error::LongHead, now);
        }
        let Some(session) = self.get(id) else { return };
        let Stage::Head(head) = &session.stage else { return };
        let (peer, deadline) = (head.peer, head.deadline);
        if let Err(refused) = self.settings.origins.check(&request, peer) {
            let answer = Answer::text(403, refused.to_string());
            self.log_origin(refused, peer, now);
            return self.answer(id, &answer, request.method(), Some(Error::Origin), now);
        }
        let wants_notes = upgrade.offers(note::SUBPROTOCOL);
        let Some(session) = get_mut(&mut self.sessions, id) else { return };
        session.stage = Stage::Deciding(Box::new(Deciding { upgrade, leftover: leftover.to_vec(), deadline }));
        match route {
            Some(target) if !self.settings.ask => {
                let has_notes = wants_notes && target.frame == FrameType::Text;
                if self.accept(id, target, has_notes.then_some(note::SUBPROTOCOL), now).is_err() {
                    self.answer_error(id, Error::Unavailable, now);
                }
            }
            route => {
                self.events.push_back(Event::Request(id, Box::new(Asked { request, peer, route })));
                self.settle(id, now);
            }
        }
    }

    fn log_origin(&mut self, refused: OriginRefused, peer: Option<IpAddr>, now: Instant) {
        if let Some(unsaid) = self.said_origin.say(peer, refused.clone(), now) {
            let (OriginRefused { origin, host, .. }, advice) = (&refused, refused.advice());
            let peer = peer.map(tracing::field::display);
            tracing::info!(
                event = "origin_refused",
                origin,
                host,
                peer,
                unsaid,
                "pages of this origin may not connect; {advice}"
            );
        }
    }

    /// The session enters its channel; the 101 leaves as soon as that is subscribed.
    pub(super) fn join(&mut self, id: SessionId, now: Instant) {
        let Some(session) = get_mut(&mut self.sessions, id) else { return };
        let Stage::Joining(joining) = &mut session.stage else { return };
        let Target { channel: name, frame, rights, .. } = &mut joining.target;
        if !rights.subscribe {
            return self.open(id, now);
        }
        let (channel, new) = self.channels.find_or_add(name, *frame);
        if new {
            self.to_bus.wishes.push(Wish::Subscribe { channel, name: name.clone(), frame: *frame });
        }
        let entered = self.channels.at_mut(channel.index);
        // All sessions of a channel share one name.
        *name = entered.name.clone();
        session.member = Some(Member { channel: channel.index, place: entered.members.len() as u32 });
        entered.members.push(id.index);
        if entered.subscribed {
            self.open(id, now);
        } else {
            self.settle(id, now);
        }
    }

    /// The bus delivers every message of the channel from here on.
    pub(super) fn channel_subscribed(&mut self, channel: ChannelId, now: Instant) {
        self.gap_ended(channel, now);
        let Some(channel) = self.channels.get_mut(channel) else { return };
        channel.subscribed = true;
        let waiting: Vec<SessionId> = channel
            .members
            .iter()
            .map(|&index| (index, &self.sessions[index as usize]))
            .filter(|(_, session)| matches!(session.stage, Stage::Joining(_)))
            .map(|(index, session)| id_of(index, session))
            .collect();
        for &subscriber in &channel.subscribers {
            self.events.push_back(Event::Subscribed(subscriber));
        }
        for id in waiting {
            self.open(id, now);
        }
    }

    /// The 101 leaves, and what came behind the request are frames.
    fn open(&mut self, id: SessionId, now: Instant) {
        let jitter = self.rng.u8(..);
        let Some(session) = get_mut(&mut self.sessions, id) else { return };
        let Stage::Joining(joining) = &mut session.stage else { return };
        let switch = joining.switch.take();
        let leftover = std::mem::take(&mut joining.leftover);
        let target = joining.target.clone();
        let channel = target.channel.clone();
        session.stage = Stage::Open(Open::new(ws::Session::new(jitter, now), target));
        session.note_alive(0, &self.settings.limits);
        if let Some(switch) = switch {
            session.answer = Some(Box::new(Leaving::new(switch)));
        }
        self.keep_leftover(id, leftover, now);
        self.ledger.opened(id, &channel, now);
        self.stats.opened += 1;
        self.events.push_back(Event::Opened(id));
        self.close_latecomer(id, now);
        self.settle(id, now);
    }

    /// Whoever waits for a 101 gets an error instead.
    pub(super) fn answer_error(&mut self, id: SessionId, error: Error, now: Instant) {
        let Some(session) = self.get(id) else { return };
        let method = match &session.stage {
            Stage::Head(head) => head.reader.method(),
            Stage::Scraping { method, .. } => *method,
            Stage::Joining(joining) if joining.switch.is_none() => return self.close_adopted(id, error, now),
            _ => Method::Get,
        };
        self.answer(id, &Answer::for_error(error), method, Some(error), now);
    }

    /// An adopted session speaks WebSocket already, so that no HTTP answer can tell it what is wrong.
    fn close_adopted(&mut self, id: SessionId, error: Error, now: Instant) {
        let Some(session) = get_mut(&mut self.sessions, id) else { return };
        let Stage::Joining(joining) = &session.stage else { return };
        let mut ws = ws::Session::new(0, now);
        let code = if error == Error::Unavailable { 1001 } else { 1013 };
        // Only a session that is not open refuses that.
        let _ = ws.close(code, error.text(), CloseWhen::Now, now);
        session.stage = Stage::Open(Open::new(ws, joining.target.clone()));
        self.stats.errors.count(error);
        self.settle(id, now);
    }

    fn answer_request_error(&mut self, id: SessionId, error: Error, request: &Request, now: Instant) {
        let answer = match error {
            Error::Method => Answer::for_error(error).with_field("Allow", "GET"),
            Error::UpgradeRequired if request.header("sec-websocket-key").is_some() && !request.wants_upgrade() => {
                Answer::text(426, format!("{error}; {LOST_UPGRADE}.\n"))
            }
            _ => Answer::for_error(error),
        };
        self.answer(id, &answer, request.method(), Some(error), now);
    }

    pub(super) fn answer(
        &mut self,
        id: SessionId,
        answer: &Answer,
        method: Method,
        error: Option<Error>,
        now: Instant,
    ) {
        let deadline = now + self.settings.limits.close_time;
        let since_epoch = self.wall_clock.map(|at_zero| at_zero + now.since(Instant::ZERO));
        self.leave(id);
        let Some(session) = get_mut(&mut self.sessions, id) else { return };
        session.stage = Stage::Answered { deadline, error };
        if let Some(error) = error {
            self.stats.errors.count(error);
        }
        session.answer = Some(Box::new(Leaving::new(answer.encode_at(method, since_epoch))));
        self.settle(id, now);
    }

    // Subscribers that are not sockets.

    /// Subscribes the embedder itself to a channel: [`Event::Run`]s follow, from [`Event::Subscribed`] on every one.
    ///
    /// # Errors
    /// [`Misuse::InvalidArgument`] if the channel's name is empty or too long, or the channel carries the other frame
    /// type; nothing changes.
    pub fn subscribe(&mut self, channel: &Bytes, frame: FrameType) -> Result<SubscriberId, Misuse> {
        self.channels.check_name(channel, frame, &self.settings)?;
        self.subscribers += 1;
        let subscriber = SubscriberId(self.subscribers);
        let (id, new) = self.channels.find_or_add(channel, frame);
        if new {
            self.to_bus.wishes.push(Wish::Subscribe { channel: id, name: channel.clone(), frame });
        }
        let channel = self.channels.at_mut(id.index);
        channel.subscribers.push(subscriber);
        if channel.subscribed {
            self.events.push_back(Event::Subscribed(subscriber));
        }
        Ok(subscriber)
    }

    /// Ends a subscription of the embedder's. What is in the queue of events for it stays there.
    ///
    /// # Errors
    /// [`Misuse::NoSuchSession`] if `channel` has no such subscriber; nothing changes.
    pub fn unsubscribe(&mut self, channel: &[u8], subscriber: SubscriberId) -> Result<(), Misuse> {
        let index = self.channels.index_of(channel).ok_or(Misuse::NoSuchSession)?;
        let subscribers = &mut self.channels.at_mut(index).subscribers;
        let place = subscribers.iter().position(|&one| one == subscriber).ok_or(Misuse::NoSuchSession)?;
        subscribers.swap_remove(place);
        self.drop_channel_if_empty(index);
        Ok(())
    }

    /// The session leaves its channel, if it is in one.
    pub(super) fn leave(&mut self, id: SessionId) {
        let Some(session) = get_mut(&mut self.sessions, id) else { return };
        let Some(member) = session.member.take() else { return };
        let members = &mut self.channels.at_mut(member.channel).members;
        members.swap_remove(member.place as usize);
        if members.len() < members.capacity() / 4 {
            members.shrink_to(members.capacity() / 2);
        }
        if let Some(&moved) = members.get(member.place as usize)
            && let Some(moved) = &mut self.sessions[moved as usize].member
        {
            moved.place = member.place;
        }
        self.drop_channel_if_empty(member.channel);
    }

    fn drop_channel_if_empty(&mut self, index: u32) {
        if let Some((channel, name)) = self.channels.remove_if_empty(index) {
            self.to_bus.wishes.push(Wish::Unsubscribe { channel, name });
        }
    }
}
