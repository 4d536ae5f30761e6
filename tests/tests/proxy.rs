//! The proxy of the tests does what they think it does.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use fanfare_tests::proxy::{End, Fault, Lane, Proxy, Way};
use fanfare_tests::redis::Redis;
use fanfare_tests::wait_until;

/// How long a test looks for what must not come.
const QUIET: Duration = Duration::from_millis(150);

/// How long it waits for what must come.
const PATIENCE: Duration = Duration::from_secs(20);

const SUBSCRIBER: &[Lane] = &[Lane::Subscriber];
const PUBLISHER: &[Lane] = &[Lane::Publisher];

/// A Redis, the proxy before it and one connection to it that has given a name and gets the messages of a channel.
struct Scene {
    redis: Redis,
    proxy: Proxy,
    stream: TcpStream,
}

impl Scene {
    fn set() -> Self {
        let redis = Redis::start().unwrap();
        let proxy = Proxy::start(redis.port()).unwrap();
        let stream = TcpStream::connect(("127.0.0.1", proxy.port())).unwrap();
        let mut scene = Self { redis, proxy, stream };
        scene.ask("HELLO 3\r\nCLIENT SETNAME fanfare-subscriber\r\nSUBSCRIBE news\r\n");
        let greeting = scene.hear_until("news\r\n:1\r\n");
        assert!(greeting.contains("+OK\r\n"), "{greeting}");
        scene
    }

    fn ask(&mut self, command: &str) {
        self.stream.write_all(command.as_bytes()).unwrap();
    }

    fn publish(&self, text: &str) {
        assert_eq!(self.redis.connect().unwrap().publish("news", text.as_bytes()).unwrap(), 1);
    }

    /// What comes until it ends with `end`.
    fn hear_until(&mut self, end: &str) -> String {
        let mut all = String::new();
        self.stream.set_read_timeout(Some(PATIENCE)).unwrap();
        while !all.ends_with(end) {
            let mut chunk = [0; 4096];
            match self.stream.read(&mut chunk) {
                Ok(0) => panic!("it ended after {all:?}"),
                Ok(length) => all.push_str(str::from_utf8(&chunk[..length]).unwrap()),
                Err(e) => panic!("{e} after {all:?}"),
            }
        }
        all
    }

    fn hears_nothing(&mut self) {
        self.stream.set_read_timeout(Some(QUIET)).unwrap();
        let mut chunk = [0; 4096];
        match self.stream.read(&mut chunk) {
            Ok(length) => panic!("it heard {}", chunk[..length].escape_ascii()),
            Err(e) => assert_eq!(e.kind(), ErrorKind::WouldBlock),
        }
    }

    /// How the connection ends: `Ok` for a FIN.
    fn end(&mut self) -> Result<(), ErrorKind> {
        self.stream.set_read_timeout(Some(PATIENCE)).unwrap();
        match self.stream.read(&mut [0; 16]) {
            Ok(length) => {
                assert_eq!(length, 0);
                Ok(())
            }
            Err(e) => Err(e.kind()),
        }
    }
}

#[test]
fn without_a_fault_everything_passes() {
    let mut scene = Scene::set();
    scene.ask("PING\r\n");
    assert_eq!(scene.hear_until("PONG\r\n"), "+PONG\r\n");
    scene.publish(&"x".repeat(100_000));
    let message = scene.hear_until("x\r\n");
    assert_eq!(message.len(), 100_000 + ">3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$100000\r\n\r\n".len());
}

#[test]
fn a_cut_is_a_fin_and_a_reset_a_rst_of_that_lane_alone() {
    let mut scene = Scene::set();
    scene.proxy.end(PUBLISHER, End::Reset);
    scene.publish("still there");
    scene.hear_until("still there\r\n");
    scene.proxy.end(SUBSCRIBER, End::Cut);
    assert_eq!(scene.end(), Ok(()));

    let mut scene = Scene::set();
    scene.proxy.end(SUBSCRIBER, End::Reset);
    assert_eq!(scene.end(), Err(ErrorKind::ConnectionReset));
    wait_until("both connections to be forgotten", PATIENCE, || scene.proxy.connections() == 0).unwrap();
}

