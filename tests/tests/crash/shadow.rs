//! What a session's objects must be, by what the session was told.

use std::fmt::Debug;

use crate::session::Outcome;

/// The state that was acknowledged last, and the one that was asked for when the connection ended.
#[derive(Debug)]
pub struct Shadow<S> {
    pub known: S,
    in_doubt: Option<S>,
}

impl<S: Clone + PartialEq> Shadow<S> {
    pub fn new(known: S) -> Shadow<S> {
        Shadow {
            known,
            in_doubt: None,
        }
    }

    /// Takes note of a change to `new`.
    pub fn note(&mut self, outcome: Outcome, new: S) {
        match outcome {
            Outcome::Acknowledged => self.known = new,
            Outcome::Absent => {}
            Outcome::InDoubt => self.in_doubt = Some(new),
        }
    }

    /// Changes what a disaster does to any state, such as emptying unlogged tables.
    pub fn change(&mut self, mut change: impl FnMut(&mut S)) {
        change(&mut self.known);
        self.in_doubt.as_mut().map(change);
    }

    /// Compares with what is there; a change in doubt has happened as a whole or not at all.
    ///
    /// # Panics
    /// It is neither of the two. `difference` says in few words where two states differ.
    pub fn settle(&mut self, what: &str, actual: S, difference: impl Fn(&S, &S) -> String) {
        let in_doubt = self.in_doubt.take();
        if actual == self.known {
            return;
        }
        let from_known = difference(&self.known, &actual);
        match in_doubt {
            Some(state) if state == actual => self.known = actual,
            Some(state) => panic!(
                "{what}: neither as acknowledged ({from_known}) nor with all of the change in doubt ({})",
                difference(&state, &actual)
            ),
            None => panic!("{what}: not as acknowledged ({from_known})"),
        }
    }
}

/// The first entries in which two maps differ, as text.
pub fn map_difference<K: Ord + Debug, V: PartialEq + Debug>(
    expected: &std::collections::BTreeMap<K, V>,
    actual: &std::collections::BTreeMap<K, V>,
) -> String {
    const SHOWN: usize = 5;
    let keys: std::collections::BTreeSet<&K> = expected.keys().chain(actual.keys()).collect();
    let differing: Vec<String> = keys
        .into_iter()
        .filter(|key| expected.get(key) != actual.get(key))
        .map(|key| {
            format!(
                "{key:?}: {:?} expected, {:?} found",
                expected.get(key),
                actual.get(key)
            )
        })
        .collect();
    let shown = differing[..differing.len().min(SHOWN)].join("; ");
    format!("{} differences: {shown}", differing.len())
}
