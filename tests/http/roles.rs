//! Who may use which route, asked of every route that the description names, and of every opcode.

use bytes::BytesMut;
use onrush::base::random::SystemRandom;
use onrush::config::{Secret, Settings};
use onrush::state::effect::ProducerSub;
use onrush::wire::auth::role::Role;
use onrush::wire::auth::tokens;
use onrush_client::{Client, Code, Message};
use onrush_protocol::request::{Hello, Token};
use onrush_protocol::{Opcode, Request, Response, ShortText, frame};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::client::World;

/// One operation of the description: method, path with its parameters filled in, and level.
async fn operations(world: &World, base: &str) -> Vec<(String, String, String)> {
    let description = world.get(&format!("{base}/openapi.json")).await;
    assert_eq!(description.status, 200);
    let description = description.json();
    let mut found = Vec::new();
    for (path, operations) in description["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            let level = operation["x-level"].as_str();
            let level = level.unwrap_or_else(|| panic!("{method} {path} has no level"));
            let filled = format!("{base}{}", path.replace(['{', '}'], ""));
            found.push((method.to_uppercase(), filled, level.to_owned()));
        }
    }
    found
}

/// A token for each role, named after it, and the setting that lets a server know them.
pub(crate) fn tokens() -> ([(Role, String); 3], String) {
    let mut lines = Vec::new();
    let tokens = Role::ALL.map(|role| {
        let name = ProducerSub::new(&format!("the {}", role.name())).unwrap();
        let (token, line) = tokens::make(&name, role, &SystemRandom);
        lines.push(line);
        (role, token)
    });
    (tokens, lines.join(","))
}

pub(crate) fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}\r\n")
}

#[tokio::test]
async fn every_route_takes_exactly_the_roles_that_its_level_names() {
    let (tokens, setting) = tokens();
    let world = World::with(|settings| settings.auth.tokens = setting).await;
    for base in ["", "/queen"] {
        let operations = operations(&world, base).await;
        assert!(operations.len() > 20, "{operations:?}");
        for (method, path, level) in operations {
            let least = Role::named(&level);
            assert_eq!(least.is_none(), level == "public", "{method} {path}: {level}");
            let mut wire = world.connect().await;
            let answer = wire.ask(&method, &path, "").await;
            assert_eq!(answer.status == 401, least.is_some(), "{method} {path}: {answer:?}");
            if least.is_some() {
                assert_eq!(answer.error().1, "Authentication required");
            }
            let wrong = wire.ask_with(&method, &path, &bearer("onrush_wrong"), "").await;
            assert_eq!(wrong.status == 401, least.is_some(), "{method} {path}: {wrong:?}");
            for (role, token) in &tokens {
                let answer = wire.ask_with(&method, &path, &bearer(token), "").await;
                let may = least.is_none_or(|least| *role >= least);
                assert_eq!(answer.status != 403, may, "{method} {path} as {role:?}: {answer:?}");
                assert!(!matches!(answer.status, 401 | 405), "{method} {path}: {answer:?}");
                if answer.status == 403 {
                    assert_eq!(answer.error().1, "Insufficient permissions");
                }
                if answer.status == 404 {
                    assert_ne!(answer.error().2, "route_not_found", "{method} {path}");
                }
            }
        }
    }
}

#[tokio::test]
async fn the_description_is_openapi_3_1_and_public() {
    let world = World::with(|settings| settings.server.token = Secret::new("s3cret")).await;
    let description = world.get("/openapi.json").await.json();
    assert_eq!(description["openapi"], "3.1.0");
    assert_eq!(description["servers"][0]["url"], "/");
    let push = &description["paths"]["/api/v1/push"]["post"];
    assert_eq!(push["x-level"], "read-write");
    assert_eq!(push["operationId"], "push");
    let queue = &description["paths"]["/api/v1/resources/queues/{queue}"]["delete"];
    assert_eq!(queue["x-level"], "admin");
    assert_eq!(queue["parameters"][0]["name"], Value::from("queue"));
    let queen = world.get("/queen/openapi.json").await.json();
    assert_eq!(queen["servers"][0]["url"], "/queen");
}

#[tokio::test]
async fn a_body_that_lacks_what_its_description_requires_is_refused() {
    let world = World::new().await;
    let mut described = 0;
    for base in ["", "/queen"] {
        let description = world.get(&format!("{base}/openapi.json")).await.json();
        for (path, operations) in description["paths"].as_object().unwrap() {
            let body = &operations["post"]["requestBody"];
            if body["required"] != true {
                continue;
            }
            let schema = &body["content"]["application/json"]["schema"];
            assert!(
                schema["required"].is_array() || schema["anyOf"].is_array(),
                "{path}: {schema}"
            );
            let path = format!("{base}{}", path.replace(['{', '}'], ""));
            let lacking = world.ask("POST", &path, "{}").await;
            assert_eq!(lacking.status, 400, "{path}: {lacking:?}");
            assert_eq!(world.ask("POST", &path, "").await.status, 400, "{path}");
            described += 1;
        }
    }
    assert!(described > 20, "{described}");
}

