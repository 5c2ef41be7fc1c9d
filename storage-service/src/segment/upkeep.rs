//! What has to be done now and then.

use std::sync::Arc;
use std::time::Duration;

use pg_quorum_types::Lsn;

use super::Segment;

/// How often upkeep looks around.
const INTERVAL: Duration = Duration::from_secs(1);
/// Rounds between two writes of the metadata: they bound how much log a disk can lose unnoticed.
const ROUNDS_BETWEEN_META: u32 = 5;
/// Rounds between two trims.
const ROUNDS_BETWEEN_TRIMS: u32 = 10;

impl Segment {
    /// Runs until the task is aborted.
    pub async fn keep_up(self: Arc<Segment>) {
        let mut round: u32 = 0;
        loop {
            tokio::time::sleep(INTERVAL).await;
            round = round.wrapping_add(1);
            let segment = Arc::clone(&self);
            let work = move || {
                if round.is_multiple_of(ROUNDS_BETWEEN_META) {
                    segment.refresh_meta();
                }
                if round.is_multiple_of(ROUNDS_BETWEEN_TRIMS) {
                    segment.trim_log();
                }
                segment.try_full_disk_again();
                if round.is_multiple_of(ROUNDS_BETWEEN_META)
                    && let Some(derived) = segment.derived.get()
                {
                    derived.upkeep();
                }
            };
            if let Err(error) = tokio::task::spawn_blocking(work).await {
                tracing::error!(node = %self.settings.node, "upkeep has failed: {error}");
            }
        }
    }

    /// Records how far the log is, so that a restart notices if less of it is left.
    pub(super) fn refresh_meta(&self) {
        let (meta, sequence) = {
            let mut guarded = self.state.lock();
            if guarded.in_control {
                return;
            }
            let Some(meta) = guarded.machine.refreshed_meta() else {
                return;
            };
            guarded.sequence += 1;
            (meta, guarded.sequence)
        };
        if let Err(error) = self.meta.persist(&meta, sequence) {
            tracing::warn!(node = %self.settings.node, "the metadata could not be refreshed: {error}");
            self.state.lock().machine.refresh_failed();
        }
    }

    /// Removes what neither the derived state nor a peer needs.
    fn trim_log(&self) {
        let Some(derived) = self.derived.get() else {
            return;
        };
        let needed_from = derived.log_floor().min(self.lowest_peer_scl());
        match self.log.trim_below(needed_from) {
            Ok(0) => {}
            Ok(files) => tracing::debug!(node = %self.settings.node, files, %needed_from, "trimmed the log"),
            Err(error) => tracing::warn!(node = %self.settings.node, "the log could not be trimmed: {error}"),
        }
    }

    /// The lowest SCL among the other members as they told it last: [`Lsn::INVALID`] if one has not told it.
    fn lowest_peer_scl(&self) -> Lsn {
        let Some(membership) = self.membership() else {
            return Lsn::INVALID;
        };
        let reports = self.peers.lock();
        let scl = |segment| {
            let report = reports.iter().find(|(peer, _)| *peer == segment);
            report.map_or(Lsn::INVALID, |(_, report)| report.scl)
        };
        let others = membership.members.iter().map(|member| member.segment);
        others
            .filter(|member| *member != self.segment)
            .map(scl)
            .min()
            .unwrap_or(Lsn::MAX)
    }

    fn try_full_disk_again(&self) {
        if !self.log.is_waiting_for_space() {
            return;
        }
        if self.log.try_disk_again().is_ok() {
            tracing::info!(node = %self.settings.node, "there is room on the disk again");
            let mut guarded = self.state.lock();
            guarded.machine.set_read_only(None);
            drop(guarded);
            self.wake_all();
        }
    }
}
