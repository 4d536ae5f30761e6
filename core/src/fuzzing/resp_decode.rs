//! What Redis says: the same whatever the cuts, and the same as `redis-protocol` reads it from the whole.

use redis_protocol::{
    resp2::{self, types::OwnedFrame as Resp2},
    resp3::{self, types::OwnedFrame as Resp3},
};

use super::{Cut, resp_grammar};
use crate::resp::{Decoder, Frame, Reply, RespError};

const MESSAGE_BYTES: usize = 300;

/// The first byte is a seed for the cuts, the rest is what Redis sends.
pub fn resp_decode(data: &[u8]) {
    let Some((&seed, bytes)) = data.split_first() else { return };
    let whole = decode(bytes, Cut::Whole);
    for cut in [Cut::Bytewise, Cut::Random(seed)] {
        assert_eq!(whole, decode(bytes, cut), "{cut:?}");
    }
    compare(bytes);
}

/// Frames in words, with the error last.
fn decode(bytes: &[u8], cut: Cut) -> Vec<String> {
    let mut decoder = Decoder::new(MESSAGE_BYTES);
    let mut words = Vec::new();
    for mut piece in cut.pieces(bytes) {
        loop {
            match decoder.decode(&mut piece) {
                Ok(Some(frame)) => words.push(format!("{frame:?}")),
                Ok(None) => break,
                Err(error) => {
                    words.push(format!("{error:?}"));
                    assert_eq!(decoder.decode(&mut b"+OK\r\n".as_slice()), Err(error), "the first error stays");
                    return words;
                }
            }
        }
        assert!(piece.is_empty(), "all input is taken");
    }
    words
}

/// Writes each frame again, and compares it and its extent with what the crate makes of the bytes from its start on.
fn compare(bytes: &[u8]) {
    // The crate recurses once for each level of nesting that is claimed, without a bound.
    let is_deep = bytes.iter().filter(|byte| b"*%~>|".contains(byte)).count() > 60;
    let mut decoder = Decoder::new(MESSAGE_BYTES);
    let mut rest = bytes;
    loop {
        let start = rest;
        let ours = decoder.decode(&mut rest);
        if let Ok(Some(frame)) = &ours {
            resp_grammar::check(frame, &start[..start.len() - rest.len()]);
        }
        let ours = ours.map(|frame| frame.map(|frame| told(&frame)));
        if is_deep {
            // Nothing to compare with.
            match ours {
                Ok(Some(_)) => continue,
                Ok(None) | Err(_) => return,
            }
        }
        let theirs = Theirs::of(start);
        match (ours, theirs) {
            (Ok(Some(ours)), Some(theirs)) => {
                let length = start.len() - rest.len();
                assert!(theirs.is_same(&ours, length), "{ours} of {length} bytes is {theirs:?} to the crate");
            }
            (Ok(Some(ours)), None) => {
                // It does not attach attributes to a null, takes no error that is not UTF-8, and looks at what is inside a
                // push that is of no interest here.
                let is_text = core::str::from_utf8(&start[..start.len() - rest.len()]).is_ok();
                assert!(
                    !is_text || start.starts_with(b"|") || ours == "Push",
                    "{ours} is nothing to the crate: {start:?}"
                );
            }
            (Ok(None), theirs) => {
                assert!(theirs.is_none(), "{theirs:?} is not whole here");
                return;
            }
            (Err(error), theirs) => {
                if let Some(theirs) = theirs {
                    check_allowed(error, &theirs, start);
                }
                return;
            }
        }
    }
}

/// What the crate reads at the start of some bytes, as either version, and how long that is.
#[derive(Debug)]
struct Theirs {
    resp2: Option<(Resp2, usize)>,
    resp3: Option<(Resp3, usize)>,
}

impl Theirs {
    fn of(bytes: &[u8]) -> Option<Self> {
        let resp2 = resp2::decode::decode(bytes).ok().flatten();
        let resp3 = resp3::decode::complete::decode(bytes).ok().flatten();
        (resp2.is_some() || resp3.is_some()).then_some(Self { resp2, resp3 })
    }

    fn is_same(&self, ours: &str, length: usize) -> bool {
        let is_resp2 = |(frame, end): &(Resp2, usize)| *end == length && resp2_words(frame).is_none_or(|it| it == ours);
        let is_resp3 = |(frame, end): &(Resp3, usize)| *end == length && resp3_words(frame).is_none_or(|it| it == ours);
        self.resp2.as_ref().map(is_resp2).or_else(|| self.resp3.as_ref().map(is_resp3)).unwrap_or(false)
    }
}

