//! What whoever runs queues does over the binary port, through the client that users hold: messages looked
//! at and changed, dead letters listed, given back, pushed again and deleted.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    dead_code,
    reason = "helpers of tests, outside #[test] functions; a panic is how a test fails"
)]

#[path = "support/server.rs"]
mod server;

use std::future::IntoFuture;
use std::time::Duration;

use onrush_client::{
    AckOutcome, Client, Code, Error, Job, JobKind, JobState, LetterReason, Message, MessageId,
    MessageStanding, Popped, QueueOptions, Uuid,
};
use server::TestServer;
use tokio::time::Instant;

/// How long anything may take that is expected to happen; never how long it does take.
const PATIENCE: Duration = Duration::from_secs(60);

fn code(error: &Error) -> Code {
    error.code().unwrap_or_else(|| panic!("{error:?}"))
}

async fn push(client: &Client, partition: &str, texts: &[&str]) {
    let messages =
        texts.iter().map(|text| Message::bytes((*text).to_owned()).transaction_id(*text));
    let pushed = client.queue("q").partition(partition).push(messages).await.unwrap();
    assert!(pushed.is_complete());
}

async fn take(client: &Client, group: &str, most: u32) -> Popped {
    let pop = client.queue("q").pop().group(group).batch(most).partitions(10);
    pop.wait(PATIENCE).await.unwrap()
}

/// Two groups get all messages: one is done with them, the other buries them.
async fn buried_by_one_group(client: &Client, count: u32) -> Popped {
    let popped = take(client, "done", count).await;
    client.ack(&popped).await.unwrap();
    let popped = take(client, "bad", count).await;
    client.settle(&popped, AckOutcome::DeadLetter, "it broke").await.unwrap();
    popped
}

