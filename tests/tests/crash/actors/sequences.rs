//! Sequences: a value that was handed out is never handed out again.

use std::collections::BTreeSet;

use pg_quorum_tests::sql;
use postgres::Client;
use rand::Rng;
use rand::rngs::StdRng;

use super::Actor;
use crate::session::{Answer, Session};

/// A crash may skip what was logged ahead, and what a session cached.
const GAP_AT_MOST: i64 = 100;
const SEQUENCES: [&str; 2] = ["plain", "cached"];

pub struct Sequences {
    /// The last value of each sequence that came back.
    last: [i64; 2],
    /// Numbers of rows that were committed.
    tickets: BTreeSet<i64>,
    ticket_in_doubt: Option<i64>,
}

impl Sequences {
    pub fn create(client: &mut Client) -> Sequences {
        sql::execute(
            client,
            "CREATE SEQUENCE plain; CREATE SEQUENCE cached CACHE 7; \
             CREATE TABLE tickets (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY)",
        );
        Sequences {
            last: [0; 2],
            tickets: BTreeSet::new(),
            ticket_in_doubt: None,
        }
    }

    fn draw_ticket(&mut self, session: &mut Session, random: &mut StdRng) {
        if session.run("BEGIN") != Answer::Done {
            return;
        }
        let (row, answer) = session.value("INSERT INTO tickets DEFAULT VALUES RETURNING id", &[]);
        let Some(row) = row else {
            if answer == Answer::Refused {
                session.run("ROLLBACK");
            }
            return;
        };
        let id: i64 = row.get(0);
        if random.random_bool(0.3) {
            session.run("ROLLBACK");
            return;
        }
        match session.run("COMMIT") {
            Answer::Done => {
                if !self.tickets.insert(id) {
                    session.complain(format!("ticket {id} was drawn twice"));
                }
            }
            Answer::Refused => {}
            Answer::Lost => self.ticket_in_doubt = Some(id),
        }
    }
}

impl Actor for Sequences {
    fn name(&self) -> String {
        "sequences".to_owned()
    }

    fn work(&mut self, session: &mut Session, random: &mut StdRng) {
        let number = random.random_range(0..3);
        let Some(sequence) = SEQUENCES.get(number) else {
            return self.draw_ticket(session, random);
        };
        if let (Some(row), _) = session.value(&format!("SELECT nextval('{sequence}')"), &[]) {
            let value: i64 = row.get(0);
            if value <= self.last[number] {
                session.complain(format!("{sequence}: {value} after {}", self.last[number]));
            }
            self.last[number] = value;
        }
    }

    fn check(&mut self, client: &mut Client) {
        let mut next = |sequence: &str| -> i64 {
            let value = sql::value(client, &format!("SELECT nextval('{sequence}')"));
            value.parse().expect("a number")
        };
        for (sequence, last) in SEQUENCES.iter().zip(&mut self.last) {
            let value = next(sequence);
            assert!(
                (*last + 1..=*last + GAP_AT_MOST).contains(&value),
                "{sequence}: {value} after {last}"
            );
            *last = value;
        }
        let next_ticket = next("tickets_id_seq");
        let rows = client
            .query("SELECT id FROM tickets", &[])
            .expect("read the tickets");
        let found: BTreeSet<i64> = rows.iter().map(|row| row.get(0)).collect();
        let in_doubt = self.ticket_in_doubt.take();
        if let Some(id) = in_doubt.filter(|id| found.contains(id)) {
            self.tickets.insert(id);
        }
        assert_eq!(found, self.tickets, "tickets");
        let highest = found.last().copied().unwrap_or(0);
        assert!(next_ticket > highest, "ticket {next_ticket} after {highest}");
    }
}
