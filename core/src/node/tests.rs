use super::*;
use crate::limits::Limits;
use crate::redis::Lane;
use crate::shard::tests::world::{request, settings, text};
use crate::time::Duration;

const NOW: Instant = Instant::from_micros(7);
const SUBSCRIBER: LinkId = LinkId::new(0, Lane::Subscriber);
const PUBLISHER: LinkId = LinkId::new(0, Lane::Publisher);
const BOTH: [LinkId; 2] = [SUBSCRIBER, PUBLISHER];
/// An empty Close of a client, masked with zeros.
const CLOSE: [u8; 6] = *b"\x88\x80\0\0\0\0";

/// To the Redis of these tests.
fn dial(id: LinkId) -> Action {
    Action::Dial(id, Endpoint::Tcp { host: "redis.test".to_owned(), port: 6379 })
}

fn node() -> Node {
    Node::new(settings(Limits::default(), 4), None, 7, NOW)
}

/// What is written to each socket until nothing is left to do, and what else is asked for.
fn settle(node: &mut Node) -> (Vec<(SocketId, Vec<u8>)>, Vec<Action>) {
    let (mut written, mut others) = (Vec::new(), Vec::new());
    node.handle_timeout(NOW);
    while let Some(action) = node.poll_action() {
        let Action::Write(id) = action else {
            others.push(action);
            continue;
        };
        let mut slices = [IoSlice::new(&[]); 8];
        let filled = node.transmit(id, &mut slices);
        let bytes: Vec<u8> = slices[..filled].iter().flat_map(|slice| slice.to_vec()).collect();
        node.transmitted(id, bytes.len(), NOW).unwrap();
        written.push((id, bytes));
    }
    (written, others)
}

/// A client of the chat.
fn join(node: &mut Node) -> SocketId {
    let id = node.handle_connection(None, NOW);
    assert!(node.handle_readable(id, NOW));
    node.handle_read(id, &mut request("/chat"), false, NOW);
    let (written, others) = settle(node);
    assert!(matches!(&written[..], [(to, bytes)] if *to == id && bytes.starts_with(b"HTTP/1.1 101 ")));
    assert_eq!(others, []);
    id
}

#[test]
fn a_message_reaches_everyone_in_the_room_in_the_next_turn() {
    let mut node = node();
    let (first, second) = (join(&mut node), join(&mut node));
    node.handle_read(first, &mut text("hello"), false, NOW);
    assert_eq!(node.poll_timeout(), Some(NOW));
    let message = b"\x81\x05hello".to_vec();
    assert_eq!(settle(&mut node), (vec![(first, message.clone()), (second, message)], vec![]));
}

#[test]
fn a_blocked_socket_is_written_again_when_it_is_writable() {
    let mut node = node();
    let id = join(&mut node);
    node.handle_read(id, &mut text("hello"), false, NOW);
    node.handle_timeout(NOW);
    assert_eq!(node.poll_action(), Some(Action::Write(id)));
    node.blocked(id);
    assert_eq!(settle(&mut node), (vec![], vec![]));
    node.handle_writable(id);
    assert_eq!(settle(&mut node).0, [(id, b"\x81\x05hello".to_vec())]);
}

#[test]
fn a_client_that_leaves_has_its_socket_ended_and_closed() {
    let mut node = node();
    let id = join(&mut node);
    node.handle_read(id, &mut CLOSE.to_vec(), false, NOW);
    assert_eq!(settle(&mut node), (vec![(id, b"\x88\0".to_vec())], vec![Action::EndWrites(id)]));
    node.handle_eof(id, NOW);
    assert_eq!(settle(&mut node).1, [Action::Close(id)]);
    let heard: Vec<Event> = std::iter::from_fn(|| node.poll_event()).collect();
    assert!(matches!(heard[..], [Event::Shard(shard::Event::Opened(_)), Event::Shard(shard::Event::Closed(..))]));
}

#[test]
fn a_client_that_hangs_up_while_it_may_not_be_read_is_gone_at_once() {
    let mut asking = settings(Limits::default(), 1);
    asking.ask = true;
    let mut node = Node::new(asking, None, 7, NOW);
    let [id, stays] = [(); 2].map(|()| node.handle_connection(None, NOW));
    assert!(!node.is_unread(id));
    for client in [id, stays] {
        node.handle_read(client, &mut request("/chat"), false, NOW);
        assert!(!node.handle_readable(client, NOW), "the embedder has yet to answer");
    }
    assert!(node.is_unread(id) && node.is_unread(stays) && !node.is_unread(SocketId::Redis(SUBSCRIBER)));
    node.handle_unread_eof(id, NOW);
    let (_, others) = settle(&mut node);
    assert_eq!(others, [Action::Close(id)]);
}

