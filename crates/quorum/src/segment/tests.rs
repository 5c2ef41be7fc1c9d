//! What a segment commands and refuses across a change of writers.

use std::time::Duration;

use pg_quorum_types::{
    AzName, Base, ClusterFacts, ComputeId, Epoch, History, HistoryEntry, Lsn, Membership, NodeName, Owner,
    ProtectionGroup, SegmentId, SegmentMember, VolumeId,
};
use uuid::Uuid;

use super::{
    AppendHeader, CreateRequest, PromiseRequest, SegmentMachine, SegmentMeta, StartProgress, StartRequest,
};
use crate::{Monotonic, Refusal, RequestContext};

const NOW: Monotonic = Monotonic(Duration::from_secs(1));
const SEGMENT: SegmentId = SegmentId(Uuid::from_u128(1));
const VOLUME: VolumeId = VolumeId(Uuid::from_u128(2));
const BASE: Base = Base {
    id: Uuid::from_u128(3),
    lsn: Lsn(1000),
};
const FACTS: ClusterFacts = ClusterFacts {
    system_identifier: 4,
    timeline: 1,
    wal_segment_bytes: 16 << 20,
    data_checksums: false,
    pg_control_version: 1300,
    catalog_version: 202_209_061,
    pg_major: 15,
};

fn epoch(number: u64) -> Epoch {
    Epoch {
        number,
        writer: Uuid::from_u128(number.into()),
    }
}

fn history(entries: &[(u64, u64)]) -> History {
    let entry = |&(number, start)| HistoryEntry {
        epoch: epoch(number),
        start_lsn: Lsn(start),
    };
    History::new(entries.iter().map(entry).collect()).unwrap()
}

fn context(number: u64) -> RequestContext {
    RequestContext {
        volume: VOLUME,
        protection_group: ProtectionGroup(0),
        epoch: epoch(number),
        membership_version: 1,
        segment: SEGMENT,
    }
}

/// A member of the volume with a complete base; epoch 1 has started and its log reaches `scl`.
fn segment_with_log(scl: u64) -> SegmentMachine {
    let meta = SegmentMeta::formatted(NodeName("node-1".into()), SEGMENT);
    let mut machine = SegmentMachine::recover(meta, Lsn::INVALID, Lsn::INVALID, Duration::ZERO, NOW);
    let member = SegmentMember {
        segment: SEGMENT,
        node: NodeName("node-1".into()),
        az: AzName("az1".into()),
        address: String::new(),
    };
    let create = CreateRequest {
        volume: VOLUME,
        protection_group: ProtectionGroup(0),
        system_identifier: FACTS.system_identifier,
        membership: Membership {
            version: 1,
            members: vec![member],
        },
        segment: SEGMENT,
    };
    machine.create(create, NOW).unwrap();
    promise(&mut machine, 1);
    machine.begin_import(&context(1), BASE, NOW).unwrap();
    machine.complete_import(&context(1), BASE, FACTS, NOW).unwrap();
    assert!(start(&mut machine, &[(1, BASE.lsn.0)]).started);
    machine.log_synced(Lsn(scl));
    machine
}

fn promise(machine: &mut SegmentMachine, number: u64) {
    let request = PromiseRequest {
        context: context(number),
        owner: Owner {
            compute: ComputeId(Uuid::from_u128(number.into())),
            description: format!("compute {number}"),
        },
        last_held_epoch: 0,
        force: true,
    };
    machine.promise(request, NOW).unwrap();
    machine.log_drained(machine.scl());
}

/// Starts the last epoch of `entries`, which is promised.
fn start(machine: &mut SegmentMachine, entries: &[(u64, u64)]) -> StartProgress {
    let history = history(entries);
    let request = StartRequest {
        context: context(history.last().unwrap().epoch.number),
        history,
        base: BASE,
    };
    machine.start(request, NOW).unwrap();
    machine.start_progress()
}

/// Whether records of an epoch from a peer are taken; `false` if they do not continue the log.
fn takes_from_peer(machine: &SegmentMachine, number: u64, previous_end: u64, end: u64) -> bool {
    match machine.append_from_peer(epoch(number), Lsn(previous_end), Lsn(end), NOW) {
        Ok(()) => true,
        Err(refused) => {
            assert_eq!(refused.reason, Refusal::OutOfRange, "{refused}");
            false
        }
    }
}

/// A peer was asked for records of epoch 1 and then paused. Meanwhile epoch 2 started at 1200: what epoch 1 wrote
/// behind was never acknowledged and is another log's now. When the peer goes on, it sends just that.
#[test]
fn late_records_of_an_epoch_are_refused_beyond_the_accepted_start_that_ends_it() {
    let mut machine = segment_with_log(1100);
    assert!(takes_from_peer(&machine, 1, 1100, 1300));
    promise(&mut machine, 2);
    assert!(!start(&mut machine, &[(1, 1000), (2, 1200)]).started);
    assert!(!takes_from_peer(&machine, 1, 1100, 1300));
    assert!(takes_from_peer(&machine, 1, 1100, 1200));
}

#[test]
fn late_records_of_an_epoch_are_refused_beyond_the_reached_start_that_ended_it() {
    let mut machine = segment_with_log(1100);
    promise(&mut machine, 2);
    start(&mut machine, &[(1, 1000), (2, 1200)]);
    machine.log_synced(Lsn(1200));
    assert_eq!(machine.started(), epoch(2));
    // They begin in what is here already, so that the part behind it could be taken for what comes next.
    assert!(!takes_from_peer(&machine, 1, 1100, 1300));
    assert!(takes_from_peer(&machine, 1, 1100, 1200));
    assert!(takes_from_peer(&machine, 2, 1200, 1300));
}

#[test]
fn late_records_of_an_epoch_that_was_cut_are_refused() {
    let mut machine = segment_with_log(1300);
    promise(&mut machine, 2);
    assert!(start(&mut machine, &[(1, 1000), (2, 1200)]).started);
    assert_eq!(machine.scl(), Lsn(1200));
    assert!(!takes_from_peer(&machine, 1, 1100, 1300));
}

#[test]
fn the_read_points_of_an_epoch_end_with_it() {
    let mut machine = segment_with_log(1100);
    let header = |number, pgmrpl| AppendHeader {
        epoch: epoch(number),
        vdl: Lsn(1100),
        pgmrpl: Lsn(pgmrpl),
        has_records: false,
    };
    machine.append(header(1, 1080), NOW).unwrap();
    assert_eq!(machine.pgmrpl(), Lsn(1080));
    promise(&mut machine, 2);
    assert!(start(&mut machine, &[(1, 1000), (2, 1100)]).started);
    assert_eq!(machine.pgmrpl(), Lsn::INVALID);
    // The new writer reads from further below than the one before did.
    machine.append(header(2, 1050), NOW).unwrap();
    assert_eq!(machine.pgmrpl(), Lsn(1050));
}
