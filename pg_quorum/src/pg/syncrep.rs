//! The queue in which commits wait (syncrep.c, 15.18): its position is the VDL.

use pg_quorum_types::Lsn;
use pgrx::pg_sys;

/// Place of `SyncRepLock` in the main array (lwlocknames.txt, PostgreSQL 15).
const SYNC_REP_LOCK: usize = 32;
/// `SYNC_REP_WAIT_COMPLETE` (syncrep.h).
const WAIT_COMPLETE: i32 = 2;

const _: () = assert!(size_of::<pg_sys::WalSndCtlData>() == 80);
const _: () = assert!(std::mem::offset_of!(pg_sys::WalSndCtlData, lsn) == 48);

/// Moves the queues of all three modes to `vdl` and wakes every session whose commit is below it, in LSN
/// order (`SyncRepReleaseWaiters` and `SyncRepWakeQueue`). Link worker's main thread, or a process that ships
/// the last records. Returns how many were woken.
pub fn release_waiters(vdl: Lsn) -> usize {
    // SAFETY: WalSndCtl and MainLWLockArray are set in every process attached to shared memory; the lock
    // protects the queues and positions. Nothing in between raises an error.
    unsafe {
        let lock = &raw mut (*pg_sys::MainLWLockArray.add(SYNC_REP_LOCK)).lock;
        pg_sys::LWLockAcquire(lock, pg_sys::LWLockMode::LW_EXCLUSIVE);
        let control = pg_sys::WalSndCtl;
        let mut woken = 0;
        for mode in 0..3 {
            if (*control).lsn[mode] < vdl.0 {
                (*control).lsn[mode] = vdl.0;
                woken += wake_queue(&raw mut (*control).SyncRepQueue[mode], vdl);
            }
        }
        pg_sys::LWLockRelease(lock);
        woken
    }
}

/// Sends SIGTERM to every session whose commit waits: the commit window lets it through once commits are given
/// up. Returns how many there were.
pub fn terminate_waiters() -> usize {
    let links = std::mem::offset_of!(pg_sys::PGPROC, syncRepLinks);
    // SAFETY: as in `release_waiters`; the queue is only read, and a process in it lives.
    unsafe {
        let lock = &raw mut (*pg_sys::MainLWLockArray.add(SYNC_REP_LOCK)).lock;
        pg_sys::LWLockAcquire(lock, pg_sys::LWLockMode::LW_EXCLUSIVE);
        let control = pg_sys::WalSndCtl;
        let mut waiting = 0;
        for mode in 0..3 {
            let queue = &raw mut (*control).SyncRepQueue[mode];
            let mut element = (*queue).next;
            while element != queue && !element.is_null() {
                let process = element.byte_sub(links).cast::<pg_sys::PGPROC>();
                libc::kill((*process).pid, libc::SIGTERM);
                waiting += 1;
                element = (*element).next;
            }
        }
        pg_sys::LWLockRelease(lock);
        waiting
    }
}

/// # Safety
/// `queue` is one of the SyncRep queues and the caller holds SyncRepLock exclusively.
unsafe fn wake_queue(queue: *mut pg_sys::SHM_QUEUE, vdl: Lsn) -> usize {
    let links = std::mem::offset_of!(pg_sys::PGPROC, syncRepLinks);
    let mut woken = 0;
    // SAFETY: the queue is circular, its elements are PGPROCs linked by syncRepLinks, and the lock keeps
    // it still. SHMQueueDelete (shmqueue.c) in place: the neighbours are joined, the element's links are null.
    unsafe {
        loop {
            let element = (*queue).next;
            if element == queue || element.is_null() {
                return woken;
            }
            let process = element.byte_sub(links).cast::<pg_sys::PGPROC>();
            if vdl.0 < (*process).waitLSN {
                return woken;
            }
            let (previous, next) = ((*element).prev, (*element).next);
            (*previous).next = next;
            (*next).prev = previous;
            (*element).prev = std::ptr::null_mut();
            (*element).next = std::ptr::null_mut();
            std::sync::atomic::fence(std::sync::atomic::Ordering::Release);
            std::ptr::write_volatile(&raw mut (*process).syncRepState, WAIT_COMPLETE);
            pg_sys::SetLatch(&raw mut (*process).procLatch);
            woken += 1;
        }
    }
}