#[test]
fn a_socket_that_was_not_to_be_read_is_named_when_it_is() {
    let bytes = Limits::default().message_bytes;
    let limits = Limits { publish_bytes: bytes, ..Limits::default() };
    let mut node = Node::new(settings(limits, 1), None, 7, NOW);
    let id = join(&mut node);
    node.shard.publish(&"chat".into(), &vec![b'x'; bytes]).unwrap();
    node.handle_read(id, &mut text("waits"), false, NOW);
    assert!(!node.handle_readable(id, NOW), "the credit is used up");
    settle(&mut node);
    assert_eq!(node.poll_timeout(), Some(NOW), "there is credit");
    node.handle_timeout(NOW);
    let (_, others) = settle(&mut node);
    assert_eq!(others, [Action::Read(id)]);
    assert!(node.handle_readable(id, NOW));
}

#[test]
fn a_drained_node_sleeps_until_its_next_deadline() {
    let mut node = node();
    let id = join(&mut node);
    assert_eq!(node.poll_timeout(), Some(NOW), "an event is not polled");
    assert!(matches!(node.poll_event(), Some(Event::Shard(shard::Event::Opened(_)))));
    // A deadline that has moved away fires early, once, and is a no-op then.
    let early = node.poll_timeout().unwrap();
    assert!(early > NOW && early < NOW + Duration::from_secs(22));
    node.handle_timeout(early);
    assert_eq!(node.poll_action(), None);
    let ping = node.poll_timeout().unwrap();
    node.handle_timeout(ping);
    assert_eq!(settle(&mut node).0, [(id, b"\x89\x00".to_vec())]);
}

#[test]
fn it_does_not_rest_while_an_action_is_not_polled() {
    let mut node = node();
    let id = join(&mut node);
    assert!(node.poll_event().is_some());
    node.handle_read(id, &mut CLOSE.to_vec(), false, NOW);
    settle(&mut node);
    node.handle_eof(id, NOW);
    while node.poll_event().is_some() {}
    assert_eq!(node.poll_timeout(), Some(NOW));
    assert_eq!(node.poll_action(), Some(Action::Close(id)));
    node.handle_timeout(NOW);
    assert!(node.poll_timeout() > Some(NOW));
}

#[test]
fn a_node_has_one_worker_whatever_its_settings_say() {
    let mut node = node();
    let before = node.bus.debts().len();
    join(&mut node);
    let bytes = Limits::default().publish_bytes;
    node.shard.publish(&"chat".into(), &vec![b'x'; 60_000]).unwrap();
    assert_eq!((before, node.shard.credit_here()), (1, bytes as i64), "all of the credit is its own");
}

#[test]
fn the_same_inputs_give_the_same_outputs() {
    let play = || {
        let mut node = node();
        let ids = [join(&mut node), join(&mut node)];
        node.handle_read(ids[0], &mut text("hello"), false, NOW);
        (settle(&mut node), node.poll_timeout(), format!("{:?}", node.poll_event()))
    };
    assert_eq!(play(), play());
}

#[test]
fn a_connection_to_redis_is_closed_before_it_is_dialled_again() {
    let mut node = Node::new(Settings::default(), Some("redis://redis.test".parse().unwrap()), 7, NOW);
    assert_eq!(node.poll_timeout(), Some(NOW));
    assert_eq!(settle(&mut node), (vec![], BOTH.map(dial).to_vec()));
    let lost = SocketId::Redis(SUBSCRIBER);
    node.handle_connected(SUBSCRIBER, NOW);
    assert!(matches!(&settle(&mut node).0[..], [(id, _)] if *id == lost));
    let reset = |node: &mut Node, id, now| node.handle_reset(id, "reset", now);
    let mut now = NOW;
    for end in [Node::handle_eof, reset] {
        end(&mut node, lost, now);
        assert_eq!(node.poll_timeout(), Some(now), "there is something to do");
        assert_eq!(node.poll_action(), Some(Action::Close(lost)));
        now = now + Duration::from_secs(1);
        node.handle_timeout(now);
        assert!(std::iter::from_fn(|| node.poll_action()).any(|action| action == dial(SUBSCRIBER)));
        node.handle_connected(SUBSCRIBER, now);
    }
}

#[test]
fn an_end_comes_when_sessions_and_then_their_publishes_have_left() {
    let mut node = Node::new(Settings::default(), Some("redis://redis.test".parse().unwrap()), 7, NOW);
    let id = node.handle_connection(None, NOW);
    node.handle_read(id, &mut b"GET /".to_vec(), false, NOW);
    settle(&mut node);
    node.shutdown(NOW);
    node.handle_timeout(NOW + Duration::from_secs(1));
    assert_eq!(node.poll_action(), Some(Action::Read(id)), "the rest of the head may lie in the socket");
    assert!(node.handle_readable(id, NOW));
    let (written, others) = settle(&mut node);
    assert!(matches!(&written[..], [(to, bytes)] if *to == id && bytes.starts_with(b"HTTP/1.1 503 ")));
    assert_eq!((others, node.is_closed()), (vec![Action::EndWrites(id)], false), "the client is there");
    node.handle_eof(id, NOW);
    let (_, others) = settle(&mut node);
    let of_redis = |id| [Action::Reset(SocketId::Redis(id)), Action::Close(SocketId::Redis(id))];
    assert_eq!(others, [vec![Action::Close(id)], BOTH.map(of_redis).concat()].concat());
    assert!(node.is_closed());
    while node.poll_event().is_some() {}
    assert_eq!(node.poll_timeout(), Some(NOW + Duration::from_secs(1)), "nobody sleeps past the end");
}

