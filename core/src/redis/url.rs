//! The address of Redis and the login: `redis://[user[:password]@]host[:port][/database]`.

use core::fmt;
use core::net::Ipv6Addr;
use core::str::FromStr;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

/// A Redis URL, parsed and percent-decoded.
///
/// `Display` and `Debug` never show the password, and neither does [`RedisUrlError`].
///
/// ```
/// let url: fanfare_core::redis::RedisUrl = "redis://:se%40cret@cache.example/2".parse()?;
/// assert_eq!((url.host(), url.port(), url.database()), ("cache.example", 6379, 2));
/// assert_eq!(url.password(), Some("se@cret"));
/// assert_eq!(url.to_string(), "redis://:***@cache.example:6379/2");
/// # Ok::<(), fanfare_core::redis::url::RedisUrlError>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct RedisUrl {
    user: Option<String>,
    password: Option<String>,
    host: String,
    port: u16,
    database: u32,
    client: String,
}

impl RedisUrl {
    /// The same, with what Redis is to call its connections, `fanfare-subscriber:NAME` and `fanfare-publisher:NAME`, where
    /// it lists them. Of a name only what such a name may have is left: printable ASCII without blanks.
    #[must_use]
    pub fn with_client_name(mut self, name: &str) -> Self {
        self.client = name.chars().filter(char::is_ascii_graphic).take(100).collect();
        self
    }

    /// What Redis is to call this instance; empty for nothing.
    #[must_use]
    pub fn client_name(&self) -> &str {
        &self.client
    }

    /// The port of a URL that names none.
    pub const DEFAULT_PORT: u16 = 6379;

    /// The ACL user for `AUTH`; with `None` and a password it is Redis's own `default`.
    #[must_use]
    pub fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// The password for `AUTH`.
    #[must_use]
    pub fn password(&self) -> Option<&str> {
        self.password.as_deref()
    }

    /// A host name, an IPv4 address or an IPv6 address without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The TCP port, never 0.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// The database for `SELECT`. (Pub/Sub channels are the same in every database.)
    #[must_use]
    pub const fn database(&self) -> u32 {
        self.database
    }
}

impl FromStr for RedisUrl {
    type Err = RedisUrlError;

    fn from_str(text: &str) -> Result<Self, RedisUrlError> {
        parse(text).map_err(|problem| RedisUrlError { shown: without_secrets(text), problem })
    }
}

fn parse(text: &str) -> Result<RedisUrl, Problem> {
    let Some((scheme, rest)) = text.split_once("://") else { return Err(Problem::Scheme) };
    match scheme.to_ascii_lowercase().as_str() {
        "redis" => {}
        "rediss" => return Err(Problem::Tls),
        _ => return Err(Problem::Scheme),
    }
    let (authority, tail) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    if tail.contains('@') {
        return Err(Problem::RawDelimiter);
    }
    if tail.contains(['?', '#']) {
        return Err(Problem::Query);
    }
    // The last `@`, since the wish for a literal one in a password cannot be anything else.
    let (user, password, address) = match authority.rsplit_once('@') {
        Some((login, address)) => {
            let (user, password) = login.split_once(':').unwrap_or((login, ""));
            (decode(user)?, decode(password)?, address)
        }
        None => (None, None, authority),
    };
    let (host, port) = split_port(address)?;
    let port = match port {
        Some(port) => decimal(port).filter(|&port| port > 0).ok_or(Problem::Port)?,
        None => RedisUrl::DEFAULT_PORT,
    };
    let database = match tail.strip_prefix('/') {
        None | Some("") => 0,
        Some(database) => decimal(database).ok_or(Problem::Database)?,
    };
    Ok(RedisUrl { user, password, host: host.to_owned(), port, database, client: String::new() })
}

/// Percent-decoding, strict: a lone `%` would otherwise log in with another password than the one meant.
fn decode(text: &str) -> Result<Option<String>, Problem> {
    let mut escapes = text.split('%');
    let _before_the_first = escapes.next();
    for escape in escapes {
        if escape.bytes().take(2).filter(u8::is_ascii_hexdigit).count() < 2 {
            return Err(Problem::Escape);
        }
    }
    let text = percent_decode_str(text).decode_utf8().map_err(|_| Problem::Escape)?;
    Ok((!text.is_empty()).then(|| text.into_owned()))
}

