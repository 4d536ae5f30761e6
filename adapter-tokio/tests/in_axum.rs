//! The example that lives in an axum program, on real sockets and with a client that is not ours.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[allow(dead_code, reason = "a test has its own main")]
#[path = "../examples/in_axum.rs"]
mod in_axum;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use fanfare_tokio::{Hub, Setup};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tungstenite::handshake::HandshakeError;
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::{ClientRequestBuilder, Error, Message, WebSocket};

const HEAD: &str = "Host: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

/// The program, served on threads of its own.
struct Program {
    runtime: Runtime,
    hub: Hub,
    address: SocketAddr,
}

type Client = WebSocket<TcpStream>;

impl Program {
    fn start() -> Self {
        let runtime = Runtime::new().unwrap();
        let (hub, address) = runtime.block_on(async {
            let hub = Hub::start(Setup::default()).await.unwrap();
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let router = in_axum::router(&hub).await.unwrap();
            tokio::spawn(async { axum::serve(listener, router).await });
            (hub, address)
        });
        Self { runtime, hub, address }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        // Far beyond what anything takes: a test that would hang fails instead.
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        stream
    }

    /// The status of the refusal, if it is one.
    fn join(&self, room: &str, fields: &[(&str, &str)]) -> Result<Client, u16> {
        let uri = format!("ws://{}/chat/{room}", self.address).parse().unwrap();
        let mut request = ClientRequestBuilder::new(uri);
        for &(name, value) in fields {
            request = request.with_header(name, value);
        }
        match tungstenite::client(request, self.connect()) {
            Ok((client, _)) => Ok(client),
            Err(HandshakeError::Failure(Error::Http(answer))) => Err(answer.status().as_u16()),
            Err(error) => panic!("{error}"),
        }
    }

    fn join_as(&self, room: &str, user: &str) -> Result<Client, u16> {
        self.join(room, &[("Cookie", &format!("theme=dark; session=s-{user}"))])
    }

