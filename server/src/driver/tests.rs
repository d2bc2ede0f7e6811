//! What a handle does before the driver has its turn.

use std::sync::Weak;

use futures_util::{FutureExt as _, future::join_all};

use super::*;

#[tokio::test]
async fn of_those_who_wait_to_be_attached_no_more_have_a_place_than_calls_may_wait() {
    let (events, mut inputs) = mpsc::channel(1);
    let (streams, _ended) = attachment::streams();
    let folder = tempfile::tempdir().unwrap();
    let handle = Handle {
        events,
        streams,
        calls: Arc::new(Semaphore::new(3)),
        frames: Arc::new(Semaphore::new(0)),
        reads: Reads { way: Weak::new(), readers: Arc::new(Semaphore::new(0)) },
        ids: Arc::new(Ids { attachments: AtomicU64::new(1), links: AtomicU64::new(1) }),
        counters: Arc::default(),
        ways: Ways::default(),
        files: Files::open(folder.path()).unwrap().0,
    };
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
