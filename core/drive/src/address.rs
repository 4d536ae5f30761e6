//! An address to listen on, in one word.

use core::fmt;
use core::str::FromStr;

/// A host and a port, written `127.0.0.1:9090`, `[::1]:9090`, `localhost:9090` or, for all addresses, `:9090`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenAddress {
    /// An address or host name, IPv6 without brackets. `None`: all addresses of both families.
    pub host: Option<String>,
    /// 0 lets the system pick a free one.
    pub port: u16,
}

/// Port 3000 of all addresses.
impl Default for ListenAddress {
    fn default() -> Self {
        Self { host: None, port: 3000 }
    }
}

impl FromStr for ListenAddress {
    type Err = ListenAddressError;

    fn from_str(text: &str) -> Result<Self, ListenAddressError> {
        let (host, port) = text.rsplit_once(':').ok_or(ListenAddressError)?;
        // Without brackets nobody can tell the end of an IPv6 address from the port.
        let (host, is_v6) = match host.strip_prefix('[') {
            Some(host) => (host.strip_suffix(']').ok_or(ListenAddressError)?, true),
            None => (host, false),
        };
        let is_everywhere = host.is_empty() && !is_v6;
        if !is_everywhere && (!is_host(host) || host.contains(':') != is_v6) {
            return Err(ListenAddressError);
        }
        let is_number = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
        let port = if is_number { port.parse().ok() } else { None };
        let host = (!is_everywhere).then(|| host.to_owned());
        Ok(Self { host, port: port.ok_or(ListenAddressError)? })
    }
}

/// As it is read.
impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.as_deref() {
            Some(host) if host.contains(':') => write!(f, "[{host}]:{}", self.port),
            host => write!(f, "{}:{}", host.unwrap_or_default(), self.port),
        }
    }
}

/// Not an address to listen on. Its Display ends a sentence that begins with the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ListenAddressError;

impl fmt::Display for ListenAddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a host and a port: write both, an IPv6 address in brackets (for example 127.0.0.1:9090)")
    }
}

impl std::error::Error for ListenAddressError {}

/// Whether `host` is a name or an address, without port or brackets. Whether it is one of this machine's only the system
/// can tell.
#[must_use]
pub fn is_host(host: &str) -> bool {
    let plain = |character: char| !character.is_whitespace() && !character.is_control() && !":/[]@".contains(character);
    let is_word = |text: &str| !text.is_empty() && text.chars().all(plain);
    let is_v6 = |address: &str| address.parse::<core::net::Ipv6Addr>().is_ok();
    match host.split_once('%') {
        Some((address, zone)) if is_v6(address) => is_word(zone),
        _ => is_v6(host) || is_word(host),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_to_listen_on_is_a_host_and_a_port() {
        for (text, host, port) in [
            ("127.0.0.1:9090", Some("127.0.0.1"), 9090),
            ("localhost:0", Some("localhost"), 0),
            ("[::1]:9090", Some("::1"), 9090),
            ("[fe80::1%eth0]:65535", Some("fe80::1%eth0"), 65535),
            (":9090", None, 9090),
        ] {
            let address: ListenAddress = text.parse().unwrap();
            assert_eq!((address.host.as_deref(), address.port), (host, port));
            assert_eq!(address.to_string(), text);
        }
        for text in [
            "",
            ":",
            "9090",
            "localhost",
            "localhost:",
            "::1",
            "::1:9090",
            "[::1]",
            "[::1]9090",
            "[localhost]:1",
            "[]:1",
            "a b:1",
            "a/b:1",
            "http://a:1",
            "a:65536",
            "a:+1",
            "a:-1",
            "a:1 ",
            "[::1:9090",
            "[fe80::1%]:1",
            "[fe80::1%\t]:1",
            "[fe80::1%a]b]:1",
        ] {
            assert_eq!(text.parse::<ListenAddress>(), Err(ListenAddressError), "{text}");
        }
    }
}
