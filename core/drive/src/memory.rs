//! A runtime whose sockets, clock, threads and signals are memory: one for each test's thread.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZero;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use crate::{HungUp, Runtime, Signal, Stream};
use fanfare_core::time::{Duration, Instant};

/// A client's request for a WebSocket.
pub(super) fn request(path: &str) -> Vec<u8> {
    format!(
        "GET {path} HTTP/1.1\r\nHost: fanfare.test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    .into_bytes()
}

/// A client's text message in one frame. Its key is zero.
pub(super) fn text(message: &str) -> Vec<u8> {
    let mut frame = vec![0x81];
    match u16::try_from(message.len()).expect("no long message") {
        len @ 0..126 => frame.push(0x80 | len as u8),
        len => {
            frame.push(0x80 | 126);
            frame.extend(len.to_be_bytes());
        }
    }
    frame.extend([0; 4]);
    frame.extend(message.as_bytes());
    frame
}

pub(super) const ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 3000);

/// Nobody goes on after a panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

thread_local! {
    static WORLD: RefCell<Arc<Mutex<World>>> = RefCell::default();
}

/// The runtime. Its default is the one of this thread.
#[derive(Clone)]
pub(super) struct Memory(Arc<Mutex<World>>);

/// What the runtime is made of, and what is around it.
#[derive(Default)]
pub(super) struct World {
    pub(super) now: Instant,
    /// What the next accepts find.
    pub(super) accepts: VecDeque<io::Result<End>>,
    /// What those find that listen anywhere but at [`ADDRESS`].
    admin_accepts: VecDeque<io::Result<End>>,
    /// What the next dials to [`REDIS`] come to.
    pub(super) dials: VecDeque<End>,
    /// Which addresses were dialled, and when.
    pub(super) dialled: Vec<(Instant, SocketAddr)>,
    /// How long the name server takes, and how often it was asked.
    pub(super) lookup_time: Duration,
    pub(super) lookups: usize,
    /// How often somebody tried to accept.
    pub(super) accept_tries: usize,
    pub(super) signals: VecDeque<Signal>,
    /// The port that somebody else listens at.
    pub(super) taken: Option<u16>,
    /// What the workers did to their sockets, a list for each turn.
    pub(super) turns: Vec<Vec<Did>>,
    tasks: Vec<Task>,
    wakers: Vec<Waker>,
    sleepers: Vec<(Instant, Waker)>,
}

/// What was done to which end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Did {
    Read(usize),
    Write(usize),
}

struct Task {
    /// Its thread is stuck.
    stuck: bool,
    future: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    woken: Arc<Woken>,
}

struct Woken(AtomicBool);

/// Either end of a connection.
#[derive(Clone, Default)]
pub(super) struct End(Arc<Mutex<Pipe>>);

#[derive(Default)]
pub(super) struct Pipe {
    /// Sent by the client.
    pub(super) input: Vec<u8>,
    /// Sent behind that, and the runtime has not looked since.
    pub(super) unheard: Vec<u8>,
    pub(super) input_ends: bool,
    /// The client has reset the connection; what it sent before can still be read.
    pub(super) is_reset: bool,
    /// What has arrived at the client.
    pub(super) output: Vec<u8>,
    pub(super) output_ended: bool,
    /// How many more bytes can be written.
    pub(super) room: usize,
    /// Every write takes nothing, at once.
    pub(super) is_dead: bool,
    wakers: Vec<Waker>,
}

impl Default for Memory {
    fn default() -> Self {
        Self(WORLD.with_borrow(Arc::clone))
    }
}

impl Memory {
    /// A world in which nothing has happened yet, from here on the one of this thread.
    pub(super) fn fresh() -> Self {
        WORLD.with_borrow_mut(|world| *world = Arc::default());
        Self::default()
    }

    /// Ends all tasks, which hold the world as it holds them.
    pub(super) fn end(&self) {
        let tasks = std::mem::take(&mut self.lock().tasks);
        drop(tasks);
        *self.lock() = World::default();
    }

    /// A client, and the server's end of its connection.
    pub(super) fn pair(&self) -> (Client, End) {
        let end = End::default();
        end.lock().room = usize::MAX;
        (Client { memory: self.clone(), end: end.clone() }, end)
    }

