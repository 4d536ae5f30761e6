//! What a client that wants notes is told, and where.

use tungstenite::Message;

use super::world::{BINARY, PING, TEXT, World, limits, request, settings, settings_with};
use crate::bus::Bus;
use crate::error::Misuse;
use crate::exchange::{News, ToShard};
use crate::limits::Limits;
use crate::note::SUBPROTOCOL;
use crate::redis::Lane;
use crate::route::{FrameType, Target};
use crate::time::{Duration, Instant};
use crate::ws::tests::frame;

const ROUTES: [&str; 6] = [
    "/all=all",
    "/newest=all,slow=drop_newest",
    "/oldest=all,slow=drop_oldest",
    "/latest=all,slow=latest",
    "/tight=all,on_gap=close",
    "/bits=bits,binary",
];

fn world(queue_bytes: usize) -> World {
    World::redis_with(settings_with(&ROUTES, Limits { queue_bytes, ..limits() }))
}

fn offer(path: &str, subprotocols: &str) -> Vec<u8> {
    let mut head = String::from_utf8(request(path)).unwrap();
    head.insert_str(head.len() - 2, &format!("Sec-WebSocket-Protocol: {subprotocols}\r\n"));
    head.into_bytes()
}

/// A client that is open and wants notes.
fn join(world: &mut World, path: &str) -> usize {
    let client = world.connect();
    world.send(client, &offer(path, SUBPROTOCOL));
    assert!(world.answer(client).contains("\r\nSec-WebSocket-Protocol: fanfare.notes\r\n"));
    client
}

fn publish(world: &mut World, numbers: impl IntoIterator<Item = usize>) {
    for number in numbers {
        world.server.publish(b"all", format!("{number:0100}").as_bytes());
        world.run();
    }
}

const ALIVE: &str = "\"alive\"";

/// Messages by their number, notes of losses by their text without what all of them have.
fn got(world: &World, client: usize) -> Vec<String> {
    all(world, client).into_iter().filter(|one| !one.starts_with(ALIVE)).collect()
}

/// What the client was told of its own messages, by each note that the connection lives.
fn received(world: &World, client: usize) -> Vec<u64> {
    let number = |one: String| one.strip_prefix("\"alive\",\"seconds\":25.000,\"received\":")?.parse().ok();
    all(world, client).into_iter().filter_map(number).collect()
}

/// All messages and notes.
fn all(world: &World, client: usize) -> Vec<String> {
    let messages = world.messages(client).into_iter().filter(|one| one.is_text() || one.is_binary());
    messages
        .map(|message| match message {
            Message::Text(text) => text.parse::<usize>().unwrap().to_string(),
            note => note.into_text().unwrap().trim_start_matches("{\"type\":").trim_end_matches('}').to_owned(),
        })
        .collect()
}

fn free(world: &mut World, client: usize) -> Vec<String> {
    world.make_room(client, usize::MAX);
    got(world, client)
}

/// Redis is away, for as long as the link needs to come back.
fn gap(world: &mut World) {
    world.lose_redis();
    world.is_reachable = true;
    world.pass(Duration::from_secs(2));
}

/// The length of a gap is the link's affair.
fn without_seconds(got: &[String]) -> Vec<String> {
    let short = |text: &String| match (text.find(",\"seconds\""), text.find(",\"epoch\"")) {
        (Some(start), Some(end)) => format!("{}{}", &text[..start], &text[end..]),
        _ => text.clone(),
    };
    got.iter().map(short).collect()
}

#[test]
fn the_subprotocol_is_accepted_on_text_routes_from_whoever_offers_it_and_from_nobody_else() {
    let mut world = world(1 << 20);
    for (path, offered, accepted) in [
        ("/all", "fanfare.notes", true),
        ("/all", "chat.v1, fanfare.notes", true),
        ("/all", "chat.v1", false),
        ("/all", "Fanfare.Notes", false),
        ("/bits", "fanfare.notes", false),
    ] {
        let client = world.connect();
        world.send(client, &offer(path, offered));
        assert_eq!(world.status(client), 101);
        assert_eq!(world.answer(client).contains("Sec-WebSocket-Protocol"), accepted, "{path} {offered}");
    }
}

