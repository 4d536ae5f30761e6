//! The handshake: from the first byte of a request to an open WebSocket, or to a plain answer.

use core::net::IpAddr;

use super::session::{Deciding, Joining, Leaving, Stage};
use super::{Asked, Event, SessionId, Shard, get_mut};
use crate::error::{Error, Misuse};
use crate::http::{Answer, Method, OriginRefused, Request};
use crate::note;
use crate::route::{FrameType, Target};
use crate::time::Instant;
use crate::ws::{self, CloseWhen};

/// The advice to a client whose request lost on the way the fields that ask for a WebSocket.
const LOST_UPGRADE: &str = "a proxy in front must speak HTTP/1.1 here, and pass Upgrade and Connection on";

impl Shard {
    /// Answers [`Event::Request`]: the client joins `target`'s channel, with one of the subprotocols that it offered
    /// or none. The 101 leaves when the channel is subscribed. With [`note::SUBPROTOCOL`] and no other the session gets
    /// notes, whatever `target` says.
    ///
    /// # Errors
    /// [`Misuse::WrongState`] if the session does not wait for an answer, [`Misuse::Subprotocol`], [`Misuse::Notes`] if
    /// the subprotocol is that of [`note`] and the channel binary, [`Misuse::ChannelName`], [`Misuse::FrameType`],
    /// [`Misuse::NoSuchSession`].
    pub fn accept(
        &mut self,
        id: SessionId,
        mut target: Target,
        subprotocol: Option<&str>,
        now: Instant,
    ) -> Result<(), Misuse> {
        let now = self.at(now);
        let session = get_mut(&mut self.sessions, id).ok_or(Misuse::NoSuchSession)?;
        let Stage::Deciding(deciding) = &mut session.stage else { return Err(Misuse::WrongState) };
        let switch = Some(deciding.upgrade.answer(subprotocol)?);
        target.notes = subprotocol == Some(note::SUBPROTOCOL);
        self.channels.check(&target, &self.settings)?;
        let leftover = std::mem::take(&mut deciding.leftover);
        let confirmed = now + self.settings.limits.confirm_time;
        let deadline = self.ending.closes_by().map_or(confirmed, |until| until.min(confirmed));
        session.stage = Stage::Joining(Box::new(Joining { switch, target, leftover, deadline }));
        self.join(id, now);
        Ok(())
    }

    /// Answers [`Event::Request`] with a plain HTTP answer, for instance `Answer::text(401, "Who are you?")` or
    /// [`Answer::for_error`]. The session's [`Closed`](crate::error::Closed) will say [`Error::Forbidden`].
    ///
    /// # Errors
    /// [`Misuse::WrongState`] if the session does not wait for an answer, [`Misuse::Status`],
    /// [`Misuse::NoSuchSession`]; nothing changes.
    pub fn refuse(&mut self, id: SessionId, answer: &Answer, now: Instant) -> Result<(), Misuse> {
        let now = self.at(now);
        let session = self.get(id).ok_or(Misuse::NoSuchSession)?;
        let Stage::Deciding(_) = &session.stage else { return Err(Misuse::WrongState) };
        if !(200..600).contains(&answer.status) {
            return Err(Misuse::Status);
        }
        self.answer(id, answer, Method::Get, Some(Error::Forbidden), now);
        Ok(())
    }

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
        if is_crowded || self.ending.closes_by().is_some_and(|until| until <= now) {
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

    /// The 101 leaves, and what came behind the request are frames.
    pub(super) fn open(&mut self, id: SessionId, now: Instant) {
        let jitter = self.rng.u8(..);
        let Some(session) = get_mut(&mut self.sessions, id) else { return };
        let Stage::Joining(joining) = &mut session.stage else { return };
        let switch = joining.switch.take();
        let leftover = std::mem::take(&mut joining.leftover);
        let target = joining.target.clone();
        let channel = target.channel.clone();
        session.open(ws::Session::new(jitter, now), target);
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

    /// A client that waits for a 101 gets an error instead.
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
        if let Some(code) = error.told().code() {
            // Only a session that is not open refuses that.
            let _ = ws.close(code, error.text(), CloseWhen::Now, now);
        }
        let target = joining.target.clone();
        session.open(ws, target);
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
}
