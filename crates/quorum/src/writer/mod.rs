//! The writer's side: taking a volume.
//!
//! ```text
//!  Promise ──▶ all          four grant   choose the log           four start
//!  (epoch e)          ─────────────────▶ (or: import)  Start ──▶ all ─────────▶ held
//!     ▲                                                           │
//!     └───────────── a higher epoch was seen: ask above it ◀──────┘
//! ```

mod choose;
mod takeover;

pub use choose::{ChooseError, ChosenLog, choose_log};
pub use takeover::{Attempt, Obstacle, Takeover, Verdict};
