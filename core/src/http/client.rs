//! The client of a request, behind trusted proxies.

use core::net::{IpAddr, SocketAddr};
use core::str;

use super::origin::OriginPolicy;
use super::request::Request;

/// The addresses that a request comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Client {
    /// The client's address, if it is known.
    pub address: Option<IpAddr>,
    /// The trusted proxy that passed the request on, if one did.
    pub proxy: Option<IpAddr>,
}

impl Client {
    /// Both for a line of the log.
    pub(crate) fn fields(&self) -> (impl tracing::Value + use<>, impl tracing::Value + use<>) {
        (self.address.map(tracing::field::display), self.proxy.map(tracing::field::display))
    }
}

impl OriginPolicy {
    /// The sender of a request that came from `peer`: of a trusted proxy, the last address in `X-Forwarded-For` that is
    /// no trusted proxy's. Whatever stands before it may be the client's own invention.
    #[must_use]
    pub fn client(&self, request: &Request, peer: Option<IpAddr>) -> Client {
        let Some(peer) = peer else { return Client::default() };
        let is_trusted = |address: IpAddr| self.trusted_proxies.iter().any(|proxies| proxies.contains(address));
        if !is_trusted(peer) {
            return Client { address: Some(peer), proxy: None };
        }
        let elements: Vec<&[u8]> = request.list("x-forwarded-for").collect();
        let mut client = peer;
        for element in elements.into_iter().rev() {
            let Some(address) = address(element) else { break };
            client = address;
            if !is_trusted(address) {
                break;
            }
        }
        Client { address: Some(client), proxy: (client != peer).then_some(peer) }
    }
}

/// An address, with or without a port and brackets.
fn address(element: &[u8]) -> Option<IpAddr> {
    let text = str::from_utf8(element).ok()?;
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let with_port = || text.parse().ok().map(|address: SocketAddr| address.ip());
    bare.parse().ok().or_else(with_port).map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::RequestReader;
    use crate::limits::Limits;

    #[test]
    fn the_client_is_the_last_that_no_trusted_proxy_is() {
        let trusted_proxies = ["10.0.0.0/8", "fd00::/8"].map(|text| text.parse().expect("a network")).to_vec();
        let policy = OriginPolicy { trusted_proxies, ..OriginPolicy::default() };
        let table = [
            ("192.0.2.1", "X-Forwarded-For: 198.51.100.9\r\n", "192.0.2.1", None),
            ("10.0.0.1", "", "10.0.0.1", None),
            ("10.0.0.1", "X-Forwarded-For: 198.51.100.9\r\n", "198.51.100.9", Some("10.0.0.1")),
            ("10.0.0.1", "X-Forwarded-For: 1.1.1.1, 198.51.100.9, 10.2.3.4\r\n", "198.51.100.9", Some("10.0.0.1")),
            (
                "10.0.0.1",
                "X-Forwarded-For: 1.1.1.1\r\nX-Forwarded-For: 198.51.100.9:55\r\n",
                "198.51.100.9",
                Some("10.0.0.1"),
            ),
            ("fd00::1", "X-Forwarded-For: [2001:db8::7]:55\r\n", "2001:db8::7", Some("fd00::1")),
            ("fd00::1", "X-Forwarded-For: 2001:db8::7\r\n", "2001:db8::7", Some("fd00::1")),
            ("10.0.0.1", "X-Forwarded-For: 198.51.100.9, unknown\r\n", "10.0.0.1", None),
            ("10.0.0.1", "X-Forwarded-For: 10.9.9.9, 10.8.8.8\r\n", "10.9.9.9", Some("10.0.0.1")),
            ("10.0.0.1", "X-Forwarded-For: ::ffff:198.51.100.9\r\n", "198.51.100.9", Some("10.0.0.1")),
        ];
        for (peer, fields, address, proxy) in table {
            let head = format!("GET / HTTP/1.1\r\nHost: h\r\n{fields}\r\n").into_bytes();
            let (request, _) = RequestReader::new().read(&head, &Limits::default()).expect("sound").expect("whole");
            let client = policy.client(&request, peer.parse().ok());
            let expected = Client { address: address.parse().ok(), proxy: proxy.and_then(|proxy| proxy.parse().ok()) };
            assert_eq!(client, expected, "{peer} {fields}");
        }
    }
}
