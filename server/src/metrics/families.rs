//! Every metric that is exported, by name, kind and labels. `docs/METRICS.md` tells of each, which a test here compares.
//!
//! Labels have few values: servers by their names, bounded by [`ADMITTED_MAX`](socp::limits::ADMITTED_MAX), and words of
//! this program's own. Never a user, an address or anything that a client chooses.

/// What a number means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only rises, from 0 at the start of the process.
    Counter,
    /// As of now.
    Gauge,
    /// How many were at most so large, for some sizes.
    Histogram,
}

impl Kind {
    /// The word of the text format.
    pub fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// One metric, with all its labels.
#[derive(Debug)]
pub struct Family {
    /// As Prometheus has it: what, then the unit, then `total` for counters.
    pub name: &'static str,
    /// What its numbers mean.
    pub kind: Kind,
    /// The labels that each of its numbers has, in this order.
    pub labels: &'static [&'static str],
    /// One sentence for people.
    pub help: &'static str,
}

macro_rules! families {
    ($($family:ident: $kind:ident $name:literal [$($label:literal),*] $help:literal;)*) => {
        $(
            #[doc = $help]
            pub const $family: Family = Family { name: $name, kind: Kind::$kind, labels: &[$($label),*], help: $help };
        )*
        /// All of them, in the order in which they are exported.
        pub const ALL: &[&Family] = &[$(&$family),*];
    };
}

