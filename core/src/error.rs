//! Errors of a client's connection, in families, and the table of the status or close code that the peer gets for each.
//!
//! ```
//! use fanfare_core::error::{Error, Family, Told};
//!
//! assert_eq!(Error::SlowHead.told(), Told::Status(408));
//! assert_eq!((Error::SlowReader.told(), Error::SlowReader.family()), (Told::Close(1013), Family::Limit));
//! ```

use core::fmt;

/// Whose fault an [`Error`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// The bytes do not follow the grammar.
    Malformed,
    /// The grammar is kept, the protocol is not.
    Violation,
    /// A bound of [`Limits`](crate::limits::Limits) is exceeded.
    Limit,
}

/// Why an instance cannot deliver messages from end to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Unready {
    /// A connection to Redis is missing.
    NoConnection,
    /// Redis accepts connections and does not answer on them.
    Silent,
    /// Redis answers and cannot be used: it wants another password, or is no Redis. The log has the reason.
    Refused,
    /// Redis cannot serve at the moment: it loads its data set, or runs a script.
    Busy,
    /// Redis is a replica: messages published there do not reach the other instances.
    Replica,
    /// Not every wanted channel is confirmed on the present connection.
    Subscribing,
    /// Every channel is confirmed, and no probe has come back yet.
    Unproven,
    /// Redis answers, and probes do not come back.
    Undelivered,
    /// Redis does not allow this user to probe, so delivery cannot be proven. The log says what to allow.
    ProbeRefused,
    /// The instance is shutting down.
    Draining,
}

impl Unready {
    /// Every reason, for tables and tests.
    pub const ALL: [Self; 10] = [
        Self::NoConnection,
        Self::Silent,
        Self::Refused,
        Self::Busy,
        Self::Replica,
        Self::Subscribing,
        Self::Unproven,
        Self::Undelivered,
        Self::ProbeRefused,
        Self::Draining,
    ];

    /// One line that is safe to show to anybody: it has no address, channel or text of Redis.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::NoConnection => "no connection to Redis",
            Self::Silent => "Redis does not answer",
            Self::Refused => "Redis refuses this instance",
            Self::Busy => "Redis cannot serve at the moment",
            Self::Replica => "this Redis is a replica and does not reach the other instances",
            Self::Subscribing => "the subscriptions are not confirmed yet",
            Self::Unproven => "delivery through Redis is not proven yet",
            Self::Undelivered => "Redis does not deliver what is published",
            Self::ProbeRefused => "Redis does not allow the probe",
            Self::Draining => "this instance is shutting down",
        }
    }
}

impl fmt::Display for Unready {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

impl std::error::Error for Unready {}

/// What the peer gets for an [`Error`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// A complete HTTP answer with this status; nothing more is parsed.
    Status(u16),
    /// A Close frame with this code (RFC 6455 §7.4.1).
    Close(u16),
    /// The one before the 101, the other after it: somebody else may have sent that for us.
    Either {
        /// Of the HTTP answer.
        status: u16,
        /// Of the Close frame.
        code: u16,
    },
    /// Nothing: the connection is dropped.
    Nothing,
}

impl Told {
    /// The status of an HTTP answer, if one tells it.
    #[must_use]
    pub const fn status(self) -> Option<u16> {
        if let Self::Status(status) | Self::Either { status, .. } = self { Some(status) } else { None }
    }

    /// The code of a Close frame, if one tells it.
    #[must_use]
    pub const fn code(self) -> Option<u16> {
        if let Self::Close(code) | Self::Either { code, .. } = self { Some(code) } else { None }
    }
}

/// Why the instance closes a session whose client has made no mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Farewell {
    /// The instance shuts down.
    GoingAway,
    /// A gap concerns the session, and its route closes for that ([`OnGap::Close`](crate::route::OnGap::Close)).
    Gap,
}

impl Farewell {
    /// The code of the Close (RFC 6455 §7.4.1).
    #[must_use]
    pub const fn code(self) -> u16 {
        match self {
            Self::GoingAway => 1001,
            Self::Gap => 1012,
        }
    }

    /// The reason in the Close.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::GoingAway => "the server is going away",
            Self::Gap => "messages may have been missed, connect again",
        }
    }
}

