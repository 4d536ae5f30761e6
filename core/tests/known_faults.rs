//! The classes of faults for which programs of this kind had to publish advisories, one test each. The bytes that show
//! a fault are a seed of the fuzzer as well.

#![expect(clippy::disallowed_methods, reason = "a test may read files and settings")]

use std::io::IoSlice;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use fanfare_core::error::{Error, Side};
use fanfare_core::fuzzing::TARGETS;
use fanfare_core::http::{OriginPolicy, Request, RequestReader};
use fanfare_core::limits::Limits;
use fanfare_core::redis::{Action, Lane, Link};
use fanfare_core::resp::{Decoder, RespError, encode};
use fanfare_core::settings::Settings;
use fanfare_core::shard::{Event, Shard};
use fanfare_core::time::Instant;
use fanfare_core::ws;

/// Checks that `bytes` are the seed of that name, cut by the number that its first byte is, and that the target bears
/// it. With `FANFARE_BLESS=1` in the environment the seed is written instead.
fn seed(target: &str, name: &str, bytes: &[u8]) {
    let input = [&[7], bytes].concat();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds").join(target).join(name);
    if std::env::var_os("FANFARE_BLESS").is_some_and(|bless| bless == "1") {
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("the folder can be made");
        std::fs::write(&path, &input).expect("the seed can be written");
    }
    let written = std::fs::read(&path).unwrap_or_default();
    assert!(written == input, "run this test with FANFARE_BLESS=1 to write {} again", path.display());
    let (_, run) = TARGETS.iter().find(|(other, _)| *other == target).expect("a target of that name");
    run(&input);
}

// What a client sends on an open WebSocket.

/// A client's frame with the key 0, so that its payload is as it is written here.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first, 0x80 | payload.len() as u8, 0, 0, 0, 0];
    frame.extend(payload);
    frame
}

/// The error that the bytes lead to, and how much memory was held at most.
fn ws_error(bytes: &[u8]) -> (Option<Error>, usize) {
    let mut decoder = ws::Decoder::new();
    let mut held = 0;
    for piece in bytes.chunks(100) {
        let mut piece = piece.to_vec();
        let mut input = &mut piece[..];
        loop {
            match decoder.next(&mut input, &Limits::default()) {
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(error) => return (Some(error), held),
            }
        }
        held = held.max(decoder.partial_bytes());
    }
    (None, held)
}

/// nats-server GHSA-pq2q-rcw4-3hr6, CVE-2026-27889.
#[test]
fn a_frame_length_beyond_any_memory_is_refused_before_it_is_added_to_anything() {
    let header = |length: u64| [&[0x82, 0xFF], &length.to_be_bytes()[..], &[0; 4]].concat();
    for (name, length, error) in [
        ("length-with-its-top-bit", 1 << 63, Error::FrameLength),
        ("length-of-all-ones", u64::MAX, Error::FrameLength),
        ("length-at-the-largest", u64::MAX >> 1, Error::LongMessage),
    ] {
        seed("ws_session", name, &header(length));
        assert_eq!(ws_error(&header(length)), (Some(error), 0));
    }
    let second =
        [frame(0x02, b"begun"), [&[0x80, 0xFF], &(u64::MAX >> 1).to_be_bytes()[..], &[0; 4]].concat()].concat();
    seed("ws_session", "length-of-a-fragment", &second);
    assert_eq!(ws_error(&second).0, Some(Error::LongMessage));
}

/// undici issue 4899, tungstenite's reservation of what a header claims.
#[test]
fn a_message_that_is_too_long_is_refused_before_any_of_it_is_held() {
    let header = [&[0x81, 0xFF], &(16_u64 << 20).to_be_bytes()[..], &[0; 4], b"a"].concat();
    seed("ws_session", "length-of-16-mib", &header);
    assert_eq!(ws_error(&header), (Some(Error::LongMessage), 0));
}

/// ws GHSA-96hv-2xvq-fx4p, CVE-2026-48779.
#[test]
fn tiny_fragments_cost_what_their_bytes_cost_and_are_counted() {
    let fragments = |count| [frame(0x01, b""), frame(0x00, b"").repeat(count)].concat();
    seed("ws_session", "tiny-fragments", &fragments(8));
    let (error, held) = ws_error(&fragments(2_000));
    assert_eq!(error, Some(Error::ManyFragments));
    assert!(held < 200, "{held} bytes are held for nothing");
}