fn split_port(address: &str) -> Result<(&str, Option<&str>), Problem> {
    if let Some(bracketed) = address.strip_prefix('[') {
        let (host, port) = bracketed.split_once(']').ok_or(Problem::Ipv6)?;
        host.parse::<Ipv6Addr>().map_err(|_| Problem::Ipv6)?;
        return match port.strip_prefix(':') {
            None if !port.is_empty() => Err(Problem::Port),
            port => Ok((host, port)),
        };
    }
    if address.matches(':').count() > 1 {
        return Err(Problem::Ipv6);
    }
    let (host, port) = match address.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (address, None),
    };
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    if host.is_empty() || !host.bytes().all(plain) {
        return Err(Problem::Host);
    }
    Ok((host, port))
}

/// Digits alone: `str::parse` would also take a `+`.
fn decimal<T: FromStr>(digits: &str) -> Option<T> {
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
}

impl fmt::Display for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
        f.write_str("redis://")?;
        if self.user.is_some() || self.password.is_some() {
            let user = self.user.as_deref().unwrap_or_default();
            let password = if self.password.is_some() { ":***" } else { "" };
            write!(f, "{}{password}@", utf8_percent_encode(user, ENCODED))?;
        }
        if self.host.contains(':') { write!(f, "[{}]", self.host) } else { f.write_str(&self.host) }?;
        write!(f, ":{}", self.port)?;
        if self.database > 0 { write!(f, "/{}", self.database) } else { Ok(()) }
    }
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a text is not a [`RedisUrl`], in one sentence that quotes the text without its secrets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisUrlError {
    shown: String,
    problem: Problem,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Problem {
    Scheme,
    Tls,
    RawDelimiter,
    Query,
    Escape,
    Host,
    Ipv6,
    Port,
    Database,
}

impl fmt::Display for RedisUrlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let problem = match self.problem {
            Problem::Scheme => "it must begin with redis:// (for example redis://127.0.0.1:6379)",
            Problem::Tls => "TLS (rediss://) is not supported yet; use redis:// through a private network or a tunnel",
            Problem::RawDelimiter => "in a user or password, write / as %2F, ? as %3F and # as %23",
            Problem::Query => "nothing may follow a ? or #; the database is the path (for example redis://127.0.0.1/2)",
            Problem::Escape => "in a user or password, % begins two hexadecimal digits of UTF-8; write % itself as %25",
            Problem::Host => "a host name or address must follow redis:// (for example redis://127.0.0.1:6379)",
            Problem::Ipv6 => "an IPv6 address stands in brackets (for example redis://[::1]:6379)",
            Problem::Port => "the port must be a number from 1 to 65535 (for example redis://127.0.0.1:6379)",
            Problem::Database => "the database must be a number (for example redis://127.0.0.1/2)",
        };
        write!(f, "'{}' is not a Redis URL: {problem}", self.shown)
    }
}

impl std::error::Error for RedisUrlError {}

