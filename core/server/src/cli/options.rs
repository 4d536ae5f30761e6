//! Every option: what it is called, what it means, what it sets.

use core::fmt::Display;
use core::num::NonZero;
use core::str::FromStr;

use tracing::level_filters::LevelFilter;

use crate::config::{Config, Log, LogFormat};
use fanfare_core::units::{Size, Time, size, time};

/// One option.
pub(super) struct Opt {
    /// The flag without its dashes.
    pub(super) name: &'static str,
    /// What the help calls the value.
    pub(super) value: &'static str,
    /// The heading it stands under.
    pub(super) heading: &'static str,
    /// The field of [`Config`] or of its limits.
    pub(super) setting: &'static str,
    pub(super) takes: Takes,
    /// One or two sentences.
    pub(super) help: &'static str,
    /// More for `--help` alone.
    pub(super) more: &'static str,
    /// The default as it is shown.
    pub(super) default: fn(&Config) -> String,
    /// Sets one value, or says in one line why not.
    pub(super) apply: fn(&mut Config, &str) -> Result<(), String>,
}

/// How many values an option takes.
pub(super) enum Takes {
    One,
    /// Any number: repeated flags, or a variable with spaces between values.
    Many,
    /// None or a yes or no.
    YesNo,
}

impl Opt {
    /// The environment variable.
    pub(super) fn env(&self) -> String {
        let name = self.name.to_ascii_uppercase().replace('-', "_");
        // As many platforms set them.
        if ["HOST", "PORT", "REDIS_URL"].contains(&name.as_str()) { name } else { format!("FANFARE_{name}") }
    }
}

/// A row for a limit: its reading and showing follow from its unit.
macro_rules! limit {
    (size $name:literal, $heading:expr, $field:ident, $help:literal) => {
        limit!($name, "SIZE", $heading, $field, $help, size, |field| Size(field as u64))
    };
    (time $name:literal, $heading:expr, $field:ident $(.$part:tt)?, $help:literal) => {
        limit!($name, "TIME", $heading, $field $(.$part)?, $help, time, Time)
    };
    (count $name:literal, $heading:expr, $field:ident, $help:literal) => {
        limit!($name, "NUMBER", $heading, $field, $help, number, |field| field)
    };
    ($name:literal, $value:literal, $heading:expr, $field:ident $(.$part:tt)?, $help:literal, $read:expr, $show:expr)
    => {
        Opt {
            name: $name,
            value: $value,
            heading: $heading,
            setting: concat!(stringify!($field) $(, ".", stringify!($part))?),
            takes: Takes::One,
            help: $help,
            more: "",
            default: |config| $show(config.limits.$field $(.$part)?).to_string(),
            apply: |config, text| put(&mut config.limits.$field $(.$part)?, $read(text)),
        }
    };
}

const LISTENING: &str = "Listening";
const REDIS: &str = "Redis";
const ROUTES: &str = "Routes";
const CLIENTS: &str = "Limits of one client";
const INSTANCE: &str = "Limits of the instance";
const LOGGING: &str = "Logging";

