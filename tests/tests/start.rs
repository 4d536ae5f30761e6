//! How the server starts and ends: one clear line for people when it cannot start, and an orderly end when asked.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::TcpListener;
use std::thread::sleep;
use std::time::Duration;

use fanfare_tests::client::Client;
use fanfare_tests::port::ReservedPort;
use fanfare_tests::process::Ended;
use fanfare_tests::raw::{Answer, Raw};
use fanfare_tests::redis::Redis;
use fanfare_tests::server::{Program, Server};
use fanfare_tests::wait_until;

fanfare_tests::for_each_program! {
    a_wrong_password_is_named
    the_right_credentials_are_percent_decoded
    a_redis_that_is_not_there_is_named
    a_port_that_is_taken_is_named
    settings_that_make_no_sense_are_refused_at_once
    the_environment_is_read_and_flags_win
    help_and_version_go_to_standard_output
    the_page_is_served
    asked_to_end_it_says_goodbye_and_exits_with_zero
    what_was_accepted_leaves_before_the_end
    once_asked_to_end_it_refuses_new_clients_at_once
    a_redis_that_vanishes_later_ends_nothing
}

/// The one line on standard error of a server that refused to start.
fn complaint(program: Program, args: &[&str]) -> String {
    let ended = program.run(args).unwrap();
    assert!(ended.code.is_some_and(|code| code != 0), "{args:?}: {ended:?}");
    assert!(!ended.text().contains("panicked"), "{args:?}: {ended:?}");
    let errors = ended.errors();
    assert_eq!(errors.iter().filter(|line| !line.trim().is_empty()).count(), 1, "one line for {args:?}: {errors:#?}");
    errors.concat().to_lowercase()
}

fn on_any_port<'a>(args: &[&'a str]) -> Vec<&'a str> {
    [&["--host", "127.0.0.1", "--port", "0"], args].concat()
}

fn a_wrong_password_is_named(program: Program) {
    let redis = Redis::start_with(&["--requirepass", "s3cret"]).unwrap();
    let url = |credentials: &str| format!("redis://{credentials}127.0.0.1:{}", redis.port());
    for credentials in ["", ":wrong@", "default:wrong@", "nobody:s3cret@"] {
        let line = complaint(program, &on_any_port(&["--redis-url", &url(credentials)]));
        assert!(
            line.contains("redis") && (line.contains("password") || line.contains("auth")),
            "{credentials:?}: {line}"
        );
        assert!(!line.contains("s3cret") && !line.contains("wrong@"), "a password is not for logs: {line}");
    }
}

fn the_right_credentials_are_percent_decoded(program: Program) {
    let redis = Redis::start_with(&["--requirepass", "s3cret/@ %:é"]).unwrap();
    for credentials in [":s3cret%2F%40%20%25%3A%C3%A9@", "default:s3cret%2F%40%20%25%3A%C3%A9@"] {
        let url = format!("redis://{credentials}127.0.0.1:{}/1", redis.port());
        let server = program.start_on(&url, &[]).unwrap();
        let mut client = Client::connect(server.port(), "/chat").unwrap();
        client.send("hello").unwrap();
        assert_eq!(client.text().unwrap(), "hello");
        assert!(!server.text().contains("s3cret"), "a password is not for logs: {}", server.text());
    }
}

fn a_redis_that_is_not_there_is_named(program: Program) {
    // Reserved: nobody listens there.
    let reserved = ReservedPort::new().unwrap();
    let port = reserved.number();
    let line = complaint(program, &on_any_port(&["--redis-url", &format!("redis://127.0.0.1:{port}")]));
    assert!(line.contains("redis") && line.contains(&port.to_string()), "{line}");
}

fn a_port_that_is_taken_is_named(program: Program) {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let line = complaint(program, &["--host", "127.0.0.1", "--port", &port]);
    assert!(line.contains(&port), "{line}");

    let first = program.start(&[]).unwrap();
    let port = first.port().to_string();
    let line = complaint(program, &["--host", "127.0.0.1", "--port", &port]);
    assert!(line.contains(&port), "two instances never share a port: {line}");
}

fn settings_that_make_no_sense_are_refused_at_once(program: Program) {
    for args in [
        &["--nonsense"][..],
        &["--port", "70000"],
        &["--port", "http"],
        &["--workers", "-1"],
        &["--workers", "many"],
        &["--host", "no such host"],
        &["--redis-url", "http://localhost:6379"],
        &["--redis-url", "localhost:6379"],
        &["--redis-url", "redis://127.0.0.1:port"],
        &["--redis-url", ""],
        &["--route", ""],
        &["--route", "chat=chat"],
        &["--route", "/chat"],
        &["--route", "/chat="],
        &["--route", "/chat/{room=chat:{room}"],
        &["--route", "/chat/{room}=chat:{other}"],
        &["--route", "/chat=chat,sometimes"],
        &["--route", "/a=x", "--route", "/b=x,binary"],
        &["--head-timeout", "soon"],
        &["stray"],
    ] {
        complaint(program, args);
    }
}

fn the_environment_is_read_and_flags_win(program: Program) {
    let start = |envs: &[(&str, &str)], args: &[&str]| {
        let mut command = program.command(args);
        Server::start_command(command.envs(envs.iter().copied())).unwrap()
    };
    let reserved = ReservedPort::new().unwrap();
    let free = reserved.number();
    let from_environment = start(&[("HOST", "127.0.0.1"), ("PORT", &free.to_string())], &[]);
    assert_eq!(from_environment.port(), free);
    // The port of the environment is taken by now.
    let from_flag = start(&[("HOST", "127.0.0.1"), ("PORT", &free.to_string())], &["--port", "0"]);
    assert_ne!(from_flag.port(), free);

    let mut command = program.command(&on_any_port(&[]));
    let refused = fanfare_tests::process::Process::start(command.env("REDIS_URL", "http://x"))
        .unwrap()
        .wait(Duration::from_secs(10));
    assert!(refused.unwrap().code.is_some_and(|code| code != 0));
}

