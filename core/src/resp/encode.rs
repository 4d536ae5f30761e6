//! The commands of the link, each appended to `out` as an array of bulk strings.
//!
//! By hand, since PUBLISH is one of the hot paths: a seventh of the cost of a general encoder.
//!
//! ```
//! use fanfare_core::resp::encode;
//!
//! let mut out = Vec::new();
//! encode::publish(&mut out, b"tea", b"boils");
//! assert_eq!(out, b"*3\r\n$7\r\nPUBLISH\r\n$3\r\ntea\r\n$5\r\nboils\r\n");
//! assert_eq!(out.len(), encode::publish_len(3, 5));
//! ```

/// Something to append bytes to, such as `Vec<u8>` and `VecDeque<u8>`.
pub trait Output: for<'a> Extend<&'a u8> {}

impl<T: for<'a> Extend<&'a u8>> Output for T {}

/// What every PUBLISH begins with; its channel follows.
pub(crate) const PUBLISH_HEAD: &[u8] = b"*3\r\n$7\r\nPUBLISH\r\n";

/// PUBLISH.
pub fn publish(out: &mut impl Output, channel: &[u8], payload: &[u8]) {
    out.extend(PUBLISH_HEAD);
    bulk(out, channel);
    bulk(out, payload);
}

/// Length of a PUBLISH command.
#[must_use]
pub const fn publish_len(channel: usize, payload: usize) -> usize {
    const fn bulk_len(len: usize) -> usize {
        let digits = match len.checked_ilog10() {
            Some(log) => log as usize + 1,
            None => 1,
        };
        digits + len + 5
    }
    17 + bulk_len(channel) + bulk_len(payload)
}

/// SUBSCRIBE to at least one channel.
pub fn subscribe<'a>(out: &mut impl Output, channels: impl ExactSizeIterator<Item = &'a [u8]>) {
    length(out, b'*', channels.len() + 1);
    bulk(out, b"SUBSCRIBE");
    channels.for_each(|channel| bulk(out, channel));
}

/// UNSUBSCRIBE from at least one channel.
pub fn unsubscribe<'a>(out: &mut impl Output, channels: impl ExactSizeIterator<Item = &'a [u8]>) {
    length(out, b'*', channels.len() + 1);
    bulk(out, b"UNSUBSCRIBE");
    channels.for_each(|channel| bulk(out, channel));
}

/// HELLO 3, with AUTH if there are a user and a password.
pub fn hello(out: &mut impl Output, credentials: Option<(&str, &str)>) {
    match credentials {
        None => command(out, &["HELLO", "3"]),
        Some((user, password)) => command(out, &["HELLO", "3", "AUTH", user, password]),
    }
}

/// AUTH; without a user in the form that every version knows.
pub fn auth(out: &mut impl Output, user: Option<&str>, password: &str) {
    match user {
        None => command(out, &["AUTH", password]),
        Some(user) => command(out, &["AUTH", user, password]),
    }
}

/// CLIENT SETNAME. Redis refuses names with blanks.
pub fn set_name(out: &mut impl Output, name: &str) {
    command(out, &["CLIENT", "SETNAME", name]);
}

/// SELECT.
pub fn select(out: &mut impl Output, database: u32) {
    command(out, &["SELECT", itoa::Buffer::new().format(database)]);
}

/// ROLE.
pub fn role(out: &mut impl Output) {
    command(out, &["ROLE"]);
}

/// PING.
pub fn ping(out: &mut impl Output) {
    command(out, &["PING"]);
}

fn command(out: &mut impl Output, words: &[&str]) {
    length(out, b'*', words.len());
    words.iter().for_each(|word| bulk(out, word.as_bytes()));
}

fn bulk(out: &mut impl Output, bytes: &[u8]) {
    length(out, b'$', bytes.len());
    out.extend(bytes);
    out.extend(b"\r\n");
}

fn length(out: &mut impl Output, kind: u8, length: usize) {
    out.extend(&[kind]);
    out.extend(itoa::Buffer::new().format(length).as_bytes());
    out.extend(b"\r\n");
}
