//! A position that is read at for a while: as long as it lives, the persisted state does not pass it.

use std::sync::Arc;

use pg_quorum_types::Lsn;

use super::engine::Engine;
use super::error::DerivedError;

/// See the module.
pub struct ReadPoint {
    engine: Arc<Engine>,
    at: Lsn,
}

impl ReadPoint {
    /// # Errors
    /// `at` is below what is kept or above what is indexed.
    pub fn new(engine: &Arc<Engine>, at: Lsn) -> Result<ReadPoint, DerivedError> {
        let mut state = engine.state.write();
        let floor = state.floor();
        if at < floor {
            return Err(DerivedError::TooOld { asked: at, floor });
        }
        if at > state.indexed {
            return Err(engine.not_indexed(at, state.indexed));
        }
        *state.pins.entry(at).or_insert(0) += 1;
        Ok(ReadPoint {
            engine: Arc::clone(engine),
            at,
        })
    }

    pub fn at(&self) -> Lsn {
        self.at
    }

    pub fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }
}

impl Drop for ReadPoint {
    fn drop(&mut self) {
        let mut state = self.engine.state.write();
        if let Some(readers) = state.pins.get_mut(&self.at) {
            *readers -= 1;
            if *readers == 0 {
                state.pins.remove(&self.at);
            }
        }
    }
}