families! {
    BUILD: Gauge "socp_build_info" ["version"] "Always 1; the label says which version runs.";
    DRIVER_ANSWERED: Gauge "socp_driver_answered" [] "1 if the driver told what it knows in time; 0 if what only it knows is missing here.";
    ACCOUNTS: Gauge "socp_accounts" [] "Users registered here.";
    SESSIONS: Gauge "socp_sessions" [] "Sessions that are logged in here, attached or not.";
    ATTACHED: Gauge "socp_attached_streams" [] "Attached streams of devices; one more than the limit is refused.";
    CALLS: Gauge "socp_client_calls" [] "Calls of clients under way, watches and attached streams among them.";
    CONNECTIONS: Gauge "socp_client_connections" ["transport"] "Connections of clients, over tcp or quic.";
    REQUEST_BYTES: Gauge "socp_unfinished_request_bytes" [] "Bytes held of requests of clients that are not whole yet.";
    REQUESTS_BROKEN: Counter "socp_requests_broken_off_total" ["limit"] "Requests of clients that were broken off before they were whole, by the limit that they, or all together, did not keep.";
    REJECTIONS: Counter "socp_rejections_total" ["reason"] "Rejections told to clients, peers and the operator, by the reason of the contract.";
    USERS: Gauge "socp_directory_users" [] "Users shown as online, of all servers.";
    WATCHERS: Gauge "socp_watchers" [] "Watches of the directory.";
    WATCHERS_JOINING: Gauge "socp_watchers_joining" [] "Watches that have not read the present state yet.";
    WATCHERS_LAGGING: Gauge "socp_watchers_lagging" [] "Watches that lack something published here more than 100 ms ago.";
    WATCHERS_LARGEST_LAG: Gauge "socp_watchers_largest_lag_revisions" [] "Revisions that the watch furthest behind lacks.";
    WATCHES_STALLED: Counter "socp_watches_stalled_total" [] "Watches that were ended with their connections because these took nothing for a minute.";
    DELTA_LATENCY: Histogram "socp_delta_latency_seconds" ["home", "watcher"] "From the commit of a change at its home to its hand-over to the transport of a watcher, once for each watcher.";
    REVISION: Gauge "socp_directory_revision" [] "The present revision of the directory, counted from the start of the process.";
    REVISIONS: Counter "socp_revisions_total" [] "Revisions of the directory that were published.";
    RING_REVISIONS: Gauge "socp_ring_revisions" [] "Revisions kept for watchers who are behind or come back.";
    RING_BYTES: Gauge "socp_ring_bytes" [] "Bytes of them.";
    SNAPSHOT_BYTES: Gauge "socp_snapshot_bytes" [] "Bytes of the snapshots that joining watchers read.";
    INPUTS: Counter "socp_driver_inputs_total" [] "Inputs that the node took.";
    BUSY: Counter "socp_driver_busy_seconds_total" [] "Time that the driver was at work for them; its thread is one.";
    QUEUED: Gauge "socp_driver_queued_inputs" [] "Inputs that wait for the driver; at the limit whoever brings one waits.";
    CALLS_WAITING: Gauge "socp_driver_waiting_calls" [] "Calls that wait for the node's answer.";
    CHECKS: Gauge "socp_signature_checks" [] "Signature checks under way.";
    PEERS_JOINED: Counter "socp_peers_joined_total" [] "Links that came into use.";
    PEERS_LOST: Counter "socp_peers_lost_total" [] "Peers that had no link any more.";
    DIALS_FAILED: Counter "socp_dials_failed_total" [] "Dials of peers that came to nothing.";
    FRAMES_IGNORED: Counter "socp_frames_ignored_total" [] "Frames of peers that were ignored.";
    CONTRADICTIONS: Counter "socp_contradictions_total" [] "Origins that were found to contradict themselves.";
    DIGESTS_DIFFERING: Counter "socp_digests_differing_total" [] "Times a peer had other entries of an origin than this server.";
    EPOCHS_BEHIND: Counter "socp_epochs_behind_total" [] "Times a peer knew a higher epoch of this server.";
    LINKS_OVERFLOWED: Counter "socp_links_overflowed_total" [] "Links that were closed because too much waited to be sent.";
    ATTACHMENTS_OVERFLOWED: Counter "socp_attachments_overflowed_total" [] "Attached streams that were ended because too much was left unread.";
    FRAMES_REFUSED: Counter "socp_frames_refused_total" ["kind"] "Frames of peers that were refused, by what is wrong with them.";
    SERVER_REACHABLE: Gauge "socp_server_reachable" ["server"] "1 if there is a way to the server, linked or through others; 0 if not.";
    SERVER_LAG: Gauge "socp_server_lag_batches" ["server"] "Batches that the server told of and that have not come.";
    LINK_UP: Gauge "socp_link_up" ["server"] "1 if there is a link; 0 if there is none to a server that is dialled.";
    LINK_FRAMES: Counter "socp_link_frames_total" ["server", "direction"] "Frames received from a server, and handed to its link.";
    LINK_BATCHES: Counter "socp_link_batches_total" ["server", "direction"] "Batches among them, of whatever origin; those in snapshots do not count.";
    LINK_QUEUED_FRAMES: Gauge "socp_link_queued_frames" ["server"] "Frames that wait to be sent on a link.";
    LINK_QUEUED_BYTES: Gauge "socp_link_queued_bytes" ["server"] "Bytes of them.";
    LINK_ROUND_TRIP: Gauge "socp_link_round_trip_seconds" ["server"] "The round-trip time of a link's connection.";
    LINK_CLOCK: Gauge "socp_link_clock_ahead_seconds" ["server"] "How far a peer's clock is ahead of this one's, as estimated.";
    INBOX_MESSAGES: Gauge "socp_inbox_messages" [] "Messages in all inboxes.";
    INBOX_LARGEST: Gauge "socp_inbox_largest_messages" [] "Messages in the largest inbox, as of 10 s ago at the most.";
    INBOX_LIMIT: Gauge "socp_inbox_limit_messages" [] "Messages that one inbox may hold, as configured.";
    CHANNEL_POSTS: Gauge "socp_channel_posts" [] "Posts in the log of the public channel.";
    CHANNEL_BYTES: Gauge "socp_channel_bytes" [] "Bytes of them, of the names of those whom they are for, and of their keys.";
    OUTBOX_MESSAGES: Gauge "socp_outbox_messages" [] "Messages on their way to other homes, queued ones among them.";
    OUTBOX_BYTES: Gauge "socp_outbox_bytes" [] "Bytes of them.";
    COMMITS: Histogram "socp_disk_commit_seconds" [] "Time of a commit to the disk, its fsync included; many records share one.";
    RECORDS: Counter "socp_disk_records_total" [] "Records in them.";
    WRITES: Gauge "socp_disk_waiting_messages" [] "Messages that wait for the disk.";
    RESIDENT: Gauge "process_resident_memory_bytes" [] "Resident memory of the process.";
    CPU: Counter "process_cpu_seconds_total" [] "Processor time of the process, user and system.";
    DESCRIPTORS: Gauge "process_open_fds" [] "Open descriptors of the process.";
    DESCRIPTORS_MAX: Gauge "process_max_fds" [] "Descriptors that the process may have open.";
    STARTED: Gauge "process_start_time_seconds" [] "When the process started, as Unix time.";
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_as_prometheus_has_them_and_no_two_are_alike() {
        let names: BTreeSet<_> = ALL.iter().map(|family| family.name).collect();
        assert_eq!(names.len(), ALL.len());
        for family in ALL {
            let name = family.name;
            assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{name}");
            assert!(name.starts_with("socp_") || name.starts_with("process_"), "{name}");
            assert_eq!(name.ends_with("_total"), family.kind == Kind::Counter, "{name}");
            assert!(family.kind != Kind::Histogram || name.ends_with("_seconds"), "{name}");
            assert!(family.help.ends_with('.') && !family.help.contains(['\n', '\\']), "{name}");
            assert!(!family.labels.contains(&"le"), "{name}");
        }
    }

    #[test]
    fn the_documentation_tells_of_each_metric_and_of_no_other() {
        let table = include_str!("../../../docs/METRICS.md");
        let rows = table.lines().filter(|line| line.starts_with("| `socp_") || line.starts_with("| `process_"));
        let told: Vec<Vec<&str>> = rows.map(|row| row.trim_matches('|').split('|').map(str::trim).collect()).collect();
        let exported: Vec<Vec<String>> = ALL
            .iter()
            .map(|family| {
                let labels = family.labels.iter().map(|label| format!("`{label}`")).collect::<Vec<_>>().join(", ");
                vec![format!("`{}`", family.name), family.kind.name().to_owned(), labels]
            })
            .collect();
        let names: Vec<Vec<String>> =
            told.iter().map(|row| row[..3].iter().map(|cell| (*cell).to_owned()).collect()).collect();
        assert_eq!(names, exported, "docs/METRICS.md has one row for each, in this order");
        assert!(told.iter().all(|row| row.len() == 4 && row[3].len() > 10), "each row says what the number is");
    }
}
