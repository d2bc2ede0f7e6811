//! All that can happen to a node.

use alloc::{string::String, vec::Vec};

use prost::bytes::Bytes;

use crate::{
    channel,
    federation::v1::{AdvertiseFrame, DeliverFrame, FileFetch, RemoveFrame},
    id::{FileId, ServerId, SessionId, TokenHash},
    inbox::Stored,
    v1::{
        AttachRequest, ChannelKeyWrap, CreateFileRequest, GetChannelKeyRequest, SealedMessage, SealedPost,
        SignedKeyStatement, SignedMove,
    },
};

/// What time it is, as told by the shell with every input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Milliseconds of a clock that never goes back, from any start. All deadlines are on it.
    pub monotonic_ms: u64,
    /// Milliseconds since 1970 by the machine's clock, which may jump. For signed times and for showing.
    pub unix_ms: u64,
}

/// One request that waits for its [`Answer`](crate::output::Answer). Chosen by the shell, never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CallId(pub u64);

/// One attached stream. Chosen by the shell, never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AttachmentId(pub u64);

/// One authenticated connection with a peer, whichever side dialled. Chosen by the shell, never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LinkId(pub u64);

/// One slow check under way. Chosen by the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CheckId(pub(crate) u64);

/// One record that is written together with others. Chosen by the node, in the order in which they are given out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct WriteId(pub u64);

/// Something that happened.
#[derive(Debug)]
pub enum Input {
    /// A client or the operator asks; exactly one answer follows, now or later.
    Call {
        /// To be named by the answer.
        call: CallId,
        /// What is asked.
        request: Request,
    },
    /// An attached stream broke or its client went away. Not sent for streams that the node ended.
    AttachmentEnded {
        /// Which.
        attachment: AttachmentId,
    },
    /// A slow check is done.
    Checked {
        /// As given out with the check.
        check: CheckId,
        /// Whether every signature matched.
        valid: bool,
    },
    /// All that was given out to be written up to this is on disk. Said in order; several may be said at once by the last.
    Written {
        /// The last of them.
        write: WriteId,
    },
    /// What was asked of an inbox for a stream is here.
    Replayed {
        /// For which.
        attachment: AttachmentId,
        /// Messages from the disk, in order and without gap.
        page: Vec<Stored>,
    },
    /// What was asked of the channel's log for a stream is here.
    PostsReplayed {
        /// For which.
        attachment: AttachmentId,
        /// Those of the posts that are in the log still, in order.
        page: Vec<channel::Stored>,
    },
    /// All of a file is on disk.
    FileStored {
        /// Which.
        file: FileId,
    },
    /// A connection stands and all three streams are open.
    LinkUp {
        /// The new link.
        link: LinkId,
        /// Who is at the other end, by certificate. The shell lets only admitted servers get this far.
        peer: ServerId,
        /// Whether this side dialled.
        dialled: bool,
    },
    /// A link ended, whoever ended it. Nothing of it follows.
    LinkDown {
        /// Which.
        link: LinkId,
        /// Why, for the operator; empty if nobody said.
        cause: String,
    },
    /// What a peer said of the end of a link that was reported down before its word came.
    Parted {
        /// Who.
        peer: ServerId,
        /// Why, for the operator.
        cause: String,
    },
    /// A dial that the node asked for came to nothing.
    DialFailed {
        /// Who was dialled.
        peer: ServerId,
        /// Why, for the operator.
        cause: String,
    },
    /// A peer sent a frame. Frames of one stream come in order; streams overtake each other.
    Frame {
        /// On which link.
        link: LinkId,
        /// What it sent.
        frame: Frame,
    },
    /// The deadline that the node named has come. Harmless at any other time.
    Tick,
    /// The server stops: say goodbye, end what is attached, take nothing new.
    Drain,
}

/// A frame of one of a link's three streams.
#[derive(Clone, Debug, PartialEq)]
pub enum Frame {
    /// Of the `Advertise` stream.
    Advertise(AdvertiseFrame),
    /// Of the `Remove` stream.
    Remove(RemoveFrame),
    /// Of the `Deliver` stream.
    Deliver(DeliverFrame),
}

