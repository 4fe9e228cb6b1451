//! What `docs/postgres.md` says to type works as it stands there, and says what it should.

use onrush_client::{Message, QueueOptions};
use serde_json::{Value, json};

use crate::desk::{PATIENCE, clusters, objects, start};

const PAGE: &str = include_str!("../../docs/postgres.md");

/// The statements of all blocks of SQL on the page, in their order.
fn statements() -> Vec<String> {
    let blocks = PAGE.split("```sql\n").skip(1).filter_map(|rest| rest.split("```").next());
    let blocks = blocks.flat_map(|block| block.split_inclusive(";\n"));
    blocks.map(|it| it.trim().to_owned()).filter(|it| !it.is_empty()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_statement_of_the_page_works_and_those_with_an_answer_have_it() {
    let statements = statements();
    assert!(statements.len() > 12, "{statements:?}");
    for cluster in clusters() {
        let server = start(&cluster, |_| {}).await;
        let client = server.client().await;
        let orders = client.queue("orders");
        orders.config(QueueOptions::default()).sql_rows(true).create().await.unwrap();
        let order = |n| Message::json(&json!({ "item": if n < 102 { "tea" } else { "rice" } }));
        orders.partition("customer 7").push((0..104).map(order)).await.unwrap();
        client.queue("other").push([Message::json(&1)]).await.unwrap();
        let deadline = std::time::Instant::now() + PATIENCE;
        let count = "SELECT count(*) AS n FROM onrush.message_rows";
        while objects(&cluster, count)[0]["n"] != json!(104) {
            assert!(std::time::Instant::now() < deadline, "no rows come");
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        for statement in &statements {
            let (comment, query) = match statement.rsplit_once('\n') {
                Some((before, query)) if before.lines().all(|line| line.starts_with("--")) => {
                    (before, query)
                }
                _ => ("", statement.as_str()),
            };
            if !query.starts_with("SELECT") {
                cluster.sql("postgres", statement).unwrap();
                continue;
            }
            let found = objects(&cluster, query.trim_end_matches(';'));
            assert_eq!(Some(found.len()), expected(query), "{comment} {query}: {found:?}");
        }
        let analyst = "SET ROLE analyst; SELECT count(*) FROM onrush.messages('orders')";
        assert!(cluster.sql("postgres", analyst).unwrap().ends_with("104"));
        let one = "SELECT id FROM onrush.messages('orders', 'customer 7', 103)";
        let id = objects(&cluster, one)[0]["id"].clone();
        let of_the_api = orders_last_id(&client).await;
        assert_eq!(id, of_the_api);
        server.stop().await;
    }
}

/// How many rows a query of the page has here; one that nobody thought of fails the test.
fn expected(query: &str) -> Option<usize> {
    let counts = [
        ("SELECT queue, partition, seq, payload FROM onrush.messages;", 105),
        ("SELECT seq, time, payload FROM onrush.messages('orders');", 104),
        ("SELECT seq, payload->>'item'", 4),
        ("SELECT queue, partition, seq FROM onrush.messages WHERE id", 0),
        ("SELECT partition, count(*), max(time)", 1),
        ("SELECT seq, payload FROM onrush.message_rows WHERE payload @>", 102),
        ("SELECT shard, entries, seconds FROM onrush.projection WHERE", 0),
        ("SELECT coalesce(sum(entries), 0)", 1),
    ];
    counts.iter().find(|(begin, _)| query.starts_with(begin)).map(|(_, count)| *count)
}

async fn orders_last_id(client: &onrush_client::Client) -> Value {
    let popped = crate::look::peek(&client.queue("orders"), "g").await;
    json!(popped.last().unwrap().id.to_string())
}
