//! RESP as its specification writes it: what was read, written again, is what came.

use crate::resp::{Frame, Reply};

/// Panics unless `frame` is what `came` says, and `came` is one frame by the grammar.
///
/// A frame may be written in several ways: a message as an array or a push, a null in three, an error in two, a number
/// with a plus or zeros in front; attributes may come before each. An element of which nothing is read has to follow the
/// grammar and no more; a double not even that, since servers write it as their library of C does (`-nan`).
pub(super) fn check(frame: &Frame<'_>, came: &[u8]) {
    let mut rest = came;
    while rest.first() == Some(&b'|') {
        attributes(&mut rest, 0).unwrap_or_else(|| panic!("no attributes: {came:?}"));
    }
    let own = rest;
    let is_whole = match own.first() {
        Some(b'>') => aggregate(&mut rest, b'>', 1, 0),
        _ => value(&mut rest, 0),
    };
    assert!(is_whole == Some(()) && rest.is_empty(), "{frame:?} is not RESP: {own:?}");
    let is_same = match *frame {
        Frame::Message { channel, payload } => is_push(own, &[bulk(b"message"), bulk(channel), bulk(payload)]),
        Frame::Oversized { channel, bytes } => {
            let length = format!("${bytes}\r\n").into_bytes();
            let start = [bulk(b"message"), bulk(channel), length].concat();
            let body = own.get(1..).and_then(|own| own.strip_prefix(b"3\r\n")?.strip_prefix(&start[..]));
            matches!(own[0], b'*' | b'>') && body.is_some_and(|body| body.len() == bytes + 2)
        }
        Frame::Subscribed { channel } => is_confirmation(own, b"subscribe", &[bulk(channel)]),
        Frame::Unsubscribed { channel: Some(channel) } => is_confirmation(own, b"unsubscribe", &[bulk(channel)]),
        Frame::Unsubscribed { channel: None } => {
            is_confirmation(own, b"unsubscribe", &[b"$-1\r\n".to_vec(), b"_\r\n".to_vec()])
        }
        Frame::Push => own[0] == b'>',
        Frame::Reply(reply) => is_reply(own, reply),
    };
    assert!(is_same, "{frame:?} came as {own:?}");
}

fn is_reply(own: &[u8], reply: Reply<'_>) -> bool {
    let line = |kind: &[u8], text: &[u8]| own == [kind, text, b"\r\n"].concat();
    match reply {
        Reply::Pong => line(b"+", b"PONG") || is_pong(own),
        Reply::Simple(text) => line(b"+", text),
        Reply::Error(text) => line(b"-", text) || own == [b"!", &bulk(text)[1..]].concat(),
        Reply::Integer(number) => plain_number(own) == Some(number.to_string()),
        Reply::Bulk(bytes) => own == bulk(bytes),
        Reply::Null => [b"$-1\r\n".as_slice(), b"*-1\r\n", b"_\r\n"].contains(&own),
        Reply::Other(bytes) => own == bytes && !matches!(own[0], b'+' | b'-' | b':' | b'$' | b'!' | b'_'),
    }
}

fn bulk(bytes: &[u8]) -> Vec<u8> {
    [format!("${}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat()
}

fn is_push(own: &[u8], elements: &[Vec<u8>]) -> bool {
    let count = format!("{}\r\n", elements.len()).into_bytes();
    matches!(own[0], b'*' | b'>') && own[1..] == [count, elements.concat()].concat()
}

/// `channels`: how the channel may be written. A count follows, which says nothing here.
fn is_confirmation(own: &[u8], kind: &[u8], channels: &[Vec<u8>]) -> bool {
    let (at, count) = match own.windows(3).rposition(|window| window == b"\r\n:") {
        Some(at) => own.split_at(at + 2),
        None => return false,
    };
    let is_count = count[1..count.len() - 2].iter().all(u8::is_ascii_digit);
    let of_channel = |channel: &Vec<u8>| at[1..] == [b"3\r\n", &bulk(kind)[..], channel].concat();
    is_count && matches!(own[0], b'*' | b'>') && channels.iter().any(of_channel)
}

/// What PING is answered with on a connection with subscriptions; it repeats what PING said.
fn is_pong(own: &[u8]) -> bool {
    let said = own.get(1..).and_then(|own| own.strip_prefix(b"2\r\n$4\r\npong\r\n"));
    matches!(own[0], b'*' | b'>') && said.is_some_and(|said| said[0] == b'$' && said != b"$-1\r\n")
}

/// A number without the plus and the zeros that its type allows in front.
fn plain_number(own: &[u8]) -> Option<String> {
    let text = core::str::from_utf8(own.strip_prefix(b":")?.strip_suffix(b"\r\n")?).ok()?;
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", text.strip_prefix('+').unwrap_or(text)),
    };
    let digits = match digits.trim_start_matches('0') {
        "" => return Some("0".to_owned()),
        digits => digits,
    };
    Some(format!("{sign}{digits}"))
}

/// Takes one element off the front. `None`: it is not one, or there are more than eight within each other.
fn value(rest: &mut &[u8], depth: usize) -> Option<()> {
    match *rest.first()? {
        b'+' | b'-' => line(rest).map(drop),
        b':' | b'(' => is_digits(unsigned(line(rest)?)).then_some(()),
        b',' => (!line(rest)?.is_empty()).then_some(()),
        b'#' => matches!(line(rest)?, b"t" | b"f").then_some(()),
        b'_' => line(rest)?.is_empty().then_some(()),
        b'$' | b'*' if rest[1..].starts_with(b"-1\r\n") => line(rest).map(drop),
        b'$' | b'!' => string(rest).map(drop),
        b'=' => (string(rest)?.get(3) == Some(&b':')).then_some(()),
        b'*' | b'~' => aggregate(rest, rest[0], 1, depth),
        b'%' => aggregate(rest, b'%', 2, depth),
        b'|' => {
            attributes(rest, depth)?;
            value(rest, depth)
        }
        _ => None,
    }
}

fn attributes(rest: &mut &[u8], depth: usize) -> Option<()> {
    aggregate(rest, b'|', 2, depth)
}

fn aggregate(rest: &mut &[u8], kind: u8, factor: usize, depth: usize) -> Option<()> {
    assert_eq!(rest[0], kind);
    let elements = factor * length(line(rest)?)?;
    if elements > 0 && depth == 8 {
        return None;
    }
    (0..elements).try_for_each(|_| value(rest, depth + 1))
}

fn string<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = length(line(rest)?)?;
    let (body, after) = rest.split_at_checked(length)?;
    *rest = after.strip_prefix(b"\r\n")?;
    Some(body)
}

/// What is between a type and the first line end, in which there is no CR or LF.
fn line<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let end = rest.windows(2).position(|window| window == b"\r\n")?;
    let (line, after) = rest.split_at(end);
    *rest = &after[2..];
    line.get(1..).filter(|line| !line.contains(&b'\r') && !line.contains(&b'\n'))
}

fn length(digits: &[u8]) -> Option<usize> {
    let is_shortest = is_digits(digits) && (digits.len() == 1 || digits[0] != b'0');
    core::str::from_utf8(digits).ok().filter(|_| is_shortest && digits.len() <= 9)?.parse().ok()
}

fn is_digits(digits: &[u8]) -> bool {
    !digits.is_empty() && digits.iter().all(u8::is_ascii_digit)
}

fn unsigned(number: &[u8]) -> &[u8] {
    number.strip_prefix(b"-").or_else(|| number.strip_prefix(b"+")).unwrap_or(number)
}