/// The table of allowed differences: what is refused here although the crate reads it. What the crate would write the
/// same way must be read here too, but for the bounds.
fn check_allowed(error: RespError, theirs: &Theirs, bytes: &[u8]) {
    let is_bounded = matches!(error, RespError::Depth | RespError::Elements | RespError::Size);
    // RESP has no line end inside a simple string, an error or a number; a push stands for itself; Redis streams nothing.
    let is_stricter =
        matches!(error, RespError::Terminator | RespError::Value | RespError::Type(b'>') | RespError::Streamed);
    let is_canonical = match (&theirs.resp2, &theirs.resp3) {
        (Some((frame, length)), _) => encode_resp2(frame).is_some_and(|canonical| canonical == bytes[..*length]),
        (None, Some((frame, length))) => encode_resp3(frame).is_some_and(|canonical| canonical == bytes[..*length]),
        (None, None) => false,
    };
    assert!(is_bounded || is_stricter || !is_canonical, "{error:?} is {theirs:?} to the crate");
}

fn encode_resp2(frame: &Resp2) -> Option<Vec<u8>> {
    let mut out = vec![0; 8_192];
    let length = resp2::encode::encode(&mut out, frame, false).ok()?;
    out.truncate(length);
    Some(out)
}

fn encode_resp3(frame: &Resp3) -> Option<Vec<u8>> {
    let mut out = vec![0; 8_192];
    let length = resp3::encode::complete::encode(&mut out, frame, false).ok()?;
    out.truncate(length);
    Some(out)
}

/// What our decoder should say; `None` for frames of which it says little.
fn resp2_words(frame: &Resp2) -> Option<String> {
    match frame {
        Resp2::SimpleString(text) => Some(simple(text)),
        Resp2::Error(text) => Some(format!("Reply(Error({:?}))", text.as_bytes())),
        Resp2::Integer(value) => Some(format!("Reply(Integer({value}))")),
        Resp2::BulkString(bytes) => Some(format!("Reply(Bulk({bytes:?}))")),
        Resp2::Null => Some("Reply(Null)".to_owned()),
        Resp2::Array(parts) => {
            let parts: Option<Vec<&[u8]>> = parts
                .iter()
                .map(|part| if let Resp2::BulkString(bytes) = part { Some(&bytes[..]) } else { None })
                .collect();
            message(&parts?)
        }
    }
}

fn resp3_words(frame: &Resp3) -> Option<String> {
    match frame {
        Resp3::SimpleString { data, .. } => Some(simple(data)),
        Resp3::SimpleError { data, .. } => Some(format!("Reply(Error({:?}))", data.as_bytes())),
        Resp3::BlobError { data, .. } => Some(format!("Reply(Error({data:?}))")),
        Resp3::Number { data, .. } => Some(format!("Reply(Integer({data}))")),
        Resp3::BlobString { data, .. } => Some(format!("Reply(Bulk({data:?}))")),
        Resp3::Null => Some("Reply(Null)".to_owned()),
        Resp3::Push { data, .. } => {
            let parts: Option<Vec<&[u8]>> = data
                .iter()
                .map(|part| if let Resp3::BlobString { data, .. } = part { Some(&data[..]) } else { None })
                .collect();
            message(&parts?)
        }
        Resp3::Array { .. } => None,
        _ => Some("Reply(Other)".to_owned()),
    }
}

fn message(parts: &[&[u8]]) -> Option<String> {
    let [b"message", channel, payload] = parts else { return None };
    Some(if payload.len() > MESSAGE_BYTES {
        format!("Oversized {{ channel: {channel:?}, bytes: {} }}", payload.len())
    } else {
        format!("Message {{ channel: {channel:?}, payload: {payload:?} }}")
    })
}

fn simple(text: &[u8]) -> String {
    if text == b"PONG" { "Reply(Pong)".to_owned() } else { format!("Reply(Simple({text:?}))") }
}

/// A frame, without the bytes of one that is not looked into.
fn told(frame: &Frame<'_>) -> String {
    match frame {
        Frame::Reply(Reply::Other(_)) => "Reply(Other)".to_owned(),
        other => format!("{other:?}"),
    }
}
