//! What a connection's task does with calls, and with clients that are silent: over pipes, with a clock that needs no waiting.

use std::{sync::Arc, time::Duration};

use futures_util::future::Shared;
use h2::client::{ResponseFuture, SendRequest};
use http_body_util::{BodyExt as _, StreamBody};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex},
    sync::{Semaphore, oneshot},
    task::JoinHandle,
};
use tonic::{Code, server::NamedService, service::Routes};
use tower::Service;

use super::{
    super::liveness::{PING_INTERVAL, PING_TIMEOUT, SELDOM_INTERVAL, SELDOM_TIMEOUT},
    *,
};

/// Longer than anything here may take.
const LONG: Duration = Duration::from_secs(24 * 60 * 60);

/// A service that does as the path says.
#[derive(Clone)]
struct Probe {
    /// Handlers that were begun and have not been dropped.
    open: Arc<Semaphore>,
}

/// As many handlers as the service counts.
const OPEN_MAX: usize = 1_000;

impl NamedService for Probe {
    const NAME: &'static str = "test.Probe";
}

impl Service<Request<Body>> for Probe {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let open = Arc::clone(&self.open).try_acquire_owned().unwrap();
        let liveness = request.extensions().get::<Liveness>().unwrap().clone();
        async move {
            // What the stream holds until it ends or is dropped.
            let held = move |attached| (open, attached);
            let endless = |held| {
                let kept = futures_util::stream::unfold(held, |held| async move {
                    std::future::pending::<()>().await;
                    Some((Ok::<_, Status>(Frame::data(Bytes::new())), held))
                });
                Response::new(Body::new(StreamBody::new(kept)))
            };
            Ok(match request.uri().path().rsplit('/').next().unwrap() {
                // Answers with what it was sent, once that is whole.
                "Echo" => match request.into_body().collect().await {
                    Ok(body) => Response::new(Body::new(body.map_err(|never| match never {}))),
                    Err(status) => status.into_http(),
                },
                "Panic" => panic!("as it was asked to"),
                "PanicLater" => {
                    let mut frames = 0;
                    Response::new(Body::new(StreamBody::new(futures_util::stream::poll_fn(move |_| {
                        frames += 1;
                        assert!(frames < 2, "as it was asked to");
                        Poll::Ready(Some(Ok::<_, Status>(Frame::data(Bytes::from_static(b"x")))))
                    }))))
                }
                "Never" => {
                    let _held = held(None);
                    std::future::pending().await
                }
                "Watch" => endless(held(None)),
                "Attach" => endless(held(Some(liveness.attached()))),
                other => panic!("no such method: {other}"),
            })
        }
        .boxed()
    }
}

/// One connection to the service.
struct Bench {
    client: DuplexStream,
    open: Arc<Semaphore>,
    close: oneshot::Sender<()>,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<()>,
}

impl Bench {
    fn new() -> Self {
        let (client, server) = duplex(256 * 1024);
        let (stop, stopped) = oneshot::channel::<()>();
        let (close, closing) = oneshot::channel::<()>();
        let stopped: Shared<_> = stopped.map(drop).shared();
        let open = Arc::new(Semaphore::new(OPEN_MAX));
        let (http2, all) = Http2::new(Web::new(Routes::new(Probe { open: Arc::clone(&open) }), &[]), stopped);
        let (peer, driver) = PeerInfo::new(([127, 0, 0, 1], 1).into(), None);
        let serving = tokio::spawn(async move {
            http2.serve(server, peer, closing.map(drop), ()).await;
            drop(driver);
            all.closed().await;
        });
        Self { client, open, close, stop, serving }
    }

    /// Begins HTTP/2, and hears what the server says until the client is dropped.
    async fn begin(self) -> Client {
        // What one call leaves unread holds up no other.
        let mut builder = h2::client::Builder::new();
        builder.initial_connection_window_size(16 * WINDOW_BYTES);
        let (requests, connection) = builder.handshake(self.client).await.unwrap();
        let (freeze, frozen) = oneshot::channel::<()>();
        tokio::spawn(async move {
            let mut connection = pin!(connection);
            tokio::select! {
                // With an error where the server just closes.
                _ = &mut connection => {}
                Ok(()) = frozen => std::future::pending().await,
            }
        });
        Client { requests, freeze, open: self.open, close: self.close, stop: self.stop, serving: self.serving }
    }
}

struct Client {
    requests: SendRequest<Bytes>,
    /// Has the client neither read nor answer any more, and keep its connection.
    freeze: oneshot::Sender<()>,
    open: Arc<Semaphore>,
    close: oneshot::Sender<()>,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<()>,
}

