//! Control frames on their way to a client (RFC 6455 §5.5), and the notes that leave with them.

use crate::error::Misuse;

use super::frame::{Opcode, encode_header};

/// Unsent bytes beyond which pongs that have not begun to leave give way to the latest one.
const MAX_UNSENT: usize = 2048;

/// The control frames that wait. Empty, it owns no memory.
#[derive(Debug, Default)]
pub(super) struct Control {
    /// Whole frames, of which only the first may have begun to leave.
    bytes: Vec<u8>,
    /// How much of the first frame has left.
    begun: u8,
    /// The length of the Close, which is the last frame; 0 without one.
    close: u8,
    /// Whether the Close lets the owner's data go first.
    after_data: bool,
}

impl Control {
    /// What may go out now.
    pub(super) fn lend(&self, data_pending: bool) -> &[u8] {
        let begun = usize::from(self.begun);
        let close_at = self.bytes.len() - usize::from(self.close);
        let held = data_pending && self.after_data && begun <= close_at;
        &self.bytes[begun..if held { close_at } else { self.bytes.len() }]
    }

    /// Notes that `n` bytes have left. `true` if the Close was among them and is out.
    pub(super) fn sent(&mut self, n: usize) -> Result<bool, Misuse> {
        if n > self.unsent() {
            return Err(Misuse::TooMuchTransmitted);
        }
        let left = usize::from(self.begun) + n;
        let mut whole = 0;
        while let Some(end) = self.frame_end(whole).filter(|&end| end <= left) {
            whole = end;
        }
        self.bytes.drain(..whole);
        self.begun = (left - whole) as u8;
        if self.bytes.is_empty() {
            let close_out = self.close > 0;
            *self = Self::default();
            return Ok(close_out);
        }
        Ok(false)
    }

    /// Queues a ping, unless so much is waiting that it could not reach the client in time anyway.
    pub(super) fn ping(&mut self) {
        if self.unsent() < MAX_UNSENT {
            encode_header(Opcode::Ping, 0, &mut self.bytes);
        }
    }

    /// Whether a ping waits that has not left whole.
    pub(super) fn has_ping(&self) -> bool {
        let mut at = 0;
        while let Some(end) = self.frame_end(at) {
            if self.bytes[at] & 0xF == Opcode::Ping as u8 {
                return true;
            }
            at = end;
        }
        false
    }

    /// Queues the answer to a ping. A client that asks faster than it reads gets only the latest (RFC 6455 §5.5.3).
    pub(super) fn pong(&mut self, payload: &[u8]) {
        if self.unsent() + payload.len() > MAX_UNSENT {
            let note = self.take_note();
            self.bytes.truncate(self.begun_end());
            self.bytes.extend(note.into_iter().flatten());
        }
        encode_header(Opcode::Pong, payload.len(), &mut self.bytes);
        self.bytes.extend_from_slice(payload);
    }

    /// Queues a binary message of at most 125 bytes that has no place among the owner's data, instead of one that has
    /// not begun to leave.
    pub(super) fn note(&mut self, payload: &[u8]) {
        self.take_note();
        encode_header(Opcode::Binary, payload.len(), &mut self.bytes);
        self.bytes.extend_from_slice(payload);
    }

    /// Queues the Close, after which nothing more may be queued. `reason` is at most `MAX_REASON` bytes.
    pub(super) fn close(&mut self, code: Option<u16>, reason: &str, after_data: bool) {
        let code = code.map(u16::to_be_bytes);
        let code = code.as_ref().map_or(&[][..], |code| code);
        let start = self.bytes.len();
        encode_header(Opcode::Close, code.len() + reason.len(), &mut self.bytes);
        self.bytes.extend_from_slice(code);
        self.bytes.extend_from_slice(reason.as_bytes());
        self.close = (self.bytes.len() - start) as u8;
        self.after_data = after_data;
    }

    /// Lets a queued Close go ahead of the owner's data.
    pub(super) const fn hurry(&mut self) {
        self.after_data = false;
    }

    fn take_note(&mut self) -> Option<Vec<u8>> {
        let mut at = self.begun_end();
        while let Some(end) = self.frame_end(at) {
            if self.bytes[at] & 0xF == Opcode::Binary as u8 {
                return Some(self.bytes.drain(at..end).collect());
            }
            at = end;
        }
        None
    }

    /// Where the frame ends that has begun to leave.
    fn begun_end(&self) -> usize {
        if self.begun > 0 { self.frame_end(0).unwrap_or_default() } else { 0 }
    }

    fn unsent(&self) -> usize {
        self.bytes.len() - usize::from(self.begun)
    }

