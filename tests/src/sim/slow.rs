//! Who must be closed as a slow reader, to the byte: worked out beside the shard from what its sessions have queued.

use fanfare_core::exchange::WorkerId;
use fanfare_core::route::Slow;

use super::ground::Ground;
use super::instance::Instance;
use super::verdict::Promise;

/// What one run more takes of a session's queue, in bytes of memory. That of one that keeps up takes nothing.
pub(super) const ENTRY_BYTES: usize = 24;
/// At most what a run takes beside its frames, and each message in it.
const RUN_BYTES: usize = 200;
const MESSAGE_BYTES: usize = 8;
/// What notes that come with a batch may add to a queue.
const NOTES_BYTES: usize = 2 * (127 + ENTRY_BYTES);

/// What came for each room.
pub(super) type Batch = Vec<Came>;

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Came {
    messages: usize,
    /// Of their frames.
    bytes: usize,
    /// The messages of one read are one run.
    runs: usize,
    /// Where the last read ended.
    read: u64,
}

/// What is known before a batch goes to a shard.
pub(super) struct Forecast {
    closed_before: u64,
    least: u64,
    most: u64,
}

impl Instance {
    /// Notes a message that the bus has read, for every worker. `read` is where in the stream that read ended.
    pub(super) fn note_arrival(&mut self, room: usize, payload: usize, read: u64) {
        let header = match payload {
            0..=125 => 2,
            126..=0xFFFF => 4,
            _ => 10,
        };
        for worker in &mut self.workers {
            if worker.arrived.len() <= room {
                worker.arrived.resize(room + 1, Came::default());
            }
            let came = &mut worker.arrived[room];
            came.messages += 1;
            came.bytes += header + payload;
            came.runs += usize::from(came.read != read);
            came.read = read;
        }
    }

    /// How many sessions of a worker the batch must close. One that keeps up takes any one run.
    pub(super) fn forecast(&mut self, worker: WorkerId, batch: &Batch, ground: &mut Ground) -> Option<Forecast> {
        if batch.iter().all(|came| came.messages == 0) {
            return None;
        }
        let (queue_bytes, all_queues_bytes) = (self.limits.queue_bytes, self.limits.all_queues_bytes);
        let workers = self.workers.len();
        let has_missed = self.bus().stats().missed > 0;
        let stats = self.shard(worker).stats();
        let memory = |came: &Came| came.bytes + RUN_BYTES * came.runs + MESSAGE_BYTES * came.messages;
        let is_full = stats.queued_bytes + batch.iter().map(memory).sum::<usize>() > all_queues_bytes / workers;
        let (mut least, mut most) = (0, 0);
        let rooms = 0..ground.reference.rooms.len();
        let drops: Vec<usize> =
            rooms.filter(|&room| ground.reference.room(room).policies.slow != Slow::Close).collect();
        let sessions: Vec<_> = self.workers[worker].sockets.visits().collect();
        for (visit, id) in sessions {
            let view = &mut ground.reference.visits[visit];
            let came = batch.get(view.room).copied().unwrap_or_default();
            let queued = self.shard(worker).queued_bytes(id);
            if came.messages == 0 || drops.contains(&view.room) {
                // Whoever has been behind for longest pays, in whichever room.
                let may_pay = is_full && queued > 0;
                most += u64::from(may_pay);
                view.condemned |= may_pay;
                continue;
            }
            let notes = if view.notes { NOTES_BYTES } else { 0 };
            let entries = if queued == 0 { came.runs - 1 } else { came.runs };
            let is_over = entries > 0 && queued + came.bytes + ENTRY_BYTES * entries > queue_bytes;
            // A note may come before the first run, which is then not one for a session that keeps up.
            let entries = entries + usize::from(view.notes);
            let may_be_over = entries > 0 && queued + came.bytes + notes + ENTRY_BYTES * entries > queue_bytes;
            let may_go = may_be_over || is_full && (queued > 0 || entries > 0);
            most += u64::from(may_go);
            let is_open = view.opened.is_some() && !view.condemned && !view.excuses.may_be_closing();
            least += u64::from(is_over && is_open);
            view.condemned |= may_go;
        }
        let is_exact =
            !has_missed && ground.reference.is_calm_for(self.number, super::reference::LONG_CALM, ground.now);
        Some(Forecast { closed_before: stats.slow_readers, least: if is_exact { least } else { 0 }, most })
    }

    pub(super) fn compare(&mut self, worker: WorkerId, forecast: Option<Forecast>, ground: &mut Ground) {
        let Some(Forecast { closed_before, least, most }) = forecast else { return };
        let closed = self.shard(worker).stats().slow_readers - closed_before;
        if !(least..=most).contains(&closed) {
            let bound = self.limits.queue_bytes;
            let what = format!(
                "instance {}: {closed} sessions were closed as slow readers, where {least} to {most} were to go beyond \
                 {bound} bytes",
                self.number
            );
            ground.fail(Promise::Bounds, what);
        }
    }
}
