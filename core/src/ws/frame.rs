//! The header of a frame (RFC 6455 §5.2): how a server writes it and how a client's is read.

use crate::error::Error;

const FIN: u8 = 0x80;
const RESERVED: u8 = 0x70;
const MASKED: u8 = 0x80;

/// The longest header of a client: two bytes, a length of eight, a key of four.
pub(super) const MAX_HEADER: usize = 14;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Opcode {
    Continuation = 0,
    Text = 1,
    Binary = 2,
    Close = 8,
    Ping = 9,
    Pong = 10,
}

impl Opcode {
    pub(super) const fn is_control(self) -> bool {
        self as u8 & 8 != 0
    }
}

/// Whether a frame that begins with this byte is a control frame (RFC 6455 §5.5).
pub(super) const fn is_control(first: u8) -> bool {
    first & Opcode::Close as u8 != 0
}

/// Whether `input` begins with a client's whole binary message that is empty.
pub(super) fn is_empty_binary(input: &[u8]) -> bool {
    input.len() >= 6 && input.starts_with(&[FIN | Opcode::Binary as u8, MASKED])
}

/// Writes the header of a server's frame: final, not masked, the length in its shortest form.
#[inline]
pub(crate) fn encode_header(opcode: Opcode, len: usize, out: &mut Vec<u8>) {
    let first = FIN | opcode as u8;
    match len {
        0..=125 => out.extend_from_slice(&[first, len as u8]),
        126..=0xFFFF => {
            let [high, low] = (len as u16).to_be_bytes();
            out.extend_from_slice(&[first, 126, high, low]);
        }
        _ => {
            out.extend_from_slice(&[first, 127]);
            out.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
}

/// The length of the header that [`encode_header`] writes for a payload of `len` bytes.
pub(crate) const fn header_len(len: usize) -> usize {
    match len {
        0..=125 => 2,
        126..=0xFFFF => 4,
        _ => 10,
    }
}

/// Where the payload starts in a frame that [`encode_header`] began.
pub(crate) fn payload_start(frame: &[u8]) -> usize {
    match frame.get(1) {
        Some(126) => 4,
        Some(127) => 10,
        _ => 2,
    }
}

/// A client's frame, of whose payload `left` bytes are still to come.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame {
    pub(super) opcode: Opcode,
    pub(super) fin: bool,
    /// The masking key, little-endian, turned to the next byte of payload.
    pub(super) key: u32,
    pub(super) left: usize,
}

/// What the next data frame may be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    /// Whether a message is under way, so that only a continuation may come.
    pub(super) inside: bool,
    /// How many more frames the message may have.
    pub(super) fragments: u32,
    /// How many more bytes the message may have.
    pub(super) bytes: usize,
}

/// Reads the header at the start of `bytes` and says how long it is; `None` until it is whole.
///
/// What is wrong is found in the order of the bytes, so the verdict does not depend on how they arrive.
#[inline]
pub(super) fn parse(bytes: &[u8], room: &Room) -> Result<Option<(Frame, usize)>, Error> {
    let Some(&first) = bytes.first() else { return Ok(None) };
    let fin = first & FIN != 0;
    let opcode = parse_first(first, room)?;
    let Some(&second) = bytes.get(1) else { return Ok(None) };
    if second & MASKED == 0 {
        return Err(Error::NotMasked);
    }
    let short = second & !MASKED;
    if opcode.is_control() && short > 125 {
        return Err(Error::LongControl);
    }
    let Some((len, key_at)) = parse_length(short, bytes)? else { return Ok(None) };
    // Compared as u64 before it becomes a usize: nothing can wrap on a length that a client claims.
    if !opcode.is_control() && len > room.bytes as u64 {
        return Err(Error::LongMessage);
    }
    let Some(&key) = bytes.get(key_at..).and_then(<[u8]>::first_chunk::<4>) else { return Ok(None) };
    let frame = Frame { opcode, fin, key: u32::from_le_bytes(key), left: len as usize };
    Ok(Some((frame, key_at + key.len())))
}

/// RFC 6455 §5.2 (reserved bits, opcode), §5.4 (order of fragments), §5.5 (control frames are whole).
#[inline]
fn parse_first(first: u8, room: &Room) -> Result<Opcode, Error> {
    if first & RESERVED != 0 {
        return Err(Error::ReservedBits);
    }
    let opcode = match first & !FIN {
        0 => Opcode::Continuation,
        1 => Opcode::Text,
        2 => Opcode::Binary,
        8 => Opcode::Close,
        9 => Opcode::Ping,
        10 => Opcode::Pong,
        _ => return Err(Error::Opcode),
    };
    if opcode.is_control() {
        return if first & FIN == 0 { Err(Error::FragmentedControl) } else { Ok(opcode) };
    }
    if room.inside != (opcode == Opcode::Continuation) {
        return Err(Error::Fragmentation);
    }
    if room.fragments == 0 {
        return Err(Error::ManyFragments);
    }
    Ok(opcode)
}

