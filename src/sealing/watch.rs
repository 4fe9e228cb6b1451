//! Keys that change while a server runs: their file is read again, and what it says counts from then on.
//!
//! In: where the keys are. Out: another ring, when the file says something else; when it says nothing that
//! can be read, the keys stay as they are and somebody is told. Started by the server.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::AbortHandle;

use super::Keyring;
use super::keys::{KeyError, KeySource};

/// A task that looks after the file for as long as this lives.
#[derive(Debug)]
pub struct Watch(AbortHandle);

impl Watch {
    /// Starts it; the file is read every `pause`. To be called within a runtime. `None` without a file:
    /// then nothing can change.
    #[must_use]
    pub fn start(source: KeySource, ring: Arc<Keyring>, pause: Duration) -> Option<Self> {
        source.has_file().then(|| Self(tokio::spawn(run(source, ring, pause)).abort_handle()))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn run(source: KeySource, ring: Arc<Keyring>, pause: Duration) {
    loop {
        tokio::time::sleep(pause).await;
        let reading = source.clone();
        // A runtime that ends takes its reads with it.
        let Ok(read) = tokio::task::spawn_blocking(move || reading.load()).await else { return };
        take(&ring, read);
    }
}

/// Takes what was read, or keeps what is there.
fn take(ring: &Keyring, read: Result<super::keys::KeySet, KeyError>) {
    match read {
        Ok(keys) => {
            let active = keys.active();
            if ring.replace(keys) {
                let keys = ring.picture().keys;
                tracing::info!(?keys, ?active, "the keys for encryption are others now");
            }
        }
        Err(error) => {
            if ring.keep_for(error.to_string()) {
                tracing::error!(%error, "the keys for encryption stay as they are");
            }
        }
    }
}
