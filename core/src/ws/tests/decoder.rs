use std::borrow::Cow;

use tungstenite::Message as ClientMessage;
use tungstenite::protocol::CloseFrame;
use tungstenite::protocol::frame::Frame;
use tungstenite::protocol::frame::coding::{Data, OpCode};

use super::super::{Decoder, Event, Message};
use super::{client, frame, frame_with_key, owned_event, random_cuts, seeded, written};
use crate::error::Error;
use crate::limits::Limits;
use crate::route::FrameType;

const TEXT: u8 = 0x81;
const BINARY: u8 = 0x82;
const CONTINUED_TEXT: u8 = 0x01;
const CONTINUATION: u8 = 0x00;
const LAST: u8 = 0x80;
const CLOSE: u8 = 0x88;
const PING: u8 = 0x89;
const PONG: u8 = 0x8A;

type Decoded = (Vec<Event<'static>>, Option<Error>);

/// Feeds `pieces` one after the other, up to an error.
fn feed(decoder: &mut Decoder, pieces: &[&[u8]], limits: &Limits) -> Decoded {
    let mut events = Vec::new();
    for piece in pieces {
        let mut scratch = piece.to_vec();
        let mut input = &mut scratch[..];
        loop {
            match decoder.next(&mut input, limits) {
                Ok(Some(event)) => events.push(owned_event(event)),
                Ok(None) => break assert!(input.is_empty(), "all input is used"),
                Err(error) => return (events, Some(error)),
            }
        }
    }
    (events, None)
}

fn decode(bytes: &[u8]) -> Decoded {
    decode_within(bytes, &Limits::default())
}

fn decode_within(bytes: &[u8], limits: &Limits) -> Decoded {
    feed(&mut Decoder::new(), &[bytes], limits)
}

fn bytewise(bytes: &[u8]) -> Vec<&[u8]> {
    bytes.chunks(1).collect()
}

/// The error of `bytes` and how many of them it took.
fn error_at(bytes: &[u8], limits: &Limits) -> Option<(Error, usize)> {
    let mut decoder = Decoder::new();
    bytes.chunks(1).enumerate().find_map(|(i, byte)| Some((feed(&mut decoder, &[byte], limits).1?, i + 1)))
}

fn message(frame: FrameType, payload: &[u8]) -> Event<'static> {
    Event::Message(Message { frame, payload: Cow::Owned(payload.to_vec()) })
}

fn text(payload: &str) -> Event<'static> {
    message(FrameType::Text, payload.as_bytes())
}

fn limits(message_bytes: usize, message_fragments: u32) -> Limits {
    Limits { message_bytes, message_fragments, ..Limits::default() }
}

#[test]
fn an_idle_decoder_is_small_and_owns_nothing() {
    assert!(size_of::<Decoder>() <= 64);
    let mut decoder = Decoder::new();
    let one = frame(TEXT, b"all at once");
    feed(&mut decoder, &[&one], &Limits::default());
    assert_eq!((decoder.partial_bytes(), decoder.is_amid()), (0, false));
}

#[test]
fn a_whole_message_is_lent_and_one_in_pieces_is_owned() {
    let mut bytes = frame(TEXT, b"whole");
    let mut input = &mut bytes[..];
    let event = Decoder::new().next(&mut input, &Limits::default()).unwrap();
    assert!(matches!(event, Some(Event::Message(Message { payload: Cow::Borrowed(b"whole"), .. }))));

    let (mut header, mut payload) = (bytes[..4].to_vec(), frame(TEXT, b"whole")[4..].to_vec());
    let mut decoder = Decoder::new();
    assert_eq!(decoder.next(&mut &mut header[..], &Limits::default()), Ok(None));
    let event = decoder.next(&mut &mut payload[..], &Limits::default()).unwrap();
    assert!(matches!(event, Some(Event::Message(Message { payload: Cow::Borrowed(b"whole"), .. }))));
}

#[test]
fn every_length_form_is_read() {
    for len in [0, 1, 125, 126, 127, 65_535, 65_536] {
        let payload = vec![0xEE; len];
        let bytes = frame(BINARY, &payload);
        let limits = limits(len, 1);
        let expected = (vec![message(FrameType::Binary, &payload)], None);
        assert_eq!(decode_within(&bytes, &limits), expected);
        assert_eq!(feed(&mut Decoder::new(), &bytewise(&bytes), &limits), expected);
    }
}

