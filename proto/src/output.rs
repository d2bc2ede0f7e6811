//! All that a node can want done. The shell carries outputs out in the order given and decides nothing.

use alloc::{boxed::Box, collections::BTreeSet, string::String, sync::Arc, vec::Vec};

use crate::{
    account::Account,
    admission::Kept,
    channel,
    directory::Delta,
    federation::v1::FileFetch,
    file::File,
    id::{FileId, ServerId, SessionId},
    inbox::{Cursor, Entry, Reader},
    input::{AttachmentId, CallId, CheckId, Frame, LinkId, WriteId},
    name::{ServerName, UserName},
    operator,
    outbox::Queued,
    rejection::Rejection,
    statement::RsaCheck,
    v1,
};

/// Something to do.
#[derive(Debug)]
pub enum Output {
    /// Put on disk before any output after it is carried out.
    Store(Record),
    /// Put on disk soon, together with others; [`Input::Written`](crate::input::Input::Written) follows once it is there.
    /// Outputs after this do not wait for it. Writes, and stores between them, reach the disk in the order given.
    Write {
        /// To be named when it is on disk.
        write: WriteId,
        /// What.
        record: Record,
    },
    /// Read entries of an inbox for an attached stream, once what was handed to the stream before has been taken; at least
    /// one, if there is one, and no more than [`REPLAY_ENTRIES_MAX`](crate::limits::REPLAY_ENTRIES_MAX) and
    /// [`REPLAY_BYTES`](crate::limits::REPLAY_BYTES) allow. [`Input::Replayed`](crate::input::Input::Replayed) follows, unless
    /// the stream ends before.
    Replay {
        /// For which stream.
        attachment: AttachmentId,
        /// Whose inbox.
        user: UserName,
        /// The position after which it begins.
        after: u64,
    },
    /// Read posts of the channel's log for an attached stream, as `Replay` reads entries of an inbox.
    /// [`Input::PostsReplayed`](crate::input::Input::PostsReplayed) follows, unless the stream ends before.
    ReplayPosts {
        /// For which stream.
        attachment: AttachmentId,
        /// Whose it is: the keys of these posts come wrapped to this user.
        user: UserName,
        /// The positions, in order; all were on disk when this was made.
        positions: Vec<u64>,
    },
    /// Check these signatures away from the node's own task; [`Input::Checked`](crate::input::Input::Checked) follows.
    Check {
        /// To be named by the result.
        check: CheckId,
        /// All must match.
        signatures: Vec<RsaCheck>,
    },
    /// Answer a call.
    Answer {
        /// Which.
        call: CallId,
        /// With what.
        result: Result<Answer, Rejection>,
    },
    /// Hand an event to an attached stream. A stream too slow to take it is ended by the shell, as if it broke.
    Deliver {
        /// Which.
        attachment: AttachmentId,
        /// What.
        event: v1::AttachResponse,
    },
    /// End an attached stream, after what was handed to it.
    EndAttachment {
        /// Which.
        attachment: AttachmentId,
        /// With this status; OK if there is none.
        rejection: Option<Rejection>,
    },
    /// Publish a revision of the directory to all watchers. Revisions are consecutive.
    Publish(Arc<Delta>),
    /// Send a frame. Frames of one stream stay in order. A link whose queue is full is closed by the shell.
    Send {
        /// On which link.
        link: LinkId,
        /// What.
        frame: Frame,
    },
    /// Let exactly these servers through the handshake from now on, whoever dials. The first one comes before any dial.
    Admit(Arc<BTreeSet<ServerId>>),
    /// Dial a pinned peer; `LinkUp` or `DialFailed` follows.
    Dial {
        /// Whom.
        peer: ServerId,
    },
    /// Close a link once the frames before this are sent; `LinkDown` follows.
    CloseLink {
        /// Which.
        link: LinkId,
        /// Why: told to the peer and logged.
        rejection: Rejection,
    },
    /// Remove what is on disk of a file.
    DropFile(FileId),
    /// Something the operator should be able to see: logged and counted.
    Note(Note),
}

