//! The opening handshake of RFC 6455 §4.2, the server's side.

use bytes::Bytes;
use tungstenite::handshake::derive_accept_key;

use super::request::{Method, Request};
use crate::error::{Error, Misuse};

/// The most subprotocols that a client may offer. It bounds the cost of comparing them.
const MOST_SUBPROTOCOLS: usize = 32;

/// A valid offer to speak WebSocket, to be answered with 101.
///
/// Extensions are declined by naming none (RFC 6455 §9.1), so their field is ignored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upgrade {
    accept: String,
    /// With commas between them: they take no more memory than they took in the request.
    subprotocols: Box<str>,
}

impl Upgrade {
    /// Whether the client offered to speak that subprotocol.
    #[must_use]
    pub fn offers(&self, subprotocol: &str) -> bool {
        !subprotocol.is_empty() && self.subprotocols.split(',').any(|offered| offered == subprotocol)
    }

    /// Bytes of the subprotocols that the client offered.
    pub(crate) fn offered_bytes(&self) -> usize {
        self.subprotocols.len()
    }

    /// The complete 101, after which frames follow. `subprotocol` is one that the client offered, or none.
    ///
    /// # Errors
    /// [`Misuse::Subprotocol`] if the client did not offer `subprotocol` (RFC 6455 §4.2.2).
    pub fn answer(&self, subprotocol: Option<&str>) -> Result<Bytes, Misuse> {
        let mut answer = "HTTP/1.1 101 Switching Protocols\r\n".to_owned();
        for (name, value) in self.fields(subprotocol)? {
            answer.extend([name, ": ", value, "\r\n"]);
        }
        answer.push_str("\r\n");
        Ok(answer.into())
    }

    /// The fields of the 101, for a web server that writes it.
    ///
    /// # Errors
    /// As [`Upgrade::answer`].
    pub fn fields<'a>(&'a self, subprotocol: Option<&'a str>) -> Result<Vec<(&'static str, &'a str)>, Misuse> {
        let mut fields =
            vec![("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Accept", &*self.accept)];
        if let Some(chosen) = subprotocol {
            if !self.offers(chosen) {
                return Err(Misuse::Subprotocol);
            }
            fields.push(("Sec-WebSocket-Protocol", chosen));
        }
        Ok(fields)
    }
}

impl Request {
    /// The subprotocols that the client offers, in its order of preference. [`Request::upgrade`] checks them.
    pub fn subprotocols(&self) -> impl Iterator<Item = &str> {
        self.list("sec-websocket-protocol").filter_map(|name| core::str::from_utf8(name).ok())
    }

    /// Whether the client offers to leave HTTP for WebSocket: `Upgrade: websocket` with `Connection: upgrade`, in any
    /// case and among others. The rest of the offer can still be wrong. Over HTTP/1.0 Upgrade does not count (RFC 9110
    /// §7.8).
    #[must_use]
    pub fn wants_upgrade(&self) -> bool {
        let lists = |name, token: &[u8]| self.list(name).any(|element| element.eq_ignore_ascii_case(token));
        !self.is_http_1_0() && lists("upgrade", b"websocket") && lists("connection", b"upgrade")
    }

    /// Checks the offer by RFC 6455 §4.2.1.
    ///
    /// # Errors
    /// In this order: [`Error::Method`] for HEAD, [`Error::UpgradeRequired`] without an offer or with other than one
    /// version, 13, then [`Error::Key`], then [`Error::Subprotocol`].
    pub fn upgrade(&self) -> Result<Upgrade, Error> {
        if self.method() != Method::Get {
            return Err(Error::Method);
        }
        if !self.wants_upgrade() || self.sole("sec-websocket-version") != Some(b"13") {
            return Err(Error::UpgradeRequired);
        }
        let key = self.sole("sec-websocket-key").filter(|key| is_key(key)).ok_or(Error::Key)?;
        Ok(Upgrade { accept: derive_accept_key(key), subprotocols: self.checked_subprotocols()? })
    }

    /// The value of the field if there is exactly one.
    fn sole(&self, name: &str) -> Option<&[u8]> {
        let mut values = self.values(name);
        values.next().filter(|_| values.next().is_none())
    }

    /// Names, each once and at most 32, with commas between them. RFC 6455 §4.1 forbids clients to send an empty list,
    /// a name twice, or one that is no token, and asks no server to refuse them: an empty list offers nothing, and a
    /// name is one however often it comes.
    fn checked_subprotocols(&self) -> Result<Box<str>, Error> {
        let mut names: Vec<&str> = Vec::new();
        for name in self.list("sec-websocket-protocol") {
            let text = core::str::from_utf8(name).ok().filter(|text| text.bytes().all(is_name_byte));
            let text = text.ok_or(Error::Subprotocol)?;
            if names.contains(&text) {
                continue;
            }
            if names.len() == MOST_SUBPROTOCOLS {
                return Err(Error::Subprotocol);
            }
            names.push(text);
        }
        Ok(names.join(",").into())
    }
}

/// 16 bytes in base64 (RFC 4648 §4). The last digit has two bits of the last byte and four padding bits, which may have
/// any value (§3.5): they are not zero in the example of RFC 6455 §4.1 and on some devices, and the key is only hashed.
fn is_key(key: &[u8]) -> bool {
    let is_digit = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    let [digits @ .., b'=', b'='] = key else { return false };
    digits.len() == 22 && digits.iter().all(is_digit)
}

/// tchar of RFC 9110 §5.6.2, and `/` and `=`, which paths and base64 have and clients send.
fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~/=".contains(&byte)
}
