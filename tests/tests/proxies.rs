//! Proxies with the very lines of the page for operators: the page and its sockets work through each, and none sends
//! clients to an instance that is not ready.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use fanfare_tests::port::ReservedPort;
use fanfare_tests::process::Process;
use fanfare_tests::raw::{Raw, frame, good_request};
use fanfare_tests::redis::Redis;
use fanfare_tests::server::{Program, Server};
use fanfare_tests::wait_until;

const PATIENCE: Duration = Duration::from_secs(20);

/// A program in front of a server, at a port of its own.
struct Proxy {
    port: ReservedPort,
    process: Process,
    _folder: Folder,
}

/// A folder of its own, gone with the value.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The block of the page that stands behind this mark.
fn lines_of(proxy: &str) -> String {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../core/docs/operating.md");
    let page = fs::read_to_string(page).unwrap();
    let (_, rest) = page.split_once(&format!("<!-- proxy: {proxy} -->\n```")).unwrap();
    let (_, rest) = rest.split_once('\n').unwrap();
    rest.split_once("```").unwrap().0.to_owned()
}

/// Replaces what must be there.
fn replaced(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "no {from:?} in {text}");
    text.replace(from, to)
}

impl Proxy {
    /// Writes `config`, which is told the proxy's own address, and starts `command` on it.
    fn start(name: &str, config: impl Fn(&str) -> String, command: impl Fn(&Path, &str) -> Command) -> Self {
        let port = ReservedPort::new().unwrap();
        let folder = Folder(std::env::temp_dir().join(format!("fanfare-{name}-{}", port.number())));
        fs::create_dir_all(&folder.0).unwrap();
        let address = format!("127.0.0.1:{}", port.number());
        fs::write(folder.0.join("config"), config(&address)).unwrap();
        let process =
            Process::start(command(&folder.0, &address).current_dir(&folder.0).env("HOME", &folder.0)).unwrap();
        Self { port, process, _folder: folder }
    }

    fn status(&self, path: &str) -> Option<u16> {
        let mut raw = Raw::connect(self.port.number()).ok()?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        raw.send(request.as_bytes()).ok()?;
        let answer = raw.rest().ok()?;
        str::from_utf8(answer.get(9..12)?).ok()?.parse().ok()
    }

    fn printed(&self) -> String {
        self.process.lines().iter().map(|line| format!("{}\n", line.text)).collect()
    }

    /// A WebSocket of a page that came through the proxy, and the status if there is none.
    fn connect(&self, path: &str, fields: &str) -> Result<Raw, u16> {
        let port = self.port.number();
        let mut raw = Raw::connect(port).unwrap();
        let origin = format!("Origin: http://localhost:{port}\r\n{fields}Upgrade:");
        raw.send(good_request(port, path).replacen("Upgrade:", &origin, 1).as_bytes()).unwrap();
        match raw.answer(false).unwrap().status {
            101 => Ok(raw),
            status => Err(status),
        }
    }

    /// What must hold in front of a Fanfare whose Redis is `redis`.
    fn check(&self, redis: &mut Redis) {
        let is_through = || self.status("/ready") == Some(200);
        if let Err(e) = wait_until("the proxy to hand on", PATIENCE, is_through) {
            panic!("{e}: {:?} {}", self.status("/ready"), self.printed());
        }
        assert_eq!(self.status("/"), Some(200), "the page");
        let mut clients = [(); 2].map(|()| self.connect("/chat/tea", "").expect("a page of this host may connect"));
        clients[0].send(&frame(0x81, b"hello")).unwrap();
        for client in &mut clients {
            assert_eq!(client.frame().unwrap().payload, b"hello");
        }
        redis.kill().unwrap();
        let is_kept_away = || self.status("/").is_some_and(|status| status >= 500);
        if let Err(e) = wait_until("the proxy to see that it is not ready", PATIENCE, is_kept_away) {
            panic!("{e}: {:?} {}", self.status("/"), self.printed());
        }
        redis.restart().unwrap();
        wait_until("the proxy to hand on again", PATIENCE, || self.status("/") == Some(200)).unwrap();
        clients[0].send(&frame(0x81, b"still here")).unwrap();
        assert_eq!(clients[1].frame().unwrap().payload, b"still here");
    }
}

