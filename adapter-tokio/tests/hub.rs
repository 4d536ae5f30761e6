//! A hub on pipes in memory, and what it promises its program.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::num::NonZero;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use fanfare_tokio::core::error::Misuse;
use fanfare_tokio::core::limits::Limits;
use fanfare_tokio::core::route::{FrameType, Rights, Target};
use fanfare_tokio::core::time::Duration;
use fanfare_tokio::{Connection, Heard, Hub, HubError, ServeError, Setup};
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufStream, DuplexStream, duplex};
use tokio::task::{spawn, yield_now};

const BAD_NAME: HubError = HubError::Misuse(Misuse::ChannelName);
const TOO_LONG: HubError = HubError::Misuse(Misuse::MessageSize);
const OTHER_FRAME: HubError = HubError::Misuse(Misuse::FrameType);

fn target(channel: &'static str) -> Target {
    Target::new(channel)
}

/// A client whose handshake is made, on a pipe that holds so many bytes.
fn join(hub: &Hub, channel: &'static str, pipe: usize) -> DuplexStream {
    let (client, server) = duplex(pipe);
    hub.adopt(Connection::over(server), target(channel), b"".as_slice().into()).unwrap();
    client
}

async fn start() -> Hub {
    Hub::start(Setup::default()).await.unwrap()
}

/// A text frame as a client sends it; its key is zero to keep it readable.
fn masked(text: &str) -> Vec<u8> {
    [&[0x81, 0x80 | text.len() as u8, 0, 0, 0, 0], text.as_bytes()].concat()
}

async fn read<const N: usize>(client: &mut DuplexStream) -> [u8; N] {
    let mut bytes = [0; N];
    client.read_exact(&mut bytes).await.unwrap();
    bytes
}

#[tokio::test]
async fn clients_on_any_kind_of_stream_hear_each_other_and_the_program() {
    let hub = start().await;
    // One that takes a byte at a time, and one that holds back what is not flushed.
    let mut ann = join(&hub, "tea", 1);
    let (mut bob, server) = duplex(1 << 10);
    hub.adopt(Connection::over(BufStream::new(server)), target("tea"), masked("early").into()).unwrap();
    assert_eq!(read(&mut bob).await, *b"\x81\x05early");
    assert_eq!(read(&mut ann).await, *b"\x81\x05early");
    ann.write_all(&masked("hello")).await.unwrap();
    assert_eq!(read(&mut bob).await, *b"\x81\x05hello");
    assert_eq!(read(&mut ann).await, *b"\x81\x05hello");
    hub.publish("tea", "boils").await.unwrap();
    assert_eq!(read(&mut bob).await, *b"\x81\x05boils");
    assert_eq!(read(&mut ann).await, *b"\x81\x05boils");
}

#[tokio::test]
async fn a_reserved_session_gets_what_was_published_before_its_connection_came() {
    let hub = start().await;
    let mut other = join(&hub, "tea", 1 << 10);
    let session = hub.reserve(target("tea")).await.unwrap();
    hub.publish("tea", "one").await.unwrap();
    assert_eq!(read(&mut other).await, *b"\x81\x03one");
    hub.publish("tea", "two").await.unwrap();
    assert_eq!(read(&mut other).await, *b"\x81\x03two");
    let (mut client, server) = duplex(1 << 10);
    session.adopt(Connection::over(server), masked("early").into());
    assert_eq!(read(&mut client).await, *b"\x81\x03one\x81\x03two\x81\x05early");
    assert_eq!(read(&mut other).await, *b"\x81\x05early");
}

#[tokio::test]
async fn a_reserved_session_ends_with_its_handle_and_holds_nobody_up() {
    let hub = start().await;
    drop(hub.reserve(target("tea")).await.unwrap());
    // A table's place that is free again is not mixed up with its successor's.
    let mut client = join(&hub, "tea", 1 << 10);
    hub.publish("tea", "hello").await.unwrap();
    assert_eq!(read(&mut client).await, *b"\x81\x05hello");
    drop(client);
    hub.stop().await.unwrap();
    assert_eq!(hub.reserve(target("tea")).await.err(), Some(HubError::Stopped));
}

#[tokio::test]
async fn a_session_that_is_reserved_when_the_hub_stops_is_closed_once_it_has_a_connection() {
    let hub = start().await;
    let session = hub.reserve(target("tea")).await.unwrap();
    let other = hub.clone();
    let stopping = spawn(async move { other.stop().await });
    while hub.publish("tea", "").await.is_ok() {
        yield_now().await;
    }
    let (mut client, server) = duplex(1 << 20);
    session.adopt(Connection::over(server), b"".as_slice().into());
    loop {
        let [opcode, len] = read(&mut client).await;
        let mut payload = vec![0; len.into()];
        client.read_exact(&mut payload).await.unwrap();
        if opcode == 0x88 {
            assert_eq!(payload[..2], 1001_u16.to_be_bytes());
            break;
        }
    }
    drop(client);
    stopping.await.unwrap().unwrap();
}

