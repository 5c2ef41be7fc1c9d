//! The oracle of redo: PostgreSQL itself.
//!
//! With `wal_consistency_checking = all` a stock server attaches to each record the image of each page that it changed.
//! The test takes these images away, replays the whole WAL from a copy of the data directory, and compares each page
//! with its image after each record, under PostgreSQL's own masks. In the end it compares every page without a mask
//! with the files of a stock standby that replayed the same WAL: that covers what masks hide (LSNs, hints), what has no
//! image (the visibility map's implied changes), and transaction state.
//!
//! The server runs PostgreSQL's own regression tests, and a workload that is made so that no kind of record is missing.

mod files;
mod replay;
mod report;
mod seeds;
mod servers;
mod steps;
mod workload;
mod wrong_redo;

use std::time::Instant;

use pg_quorum_deployment::{Settings, workspace_root};
use pg_quorum_tests::volume::Volume;
use pg_quorum_tests::wal_files::WalFiles;
use pg_quorum_wal::RedoContext;

use files::FinalComparison;
use replay::{Fault, Log, Replay};
use report::{Coverage, Source};
use seeds::Seeds;
use servers::Servers;
use wrong_redo::WrongRedo;

/// How many differences of a run are shown.
const SHOWN_MISMATCHES: usize = 40;

/// A primary's finished life: the log, and what a stock standby made of it.
struct Run {
    servers: Servers,
    log: Log,
    standby: Volume,
    replay: Replay,
    has_checksums: bool,
}

impl Run {
    /// Lets a new server do its work, which ends with a stop, and replays its log twice at the same time.
    fn new(name: &str, initdb: &[&str], settings: &Settings, work: impl FnOnce(&Servers)) -> Run {
        let begin = Instant::now();
        let servers = Servers::start(name, initdb, settings);
        work(&servers);
        let written = begin.elapsed().as_secs();
        let standby = servers.hand_over();
        let (facts, start) = servers.facts();
        let log = Log {
            files: WalFiles {
                pg_wal: standby.pg_wal(),
                facts,
                start,
            },
            ctx: RedoContext {
                hint_bits_logged: facts.data_checksums,
                track_commit_timestamp: true,
            },
            steps: servers.steps(),
        };
        let replay = std::thread::scope(|scope| {
            scope.spawn(|| standby.replay());
            Replay::run(Volume::load(servers.base()), &log, None)
        });
        println!(
            "{name}: {written} s to write {} MB of WAL, {} s to replay it",
            replay.wal_bytes / 1_000_000,
            begin.elapsed().as_secs() - written
        );
        Run {
            standby: Volume::load(standby.pgdata()),
            servers,
            log,
            replay,
            has_checksums: facts.data_checksums,
        }
    }

    fn compare(&self, replay: &Replay) -> FinalComparison {
        files::compare(replay, &self.standby, self.has_checksums)
    }

    /// The workload that makes every kind of record.
    fn of_workload(name: &str, initdb: &[&str]) -> Run {
        Run::new(name, initdb, &workload::settings(), workload::run)
    }

    /// PostgreSQL's own regression tests, with autovacuum.
    fn of_core_regression(name: &str, initdb: &[&str], settings: &Settings) -> Run {
        Run::new(name, initdb, settings, |servers| {
            println!("{name}: {} scripts", servers.core_regression());
            servers.stop();
        })
    }

    /// The outcome if redo makes a mistake.
    fn with_fault(&self, redo: WrongRedo, masks_hide_special_space: bool) -> (Replay, FinalComparison) {
        let fault = Fault {
            redo,
            masks_hide_special_space,
        };
        let replay = Replay::run(Volume::load(self.servers.base()), &self.log, Some(fault));
        assert!(!replay.spoiled.is_empty(), "{redo:?}: there was an opportunity");
        let comparison = self.compare(&replay);
        (replay, comparison)
    }

    /// The mistake is noticed as soon as it is made.
    fn assert_found_at_the_record(&self, redo: WrongRedo) {
        let (replay, _) = self.with_fault(redo, false);
        let found = replay.mismatches.first().expect("a mismatch");
        assert!(replay.spoiled.contains(&found.key), "{redo:?}: {found}");
        assert!(redo.explains(found), "{redo:?}: {found}");
    }

