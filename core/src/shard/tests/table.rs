//! Every stage of a session against every input and command.

use super::world::{CLOSE, World, limits, request, settings, text};
use crate::bus::Bus;
use crate::error::Misuse;
use crate::exchange::{ChannelId, News, ToShard};
use crate::http::Answer;
use crate::route::Target;
use crate::shard::{Event, SessionId, Shard};
use crate::time::{Duration, Instant};
use crate::ws::tests::frame;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Head,
    HeadBegun,
    Deciding,
    Joining,
    Adopted,
    Open,
    Paused,
    Closing,
    Awaiting,
    Answering,
    Finished,
    Scraping,
    AnswerUnsent,
    AnswerSent,
    Gone,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Input {
    Readable,
    Request,
    MetricsRequest,
    Message,
    CloseFrame,
    Garbage,
    Eof,
    Reset,
    Blocked,
    Writable,
    Transmitted,
    TransmittedTooMuch,
    Timeout,
    Accept,
    AcceptNotOffered,
    Refuse,
    RefuseWrongly,
    AnswerScrape,
    AnswerScrapeWrongly,
    Close,
    CloseWrongly,
    Shutdown,
    BusLost,
    Missed,
}

use Input::{
    Accept, AcceptNotOffered, AnswerScrape, AnswerScrapeWrongly, Close, CloseWrongly, Refuse, RefuseWrongly,
    TransmittedTooMuch,
};

const STAGES: [Stage; 15] = [
    Stage::Head,
    Stage::HeadBegun,
    Stage::Deciding,
    Stage::Joining,
    Stage::Adopted,
    Stage::Open,
    Stage::Paused,
    Stage::Closing,
    Stage::Awaiting,
    Stage::Answering,
    Stage::Finished,
    Stage::Scraping,
    Stage::AnswerUnsent,
    Stage::AnswerSent,
    Stage::Gone,
];

const INPUTS: [Input; 24] = [
    Input::Readable,
    Input::Request,
    Input::MetricsRequest,
    Input::Message,
    Input::CloseFrame,
    Input::Garbage,
    Input::Eof,
    Input::Reset,
    Input::Blocked,
    Input::Writable,
    Input::Transmitted,
    TransmittedTooMuch,
    Input::Timeout,
    Accept,
    AcceptNotOffered,
    Refuse,
    RefuseWrongly,
    AnswerScrape,
    AnswerScrapeWrongly,
    Close,
    CloseWrongly,
    Input::Shutdown,
    Input::BusLost,
    Input::Missed,
];

const METRICS_REQUEST: &[u8] = b"HEAD /metrics HTTP/1.1\r\nHost: a\r\n\r\n";

fn target() -> Target {
    Target::new("chat")
}

