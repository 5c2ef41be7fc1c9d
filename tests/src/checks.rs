//! What must hold after a disaster, whatever the load was.

use std::process::Command;

use pg_quorum_deployment::{Server, capture};
use postgres::Client;

use crate::postgres_tests::CORE_REGRESSION_DATABASE;
use crate::sql;

/// Everything that PostgreSQL's own tools can check: heaps and indexes, visibility maps, index scans against
/// sequential scans, in every database.
///
/// # Panics
/// One of them has something to say.
pub fn check_everything(server: &Server) {
    check_amcheck(server);
    for database in databases(server) {
        let mut client = sql::connect(&server.database_uri(&database));
        check_visibility(&mut client);
        check_index_scans(&mut client);
        check_index_probes(&mut client, &database);
    }
}

fn databases(server: &Server) -> Vec<String> {
    let mut client = sql::connect(&server.uri());
    let rows = client
        .query("SELECT datname::text FROM pg_database WHERE datallowconn", &[])
        .expect("list databases");
    rows.iter().map(|row| row.get(0)).collect()
}

/// `pg_amcheck --heapallindexed --rootdescend` on every database is silent. It locks tables against writing.
///
/// # Panics
/// It is not.
pub fn check_amcheck(server: &Server) {
    let mut command = Command::new(server.binaries.postgres("pg_amcheck"));
    command
        // The notice that the extension is there already is nothing to say.
        .env("PGOPTIONS", "--client-min-messages=warning")
        .args(["--all", "--heapallindexed", "--rootdescend"])
        .args(["--install-missing", "--jobs", "2"])
        .args([
            "--host",
            "127.0.0.1",
            "--port",
            &server.port.to_string(),
            "--username",
            "postgres",
        ]);
    let output = command.output().expect("run pg_amcheck");
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(
        output.status.success() && said.trim().is_empty(),
        "pg_amcheck: {said}"
    );
}

/// No tuple that the visibility map calls visible or frozen is not.
fn check_visibility(client: &mut Client) {
    sql::execute(client, "CREATE EXTENSION IF NOT EXISTS pg_visibility");
    for function in ["pg_check_visible", "pg_check_frozen"] {
        let wrong = sql::value(
            client,
            &format!(
                "SELECT coalesce(string_agg(c.oid::regclass || ' ' || t, ', '), '') FROM pg_class c, \
                 LATERAL {function}(c.oid) AS t WHERE c.relkind IN ('r', 'm', 't') AND c.relpersistence = 'p'"
            ),
        );
        assert_eq!(wrong, "", "{function} reports tuples");
    }
}

/// Reading a table in the order of each of its B-tree indexes gives the rows that a sequential scan gives.
///
/// # Panics
/// It does not.
pub fn check_index_scans(client: &mut Client) {
    const INDEXES: &str = "\
        SELECT i.indrelid::regclass::text, i.indexrelid::regclass::text, \
               (SELECT string_agg(pg_get_indexdef(i.indexrelid, k, false), ', ' ORDER BY k) \
                  FROM generate_series(1, i.indnkeyatts) AS k) \
          FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am a ON a.oid = c.relam \
         WHERE a.amname = 'btree' AND i.indisvalid AND i.indpred IS NULL AND c.relpersistence = 'p' \
           AND c.relnamespace NOT IN ('pg_catalog'::regnamespace, 'pg_toast'::regnamespace, \
                                      'information_schema'::regnamespace)";
    let rows = client.query(INDEXES, &[]).expect("list indexes");
    for row in rows {
        let (table, index, keys): (String, String, String) = (row.get(0), row.get(1), row.get(2));
        let sequential =
            "SET enable_indexscan = off; SET enable_indexonlyscan = off; SET enable_seqscan = on";
        let ordered = "SET enable_indexscan = on; SET enable_seqscan = off; SET enable_sort = off";
        let mut digest = |settings: &str, order: &str| {
            sql::execute(client, &format!("{settings}; SET enable_bitmapscan = off"));
            sql::value(
                client,
                &format!(
                    "SELECT count(*) || ' rows, ' || coalesce(sum(h), 0) FROM \
                     (SELECT hashtextextended(t::text, 0)::numeric AS h FROM {table} AS t {order} OFFSET 0) AS s"
                ),
            )
        };
        let by_scan = digest(sequential, "");
        let by_index = digest(ordered, &format!("ORDER BY {keys}"));
        assert_eq!(
            by_index, by_scan,
            "rows of {table} by {index} against a sequential scan"
        );
        sql::execute(client, "RESET ALL");
    }
}

