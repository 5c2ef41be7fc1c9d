//! The newest batches, kept for the streams that have not sent them yet.
//!
//! ```text
//!          start                          end
//!  source ───┤ batch │ batch │ … │ batch ├──▶ append
//! ```
//!
//! The window is small: a stream that falls out of it reads from the [`super::WalSource`].

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use pg_quorum_types::Lsn;

use super::Batch;

/// Where a stream's next batch is.
#[derive(PartialEq, Eq, Debug)]
pub(super) enum Next {
    /// Everything that was appended has been sent.
    Nothing,
    Batch(Batch),
    /// To be read from the source, no further than `until` (from where on the window has it).
    Source {
        until: Lsn,
    },
}

#[derive(Debug)]
pub(super) struct Window {
    batches: VecDeque<Batch>,
    end: Lsn,
    bytes: usize,
    limit_bytes: usize,
}

impl Window {
    pub fn new(end: Lsn, limit_bytes: usize) -> Window {
        Window {
            batches: VecDeque::new(),
            end,
            bytes: 0,
            limit_bytes,
        }
    }

    /// End of everything that was appended.
    pub fn end(&self) -> Lsn {
        self.end
    }

    /// # Panics
    /// If the batch does not follow the one before it: a hole would be acknowledged as durable.
    pub fn push(&mut self, batch: Batch) {
        assert!(
            batch.previous_end == self.end && batch.end > batch.previous_end,
            "a batch of {} to {} does not follow {}",
            batch.previous_end,
            batch.end,
            self.end
        );
        self.end = batch.end;
        self.bytes += batch.records.len();
        self.batches.push_back(batch);
        while self.bytes > self.limit_bytes && self.batches.len() > 1 {
            if let Some(oldest) = self.batches.pop_front() {
                self.bytes -= oldest.records.len();
            }
        }
    }

    /// What follows `after`, in one batch of at most `max_bytes` unless a single one is larger.
    pub fn next(&self, after: Lsn, max_bytes: usize) -> Next {
        if after >= self.end {
            return Next::Nothing;
        }
        let first = self.batches.partition_point(|batch| batch.previous_end < after);
        match self.batches.get(first) {
            Some(batch) if batch.previous_end == after => {}
            // Below the window, or inside of its first batches: up to the next seam.
            Some(batch) => {
                return Next::Source {
                    until: batch.previous_end,
                };
            }
            None => return Next::Source { until: self.end },
        }
        let mut bytes = 0;
        let count = self
            .batches
            .range(first..)
            .take_while(|batch| {
                bytes += batch.records.len();
                bytes <= max_bytes
            })
            .count()
            .max(1);
        Next::Batch(join(self.batches.range(first..first + count)))
    }
}

/// One batch from adjacent ones; a single one is not copied.
fn join<'a>(batches: impl ExactSizeIterator<Item = &'a Batch> + Clone) -> Batch {
    let mut rest = batches.clone();
    let first = rest.next().expect("at least one batch");
    let Some(last) = rest.clone().last() else {
        return first.clone();
    };
    let mut records = BytesMut::with_capacity(batches.clone().map(|batch| batch.records.len()).sum());
    let mut gaps = Vec::new();
    for batch in batches {
        records.extend_from_slice(&batch.records);
        gaps.extend_from_slice(&batch.gaps);
    }
    Batch {
        previous_end: first.previous_end,
        end: last.end,
        records: Bytes::from(records),
        gaps,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(from: u64, to: u64) -> Batch {
        Batch {
            previous_end: Lsn(from),
            end: Lsn(to),
            records: Bytes::from(vec![u8::try_from(from % 251).unwrap(); (to - from) as usize]),
            gaps: Vec::new(),
        }
    }

    fn window(limit: usize, seams: &[u64]) -> Window {
        let mut window = Window::new(Lsn(seams[0]), limit);
        for pair in seams.windows(2) {
            window.push(batch(pair[0], pair[1]));
        }
        window
    }

    #[test]
    fn waiting_batches_go_out_as_one() {
        let window = window(1000, &[100, 120, 150, 400]);
        assert_eq!(window.next(Lsn(400), 64), Next::Nothing);
        let Next::Batch(two) = window.next(Lsn(100), 64) else {
            panic!("no batch")
        };
        assert_eq!(
            (two.previous_end, two.end, two.records.len()),
            (Lsn(100), Lsn(150), 50)
        );
        let Next::Batch(large) = window.next(Lsn(150), 64) else {
            panic!("no batch")
        };
        assert_eq!((large.end, large.records.len()), (Lsn(400), 250));
    }

    #[test]
    fn what_fell_out_of_the_window_is_read_from_the_source_up_to_a_seam() {
        let window = window(100, &[100, 160, 200, 240]);
        assert_eq!(window.next(Lsn(100), 64), Next::Source { until: Lsn(160) });
        assert_eq!(window.next(Lsn(170), 64), Next::Source { until: Lsn(200) });
        assert_eq!(window.next(Lsn(210), 64), Next::Source { until: Lsn(240) });
        assert!(matches!(window.next(Lsn(160), 64), Next::Batch(_)));
    }

    #[test]
    fn one_batch_larger_than_the_window_stays() {
        let window = window(10, &[100, 200]);
        assert!(matches!(window.next(Lsn(100), 64), Next::Batch(_)));
    }

    #[test]
    #[should_panic(expected = "does not follow")]
    fn a_hole_stops_the_writer() {
        window(100, &[100, 200]).push(batch(208, 300));
    }
}
