//! Heads in every split, limits, handshakes and answers. What is refused is listed in `hostile`.

use super::*;
use crate::error::{Error, Misuse};
use crate::limits::Limits;

mod hostile;
mod origins;

const KEY: &str = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

/// Reads a head in pieces that end at `cuts`. Some: the request and what it left of the input.
fn read(input: &[u8], cuts: &[usize], limits: &Limits) -> Result<Option<(Request, usize)>, Error> {
    let mut reader = RequestReader::new();
    let mut from = 0;
    for &to in cuts.iter().chain([&input.len()]) {
        if let Some((request, taken)) = reader.read(&input[from..to], limits)? {
            return Ok(Some((request, from + taken)));
        }
        from = to;
    }
    Ok(None)
}

/// Reads a head whole, byte by byte and in random pieces, and checks that it makes no difference.
fn read_anyhow(input: &[u8], limits: &Limits) -> Result<Option<(Request, usize)>, Error> {
    let whole = read(input, &[], limits);
    let mut rng = fastrand::Rng::with_seed(input.len() as u64);
    let mut splits: Vec<Vec<usize>> = vec![(0..input.len()).collect()];
    for pieces in 1..20 {
        let mut cuts: Vec<_> = (0..pieces).map(|_| rng.usize(..=input.len())).collect();
        cuts.sort_unstable();
        splits.push(cuts);
    }
    for cuts in splits {
        let split = read(input, &cuts, limits);
        assert_eq!(summary(&split), summary(&whole), "{cuts:?} {}", input.escape_ascii());
    }
    whole
}

fn summary(outcome: &Result<Option<(Request, usize)>, Error>) -> String {
    match outcome {
        Ok(Some((request, taken))) => {
            let fields: Vec<_> = request.headers().map(|(name, value)| (name, value.escape_ascii())).collect();
            format!("{request:?} {:?} {fields:?} {taken}", request.query())
        }
        Ok(None) => "more".to_owned(),
        Err(error) => format!("{error:?}"),
    }
}

fn request(head: &str) -> Request {
    let (request, taken) = read_anyhow(head.as_bytes(), &Limits::default()).expect(head).expect(head);
    assert_eq!(taken, head.len());
    request
}

/// A GET of `/` with these fields beside Host, each with its CRLF.
fn get(fields: &str) -> Request {
    request(&format!("GET / HTTP/1.1\r\nHost: example.org\r\n{fields}\r\n"))
}

#[test]
fn a_request_has_its_parts() {
    let request = request(
        "GET /chat/t%65a?a=/?b HTTP/1.1\r\nHost:  Example.org:80\t\r\nX-One:\r\nx-two: \t a  b \t\r\nX-TWO: c\r\n\r\n",
    );
    assert_eq!(request.method(), Method::Get);
    assert_eq!(request.path(), "/chat/t%65a");
    assert_eq!(request.query(), Some("a=/?b"));
    assert_eq!(request.host(), "Example.org:80");
    assert_eq!(request.header("x-one"), Some(&b""[..]));
    assert_eq!(request.header("X-Two"), Some(&b"a  b"[..]));
    assert_eq!(request.header("x-three"), None);
    let fields: Vec<_> = request.headers().collect();
    assert_eq!(fields, [("Host", &b"Example.org:80"[..]), ("X-One", b""), ("x-two", b"a  b"), ("X-TWO", b"c")]);
}

#[test]
fn a_target_in_absolute_form_names_the_host() {
    let table = [
        ("http://a.example", "a.example", "/", None),
        ("http://a.example/", "a.example", "/", None),
        ("https://a.example:8443/x/y?z", "a.example:8443", "/x/y", Some("z")),
        ("WS://a.example?z", "a.example", "/", Some("z")),
        ("wss://[2001:db8::1]:9/chat", "[2001:db8::1]:9", "/chat", None),
        ("http://a.example/x?http://b.example/y", "a.example", "/x", Some("http://b.example/y")),
        ("//a.example/x", "example.org", "//a.example/x", None),
        ("/http://a.example", "example.org", "/http://a.example", None),
        ("/?", "example.org", "/", Some("")),
    ];
    for (target, host, path, query) in table {
        let request = request(&format!("GET {target} HTTP/1.1\r\nHost: example.org\r\n\r\n"));
        assert_eq!((request.host(), request.path(), request.query()), (host, path, query), "{target}");
    }
}

