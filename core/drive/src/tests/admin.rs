//! The address for operation: who is served there, and what the numbers of several workers are together.

use super::{heard, opened, setup};
use crate::Setup;
use crate::memory::{ADDRESS, Client, Memory};
use crate::memory::{request, text};
use crate::{ServeError, Server};
use fanfare_core::error::{Side, Unready};
use fanfare_core::http::Answer;
use fanfare_core::shard::Code;
use fanfare_core::snapshot::{Share, Snapshot};
use fanfare_core::time::Duration;

fn admin_setup(workers: usize) -> Setup {
    Setup { admin_listen: Some("localhost:9090".parse().unwrap()), metrics: Some(metrics), ..setup(workers) }
}

/// Some of the numbers, each on a line.
fn metrics(snapshot: &Snapshot) -> Answer {
    let Share { stats, stages, fan_out, .. } = &snapshot.workers;
    let closed = stats.closes.iter().find(|&(by, code, _)| (by, code) == (Side::Peer, Code::Missing)).unwrap().2;
    let lines = [
        ("workers", snapshot.worker_count as f64),
        ("workers_late", snapshot.late_workers as f64),
        ("accept_rests", snapshot.accept_rests as f64),
        ("open", stages.open as f64),
        ("opened", stats.opened as f64),
        ("closed by client", closed as f64),
        ("client_messages", stats.messages_in as f64),
        ("deliveries", stats.deliveries as f64),
        ("memory_bound", snapshot.memory_bound.unwrap() as f64),
        ("most_connections", snapshot.most_connections.unwrap() as f64),
        ("fan_out count", fan_out.count() as f64),
        ("fan_out seconds", fan_out.sum().as_secs_f64()),
        ("draining", f64::from(u8::from(snapshot.readiness == Err(Unready::Draining)))),
    ];
    Answer::text(200, lines.map(|(name, value)| format!("{name} {value}\n")).concat())
}

fn started(setup: Setup) -> (Memory, Server<Memory>) {
    let memory = Memory::default();
    let server = memory.start(Server::<Memory>::start(setup));
    let server = server.lock().unwrap().take().unwrap().unwrap();
    assert_eq!(server.addresses(), [ADDRESS], "it is not for clients");
    (memory, server)
}

fn asked(client: Client, path: &str) -> Client {
    client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
    client
}

fn taken(client: &Client) -> String {
    String::from_utf8(client.take()).unwrap()
}

/// The value of a number.
fn value(metrics: &str, sample: &str) -> f64 {
    let mut lines = metrics.lines().filter_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
    lines.next().unwrap_or_else(|| panic!("{sample} is missing in {metrics}")).parse().unwrap()
}

#[test]
fn the_numbers_of_all_workers_are_added_up() {
    for workers in [1, 2, 3] {
        let (memory, server) = started(admin_setup(workers));
        let clients: Vec<_> = (0..6).map(|_| opened(&memory)).collect();
        for client in &clients {
            client.send(&text("hello"));
        }
        clients[0].send(&[0x88, 0x80, 0, 0, 0, 0]);
        clients[0].change(|pipe| pipe.input_ends = true);
        let metrics = taken(&asked(memory.connect_admin(), "/metrics"));
        assert!(metrics.starts_with("HTTP/1.1 200 OK\r\n"), "{metrics}");
        assert!(metrics.contains("\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n"), "the runtime has a clock: {metrics}");
        for (sample, count) in [
            ("workers", workers),
            ("workers_late", 0),
            ("accept_rests", 0),
            ("open", 5),
            ("opened", 6),
            ("closed by client", 1),
            ("client_messages", 6),
            ("deliveries", 36),
        ] {
            assert_eq!(value(&metrics, sample), count as f64, "{sample} of {workers} workers");
        }
        assert!(value(&metrics, "memory_bound") > value(&metrics, "most_connections"));
        // Each message is a turn of each worker.
        assert_eq!(value(&metrics, "fan_out count"), 6.0 * workers as f64);
        drop(server);
        clients.iter().for_each(|client| client.change(|pipe| pipe.is_reset = true));
        assert_eq!(memory.running(), 0);
    }
}

