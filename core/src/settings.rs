//! The settings that the shards of an instance share.

use core::fmt;
use core::time::Duration;
use std::collections::BTreeMap;

use crate::http::{Answer, OriginPolicy};
use crate::limits::Limits;
use crate::route::{Route, RouteError, Routes};
use crate::units::{Size, Time};

#[cfg(test)]
mod tests;

/// The settings that all shards of an instance share.
///
/// [`Settings::default`] serves the chat's routes to everybody. Set the fields that should differ, or begin with
/// [`Settings::new`].
///
/// ```
/// use fanfare_core::limits::Limits;
/// use fanfare_core::settings::Settings;
///
/// let mut limits = Limits::default();
/// limits.message_bytes = 1 << 10;
/// let settings = Settings::new(limits, vec!["/news=news,publish=no".parse()?], "")?;
/// assert!(settings.routes.find("/news").is_some());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Settings {
    /// Every bound.
    pub limits: Limits,
    /// Paths to channels.
    pub routes: Routes,
    /// What stands before every channel name at Redis; the names in `routes` have it already.
    pub channel_prefix: String,
    /// Whose pages may connect.
    pub origins: OriginPolicy,
    /// Files that are served beside the routes, by their paths: GET and HEAD of such a path get the answer, a
    /// WebSocket's request does not.
    pub files: BTreeMap<String, Answer>,
    /// Whether the embedder answers each valid upgrade request ([`Event::Request`](crate::shard::Event::Request)),
    /// instead of the routes.
    pub ask: bool,
    /// How many workers share the instance's bounds.
    pub workers: usize,
}

impl Settings {
    /// The most workers that an instance may have.
    pub const MOST_WORKERS: usize = 1_024;

    /// Settings of one worker, without files.
    ///
    /// # Errors
    ///
    /// As [`Settings::check`], and the first route that makes no sense beside the others, or with the channel prefix.
    pub fn new(limits: Limits, routes: Vec<Route>, channel_prefix: &str) -> Result<Self, SettingsError> {
        limits.check()?;
        check_prefix(channel_prefix)?;
        Ok(Self {
            routes: Routes::new(routes, channel_prefix, &limits).map_err(SettingsError::Routes)?,
            limits,
            channel_prefix: channel_prefix.to_owned(),
            origins: OriginPolicy::default(),
            files: BTreeMap::new(),
            ask: false,
            workers: 1,
        })
    }

    /// Whether the settings make sense, each alone and together.
    ///
    /// # Errors
    ///
    /// The first setting that does not.
    pub fn check(&self) -> Result<(), SettingsError> {
        in_range("workers", self.workers as u64, 1, Self::MOST_WORKERS as u64, |number| number.to_string())?;
        self.limits.check()?;
        check_prefix(&self.channel_prefix)
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self::new(Limits::default(), Routes::default_chat(), "").expect("the defaults make sense")
    }
}

impl Limits {
    /// Whether the limits make sense, each alone and together.
    ///
    /// # Errors
    ///
    /// The first that does not.
    pub fn check(&self) -> Result<(), SettingsError> {
        self.check_ranges()?;
        self.check_order()
    }

