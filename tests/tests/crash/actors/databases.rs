//! Databases copied by either strategy, moved and dropped; a tablespace that comes and goes.

use std::collections::BTreeMap;

use pg_quorum_deployment::Server;
use pg_quorum_tests::sql;
use postgres::Client;
use rand::Rng;
use rand::rngs::StdRng;

use super::{Actor, CONTENT, INDEXES, wrong_rows};
use crate::SPACES;
use crate::session::Session;
use crate::shadow::Shadow;

const COPIES_AT_MOST: usize = 2;
const ROWS: i64 = 600;
/// The tablespace that comes and goes.
const TRANSIENT: &str = "transient";

#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct State {
    /// Tablespace by database.
    copies: BTreeMap<String, String>,
    has_transient_space: bool,
}

pub struct Databases {
    shadow: Shadow<State>,
    /// Where the transient tablespace is made.
    place: String,
    database_uris: String,
    next_name: u32,
}

impl Databases {
    pub fn create(client: &mut Client, server: &Server, place: String) -> Databases {
        sql::execute(client, "CREATE DATABASE origin");
        let mut origin = sql::connect(&server.database_uri("origin"));
        sql::execute(&mut origin, CONTENT);
        sql::execute(
            &mut origin,
            &format!(
                "CREATE TABLE t OF shape (PRIMARY KEY (k)); \
                 INSERT INTO t SELECT c.* FROM generate_series(1, {ROWS}) k, LATERAL content(k, 3) c"
            ),
        );
        for (method, column) in INDEXES {
            sql::execute(
                &mut origin,
                &format!("CREATE INDEX ON t USING {method} ({column})"),
            );
        }
        Databases {
            shadow: Shadow::new(State::default()),
            place,
            database_uris: server.database_uri(""),
            next_name: 1,
        }
    }

    /// One command, and the state behind it.
    fn command(&mut self, random: &mut StdRng) -> (String, State) {
        let mut state = self.shadow.known.clone();
        let mut spaces = SPACES.to_vec();
        if state.has_transient_space {
            spaces.push(TRANSIENT);
        }
        let space = spaces[random.random_range(0..spaces.len())];
        let kind = random.random_range(0..10);
        if kind < 2 {
            state.has_transient_space = !state.has_transient_space;
            let statement = if state.has_transient_space {
                format!("CREATE TABLESPACE {TRANSIENT} LOCATION '{}'", self.place)
            } else {
                format!("DROP TABLESPACE {TRANSIENT}")
            };
            let is_used = state.copies.values().any(|space| space == TRANSIENT);
            if state.has_transient_space || !is_used {
                return (statement, state);
            }
            state.has_transient_space = true;
        }
        let chosen = random.random_range(0..state.copies.len().max(1));
        let chosen = state.copies.keys().nth(chosen).cloned();
        let Some(name) = chosen.filter(|_| kind > 5 || state.copies.len() >= COPIES_AT_MOST) else {
            let name = format!("copy_{}", self.next_name);
            self.next_name += 1;
            let strategy = if random.random() { "wal_log" } else { "file_copy" };
            state.copies.insert(name.clone(), space.to_owned());
            let statement =
                format!("CREATE DATABASE {name} TEMPLATE origin STRATEGY {strategy} TABLESPACE {space}");
            return (statement, state);
        };
        if kind < 8 {
            state.copies.insert(name.clone(), space.to_owned());
            (format!("ALTER DATABASE {name} SET TABLESPACE {space}"), state)
        } else {
            state.copies.remove(&name);
            (format!("DROP DATABASE {name}"), state)
        }
    }

    /// A DROP DATABASE that was interrupted leaves a database that can be dropped and nothing else (as in stock
    /// PostgreSQL since 15.4).
    fn finish_interrupted_drops(client: &mut Client) {
        let rows = client
            .query(
                "SELECT datname::text FROM pg_database WHERE datconnlimit = -2",
                &[],
            )
            .expect("list invalid databases");
        for row in rows {
            let name: String = row.get(0);
            sql::execute(client, &format!("DROP DATABASE {name}"));
        }
    }
}

impl Actor for Databases {
    fn name(&self) -> String {
        "databases".to_owned()
    }

    fn work(&mut self, session: &mut Session, random: &mut StdRng) {
        let (statement, state) = self.command(random);
        let outcome = session.alone(&statement);
        self.shadow.note(outcome, state);
    }

    fn check(&mut self, client: &mut Client) {
        Databases::finish_interrupted_drops(client);
        let rows = client
            .query(
                "SELECT d.datname::text, s.spcname::text FROM pg_database d JOIN pg_tablespace s \
                 ON s.oid = d.dattablespace WHERE d.datname LIKE 'copy%'",
                &[],
            )
            .expect("list databases");
        let spaces = sql::value(
            client,
            &format!("SELECT count(*) FROM pg_tablespace WHERE spcname = '{TRANSIENT}'"),
        );
        let actual = State {
            copies: rows.iter().map(|row| (row.get(0), row.get(1))).collect(),
            has_transient_space: spaces == "1",
        };
        let difference =
            |expected: &State, actual: &State| format!("{expected:?} expected, {actual:?} found");
        self.shadow.settle("databases", actual, difference);
        for name in self.shadow.known.copies.keys() {
            let mut client = sql::connect(&format!("{}{name}", self.database_uris));
            let count = sql::value(&mut client, "SELECT count(*) FROM t WHERE v = 3");
            assert_eq!(count, ROWS.to_string(), "rows of the copy {name}");
            assert_eq!(wrong_rows(&mut client, "t"), "", "wrong rows in {name}");
        }
    }
}
