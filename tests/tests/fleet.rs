//! Two instances and one Redis: every client gets every message exactly once, byte for byte, in the order of its sender.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::time::Duration;

use fanfare_tests::client::Client;
use fanfare_tests::redis::{self, Redis};
use fanfare_tests::server::{Program, Server};
use fanfare_tests::wait_until;

fanfare_tests::for_each_program! {
    five_clients_get_each_of_two_hundred_messages_of_each_exactly_once_and_in_order
    a_message_in_three_fragments_arrives_whole
    a_foreign_program_publishes_and_subscribes_raw_text
    what_is_not_text_is_dropped_and_what_follows_arrives
    a_room_hears_itself_and_no_other
    an_instance_subscribes_once_and_only_while_somebody_listens
    without_redis_the_clients_of_one_instance_hear_each_other
    a_burst_above_the_bound_of_a_queue_reaches_whoever_keeps_up
}

const WORKERS: [&str; 2] = ["1", "2"];

/// Runs `test` with each Redis and Valkey of this machine, and with one worker per instance and two.
fn on_each_fleet(program: Program, test: impl Fn(&Redis, &[Server; 2])) {
    let programs = redis::programs();
    assert!(!programs.is_empty(), "no redis-server: apt-get install redis-server");
    for redis_program in programs {
        for workers in WORKERS {
            eprintln!("{} with {workers} worker(s)", redis_program.display());
            let redis = Redis::start_program(&redis_program, &[]).unwrap();
            let start = || program.start_on(&redis.url(), &["--workers", workers]).unwrap();
            test(&redis, &[start(), start()]);
        }
    }
}

/// Three clients of the first instance and two of the second, on `path`.
fn five_clients(servers: &[Server; 2], path: &str) -> Vec<Client> {
    [0, 0, 0, 1, 1].map(|at: usize| Client::connect(servers[at].port(), path).unwrap()).into()
}

/// What client `sender` sends as its message `number` of 200: all sizes and contents that framing or RESP could get wrong,
/// and in between messages that say who sent them and when, from which order is seen.
fn message(sender: usize, number: usize) -> String {
    let sized = |length: usize| {
        let start = format!("{sender}:{number:04}:");
        let fill = "x".repeat(length - start.len());
        start + &fill
    };
    match number % 25 {
        0 => String::new(),
        1 => "x".into(),
        2 => sized(125),
        3 => sized(126),
        4 => sized(127),
        5 => "🎺 fanfare 👩‍👩‍👧 é \u{feff}".into(),
        6 => "\r\n".into(),
        7 => "*3\r\n$7\r\nPUBLISH\r\n$4\r\nchat\r\n$1\r\nx\r\n".into(),
        8 => ">3\r\n$7\r\nmessage\r\n$4\r\nchat\r\n$5\r\nhello\r\n".into(),
        9 => "+OK\r\n-ERR no\r\n$-1\r\n:1\r\n_\r\n".into(),
        10 => "\0\u{7f}<b>\"&amp;</b>\\".into(),
        // One a round: what all sessions have to read stays below the bound of their queues.
        11 if number % 50 == 11 => sized(65_535),
        11 => sized(65_536),
        _ => sized(40),
    }
}

fn counted(messages: impl IntoIterator<Item = String>) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for message in messages {
        *counts.entry(message).or_default() += 1;
    }
    counts
}

fn five_clients_get_each_of_two_hundred_messages_of_each_exactly_once_and_in_order(program: Program) {
    on_each_fleet(program, |_, servers| {
        let mut clients = five_clients(servers, "/chat");
        for burst in 0..4 {
            let numbers = burst * 50..(burst + 1) * 50;
            for (sender, client) in clients.iter_mut().enumerate() {
                for number in numbers.clone() {
                    client.send(&message(sender, number)).unwrap();
                }
            }
            let sent: Vec<_> = (0..5).flat_map(|sender| numbers.clone().map(move |n| message(sender, n))).collect();
            for client in &mut clients {
                let got: Vec<_> = sent.iter().map(|_| client.text().unwrap()).collect();
                assert_eq!(counted(got.clone()), counted(sent.clone()));
                for sender in 0..5 {
                    let is_theirs = |text: &&String| text.starts_with(&format!("{sender}:"));
                    let order: Vec<_> = sent.iter().filter(is_theirs).collect();
                    assert_eq!(got.iter().filter(is_theirs).collect::<Vec<_>>(), order);
                }
            }
        }
        nothing_more_arrives(&mut clients);
    });
}

fn a_message_in_three_fragments_arrives_whole(program: Program) {
    on_each_fleet(program, |_, servers| {
        let mut clients = five_clients(servers, "/chat");
        let trumpet = "🎺".as_bytes();
        clients[0].send_fragments(&[&trumpet[..1], &trumpet[1..3], &trumpet[3..]]).unwrap();
        clients[4].send_fragments(&[b"", b"split", b""]).unwrap();
        for client in &mut clients {
            let got = [client.text().unwrap(), client.text().unwrap()];
            assert_eq!(counted(got), counted(["🎺".into(), "split".into()]));
        }
        nothing_more_arrives(&mut clients);
    });
}

fn a_foreign_program_publishes_and_subscribes_raw_text(program: Program) {
    on_each_fleet(program, |redis, servers| {
        let mut clients = five_clients(servers, "/chat");
        let (mut publisher, mut subscriber) = (redis.connect().unwrap(), redis.connect().unwrap());
        subscriber.subscribe("chat").unwrap();

        assert_eq!(
            publisher.publish("chat", b"hello").unwrap(),
            3,
            "each instance subscribes once, and the subscriber"
        );
        for client in &mut clients {
            assert_eq!(client.text().unwrap(), "hello");
        }
        assert_eq!(subscriber.message().unwrap(), b"hello");

        for (sender, number) in (0..5).flat_map(|sender| (0..12).map(move |number| (sender, number))) {
            let text = message(sender, number);
            clients[sender].send(&text).unwrap();
            assert_eq!(subscriber.message().unwrap(), text.as_bytes());
        }
    });
}

