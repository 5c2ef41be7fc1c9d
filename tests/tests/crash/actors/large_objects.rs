//! Large objects, byte for byte.

use std::collections::BTreeMap;

use pg_quorum_tests::sql;
use postgres::Client;
use rand::rngs::StdRng;
use rand::{Rng, RngCore};

use super::Actor;
use crate::session::{Answer, Outcome, Session};
use crate::shadow::Shadow;

type Objects = BTreeMap<u32, Vec<u8>>;

const OBJECTS_AT_MOST: usize = 12;
const BYTES_AT_MOST: usize = 40_000;

pub struct LargeObjects {
    shadow: Shadow<Objects>,
}

impl LargeObjects {
    pub fn new() -> LargeObjects {
        LargeObjects {
            shadow: Shadow::new(Objects::new()),
        }
    }
}

impl Actor for LargeObjects {
    fn name(&self) -> String {
        "large objects".to_owned()
    }

    fn work(&mut self, session: &mut Session, random: &mut StdRng) {
        if session.run("BEGIN") != Answer::Done {
            return;
        }
        let mut objects = self.shadow.known.clone();
        for _ in 0..random.random_range(1..=3) {
            match change_one(session, random, &mut objects) {
                Answer::Done => {}
                Answer::Refused => {
                    session.run("ROLLBACK");
                    return;
                }
                Answer::Lost => return,
            }
        }
        if random.random_bool(0.2) {
            session.run("ROLLBACK");
        } else {
            let outcome: Outcome = session.alone("COMMIT");
            self.shadow.note(outcome, objects);
        }
    }

    fn check(&mut self, client: &mut Client) {
        let rows = client
            .query("SELECT oid, lo_get(oid) FROM pg_largeobject_metadata", &[])
            .unwrap_or_else(|error| panic!("large objects: {}", sql::message(&error)));
        let actual: Objects = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
        self.shadow.settle("large objects", actual, difference);
    }
}

fn change_one(session: &mut Session, random: &mut StdRng, objects: &mut Objects) -> Answer {
    let bytes = |random: &mut StdRng| {
        let mut bytes = vec![0; random.random_range(1..BYTES_AT_MOST / 2)];
        random.fill_bytes(&mut bytes);
        bytes
    };
    let kind = random.random_range(0..10);
    let chosen = random.random_range(0..objects.len().max(1));
    let chosen = objects.keys().nth(chosen).copied();
    let Some(oid) = chosen.filter(|_| kind > 3 || objects.len() >= OBJECTS_AT_MOST) else {
        let content = bytes(random);
        let (row, answer) = session.value("SELECT lo_from_bytea(0, $1)", &[&content]);
        if let Some(row) = row {
            objects.insert(row.get(0), content);
        }
        return answer;
    };
    let content = objects.get_mut(&oid).expect("one of them");
    if kind < 7 {
        let part = bytes(random);
        let offset = random.random_range(0..BYTES_AT_MOST / 2);
        content.resize(content.len().max(offset + part.len()), 0);
        content[offset..offset + part.len()].copy_from_slice(&part);
        let offset = i64::try_from(offset).expect("a small number");
        session
            .value("SELECT lo_put($1, $2, $3)", &[&oid, &offset, &part])
            .1
    } else if kind < 8 {
        // INV_WRITE is 0x20000.
        let length = random.random_range(0..BYTES_AT_MOST / 2);
        content.resize(length, 0);
        let length = i64::try_from(length).expect("a small number");
        session
            .value("SELECT lo_truncate64(lo_open($1, 131072), $2)", &[&oid, &length])
            .1
    } else {
        objects.remove(&oid);
        session.value("SELECT lo_unlink($1)", &[&oid]).1
    }
}

fn difference(expected: &Objects, actual: &Objects) -> String {
    let sizes = |objects: &Objects| -> BTreeMap<u32, usize> {
        objects.iter().map(|(oid, bytes)| (*oid, bytes.len())).collect()
    };
    let differing: Vec<_> = expected
        .iter()
        .filter(|(oid, bytes)| actual.get(oid).is_some_and(|found| found != *bytes))
        .map(|(oid, _)| oid)
        .collect();
    format!(
        "sizes {:?} expected, {:?} found; other bytes in {differing:?}",
        sizes(expected),
        sizes(actual)
    )
}
