//! The client side of the storage service, for a compute and for tools. Knows nothing of PostgreSQL but the
//! layout of a data directory ([`pgdata`]).
//!
//! * [`probe`]: what is at each address
//! * [`create_volume`], [`import_base`]: a volume's first content
//! * [`take_volume`]: an epoch of one's own, which gives an [`Attachment`]
//! * [`Appender`]: the log, under that epoch
//! * [`PageReader`], [`compute_image`], [`read_wal`], [`control_file`]: what storage makes of it
//!
//! * [`observe_volume`], [`HeldReadPoint`], [`export_volume`]: reading without taking
//!
//! Everything runs on the caller's tokio runtime, also on a current-thread one. A connection's tasks live on
//! the runtime that made it: an appender and a page reader on two runtimes share nothing.

mod appender;
mod attachment;
mod channel;
mod config;
mod create;
mod error;
mod export;
mod fenced;
mod import;
mod import_pace;
mod join;
mod observe;
mod pages;
pub mod pgdata;
mod probe;
mod state;
mod status;
mod take;

pub use appender::{
    AppendLimits, Appender, Batch, Durability, LatencyStats, LinkState, NoWalSource, SegmentStats, WalSource,
    WalSourceError,
};
pub use attachment::Attachment;
pub use config::{ClientConfig, ConfigError, Timeouts, Transport};
pub use create::{CreateError, create_volume};
pub use error::CallError;
pub use export::{ExportError, ExportProgress, ExportRequest, Exported, export_volume};
pub use fenced::Fenced;
pub use import::{ImportError, Imported, Source, import_base};
pub use observe::{HeldReadPoint, ObserveError, observe_volume};
pub use pages::{PageContent, PageError, PageReader, PageRequest, Pages, ReadStats, UnchangedRequest};
pub use probe::{NodeReport, probe};
pub use state::{
    ImageEvent, ImageReader, StateError, VolumeControl, WalChunk, WalReader, compute_image, control_file,
    read_wal,
};
pub use status::{NodeCounters, NodeStatus};
pub use take::{EmptyVolume, ReadyVolume, TakeError, TakeRequest, Taken, take_volume};
