//! From a connection to one that takes commands.

use std::collections::VecDeque;

use super::error::{LinkErrorKind, reply_text};
use super::{Lane, RedisUrl};
use crate::resp::{Reply, encode};

/// A command of the handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Hello,
    Auth,
    SetName,
    Select,
    /// Asks whether Redis serves: the others are answered while it loads its data set, this one is not.
    Ping,
}

/// What a reply leads to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Progress {
    Wait,
    /// HELLO was refused, and the password with it: the handshake goes on with AUTH.
    LogIn,
    Done,
}

/// All commands of a handshake leave in one write. Only where HELLO is refused does a password take a second one.
#[derive(Debug, Default)]
pub(super) struct Handshake {
    /// Whether the password was in a HELLO that was refused. Nothing else of that write counts then.
    is_locked_out: bool,
}

impl Handshake {
    /// Writes the commands from `first` on, HELLO or AUTH, and returns the steps in their order.
    pub(super) fn write(first: Step, lane: Lane, url: &RedisUrl, out: &mut VecDeque<u8>) -> Vec<Step> {
        let mut steps = vec![first];
        match (url.password(), first) {
            (Some(password), Step::Auth) => encode::auth(out, url.user(), password),
            (Some(password), _) => encode::hello(out, Some((url.user().unwrap_or("default"), password))),
            (None, _) => encode::hello(out, None),
        }
        let name = match lane {
            Lane::Subscriber => "fanfare-subscriber",
            Lane::Publisher => "fanfare-publisher",
        };
        encode::set_name(out, name);
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
        if self.is_locked_out {
            let is_last = step == Step::Ping;
            self.is_locked_out = !is_last;
            return Ok(if is_last { Progress::LogIn } else { Progress::Wait });
        }
        let Reply::Error(error) = reply else {
            return match (step, reply) {
                (Step::Ping, Reply::Pong) => Ok(Progress::Done),
                (Step::Ping, _) => Err(LinkErrorKind::OutOfTurn),
                _ => Ok(Progress::Wait),
            };
        };
        let kind = classify(error, url);
        match (step, &kind) {
            (Step::Hello, LinkErrorKind::Refused(_)) if !error.starts_with(b"DENIED") => {
                self.is_locked_out = url.password().is_some();
                Ok(Progress::Wait)
            }
            (Step::SetName, LinkErrorKind::Refused(_)) => Ok(Progress::Wait),
            (Step::Select, LinkErrorKind::Refused(_)) if error.starts_with(b"ERR") => {
                Err(LinkErrorKind::Database(url.database()))
            }
            (Step::Ping, LinkErrorKind::Refused(_)) if error.starts_with(b"NOPERM") => Ok(Progress::Done),
            _ => Err(kind),
        }
    }
}

/// What an error reply of the handshake means.
fn classify(error: &[u8], url: &RedisUrl) -> LinkErrorKind {
    let code = error.split(|&byte| byte == b' ').next().unwrap_or_default();
    match code {
        b"NOAUTH" if url.password().is_none() => LinkErrorKind::PasswordMissing,
        b"NOAUTH" | b"WRONGPASS" => LinkErrorKind::PasswordWrong,
        // Redis before version 6.
        b"ERR" if error.starts_with(b"ERR invalid password") => LinkErrorKind::PasswordWrong,
        b"ERR" if error.starts_with(b"ERR max number of clients") => LinkErrorKind::NotReady(reply_text(error, url)),
        b"LOADING" | b"MASTERDOWN" | b"BUSY" | b"TRYAGAIN" | b"CLUSTERDOWN" => {
            LinkErrorKind::NotReady(reply_text(error, url))
        }
        _ => LinkErrorKind::Refused(reply_text(error, url)),
    }
}
