//! Escapes and cuts text of peers for log lines and answers.
//!
//! ```
//! use fanfare_core::quote::Quoted;
//!
//! assert_eq!(Quoted("tea\n\u{1b}[1m").to_string(), r#""tea\n\u{1b}[1m""#);
//! ```

use core::fmt::{self, Write};
use std::borrow::Cow;

/// The most characters of a peer's text in one line.
const MOST: usize = 200;

/// A peer's text in quotes, at most 200 characters and their quotes long.
///
/// Characters that end a line, turn its direction, take no room or steer a terminal are escaped as in Rust. What is
/// left out of a longer text shows as `…` behind the quotes.
pub struct Quoted<'a>(pub &'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut room = MOST;
        f.write_char('"')?;
        for char in self.0.chars() {
            let escaped = char.escape_debug();
            // A single quote says nothing within double ones.
            let width = if char == '\'' { 1 } else { escaped.len() };
            let Some(left) = room.checked_sub(width) else { return f.write_str("\"…") };
            room = left;
            if width == 1 { f.write_char(char)? } else { write!(f, "{escaped}")? }
        }
        f.write_char('"')
    }
}

/// Writes text with every character escaped that ends a line, turns its direction, takes no room or steers a terminal.
pub struct Plain<W>(pub W);

impl<W: Write> Write for Plain<W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.chars().try_for_each(|char| match char {
            '"' | '\'' | '\\' => self.0.write_char(char),
            _ => write!(self.0, "{}", char.escape_debug()),
        })
    }
}

/// The first 200 characters of a peer's text, for a field of the log, which escapes by itself.
pub(crate) fn cut(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(MOST) {
        None => text.into(),
        Some((end, _)) => format!("{}…", &text[..end]).into(),
    }
}

/// As [`cut`], of bytes that need not be UTF-8.
pub(crate) fn cut_bytes(bytes: &[u8]) -> Cow<'_, str> {
    match String::from_utf8_lossy(&bytes[..bytes.len().min(4 * MOST + 4)]) {
        Cow::Borrowed(text) => cut(text),
        Cow::Owned(text) => cut(&text).into_owned().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quoted(text: &str) -> String {
        Quoted(text).to_string()
    }

    #[test]
    fn what_could_be_read_as_something_else_is_escaped() {
        assert_eq!(quoted("chat:tea"), r#""chat:tea""#);
        assert_eq!(quoted("o'clock"), "\"o'clock\"");
        assert_eq!(quoted("a\" x=\"b\\"), r#""a\" x=\"b\\""#);
        for char in
            "\n\r\t\0\u{1b}\u{7f}\u{85}\u{200b}\u{200f}\u{2028}\u{2029}\u{202e}\u{2066}\u{feff}\u{e0041}".chars()
        {
            let line = quoted(&format!("a{char}b"));
            assert!(!line.contains(char), "{line}");
        }
    }

    #[test]
    fn plain_text_is_one_line_as_it_was() {
        let mut plain = Plain(String::new());
        plain.write_str("it's \"é\" \\ \u{1b}[31m\n\u{202e}").expect("room");
        assert_eq!(plain.0, "it's \"é\" \\ \\u{1b}[31m\\n\\u{202e}");
    }

    #[test]
    fn a_long_text_is_cut_with_its_escapes() {
        assert_eq!(quoted(&"é".repeat(200)), format!("\"{}\"", "é".repeat(200)));
        assert_eq!(quoted(&"é".repeat(201)), format!("\"{}\"…", "é".repeat(200)));
        for long in ["\u{300}", "\u{10ffff}", "\n"] {
            let line = quoted(&long.repeat(10_000));
            assert!(line.chars().count() <= MOST + 3, "{line}");
            assert!(line.ends_with("\"…"));
        }
    }

    #[test]
    fn fields_are_cut_between_characters() {
        assert_eq!(cut("tea"), "tea");
        assert_eq!(cut(&"🍵".repeat(201)), format!("{}…", "🍵".repeat(200)));
        assert_eq!(cut_bytes("🍵".repeat(9_000).as_bytes()), format!("{}…", "🍵".repeat(200)));
        assert_eq!(cut_bytes(b"a\xffb"), "a\u{fffd}b");
        assert_eq!(cut_bytes(&[0xff; 9_000]).chars().count(), MOST + 1);
    }
}
