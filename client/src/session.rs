//! Sessions: an account logs in with its key, keeps the token, and makes calls with it.
//!
//! The token is cached in the profile, so that commands which need no private key ask for no passphrase. One that is
//! not good any more is replaced by logging in again.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use socp::{
    id::KeyFingerprint,
    signed::Label,
    statement::encode_login,
    v1::{
        CreateChallengeRequest, ListSessionsRequest, LogInRequest, Reason,
        account_service_client::AccountServiceClient, directory_service_client::DirectoryServiceClient,
        file_service_client::FileServiceClient, message_service_client::MessageServiceClient,
    },
};
use tonic::{Request, metadata::AsciiMetadataValue};
use zeroize::Zeroizing;

use crate::{
    connection::{self, Connection, Target},
    failure::Failure,
    keystore, passphrase, private_file,
    private_key::PrivateKey,
    profile::Profile,
    transport::{Choice, Transport, TransportKind},
    trust::Trust,
};

/// How long a call without a stream may take: longer than a server waits for another.
const CALL_TIME_MAX: Duration = Duration::from_secs(15);

/// A profile in use: its key, opened when first needed, its pins and its token.
pub struct Account {
    /// Who and where.
    pub profile: Profile,
    /// Whose keys are known.
    pub trust: Trust,
    choice: Choice,
    passphrase: passphrase::Source,
    key: Mutex<Option<Arc<PrivateKey>>>,
    /// Those that were in force before, for what is in the inbox under them.
    other_keys: Mutex<Vec<Arc<PrivateKey>>>,
    token: Mutex<Option<Zeroizing<String>>>,
    /// The connection made last.
    transport: Mutex<Option<Transport>>,
    /// Whether the token is the profile's, rather than one of this process alone.
    shares_token: bool,
}

/// An open session over one connection. Cheap to clone.
#[derive(Clone)]
pub struct Session {
    /// The connection.
    pub transport: Transport,
    bearer: AsciiMetadataValue,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Account {
    /// Opens what a profile holds. With `new_session` the cached token is neither used nor replaced.
    pub fn open(
        profile: Profile,
        choice: Choice,
        passphrase: passphrase::Source,
        new_session: bool,
    ) -> Result<Arc<Self>, Failure> {
        let token = if new_session { None } else { private_file::read(&profile.file("token"))? };
        Ok(Arc::new(Self {
            trust: Trust::open(&profile)?,
            profile,
            choice,
            passphrase,
            key: Mutex::default(),
            other_keys: Mutex::default(),
            token: Mutex::new(token.map(|token| Zeroizing::new(token.trim().to_owned()))),
            transport: Mutex::default(),
            shares_token: !new_session,
        }))
    }

    /// Puts in a key that is open already.
    pub fn set_key(&self, key: Arc<PrivateKey>) {
        *lock(&self.key) = Some(key);
    }

    /// The private key; asks for the passphrase the first time, away from the runtime's threads.
    pub async fn key(self: &Arc<Self>) -> Result<Arc<PrivateKey>, Failure> {
        if let Some(key) = &*lock(&self.key) {
            return Ok(key.clone());
        }
        let account = self.clone();
        let opened = tokio::task::spawn_blocking(move || {
            let profile = &account.profile;
            keystore::read_all(&profile.key_file(), &profile.other_key_files(), &account.passphrase)
        });
        let (key, others) = opened.await.map_err(|_| Failure::failed("opening the key was interrupted"))??;
        if key.public().fingerprint() != self.profile.key_fingerprint {
            return Err(Failure::failed(format!(
                "the key of profile `{}` is not the one that it names",
                self.profile.name
            ))
            .hint("restore the file from a backup"));
        }
        let key = Arc::new(key);
        *lock(&self.other_keys) = others.into_iter().map(Arc::new).collect();
        self.set_key(key.clone());
        Ok(key)
    }

    /// The own keys that are not in force; none before the key in force was opened.
    pub fn other_keys(&self) -> Vec<Arc<PrivateKey>> {
        lock(&self.other_keys).clone()
    }

    /// The own key with this fingerprint, in force or before; none before the key in force was opened.
    pub fn own_key(&self, fingerprint: KeyFingerprint) -> Option<Arc<PrivateKey>> {
        let keys = lock(&self.key).iter().cloned().chain(lock(&self.other_keys).iter().cloned()).collect::<Vec<_>>();
        keys.into_iter().find(|key| key.public().fingerprint() == fingerprint)
    }

    /// Connects to the server of the profile, and remembers which transport did.
    pub async fn connect(&self) -> Result<Connection, Failure> {
        let path = self.profile.file("transport");
        let last = private_file::read(&path)?;
        let first = match last.as_deref() {
            Some("tcp") => TransportKind::Tcp,
            _ => TransportKind::H3,
        };
        let target = Target {
            server: self.profile.server.clone(),
            server_id: Some(self.profile.server_id),
            ca: self.profile.ca.clone(),
            choice: self.choice,
            first,
        };
        let connection = connection::connect(&target).await?;
        *lock(&self.transport) = Some(connection.transport.clone());
        let now = connection.transport.kind().to_string();
        if last.as_deref() != Some(&now) {
            private_file::write(&path, now.as_bytes())?;
        }
        Ok(connection)
    }

    /// Leaves the connection made last, if there is one.
    pub async fn leave(&self) {
        let transport = lock(&self.transport).take();
        if let Some(transport) = transport {
            transport.leave().await;
        }
    }

    /// Connects and makes sure of a good token, logging in if there is none.
    pub async fn session(self: &Arc<Self>) -> Result<Session, Failure> {
        let transport = self.connect().await?.transport;
        let token = lock(&self.token).clone();
        if let Some(token) = token {
            let session = Session::new(transport.clone(), &token)?;
            match session.accounts().list_sessions(session.request(ListSessionsRequest {})).await {
                Ok(_) => return Ok(session),
                Err(status) => {
                    let failure = Failure::from(status);
                    if !failure.is(Reason::TokenInvalid) {
                        return Err(failure);
                    }
                }
            }
        }
        let token = self.log_in(&transport).await?;
        Session::new(transport, &token)
    }

    /// Proves possession of the key, and keeps the new token.
    pub async fn log_in(self: &Arc<Self>, transport: &Transport) -> Result<Zeroizing<String>, Failure> {
        let key = self.key().await?; // Before the challenge, whose nonce is good for a minute.
        let mut accounts = AccountServiceClient::new(transport.clone());
        let user = self.profile.user.to_string();
        let challenge = accounts.create_challenge(timed(CreateChallengeRequest { user })).await?.into_inner();
        let nonce: [u8; 32] =
            challenge.nonce[..].try_into().map_err(|_| Failure::failed("the server's challenge is malformed"))?;
        let statement = encode_login(self.profile.server_id, &self.profile.user, &nonce);
        let signature = key.sign(Label::Login, &statement)?;
        let request = LogInRequest { statement: statement.into(), signature, device: self.profile.name.clone() };
        let token = Zeroizing::new(accounts.log_in(timed(request)).await?.into_inner().token);
        if self.shares_token {
            private_file::write(&self.profile.file("token"), token.as_bytes())?;
        }
        *lock(&self.token) = Some(token.clone());
        Ok(token)
    }

    /// The token in use; `None` before the first login.
    pub fn token(&self) -> Option<Zeroizing<String>> {
        lock(&self.token).clone()
    }

    /// Drops the token, after the session ended.
    pub fn forget_token(&self) -> Result<(), Failure> {
        *lock(&self.token) = None;
        if self.shares_token { private_file::remove(&self.profile.file("token")) } else { Ok(()) }
    }

    /// Whether the session belongs to this process alone and is to end with it.
    pub fn has_own_session(&self) -> bool {
        !self.shares_token
    }
}

/// A call with the usual time limit.
pub fn timed<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(CALL_TIME_MAX);
    request
}

