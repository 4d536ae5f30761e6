//! The connections to Redis of a process that stood still, or that finds several addresses.

use fanfare_core::time::Duration;

use super::setup;
use crate::memory::{Client, Memory};
use crate::{Server, Setup};

const SECOND: Duration = Duration::from_secs(1);

/// An instance with both of its connections, which Redis has greeted. It allows no probe.
fn started() -> (Memory, Server<Memory>, [Client; 2]) {
    let memory = Memory::default();
    let lanes = [memory.redis(usize::MAX), memory.redis(usize::MAX)];
    let setup = Setup { redis: Some("redis://redis.test".parse().unwrap()), ..setup(1) };
    let server = memory.start(Server::<Memory>::start(setup));
    lanes[0].send(b"-ERR unknown command\r\n+OK\r\n+PONG\r\n");
    lanes[1].send(b"-ERR unknown command\r\n+OK\r\n+PONG\r\n");
    lanes[0].send(b"-NOPERM\r\n");
    let server = server.lock().unwrap().take().unwrap().unwrap();
    (memory, server, lanes)
}

#[test]
fn a_reply_that_nobody_has_heard_of_when_the_clock_jumps_keeps_the_connection() {
    let (memory, _server, lanes) = started();
    memory.pass(5 * SECOND);
    for (lane, pong) in lanes.iter().zip(["+PONG\r\n-NOPERM\r\n", "+PONG\r\n"]) {
        assert!(String::from_utf8_lossy(&lane.take()).contains("PING"));
        lane.send_unheard(pong.as_bytes());
    }
    memory.pass(8 * SECOND);
    memory.pass(SECOND);
    assert!(lanes.iter().all(|lane| !lane.is_closed()));
}
