//! A blocking WebSocket client on `tungstenite`: the client that is not ours.

use std::io;
use std::net::TcpStream;
use std::time::{Duration, Instant};

pub use tungstenite::Message;
use tungstenite::client::client_with_config;
use tungstenite::protocol::frame::coding::{Data, OpCode};
use tungstenite::protocol::frame::{CloseFrame, Frame};
use tungstenite::{Error, WebSocket};

/// How long a client waits for a message that must come.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// One connection.
pub struct Client {
    socket: WebSocket<TcpStream>,
}

impl Client {
    /// Connects to `path` of a server on loopback.
    ///
    /// # Errors
    ///
    /// When nobody listens or the handshake is refused.
    pub fn connect(port: u16, path: &str) -> io::Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let url = format!("ws://localhost:{port}{path}");
        let (socket, _) =
            client_with_config(url, stream, None).map_err(|e| io::Error::other(format!("{path}: {e}")))?;
        Ok(Self { socket })
    }

    /// Sends a text message.
    ///
    /// # Errors
    ///
    /// When the connection is closed or full for [`PATIENCE`].
    pub fn send(&mut self, text: &str) -> io::Result<()> {
        self.send_message(Message::text(text))
    }

    /// Sends `message`, which may be a control frame.
    ///
    /// # Errors
    ///
    /// As [`Client::send`].
    pub fn send_message(&mut self, message: Message) -> io::Result<()> {
        self.socket.send(message).map_err(into_io)
    }

    /// Sends one text message in these fragments.
    ///
    /// # Errors
    ///
    /// As [`Client::send`].
    pub fn send_fragments(&mut self, fragments: &[&[u8]]) -> io::Result<()> {
        for (number, fragment) in fragments.iter().enumerate() {
            let data = if number == 0 { Data::Text } else { Data::Continue };
            let is_last = number + 1 == fragments.len();
            let frame = Frame::message(fragment.to_vec(), OpCode::Data(data), is_last);
            self.send_message(Message::Frame(frame))?;
        }
        Ok(())
    }

    /// The next text message, within [`PATIENCE`].
    ///
    /// # Errors
    ///
    /// When none comes, or something else does: a Close, a binary message or the end of the connection.
    pub fn text(&mut self) -> io::Result<String> {
        match self.text_within(PATIENCE)? {
            Some(text) => Ok(text),
            None => Err(io::Error::new(io::ErrorKind::TimedOut, "no message came")),
        }
    }

    /// The next text message, or `None` if none comes within the time. Pings are answered on the way.
    ///
    /// # Errors
    ///
    /// When something else comes: a Close, a binary message or the end of the connection.
    pub fn text_within(&mut self, within: Duration) -> io::Result<Option<String>> {
        let deadline = Instant::now() + within;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            // A timeout of zero would mean to wait for ever.
            self.socket.get_ref().set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
            match self.socket.read() {
                Ok(Message::Text(text)) => return Ok(Some(text.as_str().to_owned())),
                Ok(Message::Ping(_) | Message::Pong(_)) => {}
                Ok(other) => return Err(io::Error::other(format!("not a text message: {other:?}"))),
                Err(Error::Io(e)) if [io::ErrorKind::WouldBlock, io::ErrorKind::TimedOut].contains(&e.kind()) => {
                    return Ok(None);
                }
                Err(e) => return Err(into_io(e)),
            }
        }
    }

    /// Sends a ping and waits for its pong, after which the server has read all that was sent before. Text is skipped.
    ///
    /// # Errors
    ///
    /// When the pong does not come within [`PATIENCE`].
    pub fn ping(&mut self) -> io::Result<()> {
        self.send_message(Message::Ping("read?".into()))?;
        self.socket.get_ref().set_read_timeout(Some(PATIENCE))?;
        while !matches!(self.socket.read().map_err(into_io)?, Message::Pong(_)) {}
        Ok(())
    }

    /// Reads until the server's Close and the end of the connection, and returns the code; text messages are skipped.
    ///
    /// # Errors
    ///
    /// When the connection ends without a Close or stays open for [`PATIENCE`].
    pub fn close_code(&mut self) -> io::Result<Option<u16>> {
        self.socket.get_ref().set_read_timeout(Some(PATIENCE))?;
        let mut code = None;
        loop {
            match self.socket.read() {
                Ok(Message::Close(frame)) => code = frame.map(|CloseFrame { code, .. }| code.into()),
                Ok(_) => {}
                Err(Error::ConnectionClosed) => return Ok(code),
                Err(e) => return Err(into_io(e)),
            }
        }
    }

    /// Leaves politely: sends a Close and waits for the server's.
    ///
    /// # Errors
    ///
    /// As [`Client::close_code`].
    pub fn leave(mut self) -> io::Result<()> {
        self.socket.close(None).map_err(into_io)?;
        self.close_code().map(drop)
    }
}

fn into_io(error: Error) -> io::Error {
    match error {
        Error::Io(e) => e,
        other => io::Error::other(other),
    }
}