/// nats-server GHSA-qrvq-68c2-7grw, undici CVE-2026-1526.
#[test]
fn a_compressed_message_is_refused_before_it_is_inflated() {
    let bomb = frame(0xC1, &[0xCA, 0x48, 0xCD, 0xC9, 0xC9, 0x07, 0x00]);
    seed("ws_session", "compressed", &bomb);
    assert_eq!(ws_error(&bomb), (Some(Error::ReservedBits), 0));
}

/// What RFC 6455 forbids, and what a client may well say, as a start for the fuzzer.
#[test]
fn frames_of_every_kind_are_seeds() {
    let talk = [
        frame(0x81, b"hello"),
        frame(0x01, b"\xE2\x82"),
        frame(0x89, b"ping"),
        frame(0x80, b"\xAC"),
        frame(0x82, b"\0\xFF"),
        frame(0x8A, b""),
        frame(0x88, b"\x03\xE8bye"),
    ];
    seed("ws_session", "talk", &talk.concat());
    assert_eq!(ws_error(&talk.concat()).0, None);
    for (name, bytes, error) in [
        ("not-utf-8", frame(0x81, b"\xED\xA0\x80"), Error::Utf8),
        ("half-a-character", frame(0x81, b"\xE2\x82"), Error::Utf8),
        ("not-masked", vec![0x81, 1, b'a'], Error::NotMasked),
        ("long-ping", vec![0x89, 0xFE], Error::LongControl),
        ("fragmented-ping", frame(0x09, b""), Error::FragmentedControl),
        ("nothing-to-continue", frame(0x80, b""), Error::Fragmentation),
        ("text-in-text", [frame(0x01, b""), frame(0x81, b"")].concat(), Error::Fragmentation),
        ("reserved-opcode", frame(0x83, b""), Error::Opcode),
        ("close-of-one-byte", frame(0x88, b"\x03"), Error::CloseCode),
        ("close-1005", frame(0x88, b"\x03\xED"), Error::CloseCode),
        ("long-form-of-a-short-length", vec![0x81, 0xFE, 0, 1, 0, 0, 0, 0, b'a'], Error::FrameLength),
    ] {
        seed("ws_session", name, &bytes);
        assert_eq!(ws_error(&bytes).0, Some(error), "{name}");
    }
}

// Request heads.

const UPGRADE: &str = "GET /chat/tea?x=1 HTTP/1.1\r\nHost: example.org\r\nConnection: keep-alive, Upgrade\r\n\
                       Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

/// UPGRADE with more fields.
fn upgrade(fields: &str) -> String {
    format!("{UPGRADE}{fields}\r\n")
}

fn parse(head: &str) -> Result<Request, Error> {
    let mut reader = RequestReader::new();
    for byte in head.as_bytes() {
        if let Some((request, _)) = reader.read(&[*byte], &Limits::default())? {
            return Ok(request);
        }
    }
    panic!("the head does not end: {head}")
}

/// tungstenite RUSTSEC-2023-0065, CVE-2023-43669; ws CVE-2024-37890.
#[test]
fn a_head_is_bounded_in_bytes_and_fields_however_slowly_it_comes() {
    let long = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}", "x".repeat(16 << 10));
    seed("http_request", "long-head", long.as_bytes());
    assert_eq!(parse(&long).err(), Some(Error::LongHead));
    let target = format!("GET /{}", "x".repeat(16 << 10));
    seed("http_request", "long-target", target.as_bytes());
    assert_eq!(parse(&target).err(), Some(Error::LongTarget));
    let many = upgrade(&"A: b\r\n".repeat(96));
    seed("http_request", "many-fields", many.as_bytes());
    assert_eq!(parse(&many).err(), Some(Error::LongHead));
}

/// ws CVE-2021-32640.
#[test]
fn a_list_of_subprotocols_takes_one_pass() {
    let blanks = upgrade(&format!("Sec-WebSocket-Protocol: b{}x\r\n", " ".repeat(700)));
    seed("http_request", "subprotocol-blanks", blanks.as_bytes());
    assert_eq!(parse(&blanks).unwrap().upgrade(), Err(Error::Subprotocol));
    let names = upgrade("Sec-WebSocket-Protocol: chat.v2, ,,\tchat.v1\r\nSec-WebSocket-Protocol: x\r\n");
    seed("http_request", "subprotocol-list", names.as_bytes());
    assert!(parse(&names).unwrap().subprotocols().eq(["chat.v2", "chat.v1", "x"]));
}

