//! Records and their pages: decoding, effects, redo, masks, images.

use bytes::Bytes;
use pg_quorum_types::{BLOCK_SIZE, PageKey};
use pg_quorum_wal::{
    BlockImage, CheckpointState, Compression, Effects, Page, RECORD_HEADER_BYTES, RawRecord, Record,
    RedoContext, WalLayout, apply as apply_record, effects, mask_page, restore_image,
};

use crate::bytes_in::BytesIn;
use crate::record_case::RecordCase;
use crate::{FACTS, RECORD_START};

/// How many pages of one record are rebuilt: a record of thousands of transactions names thousands.
const MAX_PAGES: usize = 40;
/// Changes that a record of no length could name: its blocks, and two map pages.
const FEW_CHANGES: usize = 40;

/// A record, put together from the input, is replayed on a page that was not made for it: see [`RecordCase`].
pub fn apply(input: &[u8]) {
    check_case(&RecordCase::from_bytes(input));
}

/// What must hold for a case. Returns how many of the record's pages could be rebuilt.
pub fn check_case(case: &RecordCase) -> usize {
    let raw = case.raw();
    match Record::decode(&raw) {
        Ok(record) => check_record(&record, &raw, &case.ctx, &case.page()),
        Err(error) => {
            assert_names(&error, &[&raw.start]);
            0
        }
    }
}

/// A record as it may come over the wire or from the log.
///
/// ```text
/// settings u8: bit 0 hint bits logged, bit 1 commit timestamps tracked, bit 2 the record's length stays as given,
///              bit 3 the checkpoint state is given too
/// [checkpoint state, as stored] | record
/// ```
pub fn decode(input: &[u8]) {
    let mut input = BytesIn(input);
    let settings = input.u8();
    let ctx = RedoContext {
        hint_bits_logged: settings & 1 != 0,
        track_commit_timestamp: settings & 2 != 0,
    };
    let mut state = CheckpointState::default();
    if settings & 8 != 0 {
        let mut stored = state.to_bytes();
        let given = input.take(stored.len());
        stored[..given.len()].copy_from_slice(given);
        match CheckpointState::from_bytes(&stored) {
            Ok(given) => state = given,
            Err(_) => return,
        }
    }
    let mut bytes = input.rest().to_vec();
    if settings & 4 == 0 && bytes.len() >= RECORD_HEADER_BYTES {
        let length = bytes.len() as u32;
        bytes[..4].copy_from_slice(&length.to_le_bytes());
    }
    let raw = RawRecord {
        start: RECORD_START,
        end: WalLayout::new(&FACTS)
            .record_end(RECORD_START, &bytes)
            .unwrap_or(RECORD_START),
        bytes: Bytes::from(bytes),
    };
    // Neither is believed before it is compared.
    let _ = (raw.check_crc(), raw.back_link());
    let record = match Record::decode(&raw) {
        Ok(record) => record,
        Err(error) => return assert_names(&error, &[&raw.start]),
    };
    check_record(&record, &raw, &ctx, &[0; BLOCK_SIZE]);
    check_tracking(state, &record);
}

/// The state of a checkpoint is brought forward, can be stored, and can be written as a checkpoint record.
fn check_tracking(mut state: CheckpointState, record: &Record<'_>) {
    if let Err(error) = state.track(record) {
        assert_names(&error, &[&record.start]);
    }
    assert_eq!(CheckpointState::from_bytes(&state.to_bytes()), Ok(state));
    let made = state
        .epoch_start_record(&FACTS, record.end, record.start, 1_700_000_000)
        .expect("a record's end is a place where a record can end");
    let made = Record::decode(&made).expect("a checkpoint record is a record");
    let ctx = state.redo_context(&FACTS);
    assert!(effects(&made, &ctx).is_ok_and(|effects| effects.pages.is_empty()));
    assert_eq!(state.track(&made), Ok(()));
}

