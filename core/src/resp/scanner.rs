//! Finds where a frame ends, in one pass over its bytes whatever pieces they come in.

use super::RespError;

/// Aggregates within each other.
const DEPTH: usize = 8;
/// Digits of a length.
const DIGITS: u8 = 9;
/// Elements of all aggregates of a frame.
const ELEMENTS: usize = 4_096;
/// Bytes of a frame that is not a message.
const REPLY_BYTES: usize = 64 << 10;
/// CR and LF.
const LINE_END: usize = 2;

/// The place in an unfinished frame.
#[derive(Clone, Debug, Default)]
pub(super) struct Scanner {
    place: Place,
    /// Elements still to come of each open aggregate; the first `depth` count.
    left: [u32; DEPTH],
    depth: usize,
    elements: usize,
    /// Bytes of the frame so far, with all of a bulk string from its length on, but without a large one.
    bytes: usize,
    shape: Shape,
}

/// What came of a piece of input.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Scan {
    /// The piece ends within the frame.
    More,
    /// A bulk string begins at this place that is above the caller's bound, or takes the frame above [`REPLY_BYTES`] with
    /// its line end. It is not counted unless the caller does so with [`Scanner::count`].
    Large { at: usize, length: usize },
    /// The frame ends before this place.
    End { at: usize, shape: Shape },
}

/// The kind of decoder that a frame needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Shape {
    #[default]
    Resp2,
    Resp3,
    /// Attributes that precede a frame and mean nothing here.
    Attributes,
}

/// What the next byte belongs to.
#[derive(Clone, Copy, Debug, Default)]
enum Place {
    #[default]
    Type,
    Length {
        kind: u8,
        negative: bool,
        digits: u8,
        value: u32,
    },
    Line {
        kind: u8,
        /// The byte before, 0 at the start.
        last: u8,
    },
    /// The LF after a CR.
    Feed(Then),
    /// The three letters and the colon before a verbatim string.
    Format {
        seen: u8,
        length: usize,
    },
    /// A bulk string with so many bytes to come, and then its CR.
    Body(usize),
}

/// What follows a line end.
#[derive(Clone, Copy, Debug)]
enum Then {
    ElementEnds,
    Body { kind: u8, length: u32 },
}

enum Step {
    Within,
    Bulk(usize),
    FrameEnds,
}

impl Scanner {
    /// Whether the next byte begins a frame.
    pub(super) const fn is_between_frames(&self) -> bool {
        self.bytes == 0
    }

    /// Reads on. Stops for a bulk string of more than `max` bytes.
    pub(super) fn scan(&mut self, input: &[u8], max: usize) -> Result<Scan, RespError> {
        let mut at = 0;
        while at < input.len() {
            if let Place::Body(left) = &mut self.place
                && *left > 0
            {
                let piece = (*left).min(input.len() - at);
                *left -= piece;
                at += piece;
                continue;
            }
            let byte = input[at];
            at += 1;
            self.count(1)?;
            match self.step(byte)? {
                Step::Within => {}
                Step::Bulk(length) if length > max || length + LINE_END > REPLY_BYTES - self.bytes => {
                    return Ok(Scan::Large { at, length });
                }
                Step::Bulk(length) => self.count(length)?,
                Step::FrameEnds => {
                    let shape = self.shape;
                    *self = Self::default();
                    return Ok(Scan::End { at, shape });
                }
            }
        }
        Ok(Scan::More)
    }

    /// Counts a bulk string of `length` bytes as part of a frame other than a message.
    pub(super) fn count(&mut self, length: usize) -> Result<(), RespError> {
        self.bytes += length;
        if self.bytes > REPLY_BYTES { Err(RespError::Size) } else { Ok(()) }
    }

    fn step(&mut self, byte: u8) -> Result<Step, RespError> {
        match self.place {
            Place::Type => self.begin(byte)?,
            Place::Length { kind, negative, digits, value } => self.length(byte, kind, negative, digits, value)?,
            Place::Line { kind, last } => self.line(byte, kind, last)?,
            Place::Format { seen, length } => {
                if (byte == b':') != (seen == 3) {
                    return Err(RespError::Value);
                }
                self.place = if seen == 3 { Place::Body(length) } else { Place::Format { seen: seen + 1, length } };
            }
            Place::Body(_) if byte == b'\r' => self.place = Place::Feed(Then::ElementEnds),
            Place::Feed(then) if byte == b'\n' => return self.line_ends(then),
            Place::Body(_) | Place::Feed(_) => return Err(RespError::Terminator),
        }
        Ok(Step::Within)
    }