#[test]
fn who_has_not_asked_for_notes_sees_none() {
    let mut world = world(240);
    let clients = ["/all", "/newest", "/oldest", "/latest"].map(|path| world.join(path));
    clients.iter().skip(1).for_each(|&client| world.make_room(client, 0));
    publish(&mut world, 1..=5);
    gap(&mut world);
    publish(&mut world, 6..=7);
    for client in clients {
        world.make_room(client, usize::MAX);
        assert!(
            world.messages(client).iter().all(|one| one.is_text() || one.is_pong()),
            "{:?}",
            world.messages(client)
        );
    }
}

#[test]
fn a_drop_is_told_where_the_messages_are_missing() {
    for (path, expected) in [
        ("/newest", &["1", "2", "\"dropped\",\"messages\":3", "6"][..]),
        ("/oldest", &["\"dropped\",\"messages\":4", "5", "6"]),
        ("/latest", &["\"dropped\",\"messages\":4", "5", "6"]),
    ] {
        let mut world = world(240);
        let client = join(&mut world, path);
        world.make_room(client, 0);
        publish(&mut world, 1..=5);
        world.make_room(client, usize::MAX);
        publish(&mut world, [6]);
        assert_eq!(got(&world, client), expected, "{path}");
        assert_eq!(world.clients[client].dropped.iter().sum::<u64>(), if path == "/newest" { 3 } else { 4 });
    }
}

#[test]
fn a_note_does_not_cut_a_frame_and_one_that_has_begun_to_leave_counts_no_further() {
    let mut world = world(260);
    let client = join(&mut world, "/oldest");
    world.make_room(client, 0);
    publish(&mut world, 1..=2);
    world.make_room(client, 50);
    publish(&mut world, 3..=4);
    world.make_room(client, 60);
    publish(&mut world, 5..=6);
    assert_eq!(free(&mut world, client), ["1", "\"dropped\",\"messages\":2", "\"dropped\",\"messages\":2", "6"]);
}

#[test]
fn every_hole_of_a_slow_reader_has_its_own_note() {
    let mut world = world(240);
    let client = join(&mut world, "/newest");
    world.make_room(client, 0);
    publish(&mut world, 1..=4);
    // The first leaves, and makes room for one more.
    world.make_room(client, 150);
    publish(&mut world, 5..=7);
    let all = free(&mut world, client);
    let numbers = |text: &str| text.rsplit(':').next().unwrap().parse::<usize>().unwrap();
    let lost: usize = all.iter().filter(|one| one.starts_with('"')).map(|one| numbers(one)).sum();
    let came = all.iter().filter(|one| !one.starts_with('"')).count();
    assert_eq!(lost + came, 7, "{all:?}");
    assert!(all.iter().filter(|one| one.starts_with('"')).count() <= 2);
}

#[test]
fn a_gap_is_told_before_the_first_message_behind_it() {
    let mut world = world(1 << 20);
    let [client, slow] = [join(&mut world, "/all"), join(&mut world, "/all")];
    world.make_room(slow, 0);
    publish(&mut world, 1..=2);
    world.pass(Duration::from_secs(3));
    gap(&mut world);
    let late = join(&mut world, "/all");
    publish(&mut world, [3]);
    let expected = ["1", "2", "\"gap_began\",\"epoch\":1", "\"gap\",\"epoch\":1", "3"];
    assert_eq!(without_seconds(&got(&world, client)), expected);
    let expected = ["1", "2", "\"gap\",\"epoch\":1", "3"];
    assert_eq!(without_seconds(&free(&mut world, slow)), expected, "the end takes the place of the beginning");
    assert_eq!(got(&world, late), ["3"], "who came after the gap has missed nothing");
    let told = &got(&world, client)[3];
    let seconds: f64 = told.split([':', ',']).nth(2).unwrap().parse().unwrap();
    assert!((3.0..5.0).contains(&seconds), "from when Redis was heard last: {told}");
}