fn instance() -> (Redis, Server, String) {
    let redis = Redis::start().unwrap();
    let server = Program::Tokio.start_on(&redis.url(), &["--redis-reconnect-max", "100ms"]).unwrap();
    let address = format!("127.0.0.1:{}", server.port());
    (redis, server, address)
}

fn nginx(config: impl Fn(&str) -> String) -> Proxy {
    let whole = |address: &str| {
        let body = replaced(&config(address), "listen 80;", &format!("listen {address};"));
        format!(
            "daemon off; pid pid; error_log stderr warn; events {{}}\nhttp {{ access_log off; client_body_temp_path t1; \
             proxy_temp_path t2; fastcgi_temp_path t3; uwsgi_temp_path t4; scgi_temp_path t5;\n{body}}}\n"
        )
    };
    Proxy::start("nginx", whole, |folder, _| {
        let mut command = Command::new("nginx");
        command.arg("-p").arg(folder).arg("-e").arg("stderr").arg("-c").arg(folder.join("config"));
        command
    })
}

#[test]
fn nginx_hands_on_the_page_and_its_sockets() {
    let (_redis, _server, address) = instance();
    let proxy = nginx(|_| replaced(&lines_of("nginx"), "127.0.0.1:3000", &address));
    wait_until("nginx", PATIENCE, || proxy.status("/ready") == Some(200)).unwrap();
    assert_eq!(proxy.status("/"), Some(200));
    let mut clients = [(); 2].map(|()| proxy.connect("/chat", "").expect("a page of this host may connect"));
    clients[0].send(&frame(0x81, b"hello")).unwrap();
    for client in &mut clients {
        assert_eq!(client.frame().unwrap().payload, b"hello");
    }
}

#[test]
fn nginx_without_one_of_the_lines_is_told_which() {
    let (_redis, _server, address) = instance();
    for (missing, status, advice) in [
        ("proxy_set_header Host $http_host;", 403, "proxy_set_header Host $http_host"),
        ("proxy_set_header Upgrade $http_upgrade;", 426, "pass Upgrade and Connection on"),
        ("proxy_http_version 1.1;", 426, "must speak HTTP/1.1"),
    ] {
        let proxy = nginx(|_| replaced(&replaced(&lines_of("nginx"), "127.0.0.1:3000", &address), missing, ""));
        wait_until("nginx", PATIENCE, || proxy.status("/ready") == Some(200)).unwrap();
        let port = proxy.port.number();
        let mut raw = Raw::connect(port).unwrap();
        let origin = format!("Origin: http://localhost:{port}\r\nUpgrade:");
        raw.send(good_request(port, "/chat").replacen("Upgrade:", &origin, 1).as_bytes()).unwrap();
        let answer = raw.answer(false).unwrap();
        assert_eq!(answer.status, status, "without {missing}");
        assert!(String::from_utf8(answer.body).unwrap().contains(advice), "without {missing}");
    }
}

#[test]
fn haproxy_hands_on_and_keeps_away_from_what_is_not_ready() {
    for check in
        ["option httpchk GET /ready", "option httpchk", "option httpchk\n    http-check send meth GET uri /ready"]
    {
        let (mut redis, _server, backend) = instance();
        let config = |address: &str| {
            let lines = replaced(&lines_of("haproxy"), "127.0.0.1:3000", &backend);
            let lines = replaced(&lines, "option httpchk GET /ready", check);
            // The page's interval is for production.
            let lines = replaced(&lines, "inter 2s", "inter 100ms");
            replaced(&lines, "bind :80", &format!("bind {address}"))
        };
        let proxy = Proxy::start("haproxy", config, |folder, _| {
            let mut command = Command::new("haproxy");
            command.arg("-db").arg("-f").arg(folder.join("config"));
            command
        });
        proxy.check(&mut redis);
    }
}

#[test]
fn caddy_hands_on_and_keeps_away_from_what_is_not_ready() {
    let (mut redis, _server, backend) = instance();
    let config = |address: &str| {
        let lines = replaced(&lines_of("caddy"), "127.0.0.1:3000", &backend);
        let lines = replaced(&lines, "health_interval 2s", "health_interval 100ms");
        // Its own address for operation is another's on a machine where several run.
        format!(
            "{{\n    admin off\n}}\n{}",
            replaced(&lines, ":80 {", &format!("http://:{} {{\n    bind 127.0.0.1", port_of(address)))
        )
    };
    let proxy = Proxy::start("caddy", config, |folder, _| {
        let mut command = Command::new("caddy");
        command.args(["run", "--adapter", "caddyfile", "--config"]).arg(folder.join("config"));
        command.env("XDG_DATA_HOME", folder).env("XDG_CONFIG_HOME", folder);
        command
    });
    proxy.check(&mut redis);
}

