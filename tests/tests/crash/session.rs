//! One connection of the load, and what its user is told.

use std::io::{Read, Write};
use std::sync::{Arc, Mutex};

use pg_quorum_tests::sql;
use postgres::types::ToSql;
use postgres::{Client, NoTls};

/// What sessions that work at the same time do to each other: locks, deadlocks, and catalog rows changed at once.
const TOLERATED: [&str; 4] = ["40P01", "55P03", "55006", "57014"];
const TOLERATED_MESSAGES: [&str; 4] = [
    "tuple concurrently updated",
    "tuple concurrently deleted",
    // A move of a database that a crash interrupts leaves files that nothing refers to with stock PostgreSQL, too
    // (`movedb` in dbcommands.c, 15.18); its tablespace cannot be dropped, nor the database moved there. Not told
    // apart from files that an attach has brought back.
    "tablespace \"transient\" is not empty",
    "some relations of database",
];
/// The server ends the connection.
const CONNECTION_ENDS: [&str; 3] = ["57P01", "57P02", "57P03"];

/// What came back of a statement.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer {
    Done,
    /// An error, and the connection lives.
    Refused,
    /// Nothing.
    Lost,
}

/// What its user knows of a change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    Acknowledged,
    Absent,
    /// It was asked for and nothing came back: it has happened as a whole, or not at all.
    InDoubt,
}

/// A part of a transaction.
#[derive(Clone, Debug)]
pub enum Step {
    Sql(String),
    /// `COPY table FROM STDIN` with the rows of a query.
    Copy {
        table: String,
        query: String,
    },
}

/// Errors that no load explains.
pub type Complaints = Arc<Mutex<Vec<String>>>;

pub struct Session {
    client: Client,
    complaints: Complaints,
    is_lost: bool,
}

impl Session {
    /// # Panics
    /// The server does not accept.
    pub fn open(uri: &str, complaints: &Complaints) -> Session {
        let mut client = sql::connect(uri);
        sql::execute(&mut client, "SET lock_timeout = '2s'");
        Session {
            client,
            complaints: Arc::clone(complaints),
            is_lost: false,
        }
    }

    /// Whether the connection has ended.
    pub fn is_lost(&self) -> bool {
        self.is_lost
    }

    pub fn complain(&self, text: String) {
        self.complaints.lock().expect("no session panicked").push(text);
    }

    pub fn run(&mut self, statement: &str) -> Answer {
        let result = self.client.batch_execute(statement);
        self.judge(statement, result.map(drop)).1
    }

    /// The first column of the first row; `None` if there was an error.
    pub fn value(
        &mut self,
        query: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> (Option<postgres::Row>, Answer) {
        let result = self.client.query_one(query, parameters);
        self.judge(query, result)
    }

    /// Runs a statement that is no part of a transaction.
    pub fn alone(&mut self, statement: &str) -> Outcome {
        match self.run(statement) {
            Answer::Done => Outcome::Acknowledged,
            Answer::Refused => Outcome::Absent,
            Answer::Lost => Outcome::InDoubt,
        }
    }

    /// Runs a transaction that ends with `end`.
    pub fn transaction(&mut self, steps: &[Step], end: &str) -> Outcome {
        let begin = Step::Sql("BEGIN".to_owned());
        for step in std::iter::once(&begin).chain(steps) {
            match self.step(step) {
                Answer::Done => {}
                Answer::Refused => {
                    self.run("ROLLBACK");
                    return Outcome::Absent;
                }
                Answer::Lost => return Outcome::Absent,
            }
        }
        self.alone(end)
    }

    fn step(&mut self, step: &Step) -> Answer {
        match step {
            Step::Sql(statement) => self.run(statement),
            Step::Copy { table, query } => {
                let result = copy(&mut self.client, table, query);
                self.judge(&format!("COPY {table}"), result).1
            }
        }
    }

    fn judge<T>(&mut self, statement: &str, result: Result<T, postgres::Error>) -> (Option<T>, Answer) {
        let error = match result {
            Ok(value) => return (Some(value), Answer::Done),
            Err(error) => error,
        };
        let code = error.code().map(|code| code.code().to_owned());
        let Some(code) = code.filter(|code| !CONNECTION_ENDS.contains(&code.as_str())) else {
            self.is_lost = true;
            return (None, Answer::Lost);
        };
        let message = sql::message(&error);
        let is_tolerated = TOLERATED.contains(&code.as_str())
            || TOLERATED_MESSAGES.iter().any(|known| message.starts_with(known));
        if !is_tolerated {
            self.complain(format!("{code}: {message}\n  after {statement}"));
        }
        (None, Answer::Refused)
    }
}

fn copy(client: &mut Client, table: &str, query: &str) -> Result<(), postgres::Error> {
    let mut rows = Vec::new();
    let mut reader = client.copy_out(&format!("COPY ({query}) TO STDOUT"))?;
    if reader.read_to_end(&mut rows).is_err() {
        drop(reader);
        // The error proper comes with the next statement.
        return client.batch_execute("");
    }
    drop(reader);
    let mut writer = client.copy_in(&format!("COPY {table} FROM STDIN"))?;
    if writer.write_all(&rows).is_err() {
        drop(writer);
        return client.batch_execute("");
    }
    writer.finish().map(drop)
}

/// Whether the server accepts connections.
pub fn accepts(uri: &str) -> bool {
    Client::connect(&format!("{uri}?connect_timeout=5"), NoTls).is_ok()
}