    fn begin(&mut self, kind: u8) -> Result<(), RespError> {
        if !matches!(kind, b'+' | b'-' | b':' | b'$' | b'*') {
            self.shape = Shape::Resp3;
        }
        self.place = match kind {
            b'+' | b'-' | b':' | b'_' | b'#' | b',' | b'(' => Place::Line { kind, last: 0 },
            // A push stands for itself, never inside a reply.
            b'>' if self.depth > 0 => return Err(RespError::Type(kind)),
            b'$' | b'!' | b'=' | b'*' | b'>' | b'%' | b'~' | b'|' => {
                Place::Length { kind, negative: false, digits: 0, value: 0 }
            }
            b';' | b'.' => return Err(RespError::Streamed),
            _ => return Err(RespError::Type(kind)),
        };
        Ok(())
    }

    fn length(&mut self, byte: u8, kind: u8, negative: bool, digits: u8, value: u32) -> Result<(), RespError> {
        self.place = match byte {
            b'0'..=b'9' if digits < DIGITS && (digits == 0 || value > 0) => {
                Place::Length { kind, negative, digits: digits + 1, value: value * 10 + u32::from(byte - b'0') }
            }
            b'-' if digits == 0 && !negative && matches!(kind, b'$' | b'*') => {
                Place::Length { kind, negative: true, digits, value }
            }
            b'\r' if negative && value == 1 => Place::Feed(Then::ElementEnds),
            b'\r' if digits > 0 && !negative => Place::Feed(Then::Body { kind, length: value }),
            b'?' if digits == 0 => return Err(RespError::Streamed),
            _ => return Err(RespError::Length),
        };
        Ok(())
    }

    fn line(&mut self, byte: u8, kind: u8, last: u8) -> Result<(), RespError> {
        let valid = match (kind, byte) {
            (_, b'\n') => return Err(RespError::Terminator),
            (b'+' | b'-', _) => true,
            (b'_', _) => byte == b'\r',
            (b':' | b'(', b'\r') => last.is_ascii_digit(),
            (b':' | b'(', _) => byte.is_ascii_digit() || (last == 0 && matches!(byte, b'+' | b'-')),
            (_, b'\r') => last != 0,
            (b'#', _) => last == 0 && matches!(byte, b't' | b'f'),
            _ => true,
        };
        if !valid {
            return Err(RespError::Value);
        }
        self.place = if byte == b'\r' { Place::Feed(Then::ElementEnds) } else { Place::Line { kind, last: byte } };
        Ok(())
    }

    fn line_ends(&mut self, then: Then) -> Result<Step, RespError> {
        let Then::Body { kind, length } = then else { return Ok(self.element_ends()) };
        let bytes = length as usize;
        match kind {
            b'$' | b'!' => {
                self.place = Place::Body(bytes);
                return Ok(Step::Bulk(bytes));
            }
            b'=' => {
                let length = bytes.checked_sub(4).ok_or(RespError::Length)?;
                self.place = Place::Format { seen: 0, length };
                return Ok(Step::Bulk(length));
            }
            _ => {}
        }
        let elements = match kind {
            b'%' => bytes * 2,
            b'|' if self.depth == 0 => {
                self.shape = Shape::Attributes;
                bytes * 2
            }
            // Inside an aggregate attributes and the element that they precede are one element.
            b'|' => bytes * 2 + 1,
            _ => bytes,
        };
        self.open(elements)
    }

    fn open(&mut self, elements: usize) -> Result<Step, RespError> {
        if elements == 0 {
            return Ok(self.element_ends());
        }
        self.elements += elements;
        if self.elements > ELEMENTS {
            return Err(RespError::Elements);
        }
        let slot = self.left.get_mut(self.depth).ok_or(RespError::Depth)?;
        *slot = elements as u32;
        self.depth += 1;
        self.place = Place::Type;
        Ok(Step::Within)
    }

    fn element_ends(&mut self) -> Step {
        self.place = Place::Type;
        while let Some(last) = self.depth.checked_sub(1) {
            self.left[last] -= 1;
            if self.left[last] > 0 {
                return Step::Within;
            }
            self.depth = last;
        }
        Step::FrameEnds
    }
}
