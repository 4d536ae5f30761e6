//! What one session and all of them together may hold: below, at and above each bound.

use super::world::{CLOSE, World, limits, ms, text};
use crate::error::{Closed, Error, Side};
use crate::limits::Limits;
use crate::route::FrameType;
use crate::run::RunBuilder;
use crate::time::Duration;
use crate::ws::tests::frame;

fn small(change: impl FnOnce(&mut Limits)) -> World {
    let mut limits = limits();
    change(&mut limits);
    World::with(limits, 1)
}

#[test]
fn a_message_above_its_bound_is_1009() {
    for (len, code) in [(99, None), (100, None), (101, Some(1009))] {
        let mut world = small(|limits| limits.message_bytes = 100);
        let client = world.join("/chat");
        world.send(client, &text(&"m".repeat(len)));
        assert_eq!(world.close_code(client), code, "{len} bytes");
        assert_eq!(world.texts(client).len(), usize::from(code.is_none()));
    }
}

#[test]
fn a_message_of_too_many_fragments_is_1009() {
    for (fragments, code) in [(2, None), (3, None), (4, Some(1009))] {
        let mut world = small(|limits| limits.message_fragments = 3);
        let client = world.join("/chat");
        world.send(client, &frame(0x01, b"a"));
        for _ in 2..fragments {
            world.send(client, &frame(0x00, b"b"));
        }
        world.send(client, &frame(0x80, b"c"));
        assert_eq!(world.close_code(client), code, "{fragments} fragments");
    }
}

/// The beginning of a message, and what of it counts for the bound of all.
fn partial(world: &mut World, client: usize) -> usize {
    let before = world.shards[0].partial;
    world.send(client, &frame(0x01, &[b'x'; 30_000]));
    world.shards[0].partial - before
}

#[test]
fn unfinished_messages_are_bounded_together_and_the_one_that_was_begun_first_is_1013() {
    let one = {
        let mut world = World::new();
        let client = world.join("/chat");
        partial(&mut world, client)
    };
    assert!(one >= 26_000);
    for (bound, workers, code) in [
        (2 * one + 1, 1, None),
        (2 * one, 1, None),
        (2 * one - 1, 1, Some(1013)),
        (4 * one, 2, None),
        (4 * one - 1, 2, Some(1013)),
    ] {
        let mut limits = limits();
        limits.partial_bytes = bound;
        let mut world = World::with(limits, workers);
        let clients: Vec<usize> = (0..2 * workers).map(|_| world.join("/chat")).collect();
        for &client in &clients {
            world.send(client, &frame(0x01, &[b'x'; 30_000]));
            world.pass(ms(1));
        }
        assert_eq!(world.close_code(clients[0]), code, "{bound} bytes, {workers} workers");
        assert_eq!(world.close_code(clients[2 * workers - 1]), None, "whoever speaks next stays");
        if workers == 1 {
            assert_eq!(world.shards[0].partial, if code.is_none() { 2 * one } else { one });
            world.send(clients[1], &frame(0x80, b""));
            assert_eq!(world.shards[0].partial, if code.is_none() { one } else { 0 }, "what is whole counts no more");
        }
    }
}

/// Others hold all that there is, again and again, and whoever says something in two segments does not notice.
#[test]
fn nobody_can_take_the_first_bytes_of_others_messages() {
    let mut world = small(|limits| limits.partial_bytes = 100_000);
    let hoarders: Vec<usize> = (0..20).map(|_| world.join("/chat/hoard")).collect();
    for &hoarder in &hoarders {
        world.send(hoarder, &frame(0x01, &[b'x'; 30_000]));
    }
    let innocent = world.join("/chat");
    let message = text(&"m".repeat(3_000));
    for _ in 0..100 {
        world.send(innocent, &message[..1_460]);
        world.send(innocent, &message[1_460..]);
    }
    assert_eq!((world.texts(innocent).len(), world.close_code(innocent)), (100, None));
    let large = text(&"m".repeat(60_000));
    for _ in 0..10 {
        world.pass(ms(10));
        large.chunks(1_460).for_each(|piece| world.send(innocent, piece));
    }
    assert_eq!((world.texts(innocent).len(), world.close_code(innocent)), (110, None));
    assert!(world.shards[0].partial <= 100_000);
}