macro_rules! errors {
    ($($(#[$doc:meta])* $name:ident => $family:ident, $told:expr, $text:literal;)*) => {
        /// The first error of a connection. It ends the connection and stays its error.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[non_exhaustive]
        pub enum Error { $($(#[$doc])* $name,)* }

        impl Error {
            /// Every error, for tables and tests.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            const fn row(self) -> (Family, Told, &'static str) {
                match self { $(Self::$name => (Family::$family, $told, $text),)* }
            }
        }
    };
}

errors! {
    // Request head: RFC 9112 and RFC 6455 §4.2.
    /// A line ends in LF without CR (RFC 9112 §2.2).
    BareLf => Malformed, Told::Status(400), "a line ends in LF without CR";
    /// Not the syntax of a request head: obs-fold, NUL, a blank before a colon, or anything else that RFC 9112 refuses.
    HeadSyntax => Malformed, Told::Status(400), "not a valid HTTP/1.1 request head";
    /// Neither origin-form nor absolute-form (RFC 9112 §3.2), or a character that another server could take for the end
    /// of the target or for a slash: a control character, a blank, `#`, or `\` in the path.
    Target => Malformed, Told::Status(400), "not a valid request target";
    /// A major version other than 1 (RFC 9110 §15.6.6).
    HttpVersion => Violation, Told::Status(505), "only HTTP/1.1 and HTTP/1.0 are spoken here";
    /// More than one Host, an invalid one, or none over HTTP/1.1 (RFC 9112 §3.2).
    Host => Violation, Told::Status(400), "exactly one valid Host header is required";
    /// A body is announced: Content-Length above 0, an invalid one, or Transfer-Encoding.
    Body => Violation, Told::Status(400), "a request here has no body";
    /// A method other than GET and HEAD.
    Method => Violation, Told::Status(405), "only GET and HEAD are answered here";
    /// The path is on no route and no page.
    NotFound => Violation, Told::Status(404), "nothing is here";
    /// A request for a socket's path without a complete offer to upgrade, or with a version other than 13.
    UpgradeRequired => Violation, Told::Status(426), "this path speaks WebSocket version 13";
    /// No Sec-WebSocket-Key, more than one, or not 16 bytes in base64 (RFC 6455 §4.2.1).
    Key => Violation, Told::Status(400), "exactly one Sec-WebSocket-Key of 16 bytes in base64 is required";
    /// Sec-WebSocket-Protocol is not a list of names (RFC 6455 §4.1), or has more than 32.
    Subprotocol => Violation, Told::Status(400), "Sec-WebSocket-Protocol is not a list of at most 32 names";
    /// The name in the path is not UTF-8, too long or has control characters.
    RoomName => Violation, Told::Status(400), "the name in the path is too long or not plain text";
    /// Origin is another site's.
    Origin => Violation, Told::Status(403), "pages of this origin may not connect";
    /// The embedder or a route's rights refuse.
    Forbidden => Violation, Told::Status(403), "not allowed";
    /// The request line alone is beyond `head_bytes`.
    LongTarget => Limit, Told::Status(414), "the request line is too long";
    /// The head is beyond `head_bytes` or `head_fields`.
    LongHead => Limit, Told::Status(431), "the request head is too large";
    /// The head was not complete within `head_time`.
    SlowHead => Limit, Told::Status(408), "the request head took too long";
    /// The channel was not confirmed within `confirm_time`.
    NotConfirmed => Limit, Told::Either { status: 503, code: 1013 }, "the channel cannot be subscribed right now";
    /// The instance is shutting down or full.
    Unavailable => Limit, Told::Either { status: 503, code: 1001 }, "this server takes no new connections right now";

    // Frames: RFC 6455 §5.
    /// A client's frame is not masked (§5.1).
    NotMasked => Violation, Told::Close(1002), "a frame is not masked";
    /// A reserved bit is set without an extension (§5.2).
    ReservedBits => Violation, Told::Close(1002), "a reserved bit is set";
    /// An opcode that RFC 6455 reserves (§5.2).
    Opcode => Violation, Told::Close(1002), "a reserved opcode";
    /// The length is not in its shortest form, or its top bit is set (§5.2).
    FrameLength => Malformed, Told::Close(1002), "a frame's length is not in its shortest form";
    /// A control frame beyond 125 bytes (§5.5).
    LongControl => Violation, Told::Close(1002), "a control frame is too long";
    /// A fragmented control frame (§5.5).
    FragmentedControl => Violation, Told::Close(1002), "a control frame is fragmented";
    /// A continuation without a beginning, or a new message inside another (§5.4).
    Fragmentation => Violation, Told::Close(1002), "a message's fragments are out of order";
    /// A Close of one byte or with a code that may not be sent (§7.4).
    CloseCode => Violation, Told::Close(1002), "an invalid close code";
    /// A text message or a Close's reason is not UTF-8 (§8.1).
    Utf8 => Malformed, Told::Close(1007), "text is not UTF-8";
    /// A binary message on a text route, or text on a binary route.
    FrameType => Violation, Told::Close(1003), "this route takes the other frame type";
    /// The session may not publish.
    ReadOnly => Violation, Told::Close(1008), "this route takes no messages";
    /// A message beyond `message_bytes`.
    LongMessage => Limit, Told::Close(1009), "a message is too big";
    /// A message of more than `message_fragments`.
    ManyFragments => Limit, Told::Close(1009), "a message has too many fragments";
    /// All unfinished messages together are beyond `partial_bytes`, and this one began first.
    PartialFull => Limit, Told::Close(1013), "too many unfinished messages, try again later";
    /// A message was not complete within `message_time` of its first byte.
    SlowMessage => Limit, Told::Close(1013), "a message took too long to arrive";
    /// The session's queue is beyond `queue_bytes`, or all queues beyond `all_queues_bytes`.
    SlowReader => Limit, Told::Close(1013), "reads too slowly";
    /// No credit to publish came within `pause_time`.
    NoCredit => Limit, Told::Close(1013), "messages cannot be taken right now, try again later";
    /// No sign of life within `pong_time` of a ping.
    PongTimeout => Limit, Told::Nothing, "no answer to a ping";
    /// The peer did not end its side within `close_time`.
    CloseTimeout => Limit, Told::Nothing, "the closing handshake was not answered";
}

impl Error {
    /// Whose fault it is.
    #[must_use]
    pub const fn family(self) -> Family {
        self.row().0
    }

    /// What the peer gets.
    #[must_use]
    pub const fn told(self) -> Told {
        self.row().1
    }

    /// One plain sentence without a full stop: the body of the HTTP answer, or the reason of the Close.
    #[must_use]
    pub const fn text(self) -> &'static str {
        self.row().2
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

impl std::error::Error for Error {}

/// A call that the state does not allow. Nothing has changed; the caller has a bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Misuse {
    /// The session has ended, or never existed.
    NoSuchSession,
    /// The session's state does not allow the call.
    WrongState,
    /// The channel has no such subscriber.
    NoSuchSubscriber,
    /// The bus was made for fewer workers.
    NoSuchWorker,
    /// A channel's name is empty, longer than [`Limits::channel_bytes`](crate::limits::Limits::channel_bytes), or one
    /// of those that instances use themselves.
    ChannelName,
    /// The channel carries the other frame type.
    FrameType,
    /// A client of a binary channel cannot be sent [notes](crate::note): only a channel of text has them.
    Notes,
    /// A message is longer than [`Limits::message_bytes`](crate::limits::Limits::message_bytes).
    MessageSize,
    /// A message for a channel of text is not UTF-8.
    Utf8,
    /// The client did not offer this subprotocol (RFC 6455 §4.2.2).
    Subprotocol,
    /// An answer's status is not 200 to 599.
    Status,
    /// A code that no Close frame may carry ([`may_be_sent`](crate::ws::may_be_sent)).
    CloseCode,
    /// The reason of a Close frame is longer than [`MAX_REASON`](crate::ws::MAX_REASON).
    CloseReason,
    /// More bytes were acknowledged than were lent.
    TooMuchTransmitted,
}

impl fmt::Display for Misuse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoSuchSession => "no such session",
            Self::WrongState => "the session's state does not allow this call",
            Self::NoSuchSubscriber => "the channel has no such subscriber",
            Self::NoSuchWorker => "the bus was made for fewer workers",
            Self::ChannelName => "the channel's name is empty, too long or reserved",
            Self::FrameType => "the channel carries the other frame type",
            Self::Notes => "a binary channel has no notes",
            Self::MessageSize => "the message is too long",
            Self::Utf8 => "the message for a channel of text is not UTF-8",
            Self::Subprotocol => "the client did not offer this subprotocol",
            Self::Status => "the status of an answer is 200 to 599",
            Self::CloseCode => "a Close frame may not carry this code",
            Self::CloseReason => "the reason of a Close frame is too long",
            Self::TooMuchTransmitted => "more was acknowledged than lent",
        })
    }
}

impl std::error::Error for Misuse {}

/// How a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Closed {
    /// The side that ended it.
    pub by: Side,
    /// The close code that was first sent or received, if the session got that far.
    pub code: Option<u16>,
    /// The error that ended it, if one did.
    pub error: Option<Error>,
}

/// The side that ended a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// This instance.
    Local,
    /// The client, by a Close frame or by ending its stream.
    Peer,
    /// The network: a reset, or a stream that ended in the middle.
    Transport,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_tells_the_peer_something_it_may_be_told() {
        for error in Error::ALL {
            match error.told() {
                Told::Status(status) => assert!((400..=505).contains(&status), "{error:?}"),
                Told::Close(code) => assert!([1002, 1003, 1007, 1008, 1009, 1013].contains(&code), "{error:?}"),
                Told::Either { status, code } => assert!(status == 503 && [1001, 1013].contains(&code), "{error:?}"),
                Told::Nothing => assert_eq!(error.family(), Family::Limit),
            }
            assert!(error.text().len() <= 123, "a reason fits a control frame: {error:?}");
        }
    }
}
