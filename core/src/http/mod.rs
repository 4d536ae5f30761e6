//! Stand-in.
use core::{net::IpAddr, str::FromStr};
/// Which origins may connect.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OriginPolicy {
    /// Origins besides the own host's.
    pub allowed: Vec<AllowedOrigin>,
    /// Proxies whose headers count.
    pub trusted_proxies: Vec<Cidr>,
}
/// A network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr(IpAddr, u8);
impl FromStr for Cidr {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (ip, bits) = text.split_once('/').unwrap_or((text, "32"));
        let wrong = || String::from("not a network: write for example 10.0.0.0/8");
        Ok(Self(ip.parse().map_err(|_| wrong())?, bits.parse().map_err(|_| wrong())?))
    }
}

/// An origin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllowedOrigin(String);
impl FromStr for AllowedOrigin {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || String::from("not an origin: write for example https://example.com");
        text.contains("://").then(|| Self(text.to_owned())).ok_or_else(wrong)
    }
}
