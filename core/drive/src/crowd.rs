//! Connections that arrive when all places are taken: they get an answer instead of silence.

use std::net::IpAddr;

use super::mailbox::Mailbox;
use super::runtime::Runtime;
use super::sockets::Sockets;
use fanfare_core::memory::CROWDED_CONNECTIONS;
use fanfare_core::shard::{SessionId, Shard};
use fanfare_core::time::Instant;

/// A worker's connections beyond the places: a few, of which the one that has had its turn makes room for the next.
#[derive(Debug, Default)]
pub(super) struct Crowd {
    /// In the order in which they came.
    sessions: Vec<SessionId>,
    /// How many connections of clients have a place, on all workers.
    places: usize,
}

impl Crowd {
    /// Takes in a connection without a place. It gets the place of the oldest that has not sent its request yet, or an
    /// answer that says how it stands.
    pub(super) fn enter<R: Runtime>(
        &mut self,
        (stream, peer): (R::Stream, IpAddr),
        (shard, sockets, mailbox): (&mut Shard, &mut Sockets<R::Stream>, &Mailbox<R>),
        places: usize,
        now: Instant,
    ) {
        self.places = places;
        let id = if shard.drop_mute(now) {
            mailbox.count_session();
            shard.handle_connection(Some(peer), now)
        } else {
            if self.sessions.iter().filter(|&&id| shard.contains(id)).count() >= CROWDED_CONNECTIONS {
                shard.drop_one_of(&self.sessions, now);
            }
            let id = shard.handle_crowded_connection(Some(peer), now);
            self.sessions.push(id);
            id
        };
        sockets.insert(id, stream);
    }

    /// Gives the places that are free now to those that have no answer yet, oldest first. Another worker may do the same
    /// at the same moment: then a few have a place too many, for which descriptors are spared.
    pub(super) fn give_places<R: Runtime>(
        &mut self,
        shard: &mut Shard,
        mailboxes: &[Mailbox<R>],
        mailbox: &Mailbox<R>,
    ) {
        if self.sessions.is_empty() {
            return;
        }
        let mut free = self.places.saturating_sub(Mailbox::sessions(mailboxes));
        self.sessions.retain(|&id| {
            let gets_one = free > 0 && shard.give_place(id);
            if gets_one {
                free -= 1;
                mailbox.count_session();
            }
            !gets_one
        });
    }

    /// The session is gone; says whether it was one of these.
    pub(super) fn closed(&mut self, id: SessionId) -> bool {
        let place = self.sessions.iter().position(|&one| one == id);
        if let Some(place) = place {
            self.sessions.remove(place);
        }
        place.is_some()
    }
}
