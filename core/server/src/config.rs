//! The configuration of a server: every setting, once.
//!
//! ```
//! use fanfare_server::Config;
//!
//! let mut config = Config::default();
//! config.routes = vec!["/news=news,publish=no".parse()?];
//! config.require_redis = true;
//! let error = config.check().expect_err("there is no Redis");
//! assert_eq!(error.setting(), "require_redis");
//! # Ok::<(), fanfare_core::route::RouteError>(())
//! ```

use core::fmt;
use core::net::{IpAddr, SocketAddr};
use core::num::NonZero;

use fanfare_core::http::OriginPolicy;
use fanfare_core::limits::Limits;
use fanfare_core::redis::RedisUrl;
use fanfare_core::route::{Route, Routes};
use fanfare_core::settings::{Settings, SettingsError};
use fanfare_drive::{ListenAddress, Setup, is_host};
use tracing::level_filters::LevelFilter;

use crate::{metrics, page};

#[cfg(test)]
mod tests;

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
    /// Connections of clients at once; further ones wait in the kernel. `None`: as many as the limit of open files
    /// allows.
    pub max_connections: Option<NonZero<usize>>,
    /// Threads that serve sessions. `None`: one per core of the machine.
    pub workers: Option<NonZero<usize>>,
    /// What this instance is called where Redis lists its connections; the binaries take host and process if it is
    /// empty.
    pub name: String,
    /// The Redis that carries messages between instances. `None`: messages stay in this process.
    pub redis: Option<RedisUrl>,
    /// Whether it is an error to have no Redis.
    pub require_redis: bool,
    /// Whether to keep trying when Redis cannot be reached at start, instead of giving up.
    pub wait_for_redis: bool,
    /// Routes of one's own; one with the pattern of a chat route takes its place.
    pub routes: Vec<Route>,
    /// Whether the chat is there, to which anybody may write: its page at `/` and the routes `/chat` and
    /// `/chat/{room}`. `None`: only without routes of one's own.
    pub chat: Option<bool>,
    /// What stands before every channel name at Redis. Counts towards [`Limits::channel_bytes`].
    pub channel_prefix: String,
    /// Which pages of other sites may connect, and which proxies are believed.
    pub origins: OriginPolicy,
    /// Every bound.
    pub limits: Limits,
    /// The level and the format of the log.
    pub log: Log,
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
    /// What can have a level of its own: modules of the core, the driver with all that a process of its own does, and
    /// sessions, each of which is a line when it opens and when it ends.
    pub const PARTS: &[&str] = &["bus", "drive", "redis", "sessions", "shard"];
}

/// How a log line is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
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
    fn all_routes(&self) -> Vec<Route> {
        let mut routes = self.routes.clone();
        if self.serves_chat() {
            let given = |chat: &Route| self.routes.iter().any(|route| route.pattern() == chat.pattern());
            routes.extend(Routes::default_chat().into_iter().filter(|chat| !given(chat)));
        }
        routes
    }

    /// What a server of this configuration is started with.
    ///
    /// # Errors
    ///
    /// As [`Config::check`].
    pub fn setup(&self) -> Result<Setup, ConfigError> {
        let mut setup = Setup::new(self.settings()?);
        setup.workers = self.workers;
        setup.listen = ListenAddress { host: self.host.clone(), port: self.port };
        setup.admin_listen = self.admin_listen.clone();
        setup.max_connections = self.max_connections;
        setup.name = self.name.clone();
        setup.redis = self.redis.clone();
        setup.wait_for_redis = self.wait_for_redis;
        setup.metrics = Some(metrics::answer);
        Ok(setup)
    }

    /// What the shards of a server of this configuration share, with as many workers as it says, or one.
    ///
    /// # Errors
    ///
    /// As [`Config::check`].
    pub fn settings(&self) -> Result<Settings, ConfigError> {
        self.limits.check().map_err(ConfigError::Settings)?;
        if self.host.as_ref().is_some_and(|host| !is_host(host)) {
            return Err(ConfigError::Host);
        }
        if self.require_redis && self.redis.is_none() {
            return Err(ConfigError::NoRedis);
        }
        if !self.name.chars().all(|char| char.is_ascii_graphic()) || self.name.len() > 100 {
            return Err(ConfigError::Name);
        }
        if self.routes.is_empty() && !self.serves_chat() {
            return Err(ConfigError::NoRoutes);
        }
        let settings = Settings::new(self.limits.clone(), self.all_routes(), &self.channel_prefix);
        let mut settings = settings.map_err(ConfigError::Settings)?;
        settings.origins = self.origins.clone();
        settings.workers = self.workers.map_or(1, NonZero::get);
        if self.serves_chat() {
            settings.files = page::files();
        }
        settings.check().map_err(ConfigError::Settings)?;
        Ok(settings)
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
        self.settings().map(drop)
    }
}

/// The first invalid setting of a [`Config`], by the name of its field.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConfigError {
    /// A setting of the shards.
    Settings(SettingsError),
    /// There is no Redis, and it is required.
    NoRedis,
    /// The name is too long, or has blanks or other than printable ASCII.
    Name,
    /// The host is neither a name nor an address.
    Host,
    /// There is nothing to serve.
    NoRoutes,
}

impl ConfigError {
    /// The setting to change first.
    #[must_use]
    pub const fn setting(&self) -> &'static str {
        match self {
            Self::Settings(error) => error.setting(),
            Self::Host => "host",
            Self::NoRedis => "require_redis",
            Self::Name => "name",
            Self::NoRoutes => "routes",
        }
    }

    /// One sentence, without the setting's own name, in which `name` says what other settings are called.
    pub fn describe(&self, name: impl Fn(&'static str) -> String) -> String {
        match self {
            Self::Settings(error) => error.describe(name),
            Self::NoRedis => format!("there is no Redis: give {}, which may be empty by mistake", name("redis")),
            Self::Name => {
                "a name is of up to 100 printable ASCII characters without blanks (for example web-1)".to_owned()
            }
            Self::Host => "a host name, or an IPv4 or IPv6 address without a port is needed".to_owned(),
            Self::NoRoutes => "there is nothing to serve: give a route, or keep the chat".to_owned(),
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.setting(), self.describe(str::to_owned))
    }
}

impl std::error::Error for ConfigError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Settings(error) => Some(error),
            _ => None,
        }
    }
}
