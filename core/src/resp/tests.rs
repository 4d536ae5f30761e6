use fastrand::Rng;
use redis_protocol::{
    resp2,
    resp3::{self, types::Resp3Frame},
};

use super::{Decoder, Frame, Reply, RespError, encode};

const MAX: usize = 1_000;

/// What a decoder makes of `input` that comes in pieces which end at `cuts`, in words.
fn decoded(input: &[u8], cuts: &[usize]) -> Vec<String> {
    let mut decoder = Decoder::new(MAX);
    let mut out = Vec::new();
    let mut start = 0;
    for &end in cuts.iter().chain([&input.len()]) {
        let mut piece = &input[start..end];
        start = end;
        loop {
            match decoder.decode(&mut piece) {
                Ok(Some(frame)) => out.push(format!("{frame:?}")),
                Ok(None) => break,
                Err(error) => {
                    out.push(format!("{error:?}"));
                    return out;
                }
            }
        }
        assert!(piece.is_empty(), "all input is taken");
    }
    out
}

fn whole(input: &[u8]) -> Vec<String> {
    decoded(input, &[])
}

fn one(input: &[u8]) -> Result<String, RespError> {
    let mut decoder = Decoder::new(MAX);
    let mut rest = input;
    let result = decoder.decode(&mut rest).map(|frame| format!("{frame:?}"));
    let again = decoder.decode(&mut b"+OK\r\n".as_slice()).err();
    assert_eq!(again, result.as_ref().err().copied(), "the first error stays");
    result
}

fn is(frame: Frame<'_>) -> Result<String, RespError> {
    Ok(format!("{:?}", Some(frame)))
}

fn reply(reply: Reply<'_>) -> Result<String, RespError> {
    is(Frame::Reply(reply))
}

fn message(kind: char, channel: &str, payload: &[u8]) -> Vec<u8> {
    let mut out = format!("{kind}3\r\n$7\r\nmessage\r\n${}\r\n{channel}\r\n", channel.len()).into_bytes();
    out.extend(format!("${}\r\n", payload.len()).into_bytes());
    out.extend(payload);
    out.extend(b"\r\n");
    out
}

/// A stream of every kind of frame that the link meets, and some that it does not.
fn conversation() -> Vec<u8> {
    let mut out = Vec::new();
    for kind in ['*', '>'] {
        out.extend(message(kind, "chat", b"hello"));
        out.extend(message(kind, "", b""));
        out.extend(message(kind, "chat", b"\r\n$5\r\n*3\r\n"));
        out.extend(message(kind, "chat", &message(kind, "not a channel", b"not a payload")));
        out.extend(message(kind, "big", &[b'x'; MAX]));
        out.extend(message(kind, "bigger", &[b'\r'; MAX + 1]));
        out.extend(format!("{kind}3\r\n$9\r\nsubscribe\r\n$4\r\nchat\r\n:1\r\n").bytes());
        out.extend(format!("{kind}3\r\n$11\r\nunsubscribe\r\n$4\r\nchat\r\n:0\r\n").bytes());
        out.extend(format!("{kind}2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n").bytes());
    }
    out.extend(b"*3\r\n$11\r\nunsubscribe\r\n$-1\r\n:0\r\n>3\r\n$11\r\nunsubscribe\r\n_\r\n:0\r\n");
    out.extend(
        b"*2\r\n$4\r\npong\r\n$0\r\n\r\n+PONG\r\n+OK\r\n-ERR no\r\n:42\r\n:-1\r\n$-1\r\n*-1\r\n_\r\n$3\r\nabc\r\n",
    );
    out.extend(
        b"%2\r\n+proto\r\n:3\r\n+modules\r\n*0\r\n|1\r\n+ttl\r\n:1\r\n+OK\r\n#t\r\n,1.5\r\n(-123\r\n=7\r\ntxt:abc\r\n",
    );
    out.extend(b"!5\r\nERR x\r\n~1\r\n:1\r\n*1\r\n|1\r\n+a\r\n:1\r\n:2\r\n*4\r\n:1\r\n*0\r\n%0\r\n~0\r\n");
    out
}

