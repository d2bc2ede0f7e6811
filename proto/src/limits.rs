//! Every limit of the protocol, each with its reason. Tests go to each limit and one past it.

/// Bytes of a user's or server's name: fits a terminal line and a DNS label.
pub const NAME_BYTES_MAX: usize = 64;

/// Bytes of a display name: a person's name in any script.
pub const DISPLAY_NAME_BYTES_MAX: usize = 128;

/// Bytes of a status text: a line or two.
pub const STATUS_BYTES_MAX: usize = 256;

/// Bytes of a device's label: seen by its own user only.
pub const DEVICE_BYTES_MAX: usize = 64;

/// Bytes of a signed key statement in parts: 550 of key, two signatures of 512, and names; room for a successor suite.
pub const KEY_STATEMENT_BYTES_MAX: usize = 8 * 1024;

/// Key statements of one user: a key a year for a lifetime. All of them are told to whoever asks, 64 KiB at most in practice.
pub const KEY_STATEMENTS_MAX: usize = 32;

/// Bytes of a signed move in parts: two names, two ids, a hash and a signature of 512; room for a successor suite.
pub const MOVE_BYTES_MAX: usize = 8 * 1024;

/// Bytes of a message's or post's signed statement: 64 KiB of text and its header. Files have a stream of their own.
pub const MESSAGE_STATEMENT_BYTES_MAX: usize = 66 * 1024;

/// Wraps in one post: with 640 bytes each this fills most of the 4 MiB that gRPC takes in one message.
pub const WRAPS_MAX: usize = 4096;

/// Bytes of an RSA-4096 signature or wrap.
pub const RSA_BYTES: usize = 512;

/// A nonce for a login is good for one minute: a person may have to type a passphrase between.
pub const NONCE_MS: u64 = 60_000;

/// Login nonces outstanding at once: 32 bytes and a name each, asked for by strangers; the oldest goes first.
pub const NONCES_MAX: usize = 10_000;

/// Login nonces outstanding for one name, so that a stranger's flood for one name leaves the others alone.
pub const NONCES_PER_USER_MAX: usize = 16;

/// Sessions of one user: more devices than anybody has; the oldest session that is not attached goes first.
pub const SESSIONS_PER_USER_MAX: usize = 32;

/// A session that was not used for 30 days ends.
pub const SESSION_IDLE_MS: u64 = 30 * 24 * 3_600_000;

/// Slow checks (RSA) under way at once: 0.1 ms each on one core, so a second of work.
pub const CHECKS_MAX: usize = 8_192;

/// Slow checks under way at which registrations and logins have to wait: strangers can ask for those, and must not
/// keep users from sending.
pub const STRANGERS_CHECKS_MAX: usize = CHECKS_MAX / 2;

/// Messages of one session under way at once, so that one sender cannot fill the checks. As many calls may wait for
/// the outcome of one message.
pub const SENDS_PER_SESSION_MAX: usize = 256;

/// Messages to users of other homes that are under way or queued at once, and likewise posts: those of a day with a large server
/// away.
pub const WAITING_MAX: usize = 65_536;

/// Bytes of those messages, all of which are in memory: as many as there may be, of an ordinary size.
pub const OUTBOX_BYTES_MAX: usize = 128 * 1024 * 1024;

/// Queued messages of one user, together with outcomes of such that no device of theirs has read: so many outcomes have room in
/// an inbox however full it is.
pub const OUTBOX_PER_USER_MAX: usize = 1_000;

/// Bytes of queued messages of one user: an eighth of all.
pub const OUTBOX_BYTES_PER_USER_MAX: usize = OUTBOX_BYTES_MAX / 8;

/// Queued messages that are sent to one home without waiting for its word: enough for one commit of its disk to take along.
pub const OUTBOX_IN_FLIGHT_MAX: usize = 64;

/// How long a message is queued: over a weekend, and well within the time for which signed times are taken.
pub const QUEUED_MS: u64 = 3 * 24 * 3_600_000;

/// Users registered at one server, who are all in memory with their keys: 1.5 KiB each.
pub const ACCOUNTS_MAX: usize = 1_000_000;

/// How long another home may take to answer for a message before that is queued, or for a post before the sender is told without it.
pub const OUTCOME_MS: u64 = 5_000;

/// How long another server may take to answer a query for a user.
pub const QUERY_MS: u64 = 3_000;

/// Queries that wait for another server at once.
pub const QUERIES_MAX: usize = 8_192;

/// Signed times older than this are refused, so that ids need not be remembered for ever.
pub const MESSAGE_AGE_MS_MAX: u64 = 7 * 24 * 3_600_000;

/// Signed times further ahead than this are refused: clocks differ, but not by more.
pub const MESSAGE_AHEAD_MS_MAX: u64 = 5 * 60_000;

