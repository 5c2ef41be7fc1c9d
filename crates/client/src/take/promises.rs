//! Promise on all segments at once.

use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use pg_quorum_quorum::writer::{ChooseError, Obstacle, Takeover, Verdict};

use super::Roster;
use crate::error::CallError;
use crate::{Timeouts, join};

/// How long after a write quorum the others may still answer: what they have is then known, too, and they
/// are started with the first ones. Safety needs none of it.
const GRACE: Duration = Duration::from_millis(100);
/// The same if the volume is empty: every segment that has promised can get its base now.
const EMPTY_GRACE: Duration = Duration::from_secs(2);

/// Asks every member and hands the answers to `takeover`, until its verdict is final.
pub(super) async fn promise_on_all(
    takeover: &mut Takeover,
    roster: &Roster,
    timeouts: &Timeouts,
) -> Result<(), ChooseError> {
    let mut answers: FuturesUnordered<_> = roster
        .segments()
        .map(|(segment, node)| {
            let request = takeover.promise_request(segment);
            async move { (segment, join::promise(node, request, timeouts).await) }
        })
        .collect();
    let mut patience = Duration::MAX;
    loop {
        let next = match patience {
            Duration::MAX => answers.next().await,
            patience => tokio::time::timeout(patience, answers.next())
                .await
                .unwrap_or(None),
        };
        let Some((segment, answer)) = next else {
            return Ok(());
        };
        takeover.on_promise(segment, answer.map_err(obstacle));
        match takeover.promise_verdict()? {
            Verdict::Wait => {}
            Verdict::Chosen(_) => patience = GRACE,
            Verdict::Empty => patience = EMPTY_GRACE,
            _ => return Ok(()),
        }
    }
}

pub(crate) fn obstacle(error: CallError) -> Obstacle {
    match error {
        CallError::Refused(refused) => Obstacle::Refused(*refused),
        other => Obstacle::Unreachable(other.to_string()),
    }
}
