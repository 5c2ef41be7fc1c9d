//! Commands that go past the storage manager, or that wait outside of a transaction's own end.
//!
//! - COMMIT PREPARED and ROLLBACK PREPARED open the commit window around themselves.
//! - CREATE DATABASE … STRATEGY FILE_COPY is carried out as WAL_LOG: files with holes are not to be copied.
//! - DROP DATABASE and ALTER DATABASE … SET TABLESPACE tell the presence table.
//! - ALTER SYSTEM does not touch the settings that the extension holds; `pg_backup_start` is refused.

use std::cell::Cell;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::sync::OnceLock;

use pg_quorum_types::{DatabaseKey, Lsn};
use pgrx::PgSqlErrorCode;
use pgrx::pg_guard;
use pgrx::pg_sys::{self, NodeTag, Oid, TransactionStmtKind};

use super::presence_file::{table, try_table};
use super::xact::Waits;
use super::{report, statements, wal, xact};
use crate::settings;
use crate::shared;

static NEXT_UTILITY: OnceLock<pg_sys::ProcessUtility_hook_type> = OnceLock::new();
static NEXT_ACCESS: OnceLock<pg_sys::object_access_hook_type> = OnceLock::new();

/// A database on its way to another tablespace.
#[derive(Clone, Copy)]
struct Move {
    from: DatabaseKey,
    to: DatabaseKey,
    is_carried: bool,
    /// The new place is committed: what follows only removes the old one's files.
    is_committed: bool,
}

thread_local! {
    static MOVE: Cell<Option<Move>> = const { Cell::new(None) };
}

/// Takes its place in the chains of hooks. In `_PG_init`.
pub fn register() {
    // SAFETY: in _PG_init, the place where hook variables are set.
    unsafe {
        let _ = NEXT_UTILITY.set(pg_sys::ProcessUtility_hook);
        pg_sys::ProcessUtility_hook = Some(process_utility);
        let _ = NEXT_ACCESS.set(pg_sys::object_access_hook);
        pg_sys::object_access_hook = Some(object_access);
    }
}

/// What is to be done after a command.
#[derive(Clone, Copy)]
enum Afterwards {
    Nothing,
    ForgetDatabase(Oid),
    ForgetOldPlace(Move),
}

/// Not guarded: an ERROR of the command passes over this frame as it is, with all its fields; the frame holds
/// nothing that needs dropping.
unsafe extern "C-unwind" fn process_utility(
    statement: *mut pg_sys::PlannedStmt,
    query: *const c_char,
    read_only: bool,
    context: pg_sys::ProcessUtilityContext::Type,
    params: pg_sys::ParamListInfo,
    environment: *mut pg_sys::QueryEnvironment,
    dest: *mut pg_sys::DestReceiver,
    completion: *mut pg_sys::QueryCompletion,
) {
    let mut statement = statement;
    let mut afterwards = Afterwards::Nothing;
    // SAFETY: PostgreSQL passes a PlannedStmt; the rest are its own arguments, passed on.
    unsafe {
        prepare(&raw mut statement, context, &raw mut afterwards);
        let next = NEXT_UTILITY
            .get()
            .copied()
            .flatten()
            .unwrap_or(unguarded::standard_ProcessUtility);
        next(
            statement,
            query,
            read_only,
            context,
            params,
            environment,
            dest,
            completion,
        );
        finish(&raw const afterwards);
    }
}

/// PostgreSQL's functions without pgrx's guard, which would reduce an ERROR to its main fields.
mod unguarded {
    use super::{c_char, pg_sys};

    unsafe extern "C-unwind" {
        pub fn standard_ProcessUtility(
            statement: *mut pg_sys::PlannedStmt,
            query: *const c_char,
            read_only: bool,
            context: pg_sys::ProcessUtilityContext::Type,
            params: pg_sys::ParamListInfo,
            environment: *mut pg_sys::QueryEnvironment,
            dest: *mut pg_sys::DestReceiver,
            completion: *mut pg_sys::QueryCompletion,
        );
    }
}

