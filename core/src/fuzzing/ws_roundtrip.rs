//! What one side says is what the other hears: client to server in any fragments, server to client in one run.

use std::borrow::Cow;

use arbitrary::Arbitrary;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};
use tungstenite::protocol::frame::{Frame, FrameHeader};

use super::client::Client;
use super::random_pieces;
use crate::limits::Limits;
use crate::route::FrameType;
use crate::run::{Refused, RunBuilder};
use crate::time::Instant;
use crate::ws::{CloseWhen, MAX_REASON, Session, State, may_be_sent};

/// Messages, said by a client and then by the server.
#[derive(Arbitrary, Debug)]
pub struct Conversation<'a> {
    cuts: u64,
    messages: Vec<Message<'a>>,
    code: u16,
    reason: &'a str,
}

#[derive(Arbitrary, Debug)]
struct Message<'a> {
    is_text: bool,
    bytes: &'a [u8],
    length: Length,
    /// Where the message is cut into fragments.
    cuts: Vec<u16>,
    /// Sent before each fragment.
    ping: Option<[u8; 3]>,
    key: [u8; 4],
}

#[derive(Arbitrary, Debug)]
enum Length {
    /// The bytes as they are.
    Own,
    /// The bytes over and over, to a length around one at which a header changes.
    Around { edge: u8, below: u8 },
}

/// Says and hears everything.
pub fn ws_roundtrip(conversation: Conversation<'_>) {
    let total: usize = conversation.messages.iter().map(|message| message.payload().len()).sum();
    if total < 70_000 {
        client_to_server(&conversation);
        server_to_client(&conversation);
    }
}

impl Message<'_> {
    fn payload(&self) -> Vec<u8> {
        let bytes = match self.length {
            Length::Own => self.bytes.to_vec(),
            Length::Around { edge, below } => {
                let edges = [0, 125, 126, 128, 1_000, 65_535, 65_536, 66_000];
                let length = edges[usize::from(edge) % edges.len()];
                let length = length - length.min(usize::from(below % 4));
                let bytes = if self.bytes.is_empty() { b"a" } else { self.bytes };
                bytes.iter().copied().cycle().take(length).collect()
            }
        };
        match String::from_utf8_lossy(&bytes) {
            Cow::Owned(text) if self.is_text => text.into_bytes(),
            _ => bytes,
        }
    }

    const fn frame(&self) -> FrameType {
        if self.is_text { FrameType::Text } else { FrameType::Binary }
    }

    /// The frames of a client, as tungstenite writes them, and the payloads of the pings among them.
    fn encode(&self, out: &mut Vec<u8>, pings: &mut Vec<Vec<u8>>) {
        let payload = self.payload();
        let mut cuts: Vec<usize> = self.cuts.iter().map(|&cut| usize::from(cut).min(payload.len())).collect();
        cuts.sort_unstable();
        cuts.truncate(20);
        cuts.push(payload.len());
        let mut start = 0;
        for (i, &end) in cuts.iter().enumerate() {
            if let Some(ping) = self.ping {
                self.encode_frame(OpCode::Control(Control::Ping), true, &ping, out);
                pings.push(ping.to_vec());
            }
            let opcode = match self.frame() {
                _ if i > 0 => Data::Continue,
                FrameType::Text => Data::Text,
                FrameType::Binary => Data::Binary,
            };
            self.encode_frame(OpCode::Data(opcode), i + 1 == cuts.len(), &payload[start..end], out);
            start = end;
        }
    }

    fn encode_frame(&self, opcode: OpCode, is_final: bool, payload: &[u8], out: &mut Vec<u8>) {
        let header = FrameHeader { is_final, opcode, mask: Some(self.key), ..FrameHeader::default() };
        Frame::from_payload(header, payload.to_vec().into()).format(out).expect("memory takes everything");
    }
}

fn client_to_server(conversation: &Conversation<'_>) {
    let limits = Limits { message_bytes: 200_000, ..Limits::default() };
    let (mut bytes, mut pings) = (Vec::new(), Vec::new());
    for message in &conversation.messages {
        message.encode(&mut bytes, &mut pings);
    }
    let mut session = Session::new(0, Instant::ZERO);
    let mut client = Client::open();
    let mut messages = conversation.messages.iter();
    for piece in random_pieces(&bytes, fastrand::Rng::with_seed(conversation.cuts)) {
        let mut piece = piece.to_vec();
        let mut input = &mut piece[..];
        while let Some(heard) = session.handle_read(&mut input, &limits, Instant::ZERO) {
            let said = messages.next().expect("nothing is heard that was not said");
            assert_eq!((heard.frame, &*heard.payload), (said.frame(), &said.payload()[..]));
        }
        hear_control(&mut session, &mut client);
    }
    assert!(messages.next().is_none(), "everything is heard");
    assert_eq!((session.state(), session.partial_bytes()), (State::Open, 0));
    let mut asked = pings.iter();
    assert!(client.pongs.iter().all(|pong| asked.any(|ping| ping == pong)));
    assert_eq!(client.pongs.last(), pings.last());
    close(session, client, conversation);
}

fn close(mut session: Session, mut client: Client, conversation: &Conversation<'_>) {
    let (code, reason) = (conversation.code, conversation.reason);
    let closed = session.close(code, reason, CloseWhen::AfterData, Instant::ZERO);
    assert_eq!(closed.is_ok(), may_be_sent(code) && reason.len() <= MAX_REASON);
    hear_control(&mut session, &mut client);
    let payload = [&code.to_be_bytes(), reason.as_bytes()].concat();
    assert_eq!(client.close, closed.is_ok().then_some(payload));
}

fn hear_control(session: &mut Session, client: &mut Client) {
    let control = session.control(false).to_vec();
    client.hear(&control);
    session.control_sent(control.len(), Instant::ZERO).expect("it was lent");
}

/// Raw bytes, so that text which is none is among them.
fn server_to_client(conversation: &Conversation<'_>) {
    let frame = conversation.messages.first().map_or(FrameType::Text, Message::frame);
    let mut builder = RunBuilder::new(frame);
    let mut said = Vec::new();
    for message in &conversation.messages {
        for payload in [message.bytes.to_vec(), message.payload()] {
            match builder.push(&payload) {
                Ok(()) => said.push(payload),
                Err(refused) => {
                    assert_eq!((refused, frame), (Refused::NotUtf8, FrameType::Text));
                    assert!(core::str::from_utf8(&payload).is_err());
                }
            }
        }
    }
    let run = builder.finish();
    assert_eq!((run.len(), run.is_empty()), (said.len(), said.is_empty()));
    assert!(run.payloads().eq(said.iter()));
    let mut client = Client::open();
    for (i, payload) in said.iter().enumerate() {
        assert_eq!(client.data_bytes, run.start(i));
        client.hear(&run.bytes()[run.start(i)..run.end(i)]);
        assert_eq!(client.messages.pop(), Some((frame, payload.clone())));
    }
    assert_eq!(client.data_bytes, run.bytes().len());
}
