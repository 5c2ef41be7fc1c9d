//! A client that remembers what was acknowledged to it.
//!
//! It runs TPC-B on pgbench's tables. Each transaction also writes its own number to the table `ledger`. A COMMIT
//! that returned is *acknowledged*; one whose connection broke is *unknown*, never *absent*; anything that failed
//! before the COMMIT was sent is *absent*.

use std::collections::BTreeSet;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use pg_quorum_deployment::{Server, capture};
use postgres::{Client, NoTls, Statement};
use rand::Rng;

use crate::sql;

const ACCOUNTS_PER_BRANCH: i32 = 100_000;
const TELLERS_PER_BRANCH: i32 = 10;

/// One transaction: the session that ran it, and its number within that session.
pub type TransactionId = (i64, i64);

/// Everything that clients were told, over any number of loads.
#[derive(Default)]
pub struct Ledger {
    scale: i32,
    next_session: i64,
    pub acknowledged: BTreeSet<TransactionId>,
    pub unknown: BTreeSet<TransactionId>,
    /// Errors before or at a COMMIT that left the connection usable, with their messages.
    pub failed: Vec<String>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    acknowledged: AtomicU64,
    told: Mutex<Told>,
}

#[derive(Default)]
struct Told {
    acknowledged: Vec<TransactionId>,
    unknown: Vec<TransactionId>,
    failed: Vec<String>,
}

/// Clients at work.
pub struct Load {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Ledger {
    /// Fills a database: `pgbench -i -s SCALE`, and the ledger.
    ///
    /// # Panics
    /// pgbench fails.
    pub fn prepare(server: &Server, scale: i32) -> Ledger {
        let mut command = Command::new(server.binaries.postgres("pgbench"));
        command.args([
            "--initialize",
            "--quiet",
            "--scale",
            &scale.to_string(),
            &server.uri(),
        ]);
        capture(&mut command).expect("pgbench -i");
        sql::execute(
            &mut sql::connect(&server.uri()),
            "CREATE TABLE ledger (session bigint, seq bigint, delta int NOT NULL, PRIMARY KEY (session, seq))",
        );
        Ledger {
            scale,
            next_session: 1,
            ..Ledger::default()
        }
    }

    /// Starts clients. They connect again, as long as it takes, after an error.
    pub fn start(&mut self, server: &Server, clients: u32) -> Load {
        let shared = Arc::new(Shared::default());
        let threads = (0..clients)
            .map(|_| {
                let session = Session {
                    number: self.next_session,
                    uri: format!("{}?connect_timeout=5", server.uri()),
                    scale: self.scale,
                    shared: Arc::clone(&shared),
                };
                self.next_session += 1;
                std::thread::spawn(move || session.run())
            })
            .collect();
        Load { shared, threads }
    }

    /// Ends a load and notes what its clients were told. A client whose COMMIT hangs ends when the server does.
    ///
    /// # Panics
    /// A client panicked.
    pub fn finish(&mut self, load: Load) {
        load.shared.stop.store(true, Ordering::Relaxed);
        for thread in load.threads {
            thread.join().expect("a client of the load");
        }
        let mut told = load.shared.told.lock().expect("no client panicked");
        self.acknowledged.extend(told.acknowledged.drain(..));
        self.unknown.extend(told.unknown.drain(..));
        self.failed.append(&mut told.failed);
    }

    /// Checks that every acknowledged transaction is there, that nothing is there which nobody sent, and that the
    /// balances add up.
    ///
    /// # Panics
    /// Something is lost or made up.
    pub fn check(&self, client: &mut Client) {
        let rows = client
            .query("SELECT session, seq FROM ledger", &[])
            .expect("read the ledger");
        let found: BTreeSet<TransactionId> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
        assert_eq!(found.len(), rows.len(), "the ledger has duplicates");
        let lost: Vec<_> = self.acknowledged.difference(&found).take(20).collect();
        assert!(lost.is_empty(), "acknowledged and lost, the first ones: {lost:?}");
        let made_up: Vec<_> = found
            .iter()
            .filter(|id| !self.acknowledged.contains(id) && !self.unknown.contains(id))
            .take(20)
            .collect();
        assert!(made_up.is_empty(), "there, and nobody committed it: {made_up:?}");
        let mut sum = |query: &str| sql::value(client, query);
        let ledger = sum("SELECT coalesce(sum(delta), 0) FROM ledger");
        for (table, column) in [
            ("pgbench_accounts", "abalance"),
            ("pgbench_tellers", "tbalance"),
            ("pgbench_branches", "bbalance"),
            ("pgbench_history", "delta"),
        ] {
            let balance = sum(&format!("SELECT coalesce(sum({column}), 0) FROM {table}"));
            assert_eq!(balance, ledger, "sum of {table}.{column} against the ledger's");
        }
        let history = sum("SELECT count(*) FROM pgbench_history");
        assert_eq!(history, found.len().to_string(), "rows of pgbench_history");
    }
}

impl Load {
    /// How many transactions have been acknowledged so far.
    pub fn acknowledged(&self) -> u64 {
        self.shared.acknowledged.load(Ordering::Relaxed)
    }

