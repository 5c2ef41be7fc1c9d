//! How long a segment takes, by what it did lately.

use std::time::Duration;

/// Answers that are remembered.
const REMEMBERED: usize = 64;
/// Answers before the percentile is believed.
const ENOUGH: usize = 8;
/// What is assumed of a segment that was never asked: short, so that it is asked.
const UNKNOWN: Duration = Duration::from_micros(200);
/// Weight of the newest answer in the average, one in this many.
const WEIGHT: u32 = 8;

/// A moving average and a moving percentile.
#[derive(Debug)]
pub(super) struct Latency {
    average: Option<Duration>,
    recent: Vec<Duration>,
    next: usize,
}

impl Latency {
    pub fn new() -> Latency {
        Latency {
            average: None,
            recent: Vec::new(),
            next: 0,
        }
    }

    pub fn record(&mut self, took: Duration) {
        self.average = Some(match self.average {
            None => took,
            Some(average) => (average * (WEIGHT - 1) + took) / WEIGHT,
        });
        if self.recent.len() < REMEMBERED {
            self.recent.push(took);
        } else {
            self.recent[self.next] = took;
            self.next = (self.next + 1) % REMEMBERED;
        }
    }

    pub fn average(&self) -> Duration {
        self.average.unwrap_or(UNKNOWN)
    }

    /// Nineteen of twenty answers came within this. `None` while too few are known.
    pub fn p95(&self) -> Option<Duration> {
        if self.recent.len() < ENOUGH {
            return None;
        }
        let mut sorted = self.recent.clone();
        let rank = sorted.len() * 95 / 100;
        let (_, p95, _) = sorted.select_nth_unstable(rank);
        Some(*p95)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_percentile_follows_the_last_answers() {
        let mut latency = Latency::new();
        assert_eq!(latency.p95(), None);
        for _ in 0..100 {
            latency.record(Duration::from_millis(1));
        }
        assert_eq!(latency.p95(), Some(Duration::from_millis(1)));
        for _ in 0..5 {
            latency.record(Duration::from_millis(90));
        }
        assert_eq!(latency.p95(), Some(Duration::from_millis(90)));
        for _ in 0..REMEMBERED {
            latency.record(Duration::from_millis(2));
        }
        assert_eq!(latency.p95(), Some(Duration::from_millis(2)));
        assert!(latency.average() < Duration::from_millis(3));
    }
}