#[test]
fn frames_are_told_apart() {
    assert_eq!(one(&message('*', "c", b"p")), is(Frame::Message { channel: b"c", payload: b"p" }));
    assert_eq!(one(&message('>', "c", b"")), is(Frame::Message { channel: b"c", payload: b"" }));
    assert_eq!(one(b"*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n"), is(Frame::Subscribed { channel: b"c" }));
    assert_eq!(one(b">3\r\n$11\r\nunsubscribe\r\n$1\r\nc\r\n:0\r\n"), is(Frame::Unsubscribed { channel: Some(b"c") }));
    assert_eq!(one(b"*3\r\n$11\r\nunsubscribe\r\n$-1\r\n:0\r\n"), is(Frame::Unsubscribed { channel: None }));
    assert_eq!(one(b">3\r\n$11\r\nunsubscribe\r\n_\r\n:0\r\n"), is(Frame::Unsubscribed { channel: None }));
    assert_eq!(one(b">2\r\n$10\r\ninvalidate\r\n*0\r\n"), is(Frame::Push));
    assert_eq!(one(b"*2\r\n$4\r\npong\r\n$0\r\n\r\n"), reply(Reply::Pong));
    assert_eq!(one(b"+PONG\r\n"), reply(Reply::Pong));
    assert_eq!(one(b"+OK\r\n"), reply(Reply::Simple(b"OK")));
    assert_eq!(one(b"-ERR \xff\r\n"), reply(Reply::Error(b"ERR \xff")));
    assert_eq!(one(b"!5\r\nERR x\r\n"), reply(Reply::Error(b"ERR x")));
    assert_eq!(one(b":-12\r\n"), reply(Reply::Integer(-12)));
    assert_eq!(one(b"$3\r\nabc\r\n"), reply(Reply::Bulk(b"abc")));
    let attributed = |frame: &[u8]| one(&[b"|1\r\n+ttl\r\n:1\r\n", frame].concat());
    assert_eq!(attributed(b"+OK\r\n"), reply(Reply::Simple(b"OK")));
    assert_eq!(attributed(&message('>', "c", b"p")), is(Frame::Message { channel: b"c", payload: b"p" }));
    for null in [b"$-1\r\n".as_slice(), b"*-1\r\n", b"_\r\n"] {
        assert_eq!(one(null), reply(Reply::Null));
    }
    for other in [b"*0\r\n".as_slice(), b"%1\r\n+a\r\n:1\r\n", b"#t\r\n", b",inf\r\n", b"(12\r\n", b"=7\r\ntxt:abc\r\n"]
    {
        assert_eq!(one(other), reply(Reply::Other(other)));
    }
}

#[test]
fn whole_is_byte_by_byte_is_any_split() {
    let input = conversation();
    let expected = whole(&input);
    assert_eq!(expected.len(), 40);
    assert_eq!(expected.iter().filter(|frame| frame.starts_with("Oversized")).count(), 2);
    let bytewise: Vec<usize> = (1..input.len()).collect();
    assert_eq!(decoded(&input, &bytewise), expected);
    for cut in 1..input.len() {
        assert_eq!(decoded(&input, &[cut]), expected, "cut at {cut}");
    }
    let mut rng = Rng::with_seed(1);
    for _ in 0..500 {
        let mut cuts: Vec<usize> = (0..rng.usize(1..20)).map(|_| rng.usize(0..input.len())).collect();
        cuts.sort_unstable();
        assert_eq!(decoded(&input, &cuts), expected);
    }
}

#[test]
fn damaged_input_is_the_same_however_it_comes() {
    let base = conversation();
    let mut rng = Rng::with_seed(2);
    for _ in 0..5_000 {
        let start = rng.usize(0..base.len());
        let mut input = base[start..base.len().min(start + 300)].to_vec();
        for _ in 0..rng.usize(0..4) {
            let at = rng.usize(0..input.len());
            input[at] = *rng.choice(b"\r\n*>$:+-_0193?x|%=").unwrap();
        }
        let bytewise: Vec<usize> = (1..input.len()).collect();
        assert_eq!(decoded(&input, &bytewise), whole(&input), "{:?}", input.escape_ascii().to_string());
    }
}