    /// Waits until `count` more transactions have been acknowledged.
    ///
    /// # Panics
    /// Not in time.
    pub fn wait_for_progress(&self, count: u64, within: Duration) {
        let wanted = self.acknowledged() + count;
        let began = Instant::now();
        while self.acknowledged() < wanted {
            assert!(
                began.elapsed() < within,
                "the load made no progress of {count} transactions within {within:?}"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

struct Session {
    number: i64,
    uri: String,
    scale: i32,
    shared: Arc<Shared>,
}

struct Statements {
    account: Statement,
    teller: Statement,
    branch: Statement,
    history: Statement,
    ledger: Statement,
}

enum Failure {
    /// The COMMIT was not sent, or the server says that it failed.
    Absent(postgres::Error),
    /// The COMMIT was sent and nothing came back.
    Unknown,
}

impl Session {
    fn run(&self) {
        let mut seq = 0;
        while !self.is_stopped() {
            let Ok(mut client) = Client::connect(&self.uri, NoTls) else {
                std::thread::sleep(Duration::from_millis(50));
                continue;
            };
            let Ok(statements) = prepare(&mut client) else {
                continue;
            };
            while !self.is_stopped() && !client.is_closed() {
                seq += 1;
                let outcome = self.transaction(&mut client, &statements, seq);
                self.note((self.number, seq), outcome);
            }
        }
    }

    fn is_stopped(&self) -> bool {
        self.shared.stop.load(Ordering::Relaxed)
    }

    fn note(&self, id: TransactionId, outcome: Result<(), Failure>) {
        let mut told = self.shared.told.lock().expect("no client panicked");
        match outcome {
            Ok(()) => {
                told.acknowledged.push(id);
                self.shared.acknowledged.fetch_add(1, Ordering::Relaxed);
            }
            Err(Failure::Unknown) => told.unknown.push(id),
            Err(Failure::Absent(error)) => told.failed.push(sql::message(&error)),
        }
    }

    fn transaction(&self, client: &mut Client, statements: &Statements, seq: i64) -> Result<(), Failure> {
        let mut random = rand::rng();
        let account = random.random_range(1..=self.scale * ACCOUNTS_PER_BRANCH);
        let teller = random.random_range(1..=self.scale * TELLERS_PER_BRANCH);
        let branch = random.random_range(1..=self.scale);
        let delta: i32 = random.random_range(-5000..=5000);
        let mut transaction = client.transaction().map_err(Failure::Absent)?;
        let mut body = || -> Result<(), postgres::Error> {
            transaction.execute(&statements.account, &[&delta, &account])?;
            transaction.execute(&statements.teller, &[&delta, &teller])?;
            transaction.execute(&statements.branch, &[&delta, &branch])?;
            transaction.execute(&statements.history, &[&teller, &branch, &account, &delta])?;
            transaction.execute(&statements.ledger, &[&self.number, &seq, &delta])?;
            Ok(())
        };
        body().map_err(Failure::Absent)?;
        match transaction.commit() {
            Ok(()) => Ok(()),
            // The server answered: an error that it reports before the commit record is written. A connection that
            // it ends (class 57P) says nothing about the commit.
            Err(error) => match error.as_db_error() {
                Some(db) if !db.code().code().starts_with("57P") => Err(Failure::Absent(error)),
                _ => Err(Failure::Unknown),
            },
        }
    }
}

fn prepare(client: &mut Client) -> Result<Statements, postgres::Error> {
    Ok(Statements {
        account: client.prepare("UPDATE pgbench_accounts SET abalance = abalance + $1 WHERE aid = $2")?,
        teller: client.prepare("UPDATE pgbench_tellers SET tbalance = tbalance + $1 WHERE tid = $2")?,
        branch: client.prepare("UPDATE pgbench_branches SET bbalance = bbalance + $1 WHERE bid = $2")?,
        history: client.prepare(
            "INSERT INTO pgbench_history (tid, bid, aid, delta, mtime) VALUES ($1, $2, $3, $4, CURRENT_TIMESTAMP)",
        )?,
        ledger: client.prepare("INSERT INTO ledger (session, seq, delta) VALUES ($1, $2, $3)")?,
    })
}
