//! Why there is no link, for people.

use core::fmt;

use super::RedisUrl;
use crate::error::Unready;
use crate::resp::RespError;

/// Why a connection to Redis was not made or did not last. Its text is one line: what, where, and what to try.
///
/// Never contains the password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkError {
    /// Host and port.
    at: String,
    kind: LinkErrorKind,
}

/// The kinds of [`LinkError`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LinkErrorKind {
    /// No connection could be made, for this reason.
    Unreachable(String),
    /// The connection ended, for this reason.
    Closed(String),
    /// No answer came in time.
    Silent,
    /// Messages were published and did not come in.
    Undelivered,
    /// What came is not the protocol of Redis.
    NotRedis(RespError),
    /// A well-formed answer that belongs to no command.
    OutOfTurn,
    /// A password is needed and none is configured.
    PasswordMissing,
    /// User or password are refused.
    PasswordWrong,
    /// There is no such database.
    Database(u32),
    /// Redis cannot serve at the moment, with its own words: it loads its data set or has too many clients.
    NotReady(String),
    /// Another error, in the words of Redis.
    Refused(String),
}

impl LinkError {
    pub(super) fn new(url: &RedisUrl, kind: LinkErrorKind) -> Self {
        let (host, port) = (url.host(), url.port());
        let at = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
        Self { at, kind }
    }

    /// What went wrong.
    #[must_use]
    pub const fn kind(&self) -> &LinkErrorKind {
        &self.kind
    }

    /// Whether waiting alone may help, so that it is no reason to give up at once.
    #[must_use]
    pub const fn is_passing(&self) -> bool {
        matches!(self.kind, LinkErrorKind::NotReady(_))
    }
}

impl fmt::Display for LinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use LinkErrorKind as Kind;
        let at = &self.at;
        match &self.kind {
            Kind::Unreachable(reason) => {
                write!(f, "Redis at {at} cannot be reached ({reason}): is it running, are host and port right?")
            }
            Kind::Closed(reason) => {
                write!(f, "Redis at {at} ended the connection ({reason}): its own log may say why")
            }
            Kind::Silent => write!(f, "Redis at {at} does not answer: is this the port of a Redis server without TLS?"),
            Kind::Undelivered => write!(
                f,
                "Redis at {at} answers, but what is published there does not come back: do all connections reach one \
                 and the same server?"
            ),
            Kind::NotRedis(error) => write!(
                f,
                "what answers at {at} does not speak the Redis protocol ({error}): is this the port of a Redis server \
                 without TLS?"
            ),
            Kind::OutOfTurn => write!(f, "Redis at {at} answered what was not asked: is there a proxy in between?"),
            Kind::PasswordMissing => {
                write!(f, "Redis at {at} wants a password: put it into the URL, redis://user:password@host:port")
            }
            Kind::PasswordWrong => write!(f, "Redis at {at} refuses the user or the password: check them in the URL"),
            Kind::Database(number) => {
                write!(f, "Redis at {at} has no database {number}: check the number at the end of the URL")
            }
            Kind::NotReady(text) => write!(f, "Redis at {at} is not ready ({text}): wait, or look at its log"),
            Kind::Refused(text) => write!(f, "Redis at {at} refuses ({text}): check its configuration"),
        }
    }
}

impl std::error::Error for LinkError {}

impl LinkErrorKind {
    /// What it means for who asks whether the instance is ready.
    pub(super) const fn unready(&self) -> Unready {
        match self {
            Self::Unreachable(_) | Self::Closed(_) => Unready::NoConnection,
            Self::Silent => Unready::Silent,
            Self::Undelivered => Unready::Undelivered,
            Self::NotRedis(_)
            | Self::OutOfTurn
            | Self::PasswordMissing
            | Self::PasswordWrong
            | Self::Database(_)
            | Self::NotReady(_)
            | Self::Refused(_) => Unready::Refused,
        }
    }
}

/// An error reply as one short line of text that is safe to log.
///
/// Old versions echo the arguments of a command that they do not know, and AUTH is such a command somewhere: whatever
/// follows the announcement of arguments is cut off, and the password is taken out wherever it is.
pub(super) fn reply_text(reply: &[u8], url: &RedisUrl) -> String {
    let text = String::from_utf8_lossy(reply);
    let mut text = text.split("with args beginning with").next().unwrap_or_default().to_owned();
    if let Some(password) = url.password().filter(|password| !password.is_empty()) {
        text = text.replace(password, "***");
    }
    text.chars().filter(|char| !char.is_control()).take(200).collect()
}
