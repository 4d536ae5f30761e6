//! `host[:port]`: of Host, of absolute-form targets, of Origin.

use core::net::Ipv6Addr;

/// A valid `uri-host [ ":" port ]` (RFC 9110 §7.2, RFC 3986 §3.2) with a host that is not empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Authority<'a> {
    /// A name, an IPv4 address, or an IPv6 address in its brackets.
    pub(crate) host: &'a str,
    /// `host` if it is an IPv6 address, without its zone.
    address: Option<Ipv6Addr>,
    /// None if missing or empty, which means the same.
    pub(crate) port: Option<u16>,
}

impl<'a> Authority<'a> {
    /// Addresses of versions to come (`[v7.…]`) are not valid. An IPv6 zone is (`[fe80::1%eth0]`), which clients are to
    /// leave out and many do not (RFC 6874 §4).
    pub(crate) fn parse(text: &'a str) -> Option<Self> {
        let end = if text.starts_with('[') { text.find(']')? + 1 } else { text.find(':').unwrap_or(text.len()) };
        let (host, rest) = text.split_at(end);
        let address = match host.strip_prefix('[') {
            Some(rest) => Some(address(rest.strip_suffix(']')?)?),
            None if is_name(host.as_bytes()) => None,
            None => return None,
        };
        let digits = if rest.is_empty() { "" } else { rest.strip_prefix(':')? };
        let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
        let port = if digits.is_empty() { None } else { Some(digits.parse().ok()?) };
        is_number.then_some(Self { host, address, port })
    }

    /// The host as it is compared: a name in lower case, an IPv6 address in its shortest form and without its zone, which
    /// means something only inside one machine.
    pub(crate) fn canonical_host(&self) -> String {
        self.address.map_or_else(|| self.host.to_ascii_lowercase(), |address| format!("[{address}]"))
    }
}

/// An IPv6 address that is written with or without a zone.
fn address(text: &str) -> Option<Ipv6Addr> {
    match text.split_once('%') {
        Some((address, zone)) if is_name(zone.as_bytes()) => address.parse().ok(),
        Some(_) => None,
        None => text.parse().ok(),
    }
}

/// reg-name, which includes IPv4 addresses: unreserved bytes, sub-delimiters and percent-encoded ones (RFC 3986
/// §3.2.2).
fn is_name(mut name: &[u8]) -> bool {
    if name.is_empty() {
        return false;
    }
    while let Some((&byte, rest)) = name.split_first() {
        name = match (byte, rest) {
            (b'%', [high, low, rest @ ..]) if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => rest,
            _ if byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=".contains(&byte) => rest,
            _ => return false,
        };
    }
    true
}
