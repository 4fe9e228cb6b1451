//! JSON Web Tokens: each algorithm, each way of being wrong, and keys that a server publishes.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use onrush::config::{JwtAlgorithm, Secret, Settings};
use onrush_client::{Client, Code, Message};
use rcgen::{KeyPair, PKCS_ED25519, PKCS_RSA_SHA256};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::client::{Answer, World, request};
use crate::process::ServerProcess;
use crate::roles::bearer;

const SECRET: &str = "a-secret-of-thirty-two-bytes-or-more";
const READ: &str = "/api/v1/resources/queues";

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// The claims of somebody who may do everything for a minute, with these instead.
fn claims(other: Value) -> Value {
    let mut claims = json!({ "sub": "ada", "role": "admin", "exp": now_s() + 60 });
    for (name, value) in other.as_object().unwrap() {
        claims[name] = value.clone();
    }
    claims
}

fn sign(algorithm: Algorithm, kid: Option<&str>, key: &EncodingKey, claims: &Value) -> String {
    let header = Header { kid: kid.map(str::to_owned), ..Header::new(algorithm) };
    encode(&header, claims, key).unwrap()
}

fn hs256(claims: &Value) -> String {
    sign(Algorithm::HS256, None, &EncodingKey::from_secret(SECRET.as_bytes()), claims)
}

fn ed(pair: &KeyPair) -> EncodingKey {
    EncodingKey::from_ed_pem(pair.serialize_pem().as_bytes()).unwrap()
}

async fn world(change: impl FnOnce(&mut Settings)) -> World {
    World::with(|settings| {
        settings.auth.jwt_enabled = true;
        settings.auth.jwt_secret = Secret::new(SECRET);
        change(settings);
    })
    .await
}

async fn get(world: &World, token: &str) -> Answer {
    world.connect().await.ask_with("GET", READ, &bearer(token), "").await
}

async fn refusal(world: &World, token: &str) -> (u16, String) {
    let (status, text, _) = get(world, token).await.error();
    (status, text)
}

#[tokio::test]
async fn a_signed_token_is_taken_with_or_without_its_scheme() {
    let world = world(|_| {}).await;
    let token = hs256(&claims(json!({})));
    assert_eq!(get(&world, &token).await.status, 200);
    let mut wire = world.connect().await;
    let bare = format!("Authorization: {token}\r\n");
    assert_eq!(wire.ask_with("GET", READ, &bare, "").await.status, 200);
    assert_eq!(world.get(READ).await.error().1, "Authentication required");
}

#[tokio::test]
async fn each_way_of_being_wrong_is_told_apart() {
    let world = world(|settings| {
        settings.auth.jwt_issuer = "issuer".to_owned();
        settings.auth.jwt_audience = "onrush".to_owned();
    })
    .await;
    let good = json!({ "iss": "issuer", "aud": ["onrush", "other"] });
    let with = |name: &str, value: Value| {
        let mut claims = claims(good.clone());
        claims[name] = value;
        hs256(&claims)
    };
    assert_eq!(get(&world, &with("x", json!(1))).await.status, 200);
    let unauthorised = |text: &str| (401, text.to_owned());
    let expired = refusal(&world, &with("exp", json!(now_s() - 60))).await;
    assert_eq!(expired, unauthorised("Token has expired"));
    assert_eq!(get(&world, &with("exp", json!(now_s() - 10))).await.status, 200, "clocks differ");
    let early = refusal(&world, &with("nbf", json!(now_s() + 300))).await;
    assert_eq!(early, unauthorised("Token is not valid yet"));
    let issuer = refusal(&world, &with("iss", json!("other"))).await;
    assert_eq!(issuer, unauthorised("Invalid token issuer"));
    let audience = refusal(&world, &with("aud", json!("other"))).await;
    assert_eq!(audience, unauthorised("Invalid token audience"));
    let other = EncodingKey::from_secret(b"another secret of thirty-two bytes");
    let forged = sign(Algorithm::HS256, None, &other, &claims(good.clone()));
    assert_eq!(refusal(&world, &forged).await, unauthorised("Invalid token signature"));
    assert_eq!(refusal(&world, "no.token.this").await, unauthorised("Invalid token format"));
    let role = refusal(&world, &with("role", json!("stranger"))).await;
    assert_eq!(role, (403, "Insufficient permissions".to_owned()));
}

