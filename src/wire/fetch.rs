//! One request to a server elsewhere.
//!
//! In: an http or https address, and what is said. Out: its answer, within a time and a size. Redirects are
//! not followed: what is asked is where the settings, or a class, say. Called by `jwks` and `calls`.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper::header::{ACCEPT, CONTENT_TYPE, HOST, HeaderName, HeaderValue};
use hyper::{Method, Request, Uri};
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
pub(in crate::wire) struct BadAddress;

/// Where to ask.
#[derive(Clone, Debug)]
pub(in crate::wire) struct Address {
    host: String,
    port: u16,
    is_https: bool,
    uri: Uri,
}

impl Address {
    /// Reads an address. One with a user's name is none: nothing would be done with it, and its password
    /// would stand in the log.
    pub(in crate::wire) fn parse(text: &str) -> Result<Self, BadAddress> {
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

/// What is said.
#[derive(Debug, Default)]
pub(in crate::wire) struct Said {
    pub(in crate::wire) method: Method,
    pub(in crate::wire) headers: Vec<(HeaderName, HeaderValue)>,
    pub(in crate::wire) body: Bytes,
}

/// What came back.
#[derive(Debug)]
pub(in crate::wire) struct Answer {
    pub(in crate::wire) status: u16,
    pub(in crate::wire) content_type: Option<String>,
    pub(in crate::wire) body: Bytes,
}

/// Gets what is there; the error says why there is nothing.
pub(in crate::wire) async fn get(address: &Address, within: Duration) -> Result<Bytes, String> {
    let headers = vec![(ACCEPT, HeaderValue::from_static("application/json"))];
    let answer = ask(address, Said { headers, ..Said::default() }, within).await?;
    match answer.status {
        200..300 => Ok(answer.body),
        status => Err(format!("status {status}")),
    }
}

/// Asks; the error says why there is no answer.
pub(in crate::wire) async fn ask(
    address: &Address,
    said: Said,
    within: Duration,
) -> Result<Answer, String> {
    match timeout(within, reach(address, said)).await {
        Ok(answer) => answer,
        Err(_) => Err(format!("no answer within {} ms", within.as_millis())),
    }
}

async fn reach(address: &Address, said: Said) -> Result<Answer, String> {
    let stream = TcpStream::connect((address.host.as_str(), address.port)).await;
    let stream = stream.map_err(|error| error.to_string())?;
    if !address.is_https {
        return exchange(address, said, stream).await;
    }
    let name = ServerName::try_from(address.host.clone()).map_err(|error| error.to_string())?;
    let connector = TlsConnector::from(client_config()?);
    let stream = connector.connect(name, stream).await.map_err(|error| error.to_string())?;
    exchange(address, said, stream).await
}

async fn exchange<S>(address: &Address, said: Said, stream: S) -> Result<Answer, String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let words = |error: hyper::Error| error.to_string();
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(words)?;
    let path = address.uri.path_and_query().map_or("/", |it| it.as_str());
    let host = address.uri.authority().map_or("", |it| it.as_str());
    let request = Request::builder().method(said.method).uri(path).header(HOST, host);
    let request =
        said.headers.into_iter().fold(request, |it, (name, value)| it.header(name, value));
    let request = request.body(Full::new(said.body)).map_err(|error| error.to_string())?;
    let talking = AbortOnDrop(tokio::spawn(connection));
    let answer = sender.send_request(request).await.map_err(words)?;
    let status = answer.status().as_u16();
    let content_type = answer.headers().get(CONTENT_TYPE).and_then(|it| it.to_str().ok());
    let content_type = content_type.map(ToOwned::to_owned);
    let body = Limited::new(answer.into_body(), BODY_BYTES_MAX).collect().await;
    drop(talking);
    let body = body.map_err(|error| error.to_string())?.to_bytes();
    Ok(Answer { status, content_type, body })
}

/// Ends its task when whoever waits for it has gone.
struct AbortOnDrop<T>(tokio::task::JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
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
