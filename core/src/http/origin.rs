//! Which pages may connect: the defence against cross-site WebSocket hijacking (RFC 6455 §10.2).

use core::fmt;
use core::net::{IpAddr, Ipv4Addr};
use core::str::FromStr;
use std::sync::OnceLock;

use super::authority::Authority;
use super::cidr::Cidr;
use super::request::Request;
use crate::quote::{Quoted, cut};

/// Which pages may connect. By default those that the browser loaded from the host and port that it connects to.
///
/// A missing port means the default of Origin's scheme on both sides. Our own scheme does not matter, so TLS in front
/// works. A request without Origin does not come from a browser, and passes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct OriginPolicy {
    /// Origins that may connect although they are another site's.
    pub allowed: Vec<AllowedOrigin>,
    /// Peers whose `X-Forwarded-Host` counts in the place of Host; the first element if it is a list.
    pub trusted_proxies: Vec<Cidr>,
    /// Names under which this server's own pages may be: with any, only these, beside addresses and `localhost`.
    ///
    /// Without any, a name with dots and with the very port that this server listens on is refused: whose name that is,
    /// nobody knows, and a stranger's page gets at servers of its visitor's network by a name that leads there (DNS
    /// rebinding). Names with another port, or none, and pages over TLS are those of a proxy in front.
    pub hosts: Vec<AllowedHost>,
    /// The ports that this server listens on, once it does.
    pub ports: OnceLock<Vec<u16>>,
}

impl OriginPolicy {
    /// Checks the request of a peer, if its address is known.
    ///
    /// # Errors
    /// [`OriginRefused`], to be told as [`Error::Origin`](crate::error::Error::Origin), if Origin is another site's,
    /// `null`, not an origin, there several times, or this site's under a name that is not known.
    pub fn check(&self, request: &Request, peer: Option<IpAddr>) -> Result<(), OriginRefused> {
        let origins: Vec<_> = request.values("origin").map(String::from_utf8_lossy).collect();
        if origins.is_empty() || self.allowed.contains(&AllowedOrigin(None)) {
            return Ok(());
        }
        let text = origins.join(", ");
        let origin = Origin::parse(&text);
        let is_trusted = peer.is_some_and(|peer| self.trusted_proxies.iter().any(|proxies| proxies.contains(peer)));
        let forwarded = forwarded_host(request);
        // What the browser's address bar would show.
        let host = forwarded.filter(|_| is_trusted).unwrap_or_else(|| request.host());
        let advice = match origin {
            Some(origin) if self.allowed.contains(&AllowedOrigin(Some(origin.clone()))) => return Ok(()),
            Some(origin) if origin.is_at(host) => {
                // We speak no TLS ourselves.
                let is_behind_tls = matches!(&origin, Origin::Site(site) if matches!(&*site.scheme, "https" | "wss"));
                if self.is_known(host, is_behind_tls || is_trusted && forwarded.is_some()) {
                    return Ok(());
                }
                Advice::AllowHost
            }
            Some(origin) if !is_trusted && forwarded.is_some_and(|host| origin.is_at(host)) => Advice::Trust,
            Some(Origin::Site(_)) => Advice::Allow,
            Some(Origin::Null | Origin::File) => Advice::AllowOpaque,
            None => Advice::AllowAll,
        };
        Err(OriginRefused { origin: cut(&text).into_owned(), host: cut(host).into_owned(), advice })
    }

    /// Says which ports this server listens on, once.
    pub fn listen_on(&self, ports: Vec<u16>) {
        // Said twice, the first time counts.
        let _ = self.ports.set(ports);
    }

    /// Whether `host` is a name of this server, as far as it is known; `is_proxied` if there is a proxy in front for
    /// sure.
    fn is_known(&self, host: &str, is_proxied: bool) -> bool {
        let Some(authority) = Authority::parse(host) else { return false };
        let name = name_of(&authority);
        if name.starts_with('[')
            || name.parse::<Ipv4Addr>().is_ok()
            || name == "localhost"
            || name.ends_with(".localhost")
        {
            return true;
        }
        if !self.hosts.is_empty() {
            return self.hosts.iter().any(|AllowedHost(host)| host.as_ref().is_none_or(|host| *host == name));
        }
        // A name without a dot is in nobody's public name service.
        let is_own_port = |port| self.ports.get().is_some_and(|ports| ports.contains(&port));
        is_proxied || !name.contains('.') || !authority.port.is_some_and(is_own_port)
    }
}

/// The name as it is compared: without a dot at its end.
fn name_of(authority: &Authority<'_>) -> String {
    let mut name = authority.canonical_host();
    if name.ends_with('.') {
        name.pop();
    }
    name
}

/// A name under which this server's own pages may be, or `*` for any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllowedHost(Option<String>);

impl FromStr for AllowedHost {
    type Err = AllowedHostError;

    fn from_str(text: &str) -> Result<Self, AllowedHostError> {
        match text {
            "*" => Ok(Self(None)),
            // A star inside a name would be a letter like any other, and a port or a scheme part of no name.
            _ if text.contains(['*', ':', '/']) => Err(AllowedHostError),
            _ => Authority::parse(text).map(|authority| Self(Some(name_of(&authority)))).ok_or(AllowedHostError),
        }
    }
}

