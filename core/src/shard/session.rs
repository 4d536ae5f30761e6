//! One connection's place in a shard: its stage from request head to close, its queue, its wakes.

use std::io::IoSlice;
use std::net::IpAddr;

use bytes::{Bytes, BytesMut};

use super::intake::Intake;
use super::queue::{Queue, Runs};
use crate::error::{Closed, Error, Farewell, Misuse, Side};
use crate::http::{Method, Request, RequestReader, Upgrade};
use crate::limits::Limits;
use crate::note::Note;
use crate::route::{FrameType, Target};
use crate::time::{Instant, earlier};
use crate::ws;

/// Kept small: an idle connection costs little more than this.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) generation: u32,
    pub(super) stage: Stage,
    pub(super) queue: Queue,
    /// An HTTP answer, our 101 included, that leaves before all else.
    pub(super) answer: Option<Box<Leaving>>,
    /// Where this session stands among its channel's members.
    pub(super) member: Option<Member>,
    /// As the shard's timers have it.
    pub(super) deadline: Option<Instant>,
    /// Where the input of an open one stands.
    pub(super) intake: Intake,
    pub(super) rare: Option<Box<Rare>>,
    pub(super) flags: Flags,
}

/// What few sessions have.
#[derive(Debug, Default)]
pub(super) struct Rare {
    /// How it will be closed if it does not end before.
    pub(super) planned: Option<Planned>,
    /// Messages that it lost and that the embedder has not heard of.
    pub(super) dropped: u64,
    /// Messages in the last note of a drop that was put into its queue.
    pub(super) noted: u64,
    /// If it has notes, the messages of its client's that were taken.
    pub(super) received: u64,
    /// What was read of it and is yet to be taken in.
    pub(super) leftover: Leftover,
    /// Its place among those that are behind, as the shard has it.
    pub(super) behind: Option<Instant>,
}

#[derive(Debug, Default)]
pub(super) struct Flags {
    /// It is in the list of those with new output.
    pub(super) listed: bool,
    /// Its socket takes no more for now.
    pub(super) blocked: bool,
    /// The embedder was told to end the write side.
    pub(super) ended_writes: bool,
    /// Its peer has ended its side.
    pub(super) peer_ended: bool,
    /// The shard told the embedder not to read, and names the session when it may read again.
    pub(super) unread: bool,
    /// How far it has come if a deadline of it has passed.
    pub(super) overdue: Overdue,
    /// Reads that brought something since then.
    pub(super) overdue_reads: u8,
    /// It is operation's, not a client's.
    pub(super) admin: bool,
    /// It has no place among the clients.
    pub(super) crowded: bool,
    /// Once it is open.
    pub(super) admission: Admission,
}

/// How far a session has come whose deadline has passed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Overdue {
    /// None has passed, or it was judged.
    #[default]
    No,
    /// The owner is to look whether something has arrived.
    ToLook,
    /// The owner has asked whether it may read. The session is judged by what it has read when time comes in next.
    Looked,
    /// The bus is to say that all it has is handed over.
    AwaitsBus,
}

/// A Close that an open session will be sent, unless it ends before.
#[derive(Clone, Copy, Debug)]
pub(super) struct Planned {
    pub(super) at: Instant,
    pub(super) farewell: Farewell,
}

/// What was read of a session and is yet to be taken in.
#[derive(Debug, Default)]
pub(super) struct Leftover {
    pub(super) bytes: BytesMut,
    /// The peer's end of the stream comes behind it.
    pub(super) ends: bool,
}

impl Leftover {
    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

#[derive(Debug)]
pub(super) enum Stage {
    /// Reads the request head.
    Head(Box<Head>),
    /// The embedder decides about the request.
    Deciding(Box<Deciding>),
    /// Waits for the channel's subscription; then the 101 leaves.
    Joining(Box<Joining>),
    /// A WebSocket.
    Open(Open),
    /// The embedder gathers the metrics that it is to be answered.
    Scraping { method: Method, deadline: Instant },
    /// A plain answer leaves, then the peer has `close_time` to end its side.
    Answered { deadline: Instant, error: Option<Error> },
}

#[derive(Debug)]
pub(super) struct Head {
    pub(super) reader: RequestReader,
    pub(super) peer: Option<IpAddr>,
    pub(super) deadline: Instant,
}

#[derive(Debug)]
pub(super) struct Deciding {
    pub(super) upgrade: Upgrade,
    /// What came behind the head.
    pub(super) leftover: Vec<u8>,
    pub(super) deadline: Instant,
}

#[derive(Debug)]
pub(super) struct Joining {
    /// `None` for a session whose handshake somebody else made.
    pub(super) switch: Option<Bytes>,
    pub(super) target: Target,
    pub(super) leftover: Vec<u8>,
    pub(super) deadline: Instant,
}

#[derive(Debug)]
pub(super) struct Open {
    pub(super) ws: ws::Session,
    pub(super) target: Target,
    /// What it has begun to say and not finished.
    pub(super) unfinished: Option<Box<Unfinished>>,
}

/// What becomes of a whole message of the client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Admission {
    /// It goes to the bus at once.
    #[default]
    Publish,
    /// It is put to the embedder, if the client may publish.
    Submit,
    /// Nothing: the embedder has refused one before it.
    Discard,
}