    /// Each setting alone. The ends are far from useful values; they keep sums of a few settings from overflowing.
    fn check_ranges(&self) -> Result<(), SettingsError> {
        const KIB: u64 = 1 << 10;
        const GIB: u64 = 1 << 30;
        const MILLI: Duration = Duration::from_millis(1);
        const DAY: Duration = Duration::from_secs(24 * 3600);
        for (setting, value, least, most) in [
            ("head_fields", self.head_fields as u64, 1, 10_000),
            ("message_fragments", u64::from(self.message_fragments), 1, 1 << 30),
            ("lingering_channels", self.lingering_channels as u64, 0, 1 << 30),
        ] {
            in_range(setting, value, least, most, |number| number.to_string())?;
        }
        for (setting, value, least, most) in [
            ("head_bytes", self.head_bytes, 256, GIB),
            ("message_bytes", self.message_bytes, 1, GIB),
            ("partial_bytes", self.partial_bytes, 1, KIB * GIB),
            ("queue_bytes", self.queue_bytes, 1, GIB),
            ("all_queues_bytes", self.all_queues_bytes, 1, KIB * GIB),
            ("channel_bytes", self.channel_bytes, 1, 64 * KIB),
            ("mailbox_bytes", self.mailbox_bytes, 1, GIB),
            ("publish_bytes", self.publish_bytes, 1, GIB),
        ] {
            in_range(setting, value as u64, least, most, |bytes| Size(bytes).to_string())?;
        }
        for (setting, value, least) in [
            ("head_time", self.head_time, MILLI),
            ("ping_time", self.ping_time, MILLI),
            ("pong_time", self.pong_time, MILLI),
            ("close_time", self.close_time, MILLI),
            ("message_time", self.message_time, MILLI),
            ("confirm_time", self.confirm_time, MILLI),
            ("gap_close_time", self.gap_close_time, Duration::ZERO),
            ("drain_delay", self.drain_delay, Duration::ZERO),
            ("drain_time", self.drain_time, Duration::ZERO),
            ("linger_time", self.linger_time, Duration::ZERO),
            ("publish_time", self.publish_time, MILLI),
            ("pause_time", self.pause_time, MILLI),
            ("dial_time", self.dial_time, MILLI),
            ("reply_time", self.reply_time, MILLI),
            ("reconnect_times.0", self.reconnect_times.0, MILLI),
            ("reconnect_times.1", self.reconnect_times.1, MILLI),
            ("redis_ping_time", self.redis_ping_time, MILLI),
            ("probe_time", self.probe_time, MILLI),
        ] {
            in_range(setting, value, least, DAY, |time| Time(time).to_string())?;
        }
        Ok(())
    }

    /// Settings of which one must not be above the other, or the largest message allowed could never pass.
    fn check_order(&self) -> Result<(), SettingsError> {
        let message = ("message_bytes", self.message_bytes);
        let queue = ("queue_bytes", self.queue_bytes);
        for ((setting, value), (bound, most)) in [
            (message, queue),
            (queue, ("all_queues_bytes", self.all_queues_bytes)),
            (message, ("partial_bytes", self.partial_bytes)),
            (message, ("mailbox_bytes", self.mailbox_bytes)),
            (message, ("publish_bytes", self.publish_bytes)),
        ] {
            if value > most {
                let (value, most) = (Size(value as u64).to_string(), Size(most as u64).to_string());
                return Err(SettingsError::Above { setting, value, bound, most });
            }
        }
        let (first, most) = self.reconnect_times;
        if first > most {
            let (value, most) = (Time(first).to_string(), Time(most).to_string());
            let (setting, bound) = ("reconnect_times.0", "reconnect_times.1");
            return Err(SettingsError::Above { setting, value, bound, most });
        }
        Ok(())
    }
}

fn check_prefix(prefix: &str) -> Result<(), SettingsError> {
    if prefix.contains(char::is_control) { Err(SettingsError::ChannelPrefix) } else { Ok(()) }
}

fn in_range<T: Copy + PartialOrd>(
    setting: &'static str,
    value: T,
    least: T,
    most: T,
    show: impl Fn(T) -> String,
) -> Result<(), SettingsError> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    Err(SettingsError::Range { setting, value: show(value), least: show(least), most: show(most) })
}

/// The first invalid one of the [`Settings`], by the name of its field.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SettingsError {
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
    /// The channel prefix has a control character.
    ChannelPrefix,
    /// A route makes no sense beside the others, or with the channel prefix.
    Routes(RouteError),
}

impl SettingsError {
    /// The setting to change first.
    #[must_use]
    pub const fn setting(&self) -> &'static str {
        match self {
            Self::Range { setting, .. } | Self::Above { setting, .. } => setting,
            Self::ChannelPrefix => "channel_prefix",
            Self::Routes(_) => "routes",
        }
    }

    /// One sentence, without the setting's own name, in which `name` says what other settings are called.
    pub fn describe(&self, name: impl Fn(&'static str) -> String) -> String {
        match self {
            Self::Range { value, least, most, .. } => format!("{value} is out of range: from {least} to {most}"),
            Self::Above { value, bound, most, .. } => {
                let bound = name(bound);
                format!("{value} is above {bound} ({most}): lower it, or raise {bound}")
            }
            Self::ChannelPrefix => "a prefix has no control characters (for example staging:)".to_owned(),
            Self::Routes(error) => error.to_string(),
        }
    }
}

impl fmt::Display for SettingsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.setting(), self.describe(str::to_owned))
    }
}

impl std::error::Error for SettingsError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Routes(error) => Some(error),
            _ => None,
        }
    }
}
