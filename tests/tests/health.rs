//! What operation is told: whether the process lives, whether it can deliver, and what it counts.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::TcpListener;
use std::process::Command;
use std::time::Duration;

use fanfare_tests::client::Client;
use fanfare_tests::metrics::{Metrics, get};
use fanfare_tests::raw::{Raw, good_request};
use fanfare_tests::redis::Redis;
use fanfare_tests::server::{Program, Server, Setup};
use fanfare_tests::wait_until;

fanfare_tests::for_each_setup! {
    a_known_exchange_adds_up_over_all_workers
}

fanfare_tests::for_each_program! {
    whether_it_is_ready_follows_redis_and_whether_it_lives_does_not
    operation_has_an_address_of_its_own_and_metrics_are_nowhere_else
    metrics_are_told_although_clients_have_taken_all_descriptors
    an_address_for_operation_that_cannot_be_had_is_named
    load_balancers_are_answered_however_old_their_http_is
}

const ADMIN: [&str; 2] = ["--admin-listen", "127.0.0.1:0"];

fn a_known_exchange_adds_up_over_all_workers(setup: &Setup) {
    for workers in ["1", "2"] {
        let mut server = setup.start(&[&ADMIN[..], &["--workers", workers]].concat()).unwrap();
        let admin = server.admin_port().unwrap();
        let mut clients: Vec<_> = (0..4).map(|_| Client::connect(server.port(), "/chat/sum").unwrap()).collect();
        for number in 0..10 {
            clients[0].send(&format!("message {number}")).unwrap();
        }
        for client in &mut clients {
            for number in 0..10 {
                assert_eq!(client.text().unwrap(), format!("message {number}"));
            }
        }
        clients.remove(3).leave().unwrap();
        assert!(Client::connect(server.port(), "/nowhere").is_err());
        let ended =
            || Metrics::scrape(admin).unwrap().value("sessions_closed_total{by=\"client\",code=\"none\"}") == 1.0;
        wait_until("the end of a session to be counted", Duration::from_secs(5), ended).unwrap();

        let metrics = Metrics::scrape(admin).unwrap();
        for (sample, value) in [
            ("workers", workers.parse().unwrap()),
            ("workers_late", 0.0),
            ("ready", 1.0),
            ("sessions{stage=\"open\"}", 3.0),
            ("sessions_opened_total", 4.0),
            ("refusals_total{error=\"not_found\"}", 1.0),
            ("client_messages_total", 10.0),
            ("publishes_total", 10.0),
            ("bus_messages_total", 10.0),
            ("deliveries_total", 40.0),
            ("channels", 1.0),
            ("channels_subscribed", 1.0),
            ("buffer_bytes{buffer=\"publishes\"}", 0.0),
            ("buffer_bytes{buffer=\"queues\"}", 0.0),
        ] {
            assert_eq!(metrics.value(sample), value, "{sample} with {workers} workers");
        }
        // Each worker takes at least one turn and at most one for each message.
        let turns = metrics.value("fan_out_seconds_count");
        assert!((1.0..=20.0).contains(&turns), "{turns}");
        assert!(metrics.value("fan_out_seconds_sum") > 0.0 && metrics.value("uptime_seconds") > 0.0);
        // Four sessions were sent ten frames of eleven bytes each.
        assert!(metrics.value("client_sent_bytes_total") > 440.0);
    }
}

fn whether_it_is_ready_follows_redis_and_whether_it_lives_does_not(program: Program) {
    let mut redis = Redis::start().unwrap();
    let mut server = program.start_on(&redis.url(), &[&ADMIN[..], &["--no-chat", "--route", "/a=a"]].concat()).unwrap();
    let ports = [server.port(), server.admin_port().unwrap()];
    let all_say = |status: u16, body: &str| {
        ports.iter().all(|&port| {
            let answer = get(port, "/ready").unwrap();
            answer.status == status && answer.body == body.as_bytes()
        })
    };
    wait_until("it to be ready", Duration::from_secs(5), || all_say(200, "ready\n")).unwrap();
    redis.kill().unwrap();
    let gone = || all_say(503, "not ready: no connection to Redis\n");
    wait_until("it to miss Redis", Duration::from_secs(5), gone).unwrap();
    for port in ports {
        let answer = get(port, "/live").unwrap();
        assert_eq!(
            (answer.status, &answer.body[..], answer.header("cache-control")),
            (200, &b"live\n"[..], Some("no-store"))
        );
    }
    assert_eq!(Metrics::scrape(ports[1]).unwrap().value("unready{reason=\"no_connection\"}"), 1.0);
    redis.restart().unwrap();
    wait_until("it to be ready again", Duration::from_secs(10), || all_say(200, "ready\n")).unwrap();
}

