//! The kinds of records that are handled by name: the high four bits of `xl_info`. All kinds and their names
//! stand in `identify.rs`.

macro_rules! kinds {
    ($($(#[$doc:meta])* $module:ident { $($name:ident = $value:literal),* $(,)? })*) => {
        $($(#[$doc])* pub(crate) mod $module {
            $(pub(crate) const $name: u8 = $value;)*
        })*
    };
}

kinds! {
    /// `catalog/pg_control.h`.
    xlog {
        CHECKPOINT_SHUTDOWN = 0x00, CHECKPOINT_ONLINE = 0x10, NEXTOID = 0x30, SWITCH = 0x40,
        PARAMETER_CHANGE = 0x60, FPW_CHANGE = 0x80,
        FPI_FOR_HINT = 0xA0, FPI = 0xB0, OVERWRITE_CONTRECORD = 0xD0,
    }
    /// `access/xact.h`.
    transaction {
        OPERATION_MASK = 0x70, HAS_INFO = 0x80,
        COMMIT = 0x00, PREPARE = 0x10, ABORT = 0x20, COMMIT_PREPARED = 0x30, ABORT_PREPARED = 0x40,
        ASSIGNMENT = 0x50,
    }
    /// `catalog/storage_xlog.h`.
    storage { CREATE = 0x10, TRUNCATE = 0x20 }
    /// `access/clog.h`.
    clog { ZEROPAGE = 0x00, TRUNCATE = 0x10 }
    /// `commands/dbcommands_xlog.h`.
    database { CREATE_FILE_COPY = 0x00, CREATE_WAL_LOG = 0x10, DROP = 0x20 }
    /// `commands/tablespace.h`.
    tablespace { CREATE = 0x00, DROP = 0x10 }
    /// `access/multixact.h`.
    multixact { ZERO_OFFSETS_PAGE = 0x00, ZERO_MEMBERS_PAGE = 0x10, CREATE_ID = 0x20, TRUNCATE_ID = 0x30 }
    /// `utils/relmapper.h`.
    relmap { UPDATE = 0x00 }
    /// `storage/standbydefs.h`.
    standby { LOCK = 0x00, RUNNING_XACTS = 0x10 }
    /// `access/commit_ts.h`.
    commit_ts { ZEROPAGE = 0x00, TRUNCATE = 0x10 }
    /// `replication/origin.h`.
    replication_origin { SET = 0x00, DROP = 0x10 }
}
