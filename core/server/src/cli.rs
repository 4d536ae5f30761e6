//! The command line and environment of every Fanfare server, so that all of them take the same.
//!
//! Each option is a flag and an environment variable; the flag wins. `clap` splits the command line and writes the
//! help. Values are read here, so that flag and variable share one reading, tests pass their own environment, and each
//! error is one line that names the source of the value.
//!
//! ```
//! use fanfare_server::cli::{Exit, Program, parse};
//!
//! let program = Program { name: "chatter", version: "1.0.0" };
//! let env = [("PORT".into(), "8080".into()), ("FANFARE_MAX_MESSAGE".into(), "1KiB".into())];
//! let parsed = parse(&program, ["chatter", "--port", "9090"].map(Into::into), env).expect("both are settings");
//! assert_eq!((parsed.config.port, parsed.config.limits.message_bytes), (9090, 1 << 10), "the flag wins");
//! let refused = parse(&program, ["chatter", "--port", "high"].map(Into::into), []);
//! assert!(matches!(refused, Err(Exit::Refusal(line)) if line.contains("--port")));
//! ```

use std::collections::BTreeMap;
use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgAction, ArgMatches, Command};

use crate::config::{Config, ConfigError, LogFormat};
use options::{OPTIONS, Opt, Takes};

mod options;
#[cfg(test)]
mod tests;

/// The name of a server in its help, its version and its errors.
#[derive(Clone, Copy, Debug)]
pub struct Program {
    /// The binary's name, for example `fanfare-tokio`.
    pub name: &'static str,
    /// Its version, for example `0.1.0`.
    pub version: &'static str,
}

/// The result of reading a command line and an environment.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Parsed {
    /// The settings, checked.
    pub config: Config,
    /// Lines for stderr about variables that look like settings and are none.
    pub warnings: Vec<String>,
}

/// Why the server does not start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exit {
    /// The help or version that was asked for: print it on stdout and exit with 0.
    Answer(String),
    /// One line on what is wrong: print it on stderr and exit with 2.
    Refusal(String),
}

/// Reads the settings from `args`, of which the first is the program's own name, and from the variables in `env`.
///
/// An empty variable counts as unset. Nothing is read from anywhere else.
///
/// # Errors
///
/// [`Exit`], also if help or version are asked for.
pub fn parse(
    program: &Program,
    args: impl IntoIterator<Item = OsString>,
    env: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Parsed, Exit> {
    let command = command(program);
    let flags =
        command.clone().try_get_matches_from(args.into_iter().skip(1)).map_err(|error| exit(program, &error))?;
    let given = Given { flags, env: variables(env) };
    let refuse = |source: String, problem: String| refusal(program, &format!("{source}: {problem}"));

    let mut config = Config::default();
    for option in OPTIONS {
        for value in given.values(option).map_err(|problem| refuse(option.env(), problem))? {
            (option.apply)(&mut config, &value)
                .map_err(|problem| refuse(given.source(option), given.hint(option, &value, problem)))?;
        }
    }
    let source =
        |setting| find(|option| option.setting == setting).map_or_else(String::new, |option| given.source(option));
    config.check().map_err(|error: ConfigError| refuse(source(error.setting()), error.describe(source)))?;
    let warn = |line| format!("{}: {line}", program.name);
    Ok(Parsed { config, warnings: warnings(&command, &given.env).map(warn).collect() })
}

/// The configured format of the log, also if [`parse`] fails.
pub(crate) fn log_format(args: &[OsString], env: &[(OsString, OsString)]) -> LogFormat {
    let flag = "--log-format";
    let args = || args.iter().filter_map(|arg| arg.to_str());
    let by_flag = args()
        .zip(args().skip(1))
        .find_map(|(arg, next)| (arg == flag).then_some(next))
        .or_else(|| args().find_map(|arg| arg.strip_prefix(flag)?.strip_prefix('=')));
    let by_variable =
        || env.iter().find(|(name, _)| name == "FANFARE_LOG_FORMAT").and_then(|(_, value)| value.to_str());
    let is_json = by_flag.or_else(by_variable).is_some_and(|value| value.trim().eq_ignore_ascii_case("json"));
    if is_json { LogFormat::Json } else { LogFormat::Text }
}

/// The options as a Markdown table, for `core/docs/options.md`.
#[must_use]
pub fn options_table() -> String {
    let defaults = Config::default();
    let mut table = String::from("| flag | environment | default | meaning |\n| --- | --- | --- | --- |\n");
    let mut heading = "";
    for option in OPTIONS {
        if heading != option.heading {
            heading = option.heading;
            table += &format!("| **{heading}** | | | |\n");
        }
        let (name, env, default, help) = (option.name, option.env(), (option.default)(&defaults), option.help);
        table += &format!("| `--{name}` | `{env}` | {default} | {help} |\n");
    }
    table
}

const ABOUT: &str = "Spreads WebSocket messages over any number of server instances through Redis Pub/Sub.";

const NOTES: &str = "\
Each option is also the environment variable named beside it. A flag wins over its variable, and an empty variable \
counts as unset. In variables of options that may be repeated, values have spaces between them.";

fn command(program: &Program) -> Command {
    let defaults = Config::default();
    let command = Command::new(program.name)
        .version(program.version)
        .about(ABOUT)
        .no_binary_name(true)
        .max_term_width(100)
        .after_long_help(NOTES);
    OPTIONS.iter().fold(command, |command, option| command.arg(argument(option, &defaults)))
}

fn argument(option: &Opt, defaults: &Config) -> Arg {
    let default = format!("[default: {}]", (option.default)(defaults));
    let more = if option.more.is_empty() { String::new() } else { format!("\n\n{}\n", option.more) };
    let argument = Arg::new(option.name)
        .long(option.name)
        .help_heading(option.heading)
        .value_name(option.value)
        .help(format!("{} {default}", option.help))
        .long_help(format!("{}{more}\n{default} [env: {}]", option.help, option.env()));
    match option.takes {
        Takes::One => argument.allow_negative_numbers(true),
        Takes::Many => argument.action(ArgAction::Append),
        // A value is possible so that a flag can undo what a variable turned on.
        Takes::YesNo => argument.num_args(0..=1).require_equals(true).default_missing_value("yes"),
    }
}

/// The given values, by flag and by variable.
struct Given {
    flags: ArgMatches,
    env: BTreeMap<String, OsString>,
}

impl Given {
    fn values(&self, option: &Opt) -> Result<Vec<String>, String> {
        if let Some(values) = self.flags.get_many::<String>(option.name) {
            return Ok(values.cloned().collect());
        }
        let Some(value) = self.env.get(&option.env()) else { return Ok(Vec::new()) };
        let Some(value) = value.to_str() else { return Err("the value is not UTF-8".to_owned()) };
        Ok(match option.takes {
            Takes::Many => value.split_whitespace().map(str::to_owned).collect(),
            // Secrets mounted from files often end in a newline.
            Takes::One | Takes::YesNo => vec![value.trim().to_owned()],
        })
    }

    /// What is wrong, and whether it may be what stands between values.
    fn hint(&self, option: &Opt, value: &str, problem: String) -> String {
        let is_list = matches!(option.takes, Takes::Many) && value.contains(',') && option.name != "route";
        if is_list { format!("{problem}; several values have spaces between them, not commas") } else { problem }
    }

    /// What the user has to change: the variable if the value comes from there, else the flag.
    fn source(&self, option: &Opt) -> String {
        let by_env = !self.flags.contains_id(option.name) && self.env.contains_key(&option.env());
        if by_env { option.env() } else { format!("--{}", option.name) }
    }
}

fn variables(env: impl IntoIterator<Item = (OsString, OsString)>) -> BTreeMap<String, OsString> {
    env.into_iter()
        .filter(|(_, value)| is_set(value))
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
        .collect()
}

/// A variable that is empty, or blank, counts as one that is not set.
pub(crate) fn is_set(value: &OsString) -> bool {
    value.to_str().is_none_or(|value| !value.trim().is_empty())
}

fn find(wanted: impl Fn(&Opt) -> bool) -> Option<&'static Opt> {
    OPTIONS.iter().find(|option| wanted(option))
}

