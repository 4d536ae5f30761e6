//! One worker: a thread's turn over its sockets, its shard and, on the first worker, the bus and the listener.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use fanfare_core::bus::{self, Bus};
use fanfare_core::exchange::WorkerId;
use fanfare_core::redis::LinkError;
use fanfare_core::shard::{self, Shard};
use fanfare_core::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio::time::Sleep;

use crate::lanes::Lanes;
use crate::listener::Listener;
use crate::mailbox::{Mail, Mailbox};
use crate::sockets::Sockets;

/// The scratch buffer of a worker: one read from Redis.
const SCRATCH_BYTES: usize = 64 << 10;

/// Microseconds since the process began to serve: the same for all workers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock(tokio::time::Instant);

impl Clock {
    pub(crate) fn start() -> Self {
        Self(tokio::time::Instant::now())
    }

    pub(crate) fn now(self) -> Instant {
        Instant::ZERO + self.0.elapsed()
    }

    /// When a timer that fires at full milliseconds is not early.
    fn timer(self, at: Instant) -> tokio::time::Instant {
        self.0 + Duration::from_millis(at.as_micros().div_ceil(1_000))
    }
}

/// What only the first worker has.
pub(crate) struct Head {
    pub(crate) bus: Bus,
    pub(crate) lanes: Lanes,
    pub(crate) listener: Listener,
    /// Clients are accepted once the bus is up, or at once if the configuration says so.
    pub(crate) accepting: bool,
    /// Hears whether the bus is up or why it is not, if somebody waits for that. Taken at the first of either.
    pub(crate) started: Option<tokio::sync::oneshot::Sender<Result<(), LinkError>>>,
    /// Workers whose sessions are not all gone, once the instance shuts down.
    pub(crate) waits_for: Option<usize>,
    /// When shutting down ends, whatever is left.
    pub(crate) ends_at: Option<Instant>,
}

pub(crate) struct Worker {
    pub(crate) id: WorkerId,
    pub(crate) shard: Shard,
    pub(crate) head: Option<Head>,
    pub(crate) mailboxes: Arc<[Arc<Mailbox>]>,
    pub(crate) clock: Clock,
    sockets: Sockets,
    /// Taken out of the mailbox and left for the next turns.
    mail: VecDeque<Mail>,
    scratch: Vec<u8>,
    sleep: Pin<Box<Sleep>>,
    closing: bool,
    ended: bool,
}

impl Worker {
    /// Must be called inside the worker's own runtime.
    pub(crate) fn new(
        id: WorkerId,
        shard: Shard,
        head: Option<Head>,
        mailboxes: Arc<[Arc<Mailbox>]>,
        clock: Clock,
    ) -> Self {
        Self {
            id,
            shard,
            head,
            mailboxes,
            clock,
            sockets: Sockets::default(),
            mail: VecDeque::new(),
            scratch: vec![0; SCRATCH_BYTES],
            sleep: Box::pin(tokio::time::sleep(Duration::ZERO)),
            closing: false,
            ended: false,
        }
    }

    /// Turns until the instance has shut down; returns what the bus could not deliver.
    pub(crate) async fn run(mut self) -> bus::Stats {
        while !self.ended {
            // Yielding has the runtime look at its sockets between two turns.
            if poll_fn(|context| self.turn(context)).await {
                tokio::task::yield_now().await;
            }
        }
        self.head.map(|head| head.bus.stats()).unwrap_or_default()
    }

