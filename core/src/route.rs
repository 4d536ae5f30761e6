//! From request paths to channels.
//!
//! A route is written `PATTERN=CHANNEL[,OPTION]…`, as in `/board/{id}=board:{id},binary,publish=no`:
//!
//! - A pattern begins with `/`. A segment in braces is a variable and stands for exactly one segment that is not
//!   empty; every other segment is literal and compared percent-decoded. Write a `=`, `?`, `#`, brace or blank in it
//!   percent-encoded.
//! - A channel has each variable of the pattern exactly once. A comma ends it, so its literal text cannot have one. Of
//!   several variables each but the last ends at the character behind it, and its value cannot contain that character.
//!   Channels that begin with `fanfare:` belong to the instance.
//! - Options: `text` (the default) or `binary`, `publish=yes` (the default) or `no`, `subscribe=yes` (the default) or
//!   `no`; for sessions that read too slowly `slow=close` (the default), `drop_newest`, `drop_oldest` or `latest`
//!   ([`Slow`]); after a gap `on_gap=keep` (the default) or `close` ([`OnGap`]).
//!
//! ```
//! use fanfare_core::limits::Limits;
//! use fanfare_core::route::{Rights, Routes};
//!
//! let routes = vec!["/news=news,publish=no".parse()?, "/chat/{room}=chat:{room}".parse()?];
//! let routes = Routes::new(routes, "app:", &Limits::default())?;
//! let news = routes.find("/news").expect("there is a route")?;
//! assert_eq!((&*news.channel, news.rights), (&b"app:news"[..], Rights::SUBSCRIBE));
//! let room = routes.find("/chat/caf%C3%A9").expect("there is a route")?;
//! assert_eq!(room.channel, "app:chat:caf\u{e9}");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use core::fmt;
use core::str::FromStr;
use std::borrow::Cow;

use bytes::Bytes;
use percent_encoding::percent_decode_str;

use crate::error::Error;
use crate::limits::Limits;

mod overlap;
mod parse;
#[cfg(test)]
mod tests;

/// The beginning of channels that belong to the instance, behind the prefix. No client can enter one.
pub(crate) const RESERVED: &str = "fanfare:";

/// The checked set of an instance's routes.
#[derive(Clone, Debug)]
pub struct Routes {
    /// The more literal, from the left, the earlier.
    routes: Vec<Route>,
    channel_prefix: String,
    /// Bounds every channel, its prefix included.
    channel_bytes: usize,
    /// Segments of the longest pattern, so that a path of thousands is not taken apart.
    most_segments: usize,
}

impl Routes {
    /// Checks that no two routes have the same pattern, that routes whose channels can be the same agree in frame
    /// type and rights, and that every route can have a channel within `channel_bytes` that is not an instance's own.
    ///
    /// # Errors
    /// The first of these that does not hold, or a control character in `channel_prefix`.
    pub fn new(mut routes: Vec<Route>, channel_prefix: &str, limits: &Limits) -> Result<Self, RouteError> {
        if channel_prefix.chars().any(char::is_control) {
            return Err(RouteError(format!(
                "the channel prefix {channel_prefix:?} has a control character; write it like `app1:`"
            )));
        }
        for (i, route) in routes.iter().enumerate() {
            let least = channel_prefix.len() + route.channel.iter().map(Part::least_bytes).sum::<usize>();
            if least > limits.channel_bytes {
                return Err(RouteError(format!(
                    "route {route}: with its prefix the channel has at least {least} bytes, {} are allowed; \
                     shorten it, as in `/chat=chat`",
                    limits.channel_bytes
                )));
            }
            if matches!(route.channel.first(), Some(Part::Literal(text)) if text.starts_with(RESERVED)) {
                return Err(RouteError(format!(
                    "route {route}: channels that begin with `{RESERVED}` are the instance's own; \
                     choose another, as in `/chat=chat`"
                )));
            }
            routes[..i].iter().try_for_each(|other| check_pair(other, route))?;
        }
        routes.sort_by_cached_key(|route| route.segments.iter().map(Segment::is_variable).collect::<Vec<_>>());
        Ok(Self {
            most_segments: routes.iter().map(|route| route.segments.len()).max().unwrap_or(0),
            routes,
            channel_prefix: channel_prefix.to_owned(),
            channel_bytes: limits.channel_bytes,
        })
    }

    /// The routes of an instance that was given none: `/chat=chat` and `/chat/{room}=chat:{room}`.
    #[must_use]
    pub fn default_chat() -> Vec<Route> {
        ["/chat=chat", "/chat/{room}=chat:{room}"].into_iter().flat_map(str::parse).collect()
    }

