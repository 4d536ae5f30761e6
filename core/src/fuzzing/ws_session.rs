//! What a client sends on an open WebSocket: the same whatever the cuts, and the same as tungstenite reads it.

use std::io::{Cursor, ErrorKind, Read, Write};

use tungstenite::Message as Other;
use tungstenite::error::{CapacityError, Error as OtherError, ProtocolError};
use tungstenite::protocol::{Role, WebSocket, WebSocketConfig};

use super::Cut;
use super::client::Client;
use crate::error::Error;
use crate::limits::Limits;
use crate::route::FrameType;
use crate::time::Instant;
use crate::ws::{Decoder, Event, Message, Session, State};

const MESSAGE_BYTES: usize = 600;
const MESSAGE_FRAGMENTS: u32 = 6;

/// The first byte is a seed for the cuts, the rest is what a client sends after the handshake.
pub fn ws_session(data: &[u8]) {
    let Some((&seed, bytes)) = data.split_first() else { return };
    let limits = Limits { message_bytes: MESSAGE_BYTES, message_fragments: MESSAGE_FRAGMENTS, ..Limits::default() };
    let whole = decode(bytes, Cut::Whole, &limits);
    for cut in [Cut::Bytewise, Cut::Random(seed)] {
        assert_eq!(whole, decode(bytes, cut, &limits), "{cut:?}");
        check_session(bytes, cut, &whole, &limits);
    }
    check_session(bytes, Cut::Whole, &whole, &limits);
    check_frames(bytes, &whole);
    compare(bytes, &whole);
}

/// Events up to the first error.
#[derive(Debug, PartialEq)]
struct Heard {
    events: Vec<Event<'static>>,
    error: Option<Error>,
}

fn decode(bytes: &[u8], cut: Cut, limits: &Limits) -> Heard {
    let mut decoder = Decoder::new();
    let mut events = Vec::new();
    for piece in cut.pieces(bytes) {
        let mut piece = piece.to_vec();
        let mut input = &mut piece[..];
        loop {
            match decoder.next(&mut input, limits) {
                Ok(Some(event)) => events.push(owned(event)),
                Ok(None) => break,
                Err(error) => return Heard { events, error: Some(error) },
            }
        }
        assert!(input.is_empty(), "all input is taken");
        let most = 2 * MESSAGE_BYTES + 125 * 2 + 64;
        assert!(decoder.partial_bytes() <= most, "{} bytes are held", decoder.partial_bytes());
    }
    Heard { events, error: None }
}

fn owned(event: Event<'_>) -> Event<'static> {
    match event {
        Event::Message(Message { frame, payload }) => {
            Event::Message(Message { frame, payload: payload.into_owned().into() })
        }
        Event::Ping(payload) => Event::Ping(payload.into_owned().into()),
        Event::Pong(payload) => Event::Pong(payload.into_owned().into()),
        Event::Close { code, reason } => Event::Close { code, reason: reason.into_owned().into() },
    }
}

/// What was heard, written again as a strict client writes it, is what came. The bytes say only what events do not: the
/// masking keys, and where messages are cut into fragments.
fn check_frames(bytes: &[u8], heard: &Heard) {
    let mut again = Vec::new();
    let mut events = heard.events.iter().peekable();
    // Of the message whose fragments are written, how many and how many bytes.
    let (mut fragments, mut written) = (0, 0);
    while events.peek().is_some() {
        let Some(came) = Came::at(&bytes[again.len()..]) else { panic!("{:?} is of no frame", events.peek()) };
        if came.first & 8 != 0 {
            let (opcode, payload) = control_payload(events.next());
            again.extend(client_frame(0x80 | opcode, &payload, came.key));
        } else {
            let message = events.clone().find_map(as_message);
            // What is heard of a message that does not end is nothing.
            let own = message.map(|message| message.payload.get(written..written + came.payload.len()));
            let payload = own.unwrap_or(Some(&came.payload)).expect("the message has as many bytes");
            let opcode = match message {
                _ if fragments > 0 => 0,
                None => came.first & 3,
                Some(Message { frame: FrameType::Text, .. }) => 1,
                Some(Message { frame: FrameType::Binary, .. }) => 2,
            };
            let is_last = came.first & 0x80 != 0;
            again.extend(client_frame(came.first & 0x80 | opcode, payload, came.key));
            (fragments, written) = (fragments + 1, written + payload.len());
            if is_last {
                let message = message.expect("the message is whole");
                assert_eq!(events.next().and_then(as_message), Some(message), "events are in order");
                assert_eq!(written, message.payload.len());
                assert!(written <= MESSAGE_BYTES && fragments <= MESSAGE_FRAGMENTS);
                assert!(message.frame == FrameType::Binary || core::str::from_utf8(&message.payload).is_ok());
                (fragments, written) = (0, 0);
            }
        }
        assert!(bytes.starts_with(&again), "what was heard is not what came");
    }
    let is_over = heard.error.is_some() || matches!(heard.events.last(), Some(Event::Close { .. }));
    let next = Came::at(&bytes[again.len()..]);
    assert!(is_over || next.is_none_or(|came| came.first & 0x88 == 0), "a whole message or control frame is lost");
}

fn as_message<'e>(event: &'e Event<'static>) -> Option<&'e Message<'static>> {
    if let Event::Message(message) = event { Some(message) } else { None }
}

