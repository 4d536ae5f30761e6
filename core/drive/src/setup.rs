//! The setup of a server or a hub.

use std::num::NonZero;

use fanfare_core::http::Answer;
use fanfare_core::redis::RedisUrl;
use fanfare_core::settings::Settings;
use fanfare_core::snapshot::Snapshot;

use crate::address::ListenAddress;

/// What a [`Server`](crate::Server) or a [`Hub`](crate::Hub) is started with.
///
/// ```
/// use fanfare_core::settings::Settings;
/// use fanfare_drive::Setup;
///
/// let mut setup = Setup::new(Settings::default());
/// setup.redis = Some("redis://127.0.0.1".parse()?);
/// setup.listen = "localhost:8080".parse()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Setup {
    /// What the shards share. The start sets the number of workers in it, and sets
    /// [`Settings::ask`] to false: a server answers by the routes, and a hub takes no requests.
    pub settings: Settings,
    /// Threads that serve sessions. `None`: one per core of the machine, at most
    /// [`Settings::MOST_WORKERS`]. Of a hub: its tasks; `None` is one.
    pub workers: Option<NonZero<usize>>,
    /// Where clients connect. A hub listens nowhere.
    pub listen: ListenAddress,
    /// Where `/metrics`, `/live` and `/ready` are served to operation apart from clients. `None`: nowhere.
    pub admin_listen: Option<ListenAddress>,
    /// Connections of clients at once; further ones wait in the kernel. `None`: as many as the limit of open files
    /// allows.
    pub max_connections: Option<NonZero<usize>>,
    /// What this instance is called where Redis lists its connections: ASCII without blanks, or empty.
    pub name: String,
    /// The Redis that carries messages between instances. `None`: messages stay in this process.
    pub redis: Option<RedisUrl>,
    /// Whether to keep trying when Redis cannot be reached at start, instead of giving up.
    pub wait_for_redis: bool,
    /// Answers a request for `/metrics` at [`Setup::admin_listen`]: `fanfare-server` has one in Prometheus' text
    /// format. `None`: the answer is 404.
    pub metrics: Option<fn(&Snapshot) -> Answer>,
}

impl Setup {
    /// A server at port 3000 of all addresses, without Redis.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            workers: None,
            listen: ListenAddress::default(),
            admin_listen: None,
            max_connections: None,
            name: String::new(),
            redis: None,
            wait_for_redis: false,
            metrics: None,
        }
    }
}

impl Default for Setup {
    fn default() -> Self {
        Self::new(Settings::default())
    }
}
