//! WebSocket frames as a client writes and reads them, by a codec that is not ours.

use std::io::Cursor;

use fanfare_core::route::FrameType;
use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use super::plan::Rudeness;

/// What a server may send.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Got {
    Data(OpCode, Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<u16>),
}

pub(super) const fn opcode(frame: FrameType) -> OpCode {
    match frame {
        FrameType::Text => OpCode::Data(Data::Text),
        FrameType::Binary => OpCode::Data(Data::Binary),
    }
}

/// A masked frame.
pub(super) fn write(opcode: OpCode, fin: bool, key: u32, payload: &[u8], out: &mut Vec<u8>) {
    let header = FrameHeader { is_final: fin, opcode, mask: Some(key.to_be_bytes()), ..FrameHeader::default() };
    write_header(&header, payload, out);
    let start = out.len();
    out.extend_from_slice(payload);
    for (byte, key) in out[start..].iter_mut().zip(key.to_be_bytes().into_iter().cycle()) {
        *byte ^= key;
    }
}

/// A message in so many frames; between two of them there may be a ping.
pub(super) fn write_message(
    frame: FrameType,
    pieces: usize,
    rng: &mut fastrand::Rng,
    payload: &[u8],
    out: &mut Vec<u8>,
) {
    let mut rest = payload;
    for piece in 0..pieces.max(1) {
        let is_last = piece + 1 >= pieces;
        let (now, later) = rest.split_at(if is_last { rest.len() } else { rng.usize(0..=rest.len()) });
        let opcode = if piece == 0 { opcode(frame) } else { OpCode::Data(Data::Continue) };
        write(opcode, is_last, rng.u32(..), now, out);
        if !is_last && rng.u8(..4) == 0 {
            write(OpCode::Control(Control::Ping), true, rng.u32(..), b"in between", out);
        }
        rest = later;
    }
}

/// Bytes that no server may take.
pub(super) fn write_rude(rudeness: Rudeness, frame: FrameType, message_bytes: usize, out: &mut Vec<u8>) {
    let key = 0x0102_0304;
    let other = if frame == FrameType::Text { FrameType::Binary } else { FrameType::Text };
    let header = |opcode| FrameHeader { opcode, mask: Some([0; 4]), ..FrameHeader::default() };
    match rudeness {
        Rudeness::Unmasked => write_header(&FrameHeader { opcode: opcode(frame), ..FrameHeader::default() }, b"", out),
        Rudeness::ReservedBit => write_header(&FrameHeader { rsv2: true, ..header(opcode(frame)) }, b"", out),
        Rudeness::BadOpcode => out.extend([0x83, 0x80, 0, 0, 0, 0]),
        Rudeness::Continuation => write(OpCode::Data(Data::Continue), true, key, b"of what?", out),
        Rudeness::NotUtf8 => write(OpCode::Data(Data::Text), true, key, b"\xC3\x28", out),
        Rudeness::TooLong => write(opcode(frame), true, key, &vec![b'x'; message_bytes + 1], out),
        Rudeness::WrongType => write(opcode(other), true, key, b"something", out),
        Rudeness::LongPing => out.extend([0x89, 0xFE, 0, 126, 0, 0, 0, 0]),
    }
}

fn write_header(header: &FrameHeader, payload: &[u8], out: &mut Vec<u8>) {
    header.format(payload.len() as u64, out).expect("a Vec takes everything");
}

/// The frame at the start of `bytes`, and its length. An error for what a server must not send.
pub(super) fn read(bytes: &[u8]) -> Result<Option<(Got, usize)>, String> {
    let mut cursor = Cursor::new(bytes);
    let parsed = FrameHeader::parse(&mut cursor).map_err(|error| error.to_string())?;
    let Some((header, len)) = parsed else { return Ok(None) };
    let start = cursor.position() as usize;
    if header.mask.is_some() || header.rsv1 || header.rsv2 || header.rsv3 || !header.is_final {
        return Err(format!("a server's frame must not look like this: {header:?}"));
    }
    if start != header.len(len) || len > 1 << 30 {
        return Err(format!("{len} is not said in the shortest way, or cannot be meant"));
    }
    let Some(payload) = bytes.get(start..start + len as usize) else { return Ok(None) };
    let got = match header.opcode {
        OpCode::Data(Data::Text | Data::Binary) => Got::Data(header.opcode, payload.to_vec()),
        OpCode::Control(Control::Ping) if len <= 125 => Got::Ping(payload.to_vec()),
        OpCode::Control(Control::Pong) if len <= 125 => Got::Pong(payload.to_vec()),
        OpCode::Control(Control::Close) if len <= 125 && len != 1 => {
            if core::str::from_utf8(payload.get(2..).unwrap_or_default()).is_err() {
                return Err("a Close's reason is not UTF-8".to_owned());
            }
            Got::Close(payload.first_chunk().map(|&code| u16::from_be_bytes(code)))
        }
        other => return Err(format!("a server must not send {other:?} of {len} bytes")),
    };
    Ok(Some((got, start + len as usize)))
}
