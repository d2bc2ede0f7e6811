//! Queues: whatever others do, all that a server keeps stays within the limit that is written down for it.

use socp::limits::{
    ADMISSIONS_KEPT_MAX, ADMISSIONS_KEPT_PER_ISSUER_MAX, ADMISSIONS_TAKEN_MAX, ADMITTED_MAX, BLOCKED_MAX,
    CHANNEL_POSTS_MAX, CHECKS_MAX, DEVICES_PER_USER_MAX, EARLY_FRAMES_MAX, ENTRIES_MAX, FILES_MAX, FILES_PER_USER_MAX,
    HELD_BATCHES_MAX, HISTORY_MAX, IDS_PER_HOME_MAX, IGNORED_ISSUERS_MAX, LOG_BATCHES_MAX, NAMES_MAX, NEIGHBOURS_MAX,
    NONCES_MAX, NONCES_PER_USER_MAX, ORIGINS_MAX, OUTBOX_BYTES_MAX, OUTBOX_IN_FLIGHT_MAX, OUTBOX_PER_USER_MAX,
    PENDING_STATEMENTS_MAX, QUERIES_MAX, REFUSALS_MAX, REFUSED_FRAMES_MAX, SENDS_PER_SESSION_MAX,
    SESSIONS_PER_USER_MAX, UNTOLD_MAX, USERS_PER_ORIGIN_MAX, WAITING_MAX, WRITES_BYTES_MAX, WRITES_MAX,
};

use crate::world::World;

/// Everything that a node says it keeps, with its limit.
const LIMITS: &[(&str, usize)] = &[
    ("admissions", ADMISSIONS_KEPT_MAX),
    ("admissions of an issuer", ADMISSIONS_KEPT_PER_ISSUER_MAX),
    ("admissions taken of an issuer", ADMISSIONS_TAKEN_MAX),
    ("admitted servers", ADMITTED_MAX),
    ("blocked servers", BLOCKED_MAX),
    ("bytes in the outbox", OUTBOX_BYTES_MAX),
    ("bytes of posts that wait for the disk", WRITES_BYTES_MAX),
    ("bytes that wait for the disk", WRITES_BYTES_MAX),
    ("calls that wait for one message", SENDS_PER_SESSION_MAX),
    ("calls that wait for one post", SENDS_PER_SESSION_MAX),
    ("changes remembered", HISTORY_MAX),
    ("checks under way", CHECKS_MAX),
    ("devices of a user", DEVICES_PER_USER_MAX),
    ("files", FILES_MAX),
    ("files of a user", FILES_PER_USER_MAX),
    ("frames before a hello", EARLY_FRAMES_MAX),
    ("held batches", HELD_BATCHES_MAX),
    ("ids of a home", IDS_PER_HOME_MAX),
    ("ignored issuers of a link", IGNORED_ISSUERS_MAX),
    ("key statements of an origin", USERS_PER_ORIGIN_MAX),
    ("lists of neighbours", ORIGINS_MAX),
    ("logged batches", LOG_BATCHES_MAX),
    ("messages in all inboxes", ENTRIES_MAX),
    // The default of the settings, which seeds do not change.
    ("messages in an inbox", 10_000),
    ("messages of a session under way", SENDS_PER_SESSION_MAX),
    ("messages that wait for the disk", WRITES_MAX),
    ("messages in the outbox", WAITING_MAX),
    ("names of servers", NAMES_MAX),
    ("neighbours of a server", NEIGHBOURS_MAX),
    ("nonces", NONCES_MAX),
    ("nonces of a user", NONCES_PER_USER_MAX),
    ("origins", ORIGINS_MAX),
    ("origins doubted on a link", ORIGINS_MAX),
    ("origins told on a link", ORIGINS_MAX),
    ("posts in the channel's log", CHANNEL_POSTS_MAX),
    ("posts that wait", WAITING_MAX),
    ("posts that wait for the disk", WRITES_MAX),
    ("proofs shown on a link", ORIGINS_MAX),
    ("queries", QUERIES_MAX),
    ("queued messages in flight to a home", OUTBOX_IN_FLIGHT_MAX),
    ("queued messages of a user", OUTBOX_PER_USER_MAX),
    ("refusals", REFUSALS_MAX),
    ("refused frames of a link", REFUSED_FRAMES_MAX as usize),
    ("sessions of a user", SESSIONS_PER_USER_MAX),
    ("snapshots sent on a link", ORIGINS_MAX),
    ("statements sent on a link", USERS_PER_ORIGIN_MAX),
    ("statements that no batch names", PENDING_STATEMENTS_MAX),
    ("untold on a link", UNTOLD_MAX),
    ("users of an origin", USERS_PER_ORIGIN_MAX),
];

/// Looked at every second of a run with faults, right after each flood.
pub fn at_any_time(world: &World) {
    for server in &world.servers {
        let Some(node) = &server.node else { continue };
        for (name, size) in node.sizes() {
            let limit = LIMITS.iter().find(|(limited, _)| *limited == name).map(|(_, limit)| *limit);
            let limit = limit.unwrap_or_else(|| panic!("{name} has no limit"));
            assert!(size <= limit, "{} has {size} {name}, of {limit} at most", server.name);
        }
    }
}
