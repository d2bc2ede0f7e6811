//! What may be asked of the listener for metrics, and what strangers cannot do to it, over real sockets.

use std::future::{pending, ready};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpSocket,
};

use super::*;

/// A listener on any port that gives this text.
async fn serving(text: Bytes) -> SocketAddr {
    let wanted = MetricsListen::At(([127, 0, 0, 1], 0).into());
    let listener = MetricsListener::bind(&wanted).await.unwrap();
    let Place::At(address) = listener.place() else { panic!("it listens") };
    tokio::spawn(listener.serve(move || ready(text.clone()), pending()));
    address
}

/// All that comes before the connection ends, however it does.
async fn read(stream: &mut TcpStream) -> String {
    let mut all = Vec::new();
    while let Ok(1..) = stream.read_buf(&mut all).await {}
    String::from_utf8(all).unwrap()
}

async fn ask(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    read(&mut stream).await
}

const GET: &str = "GET /metrics HTTP/1.1\r\nhost: localhost\r\n\r\n";

#[tokio::test]
async fn metrics_are_given_and_the_connection_ends() {
    let address = serving("socp_x 1\n".into()).await;
    let answer = ask(address, GET).await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && head.contains(MEDIA_TYPE), "{head}");
    assert_eq!(body, "socp_x 1\n");
    let two = ask(address, &format!("{GET}{GET}")).await;
    assert_eq!(two.matches("HTTP/1.1").count(), 1, "one request for each connection: {two}");
    assert!(ask(address, "GET /other HTTP/1.1\r\nhost: localhost\r\n\r\n").await.starts_with("HTTP/1.1 404 "));
    let post = ask(address, "POST /metrics HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\n\r\n").await;
    assert!(post.starts_with("HTTP/1.1 405 ") && post.contains("allow: GET, HEAD"), "{post}");
}

#[tokio::test]
async fn a_head_that_fits_is_taken_and_a_larger_one_is_refused() {
    let address = serving("socp_x 1\n".into()).await;
    let with = |bytes: usize| format!("GET /metrics HTTP/1.1\r\nhost: localhost\r\nx: {}\r\n\r\n", "y".repeat(bytes));
    let around = with(0).len();
    let fits = ask(address, &with(METRICS_HEAD_BYTES_MAX - around - 1)).await;
    assert!(fits.starts_with("HTTP/1.1 200 "), "{fits}");
    let refused = ask(address, &with(METRICS_HEAD_BYTES_MAX)).await;
    assert!(refused.is_empty() || refused.starts_with("HTTP/1.1 431 "), "{refused}");
}

#[tokio::test(start_paused = true)]
async fn of_many_silent_connections_those_past_the_limit_are_closed_and_the_others_in_time() {
    let address = serving("socp_x 1\n".into()).await;
    let mut silent = Vec::new();
    for _ in 0..METRICS_CONNECTIONS_MAX {
        silent.push(TcpStream::connect(address).await.unwrap());
    }
    let begun = tokio::time::Instant::now();
    let mut one_more = TcpStream::connect(address).await.unwrap();
    assert_eq!(read(&mut one_more).await, "", "it is closed without a word");
    assert!(begun.elapsed() < Duration::from_millis(METRICS_MS_MAX), "while the others are open");
    for stream in &mut silent {
        read(stream).await;
    }
    assert!(ask(address, GET).await.starts_with("HTTP/1.1 200 "), "there is room again");
}

#[tokio::test(start_paused = true)]
async fn who_does_not_read_is_given_up_and_keeps_nobody_out() {
    // More than the kernel takes on its way, so that the server has to wait.
    let address = serving(vec![b'x'; 64 * 1024 * 1024].into()).await;
    let mut slow = Vec::new();
    for _ in 0..METRICS_CONNECTIONS_MAX {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4 * 1024).unwrap();
        let mut stream = socket.connect(address).await.unwrap();
        stream.write_all(GET.as_bytes()).await.unwrap();
        slow.push(stream);
    }
    tokio::time::advance(Duration::from_millis(METRICS_MS_MAX + 1)).await;
    let mut one_more = TcpStream::connect(address).await.unwrap();
    one_more.write_all(GET.as_bytes()).await.unwrap();
    let mut first = [0; 12];
    one_more.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"HTTP/1.1 200");
    for stream in &mut slow {
        assert!(read(stream).await.len() < 64 * 1024 * 1024, "it was cut off");
    }
}

#[tokio::test]
async fn an_address_that_is_taken_is_an_error_if_it_was_named_and_else_none() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let error = MetricsListener::bind(&MetricsListen::At(address)).await.unwrap_err();
    assert!(
        error.to_string().contains(&address.to_string()) && error.hint("metrics_listen").contains("--metrics-listen")
    );
    let without = MetricsListener::bind(&MetricsListen::IfFree(address)).await.unwrap();
    assert_eq!(without.place(), Place::Taken(address));
    without.serve(|| ready(Bytes::new()), pending()).await;
    assert_eq!(MetricsListener::bind(&MetricsListen::Off).await.unwrap().place(), Place::Off);
}

fn told(method: Method, path: &str, host: Option<&str>, own: &str) -> Option<u16> {
    let mut request = Request::builder().method(method).uri(path);
    if let Some(host) = host {
        request = request.header("host", host);
    }
    refusal(&request.body(()).unwrap(), own.parse().unwrap()).map(|(status, _)| status.as_u16())
}

#[test]
fn metrics_can_be_read_at_one_path_and_by_no_other_method() {
    let loopback = "127.0.0.1";
    assert_eq!(told(Method::GET, "/metrics", None, loopback), None);
    assert_eq!(told(Method::HEAD, "/metrics?x=1", None, loopback), None);
    for path in ["/", "/metrics/", "/Metrics", "//metrics", "/healthz"] {
        assert_eq!(told(Method::GET, path, None, loopback), Some(404), "{path}");
    }
    for method in [Method::POST, Method::PUT, Method::DELETE, Method::OPTIONS] {
        assert_eq!(told(method, "/metrics", None, loopback), Some(405));
    }
}

#[test]
fn a_page_that_calls_this_machine_by_a_name_of_its_own_is_refused() {
    let host = |host, own| told(Method::GET, "/metrics", Some(host), own);
    for good in ["127.0.0.1:7480", "localhost:7480", "LOCALHOST", "[::1]:7480", "[::1]", "127.0.0.1"] {
        assert_eq!(host(good, "127.0.0.1"), None, "{good}");
    }
    for bad in ["evil.example", "evil.example:7480", "localhost.evil.example:7480", "127.0.0.1.evil.example"] {
        assert_eq!(host(bad, "127.0.0.1"), Some(403), "{bad}");
        assert_eq!(host(bad, "192.0.2.1"), None, "beyond loopback it may have a name");
    }
}
