//! What the tests of this module share: a client that is not ours, on `tungstenite`, and one that can do wrong.

mod decoder;
mod session;

use std::io::{Cursor, ErrorKind, Read, Write};

use tungstenite::Message as ClientMessage;
use tungstenite::protocol::frame::coding::OpCode;
use tungstenite::protocol::frame::{Frame, FrameHeader};
use tungstenite::protocol::{Role, WebSocket};

use super::{Event, Message};

pub(crate) fn seeded(seed: u64) -> fastrand::Rng {
    fastrand::Rng::with_seed(seed)
}

/// Both ends of a client's socket in memory; reading past what is there would block.
#[derive(Default)]
pub(crate) struct Pipe {
    to_client: Cursor<Vec<u8>>,
    from_client: Vec<u8>,
}

impl Read for Pipe {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        match self.to_client.read(into)? {
            0 => Err(ErrorKind::WouldBlock.into()),
            n => Ok(n),
        }
    }
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.from_client.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

pub(crate) fn client() -> WebSocket<Pipe> {
    WebSocket::from_raw_socket(Pipe::default(), Role::Client, None)
}

/// Everything that `client` reads from `bytes`.
fn reads(client: &mut WebSocket<Pipe>, bytes: &[u8]) -> Vec<ClientMessage> {
    client.get_mut().to_client.get_mut().extend_from_slice(bytes);
    let mut messages = Vec::new();
    loop {
        match client.read() {
            Ok(message) => messages.push(message),
            Err(tungstenite::Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => return messages,
            Err(tungstenite::Error::ConnectionClosed) => return messages,
            Err(error) => panic!("the client does not accept what it got: {error}"),
        }
    }
}

/// What `client` has written since the last call.
fn written(client: &mut WebSocket<Pipe>) -> Vec<u8> {
    client.flush().ok();
    std::mem::take(&mut client.get_mut().from_client)
}

pub(crate) fn client_reads(bytes: &[u8]) -> Vec<ClientMessage> {
    reads(&mut client(), bytes)
}

/// A masked frame, whatever its opcode and payload.
pub(crate) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    frame_with_key(first, payload, [0xA5, 0x5A, 0x0F, 0xC3])
}

fn frame_with_key(first: u8, payload: &[u8], key: [u8; 4]) -> Vec<u8> {
    let header = FrameHeader {
        is_final: first & 0x80 != 0,
        rsv1: first & 0x40 != 0,
        rsv2: first & 0x20 != 0,
        rsv3: first & 0x10 != 0,
        opcode: OpCode::from(first & 0x0F),
        mask: Some(key),
    };
    let mut bytes = Vec::new();
    Frame::from_payload(header, payload.to_vec().into()).format(&mut bytes).unwrap();
    bytes
}

fn owned(message: Message<'_>) -> Message<'static> {
    Message { frame: message.frame, payload: message.payload.into_owned().into() }
}

fn owned_event(event: Event<'_>) -> Event<'static> {
    match event {
        Event::Message(message) => Event::Message(owned(message)),
        Event::Ping(payload) => Event::Ping(payload.into_owned().into()),
        Event::Pong(payload) => Event::Pong(payload.into_owned().into()),
        Event::Close { code, reason } => Event::Close { code, reason: reason.into_owned().into() },
    }
}

/// Cuts `bytes` at random, now and then into single bytes or not at all.
fn random_cuts<'b>(random: &mut fastrand::Rng, mut bytes: &'b [u8]) -> Vec<&'b [u8]> {
    let longest = 1 << random.u32(0..18);
    let mut pieces = Vec::new();
    while !bytes.is_empty() {
        let (piece, rest) = bytes.split_at(random.usize(1..=longest).min(bytes.len()));
        pieces.push(piece);
        bytes = rest;
    }
    pieces
}
