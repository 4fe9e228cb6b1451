//! The README does what it says: its tour with curl is run as it stands there, against a real server,
//! and every command line that it and the docs name is one that the server understands.
//!
//! Of the tour only the address is replaced, and `<fields>` by what an answer before gave, as its
//! reader must. Comments right below a command are its answer; they are held against what came.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test may fail where it stands, and tells its figures"
)]

#[path = "support/docs.rs"]
mod docs;
#[path = "support/process.rs"]
#[allow(dead_code, reason = "these tests do not ask for everything")]
mod process;

use std::path::Path;
use std::process::Command;

use docs::{Step, fill, steps};
use process::ServerProcess;
use serde_json::Value;

/// How the README's opening line of the tour is marked; renderers show only the first word's colours.
const TOUR: &str = "sh tour";
/// Where the README's reader has the server.
const ADDRESS: &str = "http://localhost:6632";
/// Fields whose values are new with every run.
const VARYING: &[&str] =
    &["transaction_id", "message_id", "partition_id", "transactionId", "version"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Where an answer is not what the page shows: other fields, other kinds of values, or other values
/// in fields that do not vary.
fn difference(shown: &Value, came: &Value, at: &str) -> Option<String> {
    match (shown, came) {
        (Value::Object(shown), Value::Object(came)) => {
            let names = |it: &serde_json::Map<String, Value>| {
                let mut names: Vec<String> = it.keys().cloned().collect();
                names.sort();
                names
            };
            if names(shown) != names(came) {
                return Some(format!("{at}: {:?} is shown, {:?} came", names(shown), names(came)));
            }
            shown.iter().find_map(|(name, it)| difference(it, &came[name], &format!("{at}.{name}")))
        }
        (Value::Array(shown), Value::Array(came)) if shown.len() == came.len() => {
            shown.iter().zip(came).find_map(|(shown, came)| difference(shown, came, at))
        }
        (Value::String(_), Value::String(_))
            if VARYING.contains(&at.rsplit('.').next().unwrap_or_default()) =>
        {
            None
        }
        (shown, came) => (shown != came).then(|| format!("{at}: {shown} is shown, {came} came")),
    }
}

/// Whether an answer says that something was not done, as a whole or of one item.
fn is_refusal(answer: &Value) -> bool {
    let items = answer.as_array().map_or(std::slice::from_ref(answer), Vec::as_slice);
    let refused = |it: &Value| !it["error"].is_null() || it["success"] == false;
    items.iter().any(|it| refused(it) || it["pushed"] == false)
}

fn run(command: &str) -> Value {
    let output = Command::new("sh").args(["-c", command]).output().unwrap();
    let (said, errors) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command}{}: {said} {errors}", output.status);
    serde_json::from_str(&said).unwrap_or_else(|error| panic!("{command}{error}: {said:?}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tour_works_as_it_stands_there() {
    let page = std::fs::read_to_string(root().join("README.md")).unwrap();
    let blocks = docs::fences(&page, TOUR);
    assert_eq!(blocks.len(), 1, "one block of README.md is marked {TOUR:?}");
    let folder = tempfile::tempdir().unwrap();
    let mut server = ServerProcess::spawn(folder.path());
    server.listening().await;
    let url = server.http_url();
    let walk = move || {
        let (mut answers, mut shown) = (Vec::new(), 0);
        for Step { command, answer } in steps(&blocks[0]) {
            assert!(command.contains(ADDRESS), "it asks nobody: {command}");
            let came = run(&fill(&command.replace(ADDRESS, &url), &answers));
            assert!(!is_refusal(&came), "{command}{came}");
            if !answer.is_empty() {
                let expected: Value = serde_json::from_str(&answer)
                    .unwrap_or_else(|error| panic!("{command}{answer}: {error}"));
                let different = difference(&expected, &came, "answer");
                assert_eq!(different, None, "below {command}{came}");
                shown += 1;
            }
            answers.push(came);
        }
        (answers.len(), shown)
    };
    let (commands, shown) = tokio::task::spawn_blocking(walk).await.unwrap();
    assert!(commands >= 7 && shown >= 4, "{commands} commands, {shown} with answers");
}

/// Whether an answer is what the page says behind the command: a field with its value, or words.
fn is_as_said(came: &Value, said: &str) -> bool {
    let Some((name, value)) = said.split_once(": ") else { return false };
    match serde_json::from_str::<Value>(value) {
        Ok(value) => came[name.trim_matches('"')] == value,
        Err(_) => [name, value].iter().all(|words| came.to_string().contains(words)),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_examples_of_processes_work_as_they_stand_there() {
    let folder = root().join("examples/processes");
    let page = std::fs::read_to_string(folder.join("README.md")).unwrap();
    let blocks = docs::fences(&page, "sh");
    let data = tempfile::tempdir().unwrap();
    let mut server = ServerProcess::spawn(data.path());
    server.listening().await;
    let url = server.http_url();
    let walk = move || {
        let (first, blocks) = blocks.split_first().unwrap();
        let first = first.replace("http://127.0.0.1:6632", &url);
        assert!(first.contains(&url), "it asks nobody: {first}");
        let (mut commands, mut said) = (0, 0);
        for line in blocks.iter().flat_map(|block| block.lines()).filter(|line| !line.is_empty()) {
            let (command, comment) = line.split_once(" # ").unwrap_or((line, ""));
            let place = folder.display();
            let came = run(&format!("cd '{place}'\n{first}{command}"));
            assert!(came["code"].is_null(), "{command}: {came}");
            commands += 1;
            if !comment.is_empty() {
                assert!(is_as_said(&came, comment.trim()), "{command}: {came}, and not {comment}");
                said += 1;
            }
        }
        (commands, said)
    };
    let (commands, said) = tokio::task::spawn_blocking(walk).await.unwrap();
    assert!(commands >= 12 && said >= 4, "{commands} commands, {said} with answers");
}

#[test]
fn the_server_knows_every_command_line_that_pages_name() {
    let count = docs::check_all(root(), "onrush", env!("CARGO_BIN_EXE_onrush"));
    assert!(count >= 4, "{count} found");
}

#[test]
fn a_flag_that_does_not_exist_is_seen_wherever_a_page_names_it() {
    for page in [
        "Say `onrush --no-such-flag`.",
        "Say `onrush config show\n--no-such-flag` and wait.",
        "Say `onrush serve --log-level warn`, or `--no-such-flag` at times.",
        "```sh\nONRUSH_LOG_LEVEL=warn target/release/onrush \\\n  --no-such-flag\n```",
        "```sh\ncargo run --release -- --no-such-flag\n```",
    ] {
        let lines = docs::command_lines(page, "onrush");
        let known = docs::is_known(env!("CARGO_BIN_EXE_onrush"), lines.last().unwrap());
        assert!(known.unwrap_err().contains("--no-such-flag"), "{page}");
    }
    let fine = docs::command_lines("Look: `onrush log inspect <a folder>/failover`.", "onrush");
    assert_eq!(fine, [["log", "inspect", "a_folder/failover"]]);
    docs::is_known(env!("CARGO_BIN_EXE_onrush"), &fine[0]).unwrap();
}

#[test]
fn a_block_is_cut_into_commands_and_their_answers() {
    let block = "# Say it.\ncurl -d '{\n  # no comment\n}' \\\n  there\n# {\"a\":\n#  1}\n\n# And\ncurl x\ncurl y\n";
    let step =
        |command: &str, answer: &str| Step { command: command.into(), answer: answer.into() };
    let first = step("curl -d '{\n  # no comment\n}' \\\n  there\n", " {\"a\":  1}");
    assert_eq!(steps(block), [first, step("curl x\n", ""), step("curl y\n", "")]);
}

#[test]
fn an_answer_that_is_not_as_shown_is_seen() {
    let shown = serde_json::json!({ "messages": [{ "message_id": "a", "status": "pushed" }] });
    let came = |text: &str| difference(&shown, &serde_json::from_str(text).unwrap(), "answer");
    assert_eq!(came(r#"{"messages":[{"message_id":"b","status":"pushed"}]}"#), None);
    for other in [
        r#"{"messages":[{"message_id":"b","status":"duplicate"}]}"#,
        r#"{"messages":[{"message_id":7,"status":"pushed"}]}"#,
        r#"{"messages":[{"id":"b","status":"pushed"}]}"#,
        r#"{"messages":[]}"#,
        r#"{"messages":[{"message_id":"b","status":"pushed"}],"more":1}"#,
    ] {
        assert!(came(other).is_some(), "{other}");
    }
    for refused in [r#"{"error":"no","code":"x"}"#, r#"[{"success":false}]"#, r#"{"pushed":false}"#]
    {
        assert!(is_refusal(&serde_json::from_str(refused).unwrap()), "{refused}");
    }
}