/// A message or control frame of which not all has come.
#[derive(Debug)]
pub(super) struct Unfinished {
    /// When its first byte came; later by the time in which it was not read.
    pub(super) since: Instant,
    /// What is held of it.
    pub(super) bytes: usize,
    /// Its place among those that hold more than is free, as the shard has it.
    pub(super) place: Option<Instant>,
}

#[derive(Debug)]
pub(super) struct Leaving {
    bytes: Bytes,
    sent: usize,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Member {
    pub(super) channel: u32,
    pub(super) place: u32,
}

/// A request that waits for [`Shard::accept`](super::Shard::accept) or [`Shard::refuse`](super::Shard::refuse).
#[derive(Debug)]
#[non_exhaustive]
pub struct Asked {
    /// The request as it came.
    pub request: Request,
    /// The client's address, if the embedder gave one.
    pub peer: Option<IpAddr>,
    /// Where the routes would take it, if they know its path.
    pub route: Option<Target>,
}

impl Deciding {
    /// Bytes of the client's that wait for an answer.
    pub(super) fn held(&self) -> usize {
        self.upgrade.offered_bytes() + self.leftover.len()
    }
}

impl Joining {
    /// Bytes that wait for the subscription, the client's and our 101.
    pub(super) fn held(&self) -> usize {
        self.switch.as_ref().map_or(0, Bytes::len) + self.leftover.len()
    }
}

impl Open {
    pub(super) const fn new(ws: ws::Session, target: Target) -> Self {
        Self { ws, target, unfinished: None }
    }

    /// Whether a message asks for that note, and is none of the route's.
    pub(super) fn is_question(&self, message: &ws::Message<'_>) -> bool {
        self.target.notes && message.frame == FrameType::Binary && message.payload.is_empty()
    }

    /// Whether what is read from it may have to be published. Once our Close is on its way it is read for the
    /// client's Close.
    pub(super) fn needs_credit(&self) -> bool {
        self.target.rights.publish && self.ws.can_send()
    }
}

impl Leaving {
    pub(super) fn new(bytes: Bytes) -> Self {
        Self { bytes, sent: 0 }
    }

    fn unsent(&self) -> &[u8] {
        &self.bytes[self.sent..]
    }
}

impl Session {
    pub(super) fn new(generation: u32, stage: Stage) -> Self {
        Self {
            generation,
            stage,
            queue: Queue::default(),
            answer: None,
            member: None,
            deadline: None,
            intake: Intake::Clear,
            rare: None,
            flags: Flags::default(),
        }
    }

    /// Tells a client that wants notes that the connection lives, and what was taken of its messages: so many more.
    pub(super) fn note_alive(&mut self, taken: u64, limits: &Limits) {
        let Stage::Open(open) = &mut self.stage else { return };
        if !open.target.notes {
            return;
        }
        if taken > 0 {
            self.rare.get_or_insert_default().received += taken;
        }
        let received = self.rare.as_ref().map_or(0, |rare| rare.received);
        open.ws.note(Note::Alive { time: limits.ping_time, received }.to_string().as_bytes());
    }

    /// Whether its socket may be read.
    pub(super) fn may_be_read(&self) -> bool {
        match &self.stage {
            _ if self.flags.peer_ended => false,
            Stage::Head(_) | Stage::Scraping { .. } | Stage::Answered { .. } => true,
            Stage::Deciding(_) | Stage::Joining(_) => false,
            Stage::Open(_) => self.intake == Intake::Clear,
        }
    }

    /// It is a WebSocket from here on.
    pub(super) fn open(&mut self, ws: ws::Session, target: Target) {
        let is_plain = target.rights.publish && !target.rights.review;
        self.flags.admission = if is_plain { Admission::Publish } else { Admission::Submit };
        self.stage = Stage::Open(Open::new(ws, target));
    }

    /// Whether it waits for credit that it does not need any more, since our Close is on its way.
    pub(super) fn waits_in_vain(&self) -> bool {
        self.intake.waits().is_some() && matches!(&self.stage, Stage::Open(open) if !open.needs_credit())
    }

    /// Gives back what few sessions have if it does not any more.
    pub(super) fn drop_rare_if_bare(&mut self) {
        let is_bare = |rare: &mut Box<Rare>| {
            let has_counts = rare.dropped > 0 || rare.noted > 0 || rare.received > 0;
            rare.planned.is_none() && rare.behind.is_none() && !has_counts && rare.leftover.is_empty()
        };
        self.rare.take_if(is_bare);
    }

    /// A member of its channel that takes new messages.
    pub(super) fn takes_messages(&self) -> bool {
        matches!(&self.stage, Stage::Open(open) if open.ws.can_send())
    }

