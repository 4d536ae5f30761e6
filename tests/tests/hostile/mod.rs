//! The handshakes that must be refused, with their statuses, and unusual ones that must not.

use fanfare_tests::raw::{KEY, good_request};

/// One request.
pub(crate) struct Case {
    /// What is special about it.
    pub(crate) name: String,
    /// The request.
    pub(crate) bytes: Vec<u8>,
    /// The statuses that the RFCs allow for it; most often one.
    pub(crate) statuses: Vec<u16>,
}

/// Requests that the server at `port` must refuse.
pub(crate) fn refused(port: u16) -> Vec<Case> {
    let mut table = Table { port, cases: Vec::new() };
    table.line_ends();
    table.request_lines();
    table.not_http();
    table.targets();
    table.methods();
    table.versions();
    table.field_syntax();
    table.hosts();
    table.bodies();
    table.upgrades();
    table.keys();
    table.subprotocols();
    table.sizes();
    table.paths();
    table.rooms();
    table.origins();
    table.cases
}

/// Requests that look odd and are valid.
pub(crate) fn accepted(port: u16) -> Vec<Case> {
    let mut table = Table { port, cases: Vec::new() };
    let good = good_request(port, "/chat");
    for (name, from, to) in [
        ("a token in another case", "Upgrade: websocket", "UPGRADE: WebSocket"),
        ("a list of options", "Connection: Upgrade", "connection: keep-alive , upgrade"),
        ("a list over two lines", "Connection: Upgrade", "Connection: keep-alive\r\nConnection: UPGRADE"),
        ("several protocols to upgrade to", "Upgrade: websocket", "Upgrade: h2c, websocket"),
        ("empty elements in a list", "Connection: Upgrade", "Connection: ,, Upgrade ,"),
        ("no blank behind the colon", "Upgrade: websocket", "Upgrade:websocket"),
        ("tabs around a value", "Upgrade: websocket", "Upgrade:\t websocket \t"),
        ("a query", "GET /chat ", "GET /chat?a=b&c[]=%20 "),
        ("a query of JSON", "GET /chat ", "GET /chat?f={\"a\":[1,\"\u{e9}\"]} "),
        ("a query of all that browsers leave", "GET /chat ", "GET /chat?{}|^`\\<>'\" "),
        ("a path of what browsers and libraries leave", "GET /chat ", "GET /chat/{a}|^`<>\"\u{e9} "),
        ("a later minor version", "HTTP/1.1", "HTTP/1.2"),
        ("the last minor version", "HTTP/1.1", "HTTP/1.9"),
        ("the key of RFC 6455 4.1", KEY, "AQIDBAUGBwgJCgsMDQ4PEC=="),
        ("a key with padding bits", KEY, "AAAAAAAAAAAAAAAAAAAAA/=="),
        ("no subprotocol, said so", "Upgrade:", "Sec-WebSocket-Protocol: \r\nUpgrade:"),
        ("no subprotocols but commas", "Upgrade:", "Sec-WebSocket-Protocol: , ,\r\nUpgrade:"),
        ("a subprotocol twice", "Upgrade:", "Sec-WebSocket-Protocol: a, a\r\nSec-WebSocket-Protocol: a\r\nUpgrade:"),
        ("a subprotocol of base64", "Upgrade:", "Sec-WebSocket-Protocol: dG9r/W4=\r\nUpgrade:"),
        ("a target in absolute form", "GET /chat ", &format!("GET http://localhost:{port}/chat ")),
        ("a scheme in upper case", "GET /chat ", &format!("GET HTTP://localhost:{port}/chat ")),
        ("a name in UTF-8", "GET /chat ", "GET /chat/%F0%9F%8E%BA "),
        ("a name as long as a channel may be", "GET /chat ", &format!("GET /chat/{} ", "x".repeat(250))),
        ("an empty body", "Upgrade:", "Content-Length: 0\r\nUpgrade:"),
        ("a Host without a port", &format!("Host: localhost:{port}"), "Host: localhost"),
        ("a Host of IPv6", &format!("Host: localhost:{port}"), "Host: [::1]:3000"),
        ("a Host of IPv6 with a zone", &format!("Host: localhost:{port}"), "Host: [fe80::1%eth0]:3000"),
        ("bytes above ASCII in a value", "Upgrade:", "X: \u{e9}\r\nUpgrade:"),
        ("an extension that we do not speak", "Upgrade:", "Sec-WebSocket-Extensions: x-none; a=\"b, c\"\r\nUpgrade:"),
        ("offered subprotocols", "Upgrade:", "Sec-WebSocket-Protocol: a, b\r\nSec-WebSocket-Protocol: c\r\nUpgrade:"),
        ("our own origin", "Upgrade:", &format!("Origin: http://LOCALHOST:{port}\r\nUpgrade:")),
        ("our own origin and a slash", "Upgrade:", &format!("Origin: http://localhost:{port}/\r\nUpgrade:")),
        (
            "our own origin behind TLS",
            &format!("Host: localhost:{port}"),
            "Host: a.example\r\nOrigin: https://a.example",
        ),
        ("a hundred fields", "Upgrade:", &format!("{}Upgrade:", "X: y\r\n".repeat(95))),
        ("an empty line first", "GET /chat ", "\r\nGET /chat "),
    ] {
        assert!(good.contains(from), "{name}");
        table.add(name, good.replacen(from, to, 1), &[101]);
    }
    table.cases
}

