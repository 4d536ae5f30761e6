//! One worker: a thread's turn over its connections, its shard and, on the first worker, the bus and the listener.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::crowd::Crowd;
use super::desk::{Command, Desk};
use super::error::ServeError;
use super::fan_out::FanOut;
use super::head::Head;
use super::mailbox::{Mail, Mailbox};
use super::place::Place;
use super::roster;
use super::runtime::Runtime;
use super::sockets::{Budget, Sockets};
use fanfare_core::bus;
use fanfare_core::exchange::WorkerId;
use fanfare_core::settings::Settings;
use fanfare_core::shard::{self, SessionId, Shard};
use fanfare_core::shutdown::Stage;
use fanfare_core::snapshot::{Share, Snapshot};
use fanfare_core::time::{Duration, Instant, earlier};

/// The scratch buffer of a worker: one read from Redis.
const SCRATCH_BYTES: usize = 64 << 10;
/// What a piece of mail counts for beside the messages in it: a turn takes in no more than 256 pieces.
const MAIL_COST: usize = SCRATCH_BYTES / 256;

/// One worker on its thread.
pub(super) struct Worker<R: Runtime> {
    id: WorkerId,
    shard: Shard,
    head: Option<Head<R>>,
    /// Only of a hub.
    desk: Option<Desk>,
    mailboxes: Arc<[Mailbox<R>]>,
    runtime: R,
    sockets: Sockets<R::Stream>,
    crowd: Crowd,
    fan_out: FanOut,
    /// Taken out of the mailbox and left for the next turns.
    mail: VecDeque<Mail<R>>,
    scratch: Vec<u8>,
    /// How many writes are left of this round: each session that had output when it began is offered one.
    round: usize,
    alarm: Option<Alarm>,
    /// Of this worker, which is flushing when its sessions are gone.
    stage: Stage,
}

