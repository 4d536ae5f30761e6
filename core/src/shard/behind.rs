//! Sessions that are behind, in the order in which that began: when all queues reach their bound, the session that has
//! been behind for longest pays.

use super::queue::Runs;
use super::session::Session;
use super::{SessionId, Shard, get_mut, id_of};
use crate::error::{Closed, Error, Side};
use crate::limits::Limits;
use crate::route::Slow;
use crate::time::{Instant, Timers};

/// What the runs that wait for a session may take without being at others' disposal, unless a session's own bound is small.
const FREE_BYTES: usize = 4 << 10;

impl Shard {
    /// Has those pay that have been behind for longest, until there is room for `need` more bytes within `most`.
    pub(super) fn make_room(&mut self, need: usize, most: usize, now: Instant) {
        while self.runs.memory() + need > most
            && let Some(index) = self.behind.first()
        {
            let id = id_of(index, &self.sessions[index as usize]);
            self.pay(id, now);
        }
    }

    /// The session gives up what waits for it, if its route drops the oldest; if not, or nothing is left, its place. Each call takes it
    /// out of line, or behind the others, or nearer to its end.
    fn pay(&mut self, id: SessionId, now: Instant) {
        let Some(session) = get_mut(&mut self.sessions, id) else { return };
        if !session.takes_messages() {
            // It is closing, and why stays.
            return self.handle_reset(id);
        }
        if matches!(session.slow(), Slow::Close | Slow::DropNewest) {
            self.stats.slow_readers += 1;
            return self.fail(id, Error::SlowReader, now);
        }
        let dropped = session.queue.drop_messages(&mut self.runs);
        if dropped == 0 {
            self.stats.slow_readers += 1;
            return self.remove(id, Closed { by: Side::Local, code: None, error: Some(Error::SlowReader) });
        }
        session.catch_up(id.index, &mut self.behind);
        self.lost(id, dropped, now);
        let limits = &self.settings.limits;
        if let Some(session) = get_mut(&mut self.sessions, id) {
            session.fall_in(id.index, &mut self.behind, (&self.runs, 0), limits, now);
        }
        self.settle(id, now);
    }

    /// How much more than the bound of all queues is held at most: what one turn brings, and what is free of each session.
    pub(super) fn beyond_bytes(&self) -> usize {
        self.settings.limits.turn_bytes() + self.sessions.len() * free_bytes(&self.settings.limits)
    }
}

impl Session {
    /// Its socket is full: it gets in line if much waits for it, a run that takes `more` bytes included.
    #[cold]
    pub(super) fn fall_in(
        &mut self,
        index: u32,
        behind: &mut Timers<u32>,
        (runs, more): (&Runs, usize),
        limits: &Limits,
        now: Instant,
    ) {
        if self.flags.blocked && !self.holds_little(runs, more, limits) {
            let rare = self.rare.get_or_insert_default();
            let since = rare.behind.unwrap_or(now);
            behind.set(index, &mut rare.behind, Some(since));
        }
    }

    /// It is not behind any more.
    pub(super) fn catch_up(&mut self, index: u32, behind: &mut Timers<u32>) {
        if let Some(rare) = &mut self.rare {
            behind.set(index, &mut rare.behind, None);
        }
    }

    /// Whether no more waits for it than is free, with `more` bytes. The last byte of a run keeps all of it in memory.
    pub(super) fn holds_little(&self, runs: &Runs, more: usize, limits: &Limits) -> bool {
        self.queue.keeps_at_most(runs, free_bytes(limits).checked_sub(more))
    }
}

fn free_bytes(limits: &Limits) -> usize {
    FREE_BYTES.min(limits.queue_bytes / 4)
}
