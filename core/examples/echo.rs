//! An echo server on Fanfare's WebSocket sessions and nothing else of it: no channels, no Redis, a thread per client.
//!
//! Take it if your program talks with each client by itself and wants a strict WebSocket with pings, deadlines and
//! bounds. Its limits are those that conformance suites need.
//!
//! ```sh
//! cargo run --release -p fanfare-core --example echo 127.0.0.1:9001
//! ```

#![allow(
    clippy::disallowed_macros,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "an embedder is the world that the core must not reach"
)]

use std::hash::{BuildHasher, RandomState};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::ops::Range;
use std::time::Duration;
use std::{env, thread, time};

use bytes::Bytes;
use fanfare_core::error::Error;
use fanfare_core::http::{Answer, RequestReader};
use fanfare_core::limits::Limits;
use fanfare_core::run::RunBuilder;
use fanfare_core::time::Instant;
use fanfare_core::ws::{Session, State};

fn main() -> io::Result<()> {
    let address = env::args().nth(1).unwrap_or_else(|| "127.0.0.1:9001".to_owned());
    let listener = TcpListener::bind(address)?;
    println!("listening on http://{}/", listener.local_addr()?);
    loop {
        let served = listener
            .accept()
            .and_then(|(stream, _)| thread::Builder::new().spawn(move || Client::new(stream).serve()).map(drop));
        if let Err(error) = served {
            eprintln!("a client could not be taken: {error}");
            // Out of descriptors or threads, most likely: to try again at once would be to spin.
            thread::sleep(Duration::from_millis(100));
        }
    }
}

struct Client {
    stream: TcpStream,
    limits: Limits,
    start: time::Instant,
}

impl Client {
    fn new(stream: TcpStream) -> Self {
        let mut limits = Limits::default();
        limits.message_bytes = 16 << 20;
        // As many as the suites want, and the empty one that some clients send as the last.
        limits.message_fragments = 65_536 + 1;
        Self { stream, limits, start: time::Instant::now() }
    }

    fn serve(mut self) {
        let mut scratch = vec![0; 64 << 10];
        // An error is the end of the connection, and there is nobody to tell.
        let _ = self.handshake(&mut scratch).and_then(|leftover| self.talk(&mut scratch, leftover));
    }

    /// Answers the request; says where in `scratch` the first frames are.
    fn handshake(&mut self, scratch: &mut [u8]) -> io::Result<Range<usize>> {
        self.stream.set_nodelay(true)?;
        // Whoever reads nothing for so long is given up.
        self.stream.set_write_timeout(Some(self.limits.pong_time))?;
        let mut reader = RequestReader::new();
        let deadline = self.now() + self.limits.head_time;
        let refusal = loop {
            let Some(len) = self.read(scratch, Some(deadline))? else {
                break Answer::for_error(Error::SlowHead).encode(reader.method());
            };
            match answer(&mut reader, &scratch[..len], &self.limits) {
                _ if len == 0 => return Err(ErrorKind::UnexpectedEof.into()),
                None => {}
                Some(Ok((switch, head))) => {
                    self.stream.write_all(&switch)?;
                    return Ok(head..len);
                }
                Some(Err(refusal)) => break refusal,
            }
        };
        self.stream.write_all(&refusal)?;
        self.stream.shutdown(Shutdown::Write)?;
        // A socket that is closed with something left to read would take the answer back.
        let deadline = self.now() + self.limits.close_time;
        while self.read(scratch, Some(deadline))?.is_some_and(|len| len > 0) {}
        Err(ErrorKind::InvalidData.into())
    }

    fn talk(&mut self, scratch: &mut [u8], leftover: Range<usize>) -> io::Result<()> {
        let jitter = RandomState::new().hash_one(0).to_be_bytes()[0];
        let mut session = Session::new(jitter, self.now());
        self.echo(&mut session, &mut scratch[leftover])?;
        while session.state() != State::Ended {
            match self.read(scratch, session.deadline(&self.limits))? {
                None => _ = session.handle_timeout(&self.limits, self.now()),
                Some(0) => session.handle_eof(self.now()),
                Some(len) => self.echo(&mut session, &mut scratch[..len])?,
            }
            self.send_control(&mut session, false)?;
            if session.state() == State::Finished {
                self.stream.shutdown(Shutdown::Write)?;
            }
        }
        Ok(())
    }

    /// Sends back every message that `input` completes.
    fn echo(&mut self, session: &mut Session, mut input: &mut [u8]) -> io::Result<()> {
        while let Some(message) = session.handle_read(&mut input, &self.limits, self.now()) {
            let mut run = RunBuilder::new(message.frame);
            run.push(&message.payload).map_err(io::Error::other)?;
            // What came before the message is answered before it.
            self.send_control(session, true)?;
            self.stream.write_all(run.finish().bytes())?;
            session.handle_progress(self.now());
        }
        self.send_control(session, false)
    }

    fn send_control(&mut self, session: &mut Session, data_pending: bool) -> io::Result<()> {
        let control = session.control(data_pending);
        self.stream.write_all(control)?;
        let len = control.len();
        session.control_sent(len, self.now()).map(drop).map_err(io::Error::other)
    }

    /// Reads once; `None` if nothing comes until `deadline`.
    fn read(&mut self, scratch: &mut [u8], deadline: Option<Instant>) -> io::Result<Option<usize>> {
        // Zero would mean to wait for ever.
        let wait = deadline.map(|deadline| deadline.since(self.now()).max(Duration::from_millis(1)));
        self.stream.set_read_timeout(wait)?;
        match self.stream.read(scratch) {
            Ok(len) => Ok(Some(len)),
            Err(error) if [ErrorKind::WouldBlock, ErrorKind::TimedOut].contains(&error.kind()) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn now(&self) -> Instant {
        Instant::ZERO + self.start.elapsed()
    }
}

/// Once the head is whole: the 101 and the length of what the head took of `input`, or a refusal.
fn answer(reader: &mut RequestReader, input: &[u8], limits: &Limits) -> Option<Result<(Bytes, usize), Bytes>> {
    let (error, method) = match reader.read(input, limits) {
        Ok(None) => return None,
        Ok(Some((request, head))) => match request.upgrade() {
            // Misuse is impossible: no subprotocol is named.
            Ok(upgrade) => return upgrade.answer(None).ok().map(|switch| Ok((switch, head))),
            Err(error) => (error, request.method()),
        },
        Err(error) => (error, reader.method()),
    };
    Some(Err(Answer::for_error(error).encode(method)))
}
