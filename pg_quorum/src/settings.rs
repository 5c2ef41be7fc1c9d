//! The extension's own settings, and the server's settings that it holds.
//!
//! What the design needs of the server is either forced, with a higher priority than any configuration file
//! (so a reload does not change it), or refused with a hint when somebody has asked for the contrary.

use std::ffi::CString;
use std::path::PathBuf;
use std::time::Duration;

use pg_quorum_tls::{TlsError, TlsFiles};
use pg_quorum_types::{BLOCK_SIZE, VolumeId};
use pgrx::PgSqlErrorCode;
use pgrx::pg_sys;
use pgrx::{GucContext, GucFlags, GucRegistry, GucSetting};

use crate::pg::config;
use crate::pg::report;

static NODES: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(None);
static VOLUME: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(None);
static TLS_CA_FILE: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(None);
static TLS_CERT_FILE: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(None);
static TLS_KEY_FILE: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(None);
static TOKEN_FILE: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(None);
static SHUTDOWN_TIMEOUT_S: GucSetting<i32> = GucSetting::<i32>::new(30);
static ATTACH_TIMEOUT_S: GucSetting<i32> = GucSetting::<i32>::new(60);
static MAX_UNSHIPPED_MB: GucSetting<i32> = GucSetting::<i32>::new(256);
static MAX_UNINDEXED_MB: GucSetting<i32> = GucSetting::<i32>::new(32);
static STALE_READS_TIMEOUT_S: GucSetting<i32> = GucSetting::<i32>::new(600);
static CACHE_SIZE_MB: GucSetting<i32> = GucSetting::<i32>::new(-1);

/// The value of `synchronous_standby_names` behind which commits wait. No standby can bear the name in it, which is
/// longer than an `application_name`: a standby's word must not release a commit.
const STANDBY_NAMES: &str =
    "\"pg_quorum: a commit waits for four of the six storage nodes of the volume, and for no standby\"";
const _: () = assert!(STANDBY_NAMES.len() > pg_sys::NAMEDATALEN as usize + 2);
/// What people may write.
const STANDBY_ALIAS: &str = "pg_quorum";
/// The first minor release that makes commits wait from its start on; older ones also truncate relations another way.
const OLDEST_SERVER: u64 = 150_013;

/// Held for every process and over every reload, whatever the configuration files say.
const HELD: [(&str, &str); 7] = [
    ("fsync", "on"),
    ("wal_sync_method", "fdatasync"),
    ("full_page_writes", "off"),
    ("wal_init_zero", "off"),
    ("wal_recycle", "off"),
    ("synchronous_standby_names", STANDBY_NAMES),
    ("recovery_prefetch", "off"),
];

/// Whether `ALTER SYSTEM` may not touch the setting.
pub fn is_held(name: &str) -> bool {
    HELD.iter().any(|(held, _)| held.eq_ignore_ascii_case(name))
}

/// Why a server would not start with a setting of this value.
pub fn would_be_refused(name: &str, value: &str) -> Option<&'static str> {
    let is_off = ["off", "false", "no", "0", ""].contains(&value);
    match name.to_ascii_lowercase().as_str() {
        "wal_level" if value == "minimal" => Some("Storage is built from the log."),
        "archive_mode" if !is_off => Some("The tail of the local log may be cut by a failover."),
        "max_wal_senders" if value == "0" => Some("Commits would not wait for the quorum."),
        "max_worker_processes" if value == "0" => {
            Some("The link to the storage nodes is a background worker.")
        }
        _ => None,
    }
}

