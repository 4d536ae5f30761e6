//! What the servers take in memory while clients do their worst, held against the bound that they print at start:
//! resident memory below 1.3 times that and 32 MiB. `FANFARE_MEMORY_CLIENTS` says how many clients (2,000).
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{Read, Write};
use std::net::{SocketAddrV4, TcpStream};
use std::time::{Duration, Instant};

use fanfare_tests::client::Client;
use fanfare_tests::metrics::Metrics;
use fanfare_tests::raw::{Raw, frame, good_request};
use fanfare_tests::server::{Program, Server};
use fanfare_tests::swarm::Swarm;
use fanfare_tests::usage::most_memory;
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with, sockopt};

fanfare_tests::for_each_program! {
    half_a_message_each_stays_within_the_bound
    readers_that_never_read_stay_within_the_bound
    rooms_of_one_who_never_reads_stay_within_the_bound
    frames_behind_requests_stay_within_the_bound
    answers_to_a_long_origin_stay_within_the_bound
    rooms_that_a_client_walks_through_stay_within_the_bound
}

const BOUNDS: [&str; 12] = [
    "--workers",
    "2",
    "--max-all-queues",
    "4MiB",
    "--max-partial",
    "4MiB",
    "--max-publish-queue",
    "1MiB",
    "--max-mailbox",
    "1MiB",
    "--max-channel-name",
    "64B",
];

const MIB: u64 = 1 << 20;

fn clients() -> usize {
    std::env::var("FANFARE_MEMORY_CLIENTS").map_or(2_000, |count| count.parse().unwrap())
}

fn start(program: Program, clients: usize) -> Server {
    let most = (clients + 10).to_string();
    program.start(&[&BOUNDS[..], &["--max-connections", &most]].concat()).unwrap()
}

fn check(server: &Server) {
    let (most, bound) = (most_memory(server.id()).unwrap(), server.memory_bound().unwrap());
    let (most_mib, bound_mib) = (most / MIB, bound / MIB);
    eprintln!("{most_mib} MiB resident, bound {bound_mib} MiB");
    assert!(most < bound / 10 * 13 + 32 * MIB, "{most_mib} MiB for a bound of {bound_mib} MiB");
    let mut client = Client::connect(server.port(), "/chat/well").unwrap();
    client.send("hello").unwrap();
    assert_eq!(client.text().unwrap(), "hello", "others are served");
}

/// A client of whom the kernel holds little.
fn tight(port: u16, path: &str) -> TcpStream {
    let mut stream = tightly_connected(port);
    stream.write_all(good_request(port, path).as_bytes()).unwrap();
    stream
}

fn tightly_connected(port: u16) -> TcpStream {
    let descriptor = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
    sockopt::set_socket_recv_buffer_size(&descriptor, 4 << 10).unwrap();
    connect(&descriptor, &SocketAddrV4::new([127, 0, 0, 1].into(), port)).unwrap();
    TcpStream::from(descriptor)
}

