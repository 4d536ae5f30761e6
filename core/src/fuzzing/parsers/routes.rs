//! Routes and paths: where a path leads is what the text of its route says of it.

use crate::error::Error;
use crate::limits::Limits;
use crate::route::{FrameType, RESERVED, Rights, Route, Routes, Target};

const PREFIX: &str = "p:";
const CHANNEL_BYTES: usize = 40;

pub(super) fn check(texts: &[String]) {
    let limits = Limits { channel_bytes: CHANNEL_BYTES, ..Limits::default() };
    let written: Vec<(Written<'_>, Route)> =
        texts.iter().filter_map(|text| Some((Written::of(text), text.parse().ok()?))).collect();
    let mut paths = texts.to_vec();
    for (written, route) in &written {
        assert_eq!(route.pattern(), written.pattern);
        assert_eq!((route.frame(), route.rights()), (written.frame(), written.rights()));
        paths.push(written.path(texts));
        let Ok(routes) = Routes::new(vec![route.clone()], PREFIX, &limits) else {
            assert!(written.least_bytes() > CHANNEL_BYTES || written.template.starts_with(RESERVED));
            continue;
        };
        assert!(written.least_bytes() <= CHANNEL_BYTES);
        for path in &paths {
            assert_eq!(channel(routes.find(path)), written.channel(path), "{path:?}");
        }
        assert!(routes.find(&written.path(texts)).is_some(), "its own path is found");
        check_values(written, &paths);
    }
    let all = written.iter().map(|(_, route)| route.clone()).collect();
    if let Ok(routes) = Routes::new(all, PREFIX, &limits) {
        let written: Vec<Written<'_>> = written.into_iter().map(|(written, _)| written).collect();
        check_set(&routes, &written, &paths);
    }
}

/// A channel of a route says what its variables stand for: other values lead to another one.
fn check_values(route: &Written<'_>, paths: &[String]) {
    let mut rooms: Vec<(String, Vec<Option<Vec<u8>>>)> = Vec::new();
    for path in paths {
        if let Some(Ok(channel)) = route.channel(path) {
            rooms.push((channel, path.split('/').skip(1).map(decoded).collect()));
        }
    }
    for (channel, values) in &rooms {
        assert!(rooms.iter().all(|(other, others)| other != channel || others == values), "{rooms:?}");
    }
}

/// The most literal route counts, and no two lead to the same channel with other rights or types.
fn check_set(routes: &Routes, written: &[Written<'_>], paths: &[String]) {
    let mut targets: Vec<Target> = Vec::new();
    for path in paths {
        let fitting = written.iter().filter(|route| route.channel(path).is_some());
        let best = fitting.min_by_key(|route| route.segments().map(is_variable).collect::<Vec<_>>());
        let found = routes.find(path);
        assert_eq!(channel(found.clone()), best.and_then(|route| route.channel(path)), "{path:?}");
        if let (Some(Ok(target)), Some(best)) = (found, best) {
            assert_eq!((target.frame, target.rights), (best.frame(), best.rights()));
            targets.push(target);
        }
    }
    for target in &targets {
        let same = targets.iter().filter(|other| other.channel == target.channel);
        assert!(same.into_iter().all(|other| (other.frame, other.rights) == (target.frame, target.rights)));
    }
}

fn channel(found: Option<Result<Target, Error>>) -> Option<Result<String, Error>> {
    found.map(|target| target.map(|target| String::from_utf8(target.channel.to_vec()).expect("a channel is text")))
}

/// A valid route as it was written.
struct Written<'t> {
    pattern: &'t str,
    template: &'t str,
    options: &'t str,
}

impl<'t> Written<'t> {
    fn of(text: &'t str) -> Self {
        let (pattern, rest) = text.split_once('=').unwrap_or((text, ""));
        let (template, options) = rest.split_once(',').unwrap_or((rest, ""));
        Self { pattern, template, options }
    }

    fn segments(&self) -> impl Iterator<Item = &'t str> {
        self.pattern.split('/').skip(1)
    }

    fn says(&self, option: &str) -> bool {
        self.options.split(',').any(|other| other == option)
    }

    fn frame(&self) -> FrameType {
        if self.says("binary") { FrameType::Binary } else { FrameType::Text }
    }

    fn rights(&self) -> Rights {
        Rights { publish: !self.says("publish=no"), subscribe: !self.says("subscribe=no"), review: false }
    }

    /// Bytes of its channel when every variable is one letter.
    fn least_bytes(&self) -> usize {
        // A letter that no route has.
        PREFIX.len() + self.filled(|_| Some("\0".to_owned())).map_or(0, |channel| channel.len())
    }

    /// A path of it with some of the texts in the place of its variables, percent-encoded wherever it may be.
    fn path(&self, texts: &[String]) -> String {
        let mut values = texts.iter().filter(|text| !text.is_empty()).cycle();
        let encoded = |bytes: &[u8]| bytes.iter().map(|byte| format!("%{byte:02x}")).collect::<String>();
        let segments = self.segments().map(|segment| match is_variable(segment) {
            true => encoded(values.next().map_or(b"x", |text| text.as_bytes())),
            false => encoded(&decoded(segment).expect("a literal can be decoded")),
        });
        segments.fold(String::new(), |path, segment| path + "/" + &segment)
    }

    /// Where a path leads; `None` if this is not its route.
    fn channel(&self, path: &str) -> Option<Result<String, Error>> {
        let path: Vec<&str> = path.strip_prefix('/')?.split('/').collect();
        if path.len() != self.segments().count() {
            return None;
        }
        let fits = |(own, other): (&str, &&str)| match is_variable(own) {
            true => !other.is_empty(),
            false => decoded(own).is_some_and(|own| decoded(other) == Some(own)),
        };
        if !self.segments().zip(&path).all(fits) {
            return None;
        }
        let value = |variable: &str| {
            let at = self.segments().position(|segment| segment == variable)?;
            let value = String::from_utf8(decoded(path[at])?).ok()?;
            (!value.contains(char::is_control)).then_some(value)
        };
        let channel = self.filled(value).map(|channel| format!("{PREFIX}{channel}"));
        let is_own = |channel: &String| channel[PREFIX.len()..].starts_with(RESERVED);
        Some(channel.filter(|channel| channel.len() <= CHANNEL_BYTES && !is_own(channel)).ok_or(Error::RoomName))
    }

    /// The template with what stands for each variable, which `value` gets with its braces; `None` if that cannot be.
    fn filled(&self, value: impl Fn(&str) -> Option<String>) -> Option<String> {
        let (mut filled, mut rest) = (String::new(), self.template);
        while let Some((start, end)) = rest.find('{').zip(rest.find('}')) {
            filled += &rest[..start];
            let value = value(&rest[start..=end])?;
            rest = &rest[end + 1..];
            // Each but the last ends at what follows it.
            if rest.contains('{') && value.contains(rest.chars().next()?) {
                return None;
            }
            filled += &value;
        }
        Some(filled + rest)
    }
}

fn is_variable(segment: &str) -> bool {
    segment.starts_with('{')
}

/// `None`: a `%` without two hexadecimal digits.
fn decoded(text: &str) -> Option<Vec<u8>> {
    let mut parts = text.as_bytes().split(|&byte| byte == b'%');
    let mut decoded = parts.next().unwrap_or_default().to_vec();
    for part in parts {
        let (digits, rest) = part.split_at_checked(2)?;
        let digit = |at: usize| char::from(digits[at]).to_digit(16);
        decoded.push((digit(0)? * 16 + digit(1)?) as u8);
        decoded.extend_from_slice(rest);
    }
    Some(decoded)
}