/// A world whose first client is in `stage`. Nothing is confirmed by the bus but what the stage needs.
fn world_in(stage: Stage) -> World {
    let mut own = settings(limits(), 1);
    own.ask = matches!(stage, Stage::Deciding);
    own.limits.publish_bytes = 1 << 10;
    let url = "redis://redis.test".parse().unwrap();
    let confirmed = !matches!(stage, Stage::Joining | Stage::Adopted);
    let bus = if confirmed {
        Bus::local(&own.limits, 1, 1, Instant::ZERO)
    } else {
        Bus::redis(url, "", &own.limits, 1, 1, Instant::ZERO)
    };
    let mut world = World::from(own, bus);
    world.is_reachable = confirmed;
    if stage == Stage::Adopted {
        let id = world.shard().adopt(target(), Vec::new(), Instant::ZERO).unwrap();
        world.add(0, id);
        world.run();
        return world;
    }
    let client = if stage == Stage::Scraping { world.connect_admin() } else { world.connect() };
    let answered = matches!(stage, Stage::AnswerUnsent | Stage::AnswerSent);
    match stage {
        Stage::Head => world.run(),
        Stage::HeadBegun => world.send(client, b"GET / HT"),
        Stage::Gone => world.reset(client),
        Stage::Scraping => world.send(client, METRICS_REQUEST),
        _ if answered => {
            world.clients[client].room = if stage == Stage::AnswerSent { usize::MAX } else { 0 };
            world.send(client, b"POST / HTTP/1.1\r\nHost: a\r\n\r\n");
        }
        _ => world.send(client, &request("/chat")),
    }
    let (id, now) = (world.id(client), world.now);
    match stage {
        Stage::Paused => {
            world.shard().publish(&"chat".into(), &[b'x'; 1200]).unwrap();
            world.shard().handle_read(id, &mut text("waits"), now);
            assert!(!world.shard().handle_readable(id, now));
        }
        Stage::Closing => {
            world.clients[client].room = 0;
            world.shard().close(id, 1000, "", now).unwrap();
        }
        Stage::Awaiting => world.shard().close(id, 1000, "", now).unwrap(),
        Stage::Answering => {
            world.clients[client].room = 0;
            world.send(client, &frame(CLOSE, b""));
        }
        Stage::Finished => world.send(client, &frame(CLOSE, b"")),
        _ => {}
    }
    // A paused session would be resumed by the bus.
    if stage != Stage::Paused {
        world.run();
    }
    world
}

fn give(shard: &mut Shard, id: SessionId, input: Input, now: Instant) -> Option<Result<(), Misuse>> {
    let result = match input {
        Accept => shard.accept(id, target(), None, now),
        AcceptNotOffered => shard.accept(id, target(), Some("mqtt"), now),
        Refuse => shard.refuse(id, &Answer::text(401, "Who are you?"), now),
        RefuseWrongly => shard.refuse(id, &Answer::text(101, ""), now),
        AnswerScrape => shard.answer_scrape(id, &Answer::text(200, "fanfare_ready 1\n"), now),
        AnswerScrapeWrongly => shard.answer_scrape(id, &Answer::text(101, ""), now),
        Close => shard.close(id, 1000, "bye", now),
        CloseWrongly => shard.close(id, 1005, "", now),
        TransmittedTooMuch => shard.transmitted(id, usize::MAX, now),
        Input::Transmitted => shard.transmitted(id, 0, now),
        _ => {
            match input {
                Input::Readable => drop(shard.handle_readable(id, now)),
                Input::Request => shard.handle_read(id, &mut request("/chat"), now),
                Input::MetricsRequest => shard.handle_read(id, &mut METRICS_REQUEST.to_vec(), now),
                Input::Message => shard.handle_read(id, &mut text("hello"), now),
                Input::CloseFrame => shard.handle_read(id, &mut frame(CLOSE, b""), now),
                Input::Garbage => shard.handle_read(id, &mut [0xFF; 99], now),
                Input::Eof => shard.handle_eof(id, now),
                Input::Reset => shard.handle_reset(id),
                Input::Blocked => shard.blocked(id),
                Input::Writable => shard.handle_writable(id),
                Input::Timeout => shard.handle_timeout(now + Duration::from_secs(26)),
                Input::Shutdown => shard.shutdown(now),
                Input::Missed => {
                    let channel = ChannelId { index: 0, generation: 1 };
                    shard.handle_bus(ToShard { news: vec![News::Missed { channel, messages: 1 }] }, now);
                }
                _ => {}
            }
            return None;
        }
    };
    Some(result)
}

fn expected(stage: Stage, input: Input) -> Result<(), Misuse> {
    let is_open = matches!(stage, Stage::Open | Stage::Paused);
    let is_ws = is_open || matches!(stage, Stage::Closing | Stage::Awaiting | Stage::Answering | Stage::Finished);
    match (stage, input) {
        (Stage::Gone, _) => Err(Misuse::NoSuchSession),
        (_, Input::Transmitted) => Ok(()),
        (_, TransmittedTooMuch) => Err(Misuse::TooMuchTransmitted),
        (Stage::Deciding, Accept | Refuse) => Ok(()),
        (Stage::Deciding, AcceptNotOffered) => Err(Misuse::Subprotocol),
        (Stage::Deciding, RefuseWrongly) | (Stage::Scraping, AnswerScrapeWrongly) => Err(Misuse::Status),
        (Stage::Scraping, AnswerScrape) => Ok(()),
        (_, Close) if is_open => Ok(()),
        (_, CloseWrongly) if is_ws => Err(Misuse::CloseCode),
        _ => Err(Misuse::WrongState),
    }
}

