//! One shard, its clients, its bus and its embedder, beside a naive model of who must hear what.

mod model;
mod peer;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io::IoSlice;
use std::sync::Arc;

use arbitrary::Arbitrary;

use self::model::Model;
use self::peer::Phase;
use crate::error::{Error, Misuse};
use crate::exchange::{News, ToShard};
use crate::http::Answer;
use crate::limits::Limits;
use crate::note;
use crate::route::{FrameType, Routes, Target};
use crate::run::RunBuilder;
use crate::settings::Settings;
use crate::shard::{SessionId, Shard};
use crate::time::{Duration, Instant};

/// What happens to a shard.
#[derive(Arbitrary, Debug)]
pub struct ShardStory<'a> {
    seed: u8,
    /// Whether the embedder decides about each request.
    asks: bool,
    steps: Vec<Step<'a>>,
}

/// Numbers stand for one of those that are there, modulo how many they are.
#[derive(Arbitrary, Debug)]
enum Step<'a> {
    Connect {
        path: u8,
    },
    Adopt {
        path: u8,
        flips_frame: bool,
    },
    Decide {
        session: u8,
        accepts: bool,
    },
    Subscribe {
        path: u8,
    },
    Unsubscribe {
        subscriber: u8,
    },
    Confirm {
        channel: u8,
    },
    Deliver {
        channel: u8,
        lengths: [u8; 3],
    },
    /// News about a channel that is no more.
    Outdated,
    Repay,
    BusLost,
    Say {
        session: u8,
        said: Said<'a>,
    },
    Eof {
        session: u8,
    },
    Reset {
        session: u8,
    },
    Write {
        session: u8,
        bytes: u8,
    },
    Acknowledge {
        session: u8,
        more_than_lent: u8,
    },
    Block {
        session: u8,
    },
    Free {
        session: u8,
    },
    Close {
        session: u8,
        code: u16,
    },
    Pass {
        hundredths: u16,
    },
    Shutdown,
    /// A client that does not wait for our 101, or one that somebody hands over with what was read of it.
    Early {
        path: u8,
        adopts: bool,
        said: Said<'a>,
        more: Said<'a>,
    },
    /// What was read of a session before.
    HandOver {
        session: u8,
        said: Said<'a>,
    },
}

#[derive(Arbitrary, Clone, Debug)]
enum Said<'a> {
    Message {
        is_text: bool,
        bytes: &'a [u8],
    },
    /// The beginning of a message that never ends.
    Beginning,
    Ping(u8),
    Close,
    NotMasked,
}

/// Paths that are on a route. They differ in rights, in frame type, in policy; all but the first five lead to the chat.
const PATHS: [&str; 9] = ["/chat", "/chat/a", "/wall", "/drop", "/bits", "/newest", "/oldest", "/latest", "/tight"];

const ROUTES: [&str; 7] = [
    "/wall=wall,publish=no",
    "/drop=drop,subscribe=no",
    "/bits=bits,binary",
    "/newest=chat,slow=drop_newest",
    "/oldest=chat,slow=drop_oldest",
    "/latest=chat,slow=latest",
    "/tight=chat,on_gap=close",
];

fn limits() -> Limits {
    Limits {
        message_bytes: 200,
        queue_bytes: 300,
        all_queues_bytes: 1_200,
        publish_bytes: 400,
        mailbox_bytes: 2_000,
        // No story takes so long.
        message_time: Duration::from_secs(24 * 60 * 60),
        // So that it is known when a session is closed.
        gap_close_time: Duration::ZERO,
        drain_time: Duration::ZERO,
        ..Limits::default()
    }
}

/// Tells the story to a shard and to the model; they must agree after each step.
pub fn shard(story: ShardStory<'_>) {
    let mut teller = Teller::new(&story);
    for step in story.steps.iter().take(200) {
        teller.step(step);
        teller.settle();
        teller.model.check(&teller.shard);
    }
    teller.end();
}

struct Teller<'a> {
    shard: Shard,
    model: Model<'a>,
    targets: BTreeMap<&'static str, Target>,
}

impl<'a> Teller<'a> {
    fn new(story: &ShardStory<'a>) -> Self {
        let routes = ROUTES.iter().map(|route| route.parse().expect("a route")).chain(Routes::default_chat()).collect();
        let mut settings = Settings::new(limits(), routes, "").expect("sound settings");
        settings.ask = story.asks;
        let target = |path| settings.routes.find(path).expect("a route").expect("a name");
        let targets = PATHS.into_iter().map(|path| (path, target(path))).collect();
        let shard = Shard::new(Arc::new(settings), story.seed.into(), Instant::ZERO);
        Self { shard, model: Model::new(limits(), story.asks), targets }
    }

