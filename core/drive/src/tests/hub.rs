//! A hub of several workers: who is in it, and who is closed.

use std::future::Future;
use std::num::NonZero;
use std::sync::Arc;

use bytes::Bytes;

use super::heard;
use crate::memory::{Client, End, Memory, text};
use crate::{Hub, HubError, Setup};
use fanfare_core::error::Misuse;
use fanfare_core::route::{FrameType, Target};
use fanfare_core::shard::Decision;

fn done<T: Send + 'static>(memory: &Memory, future: impl Future<Output = T> + Send + 'static) -> T {
    memory.start(future).lock().unwrap().take().expect("nothing is waited for")
}

fn started(workers: usize) -> (Memory, Arc<Hub<Memory>>) {
    let memory = Memory::default();
    let setup = Setup { workers: NonZero::new(workers), ..Setup::default() };
    let hub = done(&memory, Hub::<Memory>::start(setup)).unwrap();
    (memory, Arc::new(hub))
}

fn adopted(memory: &Memory, hub: &Hub<Memory>, channel: &'static str, tag: u64) -> Client {
    let (client, end): (Client, End) = memory.pipe();
    hub.adopt_tagged(end, Target::new(channel), tag, Bytes::new()).unwrap();
    memory.run();
    client
}

fn publish(memory: &Memory, hub: &Arc<Hub<Memory>>, channel: &'static str, message: &'static str) {
    let hub = hub.clone();
    done(memory, async move { hub.publish(channel, message).await }).unwrap();
}

fn tags(memory: &Memory, hub: &Arc<Hub<Memory>>) -> Vec<Option<u64>> {
    let hub = hub.clone();
    let mut tags: Vec<_> =
        done(memory, async move { hub.sessions().await }).unwrap().iter().map(|session| session.tag).collect();
    tags.sort_unstable();
    tags
}

fn close(memory: &Memory, hub: &Arc<Hub<Memory>>, tag: u64) -> usize {
    let hub = hub.clone();
    done(memory, async move { hub.close_sessions(4001, "bye", |session| session.tag == Some(tag)).await }).unwrap()
}

#[test]
fn sessions_of_all_workers_receive_each_other_and_the_program() {
    for workers in [1, 2, 3] {
        let (memory, hub) = started(workers);
        let clients: Vec<_> = (0..6).map(|tag| adopted(&memory, &hub, "tea", tag)).collect();
        clients[1].send(&text("hello"));
        publish(&memory, &hub, "tea", "again");
        for client in &clients {
            assert_eq!(client.take(), [heard("hello"), heard("again")].concat(), "{workers} workers");
        }
        let asks = hub.clone();
        let metrics = done(&memory, async move { asks.metrics().await }).unwrap();
        assert_eq!((metrics.worker_count, metrics.workers.stages.open), (workers, 6));
        assert_eq!(hub.session_count(), 6);
    }
}

#[test]
fn a_reserved_session_of_any_worker_misses_nothing() {
    let (memory, hub) = started(3);
    let mut clients = Vec::new();
    for _ in 0..6 {
        let reserves = hub.clone();
        let reserved = done(&memory, async move { reserves.reserve(Target::new("tea")).await }).unwrap();
        publish(&memory, &hub, "tea", "early");
        let (client, end) = memory.pipe();
        reserved.tag(7).adopt(end, Bytes::new());
        memory.run();
        assert_eq!(client.take(), heard("early"));
        clients.push(client);
    }
    assert_eq!((hub.session_count(), tags(&memory, &hub)), (6, vec![Some(7); 6]));
    clients.iter().for_each(|client| client.change(|pipe| pipe.input_ends = true));
    assert_eq!((hub.session_count(), tags(&memory, &hub)), (0, vec![]));
}

#[test]
fn a_reservation_that_is_given_up_is_not_counted() {
    let (memory, hub) = started(2);
    for _ in 0..3 {
        let reserves = hub.clone();
        let reserved = done(&memory, async move { reserves.reserve(Target::new("tea")).await }).unwrap();
        assert_eq!(hub.session_count(), 1);
        drop(reserved);
        memory.run();
        assert_eq!(hub.session_count(), 0);
    }
    assert_eq!(hub.adopt(memory.pipe().1, Target::new(""), Bytes::new()), Err(HubError::Misuse(Misuse::ChannelName)));
    assert_eq!(hub.session_count(), 0);
}

#[test]
fn sessions_and_channels_are_listed_over_all_workers() {
    let (memory, hub) = started(2);
    let _tea: Vec<_> = (0..3).map(|tag| adopted(&memory, &hub, "tea", tag)).collect();
    let _milk = adopted(&memory, &hub, "milk", 9);
    let subscribes = hub.clone();
    let _sub = done(&memory, async move { subscribes.subscribe("tea", FrameType::Text).await }).unwrap();
    assert_eq!(tags(&memory, &hub), [Some(0), Some(1), Some(2), Some(9)]);
    let channels = done(&memory, async move { hub.channels().await }).unwrap();
    let channels: Vec<_> =
        channels.iter().map(|channel| (&*channel.name, channel.sessions, channel.subscriptions)).collect();
    assert_eq!(channels, [(&b"milk"[..], 1, 0), (&b"tea"[..], 3, 1)]);
}

