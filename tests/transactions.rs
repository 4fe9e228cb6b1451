//! Black box: transactions over the binary protocol, through the client.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests, outside #[test] functions; a panic is how a test fails"
)]

#[path = "support/server.rs"]
mod server;

use onrush_client::{AckOutcome, Client, Code, Error, Message, MessageStatus, Popped};
use server::TestServer;

async fn held(client: &Client, queue: &str, count: u32) -> Popped {
    let messages = (0..count).map(|number| Message::json(&number));
    client.queue(queue).push(messages).await.unwrap();
    client.queue(queue).pop().batch(100).send().await.unwrap()
}

async fn numbers(client: &Client, queue: &str) -> Vec<u32> {
    let popped = client.queue(queue).pop().batch(100).partitions(9).auto_ack(true).send().await;
    popped.unwrap().messages.iter().map(|message| message.json().unwrap()).collect()
}

fn code(error: &Error) -> Option<Code> {
    match error {
        Error::Refused(refusal) => refusal.code(),
        _ => None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn acks_and_pushes_stand_together() {
    let server = TestServer::start().await;
    let client = server.client().await;
    let held = held(&client, "a", 3).await;
    let (b, c) = (client.queue("b"), client.queue("c").partition("p"));
    let done = client
        .transaction()
        .ack(&held.messages)
        .push(&b, [Message::json(&1), Message::json(&2)])
        .push(&c, [Message::json(&3)])
        .commit()
        .await
        .unwrap();
    assert_eq!((done.acked, done.messages.len()), (3, 3));
    assert!(done.messages.iter().all(|it| matches!(it.status, MessageStatus::Pushed)));
    assert_eq!((numbers(&client, "b").await, numbers(&client, "c").await), (vec![1, 2], vec![3]));
    assert!(numbers(&client, "a").await.is_empty());
    // Once is once: what stands already is not done again.
    let again = client.transaction().ack(&held.messages).push(&b, [Message::json(&9)]);
    let refused = again.commit().await.unwrap_err();
    assert_eq!(code(&refused), Some(Code::LeaseExpired), "{refused}");
    assert!(numbers(&client, "b").await.is_empty());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_in_a_transaction_counts_and_one_that_is_refused_does_not() {
    let server = TestServer::start().await;
    let client = server.client().await;
    let first = held(&client, "a", 1).await;
    let b = client.queue("b");
    let duplicate = || Message::json(&1).transaction_id("x");
    b.push([duplicate()]).await.unwrap();
    let failing = client.transaction().settle(&first.messages, AckOutcome::Failed, "no luck");
    let refused = failing.push(&b, [duplicate()]).fail_on_duplicate().commit().await.unwrap_err();
    assert_eq!(code(&refused), Some(Code::DuplicateMessage), "{refused}");
    let failing = client.transaction().settle(&first.messages, AckOutcome::Failed, "no luck");
    let done = failing.push(&b, [duplicate(), Message::json(&2)]).commit().await.unwrap();
    assert!(matches!(done.messages[0].status, MessageStatus::Duplicate));
    assert_eq!(numbers(&client, "b").await, [1, 2]);
    let pop = client.queue("a").pop().wait(std::time::Duration::from_secs(30));
    let again = pop.send().await.unwrap();
    assert_eq!(again.messages[0].attempts, 1, "one of the two failures stands");
    let buried = client.transaction().settle(&again.messages, AckOutcome::DeadLetter, "never");
    assert_eq!(buried.commit().await.unwrap().dead_lettered, 1);
    assert_eq!(server.dead_letters("a").await.len(), 1);
    server.stop().await;
}