/// Waits until a job has ended, and shows it.
async fn ended(client: &Client, job: &Job) -> Job {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let jobs = client.jobs().await.unwrap();
        let now = jobs.into_iter().find(|it| it.id == job.id).unwrap();
        if now.state != JobState::Running {
            return now;
        }
        assert!(Instant::now() < deadline, "a job ends: {now:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn letters(client: &Client) -> usize {
    let page = client.queue("q").dead_letters().await.unwrap();
    assert_eq!(page.total, Some(page.letters.len() as u64));
    page.letters.len()
}

async fn texts(client: &Client, group: &str, most: u32) -> Vec<String> {
    let popped = take(client, group, most).await;
    client.ack(&popped).await.unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    popped.messages.iter().map(|it| text(it.bytes())).collect()
}

#[tokio::test]
async fn messages_are_listed_as_they_stand_page_by_page() {
    let server = TestServer::start().await;
    let client = server.client().await;
    push(&client, "a", &["1", "2", "3", "4"]).await;
    push(&client, "b", &["5"]).await;
    client.queue("other").push([Message::bytes("6")]).await.unwrap();
    let held = client.queue("q").partition("a").pop().group("g").batch(3).await.unwrap();
    client.ack(&held.messages[0]).await.unwrap();
    client.settle(&held.messages[1], AckOutcome::DeadLetter, "no").await.unwrap();

    let page = client.queue("q").partition("a").messages().await.unwrap();
    let shown: Vec<_> = page.messages.iter().map(|it| (it.seq, it.status)).collect();
    use MessageStanding::{Completed, DeadLetter, Pending, Processing};
    assert_eq!(shown, [(3, Pending), (2, Processing), (1, DeadLetter), (0, Completed)]);
    assert!(!page.has_more);
    let held_one = &page.messages[1];
    assert_eq!((held_one.queue.as_str(), held_one.partition_name.as_str()), ("q", "a"));
    assert_eq!((held_one.transaction_id.as_str(), held_one.groups), ("3", 1));
    assert_eq!(held_one.lease_until_ms, held.lease_until_ms);
    assert_eq!((page.messages[2].groups_done, page.messages[0].groups_done), (1, 0));

    let dead = client.queue("q").messages().status(DeadLetter).await.unwrap();
    assert_eq!(dead.messages.iter().map(|it| it.seq).collect::<Vec<_>>(), [1]);
    let (first, second) = (client.queue("q").messages().limit(3), client.queue("q").messages());
    let (first, second) = (first.await.unwrap(), second.skip(3).limit(3).await.unwrap());
    assert_eq!((first.messages.len(), first.has_more), (3, true));
    assert_eq!((second.messages.len(), second.has_more), (2, false));
    let all = client.messages().await.unwrap();
    assert_eq!(all.messages.len(), 6);
    let since = client.messages().from_ms(all.messages[0].time_ms + 1).await.unwrap();
    assert!(since.messages.is_empty(), "{since:?}");

    let missing = client.queue("none").messages().await.unwrap_err();
    assert_eq!(code(&missing), Code::QueueNotFound);
    for (list, field) in
        [(client.messages().limit(0), "limit"), (client.messages().skip(100_001), "skip")]
    {
        let refused = list.await.unwrap_err();
        assert!(
            matches!(refused, Error::Value { field: found, .. } if found == field),
            "{refused:?}"
        );
    }
    server.stop().await;
}

#[tokio::test]
async fn one_message_is_shown_with_its_payload_and_how_each_group_stands() {
    let server = TestServer::start().await;
    let client = server.client().await;
    let trace = Uuid::now_v7();
    let message = Message::json(&serde_json::json!({"n": 1})).transaction_id("t").trace_id(trace);
    client.queue("q").push([message.header("k", "v")]).await.unwrap();
    let popped = buried_by_one_group(&client, 1).await;
    let id = popped.messages[0].id;
    let of_place = client.message(id);
    let of_id = client.message_in(popped.messages[0].partition(), "t");
    let of_own_id = client.message_in(popped.messages[0].partition(), &id.to_string());
    for one in [&of_place, &of_id, &of_own_id] {
        let found = one.get().await.unwrap();
        assert_eq!((found.shown.seq, found.shown.transaction_id.as_str()), (0, "t"));
        assert_eq!(found.shown.trace_id, trace.into_bytes());
        assert!(!found.is_encrypted);
        let content = found.content.unwrap();
        assert_eq!(content.json::<serde_json::Value>().unwrap()["n"], 1);
        assert_eq!((content.is_json, content.trace_id), (true, Some(trace)));
        assert_eq!(content.headers, [("k".to_owned(), "v".into())]);
        let stand = |name: &str| {
            let group = found.groups.iter().find(|it| it.group.as_str() == name).unwrap();
            (group.status, group.error.as_str().to_owned())
        };
        assert_eq!(stand("done"), (MessageStanding::Completed, String::new()));
        assert_eq!(stand("bad"), (MessageStanding::DeadLetter, "it broke".to_owned()));
    }
    let (time_ms, partition, _) = id.parts();
    let nowhere = client.message(MessageId::new(time_ms, partition, 99).unwrap());
    assert_eq!(code(&nowhere.get().await.unwrap_err()), Code::MessageNotFound);
    assert_eq!(code(&nowhere.delete().await.unwrap_err()), Code::MessageNotFound);
    let unknown = client.message_in(partition, "unknown").get().await.unwrap_err();
    assert_eq!(code(&unknown), Code::MessageNotFound);
    let far = client.message_in(u32::MAX, "t").get().await.unwrap_err();
    assert_eq!(code(&far), Code::MessageNotFound);
    server.stop().await;
}

#[tokio::test]
async fn one_message_is_buried_given_back_and_deleted() {
    let server = TestServer::start().await;
    let client = server.client().await;
    push(&client, "a", &["1", "2"]).await;
    let first = client.queue("q").messages().await.unwrap().messages.pop().unwrap();
    let one = client.message_in(first.partition, "1");
    let nobody = one.bury("too early").await.unwrap_err();
    assert_eq!(code(&nobody), Code::MessageSettled, "no group has come yet");
    for group in ["x", "y"] {
        // A group that comes and gives everything back.
        let popped = take(&client, group, 2).await;
        client.settle(&popped, AckOutcome::Retry, "").await.unwrap();
    }
    let alive = one.retry().await.unwrap_err();
    assert_eq!(code(&alive), Code::MessageSettled);
    assert_eq!(one.clone().group("x").bury("bad for x").await.unwrap(), 1);
    assert_eq!(one.bury("bad for all").await.unwrap(), 1, "x has its letter");
    let page = client.queue("q").dead_letters().group("x").await.unwrap();
    let letter = &page.letters[0].letter;
    assert_eq!((letter.error.as_str(), letter.reason), ("bad for x", LetterReason::Asked));
    assert_eq!(letters(&client).await, 2);
    assert_eq!(texts(&client, "y", 9).await, ["2"]);
    assert_eq!(one.clone().group("y").retry().await.unwrap(), 1);
    assert_eq!(texts(&client, "y", 9).await, ["1"]);
    assert_eq!(letters(&client).await, 1, "that of x stays");

    one.delete().await.unwrap();
    assert_eq!(code(&one.get().await.unwrap_err()), Code::MessageNotFound);
    assert_eq!(texts(&client, "x", 9).await, ["2"]);
    assert_eq!(letters(&client).await, 0, "a message takes its letters with it");
    server.stop().await;
}

#[tokio::test]
async fn letters_are_listed_with_their_messages_and_come_again_to_their_group() {
    let server = TestServer::start().await;
    let client = server.client().await;
    push(&client, "a", &["1", "2", "3"]).await;
    let popped = buried_by_one_group(&client, 3).await;
    let page = client.queue("q").dead_letters().limit(2).await.unwrap();
    assert_eq!((page.letters.len(), page.total, page.has_more), (2, Some(3), true));
    let rest = client.dead_letters().skip(2).await.unwrap();
    assert_eq!((rest.letters.len(), rest.has_more), (1, false));
    let all = client.dead_letters().group("bad").await.unwrap();
    let mut found: Vec<_> = all.letters.iter().map(|it| it.letter.seq).collect();
    found.sort_unstable();
    assert_eq!(found, [0, 1, 2]);
    for it in &all.letters {
        let message = popped.messages.iter().find(|message| message.seq == it.letter.seq).unwrap();
        assert_eq!(it.content.as_ref().unwrap().payload, *message.bytes());
        assert_eq!(it.letter.time_ms, message.time_ms);
        assert_eq!(it.letter.error.as_str(), "it broke");
        assert_eq!((it.letter.group.as_str(), it.letter.queue.as_str()), ("bad", "q"));
        assert!(it.letter.failed_ms >= it.letter.time_ms);
    }
    let later = all.letters.iter().map(|it| it.letter.failed_ms).max().unwrap() + 1;
    assert!(client.dead_letters().from_ms(later).await.unwrap().letters.is_empty());
    assert_eq!(client.dead_letters().to_ms(later).await.unwrap().letters.len(), 3);
    assert!(client.dead_letters().group("done").await.unwrap().letters.is_empty());
    assert!(client.queue("none").dead_letters().await.unwrap().letters.is_empty());

    let dry = client.queue("q").redrive().dry_run(true).await.unwrap();
    assert_eq!((ended(&client, &dry).await.moved, letters(&client).await), (3, 3));
    let other = client.queue("q").redrive().error_contains("something else").await.unwrap();
    assert_eq!(ended(&client, &other).await.skipped, 3);
    let job = client.queue("q").redrive().group("bad").error_contains("broke").await.unwrap();
    assert_eq!((job.kind, job.queue.as_str()), (JobKind::Redrive, "q"));
    let done = ended(&client, &job).await;
    assert_eq!((done.state, done.moved), (JobState::Done, 3));
    assert_eq!(texts(&client, "bad", 9).await, ["1", "2", "3"]);
    assert_eq!(letters(&client).await, 0);
    assert_eq!(client.jobs().await.unwrap().first().map(|it| it.id), Some(job.id), "newest first");
    server.stop().await;
}

#[tokio::test]
async fn letters_are_pushed_again_elsewhere_deleted_and_a_job_is_stopped() {
    let server = TestServer::start().await;
    let client = server.client().await;
    let names: Vec<String> = (0..64).map(|number| number.to_string()).collect();
    push(&client, "a", &names.iter().map(String::as_str).collect::<Vec<_>>()).await;
    buried_by_one_group(&client, 64).await;
    let to = client.queue("repair").partition("p");
    let job = client.queue("q").requeue(&to).limit(1).await.unwrap();
    let done = ended(&client, &job).await;
    assert_eq!((done.kind, done.moved, done.limit), (JobKind::Requeue, 1, 1));
    let again = to.pop().batch(9).wait(PATIENCE).await.unwrap();
    assert_eq!((again.len(), letters(&client).await), (1, 63));
    let job = client.queue("q").delete_letters().limit(1).await.unwrap();
    assert_eq!(ended(&client, &job).await.moved, 1);
    assert_eq!(letters(&client).await, 62);

    // One a second at most, so that it is still running when it is stopped.
    let slow = client.queue("q").delete_letters().rate(1).await.unwrap();
    let stopped = client.cancel_job(slow.id).await.unwrap();
    assert_eq!((stopped.state, stopped.rate), (JobState::Cancelled, 1));
    assert!(stopped.moved < 62, "{stopped:?}");
    assert_eq!(letters(&client).await as u64, 62 - stopped.moved);
    assert_eq!(client.cancel_job(slow.id).await.unwrap(), stopped, "and stays so");
    assert_eq!(code(&client.cancel_job(4711).await.unwrap_err()), Code::JobNotFound);
    let missing = client.queue("none").redrive().await.unwrap_err();
    assert_eq!(code(&missing), Code::QueueNotFound);
    let long = client.queue("q").redrive().error_contains(&"x".repeat(1025)).await.unwrap_err();
    assert!(matches!(long, Error::Value { field: "error", max: 1024, .. }), "{long:?}");
    let fast = client.queue("q").redrive().rate(1_000_001).await.unwrap_err();
    assert!(matches!(fast, Error::Value { field: "rate", .. }), "{fast:?}");
    server.stop().await;
}

#[tokio::test]
async fn a_page_of_letters_ends_where_the_next_would_not_fit_a_frame() {
    let server = TestServer::start().await;
    let client = server.client().await;
    let large = |n: u8| Message::bytes(vec![n; 1 << 20]);
    for n in 0..20 {
        client.queue("q").push([large(n)]).await.unwrap();
    }
    let mut buried = 0;
    while buried < 20 {
        let popped = take(&client, "bad", 20).await;
        client.settle(&popped, AckOutcome::DeadLetter, "too large").await.unwrap();
        buried += popped.len();
    }
    let first = client.queue("q").dead_letters().await.unwrap();
    assert!((1..20).contains(&first.letters.len()), "{}", first.letters.len());
    assert_eq!((first.has_more, first.total), (true, Some(20)));
    let mut found = first.letters;
    while found.len() < 20 {
        let next = client.queue("q").dead_letters().skip(found.len() as u32).await.unwrap();
        assert!(!next.letters.is_empty());
        found.extend(next.letters);
    }
    let mut seen: Vec<u8> =
        found.iter().map(|it| it.content.as_ref().unwrap().payload[0]).collect();
    seen.sort_unstable();
    assert_eq!(seen, (0..20).collect::<Vec<u8>>());
    server.stop().await;
}

#[tokio::test]
async fn queues_are_listed_by_namespace_and_task_and_cleared() {
    let server = TestServer::start().await;
    let client = server.client().await;
    for (queue, namespace, task) in [("a", "shop", "mail"), ("b", "shop", ""), ("c", "", "mail")] {
        let config = client.queue(queue).config(QueueOptions::default());
        config.namespace(namespace).task(task).create().await.unwrap();
    }
    for partition in ["x", "y"] {
        let messages = [Message::bytes("1"), Message::bytes("2")];
        client.queue("a").partition(partition).push(messages).await.unwrap();
    }
    let names = async |namespace, task| {
        let queues = client.queues(namespace, task).await.unwrap();
        queues.iter().map(|it| it.queue.as_str().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names(None, None).await, ["c", "b", "a"], "newest first");
    assert_eq!(names(Some("shop"), None).await, ["b", "a"]);
    assert_eq!(names(None, Some("mail")).await, ["c", "a"]);
    assert_eq!(names(Some("shop"), Some("mail")).await, ["a"]);
    assert_eq!(names(Some(""), None).await, ["c"]);
    assert!(names(Some("none"), None).await.is_empty());

    let held = client.queue("a").partition("x").pop().group("g").await.unwrap();
    assert_eq!(held.len(), 1);
    let shown = client.queues(Some("shop"), Some("mail")).await.unwrap().remove(0);
    assert_eq!((shown.partitions, shown.total, shown.processing), (2, 4, 1));
    assert_eq!((shown.namespace.as_str(), shown.task.as_str()), ("shop", "mail"));
    assert_eq!(client.queue("a").partition("x").clear().await.unwrap(), 2);
    assert_eq!(client.queue("a").clear().await.unwrap(), 2);
    assert_eq!(client.queue("a").clear().await.unwrap(), 0);
    assert!(client.queue("a").pop().group("new").partitions(9).await.unwrap().is_empty());
    assert_eq!(code(&client.queue("none").clear().await.unwrap_err()), Code::QueueNotFound);
    server.stop().await;
}

#[tokio::test]
async fn a_pop_of_any_queue_asks_the_one_with_the_higher_priority_first() {
    let server = TestServer::start().await;
    let client = server.client().await;
    for (queue, priority) in [("low", 1), ("high", 9), ("other", 99)] {
        let config =
            client.queue(queue).config(QueueOptions { priority, ..QueueOptions::default() });
        let namespace = if queue == "other" { "elsewhere" } else { "shop" };
        config.namespace(namespace).task("mail").create().await.unwrap();
        client.queue(queue).push([Message::bytes(queue)]).await.unwrap();
    }
    let pop = || client.pop_any(Some("shop"), Some("mail")).batch(9).wait(PATIENCE);
    let mut came = Vec::new();
    for _ in 0..2 {
        let popped = pop().await.unwrap();
        assert_eq!(popped.len(), 1);
        came.push(popped.messages[0].queue().as_str().to_owned());
        client.ack(&popped).await.unwrap();
    }
    assert_eq!(came, ["high", "low"]);
    let none = client.pop_any(Some("shop"), None).await.unwrap();
    assert!(none.is_empty(), "{none:?}");
    // Who waits is told of what comes, also in a queue that comes later.
    let waiting = tokio::spawn(client.pop_any(None, Some("late")).wait(PATIENCE).into_future());
    let late = client.queue("late").config(QueueOptions::default());
    late.task("late").create().await.unwrap();
    client.queue("late").push([Message::bytes("at last")]).await.unwrap();
    let popped = waiting.await.unwrap().unwrap();
    assert_eq!(popped.messages[0].bytes().as_ref(), b"at last");
    assert_eq!(popped.messages[0].producer(), None);
    client.ack(&popped).await.unwrap();
    let nowhere = client.pop_any(None, None).await.unwrap_err();
    assert!(matches!(nowhere, Error::Value { .. }), "{nowhere:?}");
    server.stop().await;
}