#[tokio::test]
async fn each_algorithm_is_taken_with_its_own_key_and_no_other() {
    let rsa = KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap();
    let rsa_key = EncodingKey::from_rsa_pem(rsa.serialize_pem().as_bytes()).unwrap();
    let rs256 = sign(Algorithm::RS256, None, &rsa_key, &claims(json!({})));
    let pair = KeyPair::generate_for(&PKCS_ED25519).unwrap();
    let eddsa = sign(Algorithm::EdDSA, None, &ed(&pair), &claims(json!({})));
    // A public key is no secret: whoever signs with it as if it were one is nobody.
    let as_secret = EncodingKey::from_secret(rsa.public_key_pem().as_bytes());
    let confused = sign(Algorithm::HS256, None, &as_secret, &claims(json!({})));
    for (algorithm, key, good) in [
        (JwtAlgorithm::Rs256, rsa.public_key_pem(), &rs256),
        (JwtAlgorithm::Auto, rsa.public_key_pem(), &rs256),
        (JwtAlgorithm::EdDsa, pair.public_key_pem().replace('\n', "\\n"), &eddsa),
        (JwtAlgorithm::Auto, pair.public_key_pem(), &eddsa),
    ] {
        let world = world(|settings| {
            settings.auth.jwt_algorithm = algorithm;
            settings.auth.jwt_public_key = key;
        })
        .await;
        assert_eq!(get(&world, good).await.status, 200, "{algorithm:?}");
        assert_eq!(get(&world, &confused).await.status, 401, "{algorithm:?}");
        let by_secret = get(&world, &hs256(&claims(json!({})))).await.status;
        assert_eq!(by_secret == 200, algorithm == JwtAlgorithm::Auto, "{algorithm:?}");
        for other in [&rs256, &eddsa] {
            assert_eq!(get(&world, other).await.status == 200, other == good, "{algorithm:?}");
        }
    }
}

/// A key server that publishes what it is told, and counts how often it is asked.
#[derive(Clone, Default)]
struct KeyServer {
    set: Arc<Mutex<String>>,
    asked: Arc<Mutex<u64>>,
}

impl KeyServer {
    async fn start(&self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/keys", listener.local_addr().unwrap());
        let this = self.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                this.answer(stream).await;
            }
        });
        url
    }

    /// The same, encrypted, with a certificate of its own that is written into `file`.
    async fn start_encrypted(&self, file: &Path) -> String {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        std::fs::write(file, made.cert.pem()).unwrap();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://localhost:{}/keys", listener.local_addr().unwrap().port());
        let this = self.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                // Whoever does not trust it hangs up.
                if let Ok(stream) = acceptor.accept(stream).await {
                    this.answer(stream).await;
                }
            }
        });
        url
    }

    async fn answer(&self, mut stream: impl AsyncRead + AsyncWrite + Unpin) {
        let mut head = [0; 4096];
        let read = stream.read(&mut head).await.unwrap();
        assert!(head[..read].starts_with(b"GET /keys HTTP/1.1\r\n"));
        *self.asked.lock().unwrap() += 1;
        let set = self.set.lock().unwrap().clone();
        let answer = format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{set}",
            set.len()
        );
        stream.write_all(answer.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
    }

    fn publish(&self, keys: &[(&str, &KeyPair)]) {
        let keys = keys.iter().map(|(kid, pair)| published(kid, pair));
        *self.set.lock().unwrap() = json!({ "keys": keys.collect::<Vec<_>>() }).to_string();
    }

    fn asked(&self) -> u64 {
        *self.asked.lock().unwrap()
    }
}

