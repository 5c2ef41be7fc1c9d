//! The storage manager's functions: `md.c` as the local page cache, storage behind it.
//!
//! Each function here stands in the place of an `md*` function in `smgrsw` and keeps its contract. The md files
//! are never synced: what they hold can be had again.
//!
//! Nothing here raises in a critical section: truncation and unlinking touch the table only, without
//! allocating. Waiting for storage looks at cancel and termination only, and never processes a barrier.

use std::ffi::c_char;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use pg_quorum_types::{BLOCK_SIZE, ForkNumber as Fork, RelFileNode, RelFork};
use pgrx::pg_guard;
use pgrx::pg_sys::panic::CaughtError;
use pgrx::pg_sys::{self, BlockNumber, ForkNumber, RelFileNodeBackend, SMgrRelation};
use pgrx::{PgSqlErrorCode, PgTryBuilder};

use super::md15::{BLOCKS_PER_SEGMENT, MdTable, md};
use super::presence_file::table;
use super::read_ahead::{self, Blocks, InFlight, Wanted};
use super::wait_event::WaitEvent;
use super::{cache_files, clock, interrupts, kept_pages, report, sequences, transactions};
use crate::cache::{ChunkKey, Held, Seen, Written, release_at_exit};
use crate::link;
use crate::shared::{self, FetchError, MAX_BLOCKS_PER_REQUEST, Page, Ticket};

type PageBuffer = [Page; MAX_BLOCKS_PER_REQUEST];

/// The table's row with our functions in it.
pub fn hooks() -> MdTable {
    MdTable {
        create,
        unlink,
        extend,
        prefetch,
        read,
        write,
        writeback,
        truncate,
        immedsync,
        ..*md()
    }
}

/// A relation as `md.c` gets it, taken apart.
#[derive(Clone, Copy)]
struct Target {
    reln: SMgrRelation,
    number: ForkNumber::Type,
    fork: RelFork,
}

impl Target {
    /// The shared fork, or `None` for what is local only: temporary relations.
    fn of(reln: SMgrRelation, number: ForkNumber::Type) -> Option<Target> {
        // SAFETY: smgr.c passes a live SMgrRelation to every function of the table.
        let rnode = unsafe { (*reln).smgr_rnode };
        let fork = shared_fork(rnode, number)?;
        Some(Target { reln, number, fork })
    }

    fn nblocks(self) -> BlockNumber {
        // SAFETY: the relation that smgr.c passed; an ERROR becomes an unwinding panic here.
        unsafe { guarded(|| (md().nblocks)(self.reln, self.number)) }
    }

    fn md_read(self, block: BlockNumber, buffer: *mut c_char) {
        // SAFETY: as `nblocks`; the buffer is the one that smgr.c passed.
        unsafe { guarded(|| (md().read)(self.reln, self.number, block, buffer)) }
    }

    /// Without asking for a sync.
    fn md_write(self, block: BlockNumber, buffer: *mut c_char) {
        // SAFETY: as `nblocks`; the buffer holds a page.
        unsafe { guarded(|| (md().write)(self.reln, self.number, block, buffer, true)) }
    }

    fn hold(self, block: BlockNumber) -> Held {
        release_holds_at_exit();
        match table().hold(ChunkKey::of(self.fork, block)) {
            Ok(held) => held,
            Err(full) => report::error(PgSqlErrorCode::ERRCODE_DISK_FULL, full.to_string(), |report| {
                report.set_hint("Free space on the disk that holds the data directory.")
            }),
        }
    }

    /// Runs `write`, which writes to the md file under a hold on `block`'s chunk. If the disk is full, chunks that
    /// are not in use are dropped, and it is tried again; with none left, the error is raised.
    ///
    /// When it is over what is in the file knows of no record behind the insert position: hint bits may have been set during
    /// the write.
    fn write_with_room(self, block: BlockNumber, write: impl Fn(&Held)) {
        loop {
            let held = self.hold(block);
            let full = disk_full_error(|| write(&held));
            held.note_written_at(cache_files::insert_lsn());
            let Some(full) = full else {
                return;
            };
            drop(held);
            if !cache_files::make_room_on_full_disk() {
                full.rethrow();
            }
        }
    }

    /// Whether the fork's pages are nowhere but here: of an unlogged relation, which has an init fork; and that fork.
    fn is_local(self) -> bool {
        if self.fork.fork == Fork::Init {
            return true;
        }
        // SAFETY: as `nblocks`. mdexists closes and opens the init fork, which nobody reads meanwhile.
        unsafe { guarded(|| (md().exists)(self.reln, ForkNumber::INIT_FORKNUM)) }
    }
}