#[tokio::test]
async fn nothing_is_reserved_on_a_channel_that_cannot_be_subscribed() {
    let mut setup = Setup::default();
    setup.redis = Some("redis://127.0.0.1:1".parse().unwrap());
    setup.wait_for_redis = true;
    setup.settings.limits.confirm_time = Duration::from_millis(1);
    let hub = Hub::start(setup).await.unwrap();
    assert_eq!(hub.reserve(target("tea")).await.err(), Some(HubError::NotConfirmed));
    let mut write_only = target("tea");
    write_only.rights = Rights::PUBLISH;
    assert!(hub.reserve(write_only).await.is_ok(), "it has nothing to hear");
}

#[tokio::test]
async fn stopping_closes_sessions_with_1001_behind_what_was_published_and_ends_subscriptions() {
    let hub = start().await;
    let mut client = join(&hub, "tea", 1 << 10);
    let mut subscription = hub.subscribe("tea", FrameType::Text).await.unwrap();
    hub.publish("tea", "last").await.unwrap();
    let other = hub.clone();
    let stopping = spawn(async move { other.stop().await });
    assert_eq!(subscription.next().await, Some(Heard::Message("last".into())));
    let mut read = Vec::new();
    // It has its Close answered, and then ends its side.
    client.write_all(b"\x88\x82\0\0\0\0\x03\xE9").await.unwrap();
    client.read_to_end(&mut read).await.unwrap();
    let close = read.strip_prefix(b"\x81\x04last").unwrap();
    assert_eq!((close[0], &close[2..4]), (0x88, &1001_u16.to_be_bytes()[..]));
    drop(client);
    stopping.await.unwrap().unwrap();
    hub.stop().await.unwrap();
    assert_eq!(subscription.next().await, None);
    assert_eq!(hub.publish("tea", "late").await, Err(HubError::Stopped));
    assert_eq!(hub.subscribe("tea", FrameType::Text).await.err(), Some(HubError::Stopped));
    assert_eq!(hub.adopt(Connection::over(duplex(1).0), target("tea"), "".into()), Err(HubError::Stopped));
}

#[tokio::test]
async fn dropping_the_last_handle_stops_it() {
    let hub = start().await;
    let mut subscription = hub.subscribe("tea", FrameType::Text).await.unwrap();
    drop(hub);
    assert_eq!(subscription.next().await, None);
}

#[tokio::test]
async fn what_makes_no_sense_is_refused() {
    let hub = start().await;
    let limits = Limits::default();
    let (longest, too_long) = ("x".repeat(limits.channel_bytes), "x".repeat(limits.channel_bytes + 1));
    assert!(hub.subscribe(longest, FrameType::Text).await.is_ok());
    assert_eq!(hub.subscribe(too_long.clone(), FrameType::Text).await.err(), Some(BAD_NAME));
    assert_eq!(hub.publish(too_long, "").await, Err(BAD_NAME));
    assert_eq!(hub.publish("", "").await, Err(BAD_NAME));
    assert_eq!(hub.publish("tea", vec![b'x'; limits.message_bytes]).await, Ok(()));
    assert_eq!(hub.publish("tea", vec![b'x'; limits.message_bytes + 1]).await, Err(TOO_LONG));
    assert_eq!(hub.adopt(Connection::over(duplex(1).0), target(""), "".into()), Err(BAD_NAME));
    let text = hub.subscribe("tea", FrameType::Text).await.unwrap();
    assert_eq!(hub.subscribe("tea", FrameType::Binary).await.err(), Some(OTHER_FRAME), "it carries text");
    drop(text);
}

#[tokio::test]
async fn far_more_than_the_queue_of_publishes_holds_passes_it_in_order() {
    let mut setup = Setup::default();
    setup.settings.limits.message_bytes = 1 << 10;
    setup.settings.limits.publish_bytes = 1 << 10;
    let hub = Hub::start(setup).await.unwrap();
    let mut subscription = hub.subscribe("tea", FrameType::Text).await.unwrap();
    for number in 0..1_000 {
        hub.publish("tea", format!("{number:01000}")).await.unwrap();
        assert_eq!(subscription.next().await, Some(Heard::Message(format!("{number:01000}").into())));
    }
    let publisher = spawn(async move {
        for number in 0..1_000 {
            hub.publish("tea", number.to_string()).await.unwrap();
        }
        hub
    });
    for number in 0..1_000 {
        assert_eq!(subscription.next().await, Some(Heard::Message(number.to_string().into())));
    }
    drop(publisher.await);
}

