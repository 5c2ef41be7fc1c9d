//! How many threads of a process turn log into pages at once.
//!
//! Whoever needs pages works on them itself, and helpers join it as long as the process has threads left. So
//! nobody waits for a thread, and six nodes in one process have together no more helpers than one alone. A helper
//! is a thread of the caller's: one of a background thread steps back like that (see [`super::background`]), one
//! of a reader does not.

use std::convert::Infallible;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::Mutex;

/// The threads that a process has for redo. Clones share them.
#[derive(Clone, Debug)]
pub struct RedoThreads {
    count: NonZeroUsize,
    /// Helpers that may still be started.
    free: Arc<AtomicUsize>,
}

/// A helper's right to exist.
struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl Default for RedoThreads {
    /// As many as the machine has cores.
    fn default() -> Self {
        RedoThreads::new(std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN))
    }
}

impl RedoThreads {
    /// `threads` of them, one caller included.
    pub fn new(threads: NonZeroUsize) -> RedoThreads {
        RedoThreads {
            count: threads,
            free: Arc::new(AtomicUsize::new(threads.get() - 1)),
        }
    }

    /// With how many threads a caller can work at most.
    pub fn count(&self) -> usize {
        self.count.get()
    }

    fn take_place(&self) -> Option<Place> {
        let less = |free: usize| free.checked_sub(1);
        let taken = self.free.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        taken.ok().map(|_| Place(Arc::clone(&self.free)))
    }

