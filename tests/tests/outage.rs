//! Redis goes away and comes back: nobody is dropped, nothing arrives twice, delivery resumes.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use fanfare_tests::client::Client;
use fanfare_tests::raw::{Raw, good_request};
use fanfare_tests::redis::{self, Redis};
use fanfare_tests::server::{Program, Server};
use fanfare_tests::wait_until;

fanfare_tests::for_each_program! {
    redis_dies_for_five_seconds_and_a_hundred_clients_miss_nothing
    the_clients_of_another_instance_are_kept_and_get_nothing_twice
    each_connection_to_redis_may_be_killed_alone
    a_redis_that_freezes_briefly_loses_nothing
    a_redis_that_freezes_beyond_the_reply_time_comes_back_without_doubles
    clients_may_come_and_go_while_redis_is_away
    a_redis_that_pauses_its_clients_loses_nothing
    a_subscriber_that_redis_cuts_off_for_its_backlog_comes_back_and_says_so
    a_password_that_changes_while_running_is_named_and_survived
    a_channel_that_the_user_may_not_subscribe_refuses_its_clients_alone
    another_program_may_take_the_place_of_redis
    redis_is_found_again_although_clients_have_taken_all_descriptors
    a_connection_that_is_given_up_is_reset
}

/// From the moment that Redis answers again until messages arrive again.
const RESUMES_WITHIN: Duration = Duration::from_secs(2);

/// A Redis and an instance, whose clients hear each other.
struct Scene {
    redis: Redis,
    server: Server,
    clients: Vec<Client>,
    heard: Vec<Vec<String>>,
}

impl Scene {
    fn set(program: Program, clients: usize) -> Self {
        Self::set_on(Redis::start().unwrap(), program, &[], clients)
    }

    fn set_on(redis: Redis, program: Program, args: &[&str], clients: usize) -> Self {
        let server = program.start_on(&redis.url(), args).unwrap();
        let clients: Vec<_> = (0..clients).map(|_| Client::connect(server.port(), "/chat").unwrap()).collect();
        let heard = clients.iter().map(|_| Vec::new()).collect();
        let mut scene = Self { redis, server, clients, heard };
        scene.say(0, "before");
        scene.hear_until("before");
        scene
    }

    fn say(&mut self, client: usize, text: &str) {
        self.clients[client].send(text).unwrap();
    }

    /// Reads at every client until it has heard `text`.
    fn hear_until(&mut self, text: &str) {
        for (client, heard) in self.clients.iter_mut().zip(&mut self.heard) {
            while heard.last().is_none_or(|last| last != text) {
                heard.push(client.text().unwrap());
            }
        }
    }

    /// Says something every 50 ms until the last client hears one of these, and returns how long it took.
    fn resume(&mut self, name: &str) -> Duration {
        let start = Instant::now();
        let last = self.clients.len() - 1;
        for number in 0.. {
            self.say(0, &format!("{name} {number}"));
            if let Some(text) = self.clients[last].text_within(Duration::from_millis(50)).unwrap() {
                self.heard[last].push(text.clone());
                if text.starts_with(name) {
                    break;
                }
            }
            assert!(
                start.elapsed() < Duration::from_secs(30),
                "nothing arrives; the server printed\n{}",
                self.server.text()
            );
        }
        let took = start.elapsed();
        let end = format!("end of {name}");
        self.say(0, &end);
        self.hear_until(&end);
        took
    }

    fn assert_nothing_twice(&self) {
        for heard in &self.heard {
            let mut counts = BTreeMap::new();
            for text in heard {
                *counts.entry(text).or_insert(0) += 1;
            }
            let twice: Vec<_> = counts.iter().filter(|&(_, &count)| count > 1).collect();
            assert!(twice.is_empty(), "{twice:?}");
        }
    }

    fn assert_everybody_heard(&self, texts: &[String]) {
        for heard in &self.heard {
            let ours: Vec<_> = heard.iter().filter(|text| texts.contains(text)).cloned().collect();
            assert_eq!(ours, texts, "each once, in the order in which they were sent");
        }
    }

