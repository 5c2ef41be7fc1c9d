//! What GIN indexes need beside a script: several sessions, and leaves that only an old server writes.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;

use pg_quorum_tests::sql::{execute, value};
use pg_quorum_types::BLOCK_SIZE;

use crate::servers::Servers;

/// The first posting tree's root in an index with one key: behind the metapage and the entry tree's root.
const POSTING_TREE: u64 = 2;
/// Behind the page header and the right bound.
const DATA_AT: usize = 32;
const SPECIAL_AT: usize = BLOCK_SIZE - 8;
/// `GIN_DATA | GIN_LEAF | GIN_COMPRESSED`.
const NEW_LEAF: u8 = 0x83;
const COMPRESSED: u8 = 0x80;

/// Sessions that add to one pending list, while another cleans it.
pub fn insert_together(servers: &Servers) {
    execute(
        &mut servers.connect(),
        "CREATE TABLE shared (n int, tags text[]) WITH (autovacuum_enabled = off);
         CREATE INDEX shared_tags ON shared USING gin (tags) WITH (gin_pending_list_limit = 64);
         CREATE INDEX shared_n ON shared USING gin ((ARRAY[n, -1])) WITH (fastupdate = off);",
    );
    std::thread::scope(|scope| {
        for session in 0..3 {
            let mut client = servers.connect();
            scope.spawn(move || {
                execute(
                    &mut client,
                    &format!(
                        "DO $$ BEGIN FOR i IN 1..1200 LOOP
                           INSERT INTO shared VALUES (i % 9, ARRAY['k' || i % 20, md5('{session}' || i), repeat('x', i % 50)]);
                           COMMIT;
                         END LOOP; END $$"
                    ),
                );
            });
        }
        let mut client = servers.connect();
        scope.spawn(move || {
            for _ in 0..30 {
                execute(&mut client, "SELECT gin_clean_pending_list('shared_tags')");
                execute(&mut client, "DELETE FROM shared WHERE n = 3");
                execute(&mut client, "VACUUM (INDEX_CLEANUP ON) shared");
            }
        });
    });
}

/// Leaves in the format before 9.4, which an index keeps that pg_upgrade has brought along: bare TIDs.
///
/// They are put into the stopped server's files. A move to another tablespace then writes the whole index to WAL,
/// so that from there on every copy of the cluster has them; the files that were tampered with are dropped.
pub fn change_old_leaves(servers: &Servers) {
    let mut client = servers.connect();
    let mut leaves = Vec::new();
    for table in ["old_grows", "old_shrinks", "old_empties", "old_empty"] {
        // Many TIDs make a posting tree, and few remain.
        execute(
            &mut client,
            &format!(
                "CREATE TABLE {table} (id int) WITH (autovacuum_enabled = off);
                 CREATE INDEX {table}_key ON {table} USING gin ((ARRAY[1])) WITH (fastupdate = off);
                 INSERT INTO {table} SELECT generate_series(1, 5000);
                 DELETE FROM {table} WHERE id % 5 > 0;"
            ),
        );
        execute(&mut client, &format!("VACUUM (INDEX_CLEANUP ON) {table}"));
        let path = value(
            &mut client,
            &format!("SELECT pg_relation_filepath('{table}_key')"),
        );
        let tids = match table {
            "old_empty" => Vec::new(),
            _ => heap_tids(&mut client, table),
        };
        leaves.push((servers.primary.pgdata.join(path), tids));
    }
    drop(client);
    servers.stop();
    for (path, tids) in leaves {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&path)
            .expect("open the index");
        let mut page = [0; BLOCK_SIZE];
        let at = POSTING_TREE * BLOCK_SIZE as u64;
        file.read_exact_at(&mut page, at).expect("read the leaf");
        to_old_format(&mut page, &tids);
        file.write_all_at(&page, at).expect("write the leaf");
    }
    servers.primary.start().expect("start the primary");
    servers.psql(
        "SET allow_in_place_tablespaces = on;
         CREATE TABLESPACE old_server LOCATION '';
         SET ignore_checksum_failure = on; SET client_min_messages = error;
         ALTER INDEX old_grows_key SET TABLESPACE old_server;
         ALTER INDEX old_shrinks_key SET TABLESPACE old_server;
         ALTER INDEX old_empties_key SET TABLESPACE old_server;
         ALTER INDEX old_empty_key SET TABLESPACE old_server;
         INSERT INTO old_grows SELECT generate_series(1, 400);
         DELETE FROM old_shrinks WHERE id % 10 = 0;
         VACUUM (INDEX_CLEANUP ON) old_shrinks;
         INSERT INTO old_shrinks SELECT generate_series(1, 400);
         DELETE FROM old_empties;
         VACUUM (INDEX_CLEANUP ON) old_empties;
         INSERT INTO old_empties SELECT generate_series(1, 400);
         INSERT INTO old_empty SELECT generate_series(1, 400);",
    );
}

/// A table's TIDs, in order, as an index stores them.
fn heap_tids(client: &mut postgres::Client, table: &str) -> Vec<[u8; 6]> {
    let rows = client
        .query(
            &format!("SELECT (ctid::text::point)[0]::int AS block, (ctid::text::point)[1]::int AS place FROM {table} ORDER BY ctid"),
            &[],
        )
        .expect("the table's TIDs");
    let tid = |row: &postgres::Row| {
        let (block, offset): (i32, i32) = (row.get(0), row.get(1));
        let (high, low) = ((block >> 16) as u16, block as u16);
        let halves = [high, low, offset as u16].map(u16::to_le_bytes);
        let mut tid = [0; 6];
        tid.copy_from_slice(&halves.concat());
        tid
    };
    rows.iter().map(tid).collect()
}

/// The number of TIDs stands in the special space; `pd_lower` tells nothing.
fn to_old_format(page: &mut [u8; BLOCK_SIZE], tids: &[[u8; 6]]) {
    assert_eq!(
        page[SPECIAL_AT + 6],
        NEW_LEAF,
        "the page is a leaf of a posting tree"
    );
    let bytes = tids.concat();
    page[DATA_AT..SPECIAL_AT].fill(0);
    page[DATA_AT..DATA_AT + bytes.len()].copy_from_slice(&bytes);
    page[12..14].copy_from_slice(&24u16.to_le_bytes());
    page[SPECIAL_AT + 4..SPECIAL_AT + 6].copy_from_slice(&(tids.len() as u16).to_le_bytes());
    page[SPECIAL_AT + 6] &= !COMPRESSED;
}
