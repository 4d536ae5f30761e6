//! A server: clients that connect to all its workers, more than there are places.

use std::num::NonZero;
use std::sync::PoisonError;

use arbitrary::Arbitrary;
use fanfare_core::time::Duration;

use super::drive::STEPS;
use super::peer::{MESSAGE_BYTES, Peer, check_authors};
use crate::mailbox::Mailbox;
use crate::memory::{Memory, request};
use crate::{Server, Setup};

/// The steps of a server and its clients.
#[derive(Arbitrary, Debug)]
pub struct ServerStory {
    workers: u8,
    places: u8,
    steps: Vec<Step>,
}

/// Clients are numbered modulo how many there are, and so are rooms and workers.
#[derive(Arbitrary, Debug)]
enum Step {
    /// A client connects and asks for a room.
    Join(u8),
    /// A client connects and says nothing.
    Connect(u8),
    /// It asks for its room.
    Ask(u8),
    /// A client connects and says what makes no sense.
    Nonsense,
    Say {
        peer: u8,
        len: u16,
    },
    /// A client takes so many bytes from here on.
    Room {
        peer: u8,
        bytes: u16,
    },
    Free(u8),
    /// It does not answer from here on.
    Silence(u8),
    End(u8),
    Reset(u8),
    /// A worker's thread gets no turn for a while.
    Stick {
        worker: u8,
        stuck: bool,
    },
    /// Time passes, in tens of milliseconds.
    Pass(u16),
    Stop,
}

const ROOMS: u8 = 2;

pub(super) fn tell(memory: &Memory, story: &ServerStory) {
    let mut teller = Teller::new(memory, story);
    for step in story.steps.iter().take(STEPS) {
        teller.step(step);
        teller.settle();
        teller.check();
    }
    teller.end();
}

struct Teller<'a> {
    memory: &'a Memory,
    server: Server<Memory>,
    workers: usize,
    places: usize,
    stuck: Vec<bool>,
    is_stopped: bool,
    peers: Vec<Peer>,
}

