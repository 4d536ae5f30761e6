//! Every setting of an instance, once; with the feature `cli` also as command line and environment.

use core::fmt;
use core::net::{IpAddr, SocketAddr};
use core::num::NonZero;
use core::time::Duration;

use tracing::level_filters::LevelFilter;

use crate::http::OriginPolicy;
use crate::limits::Limits;
use crate::redis::RedisUrl;
use crate::route::{Route, RouteError, Routes};
pub use listen::{ListenAddress, ListenAddressError};
pub use memory::MemoryBound;
use units::{Size, Time};

#[cfg(feature = "cli")]
pub mod cli;
mod listen;
pub(crate) mod memory;
#[cfg(test)]
mod tests;
pub(crate) mod units;

/// Every setting of an instance.
///
/// `Config::default()` is what the binaries start with; set the fields that should differ, then ask [`Config::check`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// The address or host name to listen on, IPv6 without brackets. `None`: all addresses of both families.
    pub host: Option<String>,
    /// The port to listen on; 0 lets the system pick a free one.
    pub port: u16,
    /// Where `/metrics`, `/live` and `/ready` are served to operation apart from clients. `None`: nowhere.
    pub admin_listen: Option<ListenAddress>,
    /// Connections of clients at once; further ones wait in the kernel. `None`: as many as the limit of open files allows.
    pub max_connections: Option<NonZero<usize>>,
    /// Threads that serve sessions. `None`: one per core of the machine.
    pub workers: Option<NonZero<usize>>,
    /// What this instance is called where Redis lists its connections; the binaries take host and process if it is empty.
    pub name: String,
    /// The Redis that carries messages between instances. `None`: messages stay in this process.
    pub redis: Option<RedisUrl>,
    /// Whether it is an error to have no Redis.
    pub require_redis: bool,
    /// Whether to keep trying when Redis cannot be reached at start, instead of giving up.
    pub wait_for_redis: bool,
    /// Routes of one's own; one with the pattern of a chat route takes its place.
    pub routes: Vec<Route>,
    /// Whether the chat is there, to which anybody may write: its page at `/` and the routes `/chat` and `/chat/{room}`.
    /// `None`: only without routes of one's own.
    pub chat: Option<bool>,
    /// What stands before every channel name at Redis. Counts towards [`Limits::channel_bytes`].
    pub channel_prefix: String,
    /// Which pages of other sites may connect, and which proxies are believed.
    pub origins: OriginPolicy,
    /// Every bound.
    pub limits: Limits,
    /// What is logged, and how.
    pub log: Log,
}

/// What all shards of an instance share.
#[derive(Debug)]
pub struct Settings {
    /// Every bound.
    pub limits: Limits,
    /// Paths to channels.
    pub routes: Routes,
    /// What stands before every channel name at Redis; the names in `routes` have it already.
    pub channel_prefix: String,
    /// Whose pages may connect.
    pub origins: OriginPolicy,
    /// Whether the built-in chat page is served at `/`.
    pub page: bool,
    /// Whether the embedder answers each valid upgrade request ([`Event::Request`](crate::shard::Event::Request)), instead of the routes.
    pub ask: bool,
    /// How many workers share the instance's bounds.
    pub workers: usize,
}

/// What is logged, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Log {
    /// How a log line is written.
    pub format: LogFormat,
    /// The least severe level that is logged.
    pub level: LevelFilter,
    /// The least severe level of lines of one part, which is one of [`Log::PARTS`].
    pub parts: Vec<(&'static str, LevelFilter)>,
}

impl Log {
    /// What can have a level of its own: modules of this crate, and sessions, each of which is a line when it opens and
    /// when it ends.
    pub const PARTS: &[&str] = &["bus", "drive", "redis", "sessions", "shard"];
}

/// How a log line is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line, for programs.
    Json,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            host: None,
            port: 3000,
            admin_listen: None,
            max_connections: None,
            workers: None,
            name: String::new(),
            redis: None,
            require_redis: false,
            wait_for_redis: false,
            routes: Vec::new(),
            chat: None,
            channel_prefix: String::new(),
            origins: OriginPolicy::default(),
            limits: Limits::default(),
            log: Log { format: LogFormat::Text, level: LevelFilter::INFO, parts: Vec::new() },
        }
    }
}

impl Config {
    /// Whether the chat is there.
    #[must_use]
    pub fn serves_chat(&self) -> bool {
        self.chat.unwrap_or(self.routes.is_empty())
    }

    /// The routes to serve: those given, and the chat's where none given has the same pattern.
    ///
    /// # Errors
    ///
    /// The first route that makes no sense beside the others, or with the channel prefix.
    pub fn routes(&self) -> Result<Routes, RouteError> {
        let mut routes = self.routes.clone();
        if self.serves_chat() {
            let given = |chat: &Route| self.routes.iter().any(|route| route.pattern() == chat.pattern());
            routes.extend(Routes::default_chat().into_iter().filter(|chat| !given(chat)));
        }
        Routes::new(routes, &self.channel_prefix, &self.limits)
    }

