//! Attached streams: between the node's events and the `Attach` responses of clients.
//!
//! Invariants: every stream that the node knows of ends exactly once, whoever ends it, and the node hears of it unless
//! it was the node; a client that goes away is reported although the driver's queue may be full, because the room for
//! that report is taken before the stream exists. Deciding what a broken stream means for its user is the node's.

use std::{
    collections::BTreeMap,
    pin::Pin,
    task::{Context, Poll},
};

use prost::Message as _;
use socp::{input::AttachmentId, rejection::Rejection, v1};
use tokio::sync::mpsc;
use tokio_stream::Stream;

use crate::{
    limits::{ATTACHMENT_BYTES_MAX, ATTACHMENT_EVENTS_MAX, ATTACHMENTS_MAX},
    queue,
};

/// The writing end of one stream.
pub type Events = queue::Sender<v1::AttachResponse, Rejection>;

/// Makes streams, and tells the driver of those that their clients dropped.
#[derive(Clone, Debug)]
pub struct Streams {
    ended: mpsc::Sender<AttachmentId>,
}

/// Makes the two sides by which streams report their end.
pub fn streams() -> (Streams, mpsc::Receiver<AttachmentId>) {
    let (ended, reports) = mpsc::channel(ATTACHMENTS_MAX);
    (Streams { ended }, reports)
}

impl Streams {
    /// Makes the two ends of a stream. Rejects: TOO_MANY.
    pub fn open(&self, attachment: AttachmentId) -> Result<(Events, EventStream), Rejection> {
        let report = self.ended.clone().try_reserve_owned().map_err(|_| {
            Rejection::new(v1::Reason::TooMany, "too many devices are attached to this server")
                .with("limit", ATTACHMENTS_MAX.to_string())
        })?;
        let (events, queue) = queue::bounded(ATTACHMENT_EVENTS_MAX, ATTACHMENT_BYTES_MAX);
        Ok((events, EventStream { queue: Some(queue), attachment, report: Some(report) }))
    }

    /// How many there are, whether the node knows of them or not.
    #[cfg(test)]
    pub fn count(&self) -> usize {
        self.ended.max_capacity() - self.ended.capacity()
    }
}

/// What one client reads: events, then at most one rejection. Dropping it ends the attachment.
pub struct EventStream {
    /// `None` only while dropping.
    queue: Option<queue::Receiver<v1::AttachResponse, Rejection>>,
    attachment: AttachmentId,
    report: Option<mpsc::OwnedPermit<AttachmentId>>,
}

impl Stream for EventStream {
    type Item = Result<v1::AttachResponse, Rejection>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match &mut self.queue {
            Some(queue) => Pin::new(queue).poll_next(context),
            None => Poll::Ready(None),
        }
    }
}

impl Drop for EventStream {
    fn drop(&mut self) {
        // In this order: whoever reads the report finds the queue abandoned.
        self.queue = None;
        if let Some(report) = self.report.take() {
            report.send(self.attachment);
        }
    }
}

/// The streams that the node may send to.
#[derive(Default)]
pub struct Registry {
    streams: BTreeMap<AttachmentId, Events>,
}

impl Registry {
    /// Takes a stream in. False, and the stream is dropped, if its client is gone already: the report of that may have
    /// been read before, so the node must not hear of the stream at all.
    #[must_use]
    pub fn insert(&mut self, attachment: AttachmentId, events: Events) -> bool {
        let waited_for = !events.is_abandoned();
        if waited_for {
            self.streams.insert(attachment, events);
        }
        waited_for
    }

    /// Hands an event to a stream. False if the stream is too slow: it is ended after this event, which its client can
    /// still read, since the sender is told that it was handed over; the node is to be told as if the stream broke. An
    /// event for a stream that is no more is dropped.
    #[must_use]
    pub fn deliver(&mut self, attachment: AttachmentId, event: v1::AttachResponse) -> bool {
        let Some(events) = self.streams.get(&attachment) else {
            return true;
        };
        let bytes = event.encoded_len();
        if events.push(event, bytes).is_ok() && !events.is_full() {
            return true;
        }
        let slow = Rejection::new(v1::Reason::TooMany, "too many events were left unread on this stream")
            .with("limit", ATTACHMENT_EVENTS_MAX.to_string());
        self.end(attachment, Some(slow));
        false
    }

    /// Ends a stream after what was handed to it.
    pub fn end(&mut self, attachment: AttachmentId, rejection: Option<Rejection>) {
        if let Some(events) = self.streams.remove(&attachment) {
            events.end(rejection);
        }
    }