/// A text that is not the name of a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AllowedHostError;

impl fmt::Display for AllowedHostError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a host's name; write it without scheme and port, like `chat.example.org`, or `*` for any")
    }
}

impl std::error::Error for AllowedHostError {}

/// The host that a proxy says it was asked for. Only a trusted proxy may be believed.
fn forwarded_host(request: &Request) -> Option<&str> {
    request.list("x-forwarded-host").next().and_then(|host| core::str::from_utf8(host).ok())
}

/// An origin that may connect: a site such as `https://example.org`; `null` or `file://`, which browsers and
/// applications send for pages that no site served; or `*` for every origin, malformed ones included, which switches
/// the check off.
///
/// A sandboxed frame of any site also sends `null`, so allowing it is hardly a protection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllowedOrigin(Option<Origin>);

impl FromStr for AllowedOrigin {
    type Err = AllowedOriginError;

    fn from_str(text: &str) -> Result<Self, AllowedOriginError> {
        match text {
            "*" => Ok(Self(None)),
            // A star inside a name would be a letter like any other, and not what whoever typed it means.
            _ if text.contains('*') => Err(AllowedOriginError),
            _ => Origin::parse(text).map(|origin| Self(Some(origin))).ok_or(AllowedOriginError),
        }
    }
}

/// A text that is not an origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AllowedOriginError;

impl fmt::Display for AllowedOriginError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "not an origin; write it like `https://example.org` or `http://localhost:8080`, without a path, or `null`, \
             `file://` or `*`",
        )
    }
}

impl std::error::Error for AllowedOriginError {}

/// The value of an Origin field. A slash at its end, which some libraries send and browsers do not, is ignored.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Origin {
    Site(Site),
    /// `null`: a page that has no origin, such as a file or a sandboxed frame.
    Null,
    /// `file://`: what some applications and devices say of their own pages.
    File,
}

impl Origin {
    fn parse(text: &str) -> Option<Self> {
        match text {
            "null" => Some(Self::Null),
            "file://" | "file:///" => Some(Self::File),
            _ => Site::parse(text.strip_suffix('/').unwrap_or(text)).map(Self::Site),
        }
    }

    /// Whether a page of this origin was served at `host`.
    fn is_at(&self, host: &str) -> bool {
        matches!(self, Self::Site(site) if site.is_at(host))
    }
}

/// `scheme://host[:port]` (RFC 6454 §6.2) as it is compared.
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
        let authority = Authority::parse(authority)?;
        let port = authority.port.or_else(|| default_port(&scheme));
        is_scheme.then(|| Self { scheme, host: authority.canonical_host(), port })
    }

    /// Whether a page of this site was served at `host`. The pages of an application or extension, whose scheme has
    /// no default port, were served nowhere.
    fn is_at(&self, host: &str) -> bool {
        let Some(default) = default_port(&self.scheme) else { return false };
        Authority::parse(host).is_some_and(|authority| {
            self.port == Some(authority.port.unwrap_or(default)) && self.host == authority.canonical_host()
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

/// Pages of `origin` may not connect to `host`. Its Display is the body of the 403: at most 2 KiB for any
/// request, and safe to show.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OriginRefused {
    /// What Origin says, the first 200 characters of it; several joined by commas.
    pub origin: String,
    /// What it was compared with, as much of it: Host, or what a trusted proxy said.
    pub host: String,
    advice: Advice,
}

/// What the operator can change to let the page connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Advice {
    /// To allow this site, or to have a proxy leave Host as it was.
    Allow,
    /// To allow the name that the server is called by.
    AllowHost,
    /// To allow an origin that is no site's.
    AllowOpaque,
    /// To allow all, since what was said cannot be named.
    AllowAll,
    /// To believe the proxy that has changed Host and says so.
    Trust,
}

impl OriginRefused {
    /// What would let it in, as the end of a sentence. What is offered for a command line means nothing else to a
    /// shell.
    pub(crate) fn advice(&self) -> String {
        let origin = &self.origin;
        let is_plain = |char: char| char.is_ascii_alphanumeric() || "-._:/[]".contains(char);
        match self.advice {
            Advice::Allow if origin.chars().all(is_plain) => format!(
                "`--allow-origin '{origin}'` would allow it; or, if a proxy in front has changed Host, let it pass on the \
                 client's (nginx: `proxy_set_header Host $http_host`)"
            ),
            Advice::AllowHost if self.host.chars().all(is_plain) => {
                let name = Authority::parse(&self.host).map(|authority| name_of(&authority)).unwrap_or_default();
                format!("if that is a name of this server, `--allow-host '{name}'` says so")
            }
            Advice::Allow | Advice::AllowHost => "its host has characters that are in no host's name".to_owned(),
            Advice::AllowOpaque => format!(
                "`--allow-origin '{origin}'` would allow it, from wherever it says so (a sandboxed frame of any site says \
                 `null`)"
            ),
            Advice::AllowAll => "it is no site's origin, so only `--allow-origin '*'` would allow it".to_owned(),
            Advice::Trust => {
                "X-Forwarded-Host names their host, but no `--trusted-proxy` says so: if a proxy of yours \
                              does, give its address there"
                    .to_owned()
            }
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
