use tungstenite::Message as ClientMessage;
use tungstenite::protocol::CloseFrame;

use super::super::{CloseWhen, Message, Session, State};
use super::{client, client_reads, frame, owned, random_cuts, reads, seeded, written};
use crate::error::{Closed, Error, Misuse, Side};
use crate::limits::Limits;
use crate::time::{Duration, Instant};

const fn at(seconds: u64) -> Instant {
    Instant::from_micros(seconds * 1_000_000)
}

fn open() -> Session {
    Session::new(0, Instant::ZERO)
}

const fn ms(millis: u64) -> Instant {
    Instant::from_micros(millis * 1_000)
}

/// The messages in `bytes`.
fn read(session: &mut Session, bytes: &[u8], now: Instant) -> Vec<Message<'static>> {
    let mut scratch = bytes.to_vec();
    let mut input = &mut scratch[..];
    let mut messages = Vec::new();
    while let Some(message) = session.handle_read(&mut input, &Limits::default(), now) {
        messages.push(owned(message));
    }
    assert!(input.is_empty(), "all input is used");
    messages
}

/// Writes all control frames.
fn write(session: &mut Session, now: Instant) -> Vec<u8> {
    let bytes = session.control(false).to_vec();
    session.control_sent(bytes.len(), now).unwrap();
    bytes
}

fn close_frame(code: u16, reason: &str) -> Vec<u8> {
    frame(0x88, &[&code.to_be_bytes(), reason.as_bytes()].concat())
}

/// What the client is told first, if anything.
fn told(session: &mut Session) -> Option<CloseFrame> {
    match client_reads(&write(session, Instant::ZERO)).pop()? {
        ClientMessage::Close(close) => close,
        other => panic!("not a Close: {other:?}"),
    }
}

/// A session in `state`, reached the usual way.
fn in_state(state: State) -> Session {
    let mut session = open();
    let close = |session: &mut Session| session.close(1001, "", CloseWhen::AfterData, Instant::ZERO).unwrap();
    let peer_close = |session: &mut Session| assert!(read(session, &close_frame(1000, ""), Instant::ZERO).is_empty());
    match state {
        State::Open => {}
        State::HalfClosed => {
            session.note_echo(true);
            session.handle_half_close(Instant::ZERO);
        }
        State::Closing => close(&mut session),
        State::Awaiting => {
            close(&mut session);
            write(&mut session, Instant::ZERO);
        }
        State::Answering => peer_close(&mut session),
        State::Parting => {
            peer_close(&mut session);
            session.handle_eof(Instant::ZERO);
        }
        State::Finished => {
            peer_close(&mut session);
            write(&mut session, Instant::ZERO);
        }
        State::Ended => session.handle_eof(Instant::ZERO),
    }
    assert_eq!(session.state(), state);
    session
}

const STATES: [State; 8] = [
    State::Open,
    State::HalfClosed,
    State::Closing,
    State::Awaiting,
    State::Answering,
    State::Parting,
    State::Finished,
    State::Ended,
];

