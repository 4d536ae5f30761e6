//! What people are told, and that telling stops nothing: outputs that nobody reads, signals, how much is logged, JSON.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs::File;
use std::io::{ErrorKind, PipeWriter, Read, Write, pipe};
use std::process::Stdio;
use std::thread::sleep;
use std::time::Duration;

use fanfare_tests::client::Client;
use fanfare_tests::metrics::Metrics;
use fanfare_tests::port::ReservedPort;
use fanfare_tests::process::{Process, Signal};
use fanfare_tests::raw::{Raw, good_request};
use fanfare_tests::redis::Redis;
use fanfare_tests::resp::Reply;
use fanfare_tests::server::{Program, Server};
use fanfare_tests::wait_until;
use serde_json::Value;

fanfare_tests::for_each_program! {
    a_log_that_nobody_reads_stops_nothing
    a_log_that_cannot_be_written_stops_nothing
    a_reader_that_has_gone_stops_nothing
    signals_other_than_those_that_end_it_do_nothing
    every_line_is_json_from_the_first_to_the_last
    losses_in_a_row_are_told_now_and_then
    sessions_are_logged_with_their_client_if_that_is_wanted
    an_instance_says_who_it_is
    what_clients_say_is_escaped_cut_and_limited
}

const SOON: Duration = Duration::from_secs(5);

/// An instance whose standard error is `log`, and its address for operation.
fn start(program: Program, args: &[&str], log: impl Into<Stdio>) -> (Server, ReservedPort) {
    let port = ReservedPort::new().unwrap();
    let admin = port.number();
    let (listen, mut command) =
        (format!("127.0.0.1:{admin}"), program.command(&["--host", "127.0.0.1", "--port", "0"]));
    command.args(["--workers", "2", "--admin-listen", &listen]).args(args);
    let command = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
    (Server::of(Process::start_between(command).unwrap()).unwrap(), port)
}

/// Has it log a line.
fn cause_line(server: &Server, number: usize) {
    let mut raw = Raw::connect(server.port()).unwrap();
    let origin = format!("\r\nOrigin: http://evil-{number}.example\r\n\r\n");
    raw.send(good_request(server.port(), "/chat").replace("\r\n\r\n", &origin).as_bytes()).unwrap();
    assert_eq!(raw.answer(false).unwrap().status, 403);
}

fn is_served(server: &Server) {
    let mut client = Client::connect(server.port(), "/chat").unwrap();
    client.send("hello").unwrap();
    assert_eq!(client.text().unwrap(), "hello");
}

fn ends(mut server: Server) {
    server.terminate().unwrap();
    assert_eq!(server.wait(Duration::from_secs(10)).unwrap().code, Some(0));
}

/// Fills a pipe up to its last byte.
fn fill(mut writer: &PipeWriter) {
    rustix::io::ioctl_fionbio(writer, true).unwrap();
    for size in [4_096, 1] {
        while match writer.write(&vec![b'x'; size]) {
            Ok(_) => true,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock);
                false
            }
        } {}
    }
}

fn a_log_that_nobody_reads_stops_nothing(program: Program) {
    for is_blocking in [true, false] {
        let (mut reader, writer) = pipe().unwrap();
        fill(&writer);
        rustix::io::ioctl_fionbio(&writer, !is_blocking).unwrap();
        let (server, admin) = start(program, &[], writer.try_clone().unwrap());
        for number in 0..3 {
            cause_line(&server, number);
        }
        is_served(&server);
        assert!(Metrics::scrape(admin.number()).is_ok());
        ends(server);
        drop(writer);
        let mut text = Vec::new();
        reader.read_to_end(&mut text).unwrap();
        assert!(!String::from_utf8_lossy(&text).contains("evil"), "it did not wait for room");
    }
}

fn a_log_that_cannot_be_written_stops_nothing(program: Program) {
    let full = || File::options().write(true).open("/dev/full").unwrap();
    let (server, admin) = start(program, &[], full());
    cause_line(&server, 1);
    is_served(&server);
    wait_until("lines to be counted", SOON, || {
        Metrics::scrape(admin.number()).unwrap().value("log_lines_dropped_total") >= 2.0
    })
    .unwrap();
    ends(server);
    let mut refused = program.command(&["--nonsense"]);
    let status = refused.stdout(full()).stderr(full()).status().unwrap();
    assert_eq!(status.code(), Some(2));
    let mut helped = program.command(&["--help"]);
    assert_eq!(helped.stdout(full()).stderr(full()).status().unwrap().code(), Some(0));
}

