//! Versions of metadata above the persisted LSN: in memory, so that a cut can take them back.

use std::collections::BTreeMap;

use pg_quorum_types::Lsn;
use smallvec::SmallVec;

use super::meta_key::{MetaRange, MetaValue};

type Versions = SmallVec<[(Lsn, MetaValue); 1]>;

/// Memory of a key and its first version, in bytes, without the value's own.
const SLOT_BYTES: usize = 96;

/// Metadata changes by stored key, in LSN order.
#[derive(Default)]
pub struct Overlay {
    values: BTreeMap<Vec<u8>, Versions>,
    bytes: usize,
}

fn version_bytes(value: &MetaValue) -> usize {
    size_of::<(Lsn, MetaValue)>() + value.as_ref().map_or(0, |value| value.len())
}

impl Overlay {
    /// Adds a version. Of two at the same LSN the later one counts.
    pub fn put(&mut self, key: Vec<u8>, lsn: Lsn, value: MetaValue) {
        let key_bytes = SLOT_BYTES + key.len();
        let versions = self.values.entry(key).or_default();
        if versions.is_empty() {
            self.bytes += key_bytes;
        }
        self.bytes += version_bytes(&value);
        match versions.last_mut() {
            Some(last) if last.0 == lsn => {
                self.bytes -= version_bytes(&last.1);
                last.1 = value;
            }
            last => {
                assert!(
                    last.is_none_or(|last| last.0 < lsn),
                    "metadata changes come in LSN order"
                );
                versions.push((lsn, value));
            }
        }
    }

    /// The newest version at or below `at`.
    pub fn newest(&self, key: &[u8], at: Lsn) -> Option<(Lsn, MetaValue)> {
        newest(self.values.get(key)?, at)
    }

    /// For each key of the range its newest version at or below `at`.
    pub fn newest_in(&self, range: &MetaRange, at: Lsn) -> impl Iterator<Item = (&Vec<u8>, Lsn, MetaValue)> {
        self.values
            .range(range.from.clone()..range.to.clone())
            .filter_map(move |(key, versions)| {
                let (lsn, value) = newest(versions, at)?;
                Some((key, lsn, value))
            })
    }

    /// For each key its newest version at or below `at`.
    pub fn newest_of_all(&self, at: Lsn) -> impl Iterator<Item = (&Vec<u8>, Lsn, MetaValue)> {
        self.values.iter().filter_map(move |(key, versions)| {
            let (lsn, value) = newest(versions, at)?;
            Some((key, lsn, value))
        })
    }

    /// Forgets versions at or below `target`.
    pub fn forget_through(&mut self, target: Lsn) {
        self.retain(|lsn| lsn > target);
    }

    /// Forgets versions above `to`.
    pub fn cut(&mut self, to: Lsn) {
        self.retain(|lsn| lsn <= to);
    }

    fn retain(&mut self, keeps: impl Fn(Lsn) -> bool) {
        let mut bytes = 0;
        self.values.retain(|key, versions| {
            versions.retain(|(lsn, _)| keeps(*lsn));
            if versions.is_empty() {
                return false;
            }
            bytes += SLOT_BYTES + key.len();
            bytes += versions
                .iter()
                .map(|(_, value)| version_bytes(value))
                .sum::<usize>();
            true
        });
        self.bytes = bytes;
    }

    /// Memory in use, about.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

fn newest(versions: &Versions, at: Lsn) -> Option<(Lsn, MetaValue)> {
    let after = versions.partition_point(|(lsn, _)| *lsn <= at);
    after.checked_sub(1).map(|index| versions[index].clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn put(overlay: &mut Overlay, key: &str, lsn: u64, value: Option<&'static str>) {
        overlay.put(
            key.into(),
            Lsn(lsn),
            value.map(|text| Bytes::from_static(text.as_bytes())),
        );
    }

    fn newest(overlay: &Overlay, key: &str, at: u64) -> Option<(u64, Option<String>)> {
        let (lsn, value) = overlay.newest(key.as_bytes(), Lsn(at))?;
        Some((
            lsn.0,
            value.map(|value| String::from_utf8(value.to_vec()).unwrap()),
        ))
    }

    #[test]
    fn each_lsn_sees_its_own_version() {
        let mut overlay = Overlay::default();
        put(&mut overlay, "a", 8, Some("x"));
        put(&mut overlay, "a", 16, None);
        put(&mut overlay, "a", 24, Some("y"));
        put(&mut overlay, "a", 24, Some("z"));
        assert_eq!(newest(&overlay, "a", 7), None);
        assert_eq!(newest(&overlay, "a", 8), Some((8, Some("x".to_owned()))));
        assert_eq!(newest(&overlay, "a", 23), Some((16, None)));
        assert_eq!(newest(&overlay, "a", 24), Some((24, Some("z".to_owned()))));
        assert_eq!(newest(&overlay, "b", 24), None);
    }

    #[test]
    fn a_cut_takes_back_what_is_above_it() {
        let mut overlay = Overlay::default();
        put(&mut overlay, "a", 8, Some("x"));
        put(&mut overlay, "a", 16, Some("y"));
        put(&mut overlay, "b", 16, Some("y"));
        overlay.cut(Lsn(15));
        assert_eq!(newest(&overlay, "a", 100), Some((8, Some("x".to_owned()))));
        assert_eq!(newest(&overlay, "b", 100), None);
        overlay.forget_through(Lsn(8));
        assert_eq!(overlay.bytes(), 0);
    }
}