    /// Redis first, each ready client once, timers, then the writes. Ready when the next turn should follow at once.
    fn turn(&mut self, context: &mut Context<'_>) -> Poll<bool> {
        let now = self.clock.now();
        let mut more = false;
        if let Some(head) = &mut self.head {
            more |= head.lanes.read(&mut head.bus, &mut self.scratch, now, context);
        }
        self.exchange(now);
        more |= self.take_mail(now, context);
        more |= self.accept(now, context);
        for id in self.sockets.take_ready() {
            self.sockets.turn(id, &mut self.shard, &mut self.scratch, now);
        }
        self.exchange(now);
        let now = self.clock.now();
        self.handle_timeouts(now);
        self.write(now);
        if let Some(head) = &mut self.head {
            more |= head.lanes.write(&mut head.bus, now, context);
        }
        more |= self.follow_bus();
        self.follow_shutdown(now);
        self.exchange(now);
        if more || self.ended || !self.sleep_until_next(now, context) {
            Poll::Ready(!self.ended)
        } else {
            Poll::Pending
        }
    }

    /// Carries wishes and news between this worker's shard, the bus and the other workers.
    fn exchange(&mut self, now: Instant) {
        let Some(head) = &mut self.head else {
            while let Some(wishes) = self.shard.poll_bus() {
                self.mailboxes[0].post(Mail::Wishes(self.id, wishes));
            }
            return;
        };
        loop {
            if let Some(wishes) = self.shard.poll_bus() {
                // Misuse is impossible: the bus is made for as many workers as there are.
                let _ = head.bus.handle_shard(self.id, wishes, now);
            } else if let Some((worker, news)) = head.bus.poll_shard() {
                if worker == self.id {
                    self.shard.handle_bus(news, now);
                } else {
                    self.mailboxes[worker].post(Mail::News(news));
                }
            } else {
                return;
            }
        }
    }

    /// Takes in mail, and of messages no more than one read from Redis brings: sessions write between two turns, and
    /// only who then does not keep up is a slow reader. Says whether mail is left.
    fn take_mail(&mut self, now: Instant, context: &Context<'_>) -> bool {
        self.mail.extend(self.mailboxes[self.id].take(context.waker()));
        let mut bytes = 0;
        while bytes < SCRATCH_BYTES
            && let Some(mail) = self.mail.pop_front()
        {
            match mail {
                Mail::News(news) => {
                    bytes += news.run_bytes();
                    self.shard.handle_bus(news, now);
                }
                Mail::Socket(stream, peer) => match TcpStream::from_std(stream) {
                    Ok(stream) => self.sockets.insert(self.shard.handle_connection(Some(peer), now), stream),
                    Err(error) => {
                        tracing::warn!("a connection could not be taken: {error}");
                        self.mailboxes[self.id].sessions.fetch_sub(1, Ordering::Relaxed);
                    }
                },
                Mail::Wishes(worker, wishes) => {
                    if let Some(head) = &mut self.head {
                        let _ = head.bus.handle_shard(worker, wishes, now);
                    }
                }
                Mail::Shutdown(time) => {
                    self.closing = true;
                    self.shard.shutdown(now);
                    if let Some(head) = &mut self.head {
                        head.accepting = false;
                        head.listener.close();
                        head.waits_for = Some(self.mailboxes.len());
                        head.ends_at = Some(now + time);
                    }
                }
                Mail::Empty => {
                    if let Some(head) = &mut self.head {
                        head.waits_for = head.waits_for.map(|workers| workers.saturating_sub(1));
                    }
                }
                Mail::End => self.ended = true,
            }
        }
        self.exchange(now);
        !self.mail.is_empty()
    }

    fn accept(&mut self, now: Instant, context: &mut Context<'_>) -> bool {
        let Some(head) = &mut self.head else { return false };
        if !head.accepting {
            return false;
        }
        let (id, mailboxes, shard, sockets) = (self.id, &self.mailboxes, &mut self.shard, &mut self.sockets);
        let held = mailboxes.iter().map(|mailbox| mailbox.sessions.load(Ordering::Relaxed)).sum();
        head.listener.accept(held, now, context, |stream, peer| {
            let worker = Mailbox::least_loaded(mailboxes);
            mailboxes[worker].sessions.fetch_add(1, Ordering::Relaxed);
            if worker == id {
                sockets.insert(shard.handle_connection(Some(peer), now), stream);
                return;
            }
            match stream.into_std() {
                Ok(stream) => mailboxes[worker].post(Mail::Socket(stream, peer)),
                Err(error) => {
                    tracing::warn!("a connection could not be handed over: {error}");
                    mailboxes[worker].sessions.fetch_sub(1, Ordering::Relaxed);
                }
            }
        })
    }

