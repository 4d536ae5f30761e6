//! The parser of Pub/Sub pushes. `*` and `>` mean the same here: RESP2 has no type for pushes.

use super::{Frame, Reply};

/// Channel, payload and length of the frame if `input` begins with a complete message of at most `max` bytes.
///
/// `None` means "not this way": the frame is incomplete, oversized, of another kind or broken, which the scanner tells
/// apart.
pub(super) fn message(input: &[u8], max: usize) -> Option<(&[u8], &[u8], usize)> {
    let mut rest = message_start(input)?;
    let channel = bulk(&mut rest)?;
    let payload = bulk(&mut rest)?;
    (payload.len() <= max).then_some((channel, payload, input.len() - rest.len()))
}

/// The channel if `head` is a message up to, and without, its payload.
pub(super) fn message_head(head: &[u8]) -> Option<&[u8]> {
    let mut rest = message_start(head)?;
    let channel = bulk(&mut rest)?;
    length(&mut rest, b'$')?;
    rest.is_empty().then_some(channel)
}

/// What a complete frame other than a message says, if it is one of Pub/Sub's.
pub(super) fn other(frame: &[u8]) -> Option<Frame<'_>> {
    if let Some(rest) = start(frame, b"3\r\n$9\r\nsubscribe\r\n") {
        let channel = confirmation(rest)??;
        return Some(Frame::Subscribed { channel });
    }
    if let Some(rest) = start(frame, b"3\r\n$11\r\nunsubscribe\r\n") {
        let channel = confirmation(rest)?;
        return Some(Frame::Unsubscribed { channel });
    }
    let mut rest = start(frame, b"2\r\n$4\r\npong\r\n")?;
    bulk(&mut rest)?;
    rest.is_empty().then_some(Frame::Reply(Reply::Pong))
}

/// The channel, or its absence, before the count of subscriptions. `None` if `rest` is something else.
fn confirmation(mut rest: &[u8]) -> Option<Option<&[u8]>> {
    let null = [b"$-1\r\n".as_slice(), b"_\r\n"].into_iter().find_map(|null| rest.strip_prefix(null));
    let channel = match null {
        Some(after) => {
            rest = after;
            None
        }
        None => Some(bulk(&mut rest)?),
    };
    length(&mut rest, b':')?;
    rest.is_empty().then_some(channel)
}

fn message_start(input: &[u8]) -> Option<&[u8]> {
    start(input, b"3\r\n$7\r\nmessage\r\n")
}

fn start<'a>(input: &'a [u8], after_type: &[u8]) -> Option<&'a [u8]> {
    let (b'*' | b'>', rest) = input.split_first()? else { return None };
    rest.strip_prefix(after_type)
}

/// Takes a bulk string off the front.
fn bulk<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = length(rest, b'$')?;
    let (body, after) = rest.split_at_checked(length)?;
    *rest = after.strip_prefix(b"\r\n")?;
    Some(body)
}

/// Takes a type byte, at most nine digits without leading zeros and CRLF off the front.
fn length(rest: &mut &[u8], kind: u8) -> Option<usize> {
    let line = rest.strip_prefix(&[kind])?;
    let digits = line.iter().take(9).take_while(|byte| byte.is_ascii_digit()).count();
    let (number, after) = line.split_at(digits);
    if digits == 0 || (digits > 1 && number[0] == b'0') {
        return None;
    }
    *rest = after.strip_prefix(b"\r\n")?;
    Some(number.iter().fold(0, |value, digit| value * 10 + usize::from(digit - b'0')))
}
