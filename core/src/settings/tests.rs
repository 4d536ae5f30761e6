use super::*;

/// The default settings with one change.
fn with(change: impl FnOnce(&mut Settings)) -> Settings {
    let mut settings = Settings::default();
    change(&mut settings);
    settings
}

#[test]
fn the_defaults_make_sense() {
    assert_eq!(Settings::default().check(), Ok(()));
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
            let error = with(|settings| change(&mut settings.limits, to)).check();
            matches!(error, Err(SettingsError::Range { setting, .. }) if setting == name)
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
        let check = |to| with(|settings| change(&mut settings.limits, to)).check();
        assert_eq!(check(least as u64 + 1), Ok(()), "{upper}");
        assert_eq!(check(least as u64), Ok(()), "{upper}");
        match check(least as u64 - 1) {
            Err(SettingsError::Above { setting, bound, .. }) => assert_eq!((setting, bound), (lower, upper)),
            other => panic!("{upper}: {other:?}"),
        }
    }
    let error = with(|settings| settings.limits.message_bytes = 2 << 20).check().unwrap_err();
    let told = "message_bytes: 2MiB is above queue_bytes (1MiB): lower it, or raise queue_bytes";
    assert_eq!(error.to_string(), told);
}

#[test]
fn workers_are_at_most_1024() {
    let check = |workers| with(|settings| settings.workers = workers).check();
    assert_eq!((check(1), check(1_024)), (Ok(()), Ok(())));
    let told = "workers: 1025 is out of range: from 1 to 1024";
    assert_eq!(check(1_025).unwrap_err().to_string(), told);
}

#[test]
fn a_channel_prefix_has_no_control_characters() {
    let check = |prefix: &str| with(|settings| settings.channel_prefix = prefix.to_owned()).check();
    assert_eq!((check(""), check("staging: ä")), (Ok(()), Ok(())));
    for prefix in ["a\nb", "\0", "\u{85}"] {
        assert_eq!(check(prefix), Err(SettingsError::ChannelPrefix), "{prefix:?}");
    }
}
