//! What a session that does not keep up gets, by its route's policy: below, at and above each bound.

use std::io::IoSlice;

use super::world::{PING, World, limits, settings_with, text};
use crate::bus::Bus;
use crate::limits::Limits;
use crate::route::FrameType;
use crate::run::{Form, RunBuilder};
use crate::shard::queue::Queue;
use crate::time::{Duration, Instant};
use crate::ws::tests::frame;

/// Four ways to the same channel.
const ROUTES: [&str; 4] =
    ["/close=all", "/newest=all,slow=drop_newest", "/oldest=all,slow=drop_oldest", "/latest=all,slow=latest"];

const PATHS: [&str; 4] = ["/close", "/newest", "/oldest", "/latest"];

fn world(change: impl FnOnce(&mut Limits)) -> World {
    let mut limits = limits();
    change(&mut limits);
    let bus = Bus::local(&limits, 1, 1, Instant::ZERO);
    World::from(settings_with(&ROUTES, limits), bus)
}

/// A client on `path` whose socket takes no more.
fn stuck(world: &mut World, path: &str) -> usize {
    let client = world.join(path);
    world.make_room(client, 0);
    client
}

/// Numbered messages of 100 bytes, framed 102, as so many runs.
fn publish(world: &mut World, runs: &[&[usize]]) {
    for run in runs {
        for number in *run {
            world.shard().publish(&"all".into(), format!("{number:0100}").as_bytes()).unwrap();
        }
        world.run();
    }
}

fn got(world: &World, client: usize) -> Vec<usize> {
    world.texts(client).iter().map(|text| text.parse().unwrap()).collect()
}

/// The client reads again, and gets it all.
fn free(world: &mut World, client: usize) -> Vec<usize> {
    world.make_room(client, usize::MAX);
    got(world, client)
}

/// Three frames of 102 bytes in runs of their own, the last two with an entry that does not stand inline.
const THREE: usize = 3 * 102 + 2 * 24;

#[test]
fn below_and_at_the_bound_every_policy_keeps_everything_and_above_it_one_message_goes() {
    for (bound, kept) in [(THREE + 1, true), (THREE, true), (THREE - 1, false)] {
        let mut world = world(|limits| limits.queue_bytes = bound);
        let [newest, oldest] = ["/newest", "/oldest"].map(|path| stuck(&mut world, path));
        publish(&mut world, &[&[1], &[2], &[3]]);
        let stats = world.shards[0].stats();
        assert_eq!((stats.dropped_newest, stats.dropped_oldest), if kept { (0, 0) } else { (1, 1) }, "{bound}");
        assert_eq!(free(&mut world, newest), if kept { vec![1, 2, 3] } else { vec![1, 2] });
        assert_eq!(free(&mut world, oldest), if kept { vec![1, 2, 3] } else { vec![2, 3] });
        let heard = if kept { vec![] } else { vec![1] };
        assert_eq!([newest, oldest].map(|one| world.clients[one].dropped.clone()), [heard.clone(), heard]);
    }
}

/// An event is 108 bytes where a frame is 102: other messages fit, by the same rules.
#[test]
fn each_session_of_a_channel_loses_messages_by_the_size_of_its_own_form() {
    // For one that waits and three frames, but not three events, behind it.
    let mut world = world(|limits| limits.queue_bytes = 102 + 24 + 3 * 102);
    let frames = PATHS.map(|path| stuck(&mut world, path));
    let events = PATHS.map(|path| stuck(&mut world, path));
    for &client in &events {
        let id = world.id(client);
        world.shard().get_mut(id).unwrap().queue = Queue::new(Form::Events);
    }
    publish(&mut world, &[&[1], &[2, 3, 4]]);
    let waiting = |client: usize| {
        let mut out = [IoSlice::new(&[]); 8];
        let filled = world.shards[0].transmit(world.id(client), &mut out);
        out[..filled].iter().flat_map(|slice| slice.iter().copied()).collect::<Vec<u8>>()
    };
    let in_frames = |numbers: &[usize]| -> Vec<u8> {
        numbers.iter().flat_map(|number| [b"\x81\x64".to_vec(), format!("{number:0100}").into()].concat()).collect()
    };
    let in_events = |numbers: &[usize]| -> Vec<u8> {
        numbers.iter().flat_map(|number| format!("data: {number:0100}\n\n").into_bytes()).collect()
    };
    let all: &[usize] = &[1, 2, 3, 4];
    assert_eq!(frames.map(waiting), [all, all, all, &[4]].map(in_frames));
    assert_eq!(
        events[1..].iter().copied().map(waiting).collect::<Vec<_>>(),
        [&all[..3], &all[1..], &[4]].map(in_events)
    );
    let stats = world.shards[0].stats();
    assert_eq!((stats.slow_readers, stats.dropped_newest, stats.dropped_oldest, stats.dropped_latest), (1, 1, 1, 6));
}

