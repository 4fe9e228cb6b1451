//! Echo, counter, router, and keys and values.

use serde_json::{Map, Value, json};

use crate::process::native::toolkit::{Desk, Fault};

/// Returns the message; to a process that sent it, it goes back.
pub(super) fn echo(desk: &mut Desk<'_>) -> Result<Value, Fault> {
    let body = desk.body.clone();
    if desk.sender().is_some() && body.get("echoed").is_none() {
        let mut back = body.clone();
        if let Value::Object(fields) = &mut back {
            fields.insert("echoed".into(), Value::Bool(true));
        }
        desk.send(Some("$sender"), back);
    }
    Ok(body)
}

/// Adds 1, or what the message says.
pub(super) fn counter(desk: &mut Desk<'_>) -> Result<Value, Fault> {
    let sum = desk.number("count")? + desk.whole("add").unwrap_or(1);
    desk.put("count", &json!(sum))?;
    Ok(json!(sum))
}

/// Sends the message on: to all of `to`, a text or a list; else to where `rules`, a state key, say
/// for its `action`, or for `*`.
pub(super) fn router(desk: &mut Desk<'_>) -> Result<Value, Fault> {
    let mut body = match desk.body.clone() {
        Value::Object(fields) => fields,
        other => Map::from_iter([("value".to_owned(), other)]),
    };
    let to = match body.remove("to") {
        Some(to) => to,
        None => {
            let rules = desk.get("rules")?.unwrap_or(Value::Null);
            let action = body.get("action").and_then(Value::as_str).unwrap_or("*");
            let rule = rules.get(action).or_else(|| rules.get("*"));
            rule.cloned().unwrap_or(Value::Null)
        }
    };
    let targets: Vec<String> = match to {
        Value::String(target) => vec![target],
        Value::Array(all) => all.iter().filter_map(|it| it.as_str().map(str::to_owned)).collect(),
        _ => Vec::new(),
    };
    if targets.is_empty() {
        return Err(Fault::Says("no rule says where this message goes".into()));
    }
    for target in &targets {
        desk.send(Some(target), Value::Object(body.clone()));
    }
    Ok(json!({ "routed": targets.len() }))
}

/// `{"op": "set" | "get" | "delete" | "scan", "key", "value"}`.
pub(super) fn kv(desk: &mut Desk<'_>) -> Result<Value, Fault> {
    let key = desk.text("key").unwrap_or_default().to_owned();
    match desk.text("op") {
        Some("set") => {
            let value = desk.body.get("value").cloned().unwrap_or(Value::Null);
            desk.put(&key, &value)?;
            Ok(value)
        }
        Some("get") => Ok(desk.get(&key)?.unwrap_or(Value::Null)),
        Some("delete") => {
            desk.remove(&key)?;
            Ok(Value::Null)
        }
        Some("scan") => Ok(Value::Object(desk.scan(&key)?.into_iter().collect())),
        _ => Err(Fault::Says("op must be set, get, delete or scan".into())),
    }
}