/// Opcode and payload of a control frame, whose payload may have to be sound (RFC 6455 §5.5.1, §7.4).
fn control_payload(event: Option<&Event<'static>>) -> (u8, Vec<u8>) {
    match event {
        Some(Event::Ping(payload)) => (9, payload.to_vec()),
        Some(Event::Pong(payload)) => (10, payload.to_vec()),
        Some(Event::Close { code: None, reason }) => (8, reason.as_bytes().to_vec()),
        Some(Event::Close { code: Some(code), reason }) => {
            assert!(matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999), "the code {code}");
            (8, [&code.to_be_bytes(), reason.as_bytes()].concat())
        }
        other => panic!("{other:?} came as a control frame"),
    }
}

/// A whole frame as it came, with nothing of it judged.
struct Came {
    first: u8,
    /// Without its mask.
    payload: Vec<u8>,
    key: [u8; 4],
}

impl Came {
    fn at(bytes: &[u8]) -> Option<Self> {
        let (&first, &short) = (bytes.first()?, bytes.get(1)?);
        let (length, rest) = match short & 0x7F {
            126 => (u64::from(u16::from_be_bytes(*bytes.get(2..)?.first_chunk()?)), &bytes[4..]),
            127 => (u64::from_be_bytes(*bytes.get(2..)?.first_chunk()?), &bytes[10..]),
            short => (short.into(), &bytes[2..]),
        };
        let (key, payload) = rest.split_first_chunk()?;
        let payload = payload.get(..usize::try_from(length).ok()?)?;
        Some(Self { first, payload: masked(payload, *key), key: *key })
    }
}

/// A client's frame (RFC 6455 §5.2), the length in its shortest form.
fn client_frame(first: u8, payload: &[u8], key: [u8; 4]) -> Vec<u8> {
    assert!(first & 8 == 0 || payload.len() <= 125, "a long control frame");
    let mut frame = vec![first];
    match payload.len() {
        length @ 0..=125 => frame.push(0x80 | length as u8),
        length @ 126..=0xFFFF => {
            frame.push(0x80 | 126);
            frame.extend((length as u16).to_be_bytes());
        }
        length => {
            frame.push(0x80 | 127);
            frame.extend((length as u64).to_be_bytes());
        }
    }
    frame.extend(key);
    frame.extend(masked(payload, key));
    frame
}

/// With the mask put on or off (RFC 6455 §5.3).
fn masked(payload: &[u8], key: [u8; 4]) -> Vec<u8> {
    payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key).collect()
}

