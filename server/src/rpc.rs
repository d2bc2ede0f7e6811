//! The gRPC services: they translate and nothing else.
//!
//! A request becomes a [`Request`](socp::input::Request) for the node with what only the shell has (the token's hash, fresh
//! random bytes), and the node's answer becomes a response. Nothing about the protocol is decided here. The same
//! routes serve TCP and HTTP/3; federation is not among them.

mod account;
mod details;
mod directory;
mod file;
mod gate;
mod live;
mod message;
mod operator;

use std::sync::Arc;

use socp::{
    id::{ServerId, TokenHash, hex},
    name::ServerName,
    operator::v1::operator_service_server::OperatorServiceServer,
    output::Answer,
    rejection::Rejection,
    v1::{
        RegistrationPolicy, account_service_server::AccountServiceServer, file_service_server::FileServiceServer,
        message_service_server::MessageServiceServer,
    },
};
use tonic::{Status, metadata::MetadataMap, service::Routes};
use tower::util::MapResponseLayer;

use crate::{
    driver::Handle,
    files::Files,
    hub::Hub,
    limits::{ACCOUNT_REQUEST_BYTES_MAX, FILE_REQUEST_BYTES_MAX, MESSAGE_REQUEST_BYTES_MAX},
    random, status,
};

/// What `GetServerInfo` tells.
#[derive(Clone, Debug)]
pub struct ServerFacts {
    /// The server's own name.
    pub name: ServerName,
    /// Its id.
    pub id: ServerId,
    /// The raw Ed25519 public key of its identity.
    pub identity_key: [u8; 32],
    /// Encoded `CertificateStatement` about the certificate that clients see.
    pub certificate_statement: Vec<u8>,
    /// Signature of the identity key over it.
    pub certificate_signature: [u8; 64],
    /// Who may register.
    pub registration: RegistrationPolicy,
}

/// The four client services, for TCP and HTTP/3 alike. Reflection and health are to be added by the caller.
pub fn routes(handle: Handle, hub: Hub, files: Files, facts: Arc<ServerFacts>) -> Routes {
    let account = AccountServiceServer::new(account::Account::new(handle.clone(), facts));
    let message = MessageServiceServer::new(message::Message::new(handle.clone()));
    let message = message.max_decoding_message_size(MESSAGE_REQUEST_BYTES_MAX);
    let file = FileServiceServer::new(file::FileCalls::new(handle.clone(), files));
    let file = file.max_decoding_message_size(FILE_REQUEST_BYTES_MAX);
    let routes = Routes::new(account.max_decoding_message_size(ACCOUNT_REQUEST_BYTES_MAX))
        .add_service(directory::Directory::new(handle.clone(), hub))
        .add_service(gate::Gate::new(message, handle.clone()))
        .add_service(gate::Gate::new(file, handle.clone()));
    let routes = routes.into_axum_router().layer(MapResponseLayer::new(details::complete));
    routes.layer(live::LiveLayer(Arc::clone(handle.counters()))).into()
}

/// The operator's service, for the Unix socket in the data folder only.
pub fn operator_routes(handle: Handle) -> Routes {
    Routes::new(OperatorServiceServer::new(operator::Operator::new(handle)))
}

/// The hash of the bearer token, or of the empty text where there is none, which is nobody's.
fn token(metadata: &MetadataMap) -> TokenHash {
    let value = metadata.get("authorization").and_then(|value| value.to_str().ok()).unwrap_or_default();
    let bearer = value.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    TokenHash::of(bearer.map_or("", |(_, token)| token.trim()))
}

/// A fresh secret in text form: 64 hexadecimal digits.
fn secret() -> String {
    hex(&random::bytes::<32>())
}

/// The status for an answer that is not the one hoped for.
fn refused(answer: Result<Answer, Rejection>) -> Status {
    match answer {
        Err(rejection) => status::of(&rejection),
        Ok(_) => {
            tracing::error!("the node answered another request than it was asked; this is a bug");
            status::of(&status::server_failed())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(header: Option<&'static str>) -> TokenHash {
        let mut metadata = MetadataMap::new();
        if let Some(header) = header {
            metadata.insert("authorization", header.parse().unwrap());
        }
        token(&metadata)
    }

    #[test]
    fn a_token_is_read_from_the_bearer_header_and_anything_else_is_no_token() {
        assert_eq!(hash(Some("Bearer abc")), TokenHash::of("abc"));
        assert_eq!(hash(Some("bearer abc")), TokenHash::of("abc"));
        for other in [None, Some(""), Some("abc"), Some("Basic abc"), Some("Bearer"), Some("Bearer ")] {
            assert_eq!(hash(other), TokenHash::of(""), "{other:?}");
        }
    }

    #[test]
    fn a_secret_has_256_bits_and_is_never_the_same() {
        let (one, other) = (secret(), secret());
        assert_eq!(one.len(), 64);
        assert_ne!(one, other);
    }
}
