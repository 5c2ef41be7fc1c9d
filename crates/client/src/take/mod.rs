//! Taking a volume for writing: promise, choose, start.
//!
//! ```text
//!  survey ─▶ lease of another owner? ─▶ promise on all ─▶ choose ─▶ start on all ─▶ Attachment
//!    ▲  ▲        wait, watch it              │  │                      │
//!    │  └── fewer than four: wait, say why ──┘  └─ a higher epoch: ask above it
//!    └────────────── a segment went away in between ──────────────────┘
//! ```
//!
//! The rules are `pg_quorum_quorum::writer`'s; here is the carrying of messages, the patience, and what a
//! person is told meanwhile.

mod lease;
mod promises;
mod starts;
mod survey;

use std::time::{Duration, Instant};

use pg_quorum_quorum::writer::{Attempt, ChooseError, Takeover, Verdict};
use pg_quorum_types::{Membership, Owner, ProtectionGroup, VolumeId};
use uuid::Uuid;

use self::lease::LeaseWatch;
pub(crate) use self::starts::start_on_all;
pub(crate) use self::survey::Roster;
use self::survey::{Survey, survey};
use crate::{Attachment, ClientConfig, ConfigError, Fenced, NodeReport};

/// How often a wait looks again.
const POLL: Duration = Duration::from_millis(500);
/// How often the same bad news is repeated.
const REPEAT_NEWS: Duration = Duration::from_secs(10);
/// Attempts that met a higher epoch each time, before another contender is taken for a fact.
const MAX_ATTEMPTS: u32 = 20;

/// Who wants the volume.
#[derive(Clone, Debug)]
pub struct TakeRequest {
    pub owner: Owner,
    /// The highest epoch number under which this owner has held the volume, 0 for none.
    pub last_held_epoch: u64,
    /// Take it from a living owner, or take it back after having been fenced.
    pub force: bool,
    /// Refuse the volume of another cluster.
    pub expected_system_identifier: Option<u64>,
}

/// A volume that is held.
#[derive(Clone, Debug)]
pub enum Taken {
    /// Its log goes on.
    Ready(Box<ReadyVolume>),
    /// It has no content: see [`crate::import_base`].
    Empty(Box<EmptyVolume>),
}

/// The epoch is started on a write quorum.
#[derive(Clone, Debug)]
pub struct ReadyVolume {
    pub attachment: Attachment,
    /// Bytes of log that were never durable and that the Start threw away, over all segments.
    pub cut_bytes: u64,
    /// On how many segments it threw something away.
    pub cut_segments: usize,
}

/// The epoch is promised by a write quorum, and there is no log to go on with.
#[derive(Clone, Debug)]
pub struct EmptyVolume {
    pub(crate) takeover: Takeover,
    pub(crate) roster: Roster,
    pub(crate) owner: Owner,
}

impl EmptyVolume {
    pub fn volume(&self) -> VolumeId {
        self.roster.volume
    }

    pub fn membership(&self) -> &Membership {
        &self.roster.membership
    }
}

/// Why the volume was not taken.
#[derive(Debug, Clone, thiserror::Error)]
pub enum TakeError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// All nodes answer and none belongs to a volume: see [`crate::create_volume`].
    #[error("the nodes keep no volume yet")]
    NoVolume { reports: Vec<NodeReport> },
    #[error("the nodes keep volume {found}, not {expected}: check the addresses and the volume setting")]
    OtherVolume { expected: VolumeId, found: VolumeId },
    #[error("the nodes belong to different volumes: {}", list(.0))]
    SeveralVolumes(Vec<VolumeId>),
    #[error(
        "volume {volume} belongs to another cluster: its system identifier is {found}, this directory's is {expected}"
    )]
    OtherCluster {
        volume: VolumeId,
        expected: u64,
        found: u64,
    },
    #[error("fewer than four of the six segments can take part:\n{}", lines(.problems))]
    NoQuorum { problems: Vec<String> },
    #[error(
        "the volume is in use by {owner}, which is alive; stop that server, or take the volume from it by force"
    )]
    OwnerAlive { owner: Owner },
    #[error(
        "another compute has taken the volume since this one held it: {by}; only by force does it change back"
    )]
    Superseded { by: Fenced },
    #[error("another compute keeps asking for the volume: {by}")]
    Contended { by: String },
    #[error("the segments' answers contradict each other: {0}")]
    Contradiction(#[from] ChooseError),
}

