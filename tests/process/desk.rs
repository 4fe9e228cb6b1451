//! What the tests ask of a server, in one line each.

use serde_json::{Value, json};

use crate::client::{Answer, World};

/// Defines a class of a native module.
pub(crate) async fn native(world: &World, class: &str, module: &str) {
    define(world, class, json!({ "runtime": "native", "module": module })).await;
}

pub(crate) async fn define(world: &World, class: &str, definition: Value) -> Value {
    let path = format!("/api/v1/processes/{class}");
    let answer = world.ask("PUT", &path, &definition.to_string()).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

/// Pushes a message; what else it says stands in `more`.
pub(crate) async fn push_with(world: &World, process: &str, message: Value, more: Value) -> Answer {
    let mut body = json!({ "message": message });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    world.post(&format!("/api/v1/processes/{process}/push"), &body).await
}

/// Pushes a message and waits for its cascade.
pub(crate) async fn push(world: &World, process: &str, message: Value) -> Value {
    let answer = push_with(world, process, message, json!({})).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

/// What became of a slot, once it is evaluated.
pub(crate) async fn slot(world: &World, process: &str, slot: u64) -> Value {
    let path = format!("/api/v1/processes/{process}/slots/{slot}?wait=30000");
    let answer = world.get(&path).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

/// How a process stands.
pub(crate) async fn process(world: &World, process: &str) -> Value {
    world.get(&format!("/api/v1/processes/{process}")).await.json()
}

/// A state key.
pub(crate) async fn state(world: &World, process: &str, key: &str) -> Value {
    let answer = world.get(&format!("/api/v1/processes/{process}/state/{key}")).await;
    if answer.status == 404 { Value::Null } else { answer.json() }
}

/// How a push stands once nothing of it is pending.
pub(crate) async fn complete(world: &World, push: &Value) -> Value {
    let id = push["push_id"].as_str().unwrap();
    let done = world.get(&format!("/api/v1/pushes/{id}?wait=60000&depth=99")).await.json();
    assert_eq!(done["complete"], true, "{done}");
    done
}

/// Messages of a push that were refused.
pub(crate) async fn letters(world: &World, push: &Value) -> Vec<Value> {
    let path = format!("/api/v1/letters?cascade={}", push.as_str().unwrap());
    world.get(&path).await.json()["letters"].as_array().unwrap().clone()
}

/// Waits until something is so.
pub(crate) async fn until<T: Future<Output = bool>>(is_so: impl Fn() -> T) {
    for _ in 0..1_200 {
        if is_so().await {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("it is never so");
}