struct Alarm {
    at: Instant,
    sleep: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl<R: Runtime> Worker<R> {
    pub(super) fn new(
        place: &Place<R>,
        settings: Arc<Settings>,
        seed: u64,
        head: Option<Head<R>>,
        desk: Option<Desk>,
    ) -> Self {
        let runtime = place.runtime.clone();
        let patience = settings.limits.patience();
        Self {
            id: place.id,
            shard: Shard::new(settings, seed, runtime.now()),
            head,
            desk,
            mailboxes: place.mailboxes.clone(),
            runtime,
            sockets: Sockets::new(patience),
            crowd: Crowd::default(),
            fan_out: FanOut::default(),
            mail: VecDeque::new(),
            scratch: vec![0; SCRATCH_BYTES],
            round: 0,
            alarm: None,
            stage: Stage::Serving,
        }
    }

    /// Turns until the instance has shut down; returns how many accepted publishes were lost on the way.
    pub(super) async fn run(mut self) -> u64 {
        while self.stage < Stage::Ended {
            poll_fn(|context| self.turn(context)).await;
            R::yield_now().await;
        }
        let Some(Head { mut bus, shutdown, .. }) = self.head else { return 0 };
        if shutdown.stage() == Stage::Serving {
            return 0;
        }
        let sessions = Mailbox::sessions(&self.mailboxes);
        if sessions > 0 {
            tracing::warn!(event = "drain_time_over", sessions, "drain time exceeded: dropping the remaining sessions");
        }
        shutdown.lost(&mut bus)
    }

    /// Redis first, each ready client once, timers, then the writes, all as far as a turn may go. Ready when the next turn
    /// should follow at once.
    fn turn(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let now = self.runtime.now();
        let mut more = false;
        // Sessions are offered a write each before more messages come: only who then does not keep up is behind.
        if self.round == 0 {
            if let Some(head) = &mut self.head {
                head.lanes.read(&mut head.bus, &mut self.scratch, now);
            }
            self.exchange(now);
            more = self.take_mail(now, context);
        }
        self.give_places();
        let all_read = self.sockets.read(&mut self.shard, &mut self.scratch, now);
        self.exchange(now);
        let now = self.runtime.now();
        self.sockets.look(&mut self.shard, now);
        self.handle_timeouts(all_read, now);
        self.write(now);
        // After those have left that leave in this turn.
        self.accept(now);
        if let Some(head) = &mut self.head {
            head.lanes.write(&mut head.bus, now);
        }
        self.follow_bus();
        self.answer_scrapes(now);
        self.follow_shutdown(now);
        self.exchange(now);
        self.mailboxes[self.id].set_mute(self.shard.has_mute());
        if let Some(desk) = &self.desk {
            desk.settle(&self.shard);
        }
        if more || self.round > 0 || self.stage == Stage::Ended || !self.sleep(now, context) {
            Poll::Ready(())
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
                    self.fan_out.begin(&news, now);
                    self.shard.handle_bus(news, now);
                } else {
                    self.mailboxes[worker].post(Mail::News(news, now));
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
            bytes += MAIL_COST;
            match mail {
                Mail::News(news, at) => {
                    bytes += news.run_bytes();
                    self.fan_out.begin(&news, at);
                    self.shard.handle_bus(news, now);
                }
                Mail::Client(parcel, peer) => match R::attach(parcel) {
                    Ok(stream) => {
                        self.shard.set_wall_clock(R::wall_clock(), now);
                        self.sockets.insert(self.shard.handle_connection(Some(peer), now), stream);
                    }
                    Err(error) => {
                        tracing::warn!(event = "handover_failed", "a connection could not be taken: {error}");
                        self.mailboxes[self.id].remove_session();
                    }
                },
                Mail::Crowded { parcel, peer, places } => match R::attach(parcel) {
                    Ok(stream) => {
                        self.shard.set_wall_clock(R::wall_clock(), now);
                        let here = (&mut self.shard, &mut self.sockets, &self.mailboxes[self.id]);
                        self.crowd.enter((stream, peer), here, places, now);
                    }
                    Err(error) => {
                        tracing::warn!(event = "handover_failed", "a connection could not be taken: {error}");
                    }
                },
                Mail::Command(command) => self.obey(command, now),
                Mail::Wishes(worker, wishes) => {
                    if let Some(head) = &mut self.head {
                        let _ = head.bus.handle_shard(worker, wishes, now);
                    }
                }
                Mail::Drain { delay } => self.drain(delay, now),
                Mail::Close => self.close(now),
                Mail::Measure => {
                    let share = Share::new(&self.shard, self.fan_out.times());
                    self.mailboxes[0].post(Mail::Share(self.id, Box::new(share)));
                }
                Mail::Share(worker, share) => {
                    if let Some(admin) = self.head.as_mut().and_then(|head| head.admin.as_mut()) {
                        admin.hear(worker, *share);
                    }
                }
                Mail::Empty => {
                    if let Some(head) = &mut self.head {
                        head.shutdown.worker_is_empty();
                    }
                }
                Mail::End => self.stage = Stage::Ended,
            }
        }
        self.exchange(now);
        !self.mail.is_empty()
    }

    fn obey(&mut self, command: Command<R::Stream>, now: Instant) {
        let (Some(desk), shard) = (&mut self.desk, &mut self.shard) else { return };
        match command {
            Command::Adopt { stream, target, tag, leftover } => match desk.adopt(target, leftover, shard, now) {
                Ok(session) => {
                    desk.tag(session, tag);
                    self.sockets.insert(session, stream);
                }
                Err(misuse) => {
                    tracing::warn!(event = "adoption_failed", "a connection could not be adopted: {misuse}");
                    self.mailboxes[self.id].remove_session();
                }
            },
            Command::Publish { channel, payload } => {
                // Misuse is impossible: the hub has checked both.
                let _ = shard.publish(&channel, &payload);
            }
            Command::Subscribe { channel, frame, feed } => desk.subscribe(channel, frame, feed, shard),
            Command::Unsubscribe(inbox) => desk.unsubscribe(&inbox, shard),
            Command::Reserve { target, reply } => {
                if !desk.reserve(target, &reply, shard, now) {
                    self.mailboxes[self.id].remove_session();
                }
            }
            Command::Attach { session, stream, tag, leftover } => {
                // It may have ended meanwhile, and its place in the table be another's.
                if shard.contains(session) && desk.take_reserved(session) {
                    desk.tag(session, tag);
                    self.sockets.insert(session, stream);
                    shard.handle_writable(session);
                    shard.handle_leftover(session, leftover.into(), now);
                }
            }
            Command::Measure(reply) => {
                let blank = |head: &Head<R>| Box::new(Snapshot::new(&head.bus, shard, now.since(Instant::ZERO)));
                let blank = self.head.as_ref().map(blank);
                reply.give(Ok((blank, Share::new(shard, self.fan_out.times()))));
            }
            Command::Sessions { first, reply } => reply.give(Ok(desk.sessions(first, shard))),
            Command::Channels { first, reply } => reply.give(Ok(roster::channels(shard, first))),
            Command::Close { sessions, code, reason, reply } => {
                reply.give(Ok(desk.close(&sessions, (code, &reason), shard, now)));
            }
            Command::Release(session) => {
                if desk.is_reserved(session) {
                    shard.handle_reset(session);
                }
            }
        }
    }

    fn give_places(&mut self) {
        self.crowd.give_places(&mut self.shard, &self.mailboxes, &self.mailboxes[self.id]);
    }

    fn accept(&mut self, now: Instant) {
        let Some(head) = &mut self.head else { return };
        let (id, mailboxes) = (self.id, &self.mailboxes);
        let (shard, sockets, crowd) = (&mut self.shard, &mut self.sockets, &mut self.crowd);
        if let Some(admin) = &mut head.admin {
            admin.accept(shard, sockets, now);
        }
        if !head.accepting {
            return;
        }
        let places = head.acceptor.most();
        head.acceptor.accept(Mailbox::sessions(mailboxes), now, |stream, peer, has_place| {
            if !has_place {
                let other = if shard.has_mute() { None } else { Mailbox::take_mute(&mailboxes[1..]) };
                if let Some(other) = other {
                    match R::detach(stream) {
                        Ok(parcel) => mailboxes[1 + other].post(Mail::Crowded { parcel, peer, places }),
                        Err(error) => {
                            tracing::warn!(event = "handover_failed", "a connection could not be handed over: {error}");
                        }
                    }
                } else {
                    shard.set_wall_clock(R::wall_clock(), now);
                    crowd.enter((stream, peer), (shard, sockets, &mailboxes[id]), places, now);
                }
                return;
            }
            let worker = Mailbox::add_session(mailboxes);
            if worker == id {
                shard.set_wall_clock(R::wall_clock(), now);
                sockets.insert(shard.handle_connection(Some(peer), now), stream);
                return;
            }
            match R::detach(stream) {
                Ok(parcel) => mailboxes[worker].post(Mail::Client(parcel, peer)),
                Err(error) => {
                    tracing::warn!(event = "handover_failed", "a connection could not be handed over: {error}");
                    mailboxes[worker].remove_session();
                }
            }
        });
    }

    /// No client is judged while some that had something to say wait for their turn.
    fn handle_timeouts(&mut self, all_read: bool, now: Instant) {
        if let Some(head) = &mut self.head
            && self.round == 0
            && head.bus.poll_timeout().is_some_and(|at| at <= now)
        {
            head.bus.handle_timeout(now);
        }
        if all_read && self.shard.poll_timeout().is_some_and(|at| at <= now) {
            self.shard.handle_timeout(now);
        }
        self.exchange(now);
    }

    /// Writes as far as a turn may go, and tells what has happened.
    fn write(&mut self, now: Instant) {
        let mut round = if self.round == 0 { self.shard.to_transmit() } else { self.round };
        let mut budget = Budget::turn();
        while round > 0 && budget.is_left() {
            let Some(id) = self.shard.poll_transmit() else {
                round = 0;
                break;
            };
            round -= 1;
            self.sockets.write(id, &mut self.shard, &mut budget, now);
        }
        self.round = round;
        if round == 0 {
            self.fan_out.end(|| self.runtime.now());
        }
        while let Some(event) = self.shard.poll_event() {
            match event {
                shard::Event::EndWrites(id) => self.sockets.end_writes(id),
                shard::Event::GivenUp(id) => self.sockets.reset(id),
                shard::Event::Closed(id, _) => self.forget(id, now),
                shard::Event::Scrape(id) => {
                    if let Some(admin) = self.head.as_mut().and_then(|head| head.admin.as_mut()) {
                        admin.scrape(id, &self.mailboxes, now);
                    }
                }
                event => {
                    if let Some(desk) = &mut self.desk {
                        desk.hear(event, &mut self.shard, now);
                    }
                }
            }
        }
        while let Some(id) = self.shard.poll_readable() {
            if !self.sockets.name(id) {
                // It still waits for its connection, so that nothing can have come.
                self.shard.handle_readable(id, now);
            }
        }
        if self.shard.has_pinged() {
            self.shard.handle_written(self.runtime.now());
        }
    }

    /// The session is gone.
    fn forget(&mut self, id: SessionId, now: Instant) {
        self.sockets.remove(id);
        if self.crowd.closed(id) {
            return;
        }
        let mut head = self.head.as_mut();
        let admin = head.as_mut().and_then(|head| head.admin.as_mut());
        if admin.is_some_and(|admin| admin.closed(id, now)) {
            return;
        }
        if let Some(desk) = &mut self.desk {
            desk.forget(id);
        }
        self.mailboxes[self.id].remove_session();
        if let Some(head) = head {
            head.acceptor.connection_closed(now);
        }
    }

    fn answer_scrapes(&mut self, now: Instant) {
        let Some(Head { admin: Some(admin), bus, acceptor, memory, .. }) = &mut self.head else { return };
        if admin.is_due(now) {
            let mut snapshot = Snapshot::new(bus, &self.shard, now.since(Instant::ZERO));
            snapshot.most_connections = Some(acceptor.most());
            snapshot.accept_rests = acceptor.rests();
            snapshot.crowded = acceptor.crowded();
            snapshot.memory_bound = Some(memory.with(acceptor.most()));
            admin.answer(snapshot, Share::new(&self.shard, self.fan_out.times()), &mut self.shard, now);
        }
    }

    /// Hears of the bus whether the instance has started.
    fn follow_bus(&mut self) {
        let Some(head) = &mut self.head else { return };
        while let Some(event) = head.bus.poll_event() {
            match event {
                bus::Event::Up => head.start(),
                bus::Event::GapEnded(gap) => {
                    if let Some(desk) = &self.desk {
                        desk.hear_gap(gap.duration);
                    }
                }
                bus::Event::StartFailed(error) if head.starting.take().is_some() => {
                    head.report.set_started(Err(ServeError::Redis(error)));
                }
                bus::Event::StartFailed(error) => tracing::warn!(event = "start_failed", "{error}; trying on"),
                _ => {}
            }
        }
    }

    /// The instance was asked to end. To be asked again changes nothing.
    fn drain(&mut self, delay: Duration, now: Instant) {
        self.shard.drain();
        let Some(head) = &mut self.head else { return };
        head.starting = None;
        head.shutdown.begin(&head.bus, delay, head.drain_time, now);
    }

    fn close(&mut self, now: Instant) {
        self.stage = Stage::Closing;
        self.shard.shutdown(now);
    }

    /// First the clients, then what they published, then the end.
    fn follow_shutdown(&mut self, now: Instant) {
        while let Some(Head { bus, shutdown, .. }) = &mut self.head
            && let Some(stage) = shutdown.advance(bus, now)
        {
            match stage {
                Stage::Closing => self.stop_listening(now),
                Stage::Ended => self.stage = Stage::Ended,
                Stage::Serving | Stage::Draining | Stage::Flushing => {}
            }
        }
        if self.stage == Stage::Closing && self.shard.is_empty() {
            self.stage = Stage::Flushing;
            self.exchange(now);
            self.mailboxes[0].post(Mail::Empty);
        }
    }

    fn stop_listening(&mut self, now: Instant) {
        let Some(head) = &mut self.head else { return };
        head.acceptor.close();
        if std::mem::take(&mut head.accepting) {
            let sessions = Mailbox::sessions(&self.mailboxes);
            tracing::info!(event = "listening_no_longer", sessions, "listening no longer; closing all sessions");
        }
        // Behind the last clients that were handed over.
        for mailbox in &self.mailboxes[1..] {
            mailbox.post(Mail::Close);
        }
        self.close(now);
    }

    /// Has the worker woken by its next deadline or connection; says no if there is something to do already.
    fn sleep(&mut self, now: Instant, context: &mut Context<'_>) -> bool {
        let head = self.head.as_ref();
        let of_sessions = earlier(self.shard.poll_timeout(), self.sockets.poll_timeout());
        if let Some(next) = earlier(of_sessions, head.and_then(|head| head.poll_timeout(now))) {
            if next <= now {
                return false;
            }
            // One that rings too early finds nothing to do and is set again: cheaper than to move it with every message.
            if self.alarm.as_ref().is_none_or(|alarm| next < alarm.at) {
                self.alarm = Some(Alarm { at: next, sleep: Box::pin(self.runtime.sleep_until(next)) });
            }
        }
        if let Some(alarm) = &mut self.alarm
            && alarm.sleep.as_mut().poll(context).is_ready()
        {
            self.alarm = None;
            return false;
        }
        head.is_none_or(|head| head.sleep(context.waker())) && self.sockets.sleep(context.waker())
    }
}
