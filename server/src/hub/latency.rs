//! How long it takes from an origin's commit of a change until a watcher's transport has it.
//!
//! The first part, up to this server's revision, is told by the driver, which knows the clocks; the second is measured
//! here. A watcher whose transport asked for more before the change was published waited for the server; one that asked
//! later was behind, because its client or the network was. Both are counted, apart from one another.

use std::time::Duration;

use tokio::time::Instant;

use crate::metrics::histogram::Histogram;

/// Where a change comes from, and so how well the time since then is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Home {
    /// This server: by one clock.
    Own,
    /// A peer with a link, whose clock is estimated.
    Neighbour,
    /// Another server, whose clock is taken as it is.
    Far,
}

/// How old a change is when it is published here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Age {
    /// Where it comes from.
    pub home: Home,
    /// The time since its origin made it.
    pub passed: Duration,
}

/// Upper bounds in microseconds: dense up to the promise of 100 ms and a little beyond.
const BOUNDS_US: &[u64] = &[
    500, 1_000, 2_000, 5_000, 10_000, 20_000, 35_000, 50_000, 75_000, 100_000, 150_000, 250_000, 500_000, 1_000_000,
    2_500_000, 5_000_000, 10_000_000, 30_000_000,
];

/// All that were measured.
#[derive(Debug)]
pub struct Latencies {
    /// By home, then by whether the watcher was behind.
    by: [[Histogram; 2]; 3],
}

impl Default for Latencies {
    fn default() -> Self {
        Self { by: [(); 3].map(|()| [(); 2].map(|()| Histogram::new(BOUNDS_US))) }
    }
}

impl Latencies {
    /// Each histogram with its words: where changes come from, and how the watcher was.
    pub fn all(&self) -> impl Iterator<Item = ([&'static str; 2], &Histogram)> {
        let homes = ["own", "neighbour", "far"].into_iter().zip(&self.by);
        homes.flat_map(|(home, by)| {
            ["waiting", "behind"].into_iter().zip(by).map(move |(watcher, histogram)| ([home, watcher], histogram))
        })
    }
}

/// What one message brings to one watcher: changes that are alike are counted at once.
#[derive(Debug)]
pub struct Handed {
    asked: Instant,
    now: Instant,
    /// Home, whether behind, latency, and how many.
    alike: Option<(Home, bool, Duration, u64)>,
}

impl Handed {
    /// For a watcher whose transport asked at this time and gets a message now.
    pub fn new(asked: Instant) -> Self {
        Self { asked, now: Instant::now(), alike: None }
    }

    /// One more change, published at this time.
    pub fn take(&mut self, published: Instant, age: Age, latencies: &Latencies) {
        let is_behind = self.asked > published;
        let latency = age.passed + self.now.saturating_duration_since(published);
        if let Some((home, behind, alike, count)) = &mut self.alike
            && (*home, *behind) == (age.home, is_behind)
            && alike.abs_diff(latency) < Duration::from_micros(500)
        {
            *count += 1;
            return;
        }
        self.count(latencies);
        self.alike = Some((age.home, is_behind, latency, 1));
    }