/// What a client or the operator asks. Fields are as received; the node checks them.
///
/// `token` is the hash of the bearer token, or of the empty text where there was none.
#[derive(Debug)]
pub enum Request {
    /// `AccountService.Register`.
    Register {
        /// The first statement of the user.
        statement: SignedKeyStatement,
        /// The invite, or empty.
        invite: String,
        /// The display name, or empty.
        display_name: String,
    },
    /// `AccountService.CreateChallenge`.
    CreateChallenge {
        /// The bare name.
        user: String,
        /// 32 fresh random bytes from the shell.
        nonce: [u8; 32],
    },
    /// `AccountService.LogIn`.
    LogIn {
        /// Encoded `LoginStatement`.
        statement: Bytes,
        /// The signature over it.
        signature: Bytes,
        /// The device's label.
        device: String,
        /// Hash of a fresh random token from the shell, which gives the token out if the answer is good.
        token: TokenHash,
        /// A fresh random id from the shell.
        session: SessionId,
    },
    /// `AccountService.LogOut`.
    LogOut {
        /// Who asks.
        token: TokenHash,
        /// Which session in text form; empty for the token's own.
        session: String,
    },
    /// `AccountService.ListSessions`.
    ListSessions {
        /// Who asks.
        token: TokenHash,
    },
    /// `AccountService.RotateKey`.
    RotateKey {
        /// Who asks.
        token: TokenHash,
        /// The next statement.
        statement: SignedKeyStatement,
    },
    /// `AccountService.MoveUser`.
    MoveUser {
        /// Who asks.
        token: TokenHash,
        /// The user's word.
        moved: SignedMove,
    },
    /// Asks whether a token is good: before a watch or a list, which the shell answers from what was published.
    Authorize {
        /// Who asks.
        token: TokenHash,
    },
    /// `DirectoryService.GetUser`.
    GetUser {
        /// Who asks.
        token: TokenHash,
        /// As typed: `name`, `name@server-name` or `name@server-id`.
        user: String,
    },
    /// `MessageService.Attach`.
    Attach {
        /// Who asks.
        token: TokenHash,
        /// The stream that will receive, if the answer is good.
        attachment: AttachmentId,
        /// What the device asks for.
        attach: AttachRequest,
    },
    /// `MessageService.AcknowledgeMessages`.
    AcknowledgeMessages {
        /// Who asks.
        token: TokenHash,
        /// The place up to which the device has all, in text form.
        cursor: String,
    },
    /// `MessageService.ReadInbox`: asks which page may be read. The shell reads it from what is on disk.
    ReadInbox {
        /// Who asks.
        token: TokenHash,
        /// The place before which the page ends, in text form; empty for the end of the inbox.
        before: String,
    },
    /// `MessageService.GetChannelKey`: asks which key may be read. The shell reads it from what is on disk.
    GetChannelKey {
        /// Who asks.
        token: TokenHash,
        /// Which.
        wanted: GetChannelKeyRequest,
    },
    /// `MessageService.Detach`.
    Detach {
        /// Who asks.
        token: TokenHash,
    },
    /// `MessageService.SendMessage`.
    SendMessage {
        /// Who asks.
        token: TokenHash,
        /// The message.
        message: SealedMessage,
    },
    /// `MessageService.PostToChannel`.
    PostToChannel {
        /// Who asks.
        token: TokenHash,
        /// The post.
        post: SealedPost,
        /// Channel keys for members who lack it.
        wraps: Vec<ChannelKeyWrap>,
    },
    /// `FileService.CreateFile`.
    CreateFile {
        /// Who asks.
        token: TokenHash,
        /// For what.
        file: CreateFileRequest,
    },
    /// `FileService.UploadFile`: may bytes be brought?
    UploadFile {
        /// Who asks.
        token: TokenHash,
        /// The file, in text form.
        file: String,
    },
    /// `FileService.DownloadFile`: may bytes be had, and where are they?
    DownloadFile {
        /// Who asks.
        token: TokenHash,
        /// The file, in text form.
        file: String,
        /// The home that keeps it, in text form.
        home: String,
        /// From which byte on.
        offset: u64,
    },
    /// `FederationService.Transfer`: may a peer have bytes, and where are they?
    FetchFile {
        /// Who asks, perhaps for another.
        peer: ServerId,
        /// What it sent.
        fetch: FileFetch,
    },
    /// `OperatorService.CreateInvite`.
    CreateInvite {
        /// Fresh random text from the shell, which shows it if the answer is good.
        invite: String,
    },
    /// `OperatorService.ListAccounts`.
    ListAccounts,
    /// `OperatorService.SetDisabled`.
    SetDisabled {
        /// The bare name.
        user: String,
        /// Whether to disable or enable.
        disabled: bool,
    },
    /// `OperatorService.ListPeers`.
    ListPeers,
    /// `OperatorService.Explain`.
    Explain {
        /// As typed: `name`, `name@server-name` or `name@server-id`.
        user: String,
    },
    /// `OperatorService.Admit`.
    Admit {
        /// The server's name.
        name: String,
        /// Its id, in hexadecimal.
        server_id: String,
        /// For how many days.
        days: u32,
    },
    /// `OperatorService.RevokeAdmission`.
    RevokeAdmission {
        /// The server's id, in hexadecimal.
        server_id: String,
    },
    /// `OperatorService.SetBlocked`.
    SetBlocked {
        /// The name that it has here, or its id.
        server: String,
        /// Whether to block or to let it in again.
        is_blocked: bool,
    },
}