    fn step(&mut self, step: &Step<'a>) {
        match *step {
            Step::Connect { path } => self.connect(path, Vec::new()),
            Step::Adopt { path, flips_frame } => self.adopt(path, flips_frame, Vec::new()),
            Step::Decide { session, accepts } => self.with(session, |this, id| this.decide(id, accepts)),
            Step::Subscribe { path } => self.subscribe(path),
            Step::Unsubscribe { subscriber } => self.unsubscribe(subscriber),
            Step::Confirm { channel } => self.confirm(channel),
            Step::Deliver { channel, lengths } => self.deliver(channel, lengths),
            Step::Outdated => self.tell_outdated(),
            Step::Repay => {
                let bytes = self.model.repay();
                self.tell(vec![News::Credit(bytes)]);
            }
            Step::BusLost => {
                self.model.lose_bus();
                self.tell(vec![News::GapBegan { epoch: self.model.epoch, since: self.model.now }]);
            }
            Step::Say { session, ref said } => self.with(session, |this, id| this.say(id, said)),
            Step::Eof { session } => self.with(session, |this, id| {
                this.shard.handle_eof(id, this.model.now);
                this.model.peer(id).end();
            }),
            Step::Reset { session } => self.with(session, |this, id| this.reset(id)),
            Step::Write { session, bytes } => self.with(session, |this, id| this.write(id, bytes.into())),
            Step::Acknowledge { session, more_than_lent } => {
                self.with(session, |this, id| this.acknowledge(id, more_than_lent.into()));
            }
            Step::Block { session } => self.with(session, |this, id| {
                this.shard.blocked(id);
                this.model.block(id);
            }),
            Step::Free { session } => self.with(session, |this, id| {
                this.shard.handle_writable(id);
                this.model.peer(id).is_blocked = false;
            }),
            Step::Close { session, code } => self.with(session, |this, id| this.close(id, code)),
            Step::Pass { hundredths } => self.pass(Duration::from_millis(u64::from(hundredths) * 10)),
            Step::Shutdown => {
                self.shard.shutdown(self.model.now);
                self.model.shut_down();
                self.follow_leftovers();
                self.judge();
            }
            Step::Early { path, adopts, ref said, ref more } => self.come_early(path, adopts, [said, more]),
            Step::HandOver { session, ref said } => self.with(session, |this, id| this.hand_over(id, said)),
        }
    }

    /// Calls `act` on the session that `number` stands for, if any is there.
    fn with(&mut self, number: u8, act: impl FnOnce(&mut Self, SessionId)) {
        if let Some(id) = self.model.session(number) {
            act(self, id);
        }
    }

    /// Where a path leads, and whether the client wants notes, as every other does.
    fn target(&self, path: u8) -> (&'static str, Target, bool) {
        let wants_notes = path >= 128;
        let path = PATHS[usize::from(path) % PATHS.len()];
        (path, self.targets[path].clone(), wants_notes)
    }

    fn connect(&mut self, path: u8, early: Vec<Said<'a>>) {
        let (path, mut target, wants_notes) = self.target(path);
        target.notes = wants_notes && target.frame == FrameType::Text;
        let id = self.shard.handle_connection(None, self.model.now);
        let head = format!(
            "GET {path} HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n{}\r\n",
            if wants_notes { "Sec-WebSocket-Protocol: fanfare.notes\r\n" } else { "" }
        );
        assert!(self.shard.handle_readable(id, self.model.now));
        let mut bytes = head.into_bytes();
        bytes.extend(bytes_of(&early));
        self.shard.handle_read(id, &mut bytes, self.model.now);
        self.model.connect(id, target, early);
    }

    fn adopt(&mut self, path: u8, flips_frame: bool, early: Vec<Said<'a>>) {
        let (_, mut target, wants_notes) = self.target(path);
        target.notes = wants_notes;
        if flips_frame {
            target.frame = if target.frame == FrameType::Text { FrameType::Binary } else { FrameType::Text };
        }
        let may_be = !target.notes || target.frame == FrameType::Text;
        let adopted = self.shard.adopt(target.clone(), bytes_of(&early), self.model.now);
        assert_eq!(adopted.is_ok(), may_be && self.model.fits(&target) && !self.model.is_closing);
        if let Ok(id) = adopted {
            self.model.adopt(id, target, early);
        }
    }