    /// Waits until the server has printed this.
    fn wait_for_text(&self, text: &str) {
        wait_until(text, Duration::from_secs(10), || self.server.text().contains(text)).unwrap();
    }

    /// Closes the scene: every client is still a member in good standing.
    fn leave(self) {
        for client in self.clients {
            client.leave().unwrap();
        }
    }
}

fn redis_dies_for_five_seconds_and_a_hundred_clients_miss_nothing(program: Program) {
    let mut scene = Scene::set(program, 100);
    scene.redis.kill().unwrap();
    let meanwhile: Vec<_> = (0..100).map(|number| format!("meanwhile {number}")).collect();
    for text in &meanwhile {
        // All from one client: of several, no order could be asked for.
        scene.say(7, text);
        sleep(Duration::from_millis(50));
    }
    scene.redis.restart().unwrap();
    let took = scene.resume("back");
    assert!(took < RESUMES_WITHIN, "{took:?}");
    scene.assert_everybody_heard(&meanwhile);
    scene.assert_nothing_twice();
    scene.leave();
}

fn the_clients_of_another_instance_are_kept_and_get_nothing_twice(program: Program) {
    let mut scene = Scene::set(program, 10);
    let other = program.start_on(&scene.redis.url(), &["--workers", "2"]).unwrap();
    for _ in 0..10 {
        scene.clients.push(Client::connect(other.port(), "/chat").unwrap());
        scene.heard.push(Vec::new());
    }
    for _ in 0..3 {
        scene.redis.kill().unwrap();
        sleep(Duration::from_millis(700));
        scene.redis.restart().unwrap();
        // What the first instance publishes before the second is back reaches only its own.
        let mut foreign = scene.redis.connect().unwrap();
        let both = || foreign.subscribers("chat").unwrap() == 2;
        let took = wait_until("both to be back", Duration::from_secs(30), both).unwrap();
        assert!(took < RESUMES_WITHIN, "{took:?}");
        let name = format!("round at {:?}", Instant::now());
        scene.resume(&name);
    }
    scene.assert_nothing_twice();
    scene.leave();
}

fn each_connection_to_redis_may_be_killed_alone(program: Program) {
    for kind in ["pubsub", "normal"] {
        let mut scene = Scene::set(program, 20);
        for round in 0..3 {
            let mut foreign = scene.redis.connect().unwrap();
            foreign.command(&[b"CLIENT", b"KILL", b"TYPE", kind.as_bytes(), b"SKIPME", b"yes"]).unwrap();
            let took = scene.resume(&format!("{kind} {round}"));
            assert!(took < RESUMES_WITHIN, "{kind}: {took:?}");
        }
        scene.assert_nothing_twice();
        scene.leave();
    }
}

fn a_redis_that_freezes_briefly_loses_nothing(program: Program) {
    let mut scene = Scene::set(program, 20);
    scene.redis.freeze().unwrap();
    let meanwhile: Vec<_> = (0..20).map(|number| format!("meanwhile {number}")).collect();
    for text in &meanwhile {
        scene.say(3, text);
        sleep(Duration::from_millis(100));
    }
    scene.redis.thaw().unwrap();
    let took = scene.resume("back");
    assert!(took < RESUMES_WITHIN, "{took:?}");
    scene.assert_everybody_heard(&meanwhile);
    scene.assert_nothing_twice();
    scene.leave();
}

fn a_redis_that_freezes_beyond_the_reply_time_comes_back_without_doubles(program: Program) {
    let mut scene = Scene::set(program, 20);
    scene.redis.freeze().unwrap();
    for number in 0..24 {
        scene.say(3, &format!("meanwhile {number}"));
        sleep(Duration::from_millis(500));
    }
    scene.redis.thaw().unwrap();
    let took = scene.resume("back");
    assert!(took < RESUMES_WITHIN, "{took:?}");
    scene.assert_nothing_twice();
    scene.leave();
}

