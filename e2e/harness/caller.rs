//! A user who calls the contract by hand: registers, logs in, attaches and watches over either transport.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use prost::bytes::Bytes;
use socp::{
    id::ServerId,
    message::Address,
    name::UserName,
    signed::Label,
    statement::{KeyStatement, encode_login},
    v1::{
        AttachRequest, AttachResponse, CreateChallengeRequest, LogInRequest, RegisterRequest, SignedKeyStatement,
        WatchDirectoryRequest, WatchDirectoryResponse, account_service_client::AccountServiceClient, attach_response,
        directory_service_client::DirectoryServiceClient, file_service_client::FileServiceClient,
        message_service_client::MessageServiceClient,
    },
};
use socp_client::private_key::PrivateKey;
use tonic::{Request, Status, Streaming};

use super::{
    keys,
    server::Server,
    soon,
    wire::{Channel, Wire},
};

/// A user with a session, and the way to the server.
#[derive(Clone)]
pub struct Caller {
    pub address: Address,
    pub key: Arc<PrivateKey>,
    pub token: String,
    pub channel: Channel,
}

/// A name as the contract has it.
pub fn name(text: &str) -> UserName {
    UserName::parse(text).expect("it is a name")
}

/// A key statement signed by its key. Made once for each name and home, since signatures are random.
pub fn statement(owner: &str, home: ServerId) -> SignedKeyStatement {
    static MADE: Mutex<BTreeMap<(String, ServerId), SignedKeyStatement>> = Mutex::new(BTreeMap::new());
    let key = keys::key(owner);
    let mut made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
    made.entry((owner.to_owned(), home)).or_insert_with(|| sign_statement(&name(owner), home, &key)).clone()
}

/// A first key statement of any name, signed by any key.
pub fn sign_statement(user: &UserName, home: ServerId, key: &PrivateKey) -> SignedKeyStatement {
    let statement: Bytes = KeyStatement::encode(user, home, key.public(), 1, None).into();
    let signature = key.sign(Label::KeyStatement, &statement).expect("a key signs");
    SignedKeyStatement { statement, signature, previous_signature: Bytes::new() }
}

/// A request with a session token.
pub fn with_token<T>(token: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    let value = format!("Bearer {token}").parse().expect("a token fits a header");
    request.metadata_mut().insert("authorization", value);
    request
}

/// The account service over a channel.
pub fn accounts(channel: &Channel) -> AccountServiceClient<Channel> {
    AccountServiceClient::new(channel.clone())
}

/// Registers a signed statement.
pub fn register(channel: &Channel, statement: SignedKeyStatement) -> Result<String, Status> {
    let request = RegisterRequest { key_statement: Some(statement), ..RegisterRequest::default() };
    soon(accounts(channel).register(request)).map(|answer| answer.into_inner().user)
}

/// Asks for a nonce.
#[track_caller]
pub fn challenge(channel: &Channel, user: &str) -> [u8; 32] {
    let answer = soon(accounts(channel).create_challenge(CreateChallengeRequest { user: user.into() }));
    answer.expect("anybody may ask").into_inner().nonce[..].try_into().expect("a nonce has 32 bytes")
}

/// A login for `server`, signed by the key of `signer`.
pub fn login(server: ServerId, user: &str, nonce: &[u8; 32], signer: &str) -> LogInRequest {
    let statement: Bytes = encode_login(server, &name(user), nonce).into();
    let signature = keys::key(signer).sign(Label::Login, &statement).expect("a key signs");
    LogInRequest { statement, signature, device: "by hand".into() }
}

/// Logs in; gives the token.
pub fn log_in(channel: &Channel, request: LogInRequest) -> Result<String, Status> {
    soon(accounts(channel).log_in(request)).map(|answer| answer.into_inner().token)
}

