//! Where the time of an attach goes, for the log.

use std::fmt;
use std::time::{Duration, Instant};

/// Stages one after the other, each up to the next. Shown as `0.31 s (taking it 0.05, clearing 0.02, …)`.
#[derive(Debug)]
pub struct Stages {
    began: Instant,
    ended: Vec<(&'static str, Instant)>,
}

impl Stages {
    pub fn begin() -> Stages {
        Stages {
            began: Instant::now(),
            ended: Vec::new(),
        }
    }

    /// What has been done since the stage before ended was `what`.
    pub fn end(&mut self, what: &'static str) {
        self.ended.push((what, Instant::now()));
    }

    fn durations(&self) -> impl Iterator<Item = (&'static str, Duration)> {
        let begins = std::iter::once(self.began).chain(self.ended.iter().map(|(_, end)| *end));
        self.ended
            .iter()
            .zip(begins)
            .map(|((what, end), begin)| (*what, end.duration_since(begin)))
    }
}

impl fmt::Display for Stages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total: Duration = self.durations().map(|(_, duration)| duration).sum();
        write!(f, "{:.2} s (", total.as_secs_f64())?;
        for (number, (what, duration)) in self.durations().enumerate() {
            let separator = if number == 0 { "" } else { ", " };
            write!(f, "{separator}{what} {:.2}", duration.as_secs_f64())?;
        }
        f.write_str(")")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_add_up_to_what_is_shown() {
        let began = Instant::now();
        let after = |milliseconds| began + Duration::from_millis(milliseconds);
        let stages = Stages {
            began,
            ended: vec![("taking it", after(50)), ("files", after(310))],
        };
        assert_eq!(stages.to_string(), "0.31 s (taking it 0.05, files 0.26)");
    }
}
