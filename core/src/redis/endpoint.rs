//! Which connection to Redis, and where it leads.

use super::{Lane, RedisUrl};

/// Servers of Redis to which an instance has a link at once.
const NODES: usize = 1;

/// A connection to Redis: a lane of the link to one of its servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId {
    node: u16,
    lane: Lane,
}

impl LinkId {
    /// The most connections to Redis that an instance has at once.
    pub const COUNT: usize = NODES * Lane::ALL.len();

    /// The connection to the `node`th server, from 0 on, that is this lane. There is one server: any other `node` than 0
    /// names a connection that no instance has, and its [`LinkId::index`] is not below [`LinkId::COUNT`].
    #[must_use]
    pub const fn new(node: u16, lane: Lane) -> Self {
        Self { node, lane }
    }

    /// The number of the server that it leads to, from 0 on.
    #[must_use]
    pub const fn node(self) -> u16 {
        self.node
    }

    /// What it is for.
    #[must_use]
    pub const fn lane(self) -> Lane {
        self.lane
    }

    /// A number below [`LinkId::COUNT`] that no other connection has: its place in a table.
    #[must_use]
    pub const fn index(self) -> usize {
        self.node as usize * Lane::ALL.len() + self.lane as usize
    }
}

/// Where a connection to Redis leads.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Endpoint {
    /// TCP, without TLS.
    Tcp {
        /// A name or an address. An IPv6 address has no brackets.
        host: String,
        /// The port.
        port: u16,
    },
}

impl Endpoint {
    pub(super) fn of(url: &RedisUrl) -> Self {
        Self::Tcp { host: url.host().to_owned(), port: url.port() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_connection_has_a_place_of_its_own() {
        let nodes = 0..u16::try_from(NODES).expect("few");
        let ids = nodes.flat_map(|node| Lane::ALL.map(|lane| LinkId::new(node, lane)));
        let places: Vec<_> = ids.map(LinkId::index).collect();
        assert_eq!(places, Vec::from_iter(0..LinkId::COUNT));
    }
}
