//! Pages that this node cannot build are copied from a peer.
//!
//! A peer gives a page as it gives it to a server: only under the epoch that both have started, so under one
//! history, and as of an LSN that is durable in the quorum. Pages of transaction state are not copied.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use pg_quorum_proto::v1;
use pg_quorum_proto::v1::pages_client::PagesClient;
use pg_quorum_quorum::RequestContext;
use pg_quorum_types::{Lsn, PageKey, RelFork, SegmentMember};
use pg_quorum_wal::Page;

use crate::derived::{Derived, UnbuildablePage};
use crate::segment::Segment;
use crate::segment::catch_up::peer_channel;

/// How often it is looked whether there is something to mend.
const INTERVAL: Duration = Duration::from_secs(2);
/// Pages of one round.
const PAGES_PER_ROUND: usize = 256;
const PATIENCE: Duration = Duration::from_secs(5);

/// Runs until the task is aborted.
pub async fn run(segment: Arc<Segment>, derived: Arc<Derived>) {
    loop {
        tokio::time::sleep(INTERVAL).await;
        let pages = derived.unbuildable_pages(PAGES_PER_ROUND);
        if pages.is_empty() {
            continue;
        }
        for (fork, blocks) in by_fork(&pages) {
            mend_fork(&segment, &derived, fork, blocks).await;
        }
    }
}

/// Blocks by fork, each with the LSN that a copy must have reached.
fn by_fork(pages: &[UnbuildablePage]) -> BTreeMap<RelFork, Vec<(u32, Lsn)>> {
    let mut forks: BTreeMap<RelFork, Vec<(u32, Lsn)>> = BTreeMap::new();
    for page in pages {
        if let PageKey::Relation { rel, block } = page.key {
            forks.entry(rel).or_default().push((block, page.changed));
        }
    }
    forks
}

/// Asks one peer after the other until every block is mended or nobody is left.
async fn mend_fork(
    segment: &Arc<Segment>,
    derived: &Arc<Derived>,
    fork: RelFork,
    mut blocks: Vec<(u32, Lsn)>,
) {
    let Some(membership) = segment.membership() else {
        return;
    };
    let others = membership
        .members
        .iter()
        .filter(|member| member.segment != segment.id());
    for peer in others {
        let Some((at, copies)) = ask(segment, peer, fork, &blocks).await else {
            continue;
        };
        let taking = Arc::clone(derived);
        let wanted = std::mem::take(&mut blocks);
        let take = move || take_copies(&taking, fork, &wanted, copies, at);
        match tokio::task::spawn_blocking(take).await {
            Ok(left) => blocks = left,
            Err(error) => return tracing::error!("mending pages has failed: {error}"),
        }
        if blocks.is_empty() {
            return;
        }
    }
    tracing::warn!(node = %segment.settings().node, %fork, pages = blocks.len(), "no peer has a good copy of these pages now");
}

/// A peer's pages, `None` for those it cannot build or knows nothing of, and the LSN that they are of.
async fn ask(
    segment: &Segment,
    peer: &SegmentMember,
    fork: RelFork,
    blocks: &[(u32, Lsn)],
) -> Option<(Lsn, Vec<Option<Page>>)> {
    let view = *segment.subscribe().borrow();
    let durable = view.vdl.min(view.scl);
    let changed = blocks.iter().map(|(_, changed)| *changed).max()?;
    if !view.started.is_some() || changed > durable {
        return None;
    }
    let context = segment.with_machine(|machine| {
        let assignment = machine.meta().assignment.as_ref()?;
        Some(RequestContext {
            volume: assignment.volume,
            protection_group: assignment.protection_group,
            epoch: view.started,
            membership_version: assignment.membership.version,
            segment: peer.segment,
        })
    })?;
    let request = v1::GetPagesRequest {
        context: Some(context.into()),
        lsn: durable.0,
        not_modified_since: changed.0,
        fork: Some(fork.into()),
        blocks: blocks.iter().map(|(block, _)| *block).collect(),
    };
    let mut client = PagesClient::new(peer_channel(&peer.address, segment.settings().tls.as_ref())?);
    let answer = tokio::time::timeout(PATIENCE, client.get_pages(request)).await;
    let reply = answer.ok()?.ok()?.into_inner();
    if reply.refused.is_some() || reply.pages.len() != blocks.len() {
        return None;
    }
    let copy = |page: v1::Page| {
        Page::try_from(&page.page[..])
            .ok()
            .filter(|_| page.error.is_empty())
    };
    Some((Lsn(reply.lsn), reply.pages.into_iter().map(copy).collect()))
}

/// Returns the blocks that are still to be mended.
fn take_copies(
    derived: &Derived,
    fork: RelFork,
    wanted: &[(u32, Lsn)],
    copies: Vec<Option<Page>>,
    at: Lsn,
) -> Vec<(u32, Lsn)> {
    let mut left = Vec::new();
    for ((block, changed), copy) in wanted.iter().zip(copies) {
        let key = PageKey::Relation {
            rel: fork,
            block: *block,
        };
        let taken = copy.map(|copy| derived.take_copy(key, &copy, at));
        match taken {
            Some(Ok(_)) => {}
            Some(Err(error)) => {
                tracing::info!(%key, %at, "a peer's copy cannot be taken now: {error}");
                left.push((*block, *changed));
            }
            None => left.push((*block, *changed)),
        }
    }
    left
}
