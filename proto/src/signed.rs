//! What is signed: a label, a zero byte, and the bytes of a statement exactly as they travel.
//!
//! The label keeps a signature made for one purpose from counting for another. Statements are kept and passed on as
//! received and never encoded again, so nothing depends on how an encoder orders fields.

use alloc::vec::Vec;

/// What a signature is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Label {
    /// A user's claim to a name and key; by the user's RSA key.
    KeyStatement,
    /// A login; by the user's RSA key.
    Login,
    /// A user's word that they moved; by the user's RSA key.
    Move,
    /// A message; by the sender's RSA key.
    Message,
    /// A post; by the sender's RSA key.
    Post,
    /// The TLS certificate of a server; by its identity key.
    Certificate,
    /// What became of messages; by the home's identity key.
    Outcome,
    /// A batch of the directory; by the origin's identity key.
    Batch,
    /// An origin's goodbye; by its identity key.
    Goodbye,
    /// To whom a server has links; by its identity key.
    Neighbours,
    /// That another server may take part; by the identity key of the server that vouches for it.
    Admission,
    /// What the sender's home checked; by its identity key.
    Submission,
    /// What a home says of one of its users; by its identity key.
    UserReply,
    /// That a home wants a file for one of its users; by its identity key.
    FileFetch,
}

impl Label {
    /// The label with its closing zero byte.
    pub fn as_bytes(self) -> &'static [u8] {
        match self {
            Self::KeyStatement => b"socp.v1.KeyStatement\0",
            Self::Login => b"socp.v1.LoginStatement\0",
            Self::Move => b"socp.v1.MoveStatement\0",
            Self::Message => b"socp.v1.MessageStatement\0",
            Self::Post => b"socp.v1.PostStatement\0",
            Self::Certificate => b"socp.v1.CertificateStatement\0",
            Self::Outcome => b"socp.v1.OutcomeStatement\0",
            Self::Batch => b"socp.federation.v1.BatchStatement\0",
            Self::Goodbye => b"socp.federation.v1.GoodbyeStatement\0",
            Self::Neighbours => b"socp.federation.v1.NeighboursStatement\0",
            Self::Admission => b"socp.federation.v1.AdmissionStatement\0",
            Self::Submission => b"socp.federation.v1.Submission\0",
            Self::UserReply => b"socp.federation.v1.UserReplyStatement\0",
            Self::FileFetch => b"socp.federation.v1.FileFetchStatement\0",
        }
    }
}

/// The bytes that are signed for `statement`.
pub fn signing_input(label: Label, statement: &[u8]) -> Vec<u8> {
    [label.as_bytes(), statement].concat()
}
