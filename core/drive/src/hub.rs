//! An instance inside another program.

use std::collections::VecDeque;
use std::fmt;
use std::future::{Future, poll_fn};
use std::num::NonZero;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;

use super::desk::{Command, Desk, Feed, Gate, Inbox, Item, Reply, State};
use super::error::{HubError, ServeError};
use super::mailbox::{Mail, Mailbox};
use super::place::Place;
use super::report::Report;
use super::roster::{HubMessage, Reviewer};
use super::runtime::Runtime;
use super::seat::Seat;
use super::setup::Setup;
use super::watched::Watched;
use fanfare_core::error::Misuse;
use fanfare_core::exchange::{WorkerId, publish_cost};
use fanfare_core::limits::Limits;
use fanfare_core::route::{FrameType, Target};
use fanfare_core::shard::{Decision, SessionId};
use fanfare_core::snapshot::{Share, Snapshot};
use fanfare_core::time::Duration;

/// An instance inside another program: no listener, and one task or several. WebSockets come from a web server that has
/// made their handshakes, messages also from the program's own code.
///
/// A hub is a handle, cheap to clone; when the last one is dropped, the instance stops. Of the setup it uses the
/// settings of Redis, the limits and the workers; addresses, routes and origins are the web server's concern, and channel
/// names are used as they are given, without [`Settings::channel_prefix`](fanfare_core::settings::Settings).
///
/// With [`Setup::workers`] it has that many tasks of the runtime it starts in, which a runtime of several threads runs at
/// the same time. Each holds its share of the sessions, and of bounds such as
/// [`Limits::publish_bytes`](fanfare_core::limits::Limits::publish_bytes); publishes and subscriptions go through the
/// first. If sessions of two workers give one channel different frame types, no call says so, but a line in the log with
/// `event=frame_types_differ`.
pub struct Hub<R: Runtime> {
    pub(super) shared: Arc<Shared<R>>,
}

pub(super) struct Shared<R: Runtime> {
    /// Of each worker. The first has the bus and takes publishes and subscriptions.
    pub(super) mailboxes: Arc<[Mailbox<R>]>,
    gate: Arc<Watched<Gate>>,
    report: Arc<Report>,
    runtime: R,
    limits: Limits,
}

impl<R: Runtime> Hub<R> {
    /// Starts the instance as a task of the runtime that this is called in and, if the setup names a Redis,
    /// waits until it can be used (unless [`Setup::wait_for_redis`] says to serve meanwhile).
    ///
    /// # Errors
    /// [`ServeError::Settings`], [`ServeError::Redis`], [`ServeError::System`].
    pub async fn start(setup: Setup) -> Result<Self, ServeError> {
        Self::start_with(setup, None).await
    }