impl Caller {
    /// Registers, if need be, and logs in over a connection of its own.
    #[track_caller]
    pub fn new(user: &str, server: &Server, wire: Wire) -> Self {
        Self::over(user, server, soon(wire.connect(server)))
    }

    /// The same over a connection that is there.
    #[track_caller]
    pub fn over(user: &str, server: &Server, channel: Channel) -> Self {
        register(&channel, statement(user, server.id)).expect("the name is free or ours");
        let nonce = challenge(&channel, user);
        let token = log_in(&channel, login(server.id, user, &nonce, user)).expect("the login is good");
        Self { address: Address { home: server.id, user: name(user) }, key: keys::key(user), token, channel }
    }

    /// A request with this session's token.
    pub fn request<T>(&self, message: T) -> Request<T> {
        with_token(&self.token, message)
    }

    /// The account service.
    pub fn accounts(&self) -> AccountServiceClient<Channel> {
        accounts(&self.channel)
    }

    /// The directory service.
    pub fn directory(&self) -> DirectoryServiceClient<Channel> {
        DirectoryServiceClient::new(self.channel.clone())
    }

    /// The file service.
    pub fn files(&self) -> FileServiceClient<Channel> {
        FileServiceClient::new(self.channel.clone())
    }

    /// The message service.
    pub fn messages(&self) -> MessageServiceClient<Channel> {
        MessageServiceClient::new(self.channel.clone())
    }

    /// Goes online; on return the server has said so.
    #[track_caller]
    pub fn attach(&self) -> Stream<AttachResponse> {
        self.attach_after("")
    }

    /// Asks to go online.
    #[track_caller]
    pub fn try_attach(&self, request: AttachRequest) -> Result<Stream<AttachResponse>, Status> {
        soon(self.messages().attach(self.request(request))).map(|stream| Stream(stream.into_inner()))
    }

    /// Another device of the same user, over the same connection.
    #[track_caller]
    pub fn other_session(&self) -> Self {
        let user = self.address.user.as_str();
        let nonce = challenge(&self.channel, user);
        let token = log_in(&self.channel, login(self.address.home, user, &nonce, user)).expect("the login is good");
        Self { token, ..self.clone() }
    }

    /// Goes online, and reads what is after this cursor; on return the server has said that it is so.
    #[track_caller]
    pub fn attach_after(&self, cursor: &str) -> Stream<AttachResponse> {
        let request = AttachRequest { cursor: cursor.into(), ..AttachRequest::default() };
        let mut stream = self.try_attach(request).expect("the token and the cursor are good");
        let first = stream.next();
        assert!(matches!(first.event, Some(attach_response::Event::Attached(_))), "{first:?}");
        stream
    }

    /// Watches, from a resume token on if it is not empty.
    pub fn watch(&self, resume_token: &str) -> Result<Stream<WatchDirectoryResponse>, Status> {
        self.watch_as(WatchDirectoryRequest { resume_token: resume_token.into(), ..WatchDirectoryRequest::default() })
    }

    /// Watches. A refusal before the first message and one in its place are the same.
    pub fn watch_as(&self, request: WatchDirectoryRequest) -> Result<Stream<WatchDirectoryResponse>, Status> {
        soon(self.directory().watch_directory(self.request(request))).map(|stream| Stream(stream.into_inner()))
    }
}

/// A response stream, read one message at a time.
#[derive(Debug)]
pub struct Stream<T>(pub Streaming<T>);

impl<T> Stream<T> {
    /// Waits for the next message.
    #[track_caller]
    pub fn next(&mut self) -> T {
        soon(self.0.message()).expect("the stream goes on").expect("the stream goes on")
    }

    /// Waits for the end and gives its status.
    #[track_caller]
    pub fn end(&mut self) -> Status {
        soon(async {
            loop {
                match self.0.message().await {
                    Ok(Some(_)) => {}
                    Ok(None) => return Status::ok(""),
                    Err(status) => return status,
                }
            }
        })
    }
}
