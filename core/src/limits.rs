//! The bounds and times that an operator may want to change, with their defaults. Each bound has a test at, below and
//! above it.
//!
//! ```
//! use fanfare_core::limits::Limits;
//! use fanfare_core::settings::Settings;
//!
//! let mut limits = Limits::default();
//! limits.message_bytes = 2 * limits.publish_bytes;
//! // A message that no queue can hold would never be published.
//! let error = Settings::new(limits, Vec::new(), "").expect_err("one bound is above another");
//! assert_eq!(error.setting(), "message_bytes");
//! ```

use core::time::Duration;

/// The bounds of one instance. Bytes are payload bytes unless a field says otherwise.
///
/// `Limits::default()` is what the binaries start with; set the fields that should differ.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// A request head in bytes, its final blank line included. Beyond it: 431, or 414 while still in the request line.
    pub head_bytes: usize,
    /// Header fields in a request head. Beyond it: 431.
    pub head_fields: usize,
    /// From accepting a connection to its complete request head. Beyond it: 408. If the embedder decides about
    /// requests, also from there to its decision. Beyond it: 503. Bytes that arrive behind the head meanwhile, together
    /// with the offered subprotocols, are bounded by `head_bytes`.
    pub head_time: Duration,
    /// A whole message, from a client (beyond it: close code 1009) or from Redis (beyond it: skipped and counted).
    pub message_bytes: usize,
    /// Fragments of one message. Beyond it: close code 1009.
    pub message_fragments: u32,
    /// From a message's first byte to its last. Beyond it: close code 1013. The time stops while the session is not
    /// read.
    pub message_time: Duration,
    /// Unfinished messages of all sessions of an instance together, without the first 4 KiB of each. Beyond it the
    /// session whose message began first is closed with 1013.
    pub partial_bytes: usize,
    /// Frames that wait for one session, plus 24 bytes for each run. Beyond it: close code 1013, or messages are
    /// dropped, as the route's [`Slow`](crate::route::Slow) says. A session for which nothing waits accepts a run of
    /// any size. Up to three [`notes`](crate::note), of 127 bytes and their 24, may wait beyond it until a message fits
    /// again.
    pub queue_bytes: usize,
    /// Frames that wait for all sessions of an instance together: each run once, by its size in memory, plus 24 bytes
    /// for each entry of a queue. When a run does not fit, the sessions that have been behind for longest pay: they are
    /// closed with 1013, or lose the messages that wait for them (`drop_oldest`, `latest`), or are dropped if they have
    /// none left to lose. Sessions whose waiting runs take less than 4 KiB, each counted whole, or less than a quarter
    /// of `queue_bytes`, do not pay. That much for each session, and the runs of one turn (256 KiB and four messages
    /// for each worker), may be held beyond the bound.
    pub all_queues_bytes: usize,
    /// Silence after which the server sends a ping, shortened by up to a tenth at random.
    pub ping_time: Duration,
    /// From a ping to a sign of life: any bytes moved in either direction. Beyond it the session is dropped. While a
    /// session's socket is full, bytes from the client are no sign of life: the session is dropped if the socket
    /// accepts nothing for `ping_time` plus `pong_time`.
    pub pong_time: Duration,
    /// From our Close, or from a plain answer, to the peer's end of the connection. Beyond it the connection is
    /// dropped.
    pub close_time: Duration,
    /// Window after a gap over which sessions with `on_gap=close` are closed with 1012, each at a random moment. Zero
    /// closes all of them at once.
    pub gap_close_time: Duration,
    /// From the call to shut down to the end of listening. New clients are served meanwhile, so that a load balancer
    /// has time to see that the instance is not ready.
    pub drain_delay: Duration,
    /// From the end of listening to the end of the instance, whatever is left. Closes are spread over at most the first
    /// half; the last tenth is for publishes alone.
    pub drain_time: Duration,
    /// A channel's name in bytes, its prefix included.
    pub channel_bytes: usize,
    /// From `accept` to the confirmed subscription. Beyond it: 503 with `Retry-After`.
    pub confirm_time: Duration,
    /// How long a channel stays subscribed after its last session left.
    pub linger_time: Duration,
    /// Channels of an instance that stay subscribed without a session. Beyond it the one that has lingered longest is
    /// unsubscribed.
    pub lingering_channels: usize,
    /// Runs in a worker's mailbox, by their size in memory. Beyond it, runs for that worker are dropped whole and
    /// counted, unless at most a quarter of the bound waits.
    pub mailbox_bytes: usize,
    /// Publishes that wait for Redis or for its confirmation, in bytes as encoded. Bytes that were read are admitted
    /// whole, so the hard bound is higher by one encoded read for each worker.
    pub publish_bytes: usize,
    /// Age at which a waiting publish is given up, counted and logged.
    pub publish_time: Duration,
    /// How long a message waits for credit. Beyond it, it is not published, and its session is closed with 1013.
    /// Control frames need no credit.
    pub pause_time: Duration,
    /// From the start of a dial to Redis to its connection.
    pub dial_time: Duration,
    /// From a command to Redis to its reply.
    pub reply_time: Duration,
    /// First and largest wait between dials to Redis, each taken at random between zero and its value (full jitter).
    pub reconnect_times: (Duration, Duration),
    /// Silence on a connection to Redis after which a PING is sent.
    pub redis_ping_time: Duration,
    /// From one probe through Redis to the next, and the longest that one may take to come back. Beyond it the instance
    /// is not ready.
    pub probe_time: Duration,
}

impl Limits {
    /// How long a client may accept nothing, or send nothing, before its connection counts as dead.
    #[must_use]
    pub fn patience(&self) -> Duration {
        self.ping_time.saturating_add(self.pong_time)
    }

    /// The most memory that the messages of one read from Redis take as runs in queues. A session that keeps up may
    /// hold that much beyond its bound until its next write.
    pub(crate) const fn turn_bytes(&self) -> usize {
        4 * ((64 << 10) + self.message_bytes)
    }
}

impl Default for Limits {
    fn default() -> Self {
        const KIB: usize = 1 << 10;
        const MIB: usize = 1 << 20;
        let seconds = Duration::from_secs;
        Self {
            head_bytes: 16 * KIB,
            head_fields: 100,
            head_time: seconds(10),
            message_bytes: 64 * KIB,
            message_fragments: 1_024,
            message_time: seconds(30),
            partial_bytes: 64 * MIB,
            queue_bytes: MIB,
            all_queues_bytes: 256 * MIB,
            ping_time: seconds(25),
            pong_time: seconds(10),
            close_time: seconds(5),
            gap_close_time: seconds(5),
            drain_delay: Duration::ZERO,
            drain_time: seconds(10),
            channel_bytes: 255,
            confirm_time: seconds(5),
            linger_time: seconds(5),
            lingering_channels: 10_000,
            mailbox_bytes: 8 * MIB,
            publish_bytes: 8 * MIB,
            publish_time: seconds(60),
            pause_time: seconds(10),
            dial_time: seconds(2),
            reply_time: seconds(5),
            reconnect_times: (Duration::from_millis(50), Duration::from_millis(750)),
            redis_ping_time: seconds(5),
            probe_time: seconds(5),
        }
    }
}
