//! Stand-in.
use crate::{error::Error, limits::Limits};
use bytes::Bytes;
use core::{fmt, str::FromStr};
/// A pattern and its channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    pattern: String,
    channel: String,
}
impl Route {
    /// The pattern.
    pub fn pattern(&self) -> &str {
        &self.pattern
    }
    /// The channel.
    pub fn channel(&self) -> &str {
        &self.channel
    }
}
/// What is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteError(String);
impl fmt::Display for RouteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
impl std::error::Error for RouteError {}
impl FromStr for Route {
    type Err = RouteError;
    fn from_str(text: &str) -> Result<Self, RouteError> {
        match text.split_once('=') {
            Some((p, c)) if p.starts_with('/') => Ok(Self { pattern: p.to_owned(), channel: c.to_owned() }),
            _ => Err(RouteError(format!("'{text}' is not a route: write PATTERN=CHANNEL, for example /chat=chat"))),
        }
    }
}
/// All routes.
#[derive(Clone, Debug)]
pub struct Routes(Vec<Route>);
/// Where a path leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The channel.
    pub channel: Bytes,
}
impl Routes {
    /// All routes, checked against each other.
    pub fn new(routes: Vec<Route>, _channel_prefix: &str, _limits: &Limits) -> Result<Self, RouteError> {
        for (at, route) in routes.iter().enumerate() {
            if routes[..at].iter().any(|r| r.pattern == route.pattern) {
                return Err(RouteError(format!("the pattern {} is given twice", route.pattern)));
            }
        }
        Ok(Self(routes))
    }
    /// The chat's routes.
    pub fn default_chat() -> Vec<Route> {
        ["/chat=chat", "/chat/{room}=chat:{room}"].iter().filter_map(|r| r.parse().ok()).collect()
    }
    /// Finds one.
    pub fn find(&self, path: &str) -> Option<Result<Target, Error>> {
        self.0.iter().find_map(|route| {
            let (stem, rest) = route.pattern.split_once('{').unwrap_or((&route.pattern, ""));
            let name = path.strip_prefix(stem).filter(|name| rest.is_empty() == name.is_empty())?;
            let stem = route.channel.split('{').next().unwrap_or_default();
            Some(Ok(Target { channel: format!("{stem}{name}").into() }))
        })
    }
}
