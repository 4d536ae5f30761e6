//! The parts that Fanfare's binaries share, except the runtime: a server's configuration, its metrics as text, the chat
//! page, and, with the feature `cli`, command line, log and `main`.
//!
//! [`Config`] has every setting; [`Config::setup`] makes the setup that `fanfare-drive` starts. [`metrics::text`]
//! writes the metrics of a server, a hub or a node for Prometheus. [`page::files`] is the page at `/`.
//!
//! ```
//! use fanfare_server::Config;
//!
//! let mut config = Config::default();
//! config.port = 8080;
//! let setup = config.setup()?;
//! assert!(setup.settings.files.contains_key("/"), "the chat's page");
//! # Ok::<(), fanfare_server::ConfigError>(())
//! ```
#![forbid(unsafe_code)]

#[cfg(feature = "cli")]
pub mod cli;
pub mod config;
#[cfg(feature = "cli")]
mod handed;
#[cfg(feature = "cli")]
mod log;
pub mod metrics;
#[cfg(feature = "cli")]
mod outlet;
pub mod page;
#[cfg(feature = "cli")]
mod process;
#[cfg(feature = "cli")]
pub mod program;

pub use fanfare_drive as drive;

pub use self::config::{Config, ConfigError, Log, LogFormat};
