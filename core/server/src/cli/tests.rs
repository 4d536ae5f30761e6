use core::num::NonZero;
use core::time::Duration;
use std::collections::BTreeSet;

use tracing::level_filters::LevelFilter;

use super::*;
use crate::config::LogFormat;

const PROGRAM: Program = Program { name: "fanfare-test", version: "1.2.3" };

fn run(args: &[&str], env: &[(&str, &str)]) -> Result<Parsed, Exit> {
    let args = [PROGRAM.name].iter().chain(args).map(OsString::from);
    parse(&PROGRAM, args, env.iter().map(|(name, value)| (name.into(), value.into())))
}

fn config(args: &[&str], env: &[(&str, &str)]) -> Config {
    run(args, env).unwrap_or_else(|exit| panic!("{exit:?}")).config
}

/// The line with which a command line is refused, without the program's name.
fn refusal(args: &[&str], env: &[(&str, &str)]) -> String {
    match run(args, env) {
        Err(Exit::Refusal(line)) => {
            assert!(!line.contains(['\n', '\r', '\x1b']), "one plain line: {line:?}");
            line.strip_prefix("fanfare-test: ").unwrap_or_else(|| panic!("{line}")).to_owned()
        }
        other => panic!("{args:?} {env:?}: {other:?}"),
    }
}

/// A value that each option takes and that is not its default.
fn other_value(option: &Opt) -> String {
    let value = match (option.name, option.value) {
        ("host", _) => "localhost",
        ("admin-listen", _) => "127.0.0.1:9090",
        ("allow-origin", _) => "https://example.com",
        ("allow-host", _) => "chat.example.com",
        ("trusted-proxy", _) => "10.0.0.0/8",
        ("redis-url", _) => "redis://cache",
        ("name", _) => "web-1",
        ("channel-prefix", _) => "staging:",
        ("route", _) => "/board/{id}=board:{id}",
        ("log-format", _) => "json",
        ("log-level", _) => "debug",
        ("redis-reconnect-max", _) => "800ms",
        ("max-message", _) => "12345",
        ("max-channel-name", _) => "123",
        (_, "SIZE") => "1025KiB",
        (_, "TIME") => "321ms",
        (_, "NUMBER" | "PORT") => "77",
        (_, "yes|no") => "yes",
        other => panic!("no value for {other:?}"),
    };
    value.to_owned()
}

#[test]
fn without_arguments_it_is_the_default() {
    assert_eq!(format!("{:?}", config(&[], &[])), format!("{:?}", Config::default()));
}

#[test]
fn each_option_sets_one_thing_by_flag_and_by_variable_alike() {
    let mut seen = BTreeSet::from([format!("{:?}", Config::default())]);
    for option in OPTIONS {
        let (name, value) = (option.name, other_value(option));
        let flag = format!("--{name}={value}");
        let mut args = vec![flag.as_str()];
        // Nothing to serve is an error, so it takes a route to do without the chat.
        args.extend((name == "no-chat").then_some("--route=/a=a"));
        args.extend((name == "require-redis").then_some("--redis-url=redis://other"));
        let by_flag = config(&args, &[]);
        let by_variable = config(&args[1..], &[(&option.env(), &value)]);
        assert_eq!(format!("{by_flag:?}"), format!("{by_variable:?}"), "{flag}");
        assert!(seen.insert(format!("{by_flag:?}")), "{flag} sets something of its own");
    }
}

#[test]
fn each_limit_has_an_option() {
    let mut changed = Config::default();
    for option in OPTIONS {
        (option.apply)(&mut changed, &other_value(option)).unwrap_or_else(|error| panic!("{}: {error}", option.name));
    }
    let lines = |config: &Config| format!("{:#?}", config.limits).lines().map(str::to_owned).collect::<Vec<_>>();
    let (defaults, changed) = (lines(&Config::default()), lines(&changed));
    for (default, changed) in
        defaults.iter().zip(&changed).filter(|(line, _)| line.contains(|c: char| c.is_ascii_digit()))
    {
        assert_ne!(default, changed);
    }
}

