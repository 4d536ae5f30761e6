use super::*;

fn routes(texts: &[&str]) -> Result<Routes, RouteError> {
    with_prefix(texts, "", &Limits::default())
}

fn with_prefix(texts: &[&str], prefix: &str, limits: &Limits) -> Result<Routes, RouteError> {
    let routes = texts.iter().map(|text| text.parse()).collect::<Result<_, _>>()?;
    Routes::new(routes, prefix, limits)
}

/// The channel of a path, or `404` or `400`.
fn channel(routes: &Routes, path: &str) -> String {
    match routes.find(path) {
        None => "404".to_owned(),
        Some(Err(error)) => {
            assert_eq!(error, Error::RoomName);
            "400".to_owned()
        }
        Some(Ok(target)) => String::from_utf8(target.channel.to_vec()).expect("channels are UTF-8"),
    }
}

#[test]
fn paths_lead_to_channels() {
    let routes = routes(&[
        "/chat/{room}=chat:{room}",
        "/chat=chat",
        "/chat/lobby=lobby",
        "/{a}/x/{b}={b}/{a}",
        "/caf%C3%A9/bar=café",
        "/=root",
        "/end/=end",
        "/new/{room}={room}:new",
    ])
    .expect("sound routes");
    let table = [
        ("/chat", "chat"),
        ("/ch%61t", "chat"),
        ("/Chat", "404"),
        ("/chat?x", "404"),
        ("/chat/", "404"),
        ("/chat//", "404"),
        ("/chat/tea", "chat:tea"),
        ("/chat/t%65a", "chat:tea"),
        ("/chat/tea/", "404"),
        ("/chat/a%2Fb", "chat:a/b"),
        ("/chat/a%2fb", "chat:a/b"),
        ("/chat/+", "chat:+"),
        ("/chat/%20", "chat: "),
        ("/chat/%F0%9F%8D%B5", "chat:🍵"),
        ("/chat/*?[a]", "chat:*?[a]"),
        ("/chat/{room}", "chat:{room}"),
        ("/chat/a|b", "chat:a|b"),
        ("/chat/a%7Cb", "chat:a|b"),
        ("/chat/\"<^`>\u{1f375}", "chat:\"<^`>\u{1f375}"),
        ("/chat/%25", "chat:%"),
        ("/chat/%2525", "chat:%25"),
        ("/chat/%", "400"),
        ("/chat/%4", "400"),
        ("/chat/%4x", "400"),
        ("/chat/%%20", "400"),
        ("/chat/%FF", "400"),
        ("/chat/%C3", "400"),
        ("/chat/%ED%A0%80", "400"),
        ("/chat/a%00b", "400"),
        ("/chat/%0D%0ASUBSCRIBE", "400"),
        ("/chat/%7F", "400"),
        ("/chat/%C2%85", "400"),
        ("/chat/lobby", "lobby"),
        ("/chat/lobb%79", "lobby"),
        ("/chat/lobby2", "chat:lobby2"),
        ("/1/x/2", "2/1"),
        ("/1/y/2", "404"),
        ("//x/2", "404"),
        ("/caf%C3%A9/bar", "café"),
        ("/café/bar", "café"),
        ("/caf%zz/bar", "404"),
        ("/", "root"),
        ("//", "404"),
        ("/end/", "end"),
        ("/end", "404"),
        ("/new/chat", "chat:new"),
        ("", "404"),
        ("*", "404"),
        ("chat", "404"),
    ];
    for (path, expected) in table {
        assert_eq!(channel(&routes, path), expected, "{path}");
    }
}

#[test]
fn no_two_paths_of_a_route_lead_to_one_channel() {
    let routes =
        routes(&["/t/{tenant}/{room}=t:{tenant}:{room}", "/{a}/{b}/{c}/x={b}--{a}é{c}"]).expect("sound routes");
    let table = [
        ("/t/acme/x", "t:acme:x"),
        ("/t/acme/x:y", "t:acme:x:y"),
        ("/t/acme%3Ax/y", "400"),
        ("/t/acme:x/y", "400"),
        ("/1/2/3/x", "2--1é3"),
        ("/1/2-/3/x", "400"),
        ("/1-/2/3/x", "2--1-é3"),
        ("/1é/2/3/x", "400"),
        ("/1/2/3é--/x", "2--1é3é--"),
    ];
    for (path, expected) in table {
        assert_eq!(channel(&routes, path), expected, "{path}");
    }
}

