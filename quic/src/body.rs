//! The two bodies that tonic reads from: a request at the server, a response at the client.

use std::future::Future as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use h3::error::StreamError;
use http::HeaderMap;
use http_body::{Body, Frame};
use tokio::sync::Notify;
use tokio::time::Sleep;
use tonic::Status;

use crate::call::Held;
use crate::deadline::Late;
use crate::glue::RecvStream;
use crate::status;

/// The receive half of a request, as h3 has it.
pub(crate) type RequestHalf = h3::server::RequestStream<RecvStream, Bytes>;
/// The receive half of a response, as h3 has it.
pub(crate) type ResponseHalf = h3::client::RequestStream<RecvStream, Bytes>;

/// What both halves can do; h3 has two types without a trait.
trait Half {
    fn poll_bytes(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, StreamError>>;
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<HeaderMap>, StreamError>>;
}

macro_rules! half {
    ($half:ty) => {
        impl Half for $half {
            fn poll_bytes(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, StreamError>> {
                let data = ready!(self.poll_recv_data(cx))?;
                Poll::Ready(Ok(data.map(|mut data| data.copy_to_bytes(data.remaining()))))
            }

            fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<HeaderMap>, StreamError>> {
                self.poll_recv_trailers(cx)
            }
        }
    };
}

half!(RequestHalf);
half!(ResponseHalf);

/// One step of reading a half: data, then perhaps trailers, then the end.
struct Reader<H> {
    half: H,
    data_read: bool,
}

enum Step {
    Data(Bytes),
    Trailers(HeaderMap),
    End,
}

impl<H: Half> Reader<H> {
    fn poll_step(&mut self, cx: &mut Context<'_>) -> Poll<Result<Step, StreamError>> {
        if !self.data_read {
            if let Some(data) = ready!(self.half.poll_bytes(cx))? {
                return Poll::Ready(Ok(Step::Data(data)));
            }
            self.data_read = true;
        }
        Poll::Ready(Ok(match ready!(self.half.poll_end(cx))? {
            Some(trailers) => Step::Trailers(trailers),
            None => Step::End,
        }))
    }
}

/// A request's body, read by a handler. Dropping it tells the client to send no more.
pub(crate) struct RequestBody {
    reader: Option<Reader<RequestHalf>>,
    on_reset: Arc<Notify>,
}

impl RequestBody {
    pub(crate) fn new(half: RequestHalf, on_reset: Arc<Notify>) -> RequestBody {
        RequestBody { reader: Some(Reader { half, data_read: false }), on_reset }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let Some(reader) = &mut self.reader else {
            return Poll::Ready(None);
        };
        let outcome = ready!(reader.poll_step(cx));
        Poll::Ready(match outcome {
            Ok(Step::Data(data)) => Some(Ok(Frame::data(data))),
            Ok(Step::Trailers(trailers)) => {
                self.reader = None;
                Some(Ok(Frame::trailers(trailers)))
            }
            Ok(Step::End) => {
                self.reader = None;
                None
            }
            Err(error) => {
                self.reader = None;
                self.on_reset.notify_one();
                Some(Err(status::of_request(&error)))
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        self.reader.is_none()
    }
}

/// A response's body, read by a caller. Dropping it cancels the call; reading it to its end releases all that it holds.
pub(crate) struct ResponseBody {
    open: Option<Open>,
    deadline: Option<Pin<Box<Sleep>>>,
    /// The head had a gRPC status already, so none needs to follow.
    status_known: bool,
}

struct Open {
    reader: Reader<ResponseHalf>,
    _held: Held,
}

impl ResponseBody {
    pub(crate) fn new(
        half: ResponseHalf,
        held: Held,
        deadline: Option<tokio::time::Instant>,
        status_known: bool,
    ) -> ResponseBody {
        ResponseBody {
            open: Some(Open { reader: Reader { half, data_read: false }, _held: held }),
            deadline: deadline.map(|deadline| Box::pin(tokio::time::sleep_until(deadline))),
            status_known,
        }
    }

    fn end(&mut self) {
        self.open = None;
        self.deadline = None;
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        // Before the data, which may never have to be waited for.
        if let Some(deadline) = &mut self.deadline
            && deadline.as_mut().poll(cx).is_ready()
        {
            self.end();
            return Poll::Ready(Some(Err(Late.into())));
        }
        let Some(open) = &mut self.open else {
            return Poll::Ready(None);
        };
        let outcome = ready!(open.reader.poll_step(cx));
        Poll::Ready(match outcome {
            Ok(Step::Data(data)) => Some(Ok(Frame::data(data))),
            Ok(Step::Trailers(trailers)) => {
                self.end();
                Some(Ok(Frame::trailers(trailers)))
            }
            Ok(Step::End) => {
                self.end();
                match self.status_known {
                    true => None,
                    false => Some(Err(Status::internal("the response ended without a status"))),
                }
            }
            Err(error) => {
                self.end();
                Some(Err(status::of_response(&error)))
            }
        })
    }
}