#[test]
fn the_names_of_settings_are_those_of_the_fields() {
    let fields = format!("{:?}", Config::default());
    for option in OPTIONS {
        let field = option.setting.split('.').next().unwrap_or_default();
        assert!(fields.contains(&format!("{field}: ")), "{}", option.setting);
    }
}

#[test]
fn values_reach_the_configuration() {
    let config = config(
        &[
            "--host=[::1]",
            "--port",
            "0",
            "--workers",
            "2",
            "--redis-url",
            "redis://:pw@h:1/2",
            "--wait-for-redis",
            "--channel-prefix",
            "p:",
            "--max-message",
            "1KiB",
            "--linger",
            "0s",
            "--log-format",
            "JSON",
            "--log-level",
            "off",
            "--route",
            "/a=a",
            "--route=/b=b",
        ],
        &[],
    );
    assert_eq!(config.host.as_deref(), Some("::1"));
    assert_eq!((config.port, config.workers.map(NonZero::get)), (0, Some(2)));
    assert_eq!(config.redis.as_ref().and_then(|url| url.password()), Some("pw"));
    assert!(config.wait_for_redis && !config.serves_chat());
    assert_eq!((config.channel_prefix.as_str(), config.routes.len()), ("p:", 2));
    assert_eq!((config.limits.message_bytes, config.limits.linger_time), (1_024, Duration::ZERO));
    assert_eq!((config.log.format, config.log.level), (LogFormat::Json, LevelFilter::OFF));
}

#[test]
fn a_flag_goes_before_a_variable_and_an_empty_variable_is_unset() {
    assert_eq!(config(&[], &[("PORT", "1")]).port, 1);
    assert_eq!(config(&["--port", "2"], &[("PORT", "1")]).port, 2);
    assert_eq!(config(&["--port", "2"], &[("PORT", "nonsense")]).port, 2);
    assert_eq!(config(&[], &[("PORT", "")]).port, 3000);
    assert_eq!(config(&[], &[("PORT", " 5\n")]).port, 5);
    assert_eq!(config(&["--workers", "0"], &[("FANFARE_WORKERS", "4")]).workers, None);
    assert!(config(&[], &[("REDIS_URL", "\n"), ("FANFARE_NO_CHAT", "")]).redis.is_none());
    assert_eq!(config(&["--route", "/a=a"], &[("FANFARE_ROUTE", "/b=b /c=c")]).routes.len(), 1);
}

#[test]
fn a_variable_separates_repeated_values_by_spaces() {
    let config =
        config(&[], &[("FANFARE_ROUTE", " /a=a\n/b=b\t/c=c "), ("FANFARE_TRUSTED_PROXY", "10.0.0.0/8 127.0.0.1/32")]);
    assert_eq!((config.routes.len(), config.origins.trusted_proxies.len()), (3, 2));
}

#[test]
fn yes_and_no_have_four_spellings_each_and_no_others() {
    for text in ["true", "1", "yes", "on", "TRUE", "Yes"] {
        assert!(config(&[], &[("FANFARE_WAIT_FOR_REDIS", text)]).wait_for_redis, "{text}");
    }
    for text in ["false", "0", "no", "off", "FALSE", "No"] {
        assert!(!config(&[], &[("FANFARE_WAIT_FOR_REDIS", text)]).wait_for_redis, "{text}");
    }
    assert!(!config(&["--wait-for-redis=no"], &[("FANFARE_WAIT_FOR_REDIS", "yes")]).wait_for_redis);
    let told = "FANFARE_NO_CHAT: 'maybe' is neither yes nor no: write true, false, 1, 0, yes, no, on or off";
    assert_eq!(refusal(&[], &[("FANFARE_NO_CHAT", "maybe")]), told);
    assert!(refusal(&["--no-chat=2"], &[]).starts_with("--no-chat: '2' is neither"));
}

