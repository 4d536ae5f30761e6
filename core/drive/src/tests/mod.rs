//! A server on a runtime of memory: what reaches its clients, when it accepts, how it starts and ends.

mod admin;
mod deadlines;
mod hub;
mod lanes;
mod turn;
mod unread;

use std::io;
use std::net::SocketAddr;
use std::num::NonZero;
use std::sync::{Arc, Mutex};
use std::task::{Context, Waker};

use crate::dial::Race;
use crate::memory::{ADDRESS, Client, Memory, SILENT};
use crate::memory::{request, text};
use crate::{Listeners, Runtime, ServeError, Server, Setup, Signal, serve};
use fanfare_core::time::Duration;

fn setup(workers: usize) -> Setup {
    Setup { listen: "localhost:3000".parse().unwrap(), workers: NonZero::new(workers), ..Setup::default() }
}

fn started(workers: usize) -> (Memory, Server<Memory>) {
    let memory = Memory::default();
    let server = memory.start(Server::<Memory>::start(setup(workers)));
    let server = server.lock().unwrap().take().unwrap().unwrap();
    assert_eq!(server.addresses(), [ADDRESS]);
    (memory, server)
}

fn opened(memory: &Memory) -> Client {
    opened_in(memory, "/chat")
}

fn opened_in(memory: &Memory, path: &str) -> Client {
    let client = memory.connect();
    client.send(&request(path));
    assert!(client.take().starts_with(b"HTTP/1.1 101 "));
    client
}

/// A whole text message from the server.
fn heard(message: &str) -> Vec<u8> {
    [&[0x81, message.len() as u8], message.as_bytes()].concat()
}

#[test]
fn a_dial_may_be_polled_for_nothing() {
    let memory = Memory::default();
    let mut race = Race::<Memory>::new(&[SocketAddr::new(ADDRESS.ip(), SILENT)], Duration::from_secs(5));
    for _ in 0..3 {
        assert!(race.poll(&memory, memory.now(), &mut Context::from_waker(Waker::noop())).is_pending());
        memory.pass(Duration::from_secs(1));
    }
}

#[test]
fn a_server_answers_by_its_routes_whatever_the_settings_say() {
    let memory = Memory::default();
    let mut setup = setup(1);
    setup.settings.ask = true;
    let _server = memory.start(Server::<Memory>::start(setup));
    opened(&memory);
}

#[test]
fn clients_of_all_workers_hear_each_other() {
    for workers in [1, 2, 3] {
        let (memory, _server) = started(workers);
        let clients: Vec<_> = (0..4).map(|_| opened(&memory)).collect();
        clients[0].send(&text("hello"));
        for client in &clients {
            assert_eq!(client.take(), heard("hello"), "{workers} workers");
        }
    }
}

#[test]
fn a_full_socket_gets_the_rest_when_it_takes_bytes_again_and_is_read_meanwhile() {
    let (memory, _server) = started(1);
    let (slow, other) = (opened(&memory), opened(&memory));
    slow.change(|pipe| pipe.room = 3);
    other.send(&text("hello"));
    other.send(&text("again"));
    assert_eq!(slow.take(), heard("hello")[..3]);
    slow.send(&text("mine"));
    assert_eq!(other.take(), [heard("hello"), heard("again"), heard("mine")].concat());
    assert_eq!(slow.take(), b"");
    slow.change(|pipe| pipe.room = usize::MAX);
    assert_eq!(slow.take(), [&heard("hello")[3..], &heard("again"), &heard("mine")].concat());
}

#[test]
fn a_connection_whose_writes_come_to_nothing_is_let_go_of() {
    let (memory, _server) = started(1);
    let (dead, other) = (opened(&memory), opened(&memory));
    dead.change(|pipe| pipe.is_dead = true);
    other.send(&text("hello"));
    assert_eq!(other.take(), heard("hello"));
    assert!(dead.is_closed());
}