impl Client {
    /// Begins a call with these headers; its request goes on.
    async fn begin_with(&mut self, method: &str, headers: &[(&str, &str)]) -> (ResponseFuture, SendStream<Bytes>) {
        let request = Request::post(format!("https://localhost/test.Probe/{method}"));
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        let request = request.body(()).unwrap();
        let mut requests = self.requests.clone().ready().await.unwrap();
        requests.send_request(request, false).unwrap()
    }

    async fn begin(&mut self, method: &str) -> (ResponseFuture, SendStream<Bytes>) {
        self.begin_with(method, &[("content-type", "application/grpc")]).await
    }

    /// Begins a call whose request is whole.
    async fn call(&mut self, method: &str) -> ResponseFuture {
        let (response, mut request) = self.begin(method).await;
        request.send_data(Bytes::from_static(b"hello"), true).unwrap();
        response
    }

    async fn echoes(&mut self) {
        let answer = self.call("Echo").await.await.unwrap();
        assert_eq!(read(answer).await.0, b"hello");
    }

    /// Waits until so many handlers are open.
    async fn opens(&self, handlers: usize) {
        let are_open = async {
            while OPEN_MAX - self.open.available_permits() != handlers {
                tokio::task::yield_now().await;
            }
        };
        timeout(Duration::from_secs(20), are_open).await.expect("as many handlers are open");
    }
}

/// An answer's bytes, and the status in its trailers or head.
async fn read(answer: Response<RecvStream>) -> (Vec<u8>, Option<Code>) {
    let code = |headers: &HeaderMap| Status::from_header_map(headers).map(|status| status.code());
    let (head, mut stream) = answer.into_parts();
    let mut bytes = Vec::new();
    while let Some(data) = stream.data().await {
        let data = data.unwrap();
        stream.flow_control().release_capacity(data.len()).unwrap();
        bytes.extend_from_slice(&data);
    }
    let trailers = stream.trailers().await.unwrap();
    (bytes, code(&head.headers).or_else(|| code(&trailers?)))
}

#[tokio::test(start_paused = true)]
async fn a_client_that_never_begins_is_closed() {
    let mut bench = Bench::new();
    // All but the last byte of how HTTP/2 begins.
    bench.client.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r").await.unwrap();
    let began = Instant::now();
    let mut said = Vec::new();
    bench.client.read_to_end(&mut said).await.unwrap();
    assert!(began.elapsed() <= PREFACE_TIME_MAX);
    bench.serving.await.unwrap();
}

#[tokio::test]
async fn calls_go_on_beside_each_other_and_a_large_one_waits_for_its_reader() {
    let mut client = Bench::new().begin().await;
    let _watch = client.call("Watch").await.await.unwrap();
    client.echoes().await;
    let (response, mut request) = client.begin("Echo").await;
    let content: Bytes = (0..3 * WINDOW_BYTES).map(|number| (number % 251) as u8).collect::<Vec<_>>().into();
    let sent = content.clone();
    let sending = tokio::spawn(async move {
        for part in sent.chunks(100_000) {
            room(&mut request, &Bytes::copy_from_slice(part)).await.ok().unwrap();
            request.send_data(Bytes::copy_from_slice(part), false).unwrap();
        }
        request.send_data(Bytes::new(), true).unwrap();
    });
    let answer = response.await.unwrap();
    client.echoes().await;
    assert!(read(answer).await.0 == content);
    sending.await.unwrap();
}

#[tokio::test]
async fn a_handler_that_panics_takes_nothing_else_along() {
    let mut client = Bench::new().begin().await;
    let answer = client.call("Panic").await.await.unwrap();
    assert_eq!(read(answer).await, (Vec::new(), Some(Code::Internal)));
    let answer = client.call("PanicLater").await.await.unwrap();
    assert_eq!(read(answer).await, (b"x".to_vec(), Some(Code::Internal)));
    client.echoes().await;
}

#[tokio::test]
async fn a_handler_is_dropped_once_its_client_wants_no_answer() {
    let mut client = Bench::new().begin().await;
    let (never, watch) = (client.call("Never").await, client.call("Watch").await.await.unwrap());
    client.opens(2).await;
    drop(never);
    client.opens(1).await;
    drop(watch);
    client.opens(0).await;
    client.echoes().await;
}

