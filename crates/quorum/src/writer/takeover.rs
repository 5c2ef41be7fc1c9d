//! One attempt to take a volume under one epoch.

use std::collections::BTreeMap;
use std::time::Duration;

use pg_quorum_types::{
    Base, ClusterFacts, Epoch, History, HistoryEntry, Lsn, Membership, Owner, ProtectionGroup, SegmentId,
    VolumeId,
};
use uuid::Uuid;

use super::{ChooseError, ChosenLog, choose_log};
use crate::segment::{Granted, PromiseRequest, StartProgress, StartRequest};
use crate::watermark::{SegmentReport, Watermarks};
use crate::{QuorumSet, Refusal, Refused, RequestContext};

/// Who wants which volume.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Attempt {
    pub volume: VolumeId,
    pub protection_group: ProtectionGroup,
    pub membership: Membership,
    pub owner: Owner,
    /// The highest epoch number under which this owner has held the volume, 0 for none.
    pub last_held_epoch: u64,
    pub force: bool,
}

/// Why a segment did not do what it was asked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Obstacle {
    Refused(Refused),
    /// No answer; the request may have happened all the same. May be repeated.
    Unreachable(String),
}

/// What the answers so far mean.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// More answers are to come.
    Wait,
    /// A write quorum has promised and no segment has a log: the volume's base is to be imported under this
    /// epoch, then [`Takeover::start_with_base`].
    Empty,
    /// A write quorum has promised: [`Takeover::start_with_log`].
    Chosen(Box<ChosenLog>),
    /// A write quorum has started: the volume is held.
    Held,
    /// An epoch above this attempt's was seen: make the next attempt above `above`.
    AskAgain { above: u64 },
    /// Somebody else holds the volume and may be alive: ask again after `remaining`, or force it.
    OwnerAlive { owner: Owner, remaining: Duration },
    /// Somebody else has taken the volume from this owner. Final without force.
    Superseded { refused: Box<Refused> },
    /// Too few segments can do what was asked. Asking again makes sense if that changes.
    NoQuorum { obstacles: Vec<(SegmentId, Obstacle)> },
}

/// One attempt: promises, then starts. The caller sends the requests and hands in every answer.
#[derive(Clone, Debug)]
pub struct Takeover {
    attempt: Attempt,
    quorum: QuorumSet,
    epoch: Epoch,
    promises: BTreeMap<SegmentId, Result<Granted, Obstacle>>,
    start: Option<(History, Base)>,
    starts: BTreeMap<SegmentId, Result<StartProgress, Obstacle>>,
}

impl Takeover {
    /// An attempt under the epoch number behind `above`, the highest that was seen anywhere. `writer` is
    /// drawn anew for each attempt.
    pub fn new(attempt: Attempt, above: u64, writer: Uuid) -> Takeover {
        let quorum = QuorumSet::of(&attempt.membership);
        let number = above.max(attempt.last_held_epoch) + 1;
        Takeover {
            attempt,
            quorum,
            epoch: Epoch { number, writer },
            promises: BTreeMap::new(),
            start: None,
            starts: BTreeMap::new(),
        }
    }

    /// The attempt after one that met a higher epoch.
    #[must_use]
    pub fn again(&self, above: u64, writer: Uuid) -> Takeover {
        Takeover::new(self.attempt.clone(), above.max(self.epoch.number), writer)
    }

    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    pub fn membership(&self) -> &Membership {
        &self.attempt.membership
    }

    /// What every request to `segment` under this epoch bears.
    pub fn context(&self, segment: SegmentId) -> RequestContext {
        RequestContext {
            volume: self.attempt.volume,
            protection_group: self.attempt.protection_group,
            epoch: self.epoch,
            membership_version: self.attempt.membership.version,
            segment,
        }
    }

    pub fn promise_request(&self, segment: SegmentId) -> PromiseRequest {
        PromiseRequest {
            context: self.context(segment),
            owner: self.attempt.owner.clone(),
            last_held_epoch: self.attempt.last_held_epoch,
            force: self.attempt.force,
        }
    }

