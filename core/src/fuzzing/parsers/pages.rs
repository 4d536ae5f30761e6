//! Requests of pages, straight or through a proxy: who they are for and whether they may connect.

use core::net::IpAddr;

use crate::fuzzing::http_request::check_request;
use crate::http::{AllowedHost, AllowedOrigin, Authority, Cidr, Client, OriginPolicy, Request};
use crate::limits::Limits;

/// The address of whoever is connected, a proxy or not.
const PEER: IpAddr = IpAddr::V4(core::net::Ipv4Addr::new(192, 0, 2, 1));

pub(super) fn check(texts: &[String]) {
    for text in texts {
        check_allowed(text);
        check_name(text);
    }
    let text = |at: usize| texts.get(at).map_or("", String::as_str);
    let fields = [("Host", text(0)), ("Origin", text(1)), ("X-Forwarded-Host", text(2))];
    let target = if text(3).is_empty() { "/" } else { text(3) };
    let parts = fields.map(|(name, value)| (name, value.as_bytes()));
    if let Ok(request) = Request::from_parts("GET", target, parts) {
        let lines = fields.map(|(name, value)| format!("{name}: {value}\r\n")).concat();
        let head = format!("GET {target} HTTP/1.1\r\n{lines}\r\n");
        check_request(&request, head.as_bytes(), &Limits { head_bytes: usize::MAX, ..Limits::default() });
        check_policies(&request, texts);
        check_names(&request, texts);
    }
    check_client(text(4));
}

/// An origin is the same in any case, and with or without a slash behind it or the port that it has anyway.
fn check_allowed(text: &str) {
    let Ok(allowed) = text.parse::<AllowedOrigin>() else { return };
    assert_eq!(text.to_ascii_lowercase().parse(), Ok(allowed.clone()));
    let Some(site) = Site::of(text) else {
        assert!(["*", "null", "file://", "file:///"].contains(&text), "{text:?}");
        return;
    };
    let port = site.port.map_or_else(String::new, |port| format!(":{port}"));
    let canonical = format!("{}://{}{port}", site.scheme, site.host);
    assert_eq!(canonical.parse(), Ok(allowed.clone()));
    assert_eq!(format!("{canonical}/").parse(), Ok(allowed));
}

fn check_policies(request: &Request, texts: &[String]) {
    let origin = request.header("origin").map(String::from_utf8_lossy).expect("there is one");
    let site = Site::of(&origin);
    let is_at = |host: &str| site.as_ref().is_some_and(|site| site.is_at(host));
    let forwarded = request.header("x-forwarded-host").and_then(|hosts| core::str::from_utf8(hosts).ok());
    let forwarded = forwarded.and_then(|hosts| hosts.split(',').map(str::trim).find(|host| !host.is_empty()));
    let (at_host, at_forwarded) = (is_at(request.host()), is_at(forwarded.unwrap_or_else(|| request.host())));

    let strangers = OriginPolicy::default();
    let proxies = OriginPolicy { trusted_proxies: vec![network_of(PEER)], ..strangers.clone() };
    assert_eq!(may_connect(&strangers, request, Some(PEER)), at_host);
    assert_eq!(may_connect(&proxies, request, Some(PEER)), at_forwarded);
    assert_eq!(may_connect(&proxies, request, None), at_host, "nobody is trusted whose address is not known");
    for text in texts {
        let Ok(allowed) = text.parse::<AllowedOrigin>() else { continue };
        let is_same = match Site::of(text) {
            Some(allowed) => Some(allowed) == site,
            None => text == "*" || site.is_none() && text.trim_end_matches('/') == origin.trim_end_matches('/'),
        };
        let policy = OriginPolicy { allowed: vec![allowed], ..proxies.clone() };
        assert_eq!(may_connect(&policy, request, Some(PEER)), at_forwarded || is_same, "{text:?} is allowed");
    }
}

/// The name of a host is the same in any case and with a dot behind it.
fn check_name(text: &str) {
    let Ok(allowed) = text.parse::<AllowedHost>() else { return };
    assert_eq!(text.to_ascii_uppercase().parse(), Ok(allowed.clone()));
    if text != "*" && !text.ends_with('.') {
        assert_eq!(format!("{text}.").parse(), Ok(allowed));
    }
}

