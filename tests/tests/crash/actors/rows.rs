//! A table with an index of every kind: transactions with subtransactions, two-phase commit, COPY.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use pg_quorum_tests::sql;
use postgres::Client;
use rand::Rng;
use rand::rngs::StdRng;

use super::{Actor, INDEXES, wrong_rows};
use crate::session::{Outcome, Session, Step};
use crate::shadow::{Shadow, map_difference};

/// `v` by `k`.
type Content = BTreeMap<i32, i32>;
/// What a transaction makes of single rows; `None`: deleted.
type Change = BTreeMap<i32, Option<i32>>;
type Keys = RangeInclusive<i32>;

const ROWS_AT_MOST: usize = 5000;
const PREPARED_AT_MOST: usize = 3;
const ALL_KEYS: Keys = i32::MIN..=i32::MAX;

/// A transaction that waits for its second phase.
#[derive(Clone, Debug)]
struct Prepared {
    gid: String,
    change: Change,
    /// Rows that it has changed.
    locked: Vec<Keys>,
    /// Rows that it has locked against deletion.
    shared: Vec<Keys>,
}

#[derive(Debug)]
enum TwoPhaseDoubt {
    Prepare(Prepared),
    Finish { prepared: Prepared, commits: bool },
}

pub struct Rows {
    table: String,
    is_two_phase: bool,
    shadow: Shadow<Content>,
    prepared: Vec<Prepared>,
    two_phase_doubt: Option<TwoPhaseDoubt>,
    next_key: i32,
    next_gid: u32,
}

impl Rows {
    pub fn create(client: &mut Client, table: &str, is_two_phase: bool) -> Rows {
        sql::execute(
            client,
            &format!(
                "CREATE TABLE {table} OF shape (PRIMARY KEY (k)); \
                 INSERT INTO {table} SELECT c.* FROM generate_series(1, 1500) k, LATERAL content(k, 0) c"
            ),
        );
        create_missing_indexes(client, table);
        Rows {
            table: table.to_owned(),
            is_two_phase,
            shadow: Shadow::new((1..=1500).map(|k| (k, 0)).collect()),
            prepared: Vec::new(),
            two_phase_doubt: None,
            next_key: 1501,
            next_gid: 1,
        }
    }

    fn write(&mut self, session: &mut Session, random: &mut StdRng) {
        let mut draft = Draft {
            table: &self.table,
            steps: Vec::new(),
            content: self.shadow.known.clone(),
            locked: Vec::new(),
            shared: Vec::new(),
        };
        for number in 0..random.random_range(1..=4) {
            let before = draft.content.clone();
            let is_nested = random.random_bool(0.4);
            if is_nested {
                draft.sql(format!("SAVEPOINT s{number}"));
            }
            self.next_key = draft.operate(random, self.next_key, &self.prepared);
            if is_nested && random.random() {
                draft.sql(format!("ROLLBACK TO s{number}"));
                draft.content = before;
            } else if is_nested && random.random() {
                draft.sql(format!("RELEASE s{number}"));
            }
        }
        let Draft {
            steps,
            content,
            locked,
            shared,
            ..
        } = draft;
        // A prepared TRUNCATE would lock out everybody, also the check.
        let may_prepare = self.is_two_phase && !locked.contains(&ALL_KEYS);
        if may_prepare && self.prepared.len() < PREPARED_AT_MOST && random.random_bool(0.3) {
            let gid = format!("{}-{}", self.table, self.next_gid);
            self.next_gid += 1;
            let prepared = Prepared {
                gid,
                change: difference(&self.shadow.known, &content),
                locked,
                shared,
            };
            match session.transaction(&steps, &format!("PREPARE TRANSACTION '{}'", prepared.gid)) {
                Outcome::Acknowledged => self.prepared.push(prepared),
                Outcome::Absent => {}
                Outcome::InDoubt => self.two_phase_doubt = Some(TwoPhaseDoubt::Prepare(prepared)),
            }
        } else if random.random_bool(0.2) {
            session.transaction(&steps, "ROLLBACK");
        } else {
            let outcome = session.transaction(&steps, "COMMIT");
            self.shadow.note(outcome, content);
        }
    }

    fn finish_one(&mut self, random: &mut StdRng, mut run: impl FnMut(&str) -> Outcome) {
        let prepared = self.prepared.remove(random.random_range(0..self.prepared.len()));
        let commits = random.random();
        let verb = if commits { "COMMIT" } else { "ROLLBACK" };
        match run(&format!("{verb} PREPARED '{}'", prepared.gid)) {
            Outcome::Acknowledged => self.finished(&prepared, commits),
            Outcome::Absent => self.prepared.push(prepared),
            Outcome::InDoubt => self.two_phase_doubt = Some(TwoPhaseDoubt::Finish { prepared, commits }),
        }
    }