#[tokio::test]
async fn figures_that_are_left_out_of_the_skipped_paths_need_a_token() {
    let (tokens, setting) = tokens();
    let world = World::with(|settings| {
        settings.auth.tokens = setting;
        settings.auth.skip_paths = "/health,/api/v1/resources/".to_owned();
    })
    .await;
    for (path, status) in [
        ("/health", 200),
        ("/livez", 200),
        ("/metrics", 401),
        ("/api/v1/resources/queues", 200),
        ("/api/v1/dlq", 401),
    ] {
        assert_eq!(world.get(path).await.status, status, "{path}");
    }
    let mut wire = world.connect().await;
    let figures = wire.ask_with("GET", "/metrics", &bearer(&tokens[0].1), "").await;
    assert_eq!(figures.status, 200);
}

/// A client of the binary port with this token.
async fn client(world: &World, token: &str) -> Result<Client, onrush_client::Error> {
    let addr = world.server.tcp_addr().to_string();
    Client::builder().addr(&addr).token(token).retries(0).connect().await
}

#[tokio::test]
async fn the_binary_protocol_asks_for_the_same_tokens_and_roles() {
    let (tokens, setting) = tokens();
    let world = World::with(|settings| settings.auth.tokens = setting).await;
    let refused = client(&world, "wrong").await.unwrap_err();
    assert_eq!(refused.code(), Some(Code::Unauthenticated), "{refused:?}");
    for (role, token) in tokens {
        let client = client(&world, &token).await.unwrap();
        let outcome = |result: Result<(), onrush_client::Error>| match result {
            Ok(()) => true,
            Err(error) => {
                assert_eq!(error.code(), Some(Code::Forbidden), "{error:?}");
                false
            }
        };
        let stats = client.stats().await.map(|_| ());
        assert!(outcome(stats), "{role:?}");
        let push = client.queue("q").push([Message::json(&Value::from(1))]).await.map(|_| ());
        assert_eq!(outcome(push), role >= Role::ReadWrite, "{role:?}");
        let delete = client.queue("q").delete().await.map(|_| ());
        assert_eq!(outcome(delete), role == Role::Admin, "{role:?}");
    }
}

/// Every opcode of a request, with the role that it needs at least, as docs/security.md says.
const LEVELS: &[(Role, &[Opcode])] = &[
    (
        Role::ReadOnly,
        &[
            Opcode::Ping,
            Opcode::Stats,
            Opcode::ListGroups,
            Opcode::GroupLag,
            Opcode::ListMessages,
            Opcode::GetMessage,
            Opcode::ListLetters,
            Opcode::ListJobs,
            Opcode::ListQueues,
            Opcode::GetPush,
            Opcode::GetProcess,
        ],
    ),
    (
        Role::ReadWrite,
        &[
            Opcode::Push,
            Opcode::Pop,
            Opcode::Ack,
            Opcode::Extend,
            Opcode::Configure,
            Opcode::Seek,
            Opcode::Subscribe,
            Opcode::Transaction,
            Opcode::ChangeMessage,
            Opcode::BeginJob,
            Opcode::CancelJob,
            Opcode::PopKnown,
            Opcode::PopAny,
            Opcode::PushProcess,
            Opcode::PushSlot,
            Opcode::CancelPush,
            Opcode::ChangeProcess,
        ],
    ),
    (Role::Admin, &[Opcode::DeleteQueue, Opcode::DeleteGroup, Opcode::ClearQueue]),
];

/// Asks with a body that no request has: whoever may make it is told so, and nobody else.
async fn ask(stream: &mut TcpStream, opcode: Opcode) -> Code {
    let mut out = BytesMut::new();
    frame::encode(opcode.number(), 7, &mut out, |body| body.extend_from_slice(&[0xff; 3]));
    stream.write_all(&out).await.unwrap();
    let mut input = BytesMut::new();
    loop {
        if let Some(frame) = frame::decode(&mut input, 1 << 20).unwrap() {
            match Response::decode(frame.opcode, frame.body).unwrap() {
                Response::Failure(failure) => return failure.known().unwrap(),
                other => panic!("{opcode:?} is answered by {other:?}"),
            }
        }
        assert_ne!(stream.read_buf(&mut input).await.unwrap(), 0, "{opcode:?} ends it");
    }
}

