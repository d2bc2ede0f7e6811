//! Metrics for the operator, in the text format of Prometheus.
//!
//! Numbers are read when they are asked for: from atomics that others count in passing, from the hub under its lock for
//! microseconds, and from the driver by one event of its queue, which costs it the same however many users there are.
//! Who asks again within [`METRICS_FRESH_MS`] gets the same text, so no rate of asking slows the driver.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use socp::rejection;
use tokio::{
    sync::Mutex,
    task::spawn_blocking,
    time::{Instant, timeout},
};

pub mod families;
pub mod histogram;
mod listen;
mod process;
pub mod text;

pub use self::listen::{MetricsListener, Place};
use self::{families as f, text::Text};
use crate::{
    driver::{Counters, Gauges, Handle, LinkGauges, Passed, REFUSALS},
    hub::Hub,
    limits::{METRICS_DRIVER_MS_MAX, METRICS_FRESH_MS},
    listen::Connections,
    requests::{self, Requests},
    status,
};

/// Where all numbers come from.
#[derive(Clone)]
pub struct Metrics {
    handle: Handle,
    hub: Hub,
    connections: Connections,
    requests: Requests,
    /// The last text, and when it was made.
    last: Arc<Mutex<Option<(Instant, Bytes)>>>,
}

impl Metrics {
    /// For a running server.
    pub fn new(handle: Handle, hub: Hub, connections: Connections, requests: Requests) -> Self {
        process::started();
        Self { handle, hub, connections, requests, last: Arc::default() }
    }

    /// All numbers as of now, or of at most [`METRICS_FRESH_MS`] ago.
    pub async fn text(self) -> Bytes {
        let mut last = self.last.lock().await;
        if let Some((made, text)) = &*last
            && made.elapsed() < Duration::from_millis(METRICS_FRESH_MS)
        {
            return text.clone();
        }
        let text = Bytes::from(self.gather().await);
        *last = Some((Instant::now(), text.clone()));
        text
    }

    async fn gather(&self) -> String {
        let patience = Duration::from_millis(METRICS_DRIVER_MS_MAX);
        // A driver that has ended, or that hangs, is told of, and whatever it does not know is still there.
        let driver = timeout(patience, self.handle.gauges()).await.ok().and_then(Result::ok);
        let mut text = Text::default();
        text.family(&f::BUILD).number(&[env!("CARGO_PKG_VERSION")], 1);
        text.one(&f::DRIVER_ANSWERED, u8::from(driver.is_some()));
        put_people(&mut text, driver.as_ref());
        self.put_calls(&mut text);
        self.put_directory(&mut text);
        put_driver(&mut text, self.handle.counters(), self.handle.queued(), driver.as_ref());
        put_peers(&mut text, driver.as_ref());
        put_messages(&mut text, driver.as_ref());
        put_disk(&mut text, self.handle.counters(), driver.as_ref());
        // Only a panic or the end of the runtime keeps it from its end.
        let process = spawn_blocking(|| {
            let mut text = Text::default();
            process::put(&mut text);
            text.finish()
        });
        text.finish() + &process.await.unwrap_or_default()
    }

    fn put_calls(&self, text: &mut Text) {
        text.one(&f::CALLS, self.handle.counters().calls.load(Ordering::Relaxed));
        let mut connections = text.family(&f::CONNECTIONS);
        connections.number(&["tcp"], self.connections.tcp());
        connections.number(&["quic"], self.connections.quic());
        text.one(&f::REQUEST_BYTES, self.requests.bytes());
        let mut broken = text.family(&f::REQUESTS_BROKEN);
        requests::LIMIT_NAMES
            .iter()
            .zip(self.requests.broken())
            .for_each(|(limit, count)| broken.number(&[limit], count));
        let mut rejections = text.family(&f::REJECTIONS);
        status::told().for_each(|(reason, told)| rejections.number(&[rejection::name(reason)], told));
    }

    fn put_directory(&self, text: &mut Text) {
        let hub = self.hub.gauges();
        text.one(&f::USERS, hub.users);
        text.one(&f::WATCHERS, hub.watchers);
        text.one(&f::WATCHERS_JOINING, hub.joining);
        text.one(&f::WATCHERS_LAGGING, hub.lagging);
        text.one(&f::WATCHERS_LARGEST_LAG, hub.largest_lag);
        text.one(&f::WATCHES_STALLED, self.hub.stalled());
        let mut latencies = text.family(&f::DELTA_LATENCY);
        self.hub.latencies().all().for_each(|(words, histogram)| latencies.histogram(&words, histogram));
        text.one(&f::REVISION, hub.revision);
        text.one(&f::REVISIONS, self.handle.counters().revisions.load(Ordering::Relaxed));
        text.one(&f::RING_REVISIONS, hub.ring_revisions);
        text.one(&f::RING_BYTES, hub.ring_bytes);
        text.one(&f::SNAPSHOT_BYTES, hub.snapshot_bytes);
    }
}

/// Adds a number of the driver's, if it told.
fn put_told(text: &mut Text, family: &'static f::Family, number: Option<usize>) {
    let mut samples = text.family(family);
    if let Some(number) = number {
        samples.number(&[], number);
    }
}

