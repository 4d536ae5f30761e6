//! What the page for operators says is what happens: each of its failures is brought about, and its recipe is used.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::cell::RefCell;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use fanfare_core::error::Unready;
use fanfare_tests::client::Client;
use fanfare_tests::metrics::get;
use fanfare_tests::proxy::{End, Fault, Lane, Proxy, Way};
use fanfare_tests::raw::{Raw, frame, good_request};
use fanfare_tests::redis::{Redis, programs};
use fanfare_tests::resp::{Reply, Resp};
use fanfare_tests::server::{Program, Server};
use fanfare_tests::wait_until;
use fanfare_tests::watch::Watch;

/// How soon what the page says is there. The longest of the timers below is 1 s.
const PATIENCE: Duration = Duration::from_secs(20);

const PROGRAM: Program = Program::Tokio;

/// An instance with short timers and what it depends on.
struct Scene {
    redis: Redis,
    /// A connection from before any permission was taken away.
    rights: RefCell<Resp>,
    proxy: Proxy,
    server: Server,
    watch: Watch,
    admin: u16,
}

/// What brings a failure about. It returns clients that have to stay until it was seen.
type Break = fn(&Scene) -> Vec<Raw>;

/// The failures of the page, each with options and with how it comes about.
const FAILURES: &[(&str, &[&str], Break)] = &[
    ("Redis cannot be reached", &[], |scene| {
        scene.take_redis_away();
        vec![]
    }),
    ("Redis, or what is in between, ends connections", &[], |scene| {
        scene.proxy.end(&Lane::ALL, End::Cut);
        vec![]
    }),
    ("Redis hangs, or a connection is dead in one direction", &[], |scene| {
        scene.proxy.set(&[Lane::Subscriber], &[Way::ToInstance], Fault::Swallow);
        vec![]
    }),
    ("Redis answers and does not deliver", &[], |scene| {
        scene.proxy.set(&[Lane::Subscriber], &[Way::ToInstance], Fault::Mute);
        vec![]
    }),
    ("the password has changed", &[], |scene| {
        scene.admin(&["CONFIG", "SET", "requirepass", "changed"]);
        scene.proxy.end(&Lane::ALL, End::Cut);
        vec![]
    }),
    ("Redis runs a long script, or loads its data", &[], |scene| {
        let client = scene.join();
        scene.admin(&["CONFIG", "SET", "lua-time-limit", "50"]);
        scene.redis.connect().unwrap().send(&[b"EVAL", b"while true do end", b"0"]).unwrap();
        vec![say(client, 1)]
    }),
    ("Redis cannot save its data (`MISCONF`)", &[], |scene| {
        scene.redis.lose_disk().unwrap();
        scene.admin(&["CONFIG", "SET", "save", "3600 1"]);
        scene.admin(&["SET", "key", "value"]);
        scene.rights.borrow_mut().command(&[b"BGSAVE"]).unwrap();
        scene.wait_for("MISCONF", || {
            let reply = scene.rights.borrow_mut().command(&[b"PING"]).unwrap();
            matches!(reply, Reply::Error(error) if error.starts_with("MISCONF"))
        });
        scene.proxy.end(&Lane::ALL, End::Cut);
        scene.wait_for("it to notice", || has_grown(&scene.metrics(), "fanfare_gaps_total"));
        vec![]
    }),
    ("Redis was demoted to a replica", &[], |scene| {
        scene.admin(&["REPLICAOF", "127.0.0.1", "1"]);
        vec![]
    }),
    ("the user may not use the probe's channel", &[], |scene| {
        scene.admin(&["ACL", "SETUSER", "default", "resetchannels", "&chat"]);
        scene.proxy.end(&Lane::ALL, End::Cut);
        vec![]
    }),
    ("the user may not use a channel", &[], |scene| {
        scene.admin(&["ACL", "SETUSER", "default", "resetchannels", "&chat", "&fanfare:probe:*"]);
        let mut refused = Raw::connect(scene.server.port()).unwrap();
        refused.send(good_request(scene.server.port(), "/chat/tea").as_bytes()).unwrap();
        assert_eq!(refused.answer(false).unwrap().status, 503);
        vec![]
    }),
    ("the user may not use a channel any more, and connections end", &[], |scene| {
        let client = Raw::upgrade(scene.server.port(), "/chat/tea").unwrap();
        scene.admin(&["ACL", "SETUSER", "default", "resetchannels", "&chat", "&fanfare:probe:*"]);
        scene.proxy.end(&Lane::ALL, End::Cut);
        vec![client]
    }),
    ("the user may not publish", &[], |scene| {
        scene.admin(&["ACL", "SETUSER", "default", "-publish"]);
        vec![say(scene.join(), 1)]
    }),
    ("Redis is away for longer than `--publish-timeout`", &["--publish-timeout", "500ms"], |scene| {
        let client = scene.join();
        scene.take_redis_away();
        vec![say(client, 1)]
    }),
    ("a connection dies while publishes are on their way", &[], |scene| {
        scene.proxy.set(&[Lane::Publisher], &[Way::ToInstance], Fault::Swallow);
        vec![say(scene.join(), 1)]
    }),
    (
        "more waits for Redis than `--max-publish-queue`",
        &["--max-message", "512B", "--max-publish-queue", "1KiB", "--pause-timeout", "500ms"],
        |scene| {
            let mut client = scene.join();
            scene.take_redis_away();
            // What is read at once is taken as a whole: the queue is full when a session is not read any more.
            scene.wait_for("a full queue", || {
                // It may have been closed for its waiting by now.
                let _ = client.send(&frame(0x81, b"hello"));
                has_grown(&scene.metrics(), "fanfare_session_pauses_total")
            });
            vec![client]
        },
    ),
    ("a client does not read", &["--max-queue", "64KiB"], |scene| {
        let silent = scene.join();
        scene.flood("x".repeat(60_000).as_bytes(), 400);
        vec![silent]
    }),
    ("a worker does not keep up", &["--max-message", "1KiB", "--max-mailbox", "1KiB", "--workers", "2"], |scene| {
        let crowd = (0..20).map(|_| scene.join()).collect();
        scene.flood(&[b'x'; 1_000], 2_000);
        crowd
    }),
    ("somebody publishes what no client may get", &[], |scene| {
        let reader = scene.join();
        scene.flood(&vec![b'x'; 70_000], 1);
        scene.flood(b"\xff", 1);
        vec![reader]
    }),
    ("it was asked to end", &["--drain-delay", "1s", "--drain-time", "2s"], |scene| {
        let client = scene.join();
        scene.server.terminate().unwrap();
        vec![client]
    }),
    ("as many clients as `--max-connections` or the descriptors allow", &["ulimit 64"], |scene| {
        (0..100).map(|_| Raw::connect(scene.server.port()).unwrap()).collect()
    }),
];