    /// As [`Hub::start`], with a function that decides about each message of a client before it is published: it may put
    /// another in its place, for instance with the sender's name, drop it, or close the session. What the program itself
    /// publishes, and what other instances do, is not asked about.
    ///
    /// The function is called on the worker, for one session's messages in order, and holds up the worker's other
    /// sessions while it runs: look things up before, and give them by the session's tag. It must not panic. A message
    /// beyond [`Limits::message_bytes`], one for a channel of text that is not UTF-8, or a close that cannot be sent is a
    /// line in the log with `event=decision_refused`, and the message is dropped.
    ///
    /// # Errors
    /// As [`Hub::start`].
    pub async fn start_reviewed(
        setup: Setup,
        decide: impl Fn(&HubMessage<'_>) -> Decision + Send + Sync + 'static,
    ) -> Result<Self, ServeError> {
        Self::start_with(setup, Some(Reviewer(Arc::new(decide)))).await
    }

    async fn start_with(mut setup: Setup, reviewer: Option<Reviewer>) -> Result<Self, ServeError> {
        let workers = setup.workers.map_or(1, NonZero::get);
        setup.settings.workers = workers;
        setup.settings.ask = false;
        setup.settings.check().map_err(ServeError::Settings)?;
        let settings = Arc::new(setup.settings.clone());
        let shared = Arc::new(Shared {
            mailboxes: std::iter::repeat_with(Mailbox::default).take(workers).collect(),
            gate: Arc::default(),
            report: Arc::default(),
            runtime: R::default(),
            limits: settings.limits.clone(),
        });
        let seat = |id| {
            let (runtime, mailboxes) = (shared.runtime.clone(), shared.mailboxes.clone());
            Seat::new(Place { id, runtime, mailboxes, report: shared.report.clone() })
        };
        let desk = |id| Desk::new(shared.gate.clone(), id, settings.limits.queue_bytes, reviewer.clone());
        let seed = || R::seed().map_err(ServeError::System);
        R::spawn_task(seat(0).host(settings.clone(), setup, [seed()?, seed()?], desk(0)));
        for id in 1..workers {
            R::spawn_task(seat(id).follow(settings.clone(), seed()?, Some(desk(id))));
        }
        // Dropped on an error, which ends the task.
        let hub = Self { shared };
        hub.shared.report.started().await?;
        Ok(hub)
    }

    /// Reserves a session for a WebSocket whose 101 is about to leave: send it when this returns, then hand the
    /// connection over by [`Reserved::adopt`]. The client then misses nothing from its 101 on.
    ///
    /// # Errors
    /// [`HubError::NotConfirmed`] if the channel is not confirmed within [`Limits::confirm_time`]: answer with 503.
    /// [`HubError::Misuse`] with [`Misuse::ChannelName`], [`Misuse::FrameType`] or [`Misuse::Notes`];
    /// [`HubError::Stopped`].
    pub async fn reserve(&self, target: Target) -> Result<Reserved<R>, HubError> {
        self.shared.check_channel(&target.channel)?;
        let counted = Counted::new(&self.shared.mailboxes);
        let worker = counted.worker;
        // Keeps the channel subscribed, on the same worker, until the session is in it.
        let subscription = if target.rights.subscribe { Some(self.confirm(&target, worker).await?) } else { None };
        let reply = Arc::<Watched<_>>::default();
        self.shared.command(worker, Command::Reserve { target, reply: Reply(reply.clone()) })?;
        counted.hand_over();
        let session = reply.wait(Option::take).await?;
        drop(subscription);
        Ok(Reserved { session: Some(session), worker, tag: None, hub: self.clone() })
    }

    async fn confirm(&self, target: &Target, worker: WorkerId) -> Result<Subscription<R>, HubError> {
        let shared = &self.shared;
        let mut confirmed = pin!(self.subscribe_on(worker, target.channel.clone(), target.frame));
        let mut late = pin!(shared.runtime.sleep_until(shared.runtime.now() + shared.limits.confirm_time));
        poll_fn(|context| match confirmed.as_mut().poll(context) {
            Poll::Ready(result) => Poll::Ready(result),
            Poll::Pending => late.as_mut().poll(context).map(|()| Err(HubError::NotConfirmed)),
        })
        .await
    }

    /// Takes in a WebSocket whose 101 has left already, and serves it to its end; what is published before this it does
    /// not get. `leftover` is what was read from it behind the request.
    ///
    /// If the channel is not confirmed within [`Limits::confirm_time`] it is closed with 1013. If the channel carries
    /// the other frame type, which is the caller's mistake, the connection is dropped and a line logged.
    ///
    /// # Errors
    /// [`HubError::Misuse`] with [`Misuse::ChannelName`]; [`HubError::Stopped`].
    pub fn adopt(&self, stream: impl Into<R::Stream>, target: Target, leftover: Bytes) -> Result<(), HubError> {
        self.adopt_with(stream.into(), target, None, leftover)
    }

    /// As [`Hub::adopt`], with a number of your own, such as a user's, that [`Hub::sessions`] and
    /// [`Hub::close_sessions`] show. It need not be unique.
    ///
    /// # Errors
    /// As [`Hub::adopt`].
    pub fn adopt_tagged(
        &self,
        stream: impl Into<R::Stream>,
        target: Target,
        tag: u64,
        leftover: Bytes,
    ) -> Result<(), HubError> {
        self.adopt_with(stream.into(), target, Some(tag), leftover)
    }

    fn adopt_with(&self, stream: R::Stream, target: Target, tag: Option<u64>, leftover: Bytes) -> Result<(), HubError> {
        self.shared.check_channel(&target.channel)?;
        let counted = Counted::new(&self.shared.mailboxes);
        self.shared.command(counted.worker, Command::Adopt { stream, target, tag, leftover })?;
        counted.hand_over();
        Ok(())
    }

    /// Publishes a message. While the queue of publishes is full ([`Limits::publish_bytes`]), as in an outage of Redis,
    /// it waits for room; a caller that drops the future has published nothing.
    ///
    /// Messages of one caller stay in order. Accepted messages may still be lost if Redis is away for longer than
    /// [`Limits::publish_time`].
    ///
    /// # Errors
    /// [`HubError::Misuse`] with [`Misuse::ChannelName`] or [`Misuse::MessageSize`]; [`HubError::Stopped`].
    pub async fn publish(&self, channel: impl Into<Bytes>, payload: impl Into<Bytes>) -> Result<(), HubError> {
        let (channel, payload) = (channel.into(), payload.into());
        self.shared.check_channel(&channel)?;
        if payload.len() > self.shared.limits.message_bytes {
            return Err(HubError::Misuse(Misuse::MessageSize));
        }
        let mut message = Some((channel, payload));
        self.shared
            .gate
            .wait(|gate| {
                if gate.stopped {
                    return Some(Err(HubError::Stopped));
                }
                let (channel, payload) = if gate.is_open() { message.take()? } else { return None };
                gate.in_flight += publish_cost(&channel, payload.len());
                self.shared.mailboxes[0].post(Mail::Command(Command::Publish { channel, payload }));
                Some(Ok(()))
            })
            .await
    }

    /// Subscribes to a channel. When this returns the subscription is confirmed: from here on it misses no message
    /// without reporting that.
    ///
    /// # Errors
    /// [`HubError::Misuse`] with [`Misuse::ChannelName`], [`Misuse::FrameType`] or [`Misuse::Notes`];
    /// [`HubError::Stopped`].
    pub async fn subscribe(&self, channel: impl Into<Bytes>, frame: FrameType) -> Result<Subscription<R>, HubError> {
        self.subscribe_on(0, channel.into(), frame).await
    }

    async fn subscribe_on(
        &self,
        worker: WorkerId,
        channel: Bytes,
        frame: FrameType,
    ) -> Result<Subscription<R>, HubError> {
        self.shared.check_channel(&channel)?;
        let inbox = Arc::<Watched<Inbox>>::default();
        self.shared.command(worker, Command::Subscribe { channel, frame, feed: Feed(inbox.clone()) })?;
        // Dropped on an error, or by one who stops waiting, which unsubscribes.
        let (mailboxes, taken) = (self.shared.mailboxes.clone(), VecDeque::new());
        let subscription = Subscription { inbox, mailboxes, worker, taken };
        subscription
            .inbox
            .wait(|inbox| match inbox.state {
                State::Waiting => None,
                State::Subscribed => Some(Ok(())),
                State::Refused(misuse) => Some(Err(HubError::Misuse(misuse))),
                State::Ended => Some(Err(HubError::Stopped)),
            })
            .await?;
        Ok(subscription)
    }

    /// What the hub counts and whether it is ready: `fanfare_server::metrics::text` writes it for Prometheus.
    ///
    /// # Errors
    /// [`HubError::Stopped`].
    pub async fn metrics(&self) -> Result<Snapshot, HubError> {
        let mut whole = Snapshot::default();
        for worker in 0..self.shared.mailboxes.len() {
            let (blank, share): (Option<Box<Snapshot>>, Share) = self.ask(worker, Command::Measure).await?;
            whole = blank.map_or(whole, |blank| *blank).with(&share);
        }
        Ok(whole)
    }

    /// Closes all sessions with 1001, lets accepted publishes leave, and waits until all that is done, at most
    /// [`Limits::drain_time`]. Later calls return `Ok(())`.
    ///
    /// # Errors
    /// [`ServeError::Unflushed`] if accepted publishes were lost, [`ServeError::System`].
    pub async fn stop(&self) -> Result<(), ServeError> {
        self.shared.stop();
        self.shared.report.ended().await
    }
}

impl<R: Runtime> Shared<R> {
    fn check_channel(&self, channel: &[u8]) -> Result<(), HubError> {
        let is_valid = (1..=self.limits.channel_bytes).contains(&channel.len());
        if is_valid { Ok(()) } else { Err(HubError::Misuse(Misuse::ChannelName)) }
    }