#[test]
fn every_stage_takes_every_input_misuse_changes_nothing_and_the_end_is_told_once() {
    for stage in STAGES {
        for input in INPUTS {
            let mut world = world_in(stage);
            let (id, now) = (world.id(0), world.now);
            let before = format!("{:?}", world.shards[0]);
            if input == Input::BusLost {
                world.lose_redis();
            }
            let result = give(world.shard(), id, input, now);
            if let Some(result) = result {
                assert_eq!(result, expected(stage, input), "{stage:?} {input:?}");
                if result.is_err() {
                    assert_eq!(before, format!("{:?}", world.shards[0]), "{stage:?} {input:?}: misuse changes nothing");
                }
            }
            world.shards[0].check();
            finish(&mut world, stage, input);
        }
    }
}

/// From wherever the session is: the world checks that its end is told once and nothing after it.
fn finish(world: &mut World, stage: Stage, input: Input) {
    world.make_room(0, usize::MAX);
    world.pass(Duration::from_secs(1));
    if world.clients[0].closed.is_none() {
        world.reset(0);
    }
    assert!(world.clients[0].closed.is_some(), "{stage:?} {input:?}");
    assert!(world.shard().is_empty());
    let (id, now) = (world.id(0), world.now);
    for input in INPUTS {
        give(world.shard(), id, input, now);
    }
    while let Some(event) = world.shard().poll_event() {
        assert!(matches!(event, Event::Missed { .. }), "{event:?}");
    }
    assert_eq!(world.shard().poll_transmit(), None);
    assert_eq!(world.shard().poll_readable(), None);
    world.pass(Duration::from_secs(60));
}

/// Inputs in any order, to many sessions, in many worlds.
#[test]
fn whatever_comes_in_whatever_order_the_shard_stays_consistent() {
    for seed in 0..60 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut own = settings(limits(), 1);
        own.ask = rng.bool();
        own.limits.publish_bytes = 1 << rng.u32(10..16);
        own.limits.queue_bytes = 1 << 10;
        let bus = Bus::local(&own.limits, 1, seed, Instant::ZERO);
        let mut world = World::from(own, bus);
        for _ in 0..150 {
            if world.clients.is_empty() || rng.u8(..8) == 0 {
                if rng.u8(..4) == 0 {
                    world.connect_admin()
                } else {
                    world.connect()
                };
            }
            let client = rng.usize(..world.clients.len());
            let (id, now) = (world.id(client), world.now);
            let input = INPUTS[rng.usize(..INPUTS.len())];
            match input {
                Input::Shutdown if rng.u8(..10) > 0 => {}
                Input::Timeout => world.now = world.now + Duration::from_millis(rng.u64(..8_000)),
                Input::Blocked => world.clients[client].room = rng.usize(..300),
                Input::Writable => world.make_room(client, usize::MAX),
                _ => drop(give(world.shard(), id, input, now)),
            }
            world.shards[0].check();
            if rng.bool() {
                world.exchange();
                world.check_credit();
            }
            if rng.u8(..4) == 0 {
                world.run();
            }
        }
        for client in 0..world.clients.len() {
            world.make_room(client, usize::MAX);
        }
        let now = world.now;
        world.shard().shutdown(now);
        world.pass(Duration::from_secs(30));
        assert!(world.shard().is_empty(), "everyone goes");
        assert!(world.clients.iter().all(|client| client.closed.is_some()));
    }
}