/// A client on `tungstenite` sends what it likes: whole and fragmented messages, pings in between, a Close at the end.
#[test]
fn what_an_independent_client_sends_is_what_arrives() {
    let mut random = seeded(2);
    for _ in 0..300 {
        let mut client = client();
        let mut expected = Vec::new();
        for _ in 0..random.usize(1..8) {
            send_random_message(&mut random, &mut client, &mut expected);
        }
        let reason = "been there";
        client.close(Some(CloseFrame { code: 1000.into(), reason: reason.into() })).unwrap();
        expected.push(Event::Close { code: Some(1000), reason: reason.into() });
        let bytes = written(&mut client);
        assert_eq!(decode(&bytes), (expected.clone(), None));
        let pieces = random_cuts(&mut random, &bytes);
        assert_eq!(feed(&mut Decoder::new(), &pieces, &Limits::default()), (expected, None));
    }
}

fn send_random_message(
    random: &mut fastrand::Rng,
    client: &mut tungstenite::WebSocket<super::Pipe>,
    expected: &mut Vec<Event<'static>>,
) {
    let longest = 1 << random.u32(1..12);
    let len = random.usize(..longest);
    let payload: String = (0..len).map(|_| random.char(..)).collect();
    let (first, kind) = if random.bool() { (Data::Text, FrameType::Text) } else { (Data::Binary, FrameType::Binary) };
    let cuts = random.usize(0..4);
    let mut at: Vec<usize> = (0..cuts).map(|_| random.usize(..=payload.len())).collect();
    at.extend([0, payload.len()]);
    at.sort_unstable();
    for (i, range) in at.windows(2).enumerate() {
        let piece = payload.as_bytes()[range[0]..range[1]].to_vec();
        let opcode = OpCode::Data(if i == 0 { first } else { Data::Continue });
        client.write(ClientMessage::Frame(Frame::message(piece, opcode, i == cuts))).unwrap();
        if i < cuts && random.bool() {
            client.write(ClientMessage::Ping(vec![i as u8; i].into())).unwrap();
            expected.push(Event::Ping(vec![i as u8; i].into()));
        }
    }
    expected.push(message(kind, payload.as_bytes()));
}

/// Frames in every order, some of them wrong, some of their bytes changed.
fn random_stream(random: &mut fastrand::Rng) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut start = 0;
    let mut inside = false;
    for _ in 0..random.usize(1..10) {
        start = bytes.len();
        let control = random.u8(..4) == 0;
        let fin = control || random.bool();
        let opcode = match (control, inside) {
            (true, _) => random.u8(8..=10),
            (false, true) => 0,
            (false, false) => random.u8(1..=2),
        };
        inside = if control { inside } else { !fin };
        let longest = if control { 126 } else { 200 };
        let payload: String = (0..random.usize(..longest)).map(|_| random.char(' '..'\u{3FF}')).collect();
        let mut payload = payload.into_bytes();
        payload.truncate(longest - 1);
        if opcode == 8 && payload.len() >= 2 {
            payload[..2].copy_from_slice(&1000_u16.to_be_bytes());
        }
        let first = if fin { 0x80 | opcode } else { opcode };
        bytes.extend(frame_with_key(first, &payload, [random.u8(..); 4]));
    }
    if random.bool() {
        let at = if random.bool() { start + random.usize(..4) } else { random.usize(..bytes.len()) };
        bytes[at] ^= 1 << random.u8(..8);
    }
    bytes
}

#[test]
fn events_and_errors_do_not_depend_on_how_the_bytes_are_cut() {
    let mut random = seeded(3);
    let limits = limits(450, 3);
    let (mut good, mut errors) = (0, Vec::new());
    for _ in 0..2_000 {
        let bytes = random_stream(&mut random);
        let whole = decode_within(&bytes, &limits);
        assert_eq!(feed(&mut Decoder::new(), &bytewise(&bytes), &limits), whole);
        for _ in 0..3 {
            let pieces = random_cuts(&mut random, &bytes);
            assert_eq!(feed(&mut Decoder::new(), &pieces, &limits), whole);
        }
        match error_at(&bytes, &limits) {
            None => good += 1,
            Some((error, at)) => {
                assert_eq!(decode_within(&bytes[..at], &limits).1, Some(error));
                assert_eq!(decode_within(&bytes[..at - 1], &limits).1, None);
                if !errors.contains(&error) {
                    errors.push(error);
                }
            }
        }
    }
    assert!(good > 400, "{good} streams without an error");
    assert!(errors.len() >= 10, "{errors:?}");
}