    /// Under the gate's lock, so that nothing comes behind the word to shut down.
    pub(super) fn command(&self, worker: WorkerId, command: Command<R::Stream>) -> Result<(), HubError> {
        self.gate.look(|gate| {
            if gate.stopped {
                return Err(HubError::Stopped);
            }
            self.mailboxes[worker].post(Mail::Command(command));
            Ok(())
        })
    }

    fn stop(&self) {
        self.gate.change(|gate| {
            // Also when the hub has stopped before: a worker that drains already ignores it.
            gate.stopped = true;
            self.mailboxes.iter().for_each(|mailbox| mailbox.post(Mail::Drain { delay: Duration::ZERO }));
        });
    }
}

/// A session that is counted, and not yet a worker's.
struct Counted<'m, R: Runtime> {
    mailboxes: &'m [Mailbox<R>],
    worker: WorkerId,
    handed_over: bool,
}

impl<'m, R: Runtime> Counted<'m, R> {
    /// For the worker with the fewest sessions.
    fn new(mailboxes: &'m [Mailbox<R>]) -> Self {
        Self { mailboxes, worker: Mailbox::add_session(mailboxes), handed_over: false }
    }

    /// The worker counts it no longer when it ends.
    fn hand_over(mut self) {
        self.handed_over = true;
    }
}

