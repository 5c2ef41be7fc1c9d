//! PostgreSQL 15's storage manager table (`smgrsw`, `smgr.c` 15.18): one row, 15 pointers.

use std::ffi::CStr;
use std::sync::OnceLock;

use pgrx::pg_sys::{self, BlockNumber, ForkNumber, RelFileNodeBackend, SMgrRelation};

use super::elf::{ElfError, MainProgram, exported};
use super::patch::Patch;

pub type Create = unsafe extern "C-unwind" fn(SMgrRelation, ForkNumber::Type, bool);
pub type Exists = unsafe extern "C-unwind" fn(SMgrRelation, ForkNumber::Type) -> bool;
pub type Unlink = unsafe extern "C-unwind" fn(RelFileNodeBackend, ForkNumber::Type, bool);
pub type Extend =
    unsafe extern "C-unwind" fn(SMgrRelation, ForkNumber::Type, BlockNumber, *mut std::ffi::c_char, bool);
pub type Prefetch = unsafe extern "C-unwind" fn(SMgrRelation, ForkNumber::Type, BlockNumber) -> bool;
pub type Read =
    unsafe extern "C-unwind" fn(SMgrRelation, ForkNumber::Type, BlockNumber, *mut std::ffi::c_char);
pub type Write = Extend;
pub type Writeback = unsafe extern "C-unwind" fn(SMgrRelation, ForkNumber::Type, BlockNumber, BlockNumber);
pub type NBlocks = unsafe extern "C-unwind" fn(SMgrRelation, ForkNumber::Type) -> BlockNumber;
pub type Truncate = unsafe extern "C-unwind" fn(SMgrRelation, ForkNumber::Type, BlockNumber, BlockNumber);
pub type ImmedSync = unsafe extern "C-unwind" fn(SMgrRelation, ForkNumber::Type);
type Plain = unsafe extern "C-unwind" fn();
type Open = unsafe extern "C-unwind" fn(SMgrRelation);
type Close = unsafe extern "C-unwind" fn(SMgrRelation, ForkNumber::Type);

/// `f_smgr` of PostgreSQL 15. The fields that are `Option` may be null in the table.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct MdTable {
    pub init: Option<Plain>,
    pub shutdown: Option<Plain>,
    pub open: Open,
    pub close: Close,
    pub create: Create,
    pub exists: Exists,
    pub unlink: Unlink,
    pub extend: Extend,
    pub prefetch: Prefetch,
    pub read: Read,
    pub write: Write,
    pub writeback: Writeback,
    pub nblocks: NBlocks,
    pub truncate: Truncate,
    pub immedsync: ImmedSync,
}

const WORDS: usize = size_of::<MdTable>() / size_of::<usize>();
const _: () = assert!(WORDS == 15);

/// The row as the binary has it: an exported function's name, or null.
const ROW: [Option<&CStr>; WORDS] = [
    Some(c"mdinit"),
    None,
    Some(c"mdopen"),
    Some(c"mdclose"),
    Some(c"mdcreate"),
    Some(c"mdexists"),
    Some(c"mdunlink"),
    Some(c"mdextend"),
    Some(c"mdprefetch"),
    Some(c"mdread"),
    Some(c"mdwrite"),
    Some(c"mdwriteback"),
    Some(c"mdnblocks"),
    Some(c"mdtruncate"),
    Some(c"mdimmedsync"),
];

/// What the row held before it was changed: the functions of `md.c`.
static MD: OnceLock<MdTable> = OnceLock::new();

/// The functions of `md.c`.
///
/// # Panics
/// Before [`find`]: no hook runs then.
pub fn md() -> &'static MdTable {
    MD.get().expect("the storage manager's table was found")
}

/// Where the row is. Found in `_PG_init`, changed later.
#[derive(Debug)]
pub struct Row {
    address: usize,
    words: [usize; WORDS],
}

/// Finds the one row of the storage manager's table.
///
/// # Errors
/// A function is not exported, or there is not exactly one such row.
pub fn find(program: &MainProgram) -> Result<Row, ElfError> {
    let mut words = [0; WORDS];
    for (word, name) in words.iter_mut().zip(ROW) {
        *word = name.map_or(Ok(0), exported)?;
    }
    let address = program.find_words(&words)?;
    // SAFETY: fifteen words, each the address of the md.c function of that signature in PostgreSQL 15 (the
    // module magic refused every other major version), or null where the field is an Option.
    let table = unsafe { std::mem::transmute::<[usize; WORDS], MdTable>(words) };
    let _ = MD.set(table);
    Ok(Row { address, words })
}

impl Row {
    /// The patches that put `hooks` in the place of the row, where they differ.
    pub fn patches(&self, hooks: &MdTable) -> Vec<Patch> {
        // SAFETY: plain pointers of the same size; null stands for None.
        let hooks = unsafe { std::mem::transmute::<MdTable, [usize; WORDS]>(*hooks) };
        self.words
            .iter()
            .zip(hooks)
            .enumerate()
            .filter(|(_, (expected, replacement))| *expected != replacement)
            .map(|(index, (expected, replacement))| Patch {
                slot: self.address + index * size_of::<usize>(),
                expected: *expected,
                replacement,
            })
            .collect()
    }
}

/// `RELSEG_SIZE`: blocks in a segment file.
pub const BLOCKS_PER_SEGMENT: BlockNumber = pg_sys::RELSEG_SIZE;
