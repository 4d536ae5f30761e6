//! How an instance ends and another takes over: who is told what and when, and that nobody is turned away in between.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs::File;
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use fanfare_tests::client::Client;
use fanfare_tests::process::Process;
use fanfare_tests::proxy::Proxy;
use fanfare_tests::raw::Raw;
use fanfare_tests::redis::Redis;
use fanfare_tests::server::Program;
use fanfare_tests::wait_until;

fanfare_tests::for_each_program! {
    a_listening_socket_that_is_handed_over_is_used
    a_descriptor_that_does_not_listen_is_named
    a_listening_socket_of_the_name_admin_is_for_operation
    what_is_handed_to_another_process_is_left_alone
    a_restart_on_the_same_listening_socket_turns_nobody_away
    new_clients_are_served_for_the_drain_delay_and_then_refused
    closes_are_spread_and_few_sessions_take_no_time
    who_does_not_leave_is_cut_off_and_that_is_no_failure
    what_redis_does_not_take_in_time_is_counted_in_one_line
    redis_may_come_back_within_the_drain_time
    a_second_signal_ends_it_at_once_with_a_line
}

fn status(port: u16, path: &str) -> u16 {
    let mut client = Raw::connect(port).unwrap();
    client.send(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes()).unwrap();
    client.answer(false).unwrap().status
}

/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(20);

const LOCAL: (&str, u16) = ("127.0.0.1", 0);

fn a_listening_socket_that_is_handed_over_is_used(program: Program) {
    let listener = TcpListener::bind(LOCAL).unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut server = program.start_on_listener(&listener, &["--port", "1", "--workers", "2"]).unwrap();
    assert_eq!(server.port(), port, "the line says where it really listens");
    wait_until("its warning", PATIENCE, || server.text().contains("--host and --port not used")).unwrap();
    drop(listener);
    let mut client = Client::connect(port, "/chat").unwrap();
    client.send("hello").unwrap();
    assert_eq!(client.text().unwrap(), "hello");
    drop(client);
    server.terminate().unwrap();
    assert_eq!(server.wait(PATIENCE).unwrap().code, Some(0));
}

fn a_descriptor_that_does_not_listen_is_named(program: Program) {
    let listener = TcpListener::bind(LOCAL).unwrap();
    let connected = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let file = File::open("/dev/null").unwrap();
    let refuses = |process: std::io::Result<Process>| {
        let ended = process.unwrap().wait(Duration::from_secs(10)).unwrap();
        assert_eq!(ended.code, Some(1), "{ended:?}");
        let [line] = ended.errors()[..] else { panic!("one line: {ended:?}") };
        assert!(line.contains("fd 3 is not a TCP socket that listens"), "{line}");
    };
    refuses(program.start_process_on(connected, &[]));
    refuses(program.start_process_on(file, &[]));
}

fn a_listening_socket_of_the_name_admin_is_for_operation(program: Program) {
    let listener = TcpListener::bind(LOCAL).unwrap();
    let port = listener.local_addr().unwrap().port();
    let args = ["--host", "127.0.0.1", "--port", "0"];
    let named = program.start_process_as("admin", listener, &args).unwrap();
    let server = fanfare_tests::server::Server::of(named).unwrap();
    assert_ne!(server.port(), port);
    assert_eq!([status(server.port(), "/metrics"), status(port, "/metrics")], [404, 200]);
}

fn what_is_handed_to_another_process_is_left_alone(program: Program) {
    let mut command = program.command(&["--host", "127.0.0.1", "--port", "0"]);
    // There is no such descriptor, so that to use it would fail.
    command.env("LISTEN_FDS", "1").env("LISTEN_PID", "1");
    let server = fanfare_tests::server::Server::start_command(&mut command).unwrap();
    assert!(Client::connect(server.port(), "/chat").is_ok());
}