pub(super) const OPTIONS: &[Opt] = &[
    Opt {
        name: "host",
        value: "HOST",
        heading: LISTENING,
        setting: "host",
        takes: Takes::One,
        help: "The address or host name to listen on.",
        more: "An IPv6 address may stand in brackets.",
        default: |_| "all addresses, IPv6 and IPv4".to_owned(),
        apply: |config, text| {
            let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
            config.host = Some(bare.to_owned());
            Ok(())
        },
    },
    Opt {
        name: "port",
        value: "PORT",
        heading: LISTENING,
        setting: "port",
        takes: Takes::One,
        help: "The port to listen on; 0 lets the system pick a free one.",
        more: "",
        default: |config| config.port.to_string(),
        apply: |config, text| {
            let wrong = |_| format!("'{text}' is not a port: write a number from 0 to 65535 (for example 3000)");
            put(&mut config.port, number(text).map_err(wrong))
        },
    },
    Opt {
        name: "admin-listen",
        value: "HOST:PORT",
        heading: LISTENING,
        setting: "admin_listen",
        takes: Takes::One,
        help: "Where `/metrics`, `/live` and `/ready` are served apart from clients, for example `127.0.0.1:9090`.",
        more: "Without a host, as in :9090, on all addresses. Metrics are nowhere else. They show how much the instance is \
               used, so let only its operators connect.",
        default: |_| "nowhere".to_owned(),
        apply: |config, text| put(&mut config.admin_listen, text.parse().map(Some).map_err(|error| not_a(text, error))),
    },
    Opt {
        name: "workers",
        value: "NUMBER",
        heading: LISTENING,
        setting: "workers",
        takes: Takes::One,
        help: "Threads that serve sessions; 0 means one per core.",
        more: "",
        default: |_| "one per core".to_owned(),
        apply: |config, text| put(&mut config.workers, number(text).map(NonZero::new)),
    },
    Opt {
        name: "max-connections",
        value: "NUMBER",
        heading: LISTENING,
        setting: "max_connections",
        takes: Takes::One,
        help: "Connections of clients at once; 0 means as many as the limit of open files allows, up to 1048576. Further \
               ones get 503.",
        more: "",
        default: |_| "by the limit of open files".to_owned(),
        apply: |config, text| put(&mut config.max_connections, number(text).map(NonZero::new)),
    },
    Opt {
        name: "allow-origin",
        value: "ORIGIN",
        heading: LISTENING,
        setting: "origins",
        takes: Takes::Many,
        help: "An origin besides the server's own whose pages may connect, for example `https://example.com`. \
               May be repeated.",
        more: "`null` and `file://` allow pages that come from no site, such as local files, some applications and \
               devices; a sandboxed frame of any site says `null`, too. `*` allows every origin. Without this option, a browser's page may connect only if it comes from the \
               host and port that it connects to. Programs that send no Origin header always may.",
        default: |_| "the server's own".to_owned(),
        apply: |config, text| put_more(&mut config.origins.allowed, text.parse().map_err(|error| not_a(text, error))),
    },
    Opt {
        name: "allow-host",
        value: "NAME",
        heading: LISTENING,
        setting: "origins",
        takes: Takes::Many,
        help: "A name of this server, for example `chat.example.com`: with any, its own pages connect by these alone, by \
               addresses and by `localhost`. May be repeated.",
        more: "`*` allows every name. Without this option, a name with dots and with the very port that this server \
               listens on is refused, or a stranger's page could reach this server by a name that leads to its address \
               in the visitor's network (DNS rebinding); names behind a proxy, with another port or none, are not. \
               Programs that send no Origin header may use any name.",
        default: |_| "any name behind a proxy".to_owned(),
        apply: |config, text| put_more(&mut config.origins.hosts, text.parse().map_err(|error| not_a(text, error))),
    },
    Opt {
        name: "trusted-proxy",
        value: "NETWORK",
        heading: LISTENING,
        setting: "origins",
        takes: Takes::Many,
        help: "An address or network, for example `10.0.0.0/8`, of proxies whose `X-Forwarded-Host` and \
               `X-Forwarded-For` are believed. May be repeated.",
        more: "",
        default: |_| "none".to_owned(),
        apply: |config, text| {
            put_more(&mut config.origins.trusted_proxies, text.parse().map_err(|error| not_a(text, error)))
        },
    },
    Opt {
        name: "redis-url",
        value: "URL",
        heading: REDIS,
        setting: "redis",
        takes: Takes::One,
        help: "The Redis that carries messages between instances: \
               `redis://[user[:password]@]host[:port][/database]`.",
        more: "User and password are percent-encoded. Other users of the machine can read command lines: give a \
               password by the environment variable.",
        default: |_| "none, this process only".to_owned(),
        apply: |config, text| put(&mut config.redis, text.parse().map(Some)),
    },
    Opt {
        name: "name",
        value: "NAME",
        heading: REDIS,
        setting: "name",
        takes: Takes::One,
        help: "What Redis calls this instance's connections (`CLIENT LIST`), for example `web-1`.",
        more: "",
        default: |_| "host and process".to_owned(),
        apply: |config, text| {
            text.clone_into(&mut config.name);
            Ok(())
        },
    },
    Opt {
        name: "require-redis",
        value: "yes|no",
        heading: REDIS,
        setting: "require_redis",
        takes: Takes::YesNo,
        help: "Refuse to start without Redis, so that a forgotten URL does not make an instance that is alone.",
        more: "",
        default: |config| yes_or_no(config.require_redis),
        apply: |config, text| put(&mut config.require_redis, switch(text)),
    },
    Opt {
        name: "wait-for-redis",
        value: "yes|no",
        heading: REDIS,
        setting: "wait_for_redis",
        takes: Takes::YesNo,
        help: "Keep trying if Redis cannot be reached at start, instead of giving up.",
        more: "",
        default: |config| yes_or_no(config.wait_for_redis),
        apply: |config, text| put(&mut config.wait_for_redis, switch(text)),
    },
    Opt {
        name: "channel-prefix",
        value: "PREFIX",
        heading: REDIS,
        setting: "channel_prefix",
        takes: Takes::One,
        help: "Text before every channel name at Redis, for example `staging:`.",
        more: "",
        default: |_| "none".to_owned(),
        apply: |config, text| {
            text.clone_into(&mut config.channel_prefix);
            Ok(())
        },
    },
    limit!(time "redis-dial-timeout", REDIS, dial_time,
        "The longest that connecting to Redis may take."),
    limit!(time "redis-reply-timeout", REDIS, reply_time,
        "The longest that a reply of Redis may take. Beyond it the instance reconnects."),
    limit!(time "redis-reconnect-first", REDIS, reconnect_times.0,
        "The wait before the second attempt to reach Redis; later ones double it. Each wait is taken at random \
        between zero and its value."),
    limit!(time "redis-reconnect-max", REDIS, reconnect_times.1,
        "The longest wait between attempts to reach Redis."),
    limit!(time "redis-ping-interval", REDIS, redis_ping_time,
        "Silence of Redis after which it is pinged."),
    limit!(time "probe-interval", REDIS, probe_time,
        "How often a probe is published to see whether it comes back. If it does not within this time, the instance is \
        not ready and reconnects."),
    Opt {
        name: "route",
        value: "PATTERN=CHANNEL",
        heading: ROUTES,
        setting: "routes",
        takes: Takes::Many,
        help: "A path that takes WebSockets and the Redis channel it maps to, for example \
               `/board/{id}=board:{id}`. May be repeated.",
        more: ROUTE_SYNTAX,
        default: |_| "none, which leaves the chat's".to_owned(),
        apply: |config, text| put_more(&mut config.routes, text.parse()),
    },
    Opt {
        name: "chat",
        value: "yes|no",
        heading: ROUTES,
        setting: "chat",
        takes: Takes::YesNo,
        help: "Serve the chat beside routes of your own: its page at `/` and the routes `/chat` and `/chat/{room}`, where \
               anybody may write.",
        more: "",
        default: |_| "yes without a route, else no".to_owned(),
        apply: |config, text| put(&mut config.chat, switch(text).map(Some)),
    },
    Opt {
        name: "no-chat",
        value: "yes|no",
        heading: ROUTES,
        setting: "chat",
        takes: Takes::YesNo,
        help: "The same as `--chat=no`.",
        more: "",
        default: |_| "no".to_owned(),
        apply: |config, text| put(&mut config.chat, switch(text).map(|no_chat| Some(!no_chat))),
    },
    limit!(size "max-head", CLIENTS, head_bytes,
        "The largest request head. Beyond it: 431, or 414 in the request line."),
    limit!(count "max-head-fields", CLIENTS, head_fields,
        "The most header fields in a request head. Beyond it: 431."),
    limit!(time "head-timeout", CLIENTS, head_time,
        "The longest that a request head may take to arrive. Beyond it: 408."),
    limit!(size "max-message", CLIENTS, message_bytes,
        "The largest message. Beyond it: close code 1009; from Redis, it is skipped."),
    limit!(count "max-fragments", CLIENTS, message_fragments,
        "The most fragments of one message. Beyond it: close code 1009."),
    limit!(size "max-queue", CLIENTS, queue_bytes,
        "The most that waits for one slow reader. Beyond it: close code 1013, or what its route says."),
    limit!(time "message-timeout", CLIENTS, message_time,
        "The longest that a message may take to arrive. Beyond it: close code 1013."),
    limit!(time "ping-interval", CLIENTS, ping_time,
        "Silence of a client after which it is pinged, shortened by up to a tenth at random."),
    limit!(time "pong-timeout", CLIENTS, pong_time,
        "The longest without a sign of life after a ping. Beyond it the connection is dropped."),
    limit!(time "close-timeout", CLIENTS, close_time,
        "The longest wait for the client to end a connection that the server has closed. Beyond it the connection is dropped."),
    limit!(time "confirm-timeout", CLIENTS, confirm_time,
        "The longest wait for the confirmed subscription of a new session. Beyond it: 503."),
    limit!(time "pause-timeout", CLIENTS, pause_time,
        "The longest that a client's message waits for room in the publish queue. Beyond it: close code 1013."),
    limit!(size "max-channel-name", CLIENTS, channel_bytes,
        "The longest channel name, its prefix included. Beyond it: 400."),
    limit!(size "max-partial", INSTANCE, partial_bytes,
        "The most that unfinished messages of all clients hold. Beyond it the client whose message began first is closed: 1013."),
    limit!(size "max-all-queues", INSTANCE, all_queues_bytes,
        "The most that waits for all slow readers together. Beyond it those behind for longest pay: 1013, or their route."),
    limit!(size "max-mailbox", INSTANCE, mailbox_bytes,
        "The most that waits for one worker. Beyond it messages to that worker are dropped and counted."),
    limit!(size "max-publish-queue", INSTANCE, publish_bytes,
        "The most publishes that wait for Redis. Beyond it clients that send are paused."),
    limit!(time "publish-timeout", INSTANCE, publish_time,
        "The age at which a publish that waits for Redis is given up, counted and logged."),
    limit!(time "gap-close-time", INSTANCE, gap_close_time,
        "The time after a gap over which the sessions of routes with `on_gap=close` are closed."),
    limit!(time "drain-delay", INSTANCE, drain_delay,
        "How long new clients are still accepted after the instance was asked to end and is no longer ready."),
    limit!(time "drain-time", INSTANCE, drain_time,
        "The longest that a shutdown takes after the drain delay. Publishes that are left then are lost and counted."),
    limit!(time "linger", INSTANCE, linger_time,
        "How long a channel stays subscribed after its last session left."),
    limit!(count "max-lingering", INSTANCE, lingering_channels,
        "The most channels that linger. Beyond it the one that has lingered longest is unsubscribed."),
    Opt {
        name: "log-format",
        value: "FORMAT",
        heading: LOGGING,
        setting: "log",
        takes: Takes::One,
        help: "`text` for people, `json` for programs.",
        more: "",
        default: |_| "text".to_owned(),
        apply: |config, text| {
            put(&mut config.log.format, one_of(text, &[("text", LogFormat::Text), ("json", LogFormat::Json)]))
        },
    },
    Opt {
        name: "log-level",
        value: "LEVEL",
        heading: LOGGING,
        setting: "log",
        takes: Takes::One,
        help: "The least severe lines to log: `off`, `error`, `warn`, `info`, `debug` or `trace`; also for a part, as in \
               `info,sessions=debug`.",
        more: "Parts: bus, drive, redis, shard, and sessions, which are logged with their client when they open and when \
               they end.",
        default: |config| config.log.level.to_string(),
        apply: log_levels,
    },
];

