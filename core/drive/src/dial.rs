//! A connection to a name that may have several addresses.
//!
//! Each address is tried a while after the one before, or at once when that has failed, and the first that connects wins
//! ([RFC 8305](https://www.rfc-editor.org/rfc/rfc8305) §5): an address that swallows what is sent to it must not keep the
//! others from being tried.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::runtime::Runtime;
use fanfare_core::time::{Duration, Instant};

/// The longest wait before the next address.
const STAGGER: Duration = Duration::from_millis(250);

type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// The addresses of a name, being looked up.
pub(super) type Lookup = Boxed<io::Result<Vec<SocketAddr>>>;

/// Looks `host` up.
pub(super) fn look_up<R: Runtime>(host: String, port: u16) -> Lookup {
    Box::pin(async move { R::resolve(&host, port).await })
}

/// The connections to several addresses, of which one is wanted.
pub(super) struct Race<R: Runtime> {
    left: VecDeque<SocketAddr>,
    running: Vec<(SocketAddr, Boxed<io::Result<R::Stream>>)>,
    stagger: Duration,
    next: Option<Boxed<()>>,
    failed: Vec<(SocketAddr, io::Error)>,
}

impl<R: Runtime> Race<R> {
    /// Tries all of `addresses` within half of `time`.
    pub(super) fn new(addresses: &[SocketAddr], time: Duration) -> Self {
        let left = interleaved(addresses);
        let share = time / 2 / u32::try_from(left.len()).unwrap_or(u32::MAX).max(1);
        Self { left, running: Vec::new(), stagger: share.min(STAGGER), next: None, failed: Vec::new() }
    }

    /// The first connection, or why there is none.
    pub(super) fn poll(
        &mut self,
        runtime: &R,
        now: Instant,
        context: &mut Context<'_>,
    ) -> Poll<Result<R::Stream, String>> {
        loop {
            let mut at = 0;
            while let Some((address, connection)) = self.running.get_mut(at) {
                match connection.as_mut().poll(context) {
                    Poll::Pending => at += 1,
                    Poll::Ready(Ok(stream)) => return Poll::Ready(Ok(stream)),
                    Poll::Ready(Err(error)) => {
                        self.failed.push((*address, error));
                        drop(self.running.remove(at));
                        self.next = None;
                    }
                }
            }
            let is_due = self.next.as_mut().is_none_or(|next| next.as_mut().poll(context).is_ready());
            if is_due {
                // What has ended must not be polled again, and this is polled for nothing, too.
                self.next = None;
            }
            match if is_due { self.left.pop_front() } else { None } {
                Some(address) => {
                    self.running.push((address, Box::pin(R::connect(address))));
                    self.next = Some(Box::pin(runtime.sleep_until(now + self.stagger)));
                }
                None if self.running.is_empty() && self.left.is_empty() => return Poll::Ready(Err(self.reason())),
                None => return Poll::Pending,
            }
        }
    }

    fn reason(&self) -> String {
        match &self.failed[..] {
            [] => "the name has no address".to_owned(),
            [(_, error)] => error.to_string(),
            several => {
                let each: Vec<_> = several.iter().map(|(at, error)| format!("{}: {error}", at.ip())).collect();
                each.join("; ")
            }
        }
    }
}

/// Addresses of either version in turn, beginning with the one that the system prefers.
fn interleaved(addresses: &[SocketAddr]) -> VecDeque<SocketAddr> {
    let Some(first) = addresses.first() else { return VecDeque::new() };
    let (mut preferred, mut others): (VecDeque<_>, VecDeque<_>) =
        addresses.iter().partition(|address| address.is_ipv4() == first.is_ipv4());
    let mut mixed = VecDeque::with_capacity(addresses.len());
    while let Some(address) = preferred.pop_front().or_else(|| others.pop_front()) {
        if !mixed.contains(&address) {
            mixed.push_back(address);
        }
        core::mem::swap(&mut preferred, &mut others);
        if preferred.is_empty() {
            core::mem::swap(&mut preferred, &mut others);
        }
    }
    mixed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_take_turns_and_none_is_tried_twice() {
        let at = |address: &str| format!("{address}:1").parse::<SocketAddr>().unwrap();
        let addresses = ["[::1]", "[::2]", "[::3]", "1.0.0.1", "[::2]", "1.0.0.2"].map(at);
        let order = ["[::1]", "1.0.0.1", "[::2]", "1.0.0.2", "[::3]"].map(at);
        assert_eq!(interleaved(&addresses), order);
        assert_eq!(interleaved(&[]), []);
    }
}