    /// Where a request's path leads, the path as it came and without query. Of several routes that match it is the
    /// one whose first segment that differs in kind is literal.
    ///
    /// None: no route; nothing stands for an empty segment, so that `/chat/` is neither `/chat` nor `/chat/{room}`.
    /// [`Error::RoomName`]: a route, but what stands for a variable is not percent-encoded UTF-8, has control
    /// characters or the character that ends it in the channel, makes the channel longer than `channel_bytes`, or makes
    /// it one of the instance's own.
    #[must_use]
    pub fn find(&self, path: &str) -> Option<Result<Target, Error>> {
        let segments: Vec<_> = path.strip_prefix('/')?.split('/').take(self.most_segments + 1).map(decode).collect();
        let route = self.routes.iter().find(|route| route.matches(&segments))?;
        Some(self.target(route, &segments))
    }

    /// Says which routes can lead to the same channel: who may use one of them gets what belongs to the other.
    pub fn log_overlaps(&self) {
        for (a, b) in self.overlaps().take(10) {
            let (event, route, other) = ("routes_overlap", a.pattern(), b.pattern());
            tracing::warn!(event, route, other, "two routes can lead to the same channel");
        }
    }

    /// Pairs of routes that can lead to the same channel.
    fn overlaps(&self) -> impl Iterator<Item = (&Route, &Route)> {
        let pairs = self.routes.iter().enumerate().flat_map(|(i, a)| self.routes[..i].iter().map(move |b| (b, a)));
        pairs.filter(|(a, b)| overlap::overlap(&a.channel, &b.channel))
    }

    fn target(&self, route: &Route, segments: &[Option<Cow<'_, [u8]>>]) -> Result<Target, Error> {
        let mut channel = self.channel_prefix.clone();
        for part in &route.channel {
            channel.push_str(match part {
                Part::Literal(text) => text,
                Part::Variable { segment, end } => {
                    let name = name(segments.get(*segment)).ok_or(Error::RoomName)?;
                    if end.is_some_and(|end| name.contains(end)) {
                        return Err(Error::RoomName);
                    }
                    name
                }
            });
        }
        if channel.len() > self.channel_bytes || channel[self.channel_prefix.len()..].starts_with(RESERVED) {
            return Err(Error::RoomName);
        }
        let channel = channel.into();
        Ok(Target { channel, frame: route.frame, rights: route.rights, policies: route.policies, notes: false })
    }
}

/// Where a path leads.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Target {
    /// The channel, its prefix included: UTF-8 without control characters, at most `channel_bytes`.
    pub channel: Bytes,
    /// The type of all messages on it.
    pub frame: FrameType,
    /// What a session may do.
    pub rights: Rights,
    /// What becomes of a session that cannot get every message.
    pub policies: Policies,
    /// Whether the client gets notes in-band of what it misses ([`note`](crate::note)): only of a channel of text. A
    /// route does not say so, but the client, by the subprotocol that it speaks. A program that hands over a WebSocket
    /// sets it if its own 101 has named [`note::SUBPROTOCOL`](crate::note::SUBPROTOCOL).
    pub notes: bool,
}

impl Target {
    /// A channel of text, with all rights and the default policies.
    #[must_use]
    pub fn new(channel: impl Into<Bytes>) -> Self {
        Self {
            channel: channel.into(),
            frame: FrameType::default(),
            rights: Rights::default(),
            policies: Policies::default(),
            notes: false,
        }
    }
}

/// The type of all messages of a route. A Redis payload carries no type, and Fanfare does not guess one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FrameType {
    /// UTF-8.
    #[default]
    Text,
    /// Any bytes.
    Binary,
}

/// What a session may do on its channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rights {
    /// Its messages are published.
    pub publish: bool,
    /// It gets the channel's messages.
    pub subscribe: bool,
    /// Its messages are put to the embedder before they are published ([`Event::Review`](crate::shard::Event::Review)).
    /// No route says so: it is for those who set it themselves and answer.
    pub review: bool,
}

impl Rights {
    /// To publish and to subscribe: the default.
    pub const ALL: Self = Self { publish: true, subscribe: true, review: false };
    /// To publish alone.
    pub const PUBLISH: Self = Self { publish: true, subscribe: false, review: false };
    /// To subscribe alone.
    pub const SUBSCRIBE: Self = Self { publish: false, subscribe: true, review: false };
}

impl Default for Rights {
    fn default() -> Self {
        Self::ALL
    }
}

/// What happens to a session that cannot get every message. Sessions of one channel may have different policies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Policies {
    /// When it reads too slowly.
    pub slow: Slow,
    /// When messages may have been missed.
    pub on_gap: OnGap,
}

/// What happens to a session that reads too slowly: its queue would exceed
/// [`Limits::queue_bytes`](crate::limits::Limits::queue_bytes), or it is behind when all queues would exceed
/// [`Limits::all_queues_bytes`](crate::limits::Limits::all_queues_bytes).
///
/// Only whole messages are dropped, and none that has begun to leave.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Slow {
    /// It is closed with 1013.
    #[default]
    Close,
    /// It does not get what does not fit.
    DropNewest,
    /// What waits longest makes room for what comes.
    DropOldest,
    /// While its socket takes no more, only the newest message waits. Otherwise as `DropOldest`.
    Latest,
}