    /// Whoever waits for what the task does that was started as the `number`th waits no longer.
    pub(super) fn cancel(&self, number: usize) {
        let future = self.lock().tasks[number].future.take();
        drop(future);
        self.run();
    }

    /// How many tasks were started.
    pub(super) fn started(&self) -> usize {
        self.lock().tasks.len()
    }

    /// Has the world changed, and everybody look at it until nobody is woken any more.
    pub(super) fn change(&self, change: impl FnOnce(&mut World)) {
        change(&mut self.lock());
        let wakers = std::mem::take(&mut self.lock().wakers);
        wakers.into_iter().for_each(Waker::wake);
        self.run();
    }

    /// Runs all tasks until none is woken.
    pub(super) fn run(&self) {
        for _ in 0..1_000 {
            let mut ran = false;
            let count = self.lock().tasks.len();
            for place in 0..count {
                let (woken, future) = {
                    let task = &mut self.lock().tasks[place];
                    if task.stuck {
                        continue;
                    }
                    (task.woken.clone(), task.future.take())
                };
                let Some(mut future) = future else { continue };
                if woken.0.swap(false, Ordering::Relaxed) {
                    ran = true;
                    let waker = Waker::from(woken);
                    if future.as_mut().poll(&mut Context::from_waker(&waker)).is_ready() {
                        continue;
                    }
                }
                self.lock().tasks[place].future = Some(future);
            }
            if !ran {
                return;
            }
        }
        panic!("the tasks wake themselves without end");
    }

    pub(super) fn pass(&self, time: Duration) {
        let due = {
            let mut world = self.lock();
            world.now = world.now + time;
            let (now, sleepers) = (world.now, std::mem::take(&mut world.sleepers));
            let (due, left) = sleepers.into_iter().partition(|&(at, _)| at <= now);
            world.sleepers = left;
            Vec::from_iter::<Vec<(Instant, Waker)>>(due)
        };
        due.into_iter().for_each(|(_, waker)| waker.wake());
        self.run();
    }

    /// A client connects.
    pub(super) fn connect(&self) -> Client {
        let (client, end) = self.pair();
        self.change(|world| world.accepts.push_back(Ok(end)));
        client
    }

    /// Both ends of a connection that nobody has accepted.
    pub(super) fn pipe(&self) -> (Client, End) {
        let end = End::default();
        end.lock().room = usize::MAX;
        (Client { memory: self.clone(), end: end.clone() }, end)
    }

    /// Somebody connects to the address for operation.
    pub(super) fn connect_admin(&self) -> Client {
        let (client, end) = self.pair();
        self.change(|world| world.admin_accepts.push_back(Ok(end)));
        client
    }

    /// The thread that was started as the `number`th, from 0 on, does not come back from something for a while.
    pub(super) fn set_stuck(&self, number: usize, stuck: bool) {
        self.lock().tasks[number].stuck = stuck;
        self.run();
    }

    /// Redis, at the end of the next dial, which succeeds when there is room.
    pub(super) fn redis(&self, room: usize) -> Client {
        let end = End::default();
        end.lock().room = room;
        self.lock().dials.push_back(end.clone());
        Client { memory: self.clone(), end }
    }

