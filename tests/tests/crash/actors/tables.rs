//! Tables that come and go: created, dropped, truncated, moved, rewritten, logged and not, in transactions of several
//! such commands that may be rolled back; and temporary ones.

use std::collections::{BTreeMap, BTreeSet};

use pg_quorum_tests::sql;
use postgres::Client;
use rand::Rng;
use rand::rngs::StdRng;

use super::{Actor, wrong_rows};
use crate::SPACES;
use crate::session::{Answer, Session, Step};
use crate::shadow::{Shadow, map_difference};

const TABLES_AT_MOST: usize = 6;
/// No SP-GiST: stock PostgreSQL (15.18) fails to insert ("could not read block") when a table has been truncated in the
/// transaction that made its file, by a stale cache of the index's last used pages.
const TRUNCATABLE: [(&str, &str); 5] = [
    ("hash", "h"),
    ("gin", "tags"),
    ("gist", "span"),
    ("brin", "day"),
    ("btree", "v"),
];

#[derive(Clone, PartialEq, Eq, Debug)]
struct Table {
    is_logged: bool,
    space: String,
    rows: i64,
}

type State = BTreeMap<String, Table>;

pub struct Tables {
    shadow: Shadow<State>,
    next_name: u32,
}

impl Tables {
    pub fn create(client: &mut Client) -> Tables {
        sql::execute(client, "CREATE SCHEMA coming_and_going");
        Tables {
            shadow: Shadow::new(State::new()),
            next_name: 1,
        }
    }

    /// Adds one change to a transaction that has moved the tables in `moved` to tablespaces before.
    fn change(
        &mut self,
        random: &mut StdRng,
        steps: &mut Vec<Step>,
        state: &mut State,
        moved: &mut BTreeSet<String>,
    ) {
        let mut sql = |statement: String| steps.push(Step::Sql(statement));
        let space = SPACES[random.random_range(0..SPACES.len())];
        let rows = random.random_range(0..400);
        let kind = random.random_range(0..10);
        let name = state
            .keys()
            .nth(random.random_range(0..state.len().max(1)))
            .cloned();
        let Some(name) = name.filter(|_| kind > 2 || state.len() >= TABLES_AT_MOST) else {
            let name = format!("coming_and_going.t{}", self.next_name);
            self.next_name += 1;
            let is_logged = random.random_bool(0.6);
            let unlogged = if is_logged { "" } else { "UNLOGGED" };
            let (method, column) = TRUNCATABLE[random.random_range(0..TRUNCATABLE.len())];
            sql(format!(
                "CREATE {unlogged} TABLE {name} TABLESPACE {space} AS {}",
                some_rows(rows)
            ));
            sql(format!("CREATE INDEX ON {name} USING {method} ({column})"));
            let space = space.to_owned();
            state.insert(
                name,
                Table {
                    is_logged,
                    space,
                    rows,
                },
            );
            return;
        };
        let table = state.get_mut(&name).expect("one of them");
        match kind {
            3 => {
                sql(format!("DROP TABLE {name}"));
                state.remove(&name);
            }
            4 | 5 => {
                // Stock PostgreSQL (15.18) truncates a table in place whose file the transaction has made, and with it the
                // indexes, whose files it has not: when it rolls back, they are empty (`ExecuteTruncateGuts`).
                let empty = if moved.contains(&name) {
                    "DELETE FROM"
                } else {
                    "TRUNCATE"
                };
                sql(format!("{empty} {name}"));
                sql(format!("INSERT INTO {name} {}", some_rows(rows)));
                table.rows = rows;
            }
            6 => {
                sql(format!("ALTER TABLE {name} SET TABLESPACE {space}"));
                space.clone_into(&mut table.space);
                moved.insert(name);
            }
            7 => {
                table.is_logged = !table.is_logged;
                let how = if table.is_logged { "LOGGED" } else { "UNLOGGED" };
                sql(format!("ALTER TABLE {name} SET {how}"));
            }
            _ => {
                let width = if random.random() { "bigint" } else { "int" };
                sql(format!("ALTER TABLE {name} ALTER k TYPE {width}"));
            }
        }
    }