/// A random frame of nested aggregates, and whether only RESP2 types are in it.
fn random_frame(rng: &mut Rng, depth: usize, out: &mut Vec<u8>) -> bool {
    let kinds: &[u8] = if depth < 4 { b"+-:$*%~>_#,(=!" } else { b"+-:$_#,(=!" };
    let kind = match *rng.choice(kinds).unwrap() {
        b'>' if depth > 0 => b'*',
        kind => kind,
    };
    out.push(kind);
    let text: String = (0..rng.usize(0..12)).map(|_| rng.alphanumeric()).collect();
    match kind {
        b'+' | b'-' => out.extend(format!("{text}\r\n").bytes()),
        b':' => out.extend(format!("{}\r\n", rng.i64(..)).bytes()),
        b'(' => out.extend(format!("{}{}\r\n", rng.i64(..), rng.u64(..)).bytes()),
        b',' => out.extend(b"1.25\r\n"),
        b'#' => out.extend(b"f\r\n"),
        b'_' => out.extend(b"\r\n"),
        b'=' => out.extend(format!("{}\r\ntxt:{text}\r\n", text.len() + 4).bytes()),
        b'$' | b'!' => out.extend(format!("{}\r\n{text}\r\n", text.len()).bytes()),
        _ => {
            // Keys of maps and members of sets must be distinct scalars for the crate.
            let (count, scalar) = (rng.usize(0..4), if kind == b'*' || kind == b'>' { depth + 1 } else { 9 });
            out.extend(format!("{count}\r\n").bytes());
            let count = if kind == b'%' { count * 2 } else { count };
            let mut resp2 = kind == b'*';
            for _ in 0..count {
                resp2 &= random_frame(rng, scalar, out);
            }
            return resp2;
        }
    }
    b"+-:$".contains(&kind)
}

#[test]
fn the_scanner_ends_frames_where_the_crate_does() {
    let mut rng = Rng::with_seed(3);
    for _ in 0..10_000 {
        let mut input = Vec::new();
        let resp2 = random_frame(&mut rng, 0, &mut input);
        let end = input.len();
        input.extend(b"+more\r\n");
        let crates = resp3::decode::complete::decode_range(&input).unwrap().unwrap();
        assert_eq!(crates.1, end);
        if resp2 {
            assert_eq!(resp2::decode::decode_range(&input).unwrap().unwrap().1, end);
        }
        let mut decoder = Decoder::new(MAX);
        let mut rest = input.as_slice();
        decoder.decode(&mut rest).unwrap().unwrap();
        assert_eq!(rest, b"+more\r\n", "{:?}", input.escape_ascii().to_string());
    }
}

#[test]
fn messages_are_what_the_crate_reads() {
    let mut rng = Rng::with_seed(4);
    for round in 0..2_000 {
        let payload: Vec<u8> = (0..rng.usize(0..200)).map(|_| rng.u8(..)).collect();
        let mut input = message(if round % 2 == 0 { '*' } else { '>' }, "room", &payload);
        if rng.bool() {
            let at = rng.usize(0..input.len());
            input[at] = rng.u8(..);
        }
        let mut decoder = Decoder::new(MAX);
        let mut rest = input.as_slice();
        let Ok(Some(Frame::Message { channel, payload })) = decoder.decode(&mut rest) else { continue };
        let (frame, length) = resp3::decode::complete::decode(&input).unwrap().expect("complete for the crate too");
        assert_eq!(length, input.len() - rest.len());
        let (resp3::types::OwnedFrame::Array { data, .. } | resp3::types::OwnedFrame::Push { data, .. }) = frame else {
            panic!("not an array for the crate: {frame:?}");
        };
        let texts: Vec<&[u8]> = data.iter().map(|part| part.as_bytes().unwrap()).collect();
        assert_eq!(texts, [b"message".as_slice(), channel, payload]);
    }
}

#[test]
fn a_body_must_be_followed_by_a_line_end() {
    for input in [
        "$3\r\nfooXX",
        "$3\r\nfoo\rX",
        "$3\r\nfooX\n",
        "!5\r\nERR xXX",
        "=7\r\ntxt:abcXX",
        "*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$1\r\npXX",
    ] {
        assert_eq!(one(input.as_bytes()), Err(RespError::Terminator), "{input:?}");
    }
}

