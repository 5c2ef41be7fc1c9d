//! The table of record types.

use std::fmt::Write as _;

use pg_quorum_wal::{Rmgr, identify};

use crate::files::FinalComparison;
use crate::replay::Replay;

/// Resource managers whose pages are not rebuilt yet.
const LATER: [Rmgr; 1] = [Rmgr::Gin];

/// Kinds that no PostgreSQL 15 writes, and why. They are decoded all the same.
const NEVER_WRITTEN: [(Rmgr, &str, &str); 2] = [
    (Rmgr::Xlog, "NOOP", "nothing in PostgreSQL 15 writes one"),
    (
        Rmgr::Heap,
        "HOT_UPDATE+INIT",
        "the old version is on the same page, so the page is not new",
    ),
];

/// Every kind of record that PostgreSQL 15 knows, with what was done to it; those never seen at the end.
pub fn table(replay: &Replay, comparison: &FinalComparison) -> String {
    let mut text = format!(
        "{:<18} {:<22} {:>9} {:>9} {:>9} {:>9}\n",
        "resource manager", "record", "records", "pages", "compared", "restored"
    );
    let mut total = 0;
    for ((rmgr, kind), count) in &replay.kinds {
        total += count.records;
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "{:<18} {:<22} {:>9} {:>9} {:>9} {:>9}",
            rmgr.name(),
            kind,
            count.records,
            count.pages,
            count.compared,
            count.restored
        );
    }
    let _ = writeln!(text, "{total} records");
    for (rmgr, records) in &replay.unsupported {
        let _ = writeln!(text, "not replayed yet: {records} pages of {rmgr}");
    }
    let _ = writeln!(text, "never seen: {}", never_seen(replay).join(", "));
    for (rmgr, kind, why) in NEVER_WRITTEN {
        let _ = writeln!(text, "cannot be seen: {rmgr}/{kind}: {why}");
    }
    let _ = writeln!(
        text,
        "compared with the standby's files: {} pages of relations, {} of transaction state",
        comparison.relation_pages, comparison.slru_pages
    );
    text
}

/// Kinds of supported resource managers that the run did not make, but for those that nobody can make.
pub fn never_seen(replay: &Replay) -> Vec<String> {
    let mut kinds = Vec::new();
    for rmgr in Rmgr::ALL.into_iter().filter(|rmgr| !LATER.contains(rmgr)) {
        for info in (0..=0xF0).step_by(0x10) {
            if let Some(kind) = identify(rmgr, info)
                && !replay.kinds.contains_key(&(rmgr, kind))
                && !NEVER_WRITTEN
                    .iter()
                    .any(|(other, name, _)| (*other, *name) == (rmgr, kind))
            {
                kinds.push(format!("{rmgr}/{kind}"));
            }
        }
    }
    kinds.dedup();
    kinds
}