/// Makes `pg_quorum.*` known to the server. In `_PG_init`.
pub fn define() {
    GucRegistry::define_string_guc(
        c"pg_quorum.nodes",
        c"The storage nodes of the volume.",
        c"host:port of each node, separated by commas.",
        &NODES,
        GucContext::Postmaster,
        GucFlags::default(),
    );
    GucRegistry::define_string_guc(
        c"pg_quorum.volume",
        c"The volume's UUID; empty: the one that the nodes hold.",
        c"A server refuses to start on a volume of another identity.",
        &VOLUME,
        GucContext::Postmaster,
        GucFlags::default(),
    );
    GucRegistry::define_string_guc(
        c"pg_quorum.tls_ca_file",
        c"Certificates of the authority that issues the storage nodes' ones.",
        c"PEM. Empty, with tls_cert_file and tls_key_file: connections to the nodes are in the clear.",
        &TLS_CA_FILE,
        GucContext::Postmaster,
        GucFlags::default(),
    );
    GucRegistry::define_string_guc(
        c"pg_quorum.tls_cert_file",
        c"This server's certificate for the storage nodes.",
        c"PEM. A file that is replaced is used for new connections.",
        &TLS_CERT_FILE,
        GucContext::Postmaster,
        GucFlags::default(),
    );
    GucRegistry::define_string_guc(
        c"pg_quorum.tls_key_file",
        c"The key of the certificate in pg_quorum.tls_cert_file.",
        c"PEM.",
        &TLS_KEY_FILE,
        GucContext::Postmaster,
        GucFlags::default(),
    );
    GucRegistry::define_string_guc(
        c"pg_quorum.token_file",
        c"A token that says what this server may do to its volume.",
        c"For nodes that want one; made by \"quorumctl pki token\". A file that is replaced is used from then on.",
        &TOKEN_FILE,
        GucContext::Postmaster,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"pg_quorum.shutdown_timeout",
        c"How long a shutdown waits for a quorum that is away.",
        c"Afterwards sessions whose commit waits end without an acknowledgement.",
        &SHUTDOWN_TIMEOUT_S,
        0,
        86_400,
        GucContext::Sighup,
        GucFlags::UNIT_S,
    );
    GucRegistry::define_int_guc(
        c"pg_quorum.stale_reads_timeout",
        c"How long after the storage nodes' write quorum was last heard from statements are still answered.",
        c"Afterwards they fail: another server may have taken the volume. 0: for ever.",
        &STALE_READS_TIMEOUT_S,
        0,
        i32::MAX,
        GucContext::Suset,
        GucFlags::UNIT_S,
    );
    GucRegistry::define_int_guc(
        c"pg_quorum.attach_timeout",
        c"How long a starting server tries to reach enough storage nodes.",
        c"Afterwards the start fails with a message that names the nodes.",
        &ATTACH_TIMEOUT_S,
        1,
        86_400,
        GucContext::Postmaster,
        GucFlags::UNIT_S,
    );
    GucRegistry::define_int_guc(
        c"pg_quorum.cache_size",
        c"How much of the data directory's disk the local page cache takes.",
        c"-1: what the disk has room for. Pages that are not used are dropped; what only this server has stays beyond the limit.",
        &CACHE_SIZE_MB,
        -1,
        i32::MAX,
        GucContext::Sighup,
        GucFlags::UNIT_MB,
    );
    GucRegistry::define_int_guc(
        c"pg_quorum.max_unshipped_wal",
        c"How far the WAL may run ahead of the quorum before statements wait at their start.",
        c"At twice this distance (and wal_buffers) writing WAL waits, too.",
        &MAX_UNSHIPPED_MB,
        64,
        1 << 20,
        GucContext::Postmaster,
        GucFlags::UNIT_MB,
    );
    GucRegistry::define_int_guc(
        c"pg_quorum.max_unindexed_wal",
        c"How much durable WAL storage nodes may have left to index before statements wait at their start.",
        c"A start of the server and reads of pages wait for it. At twice this distance writing WAL waits, too.",
        &MAX_UNINDEXED_MB,
        1,
        1 << 20,
        GucContext::Sighup,
        GucFlags::UNIT_MB,
    );
}

/// Addresses of the storage nodes, `host:port`.
pub fn nodes() -> Vec<String> {
    let setting = text(&NODES);
    let addresses = setting
        .split(',')
        .map(str::trim)
        .filter(|address| !address.is_empty());
    addresses.map(str::to_owned).collect()
}

/// The volume that this server is meant for; `None`: whatever the nodes hold.
pub fn volume() -> Option<VolumeId> {
    text(&VOLUME).trim().parse().ok().map(VolumeId)
}

/// The files for TLS to the nodes; `None`: in the clear.
///
/// # Errors
/// Only some of the three settings are there.
pub fn tls_files() -> Result<Option<TlsFiles>, TlsError> {
    TlsFiles::from_settings(file(&TLS_CA_FILE), file(&TLS_CERT_FILE), file(&TLS_KEY_FILE))
}

/// The file with the token for the nodes; `None`: they want none.
pub fn token_file() -> Option<PathBuf> {
    file(&TOKEN_FILE)
}

fn file(setting: &GucSetting<Option<CString>>) -> Option<PathBuf> {
    Some(PathBuf::from(text(setting))).filter(|path| !path.as_os_str().is_empty())
}

pub fn shutdown_timeout() -> Duration {
    Duration::from_secs(u64::try_from(SHUTDOWN_TIMEOUT_S.get()).unwrap_or(0))
}

/// How long this session takes answers without a quorum; `None`: for ever.
pub fn stale_reads_timeout() -> Option<Duration> {
    let seconds = u64::try_from(STALE_READS_TIMEOUT_S.get()).ok()?;
    (seconds > 0).then(|| Duration::from_secs(seconds))
}

pub fn attach_timeout() -> Duration {
    Duration::from_secs(u64::try_from(ATTACH_TIMEOUT_S.get()).unwrap_or(1))
}

/// Pages that the local page cache may hold; `None`: as many as the disk has room for.
pub fn cache_size_pages() -> Option<u64> {
    let megabytes = u64::try_from(CACHE_SIZE_MB.get()).ok()?;
    Some(megabytes * ((1 << 20) / BLOCK_SIZE as u64))
}