    /// Where the frame at `start` ends, if there is one; a short frame's length is always in its second byte.
    fn frame_end(&self, start: usize) -> Option<usize> {
        self.bytes.get(start + 1).map(|&len| start + 2 + usize::from(len))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ws::tests::client_reads;

    #[test]
    fn pongs_leave_in_order_and_no_memory_stays() {
        let mut control = Control::default();
        control.pong(b"one");
        control.ping();
        control.pong(b"two");
        assert_eq!(control.lend(true), b"\x8A\x03one\x89\x00\x8A\x03two");
        for left in (0..12).rev() {
            assert_eq!(control.sent(1), Ok(false));
            assert_eq!(control.lend(true).len(), left);
        }
        assert_eq!((control.bytes.capacity(), control.begun), (0, 0));
    }

    /// `MAX_UNSENT` bytes of pongs: 16 of 124 bytes of payload and one of 30.
    fn full() -> Control {
        let mut control = Control::default();
        for i in 0..16 {
            control.pong(&[i; 124]);
        }
        control.pong(&[16; 30]);
        assert_eq!(control.unsent(), MAX_UNSENT);
        control
    }

    #[test]
    fn at_the_bound_every_pong_waits_and_above_it_only_the_latest() {
        assert_eq!(client_reads(full().lend(true)).len(), 17);
        let mut control = full();
        control.pong(b"");
        assert_eq!(
            client_reads(control.lend(true)).len(),
            18,
            "the bound counts what waits, not the newcomer's header"
        );
        control.pong(b"latest");
        assert_eq!(control.lend(true), b"\x8A\x06latest");
    }

    #[test]
    fn a_pong_that_has_begun_to_leave_is_finished() {
        let mut control = full();
        let begun = control.lend(true)[..60].to_vec();
        control.sent(60).unwrap();
        control.pong(&[17; 50]);
        assert!(control.lend(true).len() > MAX_UNSENT - 60);
        control.pong(&[18; 100]);
        let sent = [&begun, control.lend(true)].concat();
        let pongs: Vec<_> = client_reads(&sent).into_iter().map(tungstenite::Message::into_data).collect();
        assert_eq!(pongs, [vec![0; 124], vec![18; 100]]);
    }

    #[test]
    fn a_client_that_never_reads_its_pongs_costs_a_bounded_amount() {
        let mut control = Control::default();
        for i in 0..10_000_usize {
            control.pong(&[0; 125][..i % 126]);
            if i % 3 == 0 {
                control.sent(1).unwrap();
            }
            assert!(control.bytes.len() <= MAX_UNSENT + 2 * 127);
        }
    }

    #[test]
    fn of_several_notes_the_latest_leaves_beside_one_that_has_begun_to() {
        let mut control = Control::default();
        control.note(b"first");
        control.pong(b"");
        control.note(b"second");
        assert_eq!(control.lend(true), b"\x8A\x00\x82\x06second");
        control.sent(5).unwrap();
        control.note(b"third");
        control.note(b"fourth");
        assert_eq!(control.lend(true), b"econd\x82\x06fourth");
    }

    #[test]
    fn pongs_that_give_way_take_no_note_with_them() {
        let mut control = full();
        control.note(b"note");
        control.pong(b"latest");
        assert_eq!(control.lend(true), b"\x82\x04note\x8A\x06latest");
    }

    #[test]
    fn a_ping_is_not_added_to_a_full_queue() {
        let mut control = full();
        control.ping();
        assert_eq!(control.unsent(), MAX_UNSENT);
        control.sent(1).unwrap();
        control.ping();
        assert_eq!(control.unsent(), MAX_UNSENT + 1);
    }

    #[test]
    fn a_close_waits_for_data_until_it_has_begun_to_leave() {
        let mut control = Control::default();
        control.pong(b"");
        control.close(Some(1000), "", true);
        assert_eq!(control.lend(true), b"\x8A\x00");
        assert_eq!(control.lend(false), b"\x8A\x00\x88\x02\x03\xE8");
        assert_eq!(control.sent(2), Ok(false));
        assert_eq!(control.lend(true), b"");
        assert_eq!(control.sent(1), Ok(false));
        assert_eq!(control.lend(true), b"\x02\x03\xE8");
        assert_eq!(control.sent(4), Err(Misuse::TooMuchTransmitted));
        assert_eq!(control.sent(3), Ok(true));
    }

    #[test]
    fn a_close_in_a_hurry_does_not_wait() {
        let mut control = Control::default();
        control.close(None, "", true);
        assert_eq!(control.lend(true), b"");
        control.hurry();
        assert_eq!(control.lend(true), b"\x88\x00");
    }
}
