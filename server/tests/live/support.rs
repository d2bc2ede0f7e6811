//! Real servers without a process: node, driver, hub, services and federation sockets, with clients that call the services
//! directly. Keys, accounts and messages are real.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use aws_lc_rs::{
    encoding::{AsDer as _, PublicKeyX509Der},
    rand::SystemRandom,
    rsa::{KeySize, PrivateDecryptingKey},
    signature::{KeyPair as _, RSA_PSS_SHA256, RsaKeyPair},
};
use prost::{Message as _, bytes::Bytes};
use socp::{
    channel::{self, KeyName},
    id::{ServerId, StartId},
    identity::Identity as _,
    inbox::{Entry, Stored},
    name::{ServerName, UserName},
    node::{Node, Pin, Settings, Start},
    output::Record,
    signed::{Label, signing_input},
    statement::{KeyStatement, encode_login},
    user_key::UserKey,
    v1::{self, RegistrationPolicy, SealedMessage, SignedKeyStatement},
};
use socp_quic::ClientEndpoint;
use socp_server::{
    driver::{self, Handle, Running, Shell},
    federation::{self, Dialler},
    files::Files,
    hub::Hub,
    identity::{ServerIdentity, UdpListener},
    rpc::{self, ServerFacts},
    storage::{Loaded, Pages, Storage, StorageError},
    tls::{self, Admitted},
};
use tempfile::TempDir;
use tokio::{sync::oneshot, time::timeout};
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Request, Status, Streaming, service::Routes};
use tonic_types::StatusExt as _;

pub type Accounts = v1::account_service_client::AccountServiceClient<Routes>;
pub type Directories = v1::directory_service_client::DirectoryServiceClient<Routes>;
pub type Messages = v1::message_service_client::MessageServiceClient<Routes>;

/// Nothing here takes as long unless it never comes.
const PATIENCE: Duration = Duration::from_secs(20);

/// Waits for something that must come.
pub async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.expect("it comes")
}

/// The next item of a stream that must come.
pub async fn next<T>(stream: &mut (impl Stream<Item = Result<T, Status>> + Unpin)) -> Result<T, Status> {
    soon(stream.next()).await.expect("the stream goes on")
}

/// The reason in a status.
pub fn reason(status: &Status) -> String {
    let details = status.get_error_details();
    let info = details.error_info().unwrap_or_else(|| panic!("{status:?} has no error info"));
    assert_eq!(info.domain, "socp");
    info.reason.clone()
}

/// A user's key. Making one is slow, so tests share a few.
pub struct Key {
    pair: RsaKeyPair,
    pub public: UserKey,
}

impl Key {
    fn new() -> Self {
        let private = PrivateDecryptingKey::generate(KeySize::Rsa4096).unwrap();
        let pair = RsaKeyPair::from_pkcs8(private.as_der().unwrap().as_ref()).unwrap();
        let spki: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
        let public = UserKey::parse(&Bytes::copy_from_slice(spki.as_ref())).unwrap();
        Self { pair, public }
    }

    pub fn one() -> &'static Self {
        static KEY: OnceLock<Key> = OnceLock::new();
        KEY.get_or_init(Self::new)
    }

    pub fn other() -> &'static Self {
        static KEY: OnceLock<Key> = OnceLock::new();
        KEY.get_or_init(Self::new)
    }

    pub fn sign(&self, label: Label, statement: &[u8]) -> Bytes {
        let mut signature = vec![0; 512];
        let message = signing_input(label, statement);
        self.pair.sign(&RSA_PSS_SHA256, &SystemRandom::new(), &message, &mut signature).unwrap();
        signature.into()
    }

    pub fn key_statement(&self, user: &str, home: ServerId) -> SignedKeyStatement {
        let statement = KeyStatement::encode(&UserName::parse(user).unwrap(), home, &self.public, 1, None);
        let signature = self.sign(Label::KeyStatement, &statement);
        SignedKeyStatement { statement: statement.into(), signature, previous_signature: Bytes::new() }
    }
}

/// What a server has before it runs: its identity and its federation port.
pub struct Home {
    pub identity: ServerIdentity,
    pub name: &'static str,
}