#[test]
fn the_channels_of_the_instance_are_nobody_s() {
    let limits = Limits::default();
    let routes = with_prefix(&["/{x}={x}", "/f/{x}=fan{x}", "/p/{x}={x}:probe"], "p:", &limits).expect("sound routes");
    let table = [
        ("/fanfare:probe:1", "400"),
        ("/fanfare%3Aprobe%3A1", "400"),
        ("/fanfare:", "400"),
        ("/fanfare", "p:fanfare"),
        ("/p:fanfare:probe:1", "p:p:fanfare:probe:1"),
        ("/f/fare:probe:1", "400"),
        ("/p/fanfare", "400"),
    ];
    for (path, expected) in table {
        assert_eq!(channel(&routes, path), expected, "{path}");
    }
    let refused = self::routes(&["/{b}=fanfare:{b}"]);
    assert!(refused.expect_err("reserved").to_string().contains("the instance's own"));
}

#[test]
fn routes_that_share_channels_are_named() {
    let pairs = |texts: &[&str]| {
        let routes = routes(texts).expect("sound routes");
        routes.overlaps().map(|(a, b)| format!("{} {}", a.pattern(), b.pattern())).collect::<Vec<_>>()
    };
    assert!(pairs(&["/chat=chat", "/chat/{room}=chat:{room}"]).is_empty());
    assert_eq!(pairs(&["/chat/{room}=chat:{room}", "/staff=chat:staff"]), ["/staff /chat/{room}"]);
    assert_eq!(pairs(&["/a=x", "/b=x,slow=latest"]), ["/a /b"]);
}

#[test]
fn the_more_literal_route_wins_whatever_the_order() {
    let mut texts = ["/a/{x}=one:{x}", "/{x}/b=two:{x}", "/a/b=three", "/{x}/{y}=four:{x}:{y}"];
    for _ in 0..texts.len() {
        texts.rotate_left(1);
        let routes = routes(&texts).expect("sound routes");
        let found = ["/a/b", "/a/c", "/c/b", "/c/d"].map(|path| channel(&routes, path));
        assert_eq!(found, ["three", "one:c", "two:c", "four:c:d"]);
    }
}

#[test]
fn frame_type_and_rights_come_with_the_channel() {
    let table = [
        ("/x=x", FrameType::Text, true, true),
        ("/x=x,text", FrameType::Text, true, true),
        ("/x=x,binary", FrameType::Binary, true, true),
        ("/x=x,publish=no", FrameType::Text, false, true),
        ("/x=x,subscribe=no,binary,publish=yes", FrameType::Binary, true, false),
    ];
    for (text, frame, publish, subscribe) in table {
        let target = routes(&[text]).expect(text).find("/x").expect(text).expect(text);
        assert_eq!((target.frame, target.rights), (frame, Rights { publish, subscribe, review: false }), "{text}");
    }
}

#[test]
fn policies_come_with_the_channel() {
    let table = [
        ("/x=x", Slow::Close, OnGap::Keep),
        ("/x=x,slow=close,on_gap=keep", Slow::Close, OnGap::Keep),
        ("/x=x,slow=drop_newest", Slow::DropNewest, OnGap::Keep),
        ("/x=x,on_gap=close,slow=drop_oldest,binary", Slow::DropOldest, OnGap::Close),
        ("/x=x,slow=latest,publish=no", Slow::Latest, OnGap::Keep),
    ];
    for (text, slow, on_gap) in table {
        let target = routes(&[text]).expect(text).find("/x").expect(text).expect(text);
        assert_eq!(target.policies, Policies { slow, on_gap }, "{text}");
    }
}

#[test]
fn the_default_is_a_chat_with_rooms() {
    let routes = Routes::new(Routes::default_chat(), "app:", &Limits::default()).expect("sound routes");
    assert_eq!(["/chat", "/chat/tea", "/"].map(|path| channel(&routes, path)), ["app:chat", "app:chat:tea", "404"]);
}

