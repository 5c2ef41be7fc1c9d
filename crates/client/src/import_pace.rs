//! How far an import is, for a person who waits for it.

use std::time::Duration;

/// What has been sent, of how much, in which time.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    pub sent_bytes: u64,
    /// What there is to send, as far as it is known before it is read: the pages of relations.
    pub total_bytes: u64,
    pub elapsed: Duration,
}

impl Pace {
    fn bytes_per_second(self) -> f64 {
        self.sent_bytes as f64 / self.elapsed.as_secs_f64().max(0.001)
    }

    /// As `512 of 2048 MB (25 %) sent, 40.3 MB/s, about 38 s left`.
    pub fn describe(self) -> String {
        let megabytes = |bytes: u64| bytes >> 20;
        let percent = (self.sent_bytes * 100)
            .checked_div(self.total_bytes)
            .unwrap_or(100)
            .min(100);
        let rest = self.total_bytes.saturating_sub(self.sent_bytes) as f64;
        let left = Duration::from_secs_f64(rest / self.bytes_per_second().max(1.0));
        format!(
            "{} of {} MB ({percent} %) sent, {:.1} MB/s, about {} left",
            megabytes(self.sent_bytes),
            megabytes(self.total_bytes),
            self.bytes_per_second() / f64::from(1 << 20),
            describe_duration(left)
        )
    }
}

/// As `38 s`, `5 min 10 s`, `3 h 20 min`.
fn describe_duration(duration: Duration) -> String {
    let seconds = duration.as_secs_f64().ceil() as u64;
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pace(sent_mb: u64, total_mb: u64, seconds: u64) -> String {
        let pace = Pace {
            sent_bytes: sent_mb << 20,
            total_bytes: total_mb << 20,
            elapsed: Duration::from_secs(seconds),
        };
        pace.describe()
    }

    #[test]
    fn rate_and_time_left_follow_from_what_was_sent() {
        assert_eq!(
            pace(512, 2048, 10),
            "512 of 2048 MB (25 %) sent, 51.2 MB/s, about 30 s left"
        );
        assert_eq!(
            pace(1024, 102_400, 20),
            "1024 of 102400 MB (1 %) sent, 51.2 MB/s, about 33 min 0 s left"
        );
        assert_eq!(
            pace(200, 102_400, 20),
            "200 of 102400 MB (0 %) sent, 10.0 MB/s, about 2 h 50 min left"
        );
    }

    #[test]
    fn more_than_was_known_and_nothing_at_all_are_no_trouble() {
        assert_eq!(
            pace(30, 20, 1),
            "30 of 20 MB (100 %) sent, 30.0 MB/s, about 0 s left"
        );
        assert_eq!(pace(0, 0, 0), "0 of 0 MB (100 %) sent, 0.0 MB/s, about 0 s left");
    }
}
