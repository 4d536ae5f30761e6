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
fn the_chat_is_there_beside_routes_only_if_it_is_asked_for() {
    let channel = |config: &Config, path: &str| {
        let settings = config.settings().unwrap_or_else(|error| panic!("{error}"));
        settings.routes.find(path).map(|target| target.map(|target| target.channel))
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
    assert!(board.settings().unwrap().files.is_empty(), "its page is gone, too");
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
    assert!(matches!(twice.check(), Err(ConfigError::Settings(SettingsError::Routes(_)))));
    let nothing = with(|config| config.chat = Some(false));
    assert_eq!(nothing.check(), Err(ConfigError::NoRoutes));
}
