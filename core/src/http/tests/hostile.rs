//! Heads in the strict reading of RFC 9112, RFC 9110 and RFC 6455 §4.2, each with the status it must get. 200 and 101
//! stand for a head that is right, so that no table could be passed by refusing everything.

use super::*;

/// The status that a head gets: 200, or 101 if it offers WebSocket, when all is right.
fn status(head: &[u8]) -> u16 {
    let outcome = read_anyhow(head, &Limits::default()).and_then(|complete| {
        let (request, _) = complete.unwrap_or_else(|| panic!("a whole head: {}", head.escape_ascii()));
        if request.header("upgrade").is_some() || request.header("sec-websocket-key").is_some() {
            return request.upgrade().map(|_| 101);
        }
        Ok(200)
    });
    outcome.unwrap_or_else(|error| Answer::for_error(error).status)
}

/// Checks every row, the bytes of a row being put into a head by `head`.
fn check(table: &[(u16, &[u8])], head: impl Fn(&[u8]) -> Vec<u8>) {
    for &(expected, bytes) in table {
        assert_eq!(status(&head(bytes)), expected, "{}", bytes.escape_ascii());
        assert_eq!(status(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"), 200, "a good head after it");
    }
}

/// The request line, before `Host: example.org`.
#[rustfmt::skip]
const REQUEST_LINES: &[(u16, &[u8])] = &[
    (200, b"GET / HTTP/1.1"),
    (200, b"HEAD / HTTP/1.1"),
    (200, b"\r\nGET / HTTP/1.1"),
    (400, b"\r\n\r\nGET / HTTP/1.1"),
    (400, b"\nGET / HTTP/1.1"),
    (400, b"\rGET / HTTP/1.1"),
    (400, b" GET / HTTP/1.1"),
    (400, b"\tGET / HTTP/1.1"),
    (400, b"GET  / HTTP/1.1"),
    (400, b"GET /  HTTP/1.1"),
    (400, b"GET\t/ HTTP/1.1"),
    (400, b"GET /\tHTTP/1.1"),
    (400, b"GET / HTTP/1.1 "),
    (400, b"GET / HTTP/1.1\t"),
    (400, b"GET / HTTP/1.1 x"),
    (400, b"GET / x HTTP/1.1"),
    (400, b"GET / x HTTP/2.0"),
    (400, b"GET /\r HTTP/1.1"),
    (400, b"GET / HTTP/1.1\r"),
    (400, b"GET / HTTP/1.1\n"),
    (400, b"GET /\x0b HTTP/1.1"),
    (400, b"GET /\xc2\xa0HTTP/1.1"),
    (400, b"\xef\xbb\xbfGET / HTTP/1.1"),
    (400, b"\0GET / HTTP/1.1"),
    (400, b"GET"),
    (400, b"GET "),
    (400, b"GET /"),
    (400, b"GET / "),
    (400, b"GET HTTP/1.1"),
    (400, b"GET  HTTP/1.1"),
    (400, b"/ HTTP/1.1"),
    (400, b" / HTTP/1.1"),
    (400, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
    (400, b"*1"),
    (400, b"HELLO"),
    // Versions.
    (200, b"GET / HTTP/1.0"),
    (200, b"GET / HTTP/1.2"),
    (200, b"GET / HTTP/1.9"),
    (200, b"HEAD / HTTP/1.0"),
    (200, b"\r\nGET / HTTP/1.2"),
    (405, b"POST / HTTP/1.2"),
    (400, b"GET x HTTP/1.2"),
    (400, b"GET  / HTTP/1.2"),
    (400, b"GET / HTTP/1.2 "),
    (400, b"GET / HTTP/1.20"),
    (400, b"GET / x HTTP/1.2"),
    (505, b"GET / HTTP/0.9"),
    (505, b"GET / HTTP/2.0"),
    (505, b"GET / HTTP/3.0"),
    (505, b"PRI * HTTP/2.0"),
    (200, b"\r\nGET / HTTP/1.0"),
    (505, b"\r\nGET / HTTP/4.0"),
    (400, b"GET / HTTP/2"),
    (400, b"GET / HTTP/1"),
    (400, b"GET / HTTP/1."),
    (400, b"GET / HTTP/.1"),
    (400, b"GET / HTTP/11"),
    (400, b"GET / HTTP/1.10"),
    (400, b"GET / HTTP/01.1"),
    (400, b"GET / HTTP/1,1"),
    (400, b"GET / HTTP/a.b"),
    (400, b"GET / HTTP/2.b"),
    (400, b"GET / HTTP/a.0"),
    (400, b"GET / HTTP/-1.1"),
    (400, b"GET / http/1.1"),
    (400, b"GET / Http/1.1"),
    (400, b"GET / HTTPS/1.1"),
    (400, b"GET / HTTP 1.1"),
    (400, b"GET / HTP/1.1"),
    (400, b"GET / ICY/1.1"),
    (400, b"GET / RTSP/1.0"),
    // Methods.
    (405, b"get / HTTP/1.1"),
    (405, b"Get / HTTP/1.1"),
    (405, b"head / HTTP/1.1"),
    (405, b"GETS / HTTP/1.1"),
    (405, b"POST / HTTP/1.1"),
    (405, b"PUT / HTTP/1.1"),
    (405, b"DELETE / HTTP/1.1"),
    (405, b"PATCH / HTTP/1.1"),
    (405, b"TRACE / HTTP/1.1"),
    (200, b"OPTIONS / HTTP/1.1"),
    (200, b"OPTIONS /?a HTTP/1.1"),
    (200, b"OPTIONS * HTTP/1.1"),
    (200, b"OPTIONS http://example.org HTTP/1.1"),
    (405, b"OPTIONS /chat HTTP/1.1"),
    (400, b"OPTIONS ** HTTP/1.1"),
    (400, b"OPTIONS x HTTP/1.1"),
    (405, b"CONNECT example.org:443 HTTP/1.1"),
    (405, b"PRI / HTTP/1.1"),
    (405, b"!#$%&'*+-.^_`|~ / HTTP/1.1"),
    (400, b"G@T / HTTP/1.1"),
    (400, b"G(T) / HTTP/1.1"),
    (400, b"\"GET\" / HTTP/1.1"),
    (400, b"GET: / HTTP/1.1"),
    (400, b"G\xc3\x89T / HTTP/1.1"),
    (400, b"G\x7fT / HTTP/1.1"),
    (400, b"G\0T / HTTP/1.1"),
    // Targets.
    (200, b"GET /a-._~!$&'()*+,;=:@/%41?a=[b]/?:@ HTTP/1.1"),
    (200, b"GET // HTTP/1.1"),
    (200, b"GET /.. HTTP/1.1"),
    (200, b"GET /? HTTP/1.1"),
    (200, b"GET /http://other.example HTTP/1.1"),
    (400, b"GET * HTTP/1.1"),
    (400, b"HEAD * HTTP/1.1"),
    (400, b"POST * HTTP/1.1"),
    (400, b"GET x HTTP/1.1"),
    (400, b"GET example.org HTTP/1.1"),
    (400, b"GET example.org/ HTTP/1.1"),
    (400, b"GET example.org:80 HTTP/1.1"),
    (400, b"CONNECT example.org HTTP/1.1"),
    (400, b"CONNECT :443 HTTP/1.1"),
    (400, b"GET ?x HTTP/1.1"),
    (400, b"GET ../ HTTP/1.1"),
    (400, b"GET \\ HTTP/1.1"),
    (400, b"GET /\\ HTTP/1.1"),
    (200, b"GET /| HTTP/1.1"),
    (200, b"GET /< HTTP/1.1"),
    (200, b"GET /> HTTP/1.1"),
    (200, b"GET /\" HTTP/1.1"),
    (200, b"GET /^ HTTP/1.1"),
    (200, b"GET /` HTTP/1.1"),
    (200, b"GET /{ HTTP/1.1"),
    (200, b"GET /} HTTP/1.1"),
    (200, b"GET /?{\"a\":[1]}|^`<>\\ HTTP/1.1"),
    (200, b"GET /?x=%zz?y HTTP/1.1"),
    (400, b"GET /a\\b?c HTTP/1.1"),
    (400, b"GET http://example.org/a\\b HTTP/1.1"),
    (400, b"GET http://example.org\\b HTTP/1.1"),
    (400, b"GET http://evil.example\\@example.org/ HTTP/1.1"),
    (400, b"GET /# HTTP/1.1"),
    (400, b"GET /#fragment HTTP/1.1"),
    (400, b"GET /?x#y HTTP/1.1"),
    (200, b"GET /\xc3\xa9?\xf0\x9f\x8e\xba HTTP/1.1"),
    (400, b"GET /\xc2\x85 HTTP/1.1"),
    (400, b"GET /?\xc2\xa0 HTTP/1.1"),
    (400, b"GET /?\xe2\x80\xa8 HTTP/1.1"),
    (400, b"GET /?\xff HTTP/1.1"),
    (400, b"GET http://\xc3\xa9.example/ HTTP/1.1"),
    (400, b"GET /\xff HTTP/1.1"),
    (400, b"GET /\x7f HTTP/1.1"),
    (400, b"GET /\0 HTTP/1.1"),
    (400, b"GET /\x01 HTTP/1.1"),
    (400, b"GET /\x1b[31m HTTP/1.1"),
    (200, b"GET http://example.org HTTP/1.1"),
    (200, b"GET HTTP://example.org/ HTTP/1.1"),
    (200, b"GET https://example.org:443/x?y HTTP/1.1"),
    (200, b"GET ws://other.example/ HTTP/1.1"),
    (200, b"GET wss://[::1]/ HTTP/1.1"),
    (405, b"POST http://example.org/ HTTP/1.1"),
    (400, b"GET http:// HTTP/1.1"),
    (400, b"GET http:///x HTTP/1.1"),
    (400, b"GET http:/x HTTP/1.1"),
    (400, b"GET http:x HTTP/1.1"),
    (400, b"GET ://example.org/ HTTP/1.1"),
    (400, b"GET ftp://example.org/ HTTP/1.1"),
    (400, b"GET file:///etc/passwd HTTP/1.1"),
    (400, b"GET javascript://example.org/ HTTP/1.1"),
    (400, b"GET http://user@example.org/ HTTP/1.1"),
    (400, b"GET http://user:password@example.org/ HTTP/1.1"),
    (400, b"GET http://example.org:x/ HTTP/1.1"),
    (400, b"GET http://example.org:65536/ HTTP/1.1"),
    (400, b"GET http://:80/ HTTP/1.1"),
    (400, b"GET http://?x HTTP/1.1"),
    (400, b"GET http://[::1/ HTTP/1.1"),
    (400, b"GET http://ex ample.org/ HTTP/1.1"),
    (400, b"GET http://example.org/#x HTTP/1.1"),
];

#[test]
fn request_lines() {
    check(REQUEST_LINES, |line| [line, b"\r\nHost: example.org\r\n\r\n"].concat());
}

/// What stands where Host should.
#[rustfmt::skip]
const HOSTS: &[(u16, &[u8])] = &[
    (200, b"Host: example.org\r\n"),
    (200, b"host:example.org\r\n"),
    (200, b"HOST: \t example.org \t \r\n"),
    (200, b"Host: localhost:3000\r\n"),
    (200, b"Host: example.org:\r\n"),
    (200, b"Host: example.org:0\r\n"),
    (200, b"Host: example.org:65535\r\n"),
    (200, b"Host: example.org:00080\r\n"),
    (200, b"Host: 127.0.0.1:80\r\n"),
    (200, b"Host: [::1]\r\n"),
    (200, b"Host: [2001:DB8::1]:8080\r\n"),
    (200, b"Host: [::ffff:192.0.2.1]\r\n"),
    (200, b"Host: my_host.example\r\n"),
    (200, b"Host: ex%61mple.org\r\n"),
    (200, b"Host: a!$&'()*+,;=b~-._c\r\n"),
    (400, b""),
    (400, b"Host:\r\n"),
    (400, b"Host: \t\r\n"),
    (400, b"Hosts: example.org\r\n"),
    (400, b"X-Host: example.org\r\n"),
    (400, b"Host: example.org\r\nHost: example.org\r\n"),
    (400, b"Host: example.org\r\nX: y\r\nhOST: other.example\r\n"),
    (400, b"Host: example.org\r\nHost:\r\n"),
    (400, b"Host: a.example, b.example\r\n"),
    (400, b"Host: :80\r\n"),
    (400, b"Host: example.org:65536\r\n"),
    (400, b"Host: example.org:99999999999999999999\r\n"),
    (400, b"Host: example.org:-1\r\n"),
    (400, b"Host: example.org:+80\r\n"),
    (400, b"Host: example.org:8o\r\n"),
    (400, b"Host: example.org: 80\r\n"),
    (400, b"Host: example.org:80:80\r\n"),
    (400, b"Host: http://example.org\r\n"),
    (400, b"Host: example.org/\r\n"),
    (400, b"Host: example.org/x\r\n"),
    (400, b"Host: example.org?x\r\n"),
    (400, b"Host: example.org#x\r\n"),
    (400, b"Host: user@example.org\r\n"),
    (400, b"Host: exa mple.org\r\n"),
    (400, b"Host: exa\tmple.org\r\n"),
    (400, b"Host: exa<mple.org\r\n"),
    (400, b"Host: \"example.org\"\r\n"),
    (400, b"Host: exa\\mple.org\r\n"),
    (400, b"Host: exa^mple.org\r\n"),
    (400, b"Host: ex%zzmple.org\r\n"),
    (400, b"Host: ex%4zmple.org\r\n"),
    (400, b"Host: ex%z4mple.org\r\n"),
    (400, b"Host: example.org%\r\n"),
    (400, b"Host: example.org%4\r\n"),
    (400, b"Host: ex\xc3\xa4mple.org\r\n"),
    (400, b"Host: ex\xffmple.org\r\n"),
    (400, b"Host: ::1\r\n"),
    (400, b"Host: 2001:db8::1\r\n"),
    (400, b"Host: []\r\n"),
    (400, b"Host: [\r\n"),
    (400, b"Host: ]\r\n"),
    (400, b"Host: [::1\r\n"),
    (400, b"Host: ::1]\r\n"),
    (400, b"Host: [::1]x\r\n"),
    (400, b"Host: [::1]80\r\n"),
    (400, b"Host: [::1]:x\r\n"),
    (400, b"Host: [[::1]]\r\n"),
    (200, b"Host: [fe80::1%eth0]:3000\r\n"),
    (200, b"Host: [fe80::1%25eth0]\r\n"),
    (200, b"Host: [fe80::1%2]\r\n"),
    (400, b"Host: [fe80::1%]\r\n"),
    (400, b"Host: [fe80::1%eth0\r\n"),
    (400, b"Host: [fe80::1%eth0%]\r\n"),
    (400, b"Host: [fe80::1%e th0]\r\n"),
    (400, b"Host: [fe80::1%eth0]]\r\n"),
    (400, b"Host: [%eth0]\r\n"),
    (400, b"Host: [g%eth0]\r\n"),
    (400, b"Host: fe80::1%eth0\r\n"),
    (400, b"Host: [127.0.0.1]\r\n"),
    (400, b"Host: [:::1]\r\n"),
    (400, b"Host: [v1.x]\r\n"),
    (400, b"Host: [example.org]\r\n"),
];

#[test]
fn hosts() {
    check(HOSTS, |host| [b"GET / HTTP/1.1\r\n", host, b"\r\n"].concat());
    let relative_to = |target: &[u8], host: &[u8]| status(&[b"GET ", target, b" HTTP/1.1\r\n", host, b"\r\n"].concat());
    assert_eq!(relative_to(b"http://a.example/", b""), 400, "absolute-form does not stand in for Host");
    assert_eq!(relative_to(b"http://a.example/", b"Host:\r\n"), 400);
    assert_eq!(relative_to(b"http://a.example/", b"Host: b.example\r\n"), 200);
}

#[test]
fn a_host_is_required_of_http_1_1_alone_and_checked_if_it_is_there() {
    for (expected, version, host) in [
        (200, "1.0", ""),
        (200, "1.0", "Host: example.org\r\n"),
        (400, "1.0", "Host:\r\n"),
        (400, "1.0", "Host: a b\r\n"),
        (400, "1.0", "Host: a\r\nHost: a\r\n"),
        (400, "1.1", ""),
        (400, "1.2", ""),
    ] {
        let head = format!("GET / HTTP/{version}\r\n{host}\r\n");
        assert_eq!(status(head.as_bytes()), expected, "{version} {host:?}");
    }
    assert_eq!(request("GET / HTTP/1.0\r\n\r\n").host(), "");
    assert_eq!(request("GET http://a.example/ HTTP/1.0\r\n\r\n").host(), "a.example");
}

/// Fields behind Host.
#[rustfmt::skip]
const FIELDS: &[(u16, &[u8])] = &[
    (200, b""),
    (200, b"X:\r\n"),
    (200, b"X: \r\n"),
    (200, b"X:y\r\n"),
    (200, b"X: a\tb\r\n"),
    (200, b"X: \x80\xff\xc3\xa9\r\n"),
    (200, b"!#$%&'*+-.^_`|~09azAZ: y\r\n"),
    (200, b"X: :::\r\n"),
    (400, b"X\r\n"),
    (400, b"X \r\n"),
    (400, b": y\r\n"),
    (400, b":\r\n"),
    (400, b" : y\r\n"),
    (400, b"X : y\r\n"),
    (400, b"X\t: y\r\n"),
    (400, b" X: y\r\n"),
    (400, b"\tX: y\r\n"),
    (400, b"X: y\r\n z\r\n"),
    (400, b"X: y\r\n\tz\r\n"),
    (400, b"X: y\r\n \r\n"),
    (400, b"X:\r\n y\r\n"),
    (400, b"X: y\r\n Content-Length: 5\r\n"),
    (400, b"X Y: z\r\n"),
    (400, b"X(Y): z\r\n"),
    (400, b"X/Y: z\r\n"),
    (400, b"X@Y: z\r\n"),
    (400, b"X,Y: z\r\n"),
    (400, b"\"X\": z\r\n"),
    (400, b"X[]: z\r\n"),
    (400, b"\xc3\x89: z\r\n"),
    (400, b"X\0: z\r\n"),
    (400, b"X\x7f: z\r\n"),
    (400, b"X\x0b: z\r\n"),
    (400, b"X: \0\r\n"),
    (400, b"X: a\0b\r\n"),
    (400, b"X: a\x01b\r\n"),
    (400, b"X: a\x08b\r\n"),
    (400, b"X: a\x0bb\r\n"),
    (400, b"X: a\x0cb\r\n"),
    (400, b"X: a\x1bb\r\n"),
    (400, b"X: a\x1fb\r\n"),
    (400, b"X: a\x7fb\r\n"),
    (400, b"X: a very long value so that more than one machine word of it is searched for control bytes \x7f\r\n"),
    (400, b"X: a very long value so that more than one machine word of it is searched for control bytes \0 and on\r\n"),
    // Line ends.
    (400, b"X: y\n"),
    (400, b"X: y\nZ: z\r\n"),
    (400, b"X: y\n\n"),
    (400, b"X: y\r\n\n"),
    (400, b"X: y\n\r\n"),
    (400, b"X: a\rb\r\n"),
    (400, b"X: a\r\r\n"),
    (400, b"X\r: a\r\n"),
    (400, b"\rX: a\r\n"),
    (400, b"\r\r\n"),
    (400, b"X: y\r\nZ: z\n\r\n"),
    // Bodies.
    (200, b"Content-Length: 0\r\n"),
    (200, b"Content-Length: 00\r\n"),
    (200, b"Content-Length: 0\r\nContent-Length: 0\r\n"),
    (400, b"Content-Length: 1\r\n"),
    (400, b"Content-Length: 10\r\n"),
    (400, b"content-length: 5\r\n"),
    (400, b"Content-Length: 99999999999999999999999999\r\n"),
    (400, b"Content-Length: 18446744073709551616\r\n"),
    (400, b"Content-Length:\r\n"),
    (400, b"Content-Length: +0\r\n"),
    (400, b"Content-Length: -0\r\n"),
    (400, b"Content-Length: -1\r\n"),
    (400, b"Content-Length: 0x0\r\n"),
    (400, b"Content-Length: 0.0\r\n"),
    (400, b"Content-Length: 0, 0\r\n"),
    (400, b"Content-Length: 0,\r\n"),
    (400, b"Content-Length: 0 0\r\n"),
    (400, b"Content-Length: zero\r\n"),
    (400, b"Content-Length: \xd9\xa0\r\n"),
    (400, b"Content-Length: 0\r\nContent-Length: 1\r\n"),
    (400, b"Content-Length: 0\r\nX: y\r\nContent-Length: 00\r\n"),
    (400, b"Content-Length: 5\r\nContent-Length: 5\r\n"),
    (400, b"Transfer-Encoding: chunked\r\n"),
    (400, b"transfer-encoding: chunked\r\n"),
    (400, b"Transfer-Encoding: Chunked\r\n"),
    (400, b"Transfer-Encoding: identity\r\n"),
    (400, b"Transfer-Encoding: gzip, chunked\r\n"),
    (400, b"Transfer-Encoding: xchunked\r\n"),
    (400, b"Transfer-Encoding:\r\n"),
    (400, b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n"),
    (400, b"Content-Length: 0\r\nTransfer-Encoding: chunked\r\n"),
    (400, b"Transfer-Encoding: chunked\r\nContent-Length: 0\r\n"),
    (400, b"Transfer-Encoding : chunked\r\n"),
    (400, b"Transfer-Encoding\x0b: chunked\r\n"),
    (400, b"X: y\rTransfer-Encoding: chunked\r\n"),
    (400, b"X: y\nTransfer-Encoding: chunked\r\n"),
];

#[test]
fn fields() {
    check(FIELDS, |field| [b"GET / HTTP/1.1\r\nHost: example.org\r\n", field, b"\r\n"].concat());
}

/// Fields of a POST behind Host: that the method is wrong matters less than that nobody can tell where the body ends.
#[rustfmt::skip]
const POSTS: &[(u16, &[u8])] = &[
    (405, b"Content-Length: 0\r\n"),
    (405, b"Content-Length: 5\r\n"),
    (405, b"Transfer-Encoding: chunked\r\n"),
    (400, b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"),
    (400, b"Content-Length: 5\r\nContent-Length: 6\r\n"),
    (400, b"Content-Length: five\r\n"),
    (400, b"Host: other.example\r\n"),
];

#[test]
fn posts() {
    check(POSTS, |field| [b"POST / HTTP/1.1\r\nHost: example.org\r\n", field, b"\r\n"].concat());
}

/// Leaves out or replaces fields of a good handshake: `name\0fields` puts `fields` in the place of the field `name`.
#[rustfmt::skip]
const HANDSHAKES: &[(u16, &[u8])] = &[
    (101, b"\0"),
    (101, b"\0Content-Length: 0\r\n"),
    (101, b"\0Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"),
    (101, b"\0Sec-WebSocket-Extensions: ;;,=\"\r\nSec-WebSocket-Extensions:\r\n"),
    (400, b"\0Content-Length: 1\r\n"),
    (400, b"\0Transfer-Encoding: chunked\r\n"),
    (400, b"\0Host: example.org\r\n"),
    // Upgrade.
    (101, b"Upgrade\0Upgrade: WebSocket\r\n"),
    (101, b"Upgrade\0upgrade:WEBSOCKET\r\n"),
    (101, b"Upgrade\0Upgrade: h2c, websocket\r\n"),
    (101, b"Upgrade\0Upgrade: ,, websocket ,\r\n"),
    (101, b"Upgrade\0Upgrade: h2c\r\nX: y\r\nUpgrade: websocket\r\n"),
    (426, b"Upgrade\0"),
    (426, b"Upgrade\0Upgrade:\r\n"),
    (426, b"Upgrade\0Upgrade: h2c\r\n"),
    (426, b"Upgrade\0Upgrade: websocket/13\r\n"),
    (426, b"Upgrade\0Upgrade: websockets\r\n"),
    (426, b"Upgrade\0Upgrade: web socket\r\n"),
    (426, b"Upgrade\0Upgrade: \"websocket\"\r\n"),
    (426, b"Upgrade\0Upgrade: websocket;q=1\r\n"),
    (426, b"Upgrade\0X-Upgrade: websocket\r\n"),
    // Connection.
    (101, b"Connection\0Connection: upgrade\r\n"),
    (101, b"Connection\0CONNECTION: UPGRADE\r\n"),
    (101, b"Connection\0Connection: keep-alive, Upgrade\r\n"),
    (101, b"Connection\0Connection: keep-alive\t,\tUpgrade,\r\n"),
    (101, b"Connection\0Connection: keep-alive\r\nConnection: Upgrade\r\n"),
    (426, b"Connection\0"),
    (426, b"Connection\0Connection:\r\n"),
    (426, b"Connection\0Connection: ,\r\n"),
    (426, b"Connection\0Connection: close\r\n"),
    (426, b"Connection\0Connection: keep-alive\r\n"),
    (426, b"Connection\0Connection: upgraded\r\n"),
    (426, b"Connection\0Connection: keep-alive Upgrade\r\n"),
    (426, b"Connection\0Connection: keep-alive; Upgrade\r\n"),
    // Version.
    (426, b"Sec-WebSocket-Version\0"),
    (426, b"Sec-WebSocket-Version\0Sec-WebSocket-Version:\r\n"),
    (426, b"Sec-WebSocket-Version\0Sec-WebSocket-Version: 0\r\n"),
    (426, b"Sec-WebSocket-Version\0Sec-WebSocket-Version: 8\r\n"),
    (426, b"Sec-WebSocket-Version\0Sec-WebSocket-Version: 12\r\n"),
    (426, b"Sec-WebSocket-Version\0Sec-WebSocket-Version: 14\r\n"),
    (426, b"Sec-WebSocket-Version\0Sec-WebSocket-Version: 013\r\n"),
    (426, b"Sec-WebSocket-Version\0Sec-WebSocket-Version: +13\r\n"),
    (426, b"Sec-WebSocket-Version\0Sec-WebSocket-Version: 13.0\r\n"),
    (426, b"Sec-WebSocket-Version\0Sec-WebSocket-Version: 1 3\r\n"),
    (426, b"Sec-WebSocket-Version\0Sec-WebSocket-Version: 13, 8\r\n"),
    (426, b"Sec-WebSocket-Version\0Sec-WebSocket-Version: 13,\r\n"),
    (426, b"Sec-WebSocket-Version\0Sec-WebSocket-Version: 13\r\nSec-WebSocket-Version: 13\r\n"),
    (426, b"Sec-WebSocket-Version\0Sec-WebSocket-Version: 8\r\nSec-WebSocket-Version: 13\r\n"),
    (101, b"Sec-WebSocket-Version\0sec-websocket-version:13\r\n"),
    // Key.
    (101, b"Sec-WebSocket-Key\0sec-websocket-key:AAAAAAAAAAAAAAAAAAAAAA==\t \r\n"),
    (101, b"Sec-WebSocket-Key\0Sec-WebSocket-Key: ++++/////+++++////+++Q==\r\n"),
    (101, b"Sec-WebSocket-Key\0Sec-WebSocket-Key: 0123456789abcdefABCDEg==\r\n"),
    (101, b"Sec-WebSocket-Key\0Sec-WebSocket-Key: /////////////////////w==\r\n"),
    (400, b"Sec-WebSocket-Key\0"),
    (400, b"Sec-WebSocket-Key\0Sec-WebSocket-Key:\r\n"),
    (400, b"Sec-WebSocket-Key\0Sec-WebSocket-Key: x\r\n"),
    (400, b"Sec-WebSocket-Key\0Sec-WebSocket-Key: ==\r\n"),
    (400, b"Sec-WebSocket-Key\0Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAA\r\n"),
    (400, b"Sec-WebSocket-Key\0Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA\r\n"),
    (400, b"Sec-WebSocket-Key\0Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=\r\n"),
    (400, b"Sec-WebSocket-Key\0Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA===\r\n"),
    (400, b"Sec-WebSocket-Key\0Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAA==\r\n"),
    (400, b"Sec-WebSocket-Key\0Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAAA=\r\n"),
    (400, b"Sec-WebSocket-Key\0Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAAAA\r\n"),
    (400, b"Sec-WebSocket-Key\0Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAAA==\r\n"),
    (101, b"Sec-WebSocket-Key\0Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAB==\r\n"),
    (101, b"Sec-WebSocket-Key\0Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAR==\r\n"),
    (101, b"Sec-WebSocket-Key\0Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAA/==\r\n"),
    // The example of RFC 6455 §4.1.
    (101, b"Sec-WebSocket-Key\0Sec-WebSocket-Key: AQIDBAUGBwgJCgsMDQ4PEC==\r\n"),
    (400, b"Sec-WebSocket-Key\0Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAA-==\r\n"),
    (400, b"Sec-WebSocket-Key\0Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAA===\r\n"),
    (400, b"Sec-WebSocket-Key\0Sec-WebSocket-Key: AAAAAAAAAA-AAAAAAAAAAA==\r\n"),
    (400, b"Sec-WebSocket-Key\0Sec-WebSocket-Key: AAAAAAAAAA_AAAAAAAAAAA==\r\n"),
    (400, b"Sec-WebSocket-Key\0Sec-WebSocket-Key: AAAAAAAAAA AAAAAAAAAAA==\r\n"),
    (400, b"Sec-WebSocket-Key\0Sec-WebSocket-Key: AAAAAAAAAA=AAAAAAAAAAA==\r\n"),
    (400, b"Sec-WebSocket-Key\0Sec-WebSocket-Key: \"AAAAAAAAAAAAAAAAAAAAAA==\"\r\n"),
    (400, b"Sec-WebSocket-Key\0Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==,\r\n"),
    (400, b"Sec-WebSocket-Key\0Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Key: x\r\n"),
    (400, b"Sec-WebSocket-Key\0Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Key:\r\n"),
    (400, b"Sec-WebSocket-Key\0Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAA\xff==\r\n"),
    // Subprotocols.
    (101, b"\0Sec-WebSocket-Protocol: chat\r\n"),
    (101, b"\0Sec-WebSocket-Protocol: chat, Chat,, v2.chat.example\r\nSec-WebSocket-Protocol: !#$%&'*+-.^_`|~\r\n"),
    (101, b"\0Sec-WebSocket-Protocol:\r\n"),
    (101, b"\0Sec-WebSocket-Protocol: ,\r\n"),
    (101, b"\0Sec-WebSocket-Protocol: ,, \t,\r\nSec-WebSocket-Protocol:\r\n"),
    (101, b"\0Sec-WebSocket-Protocol: chat, chat\r\n"),
    (101, b"\0Sec-WebSocket-Protocol: chat\r\nSec-WebSocket-Protocol: chat\r\n"),
    (101, b"\0Sec-WebSocket-Protocol: a/b, dG9rZW4=\r\n"),
    (400, b"\0Sec-WebSocket-Protocol: a b\r\n"),
    (400, b"\0Sec-WebSocket-Protocol: \"a\"\r\n"),
    (400, b"\0Sec-WebSocket-Protocol: a;b\r\n"),
    (400, b"\0Sec-WebSocket-Protocol: a\tb\r\n"),
    (400, b"\0Sec-WebSocket-Protocol: \xc3\xa9\r\n"),
    (400, b"\0Sec-WebSocket-Protocol: \xff\r\n"),
];

/// The fields of a good handshake with the replacement of a row of `HANDSHAKES`.
fn handshake(row: &[u8]) -> Vec<u8> {
    let at = row.iter().position(|&byte| byte == 0).expect("name\\0fields");
    let (name, fields) = (&row[..at], &row[at + 1..]);
    let good: [(&[u8], &[u8]); 4] = [
        (b"Upgrade", b"websocket"),
        (b"Connection", b"Upgrade"),
        (b"Sec-WebSocket-Version", b"13"),
        (b"Sec-WebSocket-Key", b"dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    let kept = good.into_iter().filter(|(kept, _)| *kept != name);
    kept.map(|(name, value)| [name, b": ", value, b"\r\n"].concat())
        .chain([fields.to_vec()])
        .collect::<Vec<_>>()
        .concat()
}

#[test]
fn handshakes() {
    check(HANDSHAKES, |row| [b"GET /chat HTTP/1.1\r\nHost: example.org\r\n", &handshake(row)[..], b"\r\n"].concat());
}

#[test]
fn only_a_get_over_http_1_1_or_later_is_a_handshake() {
    let with_line =
        |line: &[u8]| status(&[line, b"\r\nHost: example.org\r\n", &handshake(b"\0")[..], b"\r\n"].concat());
    let table: [(u16, &[u8]); 9] = [
        (101, b"GET http://example.org/chat HTTP/1.1"),
        (405, b"HEAD /chat HTTP/1.1"),
        (405, b"POST /chat HTTP/1.1"),
        (405, b"CONNECT example.org:80 HTTP/1.1"),
        (101, b"GET /chat HTTP/1.2"),
        (426, b"GET /chat HTTP/1.0"),
        (405, b"HEAD /chat HTTP/1.0"),
        (405, b"OPTIONS / HTTP/1.1"),
        (505, b"GET /chat HTTP/2.0"),
    ];
    for (expected, line) in table {
        assert_eq!(with_line(line), expected, "{}", line.escape_ascii());
    }
}

/// What the parser underneath takes, and RFC 9112 or we do not.
#[rustfmt::skip]
const LENIENCIES: &[(&str, u16, &[u8])] = &[
    ("bare LF", 400, b"GET / HTTP/1.1\nHost: h\n\n"),
    ("bare LF behind a field", 400, b"GET / HTTP/1.1\r\nHost: h\n\r\n"),
    ("bare LF as the end", 400, b"GET / HTTP/1.1\r\nHost: h\r\n\n"),
    ("bare LF before the request line", 400, b"\nGET / HTTP/1.1\r\nHost: h\r\n\r\n"),
    ("several leading CRLFs", 400, b"\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n"),
    ("a WebSocket over HTTP/1.0", 426, b"GET / HTTP/1.0\r\nHost: h\r\nUpgrade: websocket\r\n\r\n"),
    ("a method in lower case", 405, b"get / HTTP/1.1\r\nHost: h\r\n\r\n"),
    ("no Host", 400, b"GET / HTTP/1.1\r\n\r\n"),
    ("two Hosts", 400, b"GET / HTTP/1.1\r\nHost: h\r\nHost: h\r\n\r\n"),
    ("two kinds of length", 400, b"GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\nTransfer-Encoding: x\r\n\r\n"),
    ("a target without slash", 400, b"GET x HTTP/1.1\r\nHost: h\r\n\r\n"),
    ("a fragment", 400, b"GET /# HTTP/1.1\r\nHost: h\r\n\r\n"),
    ("a backslash in a path", 400, b"GET /\\ HTTP/1.1\r\nHost: h\r\n\r\n"),
    ("blanks and control characters beyond ASCII", 400, b"GET /\xc2\xa0\xc2\x85 HTTP/1.1\r\nHost: h\r\n\r\n"),
    ("bytes beyond ASCII in Host", 400, b"GET / HTTP/1.1\r\nHost: \xff\r\n\r\n"),
];

#[test]
fn what_the_parser_underneath_takes_is_refused_all_the_same() {
    for &(what, expected, head) in LENIENCIES {
        let mut slots = [httparse::EMPTY_HEADER; 4];
        let parsed = httparse::Request::new(&mut slots).parse(head);
        assert!(parsed.is_ok_and(|parsed| parsed.is_complete()), "{what} needs no guard any more");
        assert_eq!(status(head), expected, "{what}");
    }
}
