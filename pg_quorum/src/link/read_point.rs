//! The writer's own read point: how far behind the VDL its page requests may be.

use std::time::{Duration, Instant};

use pg_quorum_types::Lsn;

/// A request for pages carries the VDL of the moment at which it was made. None lives longer than this.
const LONGEST_REQUEST: Duration = Duration::from_secs(60);

/// Moves to the VDL of a while ago.
#[derive(Debug)]
pub struct ReadPoint {
    older: Lsn,
    newer: Lsn,
    newer_since: Instant,
}

impl ReadPoint {
    pub fn new(vdl: Lsn, now: Instant) -> ReadPoint {
        ReadPoint {
            older: vdl,
            newer: vdl,
            newer_since: now,
        }
    }

    /// The lowest LSN that a request still under way can carry, if it has moved.
    pub fn advance(&mut self, vdl: Lsn, now: Instant) -> Option<Lsn> {
        if now.saturating_duration_since(self.newer_since) < LONGEST_REQUEST {
            return None;
        }
        self.older = self.newer;
        self.newer = vdl;
        self.newer_since = now;
        Some(self.older)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_read_point_is_older_than_any_request_under_way() {
        let start = Instant::now();
        let mut point = ReadPoint::new(Lsn(100), start);
        assert_eq!(point.advance(Lsn(200), start + Duration::from_secs(1)), None);
        let first = start + LONGEST_REQUEST;
        assert_eq!(point.advance(Lsn(300), first), Some(Lsn(100)));
        assert_eq!(point.advance(Lsn(400), first + LONGEST_REQUEST), Some(Lsn(300)));
    }
}
