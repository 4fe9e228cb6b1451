//! The door itself: connections, limits, tokens, and paths that lead nowhere.

use onrush::config::Secret;
use serde_json::json;

use crate::client::{World, request};

#[tokio::test]
async fn a_connection_carries_many_requests_also_without_waiting_for_answers() {
    let world = World::new().await;
    let mut wire = world.connect().await;
    assert_eq!(wire.ask("GET", "/livez", "").await.status, 200);
    let push = |payload: u32| {
        let body = json!({ "items": [{ "queue": "q", "payload": payload }] }).to_string();
        request("POST", "/api/v1/push", "", &body)
    };
    wire.send(&[push(1), push(2), push(3)].concat()).await;
    for sequence in 0..3 {
        let json = wire.answer().await.json();
        assert_eq!(json["messages"][0]["sequence"], json!(sequence));
    }
}

#[tokio::test]
async fn a_body_in_chunks_is_taken() {
    let world = World::new().await;
    let mut wire = world.connect().await;
    wire.send(b"POST /api/v1/push HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    for part in [r#"{"items":[{"que"#, r#"ue":"q","payload":"in parts"}]}"#] {
        wire.send(format!("{:x}\r\n{part}\r\n", part.len()).as_bytes()).await;
    }
    wire.send(b"0\r\n\r\n").await;
    assert_eq!(wire.answer().await.status, 201);
}

#[tokio::test]
async fn a_body_over_its_limit_is_refused_before_it_comes() {
    let world = World::with(|settings| settings.http.body_bytes_max = 64 * 1024).await;
    let mut wire = world.connect().await;
    wire.send(b"POST /api/v1/push HTTP/1.1\r\nHost: t\r\nContent-Length: 65537\r\n\r\n").await;
    let answer = wire.answer().await;
    assert_eq!(answer.error().0, 413);
    assert_eq!(answer.error().1, "Payload exceeds maximum size");
    assert_eq!(answer.json()["limit"], json!(65_536));
    let mut wire = world.connect().await;
    wire.send(b"POST /api/v1/push HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    let chunk = format!("8000\r\n{}\r\n", "x".repeat(0x8000));
    wire.send(chunk.repeat(3).as_bytes()).await;
    assert_eq!(wire.answer().await.status, 413, "announced or not");
}

#[tokio::test]
async fn whoever_is_not_known_cannot_make_the_server_hold_a_body() {
    let world = World::with(|settings| settings.server.token = Secret::new("s3cret")).await;
    for path in ["/health", "/metrics", "/queen/livez"] {
        let mut wire = world.connect().await;
        let head = format!("GET {path} HTTP/1.1\r\nHost: t\r\nContent-Length: 4097\r\n\r\n");
        wire.send(head.as_bytes()).await;
        let answer = wire.answer().await;
        assert_eq!((answer.status, &answer.json()["limit"]), (413, &json!(4096)), "{path}");
        let mut wire = world.connect().await;
        let head = format!("GET {path} HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n");
        wire.send(head.as_bytes()).await;
        wire.send(format!("1001\r\n{}\r\n", "x".repeat(0x1001)).as_bytes()).await;
        assert_eq!(wire.answer().await.status, 413, "{path}, announced or not");
        let small = world.connect().await.ask_with("GET", path, "", "{}").await;
        assert_eq!(small.status, 200, "{path}: what others send along does no harm");
    }
}

#[tokio::test]
async fn a_refusal_of_a_large_body_can_be_read_by_who_sends_it_whole_first() {
    let world = World::with(|settings| settings.http.body_bytes_max = 64 * 1024).await;
    let body = format!(r#"{{"items":[{{"queue":"q","payload":"{}"}}]}}"#, "x".repeat(4 << 20));
    let answer = world.ask("POST", "/api/v1/push", &body).await;
    assert_eq!(answer.status, 413);
}

#[tokio::test]
async fn a_body_of_two_megabytes_in_small_items_is_taken() {
    let world = World::new().await;
    let items: Vec<_> = (0..20_000)
        .map(|n| json!({ "queue": "q", "payload": { "n": n, "pad": "0123456789".repeat(8) } }))
        .collect();
    let answer = world.push(json!(items)).await;
    assert_eq!(answer.status, 201);
    assert_eq!(answer.json()["messages"].as_array().unwrap().len(), 20_000);
}

#[tokio::test]
async fn bodies_that_are_made_to_break_parsers_are_refused() {
    let world = World::new().await;
    let deep = format!(
        r#"{{"items":[{{"queue":"q","payload":{}{}}}]}}"#,
        "[".repeat(100_000),
        "]".repeat(100_000)
    );
    let (status, error, _) = world.ask("POST", "/api/v1/push", &deep).await.error();
    assert_eq!(status, 400);
    assert!(error.contains("128"), "{error}");
    let mut wire = world.connect().await;
    let body = b"{\"items\":[{\"queue\":\"\xff\xfe\"}]}";
    let mut bytes = request("POST", "/api/v1/push", "", &" ".repeat(body.len()));
    let head = bytes.len() - body.len();
    bytes[head..].copy_from_slice(body);
    wire.send(&bytes).await;
    let (status, error, _) = wire.answer().await.error();
    assert_eq!(status, 400);
    assert!(error.contains("UTF-8"), "{error}");
}

#[tokio::test]
async fn a_head_over_its_limit_is_refused() {
    let world = World::new().await;
    let mut wire = world.connect().await;
    let header = format!("X-Large: {}\r\n", "x".repeat(64 * 1024));
    wire.send(&request("GET", "/livez", &header, "")).await;
    assert_eq!(wire.answer().await.status, 431);
}

#[tokio::test]
async fn with_a_token_only_health_and_figures_are_public() {
    let world = World::with(|settings| settings.server.token = Secret::new("s3cret")).await;
    for path in ["/health", "/livez", "/readyz", "/metrics", "/queen/health"] {
        assert_eq!(world.get(path).await.status, 200, "{path}");
    }
    let mut wire = world.connect().await;
    for (path, headers) in [
        ("/api/v1/pop/queue/q", ""),
        ("/queen/api/v1/pop/queue/q", "Authorization: Bearer wrong\r\n"),
        ("/api/v1/resources/queues", "Authorization: Basic s3cret\r\n"),
        ("/nowhere", ""),
        ("/queenhealth", ""),
    ] {
        let answer = wire.ask_with("GET", path, headers, "").await;
        assert_eq!(answer.error().0, 401, "{path}");
        assert_eq!(answer.error().2, "unauthenticated");
        assert!(answer.head.to_ascii_lowercase().contains("www-authenticate: bearer"));
    }
    let token = "Authorization: bearer s3cret\r\n";
    let body = r#"{"items":[{"queue":"q"}]}"#;
    assert_eq!(wire.ask_with("POST", "/api/v1/push", token, body).await.status, 201);
    assert_eq!(wire.ask_with("GET", "/queen/api/v1/pop/queue/q", token, "").await.status, 200);
}

#[tokio::test]
async fn paths_and_methods_that_lead_nowhere_are_told_in_json() {
    let world = World::new().await;
    for (method, path, status, code) in [
        ("GET", "/", 404, "route_not_found"),
        ("POST", "/api/v1/nothing", 404, "route_not_found"),
        ("GET", "/queen", 404, "route_not_found"),
        ("GET", "/queen/api/v1/nothing", 404, "route_not_found"),
        ("GET", "/api/v1/push", 405, "method_not_allowed"),
        ("DELETE", "/queen/api/v1/ack", 405, "method_not_allowed"),
        ("POST", "/health", 405, "method_not_allowed"),
        ("POST", "/queen/health", 405, "method_not_allowed"),
    ] {
        let (got, _, its) = world.ask(method, path, "").await.error();
        assert_eq!((got, its.as_str()), (status, code), "{method} {path}");
    }
}

#[tokio::test]
async fn a_request_under_way_is_finished_when_the_server_stops() {
    let world = World::new().await;
    let body = r#"{"items":[{"queue":"q","payload":"kept"}]}"#;
    let bytes = request("POST", "/api/v1/push", "", body);
    let (first, rest) = bytes.split_at(bytes.len() - 5);
    let mut wire = world.connect().await;
    wire.send(first).await;
    // A whole request on another connection: by its answer the first head has long been read.
    world.get("/health").await;
    let World { server, folder, .. } = world;
    let stopping = tokio::spawn(async move {
        server.stop(std::time::Duration::from_secs(60)).await;
        drop(folder);
    });
    wire.send(rest).await;
    assert_eq!(wire.answer().await.status, 201);
    assert!(wire.is_closed().await);
    stopping.await.unwrap();
}

/// Whether the system asks the other side of a connection from time to time whether it is still there:
/// the timer of the server's end, as the system tells it.
#[cfg(target_os = "linux")]
fn is_watched(server: std::net::SocketAddr, client: std::net::SocketAddr) -> bool {
    const KEEPALIVE: &str = "02:";
    let (server, client) = (format!(":{:04X}", server.port()), format!(":{:04X}", client.port()));
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let mut rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let row = rows.find(|row| row[1].ends_with(&server) && row[2].ends_with(&client));
    row.is_some_and(|row| row[5].starts_with(KEEPALIVE))
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn both_doors_ask_a_silent_client_whether_it_is_still_there() {
    let world = World::new().await;
    for addr in [world.server.http_addr(), world.server.tcp_addr()] {
        let client = tokio::net::TcpStream::connect(addr).await.unwrap();
        let own = client.local_addr().unwrap();
        let until = tokio::time::Instant::now() + std::time::Duration::from_secs(3);
        while !is_watched(addr, own) {
            assert!(tokio::time::Instant::now() < until, "{addr} does not watch its connections");
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    }
}