/// A public key as key servers publish it.
fn published(kid: &str, pair: &KeyPair) -> Value {
    let raw = pair.public_key_raw();
    if pair.algorithm() == &PKCS_ED25519 {
        return json!({ "kty": "OKP", "crv": "Ed25519", "kid": kid, "x": base64_url(raw) });
    }
    // DER: a sequence of the modulus and the exponent.
    let (sequence, _) = der(raw);
    let (modulus, rest) = der(sequence);
    let (exponent, _) = der(rest);
    let [n, e] = [modulus, exponent].map(|it| base64_url(it.strip_prefix(&[0]).unwrap_or(it)));
    json!({ "kty": "RSA", "alg": "RS256", "use": "sig", "kid": kid, "n": n, "e": e })
}

/// The content of the first element, and what is behind it.
fn der(bytes: &[u8]) -> (&[u8], &[u8]) {
    let short = usize::from(bytes[1]);
    let (len, at) = match short {
        0..0x80 => (short, 2),
        _ => {
            let end = 2 + (short & 0x7F);
            (bytes[2..end].iter().fold(0, |len, byte| len << 8 | usize::from(*byte)), end)
        }
    };
    bytes[at..].split_at(len)
}

fn base64_url(bytes: &[u8]) -> String {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for part in bytes.chunks(3) {
        let mut whole = [0; 3];
        whole[..part.len()].copy_from_slice(part);
        let bits = u32::from(whole[0]) << 16 | u32::from(whole[1]) << 8 | u32::from(whole[2]);
        for at in 0..=part.len() {
            text.push(DIGITS[(bits >> (18 - 6 * at) & 63) as usize] as char);
        }
    }
    text
}