/// A run is not all or nothing.
#[test]
fn of_a_run_that_does_not_fit_as_many_messages_are_kept_as_do() {
    // Beside one that waits, and the entry, for one to three of a run.
    let table: [(usize, &[usize], &[usize]); 4] = [
        (102 + 24 + 2 * 102 - 1, &[1, 2], &[2, 3, 4]),
        (102 + 24 + 2 * 102, &[1, 2, 3], &[2, 3, 4]),
        (102 + 24 + 3 * 102 - 1, &[1, 2, 3], &[2, 3, 4]),
        (102 + 24 + 3 * 102, &[1, 2, 3, 4], &[1, 2, 3, 4]),
    ];
    for (bound, kept_newest, kept_oldest) in table {
        let mut world = world(|limits| limits.queue_bytes = bound);
        let [newest, oldest] = ["/newest", "/oldest"].map(|path| stuck(&mut world, path));
        publish(&mut world, &[&[1], &[2, 3, 4]]);
        assert_eq!(free(&mut world, newest), kept_newest, "{bound}");
        assert_eq!(free(&mut world, oldest), kept_oldest, "{bound}");
    }
}

#[test]
fn a_run_beyond_the_bound_leaves_its_end_to_whoever_drops_the_oldest() {
    let mut world = world(|limits| limits.queue_bytes = 250);
    let [newest, oldest] = ["/newest", "/oldest"].map(|path| stuck(&mut world, path));
    publish(&mut world, &[&[1], &[2, 3, 4, 5, 6]]);
    assert_eq!((free(&mut world, newest), free(&mut world, oldest)), (vec![1, 2], vec![5, 6]));
    assert_eq!(world.shards[0].stats().dropped_newest, 4);
    assert_eq!(world.shards[0].stats().dropped_oldest, 4);
}

#[test]
fn a_frame_that_has_begun_to_leave_is_finished_whatever_is_dropped() {
    for (path, left) in [("/newest", vec![1, 2]), ("/oldest", vec![1, 5]), ("/latest", vec![1, 6])] {
        let mut world = world(|limits| limits.queue_bytes = 240);
        let client = stuck(&mut world, path);
        if path == "/latest" {
            world.make_room(client, usize::MAX);
            world.clients[client].room = 10;
        }
        publish(&mut world, &[&[1, 2]]);
        world.make_room(client, 10);
        publish(&mut world, &[&[3], &[4], &[5]]);
        if path == "/latest" {
            publish(&mut world, &[&[6]]);
        }
        assert_eq!(free(&mut world, client), left, "{path}");
        publish(&mut world, &[&[7]]);
        assert_eq!(got(&world, client).last(), Some(&7), "whoever has caught up gets all");
    }
}

#[test]
fn pongs_overtake_what_waits_and_no_note_of_a_drop_is_among_what_is_sent() {
    let mut world = world(|limits| limits.queue_bytes = 240);
    let client = stuck(&mut world, "/oldest");
    world.clients[client].got.clear();
    publish(&mut world, &[&[1], &[2], &[3]]);
    world.send(client, &frame(PING, b"?"));
    world.make_room(client, usize::MAX);
    let messages = world.messages(client);
    assert!(messages[0].is_pong() && messages[1..].iter().all(tungstenite::Message::is_text));
    assert_eq!(messages.len(), 3);
}