/// Before a command; may replace its statement.
///
/// # Safety
/// Both point to live values, `statement` to PostgreSQL's own.
#[pg_guard]
unsafe extern "C-unwind" fn prepare(
    statement: *mut *mut pg_sys::PlannedStmt,
    context: pg_sys::ProcessUtilityContext::Type,
    afterwards: *mut Afterwards,
) {
    // Elsewhere the commands that must be alone in their transaction are about to fail.
    let is_alone = context == pg_sys::ProcessUtilityContext::PROCESS_UTILITY_TOPLEVEL;
    // SAFETY: the caller's promise; a utility node is of the type that its tag names.
    unsafe {
        let node = (**statement).utilityStmt;
        match (*node).type_ {
            NodeTag::T_TransactionStmt if is_alone => end_prepared(node.cast()),
            NodeTag::T_CreatedbStmt => {
                xact::wait_at_commit();
                create_database(statement);
            }
            NodeTag::T_CreateTableSpaceStmt | NodeTag::T_DropTableSpaceStmt => xact::wait_at_commit(),
            NodeTag::T_DropdbStmt => {
                xact::wait_at_commit();
                let name = (*node.cast::<pg_sys::DropdbStmt>()).dbname;
                *afterwards = Afterwards::ForgetDatabase(pg_sys::get_database_oid(name, true));
            }
            NodeTag::T_AlterDatabaseStmt if is_alone => {
                if let Some(planned) = planned_move(node.cast()) {
                    xact::wait_at_commit();
                    MOVE.set(Some(planned));
                    *afterwards = Afterwards::ForgetOldPlace(planned);
                }
            }
            NodeTag::T_AlterSystemStmt => alter_system(node.cast()),
            // They read without starting an executor.
            NodeTag::T_CopyStmt | NodeTag::T_FetchStmt => statements::refuse_stale_reads(),
            _ => {}
        }
    }
}

/// After a command that has succeeded.
///
/// # Safety
/// A pointer to a live value.
#[pg_guard]
unsafe extern "C-unwind" fn finish(afterwards: *const Afterwards) {
    // SAFETY: the caller's promise.
    match unsafe { *afterwards } {
        Afterwards::Nothing | Afterwards::ForgetDatabase(Oid::INVALID) => {}
        Afterwards::ForgetDatabase(database) => table().remove_database(database.to_u32(), None),
        Afterwards::ForgetOldPlace(moved) => {
            MOVE.set(None);
            table().remove_database(moved.from.db, Some(moved.from.spc));
        }
    }
}

/// # Safety
/// `node` is a statement's node.
unsafe fn end_prepared(node: *mut pg_sys::TransactionStmt) {
    // SAFETY: the caller's promise.
    let kind = unsafe { (*node).kind };
    let waits = matches!(
        kind,
        TransactionStmtKind::TRANS_STMT_COMMIT_PREPARED | TransactionStmtKind::TRANS_STMT_ROLLBACK_PREPARED
    );
    // SAFETY: reads this process's transaction state. In a block the command fails, and the block may go on.
    if waits && !unsafe { pg_sys::IsTransactionBlock() } {
        xact::open_window(Waits::Always); // closed by the end of the transaction that the command runs in
    }
}

/// # Safety
/// `statement` points to a statement whose node is a CreatedbStmt.
unsafe fn create_database(statement: *mut *mut pg_sys::PlannedStmt) {
    // SAFETY: the caller's promise; a copy is changed, since the tree may be shared with a plan cache.
    unsafe {
        let copy = pg_sys::copyObjectImpl((*statement).cast()).cast::<pg_sys::PlannedStmt>();
        let node = (*copy).utilityStmt.cast::<pg_sys::CreatedbStmt>();
        for option in list_cells((*node).options) {
            let option = option.cast::<pg_sys::DefElem>();
            if text((*option).defname) != "strategy" || (*option).arg.is_null() {
                continue;
            }
            if text(pg_sys::defGetString(option)).eq_ignore_ascii_case("file_copy") {
                let strategy = pg_sys::pstrdup(c"wal_log".as_ptr());
                (*option).arg = pg_sys::makeString(strategy).cast();
                *statement = copy;
                pgrx::notice!("strategy FILE_COPY is carried out as WAL_LOG on a pg_quorum volume");
            }
        }
    }
}

/// # Safety
/// `node` is a statement's node.
unsafe fn planned_move(node: *mut pg_sys::AlterDatabaseStmt) -> Option<Move> {
    // SAFETY: the caller's promise; catalog look-ups in a transaction.
    unsafe {
        let mut options = list_cells((*node).options).map(|option| option.cast::<pg_sys::DefElem>());
        let option = options.find(|option| text((**option).defname) == "tablespace")?;
        let new = pg_sys::get_tablespace_oid(pg_sys::defGetString(option), true);
        let db = pg_sys::get_database_oid((*node).dbname, true);
        let tuple = pg_sys::SearchSysCache1(pg_sys::SysCacheIdentifier::DATABASEOID as c_int, db.into());
        if tuple.is_null() {
            return None;
        }
        let old = (*pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_database>()).dattablespace;
        pg_sys::ReleaseSysCache(tuple);
        let key = |spc: Oid| DatabaseKey {
            spc: spc.to_u32(),
            db: db.to_u32(),
        };
        (new != Oid::INVALID && new != old).then(|| Move {
            from: key(old),
            to: key(new),
            is_carried: false,
            is_committed: false,
        })
    }
}

