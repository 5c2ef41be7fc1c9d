//! Names of the kinds of records: what is not named here is unknown.

use crate::Rmgr;

use super::INFO_KIND_MASK;
use super::kind::transaction;

/// The name of a record's kind as `pg_waldump` prints it (`rm_identify`), `None` for an unknown kind.
/// `info` is `xl_info`, its low bits are ignored.
pub fn identify(rmgr: Rmgr, info: u8) -> Option<&'static str> {
    let kind = operation(rmgr, info);
    names(rmgr)
        .iter()
        .find(|(value, _)| *value == kind)
        .map(|(_, name)| *name)
}

/// Whether [`identify`] has a name for the kind.
pub(crate) fn is_known(rmgr: Rmgr, info: u8) -> bool {
    KNOWN[rmgr as usize] & 1 << (operation(rmgr, info) >> 4) != 0
}

/// The bits of `xl_info` that [`names`] lists, which are some of the high four.
const fn operation(rmgr: Rmgr, info: u8) -> u8 {
    match rmgr {
        Rmgr::Transaction => info & transaction::OPERATION_MASK,
        _ => info & INFO_KIND_MASK,
    }
}

/// By resource manager: a bit for each kind.
const KNOWN: [u16; Rmgr::ALL.len()] = {
    let mut known = [0; Rmgr::ALL.len()];
    let mut rmgr = 0;
    while rmgr < known.len() {
        let names = names(Rmgr::ALL[rmgr]);
        let mut at = 0;
        while at < names.len() {
            known[rmgr] |= 1 << (names[at].0 >> 4);
            at += 1;
        }
        rmgr += 1;
    }
    known
};

