//! The page about `onrushctl` does what it says: its tour is run as it stands there against a real server,
//! and every command line that the README and the docs name is one that it understands.
//!
//! `<fields>` in a command are what an answer before gave, as the page's reader puts them in. Comments right
//! below a command are its answer: its fields are held against what came.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test may fail where it stands, and tells its figures"
)]

#[path = "../../../tests/support/docs.rs"]
mod docs;
#[path = "../../../tests/support/process.rs"]
#[allow(dead_code, reason = "these tests do not ask for everything")]
mod process;

use std::path::{Path, PathBuf};
use std::process::Command;

use docs::{Step, fill, steps};
use process::ServerProcess;
use serde_json::Value;

/// Fields whose values are new with every run.
const VARYING: &[&str] = &["messageId", "partitionId"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

#[test]
fn it_knows_every_command_line_that_pages_name() {
    let count = docs::check_all(&root(), "onrushctl", env!("CARGO_BIN_EXE_onrushctl"));
    assert!(count >= 40, "{count} found");
    let lines = docs::command_lines("`onrushctl pop q --no-such-flag`", "onrushctl");
    let known = docs::is_known(env!("CARGO_BIN_EXE_onrushctl"), &lines[0]);
    assert!(known.unwrap_err().contains("--no-such-flag"));
}

#[test]
fn the_tour_works_as_it_stands_there() {
    let page = std::fs::read_to_string(root().join("docs/ctl.md")).unwrap();
    let blocks = docs::fences(&page, "sh tour");
    assert_eq!(blocks.len(), 1);
    let folder = tempfile::tempdir().unwrap();
    let mut server = ServerProcess::spawn(folder.path());
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let tcp = runtime.block_on(server.listening()).to_string();
    let (mut answers, mut shown) = (Vec::new(), 0);
    for Step { command, answer } in steps(&blocks[0]) {
        let command = fill(&command, &answers);
        let came = run(&command, &server.http_url(), &tcp, folder.path());
        if !answer.is_empty() {
            let expected: Value = serde_json::from_str(&answer)
                .unwrap_or_else(|error| panic!("{command}{answer}: {error}"));
            assert_eq!(still(&expected), still(&came[0]), "below {command}");
            shown += 1;
        }
        assert!(!came.is_empty(), "{command} says nothing");
        answers.extend(came);
    }
    assert!(answers.len() >= 14 && shown >= 2, "{} answers, {shown} shown", answers.len());
    let job = answers.iter().find(|answer| answer["action"] == "redrive").unwrap();
    assert_eq!(
        (&job["moved"], &job["status"]),
        (&1.into(), &"done".into()),
        "what was given up came back"
    );
    let sought = answers.last().unwrap();
    assert!(sought["partitionsUpdated"].as_u64().unwrap() >= 1, "{sought}");
}

/// An answer without what is new with every run.
fn still(answer: &Value) -> Value {
    let mut answer = answer.clone();
    for name in VARYING {
        if let Some(field) = answer.get_mut(*name) {
            assert!(field.is_string(), "{name}: {field}");
            *field = Value::Null;
        }
    }
    answer
}

/// Runs a command as a shell does; the JSON values that it printed.
fn run(command: &str, server: &str, tcp: &str, folder: &Path) -> Vec<Value> {
    let binaries = Path::new(env!("CARGO_BIN_EXE_onrushctl")).parent().unwrap();
    let path = format!("{}:{}", binaries.display(), std::env::var("PATH").unwrap());
    let output = Command::new("sh")
        .args(["-c", command])
        .env("PATH", path)
        .env("ONRUSH_SERVER", server)
        .env("ONRUSH_TCP", tcp)
        .env("XDG_CONFIG_HOME", folder)
        .env_remove("ONRUSH_TOKEN")
        .output()
        .unwrap();
    let (said, errors) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command}{}: {said} {errors}", output.status);
    let values = serde_json::Deserializer::from_str(&said).into_iter();
    values.collect::<Result<_, _>>().unwrap_or_else(|error| panic!("{command}{error}: {said:?}"))
}
