//! What changes files and pages and no row: vacuum, rebuilt indexes, rewritten tables, moves between tablespaces.

use postgres::Client;
use rand::Rng;
use rand::rngs::StdRng;

use super::{Actor, INDEXES};
use crate::SPACES;
use crate::session::Session;

pub struct Maintenance {
    pub tables: Vec<String>,
}

impl Maintenance {
    fn statements(&self, random: &mut StdRng) -> Vec<String> {
        let table = &self.tables[random.random_range(0..self.tables.len())];
        let (method, column) = INDEXES[random.random_range(0..INDEXES.len())];
        let index = format!("{table}_{column}");
        let space = SPACES[random.random_range(0..SPACES.len())];
        let create = |how: &str| format!("CREATE INDEX {how} {index} ON {table} USING {method} ({column})");
        let text = |statement: &str| vec![statement.to_owned()];
        match random.random_range(0..18) {
            0 => vec![format!("VACUUM (FREEZE, ANALYZE) {table}")],
            1 | 2 => vec![format!("VACUUM {table}")],
            3 => vec![format!("VACUUM FULL {table}")],
            4 => vec![format!("CLUSTER {table} USING {table}_pkey")],
            5 => vec![format!("REINDEX TABLE {table}")],
            6 => vec![format!("REINDEX TABLE CONCURRENTLY {table}")],
            7 => vec![format!("REINDEX INDEX {index}")],
            8 => vec![format!("REINDEX INDEX CONCURRENTLY {index}")],
            9 | 10 => vec![
                format!("DROP INDEX IF EXISTS {index}"),
                create("CONCURRENTLY IF NOT EXISTS"),
            ],
            11 => vec![
                format!("DROP INDEX CONCURRENTLY IF EXISTS {index}"),
                create("IF NOT EXISTS"),
            ],
            12 => vec![format!("ALTER TABLE {table} SET TABLESPACE {space}")],
            13 => vec![format!("ALTER INDEX IF EXISTS {index} SET TABLESPACE {space}")],
            14 => text("CHECKPOINT"),
            15 => text("SELECT pg_switch_wal()"),
            16 => text("VACUUM FULL pg_class"),
            _ => text("REINDEX TABLE pg_attribute"),
        }
    }
}

impl Actor for Maintenance {
    fn name(&self) -> String {
        "maintenance".to_owned()
    }

    fn work(&mut self, session: &mut Session, random: &mut StdRng) {
        for statement in self.statements(random) {
            session.run(&statement);
        }
    }

    fn check(&mut self, _client: &mut Client) {}
}
