//! What the client can ask for and the server does not have: named here, and held to be so. Whoever
//! adds one of these routes finds this test failing, takes the line out and writes a flow for it.

use crate::world::World;

/// Method and path, as the client says them.
const ROUTES: &[(&str, &str)] = &[
    // Values by key.
    ("POST", "/api/v1/kv"),
    ("GET", "/api/v1/kv/space/key"),
    ("PUT", "/api/v1/kv/space/key"),
    ("DELETE", "/api/v1/kv/space/key"),
    // Locks and semaphores.
    ("POST", "/api/v1/locks"),
    // Messages that come later.
    ("POST", "/api/v1/timers"),
    ("GET", "/api/v1/timers/queue"),
    ("GET", "/api/v1/timers/queue/key"),
    ("DELETE", "/api/v1/timers/queue/key"),
    // Queues in memory only.
    ("POST", "/api/v1/ephemeral/configure"),
    ("POST", "/api/v1/ephemeral/push"),
    ("GET", "/api/v1/ephemeral/pop"),
    ("POST", "/api/v1/ephemeral/ack"),
    ("POST", "/api/v1/ephemeral/reset"),
    ("GET", "/api/v1/ephemeral/queues"),
    ("GET", "/api/v1/ephemeral/queues/queue/depth"),
    ("DELETE", "/api/v1/ephemeral/queue/queue"),
    // Reading without a group.
    ("POST", "/api/v1/fetch"),
    ("POST", "/api/v1/partitions/changed"),
    // Streams.
    ("POST", "/streams/v1/claim"),
    ("POST", "/streams/v1/state/partitions"),
];

/// Asks for a route under `/queen`; the whole answer.
async fn ask(world: &World, method: &str, path: &str) -> String {
    world.send(method, path, "{}").await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_server_does_not_have_it_refuses_by_name() {
    let world = World::start().await;
    for (method, path) in ROUTES {
        let answer = ask(&world, method, path).await;
        let is_missing = answer.starts_with("HTTP/1.1 404") && answer.contains("route_not_found");
        assert!(is_missing, "{method} {path} is there now: write its flow\n{answer}");
        println!("missing: {method} {path}");
    }
    println!("{} routes of the client are missing", ROUTES.len());
    // And one that is there, so that the question itself is known to be right.
    let there = ask(&world, "GET", "/api/v1/resources/queues").await;
    assert!(there.starts_with("HTTP/1.1 200"), "{there}");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_client_tells_that_a_route_is_missing_instead_of_guessing() {
    let world = World::start().await;
    let refused = world.queen.kv().get("space", "key").await.unwrap_err();
    assert_eq!(refused.status(), Some(404), "{refused:?}");
    assert!(world.queen.queue("orders").wait(false).pop().await.unwrap().is_empty());
    world.stop().await;
}