    /// Ends all streams, because the server cannot go on.
    pub fn end_all(&mut self, rejection: &Rejection) {
        std::mem::take(&mut self.streams).into_values().for_each(|events| events.end(Some(rejection.clone())));
    }

    /// Takes out a stream that its client dropped. False if it was ended here before, so that the node knows.
    #[must_use]
    pub fn forget(&mut self, attachment: AttachmentId) -> bool {
        self.streams.remove(&attachment).is_some()
    }

    /// Comes when a stream has given its client all that it was handed, or its client is gone; `None` for a stream that is no
    /// more.
    pub fn drained(&self, attachment: AttachmentId) -> Option<queue::Drained<v1::AttachResponse, Rejection>> {
        self.streams.get(&attachment).map(queue::Sender::drained)
    }

    /// How many streams are attached.
    pub fn count(&self) -> usize {
        self.streams.len()
    }
}

#[cfg(test)]
mod tests {
    use tokio_stream::StreamExt as _;

    use super::*;

    const ID: AttachmentId = AttachmentId(7);

    fn event(bytes: usize) -> v1::AttachResponse {
        let post = v1::ReceivedPost { wrapped_channel_key: vec![0; bytes].into(), ..Default::default() };
        v1::AttachResponse { event: Some(v1::attach_response::Event::Post(post)), ..Default::default() }
    }

    fn attached() -> (Registry, EventStream, mpsc::Receiver<AttachmentId>) {
        let (streams, reports) = streams();
        let (events, stream) = streams.open(ID).unwrap();
        let mut registry = Registry::default();
        assert!(registry.insert(ID, events));
        (registry, stream, reports)
    }

    #[tokio::test]
    async fn a_stream_that_the_node_ends_gives_its_events_and_then_the_reason() {
        let (mut registry, mut stream, mut reports) = attached();
        assert!(registry.deliver(ID, event(3)));
        registry.end(ID, Some(Rejection::new(v1::Reason::Replaced, "attached again")));
        assert_eq!(stream.next().await, Some(Ok(event(3))));
        assert_eq!(stream.next().await.unwrap().unwrap_err().reason, v1::Reason::Replaced);
        assert_eq!(stream.next().await, None);
        drop(stream);
        assert_eq!(reports.recv().await, Some(ID));
        assert!(!registry.forget(ID), "the node ended it, so it is not told");
    }

    #[tokio::test]
    async fn an_attachment_that_leaves_too_many_events_unread_ends() {
        let (mut registry, mut stream, _reports) = attached();
        for _ in 1..ATTACHMENT_EVENTS_MAX {
            assert!(registry.deliver(ID, event(1)));
        }
        assert!(!registry.deliver(ID, event(1)), "the last that fits; its sender is told that it was handed over");
        assert_eq!(registry.count(), 0);
        for _ in 0..ATTACHMENT_EVENTS_MAX {
            assert!(stream.next().await.unwrap().is_ok());
        }
        assert_eq!(stream.next().await.unwrap().unwrap_err().reason, v1::Reason::TooMany);
    }

    #[test]
    fn an_attachment_that_leaves_too_many_bytes_unread_ends() {
        let (mut registry, _stream, _reports) = attached();
        let half = ATTACHMENT_BYTES_MAX / 2;
        assert!(registry.deliver(ID, event(half)));
        assert!(!registry.deliver(ID, event(half)));
        assert_eq!(registry.count(), 0);
    }

    #[tokio::test]
    async fn a_client_that_goes_away_is_reported_once() {
        let (mut registry, stream, mut reports) = attached();
        drop(stream);
        assert_eq!(reports.recv().await, Some(ID));
        assert!(registry.forget(ID));
        assert!(!registry.forget(ID));
        assert!(reports.try_recv().is_err());
    }

    #[test]
    fn a_client_that_went_away_before_the_driver_saw_it_is_never_attached() {
        let (streams, mut reports) = streams();
        let (events, stream) = streams.open(ID).unwrap();
        drop(stream);
        assert_eq!(reports.try_recv(), Ok(ID));
        assert!(!Registry::default().insert(ID, events));
    }

    #[test]
    fn one_stream_more_than_the_limit_is_refused() {
        let (streams, _reports) = streams();
        let all: Vec<_> = (0..ATTACHMENTS_MAX as u64).map(|id| streams.open(AttachmentId(id)).unwrap()).collect();
        assert_eq!(streams.open(ID).err().unwrap().reason, v1::Reason::TooMany);
        drop(all);
    }
}
