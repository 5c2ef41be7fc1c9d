//! Which step of a workload wrote a record: steps begin at places in the log.

use pg_quorum_types::Lsn;

/// Steps in the order of the log.
#[derive(Clone, Default)]
pub struct Steps {
    begins: Vec<(Lsn, &'static str)>,
}

impl Steps {
    /// The step before it ends here.
    pub fn begin(&mut self, at: Lsn, name: &'static str) {
        if let Some((last, _)) = self.begins.last() {
            assert!(*last <= at, "step {name} begins at {at}, before {last}");
        }
        self.begins.push((at, name));
    }

    /// The step of the record that starts at `lsn`.
    pub fn at(&self, lsn: Lsn) -> &'static str {
        let next = self.begins.partition_point(|(begin, _)| *begin <= lsn);
        match next.checked_sub(1) {
            Some(step) => self.begins[step].1,
            None => "start",
        }
    }
}