/// undici's and nchan's handling of `permessage-deflate` parameters.
#[test]
fn whatever_an_extension_is_offered_with_it_is_declined() {
    for (name, offer) in [
        ("extension-window", "permessage-deflate; server_max_window_bits=99999999999999999999"),
        ("extension-without-end", "permessage-deflate; client_max_window_bits=;;;,,;=\"\\\""),
    ] {
        let head = upgrade(&format!("Sec-WebSocket-Extensions: {offer}\r\n"));
        seed("http_request", name, head.as_bytes());
        let answer = parse(&head).unwrap().upgrade().unwrap().answer(None).unwrap();
        assert!(!String::from_utf8_lossy(&answer).to_ascii_lowercase().contains("extension"));
    }
}

/// Request smuggling past proxies, with a WebSocket handshake and without.
#[test]
fn a_head_that_proxies_could_read_otherwise_is_refused() {
    for (name, head, error) in [
        ("two-lengths", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", Error::Body),
        (
            "length-and-chunks",
            "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n",
            Error::Body,
        ),
        ("a-body", "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n", Error::Body),
        ("two-hosts", "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", Error::Host),
        ("no-host", "GET / HTTP/1.1\r\n\r\n", Error::Host),
        ("bare-lf", "GET / HTTP/1.1\nHost: a\n\n", Error::BareLf),
        ("bare-cr", "GET / HTTP/1.1\r\nHost: a\rX: b\r\n\r\n", Error::HeadSyntax),
        ("folded-field", "GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n c\r\n\r\n", Error::HeadSyntax),
        ("blank-before-colon", "GET / HTTP/1.1\r\nHost : a\r\n\r\n", Error::HeadSyntax),
        ("http-2.0", "GET / HTTP/2.0\r\nHost: a\r\n\r\n", Error::HttpVersion),
        ("fragment-in-target", "GET /#a HTTP/1.1\r\nHost: a\r\n\r\n", Error::Target),
        ("absolute-with-user", "GET http://a@b/ HTTP/1.1\r\nHost: b\r\n\r\n", Error::Target),
    ] {
        seed("http_request", name, head.as_bytes());
        assert_eq!(parse(head).err(), Some(error), "{name}");
    }
    for (name, head, error) in [
        ("version-12", UPGRADE.replace("13", "12") + "\r\n", Error::UpgradeRequired),
        ("two-keys", upgrade("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"), Error::Key),
        ("short-key", UPGRADE.replace("dGhlIHNhbXBsZSBub25jZQ==", "dGhl") + "\r\n", Error::Key),
        ("head-upgrade", upgrade("").replace("GET", "HEAD"), Error::Method),
    ] {
        seed("http_request", name, head.as_bytes());
        assert_eq!(parse(&head).unwrap().upgrade(), Err(error), "{name}");
    }
}

/// HAProxy's and nginx's HTTP/1.0 in many trackers, rwf2/Rocket#924, Ylianst/MeshAgent#368, tcllib's websocket,
/// dotnet/aspnetcore#36739.
#[test]
fn a_head_that_nobody_could_misread_is_taken() {
    for (name, head) in [
        ("http-1.0", "GET / HTTP/1.0\r\nHost: a\r\n\r\n".to_owned()),
        ("http-1.0-without-host", "GET / HTTP/1.0\r\n\r\n".to_owned()),
        ("http-1.2", UPGRADE.replace("HTTP/1.1", "HTTP/1.2") + "\r\n"),
        ("options", "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n".to_owned()),
        ("target-of-browsers", UPGRADE.replacen("/chat", "/chat/a|b?{\"c\":\"\u{e9}^`\\\"}", 1) + "\r\n"),
        ("key-with-padding-bits", UPGRADE.replace("dGhlIHNhbXBsZSBub25jZQ==", "AQIDBAUGBwgJCgsMDQ4PEC==") + "\r\n"),
        ("subprotocol-of-nothing", upgrade("Sec-WebSocket-Protocol: , \r\nSec-WebSocket-Protocol:\r\n")),
        ("host-with-zone", UPGRADE.replace("example.org", "[fe80::1%eth0]:3000") + "\r\n"),
    ] {
        seed("http_request", name, head.as_bytes());
        let request = parse(&head).expect(name);
        assert_eq!(request.upgrade().is_ok(), head.contains("Upgrade"), "{name}: {head}");
    }
}

/// After a refused upgrade a proxy may take the connection for a tunnel, and its client's next request for frames.
#[test]
fn nothing_is_parsed_behind_a_refused_upgrade() {
    let mut shard = shard();
    let id = shard.handle_connection(None, Instant::ZERO);
    let refused = UPGRADE.replace("Version: 13", "Version: 12") + "\r\n";
    let mut bytes = format!("{refused}{}", upgrade("")).into_bytes();
    seed("http_request", "pipelined", &bytes);
    shard.handle_read(id, &mut bytes, Instant::ZERO);
    shard.handle_read(id, &mut upgrade("").into_bytes(), Instant::ZERO);
    let mut slices = [IoSlice::new(&[])];
    assert_eq!(shard.transmit(id, &mut slices), 1);
    let answer = String::from_utf8_lossy(&slices[0]).into_owned();
    assert!(answer.starts_with("HTTP/1.1 426 ") && answer.matches("HTTP/1.1").count() == 1, "{answer}");
    assert!(answer.contains("\r\nConnection: close\r\n"));
    assert!(shard.poll_bus().is_none(), "no channel is wanted");
}

/// Cross-site WebSocket hijacking.
#[test]
fn a_page_of_another_site_may_not_connect() {
    for (name, fields) in [
        ("origin-of-another-site", "Origin: https://evil.example\r\n"),
        ("origin-null", "Origin: null\r\n"),
        ("origin-suffix", "Origin: https://evil-example.org\r\n"),
        ("origin-prefix", "Origin: https://example.org.evil\r\n"),
        ("origin-twice", "Origin: https://example.org\r\nOrigin: https://evil.example\r\n"),
        ("origin-behind-a-proxy", "Origin: https://evil.example\r\nX-Forwarded-Host: evil.example\r\n"),
    ] {
        let head = upgrade(fields);
        seed("http_request", name, head.as_bytes());
        assert!(OriginPolicy::default().check(&parse(&head).unwrap(), None).is_err(), "{name}");
    }
    let own = upgrade("Origin: https://example.org\r\n");
    seed("http_request", "origin-of-our-own", own.as_bytes());
    assert!(OriginPolicy::default().check(&parse(&own).unwrap(), None).is_ok());
}

fn shard() -> Shard {
    Shard::new(Arc::new(Settings::default()), 1, Instant::ZERO)
}

/// Tells the time as an owner does that has nothing to read: the shard asks it to look before it judges a deadline.
fn tell_time(shard: &mut Shard, now: Instant) {
    shard.handle_timeout(now);
    while let Some(id) = shard.poll_readable() {
        shard.handle_readable(id, now);
    }
    shard.handle_timeout(now);
}

/// Slowloris.
#[test]
fn a_client_that_does_not_finish_its_request_is_given_up() {
    let mut shard = shard();
    let limits = Limits::default();
    let silent = shard.handle_connection(None, Instant::ZERO);
    let slow = shard.handle_connection(None, Instant::ZERO);
    for (second, byte) in (0..9).zip(b"GET /chat") {
        shard.handle_read(slow, &mut [*byte], Instant::from_micros(second * 1_000_000));
    }
    let end = Instant::ZERO + limits.head_time;
    tell_time(&mut shard, end);
    assert!(matches!(shard.poll_event(), Some(Event::Closed(id, closed)) if id == silent && closed.by == Side::Local));
    tell_time(&mut shard, end + limits.close_time);
    let closed =
        std::iter::from_fn(|| shard.poll_event()).any(|event| matches!(event, Event::Closed(id, _) if id == slow));
    assert!(closed && shard.is_empty());
}

// What Redis sends, and what is sent to it.

fn resp_error(bytes: &[u8]) -> Option<RespError> {
    Decoder::new(1_000).decode(&mut &bytes[..]).err()
}

/// hiredis CVE-2021-32765.
#[test]
fn a_count_of_elements_is_bounded_before_room_is_made_for_them() {
    for (name, bytes, error) in [
        ("array-of-2-30", &b"*1073741824\r\n"[..], RespError::Length),
        ("array-of-999999999", b"*999999999\r\n", RespError::Elements),
        ("array-of-2-64", b"*18446744073709551617\r\n", RespError::Length),
        ("map-of-4000", b"%4000\r\n", RespError::Elements),
        ("bulk-of-999999999", b"$999999999\r\n", RespError::Size),
        ("bulk-of-2-63", b"$9223372036854775808\r\n", RespError::Length),
        ("negative-length", b"$-2\r\n", RespError::Length),
        ("negative-push", b">-1\r\n", RespError::Length),
        ("signed-length", b"$+3\r\nabc\r\n", RespError::Length),
        ("streamed", b"*?\r\n", RespError::Streamed),
        ("no-terminator", b"$3\r\nabcXX", RespError::Terminator),
    ] {
        seed("resp_decode", name, bytes);
        assert_eq!(resp_error(bytes), Some(error), "{name}");
    }
}

/// redis-protocol's decoder recurses as deeply as its input says.
#[test]
fn nesting_is_bounded() {
    for (name, open) in
        [("nested-arrays", "*1\r\n"), ("nested-maps", "%1\r\n+a\r\n"), ("nested-attributes", "*1\r\n|1\r\n+a\r\n")]
    {
        seed("resp_decode", name, open.repeat(12).as_bytes());
        assert_eq!(resp_error(open.repeat(100_000).as_bytes()), Some(RespError::Depth), "{name}");
    }
}

/// What Redis says on both lanes and in both versions, as a start for the fuzzer.
#[test]
fn replies_of_every_kind_are_seeds() {
    let pushes = |kind: char| {
        format!(
            "{kind}3\r\n$9\r\nsubscribe\r\n$4\r\nchat\r\n:1\r\n{kind}3\r\n$7\r\nmessage\r\n$4\r\nchat\r\n$5\r\nhello\r\n\
             {kind}3\r\n$11\r\nunsubscribe\r\n$4\r\nchat\r\n:0\r\n{kind}2\r\n$4\r\npong\r\n$0\r\n\r\n"
        )
    };
    let long = format!("*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$301\r\n{}\r\n+OK\r\n", "x".repeat(301));
    let replies = "%2\r\n+proto\r\n:3\r\n+modules\r\n*0\r\n+OK\r\n-ERR no\r\n:-42\r\n$3\r\nabc\r\n$-1\r\n*-1\r\n_\r\n#t\r\n\
                   ,1.5\r\n(123\r\n=7\r\ntxt:abc\r\n!5\r\nERR x\r\n~1\r\n:1\r\n|1\r\n+ttl\r\n:1\r\n+PONG\r\n";
    for (name, bytes) in
        [("resp2", pushes('*')), ("resp3", pushes('>')), ("too-long", long), ("replies", replies.to_owned())]
    {
        seed("resp_decode", name, bytes.as_bytes());
        assert_eq!(resp_error(bytes.as_bytes()), None, "{name}");
    }
}

/// A link that wants a channel and has just been connected.
fn link() -> Link {
    let mut link = Link::new("redis://redis.test".parse().expect("a URL"), "", &Limits::default(), 1, Instant::ZERO);
    while link.poll_action().is_some() {}
    link.subscribe(Bytes::from_static(b"a*"), Instant::ZERO);
    link.handle_connected(Lane::Subscriber, Instant::ZERO);
    link
}

/// redis-py CVE-2023-28858 and CVE-2023-28859.
#[test]
fn a_reply_that_answers_nothing_is_never_taken_for_the_answer_to_the_next_command() {
    let mut link = link();
    // One reply more than the handshake has commands.
    link.handle_read(Lane::Subscriber, b"%0\r\n+OK\r\n+PONG\r\n:1\r\n", false, Instant::ZERO, |_, _| {});
    assert_eq!(link.poll_action(), Some(Action::HangUp(Lane::Subscriber)));
}

/// Redis CVE-2024-31228.
#[test]
fn a_channel_that_looks_like_a_pattern_is_subscribed_as_a_name() {
    let mut link = link();
    link.handle_read(Lane::Subscriber, b"%0\r\n+OK\r\n+PONG\r\n", false, Instant::ZERO, |_, _| {});
    let mut slices = [IoSlice::new(&[]); 4];
    let filled = link.transmit(Lane::Subscriber, &mut slices);
    let written = String::from_utf8(slices[..filled].iter().flat_map(|slice| slice.to_vec()).collect()).unwrap();
    assert!(written.ends_with("*2\r\n$9\r\nSUBSCRIBE\r\n$2\r\na*\r\n"), "{written}");
}

/// Commands injected by line ends in what clients name and say.
#[test]
fn line_ends_in_names_and_messages_end_no_command() {
    let mut command = Vec::new();
    encode::publish(&mut command, b"a\r\n$1\r\nb", b"\r\n*1\r\n$8\r\nFLUSHALL\r\n");
    let (frame, length) = redis_protocol::resp2::decode::decode(&command).unwrap().unwrap();
    assert_eq!(length, command.len());
    let redis_protocol::resp2::types::OwnedFrame::Array(words) = frame else { panic!("{frame:?}") };
    assert_eq!(words.len(), 3);
}
