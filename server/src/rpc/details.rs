//! Error details for the statuses that the gRPC library makes by itself: a call that is unknown, a request that is too
//! large or cannot be read. Their senders get the same typed reasons as everybody else.

use http::Response;
use socp::v1::Reason;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::status;

/// Adds what is missing to a response that is nothing but a status. Others pass as they are.
pub(super) fn complete<B>(mut response: Response<B>) -> Response<B> {
    let headers = response.headers_mut();
    if headers.contains_key("grpc-status")
        && !headers.contains_key("grpc-status-details-bin")
        && let Some(status) = Status::from_header_map(headers).as_ref().and_then(typed)
    {
        let written = status.add_header(headers);
        debug_assert!(written.is_ok(), "our own words can be written into headers");
    }
    response
}

fn typed(plain: &Status) -> Option<Status> {
    match plain.code() {
        Code::Unimplemented => {
            let details = ErrorDetails::with_error_info(name(Reason::UnknownType), status::DOMAIN, []);
            Some(Status::with_error_details(Code::Unimplemented, "there is no such call here", details))
        }
        _ => status::unreadable(plain).map(|rejection| status::of(&rejection)),
    }
}

fn name(reason: Reason) -> &'static str {
    socp::rejection::name(reason)
}

#[cfg(test)]
mod tests {
    use socp::rejection::Rejection;

    use super::*;

    /// What is told when the library's status is this one: code and reason.
    fn told(plain: &Status) -> (Code, Option<String>) {
        let response = complete(plain.clone().into_http::<()>());
        let status = Status::from_header_map(response.headers()).unwrap();
        let reason = status.get_error_details().error_info().map(|info| info.reason.clone());
        (status.code(), reason)
    }

    #[test]
    fn a_status_of_the_library_gets_a_reason_and_any_other_is_left_alone() {
        let too_large = "Error, decoded message length too large: found 9 bytes, the limit is: 8 bytes";
        let reason = |reason: &str| Some(reason.to_owned());
        assert_eq!(told(&Status::unimplemented("")), (Code::Unimplemented, reason("UNKNOWN_TYPE")));
        assert_eq!(told(&Status::out_of_range(too_large)), (Code::ResourceExhausted, reason("TOO_LARGE")));
        let unreadable = Status::internal("failed to decode Protobuf message: invalid wire type");
        assert_eq!(told(&unreadable), (Code::InvalidArgument, reason("UNKNOWN_TYPE")));
        assert_eq!(told(&Status::internal("other")), (Code::Internal, None));
        let own = status::of(&Rejection::new(Reason::RevisionCompacted, "message length too large, the limit is: 1"));
        assert_eq!(told(&own), (Code::OutOfRange, reason("REVISION_COMPACTED")));
    }
}