impl Home {
    pub fn new(name: &'static str) -> Self {
        Self { identity: ServerIdentity::generate().unwrap(), name }
    }

    pub fn id(&self) -> ServerId {
        self.identity.server_id()
    }
}

/// A running server.
pub struct Server {
    pub id: ServerId,
    pub handle: Handle,
    pub routes: Routes,
    pub federation: SocketAddr,
    pub running: Running,
    stop: oneshot::Sender<()>,
    _files: TempDir,
}

fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis().try_into().unwrap()
}

/// Epochs rise from server to server, as if each had started a moment after the one before.
fn epoch() -> u64 {
    static STARTS: AtomicU64 = AtomicU64::new(0);
    unix_ms() + STARTS.fetch_add(1, Ordering::Relaxed)
}

/// Takes a federation port for a server that will know these peers.
pub fn listen(home: &Home, peers: &[&Home]) -> socp_quic::Server {
    let tls = tls::federation_listener(&home.identity, peers.iter().map(|peer| peer.id()).collect::<Admitted>());
    let config = federation::listener_config(home.identity.reset_secret(UdpListener::Federation));
    socp_quic::Server::bind("127.0.0.1:0".parse().unwrap(), tls, config).unwrap()
}

/// Starts a server that knows these peers; those with an address are dialled.
pub fn start(home: &Home, peers: &[(&Home, Option<SocketAddr>)]) -> Server {
    let known: Vec<_> = peers.iter().map(|(peer, _)| *peer).collect();
    start_on(home, listen(home, &known), peers, Memory::default())
}

/// A disk that is memory, and may be full from the beginning. Clones are of the same one.
#[derive(Clone, Default)]
pub struct Memory {
    is_full: bool,
    entries: Arc<Mutex<Vec<Arc<Entry>>>>,
    posts: Arc<Mutex<Vec<Arc<channel::Entry>>>>,
}

impl Memory {
    pub fn full() -> Self {
        Self { is_full: true, ..Self::default() }
    }
}

impl Storage for Memory {
    fn load(&self) -> Result<Loaded, StorageError> {
        Ok(Loaded::default())
    }

    fn commit(&mut self, records: &[Record]) -> Result<(), StorageError> {
        if self.is_full {
            return Err(StorageError::Full { path: PathBuf::from("memory") });
        }
        let entries = records.iter().filter_map(|record| match record {
            Record::Entry(entry) => Some(Arc::clone(entry)),
            _ => None,
        });
        self.entries.lock().unwrap().extend(entries);
        let posts = records.iter().filter_map(|record| match record {
            Record::Post(entry) => Some(Arc::clone(entry)),
            _ => None,
        });
        self.posts.lock().unwrap().extend(posts);
        Ok(())
    }

    fn pages(&self) -> Result<Box<dyn Pages>, StorageError> {
        Ok(Box::new(self.clone()))
    }
}

impl Pages for Memory {
    fn page(&self, user: &UserName, after: u64) -> Result<Vec<Stored>, StorageError> {
        let entries = self.entries.lock().unwrap();
        let page = entries.iter().filter(|entry| entry.user == *user && entry.position > after);
        Ok(page.map(|entry| Stored { position: entry.position, event: entry.event() }).collect())
    }

    fn posts(&self, user: &UserName, positions: &[u64]) -> Result<Vec<channel::Stored>, StorageError> {
        let posts = self.posts.lock().unwrap();
        let wanted = posts.iter().filter(|entry| positions.contains(&entry.position));
        let key = |entry: &channel::Entry| entry.wraps.iter().find(|(of, _)| of == user).map(|(_, key)| key.clone());
        Ok(wanted.map(|entry| entry.stored(key(entry).unwrap_or_default())).collect())
    }

    fn channel_key(&self, user: &UserName, key: &KeyName) -> Result<Option<Vec<u8>>, StorageError> {
        let posts = self.posts.lock().unwrap();
        let under = posts.iter().rev().filter(|entry| KeyName::of(&entry.post) == *key);
        let mut wraps = under.flat_map(|entry| &entry.wraps);
        Ok(wraps.find(|(of, _)| of == user).map(|(_, key)| key.to_vec()))
    }
}

