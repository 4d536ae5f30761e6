//! Which pages may connect: the defence against cross-site WebSocket hijacking (RFC 6455 §10.2).

use core::fmt;
use core::net::IpAddr;
use core::str::FromStr;

use super::authority::Authority;
use super::cidr::Cidr;
use super::request::Request;
use crate::quote::{Quoted, cut};

/// Which pages may connect. The default: those that the browser got from the host and port it now connects to.
///
/// A missing port means the default of Origin's scheme on both sides; which scheme we speak ourselves does not
/// matter, so TLS in front of us works. A request without Origin does not come from a browser, and passes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OriginPolicy {
    /// Origins that may connect although they are another site's.
    pub allowed: Vec<AllowedOrigin>,
    /// Peers whose `X-Forwarded-Host` counts in the place of Host; the first element if it is a list.
    pub trusted_proxies: Vec<Cidr>,
}

impl OriginPolicy {
    /// Checks the request of a peer, if its address is known.
    ///
    /// # Errors
    /// [`OriginRefused`], to be told as [`Error::Origin`](crate::error::Error::Origin), if Origin is another site's,
    /// `null`, not an origin, or there several times.
    pub fn check(&self, request: &Request, peer: Option<IpAddr>) -> Result<(), OriginRefused> {
        let origins: Vec<_> = request.values("origin").map(String::from_utf8_lossy).collect();
        if origins.is_empty() || self.allowed.contains(&AllowedOrigin(None)) {
            return Ok(());
        }
        let origin = origins.join(", ");
        let host = self.host_of_page(request, peer);
        let is_allowed = |site: Site| site.is_at(host) || self.allowed.contains(&AllowedOrigin(Some(site)));
        if Site::parse(&origin).is_some_and(is_allowed) {
            return Ok(());
        }
        Err(OriginRefused { origin: cut(&origin).into_owned(), host: cut(host).into_owned() })
    }

    /// The host and port that the browser's address bar would show.
    fn host_of_page<'r>(&self, request: &'r Request, peer: Option<IpAddr>) -> &'r str {
        let is_trusted = peer.is_some_and(|peer| self.trusted_proxies.iter().any(|proxies| proxies.contains(peer)));
        let forwarded = request.list("x-forwarded-host").next().filter(|_| is_trusted);
        forwarded.and_then(|host| core::str::from_utf8(host).ok()).unwrap_or_else(|| request.host())
    }
}

/// An origin that may connect: one such as `https://example.org`, or `*` for every one, `null` and malformed ones
/// included, which switches the check off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllowedOrigin(Option<Site>);

impl FromStr for AllowedOrigin {
    type Err = AllowedOriginError;

    fn from_str(text: &str) -> Result<Self, AllowedOriginError> {
        match text {
            "*" => Ok(Self(None)),
            // A star inside a name would be a letter like any other, and not what whoever typed it means.
            _ if text.contains('*') => Err(AllowedOriginError),
            _ => Site::parse(text).map(|site| Self(Some(site))).ok_or(AllowedOriginError),
        }
    }
}

/// A text that is not an origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AllowedOriginError;

impl fmt::Display for AllowedOriginError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "not an origin; write it like `https://example.org` or `http://localhost:8080`, without a path, or `*`",
        )
    }
}

impl std::error::Error for AllowedOriginError {}

/// `scheme://host[:port]` (RFC 6454 §6.2) in lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Site {
    scheme: String,
    host: String,
    /// None for the default port of a scheme that is not HTTP's or WebSocket's.
    port: Option<u16>,
}

impl Site {
    fn parse(text: &str) -> Option<Self> {
        let (scheme, authority) = text.split_once("://")?;
        let scheme = scheme.to_ascii_lowercase();
        let is_scheme = scheme.starts_with(|first: char| first.is_ascii_alphabetic())
            && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
        let Authority { host, port } = Authority::parse(authority)?;
        let port = port.or_else(|| default_port(&scheme));
        is_scheme.then(|| Self { scheme, host: host.to_ascii_lowercase(), port })
    }

    /// Whether a page of this site was served at `host`. The pages of an application or extension, whose scheme has
    /// no default port, were served nowhere.
    fn is_at(&self, host: &str) -> bool {
        let Some(default) = default_port(&self.scheme) else { return false };
        Authority::parse(host).is_some_and(|Authority { host, port }| {
            self.host.eq_ignore_ascii_case(host) && self.port == Some(port.unwrap_or(default))
        })
    }
}

fn default_port(scheme: &str) -> Option<u16> {
    match scheme {
        "http" | "ws" => Some(80),
        "https" | "wss" => Some(443),
        _ => None,
    }
}

/// Pages of `origin` may not connect to `host`. Its Display is the body of the 403: at most 2 KiB, whatever the request
/// says, and safe to show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OriginRefused {
    /// What Origin says, the first 200 characters of it; several joined by commas.
    pub origin: String,
    /// What it was compared with, as much of it: Host, or what a trusted proxy said.
    pub host: String,
}

impl OriginRefused {
    /// What would allow it, as the end of a sentence. What is offered for a command line means nothing else to a shell.
    pub(crate) fn advice(&self) -> String {
        let is_plain = |char: char| char.is_ascii_alphanumeric() || "-._:/[]".contains(char);
        match Site::parse(&self.origin) {
            Some(_) if self.origin.chars().all(is_plain) => {
                format!("`--allow-origin '{}'` would allow it", self.origin)
            }
            Some(_) => "its host has characters that are in no host's name".to_owned(),
            None => "it is no site's origin, so only `--allow-origin '*'` would allow it".to_owned(),
        }
    }
}

impl fmt::Display for OriginRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (origin, host, advice) = (Quoted(&self.origin), Quoted(&self.host), self.advice());
        write!(f, "pages of origin {origin} may not connect to host {host}; {advice}")
    }
}

impl std::error::Error for OriginRefused {}