/// A session gives the messages that were decoded, answers the pings, and closes for the reason that was found.
fn check_session(bytes: &[u8], cut: Cut, heard: &Heard, limits: &Limits) {
    let mut session = Session::new(0, Instant::ZERO);
    let mut client = Client::open();
    let mut messages = heard.events.iter().filter_map(|event| match event {
        Event::Message(message) => Some(message),
        _ => None,
    });
    for piece in cut.pieces(bytes) {
        let mut piece = piece.to_vec();
        let mut input = &mut piece[..];
        while let Some(message) = session.handle_read(&mut input, limits, Instant::ZERO) {
            assert_eq!(Some(&message), messages.next());
        }
        let control = session.control(false).to_vec();
        client.hear(&control);
        session.control_sent(control.len(), Instant::ZERO).expect("it was lent");
    }
    assert_eq!(messages.next(), None);
    let pings: Vec<&[u8]> = heard
        .events
        .iter()
        .filter_map(|event| if let Event::Ping(payload) = event { Some(&payload[..]) } else { None })
        .collect();
    check_pongs(&client.pongs, &pings, matches!(cut, Cut::Bytewise));
    check_end(&session, &client, heard);
    session.handle_eof(Instant::ZERO);
    assert_eq!((session.state(), session.partial_bytes()), (State::Ended, 0));
    assert!(session.closed().is_some());
}

/// The answers are in the order of the questions and the last one is answered. Where each is written at once, all are.
fn check_pongs(pongs: &[Vec<u8>], pings: &[&[u8]], all: bool) {
    if all {
        assert_eq!(pongs, pings);
    }
    let mut asked = pings.iter();
    assert!(pongs.iter().all(|pong| asked.any(|ping| ping == pong)), "{pongs:?} answer {pings:?}");
    assert_eq!(pongs.last().map(Vec::as_slice), pings.last().copied());
}

fn check_end(session: &Session, client: &Client, heard: &Heard) {
    let code = match (heard.error, heard.events.last()) {
        (Some(error), _) => {
            let Some(code) = error.told().code() else { panic!("{error:?} is no error of a frame") };
            Some(code)
        }
        (None, Some(Event::Close { code, .. })) => *code,
        (None, _) => {
            assert_eq!((session.state(), &client.close), (State::Open, &None));
            return;
        }
    };
    assert_eq!(session.state(), State::Finished);
    let told = client.close.as_ref().expect("the client is told");
    assert_eq!(told.first_chunk().map(|code| u16::from_be_bytes(*code)), code);
}

/// Compares with tungstenite, event by event, up to the first error of either.
fn compare(bytes: &[u8], ours: &Heard) {
    let (theirs, their_error) = read_by_other(bytes);
    let common = ours.events.len().min(theirs.len());
    for (ours, theirs) in ours.events.iter().zip(&theirs) {
        assert!(is_same(ours, theirs), "{ours:?} is {theirs:?} to the other implementation");
    }
    match (ours.error, their_error) {
        (None, None) => assert_eq!(ours.events.len(), theirs.len()),
        (None, Some(error)) => panic!("only the other implementation refuses: {error}"),
        (Some(error), _) => {
            // It judges whole frames, so it gets the rest of this one: as a payload no fault, as frames an error.
            let mut finished = bytes.to_vec();
            finished.resize(bytes.len() + MESSAGE_BYTES + 20, 0x80);
            let (theirs, their_error) = read_by_other(&finished);
            check_allowed(error, theirs.get(common), their_error.as_ref());
        }
    }
}

fn is_same(ours: &Event<'_>, theirs: &Other) -> bool {
    match (ours, theirs) {
        (Event::Message(Message { frame: FrameType::Text, payload }), Other::Text(text)) => {
            **payload == *text.as_bytes()
        }
        (Event::Message(Message { frame: FrameType::Binary, payload }), Other::Binary(bytes)) => **payload == **bytes,
        (Event::Ping(ours), Other::Ping(theirs)) | (Event::Pong(ours), Other::Pong(theirs)) => **ours == **theirs,
        (Event::Close { code: None, .. }, Other::Close(None)) => true,
        // 1014 was registered after RFC 6455; tungstenite reports it as a violation.
        (Event::Close { code: Some(1014), .. }, Other::Close(Some(close))) => u16::from(close.code) == 1002,
        (Event::Close { code: Some(code), reason }, Other::Close(Some(close))) => {
            *code == u16::from(close.code) && **reason == *close.reason.as_str()
        }
        _ => false,
    }
}