#[test]
fn a_message_has_a_time_from_its_first_byte_to_its_last() {
    let whole = text("hello");
    for (seconds, code) in [(29, None), (30, Some(1013)), (31, Some(1013))] {
        let mut world = small(|limits| limits.message_time = Duration::from_secs(30));
        let client = world.join("/chat");
        world.send(client, &frame(0x01, b"hel"));
        for second in 0..seconds {
            world.pass(ms(1_000));
            // Others of its messages do not put it off, nor does a piece of it.
            world.send(client, &frame(if second == 7 { 0x00 } else { 0x8A }, b""));
        }
        assert_eq!(world.close_code(client), code, "{seconds} s");
        if code.is_none() {
            world.send(client, &[frame(0x80, b"lo"), whole[..3].to_vec()].concat());
            assert_eq!(world.texts(client), ["hello"]);
            world.pass(ms(10_000));
            world.send(client, &frame(0x8A, b"")[..0]);
            assert_eq!(world.close_code(client), None, "the next one has its own time");
        } else {
            world.end(client);
            assert_eq!(world.error(client), Some(Error::SlowMessage));
        }
    }
}

#[test]
fn the_first_byte_of_a_frame_begins_the_time() {
    let mut world = small(|limits| limits.message_time = Duration::from_secs(3));
    let client = world.join("/chat");
    world.send(client, &text("hello")[..1]);
    world.pass(ms(2_999));
    assert_eq!(world.close_code(client), None);
    world.pass(ms(1));
    assert_eq!(world.close_code(client), Some(1013));
}

/// So many bytes beyond two frames of 102 bytes with one entry that does not stand inline.
fn slow_reader(bound: usize) -> (World, usize) {
    let mut world = small(|limits| limits.queue_bytes = bound);
    let client = world.join("/chat");
    world.make_room(client, 0);
    world.clients[client].got.clear();
    for _ in 0..2 {
        world.shard().publish(&"chat".into(), &[b'm'; 100]).unwrap();
        world.run();
    }
    (world, client)
}

const TWO: usize = 2 * 102 + 24;

#[test]
fn a_slow_reader_at_the_bound_loses_nothing() {
    for bound in [TWO, TWO + 1] {
        let (mut world, client) = slow_reader(bound);
        let id = world.clients[client].id;
        assert_eq!(world.shards[0].queued_bytes(id), TWO);
        world.make_room(client, usize::MAX);
        assert_eq!((world.texts(client).len(), world.close_code(client)), (2, None));
        assert_eq!(world.shards[0].queued_bytes(id), 0);
    }
}

#[test]
fn a_slow_reader_above_the_bound_gets_the_close_and_nothing_else() {
    let (mut world, client) = slow_reader(TWO - 1);
    assert_eq!(world.shards[0].stats().slow_readers, 1);
    world.shard().publish(&"chat".into(), b"more").unwrap();
    world.make_room(client, usize::MAX);
    assert_eq!((world.texts(client).len(), world.close_code(client)), (0, Some(1013)));
    world.send(client, &text("sent in good faith, read in vain"));
    assert_eq!(world.shards[0].stats().messages_in, 0);
    world.end(client);
    assert_eq!(world.error(client), Some(Error::SlowReader));
}

#[test]
fn a_frame_that_has_begun_to_leave_a_slow_reader_is_finished() {
    let mut world = small(|limits| limits.queue_bytes = 300);
    let client = world.join("/chat");
    world.make_room(client, 0);
    world.clients[client].got.clear();
    // Two frames in one run.
    let messages = [text("the first message"), text("the second message")].concat();
    world.send(client, &messages);
    world.make_room(client, 5);
    for _ in 0..3 {
        world.shard().publish(&"chat".into(), &[b'm'; 100]).unwrap();
        world.run();
    }
    assert_eq!(world.shards[0].stats().slow_readers, 1);
    world.make_room(client, usize::MAX);
    assert_eq!((world.texts(client), world.close_code(client)), (vec!["the first message".to_owned()], Some(1013)));
}

#[test]
fn whoever_keeps_up_takes_a_run_of_any_size() {
    let mut world = small(|limits| limits.queue_bytes = 1);
    let client = world.join("/chat");
    for _ in 0..3 {
        world.send(client, &text(&"m".repeat(60_000)));
    }
    assert_eq!((world.texts(client).len(), world.close_code(client)), (3, None));
}