    fn use_a_temporary_table(session: &mut Session, random: &mut StdRng) {
        let rows = random.random_range(1..800_i64);
        session.run("DROP TABLE IF EXISTS temporary");
        if session.run(&format!(
            "CREATE TEMPORARY TABLE temporary AS {}",
            some_rows(rows)
        )) != Answer::Done
        {
            return;
        }
        session.run("CREATE INDEX ON temporary (h)");
        session.run("UPDATE temporary SET word = 'x' WHERE k % 3 = 0");
        let query = "SELECT count(*), count(*) FILTER (WHERE word = 'x') FROM temporary";
        if let (Some(row), _) = session.value(query, &[]) {
            let found: (i64, i64) = (row.get(0), row.get(1));
            if found != (rows, rows / 3) {
                session.complain(format!("a temporary table of {rows} rows: {found:?}"));
            }
        }
    }
}

/// A query for rows 1 to `rows`.
fn some_rows(rows: i64) -> String {
    format!("SELECT c.* FROM generate_series(1, {rows}) k, LATERAL content(k, 7) c")
}

impl Actor for Tables {
    fn name(&self) -> String {
        "tables".to_owned()
    }

    fn work(&mut self, session: &mut Session, random: &mut StdRng) {
        if random.random_bool(0.15) {
            return Tables::use_a_temporary_table(session, random);
        }
        let mut state = self.shadow.known.clone();
        let mut steps = Vec::new();
        let mut moved = BTreeSet::new();
        for number in 0..random.random_range(1..=3) {
            let before = state.clone();
            let is_undone = random.random_bool(0.2);
            if is_undone {
                steps.push(Step::Sql(format!("SAVEPOINT s{number}")));
            }
            self.change(random, &mut steps, &mut state, &mut moved);
            if is_undone {
                steps.push(Step::Sql(format!("ROLLBACK TO s{number}")));
                state = before;
            }
        }
        if random.random_bool(0.2) {
            session.transaction(&steps, "ROLLBACK");
        } else {
            let outcome = session.transaction(&steps, "COMMIT");
            self.shadow.note(outcome, state);
        }
    }

    fn check(&mut self, client: &mut Client) {
        let empty_unlogged = |state: &mut State| {
            let unlogged = state.values_mut().filter(|table| !table.is_logged);
            unlogged.for_each(|table| table.rows = 0);
        };
        self.shadow.change(empty_unlogged);
        let rows = client
            .query(
                "SELECT c.oid::regclass::text, c.relpersistence = 'p', coalesce(s.spcname, 'pg_default')::text \
                   FROM pg_class c LEFT JOIN pg_tablespace s ON s.oid = c.reltablespace \
                  WHERE c.relkind = 'r' AND c.relnamespace = 'coming_and_going'::regnamespace",
                &[],
            )
            .expect("list tables");
        let mut actual = State::new();
        for row in rows {
            let name: String = row.get(0);
            let count = sql::value(client, &format!("SELECT count(*) FROM {name}"));
            let table = Table {
                is_logged: row.get(1),
                space: row.get(2),
                rows: count.parse().expect("a number"),
            };
            assert_eq!(wrong_rows(client, &name), "", "wrong rows in {name}");
            actual.insert(name, table);
        }
        self.shadow.settle("tables", actual, map_difference);
    }

    /// Unlogged tables are empty, and usable with their indexes.
    fn tidy(&mut self, client: &mut Client, _random: &mut StdRng) {
        for (name, table) in self.shadow.known.iter_mut().filter(|(_, table)| !table.is_logged) {
            sql::execute(
                client,
                &format!("TRUNCATE {name}; INSERT INTO {name} {}", some_rows(50)),
            );
            sql::execute(client, "SET enable_seqscan = off");
            let by_index = sql::value(
                client,
                &format!(
                    "SELECT count(*) FROM {name} WHERE h = 32 AND tags @> '{{1}}' AND span @> 1 AND word = '1-1' AND day = 0 AND v = 7"
                ),
            );
            assert_eq!(by_index, "1", "{name} after a restart");
            sql::execute(client, "RESET enable_seqscan");
            table.rows = 50;
        }
    }
}
