//! Servers elsewhere: a process asks one, and its answer is a message.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::client::World;
use crate::desk::{complete, define, letters, native, push, push_with, slot, state, until};

/// Asks what it is told to ask, and keeps what is answered.
const ASKER: &str = r#"
function handle(state, msg, ctx)
    if msg.ask then
        ctx.send({ target = msg.ask, reply_to = msg.answer_to, ttl_ms = msg.ttl_ms, delay_ms = msg.delay_ms, amount = 5 })
    else
        state.answers = (state.answers or 0) + 1
        state.last = msg.payload
    end
end
"#;

/// A status line and a body; nothing is no answer at all.
type Said = Option<(&'static str, &'static str)>;

/// A server that answers each request as it is told; without a word it hangs up.
#[derive(Clone)]
struct Elsewhere {
    url: String,
    /// What is answered: status line and body; the last one for all that follow.
    answers: Arc<Mutex<Vec<Said>>>,
    /// What was asked, from the first byte to the last.
    asked: Arc<Mutex<Vec<String>>>,
}

impl Elsewhere {
    async fn start(answers: &[Said]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self::on(listener, answers)
    }

    fn on(listener: TcpListener, answers: &[Said]) -> Self {
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let answers = Arc::new(Mutex::new(answers.iter().rev().copied().collect()));
        let server = Self { url, answers, asked: Arc::default() };
        let serving = server.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                serving.serve(stream).await;
            }
        });
        server
    }

    async fn serve(&self, mut stream: TcpStream) {
        let mut read = Vec::new();
        while !is_whole(&read) {
            if stream.read_buf(&mut read).await.unwrap_or(0) == 0 {
                return;
            }
        }
        self.asked.lock().push(String::from_utf8(read).unwrap());
        let answer = {
            let mut answers = self.answers.lock();
            if answers.len() > 1 { answers.pop().unwrap() } else { answers[0] }
        };
        let Some((status, body)) = answer else { return };
        let length = body.len();
        let head = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n{body}");
        // Whoever asked may be gone.
        let _ = stream.write_all(head.as_bytes()).await;
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().clone()
    }
}

fn is_whole(read: &[u8]) -> bool {
    let text = String::from_utf8_lossy(read).to_lowercase();
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
    body.len() >= length.map_or(0, |it| it.trim().parse().unwrap())
}

fn header(asked: &str, name: &str) -> String {
    let head = asked.split("\r\n\r\n").next().unwrap();
    let mut lines = head.lines().filter_map(|line| line.split_once(": "));
    lines.find(|(key, _)| key.eq_ignore_ascii_case(name)).unwrap().1.to_owned()
}

async fn asker(world: &World, effects: Value) {
    let class = json!({ "runtime": "luau", "module": ASKER, "effects": effects });
    define(world, "asker", class).await;
}

