//! Redo of single records by family, and of single pages with many records, on one core.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result};
use pg_quorum_deployment::{Server, workspace_root};
use serde::Deserialize;

use super::figure::{Figures, median};
use super::psql::psql;
use super::recording::Recording;
use super::setup::Bench;
use crate::report;

/// Pending records of a page that is asked for.
const PENDING: &str = "64";
/// Many records of each family, in the order of this file.
const FAMILIES: &str = "xtask/src/bench/families.sql";

/// What the driver prints for the families: seconds and pages changed, by resource manager and kind.
#[derive(Deserialize)]
struct Families {
    families: BTreeMap<String, Family>,
}

#[derive(Deserialize)]
struct Family {
    changes: f64,
    seconds: f64,
}

/// What it prints for pages: microseconds for one, by what the page is of.
#[derive(Deserialize)]
struct Pages {
    heap_us: f64,
    btree_us: f64,
}

pub fn run(bench: &Bench<'_>, figures: &mut Figures) -> Result<()> {
    report::detail("families");
    let recording = Recording::make(bench, |_| Ok(()), make_families)?;
    let mut rates: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for _ in 0..bench.options.rounds {
        let measured: Families = recording.drive(&["families"])?;
        for (name, family) in measured.families {
            rates
                .entry(name)
                .or_default()
                .push(family.changes / family.seconds);
        }
    }
    drop(recording);
    for (name, rates) in rates {
        figures.report(&format!("redo_{name}"), median(rates), "records/s and core")?;
    }
    report::detail("pages");
    let recording = Recording::make(bench, make_pages, change_pages)?;
    let (mut heap, mut btree) = (Vec::new(), Vec::new());
    for _ in 0..bench.options.rounds {
        let pages: Pages = recording.drive(&["pages", "--records", PENDING])?;
        heap.push(pages.heap_us);
        btree.push(pages.btree_us);
    }
    figures.report(&format!("redo_page_of_{PENDING}_heap"), median(heap), "us")?;
    figures.report(&format!("redo_page_of_{PENDING}_btree"), median(btree), "us")
}

/// Tables whose pages, and whose index's, have room.
fn make_pages(server: &Server) -> Result<()> {
    psql(
        server,
        "CREATE TABLE pages (id int, n int, filler text) WITH (fillfactor = 50)",
    )?;
    psql(
        server,
        "INSERT INTO pages SELECT g, 0, repeat('x', 80) FROM generate_series(1, 9000) g",
    )?;
    psql(server, "CREATE TABLE keys (k int)")?;
    psql(
        server,
        "INSERT INTO keys SELECT 1000 * g FROM generate_series(1, 60000) g",
    )?;
    psql(server, "CREATE INDEX ON keys (k) WITH (fillfactor = 50)").map(drop)
}

/// Changes a row of each page, again and again, and adds keys everywhere in the index: records of one page are far
/// apart in the log.
fn change_pages(server: &Server) -> Result<()> {
    for number in 0..40 {
        psql(
            server,
            &format!("UPDATE pages SET n = n + 1 WHERE id % 30 = {}", number % 30),
        )?;
    }
    psql(
        server,
        "INSERT INTO keys SELECT (g * 7919::bigint) % 60000000 FROM generate_series(1, 30000) g",
    )
    .map(drop)
}

fn make_families(server: &Server) -> Result<()> {
    let path = workspace_root().join(FAMILIES);
    let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    // psql runs what it is given at once as one transaction: VACUUM needs statements of their own.
    for statement in text.split(";\n").filter(|statement| !statement.trim().is_empty()) {
        psql(server, statement)?;
    }
    Ok(())
}