/// A change of what is on disk.
#[derive(Clone, Debug)]
pub enum Record {
    /// A new user, and the invite that it used up, if any, in one transaction.
    NewAccount {
        /// The user.
        account: Arc<Account>,
        /// Hash of the invite that is used up.
        invite: Option<[u8; 32]>,
    },
    /// A new invite, by its hash.
    NewInvite([u8; 32]),
    /// This server's epoch: it goes on under a higher one.
    Epoch(u64),
    /// A user was disabled or enabled.
    Disabled {
        /// The account with its new state.
        account: Arc<Account>,
    },
    /// A user's key was renewed.
    KeyRotated {
        /// The account with its new state: one more statement at the end.
        account: Arc<Account>,
    },
    /// A user moved to another home.
    Moved {
        /// The account with its new state.
        account: Arc<Account>,
    },
    /// Admissions that say something new, each in place of what the issuer said of the subject before; all in one transaction.
    Admissions {
        /// The new ones.
        kept: Vec<Kept>,
        /// Issuers and subjects of those that had to make room, before that.
        dropped: Vec<(ServerId, ServerId)>,
    },
    /// Names that are bound to servers, in this order; a server has one name. All in one transaction.
    Names(Vec<(ServerName, ServerId)>),
    /// An entry is in an inbox, after all that are in it. The id of a message is remembered, too; a message of which this is the
    /// outcome is queued no more.
    Entry(Arc<Entry>),
    /// A post is in the channel's log, after all that are in it, and its id is remembered. A key that it brings takes the place of the
    /// same one that came for the same user before.
    Post(Arc<channel::Entry>),
    /// The oldest posts of the log go, and the keys under which no post is left.
    PostsDropped {
        /// The last of them.
        up_to: Cursor,
        /// The keys.
        keys: Vec<channel::KeyName>,
    },
    /// A message is queued.
    Queued(Arc<Queued>),
    /// A message is queued no more, and its sender was told why.
    Unqueued {
        /// Its number.
        number: u64,
    },
    /// The oldest entries of an inbox go.
    Dropped {
        /// Whose inbox.
        user: UserName,
        /// The last of them.
        up_to: Cursor,
    },
    /// The devices of a user and how far each has read, in place of what was known of them.
    Readers {
        /// Whose.
        user: UserName,
        /// All of them.
        readers: Vec<Reader>,
    },
    /// Ids of messages are forgotten that were to be remembered until before this time, Unix milliseconds.
    IdsForgotten {
        /// The time.
        before_unix_ms: u64,
    },
    /// A server was blocked, or is not any more.
    Blocked {
        /// Which.
        server: ServerId,
        /// Which of the two.
        is_blocked: bool,
    },
}

/// A good answer.
#[derive(Clone, Debug)]
pub enum Answer {
    /// To `Register`.
    Registered(v1::RegisterResponse),
    /// To `CreateChallenge`.
    Challenge(v1::CreateChallengeResponse),
    /// To `LogIn`: the shell adds the token.
    LoggedIn {
        /// `name@server-name`.
        user: String,
        /// As given in.
        session: SessionId,
    },
    /// To `LogOut`.
    LoggedOut,
    /// To `RotateKey`.
    KeyRotated(v1::RotateKeyResponse),
    /// To `MoveUser`.
    UserMoved,
    /// To `ListSessions`.
    Sessions(v1::ListSessionsResponse),
    /// To `Authorize`.
    Authorized,
    /// To `GetUser`.
    User(Box<v1::GetUserResponse>),
    /// To `Attach`; events follow as deliveries.
    Attached(v1::Attached),
    /// To `Detach`.
    Detached,
    /// To `SendMessage`.
    Sent(v1::SendMessageResponse),
    /// To `AcknowledgeMessages`.
    MessagesAcknowledged,
    /// To `ReadInbox`: the page to read.
    InboxPage(Page),
    /// To `PostToChannel`.
    Posted(v1::PostToChannelResponse),
    /// To `GetChannelKey`: the key to read.
    ChannelKey {
        /// Whose copy.
        user: UserName,
        /// Which key.
        key: channel::KeyName,
    },
    /// To `CreateFile`: there is room, and the shell makes the file if it is not there.
    FileCreated {
        /// What it is for.
        file: File,
        /// When room was made, Unix milliseconds.
        created_unix_ms: u64,
        /// When it is dropped, likewise.
        expires_unix_ms: i64,
    },
    /// To `UploadFile`: bytes may be brought.
    FileToUpload(File),
    /// To `DownloadFile` and `FetchFile`: it is on this server's disk.
    FileHere {
        /// Which.
        file: File,
        /// The user of this server who has it, by whom transfers are counted.
        user: Option<UserName>,
    },
    /// To both: it is to be fetched from the server at the other end of a link.
    FileElsewhere {
        /// Which link.
        link: LinkId,
        /// What to send there.
        fetch: FileFetch,
        /// The user of this server who has it.
        user: Option<UserName>,
    },
    /// To `CreateInvite`.
    InviteCreated,
    /// To `ListAccounts`.
    Accounts(operator::v1::ListAccountsResponse),
    /// To `SetDisabled`.
    DisabledSet,
    /// To `ListPeers`.
    Peers(operator::v1::ListPeersResponse),
    /// To `Explain`.
    Explained(Box<operator::v1::ExplainResponse>),
    /// To `Admit`.
    AdmissionMade(operator::v1::AdmitResponse),
    /// To `RevokeAdmission`.
    AdmissionRevoked,
    /// To `SetBlocked`.
    BlockedSet(operator::v1::SetBlockedResponse),
}