#[tokio::test]
async fn a_publisher_waits_while_redis_is_away_and_what_was_accepted_is_counted_at_the_end() {
    let mut setup = Setup::default();
    // Nobody listens there.
    setup.redis = Some("redis://127.0.0.1:1".parse().unwrap());
    setup.wait_for_redis = true;
    setup.settings.limits.message_bytes = 1 << 10;
    setup.settings.limits.publish_bytes = 1 << 10;
    setup.settings.limits.drain_time = Duration::ZERO;
    let hub = Hub::start(setup).await.unwrap();
    let accepted = Arc::new(AtomicUsize::new(0));
    let (publisher, counter) = (hub.clone(), accepted.clone());
    let publisher = spawn(async move {
        for _ in 0..10_000 {
            publisher.publish("tea", vec![b'x'; 1_000]).await?;
            counter.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    });
    for _ in 0..1_000 {
        yield_now().await;
    }
    // The queue, one message beyond it, and what may lie in the mailbox meanwhile.
    let accepted = accepted.load(Ordering::Relaxed);
    assert!((1..=18).contains(&accepted), "{accepted}");
    tokio::select! {
        biased;
        _ = hub.publish("tea", "given up") => panic!("there is no room"),
        () = yield_now() => {}
    }
    assert!(matches!(hub.stop().await, Err(ServeError::Unflushed { messages }) if messages == accepted as u64));
    assert_eq!(publisher.await.unwrap(), Err(HubError::Stopped));
}

#[tokio::test]
async fn a_subscription_that_lags_says_how_many_it_missed_and_goes_on_with_the_latest() {
    let mut setup = Setup::default();
    setup.settings.limits.message_bytes = 1 << 10;
    setup.settings.limits.queue_bytes = 8 << 10;
    let hub = Hub::start(setup).await.unwrap();
    let mut lags = hub.subscribe("tea", FrameType::Text).await.unwrap();
    let mut follows = hub.subscribe("tea", FrameType::Text).await.unwrap();
    let messages: Vec<_> = (0..100).map(|number| Heard::Message(format!("{number:0500}").into())).collect();
    for message in &messages {
        let Heard::Message(payload) = message.clone() else { continue };
        hub.publish("tea", payload).await.unwrap();
        assert_eq!(follows.next().await.as_ref(), Some(message));
    }
    let Some(Heard::Missed(missed)) = lags.next().await else { panic!("it missed some") };
    let missed = usize::try_from(missed).unwrap();
    assert!((85..99).contains(&missed), "{missed}: 8 KiB hold some fourteen messages");
    for message in &messages[missed..] {
        assert_eq!(lags.next().await.as_ref(), Some(message));
    }
}

#[tokio::test]
async fn a_hub_tells_what_it_counts_until_it_has_stopped() {
    let hub = start().await;
    let mut ann = join(&hub, "tea", 1 << 10);
    ann.write_all(&masked("hello")).await.unwrap();
    assert_eq!(read(&mut ann).await, *b"\x81\x05hello");
    let metrics = hub.metrics().await.unwrap();
    assert_eq!(metrics.readiness, Ok(()));
    let text = fanfare_server::metrics::text(&metrics);
    assert!(text.contains("\nfanfare_deliveries_total 1\n"), "{text}");
    drop(ann);
    hub.stop().await.unwrap();
    assert_eq!(hub.metrics().await.map(drop), Err(HubError::Stopped));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn sessions_of_several_workers_are_listed_and_closed_by_what_the_program_knows_of_them() {
    let mut setup = Setup::default();
    setup.workers = NonZero::new(3);
    let hub = Hub::start(setup).await.unwrap();
    let mut clients = Vec::new();
    for user in 0..6 {
        let session = hub.reserve(target("tea")).await.unwrap().tag(user);
        let (client, server) = duplex(1 << 10);
        session.adopt(Connection::over(server), "".into());
        clients.push(client);
    }
    hub.publish("tea", "hello").await.unwrap();
    for client in &mut clients {
        assert_eq!(read(client).await, *b"\x81\x05hello");
    }
    assert_eq!((hub.session_count(), hub.sessions().await.unwrap().len()), (6, 6));
    let channels = hub.channels().await.unwrap();
    assert_eq!((channels.len(), &*channels[0].name, channels[0].sessions), (1, &b"tea"[..], 6));
    let closed = hub.close_sessions(4001, "logged out", |session| session.tag == Some(4)).await;
    assert_eq!(closed, Ok(1));
    assert_eq!(read(&mut clients[4]).await, *b"\x88\x0C\x0F\xA1logged out");
    hub.publish("tea", "again").await.unwrap();
    clients.remove(4);
    for client in &mut clients {
        assert_eq!(read(client).await, *b"\x81\x05again");
    }
    drop(clients);
    hub.stop().await.unwrap();
    assert_eq!(hub.sessions().await, Err(HubError::Stopped));
}