#[test]
fn what_the_last_session_says_is_delivered_before_the_end() {
    let mut node = node();
    let id = join(&mut node);
    let channel = "chat".into();
    node.shard.subscribe(&channel, crate::route::FrameType::Text).unwrap();
    settle(&mut node);
    node.handle_read(id, &mut [text("bye"), CLOSE.to_vec()].concat(), false, NOW);
    node.handle_eof(id, NOW);
    node.shutdown(NOW);
    settle(&mut node);
    node.handle_timeout(NOW);
    assert!(node.is_closed());
    let heard =
        std::iter::from_fn(|| node.poll_event()).filter(|event| matches!(event, Event::Shard(shard::Event::Run(..))));
    assert_eq!(heard.count(), 1);
}

#[test]
fn an_end_takes_no_longer_than_its_time_whatever_is_left() {
    let limits = Limits { drain_time: Duration::from_secs(1), ..Limits::default() };
    let mut node = Node::new(settings(limits, 1), None, 7, NOW);
    join(&mut node);
    node.shutdown(NOW);
    // To begin again does not put it off.
    node.shutdown(NOW + Duration::from_micros(1));
    // Its Close leaves, and it does not answer.
    node.handle_timeout(NOW + Duration::from_millis(5));
    settle(&mut node);
    while node.poll_event().is_some() {}
    // The last tenth would be for publishes.
    let end = NOW + Duration::from_millis(900);
    assert_eq!(node.poll_timeout(), Some(end));
    for (at, closed) in [(end.as_micros() - 1, false), (end.as_micros(), true), (end.as_micros() + 1, true)] {
        node.handle_timeout(Instant::from_micros(at));
        assert_eq!(node.is_closed(), closed);
    }
    assert_eq!(node.shard.stats().sessions, 1);
}

#[test]
fn a_socket_is_not_read_after_its_end() {
    let mut node = node();
    let id = node.handle_connection(None, NOW);
    node.handle_read(id, &mut b"GET / HTTP/1.1\r\n\r\n".to_vec(), false, NOW);
    assert!(node.handle_readable(id, NOW), "its answer has yet to leave");
    node.handle_eof(id, NOW);
    assert!(!node.handle_readable(id, NOW));
    assert_eq!(settle(&mut node).1, [Action::Close(id)]);
}

#[test]
fn what_is_left_of_a_dial_that_failed_is_closed() {
    let mut node = Node::new(Settings::default(), Some("redis://redis.test".parse().unwrap()), 7, NOW);
    settle(&mut node);
    node.handle_dial_failed(PUBLISHER, "refused", NOW);
    assert_eq!(settle(&mut node).1, [Action::Close(SocketId::Redis(PUBLISHER))]);
}

#[test]
fn living_sockets_have_different_numbers() {
    let mut node = node();
    let clients = [join(&mut node), join(&mut node)];
    let all = BOTH.map(SocketId::Redis).into_iter().chain(clients);
    assert!(all.map(SocketId::index).eq(0..4));
}

#[test]
fn who_connects_for_operation_is_answered_with_what_the_node_counts() {
    let mut node = node();
    let client = join(&mut node);
    node.handle_read(client, &mut text("hello"), false, NOW);
    settle(&mut node);
    let id = node.handle_admin_connection(NOW);
    node.handle_read(id, &mut b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(), false, NOW);
    node.handle_timeout(NOW);
    let asked = std::iter::from_fn(|| node.poll_event())
        .find_map(|event| if let Event::Shard(shard::Event::Scrape(asked)) = event { Some(asked) } else { None });
    let (asked, counts) = (asked.expect("a question"), node.metrics());
    assert_eq!((SocketId::Client(asked), counts.workers.stats.deliveries, counts.worker_count), (id, 1, 1));
    node.answer_scrape(asked, &Answer::text(200, "1 delivery"), NOW).expect("it waits");
    let (written, others) = settle(&mut node);
    let [(to, answer)] = &written[..] else { panic!("{written:?}") };
    assert!(*to == id && answer.starts_with(b"HTTP/1.1 200 OK\r\n") && answer.ends_with(b"1 delivery"), "{answer:?}");
    assert_eq!(others, [Action::EndWrites(id)]);
}

#[test]
fn publishes_wait_for_redis_until_the_end_and_are_counted_then() {
    let mut node = Node::new(Settings::default(), Some("redis://redis.test".parse().unwrap()), 7, NOW);
    for _ in 0..3 {
        node.shard.publish(&"chat".into(), b"hello").unwrap();
    }
    node.handle_timeout(NOW);
    node.shutdown(NOW);
    // Nothing but the publishes holds the end back.
    for (millis, closed) in [(8_999, false), (9_000, true)] {
        node.handle_timeout(NOW + Duration::from_millis(millis));
        while node.poll_action().is_some() {}
        assert_eq!(node.is_closed(), closed, "after {millis} ms");
    }
    assert_eq!(node.lost(), 3);
}