#[test]
fn a_refusal_says_what_is_wrong_where_and_what_to_try() {
    let url = "'http://x' is not a Redis URL: it must begin with redis:// (for example redis://127.0.0.1:6379)";
    let port = "'65536' is not a port: write a number from 0 to 65535 (for example 3000)";
    for (args, env, told) in [
        (&["--redis-url", "http://x"][..], &[][..], format!("--redis-url: {url}")),
        (&[], &[("REDIS_URL", "http://x")], format!("REDIS_URL: {url}")),
        (&["--port", "65536"], &[], format!("--port: {port}")),
        (&[], &[("PORT", "65536")], format!("PORT: {port}")),
        (
            &["--workers", "-1"],
            &[],
            "--workers: '-1' is not a number in range: write digits alone (for example 100)".into(),
        ),
        (&["--log-level", "loud"], &[], "--log-level: 'loud' is none of off, error, warn, info, debug, trace".into()),
        (&["--max-message", "0"], &[], "--max-message: 0B is out of range: from 1B to 1GiB".into()),
        (
            &["--max-message", "2MiB"],
            &[],
            "--max-message: 2MiB is above --max-queue (1MiB): lower it, or raise --max-queue".into(),
        ),
        (
            &["--max-message", "2MiB"],
            &[("FANFARE_MAX_QUEUE", "1025KiB")],
            "--max-message: 2MiB is above FANFARE_MAX_QUEUE (1025KiB): lower it, or raise FANFARE_MAX_QUEUE".into(),
        ),
        (
            &["--head-timeout", "10"],
            &[],
            "--head-timeout: '10' is not a time: write a whole number and ms, s, m or h (for example 25s)".into(),
        ),
        (
            &["--admin-listen", "9090"],
            &[],
            "--admin-listen: '9090' is not a host and a port: write both, an IPv6 address in brackets (for example \
             127.0.0.1:9090)"
                .into(),
        ),
        (&["--chat=no"], &[], "--route: there is nothing to serve: give a route, or keep the chat".into()),
        (&["--no-chat"], &[], "--route: there is nothing to serve: give a route, or keep the chat".into()),
        (
            &["--host", "localhost:80"],
            &[],
            "--host: a host name, or an IPv4 or IPv6 address without a port is needed".into(),
        ),
    ] {
        assert_eq!(refusal(args, env), told);
    }
    assert!(refusal(&["--route", "nonsense"], &[]).starts_with("--route: "));
    assert!(refusal(&[], &[("FANFARE_ROUTE", "/a=a nonsense")]).starts_with("FANFARE_ROUTE: "));
    assert!(refusal(&["--route", "/a=a", "--route", "/a=b"], &[]).starts_with("--route: "));
    assert!(refusal(&["--allow-host", "http://h"], &[]).starts_with("--allow-host: 'http://h' is not a host's name"));
    for option in ["--allow-origin", "--trusted-proxy"] {
        assert!(refusal(&[option, "nonsense"], &[]).starts_with(&format!("{option}: 'nonsense' is not a")));
    }
}

#[test]
fn a_wrong_command_line_is_one_line_with_the_nearest_flag() {
    for (args, told) in [
        (&["--prot", "1"][..], "--prot is not an option; did you mean --port? Try --help"),
        (&["--xyzzy"], "--xyzzy is not an option; try --help"),
        (&["-x"], "-x is not an option; try --help"),
        (&["start"], "'start' belongs to no option; try --help"),
        (&["--port"], "a value is required for '--port <PORT>' but none was supplied; try --help"),
        (&["--port", "1", "--port", "2"], "the argument '--port <PORT>' cannot be used multiple times; try --help"),
        (&["--a\nb"], "--a?b is not an option; try --help"),
    ] {
        assert_eq!(refusal(args, &[]), told);
    }
}

#[cfg(unix)]
#[test]
fn what_is_not_utf8_is_refused() {
    use std::os::unix::ffi::OsStringExt;
    let bad = || OsString::from_vec(vec![0xff]);
    let by_env = parse(&PROGRAM, [], [("FANFARE_CHANNEL_PREFIX".into(), bad()), (bad(), "1".into())]);
    let told = "fanfare-test: FANFARE_CHANNEL_PREFIX: the value is not UTF-8";
    assert_eq!(by_env.map(|_| ()), Err(Exit::Refusal(told.to_owned())));
    let by_flag = parse(&PROGRAM, [PROGRAM.name.into(), "--channel-prefix".into(), bad()], []);
    assert!(matches!(by_flag, Err(Exit::Refusal(line)) if line.contains("UTF-8") && !line.contains('\n')));
}

