//! gRPC-Web written by hand, as a page in a browser sends it, or a program that is in none.

use std::fmt;

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::{
    body::Incoming,
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::{
    Message,
    bytes::{Buf as _, BufMut as _, Bytes, BytesMut},
};
use tonic::{Code, Status};

use super::{server::Server, soon, wire::shake};

/// What gRPC-Web goes over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    Http1,
    Http2,
}

/// Both.
pub const VERSIONS: [Version; 2] = [Version::Http1, Version::Http2];

/// The kind of what is sent and answered.
pub const WEB: &str = "application/grpc-web+proto";

/// The bit of a frame's first byte that says that it holds trailers.
const TRAILERS: u8 = 0x80;

enum Sender {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

/// A page, or what stands for one, on a connection of its own.
pub struct Page {
    sender: Sender,
    authority: String,
    /// Where the page is from; none for a program.
    origin: Option<&'static str>,
    /// The session token, if it has one.
    pub token: String,
}

impl fmt::Debug for Page {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "page of {:?}", self.origin)
    }
}

impl Page {
    /// Connects.
    #[track_caller]
    pub fn open(server: &Server, version: Version, origin: Option<&'static str>) -> Self {
        let sender = soon(async {
            match version {
                Version::Http1 => {
                    let stream = TokioIo::new(shake(server, b"http/1.1").await);
                    let (sender, connection) = http1::handshake(stream).await.expect("a connection begins");
                    tokio::spawn(connection);
                    Sender::Http1(sender)
                }
                Version::Http2 => {
                    let stream = TokioIo::new(shake(server, b"h2").await);
                    let begun = http2::handshake(TokioExecutor::new(), stream).await;
                    let (sender, connection) = begun.expect("a connection begins");
                    tokio::spawn(connection);
                    Sender::Http2(sender)
                }
            }
        });
        Self { sender, authority: format!("localhost:{}", server.client.port()), origin, token: String::new() }
    }

    /// Sends a request; gives the answer's head, with the body to come.
    #[track_caller]
    pub fn send(
        &mut self,
        method: Method,
        path: &str,
        headers: &[(HeaderName, &str)],
        body: Bytes,
    ) -> Response<Incoming> {
        let origin = self.origin.map(|origin| (header::ORIGIN, origin));
        let headers = headers.iter().cloned().chain(origin);
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        for (name, value) in headers {
            request.headers_mut().insert(name, HeaderValue::from_str(value).expect("it fits a header"));
        }
        // What names the server stands in the path of HTTP/2, and in a header of HTTP/1.1.
        let (authority, uri) = (&self.authority, format!("https://{}{path}", self.authority));
        match &mut self.sender {
            Sender::Http1(sender) => {
                request.headers_mut().insert(header::HOST, authority.parse().expect("it fits a header"));
                *request.uri_mut() = path.parse().expect("it is a path");
                soon(async {
                    sender.ready().await.expect("the connection stands");
                    sender.send_request(request).await
                })
            }
            Sender::Http2(sender) => {
                *request.uri_mut() = uri.parse().expect("it is a URI");
                soon(sender.send_request(request))
            }
        }
        .expect("the server answers")
    }

    /// Makes a call.
    #[track_caller]
    pub fn call(&mut self, path: &str, message: &impl Message) -> Response<Incoming> {
        let bearer = format!("Bearer {}", self.token);
        let headers = [
            (header::CONTENT_TYPE, WEB),
            (HeaderName::from_static("x-grpc-web"), "1"),
            (header::AUTHORIZATION, bearer.as_str()),
        ];
        let with_token = if self.token.is_empty() { &headers[..2] } else { &headers[..] };
        self.send(Method::POST, path, with_token, frame(message))
    }

    /// Asks as a browser does before a page's first call.
    #[track_caller]
    pub fn preflight(&mut self, path: &str) -> Response<Incoming> {
        let headers = [
            (header::ACCESS_CONTROL_REQUEST_METHOD, "POST"),
            (header::ACCESS_CONTROL_REQUEST_HEADERS, "authorization,content-type,x-grpc-web"),
        ];
        self.send(Method::OPTIONS, path, &headers, Bytes::new())
    }
}

/// A message in its frame.
pub fn frame(message: &impl Message) -> Bytes {
    let mut frame = BytesMut::new();
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.encoded_len()).expect("it is short"));
    message.encode(&mut frame).expect("a buffer grows");
    frame.freeze()
}

/// The headers by which a browser lets a page read an answer, or ask.
pub fn cors<T>(response: &Response<T>) -> Vec<String> {
    let names = response.headers().keys().map(HeaderName::to_string);
    names.filter(|name| name.starts_with("access-control-")).collect()
}

/// An answer's body, read one frame at a time.
#[derive(Debug)]
pub struct Frames {
    body: Incoming,
    read: BytesMut,
    /// The status that stood in the head, where there is no message.
    early: Option<Status>,
}

impl Frames {
    /// Of an answer that must be gRPC-Web.
    #[track_caller]
    pub fn of(response: Response<Incoming>) -> Self {
        let (head, body) = response.into_parts();
        assert_eq!(
            (head.status, head.headers.get(header::CONTENT_TYPE)),
            (StatusCode::OK, Some(&HeaderValue::from_static(WEB)))
        );
        Self { body, read: BytesMut::new(), early: Status::from_header_map(&head.headers) }
    }

    /// Waits for the next message; a call that is over gives its status instead.
    #[track_caller]
    pub fn next<M: Message + Default>(&mut self) -> Result<M, Status> {
        if let Some(status) = self.early.take() {
            return Err(status);
        }
        loop {
            if let Some((kind, content)) = self.take() {
                return match kind {
                    0 => Ok(M::decode(content).expect("it is a message")),
                    TRAILERS => Err(trailers(&content)),
                    kind => panic!("a frame of kind {kind}"),
                };
            }
            let more = soon(self.body.frame()).expect("trailers come before the end").expect("the connection stands");
            self.read.put(more.into_data().expect("nothing follows the body"));
        }
    }

    fn take(&mut self) -> Option<(u8, Bytes)> {
        let length = u32::from_be_bytes(self.read.get(1..5)?.try_into().expect("it has four bytes")) as usize;
        self.read.get(5..5 + length)?;
        let kind = self.read.get_u8();
        self.read.advance(4);
        Some((kind, self.read.split_to(length).freeze()))
    }

    /// Reads a whole answer of one message.
    #[track_caller]
    pub fn only<M: Message + Default>(mut self) -> Result<M, Status> {
        let message = self.next()?;
        match self.next::<M>() {
            Err(status) if status.code() == Code::Ok => Ok(message),
            Err(status) => Err(status),
            Ok(_) => panic!("there is one message"),
        }
    }
}

/// The status in a frame of trailers: lines as of HTTP/1.1 headers.
fn trailers(content: &[u8]) -> Status {
    let text = std::str::from_utf8(content).expect("trailers are text");
    let lines = text.lines().map(|line| line.split_once(':').expect("a name and a value"));
    let headers: HeaderMap = lines
        .map(|(name, value)| {
            let value = HeaderValue::from_str(value.trim_start()).expect("it is a value");
            (name.parse::<HeaderName>().expect("it is a name"), value)
        })
        .collect();
    Status::from_header_map(&headers).expect("trailers have a status")
}