    /// No more than the shard takes of one who waits for a 101, nor than it reads at once.
    fn come_early(&mut self, path: u8, adopts: bool, said: [&Said<'a>; 2]) {
        let early = said.map(Clone::clone).to_vec();
        if bytes_of(&early).len() > 8 << 10 {
            return;
        }
        if adopts { self.adopt(path, false, early) } else { self.connect(path, early) }
    }

    fn hand_over(&mut self, id: SessionId, said: &Said<'a>) {
        let bytes = said.bytes();
        // So that it is read in one piece.
        if bytes_of(&self.model.peer(id).leftover).len() + bytes.len() <= 16 << 10 {
            self.shard.handle_leftover(id, bytes, self.model.now);
            self.model.hand_over(id, said);
        }
    }

    fn reset(&mut self, id: SessionId) {
        self.shard.handle_reset(id);
        self.model.peer(id).leftover.clear();
    }

    fn decide(&mut self, id: SessionId, accepts: bool) {
        let now = self.model.now;
        let target = self.model.peer(id).target.clone();
        let waits = matches!(self.model.peer(id).phase, Phase::Asked { .. });
        let result = if accepts {
            self.shard.accept(id, target.clone(), target.notes.then_some(note::SUBPROTOCOL), now)
        } else {
            self.shard.refuse(id, &Answer::for_error(Error::Forbidden), now)
        };
        let fits = !accepts || self.model.fits(&target);
        assert_eq!(result.is_ok(), waits && fits);
        match result {
            Ok(()) if accepts => self.model.join(id),
            Ok(()) => self.model.peer(id).answer(),
            Err(_) => {}
        }
    }

    fn subscribe(&mut self, path: u8) {
        let target = &self.targets[PATHS[usize::from(path) % PATHS.len()]];
        let subscribed = self.shard.subscribe(&target.channel, target.frame);
        assert_eq!(subscribed.is_ok(), self.model.fits(target));
        if let Ok(subscriber) = subscribed {
            self.model.subscribe(subscriber, target);
        }
    }

    fn unsubscribe(&mut self, subscriber: u8) {
        if let Some((id, channel)) = self.model.unsubscribe(subscriber) {
            self.shard.unsubscribe(&channel, id).expect("it was there");
            assert_eq!(self.shard.unsubscribe(&channel, id), Err(Misuse::NoSuchSubscriber));
        }
    }

    fn confirm(&mut self, channel: u8) {
        if let Some(name) = self.model.channel(channel) {
            let id = self.model.confirm(&name);
            self.tell(vec![News::Subscribed(id)]);
        }
    }

    fn deliver(&mut self, channel: u8, lengths: [u8; 3]) {
        let Some(name) = self.model.channel(channel) else { return };
        let frame = self.model.channels[&name].frame;
        let mut builder = RunBuilder::new(frame);
        let payloads: Vec<Vec<u8>> = lengths
            .into_iter()
            .filter(|&length| length > 0)
            .map(|length| format!("{:0>1$}", self.model.next_number(), usize::from(length)).into_bytes())
            .collect();
        if payloads.is_empty() {
            let channel = self.model.miss(&name, 1);
            return self.tell(vec![News::Missed { channel, messages: 1 }]);
        }
        payloads.iter().for_each(|payload| builder.push(payload).expect("text"));
        let run = Arc::new(builder.finish());
        let id = self.model.deliver(&name, &run, &payloads);
        self.tell(vec![News::Run { channel: id, run }]);
    }

    /// Whatever is said about a channel that is no more concerns nobody, also if another one has its place.
    fn tell_outdated(&mut self) {
        let Some(channel) = self.model.outdated else { return };
        let mut builder = RunBuilder::new(FrameType::Text);
        builder.push(b"outdated").expect("text");
        let run = Arc::new(builder.finish());
        self.model.taken += run.memory();
        self.tell(vec![News::Subscribed(channel), News::Run { channel, run }]);
    }

    fn tell(&mut self, news: Vec<News>) {
        self.shard.handle_bus(ToShard { news }, self.model.now);
    }

    fn say(&mut self, id: SessionId, said: &Said<'a>) {
        if self.ask(id) {
            self.shard.handle_read(id, &mut said.bytes(), self.model.now);
            self.model.hear_all(id, vec![said.clone()]);
        }
    }

    /// Asks whether the session may be read.
    fn ask(&mut self, id: SessionId) -> bool {
        let may = self.model.may_be_read(id);
        assert_eq!(self.shard.handle_readable(id, self.model.now), may);
        if !may {
            self.model.pause(id);
        }
        may
    }

    fn write(&mut self, id: SessionId, most: usize) {
        let lent = self.lent(id);
        let (bytes, more) = lent.split_at(most.min(lent.len()));
        self.model.peer(id).is_named = false;
        self.shard.transmitted(id, bytes.len(), self.model.now).expect("it was lent");
        self.model.peer(id).hear(bytes, more);
    }

    /// More than was lent cannot have left, and saying so changes nothing.
    fn acknowledge(&mut self, id: SessionId, more: usize) {
        let lent = self.lent(id);
        let result = self.shard.transmitted(id, lent.len() + 1 + more, self.model.now);
        assert_eq!(result, Err(Misuse::TooMuchTransmitted));
        assert_eq!(self.lent(id), lent);
    }

    fn lent(&self, id: SessionId) -> Vec<u8> {
        let mut slices = [IoSlice::new(&[]); 64];
        let filled = self.shard.transmit(id, &mut slices);
        assert!(filled < slices.len(), "a queue has fewer runs");
        slices[..filled].iter().flat_map(|slice| slice.to_vec()).collect()
    }

    fn close(&mut self, id: SessionId, code: u16) {
        let result = self.shard.close(id, code, "", self.model.now);
        let is_open = matches!(self.model.peer(id).phase, Phase::Open);
        assert_eq!(result.is_ok(), is_open && crate::ws::may_be_sent(code));
        if result.is_ok() {
            self.model.peer(id).close(true);
        }
    }

    fn pass(&mut self, time: Duration) {
        let end = self.model.now + time;
        self.settle();
        let mut rounds = 0;
        while let Some(at) = self.shard.poll_timeout().filter(|&at| at <= end) {
            rounds = if at > self.model.now { 0 } else { rounds + 1 };
            // Each round lets one more session be read that waits for credit.
            assert!(rounds < 3 + self.model.sessions().len(), "the shard spins");
            self.advance(at);
        }
        self.advance(end);
    }

    fn advance(&mut self, now: Instant) {
        self.call(now);
        self.settle();
    }

    fn call(&mut self, now: Instant) {
        self.model.advance(now);
        self.shard.handle_timeout(self.model.now);
        self.follow_leftovers();
        self.judge();
    }

    /// Nothing has arrived for those whose deadline has passed.
    fn judge(&mut self) {
        for _ in 0..2 {
            self.exchange();
            self.shard.handle_timeout(self.model.now);
            self.follow_leftovers();
        }
    }

    fn follow_leftovers(&mut self) {
        for id in std::mem::take(&mut self.shard.taken_in) {
            self.model.hear_leftover(id);
        }
    }

    fn exchange(&mut self) {
        while let Some(wishes) = self.shard.poll_bus() {
            self.model.take_wishes(wishes);
            for _ in 0..std::mem::take(&mut self.model.looks) {
                self.tell(vec![News::Looked]);
            }
        }
    }

    /// Does what can be done without time.
    fn settle(&mut self) {
        self.take_outputs();
        let mut rounds = 0;
        while self.shard.poll_timeout().is_some_and(|at| at <= self.model.now) {
            rounds += 1;
            assert!(rounds < 4 + 2 * self.model.sessions().len(), "the shard spins");
            self.call(self.model.now);
            self.take_outputs();
        }
        for id in self.model.sessions() {
            self.model.wait(id, self.shard.waits_since(id));
        }
    }

    /// Takes in every output.
    fn take_outputs(&mut self) {
        self.exchange();
        while let Some(event) = self.shard.poll_event() {
            self.model.take_event(event);
        }
        while let Some(id) = self.shard.poll_readable() {
            self.model.resume(id);
            self.ask(id);
        }
        while let Some(id) = self.shard.poll_transmit() {
            self.model.peer(id).is_named = true;
        }
        for id in self.model.sessions() {
            let has_output = !self.lent(id).is_empty();
            self.model.peer(id).check_named(has_output);
        }
    }

    /// All connections are lost: nothing may be left.
    fn end(mut self) {
        for id in self.model.sessions() {
            self.reset(id);
        }
        while let Some((id, channel)) = self.model.unsubscribe(0) {
            self.shard.unsubscribe(&channel, id).expect("it was there");
        }
        self.settle();
        // Some that were to be judged are gone.
        self.shard.handle_timeout(self.model.now);
        self.model.check(&self.shard);
        assert!(self.shard.is_empty() && self.model.channels.is_empty());
        assert_eq!(self.shard.poll_timeout(), None);
    }
}

impl Said<'_> {
    fn bytes(&self) -> Vec<u8> {
        match self {
            Said::Message { is_text, bytes } => masked(if *is_text { 0x81 } else { 0x82 }, bytes),
            Said::Beginning => masked(0x01, b"a"),
            Said::Ping(length) => masked(0x89, &[b'p'; 125][..usize::from(*length % 126)]),
            Said::Close => masked(0x88, b""),
            Said::NotMasked => vec![0x81, 0],
        }
    }
}

fn bytes_of(said: &[Said<'_>]) -> Vec<u8> {
    said.iter().flat_map(Said::bytes).collect()
}

/// A client's frame.
fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match u8::try_from(payload.len()) {
        Ok(length @ 0..=125) => frame.push(0x80 | length),
        _ => {
            frame.push(0x80 | 126);
            frame.extend((payload.len().min(0xFFFF) as u16).to_be_bytes());
        }
    }
    frame.extend([0; 4]);
    frame.extend(&payload[..payload.len().min(0xFFFF)]);
    frame
}
