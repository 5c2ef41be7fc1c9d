//! Crash loops: a mixed load of several sessions is ended at a random moment by one of many disasters, the server
//! comes back, and everything that a session was told is so.
//!
//! `PG_QUORUM_TEST_SEED` repeats a run's decisions (not the operating system's).

mod actors;
mod disaster;
mod nodes;
mod session;
mod shadow;

use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use pg_quorum_deployment::Settings;
use pg_quorum_tests::checks::check_everything;
use pg_quorum_tests::cluster::{Cluster, Plan};
use pg_quorum_tests::ledger::Ledger;
use pg_quorum_tests::{is_full, sql, wait_for};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};

use actors::{Actor, CONTENT, Databases, LargeObjects, Maintenance, Rows, Sequences, Tables};
use disaster::Disaster;
use session::{Complaints, Session};

/// Tablespaces that are always there.
pub const SPACES: [&str; 3] = ["pg_default", "space_a", "space_b"];
/// Rounds on one cluster: nodes keep the log of all of them.
const ROUNDS_OF_A_CLUSTER: u32 = 10;
const TPCB_CLIENTS: u32 = 2;
/// How long a session may go without noticing that its server has ended.
const END_TIMEOUT: Duration = Duration::from_secs(60);

fn rounds() -> u32 {
    if is_full() { 100 } else { 3 }
}

fn seed() -> u64 {
    let given = std::env::var("PG_QUORUM_TEST_SEED").ok();
    given.map_or_else(rand::random, |text| {
        text.parse().expect("PG_QUORUM_TEST_SEED is a number")
    })
}

/// Where the directories of tablespaces are.
pub fn tablespaces(cluster: &Cluster) -> PathBuf {
    cluster.layout.root.join("spaces")
}

