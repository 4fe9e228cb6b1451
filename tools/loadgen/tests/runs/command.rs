//! The binary, run to its end.

use std::process::Command;

use serde_json::Value;

/// Runs the binary with `--json`; its exit code and its last line.
///
/// # Panics
/// Where there was no run at all.
pub(crate) async fn run(arguments: &str) -> (i32, Value) {
    let arguments: Vec<String> = arguments.split_whitespace().map(str::to_owned).collect();
    let output = tokio::task::spawn_blocking(move || {
        let folder = tempfile::tempdir().unwrap();
        Command::new(env!("CARGO_BIN_EXE_onrush-load"))
            .args(arguments)
            .args(["--json", "--data-dir"])
            .arg(folder.path())
            .output()
            .unwrap()
    })
    .await
    .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let last = text.lines().last().unwrap_or("null");
    let report = serde_json::from_str(last).unwrap_or(Value::Null);
    let code = output.status.code().unwrap();
    assert!(code != 2, "{}", String::from_utf8_lossy(&output.stderr));
    (code, report)
}
