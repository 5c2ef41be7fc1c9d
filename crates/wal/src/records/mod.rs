//! Records whose content several parts of this crate need, taken apart once.

mod multixact;
mod transaction;

pub(crate) use multixact::{MultiXactCreation, MultiXactTruncation};
pub(crate) use transaction::{Completion, Outcome, Preparation, Xids};
