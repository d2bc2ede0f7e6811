//! The users of a run: one key for all of them, made once and kept, and sessions at the servers.
//!
//! Making an RSA-4096 key takes seconds, and what is measured does not depend on whose it is: registration allows one key for
//! many names.

use std::{
    env,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use http::Uri;
use prost::bytes::Bytes;
use rustls::pki_types::{CertificateDer, ServerName};
use socp::{
    id::ServerId,
    message::Address,
    name::UserName,
    signed::Label,
    statement::{KeyStatement, encode_login},
    v1::{
        CreateChallengeRequest, GetServerInfoRequest, LogInRequest, Reason, RegisterRequest, SignedKeyStatement,
        account_service_client::AccountServiceClient,
    },
};
use tonic::Request;

use crate::{
    certificate, connection,
    failure::Failure,
    introduction, keystore, passphrase, private_file,
    private_key::PrivateKey,
    sending::blocking,
    session::{Session, timed},
    transport::Transport,
};

/// Logins at once: each costs a signature here, so more would not be faster.
const LOGINS_AT_ONCE: usize = 16;

/// Users of one connection: a server takes 100 calls on one, and each user has one that stays and one that goes.
pub const USERS_PER_CONNECTION: usize = 48;

/// A server that is driven, and was introduced.
#[derive(Clone, Debug)]
pub struct Place {
    /// As it was said.
    pub server: String,
    /// Where that is.
    pub address: SocketAddr,
    /// Its id: the pin.
    pub id: ServerId,
    /// Its own name.
    pub name: String,
    /// The certificate that it proved to be its own.
    pub certificate: CertificateDer<'static>,
}

impl Place {
    /// Connects, and checks who is there.
    pub async fn find(server: &str, pin: ServerId) -> Result<Self, Failure> {
        let (host, port) = connection::host_and_port(server)?;
        let found = tokio::net::lookup_host((host, port)).await;
        let mut found: Vec<_> =
            found.map_err(|error| Failure::unreachable(format!("cannot find `{host}`: {error}")))?.collect();
        found.sort_by_key(SocketAddr::is_ipv6);
        let address = *found.first().ok_or_else(|| Failure::failed(format!("`{host}` has no address")))?;
        let (transport, certificate) = dial(server, address).await?;
        let info = AccountServiceClient::new(transport).get_server_info(timed(GetServerInfoRequest {})).await?;
        let introduction = introduction::check(info.get_ref(), &certificate, Some(pin))?;
        Ok(Self { server: server.to_owned(), address, id: pin, name: introduction.name, certificate })
    }

    /// Another connection to it.
    pub async fn connect(&self) -> Result<Transport, Failure> {
        let (transport, certificate) = dial(&self.server, self.address).await?;
        if certificate != self.certificate {
            return Err(Failure::failed(format!("`{}` shows another certificate than before", self.server)));
        }
        Ok(transport)
    }
}

async fn dial(server: &str, address: SocketAddr) -> Result<(Transport, CertificateDer<'static>), Failure> {
    let unusable = |_| Failure::failed(format!("`{server}` is not an address"));
    let origin: Uri = format!("https://{server}").parse().map_err(unusable)?;
    let name = ServerName::IpAddress(address.ip().into());
    Transport::dial_tcp(address, name, certificate::tls(None)?, origin).await
}

/// The folder in which the key is kept: `socp/bench` under the user's cache folder.
pub fn cache_folder() -> Result<PathBuf, Failure> {
    let cache = env::var_os("XDG_CACHE_HOME").filter(|value| !value.is_empty()).map(PathBuf::from);
    let dot_cache = || env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    cache.or_else(dot_cache).map(|folder| folder.join("socp/bench")).ok_or_else(|| {
        Failure::failed("cannot tell where the key of the test's users is kept").hint("set `XDG_CACHE_HOME`")
    })
}

/// Everybody's key, from the folder; made the first time.
pub async fn key(folder: &Path) -> Result<Arc<PrivateKey>, Failure> {
    let path = folder.join("key.pem");
    if path.exists() {
        return blocking(move || keystore::read(&path, &passphrase::Source::Nowhere)).await.map(Arc::new);
    }
    private_file::create_folder(folder)?;
    eprintln!("making an RSA key of 4096 bits for all users of this and later runs: `{}`", path.display());
    blocking(move || {
        let key = PrivateKey::generate()?;
        keystore::write(&path, &key, None)?;
        Ok(Arc::new(key))
    })
    .await
}

/// A user with a session.
#[derive(Clone)]
pub struct User {
    /// Who, and at which server.
    pub address: Address,
    /// The connection.
    pub transport: Transport,
    /// The session's token.
    pub token: String,
    /// The session as the client has it.
    pub session: Session,
}

impl User {
    fn new(home: ServerId, user: UserName, transport: Transport, token: String) -> Result<Self, Failure> {
        let session = Session::new(transport.clone(), &token)?;
        Ok(Self { address: Address { home, user }, transport, token, session })
    }

    /// A call in the session.
    pub fn request<T>(&self, message: T) -> Request<T> {
        self.session.streaming_request(message)
    }

    /// A call that is made in the session.
    pub fn authorized<T>(&self, request: Request<T>) -> Request<T> {
        self.session.authorized(request)
    }
}

/// Registers users, if need be, and logs them in; so many share a connection.
pub async fn log_in_all(
    place: &Place,
    names: Vec<String>,
    key: &Arc<PrivateKey>,
    per_connection: usize,
    done: impl Fn(),
) -> Result<Vec<User>, Failure> {
    let mut transports = Vec::new();
    for _ in 0..names.len().div_ceil(per_connection) {
        transports.push(place.connect().await?);
    }
    let logins = names.iter().enumerate().map(|(number, name)| {
        let transport = transports[number / per_connection].clone();
        let done = &done;
        async move {
            let user = log_in(place, transport, name, key).await;
            done();
            user
        }
    });
    stream::iter(logins).buffered(LOGINS_AT_ONCE).try_collect().await
}

/// Logs in a user who is registered.
pub async fn log_in_registered(
    place: &Place,
    transport: Transport,
    name: &str,
    key: &Arc<PrivateKey>,
) -> Result<User, Failure> {
    let user = UserName::parse(name)?;
    let token = prove(place, &transport, &user, key).await?;
    User::new(place.id, user, transport, token)
}

/// Registers a user, if need be, and logs in.
pub async fn log_in(place: &Place, transport: Transport, name: &str, key: &Arc<PrivateKey>) -> Result<User, Failure> {
    let user = UserName::parse(name)?;
    let token = match prove(place, &transport, &user, key).await {
        Ok(token) => token,
        Err(failure) if failure.passing => return Err(failure),
        Err(_) => {
            register(place, &transport, &user, key).await?;
            prove(place, &transport, &user, key).await?
        }
    };
    User::new(place.id, user, transport, token)
}

/// Registers a user.
pub async fn register(
    place: &Place,
    transport: &Transport,
    user: &UserName,
    key: &Arc<PrivateKey>,
) -> Result<(), Failure> {
    let statement: Bytes = KeyStatement::encode(user, place.id, key.public(), 1, None).into();
    let signature = sign(key, Label::KeyStatement, &statement).await?;
    let signed = SignedKeyStatement { statement, signature, previous_signature: Bytes::new() };
    let request = RegisterRequest { key_statement: Some(signed), ..RegisterRequest::default() };
    match AccountServiceClient::new(transport.clone()).register(timed(request)).await.map_err(Failure::from) {
        Ok(_) => Ok(()),
        Err(failure) if failure.is(Reason::InviteRequired) || failure.is(Reason::RegistrationClosed) => {
            Err(failure.hint(format!("`{}` must let anybody register: `registration = \"open\"`", place.server)))
        }
        Err(failure) if failure.is(Reason::NameInUse) => {
            Err(failure.hint("an earlier run used another key; bring that back, or use fresh servers"))
        }
        Err(failure) => Err(failure),
    }
}

/// Logs in; gives the token.
pub async fn prove(
    place: &Place,
    transport: &Transport,
    user: &UserName,
    key: &Arc<PrivateKey>,
) -> Result<String, Failure> {
    let mut accounts = AccountServiceClient::new(transport.clone());
    let challenge = accounts.create_challenge(timed(CreateChallengeRequest { user: user.to_string() })).await?;
    let nonce: [u8; 32] = challenge.into_inner().nonce[..]
        .try_into()
        .map_err(|_| Failure::failed("the server's challenge is malformed"))?;
    let statement: Bytes = encode_login(place.id, user, &nonce).into();
    let signature = sign(key, Label::Login, &statement).await?;
    let request = LogInRequest { statement, signature, device: "socp bench".into() };
    Ok(accounts.log_in(timed(request)).await?.into_inner().token)
}

async fn sign(key: &Arc<PrivateKey>, label: Label, statement: &Bytes) -> Result<Bytes, Failure> {
    let (key, statement) = (Arc::clone(key), statement.clone());
    blocking(move || key.sign(label, &statement)).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_key_is_made_once_and_only_its_owner_may_read_it() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("bench");
        let made = key(&folder).await.unwrap();
        let again = key(&folder).await.unwrap();
        assert_eq!(made.public().fingerprint(), again.public().fingerprint());
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = std::fs::metadata(folder.join("key.pem")).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
    }
}
