//! Removal of whole files that nobody needs.

use std::io;

use pg_quorum_types::Lsn;

use super::hot_log::HotLog;

impl HotLog {
    /// Removes files whose records all end at or below `needed_from`, oldest first, as long as the rest has
    /// the bytes that are to be kept. Returns how many files were removed.
    ///
    /// # Errors
    /// A file cannot be removed.
    pub fn trim_below(&self, needed_from: Lsn) -> io::Result<usize> {
        let removed = {
            let mut contents = self.contents.write();
            let holds_it = contents
                .places
                .range(..=needed_from)
                .next_back()
                .map(|(_, place)| place.file);
            let Some(first_kept) = holds_it else {
                return Ok(0);
            };
            let mut bytes: u64 = contents.files.values().map(|file| file.bytes).sum();
            let mut removed = Vec::new();
            while let Some((&number, file)) = contents.files.first_key_value()
                && number < first_kept
                && bytes - file.bytes >= self.settings.retention_bytes
            {
                bytes -= file.bytes;
                removed.extend(contents.files.remove(&number));
            }
            if removed.is_empty() {
                return Ok(0);
            }
            let first = contents.files.first_key_value().map(|(number, _)| *number);
            contents.places.retain(|_, place| Some(place.file) >= first);
            if let Some((&begin, _)) = contents.places.first_key_value() {
                contents.begin = begin;
            }
            self.hints.lock().clear();
            removed
        };
        for file in &removed {
            self.disk.remove(&file.path)?;
        }
        self.disk.sync_dir(&self.dir)?;
        Ok(removed.len())
    }
}