#[test]
fn every_event_in_every_state_leads_where_the_table_says() {
    use State::{Answering, Awaiting, Closing, Ended, Finished, HalfClosed, Open, Parting};
    type Event = fn(&mut Session);
    let table: [(&str, Event, [State; 8]); 12] = [
        ("message", |s| drop(read(s, &frame(0x81, b"hi"), at(1))), STATES),
        ("ping", |s| drop(read(s, &frame(0x89, b"hi"), at(1))), STATES),
        (
            "client's Close",
            |s| drop(read(s, &close_frame(1000, ""), at(1))),
            [Answering, HalfClosed, Answering, Finished, Answering, Parting, Finished, Ended],
        ),
        (
            "wrong frame",
            |s| drop(read(s, b"\xFF", at(1))),
            [Answering, HalfClosed, Answering, Finished, Answering, Parting, Finished, Ended],
        ),
        (
            "slow reader",
            |s| s.fail(Error::SlowReader, at(1)),
            [Answering, Parting, Answering, Finished, Answering, Parting, Finished, Ended],
        ),
        (
            "close",
            |s| _ = s.close(1001, "", CloseWhen::Now, at(1)),
            [Closing, Parting, Closing, Awaiting, Answering, Parting, Finished, Ended],
        ),
        (
            "control frames written",
            |s| drop(write(s, at(1))),
            [Open, HalfClosed, Awaiting, Awaiting, Finished, Ended, Finished, Ended],
        ),
        ("end of stream", |s| s.handle_eof(at(1)), [Ended, Ended, Ended, Ended, Parting, Parting, Ended, Ended]),
        (
            "end of stream behind a message",
            |s| {
                s.note_echo(true);
                s.handle_half_close(at(1));
            },
            [HalfClosed, Ended, Ended, Ended, Parting, Parting, Ended, Ended],
        ),
        ("reset", |s| s.handle_reset(at(1)), [Ended; 8]),
        ("early timeout", |s| assert!(!s.handle_timeout(&Limits::default(), ms(999))), STATES),
        (
            "late timeout",
            |s| _ = s.handle_timeout(&Limits::default(), at(99)),
            [Open, Ended, Ended, Ended, Ended, Ended, Ended, Ended],
        ),
    ];
    for (name, event, expected) in table {
        for (state, expected) in STATES.into_iter().zip(expected) {
            let mut session = in_state(state);
            event(&mut session);
            assert_eq!(session.state(), expected, "{name} in {state:?}");
            assert_eq!(session.closed().is_some(), expected == Ended, "{name} in {state:?}");
            assert_eq!(session.deadline(&Limits::default()).is_none(), expected == Ended);
            assert_eq!(session.can_send(), matches!(expected, Open | HalfClosed));
        }
    }
}

#[test]
fn messages_are_given_until_the_client_closes_and_then_no_more() {
    for state in STATES {
        let mut session = in_state(state);
        let given = read(&mut session, &frame(0x81, b"hi"), at(1)).len();
        let reads = matches!(state, State::Open | State::Closing | State::Awaiting);
        assert_eq!(given, usize::from(reads), "{state:?}");
    }
}

#[test]
fn pings_are_answered_while_open_and_nothing_is_queued_behind_a_close() {
    for state in STATES {
        let mut session = in_state(state);
        let before = session.control(false).to_vec();
        read(&mut session, &frame(0x89, b"?"), at(1));
        let expected = if state == State::Open { b"\x8A\x01?" } else { &before[..] };
        assert_eq!(session.control(false), expected, "{state:?}");
    }
}

#[test]
fn an_ended_session_has_nothing_to_write() {
    for state in STATES {
        let mut session = in_state(state);
        session.handle_reset(at(1));
        assert!(session.control(false).is_empty(), "{state:?}");
    }
}

#[test]
fn a_session_is_small_and_owns_nothing_while_idle() {
    assert!(size_of::<Session>() <= 136);
    let mut session = open();
    read(&mut session, &frame(0x89, b"ping"), at(1));
    write(&mut session, at(1));
    assert_eq!((session.partial_bytes(), session.control(false).len()), (0, 0));
}

#[test]
fn an_independent_client_and_a_session_get_along_however_the_bytes_are_cut() {
    let mut random = seeded(5);
    for _ in 0..200 {
        let mut client = client();
        let mut sent = Vec::new();
        for _ in 0..random.usize(..6) {
            let text: String = (0..random.usize(..300)).map(|_| random.char(..)).collect();
            client.write(ClientMessage::text(text.clone())).unwrap();
            client.write(ClientMessage::Ping(vec![random.u8(..)].into())).unwrap();
            sent.push(text.into_bytes());
        }
        let mut session = open();
        let bytes = written(&mut client);
        let mut got = Vec::new();
        for piece in random_cuts(&mut random, &bytes) {
            got.extend(read(&mut session, piece, at(1)).into_iter().map(|message| message.payload.into_owned()));
        }
        assert_eq!(got, sent);
        let pongs = reads(&mut client, &write(&mut session, at(1)));
        assert_eq!(pongs.iter().filter(|message| message.is_pong()).count(), sent.len());

        client.close(Some(CloseFrame { code: 3000.into(), reason: "enough".into() })).unwrap();
        read(&mut session, &written(&mut client), at(2));
        let echo = CloseFrame { code: 3000.into(), reason: "".into() };
        assert_eq!(reads(&mut client, &write(&mut session, at(2))), [ClientMessage::Close(Some(echo))]);
        assert_eq!(session.state(), State::Finished);
        session.handle_eof(at(2));
        assert_eq!(session.closed(), Some(Closed { by: Side::Peer, code: Some(3000), error: None }));
    }
}

