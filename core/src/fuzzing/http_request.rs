//! Request heads: however they are cut, what is accepted is sound, and what is refused gets a sound answer.

use tungstenite::handshake::machine::TryParse;
use tungstenite::handshake::server::{Request as OtherRequest, create_response};

use super::Cut;
use crate::error::Error;
use crate::http::{Answer, Method, OriginPolicy, Request, RequestReader, Upgrade};
use crate::limits::Limits;
use crate::route::{Route, Routes};

/// The first byte is a seed for the cuts, the rest is what a client sends.
pub fn http_request(data: &[u8]) {
    let Some((&seed, bytes)) = data.split_first() else { return };
    let limits = Limits { head_bytes: 1_024, head_fields: 12, channel_bytes: 40, ..Limits::default() };
    let whole = read(bytes, Cut::Whole, &limits);
    for cut in [Cut::Bytewise, Cut::Random(seed)] {
        assert_eq!(words(&whole), words(&read(bytes, cut, &limits)), "{cut:?}");
    }
    match whole {
        Outcome::Unfinished(_) => assert!(bytes.len() < limits.head_bytes),
        Outcome::Refused(error, method) => check_answer(&Answer::for_error(error), error, method),
        Outcome::Request(request, taken) => check_request(&request, &bytes[..taken], &limits),
    }
}

enum Outcome {
    Unfinished(Method),
    Request(Request, usize),
    Refused(Error, Method),
}

fn read(bytes: &[u8], cut: Cut, limits: &Limits) -> Outcome {
    let mut reader = RequestReader::new();
    let mut before = 0;
    for piece in cut.pieces(bytes) {
        match reader.read(piece, limits) {
            Ok(None) => before += piece.len(),
            Ok(Some((request, taken))) => return Outcome::Request(request, before + taken),
            Err(error) => return Outcome::Refused(error, reader.method()),
        }
        assert_eq!(reader.is_empty(), before == 0);
    }
    Outcome::Unfinished(reader.method())
}

/// All that can be told of an outcome.
fn words(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Unfinished(method) => format!("{method:?} …"),
        Outcome::Refused(error, method) => format!("{method:?} {error:?}"),
        Outcome::Request(request, taken) => {
            let headers: Vec<_> = request.headers().collect();
            format!("{request:?} {:?} {headers:?} {taken}", request.query())
        }
    }
}

pub(super) fn check_request(request: &Request, head: &[u8], limits: &Limits) {
    assert!(head.len() <= limits.head_bytes && head.ends_with(b"\r\n\r\n"));
    for (at, &byte) in head.iter().enumerate() {
        assert!(byte != b'\n' || head[..at].ends_with(b"\r"), "a bare LF");
        assert!(byte != b'\r' || head[at + 1..].starts_with(b"\n"), "a bare CR");
        assert!(byte != 0, "a NUL");
    }
    let is_printed = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic());
    let is_one_word = |text: &str| !text.contains(|c: char| c.is_control() || c.is_whitespace() || c == '#');
    assert!(request.path().starts_with('/') && !request.path().contains(['?', '\\']) && is_one_word(request.path()));
    assert!(request.query().is_none_or(is_one_word));
    assert!(is_printed(request.host()) && (!request.host().is_empty() || request.is_http_1_0()));
    assert!(request.headers().count() <= limits.head_fields);
    let hosts = request.headers().filter(|(name, _)| name.eq_ignore_ascii_case("host")).count();
    assert!(hosts == 1 || hosts == 0 && request.is_http_1_0());
    for (name, value) in request.headers() {
        assert!(!name.is_empty() && is_printed(name));
        assert!(value.iter().all(|byte| !matches!(byte, 0..=8 | 10..=31 | 127)));
        assert!(!name.eq_ignore_ascii_case("transfer-encoding"), "a body");
        assert!(!name.eq_ignore_ascii_case("content-length") || value.iter().all(|&digit| digit == b'0'), "a body");
    }
    assert_eq!(written_again(request), normal(head), "what was read is not what came");
    check_route(request, limits);
    let peer = Some([192, 0, 2, 1].into());
    let origin = OriginPolicy::default().check(request, peer);
    assert!(origin.is_ok() || request.header("origin").is_some());
    match request.upgrade() {
        Ok(upgrade) => check_upgrade(request, &upgrade, head),
        Err(error) => check_answer(&Answer::for_error(error), error, request.method()),
    }
}