/// As [`Target::write_with_room`], for what is local only: it has no place but the disk, which chunks may have filled.
fn local_with_room(write: impl Fn()) {
    while let Some(full) = disk_full_error(&write) {
        if !cache_files::make_room_on_full_disk() {
            full.rethrow();
        }
    }
}

fn shared_fork(rnode: RelFileNodeBackend, number: ForkNumber::Type) -> Option<RelFork> {
    let fork = u8::try_from(number).ok().and_then(Fork::from_number)?;
    let is_temporary = rnode.backend != pg_sys::InvalidBackendId;
    if is_temporary {
        return None;
    }
    Some(RelFork {
        rel: RelFileNode {
            spc: rnode.node.spcNode.to_u32(),
            db: rnode.node.dbNode.to_u32(),
            rel: rnode.node.relNode.to_u32(),
        },
        fork,
    })
}

/// # Safety
/// As `pg_guard_ffi_boundary`: on the main thread, and `call` holds nothing that needs dropping.
unsafe fn guarded<T>(call: impl FnOnce() -> T) -> T {
    // SAFETY: the caller's promise.
    unsafe { pg_sys::ffi::pg_guard_ffi_boundary(call) }
}

/// Runs `write`; the error that says that the disk is full comes back, every other one is raised.
fn disk_full_error(write: impl Fn()) -> Option<CaughtError> {
    // An ERROR resets these counts (`errfinish`, elog.c 15.18), but the locks that they stand for are still held.
    // SAFETY: plain variables of this process.
    let (held_off, cancel_held_off) =
        unsafe { (pg_sys::InterruptHoldoffCount, pg_sys::QueryCancelHoldoffCount) };
    let attempt = std::panic::AssertUnwindSafe(|| {
        write();
        None
    });
    PgTryBuilder::new(attempt)
        .catch_when(PgSqlErrorCode::ERRCODE_DISK_FULL, move |full| {
            // SAFETY: as above.
            unsafe {
                pg_sys::InterruptHoldoffCount = held_off;
                pg_sys::QueryCancelHoldoffCount = cancel_held_off;
            }
            Some(full)
        })
        .execute()
}

#[pg_guard]
unsafe extern "C-unwind" fn read(
    reln: SMgrRelation,
    number: ForkNumber::Type,
    block: BlockNumber,
    buffer: *mut c_char,
) {
    let Some(target) = Target::of(reln, number) else {
        // SAFETY: the arguments that smgr.c passed.
        return unsafe { (md().read)(reln, number, block, buffer) };
    };
    read_ahead::before_read(target.fork, block);
    loop {
        let held = target.hold(block);
        if held.is_present(block) {
            target.md_read(block, buffer);
            held.touch(clock::tick());
            read_ahead::after_hit(target.fork, block);
            shared::add(&shared::state().counters.cache_hits, 1);
            return;
        }
        if held.is_kept(block) {
            if kept_pages::settle(held).is_err_and(|error| fail(target.fork, block, error, buffer)) {
                return;
            }
            continue;
        }
        let is_scan = read_ahead::is_scan(target.fork, block);
        let end = if is_scan { BlockNumber::MAX } else { block + 1 };
        let blocks = Blocks::absent_from(&held, block, end);
        let is_logged = held.is_logged();
        let wanted = Wanted::new(target.fork, blocks, held);
        if !is_logged && target.is_local() {
            mark_local(wanted.seen, block);
            continue;
        }
        let nblocks = target.nblocks();
        if block >= nblocks {
            return target.md_read(block, buffer); // md.c's own error, or its zeros
        }
        if fetch_and_install(target, block, wanted.before(nblocks), buffer) {
            cache_files::make_room();
            return;
        }
    }
}

/// The md file is all there is of this block.
fn mark_local(seen: Seen, block: BlockNumber) {
    if let Some(held) = table().hold_for_install(seen) {
        held.set_present(block);
    }
}