#[test]
fn who_is_refused_finds_nobody_and_the_port_comes_back() {
    let mut scene = Scene::set();
    scene.proxy.refuse();
    assert_eq!(TcpStream::connect(("127.0.0.1", scene.proxy.port())).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    scene.publish("what stands, stands");
    scene.hear_until("stands\r\n");
    scene.proxy.heal().unwrap();
    assert!(TcpStream::connect(("127.0.0.1", scene.proxy.port())).is_ok());
}

#[test]
fn what_is_swallowed_is_gone_and_so_is_the_connection_afterwards() {
    for (way, reaches) in [(Way::ToRedis, true), (Way::ToInstance, false)] {
        let mut scene = Scene::set();
        scene.proxy.set(SUBSCRIBER, &[way], Fault::Swallow);
        scene.ask("PING\r\n");
        wait_until("it to be swallowed", PATIENCE, || scene.proxy.swallowed() >= "PING\r\n".len()).unwrap();
        scene.publish("one");
        if reaches {
            assert!(!scene.hear_until("one\r\n").contains("PONG"), "the other half is open");
        }
        scene.hears_nothing();
        scene.proxy.heal().unwrap();
        assert_eq!(scene.end(), Err(ErrorKind::ConnectionReset));
    }
}

#[test]
fn what_is_stalled_or_delayed_comes_later() {
    let mut scene = Scene::set();
    scene.proxy.set(SUBSCRIBER, &Way::ALL, Fault::Stall);
    scene.publish("late");
    scene.hears_nothing();
    scene.proxy.heal().unwrap();
    scene.hear_until("late\r\n");

    scene.proxy.set(SUBSCRIBER, &[Way::ToInstance], Fault::Delay(2 * QUIET));
    let start = Instant::now();
    scene.publish("later");
    scene.hear_until("later\r\n");
    assert!(start.elapsed() >= 2 * QUIET, "{:?}", start.elapsed());
}

#[test]
fn single_bytes_and_slow_bytes_are_the_same_bytes() {
    let digits = "0123456789".repeat(20);
    let message = format!(">3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$200\r\n{digits}\r\n");
    for (fault, pieces, least) in [(Fault::Split, message.len(), 0), (Fault::Slow(1_000), message.len() / 10, 200)] {
        let mut scene = Scene::set();
        scene.proxy.set(&Lane::ALL, &Way::ALL, fault);
        let (before, start) = (scene.proxy.pieces(), Instant::now());
        scene.publish(&digits);
        assert_eq!(scene.hear_until("9\r\n"), message);
        assert!(scene.proxy.pieces() >= before + pieces, "{} and then {}", before, scene.proxy.pieces());
        assert!(start.elapsed() >= Duration::from_millis(least), "{fault:?}: {:?}", start.elapsed());
    }
}

#[test]
fn who_is_mute_answers_and_delivers_nothing() {
    let mut scene = Scene::set();
    scene.proxy.set(SUBSCRIBER, &[Way::ToInstance], Fault::Mute);
    scene.publish("unheard");
    scene.ask("PING\r\nSUBSCRIBE more\r\n");
    let heard = scene.hear_until("more\r\n:2\r\n");
    assert!(heard.contains("+PONG\r\n") && !heard.contains("unheard"), "{heard}");
    scene.proxy.heal().unwrap();
    scene.publish("heard again");
    scene.hear_until("heard again\r\n");
}

#[test]
fn what_is_injected_stands_between_two_frames() {
    let mut scene = Scene::set();
    scene.proxy.inject(SUBSCRIBER, Way::ToInstance, b"-ERR injected\r\n");
    assert_eq!(scene.hear_until("injected\r\n"), "-ERR injected\r\n");
    scene.proxy.inject(SUBSCRIBER, Way::ToRedis, b"PING\r\n");
    assert_eq!(scene.hear_until("PONG\r\n"), "+PONG\r\n");
}
