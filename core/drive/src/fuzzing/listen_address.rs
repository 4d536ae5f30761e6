//! Addresses to listen on, as people write them.

use crate::address::ListenAddress;

/// A text: what is accepted is written again as the same, and its host is one word.
pub fn listen_address(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let Ok(address) = text.parse::<ListenAddress>() else { return };
    let is_word = |host: &String| !host.is_empty() && !host.contains(|c: char| c.is_whitespace() || c.is_control());
    assert!(address.host.as_ref().is_none_or(is_word), "{address:?}");
    assert_eq!(address.to_string().parse(), Ok(address));
}