/// The value of the header `authorization` that stands for a session.
pub fn bearer(token: &str) -> Result<AsciiMetadataValue, Failure> {
    let mut bearer: AsciiMetadataValue = Zeroizing::new(format!("Bearer {token}"))
        .parse()
        .map_err(|_| Failure::failed("the token is not text that can be sent").hint("`socp logout` drops it"))?;
    bearer.set_sensitive(true);
    Ok(bearer)
}

impl Session {
    /// The session that has this token.
    pub fn new(transport: Transport, token: &str) -> Result<Self, Failure> {
        Ok(Self { transport, bearer: bearer(token)? })
    }

    /// A call in this session, with the usual time limit.
    pub fn request<T>(&self, message: T) -> Request<T> {
        self.authorized(timed(message))
    }

    /// A call in this session whose stream has no end.
    pub fn streaming_request<T>(&self, message: T) -> Request<T> {
        self.authorized(Request::new(message))
    }

    /// A call that is made in this session.
    pub fn authorized<T>(&self, mut request: Request<T>) -> Request<T> {
        request.metadata_mut().insert("authorization", self.bearer.clone());
        request
    }

    /// Calls about the account.
    pub fn accounts(&self) -> AccountServiceClient<Transport> {
        AccountServiceClient::new(self.transport.clone())
    }

    /// Calls about the directory.
    pub fn directory(&self) -> DirectoryServiceClient<Transport> {
        DirectoryServiceClient::new(self.transport.clone())
    }

    /// Calls about files.
    pub fn files(&self) -> FileServiceClient<Transport> {
        FileServiceClient::new(self.transport.clone())
    }

    /// Calls about messages.
    pub fn messages(&self) -> MessageServiceClient<Transport> {
        MessageServiceClient::new(self.transport.clone())
    }
}
