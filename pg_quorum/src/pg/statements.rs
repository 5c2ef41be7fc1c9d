//! The start of statements, where they can be cancelled: what they wait for, and when they are refused.

use std::ffi::c_int;
use std::sync::OnceLock;
use std::time::Duration;

use pg_quorum_types::Lsn;
use pgrx::PgSqlErrorCode;
use pgrx::pg_guard;
use pgrx::pg_sys;

use super::{clock, interrupts, report};
use crate::cache::Tick;
use crate::settings;
use crate::shared::{self, LogWait};

static NEXT_START: OnceLock<pg_sys::ExecutorStart_hook_type> = OnceLock::new();

/// Takes its place in the chain of hooks. In `_PG_init`.
pub fn register() {
    // SAFETY: in _PG_init, the place where hook variables are set.
    unsafe {
        let _ = NEXT_START.set(pg_sys::ExecutorStart_hook);
        pg_sys::ExecutorStart_hook = Some(executor_start);
    }
}

/// Statements that write wait when the log runs too far ahead of the quorum, or what the quorum has too far ahead of its
/// index. Not guarded: an ERROR passes over this frame as it is, with all its fields; the frame holds nothing that needs
/// dropping.
unsafe extern "C-unwind" fn executor_start(query: *mut pg_sys::QueryDesc, flags: c_int) {
    // SAFETY: PostgreSQL passes a live QueryDesc; the arguments are passed on.
    unsafe {
        if shared::try_state().is_some_and(|shared| shared.quorum_lost_since().is_some()) {
            refuse_stale_reads();
        }
        if (*query).operation != pg_sys::CmdType::CMD_SELECT {
            hold_back();
        }
        let next = NEXT_START
            .get()
            .copied()
            .flatten()
            .unwrap_or(unguarded::standard_ExecutorStart);
        next(query, flags);
    }
}

/// PostgreSQL's function without pgrx's guard, which would reduce an ERROR to its main fields.
mod unguarded {
    use super::{c_int, pg_sys};

    unsafe extern "C-unwind" {
        pub fn standard_ExecutorStart(query: *mut pg_sys::QueryDesc, flags: c_int);
    }
}

/// Raises an ERROR if there has been no write quorum for longer than this session takes answers without one: another
/// compute may own the volume by now, and nobody could tell this server.
#[pg_guard]
pub unsafe extern "C-unwind" fn refuse_stale_reads() {
    let since = shared::try_state().and_then(shared::SharedState::quorum_lost_since);
    let (Some(since), Some(patience)) = (since, settings::stale_reads_timeout()) else {
        return;
    };
    let lost_for = Duration::from_secs(u64::from(clock::tick().since(since) / Tick::PER_SECOND));
    if lost_for < patience {
        return;
    }
    report::error(
        PgSqlErrorCode::ERRCODE_SYSTEM_ERROR,
        format!(
            "no write quorum of storage nodes has answered for {} s: what this server has may be outdated",
            lost_for.as_secs()
        ),
        |report| {
            report
                .set_detail("Another server may have taken the volume meanwhile, and have changed it.")
                .set_hint(
                    "Superusers: \"SET pg_quorum.stale_reads_timeout = 0\" lets this session read what is here; then \
                     see the view quorum.segments.",
                )
        },
    )
}

/// How often a statement that waits processes all its interrupts, barriers included.
const INTERRUPT_PERIOD: Duration = Duration::from_millis(500);

#[pg_guard]
unsafe extern "C-unwind" fn hold_back() {
    let Some(shared) = shared::try_state() else { return };
    // SAFETY: reads shared memory.
    if unsafe { pg_sys::RecoveryInProgress() } {
        return;
    }
    // SAFETY: as above.
    let inserted = unsafe { pg_sys::GetXLogInsertEndRecPtr() };
    let needed = Lsn(inserted.saturating_sub(settings::max_unshipped_bytes()));
    if shared.vdl().is_valid() && shared.vdl() < needed {
        wait_cancellably(|period, leave| shared.wait_for_vdl(needed, period, leave));
    }
    let unindexed = settings::max_unindexed_bytes();
    if shared.unindexed_bytes() > unindexed {
        shared::add(&shared.counters.index_waits, 1);
        wait_cancellably(|period, leave| shared.wait_for_index(unindexed, period, leave));
    }
}

/// Until `wait`, which is told for how long and when to leave it, has reached what it waits for.
fn wait_cancellably(wait: impl Fn(Option<Duration>, &dyn Fn() -> bool) -> LogWait) {
    let shared = shared::state();
    while !(shared.give_up_commits() || shared.fenced())
        && wait(Some(INTERRUPT_PERIOD), &interrupts::may_leave) != LogWait::Reached
    {
        interrupts::process();
    }
}