#[tokio::test]
async fn an_unknown_key_is_taken_once_its_server_publishes_it() {
    let keys = KeyServer::default();
    let (old, new) = (
        KeyPair::generate_for(&PKCS_ED25519).unwrap(),
        KeyPair::generate_for(&PKCS_ED25519).unwrap(),
    );
    keys.publish(&[("old", &old)]);
    let url = keys.start().await;
    let world = world(|settings| {
        settings.auth.jwt_algorithm = JwtAlgorithm::EdDsa;
        settings.auth.jwt_jwks_url = url;
        // So often may a key server be asked that has not what is looked for.
        settings.auth.jwt_jwks_refresh_s = 5;
    })
    .await;
    let by_old = sign(Algorithm::EdDSA, Some("old"), &ed(&old), &claims(json!({})));
    let by_new = sign(Algorithm::EdDSA, Some("new"), &ed(&new), &claims(json!({})));
    assert_eq!(get(&world, &by_old).await.status, 200);
    assert_eq!(get(&world, &by_old).await.status, 200);
    assert_eq!(keys.asked(), 1, "known keys are kept");
    assert_eq!(refusal(&world, &by_new).await, (401, "Unknown signing key".to_owned()));
    keys.publish(&[("new", &new)]);
    for _ in 0..600 {
        if get(&world, &by_new).await.status == 200 {
            assert_eq!(get(&world, &by_old).await.status, 401, "a withdrawn key is none");
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the new key was never found");
}

#[tokio::test]
async fn published_keys_of_every_kind_are_taken_over_an_encrypted_connection() {
    let (keys, folder) = (KeyServer::default(), tempfile::tempdir().unwrap());
    let rsa = KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap();
    let pair = KeyPair::generate_for(&PKCS_ED25519).unwrap();
    let other = KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap();
    keys.publish(&[("r", &rsa), ("e", &pair)]);
    let trusted = folder.path().join("trusted.pem");
    let url = format!("auth.jwt_jwks_url={}", keys.start_encrypted(&trusted).await);
    let rs256 = |kid, pair: &KeyPair| {
        let key = EncodingKey::from_rsa_pem(pair.serialize_pem().as_bytes()).unwrap();
        sign(Algorithm::RS256, kid, &key, &claims(json!({})))
    };
    let eddsa = sign(Algorithm::EdDSA, Some("e"), &ed(&pair), &claims(json!({})));
    let tokens = [
        (rs256(Some("r"), &rsa), 200),
        (rs256(None, &rsa), 200),
        (eddsa, 200),
        (rs256(Some("r"), &other), 401),
        (rs256(Some("e"), &rsa), 401),
    ];
    let settings = ["auth.jwt_enabled=true", "auth.jwt_algorithm=auto", &url];
    let nobody = folder.path().join("nobody.pem");
    std::fs::write(
        &nobody,
        rcgen::generate_simple_self_signed(["x".to_owned()]).unwrap().cert.pem(),
    )
    .unwrap();
    for (roots, is_trusted) in [(&trusted, true), (&nobody, false)] {
        let place = folder.path().join(if is_trusted { "a" } else { "b" });
        std::fs::create_dir(&place).unwrap();
        let environment = [("SSL_CERT_FILE", roots.as_path())];
        let mut server = ServerProcess::spawn_within(&environment, "error", &place, &settings);
        server.listening().await;
        let url = server.http_url();
        let address = url.trim_start_matches("http://").trim_end_matches('/');
        for (token, status) in &tokens {
            let mut stream = TcpStream::connect(address).await.unwrap();
            let asked =
                request("GET", READ, &format!("{}Connection: close\r\n", bearer(token)), "");
            stream.write_all(&asked).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            let expected = if is_trusted { *status } else { 401 };
            assert!(answer.starts_with(&format!("HTTP/1.1 {expected} ")), "{token}: {answer}");
        }
    }
}

#[tokio::test]
async fn beside_a_key_in_the_settings_published_ones_are_taken_from_the_first_token_on() {
    let keys = KeyServer::default();
    let (own, published) = (
        KeyPair::generate_for(&PKCS_ED25519).unwrap(),
        KeyPair::generate_for(&PKCS_ED25519).unwrap(),
    );
    keys.publish(&[("a", &published)]);
    let url = keys.start().await;
    let world = world(|settings| {
        settings.auth.jwt_algorithm = JwtAlgorithm::EdDsa;
        settings.auth.jwt_public_key = own.public_key_pem();
        settings.auth.jwt_jwks_url = url;
    })
    .await;
    for (kid, pair) in [(Some("a"), &published), (None, &published), (None, &own)] {
        let token = sign(Algorithm::EdDSA, kid, &ed(pair), &claims(json!({})));
        assert_eq!(get(&world, &token).await.status, 200, "{kid:?}");
    }
    let by_nobody = KeyPair::generate_for(&PKCS_ED25519).unwrap();
    let forged = sign(Algorithm::EdDSA, Some("a"), &ed(&by_nobody), &claims(json!({})));
    assert_eq!(refusal(&world, &forged).await, (401, "Invalid token signature".to_owned()));
}

#[tokio::test]
async fn keys_are_fetched_again_when_they_are_old_and_kept_while_their_server_is_away() {
    let keys = KeyServer::default();
    let pair = KeyPair::generate_for(&PKCS_ED25519).unwrap();
    keys.publish(&[("a", &pair)]);
    let url = keys.start().await;
    let world = world(|settings| {
        settings.auth.jwt_algorithm = JwtAlgorithm::Auto;
        settings.auth.jwt_jwks_url = url;
        settings.auth.jwt_jwks_refresh_s = 1;
    })
    .await;
    let token = sign(Algorithm::EdDSA, Some("a"), &ed(&pair), &claims(json!({})));
    assert_eq!(get(&world, &token).await.status, 200);
    for nothing in ["no keys at all", r#"{"keys":[]}"#] {
        *keys.set.lock().unwrap() = nothing.to_owned();
        let before = keys.asked();
        // The second one is asked for when the first one has been looked at.
        while keys.asked() < before + 2 {
            assert_eq!(get(&world, &token).await.status, 200, "what was fetched stays good");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

#[tokio::test]
async fn a_server_that_could_check_no_token_does_not_start() {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = Settings::default();
    settings.server.http_addr = "127.0.0.1:0".parse().unwrap();
    settings.server.tcp_addr = "127.0.0.1:0".parse().unwrap();
    settings.server.data_dir = folder.path().to_owned();
    settings.auth.jwt_enabled = true;
    let error = onrush::server::Server::start(&settings).await.err().unwrap().to_string();
    assert!(error.contains("auth.jwt_secret"), "{error}");
}

#[tokio::test]
async fn who_pushed_is_known_after_the_failover_log_too() {
    let world = world(|_| {}).await;
    let ada = bearer(&hs256(&claims(json!({}))));
    let mut wire = world.connect().await;
    let mut hold = async |enabled: bool| {
        let (path, body) =
            ("/api/v1/system/maintenance", json!({ "enabled": enabled }).to_string());
        assert_eq!(wire.ask_with("POST", path, &ada, &body).await.status, 200);
    };
    hold(true).await;
    let body = json!({ "items": [{ "queue": "q", "payload": 1 }] }).to_string();
    let mut other = world.connect().await;
    let pushed = other.ask_with("POST", "/api/v1/push", &ada, &body).await;
    assert_eq!(pushed.json()["messages"][0]["status"], "buffered", "{pushed:?}");
    hold(false).await;
    let path = "/api/v1/pop/queue/q?wait=true&timeout=60000";
    let popped = other.ask_with("GET", path, &ada, "").await.json();
    assert_eq!(popped["messages"][0]["producerSub"], "ada", "{popped}");
}

#[tokio::test]
async fn who_pushed_over_the_binary_protocol_is_known_and_a_connection_ends_with_its_token() {
    let world = world(|settings| settings.auth.jwt_clock_skew_s = 0).await;
    let addr = world.server.tcp_addr().to_string();
    let token = hs256(&claims(json!({ "sub": "tcp", "exp": now_s() + 4 })));
    let client = Client::builder().addr(&addr).token(&token).retries(0).connect().await.unwrap();
    client.queue("q").push([Message::json(&json!(1))]).await.unwrap();
    let ada = bearer(&hs256(&claims(json!({}))));
    let mut wire = world.connect().await;
    let popped = wire.ask_with("GET", "/api/v1/pop/queue/q", &ada, "").await.json();
    assert_eq!(popped["messages"][0]["producerSub"], "tcp", "{popped}");
    let popped = client.queue("q").pop().group("g").await.unwrap();
    assert_eq!(popped.messages[0].producer(), Some("tcp"));
    let page = client.queue("q").messages().await.unwrap();
    assert_eq!(page.messages[0].producer.as_str(), "tcp");
    for _ in 0..600 {
        match client.ping().await {
            Ok(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            Err(error) => {
                assert_eq!(error.code(), Some(Code::Unauthenticated), "{error:?}");
                return;
            }
        }
    }
    panic!("the connection outlived its token");
}

#[tokio::test]
async fn nobody_waits_for_messages_longer_than_their_token_lasts() {
    let world = world(|settings| settings.auth.jwt_clock_skew_s = 0).await;
    let addr = world.server.tcp_addr().to_string();
    let token = hs256(&claims(json!({ "exp": now_s() + 4 })));
    let client = Client::builder().addr(&addr).token(&token).retries(0).connect().await.unwrap();
    let queue = client.queue("q");
    let hour = Duration::from_secs(3600);
    let over_tcp = queue.pop().wait(hour);
    let over_tcp = async {
        // At the very end it is told why, or that there is nothing.
        match over_tcp.send().await {
            Ok(popped) => popped.len(),
            Err(error) => {
                assert_eq!(error.code(), Some(Code::Unauthenticated), "{error:?}");
                0
            }
        }
    };
    let waits = async |path: &str| {
        let mut wire = world.connect().await;
        wire.ask_with("GET", path, &bearer(&token), "").await.status
    };
    let over_http = waits("/api/v1/pop/queue/q?wait=true&timeout=3600000");
    let discovered = waits("/api/v1/pop?namespace=n&wait=true&timeout=3600000");
    let all = async { tokio::join!(over_tcp, over_http, discovered) };
    let patience = Duration::from_secs(120);
    let all = tokio::time::timeout(patience, all).await.expect("they end with the token");
    assert_eq!(all, (0, 204, 204));
}

#[tokio::test]
async fn who_pushed_is_what_the_token_says_and_survives_restart_and_burial() {
    let world = world(|settings| settings.auth.jwt_algorithm = JwtAlgorithm::Hs256).await;
    let (ada, bob, nobody) = (
        hs256(&claims(json!({}))),
        hs256(&claims(json!({ "sub": "bob" }))),
        hs256(&claims(json!({ "sub": null }))),
    );
    let body = json!({ "items": [{ "queue": "q", "payload": 1, "producerSub": "eve" }] });
    for token in [&ada, &bob, &nobody] {
        let mut wire = world.connect().await;
        let pushed = wire.ask_with("POST", "/api/v1/push", &bearer(token), &body.to_string()).await;
        assert_eq!(pushed.status, 201);
    }
    let world = world.restart().await;
    let path = "/api/v1/pop/queue/q?batch=10&consumerGroup=g";
    let popped = world.connect().await.ask_with("GET", path, &bearer(&ada), "").await.json();
    let messages = popped["messages"].as_array().unwrap();
    let subs: Vec<&Value> = messages.iter().map(|message| &message["producerSub"]).collect();
    assert_eq!(subs, [&json!("ada"), &json!("bob"), &Value::Null]);
    let bury = json!({
        "transactionId": messages[1]["transactionId"],
        "partitionId": messages[1]["partitionId"],
        "leaseId": messages[1]["leaseId"],
        "status": "dlq",
        "consumerGroup": "g",
    });
    let mut wire = world.connect().await;
    let acked = wire.ask_with("POST", "/api/v1/ack", &bearer(&ada), &bury.to_string()).await;
    assert_eq!(acked.status, 200, "{acked:?}");
    let world = world.restart().await;
    let dead =
        world.connect().await.ask_with("GET", "/api/v1/dlq?queue=q", &bearer(&ada), "").await;
    let dead = dead.json();
    assert_eq!(dead["messages"][0]["producerSub"], "bob", "{dead}");
}

#[tokio::test]
async fn who_commits_a_transaction_or_a_cycle_is_who_pushed_its_messages() {
    let world = world(|_| {}).await;
    let (ada, bob) = (hs256(&claims(json!({}))), hs256(&claims(json!({ "sub": "bob" }))));
    let ask = async |token: &str, method: &str, path: &str, body: &Value| {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        world.connect().await.ask_with(method, path, &bearer(token), &body).await
    };
    let push = json!({ "queue": "q", "payload": 1, "producerSub": "eve" });
    let transaction = json!({ "operations": [{ "type": "push", "items": [push] }] });
    for path in ["/api/v1/transaction", "/queen/api/v1/transaction"] {
        assert_eq!(ask(&ada, "POST", path, &transaction).await.json()["success"], true);
    }
    let client = Client::builder().addr(&world.server.tcp_addr().to_string()).token(&bob);
    let client = client.retries(0).connect().await.unwrap();
    let by_bob = client.transaction().push(&client.queue("q"), [Message::json(&json!(2))]);
    by_bob.commit().await.unwrap();
    let query = json!({ "name": "n", "source_queue": "q", "config_hash": "h" });
    let query = ask(&ada, "POST", "/streams/v1/queries", &query).await.json()["query_id"].clone();
    let popped = ask(&ada, "GET", "/api/v1/pop/queue/q?batch=10", &Value::Null).await.json();
    let subs = |popped: &Value| -> Vec<Value> {
        popped["messages"].as_array().unwrap().iter().map(|it| it["producerSub"].clone()).collect()
    };
    assert_eq!(subs(&popped), ["ada", "ada", "bob"]);
    let cycle = json!({ "query_id": query, "partition_id": popped["partitionId"], "ack": null,
        "push_items": [{ "queue": "sink", "payload": 1, "producerSub": "eve" }] });
    let done = ask(&bob, "POST", "/streams/v1/cycle", &cycle).await.json();
    assert_eq!(done["success"], true, "{done}");
    let sunk = ask(&ada, "GET", "/api/v1/pop/queue/sink", &Value::Null).await.json();
    assert_eq!(subs(&sunk), ["bob"]);
    let world = world.restart().await;
    let path = "/api/v1/messages?queue=q";
    let listed = world.connect().await.ask_with("GET", path, &bearer(&ada), "").await.json();
    assert_eq!(subs(&listed), ["bob", "ada", "ada"], "newest first");
}
