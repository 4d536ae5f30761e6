//! Whom a server keeps and whom it takes: after it stood still, and when all its places are taken.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::thread;
use std::time::{Duration, Instant};

use fanfare_tests::client::Client;
use fanfare_tests::metrics::get;
use fanfare_tests::raw::{Raw, frame, good_request};
use fanfare_tests::server::Program;
use fanfare_tests::wait_until;

fanfare_tests::for_each_program! {
    a_server_that_stood_still_reads_before_it_drops_anybody
    a_full_server_answers_and_takes_whoever_comes_when_there_is_a_place
    mute_connections_make_room_for_those_that_ask
}

const SECOND: Duration = Duration::from_secs(1);

fn a_server_that_stood_still_reads_before_it_drops_anybody(program: Program) {
    let times = ["--ping-interval", "1s", "--pong-timeout", "1s", "--head-timeout", "2s"];
    let server = program.start(&[&times[..], &["--workers", "2"]].concat()).unwrap();
    let mut clients: Vec<_> = (0..10).map(|_| Raw::upgrade(server.port(), "/chat").unwrap()).collect();
    // Each is pinged once, within a tenth of a second of the others.
    for client in &mut clients {
        assert_eq!(client.frame().unwrap().first, 0x89);
    }
    let mut silent: Vec<_> = (0..10).map(|_| Raw::connect(server.port()).unwrap()).collect();
    silent[0].send(b"GET ").unwrap();
    thread::sleep(Duration::from_millis(200));
    server.freeze().unwrap();
    for client in &mut clients {
        client.send(&frame(0x8A, b"")).unwrap();
    }
    let request = good_request(server.port(), "/chat/other");
    silent[0].send(&request.as_bytes()[4..]).unwrap();
    for one in &mut silent[1..] {
        one.send(request.as_bytes()).unwrap();
    }
    thread::sleep(3 * SECOND);
    server.thaw().unwrap();
    for one in &mut silent {
        assert_eq!(one.answer(false).unwrap().status, 101);
    }
    for client in &mut clients {
        client.send(&frame(0x88, b"\x03\xe8")).unwrap();
        let codes = std::iter::from_fn(|| client.frame().ok()).find(|frame| frame.first == 0x88);
        assert!(codes.is_some(), "it was there until it left");
    }
}

fn a_full_server_answers_and_takes_whoever_comes_when_there_is_a_place(program: Program) {
    let server = program.start(&["--workers", "3", "--max-connections", "12"]).unwrap();
    let connect = || Client::connect(server.port(), "/chat");
    let mut clients: Vec<_> = (0..12).map(|_| connect().unwrap()).collect();
    let _mute: Vec<_> = (0..20).map(|_| Raw::connect(server.port()).unwrap()).collect();
    for path in ["/live", "/ready"] {
        assert_eq!(get(server.port(), path).unwrap().status, 200);
    }
    let mut refused = Raw::connect(server.port()).unwrap();
    refused.send(good_request(server.port(), "/chat").as_bytes()).unwrap();
    let answer = refused.answer(false).unwrap();
    assert_eq!((answer.status, answer.header("retry-after").is_some()), (503, true));
    for _ in 0..12 {
        clients.remove(0).leave().unwrap();
        let start = Instant::now();
        wait_until("a place to be taken again", SECOND, || connect().map(|one| clients.push(one)).is_ok()).unwrap();
        assert!(start.elapsed() < SECOND / 2, "{:?}", start.elapsed());
    }
}

fn mute_connections_make_room_for_those_that_ask(program: Program) {
    let args = ["--workers", "2", "--max-connections", "20", "--admin-listen", "127.0.0.1:0"];
    let mut server = program.start(&args).unwrap();
    let admin = server.admin_port().unwrap();
    for port in [server.port(), admin] {
        let _mute: Vec<_> = (0..20).map(|_| Raw::connect(port).unwrap()).collect();
        let start = Instant::now();
        for _ in 0..5 {
            if port == admin {
                assert_eq!(get(port, "/metrics").unwrap().status, 200);
            } else {
                std::mem::forget(Client::connect(port, "/chat").unwrap());
            }
        }
        assert!(start.elapsed() < SECOND, "{:?}", start.elapsed());
    }
}