    /// Does `here`, and meanwhile `ahead` on a helper if there is one; otherwise `ahead` is not done. It is handed
    /// whether it is awaited by now: what can be done later is better left then.
    ///
    /// # Panics
    /// One of them panicked.
    pub fn with_ahead<A: Send, H>(
        &self,
        ahead: impl FnOnce(&AtomicBool) -> A + Send,
        here: impl FnOnce() -> H,
    ) -> (Option<A>, H) {
        let Some(place) = self.take_place() else {
            return (None, here());
        };
        let is_awaited = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let name = "redo helper".to_owned();
            let help = || {
                let _place = place;
                ahead(&is_awaited)
            };
            let helper = std::thread::Builder::new().name(name).spawn_scoped(scope, help);
            let here = here();
            is_awaited.store(true, Ordering::Relaxed);
            let ahead = helper.ok().map(|helper| match helper.join() {
                Ok(ahead) => ahead,
                Err(panic) => std::panic::resume_unwind(panic),
            });
            (ahead, here)
        })
    }

    /// [`RedoThreads::run`] of what cannot fail.
    ///
    /// # Panics
    /// The work panicked.
    pub fn map<T: Sync, R: Send>(
        &self,
        items: &[T],
        may_help: impl Fn() -> bool + Sync,
        work: impl Fn(&T) -> R + Sync,
    ) -> Vec<R> {
        let work = |item: &T, (): &mut ()| Ok::<R, Infallible>(work(item));
        match self.run(items, may_help, work) {
            Ok(results) => results,
            Err(never) => match never {},
        }
    }

    /// Does `work` on each item, here and on helpers. They join, and stay from one item to the next, while
    /// `may_help` says so. Each thread has an `S` of its own, which it keeps from one item to the next. Returns the
    /// results in the items' order.
    ///
    /// # Errors
    /// Of the items whose work failed the first one's error. After a failure no item is begun.
    ///
    /// # Panics
    /// The work panicked.
    pub fn run<T: Sync, S: Default, R: Send, E: Send>(
        &self,
        items: &[T],
        may_help: impl Fn() -> bool + Sync,
        work: impl Fn(&T, &mut S) -> Result<R, E> + Sync,
    ) -> Result<Vec<R>, E> {
        let next = AtomicUsize::new(0);
        let has_failed = AtomicBool::new(false);
        let done = Mutex::new(Vec::with_capacity(items.len()));
        let take = || {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let item = items.get(index)?;
            (!has_failed.load(Ordering::Relaxed)).then_some((index, item))
        };
        let do_one = |(index, item): (usize, &T), own: &mut S| {
            let result = work(item, own);
            if result.is_err() {
                has_failed.store(true, Ordering::Relaxed);
            }
            done.lock().push((index, result));
        };
        std::thread::scope(|scope| {
            let mut own = S::default();
            while let Some(item) = take() {
                let has_more = next.load(Ordering::Relaxed) < items.len();
                if has_more
                    && may_help()
                    && let Some(place) = self.take_place()
                {
                    let help = || {
                        let _place = place;
                        let mut own = S::default();
                        while may_help()
                            && let Some(item) = take()
                        {
                            do_one(item, &mut own);
                        }
                    };
                    let name = "redo helper".to_owned();
                    // Without another thread the caller does it alone.
                    let _ = std::thread::Builder::new().name(name).spawn_scoped(scope, help);
                }
                do_one(item, &mut own);
            }
        });
        let mut done = done.into_inner();
        done.sort_unstable_by_key(|(index, _)| *index);
        done.into_iter().map(|(_, result)| result).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;
    use std::sync::Barrier;
    use std::thread::ThreadId;

    fn threads(count: usize) -> RedoThreads {
        RedoThreads::new(NonZeroUsize::new(count).unwrap())
    }

    fn never(_: &u32, _: &mut ()) -> Result<u32, ()> {
        panic!("no item is begun")
    }

    #[test]
    fn results_are_those_of_one_thread_in_the_order_of_the_items() {
        let items: Vec<u32> = (0..1000).collect();
        let square = |item: &u32, _: &mut ()| Ok::<u32, ()>(item * item);
        let alone = threads(1).run(&items, || true, square).unwrap();
        for count in [2, 7] {
            assert_eq!(threads(count).run(&items, || true, square).unwrap(), alone);
        }
        assert_eq!(alone[31], 961);
        assert_eq!(threads(2).run(&[], || true, never), Ok(Vec::new()));
    }

    #[test]
    fn the_first_error_is_returned_and_ends_the_work() {
        let items: Vec<u32> = (0..100_000).collect();
        let begun = AtomicUsize::new(0);
        let outcome = threads(4).run(
            &items,
            || true,
            |item, _: &mut ()| {
                begun.fetch_add(1, Ordering::Relaxed);
                if *item >= 10 { Err(*item) } else { Ok(()) }
            },
        );
        assert_eq!(outcome, Err(10));
        assert!(begun.into_inner() < 1000);
    }

    #[test]
    fn callers_share_the_helpers_and_give_them_back() {
        let two = threads(2);
        let place = two.clone().take_place();
        assert!(place.is_some() && two.take_place().is_none());
        let used = Mutex::new(HashSet::<ThreadId>::new());
        let note = |_: &u32, _: &mut ()| {
            used.lock().insert(std::thread::current().id());
            Ok::<(), ()>(())
        };
        let items: Vec<u32> = (0..100).collect();
        two.run(&items, || true, note).unwrap();
        assert_eq!(used.lock().len(), 1, "there is no helper left");
        drop(place);
        // Two items that wait for each other need two threads.
        let barrier = Barrier::new(2);
        let meet = |_: &u32, _: &mut ()| {
            barrier.wait();
            Ok::<(), ()>(())
        };
        two.run(&[0, 1], || true, meet).unwrap();
        assert!(two.take_place().is_some());
    }

    #[test]
    fn what_comes_next_is_done_meanwhile_if_there_is_a_helper() {
        assert_eq!(threads(1).with_ahead(|_| 1, || 2), (None, 2));
        let two = threads(2);
        let barrier = Barrier::new(2);
        let outcome = two.with_ahead(|_| barrier.wait().is_leader(), || barrier.wait().is_leader());
        assert!(matches!(outcome, (Some(ahead), here) if ahead != here));
        assert!(two.take_place().is_some());
    }

    #[test]
    fn who_works_ahead_is_told_when_it_is_awaited() {
        let until_awaited = |is_awaited: &AtomicBool| {
            while !is_awaited.load(Ordering::Relaxed) {
                std::thread::yield_now();
            }
            7
        };
        assert_eq!(threads(2).with_ahead(until_awaited, || 2), (Some(7), 2));
    }

    #[test]
    fn nobody_helps_who_may_not() {
        let caller = std::thread::current().id();
        let is_caller = |_: &u32, _: &mut ()| (std::thread::current().id() == caller).then_some(()).ok_or(());
        let items: Vec<u32> = (0..100).collect();
        assert!(threads(8).run(&items, || false, is_caller).is_ok());
    }
}