/// Tiny messages take more memory than their bytes, and are bounded by what they take.
#[test]
fn a_slow_reader_of_empty_messages_is_bounded_by_memory_and_not_by_bytes() {
    let mut world = small(|limits| limits.queue_bytes = 10_000);
    let client = world.join("/chat");
    world.make_room(client, 0);
    let mut messages = 0;
    while world.shards[0].stats().slow_readers == 0 {
        world.shard().publish(&"chat".into(), b"").unwrap();
        world.run();
        messages += 1;
        assert!(messages < 10_000 / 24);
    }
    assert!(messages > 10_000 / 30);
}

#[test]
fn all_queues_together_are_bounded_and_whoever_has_been_behind_for_longest_pays() {
    let run = {
        let mut builder = RunBuilder::new(FrameType::Text);
        builder.push(&[b'm'; 100]).unwrap();
        builder.finish().memory()
    };
    // Two sessions hold the first when the second comes.
    let both = 2 * run + 2 * 24;
    for (bound, code) in [(both + 1, None), (both, None), (both - 1, Some(1013))] {
        let mut world = small(|limits| (limits.all_queues_bytes, limits.queue_bytes) = (bound, 400));
        let [slow, same, other] = [world.join("/chat"), world.join("/chat"), world.join("/chat")];
        world.make_room(slow, 0);
        world.make_room(same, 0);
        for _ in 0..2 {
            world.shard().publish(&"chat".into(), &[b'm'; 100]).unwrap();
            world.run();
        }
        world.make_room(slow, usize::MAX);
        world.make_room(same, usize::MAX);
        assert_eq!([slow, same, other].map(|one| world.close_code(one)), [code, None, None], "{bound} bytes");
        assert_eq!(world.texts(other).len(), 2);
        assert_eq!(world.shards[0].runs.memory(), 0, "everything left");
    }
}

#[test]
fn pongs_to_a_client_that_never_reads_are_bounded() {
    let mut world = World::new();
    let client = world.join("/chat");
    world.make_room(client, 0);
    for _ in 0..200 {
        world.send(client, &frame(0x89, &[b'p'; 125]).repeat(100));
    }
    world.make_room(client, usize::MAX);
    assert!(world.clients[client].got.len() < 4096);
    world.send(client, &frame(CLOSE, b""));
    assert!(world.clients[client].ended);
}

#[test]
fn what_a_crowd_needed_is_given_back_when_it_has_left() {
    let mut world = World::new();
    let clients: Vec<usize> = (0..3_000).map(|_| world.connect()).collect();
    for &client in &clients {
        world.clients[client].room = 0;
        world.clients[client].input = format!("{}\r\n", "x".repeat(client % 50)).into_bytes();
        let id = world.id(client);
        let now = world.now;
        let mut input = std::mem::take(&mut world.clients[client].input);
        world.shard().handle_read(id, &mut input, now);
        world.shard().handle_reset(id);
    }
    world.run();
    let shard = &world.shards[0];
    let kept = shard.events.capacity().max(shard.writable.capacity()).max(shard.readable.capacity());
    assert!(kept < 3_000, "{kept}");
    assert!(shard.is_empty());
}

#[test]
fn channels_that_came_and_went_leave_no_table_behind() {
    let mut world = World::new();
    let clients: Vec<usize> = (0..500).map(|room| world.join(&format!("/chat/{room}"))).collect();
    let before = world.shards[0].channels.capacity();
    for &client in &clients {
        let id = world.id(client);
        world.shard().handle_reset(id);
    }
    world.run();
    assert!(world.shards[0].channels.capacity() < before / 4);
}

/// Rooms for many who each hold one message of so many bytes and take nothing, at a bound of 64 KiB.
fn many(len: usize, act: impl FnMut(&mut World, usize)) -> World {
    many_that_take(0, len, act)
}

/// The same of who take so many bytes of it.
fn many_that_take(room: usize, len: usize, mut act: impl FnMut(&mut World, usize)) -> World {
    let mut world = small(|limits| {
        limits.message_bytes = 8 << 10;
        limits.queue_bytes = 64 << 10;
        limits.all_queues_bytes = 64 << 10;
    });
    for number in 0..600 {
        let client = world.join(&format!("/chat/{number}"));
        world.make_room(client, room);
        world.shard().publish(&format!("chat:{number}").into(), &vec![b'm'; len]).unwrap();
        world.run();
        act(&mut world, client);
    }
    world
}

