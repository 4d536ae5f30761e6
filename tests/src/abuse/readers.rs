//! Abuses by not reading.

use std::any::Any;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with, sockopt};

use super::{ALONE_IN_A_ROOM, Abuse, Bus, MIB, Stage, words};
use crate::client::Client;
use crate::innocents::Manner;
use crate::raw::{frame, good_request};
use crate::usage::orphaned;
use crate::wait_until;

const PONG: u8 = 0x8a;
const TEXT: u8 = 0x81;

pub(super) const ABUSES: &[Abuse] = &[
    Abuse { name: "dam", args: |_| vec![], bus: Bus::Local, manner: ALONE_IN_A_ROOM, is_served: true, deed: dam },
    Abuse {
        name: "readers_that_only_pong",
        args: |_| words("--ping-interval 1s --pong-timeout 1s --close-timeout 1s"),
        bus: Bus::Local,
        manner: ALONE_IN_A_ROOM,
        is_served: true,
        deed: readers_that_only_pong,
    },
    Abuse {
        name: "full_queues",
        args: |_| words("--max-queue 256KiB --max-all-queues 512KiB"),
        bus: Bus::Local,
        manner: Manner { room: Some("full"), ..ALONE_IN_A_ROOM },
        is_served: true,
        deed: full_queues,
    },
    Abuse {
        name: "what_the_kernel_keeps",
        args: |_| words("--ping-interval 2s --pong-timeout 2s --close-timeout 1s"),
        bus: Bus::Local,
        manner: ALONE_IN_A_ROOM,
        is_served: true,
        deed: what_the_kernel_keeps,
    },
];

/// A client of whom the kernel holds little on its own side.
fn tight(port: u16, path: &str) -> io::Result<TcpStream> {
    let descriptor = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    sockopt::set_socket_recv_buffer_size(&descriptor, 4 << 10)?;
    connect(&descriptor, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, port))?;
    let mut stream = TcpStream::from(descriptor);
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.set_write_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(good_request(port, path).as_bytes())?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    Ok(stream)
}

fn stuck(stage: &Stage<'_>, path: &str) -> io::Result<Vec<TcpStream>> {
    (0..stage.scale.connections).map(|_| tight(stage.port(), path)).collect()
}

/// Says large messages until the kernel takes no more for the stuck ones, or so many have been said.
fn fill(stage: &Stage<'_>, publisher: &mut Client, most: usize) -> io::Result<()> {
    let large = "x".repeat(30_000);
    for _ in 0..most {
        publisher.send(&large)?;
        while publisher.text()? != large {}
        if waits(stage)? {
            // What waited for the first of them waits for all by then.
            for _ in 0..5 {
                publisher.send(&large)?;
                while publisher.text()? != large {}
            }
            return Ok(());
        }
    }
    Err(io::Error::other("the kernel takes all that nobody reads"))
}

/// Whether something waits for who does not read, and not only for the next turn.
fn waits(stage: &Stage<'_>) -> io::Result<bool> {
    for _ in 0..3 {
        if stage.metric("buffer_bytes{buffer=\"queues\"}")? == 0.0 {
            return Ok(false);
        }
        std::thread::sleep(Duration::from_millis(30));
    }
    Ok(true)
}