/// Message ids are remembered for a day longer than a signed time is taken.
pub const ID_REMEMBERED_MS: u64 = 8 * 24 * 3_600_000;

/// Message ids remembered at once of the senders of one home: 200 bytes each. When full the oldest is forgotten.
pub const IDS_PER_HOME_MAX: usize = 200_000;

/// For how long it is remembered that a message from another home was refused: longer than a copy of it can be on its way.
pub const REFUSAL_REMEMBERED_MS: u64 = 60_000;

/// Refusals remembered at once: 50 bytes each. When full the oldest is forgotten.
pub const REFUSALS_MAX: usize = 8_192;

/// Messages that wait for the disk at once: some times what one fsync takes along on a slow disk.
pub const WRITES_MAX: usize = 8_192;

/// Bytes of those: a thousand of the longest kind.
pub const WRITES_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Messages in all inboxes of a server: 100 bytes each in memory, so 400 MB.
pub const ENTRIES_MAX: usize = 4_000_000;

/// Devices of one user that are remembered with what they have read; the one seen longest ago makes room. As many as sessions.
pub const DEVICES_PER_USER_MAX: usize = SESSIONS_PER_USER_MAX;

/// A device that was not seen for 30 days holds nothing back in the inbox: as long as a session lasts unused.
pub const DEVICE_IDLE_MS: u64 = SESSION_IDLE_MS;

/// Messages that are read from the disk at once for a stream: an eighth of what may wait on it.
pub const REPLAY_ENTRIES_MAX: usize = 128;

/// Bytes of those, the last of which may go over it: many devices may come back at once, and read slowly.
pub const REPLAY_BYTES: usize = 256 * 1024;

/// Bytes of the log of the public channel: posts, the names of those whom they are for, and their keys. Of these only the names are
/// in memory, too. The oldest posts go first.
pub const CHANNEL_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Posts in the log of the public channel: 200 bytes each in memory. The oldest go first.
pub const CHANNEL_POSTS_MAX: usize = 10_000;

/// For how long a post is in that log: those whom it is for were online a moment ago, and are back soon.
pub const CHANNEL_MS: u64 = 24 * 3_600_000;

/// Files of one user that are kept at once: some for each of many friends.
pub const FILES_PER_USER_MAX: usize = 1_000;

/// Files kept at once by a server: 300 bytes each in memory, so 30 MB, and as many files in one folder.
pub const FILES_MAX: usize = 100_000;

/// Adverts or removals in one batch: keeps a batch well under 1 MiB, and its signature check cheap per entry.
pub const BATCH_ENTRIES_MAX: usize = 256;

/// Bytes of a signed batch: 256 adverts with the longest texts.
pub const BATCH_BYTES_MAX: usize = 256 * 1024;

/// Batches held per origin while one before them is missing: more than a removal can overtake on a live link.
pub const HELD_BATCHES_MAX: usize = 1_024;

/// Own and others' recent batches kept per origin, to answer a peer that is a little behind without a snapshot.
pub const LOG_BATCHES_MAX: usize = 1_024;

/// Users online per origin.
pub const USERS_PER_ORIGIN_MAX: usize = 100_000;

/// Batches of its own that a server keeps for whoever joins, with one more for 64 users, before it signs old entries again:
/// 0.1 s of signature checks for whoever joins, and one more batch for some hundred users who come online.
pub const KEPT_BATCHES_MAX: usize = 1_024;

/// Entries that are not current in the batches that are kept of an origin, beyond as many as are current. An origin that
/// signs old entries again has half as many at most, and a batch's worth.
pub const STALE_TAKEN_MAX: usize = 4 * BATCH_ENTRIES_MAX;

/// Adverts in the parts of one staged snapshot: as much as may be kept of an origin.
pub const STAGED_ADVERTS_MAX: usize = 2 * USERS_PER_ORIGIN_MAX + STALE_TAKEN_MAX;

/// Parts in one staged snapshot: each current entry may stand in a batch of its own.
pub const SNAPSHOT_PARTS_MAX: usize = USERS_PER_ORIGIN_MAX + 1;

/// Origins known at once.
pub const ORIGINS_MAX: usize = 1_024;

/// Neighbours in one server's list: as many as there can be origins.
pub const NEIGHBOURS_MAX: usize = ORIGINS_MAX;

/// A server whose list was not renewed for so long cannot be reached, whoever still lists it: three renewals.
pub const NEIGHBOURS_STALE_MS: u64 = 15_000;

/// Bytes of a signed admission: a key, an id, the longest name and three numbers come to less than 200.
pub const ADMISSION_BYTES_MAX: usize = 256;

/// Milliseconds of a day, for what is counted in days.
pub const DAY_MS: u64 = 24 * 3_600_000;