impl<R: Runtime> Drop for Counted<'_, R> {
    fn drop(&mut self) {
        if !self.handed_over {
            self.mailboxes[self.worker].remove_session();
        }
    }
}

impl<R: Runtime> Drop for Shared<R> {
    fn drop(&mut self) {
        self.stop();
    }
}

impl<R: Runtime> Clone for Hub<R> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone() }
    }
}

impl<R: Runtime> fmt::Debug for Hub<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hub").field("gate", &self.shared.gate).finish_non_exhaustive()
    }
}

/// A session without its connection. Messages wait for the connection, bounded as for every session. If none is handed
/// over within the time of a ping and its answer, or if this is dropped, the session ends.
#[derive(Debug)]
pub struct Reserved<R: Runtime> {
    session: Option<SessionId>,
    worker: WorkerId,
    tag: Option<u64>,
    hub: Hub<R>,
}

impl<R: Runtime> Reserved<R> {
    /// Gives the session a number of your own, as [`Hub::adopt_tagged`]. It counts once the connection is there.
    #[must_use]
    pub const fn tag(mut self, tag: u64) -> Self {
        self.tag = Some(tag);
        self
    }

    /// Takes in the connection, after its 101, and serves it to its end. `leftover` is what was read from it behind
    /// the request. If the session has ended meanwhile the connection is dropped.
    pub fn adopt(mut self, stream: impl Into<R::Stream>, leftover: Bytes) {
        if let Some(session) = self.session.take() {
            self.command(Command::Attach { session, stream: stream.into(), tag: self.tag, leftover });
        }
    }

    /// Also while the hub stops: the session has yet to be told.
    fn command(&self, command: Command<R::Stream>) {
        let shared = &self.hub.shared;
        shared.gate.look(|gate| {
            if !gate.ended {
                shared.mailboxes[self.worker].post(Mail::Command(command));
            }
        });
    }
}

impl<R: Runtime> Drop for Reserved<R> {
    fn drop(&mut self) {
        if let Some(session) = self.session.take() {
            self.command(Command::Release(session));
        }
    }
}

/// The messages of one channel, in order. Dropping it unsubscribes.
///
/// Waiting messages are bounded by [`Limits::queue_bytes`]; beyond that the oldest are dropped and counted.
pub struct Subscription<R: Runtime> {
    inbox: Arc<Watched<Inbox>>,
    mailboxes: Arc<[Mailbox<R>]>,
    worker: WorkerId,
    /// Messages of the run that was taken out of the inbox last.
    taken: VecDeque<Bytes>,
}

/// What a [`Subscription`] receives.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Heard {
    /// A message.
    Message(Bytes),
    /// The number of messages that were dropped at this place, because they were not taken in time.
    Missed(u64),
    /// The connection to Redis was lost for this time, in which messages of other instances may have been missed.
    Gap(Duration),
}

impl<R: Runtime> Subscription<R> {
    /// Waits for the next one; `None` when the hub has stopped and all were taken. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<Heard> {
        loop {
            if let Some(message) = self.taken.pop_front() {
                return Some(Heard::Message(message));
            }
            let take = |inbox: &mut Inbox| match std::mem::take(&mut inbox.missed) {
                0 => match (inbox.pop(), &inbox.state) {
                    (None, State::Ended) => Some(Err(None)),
                    (None, _) => None,
                    (Some(Item::Run(run)), _) => Some(Ok(run)),
                    (Some(Item::Gap(gap)), _) => Some(Err(Some(Heard::Gap(gap)))),
                },
                messages => Some(Err(Some(Heard::Missed(messages)))),
            };
            match self.inbox.wait(take).await {
                Ok(run) => self.taken.extend(run.payloads().map(|payload| run.bytes().slice_ref(payload))),
                Err(other) => return other,
            }
        }
    }
}

impl<R: Runtime> Drop for Subscription<R> {
    fn drop(&mut self) {
        self.mailboxes[self.worker].post(Mail::Command(Command::Unsubscribe(self.inbox.clone())));
    }
}

impl<R: Runtime> fmt::Debug for Subscription<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription").field("inbox", &self.inbox).finish_non_exhaustive()
    }
}
