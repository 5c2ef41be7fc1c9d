//! What runs in the server's processes: transaction ids, and local transactions without one.

use pgrx::pg_sys;

/// A transaction of a backend, with or without a transaction id, as seen from outside.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LocalTransaction {
    /// Index in `ProcGlobal->allProcs`.
    proc: usize,
    lxid: u32,
}

/// The next transaction id, 64 bits (`ShmemVariableCache->nextXid`): every one that runs is lower.
pub fn next_xid() -> u64 {
    // SAFETY: shared memory that lives as long as the process is attached; an aligned word of 8 bytes. A backend's
    // own id has been counted before it changes any page.
    unsafe { std::ptr::read_volatile(&raw const (*pg_sys::ShmemVariableCache).nextXid.value) }
}

/// The lowest top-level transaction id that a process has, 64 bits; [`next_xid`] if none has any. Prepared
/// transactions are left out.
///
/// A page that a transaction had changed before the call is never judged as that of an ended one while the
/// transaction runs: `GetNewTransactionId` (varsup.c 15.18) stores the id in the backend's PGPROC before it returns.
pub fn oldest_running_xid() -> u64 {
    let next = next_xid();
    let age = |xid: u32| u64::from((next as u32).wrapping_sub(xid));
    let oldest = processes()
        .map(|process| process.xid)
        .filter(|xid| *xid != 0)
        .map(age)
        // An id that was given out after `next` was read is no older.
        .filter(|age| *age < 1 << 31)
        .max();
    next - oldest.unwrap_or(0).min(next)
}

/// The transactions that run in backends, vacuums among them.
pub fn local_transactions() -> Vec<LocalTransaction> {
    processes()
        .enumerate()
        .filter(|(_, process)| process.lxid != 0)
        .map(|(proc, process)| LocalTransaction {
            proc,
            lxid: process.lxid,
        })
        .collect()
}

/// Whether a transaction runs still. True, too, if another backend in the same place runs one of the same number.
pub fn is_running(transaction: LocalTransaction) -> bool {
    let mut process = processes().skip(transaction.proc);
    process
        .next()
        .is_some_and(|process| process.lxid == transaction.lxid)
}

struct Process {
    xid: u32,
    lxid: u32,
}

/// The processes that can run transactions: those before the PGPROCs of auxiliary processes and of prepared
/// transactions, which are the last (`InitProcGlobal`, proc.c 15.18).
fn processes() -> impl Iterator<Item = Process> {
    // SAFETY: plain variables, set before any process reads pages.
    let (all, count) = unsafe {
        (
            (*pg_sys::ProcGlobal).allProcs,
            usize::try_from(pg_sys::MaxBackends).unwrap_or(0),
        )
    };
    (0..count).map(move |index| {
        // SAFETY: the array has more than `count` elements and stays where it is; xid and lxid are aligned words
        // that their owners change without a lock that we would need (as `GetSnapshotData` reads xids).
        unsafe {
            let process = all.add(index);
            Process {
                xid: std::ptr::read_volatile(&raw const (*process).xid).into_inner(),
                lxid: std::ptr::read_volatile(&raw const (*process).lxid),
            }
        }
    })
}
