//! What an error of HTTP/3 or QUIC means in gRPC (grpc proposal G2, and gRPC's table of HTTP status codes).
//!
//! The rule above all: whatever ends a connection is `UNAVAILABLE`, so that callers retry it the same way everywhere.

use h3::error::{Code as H3, StreamError};
use http::{HeaderMap, StatusCode};
use tonic::{Code, Status};

/// What a caller is told when its call's stream fails.
pub(crate) fn of_response(error: &StreamError) -> Status {
    match error {
        StreamError::ConnectionError { .. } => lost(error),
        StreamError::RemoteClosing { .. } => Status::unavailable("the server is closing the connection"),
        StreamError::RemoteTerminate { code, .. } => of_code(*code),
        StreamError::HeaderTooBig { actual_size, max_size, .. } => {
            Status::resource_exhausted(format!("headers of {actual_size} bytes, where {max_size} are allowed"))
        }
        StreamError::StreamError { .. } => Status::internal(error.to_string()),
        // What quinn has for a stream that this side has reset itself, and h3's future variants.
        _ => Status::internal(format!("the stream failed: {error}")),
    }
}

/// What a handler is told when the request it reads fails.
///
/// Never `CANCELLED`: tonic takes that in a request for a clean end, and a cut request would look whole.
pub(crate) fn of_request(error: &StreamError) -> Status {
    match error {
        StreamError::RemoteTerminate { code, .. } if *code == H3::H3_EXCESSIVE_LOAD => {
            Status::resource_exhausted("the request has a frame above the limit")
        }
        StreamError::RemoteTerminate { .. } => Status::aborted("the client gave up the request before its end"),
        error => of_response(error),
    }
}

/// `UNAVAILABLE`, naming what ended the connection.
pub(crate) fn lost(why: &dyn std::fmt::Display) -> Status {
    Status::unavailable(format!("the connection is lost: {why}"))
}

fn of_code(code: H3) -> Status {
    let message = format!("the server ended the stream with {code}");
    match code {
        H3::H3_REQUEST_REJECTED => Status::unavailable(message),
        H3::H3_REQUEST_CANCELLED => Status::cancelled(message),
        H3::H3_EXCESSIVE_LOAD => Status::resource_exhausted(message),
        H3::H3_VERSION_FALLBACK => Status::unimplemented(message),
        _ => Status::internal(message),
    }
}

/// The failure that a response head tells by its HTTP status alone, without a gRPC status.
pub(crate) fn of_http(status: StatusCode, headers: &HeaderMap) -> Option<Status> {
    if status == StatusCode::OK || headers.contains_key(Status::GRPC_STATUS) {
        return None;
    }
    let code = match status {
        StatusCode::BAD_REQUEST => Code::Internal,
        StatusCode::UNAUTHORIZED => Code::Unauthenticated,
        StatusCode::FORBIDDEN => Code::PermissionDenied,
        StatusCode::NOT_FOUND => Code::Unimplemented,
        StatusCode::TOO_MANY_REQUESTS
        | StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT => Code::Unavailable,
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => Code::ResourceExhausted,
        _ => Code::Unknown,
    };
    Some(Status::new(code, format!("HTTP status {status}")))
}

/// The trailers that carry a status.
pub(crate) fn trailers(status: &Status) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    if status.add_header(&mut trailers).is_err() {
        // Only a message that fits no header does this, and the code alone always fits.
        trailers.clear();
        trailers.insert(Status::GRPC_STATUS, http::HeaderValue::from(i32::from(status.code())));
    }
    trailers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_http_failure_without_a_grpc_status_is_a_grpc_failure() {
        let empty = HeaderMap::new();
        assert!(of_http(StatusCode::OK, &empty).is_none());
        let unavailable = of_http(StatusCode::SERVICE_UNAVAILABLE, &empty).map(|s| s.code());
        assert_eq!(unavailable, Some(Code::Unavailable));
        let odd = of_http(StatusCode::IM_A_TEAPOT, &empty).map(|s| s.code());
        assert_eq!(odd, Some(Code::Unknown));
        let told = trailers(&Status::not_found("x"));
        assert!(of_http(StatusCode::NOT_FOUND, &told).is_none());
    }

    #[test]
    fn a_request_that_was_rejected_is_unavailable_and_one_that_was_cancelled_is_not() {
        assert_eq!(of_code(H3::H3_REQUEST_REJECTED).code(), Code::Unavailable);
        assert_eq!(of_code(H3::H3_REQUEST_CANCELLED).code(), Code::Cancelled);
        assert_eq!(of_code(H3::H3_NO_ERROR).code(), Code::Internal);
    }
}
