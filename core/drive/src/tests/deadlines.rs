//! A process that stood still reads before it judges: the clock jumps while input lies ready of which nobody has heard.

use super::{heard, opened, setup};
use crate::Server;
use crate::memory::{Client, Memory};
use crate::memory::{request, text};
use fanfare_core::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

/// A client whose deadline comes within 10 s, what it says before that, and what it then gets.
type Case = (&'static str, fn(&Memory) -> Client, Vec<u8>, &'static [u8]);

fn cases() -> [Case; 3] {
    let begun = |memory: &Memory| {
        let client = memory.connect();
        client.send(b"GET ");
        client
    };
    let pinged = |memory: &Memory| {
        let client = opened(memory);
        memory.pass(25 * SECOND);
        assert_eq!(client.take(), b"\x89\0");
        client
    };
    [
        ("a head", Memory::connect, request("/chat"), b"HTTP/1.1 101 "),
        ("the rest of a head", begun, request("/chat")[4..].to_vec(), b"HTTP/1.1 101 "),
        ("a pong", pinged, b"\x8a\x80\0\0\0\0".to_vec(), b""),
    ]
}

fn started(workers: usize) -> (Memory, Server<Memory>) {
    let memory = Memory::default();
    // The server of the case before has ended.
    memory.run();
    let server = memory.start(Server::<Memory>::start(setup(workers))).lock().unwrap().take().unwrap().unwrap();
    (memory, server)
}

#[test]
fn what_lies_in_a_socket_when_the_clock_jumps_is_read_before_anybody_is_dropped() {
    for workers in [1, 2] {
        for (what, make, bytes, answer) in cases() {
            let (memory, _server) = started(workers);
            let client = make(&memory);
            client.send_unheard(&bytes);
            memory.pass(30 * SECOND);
            assert!(client.take().starts_with(answer), "{what}");
            assert!(!client.is_closed(), "{what}");
            client.send(&text("still here"));
            assert!(client.take().ends_with(&heard("still here")), "{what}");
        }
    }
}

#[test]
fn who_has_sent_nothing_when_the_clock_jumps_is_dropped_at_once() {
    for (what, make, _, _) in cases() {
        let (memory, _server) = started(1);
        let client = make(&memory);
        memory.pass(30 * SECOND);
        client.change(|pipe| pipe.input_ends |= pipe.output.starts_with(b"HTTP/1.1 408 "));
        assert!(client.is_closed(), "{what}");
    }
}