#[test]
fn a_line_ends_in_nothing_but_cr_lf() {
    for input in ["+a\nb\r\n", "+a\rb\r\n", "-ERR\n", ":1\n", "$3\n"] {
        let error = one(input.as_bytes()).unwrap_err();
        assert!(matches!(error, RespError::Terminator | RespError::Length), "{input:?}");
    }
}

#[test]
fn lengths_are_plain_decimals() {
    for input in [
        "$+3\r\n",
        "$003\r\n",
        "$00\r\n",
        "$-0\r\n",
        "$-2\r\n",
        "$-11\r\n",
        "*-2\r\n",
        "$\r\n",
        "$ 3\r\n",
        "$3 \r\n",
        "$1000000000\r\n",
        "*9223372036854775807\r\n",
        ">-1\r\n",
        "%-1\r\n",
        "~-1\r\n",
        "!-1\r\n",
        "=-1\r\n",
        "=3\r\n",
        "$--1\r\n",
        "$1-\r\n",
        "$1?\r\n",
    ] {
        assert_eq!(one(input.as_bytes()), Err(RespError::Length), "{input:?}");
    }
}

#[test]
fn lengths_in_a_message_are_plain_decimals_too() {
    for length in ["", "01", "00", "+1", "-2", "1 ", "1000000000"] {
        for parts in [format!("${length}\r\nc\r\n$1\r\np\r\n"), format!("$1\r\nc\r\n${length}\r\np\r\n")] {
            let input = format!("*3\r\n$7\r\nmessage\r\n{parts}");
            assert_eq!(one(input.as_bytes()), Err(RespError::Length), "{parts:?}");
        }
    }
}

#[test]
fn streamed_and_chunked_types_are_refused() {
    for input in ["$?\r\n", "*?\r\n", "%?\r\n", ";4\r\nabcd\r\n", ".\r\n"] {
        assert_eq!(one(input.as_bytes()), Err(RespError::Streamed), "{input:?}");
    }
}

#[test]
fn values_are_what_their_type_allows() {
    for input in [
        "(a\r\n",
        "(1-2\r\n",
        "(\r\n",
        "(-\r\n",
        "*1\r\n(+\r\n",
        ">2\r\n+a\r\n#true\r\n",
        ">2\r\n+a\r\n:-\r\n",
        "_x\r\n",
        "=7\r\ntxtXabc\r\n",
        "=7\r\nt:tabcd\r\n",
        "#x\r\n",
        ":a\r\n",
        ":\r\n",
        ",x\r\n",
    ] {
        assert_eq!(one(input.as_bytes()), Err(RespError::Value), "{input:?}");
    }
}

#[test]
fn what_is_not_redis_is_known_by_its_first_byte() {
    assert_eq!(one(b"HTTP/1.1 400 Bad Request\r\n\r\n"), Err(RespError::Type(b'H')));
    assert_eq!(one(b"HELLO 3\r\n"), Err(RespError::Type(b'H')));
    assert_eq!(one(b"\x15\x03\x01\x00\x02\x02\x46"), Err(RespError::Type(0x15)));
    assert_eq!(one(b"*1\r\n>1\r\n+a\r\n"), Err(RespError::Type(b'>')));
}

#[test]
fn nesting_is_bounded_for_every_aggregate() {
    for open in ["*1\r\n", "~1\r\n", "%1\r\n+k\r\n", "*1\r\n|0\r\n"] {
        let levels = 8 / open.matches(['*', '~', '%', '|']).count();
        let nested = |levels| format!("{}:1\r\n", open.repeat(levels));
        assert_ne!(one(nested(levels).as_bytes()), Err(RespError::Depth), "{open:?} at the bound");
        assert_eq!(one(nested(levels + 1).as_bytes()), Err(RespError::Depth), "{open:?} above the bound");
        assert_eq!(one(nested(100_000).as_bytes()), Err(RespError::Depth), "{open:?} far above it");
    }
}

