//! A node by its one list of actions.

use core::num::NonZero;

use crate::config::Config;
use crate::node::*;
use crate::time::Duration;

const REQUEST: &[u8] = b"GET /chat HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
/// "hi", masked with zeros.
const HI: &[u8] = b"\x81\x82\0\0\0\0hi";
const NOW: Instant = Instant::from_micros(7);

fn node(redis: Option<&str>) -> Node {
    let settings = Config::default().settings(NonZero::<usize>::MIN).unwrap();
    Node::new(settings, redis.map(|url| url.parse().unwrap()), 1, NOW)
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

fn joined(node: &mut Node) -> SocketId {
    let id = node.handle_connection(None, NOW);
    assert!(node.handle_readable(id, NOW));
    node.handle_read(id, &mut REQUEST.to_vec(), NOW);
    let (written, others) = settle(node);
    assert!(matches!(&written[..], [(to, bytes)] if *to == id && bytes.starts_with(b"HTTP/1.1 101 ")));
    assert_eq!(others, []);
    id
}

#[test]
fn clients_of_one_node_hear_each_other() {
    let mut node = node(None);
    let (first, second) = (joined(&mut node), joined(&mut node));
    node.handle_read(first, &mut HI.to_vec(), NOW);
    let message = b"\x81\x02hi".to_vec();
    assert_eq!(settle(&mut node), (vec![(first, message.clone()), (second, message)], vec![]));
}

#[test]
fn a_blocked_socket_is_written_again_when_it_is_writable() {
    let mut node = node(None);
    let id = joined(&mut node);
    node.handle_read(id, &mut HI.to_vec(), NOW);
    node.handle_timeout(NOW);
    assert_eq!(node.poll_action(), Some(Action::Write(id)));
    node.blocked(id);
    assert_eq!(settle(&mut node), (vec![], vec![]));
    node.handle_writable(id);
    assert_eq!(settle(&mut node).0, [(id, b"\x81\x02hi".to_vec())]);
}

#[test]
fn a_client_that_leaves_has_its_socket_ended_and_closed() {
    let mut node = node(None);
    let id = joined(&mut node);
    node.handle_read(id, &mut b"\x88\x80\0\0\0\0".to_vec(), NOW);
    let (written, others) = settle(&mut node);
    assert_eq!((written, others), (vec![(id, b"\x88\0".to_vec())], vec![Action::EndWrites(id)]));
    node.handle_eof(id, NOW);
    assert_eq!(settle(&mut node).1, [Action::Close(id)]);
    let heard: Vec<Event> = std::iter::from_fn(|| node.poll_event()).collect();
    assert!(matches!(heard[..], [Event::Shard(shard::Event::Opened(_)), Event::Shard(shard::Event::Closed(..))]));
}

#[test]
fn a_connection_to_redis_is_closed_before_it_is_dialled_again() {
    let mut node = node(Some("redis://localhost"));
    let dials = Lane::ALL.map(Action::Dial);
    assert_eq!(settle(&mut node), (vec![], dials.to_vec()));
    let lost = SocketId::Redis(Lane::Subscriber);
    node.handle_connected(Lane::Subscriber, NOW);
    assert!(matches!(&settle(&mut node).0[..], [(id, _)] if *id == lost));
    let reset = |node: &mut Node, id, now| node.handle_reset(id, "reset", now);
    let mut now = NOW;
    for end in [Node::handle_eof, reset] {
        end(&mut node, lost, now);
        assert_eq!(node.poll_timeout(), Some(now), "there is something to do");
        assert_eq!(node.poll_action(), Some(Action::Close(lost)));
        now = now + Duration::from_secs(1);
        node.handle_timeout(now);
        assert!(std::iter::from_fn(|| node.poll_action()).any(|action| action == dials[0]));
        node.handle_connected(Lane::Subscriber, now);
    }
}

#[test]
fn it_does_not_rest_while_an_output_is_not_polled() {
    let mut node = node(None);
    let id = joined(&mut node);
    assert!(node.poll_event().is_some());
    assert!(node.poll_timeout() > Some(NOW));
    node.handle_read(id, &mut b"\x88\x80\0\0\0\0".to_vec(), NOW);
    while node.poll_event().is_some() {}
    assert_eq!(node.poll_timeout(), Some(NOW));
    settle(&mut node);
    assert!(node.poll_timeout() > Some(NOW));
}
