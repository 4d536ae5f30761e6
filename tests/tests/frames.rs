//! Hostile frames on an open socket: the right close code each time, an orderly end, and nobody else is disturbed.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use fanfare_tests::client::{Client, Message};
use fanfare_tests::raw::{Raw, ServerFrame, frame};
use fanfare_tests::server::Setup;

fanfare_tests::for_each_setup! {
    every_violation_gets_its_close_code_and_harms_nobody
    bad_text_fails_before_its_message_is_whole
    pings_are_answered_with_their_payload_also_inside_a_message
    a_close_is_answered_with_its_code
    a_message_and_the_end_of_the_stream_get_the_echo
    messages_arrive_up_to_the_limit_in_size_and_fragments
    a_message_sent_byte_by_byte_arrives
    a_binary_route_takes_binary_alone
    a_route_without_the_right_to_publish_refuses_messages
}

const TEXT: u8 = 0x81;
const TEXT_FIRST: u8 = 0x01;
const MORE: u8 = 0x00;
const MORE_LAST: u8 = 0x80;
const BINARY: u8 = 0x82;
const CLOSE: u8 = 0x88;
const PING: u8 = 0x89;
const PONG: u8 = 0x8a;

const MESSAGE_BYTES: usize = 65_536;
const MESSAGE_FRAGMENTS: usize = 1_024;

/// A name, what the client sends, and the code of the server's Close.
type Case = (String, Vec<u8>, u16);

fn violations() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |name: &str, bytes: Vec<u8>, code: u16| cases.push((name.to_owned(), bytes, code));
    add("not masked", vec![TEXT, 2, b'h', b'i'], 1002);
    add("an empty frame that is not masked", vec![TEXT, 0], 1002);
    add("a ping that is not masked", vec![PING, 0], 1002);
    for bits in 1..8_u8 {
        add(&format!("reserved bits {bits:03b}"), frame(TEXT | bits << 4, b"x"), 1002);
    }
    add("a reserved bit on a ping", frame(PING | 0x40, b""), 1002);
    for opcode in [0x3, 0x4, 0x5, 0x6, 0x7, 0xb, 0xc, 0xd, 0xe, 0xf] {
        add(&format!("opcode {opcode:x}"), frame(0x80 | opcode, b""), 1002);
    }
    add("a length of 16 bits that fits 7", with_length(TEXT, &[126, 0, 125], &[b'x'; 125]), 1002);
    add("a length of 64 bits that fits 16", with_length(TEXT, &[127, 0, 0, 0, 0, 0, 0, 0xff, 0xff], b"x"), 1002);
    add("a length of 64 bits that fits 7", with_length(TEXT, &[127, 0, 0, 0, 0, 0, 0, 0, 1], b"x"), 1002);
    add("a length with its top bit", with_length(TEXT, &[127, 0x80, 0, 0, 0, 0, 0, 0, 0], b""), 1002);
    add("all bits of a length", with_length(TEXT, &[127, 255, 255, 255, 255, 255, 255, 255, 255], b""), 1002);
    add("a ping of 126 bytes", frame(PING, &[b'x'; 126]), 1002);
    add("a Close of 126 bytes", frame(CLOSE, &[&[3, 232][..], &[b'x'; 124]].concat()), 1002);
    for (name, first) in [("ping", PING), ("pong", PONG), ("Close", CLOSE)] {
        add(&format!("a fragmented {name}"), frame(first & 0x7f, b""), 1002);
    }
    add("a continuation of nothing", frame(MORE_LAST, b"x"), 1002);
    add("a first continuation of nothing", frame(MORE, b"x"), 1002);
    add("a continuation behind a whole message", [frame(TEXT, b"a"), frame(MORE_LAST, b"b")].concat(), 1002);
    add("a message inside another", [frame(TEXT_FIRST, b"a"), frame(TEXT, b"b")].concat(), 1002);
    add("a binary message inside a text", [frame(TEXT_FIRST, b"a"), frame(BINARY, b"b")].concat(), 1002);
    add("two first fragments", [frame(TEXT_FIRST, b"a"), frame(TEXT_FIRST, b"b")].concat(), 1002);
    add("a Close of one byte", frame(CLOSE, &[3]), 1002);
    for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535_u16] {
        add(&format!("a Close with {code}"), frame(CLOSE, &code.to_be_bytes()), 1002);
    }
    add("a Close whose reason is not UTF-8", frame(CLOSE, b"\x03\xe8\xff"), 1007);
    for (number, bad) in bad_texts().into_iter().enumerate() {
        add(&format!("bad UTF-8, number {number}"), frame(TEXT, bad), 1007);
        add(&format!("bad UTF-8 behind a good part, number {number}"), frame(TEXT, &[b"good ", bad].concat()), 1007);
        let fragments: Vec<u8> = std::iter::once(frame(TEXT_FIRST, b""))
            .chain(bad.iter().map(|byte| frame(MORE, &[*byte])))
            .chain([frame(MORE_LAST, b"")])
            .flatten()
            .collect();
        add(&format!("bad UTF-8 in fragments, number {number}"), fragments, 1007);
    }
    add("a binary message", frame(BINARY, b"x"), 1003);
    add("an empty binary message", frame(BINARY, b""), 1003);
    add("a binary message in fragments", [frame(0x02, b"a"), frame(MORE_LAST, b"b")].concat(), 1003);
    add("a message beyond the limit", frame(TEXT, &vec![b'x'; MESSAGE_BYTES + 1]), 1009);
    add("a length beyond the limit", with_length(TEXT, &[127, 0, 0, 0, 0, 0, 1, 0, 1], b""), 1009);
    add("a length beyond all memory", with_length(TEXT, &[127, 0x7f, 255, 255, 255, 255, 255, 255, 255], b""), 1009);
    let half = vec![b'x'; MESSAGE_BYTES / 2];
    let too_much = [frame(TEXT_FIRST, &half), frame(MORE, &half), frame(MORE_LAST, b"x")].concat();
    add("fragments beyond the limit", too_much, 1009);
    add("too many fragments", fragments_of(MESSAGE_FRAGMENTS + 1), 1009);
    cases
}

