//! What a handle does before the driver has its turn.

use std::sync::Weak;

use futures_util::{FutureExt as _, future::join_all};

use super::*;

/// A handle of which so many events and calls may wait for a driver that is not there, and what it wants to be kept.
fn handle(events: usize, calls: usize) -> (Handle, mpsc::Receiver<Event>, impl Sized) {
    let (events, inputs) = mpsc::channel(events);
    let (streams, ended) = attachment::streams();
    let folder = tempfile::tempdir().unwrap();
    let handle = Handle {
        events,
        streams,
        calls: Arc::new(Semaphore::new(calls)),
        frames: Arc::new(Semaphore::new(0)),
        reads: Reads { way: Weak::new(), readers: Arc::new(Semaphore::new(0)) },
        ids: Arc::new(Ids { attachments: AtomicU64::new(1), links: AtomicU64::new(1) }),
        counters: Arc::default(),
        ways: Ways::default(),
        files: Files::open(folder.path()).unwrap().0,
    };
    (handle, inputs, (ended, folder))
}

#[tokio::test]
async fn of_those_who_wait_to_be_attached_no_more_have_a_place_than_calls_may_wait() {
    let (handle, mut inputs, _kept) = handle(1, 3);
    let attach = || handle.attach(TokenHash::of(""), AttachRequest::default());
    let mut all = Box::pin(join_all((0..10).map(|_| attach())));
    assert!((&mut all).now_or_never().is_none());
    assert_eq!(handle.streams.count(), 4, "one is with the driver, and three wait for it");
    let taken = async { while inputs.recv().await.is_some() {} };
    tokio::select! {
        attached = all => assert_eq!(attached.iter().filter(|stream| stream.is_ok()).count(), 10),
        () = taken => unreachable!("the handle is there"),
    }
}

#[tokio::test]
async fn a_driver_keeps_up_while_less_than_half_of_what_may_wait_for_it_does() {
    let (handle, mut inputs, _kept) = handle(4, CALLS_MAX);
    assert!(handle.keeps_up());
    handle.send(Event::Stop).await.unwrap();
    assert!(handle.keeps_up());
    handle.send(Event::Stop).await.unwrap();
    assert!(!handle.keeps_up(), "half of the events");
    inputs.recv().await;
    assert!(handle.keeps_up());
    let calls = handle.calls.acquire_many(u32::try_from(CALLS_MAX / 2).unwrap()).await.unwrap();
    assert!(!handle.keeps_up(), "half of the calls");
    drop(calls);
    assert!(handle.keeps_up());
}
