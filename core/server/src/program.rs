//! The common `main` of the binaries: everything but the runtime.
//!
//! ```no_run
//! use std::process::ExitCode;
//!
//! use fanfare_server::cli::Program;
//! use fanfare_server::program;
//!
//! fn main() -> ExitCode {
//!     let program = Program { name: "chatter", version: env!("CARGO_PKG_VERSION") };
//!     program::main(&program, std::env::args_os(), std::env::vars_os(), |setup, listeners, ready| {
//!         // Of a runtime's adapter: `runtime.block_on(fanfare_drive::serve::<R>(setup, listeners, ready))`.
//! #       let _ = (setup, listeners, ready);
//!         Ok(())
//!     })
//! }
//! ```

use std::ffi::OsString;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use fanfare_drive::{Listeners, ServeError, Setup};
use tracing::Level;

use crate::cli::{self, Exit, Parsed, Program};
use crate::config::{Config, Log};
use crate::{handed, log, metrics, process};

/// A binary's `main`: reads the settings as [`cli::parse`] does, starts the log on standard error, raises the limit of
/// open files, takes the listening sockets that a service manager hands over
/// ([`sd_listen_fds(3)`](https://www.freedesktop.org/software/systemd/man/latest/sd_listen_fds.html)) and calls `serve`
/// with the arguments of [`fanfare_drive::serve`]. The last one announces on standard output that clients are accepted.
///
/// The exit code is 0 after an orderly end, 2 for invalid settings, and otherwise [`ServeError::exit_code`]; except
/// with 0, one line on standard error gives the reason.
///
/// Neither output makes the process wait. Lines that nobody reads, or that cannot be written, are lost and counted.
pub fn main(
    program: &Program,
    args: impl IntoIterator<Item = OsString>,
    env: impl IntoIterator<Item = (OsString, OsString)>,
    serve: impl FnOnce(Setup, Listeners, &dyn Fn(&[SocketAddr])) -> Result<(), ServeError>,
) -> ExitCode {
    process::started();
    let args: Vec<OsString> = args.into_iter().collect();
    let env: Vec<(OsString, OsString)> = env.into_iter().collect();
    let names =
        env.iter().find(|(name, _)| name == "LISTEN_FDNAMES").and_then(|(_, names)| names.clone().into_string().ok());
    let format = cli::log_format(&args, &env);
    let parsed = match read_secrets(&args, env) {
        Ok(env) => cli::parse(program, args, env),
        Err(problem) => match cli::parse(program, args, []) {
            Err(answer @ Exit::Answer(_)) => Err(answer),
            _ => Err(Exit::Refusal(format!("{}: {problem}", program.name))),
        },
    };
    // Changes the environment, which wants to happen before there is a thread.
    let handed = handed::listeners(&names.unwrap_or_default()).map_err(ServeError::Listener);
    let settings = match &parsed {
        Ok(parsed) => parsed.config.log.clone(),
        Err(_) => Log { format, ..Config::default().log },
    };
    if log::start(&settings).is_err() {
        // There is no thread for a log, and there will be none for a worker.
        return ExitCode::FAILURE;
    }
    let code = match parsed {
        Ok(Parsed { mut config, warnings }) => {
            if config.name.is_empty() {
                let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
                config.name = format!("{host}-{}", std::process::id());
            }
            for warning in warnings {
                log::complain("unknown_setting", Level::WARN, &warning);
            }
            run(program, config, handed, serve)
        }
        Err(Exit::Answer(text)) => {
            log::announce(&text, || announce_lines("answer", &text));
            ExitCode::SUCCESS
        }
        Err(Exit::Refusal(line)) => {
            log::complain("refused_settings", Level::ERROR, &line);
            ExitCode::from(2)
        }
    };
    log::finish();
    code
}

/// Sets `REDIS_URL`, unless it or the flag is given, to the content of the file that `REDIS_URL_FILE` names, or of
/// systemd's credential `redis-url`: many can see a secret in the environment or on a command line.
fn read_secrets(args: &[OsString], mut env: Vec<(OsString, OsString)>) -> Result<Vec<(OsString, OsString)>, String> {
    let find = |wanted: &str| {
        let found = env.iter().find(|(name, value)| name == wanted && cli::is_set(value));
        found.map(|(_, value)| PathBuf::from(value))
    };
    let is_flag = |arg: &str| arg == "--redis-url" || arg.starts_with("--redis-url=");
    if find("REDIS_URL").is_some() || args.iter().filter_map(|arg| arg.to_str()).any(is_flag) {
        return Ok(env);
    }
    let credential = find("CREDENTIALS_DIRECTORY").map(|directory| directory.join("redis-url"));
    // A credential that is there and may not be read is an error, not an instance by itself.
    let is_given = |path: &PathBuf| !matches!(path.try_exists(), Ok(false));
    let Some(path) = find("REDIS_URL_FILE").or_else(|| credential.filter(is_given)) else { return Ok(env) };
    let url = fs::read_to_string(&path)
        .map_err(|error| format!("the URL of Redis cannot be read from {}: {error}", path.display()))?;
    if url.trim().is_empty() {
        // As a variable it would count as unset, and the instance would be one by itself.
        return Err(format!("{} is to have the URL of Redis, and is empty", path.display()));
    }
    env.push(("REDIS_URL".into(), url.into()));
    Ok(env)
}