#[test]
fn varnish_hands_on_and_keeps_away_from_what_is_not_ready() {
    let (mut redis, server, _) = instance();
    let config = |_: &str| {
        let lines = replaced(&lines_of("varnish"), "\"3000\"", &format!("\"{}\"", server.port()));
        replaced(&lines, ".interval = 2s", ".interval = 100ms")
    };
    let proxy = Proxy::start("varnish", config, |folder, address| {
        let mut command = Command::new("varnishd");
        command.args(["-F", "-j", "none", "-s", "malloc,8m", "-a", address]);
        command.arg("-n").arg(folder.join("work")).arg("-f").arg(folder.join("config"));
        command
    });
    proxy.check(&mut redis);
}

fn port_of(address: &str) -> &str {
    address.rsplit_once(':').unwrap().1
}

/// An application that knows one session, of the user 7.
fn application() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
            let head: Vec<_> = lines.take_while(|line| !line.is_empty()).collect();
            let is_known = head.iter().any(|line| line == "Cookie: session=good");
            let status = if is_known { "200 OK\r\nX-User: 7" } else { "401 Unauthorized" };
            stream.write_all(format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").as_bytes()).unwrap();
        }
    });
    port
}

#[test]
fn only_who_is_logged_in_gets_in_and_gets_what_is_theirs() {
    let redis = Redis::start().unwrap();
    let route = ["--no-chat", "--route", "/user/{id}=user:{id},publish=no"];
    let server = Program::Tokio.start_on(&redis.url(), &route).unwrap();
    let (address, application) = (format!("127.0.0.1:{}", server.port()), format!("127.0.0.1:{}", application()));
    let proxy = nginx(|_| {
        let lines = replaced(&lines_of("nginx with auth_request"), "127.0.0.1:3000", &address);
        replaced(&lines, "127.0.0.1:8000", &application)
    });
    wait_until("nginx", PATIENCE, || proxy.status("/nothing") == Some(404)).unwrap();
    for (path, cookie, expected) in [
        ("/notifications", "", Err(401)),
        ("/notifications", "Cookie: session=bad\r\n", Err(401)),
        ("/user/7", "Cookie: session=good\r\n", Err(404)),
        ("/login", "Cookie: session=good\r\n", Err(404)),
    ] {
        assert_eq!(proxy.connect(path, cookie).map(|_| ()), expected, "{path} {cookie}");
    }
    let mut client = proxy.connect("/notifications", "Cookie: session=good\r\n").expect("the user 7");
    let mut publisher = redis.connect().unwrap();
    assert_eq!(publisher.publish("user:8", b"not theirs").unwrap(), 0);
    assert_eq!(publisher.publish("user:7", b"hello").unwrap(), 1);
    assert_eq!(client.frame().unwrap().payload, b"hello");
}

#[test]
fn the_client_of_tcllib_connects() {
    let server = Program::Tokio.start(&[]).unwrap();
    let script = format!(
        "package require websocket\n\
         proc heard {{socket type text}} {{\n\
         if {{$type eq \"connect\"}} {{ ::websocket::send $socket text hello }}\n\
         if {{$type in {{text error timeout disconnect}}}} {{ puts \"$type $text\"; set ::done 1 }} }}\n\
         ::websocket::open ws://127.0.0.1:{}/chat heard\n\
         after 8000 {{ set ::done 1 }}\nvwait ::done\n",
        server.port()
    );
    let folder = Folder(std::env::temp_dir().join(format!("fanfare-tcl-{}", server.port())));
    fs::create_dir_all(&folder.0).unwrap();
    let path = folder.0.join("client.tcl");
    fs::write(&path, script).unwrap();
    let ended = Process::start(Command::new("tclsh").arg(path)).unwrap().wait(PATIENCE).unwrap();
    assert!(ended.text().contains("text hello"), "{ended:?}");
}
