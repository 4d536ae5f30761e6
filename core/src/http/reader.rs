//! Collects a request head line by line.

use memchr::{memchr, memchr_iter};

use super::request::{Method, Request};
use crate::error::Error;
use crate::limits::Limits;

/// Collects a request head from reads of any size, in linear time: each byte is searched once for the end of its line,
/// each line once for a bare CR, and the complete head is parsed once.
///
/// A bare line end or an exceeded limit is refused at its line, so the client gets the answer at once and not after
/// `head_time`. The same holds for a first byte that can begin no request line: a browser that was given `https://`
/// begins with a TLS record. The result does not depend on how the bytes were split.
#[derive(Debug, Default)]
pub struct RequestReader {
    /// At most `head_bytes`; grows with what came, never ahead of it.
    head: Vec<u8>,
    /// Where the line begins that has not ended yet.
    line: usize,
    /// Lines that ended: the request line and the fields, without the empty line that may come first.
    lines: usize,
    /// What was searched, to show that it is linear.
    #[cfg(test)]
    pub(super) searched: usize,
}

impl RequestReader {
    /// A reader that owns no memory yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next bytes of the connection.
    ///
    /// `Ok(None)`: all of `input` was taken and more is needed. `Ok(Some((request, n)))`: the head is complete and
    /// took `n` bytes of `input`; the rest is not HTTP. The reader is then as new.
    ///
    /// # Errors
    /// Every error of the request head, from [`Error::BareLf`] to [`Error::Method`], and the limits `head_bytes`
    /// ([`Error::LongTarget`] while still in the request line, then [`Error::LongHead`]) and `head_fields`. The first
    /// error is the connection's: nothing more may be read after it.
    pub fn read(&mut self, input: &[u8], limits: &Limits) -> Result<Option<(Request, usize)>, Error> {
        if self.is_empty() && input.first().is_some_and(|&byte| !may_begin(byte)) {
            return Err(Error::HeadSyntax);
        }
        let room = limits.head_bytes.saturating_sub(self.head.len());
        let input = &input[..input.len().min(room)];
        let mut taken = 0;
        for end in memchr_iter(b'\n', input) {
            self.take(&input[taken..=end], limits.head_bytes);
            taken = end + 1;
            if self.end_line(limits)? {
                // A head has one line more than fields.
                let request = Request::parse(&self.head, self.lines.saturating_sub(1))?;
                *self = Self::default();
                return Ok(Some((request, taken)));
            }
        }
        self.take(&input[taken..], limits.head_bytes);
        match self.lines {
            _ if self.head.len() < limits.head_bytes => Ok(None),
            0 => Err(Error::LongTarget),
            _ => Err(Error::LongHead),
        }
    }

    /// Whether no byte came yet, so that nobody waits for an answer.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.head.is_empty()
    }

    /// How to encode an answer to what came so far, an error included: an answer to HEAD has no body even if the head
    /// is refused (RFC 9110 §9.3.2).
    #[must_use]
    pub fn method(&self) -> Method {
        let head = self.head.strip_prefix(b"\r\n").unwrap_or(&self.head);
        if head.starts_with(b"HEAD ") { Method::Head } else { Method::Get }
    }

    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.head.capacity()
    }

    fn take(&mut self, bytes: &[u8], limit: usize) {
        let needed = self.head.len() + bytes.len();
        if needed > self.head.capacity() {
            // Doubled, but not beyond what may come.
            let room = (2 * self.head.capacity()).clamp(needed, limit.max(needed));
            self.head.reserve_exact(room - self.head.len());
        }
        self.head.extend_from_slice(bytes);
        #[cfg(test)]
        {
            self.searched += bytes.len();
        }
    }

    /// Checks the line that has just ended with LF. True: it was the empty line that ends the head.
    fn end_line(&mut self, limits: &Limits) -> Result<bool, Error> {
        let line = &self.head[self.line..];
        #[cfg(test)]
        {
            self.searched += line.len();
        }
        match memchr(b'\r', line) {
            None => return Err(Error::BareLf),
            // RFC 9112 §2.2: a bare CR makes the head invalid.
            Some(cr) if cr + 2 != line.len() => return Err(Error::HeadSyntax),
            Some(_) => {}
        }
        let is_blank = line.len() == 2;
        if is_blank && self.lines > 0 {
            return Ok(true);
        }
        // RFC 9112 §2.2 asks servers to ignore at least one empty line before the request line: one it is.
        if is_blank && self.line > 0 {
            return Err(Error::HeadSyntax);
        }
        self.line = self.head.len();
        self.lines += usize::from(!is_blank);
        if self.lines.saturating_sub(1) > limits.head_fields {
            return Err(Error::LongHead);
        }
        Ok(false)
    }
}

/// Whether a connection may begin with `byte`: the first of a method, or of the end of an empty line, which is judged
/// later.
fn may_begin(byte: u8) -> bool {
    byte.is_ascii_graphic() || matches!(byte, b'\r' | b'\n')
}