/// The payload's length and where the masking key starts; `None` until all of the length is there.
#[inline]
fn parse_length(short: u8, bytes: &[u8]) -> Result<Option<(u64, usize)>, Error> {
    let extension = bytes.get(2..).unwrap_or_default();
    let (len, shortest, key_at) = match short {
        126 => {
            let Some(&len) = extension.first_chunk() else { return Ok(None) };
            (u64::from(u16::from_be_bytes(len)), 126, 4)
        }
        127 => {
            let Some(&len) = extension.first_chunk() else { return Ok(None) };
            (u64::from_be_bytes(len), 0x1_0000, 10)
        }
        _ => (u64::from(short), 0, 2),
    };
    if len < shortest || len > i64::MAX as u64 {
        return Err(Error::FrameLength);
    }
    Ok(Some((len, key_at)))
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use tungstenite::protocol::frame::FrameHeader;
    use tungstenite::protocol::frame::coding::OpCode;

    use super::*;

    const ROOM: Room = Room { inside: false, fragments: 1, bytes: usize::MAX };
    const INSIDE: Room = Room { inside: true, ..ROOM };
    const LENGTHS: [usize; 9] = [0, 1, 125, 126, 127, 65_534, 65_535, 65_536, 1 << 30];

    #[test]
    fn headers_are_written_as_tungstenite_writes_them() {
        for opcode in [Opcode::Text, Opcode::Binary, Opcode::Close, Opcode::Ping, Opcode::Pong] {
            for len in LENGTHS {
                let (mut ours, mut theirs) = (Vec::new(), Vec::new());
                encode_header(opcode, len, &mut ours);
                let header = FrameHeader { opcode: OpCode::from(opcode as u8), ..FrameHeader::default() };
                header.format(len as u64, &mut theirs).unwrap();
                assert_eq!(ours, theirs);
                assert_eq!((header_len(len), payload_start(&ours)), (ours.len(), ours.len()));
            }
        }
    }

    #[test]
    fn headers_are_read_as_tungstenite_reads_them_and_wait_for_their_last_byte() {
        for (opcode, room) in [(0, INSIDE), (1, ROOM), (2, ROOM), (8, ROOM), (9, INSIDE), (10, ROOM)] {
            for len in LENGTHS.into_iter().filter(|&len| opcode < 8 || len <= 125) {
                let mut bytes = Vec::new();
                let header =
                    FrameHeader { opcode: OpCode::from(opcode), mask: Some([1, 2, 3, 4]), ..FrameHeader::default() };
                header.format(len as u64, &mut bytes).unwrap();
                let (frame, used) = parse(&bytes, &room).unwrap().unwrap();
                let (header, length) = FrameHeader::parse(&mut Cursor::new(&bytes)).unwrap().unwrap();
                assert_eq!(used, bytes.len());
                assert_eq!((frame.opcode as u8, frame.fin), (header.opcode.into(), header.is_final));
                assert_eq!((frame.left as u64, Some(frame.key.to_le_bytes())), (length, header.mask));
                for part in 0..bytes.len() {
                    assert!(parse(&bytes[..part], &room).unwrap().is_none());
                }
            }
        }
    }

    /// The error and the number of bytes at which it was found.
    fn error_at(bytes: &[u8], room: &Room) -> (Error, usize) {
        (0..=bytes.len())
            .find_map(|part| parse(&bytes[..part], room).err().map(|error| (error, part)))
            .expect("no error")
    }

    #[test]
    fn a_wrong_header_is_found_at_its_first_wrong_byte() {
        let last = Room { fragments: 0, ..INSIDE };
        let full = Room { bytes: 300, ..ROOM };
        for (bytes, room, error, at) in [
            (&b"\xC1"[..], ROOM, Error::ReservedBits, 1),
            (b"\xA1", ROOM, Error::ReservedBits, 1),
            (b"\x91", ROOM, Error::ReservedBits, 1),
            (b"\x83", ROOM, Error::Opcode, 1),
            (b"\x8F", ROOM, Error::Opcode, 1),
            (b"\x09", ROOM, Error::FragmentedControl, 1),
            (b"\x80", ROOM, Error::Fragmentation, 1),
            (b"\x81", INSIDE, Error::Fragmentation, 1),
            (b"\x80", last, Error::ManyFragments, 1),
            (b"\x81\x05", ROOM, Error::NotMasked, 2),
            (b"\x80\x05", ROOM, Error::Fragmentation, 1),
            (b"\x89\xFE", ROOM, Error::LongControl, 2),
            (b"\x89\xFF", ROOM, Error::LongControl, 2),
            (b"\x81\xFE\x00\x7D", ROOM, Error::FrameLength, 4),
            (b"\x81\xFF\x00\x00\x00\x00\x00\x00\xFF\xFF", ROOM, Error::FrameLength, 10),
            (b"\x81\xFF\x80\x00\x00\x00\x00\x00\x00\x00", ROOM, Error::FrameLength, 10),
            (b"\x81\xFE\x01\x2D", full, Error::LongMessage, 4),
            (b"\x81\xFF\x7F\xFF\xFF\xFF\xFF\xFF\xFF\xFF", full, Error::LongMessage, 10),
        ] {
            assert_eq!(error_at(bytes, &room), (error, at), "{bytes:02X?}");
        }
        assert!(parse(b"\x81\xFE\x01\x2C\0\0\0\0", &full).unwrap().is_some(), "300 of 300 bytes");
        assert!(parse(b"\x89\x80\0\0\0\0", &last).unwrap().is_some(), "a control frame is no fragment");
    }
}
