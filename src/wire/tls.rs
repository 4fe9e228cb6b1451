//! Encryption of both ports: certificate and key, replaced without a restart.
//!
//! In: a certificate chain and its key in PEM, and sockets. Out: encrypted streams. A pair that is no
//! pair is refused and changes nothing. Connections that exist keep what they began with. Called by
//! both doors, and by the server when the files change.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// Which of the two ports.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Port {
    /// HTTP, which says so while keys are agreed on.
    Http,
    /// The binary protocol.
    Tcp,
}

/// Why a certificate and a key are of no use; the texts tell nothing of the key.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The certificates cannot be read.
    #[error("the certificate file holds no certificate in PEM")]
    Certificate,
    /// The key cannot be read.
    #[error("the key file holds no private key in PEM")]
    Key,
    /// They do not belong together, or are of a kind that is not understood.
    #[error("certificate and key are not usable: {0}")]
    Pair(String),
}

/// Encrypts connections.
pub struct Tls {
    http: ArcSwap<ServerConfig>,
    tcp: ArcSwap<ServerConfig>,
    handshake_timeout: Duration,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").finish_non_exhaustive()
    }
}

impl Tls {
    /// Encrypts with this pair.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn new(cert: &[u8], key: &[u8], handshake_timeout: Duration) -> Result<Self, TlsError> {
        let (http, tcp) = configs(cert, key)?;
        let (http, tcp) = (ArcSwap::from_pointee(http), ArcSwap::from_pointee(tcp));
        Ok(Self { http, tcp, handshake_timeout })
    }

    /// Encrypts new connections with this pair from now on.
    ///
    /// # Errors
    /// [`TlsError`]; the old pair stays.
    pub fn replace(&self, cert: &[u8], key: &[u8]) -> Result<(), TlsError> {
        let (http, tcp) = configs(cert, key)?;
        self.http.store(Arc::new(http));
        self.tcp.store(Arc::new(tcp));
        Ok(())
    }

    /// Agrees on keys with a client. `None`: it did not, or not in time; dropping the future closes
    /// the connection.
    pub async fn accept(&self, port: Port, stream: TcpStream) -> Option<TlsStream<TcpStream>> {
        let config = match port {
            Port::Http => self.http.load_full(),
            Port::Tcp => self.tcp.load_full(),
        };
        let shaking = TlsAcceptor::from(config).accept(stream);
        match tokio::time::timeout(self.handshake_timeout, shaking).await {
            Ok(Ok(stream)) => Some(stream),
            Ok(Err(error)) => {
                tracing::debug!(%error, "a client did not agree on keys");
                None
            }
            Err(_) => {
                tracing::debug!("a client was too slow to agree on keys");
                None
            }
        }
    }
}

/// What both ports encrypt with.
fn configs(cert: &[u8], key: &[u8]) -> Result<(ServerConfig, ServerConfig), TlsError> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(cert).collect();
    let chain = chain.ok().filter(|chain| !chain.is_empty()).ok_or(TlsError::Certificate)?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| TlsError::Key)?;
    let provider = Arc::new(aws_lc_rs::default_provider());
    let words = |error: rustls::Error| TlsError::Pair(error.to_string());
    let tcp = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(words)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(words)?;
    let mut http = tcp.clone();
    http.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok((http, tcp))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (String, String) {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        (made.cert.pem(), made.signing_key.serialize_pem())
    }

    #[test]
    fn a_pair_that_is_none_is_refused_and_says_nothing_of_the_key() {
        let ((cert, key), (_, other)) = (pair(), pair());
        let new = |cert: &str, key: &str| {
            Tls::new(cert.as_bytes(), key.as_bytes(), Duration::from_secs(1)).map(|_| ())
        };
        assert!(new(&cert, &key).is_ok());
        assert!(matches!(new("", &key), Err(TlsError::Certificate)));
        assert!(matches!(new(&key, &key), Err(TlsError::Certificate)));
        assert!(matches!(new(&cert, &cert), Err(TlsError::Key)));
        assert!(matches!(new(&cert, &other), Err(TlsError::Pair(_))));
    }
}
