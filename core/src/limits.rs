//! Every bound of the core, with its default. Each has a test at, below and above it.

use core::time::Duration;

/// The bounds of one instance. Bytes are payload bytes unless said otherwise.
///
/// `Limits::default()` is what the binaries start with; set the fields that should differ.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// A request head in bytes, its final blank line included. Beyond it: 431, or 414 while still in the request line.
    pub head_bytes: usize,
    /// Header fields in a request head. Beyond it: 431.
    pub head_fields: usize,
    /// From the first accept of a connection to its complete request head, beyond it: 408, and, if the embedder decides,
    /// to its decision, beyond it: 503. Bytes that come behind the head meanwhile, together with the subprotocols that it
    /// offers, are bounded by `head_bytes`.
    pub head_time: Duration,
    /// A whole message, from a client (beyond it: close code 1009) or from Redis (beyond it: skipped and counted).
    pub message_bytes: usize,
    /// Fragments of one message. Beyond it: close code 1009.
    pub message_fragments: u32,
    /// From a message's first byte to its last. Beyond it: close code 1013. It stands still while the session is not read.
    pub message_time: Duration,
    /// Unfinished messages of all sessions of an instance together, beside the first 4 KiB of each. Beyond it the session
    /// is closed with 1013 whose message was begun first.
    pub partial_bytes: usize,
    /// Frames that wait for one session, and the 24 bytes a run that keeping them in order takes. Beyond it: close code
    /// 1013, or messages are dropped, as the route's [`Slow`](crate::route::Slow) says. If nothing waits it does not
    /// count: whoever keeps up takes a run of any size. A [`note`](crate::note) is told beyond it as well: three at most, of
    /// 127 bytes and their 24, until a message fits again.
    pub queue_bytes: usize,
    /// Frames that wait for all sessions of an instance together, each run once, by what it takes in memory, and 24
    /// bytes for each entry of a queue. When a run does not fit, the sessions pay whose sockets have been full for longest
    /// without their catching up: they are closed with 1013, or lose what waits for them (`drop_oldest`, `latest`), or are
    /// dropped if nothing is left that they could lose. Those whose waiting runs take less than 4 KiB, all of each, or than
    /// a quarter of `queue_bytes`, do not pay. So much for each session, and what one turn brings (256 KiB and four
    /// messages a worker), may be held beyond it.
    pub all_queues_bytes: usize,
    /// Silence after which the server sends a ping, shortened by up to a tenth at random.
    pub ping_time: Duration,
    /// From a ping to a sign of life, any bytes moved in either direction. Beyond it the session ends. While a session's
    /// socket takes no more, what the client sends is no sign of life: then it ends if it takes nothing for `ping_time` and
    /// `pong_time`.
    pub pong_time: Duration,
    /// From our Close to the peer's end of the connection; likewise for a plain answer. Beyond it the connection is dropped.
    pub close_time: Duration,
    /// Over how long the sessions are closed with 1012 that a gap concerns and whose route says so, each at its own random
    /// moment. Zero closes all of them at once.
    pub gap_close_time: Duration,
    /// From the call to shut down to the end of listening: new clients are served meanwhile, so that a load balancer has
    /// the time to see that the instance is not ready.
    pub drain_delay: Duration,
    /// From the end of listening to the end of the instance, whatever is left. Closes are spread over at most its first
    /// half; its last tenth belongs to publishes alone.
    pub drain_time: Duration,
    /// A channel's name in bytes, its prefix included.
    pub channel_bytes: usize,
    /// From `accept` to the confirmed subscription. Beyond it: 503 with `Retry-After`.
    pub confirm_time: Duration,
    /// How long a channel stays subscribed after its last session left.
    pub linger_time: Duration,
    /// Channels of an instance that stay subscribed though no session is left in them. Beyond it the one that has lingered
    /// longest is unsubscribed.
    pub lingering_channels: usize,
    /// Runs that the bus has handed to a worker and the worker has not taken in, by what they take in memory. Beyond it,
    /// runs for that worker are dropped whole and counted, unless a quarter of it or less waits.
    pub mailbox_bytes: usize,
    /// Publishes that wait for Redis or for its confirmation, encoded, in bytes. What was read already is admitted whole,
    /// so the hard bound is one read per worker more, encoded.
    pub publish_bytes: usize,
    /// Age at which a waiting publish is given up, counted and logged.
    pub publish_time: Duration,
    /// How long a message that finds no credit waits. Then it is not published, and its session is closed with 1013. What
    /// is no message needs no credit.
    pub pause_time: Duration,
    /// From a dial to Redis to its connection.
    pub dial_time: Duration,
    /// From a command to Redis to its reply.
    pub reply_time: Duration,
    /// First and largest wait between dials to Redis, each taken at random between zero and its value (full jitter).
    pub reconnect_times: (Duration, Duration),
    /// Silence on a connection to Redis after which a PING goes out.
    pub redis_ping_time: Duration,
    /// From one probe through Redis to the next, and what one may take to come back. Beyond it the instance is not ready.
    pub probe_time: Duration,
}

impl Limits {
    /// How long a client may take nothing that we write, or say nothing, before it counts as gone.
    #[cfg(feature = "drive")]
    pub(crate) fn patience(&self) -> Duration {
        self.ping_time.saturating_add(self.pong_time)
    }

    /// What the messages of one read from Redis take in memory at most once they are runs in queues. Whoever keeps up
    /// holds so much more than may wait, until its next write.
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
