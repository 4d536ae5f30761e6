//! Which channel a path maps to.

/// What a route's messages are. A Redis payload is bytes and carries no opcode, so the route says it once for all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameType {
    /// UTF-8 text.
    Text,
    /// Bytes.
    Binary,
}
