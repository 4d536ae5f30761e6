//! The meaning of error replies to any command: the one table of the codes of Redis.

/// What an error reply means. By convention it begins with a code in capitals; the code `ERR` says nothing, so that some
/// texts are looked at as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// It was not carried out and will be later on.
    NotNow,
    /// It was not carried out, and this server is not the one to ask any more. A new connection may reach the right one.
    Elsewhere,
    /// It was not carried out, because this connection is not logged in.
    LoggedOut,
    /// User or password are wrong.
    WrongLogin,
    /// The user lacks a permission.
    NotAllowed,
    /// The server does not know the command.
    Unknown,
    /// What was sent broke the protocol in the server's eyes, such as a message that is too long for it.
    Broken,
    /// Anything else.
    Refused,
}

impl Answer {
    pub(super) fn of(error: &[u8]) -> Self {
        let code = error.split(|&byte| byte == b' ').next().unwrap_or_default();
        match code {
            b"BUSY" | b"LOADING" | b"TRYAGAIN" | b"MASTERDOWN" | b"CLUSTERDOWN" | b"MISCONF" | b"OOM"
            | b"NOREPLICAS" => Self::NotNow,
            b"READONLY" | b"MOVED" | b"ASK" | b"REDIRECT" => Self::Elsewhere,
            b"NOAUTH" => Self::LoggedOut,
            b"WRONGPASS" => Self::WrongLogin,
            b"NOPERM" => Self::NotAllowed,
            _ => Self::of_text(&String::from_utf8_lossy(error).to_ascii_lowercase()),
        }
    }

    fn of_text(text: &str) -> Self {
        let has = |words: &[&str]| words.iter().any(|word| text.contains(word));
        // A limit of clients, connections or requests.
        if text.starts_with("err max ") {
            Self::NotNow
        } else if has(&["invalid password"]) {
            // Redis before version 6.
            Self::WrongLogin
        } else if has(&["protocol error"]) {
            Self::Broken
        } else if has(&["unknown command", "unknown subcommand", "unsupported", "not supported", "not implemented"]) {
            Self::Unknown
        } else {
            Self::Refused
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Answer;

    #[test]
    fn each_code_means_one_thing_whatever_it_answers() {
        let table: &[(&[&str], Answer)] = &[
            (
                &[
                    "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.",
                    "LOADING Redis is loading the dataset in memory",
                    "TRYAGAIN Multiple keys request during rehashing of slot",
                    "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
                    "CLUSTERDOWN The cluster is down",
                    "MISCONF Redis is configured to save RDB snapshots",
                    "OOM command not allowed when used memory > 'maxmemory'.",
                    "NOREPLICAS Not enough good replicas to write.",
                    "ERR max number of clients reached",
                    "ERR max concurrent connections exceeded",
                    "ERR max requests limit exceeded. Limit: 10000",
                    "LOADING",
                ],
                Answer::NotNow,
            ),
            (
                &["READONLY You can't write against a read only replica.", "MOVED 3999 127.0.0.1:6381", "ASK 1 a:1"],
                Answer::Elsewhere,
            ),
            (&["NOAUTH Authentication required."], Answer::LoggedOut),
            (
                &["WRONGPASS invalid username-password pair or user is disabled.", "ERR invalid password"],
                Answer::WrongLogin,
            ),
            (&["NOPERM No permissions to access a channel"], Answer::NotAllowed),
            (
                &[
                    "ERR unknown command 'SUBSCRIBE'",
                    "unsupported command",
                    "ERR Command is not supported",
                    "ERR unknown command `PING`",
                ],
                Answer::Unknown,
            ),
            (&["ERR Protocol error: invalid bulk length"], Answer::Broken),
            (&["ERR syntax error", "DENIED Redis is running in protected mode", "BUSYKEY x", "", " "], Answer::Refused),
        ];
        for (errors, answer) in table {
            for error in *errors {
                assert_eq!(Answer::of(error.as_bytes()), *answer, "{error}");
            }
        }
    }
}