#[tokio::test]
async fn pv_22_a_server_elsewhere_is_asked_until_it_answers_and_its_answer_comes_once() {
    let world = World::new().await;
    let busy = Some(("503 Service Unavailable", ""));
    let server = Elsewhere::start(&[None, busy, Some(("200 OK", r#"{"paid":true}"#))]).await;
    asker(&world, json!([server.url])).await;
    let done = push(&world, "asker/a", json!({ "ask": server.url })).await;
    assert_eq!((&done["complete"], &done["status"]), (&json!(true), &json!("ok")), "{done}");
    assert_eq!(done["stats"]["messages"], 2, "what was pushed, and the answer: {done}");
    assert_eq!(slot(&world, "asker/a", 0).await["outbox"][0]["status"], "called");
    let answer = slot(&world, "asker/a", 1).await;
    assert_eq!(answer["parent"], slot(&world, "asker/a", 0).await["message_id"], "{answer}");
    let last = state(&world, "asker/a", "last").await;
    assert_eq!((&last["status"], &last["body"]), (&json!(200), &json!({ "paid": true })), "{last}");
    assert_eq!(last["call"], format!("POST {}", server.url));
    assert_eq!(state(&world, "asker/a", "answers").await, 1);
    let asked = server.asked();
    assert_eq!(asked.len(), 3, "{asked:?}");
    for one in &asked {
        assert!(one.starts_with("POST /hook HTTP/1.1\r\n") && one.ends_with(r#"{"amount":5}"#));
        assert_eq!(header(one, "idempotency-key"), header(&asked[0], "idempotency-key"));
    }
    // Nothing is left that would be asked again.
    let world = world.restart().await;
    let other = push(&world, "asker/a", json!({ "ask": format!("GET {}?x=1", server.url) })).await;
    assert_eq!(other["status"], "ok", "{other}");
    assert_eq!(server.asked().len(), 4);
    assert!(server.asked()[3].starts_with("GET /hook?x=1 HTTP/1.1\r\n"));
    assert_ne!(header(&server.asked()[3], "idempotency-key"), header(&asked[0], "idempotency-key"));
}

#[tokio::test]
async fn pv_22_what_is_to_be_asked_outlives_the_server() {
    let world = World::new().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let url = format!("http://{address}/hook");
    asker(&world, json!([format!("http://{address}/")])).await;
    native(&world, "counter", "counter").await;
    let ask = json!({ "ask": url, "answer_to": "counter/a" });
    let begun = push_with(&world, "asker/a", ask, json!({ "await": "slot" })).await.json();
    let world = world.restart().await;
    let listener = TcpListener::bind(address).await.unwrap();
    let server = Elsewhere::on(listener, &[Some(("404 Not Found", "no such hook"))]);
    let done = complete(&world, &begun).await;
    assert_eq!((&done["status"], &done["stats"]["messages"]), (&json!("ok"), &json!(2)), "{done}");
    let answers = world.get("/api/v1/processes/counter/a/slots").await.json();
    let answer = &answers["slots"][0];
    assert_eq!(answer["message"]["status"], 404, "an answer too: {answer}");
    assert_eq!(answer["message"]["body"], "no such hook");
    assert_eq!(answer["from"], "process:asker/a");
    assert_eq!(server.asked().len(), 1);
}

#[tokio::test]
async fn a_class_asks_only_the_servers_that_it_names() {
    let world = World::new().await;
    let server = Elsewhere::start(&[Some(("200 OK", "1"))]).await;
    asker(&world, json!([server.url])).await;
    let other = server.url.replace("/hook", "/admin");
    for ask in [other.clone(), format!("{}/../admin", server.url), "https://a.example/".into()] {
        let done = push(&world, "asker/a", json!({ "ask": ask })).await;
        assert_eq!(done["status"], "partial", "{done}");
    }
    let refused = &slot(&world, "asker/a", 0).await["outbox"][0];
    assert_eq!(
        (&refused["status"], &refused["error"]["code"]),
        (&json!("refused"), &json!("effect_not_allowed")),
        "{refused}"
    );
    assert_eq!(server.asked(), Vec::<String>::new());
    let wrong = json!({ "runtime": "luau", "module": ASKER, "effects": ["ftp://a/"] });
    let text = wrong.to_string();
    let answer = world.ask("PUT", "/api/v1/processes/wrong", &text).await;
    assert_eq!(answer.status, 400, "{}", answer.text());
}

#[tokio::test]
async fn a_call_that_is_given_up_is_a_letter_and_can_be_made_after_all() {
    let world = World::new().await;
    let broken = Some(("500 Internal Server Error", ""));
    let server = Elsewhere::start(&[broken]).await;
    asker(&world, json!([server.url])).await;
    let done = push(&world, "asker/a", json!({ "ask": server.url, "ttl_ms": 100 })).await;
    assert_eq!(done["status"], "partial", "{done}");
    let kept = letters(&world, &done["push_id"]).await;
    let letter = &kept[0];
    assert_eq!(
        (&letter["code"], &letter["reason"]),
        (&json!("effect_failed"), &json!("status 500")),
        "{letter}"
    );
    assert_eq!(letter["target"], format!("POST {}", server.url));
    *server.answers.lock() = vec![Some(("200 OK", "2"))];
    let redrive = format!("/api/v1/letters/{}/redrive", letter["id"].as_str().unwrap());
    let answer = world.post(&redrive, &json!({})).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let done = complete(&world, &done).await;
    assert_eq!(done["status"], "ok", "{done}");
    assert_eq!(state(&world, "asker/a", "last").await["body"], 2);
}

#[tokio::test]
async fn what_was_called_off_is_not_asked() {
    let world = World::new().await;
    let server = Elsewhere::start(&[Some(("200 OK", "1"))]).await;
    asker(&world, json!([server.url])).await;
    let ask = json!({ "ask": server.url, "delay_ms": 1_000 });
    let begun = push_with(&world, "asker/a", ask, json!({ "await": "slot" })).await.json();
    let path = format!("/api/v1/pushes/{}", begun["push_id"].as_str().unwrap());
    assert_eq!(world.ask("DELETE", &path, "").await.status, 200);
    let done = complete(&world, &begun).await;
    assert_eq!(done["status"], "cancelled", "{done}");
    assert_eq!(server.asked(), Vec::<String>::new());
    until(|| async { slot(&world, "asker/a", 1).await["status"] == "cancelled" }).await;
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert_eq!(state(&world, "asker/a", "answers").await, Value::Null);
}
