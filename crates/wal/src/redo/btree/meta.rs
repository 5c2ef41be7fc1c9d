//! The metapage (nbtxlog.c `_bt_restore_meta`, 15.18).

use super::page::{BTP_META, BtreePage};
use crate::redo::error::RedoFault;
use crate::redo::fields::Fields;
use crate::redo::page::{HEADER_BYTES, PageLayout};
use crate::{BlockRef, Page, Record};

/// `BTREE_MAGIC`.
const MAGIC: u32 = 0x053162;
/// `sizeof(BTMetaPageData)`.
const META_BYTES: usize = 48;

/// Makes the metapage anew from `xl_btree_metadata`.
///
/// ```text
/// page 24: btm_magic version root level fastroot fastlevel num_delpages  pad  heap_tuples f64  allequalimage
///          0         4       8    12    16       20        24            28   32               40
/// ```
pub(super) fn restore(record: &Record<'_>, block: &BlockRef<'_>, page: &mut Page) -> Result<(), RedoFault> {
    let mut fields = Fields::new(block.data);
    let mut page = BtreePage::init(page);
    page.page.put_u32(HEADER_BYTES, MAGIC);
    for index in 1..=6 {
        // version, root, level, fastroot, fastlevel, last_cleanup_num_delpages: the same order on both sides
        page.page.put_u32(HEADER_BYTES + index * 4, fields.u32()?);
    }
    page.page[HEADER_BYTES + 32..HEADER_BYTES + 40].copy_from_slice(&(-1.0f64).to_le_bytes());
    page.page[HEADER_BYTES + 40] = fields.u8()?;
    page.set_flags(BTP_META);
    page.page.set_lower((HEADER_BYTES + META_BYTES) as u16);
    page.page.set_lsn(record.end);
    Ok(())
}