/// A record of which [`Effects::read_pages_only`] says that it only changes pages does nothing else.
fn check_pages_only(record: &Record<'_>, ctx: &RedoContext) {
    let mut only_pages = Effects::default();
    if only_pages.read_pages_only(record) != Ok(true) {
        return;
    }
    assert!(only_pages.meta.is_empty());
    assert_eq!(effects(record, ctx), Ok(only_pages));
    let (mut tracked, mut advanced) = (CheckpointState::default(), CheckpointState::default());
    assert_eq!(tracked.track(record), Ok(()));
    advanced.advance_past_xid(record.xid);
    assert_eq!(tracked, advanced);
}

/// Effects, and every page that they name, starting from `page` each time. Returns how many fit.
fn check_record(record: &Record<'_>, raw: &RawRecord, ctx: &RedoContext, page: &Page) -> usize {
    check_pages_only(record, ctx);
    let keys: Vec<PageKey> = match effects(record, ctx) {
        Ok(effects) => {
            let changes = effects.pages.len() + effects.meta.len();
            assert!(
                changes <= raw.bytes.len() + FEW_CHANGES,
                "{changes} changes from a record of {} bytes",
                raw.bytes.len()
            );
            effects.pages.iter().map(|effect| effect.key).collect()
        }
        Err(error) => {
            assert_names(&error, &[&record.start]);
            record.blocks.iter().map(pg_quorum_wal::BlockRef::key).collect()
        }
    };
    let keys = keys.iter().take(MAX_PAGES);
    keys.filter(|key| check_apply(record, key, page, ctx)).count()
}

/// Redo of one page, which is an error that says where, or a page that the record does not change a second time.
fn check_apply(record: &Record<'_>, key: &PageKey, before: &Page, ctx: &RedoContext) -> bool {
    let mut page = *before;
    if let Err(error) = apply_record(record, key, &mut page, ctx) {
        assert_names(&error, &[&record.start, key]);
        return false;
    }
    if page[14..16] == [0, 0] && matches!(key, PageKey::Relation { .. }) {
        // A damaged page can have an item over pd_upper, and a generic record can write there: now it counts as new.
        return true;
    }
    let mut again = page;
    assert_eq!(apply_record(record, key, &mut again, ctx), Ok(()), "{key}");
    assert!(
        page == again,
        "{key}: a second replay of the record changes the page again"
    );
    if let PageKey::Relation { block, .. } = key {
        // A mask finds damage that redo had no reason to look at.
        let _ = mask_page(record.rmgr, &mut page, *block);
    }
    true
}

/// An error must say what it is about.
fn assert_names(error: &impl std::fmt::Display, what: &[&dyn std::fmt::Display]) {
    let text = error.to_string();
    for what in what {
        let what = what.to_string();
        assert!(text.contains(&what), "{what} is not named in: {text}");
    }
}

/// A page image.
///
/// ```text
/// compression u8: 0 none, 1 pglz, 2 lz4, 3 zstd (modulo four) | hole offset u16 | hole bytes u16 | image
/// ```
pub fn image(input: &[u8]) {
    let mut input = BytesIn(input);
    let image = BlockImage {
        compression: [
            None,
            Some(Compression::Pglz),
            Some(Compression::Lz4),
            Some(Compression::Zstd),
        ][usize::from(input.u8() % 4)],
        hole_offset: input.u16(),
        hole_length: input.u16(),
        bytes: input.rest(),
        apply: true,
    };
    let mut page: Page = [0xA5; BLOCK_SIZE];
    if restore_image(&image, &mut page).is_err() {
        return;
    }
    let hole = usize::from(image.hole_offset);
    let hole = &page[hole..hole + usize::from(image.hole_length)];
    assert!(hole.iter().all(|byte| *byte == 0), "a hole that is not zeros");
    let mut other: Page = [0x5A; BLOCK_SIZE];
    assert_eq!(restore_image(&image, &mut other), Ok(()));
    assert!(
        page == other,
        "an image leaves something of the page that it replaces"
    );
}
