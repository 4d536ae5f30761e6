//! `/live`, `/ready` and `/metrics`, and the connections to the admin address.

use super::session::Stage;
use super::shutdown::Ending;
use super::{Event, SessionId, Shard, get_mut};
use crate::error::{Error, Misuse, Unready};
use crate::http::{Answer, Method, Request};
use crate::time::Instant;

impl Shard {
    /// A connection for operation was accepted, on an address that is not the clients'. It gets `/live`, `/ready` and
    /// `/metrics` ([`Event::Scrape`]), also during a shutdown, and nothing else; [`Shard::is_empty`] does not wait for it.
    pub fn handle_admin_connection(&mut self, now: Instant) -> SessionId {
        let now = self.at(now);
        let id = self.connect(None, now);
        self.sessions[id.index()].flags.admin = true;
        self.admins += 1;
        id
    }

    /// Whether the instance can deliver from end to end and is to stay, as far as this shard has heard, and why not: what
    /// `/ready` tells.
    ///
    /// # Errors
    /// The reason.
    pub const fn readiness(&self) -> Result<(), Unready> {
        if matches!(self.ending, Ending::Serving) { self.readiness } else { Err(Unready::Draining) }
    }

    /// Answers [`Event::Scrape`].
    ///
    /// # Errors
    /// [`Misuse::WrongState`] if the session does not wait for this, [`Misuse::Status`] for a status that is
    /// not 200 to 599, [`Misuse::NoSuchSession`]; nothing changes.
    pub fn answer_scrape(&mut self, id: SessionId, answer: &Answer, now: Instant) -> Result<(), Misuse> {
        let now = self.at(now);
        let session = self.get(id).ok_or(Misuse::NoSuchSession)?;
        let Stage::Scraping { method, .. } = session.stage else { return Err(Misuse::WrongState) };
        if !(200..600).contains(&answer.status) {
            return Err(Misuse::Status);
        }
        self.answer(id, answer, method, None, now);
        Ok(())
    }

    /// Answers a request for one of the paths here; says no if it is for something else. On the clients' address a
    /// WebSocket is something else, whatever its path.
    pub(super) fn answer_operation(&mut self, id: SessionId, request: &Request, now: Instant) -> bool {
        let Some(session) = get_mut(&mut self.sessions, id) else { return false };
        let (method, is_admin) = (request.method(), session.flags.admin);
        if method == Method::Options {
            // A load balancer that has no path set asks so, and wants to know whether it may send clients.
            let answer = ready(self.readiness()).with_field("Allow", "GET, HEAD, OPTIONS");
            self.answer(id, &answer, method, None, now);
            return true;
        }
        if !is_admin && request.wants_upgrade() {
            return false;
        }
        match request.path() {
            "/live" => self.answer(id, &Answer::text(200, "live\n"), method, None, now),
            "/ready" => self.answer(id, &ready(self.readiness()), method, None, now),
            "/metrics" if is_admin => self.ask_for_metrics(id, method, now),
            _ if is_admin => self.answer(id, &Answer::for_error(Error::NotFound), method, Some(Error::NotFound), now),
            _ => return false,
        }
        true
    }

    fn ask_for_metrics(&mut self, id: SessionId, method: Method, now: Instant) {
        let Some(session) = get_mut(&mut self.sessions, id) else { return };
        let Stage::Head(head) = &session.stage else { return };
        session.stage = Stage::Scraping { method, deadline: head.deadline };
        self.events.push_back(Event::Scrape(id));
        self.settle(id, now);
    }
}

fn ready(readiness: Result<(), Unready>) -> Answer {
    match readiness {
        Ok(()) => Answer::text(200, "ready\n"),
        Err(reason) => Answer::text(503, format!("not ready: {reason}\n")),
    }
}