    fn finished(&mut self, prepared: &Prepared, commits: bool) {
        if commits {
            self.shadow.change(|content| apply(content, &prepared.change));
        }
    }

    /// What it reads while it works is what it wrote.
    fn read(&self, session: &mut Session, random: &mut StdRng) {
        let settings = ["enable_seqscan", "enable_indexscan", "enable_bitmapscan"];
        let off = settings[random.random_range(0..settings.len())];
        session.run(&format!("SET {off} = off"));
        let first = random.random_range(0..self.next_key);
        let query = format!(
            "SELECT count(*), coalesce(sum(t.v), 0), count(*) FILTER (WHERE t::text <> c::text) \
             FROM {} t, LATERAL content(t.k, t.v) c WHERE t.k >= $1",
            self.table
        );
        if let (Some(row), _) = session.value(&query, &[&first]) {
            let found: (i64, i64, i64) = (row.get(0), row.get(1), row.get(2));
            let rest = self.shadow.known.range(first..);
            let expected = rest.fold((0, 0, 0), |(count, sum, wrong), (_, v)| {
                (count + 1, sum + i64::from(*v), wrong)
            });
            if found != expected {
                session.complain(format!(
                    "{} from {first} on with {off} off: {found:?} instead of {expected:?}",
                    self.table
                ));
            }
        }
        session.run(&format!("RESET {off}"));
    }

    fn settle_two_phase(&mut self, client: &mut Client) {
        let rows = client
            .query(
                "SELECT gid FROM pg_prepared_xacts WHERE gid LIKE $1 || '-%' ORDER BY gid",
                &[&self.table],
            )
            .expect("read pg_prepared_xacts");
        let found: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        match self.two_phase_doubt.take() {
            Some(TwoPhaseDoubt::Prepare(prepared)) if found.contains(&prepared.gid) => {
                self.prepared.push(prepared);
            }
            Some(TwoPhaseDoubt::Finish { prepared, commits }) => {
                if found.contains(&prepared.gid) {
                    self.prepared.push(prepared);
                } else {
                    self.finished(&prepared, commits);
                }
            }
            Some(TwoPhaseDoubt::Prepare(_)) | None => {}
        }
        let mut expected: Vec<String> = self.prepared.iter().map(|p| p.gid.clone()).collect();
        expected.sort();
        let mut found = found;
        found.sort();
        assert_eq!(found, expected, "prepared transactions of {}", self.table);
    }

    fn check_content(&mut self, client: &mut Client) {
        let rows = client
            .query(&format!("SELECT k, v FROM {}", self.table), &[])
            .unwrap_or_else(|error| panic!("{}: {}", self.table, sql::message(&error)));
        let actual: Content = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
        assert_eq!(actual.len(), rows.len(), "{} has a key twice", self.table);
        self.shadow.settle(&self.table, actual, map_difference);
        assert_eq!(
            wrong_rows(client, &self.table),
            "",
            "wrong rows in {}",
            self.table
        );
    }
}

impl Actor for Rows {
    fn name(&self) -> String {
        self.table.clone()
    }

    fn work(&mut self, session: &mut Session, random: &mut StdRng) {
        if random.random_bool(0.1) {
            self.read(session, random);
        } else if !self.prepared.is_empty() && random.random_bool(0.3) {
            self.finish_one(random, |statement| session.alone(statement));
        } else {
            self.write(session, random);
        }
    }

    fn check(&mut self, client: &mut Client) {
        self.settle_two_phase(client);
        self.check_content(client);
    }

    fn tidy(&mut self, client: &mut Client, random: &mut StdRng) {
        while !self.prepared.is_empty() {
            self.finish_one(random, |statement| {
                sql::execute(client, statement);
                Outcome::Acknowledged
            });
        }
        self.check_content(client);
        drop_left_over_indexes(client, &self.table);
        create_missing_indexes(client, &self.table);
    }
}

/// A transaction in the making.
struct Draft<'a> {
    table: &'a str,
    steps: Vec<Step>,
    content: Content,
    locked: Vec<Keys>,
    shared: Vec<Keys>,
}

