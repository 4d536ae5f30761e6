//! Follows what a session writes from frame to frame, and looks at where the bytes lie in memory.

use std::io::IoSlice;

use super::reference::Reference;
use super::verdict::Promise;

/// Where a session's stream stands.
#[derive(Debug, Default)]
pub(super) struct Walk {
    place: Place,
}

#[derive(Debug)]
enum Place {
    /// In the answer to the request; so many bytes of its blank line were just passed.
    Head(usize),
    /// In a frame's header, of which these bytes have passed.
    Header(Vec<u8>),
    /// So many bytes of a frame are to come.
    Payload(u64),
}

impl Default for Place {
    fn default() -> Self {
        Self::Head(0)
    }
}

impl Walk {
    /// Each message must be at one address for all sessions of an instance: it is framed once.
    pub(super) fn look(
        &self,
        instance: usize,
        lent: &[IoSlice<'_>],
        reference: &mut Reference,
    ) -> Result<(), (Promise, String)> {
        // Only at the start of a frame is it known what lies where.
        let Place::Header(begun) = &self.place else { return Ok(()) };
        if !begun.is_empty() {
            return Ok(());
        }
        lent.iter().try_for_each(|slice| {
            let Some((header, _)) = frame(slice) else { return Ok(()) };
            let is_data = matches!(slice[0] & 0x0F, 1 | 2);
            let digits = slice.get(header..header + 8).filter(|_| is_data);
            let Some(digits) = digits.and_then(|digits| core::str::from_utf8(digits).ok()) else { return Ok(()) };
            let Ok(message) = u32::from_str_radix(digits, 16) else { return Ok(()) };
            reference.lies_at(instance, message, slice.as_ptr().addr())
        })
    }

    /// `n` bytes of what was lent have left.
    pub(super) fn pass(&mut self, lent: &[IoSlice<'_>], mut n: usize) {
        for slice in lent {
            let part = n.min(slice.len());
            self.pass_slice(&slice[..part]);
            n -= part;
        }
    }

    fn pass_slice(&mut self, mut bytes: &[u8]) {
        while let Some((&first, rest)) = bytes.split_first() {
            match &mut self.place {
                Place::Head(blank) => {
                    *blank = if first == b"\r\n\r\n"[*blank] { *blank + 1 } else { usize::from(first == b'\r') };
                    if *blank == 4 {
                        self.place = Place::Header(Vec::new());
                    }
                    bytes = rest;
                }
                Place::Header(begun) => {
                    begun.push(first);
                    if let Some((_, payload)) = frame(begun) {
                        self.place = if payload == 0 { Place::Header(Vec::new()) } else { Place::Payload(payload) };
                    }
                    bytes = rest;
                }
                Place::Payload(left) => {
                    let part = bytes.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                    *left -= part as u64;
                    if *left == 0 {
                        self.place = Place::Header(Vec::new());
                    }
                    bytes = &bytes[part..];
                }
            }
        }
    }
}

/// Lengths of the header and payload of a server's frame; `None` while the header is not whole.
fn frame(bytes: &[u8]) -> Option<(usize, u64)> {
    match bytes.get(1)? {
        126 => Some((4, u16::from_be_bytes(*bytes.get(2..)?.first_chunk()?).into())),
        127 => Some((10, u64::from_be_bytes(*bytes.get(2..)?.first_chunk()?))),
        &len => Some((2, len.into())),
    }
}