    pub(super) fn has_output(&self) -> bool {
        self.answer.is_some() || !self.queue.is_empty() || !self.control().is_empty()
    }

    /// The next time at which something must happen to it.
    pub(super) fn next_deadline(&self, limits: &Limits) -> Option<Instant> {
        match &self.stage {
            Stage::Head(head) => Some(head.deadline),
            Stage::Deciding(deciding) => Some(deciding.deadline),
            Stage::Joining(joining) => Some(joining.deadline),
            Stage::Scraping { deadline, .. } | Stage::Answered { deadline, .. } => Some(*deadline),
            Stage::Open(open) => {
                let ends = earlier(self.turn_deadline(limits), self.planned_at());
                earlier(open.ws.deadline(limits), ends)
            }
        }
    }

    /// When its message has to be whole, or its wait for credit is over.
    pub(super) fn turn_deadline(&self, limits: &Limits) -> Option<Instant> {
        earlier(self.pause_deadline(limits), self.message_deadline(limits))
    }

    /// Lends what may leave now, in order: an answer, the rest of a begun frame, control frames, data.
    pub(super) fn slices<'a>(&'a self, runs: &'a Runs, out: &mut [IoSlice<'a>]) -> usize {
        if self.lends_only_data() {
            return self.queue.slices(runs, 0, out);
        }
        let begun = self.queue.begun(runs);
        let answer = self.answer();
        let mut filled = 0;
        for bytes in [answer, begun, self.control()] {
            if !bytes.is_empty() && filled < out.len() {
                out[filled] = IoSlice::new(bytes);
                filled += 1;
            }
        }
        filled + self.queue.slices(runs, begun.len(), &mut out[filled..])
    }

    /// Nothing but data waits, which is nearly always so.
    fn lends_only_data(&self) -> bool {
        self.answer.is_none() && self.control().is_empty()
    }

    /// The first `n` bytes of what [`Session::slices`] lends have left; says whether a ping was among them.
    pub(super) fn sent(&mut self, runs: &mut Runs, mut n: usize, now: Instant) -> Result<bool, Misuse> {
        if self.lends_only_data() {
            if n > self.queue.bytes() {
                return Err(Misuse::TooMuchTransmitted);
            }
            self.queue.sent(runs, n);
            if let Stage::Open(open) = &mut self.stage
                && n > 0
            {
                open.ws.handle_progress(now);
            }
            return Ok(false);
        }
        let (answer, control) = (self.answer().len(), self.control().len());
        if n > answer + control + self.queue.bytes() {
            return Err(Misuse::TooMuchTransmitted);
        }
        let answered = n.min(answer);
        if let Some(leaving) = &mut self.answer {
            leaving.sent += answered;
            n -= answered;
            self.answer.take_if(|leaving| leaving.unsent().is_empty());
        }
        let begun = n.min(self.queue.begun(runs).len());
        let control = control.min(n - begun);
        let data = n - control;
        self.queue.sent(runs, data);
        let mut pinged = false;
        if let Stage::Open(open) = &mut self.stage {
            if control > 0 {
                // Misuse is impossible: it is no more than it lends.
                pinged = open.ws.control_sent(control, now).unwrap_or(false);
            }
            // Our own ping is no sign of life.
            if data > 0 || answered > 0 {
                open.ws.handle_progress(now);
            }
        }
        Ok(pinged)
    }

    /// Nothing more will be written.
    pub(super) fn has_finished(&self) -> bool {
        let done = match &self.stage {
            Stage::Open(open) => open.ws.state() == ws::State::Finished,
            Stage::Answered { .. } => true,
            Stage::Head(_) | Stage::Deciding(_) | Stage::Joining(_) | Stage::Scraping { .. } => false,
        };
        done && !self.has_output()
    }

    /// Whether its peer has not done what it must, so that there is no use in offering it what it has not taken. A plain
    /// answer that has left wholly may be on its way over a slow line.
    pub(super) fn is_waited_for(&self) -> bool {
        match &self.stage {
            _ if self.flags.peer_ended => false,
            Stage::Head(_) => false,
            Stage::Answered { .. } => self.has_output(),
            Stage::Deciding(_) | Stage::Joining(_) | Stage::Open(_) | Stage::Scraping { .. } => true,
        }
    }

    /// How it ended, once it has.
    pub(super) fn closed(&self) -> Option<Closed> {
        match &self.stage {
            Stage::Open(open) => open.ws.closed(),
            Stage::Answered { error, .. } if self.flags.peer_ended && !self.has_output() => {
                Some(Closed { by: Side::Local, code: None, error: *error })
            }
            Stage::Answered { .. }
            | Stage::Head(_)
            | Stage::Deciding(_)
            | Stage::Joining(_)
            | Stage::Scraping { .. } => None,
        }
    }

    fn answer(&self) -> &[u8] {
        self.answer.as_ref().map_or(&[], |answer| answer.unsent())
    }

    fn control(&self) -> &[u8] {
        match &self.stage {
            Stage::Open(open) => open.ws.control(!self.queue.is_empty()),
            _ => &[],
        }
    }
}