#[tokio::test]
async fn every_opcode_takes_exactly_the_roles_of_its_level() {
    let (tokens, setting) = tokens();
    let world = World::with(|settings| settings.auth.tokens = setting).await;
    let named: usize = LEVELS.iter().map(|(_, opcodes)| opcodes.len()).sum();
    let requests = Opcode::ALL.iter().filter(|it| it.is_request() && **it != Opcode::Hello);
    assert_eq!(requests.count(), named, "each opcode is named once");
    for (role, token) in &tokens {
        let mut stream = TcpStream::connect(world.server.tcp_addr()).await.unwrap();
        let hello = Request::Hello(Hello {
            version_min: 1,
            version_max: 1,
            client: ShortText::lossy("roles"),
            token: Some(Token::parse(token.clone().into_bytes().into()).unwrap()),
        });
        let mut out = BytesMut::new();
        hello.encode_frame(1, &mut out);
        stream.write_all(&out).await.unwrap();
        let mut input = BytesMut::new();
        while frame::decode(&mut input, 1 << 20).unwrap().is_none() {
            assert_ne!(stream.read_buf(&mut input).await.unwrap(), 0);
        }
        for (least, opcodes) in LEVELS {
            for opcode in *opcodes {
                let code = ask(&mut stream, *opcode).await;
                let may = role >= least;
                assert_eq!(code != Code::Forbidden, may, "{opcode:?} as {role:?}: {code:?}");
            }
        }
    }
}

#[tokio::test]
async fn a_blank_list_of_tokens_lets_nobody_in() {
    for blank in [",", " ", "# nobody yet"] {
        let world = World::with(|settings| settings.auth.tokens = blank.to_owned()).await;
        assert_eq!(world.get("/api/v1/resources/queues").await.status, 401, "{blank:?}");
        let refused = client(&world, "any").await.unwrap_err();
        assert_eq!(refused.code(), Some(Code::Unauthenticated), "{blank:?}");
    }
}

#[tokio::test]
async fn a_file_of_tokens_is_read_again_when_it_changes() {
    let (tokens, setting) = tokens();
    let lines: Vec<String> = setting.split(',').map(str::to_owned).collect();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tokens");
    std::fs::write(&file, "# nobody yet\n").unwrap();
    let world = World::with(|settings: &mut Settings| {
        settings.auth.tokens_file = file.to_str().unwrap().to_owned();
        settings.tls.reload_interval_ms = 50;
    })
    .await;
    let headers = bearer(&tokens[2].1);
    let path = "/api/v1/resources/queues";
    let ask = async |status: u16| {
        for _ in 0..600 {
            let answer = world.connect().await.ask_with("GET", path, &headers, "").await;
            if answer.status == status {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        panic!("never {status}");
    };
    ask(401).await;
    std::fs::write(&file, format!("{}\n", lines[2])).unwrap();
    ask(200).await;
    std::fs::write(&file, "no token\n").unwrap();
    std::fs::write(&file, format!("{}\n", lines[0])).unwrap();
    ask(401).await;
}

#[tokio::test]
async fn a_connection_ends_its_rights_when_its_token_is_taken_back() {
    let (tokens, setting) = tokens();
    let lines: Vec<String> = setting.split(',').map(str::to_owned).collect();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tokens");
    std::fs::write(&file, lines.join("\n")).unwrap();
    let world = World::with(|settings: &mut Settings| {
        settings.auth.tokens_file = file.to_str().unwrap().to_owned();
        settings.tls.reload_interval_ms = 50;
    })
    .await;
    let (kept, taken) = (&tokens[1].1, &tokens[2].1);
    let (kept, taken) = (client(&world, kept).await.unwrap(), client(&world, taken).await.unwrap());
    assert!(kept.ping().await.is_ok() && taken.ping().await.is_ok());
    let queue = taken.queue("q");
    let waits =
        tokio::spawn(
            async move { queue.pop().wait(std::time::Duration::from_secs(600)).send().await },
        );
    std::fs::write(&file, &lines[1]).unwrap();
    for _ in 0..600 {
        match taken.ping().await {
            Ok(_) => tokio::time::sleep(std::time::Duration::from_millis(50)).await,
            Err(error) => {
                assert_eq!(error.code(), Some(Code::Unauthenticated), "{error:?}");
                // What comes now is not for one who waits since before.
                kept.queue("q").push([Message::json(&Value::from(1))]).await.unwrap();
                let refused = waits.await.unwrap().unwrap_err();
                assert_eq!(refused.code(), Some(Code::Unauthenticated), "{refused:?}");
                let popped = kept.queue("q").pop().wait(std::time::Duration::from_secs(60));
                assert_eq!(popped.send().await.unwrap().len(), 1, "and nobody holds it");
                return;
            }
        }
    }
    panic!("the connection outlived its token");
}
