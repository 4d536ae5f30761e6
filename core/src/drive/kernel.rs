//! What the system holds of a connection, beside what the core does.

use std::os::fd::BorrowedFd;

use socket2::SockRef;

use crate::time::Duration;

/// Bytes that wait in the system unsent for a client that takes nothing, and a write more. What has been sent and not yet
/// acknowledged does not count, so that no client is slower for it.
#[cfg(target_os = "linux")]
const UNSENT_BYTES: u32 = 128 << 10;

/// Bounds what the system holds of a connection: in bytes that wait to be sent, and in the time for which it holds what the
/// peer does not take, also when nobody has the socket any more.
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
