//! One side's certificates, read again when their files change.

use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use rustls::{ClientConfig, ServerConfig};

use crate::files::{Loaded, Stamp};
use crate::{TlsError, TlsFiles};

/// One side's certificates. Clones share them.
#[derive(Clone)]
pub struct Tls(Arc<Shared>);

struct Shared {
    files: TlsFiles,
    current: Mutex<Current>,
}

struct Current {
    loaded: Loaded,
    /// The files when they were looked at last, whether they could be used or not.
    stamp: Stamp,
}

impl Tls {
    /// # Errors
    /// A file that cannot be read or used, or a key that is another certificate's.
    pub fn load(files: TlsFiles) -> Result<Tls, TlsError> {
        // Before the content: a change in between is seen by the next look.
        let stamp = files.stamp();
        let loaded = files.read()?;
        Ok(Tls(Arc::new(Shared {
            files,
            current: Mutex::new(Current { loaded, stamp }),
        })))
    }

    pub(crate) fn server(&self) -> Arc<ServerConfig> {
        self.with_current(|loaded| loaded.server.clone())
    }

    pub(crate) fn client(&self) -> Arc<ClientConfig> {
        self.with_current(|loaded| loaded.client.clone())
    }

    /// Files that cannot be used leave what was read before: one of them may have been replaced, the next is about to be.
    fn with_current<T>(&self, take: impl FnOnce(&Loaded) -> T) -> T {
        let Shared { files, current } = &*self.0;
        let mut current = current.lock();
        let stamp = files.stamp();
        if stamp != current.stamp {
            current.stamp = stamp;
            match files.read() {
                Ok(loaded) => {
                    current.loaded = loaded;
                    tracing::info!("certificates were read anew from {}", files.certificate.display());
                }
                Err(error) => {
                    tracing::warn!(
                        "certificates have changed and cannot be used, the old ones stay: {error}"
                    );
                }
            }
        }
        take(&current.loaded)
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Tls").field(&self.0.files).finish()
    }
}