/// `text` without whatever may be a login or a query, however wrong the rest is.
fn without_secrets(text: &str) -> String {
    let (scheme, rest) = match text.split_once("://") {
        Some((scheme, rest)) if !scheme.contains('@') => (format!("{scheme}://"), rest),
        _ => (String::new(), text),
    };
    let (login, rest) = match rest.rsplit_once('@') {
        Some((_, rest)) => ("***@", rest),
        None => ("", rest),
    };
    let (rest, query) = match rest.find(['?', '#']) {
        Some(end) => (&rest[..end], "?…"),
        None => (rest, ""),
    };
    format!("{scheme}{login}{rest}{query}").replace(char::is_control, "?")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> RedisUrl {
        text.parse().unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn every_part_is_read_or_has_its_default() {
        let rows = [
            ("redis://localhost", None::<&str>, None::<&str>, "localhost", 6379, 0),
            ("redis://localhost/", None, None, "localhost", 6379, 0),
            ("REDIS://127.0.0.1:1", None, None, "127.0.0.1", 1, 0),
            ("redis://a_b.c-d:65535/15", None, None, "a_b.c-d", 65535, 15),
            ("redis://h/4294967295", None, None, "h", 6379, u32::MAX),
            ("redis://[::1]", None, None, "::1", 6379, 0),
            ("redis://[fe80::1]:7000/1", None, None, "fe80::1", 7000, 1),
            ("redis://ann@h", Some("ann"), None, "h", 6379, 0),
            ("redis://ann:pw@h", Some("ann"), Some("pw"), "h", 6379, 0),
            ("redis://:pw@h", None, Some("pw"), "h", 6379, 0),
            ("redis://@h", None, None, "h", 6379, 0),
            ("redis://:@h", None, None, "h", 6379, 0),
            ("redis://a:b:c@h", Some("a"), Some("b:c"), "h", 6379, 0),
            ("redis://a:b@c@h", Some("a"), Some("b@c"), "h", 6379, 0),
            ("redis://%C3%A4%3a:%2F%3F%23%25%40@[::1]", Some("ä:"), Some("/?#%@"), "::1", 6379, 0),
        ];
        for (text, user, password, host, port, database) in rows {
            let url = url(text);
            let read = (url.user(), url.password(), url.host(), url.port(), url.database());
            assert_eq!(read, (user, password, host, port, database), "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        let rows: &[(&str, Problem)] = &[
            ("", Problem::Scheme),
            ("localhost:6379", Problem::Scheme),
            ("http://x", Problem::Scheme),
            ("unix:///run/redis.sock", Problem::Scheme),
            ("rediss://x", Problem::Tls),
            ("redis://", Problem::Host),
            ("redis:///1", Problem::Host),
            ("redis://:6379", Problem::Host),
            ("redis://user@", Problem::Host),
            ("redis://a b", Problem::Host),
            ("redis://a\r\nb", Problem::Host),
            ("redis://h:", Problem::Port),
            ("redis://h:0", Problem::Port),
            ("redis://h:65536", Problem::Port),
            ("redis://h:+1", Problem::Port),
            ("redis://h:x", Problem::Port),
            ("redis://[::1]6379", Problem::Port),
            ("redis://[::1]:", Problem::Port),
            ("redis://[::1", Problem::Ipv6),
            ("redis://[localhost]", Problem::Ipv6),
            ("redis://::1:6379", Problem::Ipv6),
            ("redis://h/x", Problem::Database),
            ("redis://h/-1", Problem::Database),
            ("redis://h/+1", Problem::Database),
            ("redis://h/1/", Problem::Database),
            ("redis://h/4294967296", Problem::Database),
            ("redis://h?db=1", Problem::Query),
            ("redis://h/1?protocol=3", Problem::Query),
            ("redis://h#1", Problem::Query),
            ("redis://:a/b@h", Problem::RawDelimiter),
            ("redis://:a?b@h", Problem::RawDelimiter),
            ("redis://:a#b@h", Problem::RawDelimiter),
            ("redis://:100%@h", Problem::Escape),
            ("redis://:%4@h", Problem::Escape),
            ("redis://:%4g@h", Problem::Escape),
            ("redis://%zz@h", Problem::Escape),
            ("redis://:%ff@h", Problem::Escape),
        ];
        for &(text, problem) in rows {
            assert_eq!(text.parse::<RedisUrl>().map_err(|error| error.problem), Err(problem), "{text}");
        }
    }

    #[test]
    fn a_complaint_quotes_the_url_and_says_what_to_try() {
        let told = |text: &str| text.parse::<RedisUrl>().unwrap_err().to_string();
        let expected =
            "'http://x' is not a Redis URL: it must begin with redis:// (for example redis://127.0.0.1:6379)";
        assert_eq!(told("http://x"), expected);
        assert!(told("rediss://x").contains("TLS (rediss://) is not supported yet"));
        assert!(!told("redis://a\nb").contains('\n'), "one line");
    }

    #[test]
    fn the_password_is_never_shown() {
        let login = url("redis://j%C3%B6:hunter2@h/3");
        for shown in [login.to_string(), format!("{login:?}"), format!("{login:#?}")] {
            assert_eq!(shown, "redis://j%C3%B6:***@h:6379/3");
        }
        assert_eq!(url("redis://h").to_string(), "redis://h:6379");
        assert_eq!(url("redis://ann@[::1]").to_string(), "redis://ann@[::1]:6379");
        assert_eq!(url("redis://:hunter2@h").to_string(), "redis://:***@h:6379");
        for text in [
            "http://u:hunter2@h",
            "u:hunter2@h",
            "u:hunter2@h://x@y",
            "rediss://:hunter2@h",
            "redis://:hunter2@h:x",
            "redis://:hunter2/@h",
            "redis://:hun%ter2@hunter2@h:0",
            "redis://h?password=hunter2",
            "redis://:hunter2#@h",
        ] {
            let error = text.parse::<RedisUrl>().unwrap_err();
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{text}: {error:?}");
        }
    }
}