impl Scene {
    fn set(args: &[&str]) -> Self {
        let redis = Redis::start().unwrap();
        let rights = RefCell::new(redis.connect().unwrap());
        let proxy = Proxy::start(redis.port()).unwrap();
        let (ulimit, args) = match args {
            [first, rest @ ..] if first.starts_with("ulimit ") => (first.replace("ulimit", "ulimit -n"), rest),
            all => ("true".to_owned(), all),
        };
        let mut command = PROGRAM.command(&["--host", "127.0.0.1", "--port", "0", "--redis-url", &proxy.url()]);
        command.args(["--admin-listen", "127.0.0.1:0", "--probe-interval", "500ms"]);
        command.args(["--close-timeout", "500ms"]);
        command.args([
            "--redis-dial-timeout",
            "500ms",
            "--redis-reply-timeout",
            "1s",
            "--redis-reconnect-max",
            "200ms",
        ]);
        let mut limited = Command::new("sh");
        limited.args(["-c", &format!("{ulimit} && exec \"$0\" \"$@\"")]);
        limited.arg(command.get_program()).args(command.get_args()).args(args);
        for name in ["PORT", "HOST", "REDIS_URL"] {
            limited.env_remove(name);
        }
        // Where no option says otherwise.
        limited.env("FANFARE_WORKERS", "1");
        let mut server = Server::start_command(&mut limited).unwrap();
        let admin = server.admin_port().unwrap();
        let watch = Watch::start(server.port());
        let scene = Self { redis, rights, proxy, server, watch, admin };
        scene.wait_for("/ready", || scene.watch.is_ready());
        scene
    }

    /// Has Redis change what somebody may do.
    fn admin(&self, command: &[&str]) {
        assert!(self.is_taken(command), "{command:?}");
    }

    fn is_taken(&self, command: &[&str]) -> bool {
        let parts: Vec<_> = command.iter().map(|part| part.as_bytes()).collect();
        matches!(self.rights.borrow_mut().command(&parts).unwrap(), Reply::Simple(text) if text.starts_with("OK"))
    }