/// Looking up values that a table has, in each of its indexes that are not B-trees, gives the rows that sequential
/// scans give. Every access method has an operator for that: equality, or that two values overlap.
///
/// # Panics
/// It does not; or an index cannot be probed, outside of PostgreSQL's own test database.
fn check_index_probes(client: &mut Client, database: &str) {
    const VALUES_PROBED: u32 = 20;
    const INDEXES: &str = "\
        SELECT DISTINCT ON (i.indexrelid) i.indrelid::regclass::text, i.indexrelid::regclass::text, \
               quote_ident(a.attname), o.oprname::text \
          FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am m ON m.oid = c.relam \
          JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0] \
          JOIN pg_opclass n ON n.oid = i.indclass[0] \
          JOIN pg_amop p ON p.amopfamily = n.opcfamily AND p.amoplefttype = n.opcintype \
                        AND p.amoprighttype = n.opcintype \
          JOIN pg_operator o ON o.oid = p.amopopr AND o.oprname IN ('&&', '=') \
         WHERE m.amname <> 'btree' AND c.relkind = 'i' AND i.indisvalid AND i.indpred IS NULL AND c.relpersistence = 'p' \
         ORDER BY i.indexrelid, o.oprname";
    let rows = client.query(INDEXES, &[]).expect("list indexes");
    for row in rows {
        let (table, index, column, operator): (String, String, String, String) =
            (row.get(0), row.get(1), row.get(2), row.get(3));
        let probe = format!(
            "WITH probes AS MATERIALIZED (SELECT {column} AS value, hashtextextended({column}::text, 0) \
                                            FROM {table} WHERE {column} IS NOT NULL ORDER BY 2 LIMIT {VALUES_PROBED}) \
             SELECT count(*) || ' rows, ' || coalesce(sum(h), 0) FROM probes, LATERAL \
             (SELECT hashtextextended(t::text, 0)::numeric AS h FROM {table} AS t \
               WHERE t.{column} {operator} probes.value OFFSET 0) AS s"
        );
        sql::execute(client, "SET enable_indexscan = off; SET enable_bitmapscan = off");
        let by_scan = sql::value(client, &probe);
        // The planner sees no other index of the table.
        sql::execute(
            client,
            &format!(
                "RESET ALL; BEGIN; SET LOCAL enable_seqscan = off; UPDATE pg_index SET indisvalid = false \
                 WHERE indrelid = '{table}'::regclass AND indexrelid <> '{index}'::regclass"
            ),
        );
        let plan = client.query(&format!("EXPLAIN {probe}"), &[]).expect("EXPLAIN");
        let name = index.rsplit('.').next().unwrap_or(&index);
        if !plan.iter().any(|line| line.get::<_, &str>(0).contains(name)) {
            // A type whose operator the access method has under another name, a collation of its own.
            let said = format!("{index} cannot be probed with {operator}");
            assert!(database == CORE_REGRESSION_DATABASE, "{said}");
            println!("{said}");
            sql::execute(client, "ROLLBACK");
            continue;
        }
        let by_index = sql::value(client, &probe);
        sql::execute(client, "ROLLBACK");
        assert_eq!(
            by_index, by_scan,
            "values of {table} by {index} against sequential scans"
        );
    }
}

/// `pg_dumpall`, without the lines that differ from run to run.
///
/// # Panics
/// It fails.
pub fn dump(server: &Server) -> String {
    let mut command = Command::new(server.binaries.postgres("pg_dumpall"));
    command.args([
        "--host",
        "127.0.0.1",
        "--port",
        &server.port.to_string(),
        "--username",
        "postgres",
    ]);
    let text = capture(&mut command).expect("pg_dumpall");
    let differs = |line: &&str| line.starts_with("\\restrict") || line.starts_with("\\unrestrict");
    text.lines()
        .filter(|line| !differs(line))
        .collect::<Vec<_>>()
        .join("\n")
}

/// Compares two dumps, and shows the first difference only.
///
/// # Panics
/// They differ.
pub fn assert_same_dump(before: &str, after: &str) {
    for (number, (one, other)) in before.lines().zip(after.lines()).enumerate() {
        assert_eq!(one, other, "line {} of the dumps", number + 1);
    }
    assert_eq!(
        before.lines().count(),
        after.lines().count(),
        "lines of the dumps"
    );
}
