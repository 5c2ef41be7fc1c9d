//! Map pages whose bits a heap record clears without naming them.

use pg_quorum_types::PageKey;

use crate::redo::visibility_map::implied_clears;
use crate::{Record, WalError};

use super::Effects;

/// One or two map pages; PostgreSQL makes them if they do not exist (`visibilitymap_pin`, 15.18).
pub(super) fn add(record: &Record<'_>, effects: &mut Effects) -> Result<(), WalError> {
    let clears = implied_clears(record).map_err(|_| {
        record
            .main_reader()
            .bad("its flags or the block that they mean are missing")
    })?;
    for clear in clears {
        let (rel, block) = clear.map_page();
        effects.add_page(PageKey::Relation { rel, block }, false);
    }
    Ok(())
}
