//! The main program's image in memory: its ELF file, where it is loaded, which words may be changed.
//!
//! The file is read through `/proc/self/exe`, so that a package upgrade under a running server cannot mix
//! two binaries. Nothing here changes memory; [`super::patch`] does.

use std::ffi::CStr;
use std::ops::Range;

use goblin::elf::program_header::{PT_GNU_RELRO, PT_PHDR};
use goblin::elf::{Elf, header, reloc};

/// What was not found. One of these is one FATAL at the server's start.
#[derive(Debug, thiserror::Error)]
pub enum ElfError {
    #[error("could not read the server's program file: {0}")]
    Read(#[from] std::io::Error),
    #[error("could not parse the server's program file: {0}")]
    Parse(#[from] goblin::error::Error),
    #[error("the server's program file has no {0}")]
    Missing(&'static str),
    #[error("the server's program file is for an unknown machine ({0})")]
    Machine(u16),
    #[error("the server does not export the function \"{0}\"")]
    Symbol(String),
    #[error("the server imports no function \"{0}\"")]
    Import(&'static str),
    #[error("the server's import slots of \"{0}\" do not agree")]
    ImportsDiffer(&'static str),
    #[error("the storage manager's table was found {0} times in the server's memory, not once")]
    TableCount(usize),
}

/// The parsed main program.
pub struct MainProgram {
    /// Runtime addresses of the part that the loader protected after relocation.
    relro: Range<usize>,
    imports: Vec<Import>,
}

struct Import {
    name: String,
    slot: usize,
}

impl MainProgram {
    /// Reads and parses the running program.
    ///
    /// # Errors
    /// See [`ElfError`].
    pub fn load() -> Result<MainProgram, ElfError> {
        let file = std::fs::read("/proc/self/exe")?;
        let elf = Elf::parse(&file)?;
        // SAFETY: getauxval has no preconditions.
        let headers_at = unsafe { libc::getauxval(libc::AT_PHDR) } as usize;
        let headers = elf.program_headers.iter().find(|header| header.p_type == PT_PHDR);
        let headers = headers.ok_or(ElfError::Missing("program header of its headers"))?;
        let bias = headers_at.wrapping_sub(address(headers.p_vaddr));
        let relro = elf
            .program_headers
            .iter()
            .find(|header| header.p_type == PT_GNU_RELRO);
        let relro = relro.ok_or(ElfError::Missing("read-only relocated part"))?;
        let start = bias.wrapping_add(address(relro.p_vaddr));
        Ok(MainProgram {
            relro: start..start + address(relro.p_memsz),
            imports: imports(&elf, bias)?,
        })
    }

    /// The words through which the program calls the imported function `name`, and what they hold now.
    /// There is at least one, and all hold the same.
    ///
    /// # Errors
    /// The program does not import it, or its slots differ.
    pub fn import_slots(&self, name: &'static str) -> Result<(Vec<usize>, usize), ElfError> {
        let named = |import: &&Import| import.name == name;
        let slots: Vec<usize> = self
            .imports
            .iter()
            .filter(named)
            .map(|import| import.slot)
            .collect();
        let first = *slots.first().ok_or(ElfError::Import(name))?;
        // SAFETY: relocation slots of the main program are mapped, aligned, initialised words.
        let held = |slot: usize| unsafe { (slot as *const usize).read() };
        let target = held(first);
        if target == 0 || slots.iter().any(|slot| held(*slot) != target) {
            return Err(ElfError::ImportsDiffer(name));
        }
        Ok((slots, target))
    }

    /// The runtime address of the one place in the protected part that holds `words`.
    ///
    /// # Errors
    /// None or several such places.
    pub fn find_words(&self, words: &[usize]) -> Result<usize, ElfError> {
        let start = self.relro.start.next_multiple_of(size_of::<usize>());
        let count = (self.relro.end - start) / size_of::<usize>();
        // SAFETY: the loader mapped this range of the main program, readable, for the process's life; the
        // postmaster has one thread and nothing writes to it meanwhile.
        let memory = unsafe { std::slice::from_raw_parts(start as *const usize, count) };
        let matches: Vec<usize> = memory
            .windows(words.len())
            .enumerate()
            .filter(|(_, window)| *window == words)
            .map(|(index, _)| start + index * size_of::<usize>())
            .collect();
        match matches[..] {
            [one] => Ok(one),
            _ => Err(ElfError::TableCount(matches.len())),
        }
    }
}

/// The address of a function that the main program (or a library that it loaded first) exports.
///
/// # Errors
/// There is none of that name.
pub fn exported(name: &CStr) -> Result<usize, ElfError> {
    // SAFETY: `name` is a C string; dlsym only looks it up.
    let address = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
    if address.is_null() {
        return Err(ElfError::Symbol(name.to_string_lossy().into_owned()));
    }
    Ok(address as usize)
}

fn imports(elf: &Elf<'_>, bias: usize) -> Result<Vec<Import>, ElfError> {
    let kinds = match elf.header.e_machine {
        header::EM_X86_64 => [reloc::R_X86_64_JUMP_SLOT, reloc::R_X86_64_GLOB_DAT],
        header::EM_AARCH64 => [reloc::R_AARCH64_JUMP_SLOT, reloc::R_AARCH64_GLOB_DAT],
        machine => return Err(ElfError::Machine(machine)),
    };
    let import = |relocation: reloc::Reloc| {
        let symbol = elf.dynsyms.get(relocation.r_sym)?;
        let name = elf.dynstrtab.get_at(symbol.st_name)?;
        kinds.contains(&relocation.r_type).then(|| Import {
            name: name.to_owned(),
            slot: bias.wrapping_add(address(relocation.r_offset)),
        })
    };
    let relocations = elf.pltrelocs.iter().chain(elf.dynrelas.iter());
    Ok(relocations.filter_map(import).collect())
}

fn address(value: u64) -> usize {
    usize::try_from(value).expect("addresses of the running program fit")
}