/// Texts with a byte that UTF-8 cannot have at its place (RFC 3629).
fn bad_texts() -> [&'static [u8]; 12] {
    [
        b"\x80",
        b"\xbf",
        b"\xc0\x80",
        b"\xc1\xbf",
        b"\xe0\x80\x80",
        b"\xed\xa0\x80",
        b"\xf0\x80\x80\x80",
        b"\xf4\x90\x80\x80",
        b"\xf5\x80\x80\x80",
        b"\xe2\x82",
        b"\xf0\x9f\x8e",
        b"\xff",
    ]
}

fn every_violation_gets_its_close_code_and_harms_nobody(setup: &Setup) {
    let server = setup.start(&["--workers", "2"]).unwrap();
    let mut neighbour = Client::connect(server.port(), "/chat/quiet").unwrap();
    let mut faults = Vec::new();
    for (name, bytes, code) in violations() {
        for is_whole in [true, false] {
            // A megabyte byte by byte takes too long, and its end is the same as of shorter ones.
            if !is_whole && bytes.len() > 20_000 {
                continue;
            }
            match closed_with(server.port(), &bytes, is_whole) {
                Ok(got) if got == Some(code) => {}
                got => faults.push(format!("{name} (whole: {is_whole}): {got:?}, not {code}")),
            }
        }
    }
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
    neighbour.send("still here").unwrap();
    assert_eq!(neighbour.text().unwrap(), "still here");
}

/// The code of the server's Close after the client sent `bytes`. The server ends the connection after it.
fn closed_with(port: u16, bytes: &[u8], is_whole: bool) -> std::io::Result<Option<u16>> {
    let mut raw = Raw::upgrade(port, "/chat")?;
    // The server may close before it has everything.
    let _ = if is_whole { raw.send(bytes) } else { bytes.chunks(1).try_for_each(|byte| raw.send(byte)) };
    loop {
        let frame = raw.frame()?;
        if frame.first == CLOSE {
            let _ = raw.send(&frame_of_close());
            raw.finish().ok();
            let rest = raw.rest()?;
            assert_eq!(rest, b"", "nothing after a Close");
            return Ok(frame.close_code());
        }
    }
}

fn frame_of_close() -> Vec<u8> {
    frame(CLOSE, &1000_u16.to_be_bytes())
}

fn bad_text_fails_before_its_message_is_whole(setup: &Setup) {
    let server = setup.start(&[]).unwrap();
    for bad in bad_texts().into_iter().filter(|bad| ![&b"\xe2\x82"[..], b"\xf0\x9f\x8e"].contains(bad)) {
        let mut raw = Raw::upgrade(server.port(), "/chat").unwrap();
        // The frame says that 100 bytes follow; they never do.
        let mut bytes = frame(TEXT, &[bad, &[b'x'; 100]].concat());
        bytes.truncate(bytes.len() - 100);
        raw.send(&bytes).unwrap();
        assert_eq!(raw.frame().unwrap().close_code(), Some(1007), "{:?}", bad.escape_ascii().to_string());
    }
}

fn pings_are_answered_with_their_payload_also_inside_a_message(setup: &Setup) {
    let server = setup.start(&[]).unwrap();
    let mut raw = Raw::upgrade(server.port(), "/chat").unwrap();
    for payload in [&b""[..], b"x", &[0xff; 125]] {
        raw.send(&frame(PING, payload)).unwrap();
        assert_eq!(raw.frame().unwrap(), ServerFrame { first: PONG, payload: payload.to_vec() });
    }
    raw.send(&[frame(PONG, b"unasked"), frame(TEXT_FIRST, b"a"), frame(PING, b"now"), frame(MORE_LAST, b"b")].concat())
        .unwrap();
    let got = [raw.frame().unwrap(), raw.frame().unwrap()];
    assert!(got.contains(&ServerFrame { first: PONG, payload: b"now".to_vec() }), "{got:?}");
    assert!(got.contains(&ServerFrame { first: TEXT, payload: b"ab".to_vec() }), "{got:?}");
}