#[test]
fn latest_keeps_the_newest_while_the_socket_takes_no_more_and_everything_while_it_does() {
    let mut world = world(|_| {});
    let [fast, slow] = [world.join("/latest"), stuck(&mut world, "/latest")];
    let now = world.now;
    // Two runs before anything is written.
    for number in 1..=2 {
        world.shard().publish(&"all".into(), format!("{number}").as_bytes()).unwrap();
        world.exchange();
        world.bus.handle_timeout(now);
        world.exchange();
    }
    world.run();
    assert_eq!(got(&world, fast), [1, 2]);
    assert_eq!(world.shards[0].stats().dropped_latest, 1, "what waited when the socket was found to be full");
    publish(&mut world, &[&[3], &[4, 5, 6]]);
    assert_eq!((got(&world, fast), free(&mut world, slow)), (vec![1, 2, 3, 4, 5, 6], vec![6]));
    assert_eq!(world.clients[slow].dropped, [5]);
    publish(&mut world, &[&[7, 8]]);
    assert_eq!(got(&world, slow), [6, 7, 8]);
}

#[test]
fn latest_is_bounded_while_nobody_drains() {
    let mut world = world(|limits| limits.queue_bytes = 240);
    let client = world.join("/latest");
    let now = world.now;
    for number in 1..=9 {
        world.shard().publish(&"all".into(), format!("{number:0100}").as_bytes()).unwrap();
        world.exchange();
        world.bus.handle_timeout(now);
        world.exchange();
    }
    world.run();
    assert_eq!(got(&world, client), [8, 9]);
}

/// What the shard holds for a run of one of these messages.
fn run_memory() -> usize {
    let mut builder = RunBuilder::new(FrameType::Text);
    builder.push(&[b'0'; 100]).unwrap();
    builder.finish().memory()
}

#[test]
fn at_the_bound_of_all_queues_whoever_has_been_behind_for_longest_loses_by_its_own_policy() {
    // Four sessions hold the first when the second comes.
    let both = 2 * run_memory() + 4 * 24;
    for (bound, within) in [(both + 1, true), (both, true), (both - 1, false)] {
        let mut world = world(|limits| (limits.all_queues_bytes, limits.queue_bytes) = (bound, 400));
        let clients = PATHS.map(|path| stuck(&mut world, path));
        let fast = world.join("/close");
        publish(&mut world, &[&[1], &[2]]);
        let held = world.shards[0].stats().queued_bytes;
        assert!(held <= 2 * run_memory() + 7 * 24);
        let got = clients.map(|client| free(&mut world, client));
        let expected: [&[usize]; 4] =
            if within { [&[1, 2], &[1, 2], &[1, 2], &[2]] } else { [&[], &[1, 2], &[1, 2], &[2]] };
        assert_eq!(got, expected, "{bound}");
        let codes = clients.map(|client| world.close_code(client));
        assert_eq!(codes, [(!within).then_some(1013), None, None, None]);
        assert_eq!(self::got(&world, fast), [1, 2]);
        assert_eq!(world.shards[0].stats().queued_bytes, 0);
    }
}

#[test]
fn a_loss_is_told_when_the_session_has_caught_up_or_is_gone_and_once() {
    let mut world = world(|limits| limits.queue_bytes = 240);
    let [stays, goes] = [stuck(&mut world, "/oldest"), stuck(&mut world, "/newest")];
    publish(&mut world, &[&[1], &[2], &[3], &[4], &[5]]);
    assert_eq!([stays, goes].map(|one| world.clients[one].dropped.len()), [0, 0], "not while it is behind");
    world.make_room(stays, 150);
    assert_eq!(world.clients[stays].dropped.len(), 0);
    world.make_room(stays, usize::MAX);
    world.reset(goes);
    assert_eq!([stays, goes].map(|one| world.clients[one].dropped.clone()), [vec![3], vec![3]]);
    publish(&mut world, &[&[6]]);
    world.reset(stays);
    assert_eq!(world.clients[stays].dropped, [3]);
}