#[test]
fn where_many_hold_one_run_each_those_pay_that_have_been_behind_for_longest() {
    let mut most = 0;
    let world = many(8 << 10, |world, _| most = most.max(world.shards[0].runs.memory()));
    assert!(most < (64 << 10) + 100, "{most}");
    let holders: Vec<bool> = (0..600).map(|one| world.shards[0].queued_bytes(world.id(one)) > 0).collect();
    let first = holders.iter().position(|&holds| holds).unwrap();
    assert!((590..598).contains(&first) && holders[first..].iter().all(|&holds| holds), "{first}");
    assert_eq!(world.shards[0].stats().slow_readers, first as u64);
}

/// All of a run is in memory as long as its last byte waits.
#[test]
fn who_takes_all_but_little_of_a_run_holds_the_run() {
    let mut most = 0;
    many_that_take(8 << 10, 8 << 10, |world, client| {
        let id = world.id(client);
        assert!((1..100).contains(&world.shards[0].queued_bytes(id)));
        most = most.max(world.shards[0].runs.memory());
    });
    assert!(most < (64 << 10) + 100, "{most}");
}

#[test]
fn nobody_pays_with_what_is_free_of_each() {
    let world = many(1 << 10, |_, _| {});
    assert_eq!(world.shards[0].stats().slow_readers, 0);
    assert!(world.shards[0].runs.memory() > 600 << 10);
}

/// A client that is behind for a moment, while others have been for long and hold all that there is.
#[test]
fn whoever_is_behind_for_a_moment_is_not_closed_for_what_others_hold() {
    let mut world = small(|limits| (limits.all_queues_bytes, limits.queue_bytes) = (1 << 20, 256 << 10));
    let stuck: Vec<usize> = (0..30).map(|number| world.join(&format!("/chat/{}", number / 3))).collect();
    stuck.iter().for_each(|&client| world.make_room(client, 0));
    let innocents: Vec<usize> = (0..3).map(|_| world.join("/chat")).collect();
    for round in 0..200 {
        let room = format!("chat:{}", round % 10);
        world.shard().publish(&room.into(), &[b's'; 30_000]).unwrap();
        world.run();
        let innocent = innocents[round % 3];
        world.make_room(innocent, 0);
        for _ in 0..3 {
            world.shard().publish(&"chat".into(), &[b'm'; 5_000]).unwrap();
            world.run();
        }
        world.pass(ms(10));
        world.make_room(innocent, usize::MAX);
    }
    for client in innocents {
        assert_eq!((world.texts(client).len(), world.close_code(client)), (600, None));
    }
}

/// Two runs before anything is written: it is not behind, it has had no turn.
#[test]
fn whoever_has_had_no_turn_yet_is_not_behind() {
    let mut world = small(|limits| (limits.all_queues_bytes, limits.queue_bytes) = (6_000, 9_000));
    let client = world.join("/chat");
    let now = world.now;
    for _ in 0..3 {
        world.shard().publish(&"chat".into(), &[b'm'; 4_000]).unwrap();
        world.exchange();
        world.bus.handle_timeout(now);
        world.exchange();
        if world.shards[0].queued_bytes(world.id(client)) > 4_100 {
            break;
        }
    }
    world.run();
    assert_eq!((world.texts(client).len(), world.close_code(client)), (2, None));
}

#[test]
fn a_connection_that_is_dropped_amid_its_close_keeps_the_reason_of_that() {
    let world = many(8 << 10, |world, client| {
        let (id, now) = (world.id(client), world.now);
        world.shard().close(id, 1000, "", now).unwrap();
    });
    let dropped: Vec<Closed> = world.clients.iter().filter_map(|client| client.closed).collect();
    assert!((590..598).contains(&dropped.len()), "{}", dropped.len());
    let own = Closed { by: Side::Local, code: Some(1000), error: None };
    assert!(dropped.iter().all(|closed| *closed == own), "{dropped:?}");
    assert_eq!(world.shards[0].stats().slow_readers, 0);
}
