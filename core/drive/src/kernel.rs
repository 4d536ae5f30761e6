//! The kernel's memory of a connection, and its bounds.

use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::SockRef;

use super::runtime::HungUp;
use fanfare_core::time::Duration;

/// Bytes that wait in the system unsent for a client that takes nothing, and a write more. What has been sent and not
/// yet acknowledged does not count, so that no client is slower for it. A burst of as much and a queue's bound makes
/// nobody a slow reader.
#[cfg(target_os = "linux")]
const UNSENT_BYTES: u32 = 2 << 20;

/// Bounds what the system holds of a connection: in bytes that wait to be sent, and in the time for which it holds what
/// the peer does not take, also when nobody has the socket any more.
///
/// It fails only if the peer is gone, which the next read says, or on a system that has no such option.
pub(super) fn limit(socket: BorrowedFd<'_>, time: Duration) {
    #[cfg(target_os = "linux")]
    {
        let socket = SockRef::from(&socket);
        let _ = socket.set_tcp_notsent_lowat(UNSENT_BYTES);
        // Zero would mean the system's own time.
        let _ = socket.set_tcp_user_timeout(Some(time.max(Duration::from_millis(1))));
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (socket, time);
}

/// Has the connection reset when the socket is closed: what was written and is not with the peer is dropped.
pub(super) fn reset(socket: BorrowedFd<'_>) {
    // As above.
    let _ = SockRef::from(&socket).set_linger(Some(Duration::ZERO));
}

/// Whether the peer has hung up. It reads nothing and does not wait.
pub(super) fn hung_up(socket: BorrowedFd<'_>) -> Option<HungUp> {
    let mut polled = [PollFd::from_borrowed_fd(socket, PollFlags::IN)];
    // If the system cannot say, the next read does.
    poll(&mut polled, Some(&Timespec::default())).ok()?;
    let found = polled[0].revents();
    if found.contains(PollFlags::ERR) {
        return Some(HungUp::Reset);
    }
    if !found.intersects(PollFlags::IN | PollFlags::HUP) {
        return None;
    }
    // The end shows only behind all that lies there.
    matches!(SockRef::from(&socket).peek(&mut [MaybeUninit::uninit()]), Ok(0)).then_some(HungUp::Ended)
}
