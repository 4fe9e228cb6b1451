//! The description of the API for programs: OpenAPI 3.1, written from the table of routes.
//!
//! In: the labels of all routes, and where they are served. Out: a JSON document. `x-level` says who
//! may use a route: `public`, or the least role. Made once at start, so that asking for it costs
//! nothing. Called by `Api::pair`.

use bytes::Bytes;
use serde_json::{Map, Value, json};

use crate::wire::auth::role::Level;
use crate::wire::http::openapi_bodies::{self, Body};
use crate::wire::http::table::Label;

/// The document for the routes below `base`.
pub(super) fn document(labels: &[Label], base: &str) -> Bytes {
    let mut paths = Map::new();
    for label in labels {
        let path = paths.entry(label.path).or_insert_with(|| Value::Object(Map::new()));
        if let Value::Object(verbs) = path {
            verbs.insert(label.verb.word().to_owned(), operation(label));
        }
    }
    let document = json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Onrush",
            "description": "Queues of strictly ordered partitions. Refusals are \
                {\"error\", \"code\", \"retryable\"}.",
            "version": env!("CARGO_PKG_VERSION"),
        },
        "servers": [{ "url": base }],
        "paths": paths,
        "components": {
            "securitySchemes": { "bearer": { "type": "http", "scheme": "bearer" } },
            "schemas": { "Failure": failure() },
        },
    });
    document.to_string().into()
}

fn failure() -> Value {
    json!({
        "type": "object",
        "required": ["error", "code", "retryable"],
        "properties": {
            "error": { "type": "string", "description": "what is wrong, for people" },
            "code": { "type": "string", "description": "what is wrong, for programs" },
            "retryable": { "type": "boolean", "description": "whether sending it again can help" },
            "index": { "type": "integer", "description": "the item of the request" },
            "limit": { "type": "integer", "description": "the limit that was broken" },
        },
    })
}

fn operation(label: &Label) -> Value {
    let refusal = |description: &str| {
        let schema = json!({ "$ref": "#/components/schemas/Failure" });
        json!({
            "description": description,
            "content": { "application/json": { "schema": schema } },
        })
    };
    let mut responses = Map::new();
    responses.insert("2XX".to_owned(), json!({ "description": "done" }));
    if label.level != Level::Public {
        responses.insert("401".to_owned(), refusal("nobody known"));
        responses.insert("403".to_owned(), refusal("not allowed to this role"));
    }
    responses.insert("default".to_owned(), refusal("not done"));
    let mut operation = json!({
        "operationId": label.id,
        "summary": label.summary,
        "x-level": label.level.name(),
        "parameters": parameters(label.path),
        "responses": responses,
        "security": if label.level == Level::Public { json!([]) } else { json!([{ "bearer": [] }]) },
    });
    if let Some(Body { schema, is_required }) = openapi_bodies::of(label.id)
        && let Value::Object(fields) = &mut operation
    {
        let content = json!({ "application/json": { "schema": schema } });
        let body = json!({ "required": is_required, "content": content });
        fields.insert("requestBody".to_owned(), body);
    }
    operation
}

/// The parameters of a path, from its braces.
fn parameters(path: &str) -> Vec<Value> {
    let names = path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    let parameter = |name: &str| json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } });
    names.map(parameter).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::http::table;

    #[test]
    fn every_row_stands_in_the_document_with_its_level() {
        let labels = table::labels();
        let text = document(&labels, "/queen");
        let document: Value = serde_json::from_slice(&text).unwrap();
        assert_eq!(document["servers"][0]["url"], "/queen");
        for label in &labels {
            let operation = &document["paths"][label.path][label.verb.word()];
            assert_eq!(operation["x-level"], label.level.name(), "{}", label.id);
            assert_eq!(operation["operationId"], label.id);
        }
        let count = |path: &Value| path.as_object().unwrap().len();
        let paths = document["paths"].as_object().unwrap();
        assert_eq!(paths.values().map(count).sum::<usize>(), labels.len());
    }

    #[test]
    fn parameters_come_from_the_path() {
        let names = |path| parameters(path).iter().map(|it| it["name"].clone()).collect::<Vec<_>>();
        assert_eq!(names("/a/{queue}/b/{partition}"), ["queue", "partition"]);
        assert!(names("/a/b").is_empty());
    }
}
