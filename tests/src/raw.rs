//! A client that sends bytes as they are, for what no well-behaved client would send.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

/// The key of RFC 6455 §1.3, whose answer is known.
pub const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// The `Sec-WebSocket-Accept` that belongs to [`KEY`].
pub const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// One connection with a limit of 10 s on each read and write.
pub struct Raw {
    stream: TcpStream,
    read: Vec<u8>,
}

/// An HTTP answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// Names in lower case, and values.
    pub headers: Vec<(String, String)>,
    /// The body, as long as `Content-Length` says.
    pub body: Vec<u8>,
}

/// A frame from the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerFrame {
    /// The first byte: FIN, reserved bits and opcode.
    pub first: u8,
    /// The payload.
    pub payload: Vec<u8>,
}

impl Answer {
    /// The value of a header that must not occur twice. `name` is in lower case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.iter().filter(|(n, _)| n == name).map(|(_, value)| value.as_str());
        values.next().filter(|_| values.next().is_none())
    }
}

impl ServerFrame {
    /// The code of a Close frame.
    #[must_use]
    pub fn close_code(&self) -> Option<u16> {
        match self.payload.first_chunk() {
            Some(code) if self.first == 0x88 => Some(u16::from_be_bytes(*code)),
            _ => None,
        }
    }
}

impl Raw {
    /// Connects to a server on loopback.
    ///
    /// # Errors
    ///
    /// When nobody listens.
    pub fn connect(port: u16) -> io::Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        stream.set_write_timeout(Some(Duration::from_secs(10)))?;
        Ok(Self { stream, read: Vec::new() })
    }

    /// Connects and makes a good handshake on `path`.
    ///
    /// # Errors
    ///
    /// When the answer is not 101.
    pub fn upgrade(port: u16, path: &str) -> io::Result<Self> {
        let mut raw = Self::connect(port)?;
        raw.send(good_request(port, path).as_bytes())?;
        let answer = raw.answer(false)?;
        if answer.status != 101 || answer.header("sec-websocket-accept") != Some(ACCEPT) {
            return Err(io::Error::other(format!("not upgraded: {answer:?}")));
        }
        Ok(raw)
    }

    /// Sends bytes.
    ///
    /// # Errors
    ///
    /// When the server has closed the connection.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Says that nothing more will be sent.
    ///
    /// # Errors
    ///
    /// When the connection is gone.
    pub fn finish(&self) -> io::Result<()> {
        self.stream.shutdown(Shutdown::Write)
    }

    /// Reads one HTTP answer. `to_head` says that the request was HEAD, whose answer has no body.
    ///
    /// # Errors
    ///
    /// When it is incomplete or not HTTP.
    pub fn answer(&mut self, to_head: bool) -> io::Result<Answer> {
        let head = loop {
            if let Some(at) = self.read.windows(4).position(|four| four == b"\r\n\r\n") {
                break self.take(at + 4)?;
            }
            self.fill()?;
        };
        let mut answer = parse_head(&head)?;
        let length = answer.header("content-length").map_or(Ok(0), str::parse).map_err(io::Error::other)?;
        if answer.status != 101 && !to_head {
            answer.body = self.take(length)?;
        }
        Ok(answer)
    }

    /// Reads one frame.
    ///
    /// # Errors
    ///
    /// When the connection ends first, or the frame is masked.
    pub fn frame(&mut self) -> io::Result<ServerFrame> {
        let header = self.take(2)?;
        let length = match header[1] {
            short @ 0..=125 => usize::from(short),
            126 => self.take(2)?.iter().fold(0, |sum, &byte| sum << 8 | usize::from(byte)),
            127 => self.take(8)?.iter().fold(0, |sum, &byte| sum << 8 | usize::from(byte)),
            _ => return Err(io::Error::other("a frame from the server is masked")),
        };
        Ok(ServerFrame { first: header[0], payload: self.take(length)? })
    }

    /// Everything until the server ends the connection.
    ///
    /// # Errors
    ///
    /// When it does not within 10 s of silence, or resets it.
    pub fn rest(&mut self) -> io::Result<Vec<u8>> {
        loop {
            match self.fill() {
                Ok(()) => {}
                Err(e) if e.kind() == ErrorKind::UnexpectedEof => return Ok(std::mem::take(&mut self.read)),
                Err(e) => return Err(e),
            }
        }
    }

    fn take(&mut self, length: usize) -> io::Result<Vec<u8>> {
        while self.read.len() < length {
            self.fill()?;
        }
        let rest = self.read.split_off(length);
        Ok(std::mem::replace(&mut self.read, rest))
    }

    fn fill(&mut self) -> io::Result<()> {
        let mut chunk = [0; 16_384];
        match self.stream.read(&mut chunk)? {
            0 => Err(io::Error::new(
                ErrorKind::UnexpectedEof,
                format!("ended after {:?}", self.read.escape_ascii().to_string()),
            )),
            length => {
                self.read.extend_from_slice(&chunk[..length]);
                Ok(())
            }
        }
    }
}

/// A handshake without a fault.
#[must_use]
pub fn good_request(port: u16, path: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: localhost:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
}

/// A client's frame: its first byte as given, its length in the shortest form, masked.
#[must_use]
pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
    let mut bytes = vec![first];
    match payload.len() {
        short @ 0..=125 => bytes.push(0x80 | short as u8),
        middle @ 126..=0xffff => {
            bytes.push(0x80 | 126);
            bytes.extend_from_slice(&(middle as u16).to_be_bytes());
        }
        long => {
            bytes.push(0x80 | 127);
            bytes.extend_from_slice(&(long as u64).to_be_bytes());
        }
    }
    bytes.extend_from_slice(&MASK);
    bytes.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

fn parse_head(head: &[u8]) -> io::Result<Answer> {
    let head = str::from_utf8(head).map_err(io::Error::other)?;
    let bad = || io::Error::other(format!("not an HTTP answer: {head:?}"));
    let (first, fields) = head.trim_end_matches("\r\n").split_once("\r\n").unwrap_or_else(|| (head.trim_end(), ""));
    let status = first.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)).and_then(|code| code.parse().ok());
    let mut headers = Vec::new();
    for line in fields.split("\r\n").filter(|line| !line.is_empty()) {
        let (name, value) = line.split_once(':').ok_or_else(bad)?;
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    Ok(Answer { status: status.ok_or_else(bad)?, headers, body: Vec::new() })
}
