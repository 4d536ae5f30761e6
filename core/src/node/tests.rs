mod actions;

use super::Node;
use crate::config::Config;
use crate::limits::Limits;
use crate::redis::{Action, Lane};
use crate::shard::tests::world::{request, settings, text};
use crate::shard::{Event, SessionId};
use crate::time::{Duration, Instant};

const NOW: Instant = Instant::ZERO;

fn node() -> Node {
    Node::new(settings(Limits::default(), 4), None, 7, NOW)
}

/// A client of the chat, and all that was written to it.
fn join(node: &mut Node) -> SessionId {
    let id = node.shard.handle_connection(None, NOW);
    assert!(node.shard.handle_readable(id, NOW));
    node.shard.handle_read(id, &mut request("/chat"), NOW);
    node.exchange(NOW);
    assert!(take(node, id).starts_with(b"HTTP/1.1 101 "));
    id
}

/// Takes everything that waits for a session, as a socket would.
fn take(node: &mut Node, id: SessionId) -> Vec<u8> {
    let mut taken = Vec::new();
    loop {
        let mut slices = [std::io::IoSlice::new(&[]); 4];
        let filled = node.shard.transmit(id, &mut slices);
        let bytes: Vec<u8> = slices[..filled].iter().flat_map(|slice| slice.to_vec()).collect();
        if bytes.is_empty() {
            return taken;
        }
        node.shard.transmitted(id, bytes.len(), NOW).unwrap();
        taken.extend(bytes);
    }
}

#[test]
fn a_message_reaches_everyone_in_the_room_in_the_next_turn() {
    let mut node = node();
    let [a, b] = [join(&mut node), join(&mut node)];
    node.shard.handle_read(a, &mut text("hello"), NOW);
    node.exchange(NOW);
    assert_eq!(node.poll_timeout(), Some(NOW));
    node.handle_timeout(NOW);
    assert_eq!(node.shard.poll_transmit(), Some(a));
    assert_eq!(node.shard.poll_transmit(), Some(b));
    assert_eq!((take(&mut node, a), take(&mut node, b)), (b"\x81\x05hello".to_vec(), b"\x81\x05hello".to_vec()));
}

#[test]
fn a_drained_node_sleeps_until_its_next_deadline() {
    let mut node = node();
    let id = join(&mut node);
    while node.shard.poll_transmit().is_some() {}
    while let Some(event) = node.shard.poll_event() {
        assert!(matches!(event, Event::Opened(one) if one == id));
    }
    // A deadline that has moved away fires early, once, and is a no-op then.
    let early = node.poll_timeout().unwrap();
    assert!(early > NOW && early < NOW + Duration::from_secs(22));
    node.handle_timeout(early);
    assert_eq!(node.shard.poll_transmit(), None);
    let ping = node.poll_timeout().unwrap();
    node.handle_timeout(ping);
    assert_eq!(take(&mut node, id), b"\x89\x00");
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
        node.shard.handle_read(ids[0], &mut text("hello"), NOW);
        node.handle_timeout(NOW);
        (ids.map(|id| take(&mut node, id)), node.poll_timeout(), format!("{:?}", node.shard.poll_event()))
    };
    assert_eq!(play(), play());
}

#[test]
fn with_redis_it_begins_by_dialling() {
    let config = Config::default();
    let settings = config.settings(std::num::NonZero::<usize>::MIN).unwrap();
    let mut node = Node::new(settings, Some("redis://redis.test".parse().unwrap()), 7, NOW);
    assert_eq!(node.poll_timeout(), Some(NOW));
    assert_eq!(node.bus.poll_action(), Some(Action::Dial(Lane::Subscriber)));
    assert_eq!(node.bus.poll_action(), Some(Action::Dial(Lane::Publisher)));
}