#[test]
fn a_connection_is_let_go_of_when_its_session_is_over() {
    let (memory, _server) = started(2);
    for _ in 0..3 {
        let (gone, refused) = (opened(&memory), memory.connect());
        gone.change(|pipe| pipe.input_ends = true);
        assert!(gone.is_closed());
        refused.send(b"nonsense\r\n\r\n");
        assert!(refused.take().starts_with(b"HTTP/1.1 400 "));
        assert!(refused.output_ended() && !refused.is_closed());
        refused.change(|pipe| pipe.input_ends = true);
        assert!(refused.is_closed());
    }
}

#[test]
fn out_of_descriptors_it_rests_until_time_has_passed_or_a_connection_is_closed() {
    let (memory, _server) = started(1);
    let exhausted = || Err(io::Error::from_raw_os_error(24));
    let first = opened(&memory);
    for ends_by_close in [false, true] {
        memory.change(|world| {
            world.accepts.push_back(exhausted());
            world.accept_tries = 0;
        });
        let waiting = memory.connect();
        waiting.send(&request("/chat"));
        let other = opened_already(&first);
        assert_eq!((waiting.take(), memory.lock().accept_tries), (vec![], 1), "others are served, nobody is accepted");
        if ends_by_close {
            other.change(|pipe| pipe.is_reset = true);
        } else {
            memory.pass(Duration::from_millis(499));
            assert_eq!(memory.lock().accept_tries, 1);
            memory.pass(Duration::from_millis(1));
        }
        assert!(waiting.take().starts_with(b"HTTP/1.1 101 "));
    }
}

/// A client that still gets answers.
fn opened_already(client: &Client) -> &Client {
    client.send(&text("still here"));
    assert_eq!(client.take(), heard("still here"));
    client
}

#[test]
fn no_more_clients_are_taken_than_there_may_be_until_one_leaves() {
    for (most, is_full) in [(1, true), (2, false), (3, false)] {
        let memory = Memory::default();
        let setup = Setup { max_connections: NonZero::new(most), ..setup(1) };
        let server = memory.start(Server::<Memory>::start(setup));
        let first = opened(&memory);
        let second = memory.connect();
        second.send(&request("/chat"));
        let answer: &[u8] = if is_full { b"HTTP/1.1 503 " } else { b"HTTP/1.1 101 " };
        let told = second.take();
        assert!(told.starts_with(answer), "at most {most}");
        if is_full {
            assert!(told.windows(13).any(|field| field == b"Retry-After: "));
            first.change(|pipe| pipe.input_ends = true);
            opened(&memory);
        }
        drop(server);
    }
}

fn limited(workers: usize, most: usize) -> (Memory, Server<Memory>) {
    let memory = Memory::default();
    // Of the one before.
    memory.run();
    let setup = Setup { max_connections: NonZero::new(most), ..setup(workers) };
    let server = memory.start(Server::<Memory>::start(setup)).lock().unwrap().take().unwrap().unwrap();
    (memory, server)
}

#[test]
fn a_full_server_says_that_it_lives_and_is_ready_however_many_ask() {
    for workers in [1, 2] {
        let (memory, _server) = limited(workers, 4);
        let clients: Vec<_> = (0..4).map(|_| opened(&memory)).collect();
        let mut mute = Vec::new();
        for _ in 0..20 {
            for path in ["/live", "/ready"] {
                let asks = memory.connect();
                asks.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
                assert!(asks.take().starts_with(b"HTTP/1.1 200 "), "{path}");
                mute.push(asks);
            }
            mute.push(memory.connect());
        }
        let held = mute.iter().filter(|client| !client.is_closed()).count();
        assert_eq!(held, 4, "of those without a place there are few");
        memory.pass(Duration::from_secs(2));
        clients[0].send(&text("still here"));
        for client in &clients {
            assert_eq!(client.take(), heard("still here"));
        }
    }
}

#[test]
fn when_all_places_are_taken_the_oldest_that_has_told_no_request_gives_way() {
    for workers in [1, 2, 3] {
        let (memory, _server) = limited(workers, 6);
        let client = opened(&memory);
        let mute: Vec<_> = (0..5).map(|_| memory.connect()).collect();
        let late: Vec<_> = (0..5).map(|_| opened(&memory)).collect();
        assert!(mute.iter().all(Client::is_closed), "{workers} workers");
        let refused = memory.connect();
        refused.send(&request("/chat"));
        assert!(refused.take().starts_with(b"HTTP/1.1 503 "));
        client.send(&text("still here"));
        for client in late.iter().chain([&client]) {
            assert_eq!(client.take(), heard("still here"));
        }
    }
}

