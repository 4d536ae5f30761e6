use super::*;

/// The default configuration with one change.
fn with(change: impl FnOnce(&mut Config)) -> Config {
    let mut config = Config::default();
    change(&mut config);
    config
}

fn route(text: &str) -> Route {
    text.parse().unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn the_defaults_make_sense() {
    assert_eq!(Config::default().check(), Ok(()));
}

type Change = fn(&mut Limits, u64);

#[test]
fn each_limit_is_held_to_its_range() {
    const DAY: u64 = 24 * 3_600_000;
    // Name, least, most, and how to set it together with whatever else must be as large.
    let sizes: &[(&str, u64, u64, Change)] = &[
        ("head_fields", 1, 10_000, |limits, to| limits.head_fields = to as usize),
        ("message_fragments", 1, 1 << 30, |limits, to| limits.message_fragments = to as u32),
        ("head_bytes", 256, 1 << 30, |limits, to| limits.head_bytes = to as usize),
        ("partial_bytes", 1, 1 << 40, |limits, to| limits.partial_bytes = to as usize),
        ("all_queues_bytes", 1, 1 << 40, |limits, to| limits.all_queues_bytes = to as usize),
        ("queue_bytes", 1, 1 << 30, |limits, to| {
            limits.queue_bytes = to as usize;
            limits.all_queues_bytes = 1 << 40;
        }),
        ("message_bytes", 1, 1 << 30, |limits, to| {
            limits.message_bytes = to as usize;
            (limits.queue_bytes, limits.all_queues_bytes, limits.partial_bytes) = (1 << 30, 1 << 30, 1 << 30);
            (limits.mailbox_bytes, limits.publish_bytes) = (1 << 30, 1 << 30);
        }),
        ("lingering_channels", 0, 1 << 30, |limits, to| limits.lingering_channels = to as usize),
        ("channel_bytes", 1, 1 << 16, |limits, to| limits.channel_bytes = to as usize),
        ("mailbox_bytes", 1, 1 << 30, |limits, to| limits.mailbox_bytes = to as usize),
        ("publish_bytes", 1, 1 << 30, |limits, to| limits.publish_bytes = to as usize),
    ];
    let times: &[(&str, u64, u64, Change)] = &[
        ("head_time", 1, DAY, |limits, to| limits.head_time = Duration::from_millis(to)),
        ("ping_time", 1, DAY, |limits, to| limits.ping_time = Duration::from_millis(to)),
        ("pong_time", 1, DAY, |limits, to| limits.pong_time = Duration::from_millis(to)),
        ("close_time", 1, DAY, |limits, to| limits.close_time = Duration::from_millis(to)),
        ("message_time", 1, DAY, |limits, to| limits.message_time = Duration::from_millis(to)),
        ("confirm_time", 1, DAY, |limits, to| limits.confirm_time = Duration::from_millis(to)),
        ("linger_time", 0, DAY, |limits, to| limits.linger_time = Duration::from_millis(to)),
        ("gap_close_time", 0, DAY, |limits, to| limits.gap_close_time = Duration::from_millis(to)),
        ("publish_time", 1, DAY, |limits, to| limits.publish_time = Duration::from_millis(to)),
        ("pause_time", 1, DAY, |limits, to| limits.pause_time = Duration::from_millis(to)),
        ("dial_time", 1, DAY, |limits, to| limits.dial_time = Duration::from_millis(to)),
        ("reply_time", 1, DAY, |limits, to| limits.reply_time = Duration::from_millis(to)),
        ("reconnect_times.0", 1, DAY, |limits, to| {
            limits.reconnect_times = (Duration::from_millis(to), Duration::from_millis(DAY));
        }),
        ("reconnect_times.1", 1, DAY, |limits, to| {
            limits.reconnect_times = (Duration::from_millis(1), Duration::from_millis(to));
        }),
        ("redis_ping_time", 1, DAY, |limits, to| limits.redis_ping_time = Duration::from_millis(to)),
        ("probe_time", 1, DAY, |limits, to| limits.probe_time = Duration::from_millis(to)),
    ];
    for &(name, least, most, change) in sizes.iter().chain(times) {
        let out_of_range = |to| {
            let error = with(|config| change(&mut config.limits, to)).check();
            matches!(error, Err(ConfigError::Range { setting, .. }) if setting == name)
        };
        let allowed = |to| !out_of_range(to);
        assert!(allowed(least) && allowed(least + 1), "{name} at {least}");
        assert!(allowed(most) && out_of_range(most + 1), "{name} at {most}");
        assert!(least == 0 || out_of_range(least - 1), "{name} below {least}");
    }
}

#[test]
fn a_limit_above_the_one_that_bounds_it_is_refused() {
    let rows: &[(&str, &str, usize, Change)] = &[
        ("message_bytes", "queue_bytes", 65_536, |limits, to| limits.queue_bytes = to as usize),
        ("queue_bytes", "all_queues_bytes", 1 << 20, |limits, to| limits.all_queues_bytes = to as usize),
        ("message_bytes", "partial_bytes", 65_536, |limits, to| limits.partial_bytes = to as usize),
        ("message_bytes", "mailbox_bytes", 65_536, |limits, to| limits.mailbox_bytes = to as usize),
        ("message_bytes", "publish_bytes", 65_536, |limits, to| limits.publish_bytes = to as usize),
        ("reconnect_times.0", "reconnect_times.1", 50, |limits, to| {
            limits.reconnect_times.1 = Duration::from_millis(to);
        }),
    ];
    for &(lower, upper, least, change) in rows {
        let check = |to| with(|config| change(&mut config.limits, to)).check();
        assert_eq!(check(least as u64 + 1), Ok(()), "{upper}");
        assert_eq!(check(least as u64), Ok(()), "{upper}");
        match check(least as u64 - 1) {
            Err(ConfigError::Above { setting, bound, .. }) => assert_eq!((setting, bound), (lower, upper)),
            other => panic!("{upper}: {other:?}"),
        }
    }
    let error = with(|config| config.limits.message_bytes = 2 << 20).check().unwrap_err();
    let told = "message_bytes: 2MiB is above queue_bytes (1MiB): lower it, or raise queue_bytes";
    assert_eq!(error.to_string(), told);
}

#[test]
fn workers_are_at_most_1024() {
    let check = |workers| with(|config| config.workers = NonZero::new(workers)).check();
    assert_eq!((check(1), check(1_024)), (Ok(()), Ok(())));
    let told = "workers: 1025 is out of range: from 1 to 1024";
    assert_eq!(check(1_025).unwrap_err().to_string(), told);
}

#[test]
fn a_host_is_a_name_or_an_address() {
    let check = |host: &str| with(|config| config.host = Some(host.to_owned())).check();
    for host in ["localhost", "a_b.example", "0.0.0.0", "::", "::1", "fe80::1%eth0", "::ffff:127.0.0.1"] {
        assert_eq!(check(host), Ok(()), "{host}");
    }
    for host in ["", "localhost:3000", "127.0.0.1:80", "[::1]", "http://x", "a b", "a\0", "1:2", "a/b"] {
        assert_eq!(check(host), Err(ConfigError::Host), "{host}");
    }
}

#[test]
fn a_channel_prefix_has_no_control_characters() {
    let check = |prefix: &str| with(|config| config.channel_prefix = prefix.to_owned()).check();
    assert_eq!((check(""), check("staging: ä")), (Ok(()), Ok(())));
    for prefix in ["a\nb", "\0", "\u{85}"] {
        assert_eq!(check(prefix), Err(ConfigError::ChannelPrefix), "{prefix:?}");
    }
}

#[test]
fn the_chat_is_there_beside_routes_only_if_it_is_asked_for() {
    let channel = |config: &Config, path: &str| {
        let routes = config.routes().unwrap_or_else(|error| panic!("{error}"));
        routes.find(path).map(|target| target.map(|target| target.channel))
    };
    let leads_to = |channel: &'static str| Some(Ok(channel.into()));
    let mut board = with(|config| config.routes.push(route("/board=board")));
    assert_eq!(channel(&with(|_| ()), "/chat"), leads_to("chat"));
    assert_eq!(channel(&board, "/board"), leads_to("board"));
    assert_eq!((channel(&board, "/chat"), board.serves_chat()), (None, false));
    board.chat = Some(true);
    assert_eq!(channel(&board, "/board"), leads_to("board"));
    assert_eq!(channel(&board, "/chat"), leads_to("chat"));
    assert_eq!(channel(&board, "/chat/tea"), leads_to("chat:tea"));
    board.chat = Some(false);
    assert_eq!(channel(&board, "/board"), leads_to("board"));
    assert_eq!(channel(&board, "/chat"), None);
    assert_eq!(board.check(), Ok(()));

    let replaced = with(|config| {
        config.routes.push(route("/chat=lobby"));
        config.chat = Some(true);
    });
    assert_eq!(channel(&replaced, "/chat"), leads_to("lobby"));
    assert_eq!(channel(&replaced, "/chat/tea"), leads_to("chat:tea"));
    assert_eq!(replaced.check(), Ok(()));
}

#[test]
fn routes_that_contradict_each_other_or_none_at_all_are_refused() {
    let twice = with(|config| config.routes = vec![route("/a=a"), route("/a=b")]);
    assert!(matches!(twice.check(), Err(ConfigError::Routes(_))));
    let nothing = with(|config| config.chat = Some(false));
    assert_eq!(nothing.check(), Err(ConfigError::NoRoutes));
}

#[test]
fn an_address_to_listen_on_is_a_host_and_a_port() {
    for (text, host, port) in [
        ("127.0.0.1:9090", Some("127.0.0.1"), 9090),
        ("localhost:0", Some("localhost"), 0),
        ("[::1]:9090", Some("::1"), 9090),
        ("[fe80::1%eth0]:65535", Some("fe80::1%eth0"), 65535),
        (":9090", None, 9090),
    ] {
        let address: ListenAddress = text.parse().unwrap();
        assert_eq!((address.host.as_deref(), address.port), (host, port));
        assert_eq!(address.to_string(), text);
    }
    for text in [
        "",
        ":",
        "9090",
        "localhost",
        "localhost:",
        "::1",
        "::1:9090",
        "[::1]",
        "[::1]9090",
        "[localhost]:1",
        "[]:1",
        "a b:1",
        "a/b:1",
        "http://a:1",
        "a:65536",
        "a:+1",
        "a:-1",
        "a:1 ",
        "[::1:9090",
        "[fe80::1%]:1",
        "[fe80::1%\t]:1",
        "[fe80::1%a]b]:1",
    ] {
        assert_eq!(text.parse::<ListenAddress>(), Err(ListenAddressError), "{text}");
    }
}

/// Every sum saturates, so that the bound of whatever an embedder sets is never too small; on targets with 32 bits
/// allowed settings come so far.
#[test]
fn a_memory_bound_does_not_wrap() {
    let most = with(|config| {
        let limits = &mut config.limits;
        (limits.all_queues_bytes, limits.partial_bytes, limits.publish_bytes) = (usize::MAX, usize::MAX, usize::MAX);
        (limits.mailbox_bytes, limits.message_bytes) = (usize::MAX, usize::MAX);
        (limits.head_bytes, limits.channel_bytes, limits.lingering_channels) = (usize::MAX, usize::MAX, usize::MAX);
    });
    for workers in [NonZero::<usize>::MIN, NonZero::<usize>::MAX] {
        let bound = most.memory_bound(workers);
        assert_eq!((bound.fixed, bound.connection), (usize::MAX, usize::MAX));
        assert_eq!(bound.with(usize::MAX), usize::MAX);
        assert!(bound.sentence(usize::MAX).starts_with("memory: at most "));
    }
}

#[test]
fn no_limit_that_grows_makes_the_memory_bound_smaller() {
    let changes: [fn(&mut Limits) -> &mut usize; 8] = [
        |limits| &mut limits.all_queues_bytes,
        |limits| &mut limits.partial_bytes,
        |limits| &mut limits.publish_bytes,
        |limits| &mut limits.mailbox_bytes,
        |limits| &mut limits.message_bytes,
        |limits| &mut limits.head_bytes,
        |limits| &mut limits.channel_bytes,
        |limits| &mut limits.lingering_channels,
    ];
    for (place, field) in changes.into_iter().enumerate() {
        let mut before = 0;
        for shift in 0..usize::BITS {
            let bound = with(|config| *field(&mut config.limits) = usize::MAX >> (usize::BITS - 1 - shift));
            let bound = bound.memory_bound(NonZero::new(1_024).unwrap()).with(1_000_000);
            assert!(bound >= before, "limit {place} at {shift} bits: {bound} after {before}");
            before = bound;
        }
    }
}
