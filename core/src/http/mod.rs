//! The HTTP of a connection's first and only request, in the strict reading of RFC 9110, RFC 9112 and RFC 6455 §4.2.
//! HTTP/1.0 and minor versions above 1.1 are accepted for plain requests, because load balancers send them.
//!
//! ```text
//! bytes ──▶ RequestReader ──▶ Request ──▶ Request::upgrade ──▶ Upgrade::answer ──▶ frames follow
//!                │               │               │
//!                └──── Error ────┴───────────────┴──▶ Answer::for_error ──▶ the connection closes
//! ```
//!
//! A connection carries one request. It becomes a WebSocket session, or gets one plain [`Answer`] that closes it;
//! after a refusal nothing more is parsed, so a second request cannot be smuggled through a proxy that takes a refused
//! upgrade for a tunnel.
//!
//! ```
//! use fanfare_core::http::{Answer, RequestReader};
//! use fanfare_core::limits::Limits;
//!
//! let mut reader = RequestReader::new();
//! let input = b"GET /chat/tea HTTP/1.1\r\nHost: example.org\r\n\r\n";
//! match reader.read(input, &Limits::default()) {
//!     Ok(None) => {} // read more
//!     Ok(Some((request, taken))) => {
//!         assert_eq!((request.path(), request.host(), taken), ("/chat/tea", "example.org", input.len()));
//!         let error = request.upgrade().expect_err("it does not ask for a WebSocket");
//!         let answer = Answer::for_error(error).encode(request.method());
//!         assert!(answer.starts_with(b"HTTP/1.1 426 "));
//!     }
//!     Err(error) => drop(Answer::for_error(error).encode(reader.method())),
//! }
//! ```

mod answer;
mod authority;
mod cidr;
mod client;
mod date;
mod origin;
mod reader;
mod request;
#[cfg(test)]
mod tests;
mod upgrade;

pub use answer::Answer;
#[cfg(feature = "fuzzing")]
pub(crate) use authority::Authority;
pub use cidr::{Cidr, CidrError};
pub use client::Client;
pub use origin::{AllowedHost, AllowedHostError, AllowedOrigin, AllowedOriginError, OriginPolicy, OriginRefused};
pub use reader::RequestReader;
pub use request::{Method, Request};
pub use upgrade::Upgrade;