#[test]
fn elements_are_bounded_whatever_is_claimed() {
    let array = |count: usize| format!("*{count}\r\n{}", ":1\r\n".repeat(count));
    let array_of_many = array(4_096);
    assert_eq!(one(array_of_many.as_bytes()), reply(Reply::Other(array_of_many.as_bytes())));
    assert_eq!(one(array(4_097).as_bytes()), Err(RespError::Elements));
    assert_eq!(one(b"*999999999\r\n"), Err(RespError::Elements));
    assert_eq!(one(b"%2049\r\n"), Err(RespError::Elements));
    assert_eq!(one(b"*2\r\n*4094\r\n"), Ok("None".to_owned()));
    assert_eq!(one(b"*2\r\n*4095\r\n"), Err(RespError::Elements));
}

#[test]
fn a_reply_is_bounded_in_bytes() {
    const BOUND: usize = 64 << 10;
    let line = |length: usize| format!("+{}\r\n", "x".repeat(length - 3));
    assert!(one(line(BOUND).as_bytes()).is_ok());
    assert_eq!(one(line(BOUND + 1).as_bytes()), Err(RespError::Size));
    let bulk = |length: usize| format!("${}\r\n{}\r\n", length - 10, "x".repeat(length - 10));
    assert!(one(bulk(BOUND).as_bytes()).is_ok());
    assert_eq!(one(bulk(BOUND + 1).as_bytes()), Err(RespError::Size));
    let bulks = format!("*70\r\n{}", "$1001\r\n".to_owned() + &"x".repeat(1_001) + "\r\n").into_bytes();
    let many = [&bulks[..5], &bulks[5..].repeat(70)].concat();
    assert_eq!(one(&many), Err(RespError::Size), "the parts of an array count together");
    assert_eq!(one(b"$999999999\r\n"), Err(RespError::Size));
}

#[test]
fn a_payload_at_the_limit_passes_and_one_above_it_is_skipped_without_being_held() {
    for kind in ['*', '>'] {
        let at = message(kind, "c", &[b'x'; MAX]);
        assert_eq!(one(&at), is(Frame::Message { channel: b"c", payload: &[b'x'; MAX] }));
        let mut input = message(kind, "c", &vec![b'x'; 10_000_000]);
        input.extend(message(kind, "c", b"after"));
        let mut decoder = Decoder::new(MAX);
        let mut seen = Vec::new();
        for mut piece in input.chunks(16 << 10) {
            while let Some(frame) = decoder.decode(&mut piece).unwrap() {
                seen.push(format!("{frame:?}"));
            }
            assert!(format!("{decoder:?}").len() < 1_000, "nothing of the payload is held");
        }
        let oversized = Frame::Oversized { channel: b"c", bytes: 10_000_000 };
        let after = Frame::Message { channel: b"c", payload: b"after" };
        assert_eq!(seen, [format!("{oversized:?}"), format!("{after:?}")]);
    }
}

#[test]
fn a_message_limit_above_the_bound_of_replies_counts_for_messages_alone() {
    let mut decoder = Decoder::new(1_000_000);
    for length in [65_000, 65_536, 70_000, 1_000_000] {
        let payload = vec![b'x'; length];
        let input = message('>', "c", &payload);
        let (mut first, mut second) = input.split_at(60_000);
        assert_eq!(decoder.decode(&mut first), Ok(None));
        assert_eq!(decoder.decode(&mut second), Ok(Some(Frame::Message { channel: b"c", payload: &payload })));
    }
    assert_eq!(decoder.decode(&mut b"$70000\r\n".as_slice()), Err(RespError::Size));
}

#[test]
fn a_message_in_pieces_passes_whatever_its_distance_from_the_bound_of_replies() {
    const BOUND: usize = 64 << 10;
    let mut decoder = Decoder::new(BOUND);
    for length in BOUND - 100..=BOUND {
        let payload = vec![b'x'; length];
        let input = message('*', "c", &payload);
        let (mut first, mut second) = input.split_at(100);
        assert_eq!(decoder.decode(&mut first), Ok(None));
        assert_eq!(
            decoder.decode(&mut second),
            Ok(Some(Frame::Message { channel: b"c", payload: &payload })),
            "{length}"
        );
    }
}