const fn names(rmgr: Rmgr) -> &'static [(u8, &'static str)] {
    match rmgr {
        Rmgr::Xlog => &[
            (0x00, "CHECKPOINT_SHUTDOWN"),
            (0x10, "CHECKPOINT_ONLINE"),
            (0x20, "NOOP"),
            (0x30, "NEXTOID"),
            (0x40, "SWITCH"),
            (0x50, "BACKUP_END"),
            (0x60, "PARAMETER_CHANGE"),
            (0x70, "RESTORE_POINT"),
            (0x80, "FPW_CHANGE"),
            (0x90, "END_OF_RECOVERY"),
            (0xA0, "FPI_FOR_HINT"),
            (0xB0, "FPI"),
            (0xD0, "OVERWRITE_CONTRECORD"),
        ],
        Rmgr::Transaction => &[
            (0x00, "COMMIT"),
            (0x10, "PREPARE"),
            (0x20, "ABORT"),
            (0x30, "COMMIT_PREPARED"),
            (0x40, "ABORT_PREPARED"),
            (0x50, "ASSIGNMENT"),
            (0x60, "INVALIDATION"),
        ],
        Rmgr::Storage => &[(0x10, "CREATE"), (0x20, "TRUNCATE")],
        Rmgr::Clog | Rmgr::CommitTs => &[(0x00, "ZEROPAGE"), (0x10, "TRUNCATE")],
        Rmgr::Database => &[
            (0x00, "CREATE_FILE_COPY"),
            (0x10, "CREATE_WAL_LOG"),
            (0x20, "DROP"),
        ],
        Rmgr::Tablespace => &[(0x00, "CREATE"), (0x10, "DROP")],
        Rmgr::MultiXact => &[
            (0x00, "ZERO_OFF_PAGE"),
            (0x10, "ZERO_MEM_PAGE"),
            (0x20, "CREATE_ID"),
            (0x30, "TRUNCATE_ID"),
        ],
        Rmgr::RelMap => &[(0x00, "UPDATE")],
        Rmgr::Standby => &[(0x00, "LOCK"), (0x10, "RUNNING_XACTS"), (0x20, "INVALIDATIONS")],
        Rmgr::Heap2 => &[
            (0x00, "REWRITE"),
            (0x10, "PRUNE"),
            (0x20, "VACUUM"),
            (0x30, "FREEZE_PAGE"),
            (0x40, "VISIBLE"),
            (0x50, "MULTI_INSERT"),
            (0xD0, "MULTI_INSERT+INIT"),
            (0x60, "LOCK_UPDATED"),
            (0x70, "NEW_CID"),
        ],
        Rmgr::Heap => &[
            (0x00, "INSERT"),
            (0x80, "INSERT+INIT"),
            (0x10, "DELETE"),
            (0x20, "UPDATE"),
            (0xA0, "UPDATE+INIT"),
            (0x30, "TRUNCATE"),
            (0x40, "HOT_UPDATE"),
            (0xC0, "HOT_UPDATE+INIT"),
            (0x50, "HEAP_CONFIRM"),
            (0x60, "LOCK"),
            (0x70, "INPLACE"),
        ],
        Rmgr::Btree => &[
            (0x00, "INSERT_LEAF"),
            (0x10, "INSERT_UPPER"),
            (0x20, "INSERT_META"),
            (0x30, "SPLIT_L"),
            (0x40, "SPLIT_R"),
            (0x50, "INSERT_POST"),
            (0x60, "DEDUP"),
            (0x70, "DELETE"),
            (0x80, "UNLINK_PAGE"),
            (0x90, "UNLINK_PAGE_META"),
            (0xA0, "NEWROOT"),
            (0xB0, "MARK_PAGE_HALFDEAD"),
            (0xC0, "VACUUM"),
            (0xD0, "REUSE_PAGE"),
            (0xE0, "META_CLEANUP"),
        ],
        Rmgr::Hash => &[
            (0x00, "INIT_META_PAGE"),
            (0x10, "INIT_BITMAP_PAGE"),
            (0x20, "INSERT"),
            (0x30, "ADD_OVFL_PAGE"),
            (0x40, "SPLIT_ALLOCATE_PAGE"),
            (0x50, "SPLIT_PAGE"),
            (0x60, "SPLIT_COMPLETE"),
            (0x70, "MOVE_PAGE_CONTENTS"),
            (0x80, "SQUEEZE_PAGE"),
            (0x90, "DELETE"),
            (0xA0, "SPLIT_CLEANUP"),
            (0xB0, "UPDATE_META_PAGE"),
            (0xC0, "VACUUM_ONE_PAGE"),
        ],
        Rmgr::Gin => &[
            (0x10, "CREATE_PTREE"),
            (0x20, "INSERT"),
            (0x30, "SPLIT"),
            (0x40, "VACUUM_PAGE"),
            (0x50, "DELETE_PAGE"),
            (0x60, "UPDATE_META_PAGE"),
            (0x70, "INSERT_LISTPAGE"),
            (0x80, "DELETE_LISTPAGE"),
            (0x90, "VACUUM_DATA_LEAF_PAGE"),
        ],
        Rmgr::Gist => &[
            (0x00, "PAGE_UPDATE"),
            (0x10, "DELETE"),
            (0x20, "PAGE_REUSE"),
            (0x30, "PAGE_SPLIT"),
            (0x60, "PAGE_DELETE"),
            (0x70, "ASSIGN_LSN"),
        ],
        Rmgr::Sequence => &[(0x00, "LOG")],
        Rmgr::SpGist => &[
            (0x10, "ADD_LEAF"),
            (0x20, "MOVE_LEAFS"),
            (0x30, "ADD_NODE"),
            (0x40, "SPLIT_TUPLE"),
            (0x50, "PICKSPLIT"),
            (0x60, "VACUUM_LEAF"),
            (0x70, "VACUUM_ROOT"),
            (0x80, "VACUUM_REDIRECT"),
        ],
        Rmgr::Brin => &[
            (0x00, "CREATE_INDEX"),
            (0x10, "INSERT"),
            (0x90, "INSERT+INIT"),
            (0x20, "UPDATE"),
            (0xA0, "UPDATE+INIT"),
            (0x30, "SAMEPAGE_UPDATE"),
            (0x40, "REVMAP_EXTEND"),
            (0x50, "DESUMMARIZE"),
        ],
        Rmgr::ReplicationOrigin => &[(0x00, "SET"), (0x10, "DROP")],
        Rmgr::Generic => &[(0x00, "Generic")],
        Rmgr::LogicalMessage => &[(0x00, "MESSAGE")],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_known_by_their_names() {
        let kinds = Rmgr::ALL
            .into_iter()
            .flat_map(|rmgr| (0..=u8::MAX).map(move |info| (rmgr, info)));
        for (rmgr, info) in kinds {
            assert_eq!(
                is_known(rmgr, info),
                identify(rmgr, info).is_some(),
                "{rmgr} {info:#x}"
            );
        }
    }
}
