//! What the writer knows to be durable.
//!
//! ```text
//!  PGMRPL <= VDL <= VCL = PGCL <= max SCL      (one protection group)
//! ───┴────────┴──────┴─────────────┴──────────────────────────▶ LSN
//!    oldest   newest commit        some segment has
//!    read     that may be          every record below
//!    point    acknowledged
//! ```
//!
//! Invariant: a segment's SCL counts only in a report whose promised and started epoch are the writer's.
//! Invariant: the VDL never falls.

use std::collections::BTreeMap;

use pg_quorum_types::{Epoch, Lsn, SegmentId};

use crate::QuorumSet;

/// What one segment said about itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SegmentReport {
    /// Every record that ends at or below this is durable there. An end of a record.
    pub scl: Lsn,
    pub promised: Epoch,
    pub started: Epoch,
}

/// The watermarks of one epoch's writer over one protection group.
#[derive(Clone, Debug)]
pub struct Watermarks {
    epoch: Epoch,
    quorum: QuorumSet,
    scl: BTreeMap<SegmentId, Lsn>,
    pgcl: Lsn,
    vcl: Lsn,
    vdl: Lsn,
    pgmrpl: Lsn,
}

impl Watermarks {
    /// Nothing is known to be durable under `epoch` yet. The epoch's start becomes the VDL when a write
    /// quorum reports that it has reached it.
    pub fn new(epoch: Epoch, quorum: QuorumSet) -> Watermarks {
        Watermarks {
            epoch,
            quorum,
            scl: BTreeMap::new(),
            pgcl: Lsn::INVALID,
            vcl: Lsn::INVALID,
            vdl: Lsn::INVALID,
            pgmrpl: Lsn::INVALID,
        }
    }

    /// Takes a segment's report. Returns the new VDL if that moved it.
    ///
    /// A report under another epoch, of a segment that is no member, or that is older than what is known
    /// changes nothing.
    pub fn report(&mut self, segment: SegmentId, report: SegmentReport) -> Option<Lsn> {
        let counts = report.promised == self.epoch && report.started == self.epoch;
        if !counts || !self.quorum.contains(segment) {
            return None;
        }
        let known = self.scl.entry(segment).or_default();
        if report.scl <= *known {
            return None;
        }
        *known = report.scl;
        let scl = &self.scl;
        self.pgcl = self
            .quorum
            .write_complete(|member| scl.get(&member).copied().unwrap_or_default());
        // One protection group: what is complete there is complete in the volume. SCLs are ends of
        // records, so the highest record end at or below the VCL is the VCL.
        self.vcl = self.pgcl;
        let before = self.vdl;
        self.vdl = self.vdl.max(self.vcl);
        self.check_order();
        (self.vdl > before).then_some(self.vdl)
    }

    /// The oldest read point in use has moved; never above the VDL, never down.
    pub fn set_pgmrpl(&mut self, oldest_read_point: Lsn) {
        self.pgmrpl = self.pgmrpl.max(oldest_read_point.min(self.vdl));
        self.check_order();
    }

    /// Stops the process if the watermarks are out of order: better than acknowledging a lie.
    ///
    /// # Panics
    /// Unless `PGMRPL <= VDL <= VCL <= max SCL`.
    pub fn check_order(&self) {
        let highest_scl = self.scl.values().copied().max().unwrap_or_default();
        assert!(
            self.pgmrpl <= self.vdl && self.vdl <= self.vcl && self.vcl <= highest_scl,
            "watermarks out of order: PGMRPL {} <= VDL {} <= VCL {} <= max SCL {highest_scl}",
            self.pgmrpl,
            self.vdl,
            self.vcl,
        );
    }

    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The highest SCL that `segment` reported under this epoch, [`Lsn::INVALID`] without one.
    pub fn scl(&self, segment: SegmentId) -> Lsn {
        self.scl.get(&segment).copied().unwrap_or_default()
    }

    pub fn pgcl(&self) -> Lsn {
        self.pgcl
    }

    pub fn vcl(&self) -> Lsn {
        self.vcl
    }

    pub fn vdl(&self) -> Lsn {
        self.vdl
    }

    pub fn pgmrpl(&self) -> Lsn {
        self.pgmrpl
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    const MINE: Epoch = Epoch {
        number: 7,
        writer: Uuid::from_u128(7),
    };

    fn segment(index: u128) -> SegmentId {
        SegmentId(Uuid::from_u128(index))
    }

    fn watermarks() -> Watermarks {
        Watermarks::new(MINE, QuorumSet::new((0..6).map(segment)))
    }

    fn at(scl: u64) -> SegmentReport {
        SegmentReport {
            scl: Lsn(scl),
            promised: MINE,
            started: MINE,
        }
    }

    #[test]
    fn the_fourth_segment_makes_it_durable() {
        let mut marks = watermarks();
        assert_eq!(marks.report(segment(0), at(100)), None);
        assert_eq!(marks.report(segment(3), at(90)), None);
        assert_eq!(marks.report(segment(4), at(80)), None);
        assert_eq!(marks.report(segment(5), at(70)), Some(Lsn(70)));
        assert_eq!(marks.report(segment(5), at(95)), Some(Lsn(80)));
        assert_eq!((marks.pgcl(), marks.vcl()), (Lsn(80), Lsn(80)));
    }

    #[test]
    fn a_segment_that_promised_to_another_writer_does_not_count() {
        let mut marks = watermarks();
        let other = Epoch {
            number: 7,
            writer: Uuid::from_u128(8),
        };
        for index in 0..6 {
            let fenced = SegmentReport {
                promised: other,
                ..at(100)
            };
            let not_started = SegmentReport {
                started: Epoch::NONE,
                ..at(100)
            };
            assert_eq!(marks.report(segment(index), fenced), None);
            assert_eq!(marks.report(segment(index), not_started), None);
        }
        assert_eq!(marks.vdl(), Lsn::INVALID);
    }

    #[test]
    fn strangers_and_late_reports_change_nothing() {
        let mut marks = watermarks();
        for index in 0..4 {
            marks.report(segment(index), at(100));
        }
        for stranger in 10..20 {
            assert_eq!(marks.report(segment(stranger), at(500)), None);
            assert_eq!(marks.scl(segment(stranger)), Lsn::INVALID);
        }
        assert_eq!(marks.report(segment(0), at(50)), None);
        assert_eq!((marks.scl(segment(0)), marks.vdl()), (Lsn(100), Lsn(100)));
    }

    #[test]
    fn the_read_point_stays_at_or_below_the_vdl_and_never_falls() {
        let mut marks = watermarks();
        marks.set_pgmrpl(Lsn(40));
        assert_eq!(marks.pgmrpl(), Lsn::INVALID);
        for index in 0..4 {
            marks.report(segment(index), at(100));
        }
        marks.set_pgmrpl(Lsn(120));
        assert_eq!(marks.pgmrpl(), Lsn(100));
        marks.set_pgmrpl(Lsn(60));
        assert_eq!(marks.pgmrpl(), Lsn(100));
    }
}
