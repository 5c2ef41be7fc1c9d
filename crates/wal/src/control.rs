//! `pg_control`: read with all checks, and written as a clean shutdown would leave it.
//!
//! The bytes that are not understood here stay as they are.

use pg_quorum_types::{BLOCK_SIZE, ClusterFacts, Lsn, is_wal_segment_size};

use crate::checkpoint::CheckpointState;
use crate::reader::Reader;
use crate::v15::checkpoint::{CHECKPOINT_BYTES, Checkpoint};
use crate::v15::control as at;
use crate::v15::settings::Parameters;
use crate::v15::{WAL_PAGE_BYTES, control::FILE_BYTES};

/// `FirstNormalUnloggedLSN`.
const FIRST_UNLOGGED_LSN: u64 = 1000;
/// `RELSEG_SIZE`: blocks in a file of a relation.
const RELATION_SEGMENT_BLOCKS: u32 = 131_072;

/// Why bytes are no usable `pg_control`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ControlFileError {
    #[error("the control file has {found} bytes, {} are expected", at::DATA_END)]
    TooShort { found: usize },
    #[error(
        "the control file is of another PostgreSQL version: control version {control_version}, catalog version \
         {catalog_version}; only PostgreSQL 15 (1300, 202209061) is supported"
    )]
    OtherVersion {
        control_version: u32,
        catalog_version: u32,
    },
    #[error("the control file is damaged: its checksum is {found:08X}, expected {expected:08X}")]
    BadChecksum { found: u32, expected: u32 },
    #[error("the server was built with {what} of {found}, only {expected} is supported")]
    OtherBuild {
        what: &'static str,
        found: u32,
        expected: u32,
    },
    #[error("the control file says what cannot be: {problem}")]
    Invalid { problem: &'static str },
}

/// `DBState`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ClusterState {
    Startup,
    ShutDown,
    ShutDownInRecovery,
    ShuttingDown,
    InCrashRecovery,
    InArchiveRecovery,
    InProduction,
}

impl ClusterState {
    const ALL: [ClusterState; 7] = [
        ClusterState::Startup,
        ClusterState::ShutDown,
        ClusterState::ShutDownInRecovery,
        ClusterState::ShuttingDown,
        ClusterState::InCrashRecovery,
        ClusterState::InArchiveRecovery,
        ClusterState::InProduction,
    ];
}

/// A cluster's control file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ControlFile {
    data: [u8; at::DATA_END],
    state: ClusterState,
}

impl ControlFile {
    /// Reads `global/pg_control`.
    ///
    /// # Errors
    /// Another version or build of PostgreSQL, a checksum that differs, impossible values.
    pub fn parse(file: &[u8]) -> Result<ControlFile, ControlFileError> {
        let data = *file
            .first_chunk::<{ at::DATA_END }>()
            .ok_or(ControlFileError::TooShort { found: file.len() })?;
        let word = |at: usize| u32::from_le_bytes([data[at], data[at + 1], data[at + 2], data[at + 3]]);
        // The version first: another one has another layout, and its checksum elsewhere.
        let (control_version, catalog_version) = (word(at::CONTROL_VERSION_AT), word(at::CATALOG_VERSION_AT));
        if control_version != at::CONTROL_VERSION || catalog_version != at::CATALOG_VERSION {
            return Err(ControlFileError::OtherVersion {
                control_version,
                catalog_version,
            });
        }
        let (found, expected) = (word(at::CRC), crc32c::crc32c(&data[..at::CRC]));
        if found != expected {
            return Err(ControlFileError::BadChecksum { found, expected });
        }
        for (what, at, expected) in [
            ("a page size", at::BLOCK_BYTES, BLOCK_SIZE as u32),
            ("a WAL page size", at::WAL_BLOCK_BYTES, WAL_PAGE_BYTES as u32),
            (
                "a relation file size in blocks",
                at::RELATION_SEGMENT_BLOCKS,
                RELATION_SEGMENT_BLOCKS,
            ),
        ] {
            if word(at) != expected {
                return Err(ControlFileError::OtherBuild {
                    what,
                    found: word(at),
                    expected,
                });
            }
        }
        let segment_bytes = word(at::WAL_SEGMENT_BYTES);
        if !is_wal_segment_size(segment_bytes) {
            return Err(ControlFileError::Invalid {
                problem: "a WAL segment size that is no power of two from 1 MB to 1 GB",
            });
        }
        let state = usize::try_from(word(at::STATE))
            .ok()
            .and_then(|state| ClusterState::ALL.get(state).copied())
            .ok_or(ControlFileError::Invalid {
                problem: "an unknown cluster state",
            })?;
        Ok(ControlFile { data, state })
    }

    pub fn facts(&self) -> ClusterFacts {
        ClusterFacts {
            system_identifier: u64::from_le_bytes(self.array(at::SYSTEM_IDENTIFIER)),
            timeline: self.checkpoint().timeline,
            wal_segment_bytes: self.word(at::WAL_SEGMENT_BYTES),
            data_checksums: self.word(at::CHECKSUM_VERSION) != 0,
            pg_control_version: self.word(at::CONTROL_VERSION_AT),
            catalog_version: self.word(at::CATALOG_VERSION_AT),
            pg_major: at::MAJOR_VERSION,
        }
    }

