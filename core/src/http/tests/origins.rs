use core::net::IpAddr;

use super::*;

fn policy(allowed: &[&str], proxies: &[&str]) -> OriginPolicy {
    OriginPolicy {
        allowed: allowed.iter().map(|text| text.parse().expect("an origin")).collect(),
        trusted_proxies: proxies.iter().map(|text| text.parse().expect("a network")).collect(),
        ..OriginPolicy::default()
    }
}

fn at(host: &str, fields: &str) -> Request {
    request(&format!("GET / HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n"))
}

#[test]
fn a_page_may_connect_to_where_it_came_from() {
    let table = [
        ("http://example.org", "example.org", true),
        ("https://example.org", "example.org", true),
        ("ws://example.org", "example.org", true),
        ("wss://example.org", "example.org:443", true),
        ("https://EXAMPLE.org", "Example.ORG", true),
        ("http://example.org", "example.org:80", true),
        ("http://example.org:80", "example.org", true),
        ("http://example.org", "example.org:", true),
        ("https://example.org", "example.org:443", true),
        ("https://example.org:443", "example.org", true),
        ("http://example.org", "example.org:443", false),
        ("https://example.org", "example.org:80", false),
        ("https://example.org:80", "example.org", false),
        ("http://example.org:443", "example.org", false),
        ("http://localhost:3000", "localhost:3000", true),
        ("http://localhost:3000", "localhost:4000", false),
        ("http://localhost", "localhost:3000", false),
        ("http://localhost:3000", "localhost", false),
        ("http://[::1]:3000", "[::1]:3000", true),
        ("http://[::1]:3000", "[::2]:3000", false),
        ("http://127.0.0.1:3000", "localhost:3000", false),
        ("http://evil.example", "example.org", false),
        ("http://example.org.evil.example", "example.org", false),
        ("http://evilexample.org", "example.org", false),
        ("http://sub.example.org", "example.org", false),
        ("http://example.org", "sub.example.org", false),
        ("http://example.org@evil.example", "example.org", false),
        ("http://evil.example#example.org", "example.org", false),
        ("http://example.org/", "example.org", true),
        ("http://example.org//", "example.org", false),
        ("http://example.org/x", "example.org", false),
        ("http://example.org/x/", "example.org", false),
        ("http:///", "example.org", false),
        ("http://[0:0:0:0:0:0:0:1]:3000", "[::1]:3000", true),
        ("http://[fe80::1]:3000", "[fe80::1%eth0]:3000", true),
        ("http://[fe80::1%25eth0]:3000", "[FE80::1%25eth0]:3000", true),
        ("http://[fe80::2]:3000", "[fe80::1%eth0]:3000", false),
        ("http://example.org:99999", "example.org", false),
        ("example.org", "example.org", false),
        ("//example.org", "example.org", false),
        ("://example.org", "example.org", false),
        ("1http://example.org", "example.org", false),
        ("capacitor://localhost", "localhost", false),
        ("chrome-extension://example.org", "example.org", false),
        ("file://", "example.org", false),
        ("null", "null", false),
        ("NULL", "null", false),
        ("", "example.org", false),
        ("http://example.org http://example.org", "example.org", false),
        ("http://example.org, http://example.org", "example.org", false),
    ];
    for (origin, host, expected) in table {
        let request = at(host, &format!("Origin: {origin}\r\n"));
        let result = OriginPolicy::default().check(&request, None);
        assert_eq!(result.is_ok(), expected, "{origin} {host}");
        if let Err(refused) = result {
            assert_eq!((refused.origin.as_str(), refused.host.as_str()), (origin, host));
        }
    }
}

#[test]
fn the_host_of_an_absolute_target_is_the_one_that_counts() {
    let head = |origin| format!("GET http://a.example/ HTTP/1.1\r\nHost: b.example\r\nOrigin: http://{origin}\r\n\r\n");
    assert!(OriginPolicy::default().check(&request(&head("a.example")), None).is_ok());
    assert!(OriginPolicy::default().check(&request(&head("b.example")), None).is_err());
}

#[test]
fn who_is_no_browser_may_connect() {
    assert!(OriginPolicy::default().check(&at("example.org", ""), None).is_ok());
}