/// Starts a server on this port and storage.
pub fn start_on(
    home: &Home,
    listener: socp_quic::Server,
    peers: &[(&Home, Option<SocketAddr>)],
    storage: Memory,
) -> Server {
    let admitted = Admitted::default();
    let federation = listener.local_addr();
    let start_id = StartId::from_bytes(&socp_server::random::bytes::<16>()).unwrap();
    let settings = Settings {
        peers: peers
            .iter()
            .map(|(peer, _)| Pin { id: peer.id(), name: ServerName::parse(peer.name).unwrap(), is_dialled: true })
            .collect(),
        ..Settings::new(ServerName::parse(home.name).unwrap())
    };
    let Loaded { accounts, invites, trust, mail, .. } = storage.load().unwrap();
    let identity = Box::new(home.identity.clone());
    let start = Start { identity, epoch: epoch(), start_id, seed: 1, accounts, invites, trust, mail };
    let addresses: BTreeMap<_, _> =
        peers.iter().filter_map(|(peer, address)| Some((peer.id(), (*address)?.to_string()))).collect();
    let endpoint = ClientEndpoint::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let hub = Hub::new(start_id);
    let folder = tempfile::tempdir().unwrap();
    let (files, _) = Files::open(folder.path()).unwrap();
    let shell = Shell {
        pages: storage.pages().unwrap(),
        storage: Box::new(storage),
        files: files.clone(),
        hub: hub.clone(),
        dialler: Dialler::new(
            endpoint,
            tls::federation_dialler(&home.identity, admitted.clone()),
            addresses,
            tokio::runtime::Handle::current(),
        ),
        admitted,
    };
    let (handle, running) = driver::start(Node::new(settings, start), shell).unwrap();
    let facts = ServerFacts {
        name: ServerName::parse(home.name).unwrap(),
        id: home.id(),
        identity_key: home.identity.public_key(),
        certificate_statement: Vec::new(),
        certificate_signature: [0; 64],
        registration: RegistrationPolicy::Open,
    };
    let routes = rpc::routes(handle.clone(), hub, files, Arc::new(facts));
    let (stop, stopped) = oneshot::channel::<()>();
    tokio::spawn(listener.serve(federation::routes(handle.clone()), async {
        let _ = stopped.await;
    }));
    Server { id: home.id(), handle, routes, federation, running, stop, _files: folder }
}

impl Server {
    pub fn accounts(&self) -> Accounts {
        Accounts::new(self.routes.clone())
    }

    pub fn directories(&self) -> Directories {
        Directories::new(self.routes.clone())
    }

    pub fn messages(&self) -> Messages {
        Messages::new(self.routes.clone())
    }

    pub async fn register(&self, user: &str, key: &Key) -> Result<v1::RegisterResponse, Status> {
        let key_statement = Some(key.key_statement(user, self.id));
        let request = v1::RegisterRequest { key_statement, ..Default::default() };
        Ok(self.accounts().register(request).await?.into_inner())
    }

    /// Logs in with a statement for `server`, which an honest client takes from its own profile.
    pub async fn log_in_for(&self, server: ServerId, user: &str, key: &Key) -> Result<Login, Status> {
        let mut accounts = self.accounts();
        let challenge = accounts.create_challenge(v1::CreateChallengeRequest { user: user.to_owned() }).await?;
        let nonce: [u8; 32] = challenge.into_inner().nonce[..].try_into().unwrap();
        let statement = encode_login(server, &UserName::parse(user).unwrap(), &nonce);
        let signature = key.sign(Label::Login, &statement);
        let request = v1::LogInRequest { statement: statement.into(), signature, device: "test".to_owned() };
        let answer = accounts.log_in(request).await?.into_inner();
        Ok(Login { token: answer.token })
    }

    /// Registers a user and logs in.
    pub async fn user(&self, user: &str, key: &Key) -> Login {
        self.register(user, key).await.unwrap();
        self.log_in_for(self.id, user, key).await.unwrap()
    }

