//! The handshake of a connection to Redis: from connected to ready for commands.

use std::collections::VecDeque;

use tracing::warn;

use super::answers::Answer;
use super::error::LinkErrorKind;
use super::{Lane, RedisUrl};
use crate::resp::{Reply, encode, is_replica};

/// A command of the handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Hello,
    Auth,
    /// AUTH without the user, as servers know it that have no users.
    AuthAlone,
    SetName,
    Select,
    /// Asks whether Redis serves: the others are answered while it loads its data set, this one is not.
    Ping,
}

/// What a reply leads to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Progress {
    Wait,
    /// The server does not know HELLO.
    WithoutHello,
    /// The password was not taken in this form: the handshake goes on with another.
    LogIn(Step),
    Done,
}

/// All commands of a handshake leave in one write. Only if the server does not take the password in this form does it take
/// another one.
#[derive(Debug, Default)]
pub(super) struct Handshake {
    /// The form in which the password goes next. Nothing else of the present write counts then.
    next: Option<Step>,
}

impl Handshake {
    /// Writes the commands from `first` on, HELLO or AUTH, and returns the steps in their order.
    pub(super) fn write(first: Step, lane: Lane, url: &RedisUrl, out: &mut VecDeque<u8>) -> Vec<Step> {
        let mut steps = vec![first];
        match (url.password(), first) {
            (Some(password), Step::Auth) => encode::auth(out, url.user(), password),
            (Some(password), Step::AuthAlone) => encode::auth(out, None, password),
            (Some(password), _) => encode::hello(out, Some((url.user().unwrap_or("default"), password))),
            (None, _) => encode::hello(out, None),
        }
        let name = match lane {
            Lane::Subscriber => "fanfare-subscriber",
            Lane::Publisher => "fanfare-publisher",
        };
        match url.client_name() {
            "" => encode::set_name(out, name),
            instance => encode::set_name(out, &format!("{name}:{instance}")),
        }
        steps.push(Step::SetName);
        if url.database() != 0 {
            encode::select(out, url.database());
            steps.push(Step::Select);
        }
        encode::ping(out);
        steps.push(Step::Ping);
        steps
    }

    /// Takes the reply to `step`.
    pub(super) fn handle_reply(
        &mut self,
        step: Step,
        reply: Reply<'_>,
        url: &RedisUrl,
    ) -> Result<Progress, LinkErrorKind> {
        if let Some(next) = self.next {
            if step != Step::Ping {
                return Ok(Progress::Wait);
            }
            self.next = None;
            return Ok(Progress::LogIn(next));
        }
        let Reply::Error(error) = reply else {
            return match (step, reply) {
                (Step::Hello, Reply::Other(frame)) if is_replica(frame) => Err(LinkErrorKind::Replica),
                (Step::Ping, Reply::Pong) => Ok(Progress::Done),
                (Step::Ping, _) => Err(LinkErrorKind::OutOfTurn),
                _ => Ok(Progress::Wait),
            };
        };
        let answer = Answer::of(error);
        let has_password = url.password().is_some();
        match (step, answer) {
            // A server that knows no HELLO, or takes no password in it.
            (Step::Hello, Answer::Unknown | Answer::NotAllowed | Answer::Refused) if !error.starts_with(b"DENIED") => {
                self.next = has_password.then_some(Step::Auth);
                Ok(Progress::WithoutHello)
            }
            (Step::Hello, Answer::LoggedOut) if has_password => {
                self.next = Some(Step::Auth);
                Ok(Progress::WithoutHello)
            }
            (Step::Auth, Answer::Refused) if url.user().is_some() && says(error, "wrong number of arguments") => {
                warn!(event = "user_ignored", "this Redis knows no users: the user in the URL is ignored");
                self.next = Some(Step::AuthAlone);
                Ok(Progress::Wait)
            }
            (Step::Auth | Step::AuthAlone, Answer::Refused) if says(error, "password") => {
                warn!(event = "password_ignored", "this Redis wants no password: the one in the URL is ignored");
                Ok(Progress::Wait)
            }
            (Step::SetName, Answer::Unknown | Answer::NotAllowed | Answer::Refused) => Ok(Progress::Wait),
            (Step::Select, _) if error.starts_with(b"ERR") && answer != Answer::NotNow => {
                Err(LinkErrorKind::Database(url.database()))
            }
            // It is asked whether Redis serves, and Pub/Sub needs neither PING nor a disk. The probe proves the rest.
            (Step::Ping, Answer::Unknown | Answer::NotAllowed) => Ok(Progress::Done),
            (Step::Ping, Answer::NotNow) if error.starts_with(b"MISCONF") => Ok(Progress::Done),
            _ => Err(LinkErrorKind::of(error, url)),
        }
    }
}

fn says(error: &[u8], words: &str) -> bool {
    String::from_utf8_lossy(error).to_ascii_lowercase().contains(words)
}