/// Bytes between insert position and VDL at which statements wait at their start.
pub fn max_unshipped_bytes() -> u64 {
    u64::try_from(MAX_UNSHIPPED_MB.get()).unwrap_or(0) << 20
}

/// Bytes between write position and VDL at which writing WAL waits. More than the WAL buffers hold on top of
/// the soft limit: one write of all of them never waits for itself.
pub fn hard_unshipped_bytes() -> u64 {
    2 * max_unshipped_bytes() + config::wal_buffers_bytes()
}

/// Bytes of durable WAL that are not indexed at which statements wait at their start.
pub fn max_unindexed_bytes() -> u64 {
    u64::try_from(MAX_UNINDEXED_MB.get()).unwrap_or(0) << 20
}

/// The same for writing WAL.
pub fn hard_unindexed_bytes() -> u64 {
    2 * max_unindexed_bytes()
}

fn text(setting: &GucSetting<Option<CString>>) -> String {
    setting
        .get()
        .map_or_else(String::new, |value| value.to_string_lossy().into_owned())
}

/// Refuses settings that contradict the design, then forces the rest. In `_PG_init`; a refusal is a FATAL.
pub fn hold() {
    let setting = text(&VOLUME);
    if !setting.trim().is_empty() && volume().is_none() {
        refuse(
            format!("pg_quorum.volume is not a UUID: \"{setting}\""),
            "\"quorumctl volume show\" prints it.",
        );
    }
    match tls_files() {
        Err(error) => refuse(
            format!("the settings of pg_quorum for TLS are incomplete: {error}"),
            "Set pg_quorum.tls_ca_file, pg_quorum.tls_cert_file and pg_quorum.tls_key_file, or none of them.",
        ),
        Ok(None) if token_file().is_some() => refuse(
            "pg_quorum.token_file needs TLS: a token is not sent in the clear",
            "Set pg_quorum.tls_ca_file, pg_quorum.tls_cert_file and pg_quorum.tls_key_file.",
        ),
        Ok(_) => {}
    }
    if config::get_number("server_version_num") < OLDEST_SERVER {
        refuse(
            format!(
                "pg_quorum needs PostgreSQL 15.13 or a newer 15, this is {}",
                config::get("server_version")
            ),
            "Update the server's package.",
        );
    }
    if config::get("max_worker_processes") == "0" {
        refuse(
            "pg_quorum does not work with max_worker_processes = 0: the link to the storage nodes is a worker",
            "Set max_worker_processes to 1 or more.",
        );
    }
    if config::get("block_size") != BLOCK_SIZE.to_string() {
        refuse(
            "pg_quorum needs a server with 8 kB blocks",
            "Use the distribution's PostgreSQL.",
        );
    }
    if config::get("wal_level") == "minimal" {
        refuse(
            "pg_quorum does not work with wal_level = minimal: storage is built from the log",
            "Set wal_level to replica or logical.",
        );
    }
    if config::get("archive_mode") != "off" {
        refuse(
            "pg_quorum does not work with archive_mode: the tail of the local log may be cut by a failover",
            "Set archive_mode to off; the volume is the archive.",
        );
    }
    if config::get("max_wal_senders") == "0" {
        refuse(
            "pg_quorum does not work with max_wal_senders = 0: commits would not wait for the quorum",
            "Set max_wal_senders to 1 or more.",
        );
    }
    if config::get("fsync") == "off" {
        refuse(
            "pg_quorum does not work with fsync = off: a commit would not wait for anything",
            "Remove the setting; the local disk is not synced in any case, the storage nodes' disks are.",
        );
    }
    let names = config::get("synchronous_standby_names");
    if !["", STANDBY_NAMES, STANDBY_ALIAS].contains(&names.as_str()) {
        refuse(
            format!("pg_quorum does not work with synchronous_standby_names = '{names}'"),
            "Remove the setting; every commit waits for four of the six storage nodes.",
        );
    }
    for (name, value) in HELD {
        config::hold(name, value);
    }
    hold_wal_keep_size();
}

/// Says, for the log, which settings are not those of the configuration files.
pub fn explain_held() {
    let held: Vec<String> = HELD
        .iter()
        .map(|(name, value)| format!("{name} = {value}"))
        .collect();
    pgrx::log!(
        "pg_quorum holds these settings, whatever the configuration says: {}, wal_keep_size = {}MB",
        held.join(", "),
        config::get_number("wal_keep_size")
    );
}

/// Unshipped segments must not be removed: keeps at least what may be unshipped, and two segments.
fn hold_wal_keep_size() {
    let needed_mb =
        hard_unshipped_bytes().div_ceil(1 << 20) + 2 * config::wal_segment_bytes().div_ceil(1 << 20);
    let configured_mb = config::get_number("wal_keep_size");
    config::hold("wal_keep_size", &format!("{}MB", needed_mb.max(configured_mb)));
}

fn refuse(message: impl Into<String>, hint: &str) -> ! {
    report::fatal(
        PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
        message,
        |report| report.set_hint(hint),
    )
}