#[test]
fn it_is_no_place_for_websockets() {
    let (memory, _server) = started(admin_setup(2));
    let client = memory.connect_admin();
    client.send(&request("/chat"));
    assert!(taken(&client).starts_with("HTTP/1.1 404 "));
    assert!(taken(&asked(memory.connect_admin(), "/")).starts_with("HTTP/1.1 404 "));
    for path in ["/live", "/ready"] {
        assert!(taken(&asked(memory.connect_admin(), path)).starts_with("HTTP/1.1 200 "));
        assert!(taken(&asked(memory.connect(), path)).starts_with("HTTP/1.1 200 "));
    }
    assert!(taken(&asked(memory.connect(), "/metrics")).starts_with("HTTP/1.1 404 "));
}

#[test]
fn a_worker_that_is_stuck_is_waited_for_no_longer_than_a_second() {
    let (memory, _server) = started(admin_setup(2));
    let clients: Vec<_> = (0..2).map(|_| opened(&memory)).collect();
    clients[0].send(&text("hello"));
    let before = taken(&asked(memory.connect_admin(), "/metrics"));
    // The first task is the one that starts the server, the next are its workers.
    memory.set_stuck(2, true);
    for _ in 0..2 {
        let waits = [(); 2].map(|()| asked(memory.connect_admin(), "/metrics"));
        memory.pass(Duration::from_millis(999));
        assert!(waits.iter().all(|client| client.take().is_empty()));
        memory.pass(Duration::from_millis(1));
        for client in &waits {
            let metrics = taken(client);
            assert_eq!(value(&metrics, "workers_late"), 1.0);
            for sample in ["deliveries", "open"] {
                assert_eq!(value(&metrics, sample), value(&before, sample), "no count goes back");
            }
        }
    }
    clients[0].send(&text("again"));
    memory.pass(Duration::from_millis(20));
    memory.set_stuck(2, false);
    let after = taken(&asked(memory.connect_admin(), "/metrics"));
    assert_eq!((value(&after, "workers_late"), value(&after, "deliveries")), (0.0, 4.0));
    let slow = value(&after, "fan_out seconds");
    assert_eq!((value(&before, "fan_out seconds"), slow), (0.0, 0.02), "the message waited for the worker");
}

#[test]
fn it_has_few_connections_and_the_oldest_that_asks_nothing_makes_room() {
    let (memory, _server) = started(admin_setup(1));
    let held: Vec<_> = (0..8).map(|_| memory.connect_admin()).collect();
    let late = asked(memory.connect_admin(), "/live");
    assert!(taken(&late).starts_with("HTTP/1.1 200 "));
    assert!(held[0].is_closed() && held[1..].iter().all(|one| !one.is_closed()));
    let client = opened(&memory);
    client.send(&text("clients are not kept waiting"));
    assert_eq!(client.take(), heard("clients are not kept waiting"));
    // Whoever has its answer goes before whoever has asked nothing.
    let metrics = asked(memory.connect_admin(), "/metrics");
    assert!(taken(&metrics).starts_with("HTTP/1.1 200 "));
    assert!(late.is_closed() && held[1..].iter().all(|one| !one.is_closed()));
}

#[test]
fn the_end_does_not_wait_for_it_and_until_then_it_answers() {
    let (memory, server) = started(admin_setup(2));
    let (_silent, client) = (memory.connect_admin(), opened(&memory));
    server.stop();
    memory.run();
    let ready = taken(&asked(memory.connect_admin(), "/ready"));
    assert!(ready.ends_with("not ready: this instance is shutting down\n"), "{ready}");
    let metrics = taken(&asked(memory.connect_admin(), "/metrics"));
    assert_eq!(value(&metrics, "draining"), 1.0);
    client.change(|pipe| pipe.input_ends = true);
    assert_eq!(memory.running(), 0);
}

#[test]
fn an_address_that_is_taken_is_named_with_the_option_to_change() {
    let memory = Memory::default();
    memory.lock().taken = Some(9090);
    let server = memory.start(Server::<Memory>::start(admin_setup(3)));
    let error: ServeError = server.lock().unwrap().take().unwrap().unwrap_err();
    let told = "port 9090 of localhost is taken by another process: stop that, or choose another --admin-listen";
    assert_eq!((error.to_string().as_str(), memory.running()), (told, 0));
}