    /// What the shards of an instance with so many workers share.
    ///
    /// # Errors
    ///
    /// As [`Config::check`].
    pub fn settings(&self, workers: NonZero<usize>) -> Result<Settings, ConfigError> {
        self.check()?;
        Ok(Settings {
            limits: self.limits.clone(),
            routes: self.routes().map_err(ConfigError::Routes)?,
            channel_prefix: self.channel_prefix.clone(),
            origins: self.origins.clone(),
            page: self.serves_chat(),
            ask: false,
            workers: workers.get(),
        })
    }

    /// What a binary prints when it accepts clients at `addresses`: where to point a browser, and how far messages go.
    #[must_use]
    pub fn banner(&self, addresses: &[SocketAddr]) -> String {
        let mut banner = String::new();
        for address in addresses {
            let host = match address.ip() {
                ip if ip.is_unspecified() || ip.is_loopback() => "localhost".to_owned(),
                IpAddr::V6(ip) => format!("[{ip}]"),
                IpAddr::V4(ip) => ip.to_string(),
            };
            let line = format!("listening on http://{host}:{}/\n", address.port());
            if !banner.contains(&line) {
                banner += &line;
            }
        }
        match &self.redis {
            Some(redis) => banner + &format!("bus: {redis}"),
            None => banner + "bus: this process only; set REDIS_URL to share",
        }
    }

    /// Whether the settings make sense, each alone and together.
    ///
    /// # Errors
    ///
    /// The first setting that does not.
    pub fn check(&self) -> Result<(), ConfigError> {
        self.check_ranges()?;
        self.check_order()?;
        if self.host.as_ref().is_some_and(|host| !is_host(host)) {
            return Err(ConfigError::Host);
        }
        if self.require_redis && self.redis.is_none() {
            return Err(ConfigError::NoRedis);
        }
        if !self.name.chars().all(|char| char.is_ascii_graphic()) || self.name.len() > 100 {
            return Err(ConfigError::Name);
        }
        if self.channel_prefix.contains(char::is_control) {
            return Err(ConfigError::ChannelPrefix);
        }
        if self.routes.is_empty() && !self.serves_chat() {
            return Err(ConfigError::NoRoutes);
        }
        self.routes().map_err(ConfigError::Routes)?;
        Ok(())
    }

    /// Each setting alone. The ends are far from useful values; they keep sums of a few settings from overflowing.
    fn check_ranges(&self) -> Result<(), ConfigError> {
        const KIB: u64 = 1 << 10;
        const GIB: u64 = 1 << 30;
        const MILLI: Duration = Duration::from_millis(1);
        const DAY: Duration = Duration::from_secs(24 * 3600);
        let limits = &self.limits;
        for (setting, value, least, most) in [
            ("workers", self.workers.map_or(1, NonZero::get) as u64, 1, 1_024),
            ("head_fields", limits.head_fields as u64, 1, 10_000),
            ("message_fragments", u64::from(limits.message_fragments), 1, 1 << 30),
            ("lingering_channels", limits.lingering_channels as u64, 0, 1 << 30),
        ] {
            in_range(setting, value, least, most, |number| number.to_string())?;
        }
        for (setting, value, least, most) in [
            ("head_bytes", limits.head_bytes, 256, GIB),
            ("message_bytes", limits.message_bytes, 1, GIB),
            ("partial_bytes", limits.partial_bytes, 1, KIB * GIB),
            ("queue_bytes", limits.queue_bytes, 1, GIB),
            ("all_queues_bytes", limits.all_queues_bytes, 1, KIB * GIB),
            ("channel_bytes", limits.channel_bytes, 1, 64 * KIB),
            ("mailbox_bytes", limits.mailbox_bytes, 1, GIB),
            ("publish_bytes", limits.publish_bytes, 1, GIB),
        ] {
            in_range(setting, value as u64, least, most, |bytes| Size(bytes).to_string())?;
        }
        for (setting, value, least) in [
            ("head_time", limits.head_time, MILLI),
            ("ping_time", limits.ping_time, MILLI),
            ("pong_time", limits.pong_time, MILLI),
            ("close_time", limits.close_time, MILLI),
            ("message_time", limits.message_time, MILLI),
            ("confirm_time", limits.confirm_time, MILLI),
            ("gap_close_time", limits.gap_close_time, Duration::ZERO),
            ("drain_delay", limits.drain_delay, Duration::ZERO),
            ("drain_time", limits.drain_time, Duration::ZERO),
            ("linger_time", limits.linger_time, Duration::ZERO),
            ("publish_time", limits.publish_time, MILLI),
            ("pause_time", limits.pause_time, MILLI),
            ("dial_time", limits.dial_time, MILLI),
            ("reply_time", limits.reply_time, MILLI),
            ("reconnect_times.0", limits.reconnect_times.0, MILLI),
            ("reconnect_times.1", limits.reconnect_times.1, MILLI),
            ("redis_ping_time", limits.redis_ping_time, MILLI),
            ("probe_time", limits.probe_time, MILLI),
        ] {
            in_range(setting, value, least, DAY, |time| Time(time).to_string())?;
        }
        Ok(())
    }