    /// Ends what was broken, and finds that nothing else has to be done.
    fn mend(&self) {
        self.proxy.heal().unwrap();
        // Answered by an error where no script runs.
        self.rights.borrow_mut().command(&[b"SCRIPT", b"KILL"]).unwrap();
        self.wait_for("the script's end", || self.is_taken(&["REPLICAOF", "NO", "ONE"]));
        self.admin(&["CONFIG", "SET", "save", ""]);
        self.admin(&["CONFIG", "SET", "requirepass", ""]);
        self.admin(&["ACL", "SETUSER", "default", "+@all", "allchannels"]);
        self.wait_for("/ready", || self.watch.is_ready());
    }

    fn take_redis_away(&self) {
        self.proxy.refuse();
        self.proxy.end(&Lane::ALL, End::Reset);
        self.wait_for("it to notice", || !self.watch.is_ready());
    }

    fn join(&self) -> Raw {
        Raw::upgrade(self.server.port(), "/chat").unwrap()
    }

    /// Publishes from elsewhere.
    fn flood(&self, payload: &[u8], messages: usize) {
        let mut foreign = self.redis.connect().unwrap();
        for _ in 0..messages {
            foreign.publish("chat", payload).unwrap();
        }
    }

    fn metrics(&self) -> String {
        String::from_utf8(get(self.admin, "/metrics").unwrap().body).unwrap()
    }

    fn wait_for(&self, what: &str, ready: impl FnMut() -> bool) {
        if let Err(e) = wait_until(what, PATIENCE, ready) {
            let metrics = self.metrics();
            let counted: Vec<_> =
                metrics.lines().filter(|line| !line.starts_with('#') && !line.ends_with(" 0")).collect();
            panic!("{e}; it says {:?} and printed\n{}{counted:#?}", self.watch.last(), self.server.text());
        }
    }
}

fn say(mut client: Raw, messages: usize) -> Raw {
    for _ in 0..messages {
        client.send(&frame(0x81, b"hello")).unwrap();
    }
    client
}

/// Whether a metric is above zero, summed up over the labels that are not given.
fn has_grown(metrics: &str, metric: &str) -> bool {
    metrics.lines().any(|line| {
        let Some((sample, value)) = line.rsplit_once(' ') else { return false };
        let is_it = sample == metric || sample.starts_with(&format!("{metric}{{"));
        is_it && value.parse::<f64>().is_ok_and(|value| value > 0.0)
    })
}

fn page() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../core/docs/operating.md")).unwrap()
}

/// The rows of the table of failures, by their cells.
fn rows(page: &str) -> Vec<Vec<&str>> {
    let (_, rest) = page.split_once("<!-- failures -->\n").unwrap();
    let (table, _) = rest.split_once("<!-- /failures -->").unwrap();
    table.lines().skip(2).map(|row| row.trim_matches('|').split('|').map(str::trim).collect()).collect()
}

