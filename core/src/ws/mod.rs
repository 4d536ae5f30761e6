//! One WebSocket connection, server side (RFC 6455): from bytes to messages, with all control frames.
//!
//! [`Decoder`] turns what a client sends into [`Event`]s. [`Session`] is the life of one connection around it: it
//! answers pings and the Close, sends pings of its own, and knows when to give up. The frames of messages to the client
//! are not in it: they are shared between sessions (see [`Run`](crate::run::Run)), so the owner queues and writes them.
//!
//! An owner's part of the bargain:
//!
//! - **Read**: call [`Session::handle_read`] until it gives `None`, then drop the scratch buffer's contents.
//! - **Write**: whenever the data on its way is at the end of a frame, write [`Session::control`] first and acknowledge
//!   with [`Session::control_sent`]; then data, and [`Session::handle_progress`] for it. New data is queued only while
//!   [`Session::can_send`].
//! - **Time**: call [`Session::handle_timeout`] at [`Session::deadline`], which any other call may have changed.
//! - **End**: in [`State::Finished`] shut down the sending side and go on reading; in [`State::Ended`] drop the
//!   connection. [`Session::closed`] says why.
//!
//! ```
//! use fanfare_core::limits::Limits;
//! use fanfare_core::ws::{Decoder, Event, Message};
//!
//! let (mut decoder, limits) = (Decoder::new(), Limits::default());
//! // A client masks its frames; this key is zero.
//! let mut read = *b"\x81\x85\0\0\0\0hello\x88";
//! let mut input = &mut read[..];
//! let Some(Event::Message(Message { payload, .. })) = decoder.next(&mut input, &limits)? else { panic!("it is whole") };
//! assert_eq!(&*payload, b"hello");
//! assert_eq!(decoder.next(&mut input, &limits)?, None, "a Close has begun");
//! # Ok::<(), fanfare_core::error::Error>(())
//! ```

mod close;
mod control;
mod decoder;
pub(crate) mod frame;
mod mask;
mod session;
#[cfg(test)]
pub(crate) mod tests;

pub use close::{MAX_REASON, may_be_sent};
pub use decoder::{Decoder, Event, Message};
pub use session::{CloseWhen, ECHO_TIME, LIKELY_ECHO_TIME, Session, State};