#[test]
fn a_place_that_any_worker_has_is_used_at_once() {
    let (memory, _server) = limited(3, 6);
    let mut clients: Vec<_> = (0..6).map(|_| opened(&memory)).collect();
    for place in [0, 1, 2, 3, 4, 5, 2, 1, 0] {
        // Accepted before it is known that there is a place, and asks when there is.
        let next = memory.connect();
        clients[place].change(|pipe| pipe.input_ends = true);
        next.send(&request("/chat"));
        assert!(next.take().starts_with(b"HTTP/1.1 101 "), "{place}");
        clients[place] = next;
    }
}

/// A worker is stuck. In its mailbox lie a message for which it drops a connection, and a client that gets its place.
#[test]
fn whoever_is_dropped_makes_room_for_another_whoever_has_its_place_by_then() {
    let mut setup = Setup { max_connections: NonZero::new(22), ..setup(2) };
    (setup.settings.limits.queue_bytes, setup.settings.limits.all_queues_bytes) = (64 << 10, 128 << 10);
    let memory = Memory::default();
    let _server = memory.start(Server::<Memory>::start(setup));
    // Workers take turns: who speaks is on the first, who listens and does not read on the second.
    let (mut speakers, mut stuck) = (Vec::new(), Vec::new());
    for room in 0..10 {
        for clients in [&mut speakers, &mut stuck] {
            let client = memory.connect();
            client.send(&request(&format!("/chat/{room}")));
            clients.push(client);
        }
        // A message that has begun to leave is held until it has left, or the connection is dropped.
        stuck[room].change(|pipe| pipe.room = 10);
    }
    let message = text(&"m".repeat(60_000));
    speakers[..9].iter().for_each(|speaker| speaker.send(&message));
    memory.set_stuck(2, true);
    speakers[9].send(&message);
    let late = [memory.connect(), memory.connect()];
    memory.set_stuck(2, false);
    assert!(stuck.iter().any(Client::is_closed) && late.iter().all(|client| !client.is_closed()));
    for client in speakers.iter().chain(&stuck).chain(&late) {
        client.change(|pipe| pipe.input_ends = true);
    }
    memory.pass(Duration::from_secs(1));
    let clients: Vec<Client> = (0..22).map(|_| opened(&memory)).collect();
    assert!(clients.iter().all(|client| !client.is_closed()));
}

#[test]
fn an_accept_that_fails_for_its_connection_alone_holds_up_nobody() {
    let (memory, _server) = started(1);
    memory.change(|world| world.accepts.push_back(Err(io::ErrorKind::ConnectionAborted.into())));
    opened(&memory);
}

#[test]
fn an_address_that_is_taken_is_named_and_all_workers_end() {
    let memory = Memory::default();
    memory.lock().taken = Some(3000);
    let server = memory.start(Server::<Memory>::start(setup(3)));
    let error = server.lock().unwrap().take().unwrap().unwrap_err();
    assert!(error.to_string().starts_with("port 3000 of localhost is taken"), "{error}");
    assert_eq!(memory.running(), 0);
}

#[test]
fn dropping_a_server_ends_it() {
    let (memory, server) = started(3);
    let clients: Vec<_> = (0..3).map(|_| opened(&memory)).collect();
    drop(server);
    memory.run();
    memory.pass(Duration::from_millis(15));
    for client in &clients {
        assert_eq!(client.take()[..4], [0x88, 26, 0x03, 0xe9], "a Close with 1001");
        client.change(|pipe| pipe.input_ends = true);
        assert!(client.is_closed());
    }
    assert_eq!(memory.running(), 0);
}