/// A head of all that was read of it, in the form of [`normal`].
fn written_again(request: &Request) -> Vec<u8> {
    let method = match request.method() {
        Method::Get => "GET",
        Method::Head => "HEAD",
        Method::Options => "OPTIONS",
    };
    let query = request.query().map_or_else(String::new, |query| format!("?{query}"));
    let version = if request.is_http_1_0() { '0' } else { '1' };
    let mut head = format!("{method} {}{query} HTTP/1.{version}\r\n", request.path()).into_bytes();
    for (name, value) in request.headers() {
        head.extend([name.as_bytes(), b": ", value, b"\r\n"].concat());
    }
    head.extend_from_slice(b"\r\n");
    head
}

/// A head as it came but for what says the same in another form (RFC 9112 §2.2, §2.3, §3.2, §5.1): no empty line comes
/// first, `*` and the target of another form are a path, every later minor version is 1, and one blank stands before
/// each value and none behind it. Nothing of it is judged; what has another form stays as it is.
fn normal(head: &[u8]) -> Vec<u8> {
    let head = head.strip_prefix(b"\r\n").unwrap_or(head);
    let mut lines = head.split_inclusive(|&byte| byte == b'\n');
    let mut normal = normal_request_line(lines.next().unwrap_or_default());
    for line in lines {
        let line = line.strip_suffix(b"\r\n").unwrap_or(line);
        match line.iter().position(|&byte| byte == b':') {
            Some(colon) => normal.extend([&line[..colon], b": ", without_blanks(&line[colon + 1..])].concat()),
            None => normal.extend_from_slice(line),
        }
        normal.extend_from_slice(b"\r\n");
    }
    normal
}

fn normal_request_line(line: &[u8]) -> Vec<u8> {
    let words: Vec<&[u8]> = line.split(|&byte| byte == b' ').collect();
    let [method, target, version] = words[..] else { return line.to_vec() };
    let mut path = target.to_vec();
    if (method, target) == (b"OPTIONS", b"*") {
        path = b"/".to_vec();
    } else if let Some(scheme) = target.windows(3).position(|window| window == b"://")
        && !target.starts_with(b"/")
    {
        let rest = &target[scheme + 3..];
        let authority = rest.iter().position(|byte| b"/?".contains(byte)).unwrap_or(rest.len());
        let slash: &[u8] = if rest[authority..].starts_with(b"/") { b"" } else { b"/" };
        path = [slash, &rest[authority..]].concat();
    }
    let version: &[u8] = match version {
        [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'2'..=b'9', b'\r', b'\n'] => b"HTTP/1.1\r\n",
        other => other,
    };
    [method, b" ", &path, b" ", version].concat()
}

