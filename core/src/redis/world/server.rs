//! A Redis that keeps the rules of the real one for the few commands of the link, and misbehaves on request.

use std::collections::{BTreeMap, BTreeSet};

use redis_protocol::resp2::{decode::decode, types::OwnedFrame};

use crate::redis::Lane;

#[derive(Default)]
pub(crate) struct Server {
    /// The error that answers HELLO.
    pub(crate) refuses_hello: Option<&'static str>,
    pub(crate) refuses_names: bool,
    /// As before version 6.
    pub(crate) has_no_users: bool,
    /// User and password.
    pub(crate) login: Option<(&'static str, &'static str)>,
    /// The error that answers PING, as while loading.
    pub(crate) not_ready: Option<&'static str>,
    /// The error that answers everything that Pub/Sub needs, as while a script runs.
    pub(crate) busy: Option<&'static str>,
    /// The error that answers PUBLISH.
    pub(crate) elsewhere: Option<&'static str>,
    pub(crate) is_replica: bool,
    /// Channels that nobody may subscribe to or publish to.
    pub(crate) denied: BTreeSet<Vec<u8>>,
    /// The commands that are denied on the channels of probes.
    pub(crate) denies_probes: Vec<&'static str>,
    /// Takes messages and passes none on.
    pub(crate) delivers_nothing: bool,
    /// Takes everything and answers nothing.
    pub(crate) swallows: bool,
    /// Carries commands out, but answers nothing any more on the connections they come on.
    pub(crate) is_mute: bool,
    pub(crate) published: Vec<(Vec<u8>, Vec<u8>)>,
    /// Channel and payload of each probe that came, and how many messages came before it.
    pub(crate) probes: Vec<(Vec<u8>, Vec<u8>, usize)>,
    pub(crate) clients: BTreeMap<Lane, Client>,
    /// Every command word that came but for a probe, per connection in turn.
    pub(crate) log: Vec<(Lane, String)>,
}

#[derive(Default)]
pub(crate) struct Client {
    resp3: bool,
    is_logged_in: bool,
    /// Whether the handshake has come so far that HELLO is no part of it any more.
    is_greeted: bool,
    /// Once a reply is missing, no later one can stand for it.
    is_mute: bool,
    database: u32,
    pub(crate) channels: BTreeSet<Vec<u8>>,
    input: Vec<u8>,
    pub(crate) output: Vec<u8>,
}

/// Whether it is a channel on which a link sends messages to itself.
pub(crate) fn is_probe(channel: &[u8]) -> bool {
    channel.windows(14).any(|part| part == b"fanfare:probe:")
}

impl Server {
    pub(crate) fn accept(&mut self, lane: Lane) {
        let old = self.clients.insert(lane, Client::default());
        assert!(old.is_none(), "the old connection is closed before a new one is made");
    }

    pub(crate) fn read(&mut self, lane: Lane, bytes: &[u8]) {
        if self.swallows {
            return;
        }
        let client = self.clients.get_mut(&lane).expect("connected");
        client.input.extend_from_slice(bytes);
        loop {
            let Some(client) = self.clients.get_mut(&lane) else { return };
            let Some((frame, length)) = decode(&client.input).expect("commands are RESP") else { return };
            client.input.drain(..length);
            let OwnedFrame::Array(words) = frame else { panic!("commands are arrays") };
            let words: Vec<Vec<u8>> = words
                .into_iter()
                .map(|word| match word {
                    OwnedFrame::BulkString(word) => word,
                    other => panic!("words are bulk strings: {other:?}"),
                })
                .collect();
            let reply = self.execute(lane, &words);
            if let Some(client) = self.clients.get_mut(&lane) {
                client.is_mute |= self.is_mute;
                if !client.is_mute {
                    client.output.extend(reply);
                }
            }
        }
    }

    /// A PUBLISH; returns the number of receivers.
    pub(crate) fn publish(&mut self, channel: &[u8], payload: &[u8]) -> usize {
        let (name, text) = (channel.to_vec(), payload.to_vec());
        if is_probe(channel) {
            self.probes.push((name, text, self.published.len()));
        } else {
            self.published.push((name, text));
        }
        self.deliver(channel, payload)
    }

    /// A PUBLISH of somebody whose messages are not of interest.
    pub(crate) fn deliver(&mut self, channel: &[u8], payload: &[u8]) -> usize {
        let mut receivers = 0;
        if self.delivers_nothing {
            return receivers;
        }
        for client in self.clients.values_mut().filter(|client| client.channels.contains(channel)) {
            receivers += 1;
            let push = client.push(&[b"message", channel, payload]);
            client.output.extend(push);
        }
        receivers
    }

    /// The channels that are subscribed, but for a probe's.
    pub(crate) fn channels(&self) -> Vec<&[u8]> {
        let channels = self.clients.get(&Lane::Subscriber).map(|client| &client.channels);
        channels.into_iter().flatten().map(|name| &name[..]).filter(|name| !is_probe(name)).collect()
    }

    fn is_denied(&self, command: &str, channel: &[u8]) -> bool {
        self.denied.contains(channel) || is_probe(channel) && self.denies_probes.contains(&command)
    }

