//! A short text in shared memory, one writer, any number of readers.

use std::sync::atomic::{AtomicU8, AtomicU32, Ordering, fence};

/// Up to `N` bytes of UTF-8, cut at a character's edge. A sequence lock: odd while it is being written.
#[derive(Debug)]
pub struct SharedText<const N: usize> {
    sequence: AtomicU32,
    length: AtomicU32,
    bytes: [AtomicU8; N],
}

/// A reader that meets a writer this often in a row takes what it sees.
const READ_ATTEMPTS: usize = 1000;

impl<const N: usize> SharedText<N> {
    /// Replaces the text. One process writes.
    pub fn set(&self, text: &str) {
        let mut length = text.len().min(N);
        while !text.is_char_boundary(length) {
            length -= 1;
        }
        self.sequence.fetch_add(1, Ordering::AcqRel);
        fence(Ordering::Release);
        self.length
            .store(u32::try_from(length).unwrap_or(0), Ordering::Relaxed);
        for (to, from) in self.bytes.iter().zip(&text.as_bytes()[..length]) {
            to.store(*from, Ordering::Relaxed);
        }
        self.sequence.fetch_add(1, Ordering::Release);
    }

    pub fn get(&self) -> String {
        let mut bytes = Vec::new();
        for _ in 0..READ_ATTEMPTS {
            let before = self.sequence.load(Ordering::Acquire);
            let length = (self.length.load(Ordering::Relaxed) as usize).min(N);
            bytes = self.bytes[..length]
                .iter()
                .map(|byte| byte.load(Ordering::Relaxed))
                .collect();
            fence(Ordering::Acquire);
            if before.is_multiple_of(2) && self.sequence.load(Ordering::Relaxed) == before {
                break;
            }
            std::hint::spin_loop();
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }
}
