//! `OperatorService`: invites, accounts, peers and who may be one, and why a user is shown.
//!
//! Whoever reaches the socket is the operator; no token is asked for.

use socp::{
    input::Request as Ask,
    operator::v1::{
        AdmitRequest, AdmitResponse, CreateInviteRequest, CreateInviteResponse, ExplainRequest, ExplainResponse,
        ListAccountsRequest, ListAccountsResponse, ListPeersRequest, ListPeersResponse, RevokeAdmissionRequest,
        RevokeAdmissionResponse, SetBlockedRequest, SetBlockedResponse, SetDisabledRequest, SetDisabledResponse,
        operator_service_server::OperatorService,
    },
    output::Answer,
};
use tonic::{Request, Response, Status};

use super::refused;
use crate::{driver::Handle, random};

/// The service.
pub(super) struct Operator {
    handle: Handle,
}

impl Operator {
    pub(super) fn new(handle: Handle) -> Self {
        Self { handle }
    }
}

#[tonic::async_trait]
impl OperatorService for Operator {
    async fn create_invite(&self, _: Request<CreateInviteRequest>) -> Result<Response<CreateInviteResponse>, Status> {
        let invite = random::invite();
        match self.handle.call(Ask::CreateInvite { invite: invite.clone() }).await {
            Ok(Answer::InviteCreated) => Ok(Response::new(CreateInviteResponse { invite })),
            other => Err(refused(other)),
        }
    }

    async fn list_accounts(&self, _: Request<ListAccountsRequest>) -> Result<Response<ListAccountsResponse>, Status> {
        match self.handle.call(Ask::ListAccounts).await {
            Ok(Answer::Accounts(response)) => Ok(Response::new(response)),
            other => Err(refused(other)),
        }
    }

    async fn set_disabled(
        &self,
        request: Request<SetDisabledRequest>,
    ) -> Result<Response<SetDisabledResponse>, Status> {
        let SetDisabledRequest { name, disabled } = request.into_inner();
        match self.handle.call(Ask::SetDisabled { user: name, disabled }).await {
            Ok(Answer::DisabledSet) => Ok(Response::new(SetDisabledResponse {})),
            other => Err(refused(other)),
        }
    }

    async fn list_peers(&self, _: Request<ListPeersRequest>) -> Result<Response<ListPeersResponse>, Status> {
        match self.handle.call(Ask::ListPeers).await {
            Ok(Answer::Peers(response)) => Ok(Response::new(response)),
            other => Err(refused(other)),
        }
    }

    async fn explain(&self, request: Request<ExplainRequest>) -> Result<Response<ExplainResponse>, Status> {
        match self.handle.call(Ask::Explain { user: request.into_inner().user }).await {
            Ok(Answer::Explained(response)) => Ok(Response::new(*response)),
            other => Err(refused(other)),
        }
    }

    async fn admit(&self, request: Request<AdmitRequest>) -> Result<Response<AdmitResponse>, Status> {
        let AdmitRequest { name, server_id, days } = request.into_inner();
        match self.handle.call(Ask::Admit { name, server_id, days }).await {
            Ok(Answer::AdmissionMade(response)) => Ok(Response::new(response)),
            other => Err(refused(other)),
        }
    }

    async fn revoke_admission(
        &self,
        request: Request<RevokeAdmissionRequest>,
    ) -> Result<Response<RevokeAdmissionResponse>, Status> {
        match self.handle.call(Ask::RevokeAdmission { server_id: request.into_inner().server_id }).await {
            Ok(Answer::AdmissionRevoked) => Ok(Response::new(RevokeAdmissionResponse {})),
            other => Err(refused(other)),
        }
    }

    async fn set_blocked(&self, request: Request<SetBlockedRequest>) -> Result<Response<SetBlockedResponse>, Status> {
        let SetBlockedRequest { server, blocked } = request.into_inner();
        match self.handle.call(Ask::SetBlocked { server, is_blocked: blocked }).await {
            Ok(Answer::BlockedSet(response)) => Ok(Response::new(response)),
            other => Err(refused(other)),
        }
    }
}
