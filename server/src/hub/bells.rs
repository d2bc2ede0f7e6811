//! How watchers are woken: each has a bell, and all are rung after something was published.
//!
//! A bell is one atomic cell of its watcher's own. Waiting takes no lock and no timer, and ringing takes one lock for all, which
//! nobody holds who publishes or reads.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
};

use futures_util::task::AtomicWaker;

/// The bells of all watchers, each at the place of its watcher's cursor, and how often they were to be rung.
#[derive(Debug, Default)]
pub struct Bells {
    announced: AtomicU64,
    bells: Mutex<Vec<Option<Arc<AtomicWaker>>>>,
}

/// The bell of one watcher.
#[derive(Debug)]
pub struct Bell {
    waker: Arc<AtomicWaker>,
    /// Of what was announced, that which its watcher has looked at.
    seen: u64,
}

impl Bells {
    fn bells(&self) -> MutexGuard<'_, Vec<Option<Arc<AtomicWaker>>>> {
        self.bells.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hangs up a bell at a place that no other has.
    pub fn hang(&self, place: usize) -> Bell {
        let waker = Arc::<AtomicWaker>::default();
        let mut bells = self.bells();
        if bells.len() <= place {
            bells.resize(place + 1, None);
        }
        bells[place] = Some(Arc::clone(&waker));
        Bell { waker, seen: self.announced.load(Ordering::Acquire) }
    }

    /// Takes the bell at a place down.
    pub fn take_down(&self, place: usize) {
        self.bells()[place] = None;
    }

    /// Rings all bells, for what was published before.
    pub fn ring(&self) {
        self.announced.fetch_add(1, Ordering::AcqRel);
        self.bells().iter().flatten().for_each(|waker| waker.wake());
    }
}

impl Bell {
    /// Says that all is looked at that was announced. To be called before looking, so that nothing later is slept through.
    pub fn look(&mut self, bells: &Bells) {
        self.seen = bells.announced.load(Ordering::Acquire);
    }

    /// Waits for what was announced since [`Self::look`].
    pub fn poll_rung(&self, bells: &Bells, context: &mut Context<'_>) -> Poll<()> {
        self.waker.register(context.waker());
        match bells.announced.load(Ordering::Acquire) == self.seen {
            true => Poll::Pending,
            false => Poll::Ready(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use futures_util::task::{ArcWake, waker};

    use super::*;

    /// Counts how often it is woken.
    #[derive(Default)]
    struct Count(AtomicU64);

    impl ArcWake for Count {
        fn wake_by_ref(count: &Arc<Self>) {
            count.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn what_is_announced_between_looking_and_waiting_is_not_slept_through() {
        let bells = Bells::default();
        let mut bell = bells.hang(0);
        let mut context = Context::from_waker(Waker::noop());
        assert!(bell.poll_rung(&bells, &mut context).is_pending());
        bell.look(&bells);
        bells.ring();
        assert!(bell.poll_rung(&bells, &mut context).is_ready());
        assert!(bell.poll_rung(&bells, &mut context).is_ready(), "until it is looked at");
        bell.look(&bells);
        assert!(bell.poll_rung(&bells, &mut context).is_pending());
    }

    #[test]
    fn a_ring_wakes_all_who_wait_once_and_nobody_else() {
        let bells = Bells::default();
        let (one, other, idle) = (bells.hang(0), bells.hang(2), bells.hang(1));
        let counts = [0; 3].map(|_| Arc::<Count>::default());
        let wakers = counts.clone().map(waker);
        for (bell, waker) in [&one, &other].into_iter().zip(&wakers) {
            assert!(bell.poll_rung(&bells, &mut Context::from_waker(waker)).is_pending());
        }
        bells.ring();
        bells.ring();
        let woken = || counts.each_ref().map(|count| count.0.load(Ordering::Relaxed));
        assert_eq!(woken(), [1, 1, 0]);
        bells.take_down(0);
        assert!(one.poll_rung(&bells, &mut Context::from_waker(&wakers[0])).is_ready());
        bells.ring();
        assert_eq!(woken(), [1, 1, 0]);
        drop(idle);
    }
}