#[test]
fn two_origins_are_refused() {
    let request = at("example.org", "Origin: http://example.org\r\nX: y\r\norigin: http://example.org\r\n");
    let refused = OriginPolicy::default().check(&request, None).expect_err("two");
    assert_eq!(refused.origin, "http://example.org, http://example.org");
}

#[test]
fn other_origins_can_be_allowed() {
    let policy = policy(&["https://Example.org", "http://localhost:8080", "capacitor://localhost"], &[]);
    let table = [
        ("https://example.org", true),
        ("https://example.org:443", true),
        ("https://example.org:444", false),
        ("http://example.org", false),
        ("wss://example.org", false),
        ("https://sub.example.org", false),
        ("https://example.org.evil.example", false),
        ("http://localhost:8080", true),
        ("http://localhost", false),
        ("capacitor://localhost", true),
        ("capacitor://localhost:1", false),
        ("null", false),
    ];
    for (origin, expected) in table {
        let request = at("chat.example", &format!("Origin: {origin}\r\n"));
        assert_eq!(policy.check(&request, None).is_ok(), expected, "{origin}");
    }
}

#[test]
fn origins_of_no_site_can_be_allowed_by_name() {
    let table = [
        ("null", "null", true),
        ("null", "NULL", false),
        ("null", "file://", false),
        ("null", "https://evil.example", false),
        ("null", "", false),
        ("file://", "file://", true),
        ("file://", "file:///", true),
        ("file://", "file://x", false),
        ("file://", "null", false),
        ("https://example.org/", "https://example.org", true),
    ];
    for (allowed, origin, expected) in table {
        let request = at("chat.example", &format!("Origin: {origin}\r\n"));
        assert_eq!(policy(&[allowed], &[]).check(&request, None).is_ok(), expected, "{allowed} {origin}");
    }
}

#[test]
fn a_star_allows_every_origin() {
    for origin in ["https://evil.example", "null", "nonsense", "http://a\r\nOrigin: http://b"] {
        let request = at("chat.example", &format!("Origin: {origin}\r\n"));
        assert!(policy(&["*"], &[]).check(&request, None).is_ok(), "{origin}");
    }
}

fn with_hosts(hosts: &[&str], proxies: &[&str]) -> OriginPolicy {
    let mut policy = policy(&["https://other.example"], proxies);
    policy.hosts = hosts.iter().map(|text| text.parse().expect("a host")).collect();
    policy.listen_on(vec![3000]);
    policy
}

#[test]
fn a_name_of_a_stranger_that_leads_here_is_refused() {
    let may = |policy: &OriginPolicy, scheme: &str, host: &str| {
        policy.check(&at(host, &format!("Origin: {scheme}://{host}\r\n")), None).is_ok()
    };
    // The host of a page, and whether it may connect without and with `--allow-host chat.example`.
    let table = [
        ("http", "localhost:3000", true, true),
        ("http", "LocalHost.:3000", true, true),
        ("http", "app.localhost:3000", true, true),
        ("http", "127.0.0.1:3000", true, true),
        ("http", "192.0.2.7:3000", true, true),
        ("http", "[::1]:3000", true, true),
        ("http", "evil.example:3000", false, false),
        ("http", "evil.example.:3000", false, false),
        ("http", "127.0.0.1.evil.example:3000", false, false),
        ("http", "localhost.evil.example:3000", false, false),
        ("http", "chat.example:3000", false, true),
        ("http", "CHAT.example.:3000", false, true),
        ("https", "chat.example", true, true),
        ("https", "chat.example:3000", true, true),
        ("https", "elsewhere.example", true, false),
        ("https", "elsewhere.example:8443", true, false),
        ("http", "cache:3000", true, false),
    ];
    let (plain, named) = (with_hosts(&[], &[]), with_hosts(&["Chat.Example."], &[]));
    for (scheme, host, is_plain, is_named) in table {
        assert_eq!((may(&plain, scheme, host), may(&named, scheme, host)), (is_plain, is_named), "{host}");
    }
    assert!(may(&with_hosts(&["*"], &[]), "http", "evil.example:3000"));
    assert!(may(&policy(&[], &[]), "http", "evil.example:3000"), "who does not say where it listens is not protected");
    for host in ["evil.example:3000", "chat.example:3000"] {
        assert!(plain.check(&at(host, ""), None).is_ok(), "a program");
        assert!(named.check(&at(host, "Origin: https://other.example\r\n"), None).is_ok(), "an origin that is allowed");
    }
    let refused = plain.check(&at("evil.example:3000", "Origin: http://evil.example:3000\r\n"), None);
    assert_eq!(
        refused.expect_err("a stranger's").advice(),
        "if that is a name of this server, `--allow-host 'evil.example'` says so"
    );
}

