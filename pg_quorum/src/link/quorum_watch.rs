//! Telling people when the quorum is lost, and when it is back. Once each.

use std::time::{Duration, Instant};

use pg_quorum_client::{LinkState, SegmentStats};

use crate::pg::clock;
use crate::shared::SharedState;

/// No write quorum has been heard from for this long: it is lost. Idle segments answer a heartbeat each second.
const LOST_AFTER: Duration = Duration::from_secs(4);

#[derive(Debug)]
pub struct QuorumWatch {
    started: Instant,
    lost_since: Option<Instant>,
}

impl QuorumWatch {
    pub fn new(now: Instant) -> QuorumWatch {
        QuorumWatch {
            started: now,
            lost_since: None,
        }
    }

    pub fn is_lost(&self) -> bool {
        self.lost_since.is_some()
    }

    /// Compares with the last look, logs and publishes a change.
    pub fn look(
        &mut self,
        state: &SharedState,
        stats: impl FnOnce() -> Vec<SegmentStats>,
        heard: Option<Instant>,
        now: Instant,
    ) {
        let last = heard.unwrap_or(self.started);
        let is_lost = now.saturating_duration_since(last) >= LOST_AFTER;
        match (is_lost, self.lost_since) {
            (true, None) => {
                self.lost_since = Some(last);
                let reasons = reasons(&stats());
                state.link_message.set(&format!("no write quorum: {reasons}"));
                let ago = now.saturating_duration_since(last);
                state.set_quorum_lost(Some(clock::tick().before(ago)));
                pgrx::warning!(
                    "pg_quorum: fewer than four of six storage nodes answer, commits wait: {reasons}"
                );
            }
            (false, Some(since)) => {
                self.lost_since = None;
                state.set_quorum_lost(None);
                state.link_message.set("");
                let lasted = now.saturating_duration_since(since).as_secs();
                pgrx::log!("pg_quorum: four storage nodes answer again after {lasted} s, commits go on");
            }
            _ => {}
        }
    }
}

/// What is wrong with each segment that is not in order.
fn reasons(stats: &[SegmentStats]) -> String {
    let reason = |segment: &SegmentStats| {
        let member = &segment.member;
        let why = if segment.message.is_empty() {
            "does not answer"
        } else {
            &segment.message
        };
        format!("{} ({}, {}): {why}", member.node, member.address, segment.state)
    };
    let reasons: Vec<String> = stats
        .iter()
        .filter(|segment| segment.state != LinkState::Streaming)
        .map(reason)
        .collect();
    if reasons.is_empty() {
        "connected nodes do not answer in time".to_owned()
    } else {
        reasons.join("; ")
    }
}