fn run(
    program: &Program,
    config: Config,
    handed: Result<Listeners, ServeError>,
    serve: impl FnOnce(Setup, Listeners, &dyn Fn(&[SocketAddr])) -> Result<(), ServeError>,
) -> ExitCode {
    // More descriptors are more clients; what the system does not give is met by resting from accepting.
    let descriptors = rlimit::increase_nofile_limit(u64::MAX).unwrap_or_default();
    tracing::debug!(event = "started", version = program.version, descriptors, "limit of open files");
    let mut setup = match config.setup() {
        Ok(setup) => setup,
        Err(error) => {
            log::complain("refused_settings", Level::ERROR, &format!("{}: {error}", program.name));
            return ExitCode::from(2);
        }
    };
    setup.metrics = Some(metrics::answer_of_process);
    let ready = |addresses: &[SocketAddr]| announce(program, &config, addresses);
    match handed.and_then(|listeners| serve(setup, listeners, &ready)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log::complain("ended", Level::ERROR, &format!("{}: {error}", program.name));
            ExitCode::from(error.exit_code())
        }
    }
}

/// Says on standard output that clients are accepted.
fn announce(program: &Program, config: &Config, addresses: &[SocketAddr]) {
    let text = format!("{} {} {}\n", program.name, program.version, config.banner(addresses));
    log::announce(&text, || announce_lines("listening", &text));
}

/// One object for each line.
fn announce_lines(event: &'static str, text: &str) {
    for line in text.lines() {
        tracing::info!(target: log::ANNOUNCED, event, "{line}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redis_url(env: &[(&str, &str)]) -> Result<Option<String>, String> {
        let env = env.iter().map(|(name, value)| (name.into(), value.into())).collect();
        let mut found = read_secrets(&[], env)?.into_iter().filter(|(name, _)| name == "REDIS_URL");
        Ok(found.next_back().and_then(|(_, value)| value.into_string().ok()))
    }

    /// This test in a process of its own, whose log is its own: there it panics.
    #[test]
    fn a_panic_is_a_line_of_the_log() {
        const FORMAT: &str = "FANFARE_TEST_PANICS_AS";
        if let Some(format) = std::env::var_os(FORMAT) {
            let program = Program { name: "fanfare", version: "0" };
            let args = ["fanfare".into(), "--log-format".into(), format];
            main(&program, args, [], |_, _, _| panic!("first\nsecond"));
            return;
        }
        let (_, module) = module_path!().split_once("::").expect("a module in a crate");
        let log = |format| {
            let mut command = std::process::Command::new(std::env::current_exe().expect("a program"));
            command.args(["--exact", &format!("{module}::a_panic_is_a_line_of_the_log"), "--nocapture"]);
            let output = command.env(FORMAT, format).env_remove("RUST_BACKTRACE").output().expect("it runs");
            assert!(!output.status.success(), "{output:?}");
            String::from_utf8(output.stderr).expect("text")
        };
        let json = log("json");
        let [line] = json.lines().collect::<Vec<_>>()[..] else { panic!("{json}") };
        assert!(line.starts_with("{\"timestamp\":") && line.ends_with('}'), "{line}");
        for member in ["\"level\":\"ERROR\"", "\"event\":\"panic\"", "\"place\":", "first\\nsecond\""] {
            assert!(line.contains(member), "{member}: {line}");
        }
        let text = log("text");
        assert!(text.lines().count() == 1 && text.contains(" ERROR ") && text.contains("please report it"), "{text}");
    }

    #[test]
    fn the_url_of_redis_may_be_in_a_file() {
        let directory = std::env::temp_dir().join(format!("fanfare-secrets-{}", std::process::id()));
        fs::create_dir_all(&directory).expect("a directory");
        let file = directory.join("redis-url");
        fs::write(&file, "redis://:secret@cache\n").expect("a file");
        let (file, directory) = (file.to_str().expect("a path"), directory.to_str().expect("a path"));
        let secret = Ok(Some("redis://:secret@cache\n".to_owned()));
        assert_eq!(redis_url(&[("REDIS_URL_FILE", file)]), secret);
        assert_eq!(redis_url(&[("CREDENTIALS_DIRECTORY", directory)]), secret);
        assert_eq!(redis_url(&[("REDIS_URL", ""), ("REDIS_URL_FILE", file)]), secret);
        let given = Ok(Some("redis://a".to_owned()));
        assert_eq!(redis_url(&[("REDIS_URL", "redis://a"), ("REDIS_URL_FILE", file)]), given);
        assert_eq!(redis_url(&[("CREDENTIALS_DIRECTORY", "/nowhere")]), Ok(None));
        assert_eq!(redis_url(&[("REDIS_URL", " "), ("REDIS_URL_FILE", file)]), secret);
        let error = redis_url(&[("CREDENTIALS_DIRECTORY", file)]).expect_err("what is no directory");
        assert!(error.contains("cannot be read"), "{error}");
        let error = redis_url(&[("REDIS_URL_FILE", "/nowhere/url")]).expect_err("no file");
        assert!(error.contains("/nowhere/url") && !error.contains("secret"), "{error}");
        for flag in [&["--redis-url", "redis://a"][..], &["--workers", "1", "--redis-url=redis://a"]] {
            let args: Vec<OsString> = flag.iter().map(OsString::from).collect();
            assert!(read_secrets(&args, vec![("REDIS_URL_FILE".into(), "/nowhere".into())]).is_ok(), "the flag wins");
        }
        fs::write(file, " \n").expect("a file");
        let error = redis_url(&[("REDIS_URL_FILE", file)]).expect_err("an empty file");
        assert!(error.contains(file) && error.contains("empty"), "{error}");
        fs::remove_dir_all(directory).expect("it is there");
    }
}