#[test]
fn an_independent_client_answers_our_close() {
    let mut client = client();
    let mut session = open();
    session.close(1001, "shutting down", CloseWhen::AfterData, at(1)).unwrap();
    let close = CloseFrame { code: 1001.into(), reason: "shutting down".into() };
    assert_eq!(reads(&mut client, &write(&mut session, at(1))), [ClientMessage::Close(Some(close))]);
    assert_eq!(session.state(), State::Awaiting);
    read(&mut session, &written(&mut client), at(2));
    assert_eq!(session.state(), State::Finished);
    session.handle_eof(at(2));
    assert_eq!(session.closed(), Some(Closed { by: Side::Local, code: Some(1001), error: None }));
}

#[test]
fn an_empty_close_is_answered_with_an_empty_close() {
    let mut session = open();
    read(&mut session, &frame(0x88, b""), at(1));
    assert_eq!(write(&mut session, at(1)), b"\x88\x00");
    session.handle_eof(at(1));
    assert_eq!(session.closed(), Some(Closed { by: Side::Peer, code: None, error: None }));
}

#[test]
fn every_error_is_told_as_its_table_says_and_stays_the_first() {
    for &error in Error::ALL {
        let mut session = open();
        session.fail(error, at(1));
        session.fail(Error::Opcode, at(1));
        match error.told().code() {
            Some(code) => {
                let close = told(&mut session).unwrap();
                assert_eq!((u16::from(close.code), close.reason.as_str()), (code, error.text()));
                assert_eq!(session.state(), State::Finished);
                session.handle_eof(at(1));
                let expected = Closed { by: Side::Local, code: Some(code), error: Some(error) };
                assert_eq!(session.closed(), Some(expected));
            }
            None => {
                assert_eq!(told(&mut session), None);
                assert_eq!(session.closed(), Some(Closed { by: Side::Local, code: None, error: Some(error) }));
            }
        }
    }
}

#[test]
fn messages_before_an_error_are_given_and_nothing_after_it() {
    let mut session = open();
    let bytes = [frame(0x81, b"good"), frame(0x83, b"bad"), frame(0x81, b"late"), frame(0x89, b"")].concat();
    let messages = read(&mut session, &bytes, at(1));
    assert_eq!(messages.iter().map(|message| &message.payload[..]).collect::<Vec<_>>(), [b"good"]);
    assert_eq!(u16::from(told(&mut session).unwrap().code), 1002);
    assert!(session.control(false).is_empty());
}

#[test]
fn memory_of_an_unfinished_message_goes_when_nothing_is_read_any_more() {
    let mut session = open();
    read(&mut session, &frame(0x01, &[b'x'; 1000]), at(1));
    assert!(session.partial_bytes() >= 1000);
    session.fail(Error::PartialFull, at(1));
    assert_eq!(session.partial_bytes(), 0);
}

#[test]
fn a_close_after_data_waits_for_it_and_a_slow_readers_does_not() {
    let mut session = open();
    read(&mut session, &[frame(0x89, b""), close_frame(1000, "")].concat(), at(1));
    assert_eq!(session.control(true), b"\x8A\x00", "the pong need not wait");
    assert_eq!(session.control(false), b"\x8A\x00\x88\x02\x03\xE8");
    session.fail(Error::SlowReader, at(1));
    assert_eq!(session.control(true), b"\x8A\x00\x88\x02\x03\xE8");

    let mut session = open();
    session.fail(Error::SlowReader, at(1));
    assert_eq!(session.control(true), session.control(false));
    let mut session = open();
    session.close(1012, "", CloseWhen::Now, at(1)).unwrap();
    assert!(!session.control(true).is_empty());
}

#[test]
fn a_close_that_cannot_be_sent_is_refused_and_changes_nothing() {
    let longest = "r".repeat(123);
    for (code, reason, expected) in [
        (1000, "", Ok(())),
        (4999, longest.as_str(), Ok(())),
        (1000, &"r".repeat(124), Err(Misuse::CloseReason)),
        (999, "", Err(Misuse::CloseCode)),
        (1004, "", Err(Misuse::CloseCode)),
        (1005, "", Err(Misuse::CloseCode)),
        (1006, "", Err(Misuse::CloseCode)),
        (1015, "", Err(Misuse::CloseCode)),
        (2999, "", Err(Misuse::CloseCode)),
        (5000, "", Err(Misuse::CloseCode)),
    ] {
        let mut session = open();
        let result = session.close(code, reason, CloseWhen::AfterData, at(1));
        assert_eq!(result, expected, "{code}");
        assert_eq!(session.state(), if expected.is_ok() { State::Closing } else { State::Open });
    }
    let mut session = in_state(State::Awaiting);
    assert_eq!(session.close(1000, "", CloseWhen::Now, at(1)), Err(Misuse::WrongState));
}