#[tokio::test]
async fn a_request_that_is_cut_off_is_never_taken_for_a_whole_one() {
    let mut client = Bench::new().begin().await;
    for reason in [Reason::CANCEL, Reason::NO_ERROR] {
        let (response, mut request) = client.begin("Echo").await;
        request.send_data(Bytes::from_static(b"hel"), false).unwrap();
        client.opens(1).await;
        request.send_reset(reason);
        assert!(response.await.is_err(), "it echoes what is not whole");
        client.opens(0).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_ends_at_its_deadline_before_its_answer_and_in_the_middle_of_it() {
    let mut client = Bench::new().begin().await;
    let in_time = [("content-type", "application/grpc"), ("grpc-timeout", "3S")];
    for method in ["Never", "Watch"] {
        let (response, _request) = client.begin_with(method, &in_time).await;
        let began = Instant::now();
        assert_eq!(read(response.await.unwrap()).await, (Vec::new(), Some(Code::DeadlineExceeded)), "{method}");
        assert!((3..5).contains(&began.elapsed().as_secs()), "{method}");
        client.opens(0).await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_whose_trailers_are_in_its_body_never_looks_whole_when_it_is_late() {
    let mut client = Bench::new().begin().await;
    let headers = [("content-type", "application/grpc-web"), ("grpc-timeout", "3S")];
    let (response, _request) = client.begin_with("Watch", &headers).await;
    let mut body = response.await.unwrap().into_body();
    let error = body.data().await.unwrap().unwrap_err();
    assert_eq!(error.reason(), Some(Reason::INTERNAL_ERROR));
    client.opens(0).await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_answers_keeps_its_connection_and_has_as_many_calls_at_once_as_are_allowed() {
    let mut client = Bench::new().begin().await;
    let _attached = client.call("Attach").await.await.unwrap();
    sleep(LONG).await;
    client.echoes().await;
    let mut watches = Vec::new();
    for _ in 1..STREAMS_MAX {
        watches.push(client.call("Watch").await.await.unwrap());
    }
    let one_more = client.call("Watch").await;
    sleep(LONG).await;
    client.opens(STREAMS_MAX as usize).await;
    watches.pop();
    one_more.await.unwrap();
}

/// How long a client is kept that falls silent after this call.
async fn kept_after(method: &str) -> Duration {
    let mut client = Bench::new().begin().await;
    let _call = client.call(method).await.await.unwrap();
    // Several pings later, and not just after one.
    sleep(Duration::from_millis(499_500)).await;
    client.opens(1).await;
    let began = Instant::now();
    client.freeze.send(()).unwrap();
    client.serving.await.unwrap();
    began.elapsed()
}

#[tokio::test(start_paused = true)]
async fn who_is_online_and_falls_silent_is_noticed_in_seconds_and_who_only_watches_in_two_minutes_or_so() {
    let attached = kept_after("Attach").await;
    assert!(attached <= PING_INTERVAL + PING_TIMEOUT, "{attached:?}");
    let watching = kept_after("Watch").await;
    assert!(watching > SELDOM_TIMEOUT && watching <= SELDOM_INTERVAL + SELDOM_TIMEOUT, "{watching:?}");
}

#[tokio::test(start_paused = true)]
async fn a_drain_waits_for_calls_but_not_for_ever_nor_for_connections_without_one() {
    let began = Instant::now();
    let silent = Bench::new();
    silent.stop.send(()).unwrap();
    silent.serving.await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(1));

    let mut idle = Bench::new().begin().await;
    idle.echoes().await;
    let began = Instant::now();
    idle.stop.send(()).unwrap();
    idle.serving.await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(1));

    let mut busy = Bench::new().begin().await;
    let (response, mut request) = busy.begin("Echo").await;
    busy.opens(1).await;
    let _watch = busy.call("Watch").await.await.unwrap();
    let began = Instant::now();
    busy.stop.send(()).unwrap();
    sleep(DRAIN_TIME_MAX / 2).await;
    request.send_data(Bytes::from_static(b"late"), true).unwrap();
    assert_eq!(read(response.await.unwrap()).await.0, b"late");
    busy.serving.await.unwrap();
    assert!(began.elapsed() <= DRAIN_TIME_MAX + Duration::from_secs(1));
}

#[tokio::test]
async fn a_handler_closes_the_connection_and_all_its_calls() {
    let mut client = Bench::new().begin().await;
    let watch = client.call("Watch").await.await.unwrap();
    client.opens(1).await;
    client.close.send(()).unwrap();
    client.serving.await.unwrap();
    assert_eq!(client.open.available_permits(), OPEN_MAX);
    assert!(watch.into_body().data().await.is_none_or(|data| data.is_err()));
}

#[tokio::test]
async fn what_is_kept_of_a_connection_for_long_is_small() {
    let (_, server) = duplex(1);
    let probe = Probe { open: Arc::new(Semaphore::new(OPEN_MAX)) };
    let (http2, _) = Http2::new(Web::new(Routes::new(probe), &[]), std::future::pending::<()>().shared());
    let (peer, _driver) = PeerInfo::new(([127, 0, 0, 1], 1).into(), None);
    // Nearly all of it is the library's own connection; a handshake, were it kept here, would be as much again.
    let serving = http2.serve(Box::new(server), peer, std::future::pending(), ());
    assert!(size_of_val(&serving) <= 2_048, "{} bytes", size_of_val(&serving));
}