#[test]
fn gaps_without_a_message_between_them_are_told_as_one() {
    let mut world = world(1 << 20);
    let [client, slow] = [join(&mut world, "/all"), join(&mut world, "/all")];
    world.make_room(slow, 0);
    for _ in 0..3 {
        gap(&mut world);
    }
    publish(&mut world, [1]);
    gap(&mut world);
    assert_eq!(got(&world, client).len(), 9, "who takes them at once gets each");
    let expected = ["\"gap\",\"epoch\":3", "1", "\"gap\",\"epoch\":4"];
    assert_eq!(without_seconds(&free(&mut world, slow)), expected);
}

#[test]
fn gaps_and_drops_that_come_together_are_one_note_each_however_many_they_are() {
    for path in ["/oldest", "/newest", "/latest"] {
        let mut world = world(400);
        let client = join(&mut world, path);
        world.make_room(client, 0);
        for round in 0..8 {
            publish(&mut world, 10 * round + 1..10 * round + 6);
            gap(&mut world);
            let queue = &world.shards[0].get(world.id(client)).unwrap().queue;
            assert!(queue.memory() <= 400 + 3 * (127 + 24), "{path}: {queue:?}");
        }
        world.shards[0].check();
        let all = without_seconds(&free(&mut world, client));
        let notes: Vec<&String> = all.iter().filter(|one| one.starts_with('"')).collect();
        assert!(notes.len() <= 4, "{path}: {all:?}");
        assert!(notes.iter().any(|note| *note == "\"gap\",\"epoch\":8"), "{path}: {all:?}");
        let lost: u64 = world.clients[client].dropped.iter().sum();
        assert_eq!(lost as usize + all.len() - notes.len(), 40, "{path}: {all:?}");
    }
}

#[test]
fn pings_are_answered_ahead_of_notes_that_wait() {
    let mut world = world(240);
    let client = join(&mut world, "/oldest");
    world.make_room(client, 0);
    publish(&mut world, 1..=4);
    world.send(client, &frame(PING, b"?"));
    world.make_room(client, usize::MAX);
    let messages = world.messages(client);
    let pong = messages.iter().position(Message::is_pong).unwrap();
    assert!(messages[pong + 1].is_binary() && messages[pong + 1..].iter().any(Message::is_text));
    assert!(messages[..pong].iter().all(|one| one.is_binary()), "that the connection lives");
}

#[test]
fn whoever_gets_notes_and_sends_one_is_treated_as_any_other() {
    let mut world = world(1 << 20);
    let client = join(&mut world, "/all");
    world.send(client, &frame(BINARY, b"{}"));
    assert_eq!(world.close_code(client), Some(1003));
}

#[test]
fn a_client_that_wants_notes_hears_at_once_with_each_ping_and_when_it_asks_that_the_connection_lives() {
    let mut world = world(1 << 20);
    let [client, plain] = [join(&mut world, "/all"), world.join("/all")];
    assert_eq!(received(&world, client), [0], "the first note of all");
    world.send(client, &frame(BINARY, b""));
    assert_eq!(received(&world, client), [0, 0], "it has asked");
    for pings in 1..4 {
        world.pass(Duration::from_secs(25));
        let messages = world.messages(client);
        assert_eq!(messages.iter().filter(|one| one.is_ping()).count(), pings);
        assert_eq!(received(&world, client).len(), 2 + pings);
        for client in [client, plain] {
            world.send(client, &frame(0x8A, b""));
        }
    }
    assert!(world.messages(plain).iter().all(Message::is_ping));
    world.pass(Duration::from_secs(40));
    assert!(world.clients[client].closed.is_some(), "a note that was written is no sign of life");
    let plain = world.join("/all");
    world.send(plain, &frame(BINARY, b""));
    assert_eq!(world.close_code(plain), Some(1003), "no question where notes are not spoken");
}

#[test]
fn a_client_that_wants_notes_hears_what_was_taken_of_its_messages_before_they_come_back() {
    let mut world = world(1 << 20);
    let client = join(&mut world, "/all");
    world.send(client, &[frame(TEXT, b"1"), frame(TEXT, b"2"), frame(BINARY, b""), frame(TEXT, b"3")].concat());
    world.send(client, &frame(TEXT, b"4"));
    assert_eq!(received(&world, client), [0, 3, 4]);
    let expected = [",0", ",3", "1", "2", "3", ",4", "4"];
    let short = |one: &String| one.replace("\"alive\",\"seconds\":25.000,\"received\":", ",");
    assert_eq!(all(&world, client).iter().map(short).collect::<Vec<_>>(), expected);
    assert!(world.shards[0].get(world.id(client)).unwrap().queue.is_empty());
    // What is not taken is not counted.
    world.send(client, &[frame(TEXT, b"5"), frame(BINARY, b"6"), frame(TEXT, b"7")].concat());
    assert_eq!(received(&world, client).last(), Some(&5));
    assert_eq!(world.close_code(client), Some(1003));
}

