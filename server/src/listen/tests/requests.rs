//! Requests that clients do not finish, over both transports: their limits, and what they leave to others.

use bytes::Bytes;
use http::HeaderMap;
use http_body::Frame;
use http_body_util::StreamBody;
use socp::v1::Reason;
use tokio::sync::mpsc::UnboundedSender;
use tonic::{Code, body::Body};
use tonic_types::StatusExt as _;
use tower::{BoxError, ServiceExt as _, util::BoxCloneSyncService};

use super::*;

/// Longer than any of these tests, so that nothing is late.
const LONG: Duration = Duration::from_secs(600);

const KIB: usize = 1024;

/// One connection of a client.
type Calls = BoxCloneSyncService<http::Request<Body>, http::Response<Body>, BoxError>;

impl Bench {
    /// A connection of each transport.
    async fn calls(&self) -> [Calls; 2] {
        let tcp = self.channel().await.map_err(BoxError::from);
        let quic = socp_quic::Channel::builder(self.address, "localhost", self.tls(&[b"h3"])).connect().await.unwrap();
        let quic = quic.map_response(|response| response.map(Body::new)).map_err(BoxError::from);
        [BoxCloneSyncService::new(tcp), BoxCloneSyncService::new(quic)]
    }
}

/// A call that asks for the health of a service with a long name, of which a test sends as much as it likes.
struct Call {
    write: UnboundedSender<Result<Frame<Bytes>, Status>>,
    answered: JoinHandle<Status>,
}

impl Call {
    /// Begins a message with a name of so many bytes. What it takes until the name is 14 bytes at most.
    fn begin(calls: &Calls, name_bytes: usize) -> Self {
        let call = Self::empty(calls);
        call.write(head(name_bytes).into());
        call
    }

    fn empty(calls: &Calls) -> Self {
        let (write, mut written) = mpsc::unbounded_channel();
        let body = StreamBody::new(futures_util::stream::poll_fn(move |context| written.poll_recv(context)));
        let request = http::Request::post("https://localhost/grpc.health.v1.Health/Check")
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(Body::new(body))
            .unwrap();
        let answer = calls.clone().oneshot(request);
        let answered = tokio::spawn(async move {
            let response = answer.await.unwrap_or_else(|error| Status::from_error(error).into_http());
            Status::from_header_map(response.headers()).unwrap_or_else(|| Status::ok(""))
        });
        Self { write, answered }
    }

    fn write(&self, bytes: Bytes) {
        // Fails once the server has refused the call, which its answer says.
        let _ = self.write.send(Ok(Frame::data(bytes)));
    }

    /// Sends so many bytes of the name.
    fn name(&self, bytes: usize) {
        self.write(vec![b'a'; bytes].into());
    }

    /// The answer, though the request goes on.
    async fn refused(self) -> (Code, Option<Reason>) {
        reason(&self.answered.await.unwrap())
    }

    /// Ends the request, which is whole; there is no such service.
    async fn finished(self) {
        drop(self.write);
        assert_eq!(self.answered.await.unwrap().code(), Code::NotFound);
    }
}

/// The beginning of a request: gRPC's five bytes, and those of the field.
fn head(name_bytes: usize) -> Vec<u8> {
    let mut field = vec![10];
    let mut number = name_bytes;
    while number >= 0x80 {
        field.push(number as u8 | 0x80);
        number >>= 7;
    }
    field.push(number as u8);
    let length = u32::try_from(field.len() + name_bytes).unwrap();
    [&[0], &length.to_be_bytes()[..], &field].concat()
}

fn reason(status: &Status) -> (Code, Option<Reason>) {
    let details = status.get_error_details();
    (status.code(), details.error_info().and_then(|info| socp::rejection::parse(&info.reason)))
}

/// A whole request.
async fn small(calls: &Calls) {
    let call = Call::begin(calls, 3);
    call.name(3);
    call.finished().await;
}

/// Waits until the server holds so many bytes.
async fn held(requests: &Requests, bytes: usize) {
    let come = async {
        while requests.bytes() != bytes {
            tokio::task::yield_now().await;
        }
    };
    let come = timeout(Duration::from_secs(20), come).await;
    assert!(come.is_ok(), "{} bytes are held, not {bytes}", requests.bytes());
}

