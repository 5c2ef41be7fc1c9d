//! What goes over the wire: log bytes shipped to one segment for each WAL byte written, and messages for each
//! transaction. And the shared memory that all of it takes.

use anyhow::Result;
use pg_quorum_deployment::Server;

use super::figure::Figures;
use super::psql::{number, pgbench, psql};
use super::setup::Bench;

const SEGMENTS: f64 = 6.0;
const CLIENTS: u32 = 8;

/// Counters of the link worker, over all segments, and the WAL position.
struct Sample {
    /// Bytes of messages with records.
    shipped: f64,
    messages: f64,
    written: f64,
}

impl Sample {
    fn take(server: &Server) -> Result<Sample> {
        // The link worker publishes its counters once a second.
        psql(server, "SELECT pg_sleep(2)")?;
        Ok(Sample {
            shipped: number(server, "SELECT bytes_sent FROM quorum.stat")?,
            messages: number(server, "SELECT messages_sent FROM quorum.stat")?,
            written: number(server, "SELECT pg_current_wal_lsn() - '0/0'")?,
        })
    }
}

pub fn run(bench: &Bench<'_>, figures: &mut Figures) -> Result<()> {
    let rig = bench.quorum()?;
    let before = Sample::take(&rig.server)?;
    let run = pgbench(&rig.server, CLIENTS, bench.options.seconds)?;
    let after = Sample::take(&rig.server)?;
    let shipped = (after.shipped - before.shipped) / SEGMENTS;
    let messages = (after.messages - before.messages) / SEGMENTS;
    figures.compare(
        "wire_bytes_per_segment",
        shipped,
        after.written - before.written,
        "bytes",
    )?;
    figures.report(
        "extension_shared_memory",
        number(
            &rig.server,
            "SELECT allocated_size FROM pg_shmem_allocations WHERE name = 'pg_quorum'",
        )? / 1e6,
        "MB",
    )?;
    figures.report(
        "wire_messages_per_transaction_and_segment",
        messages / run.transactions,
        "messages",
    )
}