fn help_and_version_go_to_standard_output(program: Program) {
    let said = |args: &[&str]| {
        let ended = program.run(args).unwrap();
        assert_eq!((ended.code, ended.errors()), (Some(0), vec![]), "{args:?}");
        ended.text()
    };
    let help = said(&["--help"]);
    for name in ["--host", "--port", "--redis-url", "--workers", "--route", "PORT", "HOST", "REDIS_URL", "FANFARE_"] {
        assert!(help.contains(name), "{name} is missing in {help}");
    }
    let version = said(&["--version"]);
    assert!(version.trim_end().split(' ').next_back().unwrap().split('.').count() == 3, "{version}");
}

#[test]
fn the_help_of_the_binaries_differs_in_their_names_alone() {
    let help = |program: Program| program.run(&["--help"]).unwrap().text().replace(program.name(), "NAME");
    let [tokio, async_std, smol] = Program::ALL.map(help);
    assert_eq!(tokio, async_std);
    assert_eq!(tokio, smol);
}

fn the_page_is_served(program: Program) {
    let server = program.start(&[]).unwrap();
    let get = |method: &str| -> Answer {
        let mut raw = Raw::connect(server.port()).unwrap();
        raw.send(format!("{method} / HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes()).unwrap();
        let answer = raw.answer(method == "HEAD").unwrap();
        assert_eq!(raw.rest().unwrap(), b"", "nothing after the answer to {method}");
        answer
    };
    let page = get("GET");
    assert_eq!(page.status, 200);
    assert!(page.header("content-type").unwrap().starts_with("text/html"));
    assert!(page.header("content-security-policy").unwrap().contains("default-src 'none'"));
    assert_eq!(page.header("x-content-type-options"), Some("nosniff"));
    let text = String::from_utf8(page.body.clone()).unwrap();
    assert!(text.contains("id=\"chat\"") && text.contains("id=\"msg\""), "{text}");

    let head = get("HEAD");
    assert_eq!((head.status, head.headers), (200, page.headers));
}

/// Lets `ask` end a server with clients on two rooms, and returns how it ended.
fn end(program: Program, redis_url: Option<&str>, ask: impl Fn(&Server)) -> Ended {
    let redis = redis_url.map_or(vec![], |url| vec!["--redis-url", url]);
    let mut server = program.start(&[&redis[..], &["--workers", "2"]].concat()).unwrap();
    let connect = |path| Client::connect(server.port(), path).unwrap();
    let mut clients = [connect("/chat"), connect("/chat"), connect("/chat/tea"), connect("/chat/tea")];
    clients[0].send("last words").unwrap();
    assert_eq!(clients[1].text().unwrap(), "last words");
    ask(&server);
    for client in &mut clients {
        assert_eq!(client.close_code().unwrap(), Some(1001));
    }
    server.wait(Duration::from_secs(15)).unwrap()
}

fn asked_to_end_it_says_goodbye_and_exits_with_zero(program: Program) {
    let redis = Redis::start().unwrap();
    for url in [None, Some(redis.url())] {
        for ask in [Server::terminate, Server::interrupt] {
            let ended = end(program, url.as_deref(), |server| ask(server).unwrap());
            assert_eq!(ended.code, Some(0), "{ended:?}");
            assert!(!ended.text().contains("panicked"), "{ended:?}");
        }
    }
}

fn what_was_accepted_leaves_before_the_end(program: Program) {
    let redis = Redis::start().unwrap();
    let mut foreign = redis.connect().unwrap();
    foreign.subscribe("chat").unwrap();
    let mut server = program.start_on(&redis.url(), &[]).unwrap();
    let mut client = Client::connect(server.port(), "/chat").unwrap();
    redis.freeze().unwrap();
    for number in 0..100 {
        client.send(&number.to_string()).unwrap();
    }
    client.ping().unwrap();
    server.terminate().unwrap();
    sleep(Duration::from_millis(500));
    redis.thaw().unwrap();
    for number in 0..100 {
        assert_eq!(foreign.message().unwrap(), number.to_string().as_bytes());
    }
    assert_eq!(server.wait(Duration::from_secs(15)).unwrap().code, Some(0));
}

fn once_asked_to_end_it_refuses_new_clients_at_once(program: Program) {
    let mut server = program.start(&["--workers", "2"]).unwrap();
    // A client that never answers the Close keeps the drain going.
    let mut silent = Raw::upgrade(server.port(), "/chat").unwrap();
    server.terminate().unwrap();
    assert_eq!(silent.frame().unwrap().close_code(), Some(1001));
    wait_until("the port to be closed", Duration::from_secs(2), || Raw::connect(server.port()).is_err()).unwrap();
    assert!(server.wait(Duration::ZERO).is_err(), "it still waits for the client");
}

fn a_redis_that_vanishes_later_ends_nothing(program: Program) {
    let mut redis = Redis::start().unwrap();
    let mut server = program.start_on(&redis.url(), &[]).unwrap();
    let client = Client::connect(server.port(), "/chat").unwrap();
    redis.kill().unwrap();
    sleep(Duration::from_secs(3));
    client.leave().unwrap();
    assert!(server.wait(Duration::ZERO).is_err(), "it still runs");
    server.terminate().unwrap();
    let ended = server.wait(Duration::from_secs(15)).unwrap();
    assert_eq!(ended.code, Some(0), "{ended:?}");
}