    /// Status line, fields and body of a plain answer.
    fn http(&self, request: &str) -> String {
        let mut stream = self.connect();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    fn notify(&self, room: &str, message: &str) -> String {
        let len = message.len();
        self.http(&format!(
            "POST /notify/{room} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {len}\r\n\r\n{message}"
        ))
    }

    fn get(&self, path: &str) -> String {
        self.http(&format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"))
    }

    fn latest(&self) -> String {
        self.get("/latest").split_once("\r\n\r\n").unwrap().1.to_owned()
    }
}

#[test]
fn who_has_no_cookie_or_no_right_or_comes_from_elsewhere_is_refused() {
    let program = Program::start();
    assert_eq!(program.join("tea", &[]).err(), Some(401));
    assert_eq!(program.join_as("tea", "eve").err(), Some(401));
    assert_eq!(program.join_as("secret", "ann").err(), Some(403));
    let elsewhere = [("Cookie", "session=s-ann"), ("Origin", "https://evil.example")];
    assert_eq!(program.join("tea", &elsewhere).err(), Some(403));
    let here = format!("http://{}", program.address);
    assert!(program.join("tea", &[("Cookie", "session=s-ann"), ("Origin", &here)]).is_ok());
}

#[test]
fn what_is_no_sound_offer_gets_the_status_that_the_server_itself_gives() {
    let program = Program::start();
    let plain = "GET /chat/tea HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    assert!(program.http(plain).starts_with("HTTP/1.1 426 "));
    let bad_key = HEAD.replace("==", "=").replace("Connection: Upgrade", "Connection: Upgrade, close");
    assert!(program.http(&format!("GET /chat/tea HTTP/1.1\r\n{bad_key}\r\n")).starts_with("HTTP/1.1 400 "));
    let head = HEAD.replace("Connection: Upgrade", "Connection: Upgrade, close");
    assert!(program.http(&format!("HEAD /chat/tea HTTP/1.1\r\n{head}\r\n")).starts_with("HTTP/1.1 405 "));
}

#[test]
fn a_message_goes_to_every_client_in_the_room_and_to_the_subscription() {
    let program = Program::start();
    let mut clients = ["ann", "bob"].map(|user| program.join_as("tea", user).unwrap());
    let mut elsewhere = program.join_as("news", "ann").unwrap();
    clients[0].send(Message::text("one lump or two?")).unwrap();
    for client in &mut clients {
        assert_eq!(client.read().unwrap(), Message::text("one lump or two?"));
    }
    // Its turn is after that of the clients, on another thread.
    while program.latest() != "one lump or two?" {}
    elsewhere.send(Message::text("unheard of")).unwrap();
    assert_eq!(elsewhere.read().unwrap(), Message::text("unheard of"), "and nothing before");
}

#[test]
fn a_handler_publishes() {
    let program = Program::start();
    let mut client = program.join_as("news", "bob").unwrap();
    assert!(program.notify("news", "rain").starts_with("HTTP/1.1 202 "));
    assert_eq!(client.read().unwrap(), Message::text("rain"));
    let too_much = "x".repeat((64 << 10) + 1);
    assert!(program.notify("news", &too_much).starts_with("HTTP/1.1 400 "));
}

#[test]
fn who_may_only_read_is_closed_for_writing() {
    let program = Program::start();
    let mut client = program.join_as("news", "bob").unwrap();
    client.send(Message::text("fake")).unwrap();
    assert_eq!(close_code(&mut client), CloseCode::Policy);
}

#[test]
fn messages_that_come_with_the_request_are_not_lost() {
    let program = Program::start();
    let mut stream = program.connect();
    // Two masked frames, their keys zero to keep them readable; the second one is cut.
    let request = format!("GET /chat/tea HTTP/1.1\r\n{HEAD}Cookie: session=s-ann\r\n\r\n");
    stream.write_all(&[request.as_bytes(), b"\x81\x85\0\0\0\0early\x81\x84\0\0"].concat()).unwrap();
    let mut read = Vec::new();
    while !read.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        read.push(byte[0]);
    }
    let head = String::from_utf8(read).unwrap().to_ascii_lowercase();
    assert!(head.starts_with("http/1.1 101 "), "{head}");
    assert!(head.contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=\r\n"), "{head}");
    stream.write_all(b"\0\0bird").unwrap();
    let mut frames = [0; 13];
    stream.read_exact(&mut frames).unwrap();
    assert_eq!(&frames, b"\x81\x05early\x81\x04bird");
}

#[test]
fn stopping_closes_every_client_with_1001_and_refuses_what_comes_later() {
    let program = Program::start();
    let mut client = program.join_as("tea", "ann").unwrap();
    let reader = std::thread::spawn(move || close_code(&mut client));
    program.runtime.block_on(program.hub.stop()).unwrap();
    assert_eq!(reader.join().unwrap(), CloseCode::Away);
    assert!(program.notify("tea", "late").starts_with("HTTP/1.1 503 "));
}

#[test]
fn operation_is_told_whether_it_is_ready_and_what_it_counts() {
    let program = Program::start();
    let client = program.join_as("tea", "ann").unwrap();
    assert!(program.get("/ready").starts_with("HTTP/1.1 200 "));
    let metrics = program.get("/metrics");
    assert!(metrics.contains("\r\ncontent-type: text/plain; version=0.0.4; charset=utf-8\r\n"), "{metrics}");
    assert!(metrics.contains("\nfanfare_sessions{stage=\"open\"} 1\n"), "{metrics}");
    drop(client);
    program.runtime.block_on(program.hub.stop()).unwrap();
    assert!(program.get("/ready").starts_with("HTTP/1.1 503 "));
}

/// Reads to the end, which is the peer's Close and then its end of the stream.
fn close_code(client: &mut Client) -> CloseCode {
    let Message::Close(Some(frame)) = client.read().unwrap() else { panic!("a Close with a code") };
    assert!(matches!(client.read(), Err(Error::ConnectionClosed)));
    frame.code
}