#[test]
fn a_frame_of_many_small_parts_costs_linear_time() {
    // Quadratic work would be a thousand million steps here.
    let input = format!("*4096\r\n{}", "$1\r\nx\r\n".repeat(4_096));
    let bytewise: Vec<usize> = (1..input.len()).collect();
    let frames = decoded(input.as_bytes(), &bytewise);
    assert!(frames.len() == 1 && frames[0].starts_with("Reply(Other("));
}

#[test]
fn nothing_is_held_between_frames() {
    let mut decoder = Decoder::new(MAX);
    let input = message('*', "chat", &[b'x'; 100]);
    let (mut first, mut second) = input.split_at(50);
    assert_eq!(decoder.decode(&mut first), Ok(None));
    assert!(decoder.decode(&mut second).unwrap().is_some());
    assert_eq!(decoder.decode(&mut second), Ok(None), "the frame is let go");
    assert_eq!(format!("{decoder:?}"), format!("{:?}", Decoder::new(MAX)));
}

#[test]
fn a_decoder_that_starts_over_has_forgotten_everything() {
    let mut decoder = Decoder::new(MAX);
    let table = [
        (b"*3\r\n$7\r\nmes".as_slice(), Ok(None)),
        (&message('*', "c", &[b'x'; MAX + 1])[..MAX], Ok(None)),
        (b"junk", Err(RespError::Type(b'j'))),
    ];
    for (mut input, outcome) in table {
        assert_eq!(decoder.decode(&mut input), outcome);
        decoder.reset();
        assert_eq!(format!("{decoder:?}"), format!("{:?}", Decoder::new(MAX)));
    }
}

fn by_the_crate(words: &[&[u8]]) -> Vec<u8> {
    let words = words.iter().map(|word| resp2::types::OwnedFrame::BulkString(word.to_vec())).collect();
    let mut out = vec![0; 100_000];
    let length = resp2::encode::encode(&mut out, &resp2::types::OwnedFrame::Array(words), false).unwrap();
    out.truncate(length);
    out
}

#[test]
fn commands_are_what_the_crate_writes() {
    let written = |write: &dyn Fn(&mut Vec<u8>)| {
        let mut out = Vec::new();
        write(&mut out);
        out
    };
    for length in [0, 1, 9, 10, 99, 100, 65_535] {
        let payload = vec![b'\n'; length];
        let ours = written(&|out| encode::publish(out, b"chat:1", &payload));
        assert_eq!(ours, by_the_crate(&[b"PUBLISH", b"chat:1", &payload]));
        assert_eq!(encode::publish_len(b"chat:1".len(), length), ours.len());
    }
    let channels: Vec<Vec<u8>> = (0..300_u32).map(|i| i.to_string().into_bytes()).collect();
    let words = |name: &'static [u8]| [name].into_iter().chain(channels.iter().map(Vec::as_slice)).collect::<Vec<_>>();
    let ours = written(&|out| encode::subscribe(out, channels.iter().map(Vec::as_slice)));
    assert_eq!(ours, by_the_crate(&words(b"SUBSCRIBE")));
    let ours = written(&|out| encode::unsubscribe(out, channels.iter().map(Vec::as_slice)));
    assert_eq!(ours, by_the_crate(&words(b"UNSUBSCRIBE")));
    assert_eq!(written(&|out| encode::hello(out, None)), by_the_crate(&[b"HELLO", b"3"]));
    let ours = written(&|out| encode::hello(out, Some(("u", "p w"))));
    assert_eq!(ours, by_the_crate(&[b"HELLO", b"3", b"AUTH", b"u", b"p w"]));
    assert_eq!(written(&|out| encode::auth(out, None, "p")), by_the_crate(&[b"AUTH", b"p"]));
    assert_eq!(written(&|out| encode::auth(out, Some("u"), "p")), by_the_crate(&[b"AUTH", b"u", b"p"]));
    assert_eq!(written(&|out| encode::set_name(out, "n")), by_the_crate(&[b"CLIENT", b"SETNAME", b"n"]));
    assert_eq!(written(&|out| encode::select(out, 15)), by_the_crate(&[b"SELECT", b"15"]));
    assert_eq!(written(&|out| encode::ping(out)), by_the_crate(&[b"PING"]));
}
