//! A client that hangs up while it may not be read is gone soon; what it said before is lost only by a reset.

use super::{heard, opened, opened_in, setup};
use crate::Server;
use crate::Setup;
use crate::memory::{Client, Memory};
use crate::memory::{request, text};
use fanfare_core::time::Duration;
use fanfare_core::ws::ECHO_TIME;

/// By then every client that has hung up has been found.
const SOON: Duration = Duration::from_millis(200);

/// Two workers, of which the first has the bus and every other connection, from the first on.
fn started() -> (Memory, Server<Memory>) {
    let memory = Memory::default();
    let mut setup: Setup = setup(2);
    setup.settings.limits.publish_bytes = setup.settings.limits.message_bytes;
    let server = memory.start(Server::<Memory>::start(setup)).lock().unwrap().take().unwrap().unwrap();
    (memory, server)
}

/// The bus confirms nothing and takes nothing, so that nobody joins and all credit is used up.
fn hold_bus(memory: &Memory, hold: bool) {
    // The first task is the one that starts the server, the next are its workers.
    memory.set_stuck(1, hold);
}

fn end(client: &Client) {
    client.change(|pipe| pipe.input_ends = true);
}

fn reset(client: &Client) {
    client.change(|pipe| pipe.is_reset = true);
}

#[test]
fn who_hangs_up_while_it_waits_for_credit_is_gone_at_once() {
    let (memory, _server) = started();
    let [other, flood, _, resets, _, ends, _, says_and_ends, _, stays]: [Client; 10] = std::array::from_fn(|number| {
        // What it says reaches nobody else: any data that leaves counts as the echo.
        if number == 1 { opened_in(&memory, "/chat/flood") } else { opened(&memory) }
    });
    hold_bus(&memory, true);
    flood.send(&text(&"m".repeat(60_000)));
    for client in [&resets, &says_and_ends, &stays] {
        client.send(&text("last"));
    }
    memory.pass(SOON);
    assert!([&resets, &ends, &says_and_ends, &stays].iter().all(|client| !client.is_closed()));

    reset(&resets);
    reset(&flood);
    end(&ends);
    end(&says_and_ends);
    memory.pass(SOON);
    let closed = [&resets, &flood, &ends, &says_and_ends, &stays].map(Client::is_closed);
    assert_eq!(closed, [true, true, true, false, false]);

    hold_bus(&memory, false);
    memory.pass(SOON);
    assert!(other.take().ends_with(&[heard("last"), heard("last")].concat()), "of the one that has ended as well");
    assert!(says_and_ends.take().ends_with(&heard("last")), "it may have ended its side alone");
    memory.pass(ECHO_TIME);
    assert!(says_and_ends.is_closed() && !stays.is_closed());
}

#[test]
fn who_hangs_up_right_behind_a_message_is_gone_at_once_if_the_echo_finds_nobody() {
    let (memory, _server) = started();
    let [other, resets, _, ends, _, silent]: [Client; 6] = std::array::from_fn(|_| opened(&memory));
    // Their ends come before their echoes.
    hold_bus(&memory, true);
    for client in [&resets, &ends] {
        client.send(&text("last"));
        end(client);
    }
    end(&silent);
    assert!(silent.is_closed() && !ends.is_closed() && !resets.is_closed());
    hold_bus(&memory, false);
    assert!(ends.take().starts_with(&heard("last")) && other.take().starts_with(&heard("last")));
    reset(&resets);
    memory.pass(SOON);
    assert!(resets.is_closed());
    memory.pass(ECHO_TIME);
    assert!(ends.is_closed());
}

#[test]
fn who_hangs_up_while_it_joins_is_gone_at_once() {
    let (memory, _server) = started();
    let listener = opened(&memory);
    let [resets, _, ends, _, says_and_ends, _, stays]: [Client; 7] = std::array::from_fn(|_| memory.connect());
    hold_bus(&memory, true);
    for client in [&resets, &ends, &stays] {
        client.send(&request("/chat"));
    }
    says_and_ends.send(&[request("/chat"), text("last")].concat());
    memory.pass(SOON);
    assert!([&resets, &ends, &says_and_ends, &stays].iter().all(|client| !client.is_closed()));

    reset(&resets);
    end(&ends);
    end(&says_and_ends);
    memory.pass(SOON);
    let closed = [&resets, &ends, &says_and_ends, &stays].map(Client::is_closed);
    assert_eq!(closed, [true, true, false, false]);

    hold_bus(&memory, false);
    memory.pass(SOON);
    assert_eq!(listener.take(), heard("last"));
    memory.pass(ECHO_TIME);
    assert!(says_and_ends.is_closed() && !stays.is_closed());
    assert!(stays.take().starts_with(b"HTTP/1.1 101 "));
}