struct Table {
    port: u16,
    cases: Vec<Case>,
}

impl Table {
    fn line_ends(&mut self) {
        let good = self.good();
        self.add("bare LF everywhere", good.replace("\r\n", "\n"), &[400]);
        self.add("bare CR everywhere", good.replace("\r\n", "\r") + "\r\n\r\n", &[400]);
        self.add("CR CR LF", good.replacen("\r\n", "\r\r\n", 1), &[400]);
        for (name, from) in [("the request line", " HTTP/1.1\r\n"), ("a field", "Upgrade: websocket\r\n")] {
            let line = from.trim_end();
            self.replace(&format!("bare LF behind {name}"), from, &format!("{line}\n"), &[400]);
            self.replace(&format!("bare CR in {name}"), from, &format!("{line}\rX: y\r\n"), &[400]);
            self.replace(&format!("NUL behind {name}"), from, &format!("{line}\0\r\n"), &[400]);
        }
        self.add("a bare LF for the empty line", good.trim_end().to_owned() + "\r\n\n", &[400]);
        self.field("a folded value", "X: a\r\n b", &[400]);
        self.field("a folded value with a tab", "X: a\r\n\tb", &[400]);
        self.field("a folded empty value", "X:\r\n b", &[400]);
        self.replace("a fold behind the request line", " HTTP/1.1\r\n", " HTTP/1.1\r\n X: y\r\n", &[400]);
        self.replace("a folded Upgrade", "Upgrade: websocket", "Upgrade:\r\n websocket", &[400]);
        self.replace("a folded Host", "Host: ", "Host:\r\n ", &[400]);
    }

    fn request_lines(&mut self) {
        for (name, line) in [
            ("no version", "GET /chat"),
            ("a blank for the version", "GET /chat "),
            ("two blanks behind the method", "GET  /chat HTTP/1.1"),
            ("two blanks before the version", "GET /chat  HTTP/1.1"),
            ("a tab behind the method", "GET\t/chat HTTP/1.1"),
            ("a tab before the version", "GET /chat\tHTTP/1.1"),
            ("a blank first", " GET /chat HTTP/1.1"),
            ("a blank last", "GET /chat HTTP/1.1 "),
            ("a tab last", "GET /chat HTTP/1.1\t"),
            ("a fourth word", "GET /chat HTTP/1.1 x"),
            ("a blank in the target", "GET /chat x HTTP/1.1"),
            ("no method", "/chat HTTP/1.1"),
            ("an empty method", " /chat HTTP/1.1"),
            ("only a method", "GET"),
            ("no target", "GET HTTP/1.1"),
            ("a form feed for a blank", "GET\x0c/chat HTTP/1.1"),
            ("a vertical tab for a blank", "GET /chat\x0bHTTP/1.1"),
            ("NUL in the method", "G\0T /chat HTTP/1.1"),
            ("a bracket in the method", "G(T /chat HTTP/1.1"),
            ("a colon in the method", "GET: /chat HTTP/1.1"),
            ("a quoted method", "\"GET\" /chat HTTP/1.1"),
            ("a method above ASCII", "G\u{c9}T /chat HTTP/1.1"),
            ("a byte order mark", "\u{feff}GET /chat HTTP/1.1"),
        ] {
            self.line(name, line, &[400]);
        }
    }

