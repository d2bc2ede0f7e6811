//! Deliberate mutations: one fault each, put where it breaks a promise, so that tests can be tested.
//!
//! Without the feature `mutations` every switch is a constant `false`, and nothing of this is left in a build. With it,
//! the environment variable `SOCP_MUTATION` names the one mutation of the process.

macro_rules! mutations {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// A fault that can be switched on where the core would otherwise do right.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[cfg_attr(not(feature = "mutations"), allow(dead_code, reason = "only named where it would be switched on"))]
        pub enum Mutation {
            $($(#[doc = $doc])+ $name,)+
        }

        #[cfg(feature = "mutations")]
        impl Mutation {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name,)+];
        }
    };
}

mutations! {
    /// Adverts reach no neighbour unasked.
    AdvertsNotPassedOn,
    /// Removals reach no neighbour unasked.
    RemovalsNotPassedOn,
    /// What came from one neighbour is passed on to no other.
    RelayKeepsToItself,
    /// Batches go to all neighbours, not only to those that get them from this server.
    BatchesFlood,
    /// The key statements that adverts name are not sent.
    StatementsNotSent,
    /// A server shows its own users to everybody but its own watchers.
    OwnUsersNotShown,
    /// The time online of every user bears the same number.
    OnlineSinceNotRenewed,
    /// A batch is applied though its number was applied before.
    PositionNotChecked,
    /// Held batches are not shown before the base has reached them.
    HeldNotShown,
    /// Held batches stay held when the base has reached them.
    HeldNotApplied,
    /// Any number of batches is held.
    HeldWithoutLimit,
    /// Any number of frames is kept until the hello comes that they overtook.
    EarlyWithoutLimit,
    /// Any number of key statements is kept until batches name them.
    StatementsWithoutLimit,
    /// Any number of nonces is outstanding.
    NoncesWithoutLimit,
    /// A user may have any number of sessions.
    SessionsWithoutLimit,
    /// Any number of admissions of one issuer is kept.
    AdmissionsWithoutLimit,
    /// Any number of servers is remembered whose admissions were ignored.
    IgnoredWithoutLimit,
    /// A batch is applied though its digest is another one.
    BatchDigestNotChecked,
    /// A removal changes the digest, and the user stays.
    RemovedStayInBase,
    /// Old entries are never signed again.
    NeverSignedAgain,
    /// A snapshot replaces the base whatever its entries are.
    SnapshotDigestNotChecked,
    /// A snapshot of an earlier position replaces the base.
    SnapshotGoesBack,
    /// An advert may name the key statement of somebody else.
    StatementOfAnotherTaken,
    /// What servers sign is believed without their signature.
    SignatureNotChecked,
    /// What was signed in an epoch that is over still counts.
    OldEpochTaken,
    /// A goodbye that asks to hold its users is like any other.
    HoldIgnored,
    /// Two batches of one number prove nothing.
    ContradictionIgnored,
    /// The users of an epoch that is over stay when a new one begins.
    OldEpochStaysShown,
    /// A server that is shown its own word of a higher epoch goes on under the lower one.
    OwnWordIgnored,
    /// A goodbye changes nothing.
    GoodbyeIgnored,
    /// A goodbye goes no further than to the neighbours.
    GoodbyeNotPassedOn,
    /// The users of an origin to which there is no way stay shown.
    UnreachableStayShown,
    /// The users of an origin leave the moment the way to it is gone.
    GraceNotGiven,
    /// The users of an origin leave in a revision each.
    LeaveOneByOne,
    /// An origin that returns is shown before what it has signed is here.
    ReturnShownIncomplete,
    /// An origin that returns is never shown again.
    ReturnNotShown,
    /// Who is behind asks nobody.
    CatchUpNotAsked,
    /// Nobody is told how far this server is.
    PositionsNotTold,
    /// An edge counts though only one end lists it.
    EdgeOfOneEnd,
    /// A list of neighbours counts however old it is.
    StaleListCounts,
    /// A link over which nothing comes stays in use.
    SilentLinkStays,
    /// A link stays however many frames on it were refused.
    RefusedWithoutLimit,
    /// A server that is not pinned may have a link.
    StrangerAdmitted,
    /// An admission counts though it was taken back.
    RevokedCounts,
    /// An admission counts though it is over.
    EndedCounts,
    /// A server that the operator blocked stays admitted.
    BlockedStays,
    /// A name is given to a second server.
    NameGivenTwice,
    /// A message is passed on however many links it passed.
    HopsNotCounted,
    /// A message is taken though the sender's home did not vouch for it.
    VoucherNotChecked,
    /// A message that was handed over before is handed over again.
    RepeatHandedOver,
    /// The sender is told that a message is kept before it is on disk.
    ToldBeforeWritten,
    /// A post is handed over, and its sender told, before it is on disk.
    PostToldBeforeWritten,
    /// A stream that comes back is given no posts that were made while it was away.
    PostsNotReplayed,
    /// Messages of one session go on in the order in which their signatures were checked.
    OrderNotKept,
    /// A message is taken though the one before it, of the same sender to the same recipient, is not there.
    OvertakingTaken,
    /// The sender is told that a message is queued before it is on disk.
    QueuedBeforeWritten,
    /// A message that was refused a moment ago is taken when a slow copy of it comes.
    RefusalForgotten,
    /// What is queued is never sent.
    QueuedNotSent,
    /// What became of a queued message is told to nobody.
    OutcomeNotKept,
    /// Any number of messages of one user is queued.
    OutboxWithoutLimit,
    /// A stream that catches up is given one page, and then only what is new.
    LiveAfterOnePage,
    /// A stream that catches up is given what was read, though the word has not come that it is on disk.
    ReadAheadOfTheWord,
    /// A cursor counts whatever message it was given for.
    CursorNotChecked,
    /// An inbox takes any number of messages.
    InboxWithoutLimit,
    /// What a device has not read goes to make room for more.
    UnreadDropped,
    /// The end of one session ends all others of its user.
    DetachEndsAllSessions,
    /// The late end of a stream ends the session that has another one by now.
    LateStreamEndsSession,
    /// A name may be registered again with another key.
    NameTakenOver,
    /// Who moved may log in as before.
    MovedStays,
    /// Every change counts two revisions.
    RevisionSkipped,
    /// A revision in which only contents change is published to nobody.
    UpdateNotPublished,
    /// A removal names another user than the one who is gone.
    RemovalNamesAnother,
    /// The digest that is published leaves removals out.
    DigestKeepsRemoved,
}

/// Whether this process runs with a mutation.
#[cfg(not(feature = "mutations"))]
pub(crate) const fn is_on(_: Mutation) -> bool {
    false
}

/// Whether this process runs with a mutation.
#[cfg(feature = "mutations")]
pub(crate) fn is_on(mutation: Mutation) -> bool {
    extern crate std;
    static ON: std::sync::OnceLock<Option<Mutation>> = std::sync::OnceLock::new();
    let chosen = ON.get_or_init(|| {
        let name = std::env::var("SOCP_MUTATION").ok()?;
        let named = Mutation::ALL.iter().find(|mutation| alloc::format!("{mutation:?}") == name);
        Some(*named.expect("SOCP_MUTATION names a mutation"))
    });
    *chosen == Some(mutation)
}
