//! One message becomes many, and many come back.

use serde_json::{Value, json};

use crate::process::native::toolkit::{Desk, Fault};

/// `{"targets": […]}` sends each a message; `{"count": n, "class": "c", "prefix": "p"}` sends to
/// `c/p1` … `c/pn`; `{"count": n, "target": "…"}` sends n messages to one. What comes back from
/// processes is counted under `back`. A message with `answer` from a process is answered; an entry
/// without a target is made where a target is null.
pub(super) fn fan(desk: &mut Desk<'_>) -> Result<Value, Fault> {
    if desk.sender().is_some() {
        if desk.body.get("answer").is_some() {
            let got = desk.number("got")? + 1;
            desk.put("got", &json!(got))?;
            let n = desk.body.get("n").cloned().unwrap_or(Value::Null);
            desk.send(Some("$sender"), json!({ "n": n, "got": got }));
            return Ok(json!({ "got": got }));
        }
        let back = desk.number("back")? + 1;
        desk.put("back", &json!(back))?;
        let sum = desk.number("sum")? + desk.whole("n").unwrap_or(0);
        desk.put("sum", &json!(sum))?;
        return Ok(json!({ "back": back, "n": desk.whole("n") }));
    }
    let targets: Vec<Option<String>> = match desk.body.get("targets") {
        Some(Value::Array(all)) => {
            all.iter().map(|target| target.as_str().map(str::to_owned)).collect()
        }
        _ => {
            // One more than may be sent is refused as well as any number.
            let most = i64::try_from(desk.entries_max()).unwrap_or(i64::MAX).saturating_add(1);
            let count = desk.whole("count").unwrap_or(0).clamp(0, most);
            let one = desk.text("target").map(str::to_owned);
            let class = desk.text("class").unwrap_or(desk.call.class).to_owned();
            let prefix = desk.text("prefix").unwrap_or("leaf").to_owned();
            let of = |n: i64| one.clone().or_else(|| Some(format!("{class}/{prefix}{n}")));
            (1..=count).map(of).collect()
        }
    };
    for (at, target) in targets.iter().enumerate() {
        let body = json!({ "n": at + 1, "answer": true });
        desk.send(target.as_deref(), body);
    }
    Ok(json!({ "sent": targets.len() }))
}

/// `{"laps": l, "size": s}` at `…/0` sends a token round the processes 0 … s-1 of its class.
pub(super) fn ring(desk: &mut Desk<'_>) -> Result<Value, Fault> {
    let seen = desk.number("seen")? + 1;
    desk.put("seen", &json!(seen))?;
    let size = desk.whole("size").unwrap_or(1).max(1);
    let laps = desk.whole("laps").unwrap_or(1);
    let at = desk.whole("at").unwrap_or(0);
    if at >= size * laps {
        return Ok(json!({ "done": at }));
    }
    let next = format!("{}/{}", desk.call.class, (at + 1) % size);
    desk.send(Some(&next), json!({ "size": size, "laps": laps, "at": at + 1 }));
    Ok(json!({ "at": at }))
}