#[test]
fn what_follows_the_head_is_left_alone() {
    let head = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n";
    let mut input = head.to_vec();
    input.extend_from_slice(b"\x81\x85\n\r\n\r\n\0GET / HTTP/1.1\r\n\r\n");
    let (_, taken) = read_anyhow(&input, &Limits::default()).expect("a head").expect("a whole one");
    assert_eq!(taken, head.len());
}

#[test]
fn an_unfinished_head_waits_for_more() {
    let head = b"\r\nHEAD / HTTP/1.1\r\nHost: h\r\n\r\n";
    let mut reader = RequestReader::new();
    assert!(reader.is_empty());
    for byte in &head[..head.len() - 1] {
        assert!(matches!(reader.read(&[*byte], &Limits::default()), Ok(None)));
        assert!(!reader.is_empty());
    }
    assert_eq!(reader.method(), Method::Head, "so that a refusal has no body");
    assert!(matches!(reader.read(b"\n", &Limits::default()), Ok(Some((_, 1)))));
    assert!(reader.is_empty());
}

#[test]
fn what_can_begin_no_request_is_refused_at_its_first_byte() {
    let limits = Limits::default();
    for byte in u8::MIN..=u8::MAX {
        let outcome = RequestReader::new().read(&[byte], &limits);
        match byte {
            b'\n' => assert_eq!(outcome.err(), Some(Error::BareLf)),
            b'\r' | b'!'..=b'~' => assert!(outcome.is_ok_and(|request| request.is_none()), "{byte:#04x}"),
            _ => assert_eq!(outcome.err(), Some(Error::HeadSyntax), "{byte:#04x}"),
        }
    }
    let tls = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03";
    assert_eq!(read_anyhow(tls, &limits).err(), Some(Error::HeadSyntax));
}

#[test]
fn the_method_is_known_when_the_head_is_refused() {
    for (input, expected) in [
        (&b"HEAD / HTTP/1.1\r\n\r\n"[..], Method::Head),
        (b"\r\nHEAD / HTTP/1.1\n", Method::Head),
        (b"GET / HTTP/1.1\r\n\r\n", Method::Get),
        (b"HEADER / HTTP/1.1\r\n\r\n", Method::Get),
        (b"head / HTTP/1.1\r\n\r\n", Method::Get),
    ] {
        let mut reader = RequestReader::new();
        reader.read(input, &Limits::default()).expect_err("no Host, or worse");
        assert_eq!(reader.method(), expected, "{}", input.escape_ascii());
    }
}

#[test]
fn a_head_costs_linear_time_however_it_arrives() {
    let limits = Limits { head_fields: 10_000, ..Limits::default() };
    for field in ["a:\r\n", "X-Field: and its value\r\n", &format!("X: {}\r\n", "y".repeat(3_000))] {
        let mut head = "GET / HTTP/1.1\r\n".to_owned();
        while head.len() + field.len() < limits.head_bytes {
            head.push_str(field);
        }
        for piece in [1, 7, head.len()] {
            let mut reader = RequestReader::new();
            for bytes in head.as_bytes().chunks(piece) {
                assert!(matches!(reader.read(bytes, &limits), Ok(None)));
            }
            assert!(reader.searched <= 2 * head.len(), "{} of {} by {piece}", reader.searched, head.len());
        }
    }
}

#[test]
fn the_bytes_of_a_head_are_bounded() {
    let limits = Limits { head_bytes: 200, ..Limits::default() };
    for (length, expected) in [(199, None), (200, None), (201, Some(Error::LongHead)), (300, Some(Error::LongHead))] {
        let frame = "GET / HTTP/1.1\r\nHost: h\r\nX: \r\n\r\n";
        let head = frame.replace("X: ", &format!("X: {}", "x".repeat(length - frame.len())));
        assert_eq!(head.len(), length);
        assert_eq!(read_anyhow(head.as_bytes(), &limits).err(), expected, "{length}");
    }
    // A request line of 200 bytes has its end within the bound, and then it is the head that is too large.
    for (length, expected) in
        [(199, Some(Error::LongHead)), (200, Some(Error::LongHead)), (201, Some(Error::LongTarget))]
    {
        let line = format!("GET /{} HTTP/1.1\r\n", "x".repeat(length - 16));
        assert_eq!(line.len(), length);
        let head = format!("{line}Host: h\r\n\r\n");
        assert_eq!(read_anyhow(head.as_bytes(), &limits).err(), expected, "{length}");
    }
    let endless = vec![b'x'; 100_000];
    assert_eq!(read_anyhow(&endless[..199], &limits).err(), None);
    assert_eq!(read_anyhow(&endless[..200], &limits).err(), Some(Error::LongTarget));
    assert_eq!(read(&endless, &[], &limits).err(), Some(Error::LongTarget));
}

