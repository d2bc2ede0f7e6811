//! Every limit of the shell, each with its reason; those of the protocol are in [`socp::limits`].
//!
//! Together they bound what any client, peer or slow reader can make the server hold.

/// Inputs that wait for the driver: enough to batch under load; whoever brings one more waits.
pub const INPUTS_MAX: usize = 1_024;

/// Inputs handled in one wake-up of the driver, after which timers and the other queues are looked at.
pub const INPUTS_PER_WAKE_MAX: usize = 256;

/// Bytes of peers' frames that wait for the driver: what a hostile or hasty peer can make the server hold.
pub const FRAMES_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Attached streams at once; one more is refused with TOO_MANY. 20,000 devices by either transport, and room.
pub const ATTACHMENTS_MAX: usize = 50_000;

/// Events that one attached stream may leave unread: a busy channel for some seconds.
pub const ATTACHMENT_EVENTS_MAX: usize = 1_024;

/// Bytes of those events: some messages of the longest kind. Many streams together share most of these bytes.
pub const ATTACHMENT_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Watches at once; one more is refused with TOO_MANY. One for each connection that there may be, as clients have it.
pub const WATCHERS_MAX: usize = ATTACHMENTS_MAX;

/// Revisions kept for watchers who are behind or come back: an hour of a quiet server, seconds of a storm.
pub const RING_REVISIONS_MAX: usize = 65_536;

/// Bytes of those revisions, as if each were encoded in both forms. The latest one is kept whatever its size.
pub const RING_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Bytes of all snapshots that joining watchers still read; the oldest is given up first, and its readers start over.
/// The latest one is kept whatever its size.
pub const SNAPSHOT_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Changes in one message: 100 entries with the longest key statements and texts stay under 1 MiB.
pub const CHANGES_PER_MESSAGE_MAX: usize = 100;

/// Bytes of one message of a watch: gRPC libraries take 4 MiB by default, browsers like less.
pub const WATCH_MESSAGE_BYTES_MAX: usize = 1024 * 1024;

/// Revisions joined into one message at most, so that the hub's lock is held for microseconds.
pub const REVISIONS_PER_MESSAGE_MAX: usize = 512;

/// Least time between two messages of one watch. The first change on an idle stream goes at once; a storm costs each
/// watcher 200 messages per second instead of thousands.
pub const WATCH_GROUP_MS: u64 = 5;

/// A watch whose transport takes nothing for so long, although there is something for it, is ended with its connection: it
/// holds a place and a message, and cannot be told. Who is cut off altogether is noticed sooner, by the kernel at the next bookmark.
pub const WATCH_STALLED_MS: u64 = 60_000;

/// A watcher that lacks something for longer than this lags: the promise is that it has everything by then.
pub const WATCHER_LAGGING_MS: u64 = 100;

/// A watch without a message for so long gets a bookmark.
pub const BOOKMARK_MS: u64 = 15_000;

/// How often a watch asks whether its session still stands: one that was ended or disabled sees no more after this and
/// one message.
pub const AUTHORIZE_MS: u64 = 15_000;

/// Bytes of a request to the account service: a key statement and its signatures, twice.
pub const ACCOUNT_REQUEST_BYTES_MAX: usize = 32 * 1024;

/// Bytes of a request to the directory service: a filter with all the users it may name.
pub const DIRECTORY_REQUEST_BYTES_MAX: usize = 64 * 1024;

/// Bytes of a request to the message service: a post with all the wraps it may carry, gRPC's usual limit.
pub const MESSAGE_REQUEST_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Bytes of a request to the file service: a part of 1 MiB, which holds many chunks, and what stands around it.
pub const FILE_REQUEST_BYTES_MAX: usize = 1024 * 1024 + 1024;

/// Bytes of a request to the health and reflection services: a name. Whoever comes may call them.
pub const NAME_REQUEST_BYTES_MAX: usize = 4 * 1024;

/// Time for a request to be whole, from when it is read on; of a stream of messages, for what its service must have before it takes
/// over. The largest comes in it at 1.2 Mbit/s, and others are a fiftieth of that.
pub const REQUEST_MS_MAX: u64 = 30_000;

/// A request that is there as a whole and no larger than this is not held back until its token was looked at. Decoded, the worst of
/// them takes 56 times as much.
pub const WHOLE_REQUEST_BYTES: usize = 4 * 1024;

/// A request up to this size makes room for others only if there is none larger. Almost all are: but for posts with many
/// wraps, parts of files, and the longest messages.
pub const SMALL_REQUEST_BYTES: usize = 64 * 1024;

/// Bytes of all requests of one connection that are not whole: four of the largest. A client that has more to say says it in turn.
pub const REQUESTS_BYTES_PER_CONNECTION_MAX: usize = 4 * MESSAGE_REQUEST_BYTES_MAX;

/// Bytes of all requests that are not whole; who goes beyond it makes the oldest large one go. 64 of the largest at once, each of
/// which takes tenths of a second on a usual line.
pub const REQUESTS_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Bytes of a file that are read from disk and sent at once: two of them are held for each transfer.
pub const FILE_PART_BYTES: usize = 256 * 1024;

