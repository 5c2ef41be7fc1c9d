//! One read: candidates in order, at most two requests at a time.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use pg_quorum_quorum::{QuorumSet, Refusal};

use super::PageReader;
use super::choose::RequestEnd;
use crate::{CallError, Fenced};

/// Requests of one read that may be under way at the same time.
const MAX_UNDER_WAY: usize = 2;
/// Before the segments are asked once more when all of them have failed.
const PAUSE: Duration = Duration::from_millis(50);

/// Why pages could not be read.
#[derive(Debug, Clone, thiserror::Error)]
pub enum PageError {
    /// The patience is at its end. What each segment said last.
    #[error("no storage node could answer:\n{}", .0.join("\n"))]
    NoAnswer(Vec<String>),
    /// Every segment that answered says that the page cannot be built; waiting does not help.
    #[error("{0}")]
    CannotBeBuilt(String),
    /// The volume belongs to a later epoch.
    #[error("the volume was taken over: {0}")]
    Fenced(Fenced),
}

/// What one segment can answer.
pub(super) trait Question: Copy + Send + Sync {
    type Answer: Send;
    /// How much is asked for: a segment is expected to take as long as it did with other questions of this size.
    fn blocks(&self) -> usize;
    /// How long to go on asking one segment after the other.
    fn patience(&self) -> Duration;
    /// How many pages have come.
    fn pages(answer: &Self::Answer) -> usize;
    /// Asks the member with this index.
    fn ask(
        self,
        reader: &PageReader,
        index: usize,
    ) -> impl Future<Output = Result<Self::Answer, Failure>> + Send;
}

/// Why one segment could not answer.
pub(super) enum Failure {
    Call(CallError),
    Page(String),
}

pub(super) async fn read<Q: Question>(reader: &PageReader, question: Q) -> Result<Q::Answer, PageError> {
    let deadline = Instant::now() + question.patience();
    loop {
        let failures = match round(reader, question, deadline).await {
            Ok(answer) => return Ok(answer),
            Err(failures) => failures,
        };
        if let Some(fenced) = fenced(reader, &failures) {
            return Err(PageError::Fenced(fenced));
        }
        if let Some(message) = cannot_be_built(reader, &failures) {
            return Err(PageError::CannotBeBuilt(message));
        }
        if Instant::now() + PAUSE >= deadline {
            return Err(PageError::NoAnswer(describe(reader, &failures)));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Asks each segment once at most.
async fn round<Q: Question>(
    reader: &PageReader,
    question: Q,
    deadline: Instant,
) -> Result<Q::Answer, Vec<(usize, Failure)>> {
    let mut candidates = VecDeque::from(reader.order(question.blocks(), Instant::now()));
    let mut under_way = FuturesUnordered::new();
    let mut failures = Vec::new();
    let mut hedge_after = Duration::ZERO;
    loop {
        if under_way.is_empty() {
            let Some(index) = candidates.pop_front() else {
                return Err(failures);
            };
            hedge_after = reader.segments[index]
                .standing
                .lock()
                .hedge_after(question.blocks());
            under_way.push(ask(reader, index, question, false));
        }
        let may_hedge = under_way.len() < MAX_UNDER_WAY && !candidates.is_empty();
        tokio::select! {
            biased;
            Some((index, answer)) = under_way.next() => match answer {
                Ok(answer) => return Ok(answer),
                Err(failure) => failures.push((index, failure)),
            },
            () = tokio::time::sleep(hedge_after), if may_hedge => {
                if let Some(index) = candidates.pop_front() {
                    under_way.push(ask(reader, index, question, true));
                }
            }
            () = tokio::time::sleep_until(deadline.into()) => {
                return Err(failures);
            }
        }
    }
}

/// Counts a request as under way until it is answered or dropped.
struct UnderWay<'a> {
    reader: &'a PageReader,
    index: usize,
    blocks: usize,
    since: Instant,
    end: RequestEnd,
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        let took = self.since.elapsed();
        self.reader.segments[self.index]
            .standing
            .lock()
            .on_done(self.blocks, took, self.end);
    }
}

async fn ask<Q: Question>(
    reader: &PageReader,
    index: usize,
    question: Q,
    is_hedge: bool,
) -> (usize, Result<Q::Answer, Failure>) {
    let segment = &reader.segments[index];
    segment.standing.lock().on_asked(is_hedge);
    let mut under_way = UnderWay {
        reader,
        index,
        blocks: question.blocks(),
        since: Instant::now(),
        end: RequestEnd::Dropped,
    };
    let answer = question.ask(reader, index).await;
    under_way.end = RequestEnd::Answered;
    let took = under_way.since.elapsed();
    drop(under_way);
    let mut standing = segment.standing.lock();
    match &answer {
        Ok(answer) => standing.on_answer(Q::pages(answer), took),
        Err(failure) => standing.on_failure(failure.to_string(), Instant::now()),
    }
    (index, answer)
}

impl From<CallError> for Failure {
    fn from(error: CallError) -> Failure {
        Failure::Call(error)
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Failure::Call(error) => error.fmt(f),
            Failure::Page(message) => f.write_str(message),
        }
    }
}

/// Fenced by so many that the rest is no read quorum: a write quorum may have gone over.
fn fenced(reader: &PageReader, failures: &[(usize, Failure)]) -> Option<Fenced> {
    let members = &reader.attachment.membership.members;
    let later = |index: usize| {
        failures.iter().find_map(|(failed, failure)| match failure {
            Failure::Call(CallError::Refused(refused))
                if *failed == index && refused.reason == Refusal::LowerEpoch =>
            {
                Some(Fenced {
                    epoch: refused.promised.number,
                    owner: refused.owner.clone(),
                })
            }
            _ => None,
        })
    };
    let is_open = QuorumSet::of(&reader.attachment.membership).is_write_quorum(|segment| {
        let index = members.iter().position(|member| member.segment == segment);
        index.is_some_and(|index| later(index).is_none())
    });
    if is_open {
        return None;
    }
    (0..members.len())
        .filter_map(later)
        .max_by_key(|fenced| fenced.epoch)
}

/// Set if every segment was asked and all that could answer said that the page cannot be built.
fn cannot_be_built(reader: &PageReader, failures: &[(usize, Failure)]) -> Option<String> {
    if failures.len() < reader.segments.len() {
        return None;
    }
    let mut message = None;
    for (_, failure) in failures {
        match failure {
            Failure::Page(text) => message = Some(text.clone()),
            Failure::Call(CallError::Unreachable(_) | CallError::NotANode(_)) => {}
            Failure::Call(CallError::Refused(refused)) if refused.reason == Refusal::NotMember => {}
            Failure::Call(_) => return None,
        }
    }
    message
}

fn describe(reader: &PageReader, failures: &[(usize, Failure)]) -> Vec<String> {
    let members = &reader.attachment.membership.members;
    if failures.is_empty() {
        return vec!["no answer in time".to_owned()];
    }
    failures
        .iter()
        .map(|(index, failure)| {
            let member = &members[*index];
            format!("{} ({}) {failure}", member.node, member.address)
        })
        .collect()
}
