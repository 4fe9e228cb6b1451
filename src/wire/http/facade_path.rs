//! Paths of processes as HyperBEAM has them, read: `/{id}~process@1.0/compute&slot=3/results/data`.
//!
//! A path is a list of steps; a step is a name with parameters behind `&`, and a parameter may say of which
//! type it is behind a `+`. In: a method and a path, or a body. Out: what is asked of which process, and the
//! controls among its parameters. Pure. Called by `route` and `facade`.

use std::borrow::Cow;
use std::collections::BTreeMap;

use hyper::Method;
use serde_json::{Map, Value};

use crate::wire::auth::role::Level;
use crate::wire::http::status::Failure;
use crate::wire::http::table::{READ_ONLY, READ_WRITE};
use crate::wire::http::url;

/// What a path may have behind a process's id.
const DEVICE: &str = "~process@1.0";

/// Most parameters of a request.
const PARAMETERS_MAX: usize = 64;

/// What is asked for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Verb {
    /// A process is made.
    Spawn,
    /// A message, or a slot, is pushed.
    Push,
    /// A message is put into the log.
    Schedule,
    /// The log is read.
    ReadSchedule,
    /// How far the log goes.
    Current,
    /// What became of a slot, or of the last one that is evaluated.
    Compute,
    /// What becomes of the newest message.
    Now,
    /// What a message would come to.
    Try,
}

/// A request of this kind.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct Ask<'a> {
    pub(super) verb: Verb,
    /// The process's id, as the path has it but decoded; empty for [`Verb::Spawn`].
    pub(super) process: Cow<'a, str>,
    /// Parameters of its last step, not decoded.
    pub(super) parameters: &'a str,
    /// What of the answer is wanted, not decoded.
    pub(super) below: &'a str,
}

impl Ask<'_> {
    /// Who may.
    pub(super) fn level(&self) -> Level {
        match self.verb {
            Verb::Spawn | Verb::Push | Verb::Schedule | Verb::Try => READ_WRITE,
            Verb::ReadSchedule | Verb::Current | Verb::Compute | Verb::Now => READ_ONLY,
        }
    }
}

/// What a path asks for, where it is one of these.
pub(super) fn find<'a>(method: &Method, path: &'a str) -> Option<Ask<'a>> {
    let (is_post, is_get) = (method == Method::POST, method == Method::GET);
    if !is_post && !is_get {
        return None;
    }
    let (first, steps) = split(path.strip_prefix('/')?, '/');
    if steps.is_empty() {
        let (name, parameters) = split(first, '&');
        let process = Cow::Borrowed("");
        let is_spawn = name == "push" && is_post;
        return is_spawn.then_some(Ask { verb: Verb::Spawn, process, parameters, below: "" });
    }
    let (step, below) = split(steps, '/');
    let (name, parameters) = split(step, '&');
    let verb = match (name, below) {
        ("push", "") => Verb::Push,
        ("schedule", "") if is_post => Verb::Schedule,
        ("schedule", "") => Verb::ReadSchedule,
        ("slot", "current") if is_get => Verb::Current,
        ("compute", _) => Verb::Compute,
        ("now", _) => Verb::Now,
        ("as=execution", _) => Verb::Try,
        _ => return None,
    };
    let (parameters, below) = match verb {
        Verb::Try => {
            let (name, parameters) = split(below, '&');
            (name == "compute").then_some((parameters, ""))?
        }
        _ => (parameters, below),
    };
    let decoded = url::segment(first).ok()?;
    if decoded == "api" || decoded.is_empty() {
        return None;
    }
    if decoded == DEVICE {
        let process = Cow::Borrowed("");
        let is_spawn = verb == Verb::Push && is_post;
        return is_spawn.then_some(Ask { verb: Verb::Spawn, process, parameters, below });
    }
    let process = match decoded {
        Cow::Borrowed(text) => Cow::Borrowed(text.strip_suffix(DEVICE).unwrap_or(text)),
        Cow::Owned(text) => match text.strip_suffix(DEVICE) {
            Some(id) => Cow::Owned(id.to_owned()),
            None => Cow::Owned(text),
        },
    };
    Some(Ask { verb, process, parameters, below })
}

