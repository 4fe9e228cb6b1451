//! Certificate and key from their files, at start and whenever they change.
//!
//! In: the settings. Out: what both ports encrypt with. New files that are no pair, as they are while
//! somebody writes them, leave the old pair in force and are logged once. Called by the server's
//! composition.

use std::sync::Arc;
use std::time::Duration;

use crate::config::Settings;
use crate::server::{Doing, StartError};
use crate::wire::tls::Tls;

/// What the settings say to encrypt with; `None`: nothing.
pub(super) fn tls(settings: &Settings) -> Result<Option<Arc<Tls>>, StartError> {
    let tls = &settings.tls;
    if tls.cert_file.is_empty() {
        return Ok(None);
    }
    let read = |path: &str| std::fs::read(path).doing(format!("reading {path}"));
    let (cert, key) = (read(&tls.cert_file)?, read(&tls.key_file)?);
    let handshake_timeout = Duration::from_millis(tls.handshake_timeout_ms);
    let what = || format!("encrypting with {} and {}", tls.cert_file, tls.key_file);
    Ok(Some(Arc::new(Tls::new(&cert, &key, handshake_timeout).doing(what())?)))
}

/// Takes new files whenever they change; never returns.
pub(super) async fn watch(settings: Settings, tls: Arc<Tls>) {
    let paths = &settings.tls;
    let every = Duration::from_millis(paths.reload_interval_ms);
    let mut seen = read(&paths.cert_file, &paths.key_file).await;
    loop {
        tokio::time::sleep(every).await;
        let now = read(&paths.cert_file, &paths.key_file).await;
        if now == seen {
            continue;
        }
        if let Some((cert, key)) = &now {
            match tls.replace(cert, key) {
                Ok(()) => {
                    tracing::info!(cert_file = paths.cert_file, "the certificate was replaced")
                }
                Err(error) => tracing::error!(%error, "the old certificate stays in force"),
            }
        }
        seen = now;
    }
}

async fn read(cert_file: &str, key_file: &str) -> Option<(Vec<u8>, Vec<u8>)> {
    let cert = tokio::fs::read(cert_file).await.ok()?;
    Some((cert, tokio::fs::read(key_file).await.ok()?))
}
