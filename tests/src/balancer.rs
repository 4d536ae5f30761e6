//! A load balancer as people have it: round robin over TCP, to the instances whose `/ready` was 200 when last asked.

use std::io;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::metrics::get;

/// Between two questions to an instance.
pub const CHECK_INTERVAL: Duration = Duration::from_millis(100);

/// The stack of a thread that copies bytes, of which there are two for each client.
const STACK: usize = 64 * 1024;

/// Listens on a port of its own on loopback. Dropping it takes no more clients.
pub struct Balancer {
    port: u16,
    shared: Arc<Shared>,
}

/// A client was handed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handed {
    /// When the instance was asked whether it is ready, and said yes.
    pub asked: Instant,
    /// To the instance at this port.
    pub port: u16,
}

struct Shared {
    instances: Vec<Instance>,
    next: AtomicUsize,
    handed: Mutex<Vec<Handed>>,
    /// Clients for whom there was no instance.
    turned_away: AtomicUsize,
    is_over: AtomicBool,
}

struct Instance {
    port: u16,
    /// When it was asked last, if it said that it is ready.
    ready: Mutex<Option<Instant>>,
}

impl Balancer {
    /// Spreads clients over the instances at `ports`, none of which is asked yet.
    ///
    /// # Errors
    ///
    /// When the system has no port left.
    pub fn start(ports: &[u16]) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let port = listener.local_addr()?.port();
        let instance = |&port| Instance { port, ready: Mutex::default() };
        let shared = Arc::new(Shared {
            instances: ports.iter().map(instance).collect(),
            next: AtomicUsize::new(0),
            handed: Mutex::default(),
            turned_away: AtomicUsize::new(0),
            is_over: AtomicBool::new(false),
        });
        let (asking, accepting) = (Arc::clone(&shared), Arc::clone(&shared));
        thread::spawn(move || asking.ask());
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if accepting.is_over.load(Ordering::Relaxed) {
                    return;
                }
                // Whoever cannot be handed on sees its connection end.
                let _ = accepting.hand_on(&client);
            }
        });
        Ok(Self { port, shared })
    }

    /// The port that it listens on.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// How many instances it would hand clients to.
    #[must_use]
    pub fn ready(&self) -> usize {
        self.shared.instances.iter().filter(|instance| locked(&instance.ready).is_some()).count()
    }

    /// All that it handed on so far.
    #[must_use]
    pub fn handed(&self) -> Vec<Handed> {
        locked(&self.shared.handed).clone()
    }

    /// Clients for whom there was no instance.
    #[must_use]
    pub fn turned_away(&self) -> usize {
        self.shared.turned_away.load(Ordering::Relaxed)
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Relaxed);
        // It wakes who accepts; whether it is taken does not matter.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

impl Shared {
    fn ask(&self) {
        while !self.is_over.load(Ordering::Relaxed) {
            for instance in &self.instances {
                let asked = Instant::now();
                let is_ready = get(instance.port, "/ready").is_ok_and(|answer| answer.status == 200);
                *locked(&instance.ready) = is_ready.then_some(asked);
            }
            thread::sleep(CHECK_INTERVAL);
        }
    }

    fn hand_on(&self, client: &TcpStream) -> io::Result<()> {
        let count = self.instances.len();
        let next = self.next.fetch_add(1, Ordering::Relaxed);
        let turn = (0..count).map(|number| &self.instances[(next + number) % count]);
        let mut ready = turn.filter_map(|instance| Some((instance, (*locked(&instance.ready))?)));
        let Some((instance, asked)) = ready.next() else {
            self.turned_away.fetch_add(1, Ordering::Relaxed);
            return Ok(());
        };
        locked(&self.handed).push(Handed { asked, port: instance.port });
        let server = TcpStream::connect(("127.0.0.1", instance.port))?;
        client.set_nodelay(true)?;
        server.set_nodelay(true)?;
        copy(client.try_clone()?, server.try_clone()?)?;
        copy(server, client.try_clone()?)
    }
}

/// Copies bytes until one side ends, and then ends the other in the same direction.
fn copy(mut from: TcpStream, mut to: TcpStream) -> io::Result<()> {
    thread::Builder::new().stack_size(STACK).spawn(move || {
        // However it ends: what comes is the end.
        let _ = io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Write);
        let _ = from.shutdown(Shutdown::Read);
    })?;
    Ok(())
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
