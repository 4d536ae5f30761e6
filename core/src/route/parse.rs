//! Routes as people write them.

use super::{FrameType, OnGap, Part, Policies, Rights, Route, Segment, Slow, decode};

/// What is wrong and what would be right, without the text itself.
type Wrong = String;

/// How a variable is written.
const LIKE: &str = "write it like `/chat/{room}=chat:{room}`";

pub(super) fn route(text: &str) -> Result<Route, Wrong> {
    let (pattern, rest) =
        text.split_once('=').ok_or("there is no `=` between path and channel; write it like `/chat=chat`")?;
    let mut parts = rest.split(',');
    let template = parts.next().unwrap_or_default();
    let segments = segments(pattern)?;
    let channel = channel(template, &segments)?;
    let Options { frame, rights, policies } = options(parts)?;
    Ok(Route { pattern: pattern.to_owned(), segments, channel, frame, rights, policies })
}

fn segments(pattern: &str) -> Result<Vec<Segment>, Wrong> {
    let path = pattern.strip_prefix('/').ok_or("the path does not begin with `/`; write it like `/chat=chat`")?;
    if pattern.contains(|c: char| matches!(c, '?' | '#') || c.is_whitespace() || c.is_control()) {
        return Err("a path has no `?`, `#`, blank or control character; write them like `/my%20chat=chat`".into());
    }
    let mut segments: Vec<Segment> = Vec::new();
    for text in path.split('/') {
        let segment = segment(text)?;
        if let Segment::Variable(name) = &segment
            && position(&segments, name).is_some()
        {
            return Err(format!(
                "the path has the variable `{{{name}}}` twice; write it like `/{{a}}/{{b}}=chat:{{a}}:{{b}}`"
            ));
        }
        segments.push(segment);
    }
    Ok(segments)
}

fn segment(text: &str) -> Result<Segment, Wrong> {
    let Some(name) = text.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) else {
        if text.contains(['{', '}']) {
            return Err(format!("a variable is in braces and fills a whole segment; {LIKE}"));
        }
        let literal = decode(text).ok_or("a `%` needs two hexadecimal digits; write it like `/my%20chat=chat`")?;
        return Ok(Segment::Literal(literal.into_owned()));
    };
    let is_name_byte = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    if name.is_empty() || !name.bytes().all(is_name_byte) {
        return Err(format!("a variable's name is of letters, digits, `_` and `-`; {LIKE}"));
    }
    Ok(Segment::Variable(name.to_owned()))
}

fn channel(template: &str, segments: &[Segment]) -> Result<Vec<Part>, Wrong> {
    if template.is_empty() {
        return Err("there is no channel behind the `=`; write it like `/chat=chat`".into());
    }
    if template.contains(char::is_control) {
        return Err("a channel has no control characters; write it like `/chat=chat`".into());
    }
    let mut parts = Vec::new();
    let mut used = vec![false; segments.len()];
    let mut rest = template;
    while let Some(brace) = rest.find(['{', '}']) {
        let (literal, variable) = rest.split_at(brace);
        push_literal(&mut parts, literal);
        let (name, behind) = variable
            .strip_prefix('{')
            .and_then(|variable| variable.split_once('}'))
            .ok_or_else(|| format!("the braces in the channel do not pair up; {LIKE}"))?;
        let segment = position(segments, name)
            .ok_or_else(|| format!("the channel's variable `{{{name}}}` is not in the path; {LIKE}"))?;
        if core::mem::replace(&mut used[segment], true) {
            return Err(format!("the channel has the variable `{{{name}}}` twice; {LIKE}"));
        }
        parts.push(Part::Variable { segment, end: None });
        rest = behind;
    }
    push_literal(&mut parts, rest);
    end_variables(&mut parts)?;
    let unused = segments.iter().zip(used).find_map(|(segment, used)| match segment {
        Segment::Variable(name) if !used => Some(name),
        _ => None,
    });
    match unused {
        Some(name) => Err(format!("the path's variable `{{{name}}}` is not in the channel; {LIKE}")),
        None => Ok(parts),
    }
}

/// Ends each variable but the last at the character behind it; otherwise two paths could lead to one channel.
fn end_variables(parts: &mut [Part]) -> Result<(), Wrong> {
    let is_variable = |part: &Part| matches!(part, Part::Variable { .. });
    let last = parts.iter().rposition(is_variable).unwrap_or(0);
    for place in 0..last {
        let next = match &parts[place + 1] {
            Part::Literal(text) => text.chars().next(),
            Part::Variable { .. } => None,
        };
        if let Part::Variable { end, .. } = &mut parts[place] {
            let apart = "two variables of a channel need something between them; write it like `chat:{a}:{b}`";
            *end = Some(next.ok_or(apart)?);
        }
    }
    Ok(())
}

struct Options {
    frame: FrameType,
    rights: Rights,
    policies: Policies,
}

fn options<'a>(options: impl Iterator<Item = &'a str>) -> Result<Options, Wrong> {
    let (mut frame, mut publish, mut subscribe, mut slow, mut on_gap) = (None, None, None, None, None);
    for option in options {
        let is_first = match option {
            "text" => frame.replace(FrameType::Text).is_none(),
            "binary" => frame.replace(FrameType::Binary).is_none(),
            "publish=yes" => publish.replace(true).is_none(),
            "publish=no" => publish.replace(false).is_none(),
            "subscribe=yes" => subscribe.replace(true).is_none(),
            "subscribe=no" => subscribe.replace(false).is_none(),
            "slow=close" => slow.replace(Slow::Close).is_none(),
            "slow=drop_newest" => slow.replace(Slow::DropNewest).is_none(),
            "slow=drop_oldest" => slow.replace(Slow::DropOldest).is_none(),
            "slow=latest" => slow.replace(Slow::Latest).is_none(),
            "on_gap=keep" => on_gap.replace(OnGap::Keep).is_none(),
            "on_gap=close" => on_gap.replace(OnGap::Close).is_none(),
            _ => {
                return Err(format!(
                    "there is no option {option:?}, but text, binary, publish=yes or no, subscribe=yes or no, \
                     slow=close, drop_newest, drop_oldest or latest, on_gap=keep or close, as in \
                     `/news=news,text,publish=no,slow=drop_oldest`"
                ));
            }
        };
        if !is_first {
            return Err(format!(
                "the option {option:?} repeats or contradicts another; write it like `/news=news,text,publish=no`"
            ));
        }
    }
    let (publish, subscribe) = (publish.unwrap_or(true), subscribe.unwrap_or(true));
    let rights = Rights { publish, subscribe, review: false };
    if !rights.publish && !rights.subscribe {
        return Err(
            "a session could neither publish nor subscribe; leave one right, as in `/news=news,publish=no`".into()
        );
    }
    let policies = Policies { slow: slow.unwrap_or_default(), on_gap: on_gap.unwrap_or_default() };
    Ok(Options { frame: frame.unwrap_or_default(), rights, policies })
}

fn push_literal(parts: &mut Vec<Part>, text: &str) {
    if !text.is_empty() {
        parts.push(Part::Literal(text.to_owned()));
    }
}

/// The segment that is the variable of this name.
fn position(segments: &[Segment], name: &str) -> Option<usize> {
    segments.iter().position(|segment| matches!(segment, Segment::Variable(other) if other == name))
}
