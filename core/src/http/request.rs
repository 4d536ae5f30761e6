//! A complete request head, checked.

use core::fmt;
use core::ops::Range;

use memchr::memchr;

use super::authority::Authority;
use crate::error::Error;

/// A request method that is answered. Names are case-sensitive (RFC 9110 §9.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Method {
    /// GET.
    Get,
    /// HEAD: as GET, without the answer's body.
    Head,
    /// OPTIONS of the server as a whole (`*` or `/`): how load balancers ask whether it is there.
    Options,
}

/// A valid request head. It owns its bytes, at most `head_bytes`.
pub struct Request {
    head: Box<[u8]>,
    method: Method,
    /// It came over HTTP/1.0; every later minor version is read as 1.1 (RFC 9110 §2.5).
    is_http_1_0: bool,
    /// Empty for an absolute-form target without a path and for `*`, which mean `/`.
    path: Range<usize>,
    query: Option<Range<usize>>,
    /// Empty if there is none, as over HTTP/1.0 there need not be.
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
            Err(httparse::Error::Version) => return Self::parse_other_version(head, fields),
            Ok(_) | Err(_) => return Err(Error::HeadSyntax),
        }
        let (Some(method), Some(target), Some(version)) = (parsed.method, parsed.path, parsed.version) else {
            return Err(Error::HeadSyntax);
        };
        let target = Target::parse(method, target)?;
        let within = |part: &str| range_within(head, part.as_bytes());
        let field = |header: &httparse::Header<'_>| Field {
            name: within(header.name),
            value: range_within(head, header.value),
        };
        let mut request = Self {
            head: head.into(),
            method: Method::Get,
            is_http_1_0: version == 0,
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
            "OPTIONS" if request.path() == "/" => Method::Options,
            _ => return Err(Error::Method),
        };
        if announces_body { Err(Error::Body) } else { Ok(request) }
    }

    /// A later minor version than `httparse` knows is read as HTTP/1.1; another major version is not spoken here.
    fn parse_other_version(head: &[u8], fields: usize) -> Result<Self, Error> {
        match version(head) {
            Some((b'1', minor)) => {
                let mut known = head.to_vec();
                known[minor] = b'1';
                Self::parse(&known, fields)
            }
            Some(_) => Err(Error::HttpVersion),
            None => Err(Error::HeadSyntax),
        }
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

    /// Whether it came over HTTP/1.0, which has no WebSocket and needs no Host.
    #[must_use]
    pub const fn is_http_1_0(&self) -> bool {
        self.is_http_1_0
    }

    /// The method.
    #[must_use]
    pub fn method(&self) -> Method {
        self.method
    }

    /// The path as it came, without query. It begins with `/`. Characters that the URL standard encodes in paths may be
    /// percent-encoded or not, as in `/a|b`; none is a control character, a blank, `#` or `\`.
    #[must_use]
    pub fn path(&self) -> &str {
        if self.path.is_empty() { "/" } else { self.text(&self.path) }
    }

    /// What follows the first `?`, as it came: any text without control characters, blanks and `#`.
    #[must_use]
    pub fn query(&self) -> Option<&str> {
        self.query.as_ref().map(|query| self.text(query))
    }

    /// The valid `host` or `host:port` that the request is for: of an absolute-form target, else of Host. Empty for a
    /// request over HTTP/1.0 that names none.
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
        let host = match (hosts.next(), hosts.next()) {
            (Some(host), None) => host,
            // RFC 9112 §3.2 requires it of HTTP/1.1 alone.
            (None, _) if self.is_http_1_0 => return Ok(0..0),
            _ => return Err(Error::Host),
        };
        let is_valid = core::str::from_utf8(host).is_ok_and(|host| Authority::parse(host).is_some());
        if is_valid { Ok(range_within(&self.head, host)) } else { Err(Error::Host) }
    }

    /// Parts that are text were checked to be UTF-8.
    fn text(&self, range: &Range<usize>) -> &str {
        core::str::from_utf8(&self.head[range.clone()]).unwrap_or_default()
    }
}

/// Leaves out query and fields, which may contain tokens and cookies.
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
        // asterisk-form (§3.2.4)
        if method == "OPTIONS" && target == "*" {
            return Ok(Self { authority: None, path: &target[..0], query: None });
        }
        // authority-form (§3.2.3), of a method that is not answered
        let is_port_named = || Authority::parse(target).is_some_and(|authority| authority.port.is_some());
        if method == "CONNECT" && is_port_named() {
            return Err(Error::Method);
        }
        if !target.chars().all(is_target_char) {
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
        let (path, query) = match rest.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (rest, None),
        };
        // Some servers and the URL standard read `\` in a path as `/`, others as a letter.
        if path.contains('\\') { Err(Error::Target) } else { Ok(Self { authority, path, query }) }
    }
}

/// Whether a target may contain `character` unencoded. URLs of browsers and libraries contain more than RFC 3986
/// allows, such as `{ } | ^ "` and letters of all scripts, and no server reads them in another way. Characters that
/// another server could take for the end of the target are refused: control characters, blanks of any kind, `#`.
fn is_target_char(character: char) -> bool {
    !character.is_control() && !character.is_whitespace() && character != '#'
}

/// The version of a request line of three words, if it is well-formed: its major digit, and the place of its minor
/// digit in `head`.
fn version(head: &[u8]) -> Option<(u8, usize)> {
    let start = if head.starts_with(b"\r\n") { 2 } else { 0 };
    let end = start + memchr(b'\r', &head[start..])?;
    let mut words = head[start..end].split(|&byte| byte == b' ');
    match (words.nth(2), words.next()) {
        (Some([b'H', b'T', b'T', b'P', b'/', major, b'.', minor]), None)
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            Some((*major, end - 1))
        }
        _ => None,
    }
}

/// The place of `part` in `whole`, of which it is a slice.
fn range_within(whole: &[u8], part: &[u8]) -> Range<usize> {
    let start = part.as_ptr().addr().saturating_sub(whole.as_ptr().addr());
    start..start + part.len()
}
