//! Servers that keep hardly anything, and the proof from their counters that pages went and came back.

use pg_quorum_deployment::Settings;
use postgres::Client;

use crate::sql;

/// As few buffers as a server starts with, and nobody who writes unasked. The local page cache has no limit.
pub fn few_buffers() -> Settings {
    Settings::default()
        .with("shared_buffers", "1MB")
        .with("autovacuum", "off")
}

/// A column of `quorum.cache`.
///
/// # Panics
/// The server's database has no extension `pg_quorum`.
pub fn cache(client: &mut Client, column: &str) -> u64 {
    let query = format!("SELECT {column} FROM quorum.cache");
    sql::value(client, &query).parse().expect("a number")
}

/// Installs `quorum`, and what pushes pages out of the buffers: `filler`, a table larger than they are. Before anything that
/// [`evict`] is to be used on.
///
/// # Panics
/// The server refuses.
pub fn prepare(client: &mut Client) {
    sql::execute(
        client,
        "CREATE EXTENSION IF NOT EXISTS pg_quorum; CREATE EXTENSION IF NOT EXISTS pg_prewarm; \
         CREATE TABLE filler AS SELECT g, repeat('x', 500) AS x FROM generate_series(1, 9000) g",
    );
}

/// Pushes everything out of the buffers, then what may go out of the cache: of a relation, or of all. How many pages
/// were dropped.
///
/// # Panics
/// Without [`prepare`].
pub fn evict(client: &mut Client, relation: Option<&str>) -> u64 {
    // A sequential scan would keep to a ring of a few buffers. A buffer that was used often survives a few rounds.
    sql::value(client, "SELECT pg_prewarm('filler') + pg_prewarm('filler')");
    let relation = relation.map_or_else(String::new, |name| format!("'{name}'"));
    let dropped = sql::value(client, &format!("SELECT quorum.drop_cache({relation})"));
    dropped.parse().expect("a number")
}

/// Runs `look` before and after everything was evicted and dropped: it must see the same, and must have seen it in
/// pages that came back, at least `pages` of them. Returns what it saw.
///
/// # Panics
/// One of these is not so.
pub fn assert_same_after_eviction(
    client: &mut Client,
    pages: u64,
    mut look: impl FnMut() -> String,
) -> String {
    let before = look();
    let dropped = evict(client, None);
    let refetched = cache(client, "pages_refetched");
    crate::checks::assert_same_dump(&before, &look());
    let refetched = cache(client, "pages_refetched") - refetched;
    assert!(
        dropped >= pages && refetched >= pages,
        "of {pages} pages {dropped} were dropped, {refetched} came back"
    );
    before
}
