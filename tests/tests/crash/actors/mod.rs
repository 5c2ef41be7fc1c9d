//! The sessions of the load. Each has objects of its own and knows what they must be.

mod databases;
mod large_objects;
mod maintenance;
mod rows;
mod sequences;
mod tables;

use postgres::Client;
use rand::rngs::StdRng;

use crate::session::Session;

pub use databases::Databases;
pub use large_objects::LargeObjects;
pub use maintenance::Maintenance;
pub use rows::Rows;
pub use sequences::Sequences;
pub use tables::Tables;

/// A user of the database who remembers what it was told.
pub trait Actor: Send {
    fn name(&self) -> String;

    /// Does something. The connection may end at any moment.
    fn work(&mut self, session: &mut Session, random: &mut StdRng);

    /// After a disaster: what was acknowledged is there, what was in doubt is there as a whole or not at all.
    ///
    /// # Panics
    /// It is not so.
    fn check(&mut self, client: &mut Client);

    /// Puts an end to what a disaster left half done, so that everything can be locked and looked at.
    fn tidy(&mut self, _client: &mut Client, _random: &mut StdRng) {}
}

/// The type and the function that all rows come from: the columns other than `k` and `v` follow from these two. Three
/// of four increments of `v` change no indexed column; some rows are stored out of line.
pub const CONTENT: &str = "\
    CREATE TYPE shape AS (k int, v int, h int, tags int[], span int4range, word text, day int, pad text); \
    CREATE FUNCTION content(k int, v int) RETURNS SETOF shape LANGUAGE sql IMMUTABLE AS $$ \
        SELECT k, v, k * 31 + v / 4, ARRAY[k % 50, v / 4 % 20], int4range(k, k + v / 4 % 40 + 1), \
               (k % 300) || '-' || v / 4, k / 20, \
               (SELECT string_agg(md5(k || ' ' || v || ' ' || g), '') \
                  FROM generate_series(1, (k + v) % 20 + CASE WHEN (k + v) % 50 = 0 THEN 200 ELSE 0 END) g) $$";

/// An index of every access method, and on which column.
pub const INDEXES: [(&str, &str); 6] = [
    ("hash", "h"),
    ("gin", "tags"),
    ("gist", "span"),
    ("spgist", "word"),
    ("brin", "day"),
    ("btree", "v"),
];

/// Rows of a table that are not what [`CONTENT`] makes of their `k` and `v`.
pub fn wrong_rows(client: &mut Client, table: &str) -> String {
    pg_quorum_tests::sql::value(
        client,
        &format!(
            "SELECT coalesce(string_agg(t.k::text, ', '), '') FROM {table} t, LATERAL content(t.k::int, t.v) c \
              WHERE t::text <> c::text"
        ),
    )
}