    fn not_http(&mut self) {
        for (name, bytes) in [
            ("a TLS hello", &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n"[..]),
            ("an SSH greeting", b"SSH-2.0-OpenSSH_9.2\r\n\r\n"),
            ("a Redis command", b"*1\r\n$4\r\nPING\r\n\r\n"),
            ("an inline Redis command", b"PING\r\n\r\n"),
            ("a mail greeting", b"EHLO localhost\r\n\r\n"),
            ("a WebSocket frame", b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58\r\n\r\n"),
            ("a proxy's line", b"PROXY TCP4 127.0.0.1 127.0.0.1 1 2\r\nGET /chat HTTP/1.1\r\n\r\n"),
            ("a proxy's binary header", b"\r\n\r\n\0\r\nQUIT\n\x21\x11\r\n\r\n"),
            ("an HTTP answer", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
            ("a shell's escape", b"() { :; }; echo\r\n\r\n"),
            ("zeros", b"\0\0\0\0\0\0\0\0\r\n\r\n"),
            ("ones", b"\xff\xff\xff\xff\xff\xff\r\n\r\n"),
            ("JSON", b"{\"type\":\"subscribe\"}\r\n\r\n"),
        ] {
            self.add(name, bytes, &[400]);
        }
        self.add("the preface of HTTP/2", *b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &[400, 405, 505]);
    }

    fn targets(&mut self) {
        for target in [
            "*",
            "chat",
            "localhost",
            "?chat",
            "#chat",
            "/chat#x",
            "/chat?x#y",
            "http:/chat",
            "http:///chat",
            "http://",
            "://chat",
            "http://a b/chat",
            "http://[::1/chat",
            "http://localhost:x/chat",
            "http://user@localhost/chat",
            "localhost:80",
        ] {
            self.target(target, &[400]);
        }
        // What could end the target for somebody on the way, or be a slash for somebody.
        for character in "#\u{7f}\u{1}\u{1f}\u{85}\u{a0}\u{2028}".chars() {
            self.target(&format!("/chat/{character}"), &[400]);
            self.target(&format!("/chat?{character}"), &[400]);
        }
        self.target("/chat\\tea", &[400]);
        self.target("/chat\0", &[400]);
    }

    fn methods(&mut self) {
        for method in
            ["POST", "PUT", "DELETE", "PATCH", "TRACE", "get", "Get", "GETS", "GE", "FOO", "X-Y_z!", "PRI", "options"]
        {
            self.line(method, &format!("{method} /chat HTTP/1.1"), &[405]);
            self.line(&format!("{method} of the page"), &format!("{method} / HTTP/1.1"), &[405]);
        }
        self.line("HEAD of a socket", "HEAD /chat HTTP/1.1", &[405, 426]);
        self.line("OPTIONS of a socket", "OPTIONS /chat HTTP/1.1", &[405]);
        self.line("CONNECT", "CONNECT localhost:80 HTTP/1.1", &[400, 405]);
    }

    fn versions(&mut self) {
        for version in ["0.9", "2.0", "2.1", "3.0", "9.9", "0.0"] {
            self.line(version, &format!("GET /chat HTTP/{version}"), &[505]);
        }
        self.line("a WebSocket over HTTP/1.0", "GET /chat HTTP/1.0", &[426]);
        let malformed =
            ["HTTP/2", "HTTP/1", "HTTP/1.", "HTTP/.1", "HTTP/11", "HTTP/1.1.1", "HTTP/1.20", "HTTP/01.1", "HTTP/1,1"];
        let misnamed =
            ["http/1.1", "Http/1.1", "HTTP/ 1.1", "HTTP1.1", "HTTPS/1.1", "WS/1.1", "HTTP/x.y", "HTTP/-1.1", "/1.1"];
        for version in malformed.iter().chain(&misnamed) {
            self.line(version, &format!("GET /chat {version}"), &[400, 505]);
        }
    }

    fn field_syntax(&mut self) {
        for (name, field) in [
            ("a blank before the colon", "X : y"),
            ("a tab before the colon", "X\t: y"),
            ("a blank before the name", " X: y"),
            ("a blank in a name", "X Y: z"),
            ("no name", ": y"),
            ("no colon", "X"),
            ("an empty name with a blank", " : y"),
            ("a bracket in a name", "X(Y): z"),
            ("a slash in a name", "X/Y: z"),
            ("an at sign in a name", "X@Y: z"),
            ("a comma in a name", "X,Y: z"),
            ("a semicolon in a name", "X;Y: z"),
            ("an equals sign in a name", "X=Y: z"),
            ("a quote in a name", "\"X\": z"),
            ("a backslash in a name", "X\\Y: z"),
            ("braces in a name", "{X}: z"),
            ("NUL in a name", "X\0Y: z"),
            ("DEL in a name", "X\u{7f}: z"),
            ("a name above ASCII", "\u{e9}: z"),
            ("NUL in a value", "X: y\0z"),
            ("BEL in a value", "X: y\u{7}z"),
            ("ESC in a value", "X: \u{1b}[2J"),
            ("DEL in a value", "X: y\u{7f}"),
            ("a form feed in a value", "X: y\x0cz"),
            ("a vertical tab in a value", "X: y\x0bz"),
            ("a second request line", "GET / HTTP/1.1"),
        ] {
            self.field(name, field, &[400]);
        }
        self.replace("a blank before the colon of Host", "Host:", "Host :", &[400]);
        self.replace("a blank before the colon of Upgrade", "Upgrade:", "Upgrade :", &[400]);
    }

    fn hosts(&mut self) {
        let ours = format!("Host: localhost:{}\r\n", self.port);
        self.replace("no Host", &ours, "", &[400]);
        self.replace("two Hosts", &ours, &ours.repeat(2), &[400]);
        self.replace("two Hosts that differ", &ours, &format!("{ours}Host: evil.example\r\n"), &[400]);
        self.replace("a second Host in another case", &ours, &format!("{ours}hOsT: evil.example\r\n"), &[400]);
        for host in [
            "",
            " ",
            ":80",
            "a b",
            "a@b",
            "a/b",
            "a:b",
            "a:80:90",
            "a:-1",
            "a:99999",
            "a?b",
            "a#b",
            "a\\b",
            "<a>",
            "\"a\"",
            "a%zz",
            "a%",
            "{a}",
            "a^b",
            "a|b",
            "`a`",
            "[::1",
            "::1",
            "[::1]x",
            "[g::1]",
            "[]",
            "[::1]]",
            "http://localhost",
            "\u{e9}.example",
            "a:8 0",
        ] {
            self.replace(&format!("Host {host:?}"), &ours, &format!("Host: {host}\r\n"), &[400]);
        }
        let absolute = format!("GET http://localhost:{}/chat ", self.port);
        let without_host = self.good().replacen("GET /chat ", &absolute, 1).replacen(&ours, "", 1);
        self.add("an absolute target and no Host", without_host, &[400]);
    }

    fn bodies(&mut self) {
        for value in [
            "5",
            "1",
            "+0",
            "-1",
            "-0",
            "0x0",
            "0x5",
            "abc",
            "",
            "1, 1",
            "5, 5",
            "0, 5",
            "1.0",
            "0 0",
            "18446744073709551616",
            "99999999999999999999999",
            "\u{663}",
            "0;x",
        ] {
            self.field(&format!("Content-Length {value:?}"), &format!("Content-Length: {value}"), &[400]);
        }
        self.field("two lengths", "Content-Length: 0\r\nContent-Length: 5", &[400]);
        for value in [
            "chunked",
            "identity",
            "gzip",
            "chunked, chunked",
            "gzip, chunked",
            "Chunked",
            "x",
            "",
            "chunked;a=b",
            "\tchunked",
        ] {
            self.field(&format!("Transfer-Encoding {value:?}"), &format!("Transfer-Encoding: {value}"), &[400]);
        }
        self.field("length and encoding", "Content-Length: 0\r\nTransfer-Encoding: chunked", &[400]);
        self.field("encoding and length", "transfer-encoding: chunked\r\ncontent-length: 0", &[400]);
        let smuggler = "Content-Length: 37\r\nUpgrade:";
        let body = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\nabc";
        let request = self.good().replacen("Upgrade:", smuggler, 1) + body;
        self.add("a request in the body", request, &[400]);
        let chunked = self.good().replacen("Upgrade:", "Transfer-Encoding: chunked\r\nUpgrade:", 1) + "0\r\n\r\n";
        self.add("an empty chunked body", chunked + body, &[400]);
    }

    fn upgrades(&mut self) {
        self.line_only("nothing of an upgrade", "GET /chat HTTP/1.1", &[426]);
        self.line_only("nothing of an upgrade to a room", "GET /chat/tea HTTP/1.1", &[426]);
        for (name, from, to) in [
            ("no Upgrade", "Upgrade: websocket\r\n", ""),
            ("an empty Upgrade", "Upgrade: websocket", "Upgrade: "),
            ("another Upgrade", "Upgrade: websocket", "Upgrade: h2c"),
            ("a longer Upgrade", "Upgrade: websocket", "Upgrade: websockets"),
            ("a quoted Upgrade", "Upgrade: websocket", "Upgrade: \"websocket\""),
            ("an Upgrade with a version", "Upgrade: websocket", "Upgrade: websocket/13"),
            ("no Connection", "Connection: Upgrade\r\n", ""),
            ("another Connection", "Connection: Upgrade", "Connection: keep-alive"),
            ("a Connection that closes", "Connection: Upgrade", "Connection: close"),
            ("a longer Connection", "Connection: Upgrade", "Connection: Upgrades"),
            ("an empty Connection", "Connection: Upgrade", "Connection:"),
            ("no version", "Sec-WebSocket-Version: 13\r\n", ""),
        ] {
            self.replace(name, from, to, &[426]);
        }
        for version in [
            "", "0", "7", "8", "12", "14", "113", "130", "013", "+13", "-13", "13.0", "1 3", "x", "13, 8", "8, 13",
            "13, 13", "13;",
        ] {
            let to = format!("Version: {version}\r\n");
            self.replace(&format!("version {version:?}"), "Version: 13\r\n", &to, &[426]);
        }
        self.field("two versions", "Sec-WebSocket-Version: 13", &[426]);
        self.field("two versions that differ", "sec-websocket-version: 8", &[426]);
    }

    fn keys(&mut self) {
        let ours = format!("Sec-WebSocket-Key: {KEY}\r\n");
        self.replace("no key", &ours, "", &[400]);
        self.replace("two keys", &ours, &ours.repeat(2), &[400]);
        self.replace(
            "two keys that differ",
            &ours,
            &format!("{ours}sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"),
            &[400],
        );
        for key in [
            "",
            "x",
            "==",
            "AAAAAAAAAAAAAAAAAAAAAA",
            "AAAAAAAAAAAAAAAAAAAAAA=",
            "AAAAAAAAAAAAAAAAAAAAAA===",
            "AAAAAAAAAAAAAAAAAAAAA===",
            "AAAAAAAAAAAAAAAAAAAA",
            "AAAAAAAAAAAAAAAAAAAAAAA=",
            "AAAAAAAAAAAAAAAAAAAAAAAA",
            "AAAAAAAAAAAAAAAAAAAAAAAAAAAA",
            "AAAAAAAAAAAAAAAAAAAAA-==",
            "_AAAAAAAAAAAAAAAAAAAAA==",
            "AAAAAAAAAAA AAAAAAAAAAA==",
            "AAAAAAAAAAAAAAAAAAAAAA= =",
            "\"AAAAAAAAAAAAAAAAAAAAAA==\"",
            "AAAAAAAAAAAAAAAAAAAAAA==, AAAAAAAAAAAAAAAAAAAAAA==",
            "=AAAAAAAAAAAAAAAAAAAAAA=",
            "\u{e9}AAAAAAAAAAAAAAAAAAAAA==",
        ] {
            self.replace(&format!("key {key:?}"), &ours, &format!("Sec-WebSocket-Key: {key}\r\n"), &[400]);
        }
    }

    fn subprotocols(&mut self) {
        for list in ["a b", "a@b", "(a)", "\"a\"", "a;q=1", "a, \u{e9}", "[a]", "{a}", "a:b"] {
            self.field(&format!("subprotocols {list:?}"), &format!("Sec-WebSocket-Protocol: {list}"), &[400]);
        }
    }

    fn sizes(&mut self) {
        self.target(&format!("/{}", "x".repeat(16_384)), &[414]);
        self.target(&format!("/chat?{}", "x".repeat(70_000)), &[414]);
        self.add("an endless method", vec![b'G'; 40_000], &[400, 414]);
        self.field("one long value", &format!("X: {}", "y".repeat(16_384)), &[431]);
        self.field("one very long value", &format!("X: {}", "y".repeat(70_000)), &[431]);
        self.field("one long name", &format!("{}: y", "X".repeat(17_000)), &[431]);
        self.field("many long fields", format!("X: {}\r\n", "y".repeat(1_000)).repeat(20).trim_end(), &[431]);
        self.field("96 fields more than the five", "X: y\r\n".repeat(96).trim_end(), &[431]);
        self.field("a thousand fields", "X: y\r\n".repeat(1_000).trim_end(), &[431]);
        self.field("thousands of short fields", "X:\r\n".repeat(3_500).trim_end(), &[431]);
        self.field("a long cookie", &format!("Cookie: a={}", "b".repeat(20_000)), &[431]);
    }

    fn paths(&mut self) {
        for path in [
            "/nothing",
            "/Chat",
            "/CHAT",
            "/chats",
            "//chat",
            "/chat/a/b",
            "/chat/",
            "/chat/?x",
            "/chat/tea/",
            "/.env",
            "/../etc/passwd",
            "/ws",
            "/socket.io/?EIO=4",
            "/chat;x",
            "/%2e%2e/",
            "/admin",
        ] {
            self.target(path, &[404]);
        }
        self.line_only("nothing without an upgrade", "GET /nothing HTTP/1.1", &[404]);
        self.line_only("HEAD of nothing", "HEAD /nothing HTTP/1.1", &[404]);
    }

    fn rooms(&mut self) {
        for room in [
            "%00",
            "a%00b",
            "%0a",
            "%0d%0a",
            "%09",
            "%1b",
            "%7f",
            "%c2%80",
            "%ff",
            "%c0%80",
            "%ed%a0%80",
            "%f4%90%80%80",
            "%e2%82",
            "%",
            "%4",
            "%zz",
            "a%",
            "%%",
            "%u0041",
            "%+1",
        ] {
            self.target(&format!("/chat/{room}"), &[400]);
        }
        self.target(&format!("/chat/{}", "x".repeat(251)), &[400]);
        self.target(&format!("/chat/{}", "%41".repeat(251)), &[400]);
        self.target(&format!("/chat/{}", "x".repeat(5_000)), &[400]);
    }

    fn origins(&mut self) {
        let port = self.port;
        for origin in [
            "null",
            "NULL",
            "",
            "*",
            "http://evil.example",
            "https://evil.example",
            "http://localhost",
            "http://localhost:1",
            "localhost",
            "//localhost",
            "file://",
            "http://",
            "http://localhost.evil.example",
            "data:text/html",
            "http:localhost",
            "about:blank",
        ] {
            self.field(&format!("Origin {origin:?}"), &format!("Origin: {origin}"), &[403]);
        }
        for origin in [
            format!("http://evil-localhost:{port}"),
            format!("http://localhost:{port}.evil.example"),
            format!("http://localhost:{port}@evil.example"),
            format!("http://evil.example/localhost:{port}"),
            format!("http://evil.example#localhost:{port}"),
            format!("http://localhost:{port} http://evil.example"),
            format!("http://localhost:{port}, http://evil.example"),
            format!("http://127.0.0.1:{port}"),
            format!("http://localhost:{port}/x"),
            format!("http://localhost:{port}//"),
            format!("http://localhost:0{port}0"),
        ] {
            self.field(&format!("Origin {origin:?}"), &format!("Origin: {origin}"), &[403]);
        }
        self.field(
            "two Origins",
            &format!("Origin: http://localhost:{port}\r\nOrigin: http://evil.example"),
            &[400, 403],
        );
        let forwarded = "Origin: http://evil.example\r\nX-Forwarded-Host: evil.example";
        self.field("a forwarded host from nobody whom we trust", forwarded, &[403]);
    }

    fn good(&self) -> String {
        good_request(self.port, "/chat")
    }

    fn add(&mut self, name: &str, bytes: impl Into<Vec<u8>>, statuses: &[u16]) {
        self.cases.push(Case { name: name.to_owned(), bytes: bytes.into(), statuses: statuses.into() });
    }

    /// The good request with one thing in the place of another.
    fn replace(&mut self, name: &str, from: &str, to: &str, statuses: &[u16]) {
        let good = self.good();
        assert!(good.contains(from), "{name}: no {from:?} in {good:?}");
        self.add(name, good.replacen(from, to, 1), statuses);
    }

    /// The good request with these header fields more.
    fn field(&mut self, name: &str, field: &str, statuses: &[u16]) {
        self.replace(name, "Upgrade:", &format!("{field}\r\nUpgrade:"), statuses);
    }

    /// The good request with another request line.
    fn line(&mut self, name: &str, line: &str, statuses: &[u16]) {
        self.replace(&format!("request line: {name}"), "GET /chat HTTP/1.1", line, statuses);
    }

    /// A request line and Host, and nothing else.
    fn line_only(&mut self, name: &str, line: &str, statuses: &[u16]) {
        let request = format!("{line}\r\nHost: localhost:{}\r\n\r\n", self.port);
        self.add(name, request, statuses);
    }

    /// The good request for another target.
    fn target(&mut self, target: &str, statuses: &[u16]) {
        let name: String = target.chars().take(60).collect();
        self.line(&format!("{name:?}"), &format!("GET {target} HTTP/1.1"), statuses);
    }
}