#[test]
fn the_default_bound_of_a_head_is_16_kib() {
    for (length, expected) in [(16_383, None), (16_384, None), (16_385, Some(Error::LongHead))] {
        let frame = "GET / HTTP/1.1\r\nHost: h\r\nX: \r\n\r\n";
        let head = frame.replace("X: ", &format!("X: {}", "x".repeat(length - frame.len())));
        assert_eq!(read(head.as_bytes(), &[], &Limits::default()).err(), expected, "{length}");
    }
}

#[test]
fn the_fields_of_a_head_are_bounded() {
    for (fields, expected) in [(99, None), (100, None), (101, Some(Error::LongHead)), (102, Some(Error::LongHead))] {
        let head = format!("GET / HTTP/1.1\r\nHost: h\r\n{}\r\n", "X: y\r\n".repeat(fields - 1));
        assert_eq!(read_anyhow(head.as_bytes(), &Limits::default()).err(), expected, "{fields}");
    }
    let none = Limits { head_fields: 0, ..Limits::default() };
    assert_eq!(read_anyhow(b"GET / HTTP/1.1\r\n\r\n", &none).err(), Some(Error::Host));
    assert_eq!(read_anyhow(b"GET / HTTP/1.1\r\nHost: h\r\n", &none).err(), Some(Error::LongHead));
}

#[test]
fn a_refused_head_keeps_no_more_than_the_limit() {
    let limits = Limits { head_bytes: 100, ..Limits::default() };
    let mut reader = RequestReader::new();
    for _ in 0..50 {
        assert_eq!(reader.read(&[b'x'; 1_000], &limits).err(), Some(Error::LongTarget));
    }
    assert_eq!(reader.searched, 100);
}

#[test]
fn a_head_in_pieces_is_seldom_moved_and_takes_no_more_memory_than_the_limit() {
    let limits = Limits { head_bytes: 1_000, ..Limits::default() };
    for piece in [1, 300] {
        let mut reader = RequestReader::new();
        let (mut capacity, mut moves) = (0, 0);
        for bytes in [b'x'; 999].chunks(piece) {
            assert!(matches!(reader.read(bytes, &limits), Ok(None)));
            moves += usize::from(reader.capacity() != capacity);
            capacity = reader.capacity();
            assert!(capacity <= limits.head_bytes, "{capacity}");
        }
        assert!(moves <= 11, "{moves} for {capacity} bytes");
    }
}

#[test]
fn a_wrong_line_end_is_refused_at_its_line() {
    for (line, error) in
        [("X: y\n", Error::BareLf), ("X: a\rb\r\n", Error::HeadSyntax), ("X: y\r\r\n", Error::HeadSyntax)]
    {
        let head = format!("GET / HTTP/1.1\r\nHost: h\r\n{line}");
        assert_eq!(read_anyhow(head.as_bytes(), &Limits::default()).err(), Some(error), "{line:?}");
    }
}

#[test]
fn random_bytes_never_panic() {
    let alphabet: Vec<&[u8]> = vec![
        b"GET ",
        b"HEAD ",
        b"/",
        b"*",
        b"?",
        b"%",
        b"http://",
        b" HTTP/1.1",
        b"\r\n",
        b"\r\n",
        b"\r\n\r\n",
        b"\r",
        b"\n",
        b"\0",
        b"Host",
        b": ",
        b":",
        b" ",
        b"\t",
        b",",
        b"h",
        b"[",
        b"]",
        b"::1",
        b":80",
        b"Upgrade: websocket\r\n",
        b"\xff",
        b"0",
        b"Connection: Upgrade\r\n",
        b"Sec-WebSocket-Version: 13\r\n",
        KEY.as_bytes(),
        b"Content-Length: ",
        b"Origin: ",
        b"Sec-WebSocket-Protocol: a",
        b"GET / HTTP/1.1\r\nHost: h\r\n",
    ];
    let mut rng = fastrand::Rng::with_seed(7);
    let mut complete = 0;
    for _ in 0..5_000 {
        let mut input = if rng.bool() { b"GET / HTTP/1.1\r\nHost: h\r\n".to_vec() } else { Vec::new() };
        for _ in 0..rng.usize(..12) {
            input.extend_from_slice(alphabet[rng.usize(..alphabet.len())]);
        }
        input.extend_from_slice(if rng.bool() { b"\r\n\r\n" } else { b"" });
        if let Ok(Some((request, _))) = read_anyhow(&input, &Limits::default()) {
            complete += 1;
            drop(request.upgrade());
            drop(OriginPolicy::default().check(&request, None));
        }
    }
    assert!(complete > 300, "{complete}");
}