    pub async fn attach(&self, login: &Login) -> Streaming<v1::AttachResponse> {
        let request = login.with(v1::AttachRequest { status: "here".to_owned(), ..Default::default() });
        let mut events = self.messages().attach(request).await.unwrap().into_inner();
        let first = next(&mut events).await.unwrap().event;
        assert!(matches!(first, Some(v1::attach_response::Event::Attached(_))), "{first:?}");
        events
    }

    pub async fn watch(&self, login: &Login) -> Watch {
        let request = login.with(v1::WatchDirectoryRequest::default());
        Watch { stream: self.directories().watch_directory(request).await.unwrap().into_inner(), ready: Vec::new() }
    }

    /// Says goodbye and ends.
    pub async fn drain(self) {
        self.handle.drain().await;
        let _ = self.stop.send(());
        self.handle.stop().await;
        self.running.ended().await.unwrap();
    }
}

/// A session.
pub struct Login {
    pub token: String,
}

impl Login {
    /// A request of this session.
    pub fn with<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.metadata_mut().insert("authorization", format!("Bearer {}", self.token).parse().unwrap());
        request
    }
}

/// A watch as a client reads it.
pub struct Watch {
    stream: Streaming<v1::WatchDirectoryResponse>,
    ready: Vec<String>,
}

impl Watch {
    /// The next thing that happened, in short: `+alice@server-a`, `~…`, `-… LEFT`, `=2` for the end mark.
    /// Bookmarks do not count, so they do not make it wait on.
    pub async fn next(&mut self) -> Result<String, Status> {
        soon(self.read()).await
    }

    async fn read(&mut self) -> Result<String, Status> {
        use v1::directory_change::Change;
        while self.ready.is_empty() {
            let message = next(&mut self.stream).await?;
            let reason = |removed: &v1::RemovedEntry| {
                removed.reason().as_str_name().trim_start_matches("REMOVAL_REASON_").to_owned()
            };
            self.ready = message
                .changes
                .iter()
                .map(|change| match change.change.as_ref().unwrap() {
                    Change::Added(entry) => format!("+{}", entry.user),
                    Change::Updated(entry) => format!("~{}", entry.user),
                    Change::Removed(entry) => format!("-{} {}", entry.user, reason(entry)),
                })
                .chain(message.end_mark.map(|mark| format!("={}", mark.entries)))
                .rev()
                .collect();
        }
        Ok(self.ready.pop().expect("it is not empty"))
    }

    /// Reads on to what must come, and returns what came before it.
    pub async fn until(&mut self, wanted: &str) -> Vec<String> {
        let mut before = Vec::new();
        loop {
            let told = self.next().await.unwrap();
            if told == wanted {
                return before;
            }
            before.push(told);
        }
    }
}

/// A message that nobody could decrypt, signed as it should be.
pub fn sealed(from: (&str, ServerId, &Key), to: (&str, ServerId, &Key), number: u8) -> SealedMessage {
    let fingerprint = |key: &Key| Bytes::copy_from_slice(key.public.fingerprint().as_bytes());
    let header = v1::MessageHeader {
        suite: 1,
        message_id: format!("01890a5d-ac96-774b-bcce-b302099a80{number:02x}"),
        sender: from.0.to_owned(),
        sender_home_id: from.1.to_string(),
        sender_key_sha256: fingerprint(from.2),
        recipient: to.0.to_owned(),
        recipient_home_id: to.1.to_string(),
        recipient_key_sha256: fingerprint(to.2),
        time_unix_ms: unix_ms().try_into().unwrap(),
        require_online: false,
        wants_receipts: false,
    };
    let statement = v1::MessageStatement {
        header: header.encode_to_vec().into(),
        nonce: Bytes::from_static(&[0; 12]),
        ciphertext: Bytes::from_static(&[0; 32]),
        key_commitment: Bytes::from_static(&[0; 32]),
        ..v1::MessageStatement::default()
    }
    .encode_to_vec();
    let signature = from.2.sign(Label::Message, &statement);
    SealedMessage { statement: statement.into(), signature, wrapped_key: vec![0; 512].into() }
}
