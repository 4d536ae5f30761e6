//! What a server tells operation: `/live`, `/ready` and `/metrics`.

use std::collections::BTreeMap;
use std::io;

use crate::raw::{Answer, Raw};

/// All samples of one scrape.
pub struct Metrics(BTreeMap<String, f64>);

impl Metrics {
    /// Asks the server whose address for operation has this port.
    ///
    /// # Errors
    ///
    /// When the answer is not 200, or has a line that is no sample.
    pub fn scrape(port: u16) -> io::Result<Self> {
        let answer = get(port, "/metrics")?;
        if answer.status != 200 {
            return Err(io::Error::other(format!("no metrics: {answer:?}")));
        }
        let text = String::from_utf8(answer.body).map_err(io::Error::other)?;
        let sample = |line: &str| {
            let (name, value) = line.rsplit_once(' ')?;
            Some((name.to_owned(), value.parse().ok()?))
        };
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let samples = lines.map(|line| sample(line).ok_or_else(|| io::Error::other(format!("no sample: {line}"))));
        Ok(Self(samples.collect::<io::Result<_>>()?))
    }

    /// The value of `fanfare_` and this, labels included.
    ///
    /// # Panics
    ///
    /// When there is none.
    #[must_use]
    pub fn value(&self, sample: &str) -> f64 {
        let value = self.0.get(&format!("fanfare_{sample}"));
        *value.unwrap_or_else(|| panic!("{sample} is not among {:#?}", self.0.keys()))
    }
}

/// The answer to a plain request for `path`, which the server ends the connection behind.
///
/// # Errors
///
/// When nobody listens there, or the answer is incomplete.
pub fn get(port: u16, path: &str) -> io::Result<Answer> {
    let mut raw = Raw::connect(port)?;
    raw.send(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes())?;
    let answer = raw.answer(false)?;
    raw.rest()?;
    Ok(answer)
}
