//! A fork's pages in memory.

use pg_quorum_types::BLOCK_SIZE;
use pg_quorum_wal::Page;

/// Pages of a chunk.
const CHUNK_PAGES: usize = 128;
/// Pages begin where pages of the machine's memory do, as in a server's buffers.
const ALIGNMENT: usize = 4096;

/// Consecutive pages from block 0 on. Growing moves none of them, and takes memory only as they are written to.
#[derive(Clone, Default)]
pub struct Fork {
    chunks: Vec<Chunk>,
    blocks: usize,
}

struct Chunk {
    memory: Vec<u8>,
    /// Where the first page begins in it.
    from: usize,
}

impl Chunk {
    fn zeroed() -> Chunk {
        let memory = vec![0; CHUNK_PAGES * BLOCK_SIZE + ALIGNMENT];
        let from = memory.as_ptr().align_offset(ALIGNMENT);
        assert!(from < ALIGNMENT);
        Chunk { memory, from }
    }

    fn pages(&self) -> &[Page] {
        self.memory[self.from..].as_chunks().0
    }

    fn pages_mut(&mut self) -> &mut [Page] {
        self.memory[self.from..].as_chunks_mut().0
    }
}

impl Clone for Chunk {
    fn clone(&self) -> Chunk {
        let mut copy = Chunk::zeroed();
        copy.pages_mut().copy_from_slice(self.pages());
        copy
    }
}

impl Fork {
    /// How many pages there are.
    pub fn blocks(&self) -> usize {
        self.blocks
    }

    pub fn get(&self, block: usize) -> Option<&Page> {
        let is_there = block < self.blocks;
        is_there.then(|| &self.chunks[block / CHUNK_PAGES].pages()[block % CHUNK_PAGES])
    }

    pub fn get_mut(&mut self, block: usize) -> Option<&mut Page> {
        let is_there = block < self.blocks;
        is_there.then(|| &mut self.chunks[block / CHUNK_PAGES].pages_mut()[block % CHUNK_PAGES])
    }

    /// The page, with zeros if it and pages before it must be made.
    pub fn get_or_extend(&mut self, block: usize) -> &mut Page {
        if block >= self.blocks {
            self.chunks.resize_with(block / CHUNK_PAGES + 1, Chunk::zeroed);
            self.blocks = block + 1;
        }
        &mut self.chunks[block / CHUNK_PAGES].pages_mut()[block % CHUNK_PAGES]
    }

    /// Drops pages from `blocks` on.
    pub fn truncate(&mut self, blocks: usize) {
        if blocks >= self.blocks {
            return;
        }
        self.chunks.truncate(blocks.div_ceil(CHUNK_PAGES));
        // What is behind the end is zeros.
        if let Some(last) = self.chunks.last_mut()
            && !blocks.is_multiple_of(CHUNK_PAGES)
        {
            last.pages_mut()[blocks % CHUNK_PAGES..CHUNK_PAGES].fill([0; BLOCK_SIZE]);
        }
        self.blocks = blocks;
    }

    pub fn iter(&self) -> impl Iterator<Item = &Page> {
        let pages = self.chunks.iter().flat_map(|chunk| &chunk.pages()[..CHUNK_PAGES]);
        pages.take(self.blocks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_behind_a_truncation_come_back_as_zeros() {
        let mut fork = Fork::default();
        for block in 0..300 {
            fork.get_or_extend(block).fill(block as u8 | 1);
        }
        let copy = fork.clone();
        fork.truncate(130);
        assert_eq!((fork.blocks(), fork.iter().count()), (130, 130));
        assert!(fork.get(130).is_none());
        fork.get_or_extend(299)[0] = 7;
        assert!((0..130).all(|block| fork.get(block) == copy.get(block)));
        assert!((130..299).all(|block| fork.get(block) == Some(&[0; BLOCK_SIZE])));
        assert_eq!(copy.iter().count(), 300);
        assert!(
            (0..)
                .zip(copy.iter())
                .all(|(block, page)| page[9] == block as u8 | 1)
        );
    }
}
