//! Pages of other origins: which may ask, and what their browsers are told.

use onrush::config::Secret;

use crate::client::{Answer, World};

const ASKS: &str = "Access-Control-Request-Method: POST\r\n";

fn header<'a>(answer: &'a Answer, name: &str) -> Option<&'a str> {
    let lines = answer.head.lines().filter_map(|line| line.split_once(": "));
    lines.into_iter().find(|(it, _)| it.eq_ignore_ascii_case(name)).map(|(_, value)| value)
}

async fn world(origins: &str) -> World {
    World::with(|settings| {
        settings.http.cors_origins = origins.to_owned();
        settings.server.token = Secret::new("s3cret");
    })
    .await
}

#[tokio::test]
async fn a_preflight_of_an_allowed_origin_is_answered_without_a_token() {
    let world = world("https://ops.example").await;
    let mut wire = world.connect().await;
    for path in ["/api/v1/push", "/queen/api/v1/pop/queue/q", "/nowhere"] {
        let headers = format!("Origin: https://ops.example\r\n{ASKS}");
        let answer = wire.ask_with("OPTIONS", path, &headers, "").await;
        assert_eq!(answer.status, 204);
        let allowed = header(&answer, "access-control-allow-origin");
        assert_eq!(allowed, Some("https://ops.example"));
        assert!(header(&answer, "access-control-allow-methods").unwrap().contains("POST"));
        assert!(header(&answer, "access-control-allow-headers").unwrap().contains("Authorization"));
        assert_eq!(header(&answer, "access-control-max-age"), Some("86400"));
        assert_eq!(header(&answer, "vary"), Some("Origin"));
    }
    let other = format!("Origin: https://evil.example\r\n{ASKS}");
    let answer = wire.ask_with("OPTIONS", "/api/v1/push", &other, "").await;
    assert_eq!(header(&answer, "access-control-allow-origin"), None);
    assert_eq!(header(&answer, "access-control-allow-methods"), None);
}

#[tokio::test]
async fn every_verb_and_header_of_the_description_may_be_sent_by_allowed_pages() {
    let world = world("https://ops.example").await;
    let mut wire = world.connect().await;
    let described = world.get("/openapi.json").await.json();
    let (mut verbs, mut asked) = (std::collections::BTreeSet::new(), 0);
    for (path, of_path) in described["paths"].as_object().unwrap() {
        for (verb, route) in of_path.as_object().unwrap() {
            let verb = verb.to_uppercase();
            let names = route["parameters"].as_array().into_iter().flatten();
            let names = names.filter(|it| it["in"] == "header");
            let mut names: Vec<&str> = names.map(|it| it["name"].as_str().unwrap()).collect();
            names.extend(["Content-Type", "Authorization"]);
            let headers = format!(
                "Origin: https://ops.example\r\nAccess-Control-Request-Method: {verb}\r\n\
                 Access-Control-Request-Headers: {}\r\n",
                names.join(", ")
            );
            let answer =
                wire.ask_with("OPTIONS", &path.replace(['{', '}'], ""), &headers, "").await;
            let allows = |header_name: &str, value: &str| {
                let all = header(&answer, header_name).unwrap_or_default().split(", ");
                all.into_iter().any(|it| it.eq_ignore_ascii_case(value))
            };
            assert!(allows("access-control-allow-methods", &verb), "{verb} {path}: {answer:?}");
            for name in &names {
                assert!(allows("access-control-allow-headers", name), "{name} of {path}");
            }
            verbs.insert(verb);
            asked += 1;
        }
    }
    assert!(asked > 60 && verbs.contains("PUT"), "{asked} routes, {verbs:?}");
}