/// How long an admission of a pinned server is for: it goes out within a month where the issuer is no more.
pub const ADMISSION_MS: u64 = 30 * DAY_MS;

/// An admission of a pinned server is signed anew when a third of its time is left: an issuer may be away for ten days.
pub const ADMISSION_RENEW_MS: u64 = ADMISSION_MS / 3;

/// Days that an operator may admit a server for: a year; whoever wants more pins it.
pub const ADMISSION_DAYS_MAX: u32 = 365;

/// Servers that one server vouches for at a time: more than an operator knows by name.
pub const ADMISSIONS_PER_ISSUER_MAX: usize = 64;

/// Admissions kept of one issuer, with those that are over or taken back: what is said again of them must be known as old.
pub const ADMISSIONS_KEPT_PER_ISSUER_MAX: usize = 4 * ADMISSIONS_PER_ISSUER_MAX;

/// Admissions kept of all issuers together: 600 bytes each, so 40 MiB at the worst.
pub const ADMISSIONS_KEPT_MAX: usize = ADMISSIONS_PER_ISSUER_MAX * ORIGINS_MAX;

/// Admissions taken of one issuer at once, and one more every ten seconds: all that may be kept of it, twice. Each is
/// written to disk and passed on, so an issuer must not make new ones without end.
pub const ADMISSIONS_TAKEN_MAX: usize = 2 * ADMISSIONS_KEPT_PER_ISSUER_MAX;

/// Admissions in one frame: 64 KiB, so that no keep-alive waits long behind it.
pub const ADMISSIONS_FRAME_MAX: usize = 256;

/// What a new neighbour is still to be told of others: frames of admissions, and a list of each server.
pub const UNTOLD_MAX: usize = ADMISSIONS_KEPT_MAX / ADMISSIONS_FRAME_MAX + 1 + ORIGINS_MAX;

/// Servers admitted at once: there may be as many origins, one of which is the server itself.
pub const ADMITTED_MAX: usize = ORIGINS_MAX - 1;

/// Servers per link of which it is remembered that admissions by them were ignored, to ask for those should they be admitted.
pub const IGNORED_ISSUERS_MAX: usize = ORIGINS_MAX;

/// Servers that an operator may block: more than anybody types.
pub const BLOCKED_MAX: usize = 1_024;

/// Names of servers that are kept for good: as many as there may be origins, four times over.
pub const NAMES_MAX: usize = 4 * ORIGINS_MAX;

/// An admission whose end is further ahead does not count: a year and a month, so that a server that was forgotten goes out
/// by itself, whoever admitted it.
pub const ADMISSION_AHEAD_MS_MAX: u64 = 400 * DAY_MS;

/// How long a goodbye may ask others to hold its users: a restart takes less, and whoever does not come back is shown no longer.
pub const GOODBYE_HOLD_MS_MAX: u64 = 10_000;

/// Links that something may pass on its way: more than any sensible network is wide, and an end to a circle.
pub const HOPS_MAX: u32 = 64;

/// Frames kept of one link until its hello is here, which they overtook: a few keep-alives, removals and messages.
pub const EARLY_FRAMES_MAX: usize = 64;

/// Key statements kept of one link until a signed batch names them: two parts of a snapshot and what is on its way.
pub const PENDING_STATEMENTS_MAX: usize = 8_192;

/// Batches in the answer to one request.
pub const CATCH_UP_BATCHES_MAX: usize = 256;

/// Bytes of batches and statements in one part of a snapshot's answer: what is sent meanwhile waits no longer than for this.
pub const CATCH_UP_BYTES: usize = 256 * 1024;

/// Positions in one hello or keep-alive.
pub const POSITIONS_MAX: usize = ORIGINS_MAX;

/// Bytes of key statements in one frame, under the 4 MiB that gRPC takes in one message.
pub const STATEMENTS_FRAME_BYTES_MAX: usize = 1024 * 1024;

/// Refused frames after which a link is closed: a bug shows a few, an attacker many.
pub const REFUSED_FRAMES_MAX: u64 = 1_000;

/// Bytes of why a link ended or a dial failed, as kept for the operator: one line, partly in a stranger's words.
pub const CAUSE_BYTES_MAX: usize = 256;

/// Changes of presence that are remembered for the operator, of all users together: 150 bytes each, so 600 KiB. A large server
/// that comes or goes pushes all else out, and an explanation says how far back it reaches.
pub const HISTORY_MAX: usize = 4_096;

/// Changes in the explanation of one user: what a person reads.
pub const EXPLAINED_CHANGES_MAX: usize = 16;

/// Servers named in a watch's filter.
pub const FILTER_SERVERS_MAX: usize = 64;

/// Users named in a watch's filter.
pub const FILTER_USERS_MAX: usize = 256;

/// Users in a page of a list.
pub const PAGE_USERS_MAX: usize = 1_000;
