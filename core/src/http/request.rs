//! A complete request head, checked.

use core::fmt;
use core::ops::Range;

use super::authority::Authority;
use crate::error::Error;

/// A request method that is answered. Names are case-sensitive (RFC 9110 §9.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// GET.
    Get,
    /// HEAD: as GET, without the answer's body.
    Head,
}

/// A valid request head. It owns its bytes, at most `head_bytes`.
pub struct Request {
    head: Box<[u8]>,
    method: Method,
    /// Empty for an absolute-form target without a path, which means `/`.
    path: Range<usize>,
    query: Option<Range<usize>>,
    host: Range<usize>,
    fields: Box<[Field]>,
}

struct Field {
    name: Range<usize>,
    value: Range<usize>,
}

impl Request {
    /// Parses a complete head that ends in its empty line and has no bare CR or LF, at most one leading CRLF and
    /// `fields` lines after the request line.
    ///
    /// What is wrong first in this order is the error: syntax, version, target, an invalid body length, Host, method,
    /// a body. A bad Host or length is 400 whatever the method (RFC 9112 §3.2, §6.3), while a sound POST learns that
    /// it is the method that is not allowed.
    pub(super) fn parse(head: &[u8], fields: usize) -> Result<Self, Error> {
        let mut slots = vec![httparse::EMPTY_HEADER; fields];
        let mut parsed = httparse::Request::new(&mut slots);
        match parsed.parse(head) {
            Ok(httparse::Status::Complete(n)) if n == head.len() => {}
            Err(httparse::Error::Version) => return Err(version_error(head)),
            Ok(_) | Err(_) => return Err(Error::HeadSyntax),
        }
        let (Some(method), Some(target), Some(version)) = (parsed.method, parsed.path, parsed.version) else {
            return Err(Error::HeadSyntax);
        };
        if version != 1 {
            return Err(Error::HttpVersion);
        }
        let target = Target::parse(method, target)?;
        let within = |part: &str| range_within(head, part.as_bytes());
        let field = |header: &httparse::Header<'_>| Field {
            name: within(header.name),
            value: range_within(head, header.value),
        };
        let mut request = Self {
            head: head.into(),
            method: Method::Get,
            path: within(target.path),
            query: target.query.map(within),
            host: 0..0,
            fields: parsed.headers.iter().map(field).collect(),
        };
        let announces_body = request.announces_body()?;
        let host = request.sole_host()?;
        // RFC 9112 §3.2.2: the authority of an absolute-form target replaces Host.
        request.host = target.authority.map_or(host, within);
        request.method = match method {
            "GET" => Method::Get,
            "HEAD" => Method::Head,
            _ => return Err(Error::Method),
        };
        if announces_body { Err(Error::Body) } else { Ok(request) }
    }

    /// A request whose head somebody else has read, such as a web framework that keeps its routes and hands over
    /// WebSockets; `target` and `fields` as they came. It is checked as if it had come here.
    ///
    /// # Errors
    /// Every error of the request head, from [`Error::HeadSyntax`] to [`Error::Method`]; none for its size.
    pub fn from_parts<'a>(
        method: &str,
        target: &str,
        fields: impl IntoIterator<Item = (&'a str, &'a [u8])>,
    ) -> Result<Self, Error> {
        let is_in_one_line = |part: &[u8]| !part.iter().any(|byte| matches!(byte, b'\r' | b'\n'));
        let mut head = format!("{method} {target} HTTP/1.1").into_bytes();
        let mut is_valid = is_in_one_line(&head);
        let mut count = 0;
        for (name, value) in fields {
            is_valid &= is_in_one_line(name.as_bytes()) && is_in_one_line(value);
            head.extend([b"\r\n", name.as_bytes(), b": ", value].concat());
            count += 1;
        }
        head.extend_from_slice(b"\r\n\r\n");
        if is_valid { Self::parse(&head, count) } else { Err(Error::HeadSyntax) }
    }

    /// The method.
    #[must_use]
    pub fn method(&self) -> Method {
        self.method
    }

    /// The path as it came, percent-encoded and without query. It begins with `/`.
    #[must_use]
    pub fn path(&self) -> &str {
        if self.path.is_empty() { "/" } else { self.text(&self.path) }
    }

    /// What follows the first `?`, as it came.
    #[must_use]
    pub fn query(&self) -> Option<&str> {
        self.query.as_ref().map(|query| self.text(query))
    }

    /// The valid `host` or `host:port` that the request is for: of an absolute-form target, else of Host.
    #[must_use]
    pub fn host(&self) -> &str {
        self.text(&self.host)
    }

    /// The value of the first field of that name, in any case, without the blanks around it.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        self.values(name).next()
    }

    /// Every field in order: its name as it came, and its value, which can hold any byte but control characters
    /// (a tab is none; RFC 9110 §5.5).
    pub fn headers(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.fields.iter().map(|field| (self.text(&field.name), &self.head[field.value.clone()]))
    }

    /// The values of every field of that name.
    pub(super) fn values(&self, name: &str) -> impl Iterator<Item = &[u8]> {
        self.headers().filter(move |(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// The elements of a comma-separated list over any number of lines; empty ones do not count (RFC 9110 §5.6.1).
    pub(super) fn list(&self, name: &str) -> impl Iterator<Item = &[u8]> {
        let elements = self.values(name).flat_map(|value| value.split(|&byte| byte == b','));
        elements.map(<[u8]>::trim_ascii).filter(|element| !element.is_empty())
    }

    /// Whether a body is announced; an error if how long it is would be a matter of interpretation, which is what
    /// request smuggling lives on (RFC 9112 §6.3).
    fn announces_body(&self) -> Result<bool, Error> {
        let is_encoded = self.header("transfer-encoding").is_some();
        let mut lengths = self.values("content-length");
        let Some(first) = lengths.next() else { return Ok(is_encoded) };
        let is_number = !first.is_empty() && first.iter().all(u8::is_ascii_digit);
        if is_encoded || !is_number || lengths.any(|length| length != first) {
            return Err(Error::Body);
        }
        Ok(first.iter().any(|&digit| digit != b'0'))
    }

    fn sole_host(&self) -> Result<Range<usize>, Error> {
        let mut hosts = self.values("host");
        let (Some(host), None) = (hosts.next(), hosts.next()) else { return Err(Error::Host) };
        let is_valid = core::str::from_utf8(host).is_ok_and(|host| Authority::parse(host).is_some());
        if is_valid { Ok(range_within(&self.head, host)) } else { Err(Error::Host) }
    }

    /// Parts that are text were checked to be ASCII.
    fn text(&self, range: &Range<usize>) -> &str {
        core::str::from_utf8(&self.head[range.clone()]).unwrap_or_default()
    }
}

/// Leaves out query and fields, which may hold tokens and cookies.
impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("method", &self.method)
            .field("path", &self.path())
            .field("host", &self.host())
            .finish_non_exhaustive()
    }
}