/// What stands between backticks.
fn quoted(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

#[test]
fn each_failure_looks_as_the_page_says() {
    let page = page();
    let rows = rows(&page);
    let (listed, tried): (Vec<_>, Vec<_>) =
        (rows.iter().map(|row| row[0]).collect(), FAILURES.iter().map(|f| f.0).collect());
    assert_eq!(listed, tried);
    for (row, (what, args, break_it)) in rows.iter().zip(FAILURES) {
        let scene = Scene::set(args);
        let start = Instant::now();
        let clients = break_it(&scene);
        for text in quoted(row[1]) {
            let text = format!("not ready: {text}");
            let was_said = || scene.watch.since(start).iter().any(|word| word.text == text);
            scene.wait_for(&format!("{what}: {text}"), was_said);
        }
        if row[1].is_empty() {
            // It may be missing for moments, while connections are made anew.
            scene.wait_for(what, || scene.watch.is_ready());
        }
        for text in quoted(row[2]) {
            scene.wait_for(&format!("{what}: {text}"), || scene.server.text().contains(text));
        }
        for metric in quoted(row[3]) {
            scene.wait_for(&format!("{what}: {metric}"), || has_grown(&scene.metrics(), metric));
        }
        drop(clients);
        if !scene.server.text().contains("shutting down") {
            scene.mend();
        }
    }
}

#[test]
fn every_reason_of_ready_that_is_not_passing_is_on_the_page() {
    let page = page();
    let named: Vec<_> = rows(&page).iter().flat_map(|row| quoted(row[1])).collect();
    let is_passing = |reason: &Unready| matches!(reason, Unready::Subscribing | Unready::Unproven);
    for reason in Unready::ALL.iter().filter(|reason| !is_passing(reason)) {
        assert!(named.contains(&reason.text()), "{reason}");
    }
    for name in named {
        assert!(Unready::ALL.iter().any(|reason| reason.text() == name), "{name}");
    }
}

#[test]
fn the_options_and_metrics_of_the_page_exist() {
    let page = page();
    let help = PROGRAM.run(&["--help"]).unwrap().text();
    let metrics = Scene::set(&[]).metrics();
    let words: Vec<_> = page.split(|c: char| !(c.is_ascii_alphanumeric() || "-_".contains(c))).collect();
    let options: Vec<_> =
        words.iter().filter(|word| word.trim_start_matches('-').len() + 2 == word.len() && word.len() > 2).collect();
    assert!(options.len() > 10, "{options:?}");
    for option in options {
        assert!(help.contains(&format!("{option} ")) || help.contains(&format!("{option}[")), "{option}");
    }
    let named: Vec<_> = words.iter().filter(|word| word.starts_with("fanfare_")).collect();
    assert!(named.len() > 10, "{named:?}");
    for metric in named {
        let family = metric.strip_suffix("_total").unwrap_or(metric);
        assert!(
            metrics.contains(&format!("# TYPE {metric} ")) || metrics.contains(&format!("# TYPE {family} ")),
            "{metric}"
        );
    }
}

#[test]
fn the_memory_bound_of_the_page_is_the_one_that_is_printed() {
    let page = page();
    let line = page.lines().find(|line| line.starts_with("memory: at most ")).unwrap();
    let mut server = PROGRAM.start(&["--workers", "4", "--max-connections", "10000"]).unwrap();
    server.terminate().unwrap();
    let printed = server.wait(PATIENCE).unwrap().text();
    assert!(printed.contains(line), "{printed}");
}

#[test]
fn the_user_of_the_recipe_may_do_all_that_is_needed_and_nothing_else() {
    let page = page();
    let (_, recipe) = page.split_once("```sh\nredis-cli ACL SETUSER").unwrap();
    let recipe = format!("redis-cli ACL SETUSER{}", recipe.split("\n```").next().unwrap());
    let password = recipe.split(['>', '\'']).nth(2).unwrap();
    for program in programs() {
        for prefix in ["", "staging:"] {
            let redis = Redis::start_program(&program, &[]).unwrap();
            let mut admin = redis.connect().unwrap();
            let line = recipe
                .replace('&', &format!("&{prefix}"))
                .replace("redis-cli", &format!("redis-cli -p {}", redis.port()));
            let shell = Command::new("sh").args(["-c", &line]).output().unwrap();
            assert_eq!(String::from_utf8_lossy(&shell.stdout).trim(), "OK", "{line}: {shell:?}");
            assert_eq!(
                admin.command(&[b"ACL", b"SETUSER", b"default", b"off"]).unwrap(),
                Reply::Simple("OK".to_owned())
            );

            let url = format!("redis://fanfare:{password}@127.0.0.1:{}", redis.port());
            let args = ["--channel-prefix", prefix, "--probe-interval", "200ms"];
            let server = PROGRAM.start_on(&url, if prefix.is_empty() { &args[2..] } else { &args }).unwrap();
            let watch = Watch::start(server.port());
            for path in ["/chat", "/chat/tea"] {
                let mut clients = [(); 2].map(|()| Client::connect(server.port(), path).unwrap());
                clients[0].send("hello").unwrap();
                assert_eq!(clients.each_mut().map(|client| client.text().unwrap()), ["hello", "hello"]);
            }
            wait_until("/ready", PATIENCE, || watch.is_ready()).unwrap();
            sleep(Duration::from_millis(500));
            assert!(watch.is_ready() && !server.text().contains("refuse"), "{}", server.text());

            let denials = admin.command(&[b"ACL", b"LOG"]).unwrap();
            assert!(matches!(&denials, Reply::Array(all) if all.is_empty()), "{denials:?}");
            let mut user = redis.connect().unwrap();
            user.command(&[b"AUTH", b"fanfare", password.as_bytes()]).unwrap();
            let forbidden: [&[&[u8]]; 5] = [
                &[b"GET", b"key"],
                &[b"CONFIG", b"GET", b"*"],
                &[b"PSUBSCRIBE", b"*"],
                &[b"PUBLISH", b"other", b"x"],
                &[b"CLIENT", b"LIST"],
            ];
            for command in forbidden {
                let reply = user.command(command).unwrap();
                assert!(matches!(&reply, Reply::Error(error) if error.starts_with("NOPERM")), "{reply:?}");
            }
        }
    }
}
