//! The client with a token: what its role lets it do, and who it is to whoever pops.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jsonwebtoken::{EncodingKey, Header, encode};
use onrush::config::Secret;
use queen_mq::streams::{RunOptions, Stream};
use queen_mq::{Config, Queen};
use serde_json::json;

use crate::world::World;

const SECRET: &str = "a-secret-of-thirty-two-bytes-or-more";

fn token(sub: &str, role: &str) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let claims = json!({ "sub": sub, "role": role, "exp": now + 600 });
    encode(&Header::default(), &claims, &EncodingKey::from_secret(SECRET.as_bytes())).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_json_web_token_says_who_pushes_and_what_they_may() {
    let world = World::with(|settings| {
        settings.auth.jwt_enabled = true;
        settings.auth.jwt_secret = Secret::new(SECRET);
    })
    .await;
    let as_role = |role: &str| {
        let config = Config::new(world.url()).bearer_token(token("ada", role));
        Queen::connect(config).unwrap()
    };
    let nobody = world.queen.queue("q").push(1).await.unwrap_err();
    assert_eq!(nobody.status(), Some(401), "{nobody:?}");
    let reader = as_role("read-only");
    let refused = reader.queue("q").push(1).await.unwrap_err();
    assert_eq!(refused.status(), Some(403), "{refused:?}");
    let writer = as_role("read-write");
    writer.queue("q").push(1).await.unwrap();
    let popped = writer.queue("q").pop().await.unwrap();
    assert_eq!(popped[0].producer_sub.as_deref(), Some("ada"));
    let moved = writer.transaction().ack(&popped[0]).push("moved", 1).unwrap();
    assert!(moved.commit().await.unwrap().success);
    let moved = writer.queue("moved").pop().await.unwrap();
    assert_eq!(
        moved[0].producer_sub.as_deref(),
        Some("ada"),
        "a transaction pushes as somebody, too"
    );
    let stream = Stream::from(writer.queue("moved")).map(|it| it.data.clone());
    writer.queue("moved").push(2).await.unwrap();
    let stream = stream.to(writer.queue("sunk")).run(&writer, RunOptions::new("query"));
    let stream = stream.await.unwrap();
    let sunk = writer.queue("sunk").poll_timeout(Duration::from_secs(30)).pop().await.unwrap();
    assert_eq!(sunk[0].producer_sub.as_deref(), Some("ada"), "and so does a cycle of a query");
    stream.stop().await.unwrap();
    writer.queue("q").delete().await.expect_err("deleting is for admins");
    as_role("admin").queue("q").delete().await.unwrap();
    world.stop().await;
}
