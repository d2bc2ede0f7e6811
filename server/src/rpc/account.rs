//! `AccountService`: server info, registration, login, sessions. Passwords there are none; secrets made here are tokens
//! and nonces, which no log sees.

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use socp::{
    PROTOCOL_VERSION,
    id::{SessionId, TokenHash, ed25519_spki},
    input::Request as Ask,
    output::Answer,
    v1::{
        CreateChallengeRequest, CreateChallengeResponse, GetServerInfoRequest, GetServerInfoResponse,
        ListSessionsRequest, ListSessionsResponse, LogInRequest, LogInResponse, LogOutRequest, LogOutResponse,
        MoveUserRequest, MoveUserResponse, RegisterRequest, RegisterResponse, RotateKeyRequest, RotateKeyResponse,
        account_service_server::AccountService,
    },
};
use tonic::{Request, Response, Status};

use super::{ServerFacts, refused, secret, token};
use crate::{driver::Handle, random};

/// The service.
pub(super) struct Account {
    handle: Handle,
    facts: Arc<ServerFacts>,
}

impl Account {
    pub(super) fn new(handle: Handle, facts: Arc<ServerFacts>) -> Self {
        Self { handle, facts }
    }
}

#[tonic::async_trait]
impl AccountService for Account {
    async fn get_server_info(
        &self,
        _: Request<GetServerInfoRequest>,
    ) -> Result<Response<GetServerInfoResponse>, Status> {
        let facts = &*self.facts;
        let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(Response::new(GetServerInfoResponse {
            name: facts.name.to_string(),
            server_id: facts.id.to_string(),
            identity_key: ed25519_spki(&facts.identity_key).to_vec().into(),
            certificate_statement: facts.certificate_statement.clone().into(),
            certificate_signature: facts.certificate_signature.to_vec().into(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            protocol_version: format!("{}.{}", PROTOCOL_VERSION.0, PROTOCOL_VERSION.1),
            registration: facts.registration.into(),
            time_unix_ms: i64::try_from(time.as_millis()).unwrap_or(i64::MAX),
        }))
    }

    async fn register(&self, request: Request<RegisterRequest>) -> Result<Response<RegisterResponse>, Status> {
        let RegisterRequest { key_statement, invite, display_name } = request.into_inner();
        let statement = key_statement.unwrap_or_default();
        match self.handle.call(Ask::Register { statement, invite, display_name }).await {
            Ok(Answer::Registered(response)) => Ok(Response::new(response)),
            other => Err(refused(other)),
        }
    }

    async fn create_challenge(
        &self,
        request: Request<CreateChallengeRequest>,
    ) -> Result<Response<CreateChallengeResponse>, Status> {
        let ask = Ask::CreateChallenge { user: request.into_inner().user, nonce: random::bytes() };
        match self.handle.call(ask).await {
            Ok(Answer::Challenge(response)) => Ok(Response::new(response)),
            other => Err(refused(other)),
        }
    }

    async fn log_in(&self, request: Request<LogInRequest>) -> Result<Response<LogInResponse>, Status> {
        let LogInRequest { statement, signature, device } = request.into_inner();
        let secret = secret();
        let session = SessionId::from_bytes(&random::bytes::<16>()).expect("a session id has 16 bytes");
        let ask = Ask::LogIn { statement, signature, device, token: TokenHash::of(&secret), session };
        match self.handle.call(ask).await {
            Ok(Answer::LoggedIn { user, session }) => {
                Ok(Response::new(LogInResponse { token: secret, session_id: session.to_string(), user }))
            }
            other => Err(refused(other)),
        }
    }

    async fn log_out(&self, request: Request<LogOutRequest>) -> Result<Response<LogOutResponse>, Status> {
        let token = token(request.metadata());
        match self.handle.call(Ask::LogOut { token, session: request.into_inner().session_id }).await {
            Ok(Answer::LoggedOut) => Ok(Response::new(LogOutResponse {})),
            other => Err(refused(other)),
        }
    }

    async fn list_sessions(
        &self,
        request: Request<ListSessionsRequest>,
    ) -> Result<Response<ListSessionsResponse>, Status> {
        match self.handle.call(Ask::ListSessions { token: token(request.metadata()) }).await {
            Ok(Answer::Sessions(response)) => Ok(Response::new(response)),
            other => Err(refused(other)),
        }
    }

    async fn rotate_key(&self, request: Request<RotateKeyRequest>) -> Result<Response<RotateKeyResponse>, Status> {
        let token = token(request.metadata());
        let statement = request.into_inner().key_statement.unwrap_or_default();
        match self.handle.call(Ask::RotateKey { token, statement }).await {
            Ok(Answer::KeyRotated(response)) => Ok(Response::new(response)),
            other => Err(refused(other)),
        }
    }

    async fn move_user(&self, request: Request<MoveUserRequest>) -> Result<Response<MoveUserResponse>, Status> {
        let token = token(request.metadata());
        let moved = request.into_inner().moved.unwrap_or_default();
        match self.handle.call(Ask::MoveUser { token, moved }).await {
            Ok(Answer::UserMoved) => Ok(Response::new(MoveUserResponse {})),
            other => Err(refused(other)),
        }
    }
}
