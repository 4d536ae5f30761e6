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
pub use session::{CloseWhen, ECHO_TIME, Session, State};