#[test]
fn a_trusted_proxy_says_by_which_name_it_was_called() {
    let may = |hosts: &[&str], peer: &str, host: &str| {
        let fields = format!("Origin: http://{host}\r\nX-Forwarded-Host: {host}\r\n");
        with_hosts(hosts, &["10.0.0.0/8"]).check(&at("10.0.0.9:3000", &fields), peer.parse().ok()).is_ok()
    };
    assert!(may(&[], "10.0.0.1", "chat.example:3000"), "no browser sends that field");
    assert!(may(&["chat.example"], "10.0.0.1", "chat.example"));
    assert!(!may(&["chat.example"], "10.0.0.1", "evil.example"));
    assert!(!may(&[], "192.0.2.1", "chat.example:3000"));
}

#[test]
fn what_is_not_a_host_cannot_be_allowed() {
    for text in ["", "*.example", "http://chat.example", "chat.example:80", "a b", "[::1", "a/b"] {
        assert_eq!(text.parse::<AllowedHost>(), Err(AllowedHostError), "{text}");
    }
}

#[test]
fn what_is_not_an_origin_cannot_be_allowed() {
    for text in [
        "",
        "NULL",
        "null/",
        "**",
        "file:",
        "file:////",
        "file://x/y",
        "https://*",
        "https://*.example.org",
        "example.org",
        "https://example.org/x",
        "https://",
        "https:///",
        "https://a b",
    ] {
        assert_eq!(text.parse::<AllowedOrigin>(), Err(AllowedOriginError), "{text}");
    }
}

#[test]
fn a_forwarded_host_counts_from_a_trusted_proxy_only() {
    let policy = policy(&[], &["10.0.0.0/8", "fd00::/8"]);
    let page = "Origin: https://chat.example\r\n";
    let forwarded = format!("{page}X-Forwarded-Host: chat.example\r\n");
    let check = |fields: &str, peer: Option<&str>| {
        let peer: Option<IpAddr> = peer.map(|peer| peer.parse().expect("an address"));
        policy.check(&at("internal:3000", fields), peer).is_ok()
    };
    assert!(check(&forwarded, Some("10.1.2.3")));
    assert!(check(&forwarded, Some("::ffff:10.1.2.3")), "a socket for both families says it so");
    assert!(check(&forwarded, Some("fd00::1")));
    assert!(!check(&forwarded, Some("11.1.2.3")));
    assert!(!check(&forwarded, Some("fe00::1")));
    assert!(!check(&forwarded, None));
    assert!(!check(page, Some("10.1.2.3")), "Host counts if the proxy says nothing");
    assert!(check("Origin: http://internal:3000\r\n", Some("10.1.2.3")));
    assert!(!check("Origin: http://internal:3000\r\nX-Forwarded-Host: chat.example\r\n", Some("10.1.2.3")));
    assert!(check(&format!("{page}X-Forwarded-Host: chat.example, proxy.example\r\n"), Some("10.1.2.3")));
    assert!(!check(&format!("{page}X-Forwarded-Host: proxy.example, chat.example\r\n"), Some("10.1.2.3")));
    assert!(!check(&format!("{page}X-Forwarded-Host: not a host\r\n"), Some("10.1.2.3")));
}