#[test]
fn more_than_was_lent_cannot_be_acknowledged() {
    let mut session = open();
    read(&mut session, &frame(0x89, b"x"), at(1));
    assert_eq!(session.control_sent(4, at(1)), Err(Misuse::TooMuchTransmitted));
    assert_eq!(session.control(false), b"\x8A\x01x");
}

#[test]
fn a_stream_that_ends_says_where() {
    let transport = Some(Closed { by: Side::Transport, code: None, error: None });
    for (bytes, closed) in [
        (&b""[..], Some(Closed { by: Side::Peer, code: None, error: None })),
        (&frame(0x81, b"whole"), Some(Closed { by: Side::Peer, code: None, error: None })),
        (b"\x81", transport),
        (&frame(0x81, b"half")[..8], transport),
        (&frame(0x01, b"fragment"), transport),
    ] {
        let mut session = open();
        read(&mut session, bytes, at(1));
        session.handle_eof(at(1));
        assert_eq!(session.closed(), closed);
    }
    let mut session = open();
    session.handle_reset(at(1));
    assert_eq!(session.closed(), transport);
}

#[test]
fn a_client_that_half_closes_after_its_close_still_gets_ours() {
    let mut session = in_state(State::Parting);
    assert_eq!(write(&mut session, at(1)), b"\x88\x02\x03\xE8");
    assert_eq!(session.closed(), Some(Closed { by: Side::Peer, code: Some(1000), error: None }));
}

#[test]
fn a_silent_client_is_pinged_and_then_given_up() {
    let limits = Limits::default();
    let mut session = open();
    assert_eq!(session.deadline(&limits), Some(at(25)));
    session.handle_timeout(&limits, at(24));
    assert!(session.control(true).is_empty());
    session.handle_timeout(&limits, at(25));
    session.handle_timeout(&limits, at(25));
    assert_eq!(write(&mut session, at(25)), b"\x89\x00");
    assert_eq!(session.deadline(&limits), Some(at(35)), "writing the ping is no sign of life");
    session.handle_timeout(&limits, at(34));
    assert_eq!(session.state(), State::Open);
    session.handle_timeout(&limits, at(35));
    let expected = Closed { by: Side::Local, code: None, error: Some(Error::PongTimeout) };
    assert_eq!(session.closed(), Some(expected));
}

#[test]
fn any_bytes_from_the_client_put_off_the_ping_and_answer_it() {
    let limits = Limits::default();
    let mut session = open();
    read(&mut session, b"\x81", at(20));
    assert_eq!(session.deadline(&limits), Some(at(45)));
    session.handle_timeout(&limits, at(45));
    read(&mut session, b"\x80", at(50));
    assert_eq!(session.deadline(&limits), Some(at(75)));
}

#[test]
fn written_data_answers_a_ping_but_does_not_put_it_off() {
    let limits = Limits::default();
    let mut session = open();
    session.handle_progress(at(20));
    assert_eq!(session.deadline(&limits), Some(at(25)));
    session.handle_timeout(&limits, at(25));
    session.handle_progress(at(30));
    assert_eq!(session.deadline(&limits), Some(at(55)));
}

#[test]
fn jitter_shortens_the_time_to_a_ping_by_at_most_a_tenth() {
    let limits = Limits { ping_time: Duration::from_secs(100), ..Limits::default() };
    let mut latest = at(100) + Duration::from_micros(1);
    for jitter in 0..=u8::MAX {
        let deadline = Session::new(jitter, Instant::ZERO).deadline(&limits).unwrap();
        assert!(deadline < latest && deadline > at(90));
        latest = deadline;
    }
    let never = Limits { ping_time: Duration::MAX, ..Limits::default() };
    assert!(Session::new(255, at(1)).deadline(&never).is_some());
}