/// Gets `block` from storage, by the request that is under way for it or by one for `wanted`, and more if that is a
/// scan. Puts the pages into the md file where nobody else has, and `block` into `buffer`. False: look again, the chunk
/// has changed meanwhile, or what was under way has come to nothing.
fn fetch_and_install(target: Target, block: BlockNumber, wanted: Wanted, buffer: *mut c_char) -> bool {
    let counters = &shared::state().counters;
    shared::add(&counters.cache_misses, 1);
    let _waiting = WaitEvent::DataFileRead.begin();
    let (wanted, outcome, was_under_way) = match read_ahead::take(target.fork, block) {
        Some(InFlight { wanted, ticket, .. }) => {
            shared::add(&counters.misses_in_flight, 1);
            (wanted, wait_for_pages(target, &wanted, Some(ticket), block), true)
        }
        None => {
            let fetched = begin(&wanted).and_then(|ticket| wait_for_pages(target, &wanted, ticket, block));
            (wanted, fetched, false)
        }
    };
    let pages = match outcome {
        Ok(pages) => pages,
        // Not of what this caller has asked for: it may be about another block.
        Err(FetchError::Storage { .. }) if was_under_way => return false,
        Err(error) => return fail(target.fork, block, error, buffer),
    };
    install(target, block, &wanted, pages, buffer)
}

/// A free space map is a hint: nothing fails for want of one of its pages. The server takes zeros for a page that knows of
/// no free space (`fsm_readbuf`, freespace.c 15.18).
fn read_as_unknown(fork: RelFork, block: BlockNumber, message: &str, buffer: *mut c_char) {
    pgrx::warning!("pg_quorum: block {block} of the free space map {fork} is not known: {message}");
    // SAFETY: smgr.c passes a buffer of a block's size.
    unsafe { std::ptr::write_bytes(buffer, 0, BLOCK_SIZE) }
}

/// `None`: there is no link worker any more.
fn begin(wanted: &Wanted) -> Result<Option<Ticket>, FetchError> {
    let begun = Ticket::begin(
        wanted.fork,
        wanted.blocks.as_slice(),
        wanted.not_modified_since(),
        &interrupts::may_leave,
    );
    match begun {
        Ok(ticket) => Ok(Some(ticket)),
        Err(FetchError::LinkGone) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The answer to a request; without a ticket, asks for it directly.
fn wait_for_pages(
    target: Target,
    wanted: &Wanted,
    ticket: Option<Ticket>,
    block: BlockNumber,
) -> Result<&'static mut [Page], FetchError> {
    let counters = &shared::state().counters;
    let blocks = wanted.blocks.as_slice();
    let pages = &mut page_buffer()[..blocks.len()];
    let started = Instant::now();
    let by_ticket = ticket.map_or(Err(FetchError::LinkGone), |ticket| {
        read_ahead::after_miss(wanted.fork, block, &wanted.blocks, || target.nblocks());
        ticket.collect(pages, &interrupts::may_leave)
    });
    let fetched = match by_ticket {
        Err(FetchError::LinkGone) => {
            link::fetch_by_myself(wanted.fork, blocks, wanted.not_modified_since(), pages)
        }
        outcome => outcome,
    };
    if fetched.is_err() {
        shared::add(&counters.page_errors, 1);
    }
    fetched?;
    shared::add(&counters.page_requests, 1);
    shared::add(&counters.pages_fetched, blocks.len() as u64);
    counters.page_wait.record(started.elapsed());
    Ok(pages)
}

/// Puts `needed` into `buffer`, and what is worth keeping into the md file. False: the chunk has changed since the pages were
/// asked for.
fn install(
    target: Target,
    needed: BlockNumber,
    wanted: &Wanted,
    pages: &mut [Page],
    buffer: *mut c_char,
) -> bool {
    // Of several pages only one is used at once: not to keep them is to fetch them again.
    let is_kept = pages.len() > 1 || cache_files::is_worth_keeping();
    let Some(held) = table().hold_for_install(wanted.seen) else {
        return false;
    };
    if held.is_present(needed) {
        return false;
    }
    let mut fetched = 0;
    for (block, page) in wanted.blocks.as_slice().iter().zip(pages) {
        if *block == needed {
            // SAFETY: smgr.c passes a buffer of a block's size, which is not our page buffer.
            unsafe { std::ptr::copy_nonoverlapping(page.as_ptr(), buffer.cast(), BLOCK_SIZE) };
        }
        if held.is_present(*block) {
            continue;
        }
        fetched += 1;
        if !is_kept {
            held.note_passed_by();
            continue;
        }
        // On a full disk the page is used without being kept.
        let page = page.as_mut_ptr().cast();
        if disk_full_error(|| target.md_write(*block, page)).is_none() {
            held.set_present(*block);
        }
    }
    // Pages that are asked for after a drop may be newer than what is durable.
    held.note_written_at(cache_files::insert_lsn());
    held.touch(clock::tick());
    held.set_logged();
    let counters = &shared::state().counters;
    if wanted.dropped_at.is_valid() {
        shared::add(&counters.pages_refetched, fetched);
    }
    if !is_kept {
        shared::add(&counters.pages_passed_by, fetched);
    }
    true
}

/// One per process: pages on their way from storage to the md file.
#[allow(static_mut_refs)] // one thread, one user, see below
fn page_buffer() -> &'static mut PageBuffer {
    static mut BUFFER: PageBuffer = [[0; BLOCK_SIZE]; MAX_BLOCKS_PER_REQUEST];
    // SAFETY: PostgreSQL's processes run hooks on their one main thread (pg_guard asserts it), and
    // `fetch_and_install`, the only user, does not call itself: neither md.c nor a wait for pages reads pages.
    unsafe { &mut BUFFER }
}

