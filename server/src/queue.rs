//! A bounded queue between the driver, which never waits, and one stream, which may be slow.
//!
//! Bounded by items and by bytes: an item that does not fit is refused, and what to do about it is the writer's affair.
//! The end is apart from the items, so it fits always, and it comes after all items that were taken. An empty queue
//! holds no buffer, since most queues are empty most of the time. Absent on purpose: waiting for room, but for all of it.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use tokio_stream::Stream;

/// An item did not fit. The queue is as before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

struct State<T, E> {
    items: VecDeque<(T, usize)>,
    bytes: usize,
    end: Option<Option<E>>,
    reader: Option<Waker>,
    reader_gone: bool,
    /// Wait for all items to be taken.
    writers: Vec<Waker>,
}

struct Shared<T, E> {
    state: Mutex<State<T, E>>,
    items_max: usize,
    bytes_max: usize,
}

impl<T, E> Shared<T, E> {
    fn state(&self) -> MutexGuard<'_, State<T, E>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_full(&self, state: &State<T, E>) -> bool {
        state.items.len() >= self.items_max || state.bytes >= self.bytes_max
    }

    fn end(&self, end: Option<E>) {
        let waker = {
            let mut state = self.state();
            state.end.get_or_insert(end);
            state.reader.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// The writing end. Dropping it ends the queue, as [`Sender::end`] with nothing does.
pub struct Sender<T, E>(Arc<Shared<T, E>>);

/// The reading end: a stream of items, then of the error that the queue was ended with, if any.
pub struct Receiver<T, E>(Arc<Shared<T, E>>);

/// Makes a queue that takes items until it has so many, or so many bytes; the last one taken may go over `bytes_max`.
pub fn bounded<T, E>(items_max: usize, bytes_max: usize) -> (Sender<T, E>, Receiver<T, E>) {
    let state =
        State { items: VecDeque::new(), bytes: 0, end: None, reader: None, reader_gone: false, writers: Vec::new() };
    let shared = Arc::new(Shared { state: Mutex::new(state), items_max, bytes_max });
    (Sender(Arc::clone(&shared)), Receiver(shared))
}

impl<T, E> Sender<T, E> {
    /// Puts an item at the end. One for a queue that has ended, or that nobody reads any more, is dropped.
    pub fn push(&self, item: T, bytes: usize) -> Result<(), Full> {
        let waker = {
            let mut state = self.0.state();
            if state.reader_gone || state.end.is_some() {
                return Ok(());
            }
            if self.0.is_full(&state) {
                return Err(Full);
            }
            state.items.push_back((item, bytes));
            state.bytes += bytes;
            state.reader.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
        Ok(())
    }

    /// Ends the queue after what is in it. Only the first end counts.
    pub fn end(&self, end: Option<E>) {
        self.0.end(end);
    }

    /// Tells whether the next item would be refused.
    pub fn is_full(&self) -> bool {
        self.0.is_full(&self.0.state())
    }

    /// How many items are in the queue, and bytes of them.
    pub fn depth(&self) -> (usize, usize) {
        let state = self.0.state();
        (state.items.len(), state.bytes)
    }

    /// Comes when all items that are in the queue have been taken, or nobody reads any more.
    pub fn drained(&self) -> Drained<T, E> {
        Drained(Arc::clone(&self.0))
    }

    /// Tells whether the reading end was dropped.
    pub fn is_abandoned(&self) -> bool {
        self.0.state().reader_gone
    }
}

/// Waits until a queue is empty.
pub struct Drained<T, E>(Arc<Shared<T, E>>);

impl<T, E> Future for Drained<T, E> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let mut state = self.0.state();
        if state.items.is_empty() {
            return Poll::Ready(());
        }
        if !state.writers.iter().any(|writer| writer.will_wake(context.waker())) {
            state.writers.push(context.waker().clone());
        }
        Poll::Pending
    }
}

impl<T, E> Drop for Sender<T, E> {
    fn drop(&mut self) {
        self.0.end(None);
    }
}

impl<T, E> Stream for Receiver<T, E> {
    type Item = Result<T, E>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut state = self.0.state();
        if let Some((item, bytes)) = state.items.pop_front() {
            state.bytes -= bytes;
            let writers = if state.items.is_empty() {
                state.items = VecDeque::new();
                std::mem::take(&mut state.writers)
            } else {
                Vec::new()
            };
            drop(state);
            writers.into_iter().for_each(Waker::wake);
            return Poll::Ready(Some(Ok(item)));
        }
        if let Some(end) = &mut state.end {
            return Poll::Ready(end.take().map(Err));
        }
        state.reader = Some(context.waker().clone());
        Poll::Pending
    }
}

