//! The oracle of redo: PostgreSQL itself.
//!
//! With `wal_consistency_checking = all` a stock server attaches to each record the image of each page that it changed.
//! The test takes these images away, replays the whole WAL from a copy of the data directory, and compares each page
//! with its image after each record, under PostgreSQL's own masks. In the end it compares every page without a mask
//! with the files of a stock standby that replayed the same WAL: that covers what masks hide (LSNs, hints), what has no
//! image (the visibility map's implied changes), and transaction state.

mod files;
mod replay;
mod report;
mod servers;
mod workload;

use pg_quorum_deployment::Settings;
use pg_quorum_tests::volume::Volume;
use pg_quorum_tests::wal_files::WalFiles;
use pg_quorum_wal::RedoContext;

use files::Rules;
use replay::{Damage, DamageKind, Replay};
use servers::Servers;

/// A finished run of the primary, and of the standby.
struct Run {
    servers: Servers,
    wal: WalFiles,
    standby: Volume,
    ctx: RedoContext,
    rules: Rules,
}

impl Run {
    fn new(name: &str, initdb: &[&str], settings: &Settings) -> Run {
        let servers = Servers::start(name, initdb, settings);
        workload::run(&servers);
        let standby = Volume::load(&servers.standby());
        let (facts, start) = servers.facts();
        let wal = WalFiles {
            pg_wal: servers.pg_wal(),
            facts,
            start,
        };
        Run {
            servers,
            wal,
            standby,
            ctx: RedoContext {
                hint_bits_logged: facts.data_checksums,
                track_commit_timestamp: true,
            },
            rules: Rules {
                checksums_are_set_at_write: facts.data_checksums,
            },
        }
    }

    fn replay(&self, damage: Option<Damage>) -> Replay {
        let base = Volume::load(self.servers.base());
        Replay::run(base, &self.wal, self.ctx, damage)
    }

    /// Replays everything, prints the table, and fails on any difference, and if another kind of record than
    /// those of `never_seen` is missing.
    fn assert_same(&self, never_seen: &[&str]) {
        let replay = self.replay(None);
        let comparison = files::compare(&replay, &self.standby, &self.rules);
        println!("{}", report::table(&replay, &comparison));
        let mismatches: Vec<_> = replay.mismatches.iter().chain(&comparison.mismatches).collect();
        for mismatch in mismatches.iter().take(40) {
            eprintln!("{mismatch}");
        }
        assert!(mismatches.is_empty(), "{} differences", mismatches.len());
        assert_eq!(report::never_seen(&replay), never_seen);
    }

    /// Every fault that is put into a page on purpose is found.
    fn assert_damage_is_noticed(&self) {
        let damaged = |kind| {
            let replay = self.replay(Some(Damage {
                after_inserts: 1000,
                kind,
            }));
            let key = replay.damaged.expect("the workload has 1000 insertions");
            (replay, key)
        };
        let (replay, key) = damaged(DamageKind::TupleByte);
        let found = replay.mismatches.first().expect("a damaged tuple is a mismatch");
        assert_eq!(found.key, key, "{found}");
        assert!(found.record.is_some(), "found at the record: {found}");

        let (replay, key) = damaged(DamageKind::PageLsn);
        let comparison = files::compare(&replay, &self.standby, &self.rules);
        let found = replay.mismatches.iter().chain(&comparison.mismatches);
        assert!(
            found.into_iter().any(|mismatch| mismatch.key == key),
            "a wrong LSN is noticed"
        );
    }
}

#[test]
fn replayed_pages_are_those_of_a_stock_server() {
    let settings = Settings::default()
        .with("wal_level", "logical")
        .with("full_page_writes", "off");
    let run = Run::new("redo-oracle", &[], &settings);
    // Hint bits are not logged here.
    run.assert_same(&["XLOG/FPI_FOR_HINT"]);
    run.assert_damage_is_noticed();
}

#[test]
fn replayed_pages_with_checksums_and_logged_hints_are_those_of_a_stock_server() {
    let settings = Settings::default()
        .with("wal_level", "logical")
        .with("full_page_writes", "off");
    let run = Run::new(
        "redo-oracle-checksums",
        &["--data-checksums", "--wal-segsize=1"],
        &settings,
    );
    run.assert_same(&[]);
}
