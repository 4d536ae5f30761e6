//! Fanfare on tokio.