    /// Counts what was taken.
    pub fn count(&mut self, latencies: &Latencies) {
        if let Some((home, is_behind, latency, count)) = self.alike.take() {
            latencies.by[home as usize][usize::from(is_behind)].record(latency, count);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures_util::FutureExt as _;
    use socp::{
        id::StartId,
        v1::{RemovalReason, WatchDirectoryRequest},
    };

    use socp_quic::PeerInfo;

    use super::*;
    use crate::{
        hub::{
            Hub, Watcher,
            testing::{Published, entry},
        },
        limits::WATCHER_LAGGING_MS,
    };

    fn published() -> Published {
        Published::new(Hub::new(StartId::from_bytes(&[1; 16]).unwrap()))
    }

    /// A watcher that has read the present state, and whose transport asked for more.
    async fn following(hub: &Hub) -> Watcher {
        let mut watcher = hub.watch(&WatchDirectoryRequest::default()).unwrap();
        watcher.next().await.unwrap().unwrap();
        assert!(watcher.next().now_or_never().is_none());
        watcher
    }

    fn show(published: &mut Published, name: &str, age: Age) {
        let entry = entry(name, 1);
        let delta = published.directory.replace([(entry.address.clone(), Some(entry))], RemovalReason::Left).unwrap();
        published.hub.publish_aged(&delta, Some(age));
    }

    /// The buckets that something was counted in, by words and upper bound.
    fn counted(hub: &Hub) -> Vec<([&'static str; 2], Option<f64>, u64)> {
        let of = |(words, histogram): ([&'static str; 2], &Histogram)| {
            let counts = histogram.read().0.into_iter().filter(|(_, count)| *count > 0);
            counts.map(move |(bound, count)| (words, bound, count)).collect::<Vec<_>>()
        };
        hub.latencies().all().flat_map(of).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn latency_counts_from_the_origins_commit_and_apart_for_watchers_that_were_behind() {
        let mut published = published();
        let mut watcher = following(&published.hub).await;
        {
            let mut next = pin!(watcher.next());
            assert!((&mut next).now_or_never().is_none(), "it waits");
            show(&mut published, "alice", Age { home: Home::Neighbour, passed: Duration::from_millis(30) });
            next.await.unwrap().unwrap();
        }
        assert_eq!(counted(&published.hub), [(["neighbour", "waiting"], Some(0.035), 1)]);
        let own = Age { home: Home::Own, passed: Duration::ZERO };
        ["bob", "carol", "dave"].into_iter().for_each(|name| show(&mut published, name, own));
        tokio::time::advance(Duration::from_millis(200)).await;
        watcher.next().await.unwrap().unwrap();
        let expected = [(["own", "behind"], Some(0.25), 3), (["neighbour", "waiting"], Some(0.035), 1)];
        assert_eq!(counted(&published.hub), expected);
    }

    #[tokio::test(start_paused = true)]
    async fn who_lacks_something_for_longer_than_the_limit_lags_and_who_joins_does_not() {
        let mut published = published();
        let mut watcher = following(&published.hub).await;
        let _joining = published.hub.watch(&WatchDirectoryRequest::default()).unwrap();
        let told = |hub: &Hub| {
            let gauges = hub.gauges();
            (gauges.joining, gauges.lagging, gauges.largest_lag)
        };
        published.show(entry("alice", 1));
        published.show(entry("bob", 1));
        tokio::time::advance(Duration::from_millis(WATCHER_LAGGING_MS)).await;
        assert_eq!(told(&published.hub), (1, 0, 2), "at the limit");
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(told(&published.hub), (1, 1, 2), "past it");
        watcher.next().await.unwrap().unwrap();
        assert!(watcher.next().now_or_never().is_none(), "its transport asks for more");
        assert_eq!(told(&published.hub), (1, 0, 0));
        drop(watcher);
        assert_eq!(told(&published.hub), (1, 0, 0));
    }

    /// Someone with a connection, and whether it was to be closed.
    fn peer() -> (PeerInfo, impl Fn() -> bool) {
        let (peer, driver) = PeerInfo::new(([127, 0, 0, 1], 1).into(), None);
        (peer, move || driver.close_requested().now_or_never().is_some())
    }

    #[tokio::test(start_paused = true)]
    async fn who_takes_nothing_for_too_long_is_ended_with_its_connection_and_nobody_else_is() {
        let mut published = published();
        let request = WatchDirectoryRequest::default();
        let [(joins, joins_is_closed), (stops, stops_is_closed), (idles, idles_is_closed)] = [(); 3].map(|()| peer());
        published.show(entry("alice", 1));
        let mut joining = published.hub.watch_for(&request, Some(joins)).unwrap();
        joining.next().await.unwrap().unwrap();
        let [mut stopped, mut idle] = [stops, idles].map(|peer| published.hub.watch_for(&request, Some(peer)).unwrap());
        for watcher in [&mut stopped, &mut idle] {
            watcher.next().await.unwrap().unwrap();
            watcher.next().await.unwrap().unwrap();
            assert!(watcher.next().now_or_never().is_none());
        }
        let shown = Instant::now();
        published.show(entry("bob", 1));
        idle.next().await.unwrap().unwrap();
        assert!(idle.next().now_or_never().is_none(), "it has everything, and waits for more");
        let limit = Duration::from_millis(crate::limits::WATCH_STALLED_MS);
        tokio::time::advance(limit - shown.elapsed()).await;
        published.hub.0.end_stalled();
        assert!(![joins_is_closed(), stops_is_closed(), idles_is_closed()].contains(&true), "at the limit");
        assert_eq!(published.hub.stalled(), 0);
        tokio::time::advance(Duration::from_secs(1)).await;
        published.hub.0.end_stalled();
        assert_eq!([joins_is_closed(), stops_is_closed(), idles_is_closed()], [true, true, false], "past it");
        assert_eq!(published.hub.stalled(), 2);
        let watchers = published.hub.watchers();
        drop((joining, stopped));
        assert_eq!((watchers, published.hub.watchers()), (3, 1), "the transport drops what it served");
    }

    #[tokio::test(start_paused = true)]
    async fn the_hub_looks_for_those_who_stall_by_itself() {
        let published = published();
        let (peer, is_closed) = peer();
        let _never_read = published.hub.watch_for(&WatchDirectoryRequest::default(), Some(peer)).unwrap();
        tokio::time::sleep(2 * Duration::from_millis(crate::limits::WATCH_STALLED_MS)).await;
        assert!(is_closed());
    }
}
