//! One GET to a server that the settings name.
//!
//! In: an http or https address. Out: the body of its answer, within a time and a size. Redirects are
//! not followed: keys come from where the settings say. Called by `jwks`.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper::header::{ACCEPT, HOST};
use hyper::{Request, Uri};
use hyper_util::rt::TokioIo;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

/// Largest answer, bytes.
const BODY_BYTES_MAX: usize = 1 << 20;

/// Not an http or https address.
#[derive(Debug)]
pub(super) struct BadAddress;

/// Where to ask.
#[derive(Clone, Debug)]
pub(super) struct Address {
    host: String,
    port: u16,
    is_https: bool,
    uri: Uri,
}

impl Address {
    /// Reads an address. One with a user's name is none: nothing would be done with it, and its password
    /// would stand in the log.
    pub(super) fn parse(text: &str) -> Result<Self, BadAddress> {
        let uri: Uri = text.parse().map_err(|_| BadAddress)?;
        if uri.authority().is_some_and(|it| it.as_str().contains('@')) {
            return Err(BadAddress);
        }
        let is_https = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(BadAddress),
        };
        let host = uri.host().ok_or(BadAddress)?.trim_matches(['[', ']']).to_owned();
        let port = uri.port_u16().unwrap_or(if is_https { 443 } else { 80 });
        Ok(Self { host, port, is_https, uri })
    }
}

/// Asks; the error says why there is nothing.
pub(super) async fn get(address: &Address, within: Duration) -> Result<Bytes, String> {
    match timeout(within, ask(address)).await {
        Ok(answer) => answer,
        Err(_) => Err(format!("no answer within {} ms", within.as_millis())),
    }
}

async fn ask(address: &Address) -> Result<Bytes, String> {
    let stream = TcpStream::connect((address.host.as_str(), address.port)).await;
    let stream = stream.map_err(|error| error.to_string())?;
    if !address.is_https {
        return exchange(address, stream).await;
    }
    let name = ServerName::try_from(address.host.clone()).map_err(|error| error.to_string())?;
    let connector = TlsConnector::from(client_config()?);
    let stream = connector.connect(name, stream).await.map_err(|error| error.to_string())?;
    exchange(address, stream).await
}

async fn exchange<S>(address: &Address, stream: S) -> Result<Bytes, String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let words = |error: hyper::Error| error.to_string();
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(words)?;
    let path = address.uri.path_and_query().map_or("/", |it| it.as_str());
    let host = address.uri.authority().map_or("", |it| it.as_str());
    let request = Request::get(path).header(HOST, host).header(ACCEPT, "application/json");
    let request = request.body(Empty::<Bytes>::new()).map_err(|error| error.to_string())?;
    let talking = tokio::spawn(connection);
    let answer = sender.send_request(request).await.map_err(words)?;
    if !answer.status().is_success() {
        return Err(format!("status {}", answer.status()));
    }
    let body = Limited::new(answer.into_body(), BODY_BYTES_MAX).collect().await;
    talking.abort();
    Ok(body.map_err(|error| error.to_string())?.to_bytes())
}

/// Trusts whom the system trusts; read once.
fn client_config() -> Result<Arc<ClientConfig>, String> {
    static CONFIG: OnceLock<Arc<ClientConfig>> = OnceLock::new();
    if let Some(config) = CONFIG.get() {
        return Ok(Arc::clone(config));
    }
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::clone(CONFIG.get_or_init(|| Arc::new(config))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_http_or_https_with_a_host() {
        let parts = |text| Address::parse(text).map(|it| (it.host, it.port, it.is_https)).ok();
        let parsed = |host: &str, port, is_https| Some((host.to_owned(), port, is_https));
        assert_eq!(parts("https://id.example.org/keys"), parsed("id.example.org", 443, true));
        assert_eq!(parts("http://127.0.0.1:9/k?x=1"), parsed("127.0.0.1", 9, false));
        assert_eq!(parts("http://[::1]:9/"), parsed("::1", 9, false));
        for text in
            ["", "file:///etc/keys", "id.example.org", "https://", "https://a:b@example.org/"]
        {
            assert_eq!(parts(text), None, "{text}");
        }
    }
}
