//! Malformed and hostile handshakes in the strict reading of RFC 9110, RFC 9112 and RFC 6455: each gets the right answer,
//! complete and final, however its bytes arrive, and a good handshake works right after it.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod hostile;

use std::io::ErrorKind;
use std::thread::sleep;
use std::time::{Duration, Instant};

use fanfare_tests::raw::{Answer, Raw, good_request};
use fanfare_tests::server::Setup;
use hostile::{Case, accepted, refused};
use tungstenite::handshake::derive_accept_key;

fanfare_tests::for_each_setup! {
    every_hostile_handshake_gets_its_one_answer_and_harms_nobody
    every_unusual_but_valid_handshake_is_accepted
    bytes_behind_a_good_handshake_are_frames
    a_slow_head_is_told_so_and_does_not_keep_others_waiting
    a_client_that_hangs_up_early_is_forgotten
}

/// What a smuggler would put behind a refused request. Were it parsed, a second answer would follow the first.
const SMUGGLED: &[u8] = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// How the bytes of a case are sent.
#[derive(Clone, Copy, Debug)]
enum Delivery {
    Whole,
    WithMoreBehind,
    ByteByByte,
}

fn every_hostile_handshake_gets_its_one_answer_and_harms_nobody(setup: &Setup) {
    let server = setup.start(&["--workers", "2"]).unwrap();
    let cases = refused(server.port());
    assert!(cases.len() >= 240, "{}", cases.len());
    let mut faults = Vec::new();
    for case in &cases {
        for delivery in [Delivery::Whole, Delivery::WithMoreBehind, Delivery::ByteByByte] {
            if let Err(fault) = is_refused(server.port(), case, delivery) {
                faults.push(format!("{} ({delivery:?}): {fault}", case.name));
            }
            if let Err(e) = Raw::upgrade(server.port(), "/chat") {
                faults.push(format!("a good handshake after {} ({delivery:?}): {e}", case.name));
            }
        }
    }
    assert!(faults.is_empty(), "{} faults in {} cases:\n{}", faults.len(), cases.len(), faults.join("\n"));
}

