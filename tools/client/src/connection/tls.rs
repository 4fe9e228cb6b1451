//! Encryption of a connection, and whom the client trusts.
//!
//! In: a socket and the host that was asked for. Out: an encrypted stream to whoever proves to be that
//! host. Compiled with the feature `tls`. Called by `connection`.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::error::Error;

/// Whose signature under a server's certificate is trusted.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Roots {
    /// The authorities that the system trusts.
    Native,
    /// The certificates in this file, in PEM.
    File(PathBuf),
}

impl Roots {
    /// Encrypts a connection to the host in `addr` (host and port) that is made already, for whoever speaks
    /// something else than the binary protocol over it. Waits for the handshake without a limit of its own;
    /// dropping the future closes the connection.
    ///
    /// # Errors
    /// [`Error::Connect`] when the certificate is none for that host, or is signed by nobody who is trusted.
    pub async fn encrypt(
        &self,
        stream: TcpStream,
        addr: &str,
    ) -> Result<TlsStream<TcpStream>, Error> {
        let failed = |reason| Error::Connect { addr: addr.to_owned(), reason };
        encrypt(stream, addr, self).await.map_err(failed)
    }
}

/// Encrypts a connection to the host in `addr`; the error is in words.
pub(super) async fn encrypt(
    stream: TcpStream,
    addr: &str,
    roots: &Roots,
) -> Result<TlsStream<TcpStream>, String> {
    let host = addr.rsplit_once(':').map_or(addr, |(host, _)| host).trim_matches(['[', ']']);
    let name = ServerName::try_from(host.to_owned()).map_err(|error| error.to_string())?;
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(store(roots)?)
        .with_no_client_auth();
    let connector = TlsConnector::from(Arc::new(config));
    connector.connect(name, stream).await.map_err(|error| error.to_string())
}

fn store(roots: &Roots) -> Result<RootCertStore, String> {
    let mut store = RootCertStore::empty();
    match roots {
        Roots::Native => {
            store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
        Roots::File(path) => {
            let wrong = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
            let read = CertificateDer::pem_file_iter(path).map_err(|error| wrong(&error))?;
            for certificate in read {
                let certificate = certificate.map_err(|error| wrong(&error))?;
                store.add(certificate).map_err(|error| wrong(&error))?;
            }
        }
    }
    if store.is_empty() { Err("no certificate is trusted".to_owned()) } else { Ok(store) }
}