fn a_reader_that_has_gone_stops_nothing(program: Program) {
    let (reader, writer) = pipe().unwrap();
    let (server, admin) = start(program, &[], writer);
    drop(reader);
    cause_line(&server, 1);
    is_served(&server);
    wait_until("the line to be counted", SOON, || {
        Metrics::scrape(admin.number()).unwrap().value("log_lines_dropped_total") >= 1.0
    })
    .unwrap();
    ends(server);
}

fn signals_other_than_those_that_end_it_do_nothing(program: Program) {
    let mut server = program.start(&["--drain-delay", "1500ms"]).unwrap();
    let mut client = Client::connect(server.port(), "/chat").unwrap();
    for (signal, name) in
        [(Signal::HUP, "SIGHUP"), (Signal::USR1, "SIGUSR1"), (Signal::USR2, "SIGUSR2"), (Signal::ALARM, "SIGALRM")]
    {
        server.signal(signal).unwrap();
        wait_until("the signal to be logged", SOON, || server.text().contains(name)).unwrap();
    }
    client.send("still here").unwrap();
    assert_eq!(client.text().unwrap(), "still here");
    for _ in 0..3 {
        server.signal(Signal::QUIT).unwrap();
        sleep(Duration::from_millis(100));
    }
    let ended = server.wait(Duration::from_secs(10)).unwrap();
    assert_eq!(ended.code, Some(0), "the same signal within a second is one: {ended:?}");
}

/// Every line as an object that has the name of an event.
fn objects(text: &str) -> Vec<Value> {
    let object = |line: &str| {
        let object: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        for member in ["timestamp", "level", "event", "message"] {
            assert!(object[member].is_string(), "{member}: {line}");
        }
        object
    };
    text.lines().map(object).collect()
}

fn events(text: &str) -> Vec<String> {
    objects(text).iter().map(|object| object["event"].as_str().unwrap_or_default().to_owned()).collect()
}

fn every_line_is_json_from_the_first_to_the_last(program: Program) {
    let redis = Redis::start().unwrap();
    let url = redis.url();
    let json = ["--log-format", "json", "--host", "127.0.0.1", "--port", "0", "--redis-url", &url];
    let mut command = program.command(&json);
    let mut server = Server::start_command(command.env("FANFARE_PROT", "1").args(["--log-level", "trace"])).unwrap();
    cause_line(&server, 1);
    is_served(&server);
    redis.connect().unwrap().command(&[b"CLIENT", b"KILL", b"TYPE", b"pubsub"]).unwrap();
    wait_until("Redis to be back", SOON, || server.text().contains("redis_back")).unwrap();
    server.terminate().unwrap();
    let text = server.wait(Duration::from_secs(10)).unwrap().text();
    let seen = events(&text);
    for event in
        ["unknown_setting", "listening", "origin_refused", "redis_lost", "gap_began", "gap_ended", "shutting_down"]
    {
        assert!(seen.iter().any(|other| other == event), "{event}: {text}");
    }
    for (args, event) in [
        (&["--redis-url", "redis://127.0.0.1:1", "--log-format", "json"][..], "ended"),
        (&["--log-format=json", "--nonsense"], "refused_settings"),
        (&["--log-format", "json", "--port", "x"], "refused_settings"),
    ] {
        let text = program.run(args).unwrap().text();
        let [object] = &objects(&text)[..] else { panic!("{text}") };
        assert_eq!((&object["event"], &object["level"]), (&event.into(), &"ERROR".into()), "{text}");
    }
    for question in ["--help", "-h", "--version"] {
        let answer = program.run(&["--log-format", "json", question]).unwrap();
        let answers = events(&answer.text());
        assert!(answer.code == Some(0) && !answers.is_empty(), "{question}: {answer:?}");
        assert!(answers.iter().all(|event| event == "answer"), "{question}: {answers:?}");
    }
}

fn losses_in_a_row_are_told_now_and_then(program: Program) {
    let redis = Redis::start().unwrap();
    let server = program.start_on(&redis.url(), &[]).unwrap();
    wait_until("ready", SOON, || server.text().contains("ready: published")).unwrap();
    let before = server.text().lines().count();
    let mut admin = redis.connect().unwrap();
    for _ in 0..8 {
        admin.command(&[b"CLIENT", b"KILL", b"TYPE", b"pubsub"]).unwrap();
        sleep(Duration::from_millis(600));
    }
    wait_until("the end of a loss", SOON, || server.text().contains("Redis is back")).unwrap();
    let text = server.text();
    assert!(text.lines().count() - before <= 8, "{text}");
}