fn clients_may_come_and_go_while_redis_is_away(program: Program) {
    let mut scene = Scene::set(program, 10);
    scene.redis.kill().unwrap();
    for client in scene.clients.split_off(5) {
        client.leave().unwrap();
    }
    scene.heard.truncate(5);
    scene.redis.restart().unwrap();
    let took = scene.resume("back");
    assert!(took < RESUMES_WITHIN, "{took:?}");
    let mut late = Client::connect(scene.server.port(), "/chat/new-room").unwrap();
    late.send("hello").unwrap();
    assert_eq!(late.text().unwrap(), "hello");
    scene.assert_nothing_twice();
    scene.leave();
}

fn a_redis_that_pauses_its_clients_loses_nothing(program: Program) {
    for mode in ["ALL", "WRITE"] {
        let mut scene = Scene::set(program, 10);
        scene.redis.connect().unwrap().command(&[b"CLIENT", b"PAUSE", b"2000", mode.as_bytes()]).unwrap();
        let meanwhile: Vec<_> = (0..20).map(|number| format!("meanwhile {number}")).collect();
        for text in &meanwhile {
            scene.say(3, text);
            sleep(Duration::from_millis(50));
        }
        scene.hear_until("meanwhile 19");
        scene.assert_everybody_heard(&meanwhile);
        scene.assert_nothing_twice();
        scene.leave();
    }
}

fn a_subscriber_that_redis_cuts_off_for_its_backlog_comes_back_and_says_so(program: Program) {
    const MESSAGES: usize = 400;
    let redis = Redis::start_with(&["--client-output-buffer-limit", "pubsub 1mb 1mb 0"]).unwrap();
    // With room for all that Redis and the kernel have kept: a reader that this machine holds up is not what this is about.
    let mut scene = Scene::set_on(redis, program, &["--max-queue", "32MiB"], 5);
    let mut publisher = scene.redis.connect().unwrap();
    scene.server.freeze().unwrap();
    let filler = "x".repeat(60_000);
    let reached: i64 =
        (0..MESSAGES).map(|number| publisher.publish("chat", format!("{number}:{filler}").as_bytes()).unwrap()).sum();
    assert!((1..MESSAGES as i64).contains(&reached), "it was cut off in between: {reached}");
    scene.server.thaw().unwrap();
    // Everybody reads at once: who waits for its turn would be a slow reader.
    let heard: Vec<_> = std::thread::scope(|scope| {
        let read = |client: &mut Client| {
            let mut heard = Vec::new();
            while let Some(text) = client.text_within(Duration::from_secs(2)).unwrap() {
                heard.push(text.split(':').next().unwrap().parse::<usize>().unwrap());
            }
            heard
        };
        let readers: Vec<_> = scene.clients.iter_mut().map(|client| scope.spawn(move || read(client))).collect();
        readers.into_iter().map(|reader| reader.join().unwrap()).collect()
    });
    for heard in &heard {
        assert!(heard.is_sorted_by(|one, next| one + 1 == *next), "the beginning, without a hole: {heard:?}");
        assert!(heard.len() as i64 <= reached);
    }
    scene.wait_for_text("Redis is back");
    let took = scene.resume("back");
    assert!(took < RESUMES_WITHIN, "{took:?}");
    scene.assert_nothing_twice();
    scene.leave();
}

fn a_password_that_changes_while_running_is_named_and_survived(program: Program) {
    let redis = Redis::start().unwrap();
    // This connection has no password to prove: it is there already.
    let mut admin = redis.connect().unwrap();
    let mut scene = Scene::set_on(redis, program, &[], 10);
    let mut cut_off_with = |password: &str| {
        admin.command(&[b"CONFIG", b"SET", b"requirepass", password.as_bytes()]).unwrap();
        for kind in ["pubsub", "normal"] {
            admin.command(&[b"CLIENT", b"KILL", b"TYPE", kind.as_bytes(), b"SKIPME", b"yes"]).unwrap();
        }
    };
    cut_off_with("changed");
    scene.wait_for_text("wants a password");
    scene.say(3, "meanwhile");
    sleep(Duration::from_secs(1));
    cut_off_with("");
    let took = scene.resume("back");
    assert!(took < RESUMES_WITHIN, "{took:?}");
    scene.assert_everybody_heard(&["meanwhile".to_owned()]);
    scene.assert_nothing_twice();
    scene.leave();
}