#[test]
fn whoever_takes_nothing_is_kept_one_note_that_the_connection_lives() {
    let mut world = world(1 << 20);
    let client = join(&mut world, "/all");
    world.make_room(client, 0);
    for number in 0..1_000 {
        world.send(client, &frame(TEXT, format!("{}", number % 10).as_bytes()));
    }
    world.make_room(client, usize::MAX);
    assert_eq!(received(&world, client), [0, 1_000]);
}

#[test]
fn an_overflow_of_the_mailbox_is_a_gap_of_its_channel() {
    let mut world = world(1 << 20);
    let [notes, plain, tight] = [join(&mut world, "/all"), world.join("/all"), join(&mut world, "/tight")];
    let other = world.join("/bits");
    let channel = world.shards[0].channel_id(world.id(plain));
    publish(&mut world, [1]);
    let now = world.now;
    world.shard().handle_bus(ToShard { news: vec![News::Missed { channel, messages: 7 }] }, now);
    publish(&mut world, [9]);
    world.pass(Duration::from_secs(5));
    assert_eq!(got(&world, notes), ["1", "\"gap\",\"messages\":7", "9"]);
    assert_eq!(got(&world, plain), ["1", "9"]);
    assert_eq!((got(&world, tight), world.close_code(tight)), (vec!["1".to_owned()], Some(1012)));
    assert_eq!(world.close_code(other), None);
    assert_eq!((world.missed, world.shards[0].stats().missed), (7, 7));
    // A channel that is no more has nobody who missed anything.
    let now = world.now;
    world.reset(notes);
    world.reset(plain);
    world.shard().handle_bus(ToShard { news: vec![News::Missed { channel, messages: 7 }] }, now);
    assert_eq!((world.missed, world.shards[0].stats().missed), (7, 14));
}

#[test]
fn the_embedder_chooses_notes_by_their_subprotocol_or_in_the_target_of_a_session_that_it_hands_over() {
    let mut world = world(1 << 20);
    let now = world.now;
    let target = Target { notes: true, ..Target::new("all") };
    let binary = Target { frame: FrameType::Binary, ..target.clone() };
    assert_eq!(world.shard().adopt(binary, Vec::new(), now), Err(Misuse::Notes));
    let id = world.shard().adopt(target.clone(), Vec::new(), now).unwrap();
    let adopted = world.add(0, id);
    world.run();
    gap(&mut world);
    let expected = ["\"gap_began\",\"epoch\":1", "\"gap\",\"epoch\":1"];
    assert_eq!(without_seconds(&got(&world, adopted)), expected);

    let mut own = settings(limits(), 1);
    own.ask = true;
    let bus = Bus::redis("redis://redis.test".parse().unwrap(), "", &own.limits, 1, 1, Instant::ZERO);
    let mut world = World::from(own, bus);
    world.run();
    let clients = [(); 2].map(|()| {
        let client = world.connect();
        world.send(client, &offer("/all", "fanfare.notes, chat.v1"));
        client
    });
    let now = world.now;
    let ids = clients.map(|client| world.id(client));
    let binary = Target { frame: FrameType::Binary, ..Target::new("bits") };
    assert_eq!(world.shard().accept(ids[0], binary, Some(SUBPROTOCOL), now), Err(Misuse::Notes));
    world.shard().accept(ids[0], target.clone(), Some("chat.v1"), now).unwrap();
    world.shard().accept(ids[1], target, Some(SUBPROTOCOL), now).unwrap();
    world.run();
    world.cut(Lane::Subscriber);
    world.pass(Duration::from_secs(2));
    assert_eq!(clients.map(|client| got(&world, client).len()), [0, 2]);
}