/// Warnings about variables that are no options: typing errors would stay unnoticed.
fn warnings(command: &Command, env: &BTreeMap<String, OsString>) -> impl Iterator<Item = String> {
    let unknown = env.iter().filter(|(name, value)| {
        name.starts_with("FANFARE_")
            && !is_of_kubernetes(name, value)
            && find(|option| option.env() == **name).is_none()
    });
    unknown.map(|(name, _)| match nearest(command, name) {
        Some(option) => format!("{name} is not a setting and is ignored; did you mean {}?", option.env()),
        None => format!("{name} is not a setting and is ignored; try --help"),
    })
}

/// Kubernetes sets such variables in every pod beside services whose names begin with `fanfare`.
fn is_of_kubernetes(name: &str, value: &OsString) -> bool {
    let is_port = |text: &str| text.starts_with(|first: char| first.is_ascii_digit());
    name.contains("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT")
        || name.split_once("_PORT_").is_some_and(|(_, rest)| is_port(rest))
        || (name.ends_with("_PORT") && value.to_str().is_some_and(|value| value.contains("://")))
}

/// The option most like an unknown variable: `clap` knows the most similar flag.
fn nearest(command: &Command, variable: &str) -> Option<&'static Opt> {
    let name = variable.trim_start_matches("FANFARE_").to_ascii_lowercase().replace('_', "-");
    find(|option| option.name == name).or_else(|| {
        let error = command.clone().try_get_matches_from([format!("--{name}")]).err()?;
        let flag = context(&error, ContextKind::SuggestedArg)?;
        find(|option| flag.strip_prefix("--") == Some(option.name))
    })
}

fn exit(program: &Program, error: &clap::Error) -> Exit {
    if let ErrorKind::DisplayHelp | ErrorKind::DisplayVersion = error.kind() {
        return Exit::Answer(error.to_string());
    }
    let problem = match (error.kind(), context(error, ContextKind::InvalidArg)) {
        (ErrorKind::UnknownArgument, Some(flag)) if flag.starts_with('-') => format!("{flag} is not an option"),
        (ErrorKind::UnknownArgument, Some(word)) => format!("'{word}' belongs to no option"),
        _ => error.to_string().lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned(),
    };
    let hint = match context(error, ContextKind::SuggestedArg) {
        Some(flag) => format!("did you mean {flag}? Try --help"),
        None => "try --help".to_owned(),
    };
    refusal(program, &format!("{problem}; {hint}"))
}

/// One line, for any values that it quotes.
fn refusal(program: &Program, text: &str) -> Exit {
    Exit::Refusal(format!("{}: {}", program.name, text.replace(char::is_control, "?")))
}

fn context(error: &clap::Error, kind: ContextKind) -> Option<&str> {
    match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text),
        _ => None,
    }
}