fn list(volumes: &[VolumeId]) -> String {
    let texts: Vec<String> = volumes.iter().map(ToString::to_string).collect();
    texts.join(", ")
}

fn lines(problems: &[String]) -> String {
    problems.join("\n")
}

/// Takes the volume that the nodes keep, under a new epoch.
///
/// `progress` is told, in a sentence for a log, what is waited for.
///
/// # Errors
/// See [`TakeError`]. Waiting for nodes ends after `config.transport.timeouts.quorum`, waiting for a dead owner's lease
/// when it has run out or has been renewed.
pub async fn take_volume(
    config: &ClientConfig,
    request: TakeRequest,
    progress: &dyn Fn(&str),
) -> Result<Taken, TakeError> {
    let mut taking = Taking {
        config,
        request,
        progress,
        deadline: Instant::now() + config.transport.timeouts.quorum,
        news: News::default(),
        lease: LeaseWatch::default(),
        seen_number: 0,
        attempts: 0,
    };
    loop {
        let roster = taking.wait_for_voters().await?;
        if !taking.is_lease_over(&roster).await? {
            continue;
        }
        if let Some(taken) = taking.attempt(roster).await? {
            return Ok(taken);
        }
    }
}

struct Taking<'a> {
    config: &'a ClientConfig,
    request: TakeRequest,
    progress: &'a dyn Fn(&str),
    deadline: Instant,
    news: News,
    lease: LeaseWatch,
    /// The highest epoch number that any answer has told of.
    seen_number: u64,
    attempts: u32,
}

