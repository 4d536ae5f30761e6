//! Plain HTTP answers.

use std::borrow::Cow;

use bytes::Bytes;

use super::date::imf_fixdate;
use super::request::Method;
use crate::error::Error;
use crate::time::Duration;

/// A plain answer. Every one closes the connection.
///
/// It has a Date field only after [`Shard::set_wall_clock`](crate::shard::Shard::set_wall_clock): the core has no
/// clock, and RFC 9110 §6.6.1 asks a server without one to leave the field out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status code, 200 to 599 but not 204, 205 or 304, which have no body.
    pub status: u16,
    /// Header fields beside `Content-Length` and `Connection: close`, which [`Answer::encode`] adds.
    /// A CR, LF or NUL in a value is sent as a space, so no value can end its line.
    pub fields: Vec<(&'static str, Cow<'static, str>)>,
    /// The body, which an answer to HEAD leaves out.
    pub body: Bytes,
}

impl Answer {
    /// A short text that nobody may cache or take for a page, with the fields that RFC 9110 requires for `status`.
    #[must_use]
    pub fn text(status: u16, body: impl Into<Bytes>) -> Self {
        let answer = Self { status, fields: Vec::new(), body: body.into() }
            .with_field("Content-Type", "text/plain; charset=utf-8")
            .with_field("X-Content-Type-Options", "nosniff")
            .with_field("Cache-Control", "no-store");
        match status {
            405 => answer.with_field("Allow", "GET, HEAD"),
            // RFC 9110 §7.8: whoever sends Upgrade names it in Connection, too, here beside `close`. RFC 6455 §4.4:
            // the version.
            426 => answer
                .with_field("Upgrade", "websocket")
                .with_field("Connection", "Upgrade")
                .with_field("Sec-WebSocket-Version", "13"),
            503 => answer.with_field("Retry-After", "5"),
            _ => answer,
        }
    }

    /// The answer to a request that failed with `error`: its status and its sentence. 500 for an error without a status,
    /// since it cannot come from a request.
    ///
    /// On a path that takes sockets only, [`Error::Method`] wants `.with_field("Allow", "GET")`.
    #[must_use]
    pub fn for_error(error: Error) -> Self {
        let status = error.told().status().unwrap_or(500);
        Self::text(status, format!("{error}.\n"))
    }

    /// The answer with this field, in the place of one of the same name.
    #[must_use]
    pub fn with_field(mut self, name: &'static str, value: impl Into<Cow<'static, str>>) -> Self {
        self.fields.retain(|(other, _)| !other.eq_ignore_ascii_case(name));
        self.fields.push((name, value.into()));
        self
    }

    /// The complete answer to a request of this method ([`RequestReader::method`](super::RequestReader::method) if the
    /// head was refused).
    #[must_use]
    pub fn encode(&self, method: Method) -> Bytes {
        self.encode_at(method, None)
    }

    /// As [`Answer::encode`], with the time since the Unix epoch if it is known.
    pub(crate) fn encode_at(&self, method: Method, since_epoch: Option<Duration>) -> Bytes {
        let (status, reason, length) = (self.status, reason(self.status), self.body.len());
        let mut head = format!("HTTP/1.1 {status} {reason}\r\nConnection: close\r\nContent-Length: {length}\r\n");
        if let Some(since_epoch) = since_epoch {
            head.extend(["Date: ", &imf_fixdate(since_epoch), "\r\n"]);
        }
        for (name, value) in &self.fields {
            head.extend([name, ": ", &value.replace(['\r', '\n', '\0'], " "), "\r\n"]);
        }
        head.push_str("\r\n");
        let mut answer = head.into_bytes();
        if method != Method::Head {
            answer.reserve_exact(self.body.len());
            answer.extend_from_slice(&self.body);
        }
        answer.into()
    }
}

/// The reason phrase, which may be empty (RFC 9112 §4).
const fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        414 => "URI Too Long",
        426 => "Upgrade Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        503 => "Service Unavailable",
        505 => "HTTP Version Not Supported",
        _ => "",
    }
}
