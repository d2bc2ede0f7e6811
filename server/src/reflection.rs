//! Server reflection, v1 and v1alpha, of the client contract and health: what grpcurl and its like read a server by.
//!
//! Federation and the operator's contract are not in it: no client can call them. The details of a refusal are in it,
//! though no call names their type: without it no tool could show a reason.

use tonic::service::Routes;
use tonic_reflection::server::Builder;

use crate::limits::NAME_REQUEST_BYTES_MAX;

/// Adds both versions to client services. No token is asked for.
pub fn add_to(routes: Routes) -> Routes {
    let described = || {
        Builder::configure()
            .register_encoded_file_descriptor_set(socp::CLIENT_DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
    };
    let readable = "the descriptors come from the build and are complete";
    routes
        .add_service(described().build_v1().expect(readable).max_decoding_message_size(NAME_REQUEST_BYTES_MAX))
        .add_service(described().build_v1alpha().expect(readable).max_decoding_message_size(NAME_REQUEST_BYTES_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_descriptors_are_complete() {
        add_to(Routes::default());
    }
}