#[test]
fn debug_output_holds_no_secrets() {
    let head = "GET /x?token=secret HTTP/1.1\r\nHost: h\r\nCookie: secret\r\nAuthorization: secret\r\n\r\n";
    let text = format!("{:?}", request(head));
    assert!(text.contains("/x") && !text.contains("secret"), "{text}");
}

#[test]
fn the_handshake_of_the_rfc_gets_its_answer() {
    // RFC 6455 §1.3.
    let request = get(&format!(
        "Upgrade: websocket\r\nConnection: Upgrade\r\n{KEY}Origin: http://example.com\r\n\
         Sec-WebSocket-Protocol: chat, superchat\r\nSec-WebSocket-Version: 13\r\n"
    ));
    assert!(request.wants_upgrade());
    assert_eq!(request.subprotocols().collect::<Vec<_>>(), ["chat", "superchat"]);
    let upgrade = request.upgrade().expect("a good handshake");
    let plain = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                 Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n";
    assert_eq!(upgrade.answer(None).expect("no subprotocol"), format!("{plain}\r\n"));
    let chosen = upgrade.answer(Some("superchat")).expect("an offered one");
    assert_eq!(chosen, format!("{plain}Sec-WebSocket-Protocol: superchat\r\n\r\n"));
    for never_offered in ["Chat", "", "chat, superchat", "chat\r\nX: y"] {
        assert_eq!(upgrade.answer(Some(never_offered)), Err(Misuse::Subprotocol));
    }
}

#[test]
fn at_most_32_subprotocols_may_be_offered() {
    for (count, may_be) in [(31, true), (32, true), (33, false), (4_000, false)] {
        let names: Vec<String> = (0..count).map(|number| format!("p{number}")).collect();
        let fields = format!(
            "Upgrade: websocket\r\nConnection: Upgrade\r\n{KEY}Sec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Protocol: {}\r\n",
            names.join(", ")
        );
        let limits = Limits { head_bytes: 64 << 10, ..Limits::default() };
        let head = format!("GET /chat HTTP/1.1\r\nHost: h\r\n{fields}\r\n");
        let (request, _) = RequestReader::new().read(head.as_bytes(), &limits).expect("valid").expect("whole");
        match request.upgrade() {
            Ok(upgrade) => {
                assert!(may_be && names.iter().all(|name| upgrade.offers(name)), "{count}");
                assert_eq!(upgrade.offered_bytes(), names.join(",").len());
            }
            Err(error) => assert!(!may_be && error == Error::Subprotocol, "{count}: {error}"),
        }
    }
}

/// Status line, fields and body of an encoded answer.
fn parts(answer: &[u8]) -> (String, Vec<(String, String)>, String) {
    let text = String::from_utf8(answer.to_vec()).expect("text");
    let (head, body) = text.split_once("\r\n\r\n").expect("an end of the head");
    let mut lines = head.split("\r\n");
    let status = lines.next().expect("a status line").to_owned();
    let fields = lines.map(|line| line.split_once(": ").expect("a field")).map(|(n, v)| (n.to_owned(), v.to_owned()));
    (status, fields.collect(), body.to_owned())
}