#[test]
fn the_deadline_of_a_paused_session_stands_still() {
    let limits = Limits::default();
    let mut session = open();
    session.handle_timeout(&limits, at(25));
    session.pause(at(30));
    session.pause(at(31));
    assert_eq!(session.deadline(&limits), None);
    session.handle_timeout(&limits, at(1_000));
    session.resume(at(1_000));
    session.resume(at(1_001));
    assert_eq!(session.deadline(&limits), Some(at(1_005)), "5 of 10 seconds are left");

    session.pause(at(1_001));
    session.handle_progress(at(1_002));
    session.resume(at(1_003));
    assert_eq!(session.deadline(&limits), Some(at(1_028)));

    session.pause(at(1_004));
    session.close(1013, "", CloseWhen::AfterData, at(1_010)).unwrap();
    session.resume(at(1_012));
    assert_eq!(session.deadline(&limits), Some(at(1_015)), "a closing handshake does not stand still");
}

#[test]
fn a_closing_handshake_has_one_deadline_from_the_queueing_of_our_close() {
    let limits = Limits::default();
    let mut session = open();
    session.close(1001, "", CloseWhen::AfterData, at(10)).unwrap();
    session.handle_progress(at(12));
    write(&mut session, at(13));
    read(&mut session, &frame(0x81, b"still talking"), at(14));
    assert_eq!(session.deadline(&limits), Some(at(15)));
    session.handle_timeout(&limits, at(15));
    let expected = Closed { by: Side::Local, code: Some(1001), error: Some(Error::CloseTimeout) };
    assert_eq!(session.closed(), Some(expected));
}

#[test]
fn a_handshake_that_is_complete_is_no_error_when_the_stream_does_not_end() {
    let mut session = in_state(State::Finished);
    session.handle_timeout(&Limits::default(), at(5));
    assert_eq!(session.closed(), Some(Closed { by: Side::Peer, code: Some(1000), error: None }));
}

#[test]
fn an_earlier_now_counts_as_the_latest() {
    let limits = Limits::default();
    let mut session = open();
    read(&mut session, b"\x81", at(50));
    read(&mut session, b"\x80", at(3));
    assert_eq!(session.deadline(&limits), Some(at(75)));
}

/// An owner may take in what needs no message first, and the messages later.
#[test]
fn what_is_read_before_data_and_then_on_is_what_is_read_at_once() {
    for seed in 0..2_000 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut bytes = Vec::new();
        for _ in 0..rng.usize(1..12) {
            let kinds = if rng.bool() { 7 } else { 10 };
            let first = [0x89, 0x8A, 0x81, 0x82, 0x01, 0x00, 0x80, 0x88, 0xC1, 0x83][rng.usize(..kinds)];
            bytes.extend(frame(first, &b"0123456789"[..rng.usize(..10)]));
        }
        let limits = Limits::default();
        let (mut at_once, mut in_parts) = (Session::new(0, Instant::ZERO), Session::new(0, Instant::ZERO));
        let (mut all, mut parts) = (Vec::new(), Vec::new());
        while !bytes.is_empty() {
            let piece: Vec<u8> = bytes.drain(..rng.usize(1..=bytes.len())).collect();
            let (mut first, mut second) = (piece.clone(), piece);
            let mut input = &mut first[..];
            while let Some(message) = at_once.handle_read(&mut input, &limits, Instant::ZERO) {
                all.push((message.frame, message.payload.into_owned()));
            }
            let mut input = &mut second[..];
            assert_eq!(in_parts.handle_read_before_data(&mut input, false, &limits, Instant::ZERO), None);
            let asks = rng.bool();
            if asks && let Some(message) = in_parts.handle_read_before_data(&mut input, asks, &limits, Instant::ZERO) {
                assert_eq!((message.frame, message.payload.len()), (crate::route::FrameType::Binary, 0));
                parts.push((message.frame, Vec::new()));
            }
            while let Some(message) = in_parts.handle_read(&mut input, &limits, Instant::ZERO) {
                parts.push((message.frame, message.payload.into_owned()));
            }
            assert_eq!(in_parts.state(), at_once.state(), "seed {seed}");
        }
        assert_eq!(parts, all, "seed {seed}");
        assert_eq!(in_parts.control(false), at_once.control(false), "seed {seed}");
    }
}
