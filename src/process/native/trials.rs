//! Small modules for trying things out, each with one habit.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use crate::process::native::toolkit::{Desk, Fault};

/// `{"start": true, "limit": n}`, then sends itself a ping until they are more than n.
pub(super) fn pingpong(desk: &mut Desk<'_>) -> Result<Value, Fault> {
    let limit = desk.whole("limit").unwrap_or(2);
    let Some(count) = desk.whole("ping") else {
        desk.send(Some("$self"), json!({ "ping": 1, "limit": limit }));
        return Ok(json!("Ping 1"));
    };
    if count > limit {
        return Ok(json!("Done."));
    }
    desk.send(Some("$self"), json!({ "ping": count + 1, "limit": limit }));
    Ok(json!(format!("Ping {}", count + 1)))
}

/// `{"start": "class/key"}` pings it; answers pings; says so when an answer comes.
pub(super) fn ping_server(desk: &mut Desk<'_>) -> Result<Value, Fault> {
    if let Some(target) = desk.text("start").map(str::to_owned) {
        desk.send(Some(&target), json!({ "action": "Ping" }));
        return Ok(json!("pinged"));
    }
    match desk.text("action") {
        Some("Ping") => {
            let from = desk.message.from.to_owned();
            desk.printed.push_str("ping\n");
            desk.send(Some("$sender"), json!({ "action": "Reply" }));
            Ok(json!(format!("ping from {from}")))
        }
        Some("Reply") => {
            if desk.body.get("answer").is_none() {
                desk.send(Some("$reply"), json!({ "got": "pong" }));
            }
            Ok(json!("GOT PONG"))
        }
        _ => Ok(desk.body.clone()),
    }
}

/// Puts nested things where they can be read by path.
pub(super) fn publisher(desk: &mut Desk<'_>) -> Result<Value, Fault> {
    desk.put("page", &json!({ "contentType": "text/html", "body": "<h1>Hello</h1>" }))?;
    desk.put("x", &json!("banana"))?;
    Ok(json!({ "deep": { "nested": [0, { "value": 4 }] } }))
}

/// Takes messages only from those in `accept`, a list in its state.
pub(super) fn guarded(desk: &mut Desk<'_>) -> Result<Value, Fault> {
    let accept = desk.get("accept")?.unwrap_or(Value::Null);
    let from = json!(desk.message.from);
    if !accept.as_array().is_some_and(|all| all.contains(&from)) {
        return Ok(json!("not trusted"));
    }
    let count = desk.number("count")? + 1;
    desk.put("count", &json!(count))?;
    Ok(json!(count))
}

/// Counts, but raises an error on `{"poison": true}`, after it has written and sent.
pub(super) fn faulty(desk: &mut Desk<'_>) -> Result<Value, Fault> {
    let count = desk.number("count")? + 1;
    desk.put("count", &json!(count))?;
    if desk.body.get("poison").is_some() {
        desk.send(Some("$self"), json!({ "never": true }));
        return Err(Fault::Says("poisoned".into()));
    }
    if desk.body.get("panic").is_some() {
        return Err(Fault::Says("asked to fail".into()));
    }
    Ok(json!(count))
}

/// Sleeps for `ms`, ten seconds at most, and then sends on to `to`.
pub(super) fn sleeper(desk: &mut Desk<'_>) -> Result<Value, Fault> {
    let ms = desk.whole("ms").unwrap_or(0).clamp(0, 10_000);
    // The one thing that guests never do: it stands in for code that takes long.
    std::thread::sleep(Duration::from_millis(ms as u64));
    if let Some(to) = desk.text("to").map(str::to_owned) {
        desk.send(Some(&to), json!({ "slept": ms }));
    }
    Ok(json!({ "slept": ms }))
}

/// Returns how often anybody has asked it since the server began: what code must not do, so that evaluating
/// anew has something to find.
pub(super) fn fickle(_: &mut Desk<'_>) -> Result<Value, Fault> {
    static ASKED: AtomicU64 = AtomicU64::new(0);
    Ok(json!(ASKED.fetch_add(1, Ordering::Relaxed)))
}