fn what_clients_say_is_escaped_cut_and_limited(program: Program) {
    let server = program.start(&["--workers", "1"]).unwrap();
    let send = |origin: &str| {
        let mut raw = Raw::connect(server.port()).unwrap();
        let origin = format!("\r\nOrigin: {origin}\r\n\r\n");
        raw.send(good_request(server.port(), "/chat").replace("\r\n\r\n", &origin).as_bytes()).unwrap();
        let answer = raw.answer(false).unwrap();
        assert_eq!(answer.status, 403);
        assert!(answer.body.len() <= 2 << 10, "{}", answer.body.len());
    };
    let before = server.text().len();
    for origin in ["http://\u{300}", "\u{202e}\u{2028}\u{200b}", "http://$(reboot)"] {
        send(&origin.repeat(500));
        send(origin);
    }
    for number in 0..100 {
        send(&format!("http://evil-{number}.example"));
    }
    is_served(&server);
    wait_until("the clients' text", SOON, || server.text().contains("\\u{202e}")).unwrap();
    let text = server.text().split_off(before);
    assert!(text.lines().count() <= 4, "four lines of one peer: {text}");
    assert!(text.lines().all(|line| line.chars().count() <= 700), "{text}");
    assert!(!text.contains(['\u{300}', '\u{202e}', '\u{2028}', '\u{200b}']), "{text}");
}

fn sessions_are_logged_with_their_client_if_that_is_wanted(program: Program) {
    let args = ["--log-format", "json", "--log-level", "info,sessions=debug", "--trusted-proxy", "127.0.0.0/8"];
    let server = program.start(&args).unwrap();
    let join = |path: &str| {
        let mut raw = Raw::connect(server.port()).unwrap();
        let fields = "\r\nX-Forwarded-For: 192.0.2.66, 198.51.100.9\r\n\r\n";
        raw.send(good_request(server.port(), path).replace("\r\n\r\n", fields).as_bytes()).unwrap();
        let status = raw.answer(false).unwrap().status;
        (raw, status)
    };
    let mut numbers = Vec::new();
    for _ in 0..3 {
        assert_eq!(join("/chat/tea").1, 101);
        wait_until("the end to be logged", SOON, || server.text().matches("session_closed").count() > numbers.len())
            .unwrap();
        let objects = objects(&server.text());
        let of = |event: &str| objects.iter().rfind(|object| object["event"] == event).unwrap().clone();
        let (opened, closed) = (of("session_opened"), of("session_closed"));
        for object in [&opened, &closed] {
            let facts = ["client", "proxy", "channel"].map(|fact| object[fact].as_str().unwrap());
            assert_eq!(facts, ["198.51.100.9", "127.0.0.1", "chat:tea"]);
            assert_eq!(object["session"], opened["session"]);
        }
        assert_eq!(closed["by"], "client");
        assert!(!numbers.contains(&opened["session"]), "{opened}");
        numbers.push(opened["session"].clone());
    }
    assert_eq!(join("/nowhere").1, 404);
    wait_until("the refusal to be logged", SOON, || server.text().contains("nothing is here")).unwrap();
    let quiet = program.start(&[]).unwrap();
    is_served(&quiet);
    assert!(!quiet.text().contains("session"), "{}", quiet.text());
}

fn an_instance_says_who_it_is(program: Program) {
    let redis = Redis::start().unwrap();
    let admin = ["--admin-listen", "127.0.0.1:0"];
    let mut named = program.start_on(&redis.url(), &[&admin[..], &["--name", "web-1"]].concat()).unwrap();
    let unnamed = program.start_on(&redis.url(), &[]).unwrap();
    let list = redis.connect().unwrap().command(&[b"CLIENT", b"LIST"]).unwrap();
    let Reply::Bulk(Some(list)) = list else { panic!("{list:?}") };
    let list = String::from_utf8(list).unwrap();
    for name in ["fanfare-subscriber:web-1", "fanfare-publisher:web-1", &format!("-{} ", unnamed.id())] {
        assert!(list.contains(name), "{name}: {list}");
    }
    let port = named.admin_port().unwrap();
    let text = String::from_utf8(fanfare_tests::metrics::get(port, "/metrics").unwrap().body).unwrap();
    for sample in ["fanfare_bus{kind=\"redis\"} 1", "fanfare_bus{kind=\"process\"} 0", "process_open_fds ", "commit="] {
        assert!(text.contains(sample), "{sample}: {text}");
    }
    let alone = program.run(&["--require-redis"]).unwrap();
    assert_eq!(alone.code, Some(2), "{alone:?}");
    assert!(alone.text().contains("--redis-url"), "{alone:?}");
}