    /// Settings of which one must not be above the other, or the largest message allowed could never pass.
    fn check_order(&self) -> Result<(), ConfigError> {
        let limits = &self.limits;
        let message = ("message_bytes", limits.message_bytes);
        let queue = ("queue_bytes", limits.queue_bytes);
        for ((setting, value), (bound, most)) in [
            (message, queue),
            (queue, ("all_queues_bytes", limits.all_queues_bytes)),
            (message, ("partial_bytes", limits.partial_bytes)),
            (message, ("mailbox_bytes", limits.mailbox_bytes)),
            (message, ("publish_bytes", limits.publish_bytes)),
        ] {
            if value > most {
                let (value, most) = (Size(value as u64).to_string(), Size(most as u64).to_string());
                return Err(ConfigError::Above { setting, value, bound, most });
            }
        }
        let (first, most) = limits.reconnect_times;
        if first > most {
            let (value, most) = (Time(first).to_string(), Time(most).to_string());
            let (setting, bound) = ("reconnect_times.0", "reconnect_times.1");
            return Err(ConfigError::Above { setting, value, bound, most });
        }
        Ok(())
    }
}

fn in_range<T: Copy + PartialOrd>(
    setting: &'static str,
    value: T,
    least: T,
    most: T,
    show: impl Fn(T) -> String,
) -> Result<(), ConfigError> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    Err(ConfigError::Range { setting, value: show(value), least: show(least), most: show(most) })
}

/// A name or an address, without port or brackets. Whether it is one of this machine's only the system can tell.
fn is_host(host: &str) -> bool {
    let plain = |character: char| !character.is_whitespace() && !character.is_control() && !":/[]@".contains(character);
    let is_word = |text: &str| !text.is_empty() && text.chars().all(plain);
    let is_v6 = |address: &str| address.parse::<core::net::Ipv6Addr>().is_ok();
    match host.split_once('%') {
        Some((address, zone)) if is_v6(address) => is_word(zone),
        _ => is_v6(host) || is_word(host),
    }
}

/// The first setting of a [`Config`] that makes no sense. Settings are called by the names of their fields.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConfigError {
    /// A value outside its range.
    Range {
        /// Whose.
        setting: &'static str,
        /// The value.
        value: String,
        /// The least that is allowed.
        least: String,
        /// The most that is allowed.
        most: String,
    },
    /// A value above that of another setting which bounds it.
    Above {
        /// Whose.
        setting: &'static str,
        /// The value.
        value: String,
        /// The setting that bounds it.
        bound: &'static str,
        /// The other's value.
        most: String,
    },
    /// There is no Redis, and it is required.
    NoRedis,
    /// The name is too long, or has blanks or other than printable ASCII.
    Name,
    /// The host is neither a name nor an address.
    Host,
    /// The channel prefix has a control character.
    ChannelPrefix,
    /// There is nothing to serve.
    NoRoutes,
    /// A route makes no sense beside the others, or with the channel prefix.
    Routes(RouteError),
}

impl ConfigError {
    /// The setting to change first.
    #[must_use]
    pub const fn setting(&self) -> &'static str {
        match self {
            Self::Range { setting, .. } | Self::Above { setting, .. } => setting,
            Self::Host => "host",
            Self::NoRedis => "require_redis",
            Self::Name => "name",
            Self::ChannelPrefix => "channel_prefix",
            Self::NoRoutes | Self::Routes(_) => "routes",
        }
    }

    /// One sentence in which `name` says what other settings are called.
    fn describe(&self, name: impl Fn(&'static str) -> String) -> String {
        match self {
            Self::Range { value, least, most, .. } => format!("{value} is out of range: from {least} to {most}"),
            Self::Above { value, bound, most, .. } => {
                let bound = name(bound);
                format!("{value} is above {bound} ({most}): lower it, or raise {bound}")
            }
            Self::NoRedis => format!("there is no Redis: give {}, which may be empty by mistake", name("redis")),
            Self::Name => {
                "a name is of up to 100 printable ASCII characters without blanks (for example web-1)".to_owned()
            }
            Self::Host => "a host name, or an IPv4 or IPv6 address without a port is needed".to_owned(),
            Self::ChannelPrefix => "a prefix has no control characters (for example staging:)".to_owned(),
            Self::NoRoutes => "there is nothing to serve: give a route, or keep the chat".to_owned(),
            Self::Routes(error) => error.to_string(),
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.setting(), self.describe(str::to_owned))
    }
}

impl std::error::Error for ConfigError {}