impl Taking<'_> {
    /// Surveys until a write quorum could vote.
    async fn wait_for_voters(&mut self) -> Result<Roster, TakeError> {
        loop {
            let problems = match survey(self.config, self.request.expected_system_identifier).await? {
                Survey::Voters(roster) => {
                    self.seen_number = self.seen_number.max(roster.highest_promised().number);
                    return Ok(*roster);
                }
                Survey::TooFew(problems) => problems,
            };
            if Instant::now() >= self.deadline {
                return Err(TakeError::NoQuorum { problems });
            }
            self.tell("waiting for storage nodes, four of six are needed", &problems);
            tokio::time::sleep(POLL).await;
        }
    }

    /// Whether nobody else can be alive. Looks without asking for anything: a promise would already take a
    /// segment away from a living writer.
    async fn is_lease_over(&mut self, roster: &Roster) -> Result<bool, TakeError> {
        if self.request.force {
            return Ok(true);
        }
        if let Some(by) = roster.superseded(&self.request) {
            return Err(TakeError::Superseded { by });
        }
        let Some((owner, remaining)) = roster.living_owner(self.request.owner.compute) else {
            return Ok(true);
        };
        self.wait_for_lease(owner, remaining).await?;
        Ok(false)
    }

    async fn wait_for_lease(&mut self, owner: Owner, remaining: Duration) -> Result<(), TakeError> {
        if self.lease.is_renewed(&owner, remaining, Instant::now()) {
            return Err(TakeError::OwnerAlive { owner });
        }
        self.tell(
            &format!("waiting until the lease of {owner} has run out, unless it is alive"),
            &[],
        );
        // A dead owner's lease is no lack of nodes.
        let pause = remaining.min(POLL) + Duration::from_millis(10);
        self.deadline = self
            .deadline
            .max(Instant::now() + self.config.transport.timeouts.quorum / 2);
        tokio::time::sleep(pause).await;
        Ok(())
    }

    /// One epoch. `None`: survey again, then another one.
    async fn attempt(&mut self, roster: Roster) -> Result<Option<Taken>, TakeError> {
        self.attempts += 1;
        let attempt = Attempt {
            volume: roster.volume,
            protection_group: ProtectionGroup(0),
            membership: roster.membership.clone(),
            owner: self.request.owner.clone(),
            last_held_epoch: self.request.last_held_epoch,
            force: self.request.force,
        };
        let mut takeover = Takeover::new(attempt, self.seen_number, Uuid::new_v4());
        promises::promise_on_all(&mut takeover, &roster, &self.config.transport.timeouts).await?;
        let chosen = match takeover.promise_verdict()? {
            Verdict::Chosen(chosen) => chosen,
            Verdict::Empty => {
                return Ok(Some(Taken::Empty(Box::new(EmptyVolume {
                    takeover,
                    roster,
                    owner: self.request.owner.clone(),
                }))));
            }
            verdict => return self.on_setback(verdict, &roster).await.map(|()| None),
        };
        if let Some(expected) = self.request.expected_system_identifier
            && expected != chosen.facts.system_identifier
        {
            return Err(TakeError::OtherCluster {
                volume: roster.volume,
                expected,
                found: chosen.facts.system_identifier,
            });
        }
        takeover.start_with_log(&chosen)?;
        let deadline = Instant::now() + self.config.transport.timeouts.stall;
        let cuts = start_on_all(
            &mut takeover,
            &roster,
            &self.config.transport.timeouts,
            deadline,
            self.progress,
        )
        .await;
        match takeover.start_verdict() {
            Verdict::Held => {}
            verdict => return self.on_setback(verdict, &roster).await.map(|()| None),
        }
        let attachment = Attachment {
            volume: roster.volume,
            membership: roster.reachable_membership(),
            epoch: takeover.epoch(),
            history: takeover.history().cloned().unwrap_or_default(),
            facts: chosen.facts,
            base: chosen.base,
            vdl: chosen.start_lsn,
            owner: self.request.owner.clone(),
        };
        Ok(Some(Taken::Ready(Box::new(ReadyVolume {
            attachment,
            cut_bytes: cuts.bytes,
            cut_segments: cuts.segments,
        }))))
    }

    /// What to do after an attempt that did not succeed: an error, or a pause and another one.
    async fn on_setback(&mut self, verdict: Verdict, roster: &Roster) -> Result<(), TakeError> {
        match verdict {
            Verdict::AskAgain { above } => {
                self.seen_number = self.seen_number.max(above);
                if self.attempts >= MAX_ATTEMPTS {
                    return Err(TakeError::Contended {
                        by: format!("epoch {above} was promised after {MAX_ATTEMPTS} attempts"),
                    });
                }
                // Two contenders draw different pauses, so that one of them gets through.
                tokio::time::sleep(Duration::from_millis(rand::random_range(20..300))).await;
            }
            Verdict::OwnerAlive { owner, remaining } => self.wait_for_lease(owner, remaining).await?,
            Verdict::Superseded { refused } => {
                return Err(TakeError::Superseded {
                    by: Fenced {
                        epoch: refused.promised.number,
                        owner: refused.owner.clone(),
                    },
                });
            }
            // `Wait` with nobody left to answer is a quorum that did not come about, too.
            Verdict::NoQuorum { .. } | Verdict::Wait => {
                let problems = match verdict {
                    Verdict::NoQuorum { obstacles } => roster.describe(&obstacles),
                    _ => Vec::new(),
                };
                if Instant::now() >= self.deadline {
                    return Err(TakeError::NoQuorum { problems });
                }
                self.tell("fewer than four segments took part, trying again", &problems);
                tokio::time::sleep(POLL).await;
            }
            Verdict::Empty | Verdict::Chosen(_) | Verdict::Held => {}
        }
        Ok(())
    }

    fn tell(&mut self, headline: &str, details: &[String]) {
        if self.news.is_news(headline, details, Instant::now()) {
            (self.progress)(headline);
            for detail in details {
                (self.progress)(detail);
            }
        }
    }
}

/// What was said last, so that a wait does not fill the log.
#[derive(Default)]
struct News {
    last: Option<(String, Instant)>,
}

impl News {
    fn is_news(&mut self, headline: &str, details: &[String], now: Instant) -> bool {
        let text = format!("{headline}\n{}", details.join("\n"));
        if let Some((last, at)) = &self.last
            && *last == text
            && now.saturating_duration_since(*at) < REPEAT_NEWS
        {
            return false;
        }
        self.last = Some((text, now));
        true
    }
}