#[test]
fn a_channel_is_bounded_with_its_prefix() {
    let limits = Limits { channel_bytes: 10, ..Limits::default() };
    let routes = with_prefix(&["/{room}=c:{room}"], "p:", &limits).expect("sound routes");
    assert_eq!(channel(&routes, "/12345"), "p:c:12345");
    assert_eq!(channel(&routes, "/123456"), "p:c:123456");
    assert_eq!(channel(&routes, "/1234567"), "400");
    assert_eq!(channel(&routes, "/%31%32%33456"), "p:c:123456", "decoded bytes count");
    assert_eq!(channel(&routes, "/%C3%A9%C3%A9%C3%A9"), "p:c:ééé");
    assert_eq!(channel(&routes, "/%C3%A9%C3%A9%C3%A91"), "400");
    for (text, is_right) in [("/x=1234567", true), ("/x=12345678", true), ("/x=123456789", false)] {
        assert_eq!(with_prefix(&[text], "p:", &limits).is_ok(), is_right, "{text}");
    }
    for (text, is_right) in [("/{r}=1234567{r}", true), ("/{r}=12345678{r}", false)] {
        assert_eq!(with_prefix(&[text], "p:", &limits).is_ok(), is_right, "{text}");
    }
}

#[test]
fn a_path_of_thousands_of_segments_is_on_no_route() {
    let routes = routes(&["/{a}/{b}=x:{a}:{b}"]).expect("sound routes");
    assert_eq!(channel(&routes, &"/a".repeat(100_000)), "404");
}

#[test]
fn what_makes_no_sense_is_explained() {
    let table = [
        ("", "no `=`"),
        ("/chat", "no `=`"),
        ("chat=chat", "does not begin with `/`"),
        ("=chat", "does not begin with `/`"),
        ("http://h/chat=chat", "does not begin with `/`"),
        ("/a?b=c", "no `?`, `#`"),
        ("/a#b=c", "no `?`, `#`"),
        ("/a b=c", "blank"),
        ("/a\u{7}b=c", "control character"),
        ("/%=c", "two hexadecimal digits"),
        ("/%4=c", "two hexadecimal digits"),
        ("/a%zzb=c", "two hexadecimal digits"),
        ("/x{id}=c:{id}", "whole segment"),
        ("/{id}x=c:{id}", "whole segment"),
        ("/{id=c:{id}", "whole segment"),
        ("/id}=c:{id}", "whole segment"),
        ("/{=c", "whole segment"),
        ("/{}=c", "name is of letters"),
        ("/{a}{b}=c:{a}{b}", "name is of letters"),
        ("/{{a}}=c:{a}", "name is of letters"),
        ("/{a b}=c:{a b}", "blank"),
        ("/{a,b}=c:{a,b}", "name is of letters"),
        ("/{é}=c:{é}", "name is of letters"),
        ("/{a}/{a}=c:{a}", "path has the variable `{a}` twice"),
        ("/{a}=c:{a}{a}", "channel has the variable `{a}` twice"),
        ("/{a}=c", "`{a}` is not in the channel"),
        ("/{a}/{b}=c:{a}", "`{b}` is not in the channel"),
        ("/a=c:{a}", "`{a}` is not in the path"),
        ("/{a}=c:{A}", "`{A}` is not in the path"),
        ("/{a}=c:{a}{}", "`{}` is not in the path"),
        ("/{a}=c:{a", "do not pair up"),
        ("/{a}=c:a}", "do not pair up"),
        ("/{a}=c:{a}}", "do not pair up"),
        ("/{a}=c:{{a}}", "is not in the path"),
        ("/a=", "no channel"),
        ("/a=,binary", "no channel"),
        ("/a=b\n", "no control characters"),
        ("/a=b\u{85}", "no control characters"),
        ("/a=b,", "no option \"\""),
        ("/a=b,Binary", "no option \"Binary\""),
        ("/a=b, binary", "no option \" binary\""),
        ("/a=b,publish", "no option \"publish\""),
        ("/a=b,publish=maybe", "no option \"publish=maybe\""),
        ("/a=b,c", "no option \"c\""),
        ("/a=b,slow=no", "no option \"slow=no\""),
        ("/a=b,slow=latest,slow=close", "repeats or contradicts"),
        ("/a=b,on_gap", "no option \"on_gap\""),
        ("/a=b,on_gap=keep,on_gap=keep", "repeats or contradicts"),
        ("/a=b,text,text", "repeats or contradicts"),
        ("/a=b,text,binary", "repeats or contradicts"),
        ("/a=b,publish=no,publish=yes", "repeats or contradicts"),
        ("/a=b,subscribe=yes,subscribe=yes", "repeats or contradicts"),
        ("/a=b,publish=no,subscribe=no", "neither publish nor subscribe"),
    ];
    for (text, expected) in table {
        let error = text.parse::<Route>().expect_err(text).to_string();
        assert!(error.contains(expected), "{text:?}: {error}");
        assert!(error.starts_with(&format!("route {text:?}: ")), "it says which route: {error}");
        assert!(error.contains("like `/") || error.contains("as in `/"), "it has an example: {error}");
        assert!(!error.contains(char::is_control), "it is one line: {error}");
    }
}