#[test]
fn a_slow_reader_that_takes_nothing_at_all_ends_by_its_pong_deadline() {
    for path in ["/newest", "/oldest", "/latest"] {
        let mut world = world(|limits| limits.queue_bytes = 240);
        let client = stuck(&mut world, path);
        for second in 0..40 {
            publish(&mut world, &[&[second]]);
            world.pass(Duration::from_secs(1));
        }
        assert!(world.clients[client].closed.is_some(), "{path}");
        assert_eq!(world.shards[0].stats().queued_bytes, 0);
    }
}

#[test]
fn whoever_keeps_up_owns_nothing_for_losses_and_whoever_has_caught_up_gives_it_back() {
    let mut world = world(|limits| limits.queue_bytes = 240);
    let [fast, slow] = [world.join("/oldest"), stuck(&mut world, "/oldest")];
    publish(&mut world, &[&[1], &[2], &[3]]);
    let has = |world: &World, client| world.shards[0].get(world.id(client)).unwrap().rare.is_some();
    assert_eq!((has(&world, fast), has(&world, slow)), (false, true));
    free(&mut world, slow);
    assert!(!has(&world, slow));
}

/// Whoever has been behind for longest is ended at the bound of all queues.
fn is_closed(world: &World, client: usize) -> bool {
    world.clients[client].closed.is_some() || world.close_code(client).is_some()
}

/// Any policy, any sizes, any writes: what comes is a part of what was sent, in order, whole and once; what is missing is
/// what the embedder heard of; and no more ever waits than may.
#[test]
fn whatever_is_dropped_the_rest_is_in_order_and_the_sum_is_right() {
    for seed in 0..60 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let bound = rng.usize(240..1_500);
        let mut world = world(|limits| {
            limits.queue_bytes = bound;
            limits.all_queues_bytes = if rng.bool() { rng.usize(1_500..6_000) } else { 1 << 20 };
        });
        let clients = ["/newest", "/oldest", "/latest", "/oldest", "/newest"].map(|path| world.join(path));
        let mut sent = Vec::new();
        for number in 0..300 {
            let client = clients[rng.usize(..clients.len())];
            match rng.u8(..8) {
                0 => world.make_room(client, rng.usize(..400)),
                1 => world.make_room(client, usize::MAX),
                2 => world.run(),
                3 => world.send(client, &frame(PING, b"?")),
                _ => {
                    let message = format!("{number:0>0$}", rng.usize(3..100));
                    world.shard().publish(&"all".into(), message.as_bytes()).unwrap();
                    sent.push(message);
                }
            }
            world.shards[0].check();
            for client in clients {
                let Some(session) = world.shards[0].get(world.id(client)) else { continue };
                let queue = &session.queue;
                assert!(queue.is_single_run() || queue.memory() <= bound, "seed {seed}");
            }
        }
        world.run();
        for client in clients {
            world.make_room(client, usize::MAX);
            let texts = world.texts(client);
            let mut all = sent.iter();
            assert!(texts.iter().all(|text| all.any(|one| one == text)), "seed {seed}: out of order");
            if is_closed(&world, client) {
                continue;
            }
            let dropped: u64 = world.clients[client].dropped.iter().sum();
            assert_eq!(texts.len() as u64 + dropped, sent.len() as u64, "seed {seed}");
        }
        let stats = world.shards[0].stats();
        let dropped: u64 = clients.iter().flat_map(|&one| &world.clients[one].dropped).sum();
        assert_eq!(stats.dropped_newest + stats.dropped_oldest + stats.dropped_latest, dropped);
        if [clients[0], clients[4]].iter().any(|&client| is_closed(&world, client)) {
            continue;
        }
        world.send(clients[0], &text("goodbye"));
        assert_eq!(world.texts(clients[4]).last().map(String::as_str), Some("goodbye"));
    }
}
