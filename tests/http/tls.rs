//! Both ports encrypted, and the certificate replaced under them.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use onrush::config::Settings;
use onrush_client::{Client, Message, Roots};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::client::{World, request};

/// Writes a new certificate with its key into `folder`.
fn issue(folder: &Path) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(folder.join("key.pem"), made.signing_key.serialize_pem()).unwrap();
    std::fs::write(folder.join("cert.pem"), made.cert.pem()).unwrap();
}

async fn world(folder: &Path) -> World {
    issue(folder);
    let text = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    World::with(|settings: &mut Settings| {
        settings.tls.cert_file = text("cert.pem");
        settings.tls.key_file = text("key.pem");
        settings.tls.reload_interval_ms = 50;
    })
    .await
}

/// An encrypted connection to `port` that trusts what is in the certificate file now.
async fn encrypted(port: u16, folder: &Path) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(folder.join("cert.pem")).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let stream = TcpStream::connect(("127.0.0.1", port)).await?;
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, stream).await
}

/// A client of the binary port that trusts what is in the certificate file now.
async fn client(world: &World, folder: &Path) -> Result<Client, onrush_client::Error> {
    let addr = format!("localhost:{}", world.server.tcp_addr().port());
    let roots = Roots::File(folder.join("cert.pem"));
    Client::builder().addr(&addr).tls(roots).retries(0).connect().await
}

#[tokio::test]
async fn http_is_spoken_over_tls_and_said_so_while_keys_are_agreed_on() {
    let folder = tempfile::tempdir().unwrap();
    let world = world(folder.path()).await;
    let port = world.server.http_addr().port();
    let mut stream = encrypted(port, folder.path()).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
    stream.write_all(&request("GET", "/livez", "Connection: close\r\n", "")).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 200"), "{:?}", String::from_utf8_lossy(&answer));
    let mut plain = world.connect().await;
    plain.send(&request("GET", "/livez", "", "")).await;
    let mut told = Vec::new();
    let _ = plain.stream.read_to_end(&mut told).await;
    assert!(!told.starts_with(b"HTTP"), "nothing is said in the clear");
}

#[tokio::test]
async fn the_binary_protocol_carries_messages_of_any_size_over_tls() {
    let folder = tempfile::tempdir().unwrap();
    let world = world(folder.path()).await;
    let client = client(&world, folder.path()).await.unwrap();
    let queue = client.queue("q");
    let payload = "x".repeat(700_000);
    let pushes = (0..12).map(|n| queue.push([Message::json(&json!({ "n": n, "pad": payload }))]));
    for pushed in futures(pushes).await {
        assert_eq!(pushed.unwrap().messages.len(), 1);
    }
    let mut seen = 0;
    while seen < 12 {
        let popped = queue.pop().batch(5).send().await.unwrap();
        assert!(!popped.is_empty(), "after {seen}");
        seen += popped.messages.len();
        client.ack(&popped.messages).await.unwrap();
    }
    // Waiting consumers are woken over an encrypted connection too.
    let pop = queue.pop().wait(Duration::from_secs(30));
    let (popped, pushed) = tokio::join!(pop.send(), queue.push([Message::json(&json!(1))]));
    pushed.unwrap();
    assert_eq!(popped.unwrap().messages.len(), 1);
}

/// All of them, side by side.
async fn futures<F>(pushes: impl Iterator<Item = F>) -> Vec<F::Output>
where
    F: IntoFuture,
    F::IntoFuture: Send + 'static,
    F::Output: Send + 'static,
{
    let running: Vec<_> = pushes.map(|push| tokio::spawn(push.into_future())).collect();
    let mut done = Vec::new();
    for task in running {
        done.push(task.await.unwrap());
    }
    done
}

#[tokio::test]
async fn a_new_certificate_is_taken_without_a_restart_and_a_bad_one_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let world = world(folder.path()).await;
    let held = client(&world, folder.path()).await.unwrap();
    let port = world.server.http_addr().port();
    issue(folder.path());
    let mut waited = 0;
    while encrypted(port, folder.path()).await.is_err() {
        waited += 1;
        assert!(waited < 600, "the new certificate never came into force");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    client(&world, folder.path()).await.unwrap();
    held.ping().await.expect("what was connected before stays so");
    std::fs::write(folder.path().join("key.pem"), "no key").unwrap();
    // Long enough for several looks; each must leave the old pair.
    for _ in 0..10 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        encrypted(port, folder.path()).await.expect("the old pair stays in force");
    }
}

#[tokio::test]
async fn whoever_does_not_trust_the_certificate_is_not_connected() {
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let world = world(folder.path()).await;
    issue(other.path());
    let refused = client(&world, other.path()).await.unwrap_err();
    assert!(refused.to_string().contains("certificate"), "{refused}");
    let addr = world.server.tcp_addr().to_string();
    let in_the_clear = Client::builder().addr(&addr).retries(0);
    assert!(in_the_clear.connect_timeout(Duration::from_secs(20)).connect().await.is_err());
}

#[tokio::test]
async fn a_pair_that_is_none_keeps_the_server_from_starting() {
    let folder = tempfile::tempdir().unwrap();
    issue(folder.path());
    let mut settings = Settings::default();
    settings.server.http_addr = "127.0.0.1:0".parse().unwrap();
    settings.server.tcp_addr = "127.0.0.1:0".parse().unwrap();
    settings.server.data_dir = folder.path().join("data");
    let cert = folder.path().join("cert.pem").to_str().unwrap().to_owned();
    (settings.tls.cert_file, settings.tls.key_file) = (cert.clone(), cert);
    let error = onrush::server::Server::start(&settings).await.err().unwrap().to_string();
    assert!(error.contains("private key"), "{error}");
}
