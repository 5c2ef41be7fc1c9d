//! The pages that a record names.

use crate::v15::kind::xlog;
use crate::{Record, Rmgr, WalError};

use super::{Effects, PageEffect};

/// Every block reference is a page that may change, whoever replays it.
pub(super) fn add_referenced_blocks(record: &Record<'_>, effects: &mut Effects) -> Result<(), WalError> {
    for block in &record.blocks {
        if record.rmgr == Rmgr::Xlog && block.image.is_none() {
            // xlog_redo, 15.18: a page image for hint bits may have been left out.
            if record.kind() == xlog::FPI {
                return Err(record.main_reader().bad("a page image record without the image"));
            }
            continue;
        }
        effects.pages.push(PageEffect {
            key: block.key(),
            full: block.is_full(),
            extends: true,
        });
    }
    Ok(())
}