    /// A segment has answered, or has not. A later answer replaces an earlier one.
    pub fn on_promise(&mut self, segment: SegmentId, answer: Result<Granted, Obstacle>) {
        let answer = answer.and_then(|granted| {
            if granted.membership == self.attempt.membership {
                return Ok(granted);
            }
            Err(Obstacle::Refused(Refused::plain(
                Refusal::Membership,
                "the segment promised under another membership",
            )))
        });
        if self.quorum.contains(segment) {
            self.promises.insert(segment, answer);
        }
    }

    /// What the promises so far mean.
    ///
    /// # Errors
    /// Promises that contradict each other.
    pub fn promise_verdict(&self) -> Result<Verdict, ChooseError> {
        if self
            .quorum
            .is_write_quorum(|segment| matches!(self.promises.get(&segment), Some(Ok(_))))
        {
            let granted = self
                .promises
                .iter()
                .filter_map(|(&segment, answer)| Some((segment, answer.as_ref().ok()?)));
            return Ok(match choose_log(granted)? {
                Some(log) if self.may_be_held(log.base) => Verdict::Chosen(Box::new(log)),
                _ => Verdict::Empty,
            });
        }
        Ok(self.without_quorum(&self.promises))
    }

    /// Whether a write quorum can have started with `base`. Those segments still have it; a base that fewer have was
    /// never held, and nothing was acknowledged on it.
    fn may_be_held(&self, base: Base) -> bool {
        self.quorum
            .is_write_quorum(|segment| match self.promises.get(&segment) {
                Some(Ok(granted)) => granted.base == Some(base),
                Some(Err(_)) | None => true,
            })
    }

