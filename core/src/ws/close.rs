//! The payload of a Close frame (RFC 6455 §5.5.1, §7.4).

use std::borrow::Cow;

use crate::error::Error;

/// The longest reason in bytes: a control frame carries 125, two of them the code.
pub const MAX_REASON: usize = 123;

/// Whether a Close frame may carry `code`, by RFC 6455 §7.4 and the registry that it set up.
///
/// 1004 is reserved; 1005, 1006 and 1015 are for reports to the application alone; 1016 to 2999 belong to the protocol
/// and are not assigned.
#[must_use]
pub const fn may_be_sent(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

/// Reads a client's Close: its code, unless it is empty, and its reason.
pub(super) fn parse(payload: Cow<'_, [u8]>) -> Result<(Option<u16>, Cow<'_, str>), Error> {
    match payload {
        Cow::Borrowed(payload) => read(payload).map(|(code, reason)| (code, Cow::Borrowed(reason))),
        Cow::Owned(payload) => read(&payload).map(|(code, reason)| (code, Cow::Owned(reason.to_owned()))),
    }
}

fn read(payload: &[u8]) -> Result<(Option<u16>, &str), Error> {
    let Some((code, reason)) = payload.split_first_chunk() else {
        return if payload.is_empty() { Ok((None, "")) } else { Err(Error::CloseCode) };
    };
    let code = u16::from_be_bytes(*code);
    if !may_be_sent(code) {
        return Err(Error::CloseCode);
    }
    let reason = core::str::from_utf8(reason).map_err(|_| Error::Utf8)?;
    Ok((Some(code), reason))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(payload: &[u8]) -> Result<(Option<u16>, String), Error> {
        let lent = parse(Cow::Borrowed(payload)).map(|(code, reason)| (code, reason.into_owned()));
        let kept = parse(Cow::Owned(payload.to_vec())).map(|(code, reason)| (code, reason.into_owned()));
        assert_eq!(lent, kept);
        lent
    }

    #[test]
    fn codes_are_those_of_the_rfc_and_its_registry() {
        let ranges = [1000..=1003, 1007..=1014, 3000..=4999];
        for code in 0..=u16::MAX {
            let allowed = ranges.iter().any(|range| range.contains(&code));
            assert_eq!(may_be_sent(code), allowed, "{code}");
            let expected = if allowed { Ok((Some(code), String::new())) } else { Err(Error::CloseCode) };
            assert_eq!(parsed(&code.to_be_bytes()), expected);
        }
    }

    #[test]
    fn an_empty_close_has_no_code_and_one_byte_is_not_a_code() {
        assert_eq!(parsed(b""), Ok((None, String::new())));
        assert_eq!(parsed(b"\x03"), Err(Error::CloseCode));
    }

    #[test]
    fn a_reason_is_text() {
        assert_eq!(parsed(b"\x03\xE8\xC3\xA9"), Ok((Some(1000), "\u{E9}".to_owned())));
        assert_eq!(parsed(b"\x03\xE8\xC3"), Err(Error::Utf8));
        assert_eq!(parsed(b"\x03\xED\xFF"), Err(Error::CloseCode), "the code is judged first");
    }
}
