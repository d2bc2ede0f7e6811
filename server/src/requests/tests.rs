//! Bodies that a test writes, read as handlers read them, with a clock that needs no waiting.

use futures_util::Stream;
use http_body_util::{BodyExt as _, StreamBody, combinators::UnsyncBoxBody};
use tokio::{
    sync::mpsc::{UnboundedSender, unbounded_channel},
    time::{advance, timeout},
};
use tonic::Status;
use tonic_types::StatusExt as _;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

type Come = Result<Frame<Bytes>, Infallible>;

type Body = Coming<UnsyncBoxBody<Bytes, Infallible>>;

/// What writes a request on a connection, and its body as its handler sees it.
fn request(requests: &Requests, connection: u64) -> (UnboundedSender<Come>, Handover, Body) {
    let (send, mut sent) = unbounded_channel();
    let stream = futures_util::stream::poll_fn(move |context| sent.poll_recv(context));
    let handover = Handover::default();
    (send, handover.clone(), coming(requests, connection, handover, stream))
}

fn coming(
    requests: &Requests,
    connection: u64,
    handover: Handover,
    stream: impl Stream<Item = Come> + Send + 'static,
) -> Body {
    let care = Care::new(Arc::clone(&requests.unfinished), connection, handover);
    Coming { body: Some(StreamBody::new(stream).boxed_unsync()), care: Some(care) }
}

fn data(bytes: usize) -> Come {
    Ok(Frame::data(vec![0; bytes].into()))
}

/// Reads to the end; the reason where it is broken off.
async fn read(mut body: Body) -> Option<String> {
    while let Some(frame) = body.frame().await {
        if let Err(error) = frame {
            let status = error.downcast::<Status>().expect("it has a status");
            return Some(status.get_error_details().error_info().expect("every status has it").reason.clone());
        }
    }
    None
}

#[tokio::test(start_paused = true)]
async fn a_request_has_its_time_and_no_more_however_it_comes() {
    let requests = Requests::default();
    // Nothing at all, and a byte just before each second is over.
    let (_silent, _, body) = request(&requests, 1);
    let begun = Instant::now();
    assert_eq!(read(body).await.as_deref(), Some("TIMEOUT"));
    assert_eq!(begun.elapsed().as_secs(), REQUEST_MS_MAX / 1_000);
    let (send, _, body) = request(&requests, 1);
    let dripping = tokio::spawn(async move {
        while send.send(data(1)).is_ok() {
            tokio::time::sleep(SECOND - Duration::from_millis(1)).await;
        }
    });
    assert_eq!(read(body).await.as_deref(), Some("TIMEOUT"));
    dripping.await.unwrap();
    // What is whole in time is in time, though it is read much later.
    let (send, _, body) = request(&requests, 1);
    send.send(data(1)).unwrap();
    let reading = tokio::spawn(read(body));
    advance(Duration::from_millis(REQUEST_MS_MAX - 1)).await;
    send.send(data(1)).unwrap();
    drop(send);
    assert_eq!(reading.await.unwrap(), None);
    let (send, _, body) = request(&requests, 1);
    send.send(data(1)).unwrap();
    drop(send);
    advance(Duration::from_millis(REQUEST_MS_MAX * 2)).await;
    assert_eq!(read(body).await, None);
    assert_eq!((requests.broken(), requests.bytes()), ([2, 0, 0], 0));
}

#[tokio::test(start_paused = true)]
async fn one_that_always_has_more_is_ended_although_it_is_never_waited_for() {
    let requests = Requests::default();
    let mut body = coming(&requests, 1, Handover::default(), futures_util::stream::repeat_with(|| data(0)));
    for _ in 0..1_000 {
        body.frame().await.unwrap().unwrap();
    }
    advance(Duration::from_millis(REQUEST_MS_MAX)).await;
    assert_eq!(read(body).await.as_deref(), Some("TIMEOUT"));
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_its_service_looks_after_has_any_time_and_is_in_no_account() {
    let requests = Requests::with_limits(SECOND, 100, 1_000, 10);
    let (send, handover, mut body) = request(&requests, 1);
    send.send(data(90)).unwrap();
    body.frame().await.unwrap().unwrap();
    assert!(timeout(SECOND / 2, body.frame()).await.is_err(), "more is to come");
    assert_eq!(requests.bytes(), 90);
    handover.take();
    for _ in 0..100 {
        send.send(data(90)).unwrap();
        body.frame().await.unwrap().unwrap();
        advance(SECOND).await;
        assert_eq!(requests.bytes(), 0);
    }
    drop(send);
    assert_eq!(read(body).await, None);
}

#[tokio::test(start_paused = true)]
async fn what_is_dropped_or_broken_off_holds_nothing_any_more() {
    let requests = Requests::with_limits(SECOND, 100, 1_000, 10);
    let (send, _, mut body) = request(&requests, 1);
    send.send(data(100)).unwrap();
    body.frame().await.unwrap().unwrap();
    assert_eq!(requests.bytes(), 100);
    let (other, _, full) = request(&requests, 1);
    other.send(data(11)).unwrap();
    assert_eq!(read(full).await.as_deref(), Some("TOO_MANY"));
    assert!(other.is_closed(), "nothing more is taken of it");
    drop(body);
    assert!(send.is_closed());
    assert_eq!((requests.broken(), requests.bytes()), ([0, 1, 0], 0));
}