    fn execute(&mut self, lane: Lane, words: &[Vec<u8>]) -> Vec<u8> {
        let name = String::from_utf8(words[0].clone()).expect("a name");
        let login = self.login;
        let channels = if name == "PUBLISH" { &words[1..2] } else { &words[1..] };
        let client = self.clients.get(&lane).expect("connected");
        // Nor is it of interest that it is asked for its role again and again.
        let is_asked = client.is_greeted && matches!(name.as_str(), "HELLO" | "ROLE");
        if !is_asked && !channels.iter().any(|channel| is_probe(channel)) {
            self.log.push((lane, name.clone()));
        }
        let is_denied = channels.iter().any(|channel| self.is_denied(&name, channel));
        let client = self.clients.get_mut(&lane).expect("connected");
        let accepts =
            |user: &[u8], password: &[u8]| login.is_none_or(|(u, p)| (u.as_bytes(), p.as_bytes()) == (user, password));
        match name.as_str() {
            "HELLO" => {
                if let Some(error) = self.refuses_hello {
                    return error.into();
                }
                if words.len() == 5 {
                    if !accepts(&words[3], &words[4]) {
                        return b"-WRONGPASS invalid username-password pair or user is disabled.\r\n".into();
                    }
                    client.is_logged_in = true;
                }
                if login.is_some() && !client.is_logged_in {
                    return b"-NOAUTH HELLO must be called with the client already authenticated\r\n".into();
                }
                client.resp3 = true;
                client.is_greeted = true;
                let role = if self.is_replica { "replica" } else { "master" };
                let role = format!("$4\r\nrole\r\n${}\r\n{role}\r\n", role.len());
                return format!(
                    "%4\r\n$6\r\nserver\r\n$5\r\nredis\r\n$5\r\nproto\r\n:3\r\n{role}$7\r\nmodules\r\n*0\r\n"
                )
                .into();
            }
            "AUTH" => {
                if self.has_no_users && words.len() == 3 {
                    return b"-ERR wrong number of arguments for 'auth' command\r\n".into();
                }
                if self.has_no_users && login.is_none() {
                    return b"-ERR Client sent AUTH, but no password is set\r\n".into();
                }
                let (user, password) =
                    if words.len() == 3 { (&words[1][..], &words[2]) } else { (&b"default"[..], &words[1]) };
                if !accepts(user, password) {
                    return b"-ERR invalid password\r\n".into();
                }
                client.is_logged_in = true;
                return b"+OK\r\n".into();
            }
            _ if login.is_some() && !client.is_logged_in => return b"-NOAUTH Authentication required.\r\n".into(),
            _ => {}
        }
        match name.as_str() {
            "CLIENT" if self.refuses_names => b"-ERR unknown command 'CLIENT'\r\n".into(),
            "CLIENT" => {
                client.is_greeted = true;
                b"+OK\r\n".into()
            }
            "SELECT" => {
                client.database = String::from_utf8_lossy(&words[1]).parse().expect("a number");
                if client.database > 15 { b"-ERR DB index is out of range\r\n".into() } else { b"+OK\r\n".into() }
            }
            "ROLE" if self.refuses_names => b"-ERR unknown command 'ROLE'\r\n".into(),
            "ROLE" if self.busy.is_some() => self.busy.unwrap_or_default().into(),
            "ROLE" if self.is_replica => b"*5\r\n$5\r\nslave\r\n$1\r\na\r\n:1\r\n$4\r\nsync\r\n:0\r\n".into(),
            "ROLE" => b"*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n".into(),
            "PING" => match self.not_ready {
                Some(error) => error.into(),
                None if !client.resp3 && !client.channels.is_empty() => b"*2\r\n$4\r\npong\r\n$0\r\n\r\n".into(),
                None => b"+PONG\r\n".into(),
            },
            "PUBLISH" | "SUBSCRIBE" | "UNSUBSCRIBE" if self.busy.is_some() => self.busy.unwrap_or_default().into(),
            "PUBLISH" if self.elsewhere.is_some() => self.elsewhere.unwrap_or_default().into(),
            "PUBLISH" | "SUBSCRIBE" if is_denied => b"-NOPERM No permissions to access a channel\r\n".into(),
            "PUBLISH" => {
                let (channel, payload) = (words[1].clone(), words[2].clone());
                format!(":{}\r\n", self.publish(&channel, &payload)).into()
            }
            "SUBSCRIBE" | "UNSUBSCRIBE" => client.change_channels(name == "SUBSCRIBE", &words[1..]),
            other => panic!("a command that the link must not need: {other}"),
        }
    }
}

impl Client {
    fn change_channels(&mut self, subscribe: bool, channels: &[Vec<u8>]) -> Vec<u8> {
        let mut out = Vec::new();
        for channel in channels {
            let changes = if subscribe { self.channels.insert(channel.clone()) } else { self.channels.remove(channel) };
            assert!(changes, "nothing is asked for twice on one connection");
            let kind: &[u8] = if subscribe { b"subscribe" } else { b"unsubscribe" };
            let mut push = self.push(&[kind, channel, b""]);
            push.truncate(push.len() - b"$0\r\n\r\n".len());
            out.extend(push);
            out.extend(format!(":{}\r\n", self.channels.len()).bytes());
        }
        out
    }

    fn push(&self, words: &[&[u8]]) -> Vec<u8> {
        let mut out = format!("{}{}\r\n", if self.resp3 { '>' } else { '*' }, words.len()).into_bytes();
        for word in words {
            out.extend(format!("${}\r\n", word.len()).bytes());
            out.extend_from_slice(word);
            out.extend(b"\r\n");
        }
        out
    }
}