impl<T, E> Drop for Receiver<T, E> {
    fn drop(&mut self) {
        let (items, writers) = {
            let mut state = self.0.state();
            state.reader_gone = true;
            state.bytes = 0;
            (std::mem::take(&mut state.items), std::mem::take(&mut state.writers))
        };
        drop(items);
        writers.into_iter().for_each(Waker::wake);
    }
}

#[cfg(test)]
mod tests {
    use tokio_stream::StreamExt as _;

    use super::*;

    #[tokio::test]
    async fn items_come_in_order_and_the_end_after_them() {
        let (sender, mut receiver) = bounded::<u8, &str>(2, 100);
        sender.push(1, 1).unwrap();
        sender.push(2, 1).unwrap();
        sender.end(Some("over"));
        sender.end(Some("over again"));
        assert_eq!(receiver.next().await, Some(Ok(1)));
        assert_eq!(receiver.next().await, Some(Ok(2)));
        assert_eq!(receiver.next().await, Some(Err("over")));
        assert_eq!(receiver.next().await, None);
        assert_eq!(receiver.next().await, None);
    }

    #[tokio::test]
    async fn a_queue_takes_items_up_to_its_limit_and_refuses_one_more() {
        let (sender, mut receiver) = bounded::<u8, ()>(2, 100);
        sender.push(1, 99).unwrap();
        assert!(!sender.is_full());
        sender.push(2, 0).unwrap();
        assert!(sender.is_full());
        assert_eq!(sender.push(3, 0), Err(Full), "three items");
        assert_eq!(receiver.next().await, Some(Ok(1)));
        sender.push(3, 1_000).expect("the last one may go over the limit of bytes");
        assert_eq!(receiver.next().await, Some(Ok(2)));
        assert_eq!(sender.push(4, 0), Err(Full), "1,000 bytes of 100");
    }

    #[tokio::test]
    async fn a_reader_that_waits_is_woken_by_an_item_and_by_the_end() {
        let (sender, mut receiver) = bounded::<u8, ()>(2, 100);
        let reader = tokio::spawn(async move { (receiver.next().await, receiver.next().await) });
        tokio::task::yield_now().await;
        sender.push(1, 1).unwrap();
        tokio::task::yield_now().await;
        drop(sender);
        assert_eq!(reader.await.unwrap(), (Some(Ok(1)), None));
    }

    #[tokio::test]
    async fn all_writers_that_wait_are_woken_when_all_is_taken_and_when_nobody_reads_any_more() {
        let (sender, mut receiver) = bounded::<u8, ()>(4, 100);
        sender.drained().await;
        for end in ["taken", "gone"] {
            sender.push(1, 1).unwrap();
            sender.push(2, 1).unwrap();
            let waits = [tokio::spawn(sender.drained()), tokio::spawn(sender.drained())];
            tokio::task::yield_now().await;
            assert_eq!(receiver.next().await, Some(Ok(1)));
            tokio::task::yield_now().await;
            assert!(!waits.iter().any(tokio::task::JoinHandle::is_finished), "one is left: {end}");
            if end == "taken" {
                assert_eq!(receiver.next().await, Some(Ok(2)));
            } else {
                drop(std::mem::replace(&mut receiver, bounded(1, 1).1));
            }
            for waits in waits {
                waits.await.unwrap();
            }
        }
    }

    #[test]
    fn what_nobody_will_read_is_not_kept() {
        let (sender, receiver) = bounded::<Arc<()>, ()>(2, 100);
        let item = Arc::new(());
        sender.push(Arc::clone(&item), 1).unwrap();
        drop(receiver);
        assert!(sender.is_abandoned());
        sender.push(Arc::clone(&item), 1).unwrap();
        assert_eq!(Arc::strong_count(&item), 1);
    }
}