/// With names, those alone are this server's; without, none that has dots and the port that is listened on.
fn check_names(request: &Request, texts: &[String]) {
    let strangers = OriginPolicy::default();
    let at_host = may_connect(&strangers, request, Some(PEER));
    let authority = Authority::parse(request.host()).expect("a host is valid");
    let name = name(request.host());
    let is_address = name.starts_with('[') || name.parse::<IpAddr>().is_ok();
    let is_local = is_address || name.rsplit('.').next() == Some("localhost");
    for text in texts {
        let Ok(allowed) = text.parse::<AllowedHost>() else { continue };
        let is_named = text == "*" || self::name(text) == name;
        let policy = OriginPolicy { hosts: vec![allowed], ..strangers.clone() };
        assert_eq!(may_connect(&policy, request, Some(PEER)), at_host && (is_local || is_named), "{text:?} is allowed");
    }
    strangers.listen_on(authority.port.into_iter().collect());
    let origin = request.header("origin").map(<[u8]>::to_ascii_lowercase).expect("there is one");
    let is_behind_tls = origin.starts_with(b"https:") || origin.starts_with(b"wss:");
    let is_rebound = authority.port.is_some() && name.contains('.') && !is_local && !is_behind_tls;
    assert_eq!(may_connect(&strangers, request, Some(PEER)), at_host && !is_rebound);
}

/// A host's name as it is compared.
fn name(host: &str) -> String {
    let host = Authority::parse(host).map_or_else(String::new, |authority| authority.canonical_host());
    host.strip_suffix('.').unwrap_or(&host).to_owned()
}

/// Nobody but a trusted proxy says who the client is, and nobody takes the place of the last that it names.
fn check_client(said: &str) {
    let proxies = OriginPolicy { trusted_proxies: vec![network_of(PEER)], ..OriginPolicy::default() };
    let last = IpAddr::V4(core::net::Ipv4Addr::new(203, 0, 113, 9));
    let more = format!("{said}, {last}");
    for (said, address) in [(said, None), (&more, Some(last))] {
        let fields = [("Host", "h"), ("X-Forwarded-For", said)].map(|(name, value)| (name, value.as_bytes()));
        let Ok(request) = Request::from_parts("GET", "/", fields) else { return };
        let client = proxies.client(&request, Some(PEER));
        let stranger = Client { address: Some(PEER), proxy: None };
        assert_eq!(OriginPolicy::default().client(&request, Some(PEER)), stranger);
        assert_eq!(proxies.client(&request, None), Client::default());
        assert!(client == stranger || client.proxy == Some(PEER) && client.address != Some(PEER), "{client:?}");
        assert!(address.is_none() || client.address == address, "{client:?}");
    }
}

fn network_of(address: IpAddr) -> Cidr {
    address.to_string().parse().expect("a network")
}

/// What the policy says; its refusal is fit to be shown.
fn may_connect(policy: &OriginPolicy, request: &Request, peer: Option<IpAddr>) -> bool {
    let refused = policy.check(request, peer).err().map(|refused| refused.to_string());
    let is_shown = |text: &String| text.len() <= 2_048 && !text.contains(char::is_control);
    assert!(refused.as_ref().is_none_or(is_shown), "{refused:?}");
    refused.is_none()
}

/// What an origin names, read naively.
#[derive(PartialEq)]
struct Site {
    scheme: String,
    host: String,
    port: Option<u16>,
}

impl Site {
    fn of(text: &str) -> Option<Self> {
        let (scheme, rest) = text.strip_suffix('/').unwrap_or(text).split_once("://")?;
        let mut letters = scheme.chars();
        let is_scheme = letters.next()?.is_ascii_alphabetic()
            && letters.all(|letter| letter.is_ascii_alphanumeric() || "+-.".contains(letter));
        let authority = Authority::parse(rest).filter(|_| is_scheme)?;
        let scheme = scheme.to_ascii_lowercase();
        let port = authority.port.or_else(|| Self::usual_port(&scheme));
        Some(Self { host: authority.canonical_host(), port, scheme })
    }

    fn usual_port(scheme: &str) -> Option<u16> {
        let ports = [("http", 80), ("https", 443), ("ws", 80), ("wss", 443)];
        ports.into_iter().find(|(name, _)| *name == scheme).map(|(_, port)| port)
    }

    /// Whether `host` in the same scheme is the same site.
    fn is_at(&self, host: &str) -> bool {
        Self::usual_port(&self.scheme).is_some()
            && !host.is_empty()
            && Self::of(&format!("{}://{host}", self.scheme)).is_some_and(|other| other == *self)
            && !host.ends_with('/')
    }
}