#[test]
fn for_the_drain_delay_clients_are_taken_as_before_and_then_no_more() {
    let memory = Memory::default();
    let mut setup = setup(2);
    setup.settings.limits.drain_delay = Duration::from_secs(3);
    let server = memory.start(Server::<Memory>::start(setup));
    let server = server.lock().unwrap().take().unwrap().unwrap();
    let early = opened(&memory);
    // To stop it again changes nothing.
    for _ in 0..2 {
        server.stop();
        memory.run();
        memory.pass(Duration::from_millis(1_499));
    }
    let late = opened(&memory);
    late.send(&text("still here"));
    assert_eq!((early.take(), late.take()), (heard("still here"), heard("still here")));
    let tries = memory.lock().accept_tries;
    memory.pass(Duration::from_millis(2));
    memory.connect();
    assert_eq!(memory.lock().accept_tries, tries);
    memory.pass(Duration::from_millis(20));
    for client in [early, late] {
        assert_eq!(client.take()[..4], [0x88, 26, 0x03, 0xe9], "a Close with 1001");
        client.change(|pipe| pipe.input_ends = true);
    }
    assert_eq!(memory.running(), 0);
}

type Served = Arc<Mutex<Option<Result<(), ServeError>>>>;

fn serving(memory: &Memory) -> Served {
    memory.start(serve::<Memory>(setup(2), Listeners::default(), |addresses| assert_eq!(addresses, [ADDRESS])))
}

#[test]
fn a_signal_ends_it_in_order() {
    let memory = Memory::default();
    let served = serving(&memory);
    let client = opened(&memory);
    memory.change(|world| world.signals.push_back(Signal::Terminate));
    assert!(served.lock().unwrap().is_none(), "the client has yet to leave");
    client.change(|pipe| pipe.input_ends = true);
    assert!(matches!(served.lock().unwrap().take(), Some(Ok(()))));
    assert_eq!(memory.running(), 0);
}

#[test]
fn a_second_signal_cuts_it_short() {
    let memory = Memory::default();
    let served = serving(&memory);
    let _client = opened(&memory);
    for signal in [Signal::Terminate, Signal::Interrupt] {
        memory.change(|world| world.signals.push_back(signal));
    }
    let error = served.lock().unwrap().take().unwrap().unwrap_err();
    assert!(matches!(error, ServeError::CutShort(Signal::Interrupt)), "{error}");
    assert_eq!(error.exit_code(), 130);
}

#[test]
fn the_same_signal_within_a_second_is_the_same_wish() {
    let memory = Memory::default();
    let served = serving(&memory);
    let _client = opened(&memory);
    let send = |signal| memory.change(|world| world.signals.push_back(signal));
    for _ in 0..3 {
        send(Signal::Terminate);
    }
    memory.pass(Duration::from_millis(999));
    send(Signal::Terminate);
    assert!(served.lock().unwrap().is_none(), "the client has yet to leave");
    memory.pass(Duration::from_millis(1));
    send(Signal::Terminate);
    let error = served.lock().unwrap().take().unwrap().unwrap_err();
    assert!(matches!(error, ServeError::CutShort(Signal::Terminate)), "{error}");
    assert_eq!(error.exit_code(), 143);
}

#[test]
fn signals_that_mean_nothing_here_do_nothing() {
    let memory = Memory::default();
    let served = serving(&memory);
    let client = opened(&memory);
    for signal in Signal::ALL.into_iter().filter(|signal| !signal.shuts_down()) {
        memory.change(|world| world.signals.push_back(signal));
    }
    memory.pass(Duration::from_secs(5));
    assert!(client.take().is_empty() && served.lock().unwrap().is_none());
    memory.change(|world| world.signals.push_back(Signal::Quit));
    memory.pass(Duration::from_millis(50));
    assert_eq!(client.take()[..4], [0x88, 26, 0x03, 0xe9], "a Close with 1001");
}

#[test]
fn it_ends_with_the_drain_time_whatever_is_left() {
    let memory = Memory::default();
    let served = serving(&memory);
    let _silent = opened(&memory);
    memory.change(|world| world.signals.push_back(Signal::Interrupt));
    for _ in 0..11 {
        memory.pass(Duration::from_secs(1));
    }
    assert!(matches!(served.lock().unwrap().take(), Some(Ok(()))));
    assert_eq!(memory.running(), 0);
}
