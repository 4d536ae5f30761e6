//! Networks of IP addresses, for lists of trusted proxies.

use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::str::FromStr;

/// A network such as `10.0.0.0/8` or `fd00::/8`; an address alone is a network of one.
///
/// IPv4 is the IPv4-mapped part of IPv6, so `10.0.0.0/8` contains the peer `::ffff:10.1.2.3` of a socket that listens
/// on both families, and `::/0` contains every address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    address: Ipv6Addr,
    /// At most 128.
    prefix: u32,
}

impl Cidr {
    /// Whether the address is in the network.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let differing = self.address.to_bits() ^ mapped(address).to_bits();
        differing.leading_zeros() >= self.prefix
    }
}

/// `ADDRESS` or `ADDRESS/PREFIX`; bits of the address behind the prefix are ignored.
impl FromStr for Cidr {
    type Err = CidrError;

    fn from_str(text: &str) -> Result<Self, CidrError> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| CidrError)?;
        let width = if address.is_ipv4() { Ipv4Addr::BITS } else { Ipv6Addr::BITS };
        let prefix = match prefix {
            None => width,
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                digits.parse().map_err(|_| CidrError)?
            }
            Some(_) => return Err(CidrError),
        };
        if prefix > width {
            return Err(CidrError);
        }
        Ok(Self { address: mapped(address), prefix: prefix + Ipv6Addr::BITS - width })
    }
}

fn mapped(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    }
}

/// A text that is not a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CidrError;

impl fmt::Display for CidrError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a network; write it like `10.0.0.0/8`, `fd00::/8` or `192.0.2.7`")
    }
}

impl std::error::Error for CidrError {}