fn a_restart_on_the_same_listening_socket_turns_nobody_away(program: Program) {
    let listener = TcpListener::bind(LOCAL).unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut old = program.start_on_listener(&listener, &["--workers", "2"]).unwrap();
    let over = AtomicBool::new(false);
    let connected = [(); 4].map(|()| AtomicUsize::new(0));
    let all_connect_again = || {
        let before = connected.each_ref().map(|count| count.load(Ordering::Relaxed));
        wait_until("all clients to connect again and again", PATIENCE, || {
            connected.iter().zip(before).all(|(count, before)| count.load(Ordering::Relaxed) > before + 10)
        })
    };
    let outcome = thread::scope(|scope| {
        for count in &connected {
            let (over, port) = (&over, port);
            scope.spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    drop(Raw::upgrade(port, "/chat").unwrap());
                    count.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let mut taken_over = || {
            all_connect_again()?;
            let new = program.start_on_listener(&listener, &["--workers", "2"])?;
            old.terminate()?;
            let ended = old.wait(PATIENCE)?;
            all_connect_again()?;
            Ok::<_, std::io::Error>((new, ended))
        };
        let outcome = taken_over();
        // Whatever came of it: the clients have to end, and before the server.
        over.store(true, Ordering::Relaxed);
        outcome
    });
    let (new, ended) = outcome.unwrap();
    assert_eq!((new.port(), ended.code), (port, Some(0)), "{ended:?}");
}

fn new_clients_are_served_for_the_drain_delay_and_then_refused(program: Program) {
    let mut server = program.start(&["--drain-delay", "3s", "--workers", "2"]).unwrap();
    let mut early = Client::connect(server.port(), "/chat").unwrap();
    let start = Instant::now();
    server.terminate().unwrap();
    wait_until("it to be draining", PATIENCE, || status(server.port(), "/ready") == 503).unwrap();
    assert_eq!(status(server.port(), "/live"), 200);
    let mut late = Client::connect(server.port(), "/chat").unwrap();
    late.send("still here").unwrap();
    assert_eq!((early.text().unwrap(), late.text().unwrap()), ("still here".into(), "still here".into()));
    wait_until("the port to be closed", PATIENCE, || Raw::connect(server.port()).is_err()).unwrap();
    assert!(start.elapsed() >= Duration::from_millis(2_950), "{:?}", start.elapsed());
    drop((early, late));
    assert_eq!(server.wait(PATIENCE).unwrap().code, Some(0));
}

fn closes_are_spread_and_few_sessions_take_no_time(program: Program) {
    // A busy machine makes any of them late, but not the quickest of some.
    const ATTEMPTS: usize = 5;
    for (count, least, most) in [(3, 0, 700), (200, 500, 3_000)] {
        let attempts = (0..ATTEMPTS).map(|_| closed_within(program, count));
        let closed =
            attempts.inspect(|&closed| assert!(closed >= least, "{count}: {closed}")).find(|&closed| closed < most);
        assert!(closed.is_some(), "{count} sessions were not closed within {most} ms");
    }
}

/// How long it takes until so many sessions are closed, in milliseconds.
fn closed_within(program: Program, count: usize) -> u128 {
    let mut server = program.start(&["--workers", "2"]).unwrap();
    let clients: Vec<_> = (0..count).map(|_| Raw::upgrade(server.port(), "/chat").unwrap()).collect();
    let start = Instant::now();
    server.terminate().unwrap();
    thread::scope(|scope| {
        for mut client in clients {
            scope.spawn(move || {
                assert_eq!(client.frame().unwrap().close_code(), Some(1001));
                // Its end is its answer.
            });
        }
    });
    let closed = start.elapsed().as_millis();
    assert_eq!(server.wait(PATIENCE).unwrap().code, Some(0));
    closed
}

fn who_does_not_leave_is_cut_off_and_that_is_no_failure(program: Program) {
    let mut server = program.start(&["--drain-time", "1s"]).unwrap();
    let mut silent = Raw::upgrade(server.port(), "/chat").unwrap();
    server.terminate().unwrap();
    assert_eq!(silent.frame().unwrap().close_code(), Some(1001));
    let ended = server.wait(Duration::from_secs(5)).unwrap();
    assert_eq!(ended.code, Some(0), "nothing that was accepted is lost: {ended:?}");
    assert!(ended.text().contains("dropping the remaining sessions"), "{ended:?}");
}

fn what_redis_does_not_take_in_time_is_counted_in_one_line(program: Program) {
    let redis = Redis::start().unwrap();
    let mut server = program.start_on(&redis.url(), &["--drain-time", "2s"]).unwrap();
    let mut client = Client::connect(server.port(), "/chat").unwrap();
    redis.freeze().unwrap();
    for number in 0..100 {
        client.send(&number.to_string()).unwrap();
    }
    client.ping().unwrap();
    drop(client);
    let start = Instant::now();
    server.terminate().unwrap();
    let ended = server.wait(PATIENCE).unwrap();
    redis.thaw().unwrap();
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let said = ended.errors().iter().filter(|line| line.contains("100 accepted messages were lost")).count();
    assert_eq!(said, 1, "{ended:?}");
}

fn redis_may_come_back_within_the_drain_time(program: Program) {
    let mut redis = Redis::start().unwrap();
    let proxy = Proxy::start(redis.port()).unwrap();
    let mut server = program.start_on(&proxy.url(), &["--drain-time", "30s"]).unwrap();
    let mut client = Client::connect(server.port(), "/chat").unwrap();
    redis.kill().unwrap();
    proxy.refuse();
    // Both of its connections have to end first: what it writes into one that still stands is lost with it.
    wait_until("both connections to end", PATIENCE, || proxy.connections() == 0).unwrap();
    wait_until("it to miss Redis", PATIENCE, || status(server.port(), "/ready") == 503).unwrap();
    client.send("patience").unwrap();
    client.ping().unwrap();
    drop(client);
    server.terminate().unwrap();
    wait_until("it to end", PATIENCE, || server.text().contains("shutting down")).unwrap();
    redis.restart().unwrap();
    // The foreign program is there before the instance finds that Redis is.
    let mut foreign = redis.connect().unwrap();
    foreign.subscribe("chat").unwrap();
    proxy.heal().unwrap();
    assert_eq!(foreign.message().unwrap(), b"patience");
    let ended = server.wait(PATIENCE).unwrap();
    assert_eq!(ended.code, Some(0), "{ended:?}");
}

fn a_second_signal_ends_it_at_once_with_a_line(program: Program) {
    let mut server = program.start(&["--drain-delay", "10s"]).unwrap();
    let _client = Raw::upgrade(server.port(), "/chat").unwrap();
    server.terminate().unwrap();
    wait_until("the first to be noticed", PATIENCE, || server.text().contains("shutting down")).unwrap();
    server.interrupt().unwrap();
    let ended = server.wait(Duration::from_secs(8)).unwrap();
    assert_eq!(ended.code, Some(130), "{ended:?}");
    assert!(ended.errors().iter().any(|line| line.contains("SIGINT again")), "{ended:?}");
}
