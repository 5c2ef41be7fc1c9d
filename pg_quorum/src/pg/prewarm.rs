//! Filling and emptying the local page cache on request.

use std::ffi::CString;

use pg_quorum_types::{BLOCK_SIZE, RelFileNode};
use pgrx::PgSqlErrorCode;
use pgrx::pg_sys::{self, ForkNumber, Oid};

use super::cache_files::{self, Presence};
use super::presence_file::table;
use super::{interrupts, report};

/// A relation that is open and locked against being dropped, until [`OpenRelation::close`] or the end of the
/// transaction.
struct OpenRelation(pg_sys::Relation);

impl OpenRelation {
    /// Raises an error if there is none, or the caller may not read it.
    fn open(oid: Oid) -> OpenRelation {
        // SAFETY: on the main thread, in a transaction; errors are raised.
        unsafe {
            let relation = pg_sys::relation_open(oid, pg_sys::AccessShareLock as pg_sys::LOCKMODE);
            let allowed = pg_sys::pg_class_aclcheck(oid, pg_sys::GetUserId(), pg_sys::ACL_SELECT);
            if allowed != pg_sys::AclResult::ACLCHECK_OK {
                let kind = pg_sys::get_relkind_objtype(pg_sys::get_rel_relkind(oid));
                pg_sys::aclcheck_error(allowed, kind, pg_sys::get_rel_name(oid));
            }
            OpenRelation(relation)
        }
    }

    /// Its storage. Raises an error if it has none.
    fn storage(&self) -> pg_sys::SMgrRelation {
        // SAFETY: an open relation; `RelationGetSmgr` (rel.h 15.18).
        unsafe {
            if (*self.0).rd_node.relNode == Oid::INVALID {
                report::error(
                    PgSqlErrorCode::ERRCODE_WRONG_OBJECT_TYPE,
                    "this relation has no storage",
                    |report| report,
                );
            }
            if (*self.0).rd_smgr.is_null() {
                let storage = pg_sys::smgropen((*self.0).rd_node, (*self.0).rd_backend);
                pg_sys::smgrsetowner(&raw mut (*self.0).rd_smgr, storage);
            }
            (*self.0).rd_smgr
        }
    }

    fn file_node(&self) -> RelFileNode {
        // SAFETY: an open relation.
        let node = unsafe { (*self.0).rd_node };
        RelFileNode {
            spc: node.spcNode.to_u32(),
            db: node.dbNode.to_u32(),
            rel: node.relNode.to_u32(),
        }
    }

    fn close(self) {
        // SAFETY: opened by this process in this transaction.
        unsafe { pg_sys::relation_close(self.0, pg_sys::AccessShareLock as pg_sys::LOCKMODE) }
    }
}

/// Reads the blocks from `first` to `last` (by default all) of a fork that are absent, until the cache is full.
/// How many were absent.
pub fn prewarm(oid: Oid, fork: &str, first: Option<i64>, last: Option<i64>) -> u64 {
    let relation = OpenRelation::open(oid);
    let fork = fork_number(fork);
    let mut fetched = 0;
    let mut page = [0; BLOCK_SIZE];
    for block in blocks(&relation, fork, first, last) {
        interrupts::process();
        let presence = || cache_files::presence(relation.file_node(), fork, block);
        // SAFETY: an open relation, one of its blocks, a buffer of a block's size. As pg_prewarm('read') does.
        let mut read =
            || unsafe { pg_sys::smgrread(relation.storage(), fork, block, page.as_mut_ptr().cast()) };
        match presence() {
            Presence::Present => continue,
            Presence::Kept => {
                read();
                continue;
            }
            Presence::Absent => {}
        }
        if table().cached_pages() >= cache_files::limit_pages() {
            pgrx::notice!("the local page cache is full: block {block} and those behind it are not read");
            break;
        }
        read();
        fetched += 1;
    }
    relation.close();
    fetched
}

/// Drops what may be dropped, of one relation or of all. How many pages that were.
pub fn drop_cache(oid: Option<Oid>) -> u64 {
    let Some(oid) = oid else {
        return cache_files::drop_cached(None);
    };
    let relation = OpenRelation::open(oid);
    let dropped = cache_files::drop_cached(Some(relation.file_node()));
    relation.close();
    dropped
}

/// Raises an error for an unknown name.
fn fork_number(name: &str) -> ForkNumber::Type {
    let name = CString::new(name).unwrap_or_default();
    // SAFETY: a C string; an unknown one is an error.
    unsafe { pg_sys::forkname_to_number(name.as_ptr()) }
}

fn blocks(
    relation: &OpenRelation,
    fork: ForkNumber::Type,
    first: Option<i64>,
    last: Option<i64>,
) -> std::ops::Range<u32> {
    // SAFETY: an open relation.
    let end = unsafe {
        if pg_sys::smgrexists(relation.storage(), fork) {
            pg_sys::smgrnblocks(relation.storage(), fork)
        } else {
            0
        }
    };
    let inside = |block: i64| match u32::try_from(block) {
        Ok(block) if block < end => block,
        _ => report::error(
            PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
            format!("block {block} is not inside the fork, which has {end} blocks"),
            |report| report,
        ),
    };
    first.map_or(0, inside)..last.map_or(end, |last| inside(last) + 1)
}