/// Which part of an inbox a client may be given at once: no more than [`REPLAY_ENTRIES_MAX`](crate::limits::REPLAY_ENTRIES_MAX)
/// and [`REPLAY_BYTES`](crate::limits::REPLAY_BYTES), or a single entry. All of it is on disk, unless it is dropped meanwhile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// Whose inbox.
    pub user: UserName,
    /// The position after which it begins.
    pub after: u64,
    /// The last position in it; not above `after` if there is nothing.
    pub up_to: u64,
    /// Whether there is something before it.
    pub has_older: bool,
}

/// Something worth a line in the log and a counter; nothing to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// A peer's link is in use.
    PeerJoined {
        /// Who.
        peer: ServerId,
        /// Its epoch.
        epoch: u64,
    },
    /// A peer has no link any more.
    PeerLost {
        /// Who.
        peer: ServerId,
    },
    /// A frame was refused; the link stays.
    FrameRefused {
        /// Who sent it.
        peer: ServerId,
        /// What is wrong with it.
        refusal: Refusal,
    },
    /// A frame was ignored: of a kind unknown to this version, about a server that is not admitted, or of an epoch that is over.
    FrameIgnored {
        /// Who sent it.
        peer: ServerId,
    },
    /// A server that is not pinned is taken from now on.
    Admitted {
        /// Which.
        server: ServerId,
        /// The name it is shown under.
        name: ServerName,
        /// Whose word let it in.
        by: ServerId,
    },
    /// A server is not taken any more: it was blocked, or nobody whose word counts vouches for it.
    Dismissed {
        /// Which.
        server: ServerId,
    },
    /// A server is called by a name that is known for another one: it is shown under a label instead.
    NameTaken {
        /// The name.
        name: ServerName,
        /// Who is called so.
        server: ServerId,
        /// Whose name it is and remains.
        bearer: ServerId,
    },
    /// The operator gave a name that was known for one server to another, by a pin or as the own name.
    NameMoved {
        /// The name.
        name: ServerName,
        /// Whose it was.
        from: ServerId,
        /// Whose it is.
        to: ServerId,
    },
    /// An origin signed two batches of one number: it told different servers different things. Nothing of that epoch counts
    /// any more. Of this server itself: somebody else signs with its identity key.
    Contradiction {
        /// The origin.
        origin: ServerId,
        /// The number.
        number: u64,
    },
    /// A peer has other entries of an origin than this server, as of the same batch. It was asked for that batch.
    DigestDiffers {
        /// The peer.
        peer: ServerId,
        /// The origin.
        origin: ServerId,
        /// The number.
        number: u64,
    },
    /// A peer says that this server had a higher epoch, or another start of the same one: an old copy of the data folder is in use.
    EpochBehind {
        /// Who said so.
        peer: ServerId,
        /// The epoch it knows.
        epoch: u64,
    },
}

/// What is wrong with a peer's frame. Nobody can act on it but the other server's operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refusal {
    /// Cannot be read, or a field is out of its limits.
    Malformed(&'static str),
    /// Signed by nobody or somebody else.
    BadSignature,
    /// About an origin, or a user of one, for which this peer cannot speak.
    ForeignOrigin,
    /// About an epoch that is over.
    OldEpoch,
    /// More than the limit of something.
    TooMany(&'static str),
    /// The entries do not have the digest that their origin signed.
    DigestMismatch,
    /// A key statement that an advert names never came.
    MissingStatement,
    /// Out of turn: a frame before the hello, or a snapshot's end without its beginning.
    OutOfTurn,
    /// Not for this server.
    Misrouted,
}