fn what_is_not_text_is_dropped_and_what_follows_arrives(program: Program) {
    on_each_fleet(program, |redis, servers| {
        let mut clients = five_clients(servers, "/chat");
        let mut publisher = redis.connect().unwrap();
        let too_big = vec![b'x'; 65_537];
        for payload in [&b"\xff\xfe"[..], b"\xed\xa0\x80", b"\xf0\x9f", &too_big, b"after"] {
            publisher.publish("chat", payload).unwrap();
        }
        for client in &mut clients {
            assert_eq!(client.text().unwrap(), "after");
        }
    });
}

fn a_room_hears_itself_and_no_other(program: Program) {
    on_each_fleet(program, |redis, servers| {
        let mut tea = five_clients(servers, "/chat/tea");
        let mut lobby = five_clients(servers, "/chat");
        let mut odd = five_clients(servers, "/chat/%F0%9F%8E%BA%20x%3A*");
        tea[0].send("in tea").unwrap();
        lobby[4].send("in the lobby").unwrap();
        redis.connect().unwrap().publish("chat:🎺 x:*", b"odd").unwrap();
        for (clients, text) in [(&mut tea, "in tea"), (&mut lobby, "in the lobby"), (&mut odd, "odd")] {
            for client in clients.iter_mut() {
                assert_eq!(client.text().unwrap(), text);
            }
            nothing_more_arrives(clients);
        }
    });
}

fn an_instance_subscribes_once_and_only_while_somebody_listens(program: Program) {
    on_each_fleet(program, |redis, servers| {
        let mut foreign = redis.connect().unwrap();
        assert_eq!(foreign.subscribers("chat:tea").unwrap(), 0);

        let clients = five_clients(servers, "/chat/tea");
        assert_eq!(foreign.subscribers("chat:tea").unwrap(), 2, "once per instance, whatever its workers");

        for client in clients {
            client.leave().unwrap();
        }
        // The linger of 5 s, and some for a slow machine.
        wait_until("both instances to unsubscribe", Duration::from_secs(12), || {
            foreign.subscribers("chat:tea").unwrap() == 0
        })
        .unwrap();

        let mut back = five_clients(servers, "/chat/tea");
        back[0].send("again").unwrap();
        assert_eq!(back[4].text().unwrap(), "again");
    });
}

fn without_redis_the_clients_of_one_instance_hear_each_other(program: Program) {
    for workers in WORKERS {
        let server = program.start(&["--workers", workers]).unwrap();
        let mut clients: Vec<_> = (0..5).map(|_| Client::connect(server.port(), "/chat").unwrap()).collect();
        for number in 0..12 {
            clients[number % 5].send(&message(0, number)).unwrap();
            for client in &mut clients {
                assert_eq!(client.text().unwrap(), message(0, number));
            }
        }
    }
}

fn a_burst_above_the_bound_of_a_queue_reaches_whoever_keeps_up(program: Program) {
    on_each_fleet(program, |redis, servers| {
        let clients = five_clients(servers, "/chat");
        let mut publisher = redis.connect().unwrap();
        for server in servers {
            server.freeze().unwrap();
        }
        let payload = |number: usize| format!("{number}:{}", "x".repeat(60_000));
        for number in 0..40 {
            publisher.publish("chat", payload(number).as_bytes()).unwrap();
        }
        for server in servers {
            server.thaw().unwrap();
        }
        std::thread::scope(|scope| {
            for mut client in clients {
                scope.spawn(move || {
                    for number in 0..40 {
                        assert_eq!(client.text().unwrap(), payload(number));
                    }
                });
            }
        });
    });
}

#[test]
fn instances_on_different_runtimes_are_one_fleet() {
    const MESSAGES: usize = 1_000;
    const BURST: usize = 50;
    let redis = Redis::start().unwrap();
    let servers = Program::ALL.map(|program| program.start_on(&redis.url(), &[]).unwrap());
    let connect = |server: &Server| Client::connect(server.port(), "/chat").unwrap();
    let mut clients: Vec<_> = servers.iter().chain(&servers).map(connect).collect();
    let senders = clients.len();
    for burst in 0..MESSAGES / BURST {
        let numbers = burst * BURST..(burst + 1) * BURST;
        for (sender, client) in clients.iter_mut().enumerate() {
            for number in numbers.clone() {
                client.send(&format!("{sender}:{number}")).unwrap();
            }
        }
        for client in &mut clients {
            let mut next = vec![numbers.start; senders];
            for _ in 0..senders * BURST {
                let text = client.text().unwrap();
                let sender: usize = text.split(':').next().unwrap().parse().unwrap();
                assert_eq!(text, format!("{sender}:{}", next[sender]), "once, and in the order of its sender");
                next[sender] += 1;
            }
        }
    }
    nothing_more_arrives(&mut clients);
}

/// The next that these clients hear is what the first and the last of them say now.
fn nothing_more_arrives(clients: &mut [Client]) {
    let last = clients.len() - 1;
    for sender in [0, last] {
        clients[sender].send("the end").unwrap();
    }
    for client in clients {
        assert_eq!([client.text().unwrap(), client.text().unwrap()], ["the end", "the end"]);
    }
}