fn put_people(text: &mut Text, driver: Option<&Gauges>) {
    put_told(text, &f::ACCOUNTS, driver.map(|driver| driver.node.accounts));
    put_told(text, &f::SESSIONS, driver.map(|driver| driver.node.sessions));
    put_told(text, &f::ATTACHED, driver.map(|driver| driver.attached));
}

fn put_driver(text: &mut Text, counters: &Counters, queued: usize, driver: Option<&Gauges>) {
    let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    text.one(&f::INPUTS, count(&counters.inputs));
    text.one(&f::BUSY, count(&counters.busy_ns) as f64 / 1e9);
    text.one(&f::QUEUED, queued);
    put_told(text, &f::CALLS_WAITING, driver.map(|driver| driver.waiting));
    put_told(text, &f::CHECKS, driver.map(|driver| driver.node.checks));
    for (family, counter) in [
        (&f::PEERS_JOINED, &counters.peers_joined),
        (&f::PEERS_LOST, &counters.peers_lost),
        (&f::DIALS_FAILED, &counters.dials_failed),
        (&f::FRAMES_IGNORED, &counters.frames_ignored),
        (&f::CONTRADICTIONS, &counters.contradictions),
        (&f::DIGESTS_DIFFERING, &counters.digests_differing),
        (&f::EPOCHS_BEHIND, &counters.epochs_behind),
        (&f::LINKS_OVERFLOWED, &counters.links_overflowed),
        (&f::ATTACHMENTS_OVERFLOWED, &counters.attachments_overflowed),
    ] {
        text.one(family, count(counter));
    }
    let mut refused = text.family(&f::FRAMES_REFUSED);
    REFUSALS.iter().zip(&counters.frames_refused).for_each(|(kind, counter)| refused.number(&[kind], count(counter)));
}

fn put_peers(text: &mut Text, driver: Option<&Gauges>) {
    let peers = driver.map(|driver| &driver.node.peers[..]).unwrap_or_default();
    let mut reachable = text.family(&f::SERVER_REACHABLE);
    peers.iter().for_each(|peer| reachable.number(&[&peer.name], u8::from(peer.is_reachable)));
    let mut lag = text.family(&f::SERVER_LAG);
    peers.iter().for_each(|peer| lag.number(&[&peer.name], peer.lag));
    let mut up = text.family(&f::LINK_UP);
    let linked = peers.iter().filter(|peer| peer.is_dialled || peer.is_linked);
    linked.for_each(|peer| up.number(&[&peer.name], u8::from(peer.is_linked)));
    let links = driver.map(|driver| &driver.links[..]).unwrap_or_default();
    let named: Vec<(&str, &LinkGauges)> = links
        .iter()
        .filter_map(|link| peers.iter().find(|peer| peer.id == link.peer).map(|peer| (&*peer.name, link)))
        .collect();
    let mut passed = |family, number: fn(&Passed) -> u64| {
        let mut samples = text.family(family);
        for (name, link) in &named {
            samples.number(&[name, "received"], number(&link.received));
            samples.number(&[name, "sent"], number(&link.sent));
        }
    };
    passed(&f::LINK_FRAMES, |passed| passed.frames);
    passed(&f::LINK_BATCHES, |passed| passed.batches);
    let mut told = |family, number: fn(&LinkGauges) -> Option<f64>| {
        let mut samples = text.family(family);
        let numbers = named.iter().filter_map(|(name, link)| Some((name, number(link)?)));
        numbers.for_each(|(name, number)| samples.number(&[name], number));
    };
    told(&f::LINK_QUEUED_FRAMES, |link| Some(link.open?.queued_frames as f64));
    told(&f::LINK_QUEUED_BYTES, |link| Some(link.open?.queued_bytes as f64));
    told(&f::LINK_ROUND_TRIP, |link| Some(link.open?.round_trip?.as_secs_f64()));
    told(&f::LINK_CLOCK, |link| Some(link.clock_ahead_us? as f64 / 1e6));
}

fn put_disk(text: &mut Text, counters: &Counters, driver: Option<&Gauges>) {
    text.family(&f::COMMITS).histogram(&[], &counters.commits);
    text.one(&f::RECORDS, counters.records.load(Ordering::Relaxed));
    put_told(text, &f::WRITES, driver.map(|driver| driver.node.writes));
}

fn put_messages(text: &mut Text, driver: Option<&Gauges>) {
    let node = driver.map(|driver| &driver.node);
    put_told(text, &f::INBOX_MESSAGES, node.map(|node| node.inbox_messages));
    put_told(text, &f::INBOX_LARGEST, node.map(|node| node.inbox_messages_largest));
    put_told(text, &f::INBOX_LIMIT, node.map(|node| node.inbox_messages_max));
    put_told(text, &f::CHANNEL_POSTS, node.map(|node| node.channel_posts));
    put_told(text, &f::CHANNEL_BYTES, node.map(|node| node.channel_bytes));
    put_told(text, &f::OUTBOX_MESSAGES, node.map(|node| node.outbox_messages));
    put_told(text, &f::OUTBOX_BYTES, node.map(|node| node.outbox_bytes));
}
