//! Swapping function pointers in the main program's protected tables.

use std::ops::Range;

/// One pointer to swap.
#[derive(Clone, Copy, Debug)]
pub struct Patch {
    /// Runtime address of the word.
    pub slot: usize,
    /// What it must hold before.
    pub expected: usize,
    /// What it holds afterwards.
    pub replacement: usize,
}

#[derive(Debug, thiserror::Error)]
pub enum PatchError {
    #[error("could not read /proc/self/maps: {0}")]
    Maps(std::io::Error),
    #[error("the table at {0:#x} is not mapped")]
    NotMapped(usize),
    #[error("the table at {0:#x} has changed since it was checked")]
    Changed(usize),
    #[error("could not change the protection of the page at {page:#x}: {error}")]
    Protect { page: usize, error: std::io::Error },
}

/// Swaps all of `patches`, or none if a word does not hold what it should. Opens only the pages that hold
/// the words, and gives each page the protection back that it had. In the postmaster, before it has children.
///
/// # Errors
/// See [`PatchError`].
pub fn apply(patches: &[Patch]) -> Result<(), PatchError> {
    let maps = std::fs::read_to_string("/proc/self/maps").map_err(PatchError::Maps)?;
    let mut pages = Vec::new();
    for patch in patches {
        let page = patch.slot - patch.slot % page_bytes();
        let protection = protection_of(&maps, patch.slot).ok_or(PatchError::NotMapped(patch.slot))?;
        if held(patch.slot) != patch.expected {
            return Err(PatchError::Changed(patch.slot));
        }
        if !pages.contains(&(page, protection)) {
            pages.push((page, protection));
        }
    }
    let mut opened = Vec::new();
    let outcome = pages.iter().try_for_each(|&(page, protection)| {
        protect(page, protection | libc::PROT_WRITE)?;
        opened.push((page, protection));
        Ok(())
    });
    if outcome.is_ok() {
        for patch in patches {
            // SAFETY: the word is mapped, aligned, was just made writable and holds a function pointer of
            // the replacement's signature (the caller's tables pair them). The process has one thread.
            unsafe { (patch.slot as *mut usize).write_volatile(patch.replacement) }
        }
    }
    for (page, protection) in opened {
        protect(page, protection)?;
    }
    outcome
}

fn held(slot: usize) -> usize {
    // SAFETY: the caller has found the word in /proc/self/maps.
    unsafe { (slot as *const usize).read_volatile() }
}

fn page_bytes() -> usize {
    // SAFETY: sysconf has no preconditions.
    let bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(bytes).expect("a page has a size")
}

fn protect(page: usize, protection: i32) -> Result<(), PatchError> {
    // SAFETY: a whole page of the main program's data that /proc/self/maps lists; more rights than before,
    // or the ones that it had.
    let failed = unsafe { libc::mprotect(page as *mut libc::c_void, page_bytes(), protection) } != 0;
    if failed {
        return Err(PatchError::Protect {
            page,
            error: std::io::Error::last_os_error(),
        });
    }
    Ok(())
}

/// The protection of the mapping that holds `address`, from the text of `/proc/self/maps`.
fn protection_of(maps: &str, address: usize) -> Option<i32> {
    maps.lines()
        .filter_map(parse_mapping)
        .find_map(|(range, protection)| range.contains(&address).then_some(protection))
}

fn parse_mapping(line: &str) -> Option<(Range<usize>, i32)> {
    let mut words = line.split(' ');
    let (start, end) = words.next()?.split_once('-')?;
    let start = usize::from_str_radix(start, 16).ok()?;
    let end = usize::from_str_radix(end, 16).ok()?;
    let flags = words.next()?;
    let bits = [
        ('r', libc::PROT_READ),
        ('w', libc::PROT_WRITE),
        ('x', libc::PROT_EXEC),
    ];
    let set = bits.iter().filter(|(letter, _)| flags.contains(*letter));
    Some((start..end, set.fold(0, |all, (_, bit)| all | bit)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protection_is_that_of_the_mapping_that_holds_the_address() {
        let maps = "1000-2000 r--p 00000000 fe:00 1 /usr/lib/postgres\n2000-3000 rw-p 00001000 fe:00 1 /x\n";
        assert_eq!(protection_of(maps, 0x1fff), Some(libc::PROT_READ));
        assert_eq!(
            protection_of(maps, 0x2000),
            Some(libc::PROT_READ | libc::PROT_WRITE)
        );
        assert_eq!(protection_of(maps, 0x3000), None);
    }

    #[test]
    fn a_word_that_changed_is_not_swapped() {
        let words = Box::new([1usize, 2]);
        let slot = |index: usize| &raw const words[index] as usize;
        let patch = |index, expected| Patch {
            slot: slot(index),
            expected,
            replacement: 9,
        };
        assert!(matches!(
            apply(&[patch(0, 1), patch(1, 7)]),
            Err(PatchError::Changed(_))
        ));
        assert_eq!((held(slot(0)), held(slot(1))), (1, 2));
        apply(&[patch(0, 1), patch(1, 2)]).unwrap();
        assert_eq!((held(slot(0)), held(slot(1))), (9, 9));
    }
}