/// Nobody of a room reads while empty messages come one by one, and then all read at once.
fn dam(stage: &Stage<'_>) -> io::Result<Box<dyn Any>> {
    const BURST: usize = 100;
    let mut streams = stuck(stage, "/chat/dam")?;
    let mut publisher = Client::connect(stage.port(), "/chat/dam")?;
    fill(stage, &mut publisher, 500)?;
    let end = Instant::now() + stage.scale.time;
    while Instant::now() < end {
        for _ in 0..BURST {
            publisher.send("")?;
        }
        for _ in 0..BURST {
            publisher.text()?;
        }
    }
    for stream in &streams {
        sockopt::set_socket_recv_buffer_size(stream, 8 << 20)?;
        stream.set_nonblocking(true)?;
    }
    let mut scratch = vec![0; 1 << 20];
    let (mut quiet, end) = (Instant::now(), Instant::now() + Duration::from_secs(60));
    while quiet.elapsed() < Duration::from_secs(1) {
        for stream in &mut streams {
            if matches!(stream.read(&mut scratch), Ok(1..)) {
                quiet = Instant::now();
            }
        }
        if Instant::now() > end {
            return Err(io::Error::other("the dam does not run dry within a minute"));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(Box::new((streams, publisher)))
}

/// Who reads nothing is dropped after the ping that it did not read, whatever it sends.
fn readers_that_only_pong(stage: &Stage<'_>) -> io::Result<Box<dyn Any>> {
    let before = stage.sessions()?;
    let mut streams = stuck(stage, "/chat/pong")?;
    let mut publisher = Client::connect(stage.port(), "/chat/pong")?;
    let filled = fill(stage, &mut publisher, 500);
    drop(publisher);
    // A busy machine fills so slowly that the first of them are dropped meanwhile, and nothing waits for them then.
    if stage.sessions()? >= before + streams.len() {
        filled?;
    }
    let pong = frame(PONG, b"");
    // The interval, the time for the pong, and as much again for a busy machine.
    wait_until("readers that only pong to be dropped", Duration::from_secs(15), || {
        for stream in &mut streams {
            // The server may have dropped it.
            let _ = stream.write(&pong);
        }
        std::thread::sleep(Duration::from_millis(200));
        stage.sessions().is_ok_and(|sessions| sessions <= before + 1)
    })?;
    Ok(Box::new(streams))
}

/// Stuck readers of the innocents' own room fill all queues, and new ones come for those that are closed.
fn full_queues(stage: &Stage<'_>) -> io::Result<Box<dyn Any>> {
    let mut streams = stuck(stage, "/chat/full")?;
    let mut publisher = Client::connect(stage.port(), "/chat/full")?;
    fill(stage, &mut publisher, 500)?;
    let text = "x".repeat(2_000);
    let end = Instant::now() + stage.scale.time.max(Duration::from_secs(2));
    let mut turn = 0;
    while Instant::now() < end {
        for _ in 0..10 {
            publisher.send(&text)?;
        }
        let mut own = 0;
        while own < 10 {
            own += usize::from(publisher.text()? == text);
        }
        // One of them is new each time.
        let at = turn % streams.len().max(1);
        if let (Some(stream), Ok(other)) = (streams.get_mut(at), tight(stage.port(), "/chat/full")) {
            *stream = other;
        }
        turn += 1;
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(Box::new(streams))
}

/// Readers that are given up leave nothing in the kernel.
fn what_the_kernel_keeps(stage: &Stage<'_>) -> io::Result<Box<dyn Any>> {
    let before = stage.sessions()?;
    let mut streams = Vec::new();
    for number in 0..stage.scale.connections.min(60) {
        let mut stream = tight(stage.port(), &format!("/chat/orphan-{number}"))?;
        stream.set_write_timeout(Some(Duration::from_millis(500)))?;
        let message = frame(TEXT, &[b'x'; 60_000]);
        // Until it is closed for what it does not read, or not read any more itself.
        let _ = (0..90).try_for_each(|_| stream.write_all(&message));
        streams.push(stream);
    }
    wait_until("the sessions to be given up", Duration::from_secs(30), || {
        stage.sessions().is_ok_and(|sessions| sessions <= before + 1)
    })?;
    let kept = || orphaned(stage.port()).unwrap_or((0, 0));
    wait_until("the kernel to forget them", Duration::from_secs(10), || kept().1 < MIB).map_err(|e| {
        let (sockets, bytes) = kept();
        io::Error::other(format!("{e}: {sockets} sockets of closed sessions hold {} MiB unsent", bytes / MIB))
    })?;
    Ok(Box::new(streams))
}