fn a_channel_that_the_user_may_not_subscribe_refuses_its_clients_alone(program: Program) {
    let mut scene = Scene::set(program, 2);
    scene.redis.connect().unwrap().command(&[b"ACL", b"SETUSER", b"default", b"resetchannels", b"&chat"]).unwrap();
    let mut raw = Raw::connect(scene.server.port()).unwrap();
    raw.send(good_request(scene.server.port(), "/chat/tea").as_bytes()).unwrap();
    let answer = raw.answer(false).unwrap();
    assert_eq!((answer.status, answer.header("retry-after").is_some()), (503, true), "{answer:?}");
    scene.wait_for_text("Redis refuses a subscription");
    scene.say(0, "still here");
    scene.hear_until("still here");
    scene.leave();
}

fn another_program_may_take_the_place_of_redis(program: Program) {
    let others = redis::programs();
    assert!(!others.is_empty());
    let mut scene = Scene::set(program, 10);
    for (number, other) in others.iter().rev().enumerate() {
        scene.redis.kill().unwrap();
        scene.say(3, &format!("meanwhile {number}"));
        scene.redis.restart_as(other).unwrap();
        let took = scene.resume(&format!("{} is there", other.display()));
        assert!(took < RESUMES_WITHIN, "{took:?}");
    }
    let meanwhile: Vec<_> = (0..others.len()).map(|number| format!("meanwhile {number}")).collect();
    scene.assert_everybody_heard(&meanwhile);
    scene.assert_nothing_twice();
    scene.leave();
}

fn redis_is_found_again_although_clients_have_taken_all_descriptors(program: Program) {
    let mut redis = Redis::start().unwrap();
    let command =
        program.command(&["--host", "127.0.0.1", "--port", "0", "--workers", "2", "--redis-url", &redis.url()]);
    let mut limited = Command::new("sh");
    limited.args(["-c", "ulimit -n 96 && exec \"$0\" \"$@\""]).arg(command.get_program()).args(command.get_args());
    limited.env_remove("PORT").env_remove("HOST").env_remove("REDIS_URL");
    let server = Server::start_command(&mut limited).unwrap();
    let connect = || Client::connect(server.port(), "/chat").unwrap();
    let (mut one, mut other) = (connect(), connect());
    let crowd: Vec<_> = (0..100).map(|_| Raw::connect(server.port()).unwrap()).collect();
    let complaints = || server.text().matches("all places are taken").count();
    wait_until("the descriptors to be used up", Duration::from_secs(5), || complaints() > 0).unwrap();

    redis.kill().unwrap();
    one.send("into the outage").unwrap();
    redis.restart().unwrap();
    assert_eq!(other.text().unwrap(), "into the outage");
    assert_eq!(complaints(), 1, "said once: {}", server.text());

    drop(crowd);
    let mut late = connect();
    late.send("there is room again").unwrap();
    assert_eq!(other.text().unwrap(), "there is room again");
}

/// What lies in the system's buffers must not reach Redis behind what leaves on the next connection.
fn a_connection_that_is_given_up_is_reset(program: Program) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let url = format!("redis://127.0.0.1:{}", listener.local_addr().unwrap().port());
    let args = ["--redis-url", &url, "--redis-reply-timeout", "1s", "--redis-ping-interval", "1s", "--wait-for-redis"];
    let server = program.start(&args).unwrap();
    // Both are greeted, and get no answer to anything else.
    let mut greeted: Vec<TcpStream> = (0..2)
        .map(|_| {
            let (mut stream, _) = listener.accept().unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            let mut asked = Vec::new();
            while !asked.ends_with(b"PING\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                asked.extend(byte);
            }
            stream.write_all(b"-ERR unknown command\r\n+OK\r\n+PONG\r\n").unwrap();
            stream
        })
        .collect();
    for stream in &mut greeted {
        let ended = stream.read_to_end(&mut Vec::new());
        assert_eq!(ended.map_err(|e| e.kind()), Err(ErrorKind::ConnectionReset), "{}", server.text());
    }
}