impl<'a> Teller<'a> {
    fn new(memory: &'a Memory, story: &ServerStory) -> Self {
        let (workers, places) = (usize::from(story.workers) % 3 + 1, usize::from(story.places) % 6 + 1);
        let (threads, most) = (NonZero::new(workers), NonZero::new(places));
        let mut setup = Setup { workers: threads, max_connections: most, ..Setup::default() };
        setup.listen.host = Some("localhost".to_owned());
        let limits = &mut setup.settings.limits;
        limits.message_bytes = MESSAGE_BYTES;
        (limits.queue_bytes, limits.all_queues_bytes) = (1_500, 9_000);
        (limits.publish_bytes, limits.mailbox_bytes, limits.partial_bytes) = (3_000, 4_000, 2_000);
        let started = memory.start(Server::<Memory>::start(setup));
        let server = started.lock().unwrap_or_else(PoisonError::into_inner).take();
        let server = server.expect("it starts at once").expect("a server");
        let stuck = vec![false; workers];
        Self { memory, server, workers, places, stuck, is_stopped: false, peers: Vec::new() }
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Join(room) => {
                let gets_a_place = self.sessions() < self.places && !self.is_stopped && !self.is_stuck();
                self.connect(room);
                self.ask(self.peers.len() - 1);
                self.settle();
                let peer = &self.peers[self.peers.len() - 1];
                assert!(!gets_a_place || peer.status == 101, "a place was free, and the answer is {}", peer.status);
            }
            Step::Connect(room) => self.connect(room),
            Step::Nonsense => {
                self.connect(0);
                self.peers[self.peers.len() - 1].client.send(b"nonsense\r\n\r\n");
            }
            Step::Pass(time) => self.memory.pass(Duration::from_millis(10) * u32::from(time)),
            Step::Stick { worker, stuck } => self.stick(usize::from(worker) % self.workers, stuck),
            Step::Stop => {
                self.is_stopped = true;
                self.server.stop();
                self.memory.run();
            }
            Step::Ask(peer)
            | Step::Say { peer, .. }
            | Step::Room { peer, .. }
            | Step::Free(peer)
            | Step::Silence(peer)
            | Step::End(peer)
            | Step::Reset(peer) => {
                if let Some(place) = usize::from(peer).checked_rem(self.peers.len()) {
                    self.step_of_peer(place, step);
                }
            }
        }
    }

    fn step_of_peer(&mut self, place: usize, step: &Step) {
        let peer = &mut self.peers[place];
        match *step {
            Step::Ask(_) if !peer.is_over && peer.status == 0 => self.ask(place),
            Step::Say { len, .. } if peer.is_open() => peer.say(place, len.into()),
            Step::Room { bytes, .. } => peer.take_at_most(bytes.into()),
            Step::Free(_) => peer.take_at_most(usize::MAX),
            Step::Silence(_) => peer.answers = false,
            Step::End(_) => peer.end(),
            Step::Reset(_) => peer.reset(),
            _ => {}
        }
    }

    fn connect(&mut self, room: u8) {
        self.peers.push(Peer::new(self.memory.connect(), usize::from(room % ROOMS), true));
    }

    fn ask(&mut self, place: usize) {
        let peer = &self.peers[place];
        peer.client.send(&request(&format!("/chat/{}", peer.room)));
    }

    /// The first task starts the server, the next are its workers.
    fn stick(&mut self, worker: usize, stuck: bool) {
        self.stuck[worker] = stuck;
        self.memory.set_stuck(1 + worker, stuck);
    }

    fn is_stuck(&self) -> bool {
        self.stuck.contains(&true)
    }

    fn sessions(&self) -> usize {
        Mailbox::sessions(&self.server.mailboxes)
    }

    fn settle(&mut self) {
        loop {
            self.memory.run();
            if self.peers.iter_mut().filter_map(|peer| peer.read().then_some(())).count() == 0 {
                return;
            }
        }
    }

    fn check(&self) {
        for peer in &self.peers {
            check_authors(&peer.got);
            assert!(matches!(peer.status, 0 | 101 | 400 | 408 | 503), "{}", peer.status);
        }
        assert!(self.sessions() <= self.places, "{} of {}", self.sessions(), self.places);
        if !self.is_stuck() {
            let open = self.peers.iter().filter(|peer| peer.is_open()).count();
            assert!(open <= self.places, "{open} of {}", self.places);
        }
    }

    fn end(mut self) {
        (0..self.workers).for_each(|worker| self.stick(worker, false));
        for peer in &mut self.peers {
            peer.is_free = true;
            peer.client.change(|pipe| pipe.room = usize::MAX);
        }
        self.settle();
        self.check();
        self.check_a_message_to_all();
        self.peers.iter_mut().for_each(Peer::end);
        self.settle();
        for _ in 0..4 {
            self.memory.pass(Duration::from_secs(20));
            self.settle();
        }
        // Once the time to shut down is over nobody counts who is cut off.
        if !self.is_stopped {
            assert!(self.peers.iter().all(|peer| peer.client.is_closed()), "a connection is never let go of");
            assert_eq!(self.sessions(), 0);
        }
        drop(self.server);
        self.memory.pass(Duration::from_secs(20));
        self.memory.run();
        assert_eq!(self.memory.running(), 0, "a task does not end");
    }

    /// What one client says in the end, all in its room hear, whatever happened before.
    fn check_a_message_to_all(&mut self) {
        if self.is_stopped {
            return;
        }
        for room in 0..usize::from(ROOMS) {
            let Some(place) = self.peers.iter().position(|peer| peer.room == room && peer.is_open()) else { continue };
            let frame = self.peers[place].next_message(place, 0);
            self.peers[place].client.send(&frame);
            self.settle();
            if !self.peers[place].is_open() {
                continue;
            }
            let last = self.peers[place].got.last().cloned().expect("it hears itself");
            assert!(last.starts_with(&format!("p{place}-")), "{last}");
            for peer in self.peers.iter().filter(|peer| peer.room == room && peer.is_open()) {
                assert_eq!(peer.got.last(), Some(&last));
            }
        }
    }
}