fn every_unusual_but_valid_handshake_is_accepted(setup: &Setup) {
    let server = setup.start(&[]).unwrap();
    let mut faults = Vec::new();
    for case in accepted(server.port()) {
        for delivery in [Delivery::Whole, Delivery::ByteByByte] {
            match answer_to(server.port(), &case, delivery) {
                Ok((answer, _)) if answer.status == 101 && accepts(&answer, &case) => {}
                other => faults.push(format!("{} ({delivery:?}): {other:?}", case.name)),
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

fn bytes_behind_a_good_handshake_are_frames(setup: &Setup) {
    let server = setup.start(&[]).unwrap();
    let mut raw = Raw::connect(server.port()).unwrap();
    let mut bytes = good_request(server.port(), "/chat").into_bytes();
    bytes.extend(fanfare_tests::raw::frame(0x81, b"eager"));
    raw.send(&bytes).unwrap();
    assert_eq!(raw.answer(false).unwrap().status, 101);
    assert_eq!(raw.frame().unwrap().payload, b"eager");
}

fn a_slow_head_is_told_so_and_does_not_keep_others_waiting(setup: &Setup) {
    let server = setup.start(&["--head-timeout", "1s"]).unwrap();
    let good = good_request(server.port(), "/chat");
    let unfinished = &good.as_bytes()[..good.len() - 2];
    let connect = |bytes: &[u8]| {
        let mut raw = Raw::connect(server.port()).unwrap();
        raw.send(bytes).unwrap();
        raw
    };
    let start = Instant::now();
    let mut slow: Vec<_> = [&b"G"[..], b"GET / HTTP/1.1\r\n", unfinished].map(connect).into();
    let mut trickling = connect(b"");
    for byte in unfinished {
        // It ends by itself when the server has answered and closed.
        if start.elapsed() > Duration::from_secs(4) || trickling.send(&[*byte]).is_err() {
            break;
        }
        sleep(Duration::from_millis(20));
    }
    assert!(Raw::upgrade(server.port(), "/chat").is_ok(), "others are served meanwhile");
    slow.push(trickling);
    for mut raw in slow {
        let answer = raw.answer(false).unwrap();
        assert_eq!((answer.status, closes(&answer)), (408, true));
    }
    assert!(start.elapsed() < Duration::from_secs(8));

    // Whoever says nothing at all is let go in time, with an answer or without.
    let mut silent = connect(b"");
    let rest = silent.rest().unwrap();
    assert!(rest.is_empty() || rest.starts_with(b"HTTP/1.1 408 "), "{:?}", rest.escape_ascii().to_string());
}

fn a_client_that_hangs_up_early_is_forgotten(setup: &Setup) {
    let server = setup.start(&[]).unwrap();
    let good = good_request(server.port(), "/chat");
    for end in [0, 1, 20, good.len() - 1, good.len()] {
        let mut raw = Raw::connect(server.port()).unwrap();
        raw.send(&good.as_bytes()[..end]).unwrap();
        drop(raw);
        let mut polite = Raw::connect(server.port()).unwrap();
        polite.send(&good.as_bytes()[..end]).unwrap();
        polite.finish().unwrap();
        // An answer or none, but an end.
        assert!(polite.rest().is_ok() || end == good.len());
    }
    Raw::upgrade(server.port(), "/chat").unwrap();
}

fn is_refused(port: u16, case: &Case, delivery: Delivery) -> Result<(), String> {
    let (answer, rest) = answer_to(port, case, delivery)?;
    let text = |wrong: &str| Err(format!("{wrong}: {answer:?}"));
    if !case.statuses.contains(&answer.status) {
        return text(&format!("not {:?}", case.statuses));
    }
    if !closes(&answer) {
        return text("no Connection: close");
    }
    if answer.header("content-length").is_none() {
        return text("no Content-Length");
    }
    let has = |name: &str, value: &str| answer.header(name).is_some_and(|v| v.eq_ignore_ascii_case(value));
    match answer.status {
        405 if !answer.header("allow").is_some_and(|methods| methods.contains("GET")) => text("no Allow"),
        426 if !has("sec-websocket-version", "13") => text("no Sec-WebSocket-Version"),
        426 if !has("upgrade", "websocket") => text("no Upgrade"),
        _ if !rest.is_empty() => Err(format!("more follows: {:?}", rest.escape_ascii().to_string())),
        _ => Ok(()),
    }
}

/// The answer and, unless it is 101, everything that follows it.
fn answer_to(port: u16, case: &Case, delivery: Delivery) -> Result<(Answer, Vec<u8>), String> {
    let text = |e: std::io::Error| e.to_string();
    let mut raw = Raw::connect(port).map_err(text)?;
    let sent = match delivery {
        Delivery::Whole => raw.send(&case.bytes),
        Delivery::WithMoreBehind => raw.send(&[&case.bytes, SMUGGLED].concat()),
        Delivery::ByteByByte => case.bytes.chunks(1).try_for_each(|byte| raw.send(byte)),
    };
    match sent {
        // The server may answer and close before it has everything.
        Err(e) if ![ErrorKind::BrokenPipe, ErrorKind::ConnectionReset].contains(&e.kind()) => return Err(text(e)),
        _ => {}
    }
    let answer = raw.answer(case.bytes.starts_with(b"HEAD ")).map_err(text)?;
    let rest = if answer.status == 101 { Vec::new() } else { raw.rest().map_err(text)? };
    Ok((answer, rest))
}

/// Whether the answer belongs to the key of the case.
fn accepts(answer: &Answer, case: &Case) -> bool {
    let (_, rest) = str::from_utf8(&case.bytes).unwrap().split_once("Sec-WebSocket-Key: ").unwrap();
    let (key, _) = rest.split_once("\r\n").unwrap();
    answer.header("sec-websocket-accept") == Some(&derive_accept_key(key.as_bytes()))
}

fn closes(answer: &Answer) -> bool {
    let mut values = answer.headers.iter().filter(|(name, _)| name == "connection").map(|(_, value)| value);
    values.any(|value| value.split(',').any(|token| token.trim().eq_ignore_ascii_case("close")))
}