#[test]
fn control_frames_may_come_between_fragments_and_in_pieces() {
    let mut bytes = frame(CONTINUED_TEXT, b"one ");
    bytes.extend(frame(PING, b"?"));
    bytes.extend(frame(CONTINUATION, b""));
    bytes.extend(frame(PONG, b""));
    bytes.extend(frame(LAST, b"two"));
    let events = vec![Event::Ping(Cow::Borrowed(b"?")), Event::Pong(Cow::Borrowed(b"")), text("one two")];
    assert_eq!(decode(&bytes), (events.clone(), None));
    let mut decoder = Decoder::new();
    assert_eq!(feed(&mut decoder, &bytewise(&bytes), &Limits::default()), (events, None));
    assert_eq!((decoder.partial_bytes(), decoder.is_amid()), (0, false));
}

#[test]
fn an_error_stays() {
    let mut decoder = Decoder::new();
    let good = frame(TEXT, b"good");
    assert_eq!(feed(&mut decoder, &[b"\x83"], &Limits::default()).1, Some(Error::Opcode));
    assert_eq!(feed(&mut decoder, &[&good], &Limits::default()), (vec![], Some(Error::Opcode)));
}

#[test]
fn nothing_is_read_after_a_close() {
    let mut bytes = frame(CLOSE, b"");
    bytes.extend(frame(TEXT, b"too late"));
    bytes.extend([0xFF; 20]);
    let closed = vec![Event::Close { code: None, reason: "".into() }];
    assert_eq!(decode(&bytes), (closed.clone(), None));
    assert_eq!(feed(&mut Decoder::new(), &bytewise(&bytes), &Limits::default()), (closed, None));
}

#[test]
fn a_message_may_be_as_long_as_the_limit_and_no_longer() {
    for (sent, limit, allowed) in [(99, 100, true), (100, 100, true), (101, 100, false), (0, 0, true), (1, 0, false)] {
        let limits = limits(limit, 9);
        let payload = vec![b'x'; sent];
        let expected = if allowed { None } else { Some(Error::LongMessage) };
        assert_eq!(decode_within(&frame(TEXT, &payload), &limits).1, expected);
        let (first, last) = payload.split_at(sent / 2);
        let fragments = [frame(CONTINUED_TEXT, first), frame(LAST, last)].concat();
        assert_eq!(decode_within(&fragments, &limits).1, expected);
    }
}

#[test]
fn a_message_may_have_as_many_fragments_as_the_limit_and_no_more() {
    for (fragments, allowed) in [(2, true), (3, true), (4, false)] {
        let mut bytes = frame(CONTINUED_TEXT, b"");
        for _ in 2..fragments {
            bytes.extend(frame(PING, b""));
            bytes.extend(frame(CONTINUATION, b""));
        }
        bytes.extend(frame(LAST, b""));
        let error = decode_within(&bytes, &limits(9, 3)).1;
        assert_eq!(error, if allowed { None } else { Some(Error::ManyFragments) });
    }
}

#[test]
fn memory_follows_what_has_arrived_and_goes_with_the_message() {
    let limits = limits(1 << 20, 9);
    let bytes = frame(BINARY, &vec![7; 1 << 20]);
    let mut decoder = Decoder::new();
    for part in bytes[..bytes.len() - 1].chunks(16 << 10) {
        feed(&mut decoder, &[part], &limits);
    }
    assert!((1 << 20..3 << 20).contains(&decoder.partial_bytes()));
    feed(&mut decoder, &[&bytes[bytes.len() - 1..]], &limits);
    assert_eq!(decoder.partial_bytes(), 0);
}

#[test]
fn memory_of_a_control_frame_in_pieces_counts_beside_that_of_the_message_around_it() {
    let mut decoder = Decoder::new();
    feed(&mut decoder, &[&frame(CONTINUED_TEXT, &[b'x'; 1000])], &Limits::default());
    let message = decoder.partial_bytes();
    let ping = frame(PING, &[b'?'; 125]);
    feed(&mut decoder, &[&ping[..100]], &Limits::default());
    assert!(decoder.partial_bytes() >= message + 94);
    feed(&mut decoder, &[&ping[100..]], &Limits::default());
    assert_eq!(decoder.partial_bytes(), message);
}

#[test]
fn memory_goes_with_an_error_and_with_a_close() {
    for end in [&b"\xFF"[..], &frame(CLOSE, b"")] {
        let mut decoder = Decoder::new();
        feed(&mut decoder, &[&frame(CONTINUED_TEXT, &[b'x'; 5000])], &Limits::default());
        assert!(decoder.partial_bytes() >= 5000);
        feed(&mut decoder, &[end], &Limits::default());
        assert_eq!(decoder.partial_bytes(), 0);
    }
}