/// The parts of a request target (RFC 9112 §3.2).
struct Target<'a> {
    authority: Option<&'a str>,
    path: &'a str,
    query: Option<&'a str>,
}

impl<'a> Target<'a> {
    fn parse(method: &str, target: &'a str) -> Result<Self, Error> {
        // The forms of methods that are not answered: asterisk-form and authority-form (§3.2.4, §3.2.3).
        let is_port_named = || Authority::parse(target).is_some_and(|authority| authority.port.is_some());
        if method == "OPTIONS" && target == "*" || method == "CONNECT" && is_port_named() {
            return Err(Error::Method);
        }
        if !target.bytes().all(is_uri_byte) {
            return Err(Error::Target);
        }
        let (authority, rest) = if target.starts_with('/') {
            (None, target)
        } else {
            let (scheme, rest) = target.split_once("://").ok_or(Error::Target)?;
            if !["http", "https", "ws", "wss"].iter().any(|known| scheme.eq_ignore_ascii_case(known)) {
                return Err(Error::Target);
            }
            let (authority, rest) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
            // User information is no part of an http URI any more (RFC 9110 §4.2.4), and no valid host has an `@`.
            Authority::parse(authority).ok_or(Error::Target)?;
            (Some(authority), rest)
        };
        match rest.split_once('?') {
            Some((path, query)) => Ok(Self { authority, path, query: Some(query) }),
            None => Ok(Self { authority, path: rest, query: None }),
        }
    }
}

/// The bytes that a URI without fragment can have (RFC 3986 §2).
fn is_uri_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~:/?[]@!$&'()*+,;=%".contains(&byte)
}

/// A version that is written as one is not supported; anything else is not HTTP.
fn version_error(head: &[u8]) -> Error {
    let head = head.strip_prefix(b"\r\n").unwrap_or(head);
    let line = head.split(|&byte| byte == b'\r').next().unwrap_or_default();
    let mut words = line.split(|&byte| byte == b' ');
    match (words.nth(2), words.next()) {
        (Some([b'H', b'T', b'T', b'P', b'/', major, b'.', minor]), None)
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            Error::HttpVersion
        }
        _ => Error::HeadSyntax,
    }
}

/// Where `part` lies in `whole`, of which it is a slice.
fn range_within(whole: &[u8], part: &[u8]) -> Range<usize> {
    let start = part.as_ptr().addr().saturating_sub(whole.as_ptr().addr());
    start..start + part.len()
}