/// The table of allowed differences: what tungstenite may make of the frame in which we found `ours`.
fn check_allowed(ours: Error, event: Option<&Other>, error: Option<&OtherError>) {
    // These come first for tungstenite, whatever else is wrong with a frame.
    let is_first = matches!(
        error,
        Some(OtherError::Capacity(CapacityError::MessageTooLong { .. }))
            | Some(OtherError::Protocol(ProtocolError::UnmaskedFrameFromClient | ProtocolError::InvalidOpcode(_)))
    );
    let is_allowed = match (ours, event, error) {
        // RFC 6455 §5.2 asks for the shortest form of a length, and of fragments it has no bound.
        (Error::FrameLength | Error::ManyFragments, _, _) => true,
        // So a control frame whose short length is in a longer form is one to it, with faults of its own or without.
        (Error::LongControl, Some(Other::Ping(_) | Other::Pong(_) | Other::Close(_)), _) => true,
        // A code that may not be sent is a Close to it, of another code.
        (Error::CloseCode, Some(Other::Close(Some(close))), _) => u16::from(close.code) == 1002,
        (_, Some(_), _) | (_, None, None) => false,
        (Error::NotMasked | Error::LongMessage, None, Some(_)) => is_first,
        (error, None, Some(OtherError::Protocol(other))) => is_first || is_same_fault(error, other),
        (Error::Utf8 | Error::CloseCode | Error::LongControl, None, Some(OtherError::Utf8(_))) => true,
        (_, None, Some(_)) => is_first,
    };
    assert!(is_allowed, "{ours:?} is {event:?}, {error:?} to the other implementation");
}

fn is_same_fault(ours: Error, theirs: &ProtocolError) -> bool {
    use ProtocolError as Theirs;
    match ours {
        Error::ReservedBits => matches!(theirs, Theirs::NonZeroReservedBits),
        Error::Opcode => matches!(theirs, Theirs::UnknownControlFrameType(_) | Theirs::UnknownDataFrameType(_)),
        Error::LongControl => matches!(theirs, Theirs::ControlFrameTooBig | Theirs::InvalidCloseSequence),
        Error::FragmentedControl => matches!(theirs, Theirs::FragmentedControlFrame),
        Error::Fragmentation => matches!(theirs, Theirs::UnexpectedContinueFrame | Theirs::ExpectedFragment(_)),
        Error::CloseCode => matches!(theirs, Theirs::InvalidCloseSequence),
        _ => false,
    }
}

fn read_by_other(bytes: &[u8]) -> (Vec<Other>, Option<OtherError>) {
    let config = WebSocketConfig::default()
        .read_buffer_size(4_096)
        .max_message_size(Some(MESSAGE_BYTES))
        .max_frame_size(Some(MESSAGE_BYTES));
    let mut socket = WebSocket::from_raw_socket(Pipe(Cursor::new(bytes)), Role::Server, Some(config));
    let mut messages = Vec::new();
    loop {
        match socket.read() {
            Ok(message) => messages.push(message),
            Err(OtherError::Io(error)) if error.kind() == ErrorKind::WouldBlock => return (messages, None),
            Err(OtherError::ConnectionClosed) => return (messages, None),
            Err(error) => return (messages, Some(error)),
        }
    }
}

/// A socket that has received some bytes and may receive more, and that takes everything.
struct Pipe<'b>(Cursor<&'b [u8]>);

impl Read for Pipe<'_> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        match self.0.read(into)? {
            0 => Err(ErrorKind::WouldBlock.into()),
            n => Ok(n),
        }
    }
}

impl Write for Pipe<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
