//! What people and proxies write: routes, Redis URLs, origins, hosts, networks, sizes and times.
//!
//! What is accepted is written again and read as the same, and means what a naive reading of the same text says.

mod pages;
mod routes;
#[cfg(test)]
mod tests;

use core::net::IpAddr;
use core::time::Duration;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use crate::http::{Authority, Cidr};
use crate::redis::RedisUrl;
use crate::units::{Size, Time, size, time};

/// Texts of one input.
const TEXTS: usize = 6;

/// Texts, with a byte between them that is in none. Every parser reads each; together they are a set of routes, paths to
/// find in it, and a request by their places: Host, Origin, X-Forwarded-Host, target, X-Forwarded-For.
pub fn parsers(data: &[u8]) {
    let texts = data.split(|&byte| byte == 0xFF).take(TEXTS);
    let texts: Vec<String> = texts.map(|text| String::from_utf8_lossy(text).into_owned()).collect();
    for text in &texts {
        check_redis_url(text);
        check_secrets(text);
        check_size(text);
        check_time(text);
        check_authority(text);
        check_network(text, &texts);
    }
    pages::check(&texts);
    routes::check(&texts);
}

fn check_redis_url(text: &str) {
    let url: RedisUrl = match text.parse() {
        Ok(url) => url,
        Err(error) => {
            assert!(!error.to_string().contains(char::is_control), "{error:?}");
            return;
        }
    };
    let shown = url.to_string();
    assert!(shown.bytes().all(|byte| byte.is_ascii_graphic()), "{shown:?}");
    assert!(url.port() > 0 && !url.host().is_empty());
    // No user has a star as it is.
    let login = match url.password() {
        Some(password) => shown.replacen(":***@", &format!(":{}@", utf8_percent_encode(password, NON_ALPHANUMERIC)), 1),
        None => shown,
    };
    assert_eq!(login.parse(), Ok(url), "{login:?}");
}

/// A password is never shown, however wrong the text around it is.
fn check_secrets(text: &str) {
    const SECRET: &str = "hunter2";
    if text.contains(SECRET) {
        return;
    }
    for text in [
        format!("redis://u:{SECRET}{text}@h"),
        format!("redis://u:{text}{SECRET}@h"),
        format!("redis://:{SECRET}@{text}"),
        format!("{text}:{SECRET}@h"),
    ] {
        let shown = match text.parse::<RedisUrl>() {
            Ok(url) => format!("{url} {url:?}"),
            Err(error) => format!("{error} {error:?}"),
        };
        assert!(!shown.contains(SECRET), "{text:?} is shown as {shown:?}");
    }
}

fn check_size(text: &str) {
    let Ok(bytes) = size(text) else { return };
    assert_eq!(scaled(text, &[("", 1), ("b", 1), ("kib", 1 << 10), ("mib", 1 << 20), ("gib", 1 << 30)]), bytes as u128);
    assert_eq!(size(&Size(bytes as u64).to_string()), Ok(bytes));
}

fn check_time(text: &str) {
    let Ok(time_read) = time(text) else { return };
    assert_eq!(scaled(text, &[("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000)]), time_read.as_millis());
    assert_eq!(time_read.subsec_nanos() % 1_000_000, 0);
    assert_eq!(time(&Time(time_read).to_string()), Ok(Duration::from_millis(time_read.as_millis() as u64)));
}

/// What a number and a unit mean, in as many digits as there may be.
fn scaled(text: &str, units: &[(&str, u128)]) -> u128 {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = text[digits.len()..].to_ascii_lowercase();
    let factor = units.iter().find(|(name, _)| *name == unit).expect("a unit").1;
    assert!(!digits.is_empty());
    digits.chars().fold(0, |number, digit| number * 10 + u128::from(digit.to_digit(10).expect("a digit"))) * factor
}

fn check_authority(text: &str) {
    let Some(authority) = Authority::parse(text) else { return };
    let rest = text.strip_prefix(authority.host).expect("it begins with the host");
    let port = rest.strip_prefix(':').filter(|port| !port.is_empty());
    assert!(port.is_some() || matches!(rest, "" | ":"));
    assert_eq!(authority.port, port.map(|port| port.parse().expect("a port")));
    let host = authority.canonical_host();
    assert!(!host.is_empty() && host.bytes().all(|byte| byte.is_ascii_graphic() && !b"/?#@\\\"<>".contains(&byte)));
    assert_eq!(host.contains(':'), host.starts_with('['));
    let canonical = match authority.port {
        Some(port) => format!("{host}:{port}"),
        None => host.clone(),
    };
    for other in [canonical, text.to_ascii_uppercase()] {
        let same = Authority::parse(&other).expect("another way to write it");
        assert_eq!((same.canonical_host(), same.port), (host.clone(), authority.port), "{other:?}");
    }
}

/// A network holds what its bits say, however its address is written and whatever stands behind its prefix.
fn check_network(text: &str, texts: &[String]) {
    let Ok(network) = text.parse::<Cidr>() else { return };
    let (address, prefix) = text.split_once('/').unwrap_or((text, ""));
    let address: IpAddr = address.parse().expect("a network has an address");
    let (bits, width) = bits(address);
    let prefix: u32 = if prefix.is_empty() { width } else { prefix.parse().expect("a prefix is a number") };
    let host_bits = u128::MAX.checked_shr(128 - (width - prefix)).unwrap_or(0);
    let first = address_of(bits & !host_bits, width);
    let again: Cidr = format!("{first}/{prefix}").parse().expect("a network");
    let flipped = (0..width).map(|bit| (address_of(bits ^ 1 << bit, width), bit < width - prefix));
    for (other, is_inside) in flipped.chain([(address, true), (first, true)]) {
        assert_eq!((network.contains(other), again.contains(other)), (is_inside, is_inside), "{other}");
    }
    for other in texts.iter().filter_map(|other| other.parse::<IpAddr>().ok()) {
        let (other_bits, other_width) = self::bits(other);
        let is_inside = other_width == width && (other_bits ^ bits) & !host_bits == 0;
        // Both families meet in the IPv4-mapped addresses.
        assert!(network.contains(other) == is_inside || other_width != width, "{other}");
        assert_eq!(network.contains(other), again.contains(other), "{other}");
    }
}

fn bits(address: IpAddr) -> (u128, u32) {
    match address {
        IpAddr::V4(address) => (address.to_bits().into(), 32),
        IpAddr::V6(address) => (address.to_bits(), 128),
    }
}

fn address_of(bits: u128, width: u32) -> IpAddr {
    if width == 32 { IpAddr::V4((bits as u32).into()) } else { IpAddr::V6(bits.into()) }
}
