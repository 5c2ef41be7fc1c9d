//! The task of one segment: opens its stream, reads the replies, opens it again; brings a segment that was
//! away into the epoch.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pg_quorum_proto::convert::optional_epoch;
use pg_quorum_proto::{WireError, v1};
use pg_quorum_quorum::watermark::SegmentReport;
use pg_quorum_quorum::{Refusal, Refused};
use pg_quorum_types::Lsn;

use super::Shared;
use super::feed::Feed;
use super::lane::LinkState;
use crate::channel::Node;
use crate::join;
use crate::{CallError, Fenced};

/// The first pause after a stream has failed; it doubles with each failure that follows.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
/// The longest pause between two attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// The pause after a refusal that time alone does not cure.
const REFUSED_PAUSE: Duration = Duration::from_secs(2);

/// A node that takes bytes more slowly than this counts as one that hangs: the largest record is a gigabyte.
const SLOWEST_BYTES_PER_SECOND: usize = 4 << 20;

pub(super) struct Session {
    shared: Arc<Shared>,
    index: usize,
    node: Node,
}

/// Why a stream has ended.
enum End {
    /// For good: the segment has promised a later epoch.
    Fenced(Fenced),
    /// The segment is not in the epoch.
    NotStarted,
    /// It says no and would say it again.
    Refusing(String),
    /// Anything that another attempt may cure. Whether the stream had worked.
    Failed { message: String, had_worked: bool },
}

impl Session {
    pub fn new(shared: Arc<Shared>, index: usize, node: Node) -> Session {
        Session { shared, index, node }
    }

    pub async fn run(self) {
        let mut pause = FIRST_PAUSE;
        loop {
            let mut end = self.stream().await;
            if matches!(end, End::NotStarted) {
                self.close(LinkState::Joining, String::new());
                end = match self.join().await {
                    Ok(()) => {
                        pause = FIRST_PAUSE;
                        continue;
                    }
                    Err(end) => end,
                };
            }
            match end {
                End::Fenced(by) => {
                    self.close(LinkState::Fenced, by.to_string());
                    self.shared.on_fenced(self.index, by);
                    return;
                }
                End::Refusing(message) => {
                    self.close(LinkState::Refusing, message);
                    tokio::time::sleep(REFUSED_PAUSE).await;
                }
                End::Failed { message, had_worked } => {
                    if had_worked {
                        pause = FIRST_PAUSE;
                    }
                    self.close(LinkState::Connecting, message);
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
                End::NotStarted => {
                    self.close(
                        LinkState::Joining,
                        "the segment left the epoch at once".to_owned(),
                    );
                    tokio::time::sleep(LONGEST_PAUSE).await;
                }
            }
        }
    }

    /// One stream from its first message to its end.
    async fn stream(&self) -> End {
        let session = self.shared.lanes[self.index].lock().open();
        let feed = Feed::new(self.shared.clone(), self.index, session);
        let mut client = self.node.segment();
        let patience = self.shared.timeouts.connect + self.shared.timeouts.request;
        let mut replies = match crate::error::within(patience, client.append(feed)).await {
            Ok(replies) => replies,
            Err(error) => return End::failed(&error, false),
        };
        let mut had_worked = false;
        loop {
            // Silence: the connection's own keepalive notices a dead peer, this a node that hangs.
            let on_their_way = self.shared.lanes[self.index].lock().in_flight_bytes();
            let patience = patience + Duration::from_secs((on_their_way / SLOWEST_BYTES_PER_SECOND) as u64);
            let reply = match tokio::time::timeout(patience, replies.message()).await {
                Ok(Ok(Some(reply))) => reply,
                Ok(Ok(None)) => {
                    return End::failed(&CallError::Broken("the node ended the stream".into()), had_worked);
                }
                Ok(Err(status)) => return End::failed(&status.into(), had_worked),
                Err(_) => return End::failed(&CallError::TimedOut(patience), had_worked),
            };
            match self.take(reply) {
                Ok(()) => had_worked = true,
                Err(end) => return end,
            }
        }
    }

    fn take(&self, reply: v1::AppendReply) -> Result<(), End> {
        if let Some(refused) = reply.refused {
            return Err(self.refused(&Refused::try_from(refused).map_err(malformed)?));
        }
        let report = SegmentReport {
            scl: Lsn(reply.scl),
            promised: optional_epoch(reply.promised).map_err(malformed)?,
            started: optional_epoch(reply.started).map_err(malformed)?,
        };
        let epoch = self.shared.epoch();
        if report.promised > epoch {
            return Err(End::Fenced(Fenced {
                epoch: report.promised.number,
                owner: None,
            }));
        }
        if report.promised != epoch || report.started != epoch {
            return Err(End::NotStarted);
        }
        self.shared.lanes[self.index].lock().indexed = Lsn(reply.indexed_lsn);
        self.shared.on_report(self.index, report, Instant::now());
        if reply.gap {
            // A new stream begins where the segment stands.
            return Err(End::Failed {
                message: format!("the segment has nothing behind {}", report.scl),
                had_worked: true,
            });
        }
        Ok(())
    }

    fn refused(&self, refused: &Refused) -> End {
        match refused.reason {
            Refusal::LowerEpoch => End::Fenced(Fenced {
                epoch: refused.promised.number,
                owner: refused.owner.clone(),
            }),
            Refusal::NotStarted => End::NotStarted,
            Refusal::OwnerAlive | Refusal::NoSpace | Refusal::OutOfRange => End::Failed {
                message: refused.to_string(),
                had_worked: false,
            },
            Refusal::Superseded
            | Refusal::NotMember
            | Refusal::Membership
            | Refusal::Damaged
            | Refusal::OtherStart => End::Refusing(refused.to_string()),
        }
    }

    /// Promise and Start for a segment that missed them.
    async fn join(&self) -> Result<(), End> {
        let segment = self.shared.member(self.index).segment;
        loop {
            match join::join(
                &self.node,
                &self.shared.attachment,
                segment,
                &self.shared.timeouts,
            )
            .await
            {
                Ok(progress) if progress.started => return Ok(()),
                Ok(progress) => {
                    let start = self.shared.attachment.start_lsn();
                    let mut lane = self.shared.lanes[self.index].lock();
                    lane.last_heard_at = Some(Instant::now());
                    lane.message = format!("fetching from its peers: has {} of {start}", progress.scl);
                }
                Err(CallError::Refused(refused)) => match self.refused(&refused) {
                    End::NotStarted => {
                        return Err(End::Failed {
                            message: refused.to_string(),
                            had_worked: false,
                        });
                    }
                    end => return Err(end),
                },
                Err(error) => return Err(End::failed(&error, false)),
            }
        }
    }

    fn close(&self, state: LinkState, message: String) {
        self.shared.lanes[self.index].lock().close(state, message);
    }
}

impl End {
    fn failed(error: &CallError, had_worked: bool) -> End {
        match error {
            CallError::NotANode(_) | CallError::Malformed(_) => End::Refusing(error.to_string()),
            CallError::Unreachable(_)
            | CallError::TimedOut(_)
            | CallError::Broken(_)
            | CallError::NotAllowed(_)
            | CallError::Refused(_) => End::Failed {
                message: error.to_string(),
                had_worked,
            },
        }
    }
}

fn malformed(error: WireError) -> End {
    End::Refusing(CallError::Malformed(error.to_string()).to_string())
}