#[test]
fn a_head_that_somebody_else_read_is_checked_as_if_it_had_come_here() {
    let key = ("sec-websocket-key", &b"dGhlIHNhbXBsZSBub25jZQ=="[..]);
    let version = ("sec-websocket-version", &b"13"[..]);
    let fields = [("host", &b"localhost"[..]), ("upgrade", b"websocket"), ("connection", b"Upgrade"), version, key];
    let offer = Request::from_parts("GET", "/chat/tea?a=b", fields).unwrap();
    assert_eq!((offer.path(), offer.query(), offer.host()), ("/chat/tea", Some("a=b"), "localhost"));
    assert!(offer.headers().eq(fields));
    let accept = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
    let told = [("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Accept", accept)];
    assert_eq!(offer.upgrade().unwrap().fields(None).unwrap(), told);
    assert_eq!(offer.upgrade().unwrap().fields(Some("chat")), Err(Misuse::Subprotocol));

    let refused = |method, target, field| Request::from_parts(method, target, fields.into_iter().chain([field])).err();
    assert_eq!(refused("POST", "/", ("a", b"b")), Some(Error::Method));
    assert_eq!(refused("GET", "/ ", ("a", b"b")), Some(Error::HeadSyntax));
    assert_eq!(refused("GET", "chat", ("a", b"b")), Some(Error::Target));
    assert_eq!(refused("GET", "/", ("host", b"b")), Some(Error::Host));
    assert_eq!(Request::from_parts("GET", "/", []).err(), Some(Error::Host));
    for end in ["\n", "\r", "\r\n"] {
        let cut = |text: &str| text.replace('|', end);
        let (method, target, name, value) =
            (cut("GET / HTTP/1.1|a:"), cut("/ HTTP/1.1|a:"), cut("a:b|c"), cut("b|c: d"));
        for (method, target, field) in [
            (&*method, "/", ("a", &b"b"[..])),
            ("GET", &target, ("a", b"b")),
            ("GET", "/", (&name, b"d")),
            ("GET", "/", ("a", value.as_bytes())),
        ] {
            let request = Request::from_parts(method, target, fields.into_iter().chain([field]));
            assert_eq!(request.err(), Some(Error::HeadSyntax));
        }
    }
}

#[test]
fn every_error_of_a_request_has_a_complete_answer() {
    for &error in Error::ALL {
        let Some(expected) = error.told().status() else { continue };
        let answer = Answer::for_error(error);
        let (status, fields, body) = parts(&answer.encode(Method::Get));
        assert!(status.starts_with(&format!("HTTP/1.1 {expected} ")), "{error:?}");
        assert!(status.len() > "HTTP/1.1 400 ".len(), "{error:?} has a reason phrase");
        assert_eq!(body, format!("{}.\n", error.text()));
        let has = |name: &str, value: &str| fields.contains(&(name.to_owned(), value.to_owned()));
        assert!(has("Connection", "close") && has("Content-Length", &body.len().to_string()), "{error:?}");
        assert!(has("Content-Type", "text/plain; charset=utf-8"), "{error:?}");
        assert!(has("X-Content-Type-Options", "nosniff") && has("Cache-Control", "no-store"), "{error:?}");
        assert_eq!(has("Allow", "GET, HEAD"), expected == 405, "{error:?}");
        assert_eq!(has("Upgrade", "websocket"), expected == 426, "{error:?}");
        assert_eq!(has("Connection", "Upgrade"), expected == 426, "{error:?}");
        assert_eq!(has("Sec-WebSocket-Version", "13"), expected == 426, "{error:?}");
        assert_eq!(fields.iter().any(|(name, _)| name == "Retry-After"), expected == 503, "{error:?}");

        let (head_status, head_fields, head_body) = parts(&answer.encode(Method::Head));
        assert_eq!((head_status, head_fields, head_body.as_str()), (status, fields, ""), "{error:?}");
    }
}

#[test]
fn an_error_of_a_frame_is_never_told_as_a_success() {
    assert_eq!(Answer::for_error(Error::NotMasked).status, 500);
}

#[test]
fn a_field_replaces_one_of_its_name_and_cannot_end_its_line() {
    let answer = Answer::for_error(Error::Method).with_field("allow", "GET").with_field("X", "a\r\nb\0c\n");
    let (_, fields, _) = parts(&answer.encode(Method::Get));
    let of = |name: &str| {
        fields.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str()).collect::<Vec<_>>()
    };
    assert_eq!(of("allow"), ["GET"]);
    assert_eq!(of("x"), ["a  b c "]);
}

#[test]
fn a_status_without_a_reason_phrase_keeps_its_blank() {
    assert!(Answer::text(418, "teapot").encode(Method::Get).starts_with(b"HTTP/1.1 418 \r\n"));
}