fn half_a_message_each_stays_within_the_bound(program: Program) {
    // Raises the limit of open files.
    drop(Swarm::new().unwrap());
    let server = start(program, clients());
    let mut half = vec![0x81, 0xFF, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    half.resize(half.len() + (60 << 10), b'x');
    let clients: Vec<Raw> = (0..clients())
        .map(|_| {
            let mut client = Raw::upgrade(server.port(), "/chat").unwrap();
            // Whoever was too much has been closed.
            let _ = client.send(&half);
            client
        })
        .collect();
    check(&server);
    drop(clients);
}

fn readers_that_never_read_stay_within_the_bound(program: Program) {
    // Each client's share of that, 6 MB, is more than the kernel takes for one who does not read.
    const MESSAGES: usize = 100;
    const BURST: usize = 5;
    let stuck = clients() / 1_000;
    let count = stuck * 99;
    let mut swarm = Swarm::new().unwrap();
    let server = start(program, count + stuck);
    let stuck: Vec<TcpStream> = (0..stuck).map(|_| tight(server.port(), "/chat")).collect();
    swarm.grow(count, server.port(), "/chat").unwrap();
    let mut publisher = Client::connect(server.port(), "/chat").unwrap();
    let message = "x".repeat(60_000);
    for burst in 1..=MESSAGES / BURST {
        for _ in 0..BURST {
            publisher.send(&message).unwrap();
        }
        for _ in 0..BURST {
            assert_eq!(publisher.text().unwrap().len(), message.len());
        }
        let (mut heard, start) = (0, Instant::now());
        while heard < count * BURST {
            swarm.turn(Duration::from_secs(1), |_, _| heard += 1).unwrap();
            assert!(start.elapsed() < Duration::from_secs(30), "burst {burst}: {heard} of {}", count * BURST);
        }
    }
    check(&server);
    for mut stream in stuck {
        let mut got = Vec::new();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        // The server may have given up on it by now.
        let _ = stream.read_to_end(&mut got);
        assert!(got.len() < MESSAGES * message.len(), "closed before it got everything");
    }
}

fn rooms_of_one_who_never_reads_stay_within_the_bound(program: Program) {
    const MESSAGES: usize = 100;
    let message = "x".repeat(60_000);
    let rooms = clients() / 33;
    let server = start(program, rooms);
    let stuck: Vec<TcpStream> = (0..rooms)
        .map(|number| {
            let path = format!("/chat/{number}");
            let stream = tight(server.port(), &path);
            let mut publisher = Client::connect(server.port(), &path).unwrap();
            for _ in 0..MESSAGES {
                publisher.send(&message).unwrap();
                assert_eq!(publisher.text().unwrap().len(), message.len(), "whoever keeps up gets everything");
            }
            stream
        })
        .collect();
    check(&server);
    drop(stuck);
}

/// Each connection is one read that nobody was asked for: what lies behind the request is published all the same, but
/// not before there is room for it.
fn frames_behind_requests_stay_within_the_bound(program: Program) {
    let server = start(program, 200);
    let path = format!("/chat/{}", "r".repeat(50));
    let reader = Raw::upgrade(server.port(), &path).unwrap();
    let mut bytes = good_request(server.port(), &path).into_bytes();
    let message = frame(0x81, b"");
    bytes.extend(message.repeat(((16 << 10) - bytes.len()) / message.len()));
    for _ in 0..clients() / 5 {
        let mut client = Raw::connect(server.port()).unwrap();
        // Until the 101, by which time all of it has been read.
        if client.send(&bytes).is_ok() {
            let _ = client.answer(false);
        }
    }
    drop(reader);
    check(&server);
}

fn answers_to_a_long_origin_stay_within_the_bound(program: Program) {
    let server = start(program, clients() / 2);
    let origin = "\u{300}".repeat(7 << 10);
    let stuck: Vec<TcpStream> = (0..clients() / 2)
        .map(|_| {
            let mut stream = tightly_connected(server.port());
            let request = good_request(server.port(), "/chat");
            let request = format!("{}Origin: {origin}\r\n\r\n", request.strip_suffix("\r\n").unwrap());
            stream.write_all(request.as_bytes()).unwrap();
            stream
        })
        .collect();
    let mut answer = Vec::new();
    (&stuck[0]).take(100).read_to_end(&mut answer).unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 403 "), "{:?}", String::from_utf8_lossy(&answer));
    drop(stuck);
    check(&server);
}

fn rooms_that_a_client_walks_through_stay_within_the_bound(program: Program) {
    let args =
        ["--max-connections", "20", "--linger", "60s", "--max-lingering", "100", "--admin-listen", "127.0.0.1:0"];
    let mut server = program.start(&[&BOUNDS[..], &args].concat()).unwrap();
    for number in 0..clients() / 4 {
        drop(Client::connect(server.port(), &format!("/chat/{number}")).unwrap());
    }
    let metrics = Metrics::scrape(server.admin_port().unwrap()).unwrap();
    // Besides those that linger, the last few may not have been seen to be gone.
    assert!(metrics.value("channels") <= 120.0, "{}", metrics.value("channels"));
    assert!(metrics.value("channels_lingering") > 80.0 && metrics.value("linger_evictions_total") > 0.0);
    check(&server);
}