    fn handle_timeouts(&mut self, now: Instant) {
        if let Some(head) = &mut self.head
            && head.bus.poll_timeout().is_some_and(|at| at <= now)
        {
            head.bus.handle_timeout(now);
        }
        if self.shard.poll_timeout().is_some_and(|at| at <= now) {
            self.shard.handle_timeout(now);
        }
        self.exchange(now);
    }

    /// Writes and tells until the shard has nothing more to say.
    fn write(&mut self, now: Instant) {
        loop {
            while let Some(id) = self.shard.poll_transmit() {
                self.sockets.write(id, &mut self.shard, now);
            }
            let Some(event) = self.shard.poll_event() else { break };
            match event {
                shard::Event::EndWrites(id) => self.sockets.end_writes(id),
                shard::Event::Closed(id, closed) => {
                    tracing::debug!(session = id.index(), ?closed, "session closed");
                    if self.sockets.remove(id) {
                        self.mailboxes[self.id].sessions.fetch_sub(1, Ordering::Relaxed);
                    }
                    if let Some(head) = &mut self.head {
                        head.listener.connection_closed(now);
                    }
                }
                _ => {}
            }
        }
        while let Some(id) = self.shard.poll_readable() {
            self.sockets.ring(id);
        }
    }

    /// Hears of the bus whether the instance has started. Says whether clients are accepted from the next turn on.
    fn follow_bus(&mut self) -> bool {
        let Some(head) = &mut self.head else { return false };
        let accepted = head.accepting;
        while let Some(event) = head.bus.poll_event() {
            let result = match event {
                bus::Event::Up { .. } => {
                    head.accepting |= !self.closing;
                    Ok(())
                }
                bus::Event::StartFailed(error) if head.started.is_none() => {
                    tracing::warn!("{error}; trying on");
                    continue;
                }
                bus::Event::StartFailed(error) => Err(error),
                _ => continue,
            };
            if let Some(started) = head.started.take() {
                // Nobody listens if the server was dropped.
                let _ = started.send(result);
            }
        }
        head.accepting && !accepted
    }

    /// Sessions first, then what they published, then the end.
    fn follow_shutdown(&mut self, now: Instant) {
        if self.closing && self.shard.is_empty() {
            self.closing = false;
            self.exchange(now);
            self.mailboxes[0].post(Mail::Empty);
        }
        let Some(head) = &mut self.head else { return };
        if head.waits_for == Some(0) {
            head.bus.close(now);
        }
        let closed = head.waits_for == Some(0) && head.bus.is_closed();
        if closed || head.ends_at.is_some_and(|at| at <= now) {
            self.ended = true;
            for mailbox in &self.mailboxes[1..] {
                mailbox.post(Mail::End);
            }
        }
    }

    /// Has the worker woken by its next deadline or socket; says no if there is something to do already.
    fn sleep_until_next(&mut self, now: Instant, context: &mut Context<'_>) -> bool {
        let head = self.head.as_ref();
        let next = [
            self.shard.poll_timeout(),
            head.and_then(|head| head.bus.poll_timeout()),
            head.and_then(|head| head.listener.poll_timeout()),
            head.and_then(|head| head.ends_at),
        ];
        if let Some(next) = next.into_iter().flatten().min() {
            if next <= now {
                return false;
            }
            let deadline = self.clock.timer(next);
            if self.sleep.deadline() != deadline {
                self.sleep.as_mut().reset(deadline);
            }
            if self.sleep.as_mut().poll(context).is_ready() {
                return false;
            }
        }
        self.sockets.sleep(context.waker())
    }
}
