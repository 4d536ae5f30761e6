//! The errors of servers and hubs.

use std::fmt;
use std::io;

use fanfare_core::error::Misuse;
use fanfare_core::redis::LinkError;
use fanfare_core::settings::SettingsError;

use crate::runtime::Signal;

/// Why a server did not start, or did not end well. Each is one line for people.
#[derive(Debug)]
#[non_exhaustive]
pub enum ServeError {
    /// The settings make no sense.
    Settings(SettingsError),
    /// The address cannot be listened on.
    Bind {
        /// The address that was asked for.
        address: String,
        /// The flag that asks for something else.
        option: &'static str,
        /// The error of the system.
        error: io::Error,
    },
    /// A socket that was handed over cannot be listened on.
    Listener(io::Error),
    /// Redis cannot be used.
    Redis(LinkError),
    /// The system provides no thread, timer, signal or randomness.
    System(io::Error),
    /// The time to shut down was over before every accepted publish had left and was confirmed.
    Unflushed {
        /// The number of messages that are lost, or may be.
        messages: u64,
    },
    /// A second signal came while the server shut down.
    CutShort(Signal),
}

impl ServeError {
    /// The exit code of a process that ends with this error.
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::CutShort(signal) => signal.exit_code(),
            _ => 1,
        }
    }
}

impl fmt::Display for ServeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Settings(error) => error.fmt(f),
            Self::Bind { address, option, error } if error.kind() == io::ErrorKind::AddrInUse => {
                write!(f, "{address} is taken by another process: stop that, or choose another {option}")
            }
            Self::Bind { address, error, option: "--port" } if address.contains(" of ") => {
                write!(f, "cannot listen on {address}: {error}; --host, or HOST in the environment, says where")
            }
            Self::Bind { address, error, option } => {
                write!(f, "cannot listen on {address}: {error}; {option} says where")
            }
            Self::Listener(error) => write!(f, "a listening socket that was handed over cannot be used: {error}"),
            Self::Redis(error) if error.is_passing() => {
                write!(f, "{error} (tried for 5s; with --wait-for-redis it keeps trying)")
            }
            Self::Redis(error) => error.fmt(f),
            Self::System(error) => write!(f, "system error: {error}"),
            Self::Unflushed { messages } => {
                write!(f, "{messages} accepted messages were lost, or not confirmed by Redis, at shutdown")
            }
            Self::CutShort(signal) => write!(f, "{signal} again: ended before all sessions were closed"),
        }
    }
}

impl std::error::Error for ServeError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Settings(error) => Some(error),
            Self::Bind { error, .. } | Self::Listener(error) | Self::System(error) => Some(error),
            Self::Redis(error) => Some(error),
            Self::Unflushed { .. } | Self::CutShort(_) => None,
        }
    }
}

/// Why a hub refuses a call. The call has changed nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HubError {
    /// The arguments are invalid.
    Misuse(Misuse),
    /// The channel could not be subscribed in time: Redis is away.
    NotConfirmed,
    /// The hub was stopped.
    Stopped,
}

impl fmt::Display for HubError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Misuse(misuse) => misuse.fmt(f),
            Self::NotConfirmed => f.write_str("the channel could not be subscribed in time"),
            Self::Stopped => f.write_str("the hub was stopped"),
        }
    }
}

impl std::error::Error for HubError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Misuse(misuse) => Some(misuse),
            Self::NotConfirmed | Self::Stopped => None,
        }
    }
}