/// A text before and behind the first of a character; nothing is behind where there is none.
fn split(text: &str, at: char) -> (&str, &str) {
    text.split_once(at).unwrap_or((text, ""))
}

/// The parameters of a request, by name.
#[derive(Debug, Default)]
pub(super) struct Parameters(BTreeMap<String, Value>);

impl Parameters {
    /// Of a path and of a query. What the path says, counts first.
    pub(super) fn read(path: &str, query: &str) -> Result<Self, Failure> {
        let mut found = Self::default();
        for pair in path.split('&').chain(query.split('&')).filter(|pair| !pair.is_empty()) {
            if found.0.len() == PARAMETERS_MAX {
                let failure = Failure::malformed("the request has too many parameters");
                return Err(failure.limit(PARAMETERS_MAX as u64));
            }
            let (name, value) = split(pair, '=');
            let (name, value) = (url::segment(name)?, url::segment(value)?);
            found.add(&name, Value::String(value.into_owned()));
        }
        Ok(found)
    }

    fn add(&mut self, name: &str, value: Value) {
        self.0.entry(plain(name).to_owned()).or_insert(value);
    }

    /// Takes controls out of a body; what was said before counts first.
    pub(super) fn take_controls(&mut self, body: &mut Map<String, Value>) {
        let names: Vec<String> = body.keys().filter(|it| is_control(plain(it))).cloned().collect();
        for name in names {
            if let Some(value) = body.remove(&name) {
                self.add(&name, value);
            }
        }
    }

    /// A whole number, or a text that is one.
    ///
    /// # Errors
    /// A refusal that names it.
    pub(super) fn number(&self, name: &'static str) -> Result<Option<u64>, Failure> {
        let number = match self.0.get(name) {
            None => return Ok(None),
            Some(Value::String(text)) => text.parse().ok(),
            Some(other) => other.as_u64(),
        };
        let refused = || Failure::value(format!("{name} must be a whole number"));
        number.map(Some).ok_or_else(refused)
    }

    /// Controls of a push in the words of ours.
    pub(super) fn controls(&self) -> Map<String, Value> {
        let mut controls = Map::new();
        for (name, ours) in CONTROLS {
            if let Some(value) = self.0.get(name).filter(|_| !ours.is_empty()) {
                controls.insert(ours.into(), value.clone());
            }
        }
        let is_async = |value: &Value| value == &Value::Bool(true) || value == "true";
        if self.0.get("async").is_some_and(is_async) {
            controls.entry("pushMode").or_insert("async".into());
        }
        controls
    }

    /// All of them, as the fields of a message.
    pub(super) fn into_fields(self) -> Map<String, Value> {
        self.0.into_iter().collect()
    }
}

/// Controls, and what they are called in a push of ours.
const CONTROLS: [(&str, &str); 11] = [
    ("slot", ""),
    ("async", ""),
    ("push-mode", "pushMode"),
    ("result-depth", "resultDepth"),
    ("max-depth", "maxDepth"),
    ("max-hops", "maxHops"),
    ("max-messages", "maxMessages"),
    ("timeout-ms", "timeoutMs"),
    ("transaction-id", "transactionId"),
    ("await", "await"),
    ("strict", "strict"),
];

fn is_control(name: &str) -> bool {
    CONTROLS.iter().any(|(control, _)| *control == name)
}

/// A name without the type that it may have behind it.
fn plain(name: &str) -> &str {
    split(name, '+').0
}