    /// Runs `future` beside the workers.
    pub(super) fn start<T: Send + 'static>(
        &self,
        future: impl Future<Output = T> + Send + 'static,
    ) -> Arc<Mutex<Option<T>>> {
        let result = Arc::new(Mutex::new(None));
        let to = result.clone();
        self.add(async move {
            let output = future.await;
            *lock(&to) = Some(output);
        });
        self.run();
        result
    }

    /// Threads that still run.
    pub(super) fn running(&self) -> usize {
        self.lock().tasks.iter().filter(|task| task.future.is_some()).count()
    }

    /// Has all these clients' connections changed at once.
    pub(super) fn change_all<'c>(&self, clients: impl Iterator<Item = &'c Client>, change: impl Fn(&mut Pipe)) {
        let mut wakers = Vec::new();
        for client in clients {
            let mut pipe = client.end.lock();
            change(&mut pipe);
            wakers.append(&mut pipe.wakers);
        }
        wakers.into_iter().for_each(Waker::wake);
        self.run();
    }

    fn note(did: Did) {
        let memory = Self::default();
        let mut world = memory.lock();
        if let Some(turn) = world.turns.last_mut() {
            turn.push(did);
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, World> {
        lock(&self.0)
    }

    fn add(&self, future: impl Future<Output = ()> + Send + 'static) {
        let woken = Arc::new(Woken(AtomicBool::new(true)));
        self.lock().tasks.push(Task { stuck: false, future: Some(Box::pin(future)), woken });
    }
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A client of the server, with its end of the connection.
pub(super) struct Client {
    memory: Memory,
    end: End,
}

impl Client {
    pub(super) fn change(&self, change: impl FnOnce(&mut Pipe)) {
        change(&mut self.end.lock());
        let wakers = std::mem::take(&mut self.end.lock().wakers);
        wakers.into_iter().for_each(Waker::wake);
        self.memory.run();
    }

    pub(super) fn send(&self, bytes: &[u8]) {
        self.change(|pipe| pipe.input.extend_from_slice(bytes));
    }

    /// Sends without anybody being woken for it.
    pub(super) fn put(&self, bytes: &[u8]) {
        self.end.lock().input.extend_from_slice(bytes);
    }

    /// Sends what the runtime does not hear of by itself.
    pub(super) fn send_unheard(&self, bytes: &[u8]) {
        self.end.lock().unheard.extend_from_slice(bytes);
    }

    /// Takes anything from here on, without anybody being woken for it.
    pub(super) fn put_room(&self) {
        self.end.lock().room = usize::MAX;
    }

    /// What has arrived since it was last asked.
    pub(super) fn take(&self) -> Vec<u8> {
        std::mem::take(&mut self.end.lock().output)
    }

    pub(super) fn output_ended(&self) -> bool {
        self.end.lock().output_ended
    }

    /// What it is called in [`World::turns`].
    pub(super) fn number(&self) -> usize {
        self.end.number()
    }

    /// The server has let go of the connection.
    pub(super) fn is_closed(&self) -> bool {
        Arc::strong_count(&self.end.0) == 1
    }
}

impl End {
    fn number(&self) -> usize {
        Arc::as_ptr(&self.0) as usize
    }

    fn lock(&self) -> MutexGuard<'_, Pipe> {
        lock(&self.0)
    }
}

impl Stream for End {
    fn poll_read(&mut self, context: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        if self.poll_readable(context).is_pending() {
            return Poll::Pending;
        }
        Memory::note(Did::Read(self.number()));
        let mut pipe = self.lock();
        if pipe.is_reset && pipe.input.is_empty() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let count = pipe.input.len().min(buffer.len());
        buffer[..count].copy_from_slice(&pipe.input[..count]);
        pipe.input.drain(..count);
        Poll::Ready(Ok(count))
    }

    fn poll_read_now(&mut self, context: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        {
            let mut pipe = self.lock();
            let unheard = std::mem::take(&mut pipe.unheard);
            pipe.input.extend(unheard);
        }
        self.poll_read(context, buffer)
    }

    fn poll_readable(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let mut pipe = self.lock();
        if pipe.input.is_empty() && !pipe.input_ends && !pipe.is_reset {
            pipe.wakers.push(context.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(())
    }

    fn hung_up(&self) -> Option<HungUp> {
        let pipe = self.lock();
        let has_ended = pipe.input_ends && pipe.input.is_empty() && pipe.unheard.is_empty();
        if pipe.is_reset { Some(HungUp::Reset) } else { has_ended.then_some(HungUp::Ended) }
    }

    fn poll_write(&mut self, context: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        Memory::note(Did::Write(self.number()));
        let mut pipe = self.lock();
        if pipe.is_dead {
            return Poll::Ready(Ok(0));
        }
        if pipe.room == 0 {
            pipe.wakers.push(context.waker().clone());
            return Poll::Pending;
        }
        let bytes: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).take(pipe.room).collect();
        pipe.room -= bytes.len();
        pipe.output.extend_from_slice(&bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn end_writes(&mut self, _context: &mut Context<'_>) {
        self.lock().output_ended = true;
    }
}

impl End {
    fn poll_room(&self, context: &Context<'_>) -> Poll<()> {
        let mut pipe = self.lock();
        if pipe.room > 0 {
            return Poll::Ready(());
        }
        pipe.wakers.push(context.waker().clone());
        Poll::Pending
    }
}

/// The port of a Redis.
pub(super) const REDIS: u16 = 6379;

/// A port that never answers a dial.
pub(super) const SILENT: u16 = 9;

/// Listens at this port.
pub(super) struct Listening(u16);

impl AsRawFd for Listening {
    fn as_raw_fd(&self) -> RawFd {
        3
    }
}

impl Runtime for Memory {
    type Stream = End;
    type Listener = Listening;
    type Parcel = End;

    fn now(&self) -> Instant {
        self.lock().now
    }

    fn wall_clock() -> Duration {
        Duration::from_secs(784_111_777)
    }

    #[expect(clippy::redundant_async_block, reason = "like other sleeps it must not be polled once it has ended")]
    fn sleep_until(&self, at: Instant) -> impl Future<Output = ()> + Send + 'static {
        let memory = self.clone();
        let sleep = poll_fn(move |context| {
            let mut world = memory.lock();
            if world.now >= at {
                return Poll::Ready(());
            }
            world.sleepers.push((at, context.waker().clone()));
            Poll::Pending
        });
        async move { sleep.await }
    }

    fn yield_now() -> impl Future<Output = ()> + Send {
        Self::default().lock().turns.push(Vec::new());
        std::future::ready(())
    }

    fn spawn(_name: String, worker: impl Future<Output = ()> + Send + 'static) -> io::Result<()> {
        Self::default().add(worker);
        Ok(())
    }

    fn spawn_task(work: impl Future<Output = ()> + Send + 'static) {
        Self::default().add(work);
    }

    fn cores() -> io::Result<NonZero<usize>> {
        Ok(NonZero::<usize>::MIN)
    }

    fn seed() -> io::Result<u64> {
        Ok(1)
    }

    fn signals() -> io::Result<impl FnMut(&mut Context<'_>) -> Poll<Signal> + Send> {
        let memory = Self::default();
        Ok(move |context: &mut Context<'_>| {
            let mut world = memory.lock();
            world.wakers.push(context.waker().clone());
            world.signals.pop_front().map_or(Poll::Pending, Poll::Ready)
        })
    }

    async fn resolve(_host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        let memory = Self::default();
        let at = {
            let mut world = memory.lock();
            world.lookups += 1;
            world.now + world.lookup_time
        };
        memory.sleep_until(at).await;
        Ok(vec![SocketAddr::new(ADDRESS.ip(), port)])
    }

    fn listen(address: SocketAddr, _backlog: u32) -> io::Result<Listening> {
        let port = address.port();
        if Self::default().lock().taken == Some(port) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        Ok(Listening(port))
    }

    fn adopt(_socket: OwnedFd) -> io::Result<Listening> {
        Ok(Listening(ADDRESS.port()))
    }

    fn local_address(listener: &Listening) -> io::Result<SocketAddr> {
        Ok(SocketAddr::new(ADDRESS.ip(), listener.0))
    }

    fn poll_accept(listener: &mut Listening, context: &mut Context<'_>) -> Poll<io::Result<(End, SocketAddr)>> {
        let memory = Self::default();
        let mut world = memory.lock();
        let accepted = if listener.0 == ADDRESS.port() {
            world.accept_tries += 1;
            world.accepts.pop_front()
        } else {
            world.admin_accepts.pop_front()
        };
        match accepted {
            Some(result) => Poll::Ready(result.map(|end| (end, ADDRESS))),
            None => {
                world.wakers.push(context.waker().clone());
                Poll::Pending
            }
        }
    }

    async fn connect(address: SocketAddr) -> io::Result<End> {
        {
            let memory = Self::default();
            let mut world = memory.lock();
            let now = world.now;
            world.dialled.push((now, address));
        }
        let dialled = if address.port() == REDIS { Self::default().lock().dials.pop_front() } else { None };
        if let Some(end) = dialled {
            let heard = end.clone();
            // A dial has succeeded as soon as its connection may be written.
            poll_fn(move |context| heard.poll_room(context)).await;
            return Ok(end);
        }
        if address.port() == SILENT {
            std::future::pending::<()>().await;
        }
        Err(io::ErrorKind::ConnectionRefused.into())
    }

    fn detach(stream: End) -> io::Result<End> {
        Ok(stream)
    }

    fn attach(parcel: End) -> io::Result<End> {
        Ok(parcel)
    }
}
