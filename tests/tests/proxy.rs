//! The proxy of the tests does what they think it does.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::thread::sleep;
use std::time::{Duration, Instant};

use fanfare_tests::proxy::{End, Fault, Lane, Proxy, Way};
use fanfare_tests::redis::Redis;
use fanfare_tests::wait_until;

const QUIET: Duration = Duration::from_millis(150);
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
        let greeting = scene.hear();
        assert!(greeting.contains("+OK\r\n") && greeting.ends_with("news\r\n:1\r\n"), "{greeting}");
        scene
    }

    fn ask(&mut self, command: &str) {
        self.stream.write_all(command.as_bytes()).unwrap();
    }

    fn publish(&self, text: &str) {
        assert_eq!(self.redis.connect().unwrap().publish("news", text.as_bytes()).unwrap(), 1);
    }

    /// What comes until nothing comes for a while.
    fn hear(&mut self) -> String {
        let mut all = Vec::new();
        let mut chunk = [0; 4096];
        self.stream.set_read_timeout(Some(QUIET)).unwrap();
        loop {
            match self.stream.read(&mut chunk) {
                Ok(0) => panic!("it ended after {}", all.escape_ascii()),
                Ok(length) => all.extend_from_slice(&chunk[..length]),
                Err(e) if e.kind() == ErrorKind::WouldBlock => return String::from_utf8(all).unwrap(),
                Err(e) => panic!("{e} after {}", all.escape_ascii()),
            }
        }
    }

    /// How the connection ends: `Ok` for a FIN.
    fn end(&mut self) -> Result<(), ErrorKind> {
        self.stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
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
    assert_eq!(scene.hear(), "+PONG\r\n");
    scene.publish(&"x".repeat(100_000));
    assert_eq!(scene.hear().len(), 100_000 + ">3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$100000\r\n\r\n".len());
}

#[test]
fn a_cut_is_a_fin_and_a_reset_a_rst_of_that_lane_alone() {
    let mut scene = Scene::set();
    scene.proxy.end(PUBLISHER, End::Reset);
    scene.publish("still there");
    assert!(scene.hear().contains("still there"));
    scene.proxy.end(SUBSCRIBER, End::Cut);
    assert_eq!(scene.end(), Ok(()));

    let mut scene = Scene::set();
    scene.proxy.end(SUBSCRIBER, End::Reset);
    assert_eq!(scene.end(), Err(ErrorKind::ConnectionReset));
    wait_until("both connections to be forgotten", QUIET, || scene.proxy.connections() == 0).unwrap();
}

#[test]
fn who_is_refused_finds_nobody_and_the_port_comes_back() {
    let mut scene = Scene::set();
    scene.proxy.refuse();
    assert_eq!(TcpStream::connect(("127.0.0.1", scene.proxy.port())).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    scene.publish("what stands, stands");
    assert!(scene.hear().contains("stands"));
    scene.proxy.heal().unwrap();
    assert!(TcpStream::connect(("127.0.0.1", scene.proxy.port())).is_ok());
}

#[test]
fn what_is_swallowed_is_gone_and_so_is_the_connection_afterwards() {
    for (way, reaches) in [(Way::ToRedis, true), (Way::ToInstance, false)] {
        let mut scene = Scene::set();
        scene.proxy.set(SUBSCRIBER, &[way], Fault::Swallow);
        scene.ask("PING\r\n");
        scene.publish("one");
        assert_eq!(scene.hear().contains("one"), reaches, "the other half is open");
        assert!(!scene.hear().contains("PONG"));
        scene.proxy.heal().unwrap();
        assert_eq!(scene.end(), Err(ErrorKind::ConnectionReset));
    }
}

#[test]
fn what_is_stalled_or_delayed_comes_later() {
    let mut scene = Scene::set();
    scene.proxy.set(SUBSCRIBER, &Way::ALL, Fault::Stall);
    scene.publish("late");
    assert_eq!(scene.hear(), "");
    scene.proxy.heal().unwrap();
    assert!(scene.hear().contains("late"));

    scene.proxy.set(SUBSCRIBER, &[Way::ToInstance], Fault::Delay(2 * QUIET));
    scene.publish("later");
    assert_eq!(scene.hear(), "");
    sleep(QUIET);
    assert!(scene.hear().contains("later"));
}

#[test]
fn single_bytes_and_slow_bytes_are_the_same_bytes() {
    for fault in [Fault::Split, Fault::Slow(1_000)] {
        let mut scene = Scene::set();
        scene.proxy.set(&Lane::ALL, &Way::ALL, fault);
        let start = Instant::now();
        scene.publish(&"0123456789".repeat(20));
        assert!(scene.hear().ends_with(&format!("{}\r\n", "0123456789".repeat(20))));
        let took = start.elapsed() - QUIET;
        assert_eq!(took > Duration::from_millis(200), fault != Fault::Split, "{took:?}");
    }
}

#[test]
fn who_is_mute_answers_and_delivers_nothing() {
    let mut scene = Scene::set();
    scene.proxy.set(SUBSCRIBER, &[Way::ToInstance], Fault::Mute);
    scene.publish("unheard");
    scene.ask("PING\r\nSUBSCRIBE more\r\n");
    let heard = scene.hear();
    assert!(heard.contains("+PONG\r\n") && heard.contains("subscribe") && !heard.contains("unheard"), "{heard}");
    scene.proxy.heal().unwrap();
    scene.publish("heard again");
    assert!(scene.hear().contains("heard again"));
}

#[test]
fn what_is_injected_stands_between_two_frames() {
    let mut scene = Scene::set();
    scene.proxy.inject(SUBSCRIBER, Way::ToInstance, b"-ERR injected\r\n");
    assert_eq!(scene.hear(), "-ERR injected\r\n");
    scene.proxy.inject(SUBSCRIBER, Way::ToRedis, b"PING\r\n");
    assert_eq!(scene.hear(), "+PONG\r\n");
}