    pub fn state(&self) -> ClusterState {
        self.state
    }

    /// Start of the last checkpoint record.
    pub fn last_checkpoint(&self) -> Lsn {
        Lsn(u64::from_le_bytes(self.array(at::CHECKPOINT)))
    }

    /// The last checkpoint record's content.
    pub fn checkpoint(&self) -> Checkpoint {
        let copy: [u8; CHECKPOINT_BYTES] = self.array(at::CHECKPOINT_COPY);
        Checkpoint::parse(&mut Reader::new(&copy, Lsn::INVALID, 0)).unwrap_or_default()
    }

    /// The counter that unlogged relations use in place of LSNs. It counts after a clean shutdown only.
    pub fn unlogged_lsn(&self) -> u64 {
        u64::from_le_bytes(self.array(at::UNLOGGED_LSN))
    }

    /// Unlogged relations were not reset: their counter goes on from here.
    pub fn set_unlogged_lsn(&mut self, lsn: u64) {
        self.set(at::UNLOGGED_LSN, &lsn.to_le_bytes());
        self.set_crc();
    }

    /// The settings that the log carries.
    pub fn parameters(&self) -> Parameters {
        Parameters {
            max_connections: self.int(at::MAX_CONNECTIONS),
            max_worker_processes: self.int(at::MAX_WORKER_PROCESSES),
            max_wal_senders: self.int(at::MAX_WAL_SENDERS),
            max_prepared_transactions: self.int(at::MAX_PREPARED_TRANSACTIONS),
            max_locks_per_transaction: self.int(at::MAX_LOCKS_PER_TRANSACTION),
            wal_level: self.int(at::WAL_LEVEL),
            wal_log_hints: self.data[at::WAL_LOG_HINTS] != 0,
            track_commit_timestamp: self.data[at::TRACK_COMMIT_TIMESTAMP] != 0,
        }
    }

    /// The running state right after the last checkpoint record. Exact after a clean shutdown.
    pub fn checkpoint_state(&self) -> CheckpointState {
        CheckpointState {
            checkpoint: self.checkpoint(),
            last_checkpoint: self.last_checkpoint(),
            parameters: self.parameters(),
        }
    }

    /// Makes the file say: cleanly shut down, and the last record is a shutdown checkpoint that starts at
    /// `record` and says what `state` says. Unlogged relations have been reset, no recovery is under way.
    pub fn set_shut_down_at(&mut self, state: &CheckpointState, record: Lsn) {
        let timeline = self.checkpoint().timeline;
        let checkpoint = Checkpoint {
            redo: record,
            timeline,
            previous_timeline: timeline,
            oldest_active_xid: 0,
            ..state.checkpoint
        };
        self.state = ClusterState::ShutDown;
        self.set(at::STATE, &(ClusterState::ShutDown as u32).to_le_bytes());
        self.set(at::TIME, &checkpoint.time.to_le_bytes());
        self.set(at::CHECKPOINT, &record.0.to_le_bytes());
        self.set(at::CHECKPOINT_COPY, &checkpoint.to_bytes());
        self.set(at::UNLOGGED_LSN, &FIRST_UNLOGGED_LSN.to_le_bytes());
        self.data[at::RECOVERY].fill(0);
        let parameters = &state.parameters;
        for (at, value) in [
            (at::MAX_CONNECTIONS, parameters.max_connections),
            (at::MAX_WORKER_PROCESSES, parameters.max_worker_processes),
            (at::MAX_WAL_SENDERS, parameters.max_wal_senders),
            (
                at::MAX_PREPARED_TRANSACTIONS,
                parameters.max_prepared_transactions,
            ),
            (
                at::MAX_LOCKS_PER_TRANSACTION,
                parameters.max_locks_per_transaction,
            ),
            (at::WAL_LEVEL, parameters.wal_level),
        ] {
            self.set(at, &value.to_le_bytes());
        }
        self.data[at::WAL_LOG_HINTS] = u8::from(parameters.wal_log_hints);
        self.data[at::TRACK_COMMIT_TIMESTAMP] = u8::from(parameters.track_commit_timestamp);
        self.set_crc();
    }

    fn set_crc(&mut self) {
        let crc = crc32c::crc32c(&self.data[..at::CRC]);
        self.set(at::CRC, &crc.to_le_bytes());
    }

    /// The whole file, 8192 bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut file = vec![0; FILE_BYTES];
        file[..at::DATA_END].copy_from_slice(&self.data);
        file
    }

    fn set(&mut self, at: usize, bytes: &[u8]) {
        self.data[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn array<const N: usize>(&self, at: usize) -> [u8; N] {
        let mut bytes = [0; N];
        bytes.copy_from_slice(&self.data[at..at + N]);
        bytes
    }

    fn word(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.array(at))
    }

    fn int(&self, at: usize) -> i32 {
        i32::from_le_bytes(self.array(at))
    }
}
