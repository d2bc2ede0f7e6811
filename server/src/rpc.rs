//! The gRPC services: they translate and nothing else.

use std::sync::Arc;

use socp::{id::ServerId, name::ServerName, operator::v1 as operator_contract, v1::RegistrationPolicy};
use tonic::service::Routes;

use crate::{driver::Handle, hub::Hub};

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

/// The three client services, for TCP and HTTP/3 alike. Reflection and health are to be added by the caller.
pub fn routes(handle: Handle, hub: Hub, facts: Arc<ServerFacts>) -> Routes {
    let _ = (handle, hub, facts);
    todo!()
}

/// The operator's service, for the Unix socket in the data folder only.
pub fn operator_routes(handle: Handle) -> Routes {
    let _ = handle;
    let _: Option<operator_contract::CreateInviteRequest> = None;
    todo!()
}
