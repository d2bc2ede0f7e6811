//! Outboxes: messages that wait on disk at their sender's home until the recipient's home has spoken.

use crate::message::Message;

/// A message as it waits on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Queued {
    /// Messages to one home go out in this order. A number never comes again while it is on disk.
    pub number: u64,
    /// When this server took it, Unix milliseconds.
    pub received_unix_ms: u64,
    /// The message.
    pub message: Message,
}