#[test]
fn frame_length_overflow_is_refused_before_any_arithmetic() {
    let all = limits(usize::MAX, u32::MAX);
    let first = frame(CONTINUED_TEXT, b"x");
    let top_bit = [&first[..], b"\x80\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF"].concat();
    assert_eq!(decode_within(&top_bit, &all).1, Some(Error::FrameLength));
    let huge = [&first[..], b"\x80\xFF\x7F\xFF\xFF\xFF\xFF\xFF\xFF\xFF\0\0\0\0payload"].concat();
    let mut decoder = Decoder::new();
    assert_eq!(feed(&mut decoder, &[&huge], &all), (vec![], None));
    assert!(decoder.partial_bytes() < 200, "nothing is reserved on a claim");
    assert_eq!(decode(&huge).1, Some(Error::LongMessage));
}

#[test]
fn a_flood_of_tiny_fragments_is_bounded_in_number_and_memory() {
    let limits = Limits::default();
    let mut decoder = Decoder::new();
    feed(&mut decoder, &[&frame(CONTINUED_TEXT, b"a")], &limits);
    for _ in 2..=limits.message_fragments {
        assert_eq!(feed(&mut decoder, &[&frame(CONTINUATION, b"a")], &limits).1, None);
        assert!(decoder.partial_bytes() < 4 << 10);
    }
    assert_eq!(feed(&mut decoder, &[&frame(CONTINUATION, b"a")], &limits).1, Some(Error::ManyFragments));
}

#[test]
fn an_endless_message_is_refused_before_it_is_kept() {
    let limits = limits(1000, u32::MAX);
    let mut decoder = Decoder::new();
    feed(&mut decoder, &[&frame(CONTINUED_TEXT, &[b'x'; 1000])], &limits);
    let header = &frame(CONTINUATION, b"x")[..2];
    assert_eq!(feed(&mut decoder, &[header], &limits).1, Some(Error::LongMessage));
}

/// Where `std` knows that `bytes` cannot become UTF-8, however they go on.
fn first_wrong_byte(bytes: &[u8]) -> Option<usize> {
    (1..=bytes.len()).find(|&n| core::str::from_utf8(&bytes[..n]).is_err_and(|error| error.error_len().is_some()))
}

#[test]
fn text_fails_at_its_first_wrong_byte() {
    let mut random = seeded(4);
    for _ in 0..3_000 {
        let text: String = (0..random.usize(1..60)).map(|_| random.char(..)).collect();
        let mut payload = text.into_bytes();
        if random.bool() {
            let at = random.usize(..payload.len());
            payload[at] = random.u8(0x80..);
        }
        let bytes = frame(TEXT, &payload);
        let header = bytes.len() - payload.len();
        let at = match first_wrong_byte(&payload) {
            Some(at) => Some(at),
            None => core::str::from_utf8(&payload).is_err().then_some(payload.len()),
        };
        assert_eq!(error_at(&bytes, &Limits::default()), at.map(|at| (Error::Utf8, header + at)));
    }
}

#[test]
fn every_pair_of_bytes_after_every_cut_is_judged_as_std_judges_it() {
    for pair in 0..=u16::MAX {
        let payload = pair.to_be_bytes();
        let split = [frame(CONTINUED_TEXT, &payload[..1]), frame(LAST, &payload[1..])].concat();
        let expected = core::str::from_utf8(&payload).is_err().then_some(Error::Utf8);
        assert_eq!(decode(&split).1, expected, "{payload:02X?}");
        assert_eq!(decode(&frame(TEXT, &payload)).1, expected, "{payload:02X?}");
    }
}

#[test]
fn a_character_may_span_fragments_but_not_messages() {
    let euro = "\u{20AC}".as_bytes();
    let mut bytes = frame(CONTINUED_TEXT, &euro[..1]);
    bytes.extend(frame(CONTINUATION, &euro[1..2]));
    assert_eq!(decode(&[&bytes[..], &frame(LAST, &euro[2..])].concat()).0, [text("\u{20AC}")]);
    assert_eq!(decode(&[&bytes[..], &frame(LAST, b"")].concat()).1, Some(Error::Utf8));
    assert_eq!(decode(&frame(TEXT, &euro[..2])).1, Some(Error::Utf8));
}

#[test]
fn binary_is_not_judged_as_text() {
    let bytes = [frame(0x02, b"\xFF"), frame(LAST, b"\xC0")].concat();
    assert_eq!(decode(&bytes), (vec![message(FrameType::Binary, b"\xFF\xC0")], None));
}