#[test]
fn what_sessions_were_told_is_so_after_every_disaster() {
    let seed = seed();
    println!("PG_QUORUM_TEST_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut disasters = Vec::new();
    let mut done = 0;
    while done < rounds() {
        let mut campaign = Campaign::begin(&mut random);
        for _ in 0..ROUNDS_OF_A_CLUSTER.min(rounds() - done) {
            if disasters.is_empty() {
                disasters = Disaster::ALL.to_vec();
                disasters.shuffle(&mut random);
            }
            let disaster = disasters.pop().expect("filled above");
            done += 1;
            println!("round {done} of {}: {disaster:?}", rounds());
            campaign.round(disaster, &mut random);
        }
    }
}

/// A cluster, and the users of its database.
struct Campaign {
    cluster: Cluster,
    ledger: Ledger,
    actors: Vec<Box<dyn Actor>>,
    log_checked: usize,
}

impl Campaign {
    fn begin(random: &mut StdRng) -> Campaign {
        let has_checksums = random.random();
        println!("a new cluster, data checksums: {has_checksums}");
        let settings = Settings::default()
            .with("shared_buffers", "4MB")
            .with("pg_quorum.cache_size", "8MB")
            .with("max_prepared_transactions", 20)
            .with("autovacuum_naptime", "1s")
            .with("checkpoint_timeout", "30s")
            .with("deadlock_timeout", "200ms");
        let plan = Plan {
            settings,
            initdb: if has_checksums {
                vec!["--data-checksums"]
            } else {
                Vec::new()
            },
            ..Plan::default()
        };
        let cluster = Cluster::start_with("crash", plan);
        let ledger = Ledger::prepare(&cluster.server, 1);
        let actors = create_actors(&cluster);
        Campaign {
            cluster,
            ledger,
            actors,
            log_checked: 0,
        }
    }

    fn round(&mut self, disaster: Disaster, random: &mut StdRng) {
        let complaints = Complaints::default();
        let dying = nodes::choose(random);
        let nodes_return_before_the_server = random.random();
        let load = self.ledger.start(&self.cluster.server, TPCB_CLIENTS);
        let sessions = self.start_sessions(&complaints, random);
        let pause =
            |random: &mut StdRng| std::thread::sleep(Duration::from_millis(random.random_range(50..3000)));
        pause(random);
        nodes::kill(&mut self.cluster, &dying);
        pause(random);

        disaster.strike(&self.cluster, random);
        let began = Instant::now();
        self.end_sessions(sessions);
        if nodes_return_before_the_server {
            nodes::start(&mut self.cluster, &dying);
        }
        disaster.recover(&mut self.cluster);
        self.ledger.finish(load);
        println!("  nodes {dying:?} killed; back after {:.1?}", began.elapsed());
        let complaints = Arc::into_inner(complaints).expect("all sessions have ended");
        let complaints = complaints.into_inner().expect("no session panicked");
        assert!(complaints.is_empty(), "unexpected:\n{}", complaints.join("\n"));

        self.check_actors();
        if random.random_bool(0.25) {
            // What attach has made is worth as much as what it was made of.
            Disaster::Machine.strike(&self.cluster, random);
            Disaster::Machine.recover(&mut self.cluster);
            self.check_actors();
        }
        let mut client = self.cluster.connect();
        for actor in &mut self.actors {
            actor.tidy(&mut client, random);
        }
        self.ledger.check(&mut client);
        drop(client);
        if !nodes_return_before_the_server {
            nodes::start(&mut self.cluster, &dying);
        }
        check_everything(&self.cluster.server);
        nodes::check(&self.cluster);
        self.check_server_log();
        println!("  checked after {:.1?}", began.elapsed());
    }

    fn start_sessions(&mut self, complaints: &Complaints, random: &mut StdRng) -> Vec<RunningSession> {
        let uri = self.cluster.server.uri();
        let actors = std::mem::take(&mut self.actors);
        actors
            .into_iter()
            .map(|actor| RunningSession::start(actor, &uri, complaints, random.random()))
            .collect()
    }

    /// Every session notices that its connection has ended.
    fn end_sessions(&mut self, sessions: Vec<RunningSession>) {
        wait_for("all sessions notice the disaster", END_TIMEOUT, || {
            sessions.iter().all(|session| session.thread.is_finished())
        });
        self.actors = sessions.into_iter().map(RunningSession::join).collect();
    }

    fn check_actors(&mut self) {
        let mut client = self.cluster.connect();
        // Nobody else is there: a lock that is not free is a finding.
        sql::execute(&mut client, "SET lock_timeout = '60s'");
        for actor in &mut self.actors {
            actor.check(&mut client);
        }
    }

    /// Only what was killed has ended, and nothing in the server was surprised.
    fn check_server_log(&mut self) {
        const ALARMS: [&str; 6] = [
            "PANIC:",
            "TRAP:",
            "redo starts at",
            "page verification failed",
            "invalid page in block",
            "was terminated by signal 11",
        ];
        let log = self.cluster.server_log();
        let new = log.get(self.log_checked..).unwrap_or(&log);
        let alarms: Vec<&str> = new
            .lines()
            .filter(|line| ALARMS.iter().any(|alarm| line.contains(alarm)))
            .collect();
        assert!(alarms.is_empty(), "the server's log: {alarms:#?}");
        self.log_checked = log.len();
    }
}

fn create_actors(cluster: &Cluster) -> Vec<Box<dyn Actor>> {
    let mut client = cluster.connect();
    let spaces = tablespaces(cluster);
    let place = |name: &str| {
        let path = spaces.join(name);
        cluster
            .server
            .account
            .create_dir(&path)
            .expect("make a tablespace's directory");
        path.display().to_string()
    };
    for space in &SPACES[1..] {
        sql::execute(
            &mut client,
            &format!("CREATE TABLESPACE {space} LOCATION '{}'", place(space)),
        );
    }
    sql::execute(&mut client, CONTENT);
    let tables = ["rows_1", "rows_2", "rows_3"];
    let mut actors: Vec<Box<dyn Actor>> = Vec::new();
    for table in tables {
        actors.push(Box::new(Rows::create(&mut client, table, table == tables[0])));
    }
    actors.push(Box::new(Maintenance {
        tables: tables.map(str::to_owned).to_vec(),
    }));
    actors.push(Box::new(Tables::create(&mut client)));
    actors.push(Box::new(Sequences::create(&mut client)));
    actors.push(Box::new(LargeObjects::new()));
    actors.push(Box::new(Databases::create(
        &mut client,
        &cluster.server,
        place("transient"),
    )));
    actors
}

/// An actor at work, until its connection ends.
struct RunningSession {
    thread: JoinHandle<Box<dyn Actor>>,
}

impl RunningSession {
    fn start(mut actor: Box<dyn Actor>, uri: &str, complaints: &Complaints, seed: u64) -> RunningSession {
        let uri = format!("{uri}?application_name={}", actor.name().replace(' ', "-"));
        let complaints = Arc::clone(complaints);
        let thread = std::thread::spawn(move || {
            let mut session = Session::open(&uri, &complaints);
            let mut random = StdRng::seed_from_u64(seed);
            while !session.is_lost() {
                actor.work(&mut session, &mut random);
            }
            actor
        });
        RunningSession { thread }
    }

    fn join(self) -> Box<dyn Actor> {
        self.thread.join().expect("a session of the load")
    }
}
