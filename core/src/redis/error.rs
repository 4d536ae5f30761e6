//! Errors of the link, as texts for people.

use core::fmt;

use super::RedisUrl;
use super::answers::Answer;
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
    /// The connection ended before anything was answered, for this reason.
    ClosedAtOnce(String),
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
    /// Redis cannot serve at the moment, with its own words: it loads its data set, runs a script or has too many clients.
    NotReady(String),
    /// This Redis is a replica: what is published there reaches nobody else.
    Replica,
    /// This Redis names another one to ask, in its own words.
    Elsewhere(String),
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
        !matches!(
            self.kind,
            LinkErrorKind::NotRedis(_)
                | LinkErrorKind::OutOfTurn
                | LinkErrorKind::PasswordMissing
                | LinkErrorKind::PasswordWrong
                | LinkErrorKind::Database(_)
                | LinkErrorKind::Refused(_)
        )
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
            Kind::ClosedAtOnce(reason) => write!(
                f,
                "Redis at {at} ended the connection before it answered ({reason}): is this the port of a Redis server \
                 without TLS?"
            ),
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
            Kind::OutOfTurn => write!(f, "Redis at {at} sent an unexpected reply: is there a proxy in between?"),
            Kind::PasswordMissing => {
                write!(f, "Redis at {at} wants a password: put it into the URL, redis://user:password@host:port")
            }
            Kind::PasswordWrong => write!(f, "Redis at {at} refuses the user or the password: check them in the URL"),
            Kind::Database(number) => {
                write!(f, "Redis at {at} has no database {number}: check the number at the end of the URL")
            }
            Kind::NotReady(text) => write!(f, "Redis at {at} is not ready ({text}): wait, or look at its log"),
            Kind::Replica => write!(
                f,
                "Redis at {at} is a replica: what is published there does not reach the others; name its primary"
            ),
            Kind::Elsewhere(text) => write!(
                f,
                "Redis at {at} is not the one to ask any more ({text}): a replica, or one of a cluster; name a primary"
            ),
            Kind::Refused(text) => write!(f, "Redis at {at} refuses ({text}): {}", advice(text)),
        }
    }
}

impl std::error::Error for LinkError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.kind {
            LinkErrorKind::NotRedis(error) => Some(error),
            _ => None,
        }
    }
}

/// What to try about an error reply.
pub(super) fn advice(text: &str) -> &'static str {
    match Answer::of(text.as_bytes()) {
        Answer::NotAllowed => "give this user the permission",
        Answer::Unknown => "is this a Redis server? Sentinel and some proxies have no Pub/Sub",
        Answer::NotNow => "wait, or look at its log",
        Answer::LoggedOut | Answer::WrongLogin => "check the password in the URL",
        Answer::Elsewhere => "name a primary",
        Answer::Broken | Answer::Refused => "check its configuration",
    }
}

impl LinkErrorKind {
    /// What an error reply means that ends a connection.
    pub(super) fn of(error: &[u8], url: &RedisUrl) -> Self {
        let text = reply_text(error, url);
        match Answer::of(error) {
            Answer::LoggedOut if url.password().is_none() => Self::PasswordMissing,
            Answer::LoggedOut | Answer::WrongLogin => Self::PasswordWrong,
            Answer::NotNow => Self::NotReady(text),
            Answer::Elsewhere => Self::Elsewhere(text),
            Answer::NotAllowed | Answer::Unknown | Answer::Broken | Answer::Refused => Self::Refused(text),
        }
    }

    /// What it means for the readiness of the instance.
    pub(super) const fn unready(&self) -> Unready {
        match self {
            Self::Unreachable(_) | Self::Closed(_) | Self::ClosedAtOnce(_) => Unready::NoConnection,
            Self::Silent => Unready::Silent,
            Self::Undelivered => Unready::Undelivered,
            Self::NotRedis(_)
            | Self::OutOfTurn
            | Self::PasswordMissing
            | Self::PasswordWrong
            | Self::Database(_)
            | Self::Refused(_) => Unready::Refused,
            Self::NotReady(_) => Unready::Busy,
            Self::Replica | Self::Elsewhere(_) => Unready::Replica,
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
