//! Ports for those who must come back to the same one.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, getsockname, socket_with, sockopt};

/// A port of 127.0.0.1 that the kernel gives to nobody else until this is dropped.
///
/// A socket stays bound to it and never listens. So the kernel chooses the port neither for a listener on port 0 nor
/// for an outgoing connection, and connections to it are refused. A program that names the port may listen on it, and
/// again after its end, if it sets `SO_REUSEADDR` as servers do. This is how Linux has it; BSD would refuse the second.
#[derive(Debug)]
pub struct ReservedPort {
    number: u16,
    _bound: OwnedFd,
}

impl ReservedPort {
    /// Reserves a port.
    ///
    /// # Errors
    ///
    /// When the system has no port or no descriptor left.
    pub fn new() -> io::Result<Self> {
        let bound = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        sockopt::set_socket_reuseaddr(&bound, true)?;
        bind(&bound, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0))?;
        let address = SocketAddr::try_from(getsockname(&bound)?)?;
        Ok(Self { number: address.port(), _bound: bound })
    }

    /// Its number.
    #[must_use]
    pub const fn number(&self) -> u16 {
        self.number
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::io::ErrorKind;
    use std::net::{TcpListener, TcpStream};

    use super::ReservedPort;

    #[test]
    fn a_reserved_port_may_be_listened_on_again_and_again_and_refuses_in_between() {
        let port = ReservedPort::new().expect("a port");
        let address = ("127.0.0.1", port.number());
        for _ in 0..3 {
            let refused = TcpStream::connect(address).expect_err("nobody listens");
            assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
            let listener = TcpListener::bind(address).expect("it is ours");
            let client = TcpStream::connect(address).expect("somebody listens");
            drop((listener.accept().expect("a client"), client, listener));
        }
    }

    #[test]
    fn the_kernel_gives_a_reserved_port_to_nobody() {
        let ports: Vec<_> = (0..500).map(|_| ReservedPort::new().expect("a port")).collect();
        let numbers: BTreeSet<u16> = ports.iter().map(ReservedPort::number).collect();
        assert_eq!(numbers.len(), ports.len());
        let listeners: Vec<_> = (0..500).map(|_| TcpListener::bind("127.0.0.1:0").expect("a port")).collect();
        let given = listeners.iter().map(|listener| listener.local_addr().expect("an address"));
        let server = &listeners[0];
        let connect = |_| {
            let client = TcpStream::connect(server.local_addr().expect("an address")).expect("a connection");
            (server.accept().expect("a client"), client)
        };
        let clients: Vec<_> = (0..500).map(connect).collect();
        let taken = clients.iter().map(|(_, client)| client.local_addr().expect("an address"));
        assert!(given.chain(taken).all(|address| !numbers.contains(&address.port())));
    }
}