    /// The complete base, and how many segments have it. Meaningful while the volume is empty.
    pub fn bases(&self) -> impl Iterator<Item = (SegmentId, Base, ClusterFacts)> + '_ {
        self.promises.iter().filter_map(|(&segment, answer)| {
            let granted = answer.as_ref().ok()?;
            Some((segment, granted.base?, granted.facts?))
        })
    }

    /// Which segments have promised.
    pub fn promised(&self) -> impl Iterator<Item = (SegmentId, &Granted)> + '_ {
        self.promises
            .iter()
            .filter_map(|(&segment, answer)| Some((segment, answer.as_ref().ok()?)))
    }

    /// The epoch goes on with the log that was chosen.
    ///
    /// # Errors
    /// The log already has this epoch or a higher one.
    pub fn start_with_log(&mut self, log: &ChosenLog) -> Result<(), ChooseError> {
        assert!(self.start.is_none(), "a Start is immutable for an epoch");
        self.start = Some((log.start_history(self.epoch)?, log.base));
        Ok(())
    }

    /// The epoch is the volume's first one and begins at the end of the base that was imported.
    pub fn start_with_base(&mut self, base: Base) {
        assert!(self.start.is_none(), "a Start is immutable for an epoch");
        let mut history = History::default();
        let entry = HistoryEntry {
            epoch: self.epoch,
            start_lsn: base.lsn,
        };
        history.push(entry).expect("one entry is a history");
        self.start = Some((history, base));
    }

    /// The history that this epoch starts with, once that is decided.
    pub fn history(&self) -> Option<&History> {
        self.start.as_ref().map(|(history, _)| history)
    }

    /// # Panics
    /// Before the log is chosen.
    pub fn start_request(&self, segment: SegmentId) -> StartRequest {
        let (history, base) = self.start.clone().expect("the log is chosen");
        StartRequest {
            context: self.context(segment),
            history,
            base,
        }
    }

    /// A segment has answered to Start. One that has not started yet is asked again.
    pub fn on_start(&mut self, segment: SegmentId, answer: Result<StartProgress, Obstacle>) {
        if self.quorum.contains(segment) {
            self.starts.insert(segment, answer);
        }
    }

    /// What the starts so far mean.
    pub fn start_verdict(&self) -> Verdict {
        let has_started =
            |segment| matches!(self.starts.get(&segment), Some(Ok(progress)) if progress.started);
        if self.quorum.is_write_quorum(has_started) {
            return Verdict::Held;
        }
        self.without_quorum(&self.starts)
    }

    /// The watermarks of the epoch, with what the starts have told.
    pub fn watermarks(&self) -> Watermarks {
        let mut marks = Watermarks::new(self.epoch, self.quorum.clone());
        for (&segment, answer) in &self.starts {
            if let Ok(progress) = answer
                && progress.started
            {
                let report = SegmentReport {
                    scl: progress.scl,
                    promised: self.epoch,
                    started: self.epoch,
                };
                marks.report(segment, report);
            }
        }
        marks
    }

    /// The end of the base or log that the epoch starts at.
    pub fn start_lsn(&self) -> Option<Lsn> {
        self.history().and_then(History::last).map(|last| last.start_lsn)
    }

    fn without_quorum<T>(&self, answers: &BTreeMap<SegmentId, Result<T, Obstacle>>) -> Verdict {
        let refusals = |wanted: Refusal| {
            answers.values().filter_map(move |answer| match answer {
                Err(Obstacle::Refused(refused)) if refused.reason == wanted => Some(refused),
                _ => None,
            })
        };
        if let Some(refused) = refusals(Refusal::Superseded).max_by_key(|refused| refused.promised) {
            return Verdict::Superseded {
                refused: Box::new(refused.clone()),
            };
        }
        let may_still_agree = |segment| !matches!(answers.get(&segment), Some(Err(_)));
        if self.quorum.is_write_quorum(may_still_agree) {
            return Verdict::Wait;
        }
        if let Some(above) = refusals(Refusal::LowerEpoch)
            .map(|refused| refused.promised.number)
            .max()
        {
            return Verdict::AskAgain { above };
        }
        let alive = refusals(Refusal::OwnerAlive).max_by_key(|refused| refused.lease_remaining);
        if let Some(refused) = alive
            && let Some(owner) = &refused.owner
        {
            return Verdict::OwnerAlive {
                owner: owner.clone(),
                remaining: refused.lease_remaining,
            };
        }
        let obstacles = answers
            .iter()
            .filter_map(|(&segment, answer)| Some((segment, answer.as_ref().err()?.clone())))
            .collect();
        Verdict::NoQuorum { obstacles }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pg_quorum_types::{AzName, ComputeId, NodeName, SegmentMember};

    fn segment(index: u128) -> SegmentId {
        SegmentId(Uuid::from_u128(index))
    }

    fn membership() -> Membership {
        let member = |index| SegmentMember {
            segment: segment(index),
            node: NodeName(format!("node-{index}")),
            az: AzName("az1".into()),
            address: String::new(),
        };
        Membership {
            version: 1,
            members: (1..=6).map(member).collect(),
        }
    }

    fn owner(index: u128) -> Owner {
        Owner {
            compute: ComputeId(Uuid::from_u128(index)),
            description: format!("compute {index}"),
        }
    }

    fn takeover() -> Takeover {
        let attempt = Attempt {
            volume: VolumeId(Uuid::from_u128(1)),
            protection_group: ProtectionGroup(0),
            membership: membership(),
            owner: owner(1),
            last_held_epoch: 4,
            force: false,
        };
        Takeover::new(attempt, 6, Uuid::from_u128(77))
    }

    fn empty_promise() -> Granted {
        Granted {
            history: History::default(),
            scl: Lsn::INVALID,
            base: None,
            vdl: Lsn::INVALID,
            membership: membership(),
            facts: None,
        }
    }

    fn refused(reason: Refusal, promised: u64) -> Obstacle {
        Obstacle::Refused(Refused {
            promised: Epoch {
                number: promised,
                writer: Uuid::nil(),
            },
            owner: Some(owner(2)),
            lease_remaining: Duration::from_secs(3),
            ..Refused::plain(reason, "no")
        })
    }

    #[test]
    fn the_epoch_is_above_all_that_was_seen() {
        let first = takeover();
        assert_eq!(first.epoch().number, 7);
        assert_eq!(first.again(12, Uuid::nil()).epoch().number, 13);
        assert_eq!(first.again(3, Uuid::nil()).epoch().number, 8);
    }

    #[test]
    fn three_promises_are_not_enough() {
        let mut takeover = takeover();
        for index in 1..=3 {
            takeover.on_promise(segment(index), Ok(empty_promise()));
        }
        takeover.on_promise(segment(99), Ok(empty_promise()));
        assert_eq!(takeover.promise_verdict(), Ok(Verdict::Wait));
        takeover.on_promise(segment(4), Ok(empty_promise()));
        assert_eq!(takeover.promise_verdict(), Ok(Verdict::Empty));
    }

    /// The first attempt to fill a volume came to its Start on a few segments and ended there. They keep that base
    /// and its first epoch, which no quorum ever had: the next attempt must be free to import anew.
    #[test]
    fn a_base_that_no_write_quorum_can_have_leaves_the_volume_empty() {
        let base = Base {
            id: Uuid::from_u128(5),
            lsn: Lsn(1000),
        };
        let entry = HistoryEntry {
            epoch: Epoch {
                number: 5,
                writer: Uuid::from_u128(6),
            },
            start_lsn: base.lsn,
        };
        let with_base = Granted {
            history: History::new(vec![entry]).unwrap(),
            scl: base.lsn,
            base: Some(base),
            vdl: Lsn::INVALID,
            membership: membership(),
            facts: Some(ClusterFacts {
                system_identifier: 1,
                timeline: 1,
                wal_segment_bytes: 16 << 20,
                data_checksums: false,
                pg_control_version: 1300,
                catalog_version: 202_209_061,
                pg_major: 15,
            }),
        };
        let verdict = |having: u128, lacking: u128| {
            let mut takeover = takeover();
            for index in 1..=having {
                takeover.on_promise(segment(index), Ok(with_base.clone()));
            }
            for index in having + 1..=having + lacking {
                takeover.on_promise(segment(index), Ok(empty_promise()));
            }
            takeover.promise_verdict().unwrap()
        };
        assert_eq!(verdict(1, 3), Verdict::Empty, "three at most can have it");
        assert_eq!(verdict(3, 3), Verdict::Empty, "three have it");
        assert!(matches!(verdict(2, 2), Verdict::Chosen(log) if log.base == base));
        assert!(matches!(verdict(4, 2), Verdict::Chosen(log) if log.base == base));
    }

    #[test]
    fn three_refusals_end_the_attempt_with_the_reason_that_says_what_to_do() {
        let mut lower = takeover();
        lower.on_promise(segment(1), Err(refused(Refusal::LowerEpoch, 9)));
        lower.on_promise(segment(2), Err(refused(Refusal::OwnerAlive, 8)));
        assert_eq!(lower.promise_verdict(), Ok(Verdict::Wait));
        lower.on_promise(segment(3), Err(Obstacle::Unreachable("no route".into())));
        assert_eq!(lower.promise_verdict(), Ok(Verdict::AskAgain { above: 9 }));

        let mut alive = takeover();
        for index in 1..=3 {
            alive.on_promise(segment(index), Err(refused(Refusal::OwnerAlive, 6)));
        }
        assert_eq!(
            alive.promise_verdict(),
            Ok(Verdict::OwnerAlive {
                owner: owner(2),
                remaining: Duration::from_secs(3),
            })
        );

        let mut away = takeover();
        for index in 1..=3 {
            away.on_promise(segment(index), Err(Obstacle::Unreachable("no route".into())));
        }
        assert!(
            matches!(away.promise_verdict(), Ok(Verdict::NoQuorum { obstacles }) if obstacles.len() == 3)
        );
    }

    #[test]
    fn one_segment_that_knows_a_later_holder_is_enough_to_give_up() {
        let mut takeover = takeover();
        takeover.on_promise(segment(1), Err(refused(Refusal::Superseded, 6)));
        assert!(matches!(
            takeover.promise_verdict(),
            Ok(Verdict::Superseded { .. })
        ));
    }

    #[test]
    fn the_volume_is_held_when_four_have_started_and_then_the_start_is_durable() {
        let mut takeover = takeover();
        let base = Base {
            id: Uuid::from_u128(5),
            lsn: Lsn(1000),
        };
        takeover.start_with_base(base);
        let progress = |started| StartProgress {
            started,
            scl: Lsn(1000),
            cut_bytes: 0,
        };
        for index in 1..=3 {
            takeover.on_start(segment(index), Ok(progress(true)));
        }
        takeover.on_start(segment(4), Ok(progress(false)));
        assert_eq!(takeover.start_verdict(), Verdict::Wait);
        assert_eq!(takeover.watermarks().vdl(), Lsn::INVALID);
        takeover.on_start(segment(4), Ok(progress(true)));
        assert_eq!(takeover.start_verdict(), Verdict::Held);
        assert_eq!(takeover.watermarks().vdl(), Lsn(1000));
    }
}
