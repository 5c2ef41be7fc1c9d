//! The writer's own read point: the lowest LSN at which it still reads pages.
//!
//! Storage keeps what is needed to read there, and no more: the read point follows the VDL unless a request is
//! under way.

use std::collections::BTreeMap;
use std::sync::Mutex;

use pg_quorum_types::Lsn;

/// The LSNs of the requests under way.
#[derive(Debug, Default)]
pub struct ReadPoints {
    under_way: Mutex<BTreeMap<Lsn, usize>>,
}

/// One request; its LSN stays readable until this is dropped.
#[derive(Debug)]
pub struct ReadPoint<'a> {
    points: &'a ReadPoints,
    lsn: Lsn,
}

impl ReadPoints {
    /// Begins a request at what `lsn` says. It is called under the lock: no read point above it is told
    /// meanwhile.
    pub fn begin(&self, lsn: impl FnOnce() -> Lsn) -> ReadPoint<'_> {
        let mut under_way = self.lock();
        let lsn = lsn();
        *under_way.entry(lsn).or_default() += 1;
        ReadPoint { points: self, lsn }
    }

    /// The lowest LSN in use, or what `vdl` says.
    pub fn lowest(&self, vdl: impl FnOnce() -> Lsn) -> Lsn {
        let under_way = self.lock();
        let vdl = vdl();
        under_way
            .first_key_value()
            .map_or(vdl, |(lowest, _)| vdl.min(*lowest))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<Lsn, usize>> {
        self.under_way.lock().expect("no holder panics: counting only")
    }
}

impl ReadPoint<'_> {
    pub fn lsn(&self) -> Lsn {
        self.lsn
    }
}

impl Drop for ReadPoint<'_> {
    fn drop(&mut self) {
        let mut under_way = self.points.lock();
        if let Some(count) = under_way.get_mut(&self.lsn) {
            *count -= 1;
            if *count == 0 {
                under_way.remove(&self.lsn);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_read_point_waits_for_the_oldest_request_under_way() {
        let points = ReadPoints::default();
        assert_eq!(points.lowest(|| Lsn(100)), Lsn(100));
        let older = points.begin(|| Lsn(100));
        let newer = points.begin(|| Lsn(200));
        assert_eq!(points.lowest(|| Lsn(300)), Lsn(100));
        drop(older);
        assert_eq!(points.lowest(|| Lsn(300)), Lsn(200));
        drop(newer);
        assert_eq!(points.lowest(|| Lsn(300)), Lsn(300));
    }
}