fn without_blanks(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

fn check_route(request: &Request, limits: &Limits) {
    let routes: Vec<Route> = ["/chat=chat", "/chat/{room}=chat:{room}", "/{a}/b/{c}=x:{c}/{a},binary"]
        .into_iter()
        .map(|route| route.parse().expect("a route"))
        .collect();
    let routes = Routes::new(routes, "p:", limits).expect("routes that differ");
    if let Some(Ok(target)) = routes.find(request.path()) {
        let channel = core::str::from_utf8(&target.channel).expect("a channel is text");
        assert!(channel.starts_with("p:") && channel.len() <= limits.channel_bytes);
        assert!(!channel.contains(char::is_control));
    }
}

/// The answer to a request that is accepted here is the one that another implementation gives, if it accepts it.
fn check_upgrade(request: &Request, upgrade: &Upgrade, head: &[u8]) {
    assert!(request.method() == Method::Get && !request.is_http_1_0());
    let answer = upgrade.answer(None).expect("no subprotocol is always right");
    let (status, accept) = parse_answer(&answer, "sec-websocket-accept");
    assert_eq!(status, 101);
    for subprotocol in request.subprotocols() {
        let answer = upgrade.answer(Some(subprotocol)).expect("it was offered");
        assert_eq!(parse_answer(&answer, "sec-websocket-protocol"), (101, subprotocol.to_owned()));
    }
    let parsed = OtherRequest::try_parse(head);
    let Ok(Some((length, other))) = parsed else {
        let is_stricter = is_known_to_differ(request, head);
        assert!(is_stricter, "the other implementation refuses {parsed:?}");
        return;
    };
    assert_eq!(length, head.len());
    match create_response(&other) {
        Ok(response) => assert_eq!(response.headers()["sec-websocket-accept"], accept),
        Err(error) => assert!(is_known_to_differ(request, head), "the other implementation refuses: {error}"),
    }
}

/// Where tungstenite is stricter, without reason in RFC 9110 or RFC 6455: it looks at the first Connection and Upgrade
/// field alone, takes no list for Upgrade and no bytes beyond ASCII in either, splits at blanks and commas but not at
/// tabs; its URIs are those of the `http` crate, which refuses some that RFC 3986 allows and some that the URL standard
/// leaves; and it knows no minor version after HTTP/1.1.
fn is_known_to_differ(request: &Request, head: &[u8]) -> bool {
    let is_plain = |name: &str, value: &str| {
        let mut values = request.headers().filter(|(other, _)| other.eq_ignore_ascii_case(name));
        values.next().is_some_and(|(_, first)| first.eq_ignore_ascii_case(value.as_bytes())) && values.next().is_none()
    };
    let mut words = head.split(|&byte| byte == b' ');
    let target = words.nth(1).unwrap_or_default();
    let is_1_1 = words.next().is_some_and(|version| version.starts_with(b"HTTP/1.1\r"));
    let is_uri = core::str::from_utf8(target).is_ok_and(|target| target.parse::<tungstenite::http::Uri>().is_ok());
    let is_exact = request
        .header("sec-websocket-key")
        .is_some_and(|key| matches!(key, [.., b'A' | b'Q' | b'g' | b'w', b'=', b'=']));
    !(is_1_1 && is_uri && is_exact && is_plain("connection", "upgrade") && is_plain("upgrade", "websocket"))
}

fn check_answer(answer: &Answer, error: Error, method: Method) {
    let Some(expected) = error.told().status() else { panic!("{error:?} is no answer to a request") };
    let bytes = answer.encode(method);
    let (status, connection) = parse_answer(&bytes, "connection");
    assert_eq!(status, expected);
    assert!(connection.split(", ").any(|option| option == "close"));
}

/// The status and a field of an answer, whose length is as it says.
fn parse_answer(bytes: &[u8], name: &str) -> (u16, String) {
    let mut headers = [httparse::EMPTY_HEADER; 16];
    let mut parsed = httparse::Response::new(&mut headers);
    let Ok(httparse::Status::Complete(head)) = parsed.parse(bytes) else { panic!("not an answer: {bytes:?}") };
    let status = parsed.code.expect("a status");
    let field = |name: &str| {
        let header = parsed.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
        header.map(|header| String::from_utf8_lossy(header.value).into_owned())
    };
    match field("content-length") {
        Some(length) if bytes.len() > head => assert_eq!(length, (bytes.len() - head).to_string()),
        Some(_) => {}
        None => assert_eq!((status, bytes.len()), (101, head)),
    }
    (status, field(name).unwrap_or_default())
}
