//! What a client over HTTP/1.1 may send, and for how long it may not: over pipes, with a clock that needs no waiting.

use futures_util::{FutureExt as _, future::Shared};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex},
    sync::oneshot,
    task::JoinHandle,
};
use tonic::service::Routes;
use tonic_health::{
    pb::health_server::HealthServer,
    server::{HealthReporter, HealthService},
};

use super::*;

/// A message without fields, in its frame.
const EMPTY: &str = "\0\0\0\0\0";

/// One connection to the health service.
struct Bench {
    client: DuplexStream,
    close: oneshot::Sender<()>,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<()>,
}

/// The head of a request with a body of so many bytes.
fn head(method: &str, length: usize, more: &str) -> String {
    format!(
        "POST /grpc.health.v1.Health/{method} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/grpc-web+proto\r\n\
         content-length: {length}\r\n{more}\r\n"
    )
}

/// Watches the health of the whole server, which has no end.
fn watch() -> String {
    head("Watch", 5, "") + EMPTY
}

impl Bench {
    fn new() -> Self {
        let (client, server) = duplex(256 * 1024);
        let (stop, stopped) = oneshot::channel::<()>();
        let (close, closing) = oneshot::channel::<()>();
        let stopped: Shared<_> = stopped.map(drop).shared();
        let health = HealthServer::new(HealthService::from_health_reporter(HealthReporter::new()));
        let (http1, open) = Http1::new(Web::new(Routes::new(health), &[]), stopped);
        let (peer, _) = PeerInfo::new(([127, 0, 0, 1], 1).into(), None);
        let serving = tokio::spawn(async move {
            http1.serve(server, peer, closing.map(drop), ()).await;
            open.closed().await;
        });
        Self { client, close, stop, serving }
    }

    async fn send(&mut self, text: &str) {
        self.client.write_all(text.as_bytes()).await.unwrap();
    }

    /// Reads until this is among what has come.
    async fn read_until(&mut self, part: &str) -> String {
        let mut read = Vec::new();
        while !String::from_utf8_lossy(&read).contains(part) {
            assert_ne!(self.client.read_buf(&mut read).await.unwrap(), 0, "{}", String::from_utf8_lossy(&read));
        }
        String::from_utf8_lossy(&read).into_owned()
    }
}

/// Reads until the server closes.
async fn to_end(client: &mut DuplexStream) -> String {
    let mut read = Vec::new();
    client.read_to_end(&mut read).await.unwrap();
    String::from_utf8_lossy(&read).into_owned()
}

#[tokio::test(start_paused = true)]
async fn a_client_that_says_nothing_is_closed() {
    let mut bench = Bench::new();
    assert_eq!(to_end(&mut bench.client).await, "");
    bench.serving.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_client_that_drips_its_head_is_closed() {
    let mut bench = Bench::new();
    for byte in head("Check", 5, "").bytes() {
        bench.client.write_all(&[byte]).await.unwrap();
        // Each byte comes in time, and all together do not.
        if let Ok(read) = timeout(HEAD_TIME_MAX / 4, bench.client.read_u8()).await {
            read.unwrap_err();
            return bench.serving.await.unwrap();
        }
    }
    panic!("it may take any time");
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_idles_after_its_call_is_closed() {
    let mut bench = Bench::new();
    for _ in 0..2 {
        bench.send(&(head("Check", 5, "") + EMPTY)).await;
        let answer = bench.read_until("grpc-status:0").await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    to_end(&mut bench.client).await;
    bench.serving.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_body_that_does_not_come_is_given_up_and_the_connection_with_it() {
    let mut bench = Bench::new();
    bench.send(&(head("Check", 5, "") + &EMPTY[1..])).await;
    let answer = to_end(&mut bench.client).await;
    assert!(answer.contains("the%20request%20took%20longer%20than%2090%20s"), "{answer}");
    bench.serving.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_deadline_of_the_client_is_kept() {
    let mut bench = Bench::new();
    bench.send(&head("Check", 5, "grpc-timeout: 1S\r\n")).await;
    let answer = to_end(&mut bench.client).await;
    assert!(answer.contains("grpc-status: 4"), "{answer}");
}

#[tokio::test]
async fn a_head_of_so_many_bytes_is_taken_and_one_of_one_more_is_not() {
    let most = HEADER_BYTES_MAX as usize;
    let least = head("Check", 5, "x: \r\n").len();
    for (length, status) in [(most, "HTTP/1.1 200"), (most + 1, "HTTP/1.1 431")] {
        let mut bench = Bench::new();
        let padded = head("Check", 5, &format!("x: {}\r\n", "a".repeat(length - least)));
        assert_eq!(padded.len(), length);
        bench.send(&(padded + EMPTY)).await;
        let answer = bench.read_until("\r\n\r\n").await;
        assert!(answer.starts_with(status), "{answer}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_drain_waits_for_calls_and_not_for_connections_without_one() {
    let fresh = Bench::new();
    fresh.stop.send(()).unwrap();
    fresh.serving.await.unwrap();

    let mut idle = Bench::new();
    idle.send(&(head("Check", 5, "") + EMPTY)).await;
    idle.read_until("grpc-status:0").await;
    idle.stop.send(()).unwrap();
    idle.serving.await.unwrap();

    let mut busy = Bench::new();
    busy.send(&watch()).await;
    busy.read_until("\r\n\r\n").await;
    busy.stop.send(()).unwrap();
    to_end(&mut busy.client).await;
    busy.serving.await.unwrap();
}

#[tokio::test]
async fn a_handler_closes_the_connection() {
    let mut bench = Bench::new();
    bench.send(&watch()).await;
    bench.read_until("\r\n\r\n").await;
    bench.close.send(()).unwrap();
    to_end(&mut bench.client).await;
    bench.serving.await.unwrap();
}
