//! Reading what storage derives besides pages: compute images, WAL, pg_control.

mod control;
mod image;
mod wal;

pub use control::{VolumeControl, control_file};
pub use image::{ImageEvent, ImageReader, compute_image};
pub use wal::{WalChunk, WalReader, read_wal};

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use pg_quorum_types::{Epoch, SegmentMember};

use crate::channel::Node;
use crate::probe::{WaitFor, probe_nodes};
use crate::{Attachment, ConfigError, NodeReport, Timeouts, Transport};

/// Before the segments are asked once more when all of them have failed.
const PAUSE: Duration = Duration::from_millis(200);

/// No segment could answer, although each was asked again and again.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StateError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("no storage node could answer:\n{}", .0.join("\n"))]
    NoAnswer(Vec<String>),
    #[error("the nodes keep no volume")]
    NoVolume,
}

/// The segments of an attachment, one after the other, until the patience is at its end: those first that answer
/// and have started the epoch.
struct Rotation {
    segments: Vec<(SegmentMember, Node)>,
    epoch: Epoch,
    timeouts: Timeouts,
    is_ordered: bool,
    waiting: VecDeque<usize>,
    failures: Vec<String>,
    deadline: Instant,
}

impl Rotation {
    fn new(attachment: &Attachment, transport: &Transport) -> Result<Rotation, ConfigError> {
        let segments = attachment
            .membership
            .members
            .iter()
            .map(|member| Ok((member.clone(), Node::new(&member.address, transport)?)))
            .collect::<Result<Vec<_>, ConfigError>>()?;
        Ok(Rotation {
            waiting: VecDeque::new(),
            segments,
            epoch: attachment.epoch,
            timeouts: transport.timeouts,
            is_ordered: false,
            failures: Vec::new(),
            deadline: Instant::now() + transport.timeouts.quorum,
        })
    }

    /// The next segment to ask.
    async fn next(&mut self) -> Result<(SegmentMember, Node), StateError> {
        if !self.is_ordered {
            self.is_ordered = true;
            self.waiting = self.order().await;
        }
        if self.waiting.is_empty() {
            if Instant::now() >= self.deadline {
                return Err(StateError::NoAnswer(std::mem::take(&mut self.failures)));
            }
            tokio::time::sleep(PAUSE).await;
            self.waiting = self.order().await;
            self.failures.clear();
        }
        let index = self.waiting.pop_front().unwrap_or_default();
        Ok(self.segments[index].clone())
    }

    async fn order(&self) -> VecDeque<usize> {
        let nodes: Vec<Node> = self.segments.iter().map(|(_, node)| node.clone()).collect();
        let reports = probe_nodes(&nodes, &self.timeouts, WaitFor::Most).await;
        let has_started =
            |report: &NodeReport| report.status().is_some_and(|status| status.started == self.epoch);
        let mut order: Vec<usize> = (0..nodes.len()).collect();
        order.sort_by_key(|index| !has_started(&reports[*index]));
        order.into()
    }

    fn failed(&mut self, member: &SegmentMember, error: impl std::fmt::Display) {
        self.failures
            .push(format!("{} ({}) {error}", member.node, member.address));
    }

    /// Something was read: the patience begins anew.
    fn succeeded(&mut self, timeouts: &Timeouts) {
        self.deadline = Instant::now() + timeouts.quorum;
    }
}
