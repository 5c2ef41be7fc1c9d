//! Pages that this node cannot build are copied from a peer.
//!
//! A peer gives a page as it gives it to a server: only under the epoch that both have started, so under one
//! history, and as of an LSN that is durable in the quorum.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use pg_quorum_proto::v1;
use pg_quorum_proto::v1::pages_client::PagesClient;
use pg_quorum_quorum::RequestContext;
use pg_quorum_types::{Lsn, PageKey, RelFork, SegmentMember, SlruKind};
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
        for (place, pages) in by_place(&pages) {
            mend_place(&segment, &derived, place, pages).await;
        }
    }
}

/// What pages are numbered in.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Place {
    Fork(RelFork),
    Slru(SlruKind),
}

impl Place {
    fn key(self, number: u32) -> PageKey {
        match self {
            Place::Fork(rel) => PageKey::Relation { rel, block: number },
            Place::Slru(kind) => PageKey::Slru { kind, page: number },
        }
    }
}

/// Numbers of pages by place, each with the LSN that a copy must have reached.
fn by_place(pages: &[UnbuildablePage]) -> BTreeMap<Place, Vec<(u32, Lsn)>> {
    let mut places: BTreeMap<Place, Vec<(u32, Lsn)>> = BTreeMap::new();
    for page in pages {
        let (place, number) = match page.key {
            PageKey::Relation { rel, block } => (Place::Fork(rel), block),
            PageKey::Slru { kind, page } => (Place::Slru(kind), page),
        };
        places.entry(place).or_default().push((number, page.changed));
    }
    places
}

/// Asks one peer after the other until every page is mended or nobody is left.
async fn mend_place(
    segment: &Arc<Segment>,
    derived: &Arc<Derived>,
    place: Place,
    mut pages: Vec<(u32, Lsn)>,
) {
    let Some(membership) = segment.membership() else {
        return;
    };
    let others = membership
        .members
        .iter()
        .filter(|member| member.segment != segment.id());
    for peer in others {
        let Some((at, copies)) = ask(segment, peer, place, &pages).await else {
            continue;
        };
        let taking = Arc::clone(derived);
        let wanted = std::mem::take(&mut pages);
        let take = move || take_copies(&taking, place, &wanted, copies, at);
        match tokio::task::spawn_blocking(take).await {
            Ok(left) => pages = left,
            Err(error) => return tracing::error!("mending pages has failed: {error}"),
        }
        if pages.is_empty() {
            return;
        }
    }
    tracing::warn!(node = %segment.settings().node, ?place, pages = pages.len(), "no peer has a good copy of these pages now");
}

/// A peer's pages, `None` for those it cannot build or knows nothing of, and the LSN that they are of.
async fn ask(
    segment: &Segment,
    peer: &SegmentMember,
    place: Place,
    pages: &[(u32, Lsn)],
) -> Option<(Lsn, Vec<Option<Page>>)> {
    let view = *segment.subscribe().borrow();
    let durable = view.vdl.min(view.scl);
    let changed = pages.iter().map(|(_, changed)| *changed).max()?;
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
    let (fork, slru) = match place {
        Place::Fork(fork) => (Some(fork.into()), None),
        Place::Slru(kind) => (None, Some(kind as u32)),
    };
    let request = v1::GetPagesRequest {
        context: Some(context.into()),
        lsn: durable.0,
        not_modified_since: changed.0,
        fork,
        blocks: pages.iter().map(|(number, _)| *number).collect(),
        slru,
    };
    let mut client = PagesClient::new(peer_channel(&peer.address, segment.settings().tls.as_ref())?);
    let answer = tokio::time::timeout(PATIENCE, client.get_pages(request)).await;
    let reply = answer.ok()?.ok()?.into_inner();
    if reply.refused.is_some() || reply.pages.len() != pages.len() {
        return None;
    }
    let copy = |page: v1::Page| {
        Page::try_from(&page.page[..])
            .ok()
            .filter(|_| page.error.is_empty())
    };
    Some((Lsn(reply.lsn), reply.pages.into_iter().map(copy).collect()))
}

/// Returns the pages that are still to be mended.
fn take_copies(
    derived: &Derived,
    place: Place,
    wanted: &[(u32, Lsn)],
    copies: Vec<Option<Page>>,
    at: Lsn,
) -> Vec<(u32, Lsn)> {
    let mut left = Vec::new();
    for ((number, changed), copy) in wanted.iter().zip(copies) {
        let key = place.key(*number);
        let taken = copy.map(|copy| derived.take_copy(key, &copy, at));
        match taken {
            Some(Ok(_)) => {}
            Some(Err(error)) => {
                tracing::info!(%key, %at, "a peer's copy cannot be taken now: {error}");
                left.push((*number, *changed));
            }
            None => left.push((*number, *changed)),
        }
    }
    left
}
