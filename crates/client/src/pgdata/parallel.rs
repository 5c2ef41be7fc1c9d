//! Work on many files, by several threads: most of it is the kernel's, which changes a directory for one thread at a
//! time.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::failure::{Failure, Result};

/// More than there are cores on a small machine: a thread that waits for a directory's lock is none.
const THREADS: usize = 4;
/// Items that a thread takes at once: few, so that all threads end at about the same time.
const ITEMS_PER_TURN: usize = 16;

/// Does `work` with every item, in no particular order: turns are taken from as many stretches of the items as there are
/// threads, since neighbours mostly are files of one directory. The first error that a thread meets ends its part and,
/// soon, the others'.
pub(super) fn for_each<T: Sync>(items: &[T], work: impl Fn(&T) -> Result<()> + Sync) -> Result<()> {
    if items.len() <= ITEMS_PER_TURN {
        return items.iter().try_for_each(work);
    }
    let turns: Vec<&[T]> = items.chunks(ITEMS_PER_TURN).collect();
    let turns_per_stretch = turns.len().div_ceil(THREADS);
    let next = AtomicUsize::new(0);
    let take_turns = || {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let (stretch, in_stretch) = (number % THREADS, number / THREADS);
            if in_stretch >= turns_per_stretch {
                return Ok(());
            }
            // The last stretches may be shorter.
            let turn = turns.get(stretch * turns_per_stretch + in_stretch);
            if let Err(failure) = turn.into_iter().copied().flatten().try_for_each(&work) {
                next.store(THREADS * turns_per_stretch, Ordering::Relaxed);
                return Err(failure);
            }
        }
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(take_turns)).collect();
        threads.into_iter().try_for_each(|thread| {
            thread
                .join()
                .unwrap_or_else(|_| Err(Failure::new("a thread that works on files has panicked")))
        })
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn everything_is_done_once() {
        for count in [
            0,
            1,
            ITEMS_PER_TURN,
            ITEMS_PER_TURN + 1,
            5 * ITEMS_PER_TURN,
            10 * ITEMS_PER_TURN + 7,
        ] {
            let items: Vec<usize> = (0..count).collect();
            let done = Mutex::new(Vec::new());
            for_each(&items, |item| {
                done.lock().unwrap().push(*item);
                Ok(())
            })
            .unwrap();
            let done = done.into_inner().unwrap();
            assert_eq!(done.len(), count);
            assert_eq!(
                done.into_iter().collect::<BTreeSet<_>>(),
                items.into_iter().collect()
            );
        }
    }

    #[test]
    fn an_error_comes_back() {
        let items: Vec<usize> = (0..1000).collect();
        let failed = for_each(&items, |item| match item {
            500 => Err(Failure::new("no room")),
            _ => Ok(()),
        });
        assert_eq!(failed.unwrap_err().message, "no room");
    }
}