#[test]
fn a_password_is_in_no_output() {
    let secret = ("REDIS_URL", "redis://:hunter2@h");
    let Err(Exit::Answer(help)) = run(&["--help"], &[secret]) else { panic!("help is an answer") };
    assert!(!help.contains("hunter2"));
    assert!(!format!("{:?}", run(&[], &[secret])).contains("hunter2"));
    assert!(!refusal(&[], &[("REDIS_URL", "rediss://:hunter2@h")]).contains("hunter2"));
}

#[test]
fn unknown_variables_are_warned_about() {
    let warnings = |env: &[(&str, &str)]| run(&[], env).unwrap_or_else(|exit| panic!("{exit:?}")).warnings;
    let ignored = |name: &str, hint: &str| format!("fanfare-test: {name} is not a setting and is ignored; {hint}");
    for (name, hint) in [
        ("FANFARE_MAX_MESAGE", "did you mean FANFARE_MAX_MESSAGE?"),
        ("FANFARE_PORT", "did you mean PORT?"),
        ("FANFARE_REDIS_URL", "did you mean REDIS_URL?"),
        ("FANFARE_XYZZY", "try --help"),
        ("FANFARE_HELP", "try --help"),
        ("FANFARE_", "try --help"),
    ] {
        assert_eq!(warnings(&[(name, "1")]), [ignored(name, hint)]);
    }
    let quiet = [
        ("FANFARE_MAX_MESSAGE", "1KiB"),
        ("FANFARE_UNSET", ""),
        ("OTHER", "1"),
        ("FANFARE_PORT", "tcp://10.0.0.1:80"),
        ("FANFARE_PORT_80_TCP", "tcp://10.0.0.1:80"),
        ("FANFARE_SERVICE_HOST", "10.0.0.1"),
        ("FANFARE_REDIS_PORT", "tcp://10.0.0.1:6379"),
        ("FANFARE_REDIS_PORT_6379_TCP_ADDR", "10.0.0.1"),
        ("FANFARE_REDIS_SERVICE_HOST", "10.0.0.1"),
        ("FANFARE_REDIS_SERVICE_PORT_TCP", "6379"),
    ];
    assert_eq!(warnings(&quiet), [""; 0]);
}

#[test]
fn help_explains_every_option_and_differs_between_programs_in_names_alone() {
    for asked in ["--help", "-h"] {
        let Err(Exit::Answer(help)) = run(&[asked], &[]) else { panic!("{asked} is an answer") };
        assert!(help.lines().all(|line| line.chars().count() <= 100), "{asked} wraps");
        let unwrapped = help.split_whitespace().collect::<Vec<_>>().join(" ");
        for option in OPTIONS {
            let flag = format!("--{}", option.name);
            assert!([" <", "[=<"].iter().any(|value| unwrapped.contains(&format!("{flag}{value}"))), "{flag}");
            assert!(unwrapped.contains(option.help), "{flag}");
            let default = (option.default)(&Config::default());
            assert!(unwrapped.contains(&format!("[default: {default}]")), "{flag}");
            assert!(asked == "-h" || unwrapped.contains(&format!("[env: {}]", option.env())), "{flag}");
            assert!(option.help.ends_with('.'), "{flag}");
        }
        let other = Program { name: "fanfare-other", ..PROGRAM };
        let Err(Exit::Answer(others)) = parse(&other, ["x".into(), asked.into()], []) else { panic!("an answer") };
        assert_eq!(help.replace(PROGRAM.name, other.name), others);
    }
}

#[test]
fn version_is_name_and_version() {
    assert_eq!(run(&["--version"], &[]).map(|_| ()), Err(Exit::Answer("fanfare-test 1.2.3\n".to_owned())));
    assert_eq!(run(&["-V"], &[]).map(|_| ()), Err(Exit::Answer("fanfare-test 1.2.3\n".to_owned())));
}