#[test]
fn a_refusal_shows_both_sides_and_advice_that_fits() {
    let refused = |origin: &str| {
        let request = at("chat.example:3000", &format!("Origin: {origin}\r\n"));
        OriginPolicy::default().check(&request, None).expect_err(origin).to_string()
    };
    assert_eq!(
        refused("https://evil.example"),
        "pages of origin \"https://evil.example\" may not connect to host \"chat.example:3000\"; \
         `--allow-origin 'https://evil.example'` would allow it; or, if a proxy in front has changed Host, let it pass on \
         the client's (nginx: `proxy_set_header Host $http_host`)"
    );
    assert_eq!(
        refused("null"),
        "pages of origin \"null\" may not connect to host \"chat.example:3000\"; \
         `--allow-origin 'null'` would allow it, from wherever it says so (a sandboxed frame of any site says `null`)"
    );
    assert!(refused("file://").contains("`--allow-origin 'file://'` would allow it"));
    assert!(refused("nonsense").ends_with("it is no site's origin, so only `--allow-origin '*'` would allow it"));
    let behind = at("127.0.0.1:3000", "Origin: https://chat.example\r\nX-Forwarded-Host: chat.example\r\n");
    let check = |proxies: &[&str]| policy(&[], proxies).check(&behind, Some([192, 0, 2, 7].into()));
    let advice = check(&[]).expect_err("a proxy that nobody trusts").to_string();
    assert!(advice.contains("`--trusted-proxy`") && !advice.contains("--allow-origin"), "{advice}");
    assert!(check(&["192.0.2.7"]).is_ok(), "the advice is good");
    assert!(refused("a\tb\"\u{202e}").contains(r#""a\tb\"\u{202e}""#), "what a peer says is quoted");
}

#[test]
fn a_refusal_is_short_and_safe_to_paste_whatever_the_request_says() {
    for origin in
        ["http://$(reboot)", "http://a;b", "http://a'b", "http://a&b", "http://`id`", "http://a!b", "http://a%24b"]
    {
        let request = at("chat.example", &format!("Origin: {origin}\r\n"));
        let line = OriginPolicy::default().check(&request, None).expect_err(origin).to_string();
        assert!(!line.contains(&format!("--allow-origin {origin}")), "{line}");
        assert!(!line.contains(&format!("--allow-origin '{origin}")), "{line}");
    }
    for long in ["http://\u{300}", "http://\u{10ffff}", "http://a"] {
        let origin = long.repeat(1_000);
        let request = at("chat.example", &format!("Origin: {origin}\r\n"));
        let refused = OriginPolicy::default().check(&request, None).expect_err("another site's");
        assert!(refused.to_string().len() <= 2 << 10, "{refused}");
        assert!(refused.origin.len() < 1_000);
    }
    let host = format!("{}.example", "a".repeat(2_000));
    let refused = OriginPolicy::default().check(&at(&host, "Origin: http://b\r\n"), None).expect_err("another site's");
    assert!(refused.to_string().len() <= 2 << 10, "{refused}");
}

#[test]
fn networks_hold_their_addresses() {
    let table = [
        ("10.0.0.0/8", "10.255.255.255", true),
        ("10.0.0.0/8", "11.0.0.0", false),
        ("10.9.9.9/8", "10.0.0.0", true),
        ("192.0.2.7", "192.0.2.7", true),
        ("192.0.2.7", "192.0.2.6", false),
        ("192.0.2.6/31", "192.0.2.7", true),
        ("192.0.2.6/31", "192.0.2.8", false),
        ("0.0.0.0/0", "255.1.2.3", true),
        ("0.0.0.0/0", "::1", false),
        ("::/0", "2001:db8::1", true),
        ("::/0", "192.0.2.7", true),
        ("::1", "::1", true),
        ("::1", "::2", false),
        ("2001:db8::/32", "2001:db8:ffff::", true),
        ("2001:db8::/32", "2001:db9::", false),
        ("2001:db8::/33", "2001:db8:8000::", false),
        ("::ffff:10.0.0.0/104", "10.1.1.1", true),
        ("10.0.0.0/8", "::ffff:10.1.1.1", true),
        ("10.0.0.0/8", "::10.1.1.1", false),
    ];
    for (network, address, expected) in table {
        let network: Cidr = network.parse().expect(network);
        assert_eq!(network.contains(address.parse().expect(address)), expected, "{network:?} {address}");
    }
}

#[test]
fn what_is_no_network_is_refused() {
    for text in [
        "",
        "/",
        "10.0.0.0/",
        "10.0.0.0/33",
        "10.0.0.0/+8",
        "10.0.0/8",
        "::/129",
        "::1/x",
        "[::1]",
        "10.0.0.0/8/8",
        "h/8",
    ] {
        assert_eq!(text.parse::<Cidr>(), Err(CidrError), "{text}");
    }
    assert!("10.0.0.0/32".parse::<Cidr>().is_ok() && "::/128".parse::<Cidr>().is_ok());
}