/// Bytes of a file that are written before the disk is waited for: some tenths of a second of a slow one.
pub const FILE_SYNC_BYTES: u64 = 32 * 1024 * 1024;

/// Bytes of a file in one row of a backup: what is held of it at once while a backup is made or restored.
pub const BACKUP_PART_BYTES: usize = 1024 * 1024;

/// Files under way at once, in and out: some MiB each at the worst, most of it in the windows of its connection.
pub const TRANSFERS_MAX: usize = 256;

/// Files under way of one user: so that one cannot take all places.
pub const TRANSFERS_PER_USER_MAX: usize = 8;

/// A transfer on which nothing moves for so long is ended; it can go on later where it was.
pub const TRANSFER_SILENCE_MS: u64 = 60_000;

/// Files that one side of a link fetches over it at once; others wait for [`OFFER_MS`] and are then told TOO_MANY or TIMEOUT.
pub const FETCHES_PER_LINK_MAX: usize = 8;

/// Offers of the dialling side that are kept: it holds one open, and another is on its way while the first is taken.
pub const OFFERS_MAX: usize = 2;

/// How long the next server on the way to a file may take to give a stream for it, and the pause after one failed.
pub const OFFER_MS: u64 = 3_000;

/// Origins whose pages may call: some sites and their test stands. Each request of a page is compared with all of them.
pub const WEB_ORIGINS_MAX: usize = 64;

/// Calls that wait for the node's answer at once; more wait before it, which holds their clients back. The node answers
/// most at once, and those that wait for another server within seconds.
pub const CALLS_MAX: usize = 8_192;

/// Connections for metrics at once; one more is closed as it comes. One or two programs ask, and people with a browser.
pub const METRICS_CONNECTIONS_MAX: usize = 16;

/// Bytes of the head of a request for metrics: the least that hyper allows.
pub const METRICS_HEAD_BYTES_MAX: usize = 8 * 1024;

/// Time of a connection for metrics, from its beginning to the last byte read: Prometheus gives up after 10 s, too.
pub const METRICS_MS_MAX: u64 = 10_000;

/// Metrics are gathered once in this time, whoever asks how often; more often than that shows nobody more.
pub const METRICS_FRESH_MS: u64 = 100;

/// How long the driver may take to tell its part of the metrics: its queue at the limit takes a tenth of that.
pub const METRICS_DRIVER_MS_MAX: u64 = 1_000;

/// Records that wait for the disk: twice what the node gives out of messages, and room for what it drops.
pub const RECORDS_MAX: usize = 2 * socp::limits::WRITES_MAX;

/// Records in one commit: some milliseconds of work, so that none waits long behind others.
pub const COMMIT_RECORDS_MAX: usize = 1_024;

/// Pages of inboxes that were read and that the driver has not taken: it takes one in microseconds.
pub const PAGES_MAX: usize = 16;

/// Calls that read a page of an inbox at once; more wait. With [`socp::limits::REPLAY_BYTES`] each, 16 MiB.
pub const READERS_MAX: usize = 64;

/// Frames of one stream of a link that wait to be sent: a snapshot of [`socp::limits::USERS_PER_ORIGIN_MAX`] users in
/// a batch each, with room.
pub const LINK_FRAMES_MAX: usize = 262_144;

/// Bytes that wait on a link's `Advertise` stream: such a snapshot with all key statements. Statements are shared with
/// the node, so most of these bytes are counted, not held.
pub const ADVERTISE_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Bytes that wait on a link's `Remove` stream: removals are small, and a peer that does not take them is dead.
pub const REMOVE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Bytes that wait on a link's `Deliver` stream: a thousand messages of the longest kind.
pub const DELIVER_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Time for a dial, from the address lookup to all three streams.
pub const DIAL_MS_MAX: u64 = 1_500;

/// Time that an accepted connection has to open all three streams.
pub const ACCEPT_MS_MAX: u64 = 1_500;

/// Accepted connections that have not opened all three streams: only admitted servers get as far, and each needs one or two.
pub const ACCEPTING_MAX: usize = 256;

/// Time for what is queued on a link that is closed.
pub const CLOSE_MS_MAX: u64 = 1_000;

/// How long a drain may take to tell peers goodbye: a link's close, and a little.
pub const DRAIN_MS_MAX: u64 = 1_500;

/// Least time between two log lines about refused frames of one peer; those between are counted and told with the next.
pub const REFUSAL_LOG_MS: u64 = 10_000;

/// Bytes of a peer's closing reason that are read and logged.
pub const REASON_BYTES_MAX: usize = 512;

/// Time that the other streams of a link have to end once one has, and the connection to be closed with a reason.
pub const LINGER_MS_MAX: u64 = 500;

/// Bytes of one frame that is taken from a peer: gRPC's usual limit, above all that [`socp::limits`] allows.
pub const FEDERATION_MESSAGE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// How long a database is looked over after an unclean stop: users wait for the start, and a start reads and checks what it
/// needs after that.
pub const LOOK_OVER_MS_MAX: u64 = 500;