/// Leaves with the error that the interrupt or the failure asks for. Returns false if the interrupt has vanished, true
/// if there is a page to go on with all the same.
fn fail(fork: RelFork, block: BlockNumber, error: FetchError, buffer: *mut c_char) -> bool {
    match error {
        FetchError::Storage { message } if fork.fork == Fork::FreeSpaceMap => {
            read_as_unknown(fork, block, &message, buffer);
            return true;
        }
        FetchError::Interrupted => interrupts::leave(),
        FetchError::Fenced { message } => report::error(
            PgSqlErrorCode::ERRCODE_ADMIN_SHUTDOWN,
            format!("could not read block {block} of relation {fork}: this server no longer owns its volume"),
            |report| report.set_detail(message),
        ),
        FetchError::LinkGone => {} // looked at by those that wait
        FetchError::Storage { message } => report::error(
            PgSqlErrorCode::ERRCODE_IO_ERROR,
            format!("could not read block {block} of relation {fork} from storage"),
            |report| {
                report
                    .set_detail(message)
                    .set_hint("See the view quorum.segments for the state of the storage nodes.")
            },
        ),
    }
    false
}

#[pg_guard]
unsafe extern "C-unwind" fn write(
    reln: SMgrRelation,
    number: ForkNumber::Type,
    block: BlockNumber,
    buffer: *mut c_char,
    skip_fsync: bool,
) {
    let Some(target) = Target::of(reln, number) else {
        // SAFETY: the arguments that smgr.c passed; an ERROR becomes an unwinding panic here.
        return local_with_room(|| unsafe {
            guarded(|| (md().write)(reln, number, block, buffer, skip_fsync))
        });
    };
    // SAFETY: smgr.c passes a buffer of a block's size that stays as it is during the call.
    let page = unsafe { &*buffer.cast::<[u8; BLOCK_SIZE]>() };
    let written = Written::judge(target.fork.fork, page, transactions::oldest_running_xid);
    target.write_with_room(block, |held| {
        target.md_write(block, buffer);
        held.put_written(block, written, false, cache_files::running());
        held.touch(clock::tick());
        if block == 0 && target.fork.fork == Fork::Main {
            held.set_ahead_of_log(sequences::is_ahead_of_log(page));
        }
    });
    cache_files::make_room();
}

#[pg_guard]
unsafe extern "C-unwind" fn extend(
    reln: SMgrRelation,
    number: ForkNumber::Type,
    block: BlockNumber,
    buffer: *mut c_char,
    skip_fsync: bool,
) {
    let Some(target) = Target::of(reln, number) else {
        // SAFETY: the arguments that smgr.c passed; an ERROR becomes an unwinding panic here.
        return local_with_room(|| unsafe {
            guarded(|| (md().extend)(reln, number, block, buffer, skip_fsync))
        });
    };
    mark_jumped_over(target, block);
    // SAFETY: smgr.c passes a buffer of a block's size that stays as it is during the call.
    let page = unsafe { &*buffer.cast::<[u8; BLOCK_SIZE]>() };
    let written = Written::judge(target.fork.fork, page, transactions::oldest_running_xid);
    target.write_with_room(block, |held| {
        // SAFETY: the arguments that smgr.c passed; no sync is asked for.
        unsafe { guarded(|| (md().extend)(reln, number, block, buffer, true)) };
        held.put_written(block, written, true, cache_files::running());
        held.touch(clock::tick());
    });
    cache_files::make_room();
}

