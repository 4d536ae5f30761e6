//! What an instance says of itself over time, as a load balancer hears it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::metrics::get;

/// Between two questions.
const INTERVAL: Duration = Duration::from_millis(25);

/// Asks for `/ready` again and again until it is dropped.
pub struct Watch {
    port: u16,
    words: Arc<Mutex<Vec<Word>>>,
    is_over: Arc<AtomicBool>,
}

/// An answer that differed from the one before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Word {
    /// When it was heard.
    pub at: Instant,
    /// Whether it was 200.
    pub is_ready: bool,
    /// Its body, or why there was none.
    pub text: String,
}

impl Watch {
    /// Begins to ask the instance at `port`.
    #[must_use]
    pub fn start(port: u16) -> Self {
        let watch = Self { port, words: Arc::default(), is_over: Arc::default() };
        let (words, is_over) = (Arc::clone(&watch.words), Arc::clone(&watch.is_over));
        thread::spawn(move || {
            while !is_over.load(Ordering::Relaxed) {
                let word = ask(port);
                let mut words = locked(&words);
                if words.last().is_none_or(|last| (last.is_ready, &last.text) != (word.is_ready, &word.text)) {
                    words.push(word);
                }
                drop(words);
                thread::sleep(INTERVAL);
            }
        });
        watch
    }

    /// The port of the instance.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Whether the last answer was 200.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.last().is_some_and(|word| word.is_ready)
    }

    /// The last answer that differed from the one before.
    #[must_use]
    pub fn last(&self) -> Option<Word> {
        locked(&self.words).last().cloned()
    }

    /// The answers since `start`, the one that stood then among them.
    #[must_use]
    pub fn since(&self, start: Instant) -> Vec<Word> {
        let words = locked(&self.words);
        let first = words.iter().rposition(|word| word.at <= start).unwrap_or(0);
        words[first..].to_vec()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
    }
}

fn ask(port: u16) -> Word {
    let (is_ready, text) = match get(port, "/ready") {
        Ok(answer) => (answer.status == 200, String::from_utf8_lossy(&answer.body).trim_end().to_owned()),
        Err(error) => (false, error.to_string()),
    };
    Word { at: Instant::now(), is_ready, text }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