    /// Masks hide the mistake from the comparisons after each record; the one with the standby's files finds it, and
    /// nothing else.
    fn assert_found_in_the_end(&self, redo: WrongRedo, masks_hide_special_space: bool) {
        let (replay, comparison) = self.with_fault(redo, masks_hide_special_space);
        if let Some(found) = replay.mismatches.first() {
            panic!("{redo:?}: masks do not hide it: {found}");
        }
        assert!(!comparison.mismatches.is_empty(), "{redo:?}: not found");
        for found in &comparison.mismatches {
            assert!(replay.spoiled.contains(&found.key), "{redo:?}: {found}");
            assert!(redo.explains(found), "{redo:?}: {found}");
        }
    }
}

#[test]
fn redo_that_is_wrong_on_purpose_is_noticed() {
    let run = Run::new("redo-wrong", &[], &workload::settings(), workload::run_quick);
    assert_eq!(run.replay.mismatches, []);
    assert_eq!(run.compare(&run.replay).mismatches, []);
    run.assert_found_at_the_record(WrongRedo::TupleByte);
    run.assert_found_in_the_end(WrongRedo::PageLsn, false);
    run.assert_found_in_the_end(WrongRedo::PruneXid, false);
    run.assert_found_in_the_end(WrongRedo::VisibilityMapBit, false);
    run.assert_found_in_the_end(WrongRedo::BtreeCycleId, false);
    run.assert_found_in_the_end(WrongRedo::GistNsn, false);
    run.assert_found_at_the_record(WrongRedo::SpecialSpace);
    // A mask that hides too much does not hide a mistake for good.
    run.assert_found_in_the_end(WrongRedo::SpecialSpace, true);
}

#[test]
fn replayed_pages_are_those_of_a_stock_server() {
    // Without full-page images every page comes from redo; with them, checkpoints and hint bits, it is as in production.
    let bare = Settings::default()
        .with("wal_level", "logical")
        .with("full_page_writes", "off");
    let checkpoints = Settings::default()
        .with("checkpoint_timeout", "30s")
        .with("wal_compression", "pglz");
    let checksums = ["--data-checksums"];
    let runs: [(Source, &dyn Fn() -> Run); 4] = [
        (Source::Workload, &|| Run::of_workload("redo-workload", &[])),
        (Source::Workload, &|| {
            Run::of_workload(
                "redo-workload-checksums",
                &["--data-checksums", "--wal-segsize=1"],
            )
        }),
        (Source::CoreRegression, &|| {
            Run::of_core_regression("redo-regression", &[], &bare)
        }),
        (Source::CoreRegression, &|| {
            Run::of_core_regression("redo-regression-checksums", &checksums, &checkpoints)
        }),
    ];
    let mut coverage = Coverage::default();
    for (source, run) in runs {
        let run = run();
        let comparison = run.compare(&run.replay);
        let mismatches = coverage.add(source, &run.replay, &comparison);
        for mismatch in mismatches.iter().take(SHOWN_MISMATCHES) {
            eprintln!("{mismatch}");
        }
        if !mismatches.is_empty() {
            println!("{coverage}");
            // With the run's directory, for a look.
            panic!("{} differences", mismatches.len());
        }
    }
    println!("{coverage}");
    assert_eq!(
        coverage.never_seen(),
        [""; 0],
        "kinds of records that nothing made"
    );
}

/// Not a test: what the fuzzers start from.
#[test]
#[ignore = "writes fuzz/seeds; cargo xtask fuzz --new-seeds runs it"]
fn new_seeds_for_the_fuzzers() {
    let checksums = ["--data-checksums"];
    // Updates under wal_level = logical have whole tuples.
    let replica = workload::settings().with("wal_level", "replica");
    let all = Servers::start("redo-seeds", &checksums, &workload::settings());
    workload::run(&all);
    let heap = Servers::start("redo-seeds-replica", &checksums, &replica);
    workload::run_quick(&heap);
    let log = |servers: &Servers| {
        let (facts, start) = servers.facts();
        let log = Log {
            files: WalFiles {
                pg_wal: servers.hand_over().pg_wal(),
                facts,
                start,
            },
            ctx: RedoContext {
                hint_bits_logged: facts.data_checksums,
                track_commit_timestamp: true,
            },
            steps: servers.steps(),
        };
        (servers.base().to_owned(), log)
    };
    let seeds = Seeds::collect(&[log(&all), log(&heap)]);
    let control_file = all.base().join("global/pg_control");
    seeds.write(&workspace_root().join("fuzz/seeds"), &control_file);
}
