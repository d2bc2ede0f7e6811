//! Whether a client over HTTP/2 lives: asked by pings, often where somebody is shown as online because of it, and seldom
//! elsewhere.
//!
//! A ping wakes both sides and costs each a system call or two, so thousands of idle watches are not asked every other second: who
//! only watches holds a place and little else. A watch that is cut off is noticed by the kernel
//! at its next bookmark, one that is frozen by what it leaves unread, and any silent connection by a ping in a minute or two.

use std::{
    future::poll_fn,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use h2::{Ping, PingPong};
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

/// How often a client with an attached device is asked, and how long it may take to answer: together 7 s, in time for it to be
/// shown as gone within 10 s, its grace of 2 s included.
pub(super) const PING_INTERVAL: Duration = Duration::from_secs(2);
pub(super) const PING_TIMEOUT: Duration = Duration::from_secs(5);

/// How often any other is asked at least, and how long it may take: it holds a place among many.
pub(super) const SELDOM_INTERVAL: Duration = Duration::from_secs(120);
pub(super) const SELDOM_TIMEOUT: Duration = Duration::from_secs(20);

/// Connections that begin together are asked at different times, up to so much sooner, or all would be at once for ever.
const SPREAD: Duration = Duration::from_secs(60);

/// Why a connection's client has to live; a request extension in every handler over HTTP/2. All clones mean the same
/// connection.
#[derive(Clone, Debug)]
pub struct Liveness(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    attached: AtomicUsize,
    /// Of these there are some now, and were none before.
    first: Notify,
}

/// A device that is attached over a connection. Dropped, it is not any more.
#[derive(Debug)]
pub struct Attached(Arc<Shared>);

impl Liveness {
    pub(super) fn new() -> Self {
        Self(Arc::default())
    }

    /// Has the client asked often, as long as what is returned is kept.
    pub fn attached(&self) -> Attached {
        if self.0.attached.fetch_add(1, Ordering::Relaxed) == 0 {
            self.0.first.notify_one();
        }
        Attached(Arc::clone(&self.0))
    }

    fn is_attached(&self) -> bool {
        self.0.attached.load(Ordering::Relaxed) > 0
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        self.0.attached.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Comes when the client of a connection has not answered in time, or its connection is gone.
pub(super) async fn silence(mut pings: PingPong, liveness: Liveness, connection: u64) {
    let spread = SPREAD.mul_f64((connection % 1_000) as f64 / 1_000.0);
    let (mut heard, mut asked) = (Instant::now(), None);
    loop {
        let (interval, patience) = match liveness.is_attached() {
            true => (PING_INTERVAL, PING_TIMEOUT),
            false => (SELDOM_INTERVAL - spread, SELDOM_TIMEOUT),
        };
        match asked {
            None => tokio::select! {
                () = liveness.0.first.notified() => {}
                () = sleep_until(heard + interval) => {
                    if pings.send_ping(Ping::opaque()).is_err() {
                        return;
                    }
                    asked = Some(Instant::now());
                }
            },
            Some(since) => tokio::select! {
                biased;
                answered = poll_fn(|context| pings.poll_pong(context)) => {
                    if answered.is_err() {
                        return;
                    }
                    (heard, asked) = (Instant::now(), None);
                }
                // It has just said something.
                () = liveness.0.first.notified() => asked = Some(Instant::now()),
                () = sleep_until(since + patience) => return,
            },
        }
    }
}
