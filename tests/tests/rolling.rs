//! Three instances behind a load balancer are restarted one after the other while clients talk.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use fanfare_tests::balancer::Balancer;
use fanfare_tests::crowd::Crowd;
use fanfare_tests::port::ReservedPort;
use fanfare_tests::proxy::Proxy;
use fanfare_tests::redis::Redis;
use fanfare_tests::server::{Program, Server};
use fanfare_tests::watch::Watch;

fanfare_tests::for_each_program! {
    a_rolling_restart_under_load_doubles_nothing_and_loses_nothing_unknown
}

/// Longer than the balancer needs to notice.
const DRAIN_DELAY: Duration = Duration::from_secs(2);

/// How far apart the balancer and the watch may learn the same of an instance.
const APART: Duration = Duration::from_secs(1);

fn start(program: Program, port: u16, proxy: &Proxy) -> Server {
    let (port, delay) = (port.to_string(), format!("{}ms", DRAIN_DELAY.as_millis()));
    let url = proxy.url();
    let mut command = program.command(&["--host", "127.0.0.1", "--port", &port, "--workers", "2"]);
    command.args(["--redis-url", &url, "--wait-for-redis", "--probe-interval", "500ms"]);
    Server::start_command(command.args(["--drain-delay", &delay, "--drain-time", "1s"])).unwrap()
}

fn a_rolling_restart_under_load_doubles_nothing_and_loses_nothing_unknown(program: Program) {
    let redis = Redis::start().unwrap();
    let proxies: [_; 3] = std::array::from_fn(|_| Proxy::start(redis.port()).unwrap());
    let reserved: [_; 3] = std::array::from_fn(|_| ReservedPort::new().unwrap());
    let ports = reserved.each_ref().map(ReservedPort::number);
    let mut servers: [_; 3] = std::array::from_fn(|number| start(program, ports[number], &proxies[number]));
    let watches = ports.map(Watch::start);
    let balancer = Balancer::start(&ports).unwrap();
    let patience = Duration::from_secs(10);
    fanfare_tests::wait_until("all three", patience, || balancer.ready() == 3).unwrap();
    let mut crowd = Crowd::gather(&[balancer.port()], 45, 3, 100, 1).unwrap();
    crowd.live(Duration::from_millis(500)).unwrap();

    for number in 0..3 {
        let ended = crowd.summary().ended;
        servers[number].terminate().unwrap();
        let mut code = None;
        let mut has_ended = || servers[number].wait(Duration::ZERO).map(|ended| code = ended.code).is_ok();
        crowd.live_until("the end", patience, |_| has_ended()).unwrap();
        assert_eq!(code, Some(0), "all that was accepted has left");
        assert!(crowd.summary().ended > ended, "some clients were there");
        // It comes back, takes connections and does not reach Redis yet.
        proxies[number].refuse();
        servers[number] = start(program, ports[number], &proxies[number]);
        crowd.live(Duration::from_millis(500)).unwrap();
        assert_eq!(balancer.ready(), 2, "it takes connections and cannot deliver");
        proxies[number].heal().unwrap();
        crowd.live_until("it to be ready", patience, |_| balancer.ready() == 3).unwrap();
    }

    let summary = crowd.part(patience).unwrap();
    assert_eq!(summary.unexplained, 0, "{summary:?}");
    assert_eq!(balancer.turned_away(), 0, "two were there at any time");
    assert_eq!(summary.refusals, summary.ended, "every client was taken at its first attempt: {summary:?}");
    for handed in balancer.handed() {
        let watch = watches.iter().find(|watch| watch.port() == handed.port).unwrap();
        let words = watch.since(handed.asked - APART);
        let was_ready = words.iter().any(|word| word.is_ready && word.at <= handed.asked + APART);
        assert!(was_ready, "a client was handed to an instance that was not ready: {words:?}");
    }
}