const ROUTE_SYNTAX: &str = "\
PATTERN=CHANNEL[,text|,binary][,publish=no][,subscribe=no]
  [,slow=close|drop_newest|drop_oldest|latest][,on_gap=keep|close]

PATTERN is a path in which {name} stands for one segment. CHANNEL is a Redis channel, and {name} in it stands for the \
same segment, percent-decoded; each name of the path is in the channel once. All messages of a route are text unless it \
says binary. With publish=no, clients may not send; with subscribe=no, they receive nothing. With on_gap=close, clients \
are closed with 1012 when messages may have been missed. slow= is for a client that reads too slowly: it is closed with \
1013 (close), loses messages that do not fit (drop_newest), loses those that have waited longest (drop_oldest), or gets \
only the newest of those that wait (latest).

Of several variables in a channel, all but the last end at the character that follows them there, and their values cannot \
contain it: no two paths of a route lead to one channel. Channels that begin with fanfare: belong to the instance. A route \
replaces the chat, unless --chat asks for it; then a route with the pattern /chat or /chat/{room} replaces the chat's own.

  --route '/board/{id}=board:{id}'
  --route '/telemetry=telemetry,binary'
  --route '/news=news,publish=no'
  --route '/prices/{stock}=prices:{stock},publish=no,slow=latest'";