fn operation_has_an_address_of_its_own_and_metrics_are_nowhere_else(program: Program) {
    let mut server = program.start(&ADMIN).unwrap();
    let (clients, admin) = (server.port(), server.admin_port().unwrap());
    assert_eq!(get(clients, "/metrics").unwrap().status, 404);
    let metrics = get(admin, "/metrics").unwrap();
    assert_eq!(
        (metrics.status, metrics.header("content-type")),
        (200, Some("text/plain; version=0.0.4; charset=utf-8"))
    );
    for path in ["/", "/chat"] {
        assert_eq!(get(admin, path).unwrap().status, 404);
    }
    for (port, path, status) in [(admin, "/chat", 404), (admin, "/live", 200), (clients, "/live", 404)] {
        let mut raw = Raw::connect(port).unwrap();
        raw.send(good_request(port, path).as_bytes()).unwrap();
        assert_eq!(raw.answer(false).unwrap().status, status, "a WebSocket at {path}");
    }
    for (method, path) in [("HEAD", "/metrics"), ("HEAD", "/ready"), ("POST", "/live"), ("DELETE", "/metrics")] {
        let mut raw = Raw::connect(admin).unwrap();
        raw.send(format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes()).unwrap();
        let answer = raw.answer(method == "HEAD").unwrap();
        let (status, allow) = if method == "HEAD" { (200, None) } else { (405, Some("GET, HEAD")) };
        assert_eq!((answer.status, answer.header("allow")), (status, allow));
    }
}

fn load_balancers_are_answered_however_old_their_http_is(program: Program) {
    let mut server = program.start(&ADMIN).unwrap();
    let (clients, admin) = (server.port(), server.admin_port().unwrap());
    for (port, head, status) in [
        (clients, "GET /ready HTTP/1.0\r\n", 200),
        (clients, "HEAD /ready HTTP/1.0\r\n", 200),
        (clients, "GET /live HTTP/1.0\r\nHost: up\r\nConnection: keep-alive\r\n", 200),
        (clients, "GET / HTTP/1.0\r\nHost: up\r\nConnection: close\r\n", 200),
        (clients, "GET /?room=a|b&c={} HTTP/1.1\r\nHost: up\r\n", 200),
        (clients, "GET /live HTTP/1.9\r\nHost: up\r\n", 200),
        (clients, "GET /live HTTP/1.1\r\n", 400),
        (clients, "GET /live HTTP/1.0\r\nHost: a\r\nHost: b\r\n", 400),
        (clients, "GET /live HTTP/2.0\r\nHost: up\r\n", 505),
        (clients, "GET /chat HTTP/1.0\r\n", 426),
        (clients, "OPTIONS / HTTP/1.0\r\n", 200),
        (clients, "OPTIONS * HTTP/1.1\r\nHost: up\r\n", 200),
        (admin, "OPTIONS / HTTP/1.0\r\n", 200),
        (admin, "GET /ready HTTP/1.0\r\n", 200),
        (admin, "GET /live HTTP/1.2\r\nHost: up\r\n", 200),
        (admin, "GET /metrics HTTP/1.0\r\n", 200),
        (admin, "GET /nothing HTTP/1.0\r\n", 404),
    ] {
        let mut raw = Raw::connect(port).unwrap();
        raw.send(format!("{head}\r\n").as_bytes()).unwrap();
        let answer = raw.answer(head.starts_with("HEAD")).unwrap();
        assert_eq!(answer.status, status, "{head}");
        assert!(answer.headers.contains(&("connection".to_owned(), "close".to_owned())), "{head}");
        assert!(answer.header("date").is_some_and(|date| date.ends_with(" GMT")), "{head}");
        assert_eq!(raw.rest().unwrap(), b"", "{head}");
    }
}

fn metrics_are_told_although_clients_have_taken_all_descriptors(program: Program) {
    let command = program.command(&["--host", "127.0.0.1", "--port", "0", "--workers", "2", ADMIN[0], ADMIN[1]]);
    let mut limited = Command::new("sh");
    limited.args(["-c", "ulimit -n 64 && exec \"$0\" \"$@\""]).arg(command.get_program()).args(command.get_args());
    limited.env_remove("PORT").env_remove("HOST").env_remove("REDIS_URL");
    let mut server = Server::start_command(&mut limited).unwrap();
    let admin = server.admin_port().unwrap();
    let _crowd: Vec<_> = (0..100).map(|_| Raw::connect(server.port()).unwrap()).collect();
    wait_until("the descriptors to be used up", Duration::from_secs(5), || {
        server.text().contains("all places are taken")
    })
    .unwrap();
    // As many at once as there may be.
    let mut held: Vec<_> = (0..7).map(|_| Raw::connect(admin).unwrap()).collect();
    let metrics = Metrics::scrape(admin).unwrap();
    let most = metrics.value("connections_limit");
    assert!(
        most < 64.0
            && metrics.value("sessions{stage=\"head\"}") >= most
            && metrics.value("crowded_connections_total") > 0.0
    );
    for raw in &mut held {
        raw.send(b"GET /live HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        assert_eq!(raw.answer(false).unwrap().status, 200);
    }
}

fn an_address_for_operation_that_cannot_be_had_is_named(program: Program) {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for (address, named) in [
        (address.as_str(), "is taken by another process: stop that, or choose another --admin-listen"),
        ("9090", "--admin-listen: '9090' is not a host and a port"),
        ("1.2.3.4:9", "cannot listen on port 9 of 1.2.3.4"),
    ] {
        let ended = program.run(&["--host", "127.0.0.1", "--port", "0", "--admin-listen", address]).unwrap();
        let errors = ended.errors();
        assert!(ended.code.is_some_and(|code| code != 0) && errors.len() == 1, "{ended:?}");
        assert!(errors[0].contains(named), "{errors:?}");
    }
}
