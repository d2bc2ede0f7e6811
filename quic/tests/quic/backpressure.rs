//! A reader that stalls stops the writer, in both directions, and nobody else.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use futures_util::StreamExt as _;
use tokio::sync::watch;

use crate::support::service::stream;
use crate::support::{Script, Served, client, message, soon};

/// Messages of a kilobyte without end, counted as they are asked for.
fn produce(produced: watch::Sender<usize>) -> impl futures_util::Stream<Item = Bytes> + Send {
    futures_util::stream::repeat_with(move || {
        produced.send_modify(|count| *count += 1);
        Bytes::from(vec![1; 1000])
    })
}

/// The writer may fill the stream's window (128 KiB) and the buffers on the way: a frame being written, one being filled.
const KILOBYTES_MAX: usize = 400;

/// Lets everything that can run do so: round trips on the same connection, which make the driver tasks of both ends run.
async fn round_trips(channel: &socp_quic::Channel) {
    for _ in 0..300 {
        soon(client(channel).unary("Echo", message("x"))).await.unwrap();
    }
}

/// Guard: `stream_window_bytes` of the client, and `poll_ready` in `glue::SendStream`, which waits for it.
#[tokio::test]
async fn a_reader_that_stalls_stops_the_handler() {
    let (produced, mut watching) = watch::channel(0);
    let script = Script::new().method("Flood", move |_| {
        let produced = produced.clone();
        async move { Ok(stream(produce(produced).map(Ok))) }
    });
    let served = Served::new(script);
    let channel = served.channel().await;
    let mut response = client(&channel).server_stream("Flood", message("")).await.unwrap();
    soon(watching.wait_for(|count| *count > 100)).await.unwrap();
    round_trips(&channel).await;
    let stalled = *watching.borrow();
    assert!(stalled < KILOBYTES_MAX, "{stalled} kB");
    // Reading lets it go on.
    for _ in 0..2 * KILOBYTES_MAX {
        soon(response.next()).await.unwrap().unwrap();
    }
}

/// Guard: `stream_window_bytes` of the server, and a request body that reads only when the handler does.
#[tokio::test]
async fn a_handler_that_stalls_stops_the_caller() {
    let (go, _) = watch::channel(false);
    let going = go.subscribe();
    let read = Arc::new(AtomicUsize::new(0));
    let reader = read.clone();
    let script = Script::new().method("Stall", move |input| {
        let (mut going, read) = (going.clone(), reader.clone());
        async move {
            let mut input = input.into_inner();
            Ok(stream(futures_util::stream::once(async move {
                going.wait_for(|going| *going).await.unwrap();
                for _ in 0..2 * KILOBYTES_MAX {
                    input.next().await.unwrap().unwrap();
                    read.fetch_add(1, Ordering::SeqCst);
                }
                Ok(message("enough"))
            })))
        }
    });
    let served = Served::new(script);
    let channel = served.channel().await;
    let (produced, mut watching) = watch::channel(0);
    let mut response = soon(client(&channel).bidi("Stall", produce(produced))).await.unwrap();
    soon(watching.wait_for(|count| *count > 100)).await.unwrap();
    round_trips(&channel).await;
    let stalled = *watching.borrow();
    assert!(stalled < KILOBYTES_MAX, "{stalled} kB");
    assert_eq!(read.load(Ordering::SeqCst), 0);
    go.send(true).unwrap();
    assert_eq!(soon(response.next()).await.unwrap().unwrap(), "enough");
}

/// Guard: `connection_window_bytes` is many times `stream_window_bytes`, at the client.
#[tokio::test]
async fn eight_streams_that_nobody_reads_do_not_stop_the_ninth() {
    let (produced, mut watching) = watch::channel(0);
    let script = Script::new().method("Flood", move |_| {
        let produced = produced.clone();
        async move { Ok(stream(produce(produced).map(Ok))) }
    });
    let served = Served::new(script);
    let channel = served.channel().await;
    let mut stalled = Vec::new();
    for _ in 0..8 {
        stalled.push(client(&channel).server_stream("Flood", message("")).await.unwrap());
    }
    soon(watching.wait_for(|count| *count > 8 * 100)).await.unwrap();
    round_trips(&channel).await;
    assert!(*watching.borrow() < 8 * KILOBYTES_MAX);
}
