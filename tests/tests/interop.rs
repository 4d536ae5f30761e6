//! Clients in other languages connect to one instance and chat with a client of another; another's parser reads metrics.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use fanfare_tests::client::Client;
use fanfare_tests::process::Process;
use fanfare_tests::redis::Redis;
use fanfare_tests::server::Program;

const TEXT: &str = "grüße 🎺 from elsewhere";
const ANSWER: &str = "and back <b>\"1 & 2\"</b>";

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("interop").join(name)
}

fn tool(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(".tools").join(path)
}

/// Starts a foreign client with the addresses of an instance and of Redis, and answers it from another instance.
fn chats(foreign: impl Fn(&str, &str) -> Command) {
    let redis = Redis::start().unwrap();
    let servers = [(); 2].map(|()| Program::Tokio.start_on(&redis.url(), &[]).unwrap());
    let mut listener = Client::connect(servers[1].port(), "/chat/interop").unwrap();
    let url = format!("ws://127.0.0.1:{}/chat/interop", servers[0].port());
    let mut process = Process::start(&mut foreign(&url, &redis.url())).unwrap();
    let heard = listener.text();
    assert_eq!(heard.as_deref().ok(), Some(TEXT), "{heard:?} {:#?}", process.lines());
    listener.send(ANSWER).unwrap();
    let ended = process.wait(Duration::from_secs(15)).unwrap();
    assert_eq!(ended.code, Some(0), "{}", ended.text());
}

/// A program for the command line.
fn talk(program: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(script("talk"));
    command.args([TEXT, ANSWER]).arg(program).args(args);
    command
}

#[test]
fn node_ws_chats() {
    chats(|url, _| {
        let mut command = Command::new("node");
        command.arg(script("ws.mjs")).args([url, TEXT, ANSWER]);
        command
    });
}

#[test]
fn python_websockets_chats() {
    chats(|url, _| {
        let mut command = Command::new(tool("python/bin/python"));
        command.arg(script("python_websockets.py")).args([url, TEXT, ANSWER]);
        command
    });
}

#[test]
fn a_python_program_with_a_redis_client_takes_part() {
    chats(|_, redis| {
        let mut command = Command::new(tool("python/bin/python"));
        command.arg(script("redis_py.py")).args([redis, "chat:interop", TEXT, ANSWER]);
        command
    });
}

#[test]
fn wscat_chats() {
    // It drops what it reads from standard input before it is connected, so it is told in its arguments.
    chats(|url, _| {
        let args = ["--no-color", "--connect", url, "--execute", TEXT, "--wait", "-1"];
        talk(&script("node_modules/.bin/wscat"), &args)
    });
}

#[test]
fn websocat_chats() {
    chats(|url, _| talk(&tool("bin/websocat"), &["--linemode-strip-newlines", url]));
}

#[test]
fn prometheus_own_parser_reads_the_metrics() {
    let mut server = Program::Tokio.start(&["--admin-listen", "127.0.0.1:0"]).unwrap();
    let url = format!("http://127.0.0.1:{}/metrics", server.admin_port().unwrap());
    let mut client = Client::connect(server.port(), "/chat").unwrap();
    client.send("something to count").unwrap();
    client.text().unwrap();
    let mut command = Command::new(tool("python/bin/python"));
    command.arg(script("prometheus_metrics.py")).arg(url);
    let ended = Process::start(&mut command).unwrap().wait(Duration::from_secs(15)).unwrap();
    assert_eq!(ended.code, Some(0), "{}", ended.text());
    for family in ["fanfare_deliveries counter", "fanfare_sessions gauge", "fanfare_fan_out_seconds histogram"] {
        assert!(ended.text().lines().any(|line| line == family), "{family} is not in {}", ended.text());
    }
}
