//! The bus's accounts of each worker: news in order, room in its mailbox, credit.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::exchange::{ChannelId, News, ToShard, WorkerId, unsaid_bytes};
use crate::limits::Limits;
use crate::run::Run;

#[derive(Debug)]
pub(super) struct Workers {
    workers: Vec<Worker>,
    mailbox_bytes: usize,
}

#[derive(Debug, Default)]
struct Worker {
    news: Vec<News>,
    /// Bytes of the runs that were handed over and not yet taken out of the mailbox.
    mailbox: usize,
    /// Messages that found no room, by the worker's channel. They are reported when half of the mailbox is free; until
    /// then the channel gets nothing more, so that the report stays in order and is one for many losses.
    missed: BTreeMap<ChannelId, u64>,
    /// Publish credit used and not given back.
    debt: usize,
}

impl Workers {
    pub(super) fn new(workers: usize, limits: &Limits) -> Self {
        let workers = std::iter::repeat_with(Worker::default).take(workers.max(1)).collect();
        Self { workers, mailbox_bytes: limits.mailbox_bytes }
    }

    pub(super) const fn len(&self) -> usize {
        self.workers.len()
    }

    pub(super) fn tell(&mut self, worker: WorkerId, news: News) {
        self.workers[worker].news.push(news);
    }

    pub(super) fn tell_all(&mut self, news: impl Fn() -> News) {
        for worker in &mut self.workers {
            worker.news.push(news());
        }
    }

    /// Puts a run into the worker's mailbox, unless that is full or the losses of the channel are yet to be reported.
    pub(super) fn hand_over(&mut self, worker: WorkerId, channel: ChannelId, run: &Arc<Run>) -> bool {
        let len = run.memory();
        let worker = &mut self.workers[worker];
        // What the worker may have taken out without saying so does not count: no word would ever come of it.
        let is_full = worker.mailbox > unsaid_bytes(self.mailbox_bytes) && worker.mailbox + len > self.mailbox_bytes;
        if is_full || worker.missed.contains_key(&channel) {
            *worker.missed.entry(channel).or_default() += run.len() as u64;
            // Where a single run is too large, nothing may be taken out any more that would have it told.
            worker.tell_missed(self.mailbox_bytes);
            return false;
        }
        worker.mailbox += len;
        worker.news.push(News::Run { channel, run: run.clone() });
        true
    }

    /// The worker has left the channel, and needs no report of what it missed of it.
    pub(super) fn left(&mut self, worker: WorkerId, channel: ChannelId) {
        self.workers[worker].missed.remove(&channel);
    }

    /// The worker took so many bytes out of its mailbox.
    pub(super) fn taken(&mut self, worker: WorkerId, bytes: usize) {
        let mailbox_bytes = self.mailbox_bytes;
        let worker = &mut self.workers[worker];
        worker.mailbox = worker.mailbox.saturating_sub(bytes);
        worker.tell_missed(mailbox_bytes);
    }

    pub(super) fn spend(&mut self, worker: WorkerId, cost: usize) {
        self.workers[worker].debt += cost;
    }

    /// So much of the publish queue has left: the workers get it back as credit, the one that used most first.
    pub(super) fn release(&mut self, mut bytes: usize) {
        while bytes > 0
            && let Some(worker) = self.workers.iter_mut().max_by_key(|worker| worker.debt)
            && worker.debt > 0
        {
            let paid = bytes.min(worker.debt);
            worker.debt -= paid;
            bytes -= paid;
            if let Some(News::Credit(credit)) = worker.news.last_mut() {
                *credit += paid;
            } else {
                worker.news.push(News::Credit(paid));
            }
        }
    }

    pub(super) fn fullest_mailbox(&self) -> usize {
        self.workers.iter().map(|worker| worker.mailbox).max().unwrap_or(0)
    }

    #[cfg(test)]
    pub(super) fn debts(&self) -> Vec<usize> {
        self.workers.iter().map(|worker| worker.debt).collect()
    }

    pub(super) fn has_news(&self) -> bool {
        self.workers.iter().any(|worker| !worker.news.is_empty())
    }

    pub(super) fn poll(&mut self) -> Option<(WorkerId, ToShard)> {
        let (id, worker) = self.workers.iter_mut().enumerate().find(|(_, worker)| !worker.news.is_empty())?;
        Some((id, ToShard { news: std::mem::take(&mut worker.news) }))
    }
}

impl Worker {
    fn tell_missed(&mut self, mailbox_bytes: usize) {
        while self.mailbox <= mailbox_bytes / 2
            && let Some((channel, messages)) = self.missed.pop_first()
        {
            self.news.push(News::Missed { channel, messages });
        }
    }
}
