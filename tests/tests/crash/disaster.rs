//! The ways in which a server ends without a word.

use std::time::Duration;

use pg_quorum_deployment::{ShutdownMode, Signal, descendants, kill, wait_until_reaped};
use pg_quorum_tests::cluster::Cluster;
use pg_quorum_tests::wait_for;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;

use crate::session::accepts;

const RETURN_TIMEOUT: Duration = Duration::from_secs(120);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Disaster {
    /// `kill -9` of a session's process: the server ends all others and attaches anew.
    Backend,
    Checkpointer,
    LinkWorker,
    /// `kill -9` of the postmaster: everybody else notices and ends.
    Postmaster,
    ImmediateStop,
    /// Everything is killed at once, data directory and tablespaces are lost, and a new directory takes the volume.
    Machine,
}

impl Disaster {
    pub const ALL: [Disaster; 6] = [
        Disaster::Backend,
        Disaster::Checkpointer,
        Disaster::LinkWorker,
        Disaster::Postmaster,
        Disaster::ImmediateStop,
        Disaster::Machine,
    ];

    /// Lets it happen. Every connection ends.
    ///
    /// # Panics
    /// There is nothing to kill, or it survives.
    pub fn strike(self, cluster: &Cluster, random: &mut StdRng) {
        let postmaster = cluster.server.postmaster().expect("a server that runs");
        match self {
            Disaster::Backend => kill_one(postmaster, "127.0.0.1(", random),
            Disaster::Checkpointer => kill_one(postmaster, "checkpointer", random),
            Disaster::LinkWorker => kill_one(postmaster, "pg_quorum link", random),
            Disaster::Postmaster => {
                let children = descendants(postmaster);
                kill(postmaster, Signal::KILL);
                for child in children.into_iter().chain([postmaster]) {
                    assert!(
                        wait_until_reaped(child, Duration::from_secs(60)),
                        "process {child} ({}) outlives its postmaster",
                        title(child)
                    );
                }
            }
            Disaster::ImmediateStop => cluster
                .server
                .stop(ShutdownMode::Immediate)
                .expect("pg_ctl stop -m immediate"),
            Disaster::Machine => cluster.burn_compute(),
        }
    }

    /// Brings the server back.
    ///
    /// # Panics
    /// It does not come back.
    pub fn recover(self, cluster: &mut Cluster) {
        match self {
            Disaster::Backend | Disaster::Checkpointer | Disaster::LinkWorker => {}
            Disaster::Postmaster | Disaster::ImmediateStop => cluster.start_server(),
            Disaster::Machine => {
                empty_tablespaces(cluster);
                cluster.create_compute();
                cluster.start_server();
            }
        }
        let uri = cluster.server.uri();
        wait_for("the server accepts connections again", RETURN_TIMEOUT, || {
            accepts(&uri)
        });
    }
}

/// Kills one of the server's processes whose title contains the text.
fn kill_one(postmaster: u32, titled: &str, random: &mut StdRng) {
    let mut candidates = Vec::new();
    wait_for("there is a process to kill", Duration::from_secs(30), || {
        candidates = descendants(postmaster);
        candidates.retain(|pid| title(*pid).contains(titled));
        !candidates.is_empty()
    });
    let victim = candidates.choose(random).expect("a candidate");
    kill(*victim, Signal::KILL);
}

fn title(pid: u32) -> String {
    let bytes = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Their disks burn, too.
fn empty_tablespaces(cluster: &Cluster) {
    let spaces = crate::tablespaces(cluster);
    for space in std::fs::read_dir(spaces).expect("read the tablespaces").flatten() {
        std::fs::remove_dir_all(space.path()).expect("remove a tablespace's directory");
        let account = &cluster.server.account;
        account
            .create_dir(&space.path())
            .expect("make a tablespace's directory");
    }
}
