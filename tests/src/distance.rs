//! A Redis that is far away: everything comes later by the same time, and as fast as it was sent.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::net::shutdown;

/// Pieces under way in one direction; more are read when there is room.
const PIECES: usize = 4_096;

/// A proxy on a port of its own on loopback. Dropping it takes no more connections.
pub struct Distance {
    listener: TcpListener,
    port: u16,
}

impl Distance {
    /// Passes connections on to `upstream`, a port on loopback, and their bytes after `time` in each direction.
    ///
    /// # Errors
    ///
    /// When the system has no port left.
    pub fn start(upstream: u16, time: Duration) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let (port, accepting) = (listener.local_addr()?.port(), listener.try_clone()?);
        thread::spawn(move || {
            for near in accepting.incoming().map_while(Result::ok) {
                // Who cannot be handed on sees its connection end.
                let _ = hand_on(near, upstream, time);
            }
        });
        Ok(Self { listener, port })
    }

    /// What `REDIS_URL` should be, without credentials.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }
}

impl Drop for Distance {
    fn drop(&mut self) {
        // It wakes who accepts, and fails only for a socket that does not listen.
        let _ = shutdown(&self.listener, rustix::net::Shutdown::Both);
    }
}

fn hand_on(near: TcpStream, upstream: u16, time: Duration) -> io::Result<()> {
    let far = TcpStream::connect(("127.0.0.1", upstream))?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    carry(near.try_clone()?, far.try_clone()?, time);
    carry(far, near, time);
    Ok(())
}

/// Two threads for one direction: one notes when each piece came, the other sends it when its time has passed.
fn carry(mut from: TcpStream, mut to: TcpStream, time: Duration) {
    let (sender, receiver) = mpsc::sync_channel::<(Instant, Vec<u8>)>(PIECES);
    thread::spawn(move || {
        let mut piece = vec![0; 65_536];
        while let Ok(length) = from.read(&mut piece) {
            if length == 0 || sender.send((Instant::now() + time, piece[..length].to_vec())).is_err() {
                return;
            }
        }
    });
    thread::spawn(move || {
        for (due, piece) in receiver {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            if to.write_all(&piece).is_err() {
                break;
            }
        }
        // It fails only for a socket that has ended already.
        let _ = to.shutdown(Shutdown::Both);
    });
}