/// `LEVEL[,PART=LEVEL]…`, in any order.
fn log_levels(config: &mut Config, text: &str) -> Result<(), String> {
    for word in text.split(',').map(str::trim) {
        match word.split_once('=') {
            None => put(&mut config.log.level, one_of(word, LEVELS))?,
            Some((part, level)) => {
                let parts: Vec<_> = Log::PARTS.iter().map(|&part| (part, part)).collect();
                config.log.parts.push((one_of(part.trim(), &parts)?, one_of(level.trim(), LEVELS)?));
            }
        }
    }
    Ok(())
}

const LEVELS: &[(&str, LevelFilter)] = &[
    ("off", LevelFilter::OFF),
    ("error", LevelFilter::ERROR),
    ("warn", LevelFilter::WARN),
    ("info", LevelFilter::INFO),
    ("debug", LevelFilter::DEBUG),
    ("trace", LevelFilter::TRACE),
];

fn put<T, E: Display>(field: &mut T, value: Result<T, E>) -> Result<(), String> {
    *field = value.map_err(|error| error.to_string())?;
    Ok(())
}

fn put_more<T, E: Display>(list: &mut Vec<T>, value: Result<T, E>) -> Result<(), String> {
    list.push(value.map_err(|error| error.to_string())?);
    Ok(())
}

/// Puts the text in front of an error that begins with "not a".
fn not_a(text: &str, error: impl Display) -> String {
    format!("'{text}' is {error}")
}

fn number<T: FromStr>(text: &str) -> Result<T, String> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten();
    digits.ok_or_else(|| format!("'{text}' is not a number in range: write digits alone (for example 100)"))
}

fn switch(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Ok(true),
        "false" | "0" | "no" | "off" => Ok(false),
        _ => Err(format!("'{text}' is neither yes nor no: write true, false, 1, 0, yes, no, on or off")),
    }
}

fn yes_or_no(value: bool) -> String {
    if value { "yes" } else { "no" }.to_owned()
}

fn one_of<T: Copy>(text: &str, choices: &[(&str, T)]) -> Result<T, String> {
    let found = choices.iter().find(|(name, _)| name.eq_ignore_ascii_case(text));
    found.map(|&(_, value)| value).ok_or_else(|| {
        let names: Vec<_> = choices.iter().map(|&(name, _)| name).collect();
        format!("'{text}' is none of {}", names.join(", "))
    })
}