#[test]
fn the_examples_in_messages_are_right() {
    for text in [
        "/chat=chat",
        "/chat/{room}=chat:{room}",
        "/my%20chat=chat",
        "/{a}/{b}=chat:{a}:{b}",
        "/news=news,text,publish=no",
        "/news=news,publish=no",
        "/news=news,text,publish=no,slow=drop_oldest",
        "/board/{id}=board:{id},binary,publish=no",
    ] {
        assert!(routes(&[text]).is_ok(), "{text}");
    }
}

#[test]
fn a_pattern_is_there_once() {
    for (a, b) in [("/a=x", "/a=y"), ("/a=x", "/%61=x"), ("/a/{b}=x:{b}", "/a/{c}=y:{c}")] {
        let error = routes(&[a, "/z=z", b]).expect_err(a).to_string();
        assert!(error.contains("match the same paths"), "{error}");
    }
    assert!(routes(&["/a=x", "/b=x", "/{a}=y:{a}", "/a/{b}=x:{b}", "/a/=x"]).is_ok());
}

#[test]
fn routes_that_can_meet_in_a_channel_agree() {
    let table = [
        ("/a=x", "/b=x,binary", false),
        ("/a=x", "/b=x,publish=no", false),
        ("/a=x,subscribe=no", "/b=x", false),
        ("/a=x,binary", "/b=x,binary", true),
        ("/a=x,slow=latest", "/b=x,on_gap=close", true),
        ("/a=x", "/b=y,binary", true),
        ("/a/{r}=x:{r}", "/b=x:lobby,binary", false),
        ("/a/{r}=x:{r}", "/b=x:,binary", true),
        ("/a/{r}=x:{r}", "/b=x,binary", true),
        ("/a/{r}=x:{r}", "/b/{r}={r}:y,binary", false),
        ("/a/{r}=x:{r}", "/b/{r}=y:{r},binary", true),
        ("/a/{r}=x:{r}:end", "/b/{r}=x:{r}:fin,binary", true),
        ("/a/{r}={r}", "/b=x,binary", false),
    ];
    for (a, b, is_right) in table {
        for pair in [[a, b], [b, a]] {
            assert_eq!(routes(&pair).is_ok(), is_right, "{pair:?}");
        }
    }
}

#[test]
fn a_prefix_has_no_control_characters() {
    assert!(with_prefix(&[], "app\r\n", &Limits::default()).is_err());
}

/// Every template of up to three pieces out of `a`, `b` and a variable.
fn templates() -> Vec<Vec<Part>> {
    let mut all: Vec<Vec<Part>> = vec![Vec::new()];
    let mut from = 0;
    for _ in 0..3 {
        let to = all.len();
        for i in from..to {
            for piece in
                [Part::Literal("a".into()), Part::Literal("b".into()), Part::Variable { segment: 0, end: None }]
            {
                all.push(all[i].iter().cloned().chain([piece]).collect());
            }
        }
        from = to;
    }
    all
}

/// Whether a name fits a template, by trying every length for every variable.
fn fits(template: &[Part], name: &str) -> bool {
    match template {
        [] => name.is_empty(),
        [Part::Literal(text), rest @ ..] => name.strip_prefix(text.as_str()).is_some_and(|name| fits(rest, name)),
        [Part::Variable { .. }, rest @ ..] => (1..=name.len()).any(|end| fits(rest, &name[end..])),
    }
}

#[test]
fn overlap_is_what_trying_every_name_says() {
    // Two templates of three pieces that meet at all meet in a name of at most six characters.
    let mut names = vec![String::new()];
    for i in 0..63 {
        names.extend(["a", "b"].map(|letter| format!("{}{letter}", names[i])));
    }
    assert_eq!(names.iter().map(String::len).max(), Some(6));
    let templates = templates();
    let mut overlapping = 0;
    for a in &templates {
        for b in &templates {
            let expected = names.iter().any(|name| fits(a, name) && fits(b, name));
            assert_eq!(overlap::overlap(a, b), expected, "{a:?} {b:?}");
            overlapping += usize::from(expected);
        }
    }
    assert!((100..1_500).contains(&overlapping), "the table has both: {overlapping} of {}", templates.len().pow(2));
}
