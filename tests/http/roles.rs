//! Who may use which route, asked of every route that the description names.

use onrush::config::Secret;
use serde_json::Value;

use crate::client::World;

/// One operation of the description: method, path with its parameters filled in, and level.
pub(crate) async fn operations(world: &World, base: &str) -> Vec<(String, String, String)> {
    let description = world.get(&format!("{base}/openapi.json")).await;
    assert_eq!(description.status, 200);
    let description = description.json();
    let mut found = Vec::new();
    for (path, operations) in description["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            let level = operation["x-level"].as_str();
            let level = level.unwrap_or_else(|| panic!("{method} {path} has no level"));
            let filled = format!("{base}{}", path.replace(['{', '}'], ""));
            found.push((method.to_uppercase(), filled, level.to_owned()));
        }
    }
    found
}

#[tokio::test]
async fn every_route_of_the_description_exists_and_asks_for_a_token_unless_it_is_public() {
    let world = World::with(|settings| settings.server.token = Secret::new("s3cret")).await;
    for base in ["", "/queen"] {
        let operations = operations(&world, base).await;
        assert!(operations.len() > 20, "{operations:?}");
        for (method, path, level) in operations {
            let answer = world.ask(&method, &path, "").await;
            assert_eq!(answer.status == 401, level != "public", "{method} {path}: {answer:?}");
            let mut wire = world.connect().await;
            let token = "Authorization: Bearer s3cret\r\n";
            let answer = wire.ask_with(&method, &path, token, "").await;
            assert!(!matches!(answer.status, 401 | 403 | 405), "{method} {path}: {answer:?}");
            if answer.status == 404 {
                assert_ne!(answer.error().2, "route_not_found", "{method} {path}");
            }
        }
    }
}

#[tokio::test]
async fn the_description_is_openapi_3_1_and_public() {
    let world = World::with(|settings| settings.server.token = Secret::new("s3cret")).await;
    let description = world.get("/openapi.json").await.json();
    assert_eq!(description["openapi"], "3.1.0");
    assert_eq!(description["servers"][0]["url"], "/");
    let push = &description["paths"]["/api/v1/push"]["post"];
    assert_eq!(push["x-level"], "read-write");
    assert_eq!(push["operationId"], "push");
    let queue = &description["paths"]["/api/v1/resources/queues/{queue}"]["delete"];
    assert_eq!(queue["x-level"], "admin");
    assert_eq!(queue["parameters"][0]["name"], Value::from("queue"));
    let queen = world.get("/queen/openapi.json").await.json();
    assert_eq!(queen["servers"][0]["url"], "/queen");
}