fn a_close_is_answered_with_its_code(setup: &Setup) {
    let server = setup.start(&[]).unwrap();
    for code in [1000, 1001, 1002, 1003, 1007, 1011, 1014, 3000, 4999_u16] {
        let mut raw = Raw::upgrade(server.port(), "/chat").unwrap();
        let payload = [&code.to_be_bytes()[..], "gründe".as_bytes()].concat();
        raw.send(&[frame(CLOSE, &payload), frame(TEXT, b"too late")].concat()).unwrap();
        assert_eq!(raw.frame().unwrap().close_code(), Some(code));
        assert_eq!(raw.rest().unwrap(), b"", "and then the connection ends");
    }
    let mut raw = Raw::upgrade(server.port(), "/chat").unwrap();
    raw.send(&frame(CLOSE, b"")).unwrap();
    assert_eq!(raw.frame().unwrap(), ServerFrame { first: CLOSE, payload: vec![] });
    assert_eq!(raw.rest().unwrap(), b"");
}

fn a_message_and_the_end_of_the_stream_get_the_echo(setup: &Setup) {
    let server = setup.start(&[]).unwrap();
    let mut raw = Raw::upgrade(server.port(), "/chat").unwrap();
    raw.send(&frame(TEXT, b"last")).unwrap();
    raw.finish().unwrap();
    assert_eq!(raw.frame().unwrap(), ServerFrame { first: TEXT, payload: b"last".to_vec() });
    assert_eq!(raw.rest().unwrap(), b"", "and then the connection ends");
}

fn messages_arrive_up_to_the_limit_in_size_and_fragments(setup: &Setup) {
    let server = setup.start(&[]).unwrap();
    let mut clients = [(); 2].map(|()| Client::connect(server.port(), "/chat").unwrap());
    for length in [0, 1, 125, 126, 127, 65_535, MESSAGE_BYTES] {
        let text = "x".repeat(length);
        clients[0].send(&text).unwrap();
        for client in &mut clients {
            assert_eq!(client.text().unwrap(), text, "{length}");
        }
    }
    let mut raw = Raw::upgrade(server.port(), "/chat").unwrap();
    raw.send(&fragments_of(MESSAGE_FRAGMENTS)).unwrap();
    assert_eq!(clients[1].text().unwrap(), "x".repeat(MESSAGE_FRAGMENTS));
    assert_eq!(raw.frame().unwrap().payload.len(), MESSAGE_FRAGMENTS);
}

fn a_message_sent_byte_by_byte_arrives(setup: &Setup) {
    let server = setup.start(&[]).unwrap();
    let mut raw = Raw::upgrade(server.port(), "/chat").unwrap();
    let text = "🎺 fanfare ".repeat(30);
    for byte in frame(TEXT, text.as_bytes()) {
        raw.send(&[byte]).unwrap();
    }
    assert_eq!(raw.frame().unwrap(), ServerFrame { first: TEXT, payload: text.into_bytes() });
}

fn a_binary_route_takes_binary_alone(setup: &Setup) {
    let server = setup.start(&["--route", "/telemetry=telemetry,binary"]).unwrap();
    let mut clients = [(); 2].map(|()| Raw::upgrade(server.port(), "/telemetry").unwrap());
    clients[0].send(&frame(BINARY, b"\xff\0\xfe")).unwrap();
    for client in &mut clients {
        assert_eq!(client.frame().unwrap(), ServerFrame { first: BINARY, payload: b"\xff\0\xfe".to_vec() });
    }
    clients[0].send(&frame(TEXT, b"text")).unwrap();
    assert_eq!(clients[0].frame().unwrap().close_code(), Some(1003));
}

fn a_route_without_the_right_to_publish_refuses_messages(setup: &Setup) {
    let server = setup.start(&["--route", "/news=news,publish=no"]).unwrap();
    let mut client = Client::connect(server.port(), "/news").unwrap();
    client.send_message(Message::Ping("fine".into())).unwrap();
    client.send("not fine").unwrap();
    assert_eq!(client.close_code().unwrap(), Some(1008));
}

/// One message of this many fragments of a byte each.
fn fragments_of(count: usize) -> Vec<u8> {
    let first = |number: usize| match number {
        0 => TEXT_FIRST,
        _ if number + 1 == count => MORE_LAST,
        _ => MORE,
    };
    (0..count).flat_map(|number| frame(first(number), b"x")).collect()
}

/// A masked frame with its length written as given, by a mask of zeros.
fn with_length(first: u8, length: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    bytes.extend_from_slice(length);
    bytes[1] |= 0x80;
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(payload);
    bytes
}