impl Draft<'_> {
    fn sql(&mut self, statement: String) {
        self.steps.push(Step::Sql(statement));
    }

    /// Adds one operation; returns the next unused key.
    fn operate(&mut self, random: &mut StdRng, next_key: i32, prepared: &[Prepared]) -> i32 {
        let table = self.table;
        let is_full = self.content.len() > ROWS_AT_MOST;
        let kind = random.random_range(0..100);
        if kind < 45 && !is_full {
            return self.insert(random, next_key);
        }
        let Some(keys) = self.some_keys(random, next_key, if is_full { 2000 } else { 150 }) else {
            return self.insert(random, next_key);
        };
        let condition = format!("k BETWEEN {} AND {}", keys.start(), keys.end());
        let is_locked = prepared
            .iter()
            .flat_map(|p| &p.locked)
            .any(|other| overlap(other, &keys));
        let is_shared = prepared
            .iter()
            .flat_map(|p| &p.shared)
            .any(|other| overlap(other, &keys));
        if kind < 75 && !is_full && !is_locked {
            self.sql(format!(
                "UPDATE {table} t SET (v, h, tags, span, word, day, pad) = \
                 (SELECT v, h, tags, span, word, day, pad FROM content(t.k, t.v + 1)) WHERE {condition}"
            ));
            self.content.range_mut(keys.clone()).for_each(|(_, v)| *v += 1);
            self.locked.push(keys);
        } else if kind < 80 && !is_locked {
            self.sql(format!(
                "SELECT count(*) FROM (SELECT FROM {table} WHERE {condition} FOR KEY SHARE) s"
            ));
            self.shared.push(keys);
        } else if kind >= 98 && prepared.is_empty() && !self.locked.contains(&ALL_KEYS) {
            // Not twice in a transaction: a second truncation is in place, and stock PostgreSQL (15.18) then inserts
            // through a stale cache of SP-GiST's last used pages ("could not read block").
            self.sql(format!("TRUNCATE {table}"));
            self.content.clear();
            self.locked.push(ALL_KEYS);
        } else if !is_locked && !is_shared {
            self.sql(format!("DELETE FROM {table} WHERE {condition}"));
            self.content.retain(|k, _| !keys.contains(k));
            self.locked.push(keys);
        }
        next_key
    }

    fn insert(&mut self, random: &mut StdRng, next_key: i32) -> i32 {
        let end = next_key + random.random_range(1..=120);
        let v = random.random_range(0..100);
        let query = format!(
            "SELECT c.* FROM generate_series({next_key}, {}) k, LATERAL content(k, {v}) c",
            end - 1
        );
        if random.random_bool(0.3) {
            self.steps.push(Step::Copy {
                table: self.table.to_owned(),
                query,
            });
        } else {
            self.sql(format!("INSERT INTO {} {query}", self.table));
        }
        self.content.extend((next_key..end).map(|k| (k, v)));
        end
    }

    fn some_keys(&self, random: &mut StdRng, next_key: i32, length: i32) -> Option<Keys> {
        // Around a row that exists.
        let (first, _) = self.content.range(random.random_range(0..next_key)..).next()?;
        Some(*first..=first + random.random_range(0..length))
    }
}

fn overlap(one: &Keys, other: &Keys) -> bool {
    one.start() <= other.end() && other.start() <= one.end()
}

fn difference(before: &Content, after: &Content) -> Change {
    let deleted = before
        .keys()
        .filter(|k| !after.contains_key(k))
        .map(|k| (*k, None));
    let changed = after
        .iter()
        .filter(|(k, v)| before.get(k) != Some(v))
        .map(|(k, v)| (*k, Some(*v)));
    deleted.chain(changed).collect()
}

fn apply(content: &mut Content, change: &Change) {
    for (k, v) in change {
        match v {
            Some(v) => content.insert(*k, *v),
            None => content.remove(k),
        };
    }
}

/// A concurrent build that was interrupted leaves an index that nobody may use; REINDEX TABLE may have made it valid.
fn drop_left_over_indexes(client: &mut Client, table: &str) {
    let rows = client
        .query(
            "SELECT indexrelid::regclass::text FROM pg_index WHERE indrelid = $1::text::regclass \
                AND (NOT indisvalid OR indexrelid::regclass::text ~ '_cc(new|old)')",
            &[&table],
        )
        .expect("list left-over indexes");
    for row in rows {
        let index: String = row.get(0);
        sql::execute(client, &format!("DROP INDEX {index}"));
    }
}

fn create_missing_indexes(client: &mut Client, table: &str) {
    for (method, column) in INDEXES {
        sql::execute(
            client,
            &format!("CREATE INDEX IF NOT EXISTS {table}_{column} ON {table} USING {method} ({column})"),
        );
    }
}