#[tokio::test]
async fn a_definition_can_be_put_by_an_allowed_page_that_says_which_version_it_knows() {
    let world = World::with(|settings| {
        settings.http.cors_origins = "https://ops.example".to_owned();
    })
    .await;
    let mut wire = world.connect().await;
    let path = "/api/v1/processes/counter";
    let headers = "Origin: https://ops.example\r\nAccess-Control-Request-Method: PUT\r\n\
                   Access-Control-Request-Headers: if-match, if-none-match\r\n";
    let asked = wire.ask_with("OPTIONS", path, headers, "").await;
    assert!(header(&asked, "access-control-allow-methods").unwrap().contains("PUT"));
    let allowed = header(&asked, "access-control-allow-headers").unwrap();
    assert!(allowed.contains("If-Match") && allowed.contains("If-None-Match"), "{allowed}");
    let body = r#"{"runtime":"native","module":"counter"}"#;
    let put = wire.ask_with("PUT", path, "Origin: https://ops.example\r\n", body).await;
    assert!(put.status < 300, "{put:?}");
    assert!(header(&put, "etag").is_some(), "{put:?}");
    assert!(header(&put, "access-control-expose-headers").unwrap().contains("ETag"));
}

#[tokio::test]
async fn answers_and_refusals_can_be_read_by_allowed_origins_only() {
    let world = world("https://ops.example").await;
    let mut wire = world.connect().await;
    let origin = "Origin: https://ops.example\r\n";
    let refused = wire.ask_with("GET", "/api/v1/resources/queues", origin, "").await;
    assert_eq!(refused.status, 401);
    assert_eq!(header(&refused, "access-control-allow-origin"), Some("https://ops.example"));
    let answered = wire.ask_with("GET", "/livez", "Origin: https://evil.example\r\n", "").await;
    assert_eq!(answered.status, 200);
    assert_eq!(header(&answered, "access-control-allow-origin"), None);
}

#[tokio::test]
async fn a_star_allows_every_origin_and_nothing_configured_allows_none() {
    let (open, closed) = (world("*").await, world("").await);
    let headers = format!("Origin: https://any.example\r\n{ASKS}");
    let answer = open.connect().await.ask_with("OPTIONS", "/api/v1/push", &headers, "").await;
    assert_eq!(header(&answer, "access-control-allow-origin"), Some("*"));
    let answer = closed.connect().await.ask_with("OPTIONS", "/api/v1/push", &headers, "").await;
    assert_eq!(answer.status, 401);
    assert_eq!(header(&answer, "access-control-allow-origin"), None);
}

#[tokio::test]
async fn a_page_of_another_origin_changes_nothing_on_a_server_that_asks_nobody() {
    let world = World::with(|settings| {
        settings.http.cors_origins = "https://ops.example".to_owned();
    })
    .await;
    let body = r#"{"items":[{"queue":"q","payload":1}]}"#;
    let mut wire = world.connect().await;
    for foreign in [
        "Origin: https://evil.example\r\n",
        "Origin: null\r\nContent-Type: text/plain\r\n",
        "Origin: http://test:8080\r\nSec-Fetch-Site: same-site\r\n",
        "Sec-Fetch-Site: cross-site\r\n",
    ] {
        let pushed = wire.ask_with("POST", "/api/v1/push", foreign, body).await;
        assert_eq!(pushed.error().0, 403, "{foreign}");
        assert_eq!(pushed.error().2, "forbidden");
        let path = "/queen/api/v1/pop/queue/q?autoAck=true";
        assert_eq!(wire.ask_with("GET", path, foreign, "").await.status, 403, "{foreign}");
        assert_eq!(wire.ask_with("GET", "/livez", foreign, "").await.status, 200);
    }
    assert_eq!(world.get("/api/v1/resources/queues").await.json()["queues"], serde_json::json!([]));
    for own in [
        "",
        "Origin: https://ops.example\r\nSec-Fetch-Site: cross-site\r\n",
        "Origin: http://TEST\r\nSec-Fetch-Site: same-origin\r\n",
        "Sec-Fetch-Site: none\r\n",
    ] {
        assert_eq!(wire.ask_with("POST", "/api/v1/push", own, body).await.status, 201, "{own}");
    }
}
