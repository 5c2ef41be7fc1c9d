//! Start on all segments at once, repeated until each has reached the epoch's start.

use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use pg_quorum_quorum::segment::StartProgress;
use pg_quorum_quorum::writer::{Takeover, Verdict};
use pg_quorum_types::{Lsn, SegmentId};

use super::Roster;
use super::promises::obstacle;
use crate::channel::Node;
use crate::{CallError, Timeouts, join};

/// How long after a write quorum the others may still finish. The appender goes on with those that do not.
const GRACE: Duration = Duration::from_millis(200);
/// Between two attempts at a segment that does not answer.
const PAUSE: Duration = Duration::from_millis(200);
/// How long a segment may fetch from its peers before a person is told.
const SLOW: Duration = Duration::from_secs(3);

/// What the Starts have thrown away.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Cuts {
    pub bytes: u64,
    pub segments: usize,
}

/// Starts the epoch wherever it can be started, until `takeover` holds the volume, cannot hold it, or the
/// deadline has passed.
pub(crate) async fn start_on_all(
    takeover: &mut Takeover,
    roster: &Roster,
    timeouts: &Timeouts,
    deadline: Instant,
    progress: &dyn Fn(&str),
) -> Cuts {
    let has_promised = |segment| takeover.promised().any(|(promised, _)| promised == segment);
    let mut starts: FuturesUnordered<_> = roster
        .segments()
        .map(|(segment, node)| {
            let starter = Starter {
                node: node.clone(),
                name: roster.name(segment),
                promise: (!has_promised(segment)).then(|| takeover.promise_request(segment)),
                start: takeover.start_request(segment),
                timeouts,
                deadline,
                progress,
            };
            async move { (segment, starter.run().await) }
        })
        .collect();
    let mut cuts = Cuts::default();
    let mut patience = Duration::MAX;
    loop {
        let next: Option<(SegmentId, Result<StartProgress, CallError>)> = match patience {
            Duration::MAX => starts.next().await,
            patience => tokio::time::timeout(patience, starts.next())
                .await
                .unwrap_or(None),
        };
        let Some((segment, answer)) = next else {
            return cuts;
        };
        if let Ok(progress) = &answer
            && progress.cut_bytes > 0
        {
            cuts.bytes += progress.cut_bytes;
            cuts.segments += 1;
        }
        takeover.on_start(segment, answer.map_err(obstacle));
        match takeover.start_verdict() {
            Verdict::Wait => {}
            Verdict::Held => patience = GRACE,
            _ => return cuts,
        }
    }
}

/// One segment's way into the epoch.
struct Starter<'a> {
    node: Node,
    name: String,
    /// Set if the segment has not promised yet.
    promise: Option<pg_quorum_quorum::segment::PromiseRequest>,
    start: pg_quorum_quorum::segment::StartRequest,
    timeouts: &'a Timeouts,
    deadline: Instant,
    progress: &'a dyn Fn(&str),
}

impl Starter<'_> {
    /// Until it has started, refuses, or the deadline has passed.
    async fn run(mut self) -> Result<StartProgress, CallError> {
        let mut told_at = Instant::now();
        loop {
            match self.ask().await {
                Ok(progress) if progress.started => return Ok(progress),
                Ok(progress) => {
                    if Instant::now() >= self.deadline {
                        return Ok(progress);
                    }
                    if told_at.elapsed() > SLOW {
                        told_at = Instant::now();
                        self.tell(progress.scl);
                    }
                }
                Err(error) => {
                    if !error.may_succeed_later() || Instant::now() >= self.deadline {
                        return Err(error);
                    }
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    async fn ask(&mut self) -> Result<StartProgress, CallError> {
        if let Some(promise) = &self.promise {
            join::promise(&self.node, promise.clone(), self.timeouts).await?;
            self.promise = None;
        }
        join::start(&self.node, self.start.clone(), self.timeouts).await
    }

    fn tell(&self, scl: Lsn) {
        let wanted = self
            .start
            .history
            .last()
            .map_or(Lsn::INVALID, |last| last.start_lsn);
        (self.progress)(&format!(
            "{} fetches log from its peers: has {scl} of {wanted}",
            self.name
        ));
    }
}