#[test]
fn the_chosen_sessions_are_closed_behind_what_waits_and_the_others_go_on() {
    let (memory, hub) = started(2);
    let clients: Vec<_> = (0..6).map(|tag| adopted(&memory, &hub, "tea", tag % 3)).collect();
    assert_eq!(close(&memory, &hub, 1), 2);
    publish(&memory, &hub, "tea", "later");
    for (tag, client) in (0..6).map(|tag| tag % 3).zip(&clients) {
        let expected = if tag == 1 { b"\x88\x05\x0F\xA1bye".to_vec() } else { heard("later") };
        assert_eq!(client.take(), expected, "{tag}");
    }
    assert_eq!((close(&memory, &hub, 1), tags(&memory, &hub).len()), (0, 4), "they are closing already");
    let refuses = hub.clone();
    let refused = done(&memory, async move { refuses.close_sessions(1005, "", |_| true).await });
    assert_eq!(refused, Err(HubError::Misuse(Misuse::CloseCode)));
    let refuses = hub.clone();
    let refused = done(&memory, async move { refuses.close_sessions(1000, &"r".repeat(124), |_| true).await });
    assert_eq!((refused, tags(&memory, &hub).len()), (Err(HubError::Misuse(Misuse::CloseReason)), 4));
}

#[test]
fn more_sessions_than_a_turn_looks_at_are_listed_and_closed() {
    let (memory, hub) = started(2);
    let clients: Vec<_> = (0..5_000)
        .map(|tag| {
            let (client, end) = memory.pipe();
            hub.adopt_tagged(end, Target::new("tea"), tag, Bytes::new()).unwrap();
            client
        })
        .collect();
    memory.run();
    assert_eq!(tags(&memory, &hub), (0..5_000).map(Some).collect::<Vec<_>>());
    assert_eq!(done(&memory, async move { hub.close_sessions(4001, "", |_| true).await }), Ok(5_000));
    assert!(clients.iter().all(|client| client.take() == b"\x88\x02\x0F\xA1"));
}

#[test]
fn the_program_decides_about_each_message_of_a_client_and_no_other() {
    let memory = Memory::default();
    let setup = Setup { workers: NonZero::new(2), ..Setup::default() };
    let hub = Hub::<Memory>::start_reviewed(setup, |message| match &**message.payload {
        b"spam" => Decision::Drop,
        b"curse" => Decision::Close(4003, "no".to_owned()),
        b"long" => Decision::Publish(vec![b'x'; 1 << 20].into()),
        said => Decision::Publish([message.tag.unwrap().to_string().as_bytes(), b": ", said].concat().into()),
    });
    let hub = Arc::new(done(&memory, hub).unwrap());
    let clients: Vec<_> = (0..4).map(|tag| adopted(&memory, &hub, "tea", tag)).collect();
    for (client, said) in [(0, "hello"), (1, "spam"), (1, "long"), (1, "hi"), (2, "curse"), (2, "hello")] {
        clients[client].send(&text(said));
    }
    publish(&memory, &hub, "tea", "spam");
    let all = [heard("0: hello"), heard("1: hi"), heard("spam")].concat();
    for client in [&clients[0], &clients[1], &clients[3]] {
        assert_eq!(client.take(), all);
    }
    assert_eq!(clients[2].take(), [heard("0: hello"), heard("1: hi"), b"\x88\x04\x0F\xA3no".to_vec()].concat());
}

#[test]
fn stopping_closes_the_sessions_of_all_workers_behind_what_was_published() {
    let (memory, hub) = started(3);
    let clients: Vec<_> = (0..6).map(|tag| adopted(&memory, &hub, "tea", tag)).collect();
    publish(&memory, &hub, "tea", "last");
    let stops = hub.clone();
    let stopped = memory.start(async move { stops.stop().await });
    memory.pass(fanfare_core::time::Duration::from_secs(5));
    for client in &clients {
        let read = client.take();
        let close = read.strip_prefix(&*heard("last")).unwrap();
        assert_eq!((close[0], &close[2..4]), (0x88, &1001_u16.to_be_bytes()[..]));
        client.send(b"\x88\x82\0\0\0\0\x03\xE9");
        client.change(|pipe| pipe.input_ends = true);
    }
    assert!(matches!(stopped.lock().unwrap().take(), Some(Ok(()))));
    assert_eq!((memory.running(), hub.session_count()), (0, 0));
    assert_eq!(done(&memory, async move { hub.sessions().await }), Err(HubError::Stopped));
}

#[test]
fn when_one_worker_ends_too_soon_the_others_end_in_order() {
    let (memory, hub) = started(3);
    let clients: Vec<_> = (0..3).map(|tag| adopted(&memory, &hub, "tea", tag)).collect();
    // The first task starts the hub, and the others are its workers.
    memory.cancel(2);
    assert_eq!(hub.adopt(memory.pipe().1, Target::new("tea"), Bytes::new()), Err(HubError::Stopped));
    for _ in 0..11 {
        memory.pass(fanfare_core::time::Duration::from_secs(1));
    }
    assert!(clients.iter().all(Client::is_closed));
    assert_eq!(memory.running(), 0);
    for client in [&clients[0], &clients[2]] {
        assert_eq!(client.take()[2..4], 1001_u16.to_be_bytes());
    }
    assert!(done(&memory, async move { hub.stop().await }).is_err());
}
