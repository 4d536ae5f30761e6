//! A scripted Redis, and what the link must do whatever it does.

mod answers;
mod bounds;
mod handshake;
mod incidents;
mod model;
mod probe;
mod property;
mod standing;
mod table;
mod walk;