/// Before a commit: `movedb` (`dbcommands.c` 15.18) commits the new place of the database, whose files it has
/// copied, holes and all, in the middle of the command. From then on sessions read there: what is present in the
/// old place must be in the new one, and what is absent is to be asked for at an LSN that knows the new place.
pub fn before_commit() {
    let Some(mut planned) = MOVE.get().filter(|planned| !planned.is_carried) else {
        return;
    };
    planned.is_carried = true;
    MOVE.set(Some(planned));
    if let Err(full) = table().copy_database(planned.from, planned.to) {
        report::error(PgSqlErrorCode::ERRCODE_DISK_FULL, full.to_string(), |report| {
            report
        });
    }
    // SAFETY: in a transaction of a running server.
    let copied_at = Lsn(unsafe { pg_sys::GetXLogInsertEndRecPtr() });
    wal::flush_inserted();
    shared::state().raise_read_floor(copied_at);
}

/// After a commit: the database is in its new place.
pub fn after_commit() {
    if let Some(mut planned) = MOVE.get().filter(|planned| planned.is_carried) {
        planned.is_committed = true;
        MOVE.set(Some(planned));
    }
}

/// After an abort: the place where the database is not.
pub fn after_abort() {
    if let Some(planned) = MOVE.take()
        && let Some(table) = try_table()
        && planned.is_carried
    {
        let gone = if planned.is_committed {
            planned.from
        } else {
            planned.to
        };
        table.remove_database(gone.db, Some(gone.spc));
    }
}

/// # Safety
/// `node` is a statement's node.
unsafe fn alter_system(node: *mut pg_sys::AlterSystemStmt) {
    // SAFETY: the caller's promise.
    let name = unsafe {
        let set = (*node).setstmt;
        if (*set).name.is_null() {
            String::new()
        } else {
            text((*set).name)
        }
    };
    if settings::is_held(&name) {
        report::error(
            PgSqlErrorCode::ERRCODE_CANT_CHANGE_RUNTIME_PARAM,
            format!("parameter \"{name}\" is held by pg_quorum"),
            |report| report.set_detail("The durability of the volume depends on it."),
        );
    }
    // SAFETY: the caller's promise; the result is null or a C string.
    let value = unsafe { text(pg_sys::ExtractSetVariableArgs((*node).setstmt)) };
    if let Some(why) = settings::would_be_refused(&name, &value) {
        report::error(
            PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
            format!("a pg_quorum server does not start with {name} = {value}"),
            |report| report.set_detail(why),
        );
    }
}

/// Every function call passes here once. Not guarded, as [`process_utility`].
unsafe extern "C-unwind" fn object_access(
    access: pg_sys::ObjectAccessType::Type,
    class: Oid,
    object: Oid,
    sub: c_int,
    argument: *mut c_void,
) {
    if access == pg_sys::ObjectAccessType::OAT_FUNCTION_EXECUTE
        && object.to_u32() == pg_sys::F_PG_BACKUP_START
    {
        // SAFETY: no preconditions.
        unsafe { refuse_backup() };
    }
    if let Some(next) = NEXT_ACCESS.get().copied().flatten() {
        // SAFETY: the arguments that this hook was called with.
        unsafe { next(access, class, object, sub, argument) }
    }
}

/// `pg_backup_start` is for tools that copy the md files, which have holes.
#[pg_guard]
unsafe extern "C-unwind" fn refuse_backup() {
    report::error(
        PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
        "a file-level backup of this server is not possible: its data directory is a cache of the volume",
        |report| {
            report.set_hint(
                "Use \"quorumctl compute create -D DIR\" for another data directory of the volume, \
                 or pg_dump for a copy of the data.",
            )
        },
    );
}

/// # Safety
/// A C string, or null.
unsafe fn text(value: *const c_char) -> String {
    if value.is_null() {
        return String::new();
    }
    // SAFETY: the caller's promise.
    unsafe { CStr::from_ptr(value) }.to_string_lossy().into_owned()
}

/// # Safety
/// A list of pointers, or null.
unsafe fn list_cells(list: *mut pg_sys::List) -> impl Iterator<Item = *mut c_void> {
    // SAFETY: the caller's promise: `length` cells that hold pointers.
    let cells = unsafe {
        if list.is_null() {
            &[][..]
        } else {
            std::slice::from_raw_parts((*list).elements, usize::try_from((*list).length).unwrap_or(0))
        }
    };
    // SAFETY: as above.
    cells.iter().map(|cell| unsafe { cell.ptr_value })
}
