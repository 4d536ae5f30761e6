//! A small blocking Redis client: the foreign program on the channel.
//!
//! It speaks RESP2 over a plain socket and shares no code with Fanfare, so that a mistake of Fanfare's own is seen.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// One connection.
pub struct Resp {
    stream: BufReader<TcpStream>,
}

/// A reply of RESP2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// `+OK`
    Simple(String),
    /// `-ERR …`
    Error(String),
    /// `:1`
    Integer(i64),
    /// `$3`, or `None` for `$-1`
    Bulk(Option<Vec<u8>>),
    /// `*2`; a null array is empty
    Array(Vec<Self>),
}

impl Resp {
    /// Connects to a server on loopback, with a limit of 20 s on each read.
    ///
    /// # Errors
    ///
    /// When nobody listens.
    pub fn connect(port: u16) -> io::Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    /// Sends a command and reads its reply.
    ///
    /// # Errors
    ///
    /// When the connection ends or the reply takes longer than 20 s.
    pub fn command(&mut self, parts: &[&[u8]]) -> io::Result<Reply> {
        self.send(parts)?;
        self.reply()
    }

    /// Sends a command.
    ///
    /// # Errors
    ///
    /// When the connection ends.
    pub fn send(&mut self, parts: &[&[u8]]) -> io::Result<()> {
        let mut bytes = format!("*{}\r\n", parts.len()).into_bytes();
        for part in parts {
            bytes.extend_from_slice(format!("${}\r\n", part.len()).as_bytes());
            bytes.extend_from_slice(part);
            bytes.extend_from_slice(b"\r\n");
        }
        self.stream.get_mut().write_all(&bytes)
    }

    /// Publishes, and returns how many connections got it.
    ///
    /// # Errors
    ///
    /// As [`Resp::command`].
    pub fn publish(&mut self, channel: &str, payload: &[u8]) -> io::Result<i64> {
        integer(self.command(&[b"PUBLISH", channel.as_bytes(), payload])?)
    }

    /// How many connections are subscribed to `channel`.
    ///
    /// # Errors
    ///
    /// As [`Resp::command`].
    pub fn subscribers(&mut self, channel: &str) -> io::Result<i64> {
        let Reply::Array(mut items) = self.command(&[b"PUBSUB", b"NUMSUB", channel.as_bytes()])? else {
            return Err(io::Error::other("PUBSUB NUMSUB did not answer with an array"));
        };
        integer(items.pop().unwrap_or(Reply::Integer(0)))
    }

    /// Subscribes this connection to `channel`.
    ///
    /// # Errors
    ///
    /// As [`Resp::command`].
    pub fn subscribe(&mut self, channel: &str) -> io::Result<()> {
        self.command(&[b"SUBSCRIBE", channel.as_bytes()]).map(drop)
    }

    /// The payload of the next message, after [`Resp::subscribe`].
    ///
    /// # Errors
    ///
    /// When none comes within 20 s.
    pub fn message(&mut self) -> io::Result<Vec<u8>> {
        match self.reply()? {
            Reply::Array(items) => match items.into_iter().next_back() {
                Some(Reply::Bulk(Some(payload))) => Ok(payload),
                other => Err(io::Error::other(format!("not a message: {other:?}"))),
            },
            other => Err(io::Error::other(format!("not a push: {other:?}"))),
        }
    }

    fn reply(&mut self) -> io::Result<Reply> {
        let line = self.line()?;
        let (kind, rest) = line.split_at_checked(1).ok_or_else(|| io::Error::other("an empty reply"))?;
        let number = || rest.parse::<i64>().map_err(io::Error::other);
        Ok(match kind {
            "+" => Reply::Simple(rest.to_owned()),
            "-" => Reply::Error(rest.to_owned()),
            ":" => Reply::Integer(number()?),
            "$" => Reply::Bulk(match usize::try_from(number()?) {
                Ok(length) => Some(self.bulk(length)?),
                Err(_) => None,
            }),
            "*" => Reply::Array((0..number()?).map(|_| self.reply()).collect::<io::Result<_>>()?),
            _ => return Err(io::Error::other(format!("not a reply: {line:?}"))),
        })
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(line.trim_end_matches("\r\n").to_owned())
    }

    fn bulk(&mut self, length: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; length + 2];
        self.stream.read_exact(&mut bytes)?;
        bytes.truncate(length);
        Ok(bytes)
    }
}

/// The length of the frame of RESP2 or RESP3 that these bytes begin with, or `None` while it is not whole.
///
/// # Errors
///
/// When they are no frame.
pub fn frame_length(bytes: &[u8]) -> io::Result<Option<usize>> {
    let (mut at, mut pending) = (0, 1);
    while pending > 0 {
        let Some(line) = bytes[at..].windows(2).position(|two| two == b"\r\n").map(|end| &bytes[at..at + end]) else {
            return Ok(None);
        };
        let bad = || io::Error::other(format!("not a frame: {}", line.escape_ascii()));
        let number = || str::from_utf8(&line[1..]).ok().and_then(|text| text.parse::<i64>().ok()).ok_or_else(bad);
        at += line.len() + 2;
        pending -= 1;
        match line.first() {
            Some(b'+' | b'-' | b':' | b'_' | b'#' | b',' | b'(') => {}
            // A length of -1 stands for nothing, not even an end of line.
            Some(b'$' | b'=' | b'!') => at += usize::try_from(number()?).map_or(0, |length| length + 2),
            Some(b'*' | b'~' | b'>') => pending += number()?.max(0),
            Some(b'%') => pending += 2 * number()?.max(0),
            _ => return Err(bad()),
        }
        if at > bytes.len() {
            return Ok(None);
        }
    }
    Ok(Some(at))
}

fn integer(reply: Reply) -> io::Result<i64> {
    match reply {
        Reply::Integer(number) => Ok(number),
        other => Err(io::Error::other(format!("not an integer: {other:?}"))),
    }
}