/// What happens to a session when messages of its channel may have been missed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnGap {
    /// It goes on.
    #[default]
    Keep,
    /// It gets nothing that came later, and is closed with 1012 within
    /// [`Limits::gap_close_time`](crate::limits::Limits::gap_close_time), each session at its own random moment.
    Close,
}

/// A path pattern and the channel it maps to: `/board/{id}=board:{id},binary,publish=no`.
///
/// No two paths of a route lead to one channel: with `/{a}/{b}={a}:{b}`, no value of `a` contains a `:`. Paths of two
/// routes may; an instance names such routes at start.
#[derive(Clone, Debug)]
pub struct Route {
    pattern: String,
    segments: Vec<Segment>,
    channel: Vec<Part>,
    frame: FrameType,
    rights: Rights,
    policies: Policies,
}

impl Route {
    /// The pattern as it was written.
    #[must_use]
    pub fn pattern(&self) -> &str {
        &self.pattern
    }

    /// The type of all messages.
    #[must_use]
    pub fn frame(&self) -> FrameType {
        self.frame
    }

    /// What a session may do.
    #[must_use]
    pub fn rights(&self) -> Rights {
        self.rights
    }

    /// What becomes of a session that cannot get every message.
    #[must_use]
    pub fn policies(&self) -> Policies {
        self.policies
    }

    fn matches(&self, segments: &[Option<Cow<'_, [u8]>>]) -> bool {
        let fits = |(own, other): (&Segment, &Option<Cow<'_, [u8]>>)| match own {
            Segment::Literal(literal) => other.as_deref() == Some(literal),
            Segment::Variable(_) => other.as_deref().is_none_or(|segment| !segment.is_empty()),
        };
        self.segments.len() == segments.len() && self.segments.iter().zip(segments).all(fits)
    }
}

impl FromStr for Route {
    type Err = RouteError;

    fn from_str(text: &str) -> Result<Self, RouteError> {
        parse::route(text).map_err(|wrong| RouteError(format!("route {text:?}: {wrong}")))
    }
}

/// The route's text, as messages name it.
impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.pattern)
    }
}

/// Why a route or a set of routes is refused. Its Display is one sentence for the person who typed it, with a valid
/// example.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteError(String);

impl fmt::Display for RouteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for RouteError {}

#[derive(Clone, Debug)]
enum Segment {
    /// Percent-decoded.
    Literal(Vec<u8>),
    /// The variable's name.
    Variable(String),
}

impl Segment {
    const fn is_variable(&self) -> bool {
        matches!(self, Self::Variable(_))
    }

    /// Whether both match the same segments.
    fn is_like(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Literal(a), Self::Literal(b)) => a == b,
            (Self::Variable(_), Self::Variable(_)) => true,
            _ => false,
        }
    }
}

/// A piece of a channel.
#[derive(Clone, Debug)]
enum Part {
    Literal(String),
    /// What stands in a segment of the path.
    Variable {
        /// Which.
        segment: usize,
        /// What its value cannot have, so that its end in the channel is where this is.
        end: Option<char>,
    },
}

impl Part {
    fn least_bytes(&self) -> usize {
        match self {
            Self::Literal(text) => text.len(),
            Self::Variable { .. } => 1,
        }
    }
}

fn check_pair(a: &Route, b: &Route) -> Result<(), RouteError> {
    if a.segments.len() == b.segments.len() && a.segments.iter().zip(&b.segments).all(|(a, b)| a.is_like(b)) {
        return Err(RouteError(format!(
            "routes {a} and {b} match the same paths; leave one out, or tell them apart, as in `/chat/{{room}}` and \
             `/board/{{id}}`"
        )));
    }
    if (a.frame, a.rights) != (b.frame, b.rights) && overlap::overlap(&a.channel, &b.channel) {
        return Err(RouteError(format!(
            "routes {a} and {b} can lead to the same channel but differ in frame type or rights; give both the same \
             options, or channels that never meet, as in `chat:{{room}}` and `board:{{id}}`"
        )));
    }
    Ok(())
}

/// A segment's bytes; `None` if a `%` is not followed by two hexadecimal digits.
fn decode(segment: &str) -> Option<Cow<'_, [u8]>> {
    let is_encoded =
        |rest: &str| matches!(rest.as_bytes(), [a, b, ..] if a.is_ascii_hexdigit() && b.is_ascii_hexdigit());
    segment.split('%').skip(1).all(is_encoded).then(|| percent_decode_str(segment).into())
}

/// A segment as the value of a variable, if it is valid as one.
fn name<'a>(segment: Option<&'a Option<Cow<'_, [u8]>>>) -> Option<&'a str> {
    let text = core::str::from_utf8(segment?.as_deref()?).ok()?;
    (!text.contains(char::is_control)).then_some(text)
}