/// Blocks between the fork's end and `block` come to be as zeros, here and now: storage knows nothing of them,
/// or an older relation's pages.
fn mark_jumped_over(target: Target, block: BlockNumber) {
    let Some(previous) = block.checked_sub(1) else {
        return;
    };
    let follows = table().hold_existing(ChunkKey::of(target.fork, previous));
    if follows.is_some_and(|held| held.is_present(previous)) {
        return;
    }
    for jumped in target.nblocks()..block {
        let held = target.hold(jumped);
        held.put_written(jumped, Written::ZEROS, true, cache_files::running());
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn create(reln: SMgrRelation, number: ForkNumber::Type, is_redo: bool) {
    // SAFETY: the arguments that smgr.c passed; an ERROR (it exists) becomes an unwinding panic here.
    unsafe { guarded(|| (md().create)(reln, number, is_redo)) }
    if let Some(target) = Target::of(reln, number)
        && !is_redo
    {
        table().remove_fork(target.fork); // nothing of an earlier relation with this number
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn unlink(rnode: RelFileNodeBackend, number: ForkNumber::Type, is_redo: bool) {
    let all = 0..=Fork::ALL.len() as ForkNumber::Type - 1;
    let forks = match number {
        ForkNumber::InvalidForkNumber => all,
        one => one..=one,
    };
    let forget = |forks: std::ops::RangeInclusive<ForkNumber::Type>| {
        for fork in forks.filter_map(|number| shared_fork(rnode, number)) {
            table().remove_fork(fork);
        }
    };
    forget(forks.clone());
    // SAFETY: the arguments that smgr.c passed.
    unsafe { (md().unlink)(rnode, number, is_redo) };
    forget(forks); // what a late answer has put there in between
}

#[pg_guard]
unsafe extern "C-unwind" fn truncate(
    reln: SMgrRelation,
    number: ForkNumber::Type,
    old_blocks: BlockNumber,
    nblocks: BlockNumber,
) {
    let target = Target::of(reln, number);
    let forget = || {
        if let Some(target) = target {
            table().truncate(target.fork, nblocks);
        }
    };
    forget();
    // mdtruncate (15.18) shortens the segments that mdnblocks has opened. Nothing closes them in between:
    // the waits above are for local I/O and process no barrier. Should it have happened all the same, a
    // second mdnblocks opens them again.
    // SAFETY: smgr.c passes a live SMgrRelation; `number` is one of its forks.
    unsafe {
        let open = (*reln).md_num_open_segs[number as usize];
        if u32::try_from(open).unwrap_or(0) * BLOCKS_PER_SEGMENT < old_blocks {
            (md().nblocks)(reln, number);
        }
        (md().truncate)(reln, number, old_blocks, nblocks);
    }
    forget(); // what a late answer has put there in between
}

#[pg_guard]
unsafe extern "C-unwind" fn prefetch(
    reln: SMgrRelation,
    number: ForkNumber::Type,
    block: BlockNumber,
) -> bool {
    if let Some(target) = Target::of(reln, number) {
        let held = table().hold_existing(ChunkKey::of(target.fork, block));
        let is_in_file = held.as_ref().is_some_and(|held| held.is_in_file(block));
        let is_logged = held.is_some_and(|held| held.is_logged());
        if !is_in_file {
            release_holds_at_exit();
            if is_logged || read_ahead::is_under_way(target.fork) || !target.is_local() {
                read_ahead::advise(target.fork, block, || target.nblocks());
            }
            return true;
        }
    }
    // SAFETY: the arguments that smgr.c passed.
    unsafe { (md().prefetch)(reln, number, block) }
}

/// Write-back spreads the cost of a sync that never comes here.
#[pg_guard]
unsafe extern "C-unwind" fn writeback(
    _reln: SMgrRelation,
    _number: ForkNumber::Type,
    _block: BlockNumber,
    _nblocks: BlockNumber,
) {
}

/// Callers (index builds, `RelationCopyStorage`) have logged the pages: their durability is the log's.
#[pg_guard]
unsafe extern "C-unwind" fn immedsync(_reln: SMgrRelation, _number: ForkNumber::Type) {}

/// A FATAL error runs no destructors: see to it, once in a process, that neither a hold nor a request outlives it.
fn release_holds_at_exit() {
    static REGISTERED: AtomicBool = AtomicBool::new(false);
    if !REGISTERED.swap(true, Ordering::Relaxed) {
        // SAFETY: in a process with shared memory; the callback may run at any later time.
        unsafe { pg_sys::on_shmem_exit(Some(release_holds), pg_sys::Datum::from(0)) }
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn release_holds(_code: std::ffi::c_int, _argument: pg_sys::Datum) {
    read_ahead::give_up();
    release_at_exit(table());
}