#[tokio::test]
async fn a_request_that_is_not_whole_in_time_is_broken_off_and_whole_ones_pass_beside_it() {
    let requests = Requests::with_limits(Duration::from_secs(1), KIB * KIB, KIB * KIB, KIB);
    let bench = Bench::with(requests.clone()).await;
    for calls in bench.calls().await {
        let begun = [Call::empty(&calls), Call::begin(&calls, 100), Call::begin(&calls, 100)];
        begun[2].name(99);
        small(&calls).await;
        for call in begun {
            assert_eq!(call.refused().await, (Code::Unavailable, Some(Reason::Timeout)));
        }
        small(&calls).await;
    }
    assert_eq!((requests.broken(), requests.bytes()), ([6, 0, 0], 0));
}

#[tokio::test]
async fn a_connection_may_leave_so_much_unfinished_and_not_a_byte_more_and_others_as_much() {
    let requests = Requests::with_limits(LONG, 300 * KIB, KIB * KIB, 64 * KIB);
    let bench = Bench::with(requests.clone()).await;
    let [one, other] = bench.calls().await;
    for (calls, elsewhere) in [(&one, &other), (&other, &one)] {
        let (first, second) = (Call::begin(calls, 200 * KIB), Call::begin(calls, 200 * KIB));
        first.name(199 * KIB);
        let heads = 2 * head(200 * KIB).len();
        second.name(101 * KIB - heads);
        held(&requests, 300 * KIB).await;
        small(calls).await;
        small(elsewhere).await;
        first.name(1);
        assert_eq!(first.refused().await, (Code::ResourceExhausted, Some(Reason::TooMany)));
        held(&requests, 101 * KIB - heads / 2).await;
        let there = Call::begin(elsewhere, 200 * KIB);
        there.name(200 * KIB);
        held(&requests, 301 * KIB).await;
        second.name(99 * KIB + heads);
        second.finished().await;
        there.finished().await;
        held(&requests, 0).await;
    }
    assert_eq!(requests.broken(), [0, 2, 0]);
}

#[tokio::test]
async fn when_all_clients_hold_too_much_the_oldest_large_request_ends_and_small_ones_go_on() {
    let requests = Requests::with_limits(LONG, KIB * KIB, 500 * KIB, 64 * KIB);
    let bench = Bench::with(requests.clone()).await;
    let [one, other] = bench.calls().await;
    for (calls, elsewhere) in [(&one, &other), (&other, &one)] {
        let oldest = Call::begin(calls, 60 * KIB);
        oldest.name(50 * KIB);
        let small_head = head(60 * KIB).len();
        held(&requests, 50 * KIB + small_head).await;
        let large = Call::begin(calls, 200 * KIB);
        large.name(199 * KIB);
        let large_head = head(200 * KIB).len();
        held(&requests, 249 * KIB + small_head + large_head).await;
        let newest = Call::begin(elsewhere, 300 * KIB);
        newest.name(251 * KIB - small_head - large_head - head(300 * KIB).len());
        held(&requests, 500 * KIB).await;
        small(calls).await;
        small(elsewhere).await;
        oldest.name(1);
        assert_eq!(large.refused().await, (Code::ResourceExhausted, Some(Reason::TooMany)));
        held(&requests, 301 * KIB + 1 - large_head).await;
        oldest.name(10 * KIB - 1);
        oldest.finished().await;
        newest.name(49 * KIB + small_head + large_head + head(300 * KIB).len());
        newest.finished().await;
        held(&requests, 0).await;
    }
    assert_eq!(requests.broken(), [0, 0, 2]);
}

#[tokio::test]
async fn a_request_that_goes_on_after_its_message_and_one_that_its_client_drops_hold_no_more_than_others() {
    let requests = Requests::with_limits(LONG, 300 * KIB, KIB * KIB, KIB);
    let bench = Bench::with(requests.clone()).await;
    for calls in bench.calls().await {
        let endless = Call::empty(&calls);
        let message = [head(KIB), vec![b'a'; KIB]].concat();
        (0..300).for_each(|_| endless.write(message.clone().into()));
        assert_eq!(endless.refused().await, (Code::ResourceExhausted, Some(Reason::TooMany)));
        let dropped = Call::begin(&calls, 100 * KIB);
        dropped.name(99 * KIB);
        held(&requests, 99 * KIB + head(100 * KIB).len()).await;
        dropped.answered.abort();
        held(&requests, 0).await;
        let ended = Call::begin(&calls, 3);
        ended.name(3);
        ended.write.send(Ok(Frame::trailers(HeaderMap::new()))).unwrap();
        ended.finished().await;
    }
}