/// A body without what it is wrapped in: where it has an object as its `body`, that is the message, and what
/// stands beside it says how it is pushed.
pub(super) fn unwrapped(mut body: Map<String, Value>) -> Map<String, Value> {
    let kind = body.get("type").cloned();
    match body.remove("body") {
        Some(Value::Object(mut inner)) => {
            if let Some(kind) = kind {
                inner.entry("type").or_insert(kind);
            }
            inner
        }
        Some(other) => {
            body.insert("body".into(), other);
            body
        }
        None => body,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn paths_are_read_step_by_step() {
        let ask = |verb, process: &'static str, parameters, below| {
            Some(Ask { verb, process: process.into(), parameters, below })
        };
        for (method, path, expected) in [
            (Method::POST, "/push", ask(Verb::Spawn, "", "", "")),
            (Method::POST, "/~process@1.0/push", ask(Verb::Spawn, "", "", "")),
            (Method::POST, "/c%2Fk~process@1.0/push", ask(Verb::Push, "c/k", "", "")),
            (Method::POST, "/c%2Fk/push", ask(Verb::Push, "c/k", "", "")),
            (Method::GET, "/c%2Fk/push&slot=4", ask(Verb::Push, "c/k", "slot=4", "")),
            (Method::POST, "/id~process@1.0/schedule", ask(Verb::Schedule, "id", "", "")),
            (Method::GET, "/id%7Eprocess%401.0/schedule", ask(Verb::ReadSchedule, "id", "", "")),
            (Method::GET, "/id/slot/current", ask(Verb::Current, "id", "", "current")),
            (
                Method::GET,
                "/id/compute&slot+integer=3/results/data",
                ask(Verb::Compute, "id", "slot+integer=3", "results/data"),
            ),
            (Method::POST, "/id/compute/results=3", ask(Verb::Compute, "id", "", "results=3")),
            (Method::GET, "/id/now/results/data", ask(Verb::Now, "id", "", "results/data")),
            (Method::GET, "/id/as=execution/compute&n=1", ask(Verb::Try, "id", "n=1", "")),
        ] {
            assert_eq!(find(&method, path), expected, "{method} {path}");
        }
        for path in
            ["/", "/push", "/api/push", "/health", "/id/slot/3", "/id/other", "//push", "/%ff/now"]
        {
            assert_eq!(find(&Method::GET, path), None, "{path}");
        }
        for path in ["/id/slot/current", "/id/as=execution/other", "/id/push/more"] {
            assert_eq!(find(&Method::POST, path), None, "{path}");
        }
        assert_eq!(find(&Method::DELETE, "/id/push"), None);
        assert_eq!(find(&Method::GET, "/~process@1.0/now"), None, "of no process");
    }

    #[test]
    fn parameters_are_joined_and_those_of_the_path_count_first() {
        let mut found = Parameters::read("slot+integer=3&max-depth=1", "slot=4&x=a%20b").unwrap();
        let mut body =
            json!({ "push-mode": "async", "slot": 5, "result-depth+integer": "2", "n": 1 });
        found.take_controls(body.as_object_mut().unwrap());
        assert_eq!(body, json!({ "n": 1 }), "the rest is the message");
        assert_eq!(found.number("slot").unwrap(), Some(3));
        let controls = json!({ "pushMode": "async", "resultDepth": "2", "maxDepth": "1" });
        assert_eq!(Value::Object(found.controls()), controls);
        assert_eq!(found.into_fields().get("x"), Some(&json!("a b")));
        let odd = Parameters::read("slot=x", "").unwrap();
        assert!(odd.number("slot").is_err());
        assert!(
            Parameters::read(&(0..65).map(|n| format!("a{n}&")).collect::<String>(), "").is_err()
        );
        let fast = Parameters::read("", "async=true").unwrap().controls();
        assert_eq!(Value::Object(fast), json!({ "pushMode": "async" }));
    }

    #[test]
    fn a_message_may_be_wrapped() {
        let unwrap = |body: Value| Value::Object(unwrapped(body.as_object().unwrap().clone()));
        let wrapped = json!({ "type": "Process", "body": { "module": "m" } });
        assert_eq!(unwrap(wrapped), json!({ "type": "Process", "module": "m" }));
        let eval = json!({ "action": "Eval", "body": "1+1" });
        assert_eq!(unwrap(eval.clone()), eval, "a text is the message's own");
        assert_eq!(unwrap(json!({ "body": { "n": 1 }, "x": 2 })), json!({ "n": 1 }));
    }
}
